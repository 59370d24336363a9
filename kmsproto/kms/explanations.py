"""
What the codes of an activation mean: HRESULTs, Win32 errors, RPC fault statuses, refusals of a bind or of a context.

The texts live in C{explanations.toml} beside this module and are read when somebody asks.  Reading trusts nothing, as
with the catalogue: each code is there once, each text is one printable line, and whatever an entry says is related
leads somewhere.

People meet codes in many spellings.  L{Explanations.look_up} takes them all: hexadecimal with or without C{0x}, decimal
with and without sign, a name or a part of it.  A Win32 error and the HRESULT that is made of it are the same thing, so
that each is found by the other.  Of an HRESULT that nobody knows there is still something to say: its parts
(L{Parts}).

Source: Microsoft's documentation of volume activation errors and RPC return values; MS-ERREF 2.1 for the parts of an
HRESULT; C706 appendix N and 12.6.3.1; the comments in C{explanations.toml}.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from types import MappingProxyType

from kmsproto.errors import CatalogError, KMSProtoError
from kmsproto.kms.entries import Entry, shown

#: What errors call the file that comes with the package.
BUILT_IN = "built-in explanations"
#: Who can say a code.
SPEAKERS = ("client", "KMS host", "DNS", "RPC", "Microsoft")

_MAXIMUM = 0xFFFFFFFF
_LARGEST_WIN32 = 0xFFFF
#: An HRESULT made of a Win32 error: severity 1, facility 7 (MS-ERREF 2.1.2, HRESULT_FROM_WIN32).
_WIN32_HRESULT = 0x80070000
_SHORTEST_PART = 3
_LONGEST_TEXT = 80
_NUMBER = re.compile(r"(-?)(0x)?([0-9a-f]{1,16})", re.ASCII)
_FIELDS = frozenset(
    {"kind", "code", "also", "name", "said_by", "meaning", "causes", "remedies", "related"}
)
#: The facilities that an administrator may meet (MS-ERREF 2.1.1).
_FACILITIES: Mapping[int, str] = MappingProxyType(
    {
        0: "NULL",
        1: "RPC",
        2: "DISPATCH",
        3: "STORAGE",
        4: "ITF, which each interface uses as it likes; software licensing does",
        7: "WIN32",
        8: "WINDOWS",
        9: "SECURITY",
        10: "CONTROL",
        11: "CERT",
        12: "INTERNET",
        25: "HTTP",
        36: "WINDOWSUPDATE",
    }
)


class UnknownCodeError(KMSProtoError):
    """
    A text is no code, or none that is known.

    @ivar code: The number, if it is one of 32 bits.
    """

    def __init__(self, problem: str, code: int | None = None) -> None:
        super().__init__(problem)
        self.code = code


class Kind(Enum):
    """
    What kind of a code it is.
    """

    HRESULT = "hresult"  #: what an activation ends with
    WIN32 = "win32"  #: an error of Windows, which an HRESULT may wrap and a fault may carry
    FAULT = "fault"  #: the status of a fault PDU
    BIND_NAK = "bind_nak"  #: why a bind was refused
    RESULT = "result"  #: what became of a presentation context
    REASON = "reason"  #: why a presentation context was refused

    @property
    def title(self) -> str:
        """
        What people call it.
        """
        return _TITLES[self]


_TITLES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.HRESULT: "HRESULT",
        Kind.WIN32: "Win32 error",
        Kind.FAULT: "RPC fault status",
        Kind.BIND_NAK: "reason of an RPC bind_nak",
        Kind.RESULT: "result of an RPC presentation context",
        Kind.REASON: "reason why an RPC presentation context was refused",
    }
)
_WIDE = (Kind.HRESULT, Kind.WIN32, Kind.FAULT)


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What there is to say about one code.

    @ivar kind: What kind of a code it is.
    @ivar code: The code, unsigned.
    @ivar also: Other values that it is met with.
    @ivar name: Its symbolic name; empty if none is published.
    @ivar said_by: Who says it, some of L{SPEAKERS}.
    @ivar meaning: What it means.
    @ivar causes: What it can come from, the most frequent first.
    @ivar remedies: What can be done, in the order in which to try it.
    @ivar related: The labels of other codes that are worth reading about.
    """

    kind: Kind
    code: int
    also: tuple[int, ...]
    name: str
    said_by: tuple[str, ...]
    meaning: str
    causes: tuple[str, ...]
    remedies: tuple[str, ...]
    related: tuple[str, ...]

    @property
    def label(self) -> str:
        """
        How the code is written, so that no other is written like it.
        """
        return _label(self.kind, self.code)

    @property
    def twin(self) -> str:
        """
        The Win32 error that an HRESULT is made of, and the other way about, as it is written; or nothing.
        """
        twin = _twin(self.code) if self.kind in (Kind.HRESULT, Kind.WIN32) else None
        # S_OK is the HRESULT of no error; 0x80070000 would be another one.
        return "" if twin is None or twin[0] is self.kind else _label(*twin)

    def to_json(self) -> dict[str, object]:
        """
        Turn it into what JSON can say.
        """
        return {
            "code": self.label,
            "value": self.code,
            "twin": self.twin or None,
            "kind": self.kind.value,
            "name": self.name or None,
            "said_by": list(self.said_by),
            "meaning": self.meaning,
            "causes": list(self.causes),
            "remedies": list(self.remedies),
            "related": list(self.related),
        }


def _label(kind: Kind, code: int) -> str:
    if kind in (Kind.HRESULT, Kind.FAULT):
        return f"0x{code:08X}"
    return str(code) if kind is Kind.WIN32 else f"{kind.value} {code}"


@dataclass(frozen=True, slots=True)
class Parts:
    """
    The parts of an HRESULT (MS-ERREF 2.1).

    @ivar code: The HRESULT, 32 bits.
    """

    code: int

    @property
    def failed(self) -> bool:
        """
        Whether its severity is that of a failure.
        """
        return self.code >> 31 == 1

    @property
    def facility(self) -> int:
        """
        The facility, 11 bits: whose code it is.
        """
        return self.code >> 16 & 0x7FF

    @property
    def facility_name(self) -> str:
        """
        What the facility is called; C{"unknown"} if we do not know.
        """
        return _FACILITIES.get(self.facility, "unknown")

    @property
    def number(self) -> int:
        """
        The code within the facility, 16 bits.
        """
        return self.code & 0xFFFF

    def __str__(self) -> str:
        return (
            f"severity {self.code >> 31} ({'failure' if self.failed else 'success'}),"
            f" facility {self.facility} ({self.facility_name}), code {self.number} (0x{self.number:04X})"
        )

    def to_json(self) -> dict[str, object]:
        """
        Turn it into what JSON can say.
        """
        return {
            "severity": self.code >> 31,
            "facility": self.facility,
            "facility_name": self.facility_name,
            "code": self.number,
        }


class Explanations:
    """
    All that can be explained.

    @ivar entries: In the order of the file.
    """

    def __init__(self, entries: Sequence[Explanation]) -> None:
        self.entries = tuple(entries)
        self._by_label = {entry.label: entry for entry in self.entries}

    def labelled(self, label: str) -> Explanation:
        """
        Find an entry by its L{Explanation.label}.

        @raise UnknownCodeError: If there is none.
        """
        if label not in self._by_label:
            raise UnknownCodeError(f"there is no code {label[:_LONGEST_TEXT]!r}")
        return self._by_label[label]

    def look_up(self, text: str) -> tuple[Explanation, ...]:
        """
        Find what a user means.

        @param text: A number in any spelling, a label, a name, or three letters or more of a name.  Case does not
            matter.  Eight hexadecimal digits are hexadecimal without C{0x} too.
        @return: At least one entry.
        @raise UnknownCodeError: If there is none.
        """
        number, is_hexadecimal = number_of(text)
        found = (
            self._named(_folded(text)) if number is None else self._numbered(number, is_hexadecimal)
        )
        if not found:
            raise UnknownCodeError(f"nothing is known of the code {text[:_LONGEST_TEXT]!r}", number)
        return found

    def _numbered(self, number: int, is_hexadecimal: bool) -> tuple[Explanation, ...]:
        # The reasons of RPC are small numbers, which nobody writes in hexadecimal.
        kinds = _WIDE if is_hexadecimal else tuple(Kind)
        found = [
            each
            for each in self.entries
            if each.kind in kinds and number in (each.code, *each.also)
        ]
        if not any(each.kind in _WIDE for each in found):
            twin = _twin(number)
            found[:0] = [each for each in self.entries if twin == (each.kind, each.code)]
        return tuple(found)

    def _named(self, wanted: str) -> tuple[Explanation, ...]:
        if not wanted:
            return ()
        exact = [
            each for each in self.entries if wanted in (_folded(each.name), _folded(each.label))
        ]
        if exact or len(wanted) < _SHORTEST_PART:
            return tuple(exact)
        return tuple(each for each in self.entries if wanted in _folded(each.name))


def _twin(number: int) -> tuple[Kind, int] | None:
    """
    Tell what a Win32 error is as an HRESULT, and the other way about.
    """
    if number <= _LARGEST_WIN32:
        return Kind.HRESULT, number | _WIN32_HRESULT
    if number & ~_LARGEST_WIN32 == _WIN32_HRESULT:
        return Kind.WIN32, number & _LARGEST_WIN32
    return None


def number_of(text: str) -> tuple[int | None, bool]:
    """
    Read a code that is a number.

    @return: The number, unsigned, or L{None} if the text is none; and whether it is written in hexadecimal.
    @raise UnknownCodeError: If it is a number that 32 bits do not hold.
    """
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None:
        return None, False
    sign, prefix, digits = match.groups()
    has_letters = not digits.isdigit()
    is_hexadecimal = bool(prefix) or len(digits) == 8 or has_letters
    # Not every word of a to f is a number: RPC_X_BAD_STUB_DATA is found by "bad".
    if digits.isalpha() and not prefix and len(digits) != 8:
        return None, False
    number = int(digits, 16 if is_hexadecimal else 10)
    value = -number if sign else number
    if not -(1 << 31) <= value <= _MAXIMUM:
        raise UnknownCodeError(f"{text.strip()!r} does not fit 32 bits, which every code does")
    return value & _MAXIMUM, is_hexadecimal


def _folded(text: str) -> str:
    return re.sub(r"[\s_:=-]+", "_", text.strip().casefold())


def load_explanations() -> Explanations:
    """
    Read the explanations that come with the package.

    @raise CatalogError: If the file says something that cannot be.
    """
    file = resources.files("kmsproto.kms").joinpath("explanations.toml")
    return parse_explanations(tomllib.loads(file.read_text("utf-8")), BUILT_IN)


def parse_explanations(document: Mapping[str, object], source: str) -> Explanations:
    """
    Make explanations of what a TOML file of that shape says.

    @param document: One array of tables, C{codes}, with the fields that the comments in C{explanations.toml} explain.
    @param source: Where it came from, for errors.
    @raise CatalogError: If anything in it is missing, unknown, of the wrong type, out of range or contradicted.
    """
    rows = document.get("codes")
    if set(document) != {"codes"} or not isinstance(rows, list):
        raise CatalogError(source, "file", "must have one array of tables, codes, and nothing else")
    read: list[tuple[Entry, Explanation]] = []
    taken: dict[tuple[Kind, int], Entry] = {}
    for position, row in enumerate(rows, 1):
        entry = Entry(source, "codes", position, row, _FIELDS)
        explanation = _explanation(entry, row)
        for code in (explanation.code, *explanation.also):
            before = taken.setdefault((explanation.kind, code), entry)
            if before is not entry:
                raise entry.wrong(f"{explanation.label} is already that of {before.label}")
        read.append((entry, explanation))
    labels = {explanation.label for _, explanation in read}
    for entry, explanation in read:
        for label in explanation.related:
            if label not in labels or label == explanation.label:
                raise entry.wrong(f"related names {shown(label)}, which is no other code")
    return Explanations([explanation for _, explanation in read])


def _explanation(entry: Entry, row: Mapping[str, object]) -> Explanation:
    kind = Kind(entry.key_in("kind", [kind.value for kind in Kind]))
    said_by = _lines(entry, row, "said_by")
    strangers = [who for who in said_by if who not in SPEAKERS]
    if strangers:
        raise entry.wrong(f"said_by names {shown(strangers[0])}, who says no codes")
    return Explanation(
        kind=kind,
        code=entry.integer("code", 0, _MAXIMUM if kind in _WIDE else _LARGEST_WIN32),
        also=_codes(entry, row),
        name=entry.name("name") if entry.has("name") else "",
        said_by=said_by,
        meaning=entry.name("meaning"),
        causes=_lines(entry, row, "causes"),
        remedies=_lines(entry, row, "remedies"),
        related=_lines(entry, row, "related") if entry.has("related") else (),
    )


def _lines(entry: Entry, row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """
    Take an array of texts, at least one, each of which can stand in a line of output and none of which comes twice.
    """
    values = row.get(field)
    if not isinstance(values, list) or not values:
        raise entry.wrong(f"{field} must be an array of texts, at least one")
    for value in values:
        if (
            not isinstance(value, str)
            or not value.isprintable()
            or value != value.strip()
            or not value
        ):
            raise entry.wrong(f"{field} must have printable texts, not {shown(value)}")
    if len(set(values)) != len(values):
        raise entry.wrong(f"{field} says something twice")
    return tuple(values)


def _codes(entry: Entry, row: Mapping[str, object]) -> tuple[int, ...]:
    values = row.get("also", [])
    if not isinstance(values, list) or not all(
        type(value) is int and 0 <= value <= _MAXIMUM for value in values
    ):
        raise entry.wrong("also must be an array of codes")
    return tuple(values)
