"""
The extended PID that a host presents, and the hardware id beside it.

A genuine host has both from its key and its machine; ours derives them.  Nothing is drawn at random here and nothing
is stored but an L{Installation}: sixteen bytes that were random once, and a day.  Every value is taken from HMAC-SHA256
under these bytes over a label that says what the value is for, so a host answers alike after every restart, two hosts
answer differently, and one value tells nothing of another.  Only the key group and the host build go into a label,
never the rest of the catalogue, so adding products or key groups to it changes no extended PID.

Source: the specification "KMS messages, versions 4, 5 and 6", section "The extended PID".
"""

from __future__ import annotations

import hmac
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from typing import TypeVar

from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import CSVLK, MAX_KEY_ID, HostBuild
from kmsproto.kms.messages import HARDWARE_ID_LENGTH

#: Bytes of L{Installation.identifier}.
INSTALLATION_IDENTIFIER_LENGTH = 16

_T = TypeVar("_T")

_SHAPE = re.compile(
    r"(\d{5})-(\d{5})-(\d{3})-(\d{6})-03-(0|[1-9]\d*)-(0|[1-9]\d*)\.0000-(\d{3})(\d{4})", re.ASCII
)


class EPIDError(KMSProtoError, ValueError):
    """
    A text is no extended PID, or no extended PID can be made of what was given.
    """


@dataclass(frozen=True, slots=True)
class ExtendedPID:
    """
    An extended PID in its parts: C{PPPPP-GGGGG-KKK-KKKKKK-03-LCID-BUILD.0000-DDDYYYY} as text.

    The text never has more than 52 characters, so as UTF-16LE it always fits the 126 bytes that a response has for it.

    @ivar platform_id: By host build, up to five digits.
    @ivar group_id: By key group, up to five digits.
    @ivar key_id: By host key, up to nine digits.
    @ivar lcid: The locale id of the host, 20 bits.
    @ivar build: The host build, up to five digits.
    @ivar day: The day on which the host key was activated.
    @raise EPIDError: If a part has more digits than it can have.
    """

    platform_id: int
    group_id: int
    key_id: int
    lcid: int
    build: int
    day: date

    def __post_init__(self) -> None:
        for name, value, high in (
            ("platform id", self.platform_id, 99_999),
            ("group id", self.group_id, 99_999),
            ("key id", self.key_id, MAX_KEY_ID),
            ("locale id", self.lcid, 0xFFFFF),
            ("build", self.build, 99_999),
        ):
            if not 0 <= value <= high:
                raise EPIDError(f"the {name} of an extended PID is from 0 to {high}, not {value}")

    def __str__(self) -> str:
        high, low = divmod(self.key_id, 1_000_000)
        day_of_year = self.day.timetuple().tm_yday
        return (
            f"{self.platform_id:05}-{self.group_id:05}-{high:03}-{low:06}-03-{self.lcid}"
            f"-{self.build}.0000-{day_of_year:03}{self.day.year:04}"
        )

    @classmethod
    def parse(cls, text: str) -> ExtendedPID:
        """
        Read an extended PID; C{str()} of the result is the text again.

        @raise EPIDError: If the text departs from the shape in any way, or names a day that no calendar has.
        """
        # A text that is far too long is refused before any of its digits is made a number.
        match = _SHAPE.fullmatch(text) if len(text) <= 63 else None
        if match is None:
            raise EPIDError(f"this is not the form of an extended PID: {text[:63]!r}")
        platform_id, group_id, high, low, lcid, build, day_of_year, year = map(int, match.groups())
        return cls(
            platform_id,
            group_id,
            high * 1_000_000 + low,
            lcid,
            build,
            _day(text, year, day_of_year),
        )


@dataclass(frozen=True, slots=True)
class Installation:
    """
    What makes one host differ from another, for as long as it is installed.

    @ivar identifier: 16 bytes, drawn at random when the host was installed.
    @ivar created: The day of that, which no activation of the host can be later than.
    @raise EPIDError: If the identifier has another size.
    """

    identifier: bytes
    created: date

    def __post_init__(self) -> None:
        if len(self.identifier) != INSTALLATION_IDENTIFIER_LENGTH:
            raise EPIDError(
                f"the identifier of an installation has {INSTALLATION_IDENTIFIER_LENGTH} bytes,"
                f" not {len(self.identifier)}"
            )


def derive_epid(
    installation: Installation, csvlk: CSVLK, host_build: HostBuild, lcid: int
) -> ExtendedPID:
    """
    Derive the extended PID that an installation has for one key group.

    Each key id of the group is equally likely, and so is each day from the later of the two releases up to the day of
    the installation.  If that lies before the releases, its clock was wrong, and the later release it is.

    @param lcid: The locale id of the host.
    @raise EPIDError: If the build is too old for a key of the group, or the locale id is none.
    """
    if host_build.build in csvlk.invalid_host_builds:
        raise EPIDError(
            f"host build {host_build.build} ({host_build.name}) is too old"
            f" for a host key of group {csvlk.key!r} ({csvlk.name})"
        )
    released = max(csvlk.release_date, host_build.release_date)
    days = max((installation.created - released).days, 0) + 1
    context = f"{csvlk.key}\0{host_build.build}"
    return ExtendedPID(
        platform_id=host_build.platform_id,
        group_id=csvlk.group_id,
        key_id=_key_id(installation, f"key id\0{context}", csvlk.key_id_ranges),
        lcid=lcid,
        build=host_build.build,
        day=released + timedelta(days=_draw(installation, f"activation day\0{context}", days)),
    )


def derive_hardware_id(installation: Installation) -> bytes:
    """
    Derive the hardware id that an installation reports in responses of version 6.

    @return: 8 bytes.
    """
    return _digest(installation, "hardware id")[:HARDWARE_ID_LENGTH]


def pick(installation: Installation, purpose: str, choices: Sequence[_T]) -> _T:
    """
    Pick one of some things, each of which is equally likely, and always the same of the same things.

    @param purpose: What for: picks for different purposes tell nothing of one another.
    @param choices: The things, at least one.
    """
    return choices[_draw(installation, f"pick\0{purpose}", len(choices))]


def _digest(installation: Installation, label: str) -> bytes:
    return hmac.digest(installation.identifier, f"kmsproto\0{label}".encode(), "sha256")


def _key_id(installation: Installation, label: str, ranges: Sequence[tuple[int, int]]) -> int:
    """
    Draw a number from inclusive ranges as if they were laid end to end, so that a long one counts for more.
    """
    ends = list(accumulate(last - first + 1 for first, last in ranges))
    index = _draw(installation, label, ends[-1])
    place = bisect_right(ends, index)
    return ranges[place][1] + 1 - (ends[place] - index)


def _draw(installation: Installation, label: str, choices: int) -> int:
    """
    Draw a number below C{choices}.

    The remainder of 256 bits by less than 2**30 choices favours none of them by more than one in 2**226: no bias that
    anybody could see, and nothing to repeat.
    """
    return int.from_bytes(_digest(installation, label), "big") % choices


def _day(text: str, year: int, day_of_year: int) -> date:
    try:
        day = date(year, 1, 1) + timedelta(days=day_of_year - 1)
    except (ValueError, OverflowError):  # year 0; past the end of year 9999
        day = date.min
    if (day.year, day.timetuple().tm_yday) != (year, day_of_year):
        raise EPIDError(f"day {day_of_year} of year {year} is no day: {text!r}")
    return day
