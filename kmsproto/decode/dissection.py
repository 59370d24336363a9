"""
One connection, from the bytes of its two streams to PDUs and calls.

A stream is cut into PDUs by their own headers.  Where bytes are missing, or where a header makes no sense, the next
header that does is looked for.  Who is the client shows in what is sent: only clients bind and make requests.  The
contexts that are agreed on tell in which transfer syntax calls are; where the agreement was not seen, whichever syntax
fits is taken.  The messages of KMS in the calls are opened and verified as host and client do it.

A load balancer may put a header of the PROXY protocol before all that; it is told and cut off.

Most connections are none of ours.  One whose first bytes are not DCE/RPC, or whose bind asks for other interfaces, is
not wanted, and nothing more is kept of it.

Sources: C706 chapter 12, MS-RPCE 2.2.2; "How a correct connection-oriented DCE/RPC server behaves"; "KMS messages,
versions 4, 5 and 6".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TypeVar

from kmsproto.decode.activation import is_activation, read_call
from kmsproto.decode.calls import CallTable, OpenCall
from kmsproto.decode.events import Conversation, Event, PDUSeen, Remark
from kmsproto.decode.layouts import KMS_INTERFACE
from kmsproto.decode.preambles import name_protocol, read_preamble
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import ContextResult, PacketType
from kmsproto.rpc.pdu import (
    Bind,
    ContextElement,
    Header,
    MalformedPDUError,
    Negotiated,
    SyntaxId,
)
from kmsproto.rpc.stream import PDUStream

_K = TypeVar("_K")
_T = TypeVar("_T")
#: The call id of a negotiation, and whether it is an alter_context.
_Negotiation = tuple[int, bool]

#: Segments without a PDU header at their beginning after which a connection, of which the beginning is not known, is
#: taken for something else.
MAX_TRIES = 8
#: Contexts of a connection, and negotiations that wait for an answer.
MAX_CONTEXTS, MAX_OFFERS = 1024, 16
#: The largest length that a header may name where it is not certain that it is one.
MAX_GUESSED_LENGTH = 5840
#: Bytes that a presentation context costs.
_ELEMENT_COST = 512
#: The packet types of connection-oriented RPC that a client sends, and those that a server sends.
_CLIENT_TYPES = frozenset(
    {
        PacketType.REQUEST,
        PacketType.BIND,
        PacketType.ALTER_CONTEXT,
        PacketType.AUTH3,
        PacketType.CO_CANCEL,
        PacketType.ORPHANED,
    }
)
_HOST_TYPES = frozenset(
    {
        PacketType.RESPONSE,
        PacketType.FAULT,
        PacketType.BIND_ACK,
        PacketType.BIND_NAK,
        PacketType.ALTER_CONTEXT_RESP,
        PacketType.SHUTDOWN,
    }
)
_TYPES = _CLIENT_TYPES | _HOST_TYPES
_START = bytes(pdu.RPC_VERSION)


def may_be_header(data: bytes | bytearray) -> bool:
    """
    Tell whether some bytes may be the beginning of a PDU.

    @param data: As many as there are; of less than a whole header, those that are there are judged.
    """
    if not _START.startswith(data[:2]) and not data.startswith(_START):
        return False
    if len(data) > 2 and data[2] not in _TYPES:
        return False
    # The data representation: ASCII or EBCDIC, one of two byte orders, four formats of floats, two reserved bytes.
    if len(data) >= 8 and (
        data[4] not in (0x00, 0x01, 0x10, 0x11) or data[5] > 3 or any(data[6:8])
    ):
        return False
    if len(data) < pdu.HEADER_LENGTH:
        return True
    header = pdu.decode_header(data)
    return pdu.HEADER_LENGTH + header.auth_length <= header.frag_length <= MAX_GUESSED_LENGTH


class Tally:
    """
    What is counted over all connections.

    @ivar rpc: How many of them are DCE/RPC.
    @ivar conversations: How many of them are of interest.
    @ivar pdus: How many PDUs they had.
    """

    def __init__(self) -> None:
        self.rpc = 0
        self.conversations = 0
        self.pdus = 0


class RPCReader:
    """
    Reads one connection, or a dump of PDUs.

    @param tally: Where to count.
    @param sides: Address and port of the side that was seen first, and those of the other.
    @param midstream: Whether its beginning may be missing.
    @param expected: Whether it is known to be of interest; otherwise only what is of the KMS interface counts.
    @param one_stream: Whether both directions are in one stream, as in a dump.
    @ivar wanted: Whether it may be of interest.
    """

    def __init__(
        self,
        tally: Tally,
        sides: tuple[str, str] = ("", ""),
        *,
        midstream: bool,
        expected: bool,
        one_stream: bool = False,
    ) -> None:
        self.wanted = True
        self._tally = tally
        self._sides = sides
        self._here: Conversation | None = None
        self._interesting = expected
        self._one_stream = one_stream
        # A dump may have anything before its first PDU.
        self._is_rpc = one_stream
        self._streams = (PDUStream(), PDUStream())
        self._synchronized = [not midstream, not midstream]
        #: Whether it is clear what a direction begins with.
        self._begun = [one_stream, one_stream]
        self._midstream = midstream
        self._tries = MAX_TRIES if midstream else 1
        self._skipped = [0, 0]
        self._client: int | None = None
        #: Halves of negotiations that wait for the other half.  Clients use a call id for a bind and once more for an
        #: alter_context, so that the two are told apart.
        self._offers: OrderedDict[_Negotiation, tuple[ContextElement, ...]] = OrderedDict()
        self._acks: OrderedDict[_Negotiation, tuple[Negotiated, ...]] = OrderedDict()
        self._contexts: dict[int, tuple[SyntaxId, SyntaxId]] = {}
        #: Calls to other interfaces.
        self._others: OrderedDict[int, None] = OrderedDict()
        self._calls = CallTable()
        self._calls.lossy = midstream
        #: What was seen while it was not clear whether it is of interest.
        self._undecided: list[PDUSeen | Remark] = []

    @property
    def held(self) -> int:
        """
        Bytes that it keeps.
        """
        first, second = self._streams
        elements = len(self._contexts)
        for table in (self._offers, self._acks):
            elements += sum(map(len, table.values()))
        return (
            len(first.unused)
            + len(second.unused)
            + self._calls.held
            + elements * _ELEMENT_COST
            + sum(len(seen.data) for seen in self._undecided if isinstance(seen, PDUSeen))
        )

    def received(self, direction: int, data: bytes, lost: int, time: int) -> Iterator[Event]:
        """
        Take the next bytes of a direction.

        @param direction: 0 or 1; in a dump 0.
        @param data: What came; nothing if all that is to be told is that bytes are missing.
        @param lost: How many bytes before them are missing.
        @param time: When they came, in nanoseconds.
        """
        if lost and self._is_rpc:
            yield from self._interrupt(direction, lost, time)
        stream = self._streams[direction]
        if lost:
            self._begun[direction] = True
        elif not self._begun[direction]:
            data = yield from self._strip(direction, stream, data, time)
        if not data:
            return
        if not self._is_rpc:
            start = bytes(stream.unused) + data[: pdu.HEADER_LENGTH]
            if not self._recognize(direction, stream, start):
                if not self.wanted and self._interesting:
                    begin = (
                        f"this is not DCE/RPC: it begins with {start[: pdu.HEADER_LENGTH].hex()}"
                    )
                    name = name_protocol(start)
                    text = f"{begin}, as {name} does" if name else begin
                    yield self._remark(text, time, is_problem=not self._midstream)
                return
        stream.feed(data)
        yield from self._cut(direction, stream, time)
        if not self._one_stream:
            for call in self._calls.overdue(time):
                yield from self._tell(call)

    def paused(self) -> Iterator[Event]:
        """
        Take note that nothing has come for long: calls that still wait for something are told without it.
        """
        for call in self._calls.finish():
            yield from self._tell(call)

    def ended(self) -> Iterator[Event]:
        """
        Take note that nothing more will come.
        """
        if not self.wanted:
            return
        yield from self.paused()
        for direction, stream in enumerate(self._streams):
            left = len(stream.unused)
            if left and self._interesting and not self._begun[direction]:
                text = f"the PROXY header is not complete: there are {left} bytes of it"
                yield self._remark(text, 0, is_problem=False)
                continue
            incomplete = self._synchronized[direction] and left and self._interesting
            if not incomplete:
                self._skipped[direction] += left
            yield from self._report_skipped(direction, 0)
            if incomplete:
                text = f"the last PDU is not complete: there are {left} bytes of it"
                yield self._remark(text, 0, is_problem=False)

    @property
    def _conversation(self) -> Conversation:
        """
        What it is called, from the moment that there is something to say about it.
        """
        if self._here is None:
            self._tally.conversations += not self._one_stream
            number = 0 if self._one_stream else self._tally.conversations
            first, second = self._sides if self._client != 1 else reversed(self._sides)
            self._here = Conversation(number, first, second)
        return self._here

    def _remark(self, text: str, time: int, *, is_problem: bool = True) -> Remark:
        return Remark(self._conversation, time, text, is_problem)

    def _strip(
        self, direction: int, stream: PDUStream, data: bytes, time: int
    ) -> Generator[Event, None, bytes]:
        """
        Cut off what a proxy put before the first bytes of a direction.

        @return: What is left and can be read.
        """
        start = bytes(stream.unused) + data
        preamble = read_preamble(start)
        stream.clear()
        if preamble is not None and not preamble.length:
            stream.feed(start)
            return b""
        self._begun[direction] = True
        if preamble is None:
            return start
        named = f"the client {preamble.client}" if preamble.client else "no client"
        yield from self._mention(
            Remark(Conversation(), time, f"a PROXY header names {named}", is_problem=False)
        )
        return start[preamble.length :]

    def _recognize(self, direction: int, stream: PDUStream, start: bytes) -> bool:
        """
        Find out whether it is DCE/RPC at all.

        @param start: The first bytes.
        @return: Whether it may be, so that the bytes are to be read.
        """
        # Where RPC is expected, a header may be wrong in ways that show elsewhere.
        begins_well = start.startswith(_START) and self._interesting and not self._midstream
        if begins_well or may_be_header(start):
            if len(start) >= pdu.HEADER_LENGTH:
                self._is_rpc = True
                self._tally.rpc += 1
                self._synchronized[direction] = True
            return True
        stream.clear()
        self._tries -= 1
        self.wanted = self._tries > 0
        return False

    def _interrupt(self, direction: int, lost: int, time: int) -> Iterator[Event]:
        """
        Begin anew behind bytes that are missing.
        """
        stream = self._streams[direction]
        self._skipped[direction] += len(stream.unused)
        stream.clear()
        self._synchronized[direction] = False
        for kind, sender in (("request", self._client), ("response", _other(self._client))):
            if sender is None or sender == direction:
                self._calls.interrupt(kind)
        if self._interesting:
            yield self._remark(f"{lost} bytes are missing", time, is_problem=False)

    def _find_header(self, direction: int, stream: PDUStream) -> bool:
        """
        Look for the beginning of a PDU.

        @return: Whether one was found.
        """
        unused = stream.unused
        at = unused.find(_START)
        while at >= 0:
            if may_be_header(unused[at : at + pdu.HEADER_LENGTH]):
                break
            at = unused.find(_START, at + 1)
        # What may be the first byte of a header is kept.
        skipped = at if at >= 0 else len(unused) - unused.endswith(_START[:1])
        self._skipped[direction] += skipped
        kept = bytes(unused[skipped:])
        stream.clear()
        stream.feed(kept)
        self._synchronized[direction] = len(kept) >= pdu.HEADER_LENGTH
        return self._synchronized[direction]

    def _report_skipped(self, direction: int, time: int) -> Iterator[Event]:
        skipped, self._skipped[direction] = self._skipped[direction], 0
        if skipped and self._is_rpc and self._interesting:
            yield self._remark(
                f"{skipped} bytes that belong to no PDU were skipped", time, is_problem=False
            )

    def _cut(self, direction: int, stream: PDUStream, time: int) -> Iterator[Event]:
        """
        Read the PDUs that are complete.
        """
        while self.wanted:
            if not self._synchronized[direction] and not self._find_header(direction, stream):
                return
            header = stream.header()
            if header is None:
                return
            if (
                header.version != pdu.RPC_VERSION
                or not header.byte_order
                or header.frag_length < pdu.HEADER_LENGTH + header.auth_length
            ):
                start = stream.peek(pdu.HEADER_LENGTH).hex()
                if self._interesting:
                    yield self._remark(f"the header of a PDU makes no sense: {start}", time)
                self._synchronized[direction] = False
                rest = bytes(stream.unused[1:])
                stream.clear()
                stream.feed(rest)
                self._skipped[direction] += 1
                continue
            data = stream.take(header)
            if data is None:
                return
            self._tally.pdus += 1
            yield from self._report_skipped(direction, time)
            yield from self._read(direction, header, data, time)

    def _read(self, direction: int, header: Header, data: bytes, time: int) -> Iterator[Event]:
        """
        Read a PDU.
        """
        kind = header.packet_type
        by_client = kind in _CLIENT_TYPES
        if not by_client and kind not in _HOST_TYPES:
            problem = f"{PacketType.describe(kind)}, which no connection has"
            yield from self._show(header, data, time, "", problem)
            return
        if self._client is None:
            self._client = direction if by_client else _other(direction)
        sender = "client" if by_client else "host"
        if not self._one_stream and by_client != (direction == self._client):
            wrong = "host" if by_client else "client"
            problem = f"{PacketType.describe(kind)}, which a {wrong} must not send"
            yield from self._show(header, data, time, wrong, problem)
            return
        try:
            yield from self._take_in(header, data, time, sender)
        except MalformedPDUError as error:
            yield from self._show(header, data, time, sender, f"it is malformed: {error}")

    def _take_in(self, header: Header, data: bytes, time: int, sender: str) -> Iterator[Event]:
        kind = header.packet_type
        if kind == PacketType.REQUEST:
            yield from self._take_request(header, data, time)
        elif kind == PacketType.RESPONSE:
            yield from self._take_response(header, data, time)
        elif kind == PacketType.FAULT:
            yield from self._take_fault(header, data, time)
        else:
            if kind in (PacketType.BIND, PacketType.ALTER_CONTEXT):
                self._take_offer(header, pdu.decode_bind(header, data))
                if not self.wanted:
                    return
            elif kind in (PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP):
                key = header.call_id, kind == PacketType.ALTER_CONTEXT_RESP
                _remember(self._acks, key, pdu.decode_bind_ack(header, data).results)
                self._agree(key)
            elif kind == PacketType.BIND_NAK:
                pdu.decode_bind_nak(header, data)
            yield from self._show(header, data, time, sender)

    def _show(
        self, header: Header, data: bytes, time: int, sender: str, problem: str = ""
    ) -> Iterator[Event]:
        """
        Tell a PDU, once it is clear that the connection is of interest.
        """
        problems = (problem,) if problem else ()
        yield from self._mention(
            PDUSeen(Conversation(), time, sender, header, data, problems),
        )

    def _mention(self, seen: PDUSeen | Remark) -> Iterator[Event]:
        """
        Tell something, once it is clear that the connection is of interest.
        """
        if self._interesting:
            yield from self._tell_undecided()
            yield replace(seen, conversation=self._conversation)
        elif len(self._undecided) < MAX_OFFERS:
            self._undecided.append(seen)

    def _tell_undecided(self) -> Iterator[Event]:
        """
        Tell what was seen before it was clear that the connection is of interest.
        """
        for earlier in self._undecided:
            yield replace(earlier, conversation=self._conversation)
        self._undecided.clear()

    def _take_offer(self, header: Header, bind: Bind) -> None:
        key = header.call_id, header.packet_type == PacketType.ALTER_CONTEXT
        _remember(self._offers, key, bind.elements)
        if any(each.abstract_syntax.uuid == KMS_INTERFACE.uuid for each in bind.elements):
            self._interesting = True
        elif not self._interesting and header.packet_type == PacketType.BIND:
            self.wanted = False
        self._agree(key)

    def _agree(self, key: _Negotiation) -> None:
        """
        Note the contexts that were agreed on, if both halves of a negotiation are there.
        """
        if key not in self._offers or key not in self._acks:
            return
        elements, results = self._offers.pop(key), self._acks.pop(key)
        for element, result in zip(elements, results, strict=False):
            if result.result == ContextResult.ACCEPTANCE and len(self._contexts) < MAX_CONTEXTS:
                agreed = element.abstract_syntax, result.transfer_syntax
                self._contexts[element.context_id] = agreed

    def _is_other(self, context_id: int) -> bool:
        """
        Tell whether a context is one of another interface.
        """
        agreed = self._contexts.get(context_id)
        return agreed is not None and agreed[0].uuid != KMS_INTERFACE.uuid

    def _take_request(self, header: Header, data: bytes, time: int) -> Iterator[Event]:
        needed = pdu.CALL_PREFIX_LENGTH + header.object_length
        if header.frag_length < needed:
            raise MalformedPDUError(f"a request of {header.frag_length} bytes, not {needed}")
        request = pdu.decode_request(header, data)
        if self._is_other(request.context_id):
            _remember(self._others, header.call_id, None)
            yield from self._show(header, data, time, "client")
            return
        stub = _without_trailer(header, data, request.stub)
        told = self._calls.request(header, data, request.context_id, request.opnum, stub, time)
        for call in told:
            yield from self._tell(call)

    def _take_response(self, header: Header, data: bytes, time: int) -> Iterator[Event]:
        response = pdu.decode_response(header, data)
        if header.call_id in self._others or self._is_other(response.context_id):
            yield from self._show(header, data, time, "host")
            return
        stub = _without_trailer(header, data, response.stub)
        for call in self._calls.response(header, data, response.context_id, stub, time):
            yield from self._tell(call)

    def _take_fault(self, header: Header, data: bytes, time: int) -> Iterator[Event]:
        fault = pdu.decode_fault(header, data)
        key = header.call_id, True
        elsewhere = key in self._offers or header.call_id in self._others
        if elsewhere and header.call_id not in self._calls:
            self._offers.pop(key, None)
            yield from self._show(header, data, time, "host")
            return
        for call in self._calls.fault(header, data, fault.context_id, fault.status, time):
            yield from self._tell(call)

    def _tell(self, call: OpenCall) -> Iterator[Event]:
        """
        Tell a call.
        """
        agreed = self._contexts.get(call.context_id)
        syntax = None if agreed is None else agreed[1]
        seen = read_call(Conversation(), call, syntax)
        if not self._interesting:
            if not is_activation(seen):
                self.wanted = self.wanted and call.request is None
                return
            self._interesting = True
        yield from self._tell_undecided()
        yield replace(seen, conversation=self._conversation)


def _other(direction: int | None) -> int | None:
    return None if direction is None else 1 - direction


def _remember(table: OrderedDict[_K, _T], key: _K, value: _T) -> None:
    """
    Note something; of too much the oldest is forgotten.
    """
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_OFFERS:
        table.popitem(last=False)


def _without_trailer(header: Header, data: bytes, stub: bytes) -> bytes:
    """
    Cut an authentication trailer, and the padding before it, off a stub.

    @raise MalformedPDUError: If there is no room for them.
    """
    if not header.auth_length:
        return stub
    length = header.auth_length + pdu.AUTH_TRAILER_LENGTH
    if length > len(stub):
        raise MalformedPDUError(f"an authentication trailer of {length} bytes does not fit")
    length += pdu.decode_auth_trailer(header, data).pad_length
    return stub[: max(len(stub) - length, 0)]
