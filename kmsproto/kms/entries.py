"""
Reading one entry of a hand-written table: every field is asked for by name and kind, and checked as it is handed out.

People write catalogues by hand, so what matters here is the complaint.  An L{Entry} knows where it stands (file, table,
position, and whatever identifies it to a reader), and every mistake becomes one L{kmsproto.errors.CatalogError} of one
line in its name: an unknown field when the entry is made, everything else when the field is asked for.  Nothing is
converted on the way, so a number in quotes is an error and not a number.

What the tables mean is the business of L{kmsproto.kms.catalog}.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

from kmsproto.errors import CatalogError

_Kind = TypeVar("_Kind")

#: What a reference may name: GUIDs, by their whole text in lower case and by the first eight digits of it.
Targets = Mapping[str, Sequence[UUID]]

_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def guid_from_text(text: str) -> UUID | None:
    """
    Read a GUID in its usual text form, without braces; L{None} if it is none.

    L{UUID} alone would take much more than that form.  The version and variant of RFC 4122 are not looked at: Microsoft
    has issued at least one KMS id that they would not allow.
    """
    return UUID(text) if _GUID.fullmatch(text) else None


class Entry:
    """
    One entry of a table.

    @ivar position: Where it stands in its table, counted from 1.
    @ivar label: What an error calls it.
    """

    def __init__(
        self, source: str, table: str, position: int, fields: object, known: Collection[str]
    ) -> None:
        """
        @param source: The file, for errors.
        @param fields: What the file says; anything but a L{dict} is an error.
        @param known: The names of all fields that there can be.
        @raise CatalogError: If it is no table, or has a field that is not known.
        """
        self._source = source
        self.position = position
        self.label = f"{table} entry {position}"
        if not isinstance(fields, dict):
            raise self.wrong(f"must be a table, not {shown(fields)}")
        self._fields = fields
        names = [
            shown(fields[k]) for k in ("number", "build", "key", "name", "guid") if k in fields
        ]
        if names:
            self.label += f" ({', '.join(names)})"
        for field in fields:
            if field not in known:
                raise self.wrong(f"unknown field {shown(field)}")

    def wrong(self, problem: str) -> CatalogError:
        """
        Make the error that says what is wrong with this entry.
        """
        return CatalogError(self._source, self.label, problem)

    def has(self, field: str) -> bool:
        """
        Tell whether a field is there.
        """
        return field in self._fields

    def integer(self, field: str, low: int, high: int, default: int | None = None) -> int:
        """
        Take a whole number from C{low} to C{high}; an absent one is the default, if there is a default.
        """
        if default is not None and not self.has(field):
            return default
        return self._bounded(field, self._take(field, int, "a whole number"), low, high)

    def flag(self, field: str, default: bool | None = None) -> bool:
        """
        Take true or false; an absent one is the default, if there is a default.
        """
        if default is not None and not self.has(field):
            return default
        return self._take(field, bool, "true or false")

    def day(self, field: str) -> date:
        """
        Take a date, which TOML writes without quotes.
        """
        return self._take(field, date, "a date such as 2024-11-01")

    def name(self, field: str) -> str:
        """
        Take a text that can stand in a line of output.
        """
        text = self._take(field, str, "a text")
        if not text or text != text.strip() or not text.isprintable():
            raise self.wrong(
                f"{field} must be a printable text without space around it, not {shown(text)}"
            )
        return text

    def key_in(self, field: str, known: Collection[str]) -> str:
        """
        Take a text that must be one of those known.
        """
        text = self._take(field, str, "a text")
        if text not in known:
            raise self.wrong(f"{field} names {shown(text)}, which is not in the catalogue")
        return text

    def guid(self, field: str) -> UUID:
        """
        Take a GUID in its text form.
        """
        return self._as_guid(field, self._take(field, str, "a GUID"))

    def guids(self, field: str) -> tuple[UUID, ...]:
        """
        Take an array of GUIDs; an absent one is empty.
        """
        if not self.has(field):
            return ()
        return tuple(self._as_guid(field, text) for text in self._texts(field))

    def reference(self, field: str, targets: Targets) -> UUID:
        """
        Take a reference to an entry of another table.
        """
        return self._resolved(
            field, self._take(field, str, "a GUID or its first eight digits"), targets
        )

    def references(self, field: str, targets: Targets) -> frozenset[UUID]:
        """
        Take an array of such references.
        """
        return frozenset(self._resolved(field, text, targets) for text in self._texts(field))

    def ranges(self, field: str, high: int) -> tuple[tuple[int, int], ...]:
        """
        Take an array of inclusive ranges within 0 to C{high} that do not overlap, at least one, and sort them.
        """
        pairs = self._take(field, list, "an array of pairs")
        ranges = sorted(self._range(field, pair, high) for pair in pairs)
        if not ranges:
            raise self.wrong(f"{field} must have at least one range")
        for before, after in pairwise(ranges):
            if before[1] >= after[0]:
                raise self.wrong(
                    f"{field} has ranges that overlap: {list(before)} and {list(after)}"
                )
        return tuple(ranges)

    def _range(self, field: str, pair: object, high: int) -> tuple[int, int]:
        bounds = self._typed(field, pair, list, "an array of pairs")
        if len(bounds) != 2:
            raise self.wrong(f"{field} must be an array of pairs, but one has {len(bounds)} parts")
        first, last = (
            self._bounded(field, self._typed(field, bound, int, "pairs of whole numbers"), 0, high)
            for bound in bounds
        )
        if first > last:
            raise self.wrong(f"{field} has a range that runs backwards: [{first}, {last}]")
        return first, last

    def _take(self, field: str, kind: type[_Kind], called: str) -> _Kind:
        if field not in self._fields:
            raise self.wrong(f"{field} is missing")
        return self._typed(field, self._fields[field], kind, called)

    def _typed(self, field: str, value: object, kind: type[_Kind], called: str) -> _Kind:
        # Not isinstance(): true is no number here, and a date with a time of day is no date.
        if type(value) is not kind:
            raise self.wrong(f"{field} must be {called}, not {shown(value)}")
        return value

    def _bounded(self, field: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise self.wrong(f"{field} must be from {low} to {high}, not {shown(value)}")
        return value

    def _texts(self, field: str) -> list[str]:
        values = self._take(field, list, "an array of texts")
        return [self._typed(field, value, str, "an array of texts") for value in values]

    def _as_guid(self, field: str, text: str) -> UUID:
        guid = guid_from_text(text)
        if guid is None:
            raise self.wrong(f"{field} must be a GUID, not {shown(text)}")
        return guid

    def _resolved(self, field: str, text: str, targets: Targets) -> UUID:
        fitting = targets.get(text.lower(), ())
        if len(fitting) != 1:
            reason = "fits more than one entry" if fitting else "is not in the catalogue"
            raise self.wrong(f"{field} names {shown(text)}, which {reason}")
        return fitting[0]


def shown(value: object) -> str:
    """
    A value as an error shows it: on one line, and not too much of it.
    """
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "a table"
    if (
        isinstance(value, int) and value.bit_length() > 64
    ):  # Python refuses to print a very long one
        return "a number that is far too large"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
