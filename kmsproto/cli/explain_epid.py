"""
C{kmsproto explain epid}: an extended PID taken apart, and what in it no genuine host would say.

Source: "KMS messages, versions 4, 5 and 6", section "The extended PID"; the catalogue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from kmsproto.cli.explain_locales import locale_name
from kmsproto.kms.catalog import CSVLK, Catalog
from kmsproto.kms.epid import EPIDError, ExtendedPID
from kmsproto.kms.identity import doubts_about_epid
from kmsproto.kms.plausibility import csvlks_of

_BEGINNING = re.compile(r"\d{5}-\d{5}-\d{2,3}-", re.ASCII)
_LABEL = re.compile(r"[^:]*:\s*", re.ASCII)
_LONGEST_PART = 20
_AROUND = " \t\r\n\"'`.,;()[]\u201c\u201d"
_HYPHENS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
#: The parts of an extended PID, how each is written, and how that is said.
_SHAPES = (
    ("platform id", r"\d{5}", "five digits"),
    ("group id", r"\d{5}", "five digits"),
    ("first half of the key id", r"\d{3}", "three digits"),
    ("second half of the key id", r"\d{6}", "six digits"),
    ("licence channel", "03", "03, which is volume"),
    ("locale id", r"0|[1-9]\d*", "a decimal number without zeros before it"),
    ("build", r"(0|[1-9]\d*)\.0000", "a number and .0000"),
    ("day", r"\d{7}", "seven digits, the day of the year and the year"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of an extended PID.

    @ivar name: What it is called.
    @ivar text: How it is written.
    @ivar meaning: What it says.
    """

    name: str
    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class EPIDReport:
    """
    What there is to say about an extended PID.

    @ivar pid: What it says.
    @ivar parts: Its parts, in their order.
    @ivar csvlks: The host keys that it may come from.
    @ivar warnings: What no genuine host would say.
    """

    pid: ExtendedPID
    parts: tuple[Part, ...]
    csvlks: tuple[CSVLK, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        return {
            "epid": str(self.pid),
            "platform_id": self.pid.platform_id,
            "group_id": self.pid.group_id,
            "key_id": self.pid.key_id,
            "lcid": self.pid.lcid,
            "build": self.pid.build,
            "activated": self.pid.day.isoformat(),
            "parts": [
                {"name": part.name, "text": part.text, "meaning": part.meaning}
                for part in self.parts
            ],
            "csvlks": [csvlk.key for csvlk in self.csvlks],
            "warnings": list(self.warnings),
        }


def explain_epid(text: str, catalog: Catalog, today: date) -> EPIDReport:
    """
    Take an extended PID apart.

    @param today: No host was activated later.
    @raise kmsproto.kms.epid.EPIDError: If it has not the form of one.
    """
    text = _bare(text)
    try:
        pid = ExtendedPID.parse(text)
    except EPIDError as error:
        fault = _fault(text)
        raise (EPIDError(f"{error}, {fault}") if fault else error) from None
    platform, group, high, low, channel, lcid, build, day = text.split("-")
    csvlks = tuple(csvlks_of(catalog, pid))
    parts = (
        Part("platform id", platform, _platform(catalog, pid)),
        Part("group id", group, _named(csvlks) or "no host key that is known has it"),
        Part("key id", f"{high}-{low}", _key_id(pid, csvlks)),
        Part("licence channel", channel, "volume licence"),
        Part("locale id", lcid, locale_name(pid.lcid) or "not known"),
        Part("build", build, _build(catalog, pid)),
        Part("activated", day, f"{pid.day.isoformat()}: day {int(day[:3])} of {pid.day.year}"),
    )
    return EPIDReport(pid, parts, csvlks, tuple(_warnings(pid, text, catalog, csvlks, today)))


def looks_like_epid(text: str) -> bool:
    """
    Tell whether a text begins like an extended PID, right or wrong.
    """
    return _BEGINNING.match(_bare(text)) is not None


def _bare(text: str) -> str:
    """
    Take away what is no part of an extended PID: quotes, and what it is called, as in the output of C{slmgr}.
    """
    return _LABEL.sub("", text.translate(_HYPHENS), count=1).strip(_AROUND)


def _fault(text: str) -> str:
    """
    Tell which part of a text is not as it is in an extended PID; nothing if each is.
    """
    values = text.split("-")
    if len(values) != len(_SHAPES):
        return f"whose parts are {len(_SHAPES)}, not {len(values)}, with hyphens between them"
    for value, (name, shape, said) in zip(values, _SHAPES, strict=True):
        if not re.fullmatch(shape, value, re.ASCII):
            return f"whose {name} is {said}, not {value[:_LONGEST_PART]!r}"
    return ""


def _named(csvlks: tuple[CSVLK, ...]) -> str:
    return " or ".join(f"{csvlk.name} ({csvlk.key})" for csvlk in csvlks)


def _platform(catalog: Catalog, pid: ExtendedPID) -> str:
    builds = [
        str(build.build)
        for build in catalog.host_builds.values()
        if build.platform_id == pid.platform_id
    ]
    return f"that of the builds {', '.join(builds)}" if builds else "no build has it"


def _key_id(pid: ExtendedPID, csvlks: tuple[CSVLK, ...]) -> str:
    said = [
        f"in the range {first} to {last} of {csvlk.key}"
        for csvlk in csvlks
        for first, last in csvlk.key_id_ranges
        if first <= pid.key_id <= last
    ]
    return f"{pid.key_id}, " + (" and ".join(said) or "in no range of a host key of the group")


def _build(catalog: Catalog, pid: ExtendedPID) -> str:
    build = catalog.host_builds.get(pid.build)
    if build is None:
        return "not in the catalogue"
    note = "" if build.for_epid else "; not known as a KMS host"
    return f"{build.name}, released {build.release_date.isoformat()}{note}"


def _warnings(
    pid: ExtendedPID, text: str, catalog: Catalog, csvlks: tuple[CSVLK, ...], today: date
) -> list[str]:
    build = catalog.host_builds.get(pid.build)
    name = locale_name(pid.lcid)
    if csvlks:
        # Where the ranges of several keys have room for it, it is that of the key that it suits best.
        warnings = min((doubts_about_epid(catalog, csvlk, text) for csvlk in csvlks), key=len)
    else:
        warnings = [
            f"no host key has the group id {pid.group_id}; slmgr /dlv shows two extended PIDs, and that of the host"
            " is the one of the Key Management Service machine"
        ]
        if build is not None and build.platform_id != pid.platform_id:
            warnings.append(f"the platform id of build {pid.build} is {build.platform_id:05}")
        if build is not None and pid.day < build.release_date:
            warnings.append(f"on {pid.day} there was no such host yet")
    if build is None:
        warnings.append(f"build {pid.build} is not in the catalogue")
    if not name:
        warnings.append(f"no language that is known has the locale id {pid.lcid}")
    if pid.day > today:
        warnings.append(f"{pid.day} is still to come")
    return warnings
