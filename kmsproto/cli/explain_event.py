"""
C{kmsproto explain event}: the fields of the events that KMS clients and Windows hosts write into the event log.

Such an event has a sentence and behind it a list: values with commas between them and no names.  There are three, each
with a layout (L{LAYOUTS}).  Which one a list is can be seen from the list alone, for only two of them have a GUID, and
only in one of these the second value is a number.  A field that does not look as it should is shown and said to; what
the documentation leaves unsaid is left so here.

Source: Microsoft's "Volume Activation Technical Reference" and what Windows 7 to 11 write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.entries import guid_from_text
from kmsproto.kms.explanations import Explanations, UnknownCodeError
from kmsproto.kms.messages import LICENCE_STATUSES

#: Characters and fields of a list at most.
MAX_TEXT, MAX_FIELDS = 4096, 24
_CODE = re.compile(r"0x[0-9a-f]{1,8}", re.ASCII | re.IGNORECASE)
_PLACE = re.compile(r"\[?[^\s,/]+?\]?:\d{1,5}", re.ASCII)
_TIME = re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}(?::\d{2})?", re.ASCII)
_MINUTES_OF_A_DAY = 1440


class EventError(KMSProtoError):
    """
    A text is no list of an event that is known.
    """


@dataclass(frozen=True, slots=True)
class _Knowledge:
    catalog: Catalog
    explanations: Explanations


@dataclass(frozen=True, slots=True)
class FieldKind:
    """
    What can stand in a field.

    @ivar name: What it is called.
    @ivar help: What it says, in a sentence.
    @ivar read: Tells what a value means; L{None} if it cannot be one.
    """

    name: str
    help: str
    read: Callable[[str, _Knowledge], str | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """
    An event.

    @ivar number: Its number.
    @ivar writer: Who writes it.
    @ivar meaning: When.
    @ivar fields: Its fields.
    """

    number: int
    writer: str
    meaning: str
    fields: tuple[FieldKind, ...]

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        return {
            "event": self.number,
            "writer": self.writer,
            "meaning": self.meaning,
            "fields": [{"name": field.name, "help": field.help} for field in self.fields],
        }


@dataclass(frozen=True, slots=True)
class EventField:
    """
    A field of one event.

    @ivar name: What it is called.
    @ivar value: What stands there.
    @ivar meaning: What that means.
    """

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Event:
    """
    One event, taken apart.

    @ivar layout: Which event it is.
    @ivar fields: Its fields.
    """

    layout: Layout
    fields: tuple[EventField, ...]

    @property
    def failure(self) -> str:
        """
        The code that it begins with, as text; nothing if that is success.
        """
        code = self.fields[0].value
        return code if _CODE.fullmatch(code) and int(code, 16) else ""

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        return {
            "event": self.layout.number,
            "writer": self.layout.writer,
            "meaning": self.layout.meaning,
            "fields": [
                {"name": field.name, "value": field.value, "meaning": field.meaning}
                for field in self.fields
            ],
        }


def _code(text: str, known: _Knowledge) -> str | None:
    if not _CODE.fullmatch(text):
        return None
    try:
        entry = known.explanations.look_up(f"0x{int(text, 16):08X}")[0]
    except UnknownCodeError:
        return "not known"
    return f"{entry.name}: {entry.meaning}" if entry.name else entry.meaning


def _undocumented(text: str, known: _Knowledge) -> str | None:
    return "what it stands for is not documented"


def _count(text: str, known: _Knowledge) -> str | None:
    return f"{int(text)} clients" if _is_number(text) else None


def _number(text: str, known: _Knowledge) -> str | None:
    return "" if _is_number(text) else None


def _text(text: str, known: _Knowledge) -> str | None:
    return "" if text else None


def _place(text: str, known: _Knowledge) -> str | None:
    return "" if _PLACE.fullmatch(text) else None


def _client(text: str, known: _Knowledge) -> str | None:
    return None if _guid(text) is None else "two machines with the same one count as one"


def _time(text: str, known: _Knowledge) -> str | None:
    return "UTC" if _is_time(text) else None


def _flag(text: str, known: _Knowledge) -> str | None:
    return {"0": "no", "1": "yes"}.get(text)


def _status(text: str, known: _Knowledge) -> str | None:
    if not _is_number(text):
        return None
    number = int(text)
    return LICENCE_STATUSES[number] if number < len(LICENCE_STATUSES) else "there is no such state"


def _minutes(text: str, known: _Knowledge) -> str | None:
    if not _is_number(text):
        return None
    number = int(text)
    return f"{number / _MINUTES_OF_A_DAY:.3g} days" if number >= _MINUTES_OF_A_DAY else "minutes"


def _product(text: str, known: _Knowledge) -> str | None:
    guid = _guid(text)
    if guid is None:
        return None
    catalog = known.catalog
    if guid in catalog.skus:
        return f"the product {catalog.sku_name(guid)}"
    kms_id = catalog.kms_id(guid)
    return "not in the catalogue" if kms_id is None else f"the KMS id {kms_id.name}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def _guid(text: str) -> UUID | None:
    return guid_from_text(text.removeprefix("{").removesuffix("}"))


_RESULT = FieldKind("result", "The HRESULT that it ended with; 0x0 is success.", _code)
_SECOND = FieldKind("second code", "A second code, mostly 0x0; not documented.", _undocumented)
_NEEDED = FieldKind("minimum count", "How many clients the product needs.", _count)
_CMID = FieldKind("client machine id", "The CMID, by which a host counts clients.", _client)
_WHEN = FieldKind("time of the client", "When the client asked.", _time)
_VIRTUAL = FieldKind("virtual machine", "Whether the client is a virtual machine.", _flag)
_STATE = FieldKind("licence state", "The state of the client before it asked.", _status)
_LEFT = FieldKind("minutes left", "Minutes until that state ends.", _minutes)
_FURTHER = FieldKind("further value", "Not documented.", _undocumented)

#: The events, by number.
LAYOUTS: Mapping[int, Layout] = MappingProxyType(
    {
        12288: Layout(
            12288,
            "client",
            "The client sent an activation request to a KMS host.",
            (
                _RESULT,
                _SECOND,
                FieldKind("KMS host", "Host and port that were asked.", _place),
                _CMID,
                _WHEN,
                _VIRTUAL,
                _STATE,
                _LEFT,
                FieldKind("activation id", "The SKU id of the product.", _product),
                _NEEDED,
            ),
        ),
        12289: Layout(
            12289,
            "client",
            "The client processed the answer of a KMS host.",
            (
                _RESULT,
                _SECOND,
                FieldKind("activated", "Whether the client is activated now.", _flag),
                FieldKind("reason", "Why not; 0 when it is activated.", _number),
                FieldKind("count", "How many clients the host has counted.", _count),
                FieldKind(
                    "activation interval",
                    "Minutes until the client asks again while it is not activated.",
                    _minutes,
                ),
                FieldKind(
                    "renewal interval", "Minutes until the client renews its activation.", _minutes
                ),
                FieldKind("time of the host", "When the host answered.", _time),
            ),
        ),
        12290: Layout(
            12290,
            "KMS host",
            "The KMS host processed an activation request.",
            (
                _RESULT,
                _NEEDED,
                FieldKind("client", "The name of the client's machine.", _text),
                _CMID,
                _WHEN,
                _VIRTUAL,
                _STATE,
                _LEFT,
                FieldKind("product", "The KMS id, or the SKU id, that was asked for.", _product),
            ),
        ),
    }
)


def parse_event(
    text: str, catalog: Catalog, explanations: Explanations, number: int | None = None
) -> Event:
    """
    Take the list of an event apart.

    @param text: The list, or the whole message with the list behind C{Info:}.
    @param number: Which event it is; L{None} to tell from the list.
    @raise EventError: If it is the list of none.
    """
    if len(text) > MAX_TEXT:
        raise EventError(f"the text has {len(text)} characters; an event has {MAX_TEXT} at most")
    values = [value.strip() for value in re.split(r"info\s*:", text, flags=re.I)[-1].split(",")]
    if not values[-1]:
        values.pop()
    if len(values) > MAX_FIELDS:
        raise EventError(f"there are {len(values)} values; an event has {MAX_FIELDS} at most")
    layout = LAYOUTS[_recognized(values) if number is None else number]
    kinds = list(layout.fields)
    if _SECOND in kinds and not (len(values) > 1 and _CODE.fullmatch(values[1])):
        kinds.remove(_SECOND)
    kinds += [_FURTHER] * (len(values) - len(kinds))
    known = _Knowledge(catalog, explanations)
    fields = tuple(_field(kind, value, known) for kind, value in zip(kinds, values, strict=False))
    return Event(layout, fields)


def _field(kind: FieldKind, value: str, known: _Knowledge) -> EventField:
    meaning = kind.read(value, known)
    return EventField(kind.name, value, "not what stands here" if meaning is None else meaning)


def _recognized(values: Sequence[str]) -> int:
    """
    Tell which event a list is of.
    """
    if len(values) > 3 and _CODE.fullmatch(values[0]):
        rest = values[2:] if _CODE.fullmatch(values[1]) else values[1:]
        if any(_guid(value) is not None for value in rest):
            return 12290 if _is_number(rest[0]) else 12288
        if _is_number(rest[0]) and any(map(_is_time, rest)):
            return 12289
    raise EventError(
        "this is no list of an event 12288, 12289 or 12290; copy all that stands behind Info:,"
        " or say which event it is, for example kmsproto explain event12288 TEXT"
    )
