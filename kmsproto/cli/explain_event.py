"""
C{kmsproto explain event}: the fields of the events that KMS clients and Windows hosts write into the event log.

Those of KMS have a sentence and behind it a list: values with commas between them and no names.  Which one a list is
can be seen from the list alone, for only two of them have a GUID, and only in one of these the second value is a
number.  Those that the licensing service of a client writes beside them have names instead (C{hr=0xC004F074}).  Each
has a layout (L{LAYOUTS}).  A field that does not look as it should is shown and said to; what the documentation leaves
unsaid is left so here.

People paste lists from a window, from a table or from XML: with quotes, tags, line breaks, and more text around them.
The sentences are in the language of the machine, so nothing is told from them but where C{Info:} is, if it is there.

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
_DATE_ELSEWHERE = re.compile(r"\d{1,4}([./-])\s?\d{1,2}\1\s?\d{1,4}\.?", re.ASCII)
_CLOCK_ELSEWHERE = re.compile(r"\d{1,2}[:.]\d{2}([:.]\d{2})?(\s?[ap]\.?m\.?)?", re.ASCII | re.I)
#: Where a list begins.
_BEGINNING = re.compile(r"[\"']?0x[0-9a-f]{1,8}[\"']?\s*,", re.ASCII | re.I)
#: A name with its value, which is not the next name: a sentence may end with a colon before the names.
_NAMED = re.compile(r"(\w+)\s*[=:]\s*(?!\w+\s*=)([^\s;,()]+)", re.ASCII)
_QUOTES = " \t\r\n\"'`\u201c\u201d\u201e\u2018\u2019"
_MINUTES_OF_A_DAY = 1440
_MINUTES_OF_AN_HOUR = 60


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
    @ivar is_named: Whether the fields have names in the event, and no order.
    """

    number: int
    writer: str
    meaning: str
    fields: tuple[FieldKind, ...]
    is_named: bool = False

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
        code = self.fields[0].value if self.fields else ""
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


def _second(text: str, known: _Knowledge) -> str | None:
    meaning = _code(text, known)
    if meaning is None:
        return None
    # S_OK would say that the request succeeded, and this field stands beside failures as well.
    return f"as a code: {meaning}" if int(text, 16) else "none"


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
    if _TIME.fullmatch(text):
        return "UTC"
    return "UTC, with the date as this machine writes it" if _is_time(text) else None


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
    for length, name in ((_MINUTES_OF_A_DAY, "days"), (_MINUTES_OF_AN_HOUR, "hours")):
        if number >= length:
            return f"{f'{number / length:.1f}'.removesuffix('.0')} {name}"
    return "none" if text == "0" else "minutes"


def _product(text: str, known: _Knowledge) -> str | None:
    guid = _guid(text)
    if guid is None:
        return None
    catalog = known.catalog
    if guid in catalog.skus:
        return f"the product {catalog.sku_name(guid)}"
    kms_id = catalog.kms_id(guid)
    if kms_id is not None:
        return f"the KMS id {kms_id.name}"
    keys = [csvlk.name for csvlk in catalog.csvlks.values() if csvlk.guid == guid]
    return f"the host key {keys[0]}" if keys else "not in the catalogue"


def _application(text: str, known: _Knowledge) -> str | None:
    guid = _guid(text)
    if guid is None:
        return None
    application = known.catalog.applications.get(guid)
    return "not in the catalogue" if application is None else application.name


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _is_time(text: str) -> bool:
    if _TIME.fullmatch(text):
        return True
    date = _DATE_ELSEWHERE.match(text)
    return date is not None and _is_clock(text[date.end() :].lstrip(" ,T").removesuffix("Z"))


def _is_clock(text: str) -> bool:
    return _CLOCK_ELSEWHERE.fullmatch(text) is not None


def _guid(text: str) -> UUID | None:
    return guid_from_text(text.removeprefix("{").removesuffix("}"))


_RESULT = FieldKind("result", "The HRESULT that it ended with; 0x0 is success.", _code)
_SECOND = FieldKind(
    "second code",
    "A second code, mostly 0x0, which older Windows leaves out; not documented.",
    _second,
)
_NEEDED = FieldKind("minimum count", "How many clients the product needs.", _count)
_CMID = FieldKind("client machine id", "The CMID, by which a host counts clients.", _client)
_WHEN = FieldKind("time of the client", "When the client asked.", _time)
_VIRTUAL = FieldKind("virtual machine", "Whether the client is a virtual machine.", _flag)
_STATE = FieldKind("licence state", "The state of the client before it asked.", _status)
_LEFT = FieldKind("minutes left", "Minutes until that state ends.", _minutes)
_FURTHER = FieldKind("further value", "Not documented.", _undocumented)
_SKU = FieldKind("SkuId", "The SKU id (activation id) of the product.", _product)
_APPLICATION = FieldKind("AppId", "Windows, or a generation of Office.", _application)
_TRIGGER = FieldKind("Trigger", "What made the client try.", _text)
_HR = FieldKind("hr", "The HRESULT that it ended with.", _code)

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
                FieldKind(
                    "reason", "0 when it is activated; other values are not documented.", _number
                ),
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
                FieldKind(
                    "product", "What was asked for, as a KMS id or an activation id.", _product
                ),
            ),
        ),
        12293: Layout(
            12293,
            "KMS host",
            "The KMS host could not publish its SRV record in DNS.",
            (_RESULT,),
        ),
        8198: Layout(
            8198,
            "client",
            "The client tried to activate, on its own account or through slui.exe, and failed.",
            (
                _HR,
                FieldKind("RuleId", "Which rule of the client it followed; not documented.", _text),
                FieldKind("Action", "What it tried.", _text),
                _APPLICATION,
                _SKU,
                FieldKind("NotificationInterval", "Minutes between reminders.", _minutes),
                _TRIGGER,
            ),
            is_named=True,
        ),
        8200: Layout(
            8200,
            "client",
            "The client could not get a licence from Microsoft; KMS has no part in that.",
            (_HR,),
            is_named=True,
        ),
        8208: Layout(
            8208,
            "client",
            "The client got no ticket that it is genuine from Microsoft; KMS has no part in that.",
            (_HR,),
            is_named=True,
        ),
        8233: Layout(
            8233,
            "client",
            "An attempt at volume activation failed.",
            (
                FieldKind("Reason", "The HRESULT that it ended with.", _code),
                _APPLICATION,
                _SKU,
                _TRIGGER,
            ),
            is_named=True,
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
    if number is None or LAYOUTS[number].is_named:
        named = _named(text)
        if number is None:
            number = _recognized_by_names(named, text)
        if number is not None:
            return _event_with_names(LAYOUTS[number], named, _Knowledge(catalog, explanations))
    values = _values(text)
    if len(values) > MAX_FIELDS:
        raise EventError(f"there are {len(values)} values; an event has {MAX_FIELDS} at most")
    layout = LAYOUTS[_recognized(values, text) if number is None else number]
    kinds = list(layout.fields)
    if _SECOND in kinds and not (len(values) > 1 and _CODE.fullmatch(values[1])):
        kinds.remove(_SECOND)
    kinds += [_FURTHER] * (len(values) - len(kinds))
    known = _Knowledge(catalog, explanations)
    fields = tuple(_field(kind, value, known) for kind, value in zip(kinds, values, strict=False))
    return Event(layout, fields)


def _values(text: str) -> list[str]:
    """
    Find the list in what was pasted, and take it apart.
    """
    text = re.split(r"info\s*:", re.sub(r"<[^<>]*>", "\n", text), flags=re.I)[-1].strip()
    beginning = _BEGINNING.search(text)
    # Before it may be text, but no values: a list that begins with something odd is shown whole.
    if beginning is not None and "," not in text[: beginning.start()]:
        # An empty line ends the list, unless the list has not ended.
        text = re.split(r"(?<![,\s])\s*\n\s*\n", text[beginning.start() :], maxsplit=1)[0]
    values = [_joined(value) for value in text.split(",")]
    if not values[-1]:
        values.pop()
    for place in range(len(values) - 1, 0, -1):
        # There are places where a comma stands between the date and the time.
        if _is_clock(values[place]) and _DATE_ELSEWHERE.fullmatch(values[place - 1]):
            values[place - 1 : place + 1] = [f"{values[place - 1]} {values[place]}"]
    return values


def _joined(value: str) -> str:
    """
    Undo the line breaks in a value, which no value has, and take its quotes away.
    """
    lines = [line.strip() for line in value.strip(_QUOTES).splitlines()]
    if len(lines) < 2:
        return "".join(lines)
    for length in range(len(lines), 1, -1):
        together = "".join(lines[:length]).strip(_QUOTES)
        if _guid(together) is not None or _PLACE.fullmatch(together):
            return together
        if _is_time(" ".join(lines[:length])):
            return " ".join(lines[:length])
    first = lines[0].strip(_QUOTES)
    # What follows a whole value, such as a count, is text behind the list.
    return first if _is_number(first) or _guid(first) is not None else "".join(lines)


def _named(text: str) -> dict[str, str]:
    """
    Find the fields that have names; of two with the same name the first counts.
    """
    found: dict[str, str] = {}
    for name, value in _NAMED.findall(text):
        found.setdefault(name.casefold(), value.strip(_QUOTES))
    return found


def _event_with_names(layout: Layout, named: Mapping[str, str], known: _Knowledge) -> Event:
    fields = tuple(
        _field(kind, named[kind.name.casefold()], known)
        for kind in layout.fields
        if kind.name.casefold() in named
    )
    if not fields:
        names = ", ".join(kind.name for kind in layout.fields)
        raise EventError(
            f"this has none of the fields of event {layout.number}, which are {names};"
            " copy the whole text of the event"
        )
    return Event(layout, fields)


def _recognized_by_names(named: Mapping[str, str], text: str) -> int | None:
    """
    Tell which event has these names; L{None} if it is none of them.
    """
    if _CODE.fullmatch(named.get("reason", "")) and "skuid" in named:
        return 8233
    if not _CODE.fullmatch(named.get("hr", "")):
        return None
    if "action" in named or "skuid" in named:
        return 8198
    # Only this one has a GUID without a name.
    return 8208 if any(map(_guid, re.split(r"[\s()'\"]+", text))) else 8200


def _field(kind: FieldKind, value: str, known: _Knowledge) -> EventField:
    meaning = kind.read(value, known)
    return EventField(kind.name, value, "not what stands here" if meaning is None else meaning)


def _recognized(values: Sequence[str], text: str) -> int:
    """
    Tell which event a list is of.
    """
    if len(values) == 1 and _CODE.fullmatch(values[0]) and re.search(r"\bDNS\b", text):
        return 12293
    if len(values) > 3 and _CODE.fullmatch(values[0]):
        rest = values[2:] if _CODE.fullmatch(values[1]) else values[1:]
        if any(_guid(value) is not None for value in rest):
            return 12290 if _is_number(rest[0]) else 12288
        if _is_number(rest[0]) and any(map(_is_time, rest)):
            return 12289
    raise EventError(
        "this is no event of KMS that is known; copy all that stands behind Info:,"
        " or say which event it is, for example kmsproto explain event12288 TEXT"
    )
