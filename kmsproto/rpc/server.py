"""
The server side of connection-oriented DCE/RPC: a byte stream in, calls and answers out.

L{RPCServer} holds what the connections of a server share: its interfaces, its association groups, its counts and its
limits.  L{ServerConnection} is one connection.  Its owner feeds it with L{ServerConnection.receive_data}, which gives
back what happened as events; it answers each L{CallReceived} with L{ServerConnection.respond} or
L{ServerConnection.fault}, and sends what L{ServerConnection.data_to_send} hands out.

A mistake of the peer is raised inside as a L{ViolationError}, which knows the answer that it earns.  One outlet, in
C{receive_data}, writes that answer and closes the connection; dead stays dead.  A PDU is judged by its header as
soon as that is there, so a bogus length is never waited for, and the judgement does not depend on how the stream was
cut into segments.

Calls that wait for their answer are bounded: at most L{RPCServer.max_calls} with concurrent multiplexing, one without.
At the bound no further input is looked at (L{ServerConnection.paused}) until an answer is given; so without
multiplexing answers keep the order of the calls.

Nearly every segment is one whole PDU that says nothing new: a bind that was answered before, an alter_context that was
answered before, or a call like any other.  For these there is a short path (L{ServerConnection.receive_short}, and
L{kmsproto.rpc.agreements}), which takes what it knows and leaves everything else to the long one; what is answered is
the same.

Sources: C706 chapters 9, 11 and 12, MS-RPCE 3.3.3; "How a correct connection-oriented DCE/RPC server behaves".
"""

from __future__ import annotations

from collections.abc import Sequence

from kmsproto.errors import LocalProtocolError
from kmsproto.rpc import management, pdu
from kmsproto.rpc.agreements import Agreements, agree
from kmsproto.rpc.calls import (
    Call,
    CallReceived,
    CallRefused,
    ConnectionRefused,
    Event,
    PartialCall,
)
from kmsproto.rpc.groups import AssociationGroups
from kmsproto.rpc.headers import (
    ViolationError,
    judge_header,
    protocol_fault,
    recognize,
)
from kmsproto.rpc.ndr import BadStubError
from kmsproto.rpc.negotiation import (
    choose_fragment_size,
    negotiate_alter_context,
    negotiate_bind,
)
from kmsproto.rpc.numbers import (
    MAX_FRAGMENT,
    MAX_STUB,
    MIN_FRAGMENT,
    WHOLE,
    BindNakReason,
    FaultStatus,
    PacketFlag,
    PacketType,
)
from kmsproto.rpc.pdu import Header
from kmsproto.rpc.state import (
    SERVER_TRANSITIONS,
    Arrival,
    ContextTable,
    Interface,
    ServerState,
    server_arrival,
)
from kmsproto.rpc.stream import PDUStream

#: The largest first alloc_hint of a fragmented call (MS-RPCE 3.3.3.5.4).
MAX_ALLOC_HINT = 0x400000

#: Where a PDU can only be the beginning of something.
_AT_REST = (ServerState.BOUND, ServerState.ESTABLISHED)


class RPCServer:
    """
    What all connections of a server share.

    @param interfaces: The interfaces that are offered; the management interface is added.
    @param ndr64: Whether NDR64 is offered, and then preferred.
    @param bind_time_features: Whether bind-time features are negotiated.
    @param max_stub: Bytes of a reassembled call at most.
    @param max_calls: Calls of one connection that may wait for their answers.
    @param group_seed: Where the ids of association groups begin.
    """

    def __init__(
        self,
        interfaces: Sequence[Interface],
        *,
        ndr64: bool = True,
        bind_time_features: bool = True,
        max_stub: int = MAX_STUB,
        max_calls: int = 64,
        group_seed: int = 0,
    ) -> None:
        self.interfaces = (*interfaces, management.MANAGEMENT)
        self.ndr64 = ndr64
        self.bind_time_features = bind_time_features
        self.max_stub = max_stub
        self.max_calls = max_calls
        self.groups = AssociationGroups(group_seed)
        self.agreements = Agreements()
        #: The contexts that every connection begins with.
        self.no_contexts = ContextTable(self.interfaces, ndr64=ndr64)
        self.statistics = management.Statistics()
        self.facts = management.Facts(self.interfaces, self.statistics)

    def accept(self, peer: str, secondary_address: str) -> ServerConnection:
        """
        Begin a connection.

        @param peer: The address of the client, by which association groups are kept apart.
        @param secondary_address: The own port in decimal, which a bind_ack names (MS-RPCE 3.3.1.5.5).
        """
        return ServerConnection(self, peer, secondary_address)


class ServerConnection:
    """
    The server side of one connection; made by L{RPCServer.accept}.
    """

    __slots__ = (
        "_contexts",
        "_discarded_call_id",
        "_events",
        "_fragment_size",
        "_group",
        "_max_calls",
        "_output",
        "_partial",
        "_peer",
        "_secondary_address",
        "_server",
        "_stream",
        "_waiting",
        "state",
    )

    def __init__(self, server: RPCServer, peer: str, secondary_address: str) -> None:
        self._server = server
        self._peer = peer
        self._secondary_address = secondary_address
        self._stream: PDUStream | None = None
        self._output: list[bytes] = []
        self._events: list[Event]
        self._contexts = server.no_contexts
        self._fragment_size = MIN_FRAGMENT
        self._group = 0
        self._max_calls = 1
        self._waiting: set[Call] = set()
        self._partial: PartialCall | None = None
        self._discarded_call_id = 0
        self.state = ServerState.ESTABLISHED

    @property
    def _established(self) -> bool:
        """
        Whether nothing but the TCP connection is there yet.
        """
        return self.state is ServerState.ESTABLISHED

    @property
    def closed(self) -> bool:
        """
        Whether no input is looked at any more.
        """
        return self.state is ServerState.CLOSED

    @property
    def waiting(self) -> int:
        """
        How many calls wait for their answers.
        """
        return len(self._waiting)

    @property
    def paused(self) -> bool:
        """
        Whether input is left alone until a call is answered; who goes on feeding is bounded by nobody.
        """
        return len(self._waiting) >= self._max_calls

    @property
    def incomplete(self) -> bool:
        """
        Whether a PDU has begun to come, or is left alone while calls are waiting.
        """
        return self._stream is not None and bool(self._stream.unused)

    def receive_short(self, data: bytes) -> Call | bytes | None:
        """
        Take a segment on the short path, if it is one whole PDU of the kinds that nearly all are.

        @return: A call, which waits for its answer; or bytes, which are to be sent now; or L{None}, and nothing has
            happened: L{receive_data} must have the segment.
        """
        if (
            self.state not in _AT_REST
            or self._output
            or (self._stream is not None and self._stream.unused)
            or len(self._waiting) >= self._max_calls
            or len(data) > MAX_FRAGMENT
        ):
            return None
        if not pdu.is_request(data):
            return self._receive_known(data)
        read = pdu.read_whole_call(data)
        return None if read is None else self._receive_call(*read)

    def _receive_call(self, call_id: int, context_id: int, opnum: int, stub: bytes) -> Call | None:
        """
        Take a whole call, if it is one to an interface that was given to the server, and nothing is wrong with it.
        """
        context = self._contexts.get(context_id)
        if context is None or context.interface is management.MANAGEMENT:
            return None
        server = self._server
        if opnum >= context.interface.operation_count or len(stub) > server.max_stub:
            return None
        statistics = server.statistics
        statistics.packets_in += 1
        statistics.calls_in += 1
        call = Call(call_id, context_id, context, opnum, "<", stub)
        self._waiting.add(call)
        return call

    def _receive_known(self, data: bytes) -> bytes | None:
        """
        Take a bind or alter_context, if it is one that was answered before.

        @return: The answer.
        """
        server = self._server
        agreement = server.agreements.find(data, self._contexts, self._secondary_address)
        if agreement is None:
            return None
        server.statistics.packets_in += 1
        server.statistics.packets_out += 1
        if not self._group:
            self._group = server.groups.create(self._peer)
        self._contexts = agreement.contexts
        self._fragment_size = agreement.fragment_size
        self._max_calls = agreement.max_calls
        self.state = ServerState.BOUND
        return agreement.answer(data, self._group)

    def receive_data(self, data: bytes) -> list[Event]:
        """
        Take a segment of the stream, or, with no bytes, go on behind the last call.

        @return: What happened, up to the next call.  If there is one, deal with it, and ask again with no bytes: what
            stands behind it in the stream is looked at afterwards, so that its answer comes first however the stream
            was cut into segments.
        """
        if self.state is ServerState.CLOSED:
            return []
        events: list[Event] = []
        self._events = events
        if self._stream is None:
            self._stream = PDUStream()
        self._stream.feed(data)
        try:
            more = True
            while more and not self.paused:
                more = self._receive_pdu() and not self._call_is_next()
        except ViolationError as violation:
            if violation.answer:
                self._send(violation.answer)
            self._events.append(ConnectionRefused(str(violation)))
            self.close()
        return events

    def data_to_send(self) -> bytes:
        """
        Hand out the bytes that are to be sent now.
        """
        output = self._output
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    def respond(self, call: Call, stub: bytes) -> None:
        """
        Answer a call; an answer that the client no longer waits for is dropped.

        On a connection that was closed meanwhile nothing happens.

        @raise LocalProtocolError: If the call does not wait for an answer.
        """
        if self._settle(call):
            self._send(
                *pdu.encode_response(call.call_id, call.context_id, stub, self._fragment_size)
            )

    def fault(self, call: Call, status: int) -> None:
        """
        Answer a call that reached its operation with a fault; the connection goes on (C706 12.6.4.7).

        On a connection that was closed meanwhile nothing happens.

        @param status: 32 bits, for example one of L{FaultStatus}.
        @raise LocalProtocolError: If the call does not wait for an answer, or the status is none.
        """
        if not 0 < status <= 0xFFFFFFFF:
            raise LocalProtocolError(f"{status} is no fault status")
        if self._settle(call):
            self._send(
                pdu.encode_fault(call.call_id, call.context_id, status, did_not_execute=False)
            )

    def close(self) -> None:
        """
        End the connection: nothing more is looked at, calls that wait get no answer any more, and its association
        group is left.  May be repeated.
        """
        if self.closed:
            return
        self.state = ServerState.CLOSED
        self._stream = None
        self._waiting.clear()
        self._partial = None
        if self._group:
            self._server.groups.leave(self._group)

    def _call_is_next(self) -> bool:
        """
        Tell whether the last event hands a call out.
        """
        return bool(self._events) and isinstance(self._events[-1], CallReceived)

    # What follows is in the order in which a PDU meets it.

    def _receive_pdu(self) -> bool:
        """
        Take the next PDU out of the stream.

        @return: Whether there was one.
        """
        stream = self._stream
        assert stream is not None
        header = stream.header()
        if header is None:
            recognize(stream.peek(pdu.RECOGNITION_LENGTH), established=self._established)
            return False
        # Each time, also when more of the same PDU comes: it costs little, and the verdict does not change.
        judge_header(header, established=self._established)
        data = stream.take(header)
        if data is None:
            return False
        self._server.statistics.packets_in += 1
        arrival = self._step(header)
        if arrival is Arrival.BIND:
            self._receive_bind(header, data)
        elif arrival is Arrival.ALTER_CONTEXT:
            self._receive_alter_context(header, data)
        elif arrival is Arrival.ORPHANED:
            self._receive_orphaned(header)
        elif header.packet_type == PacketType.REQUEST:
            self._receive_fragment(arrival, header, data)
        # rpc_auth_3 and co_cancel change nothing: there is no security, and calls complete.
        return True

    def _step(self, header: Header) -> Arrival:
        """
        Take one step in the transition table.

        @raise ViolationError: If there is no such step.
        """
        arrival = server_arrival(header.packet_type, header.flags)
        state = SERVER_TRANSITIONS[self.state].get(arrival) if arrival else None
        if arrival is None or state is None:
            raise self._out_of_order(header)
        self.state = state
        return arrival

    def _out_of_order(self, header: Header) -> ViolationError:
        """
        Word the answer to a PDU that has no place in the order.
        """
        kind = PacketType.describe(header.packet_type)
        if header.packet_type == PacketType.BIND:
            return ViolationError(
                "a second bind", pdu.encode_bind_nak(header.call_id, BindNakReason.NOT_SPECIFIED)
            )
        if self._partial is not None:
            call = self._partial.call
            answer = protocol_fault(call.call_id, call.context_id, did_not_execute=False)
            return ViolationError(f"{kind} inside the fragments of call {call.call_id}", answer)
        answer = protocol_fault(header.call_id, did_not_execute=False)
        return ViolationError("a later fragment of a call that was not begun", answer)

    def _receive_bind(self, header: Header, data: bytes) -> None:
        """
        Answer a bind (C706 12.6.4.3, MS-RPCE 3.3.1.5.6).
        """
        features = self._server.bind_time_features
        bind, contexts, results = negotiate_bind(header, data, self._contexts, features=features)
        groups = self._server.groups
        if not bind.association_group:
            self._group = groups.create(self._peer)
        elif groups.join(bind.association_group, self._peer):
            self._group = bind.association_group
        else:
            raise ViolationError(
                f"a bind to the unknown association group {bind.association_group}",
                pdu.encode_bind_nak(header.call_id, BindNakReason.NOT_SPECIFIED),
            )
        self._fragment_size = choose_fragment_size(bind)
        multiplexed = header.flags & PacketFlag.CONC_MPX
        if multiplexed:
            self._max_calls = self._server.max_calls
        ack = self._acknowledge(self._secondary_address, results)
        answer = pdu.encode_bind_ack(PacketType.BIND_ACK, WHOLE | multiplexed, header.call_id, ack)
        self._agree(header, data, contexts, answer, repeatable=not bind.association_group)

    def _receive_alter_context(self, header: Header, data: bytes) -> None:
        """
        Answer an alter_context (C706 12.6.4.1).
        """
        contexts, results = negotiate_alter_context(header, data, self._contexts)
        ack = self._acknowledge("", results)
        answer = pdu.encode_bind_ack(PacketType.ALTER_CONTEXT_RESP, WHOLE, header.call_id, ack)
        self._agree(header, data, contexts, answer, repeatable=True)

    def _agree(
        self,
        header: Header,
        data: bytes,
        contexts: ContextTable,
        answer: bytes,
        *,
        repeatable: bool,
    ) -> None:
        """
        Conclude a negotiation, and remember how it ended if others may have the same.
        """
        before, self._contexts = self._contexts, contexts
        self._send(answer)
        if repeatable and header.byte_order == "<":
            agreement = agree(contexts, self._fragment_size, self._max_calls, answer)
            self._server.agreements.remember(data, before, self._secondary_address, agreement)

    def _acknowledge(
        self, secondary_address: str, results: tuple[pdu.Negotiated, ...]
    ) -> pdu.BindAck:
        size = self._fragment_size
        return pdu.BindAck(size, size, self._group, secondary_address, results)

    def _receive_orphaned(self, header: Header) -> None:
        """
        Forget a call that the client has lost interest in (C706 12.6.4.8).
        """
        if self._partial is not None and self._partial.call.call_id == header.call_id:
            self._drop_partial()
        for call in self._waiting:
            if call.call_id == header.call_id:
                call.orphaned = True

    def _receive_fragment(self, arrival: Arrival, header: Header, data: bytes) -> None:
        """
        Take one request PDU: a whole call, or a fragment of one (C706 12.6.4.9).
        """
        request = pdu.decode_request(header, data)
        if arrival is Arrival.WHOLE_CALL or arrival is Arrival.FIRST_FRAGMENT:
            self._begin_call(arrival, header, data, request)
        elif self._partial is not None:
            self._continue_call(self._partial, arrival, header, data, request)
        elif header.call_id != self._discarded_call_id:
            raise self._out_of_order(header)
        # What is left are further fragments of a call that was given up: nobody waits for them.

    def _begin_call(
        self, arrival: Arrival, header: Header, data: bytes, request: pdu.Request
    ) -> None:
        """
        Open a call; one that cannot be carried out is refused at once.
        """
        whole = arrival is Arrival.WHOLE_CALL
        self._server.statistics.calls_in += 1
        context = self._contexts.get(request.context_id)
        if context is None:
            # Before the trailer is judged: without a context there is no security that it could belong to.
            self._refuse_call(
                header, whole, 0, FaultStatus.UNK_IF, f"unknown context {request.context_id}"
            )
            return
        self._refuse_trailer(header, data, request.context_id)
        if request.opnum >= context.interface.operation_count:
            problem = f"the interface has no operation {request.opnum}"
            self._refuse_call(header, whole, request.context_id, FaultStatus.OP_RNG_ERROR, problem)
            return
        call = Call(
            header.call_id,
            request.context_id,
            context,
            request.opnum,
            header.byte_order,
            request.stub,
        )
        announced_too_much = not whole and request.alloc_hint > MAX_ALLOC_HINT
        if announced_too_much or len(request.stub) > self._server.max_stub:
            raise self._too_much(call)
        if whole:
            self._complete_call(call)
            return
        self._partial = PartialCall(call, [request.stub], len(request.stub))

    def _continue_call(
        self,
        partial: PartialCall,
        arrival: Arrival,
        header: Header,
        data: bytes,
        request: pdu.Request,
    ) -> None:
        """
        Add a fragment to the call that is open.
        """
        call = partial.call
        if header.call_id != call.call_id:
            answer = protocol_fault(header.call_id, did_not_execute=False)
            raise ViolationError(
                f"a fragment of call {header.call_id} inside call {call.call_id}", answer
            )
        if header.byte_order != call.byte_order:
            answer = protocol_fault(call.call_id, call.context_id, did_not_execute=False)
            raise ViolationError(f"the byte order changes inside call {call.call_id}", answer)
        self._refuse_trailer(header, data, call.context_id)
        partial.length += len(request.stub)
        if partial.length > self._server.max_stub:
            raise self._too_much(call)
        if request.stub:  # Empty fragments are legal and endless; they must not cost memory.
            partial.parts.append(request.stub)
        if arrival is Arrival.LAST_FRAGMENT:
            self._partial = None
            call.stub = b"".join(partial.parts)
            self._complete_call(call)

    def _complete_call(self, call: Call) -> None:
        """
        Answer a call of the management interface, and hand every other one out.
        """
        self._waiting.add(call)
        if call.context.interface is not management.MANAGEMENT:
            self._events.append(CallReceived(call))
            return
        try:
            facts = self._server.facts
            stub = management.answer(
                call.opnum, call.stub, call.context.transfer_syntax, call.byte_order, facts
            )
        except BadStubError as error:
            self.fault(call, error.status)
            self._events.append(CallRefused(call.call_id, error.status, str(error)))
        else:
            self.respond(call, stub)

    def _refuse_trailer(self, header: Header, data: bytes, context_id: int) -> None:
        """
        Refuse an authentication trailer, for there is no security context that it could belong to.
        """
        if header.auth_length:
            if pdu.decode_auth_trailer(header, data).overlong:
                raise ViolationError("a call with too much padding", protocol_fault(header.call_id))
            answer = pdu.encode_fault(
                header.call_id, context_id, FaultStatus.ACCESS_DENIED, did_not_execute=False
            )
            raise ViolationError("a call with an authentication trailer", answer)

    @staticmethod
    def _too_much(call: Call) -> ViolationError:
        answer = pdu.encode_fault(
            call.call_id, call.context_id, FaultStatus.ACCESS_DENIED, did_not_execute=False
        )
        return ViolationError(f"call {call.call_id} is too large", answer)

    def _refuse_call(
        self, header: Header, whole: bool, context_id: int, status: FaultStatus, problem: str
    ) -> None:
        """
        Answer a call that reaches no operation with a fault, and drop what may follow of it.
        """
        self._send(pdu.encode_fault(header.call_id, context_id, status, did_not_execute=True))
        self._events.append(CallRefused(header.call_id, status, problem))
        if not whole:
            self._discarded_call_id = header.call_id
            self.state = SERVER_TRANSITIONS[self.state][Arrival.CALL_DROPPED]

    def _drop_partial(self) -> None:
        """
        Give up the call that is being received.
        """
        assert self._partial is not None
        self._discarded_call_id = self._partial.call.call_id
        self._partial = None
        self.state = SERVER_TRANSITIONS[self.state][Arrival.CALL_DROPPED]

    def _settle(self, call: Call) -> bool:
        """
        Take a call off the list of those that wait.

        @return: Whether the client still waits for its answer.
        """
        if self.state is ServerState.CLOSED:
            return False
        try:
            self._waiting.remove(call)
        except KeyError:
            problem = f"call {call.call_id} does not wait for an answer"
            raise LocalProtocolError(problem) from None
        return not call.orphaned

    def _send(self, *pdus: bytes) -> None:
        self._server.statistics.packets_out += len(pdus)
        self._output.extend(pdus)
