"""
What a host answers, told apart and put into words.

A L{Reply} is whatever came of waiting for an answer: a PDU, the end of the connection, silence, or bytes that are no
PDU.  The bodies are read leniently, since the audit wants to say what was odd and not to give up; what is too short to
be read at all is C{None}.

An L{Expectation} is one behaviour that a rule allows, with words for it; most rules allow more than one, so cases hold
a reply against several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from struct import Struct
from typing import NamedTuple

from kmsproto.errors import RemoteProtocolError
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import BindNakReason, FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import BindAck, Header, Negotiated

_FAULT = {order: Struct(order + "IHBBII") for order in "<>"}
_RESPONSE = {order: Struct(order + "IHBB") for order in "<>"}
#: The fixed part of a bind_ack, up to and including the length of the secondary address.
_ACK = {order: Struct(order + "HHIH") for order in "<>"}
#: Bytes of a gap that should not be there.
_GAP = 4
#: Parts of a list that are shown, and characters of a text.
_LISTED, _SHOWN = 8, 40


class FaultBody(NamedTuple):
    """
    All fields of a fault (C706 12.6.4.7, MS-RPCE 2.2.2.8).
    """

    alloc_hint: int
    context: int
    cancel_count: int
    flags: int
    status: int
    reserved: int


class ResponseBody(NamedTuple):
    """
    All fields of a response (C706 12.6.4.10).
    """

    alloc_hint: int
    context: int
    cancel_count: int
    reserved: int
    stub: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """
    What came of waiting for an answer.
    """

    def describe(self) -> str:
        """
        Say what the host did: the rest of a sentence that begins with "it".
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Closed(Reply):
    """
    The host closed its side.
    """

    def describe(self) -> str:
        """
        Say so.
        """
        return "closed the connection"


@dataclass(frozen=True, slots=True)
class Silence(Reply):
    """
    Nothing came.

    @ivar seconds: For how long was waited.
    @ivar partial: Bytes of a PDU that was begun.
    """

    seconds: float
    partial: int = 0

    def describe(self) -> str:
        """
        Say for how long nothing came.
        """
        begun = f" after {self.partial} bytes of an answer" if self.partial else ""
        return f"was silent for {self.seconds:g} seconds{begun}"


@dataclass(frozen=True, slots=True)
class Noise(Reply):
    """
    What came is no PDU.
    """

    data: bytes

    def describe(self) -> str:
        """
        Show the beginning.
        """
        return f"sent bytes that are no PDU ({self.data[:16].hex(' ', -4)})"


@dataclass(frozen=True, slots=True)
class Received(Reply):
    """
    A PDU came.

    @ivar header: Its header; the byte order is one that exists.
    @ivar data: All of it.
    """

    header: Header
    data: bytes

    @property
    def type(self) -> int:
        """
        The packet type.
        """
        return self.header.packet_type

    @property
    def fault(self) -> FaultBody | None:
        """
        The body of a fault; L{None} for others, and for one that is too short.
        """
        layout = _FAULT[self.header.byte_order]
        if self.type != PacketType.FAULT or len(self.data) < pdu.HEADER_LENGTH + layout.size:
            return None
        return FaultBody(*layout.unpack_from(self.data, pdu.HEADER_LENGTH))

    @property
    def response(self) -> ResponseBody | None:
        """
        The body of a response; L{None} for others, and for one that is too short.
        """
        layout = _RESPONSE[self.header.byte_order]
        if self.type != PacketType.RESPONSE or len(self.data) < pdu.CALL_PREFIX_LENGTH:
            return None
        hint, context, cancels, reserved = layout.unpack_from(self.data, pdu.HEADER_LENGTH)
        stub = self.data[pdu.CALL_PREFIX_LENGTH :]
        return ResponseBody(hint, context, cancels, reserved, stub)

    @property
    def ack(self) -> BindAck | None:
        """
        The body of a bind_ack or alter_context_resp, wherever its results stand; L{None} for others, and for one that
        cannot be read.
        """
        if self.type not in (PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP):
            return None
        header, data = self.header, self.data
        if (place := displaced(header, data)) is not None:
            data = data[: place.start] + data[place.stop :]
            header = header._replace(frag_length=len(data))
        try:
            return pdu.decode_bind_ack(header, data)
        except RemoteProtocolError:
            return None

    @property
    def nak_reason(self) -> int | None:
        """
        The reason of a bind_nak; L{None} for others, and for one without reason.
        """
        if self.type != PacketType.BIND_NAK:
            return None
        try:
            return pdu.decode_bind_nak(self.header, self.data)
        except RemoteProtocolError:
            return None

    @property
    def address_gap(self) -> bytes:
        """
        The bytes between the secondary address of a bind_ack and its results, which align them.
        """
        if self.ack is None:
            return b""
        start = _address_end(self.header, self.data)
        return self.data[start : start + -start % 4]

    @property
    def trailer_type(self) -> int | None:
        """
        The authentication type of the trailer that the header announces; L{None} if there is no room for one.
        """
        start = self.header.frag_length - self.header.auth_length - pdu.AUTH_TRAILER_LENGTH
        if not self.header.auth_length or start < self._body_end:
            return None
        return self.data[start]

    @property
    def _body_end(self) -> int:
        """
        Where the body of a bind_ack ends; of others, where it begins.
        """
        ack = self.ack
        if ack is None:
            return pdu.HEADER_LENGTH
        return _results_place(self.header, self.data) + 4 + 24 * len(ack.results)

    def describe(self) -> str:
        """
        Name the PDU, and what matters in it.
        """
        if (fault := self.fault) is not None:
            return f"answered with the fault {name_fault(fault.status)}"
        if (ack := self.ack) is not None:
            kind = PacketType(self.type).name.lower()
            results = listed(map(name_result, ack.results)) or "none"
            article = "an" if kind[0] in "aeiou" else "a"
            return f"answered with {article} {kind} (results: {results})"
        if (reason := self.nak_reason) is not None:
            return f"answered with a bind_nak, reason {reason} ({BindNakReason.describe(reason)})"
        if (response := self.response) is not None:
            return f"answered with a response of {len(response.stub)} bytes"
        return f"answered with {PacketType.describe(self.type)} ({len(self.data)} bytes)"


def _address_end(header: Header, data: bytes | bytearray) -> int:
    layout = _ACK[header.byte_order]
    *_, length = layout.unpack_from(data, pdu.HEADER_LENGTH)
    return pdu.HEADER_LENGTH + layout.size + int(length)


def _results_place(header: Header, data: bytes | bytearray) -> int:
    end = _address_end(header, data)
    return end + -end % 4


def displaced(header: Header, data: bytes | bytearray) -> range | None:
    """
    Find the bytes by which the results of a bind_ack stand behind their place.

    A host is known that puts a gap of four bytes behind an address that needs none, one of five digits, and does not
    count them in frag_length.  No client can read that.  The audit can, and so need not give up.

    @param header: The header of the PDU.
    @param data: The PDU, and all that came behind it.
    @return: Where those bytes are; L{None} if the results stand where they belong, or cannot be found.
    """
    fixed = pdu.HEADER_LENGTH + _ACK[header.byte_order].size
    if header.packet_type != PacketType.BIND_ACK or len(data) < fixed:
        return None
    start = _results_place(header, data)
    count, *reserved = data[start + _GAP : start + _GAP + 4] or b"\0"
    counted = start + 4 + 24 * count
    if any(data[start : start + _GAP]) or not count or any(reserved):
        return None
    # A bind_ack that holds no results ends behind their number.
    return range(start, start + _GAP) if header.frag_length in (counted, counted + _GAP) else None


def excess(header: Header, data: bytes | bytearray) -> int:
    """
    Tell how many bytes of a PDU stand behind what its header says.
    """
    place = displaced(header, data)
    if place is None:
        return 0
    return place.stop + 4 + 24 * data[place.stop] - header.frag_length


def name_fault(status: int) -> str:
    """
    Name a fault status for people.
    """
    return f"0x{status:08X} ({FaultStatus.describe(status)})"


def name_result(result: Negotiated) -> str:
    """
    Write the verdict on a context as the standards do: its two numbers, and of an acceptance the transfer syntax.
    """
    text = f"({result.result},{result.reason})"
    if result.result or result.transfer_syntax == pdu.NO_SYNTAX:
        return text
    names = {pdu.NDR: "NDR", pdu.NDR64: "NDR64"}
    return f"{text} {names.get(result.transfer_syntax, result.transfer_syntax)}"


def listed(texts: Iterable[str]) -> str:
    """
    Write a list in which the same may stand many times in a row.
    """
    groups = [(text, sum(1 for _ in group)) for text, group in groupby(texts)]
    parts = [text if count == 1 else f"{count} times {text}" for text, count in groups[:_LISTED]]
    if len(groups) > _LISTED:
        parts.append(f"and {sum(count for _, count in groups[_LISTED:])} more")
    return ", ".join(parts)


def shortened(text: str) -> str:
    """
    Quote the beginning of a text of the host's, which may be long.
    """
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


class Expectation(NamedTuple):
    """
    A behaviour that a rule allows.

    @ivar words: What it is, for a sentence: "a bind_nak", "the end of the connection".
    """

    words: str
    fits: Callable[[Reply], bool]


def matches(reply: Reply, expectations: Iterable[Expectation]) -> bool:
    """
    Tell whether a reply is one of those that are allowed.
    """
    return any(expectation.fits(reply) for expectation in expectations)


#: The host closes.
CLOSE = Expectation("the end of the connection", lambda reply: isinstance(reply, Closed))
#: The host says nothing.
SILENCE = Expectation("no answer", lambda reply: isinstance(reply, Silence) and not reply.partial)
#: A response of whatever content.
RESPONSE = Expectation(
    "a response", lambda reply: isinstance(reply, Received) and reply.response is not None
)
#: Any fault.
ANY_FAULT = Expectation(
    "a fault", lambda reply: isinstance(reply, Received) and reply.fault is not None
)
#: Any bind_nak.
ANY_NAK = Expectation(
    "a bind_nak", lambda reply: isinstance(reply, Received) and reply.nak_reason is not None
)
#: An ack with a trailer of NTLM: the host has the security that it was asked for.
SECURED = Expectation(
    "an ack with a trailer",
    lambda reply: (
        isinstance(reply, Received)
        and reply.header.packet_type in (PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP)
        and b"NTLMSSP\0" in reply.data[len(reply.data) - reply.header.auth_length :]
    ),
)


def fault(*statuses: int, executed: bool | None = None) -> Expectation:
    """
    Expect a fault.

    @param statuses: Each of them is right.
    @param executed: Whether the flag that says "did not execute" has to be clear; L{None} if it does not matter.
    """

    def fits(reply: Reply) -> bool:
        if not isinstance(reply, Received) or (body := reply.fault) is None:
            return False
        flagged = bool(reply.header.flags & PacketFlag.DID_NOT_EXECUTE)
        return body.status in statuses and executed in (None, not flagged)

    return Expectation("the fault " + " or ".join(map(name_fault, statuses)), fits)


def nak(*reasons: int) -> Expectation:
    """
    Expect a bind_nak for one of some reasons.
    """
    words = " or ".join(map(str, reasons))
    return Expectation(
        f"a bind_nak of reason {words}",
        lambda reply: isinstance(reply, Received) and reply.nak_reason in reasons,
    )
