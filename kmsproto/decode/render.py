"""
What was found, as sentences and tables for people, as a line for a list, and as JSON for programs.

Texts that come from a peer are given as they came; whoever prints them has to quote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kmsproto.decode.events import CallSeen, Conversation, Event, Part, PDUSeen, Remark
from kmsproto.decode.layouts import (
    pdu_fields,
    request_stub_fields,
    response_stub_fields,
    syntax_name,
)
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.fields import Field, request_fields, response_fields, show_filetime
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import filetime
from kmsproto.rpc.numbers import BindNakReason, FaultStatus, PacketType
from kmsproto.rpc.pdu import MalformedPDUError, decode_bind_nak, decode_fault

_NANOSECONDS = 1_000_000_000
#: Seconds since 1970 at the end of the calendar, behind the year 9999.
_END = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Section:
    """
    A part of a PDU or call, taken apart.

    @ivar title: What it is.
    @ivar fields: Its fields; offsets are those within it.
    """

    title: str
    fields: tuple[Field, ...]


def show_time(time: int) -> str:
    """
    Write down a time in UTC, in ISO 8601 and with microseconds.

    @param time: Nanoseconds since 1970.
    @return: The time; nothing if it is 0, which stands for an unknown one, or one that no calendar has: a damaged
        capture may claim any.
    """
    seconds, fraction = divmod(time, _NANOSECONDS)
    if not time or not 0 <= seconds < _END:
        return ""
    return f"{show_filetime(filetime(seconds))[:-1]}.{fraction // 1000:06}Z"


def show_route(conversation: Conversation, sender: str) -> str:
    """
    Write down who says something to whom.

    @param sender: C{"client"}, C{"host"}, or nothing if it is both or not known.
    """
    client, host = conversation.client, conversation.host
    if not client:
        return sender
    if sender == "host":
        return f"{host} -> {client}"
    return f"{client} {'->' if sender else '<->'} {host}"


def product_name(call: CallSeen, catalog: Catalog) -> str:
    """
    Name what a call asks for, as exactly as the catalogue knows it.
    """
    if call.opened is None:
        return ""
    body = call.opened.body
    name = catalog.sku_name(body.sku_id)
    return name if body.sku_id in catalog.skus else catalog.kms_id_name(body.kms_id)


def headline(event: Event, catalog: Catalog) -> str:
    """
    Say in a line what happened.
    """
    if isinstance(event, Remark):
        return event.text
    if isinstance(event, PDUSeen):
        return _pdu_headline(event)
    name = f"call {event.call_id}" if event.request or event.response else "message"
    product = product_name(event, catalog)
    what = f" for {product}" if product else ""
    if event.opened is not None:
        what += f", version {event.opened.body.major_version}"
    return f"{name}{what}: {event.result}"


def _pdu_headline(event: PDUSeen) -> str:
    kind = event.header.packet_type
    name = PacketType.describe(kind).removeprefix("a PDU of type ")
    text = f"{name}, call {event.header.call_id}, {event.header.frag_length} bytes"
    try:
        if kind == PacketType.BIND_NAK:
            text += f": {BindNakReason.describe(decode_bind_nak(event.header, event.data))}"
        elif kind == PacketType.FAULT:
            status = decode_fault(event.header, event.data).status
            text += f": 0x{status:08X} ({FaultStatus.describe(status)})"
    except MalformedPDUError:
        # That it is malformed is one of its problems.
        return text
    return text


def sections(event: Event, catalog: Catalog) -> Iterator[Section]:
    """
    Take an event apart.
    """
    if isinstance(event, PDUSeen):
        yield Section("PDU", pdu_fields(event.data))
    if not isinstance(event, CallSeen):
        return
    if event.request is not None:
        yield from _part_sections("request", event.request, event)
    if event.asked is not None:
        yield Section("KMS request", request_fields(event.asked, catalog))
    if event.response is not None:
        yield from _part_sections("response", event.response, event)
    if event.answered:
        yield Section("KMS response", response_fields(event.answered, event.opened, catalog))


def _part_sections(name: str, part: Part, call: CallSeen) -> Iterator[Section]:
    several = f", the first of {part.fragments}" if part.fragments > 1 else ""
    is_fault = name == "response" and call.fault is not None
    yield Section(f"{'fault' if is_fault else name} PDU{several}", pdu_fields(part.first))
    if call.syntax is not None and not is_fault:
        read = request_stub_fields if name == "request" else response_stub_fields
        fields = read(part.stub, call.syntax, part.byte_order)
        yield Section(f"{name} stub in {syntax_name(call.syntax)}", fields)


def summary_line(call: CallSeen, catalog: Catalog) -> list[str]:
    """
    Say in a few words each what a list of activations tells of one.

    @return: Time, client, host, version, product, CMID, workstation, result, count, ePID, checks; those that are not
        known are C{"-"}.
    """
    workstation = checks = ""
    told = told_by_answer(call)
    version = f"v{told['major version']}" if "major version" in told else ""
    machine, count = told.get("client machine id", ""), told.get("count", "")
    epid = told.get("ePID", "")
    if call.opened is not None:
        body = call.opened.body
        version = f"v{body.major_version}"
        machine, workstation = str(body.client_machine_id), body.workstation
    verified = call.verified
    if verified is not None:
        passed = len(verified.checks) - len(verified.failed)
        checks = f"{passed}/{len(verified.checks)}"
        if verified.body is not None:
            count, epid = str(verified.body.client_count), verified.body.epid
    result = call.outcome.value
    if call.fault is not None:
        result += f" 0x{call.fault:08X}"
    elif call.hresult:
        result += f" 0x{call.hresult:08X}"
    conversation = call.conversation
    words = [
        *(show_time(call.time), conversation.client, conversation.host, version),
        *(product_name(call, catalog), machine, workstation, result, count, epid, checks),
    ]
    return [word or "-" for word in words]


def told_by_answer(call: CallSeen) -> dict[str, str]:
    """
    Say what an answer tells by itself, for one whose request is not there.

    @return: The values of its fields by their names, as L{response_fields} has them; nothing if the request is there.
    """
    if call.opened is not None or not call.answered:
        return {}
    return {field.name: field.value for field in response_fields(call.answered, None, None)}


def event_to_json(event: Event, catalog: Catalog, *, fields: bool) -> dict[str, Any]:
    """
    Turn an event into what JSON can say.

    @param fields: Whether to tell every field.
    """
    conversation = event.conversation
    head: dict[str, Any] = {
        "type": {PDUSeen: "pdu", CallSeen: "call", Remark: "remark"}[type(event)],
        "time": show_time(event.time) or None,
        "connection": conversation.number or None,
        "client": conversation.client or None,
        "host": conversation.host or None,
    }
    if isinstance(event, Remark):
        return head | {"text": event.text, "is_problem": event.is_problem}
    if isinstance(event, PDUSeen):
        kind = event.header.packet_type
        head |= {
            "sender": event.sender or None,
            "packet_type": PacketType.describe(kind).removeprefix("a PDU of type "),
            "call_id": event.header.call_id,
            "bytes": event.data.hex(),
        }
    else:
        head |= _call_to_json(event, catalog)
    head["problems"] = list(event.problems)
    if fields:
        head["sections"] = [
            {"title": section.title, "fields": [field.to_json() for field in section.fields]}
            for section in sections(event, catalog)
        ]
    return head


def _call_to_json(call: CallSeen, catalog: Catalog) -> dict[str, Any]:
    told: dict[str, Any] = {
        "call_id": call.call_id,
        "context_id": call.context_id,
        "opnum": call.opnum,
        "transfer_syntax": None if call.syntax is None else syntax_name(call.syntax),
        "transfer_syntax_guessed": call.guessed,
        "request_fragments": 0 if call.request is None else call.request.fragments,
        "response_fragments": 0 if call.response is None else call.response.fragments,
        "answered": (show_time(call.response.time) or None) if call.response else None,
        "outcome": call.outcome.value,
        "fault": None if call.fault is None else f"0x{call.fault:08X}",
        "hresult": None if call.hresult is None else f"0x{call.hresult:08X}",
        "meaning": None if call.hresult is None else HResult(call.hresult).meaning,
        "request": None if call.asked is None else {"bytes": call.asked.hex()},
        "response": None if not call.answered else {"bytes": call.answered.hex()},
        "checks": None,
    }
    if call.opened is not None:
        body = {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in call.opened.body._asdict().items()
            if name != "remains"
        }
        told["request"] |= body | {"product": product_name(call, catalog)}
    verified = call.verified
    if verified is not None:
        told["checks"] = [
            {"name": check.name, "passed": check.passed, "problem": check.problem}
            for check in verified.checks
        ]
        if verified.body is not None:
            told["response"] |= {
                name: str(value) if isinstance(value, UUID) else value
                for name, value in verified.body._asdict().items()
            } | {"hardware_id": verified.hardware_id.hex().upper() or None}
    alone = told_by_answer(call)
    if alone:
        count = alone.get("count", "")
        told["response"] |= {
            "major_version": int(alone["major version"]) if "major version" in alone else None,
            "epid": alone.get("ePID"),
            "client_machine_id": alone.get("client machine id"),
            "client_count": int(count) if count.isdecimal() else None,
            "hardware_id": alone.get("hardware id"),
        }
    return told | {"remarks": list(call.remarks)}
