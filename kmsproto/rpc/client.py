"""
The client side of connection-oriented DCE/RPC: calls in, answers out.

L{ClientConnection} is one connection.  Its owner asks for a bind, an alter_context or a call, sends what
L{ClientConnection.data_to_send} hands out, feeds what comes back into L{ClientConnection.receive_data}, and learns
from the events which of its wishes came true.

A server is trusted no more than a client is: what it sends is cut by its own frag_length, answers are reassembled
within a limit, an answer that nobody asked for is a protocol error, and every mistake of the server's ends the
connection with one L{ServerMisbehaved} event.

Sources: C706 12.6.4, MS-RPCE 3.3.2; "How a correct connection-oriented DCE/RPC server behaves", sections 0 to 4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from kmsproto.errors import LocalProtocolError, RemoteProtocolError
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import (
    MAX_FRAGMENT,
    MAX_STUB,
    MUST_RECEIVE_FRAGMENT,
    WHOLE,
    ContextResult,
    PacketFlag,
    PacketType,
)
from kmsproto.rpc.pdu import (
    NDR,
    NDR64,
    Bind,
    BindAck,
    ContextElement,
    Header,
    MalformedPDUError,
    SyntaxId,
)
from kmsproto.rpc.scrutiny import Scrutiny
from kmsproto.rpc.state import CLIENT_TRANSITIONS, Arrival, ClientState, client_arrival
from kmsproto.rpc.stream import PDUStream

#: The first call id, as Windows counts.
FIRST_CALL_ID = 2
#: Characters of a secondary address, a port, behind which a host is known to misplace the results.
_MISALIGNED_ADDRESS = 5


@dataclass(slots=True, frozen=True)
class BindAccepted:
    """
    The server answered the bind; each element has its verdict.
    """

    ack: BindAck


@dataclass(slots=True, frozen=True)
class BindRefused:
    """
    The server answered the bind with a bind_nak; the connection is over.
    """

    reason: int


@dataclass(slots=True, frozen=True)
class ContextsAltered:
    """
    The server answered an alter_context; each element has its verdict.
    """

    ack: BindAck


@dataclass(slots=True, frozen=True)
class ResponseReceived:
    """
    The server answered a call.

    @ivar call_id: The call's number, as L{ClientConnection.call} gave it.
    @ivar byte_order: C{"<"} or C{">"}, of the integers of the stub.
    @ivar stub: The results.
    """

    call_id: int
    byte_order: str
    stub: bytes


@dataclass(slots=True, frozen=True)
class FaultReceived:
    """
    The server answered a call with a fault.
    """

    call_id: int
    status: int


@dataclass(slots=True, frozen=True)
class AlterRefused:
    """
    The server answered an alter_context with a fault.
    """

    status: int


@dataclass(slots=True, frozen=True)
class ServerMisbehaved:
    """
    The server broke the protocol; the connection is over.
    """

    problem: str


Event = (
    BindAccepted
    | BindRefused
    | ContextsAltered
    | AlterRefused
    | ResponseReceived
    | FaultReceived
    | ServerMisbehaved
)


@dataclass(slots=True)
class _OpenCall:
    """
    A call that waits for its answer, and the fragments of the answer that came so far.
    """

    context_id: int
    byte_order: str = ""
    parts: list[bytes] = field(default_factory=list)
    length: int = 0


def offer(
    interface: SyntaxId, *, ndr64: bool, bind_time_features: bool
) -> tuple[ContextElement, ...]:
    """
    Make the context list of a bind as Windows does: one element for each transfer syntax, and one for the features.

    @param interface: The interface to bind to.
    @param ndr64: Whether to offer NDR64 beside NDR.
    @param bind_time_features: Whether to ask for both bind-time features.
    """
    syntaxes = [NDR]
    if ndr64:
        syntaxes.append(NDR64)
    if bind_time_features:
        syntaxes.append(pdu.bind_time_features(pdu.KNOWN_FEATURES))
    return tuple(
        ContextElement(number, interface, (syntax,)) for number, syntax in enumerate(syntaxes)
    )


def _way_out(ack: BindAck) -> str:
    """
    Say what can be done about a server whose results are not as many as the contexts that were offered.
    """
    # A host is known that puts four bytes behind an address that needs none to be aligned; there the number is 0.
    if not ack.results and len(ack.secondary_address) == _MISALIGNED_ADDRESS:
        return (
            "no client can read this bind_ack, whose results are not where they belong;"
            " some hosts get that right on a port of four digits, as 1688"
        )
    return "no client can read this answer; check that it is a KMS host"


class ClientConnection:
    """
    The client side of one connection.

    @param multiplexed: Whether to ask for concurrent multiplexing, as Windows does.
    @param max_stub: Bytes of a reassembled answer at most.
    @param scrutiny: What looks at all that is sent and received, if anything shall.
    """

    def __init__(
        self,
        *,
        multiplexed: bool = True,
        max_stub: int = MAX_STUB,
        scrutiny: Scrutiny | None = None,
    ) -> None:
        self._multiplexed = multiplexed
        self._max_stub = max_stub
        self._scrutiny = scrutiny
        self._stream = PDUStream()
        self._output: list[bytes] = []
        self._events: list[Event] = []
        self._next_call_id = FIRST_CALL_ID
        self._offered: dict[int, tuple[ContextElement, ...]] = {}
        self._calls: dict[int, _OpenCall] = {}
        self._fragment_size = MAX_FRAGMENT
        #: Whether the server granted that calls overlap.
        self.multiplexed = False
        #: The contexts that calls can be made on, and their transfer syntaxes.
        self.contexts: dict[int, SyntaxId] = {}
        self.state = ClientState.UNBOUND

    @property
    def closed(self) -> bool:
        """
        Whether nothing is looked at any more.
        """
        return self.state is ClientState.CLOSED

    def bind(self, elements: Sequence[ContextElement], *, association_group: int = 0) -> None:
        """
        Ask for a bind.

        @param elements: The contexts to offer.
        @param association_group: A group to join; 0 for a new one.
        @raise LocalProtocolError: If this is not the first thing that is asked for, or cannot be written.
        """
        self._negotiate(Arrival.BIND, PacketType.BIND, elements, association_group)

    def alter_context(self, elements: Sequence[ContextElement]) -> None:
        """
        Ask for further contexts, or again for those that were refused.

        @raise LocalProtocolError: If the connection is not bound, still waits for the last such answer, or it cannot
            be written.
        """
        # The group is settled by the bind; here clients leave the field empty, and servers do not look at it.
        self._negotiate(Arrival.ALTER_CONTEXT, PacketType.ALTER_CONTEXT, elements, 0)

    def call(self, context_id: int, opnum: int, stub: bytes) -> int:
        """
        Make a call.

        @param context_id: A context that the server accepted.
        @return: The call id, by which its answer will be known.
        @raise LocalProtocolError: If the connection is not bound, the context not accepted, or the call cannot be
            written.
        """
        state = self._next_state(Arrival.WHOLE_CALL)
        if context_id not in self.contexts:
            raise LocalProtocolError(f"context {context_id} was not accepted by the server")
        call_id = self._next_call_id
        try:
            pdus = pdu.encode_request(call_id, context_id, opnum, stub, self._fragment_size)
        except struct.error as error:
            raise LocalProtocolError(f"the call cannot be written: {error}") from error
        self.state = state
        self._next_call_id = call_id % 0x7FFFFFFF + 1
        self._calls[call_id] = _OpenCall(context_id)
        self._output.extend(pdus)
        return call_id

    def data_to_send(self) -> bytes:
        """
        Hand out the bytes that are to be sent now.
        """
        data = b"".join(self._output)
        self._output.clear()
        if self._scrutiny is not None:
            self._scrutiny.sent(data)
        return data

    def receive_data(self, data: bytes) -> list[Event]:
        """
        Take a segment of the stream.

        @return: What happened.
        """
        if self.closed:
            return []
        self._stream.feed(data)
        try:
            more = True
            while more:
                # A bind_nak ends the connection, whatever the server sends behind it.
                more = self._receive_pdu() and not self.closed
        except MalformedPDUError as error:
            self._misbehaved(f"the server sent a malformed PDU: {error}")
        except RemoteProtocolError as error:
            self._misbehaved(str(error))
        events, self._events = self._events, []
        return events

    def _misbehaved(self, problem: str) -> None:
        self._events.append(ServerMisbehaved(problem))
        self.close()

    def close(self) -> None:
        """
        End the connection: nothing more is looked at.
        """
        self.state = ClientState.CLOSED
        self._stream.clear()
        self._calls.clear()

    def _negotiate(
        self, step: Arrival, packet_type: PacketType, elements: Sequence[ContextElement], group: int
    ) -> None:
        state = self._next_state(step)
        # As with Windows, a negotiation does not use its number up: the next call has the same.
        call_id = self._next_call_id
        flags = WHOLE | (PacketFlag.CONC_MPX if self._multiplexed else 0)
        bind = Bind(self._fragment_size, self._fragment_size, group, tuple(elements))
        try:
            data = pdu.encode_bind(packet_type, flags, call_id, bind)
        except struct.error as error:
            raise LocalProtocolError(f"the contexts cannot be written: {error}") from error
        self.state = state
        # Only one negotiation is ever open, so the table of those that are has at most one row.
        self._offered = {call_id: tuple(elements)}
        self._output.append(data)

    def _next_state(self, arrival: Arrival) -> ClientState:
        """
        Look up where a step of our own leads in the transition table.

        @raise LocalProtocolError: If there is no such step.
        """
        state = CLIENT_TRANSITIONS[self.state].get(arrival)
        if state is None:
            raise LocalProtocolError(
                f"{arrival.name.lower()} is out of order: the connection is {self.state.name}"
            )
        return state

    def _receive_pdu(self) -> bool:
        """
        Take the next PDU out of the stream.

        @return: Whether there was one.
        @raise RemoteProtocolError: If the server broke the protocol.
        """
        start = self._stream.peek(2)
        if len(start) == 2 and tuple(start) != pdu.RPC_VERSION:
            raise RemoteProtocolError("the server does not speak DCE/RPC version 5.0")
        header = self._stream.header()
        if header is None:
            return False
        if not header.byte_order or header.frag_length < pdu.HEADER_LENGTH:
            raise RemoteProtocolError("the server sent a header that makes no sense")
        data = self._stream.take(header)
        if data is None:
            return False
        if self._scrutiny is not None:
            self._scrutiny.received(header, data)
        if header.auth_length:
            raise RemoteProtocolError(
                "the server sent an authentication trailer that nobody asked for"
            )
        arrival = client_arrival(header.packet_type)
        if arrival is Arrival.FAULT and header.call_id in self._offered:
            arrival = Arrival.ALTER_REFUSED
        state = CLIENT_TRANSITIONS[self.state].get(arrival) if arrival else None
        if arrival is None or state is None:
            raise RemoteProtocolError(
                f"the server sent a PDU of type {header.packet_type} while we were {self.state.name.lower()}"
            )
        self.state = state
        if arrival is Arrival.RESPONSE:
            self._receive_fragment(header, data)
        elif arrival is Arrival.FAULT or arrival is Arrival.ALTER_REFUSED:
            self._receive_fault(header, data)
        elif arrival is Arrival.BIND_NAK:
            self._events.append(BindRefused(pdu.decode_bind_nak(header, data)))
            self.close()
        else:
            ack = self._receive_ack(header, data)
            self._events.append(
                BindAccepted(ack) if arrival is Arrival.BIND_ACK else ContextsAltered(ack)
            )
        return True

    def _receive_fault(self, header: Header, data: bytes) -> None:
        status = pdu.decode_fault(header, data).status
        call_id = header.call_id
        if self._offered.pop(call_id, None) is not None:
            self._events.append(AlterRefused(status))
            return
        if self._calls.pop(call_id, None) is None:
            raise RemoteProtocolError(
                f"the server sent fault 0x{status:08X} for call {call_id}, which was not made"
            )
        self._events.append(FaultReceived(call_id, status))

    def _receive_ack(self, header: Header, data: bytes) -> BindAck:
        ack = pdu.decode_bind_ack(header, data)
        elements = self._offered.pop(header.call_id, None)
        if elements is None:
            raise RemoteProtocolError(
                f"the server acknowledged call {header.call_id}, which was not made"
            )
        if len(ack.results) != len(elements):
            raise MalformedPDUError(
                f"{len(elements)} contexts were offered, but {len(ack.results)} were judged; {_way_out(ack)}"
            )
        for element, result in zip(elements, ack.results, strict=True):
            if result.result == ContextResult.ACCEPTANCE:
                if result.transfer_syntax not in element.transfer_syntaxes:
                    raise RemoteProtocolError(
                        f"the server accepted context {element.context_id} with a syntax that was not offered"
                    )
                if pdu.requested_features(result.transfer_syntax) is None:
                    self.contexts[element.context_id] = result.transfer_syntax
        if header.packet_type == PacketType.BIND_ACK:
            self.multiplexed = bool(header.flags & PacketFlag.CONC_MPX)
            self._fragment_size = min(max(ack.max_recv_frag, MUST_RECEIVE_FRAGMENT), MAX_FRAGMENT)
        return ack

    def _receive_fragment(self, header: Header, data: bytes) -> None:
        response = pdu.decode_response(header, data)
        call = self._calls.get(header.call_id)
        if call is None:
            raise RemoteProtocolError(
                f"the server answered call {header.call_id}, which was not made"
            )
        # Windows answers with the lower half of a context id only.
        if response.context_id not in (call.context_id, call.context_id & 0xFF):
            raise RemoteProtocolError(
                f"the server answered on context {response.context_id} a call on context {call.context_id}"
            )
        if bool(header.flags & PacketFlag.FIRST) == bool(call.byte_order):
            raise RemoteProtocolError(
                f"the server sent the fragments of call {header.call_id} out of order"
            )
        if call.byte_order not in ("", header.byte_order):
            raise RemoteProtocolError(
                f"the server changed its byte order inside the answer to call {header.call_id}"
            )
        call.byte_order = header.byte_order
        call.length += len(response.stub)
        if call.length > self._max_stub:
            raise RemoteProtocolError(
                f"the answer to call {header.call_id} is larger than {self._max_stub} bytes"
            )
        if response.stub:  # Empty fragments are legal and endless; they must not cost memory.
            call.parts.append(response.stub)
        if header.flags & PacketFlag.LAST:
            del self._calls[header.call_id]
            self._events.append(
                ResponseReceived(header.call_id, header.byte_order, b"".join(call.parts))
            )
