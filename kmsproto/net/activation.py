"""
The KMS interface: the one place where RPC calls and KMS messages meet, for both sides and without I/O.

A call's stub holds a KMS request, and its answer's stub a KMS response or an HRESULT.  What is wrong with the stub is
the RPC layer's affair and becomes a fault; what is wrong with the message inside is KMS's and becomes an HRESULT in
an ordinary answer (MS-RPCE 3.3.3.4.1).

L{HostConnection} is one connection of a host: segments and the time go in; bytes to send, and a report of what
happened, come out.  A policy that decides at once is asked on the way.  What else a policy returns (a Deferred, a
coroutine) is none of our business: it is handed out with an L{Undecided} and comes back as a decision.

L{ClientSession} is one connection of a client: requests go in, verified responses or errors come out, and with each
an L{Outcome} that keeps all there is to know about the exchange.

Source: "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID

from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HResultError,
    KMSProtoError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.findings import Finding
from kmsproto.kms.envelopes import OpenedRequest, OpenedResponse, seal_request
from kmsproto.kms.host import Answer, Host
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Decision, Grant, Peer
from kmsproto.kms.verification import Verified, verify_response
from kmsproto.rpc import calls, client, ndr, server
from kmsproto.rpc.numbers import BindNakReason, FaultStatus
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId
from kmsproto.rpc.scrutiny import Scrutiny
from kmsproto.rpc.state import Interface, ServerState

#: The TCP port that is registered for KMS.
KMS_PORT = 1688
#: The KMS interface, version 1.0, with its one operation.
KMS_INTERFACE = Interface(SyntaxId(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1, 0), 1)
#: What a policy that decides at once returns; a tuple, for a union would be made anew for each call.
_DECISIONS = (Grant, HResult)
#: The opnum of RequestActivation.
REQUEST_ACTIVATION = 0


@dataclass(slots=True, frozen=True)
class Faulted:
    """
    A call was answered with a fault, and the connection goes on.
    """

    status: int
    problem: str


@dataclass(slots=True, frozen=True)
class PolicyFailed:
    """
    The policy raised an error, or decided what cannot be answered; the call was answered with a fault.
    """

    error: BaseException


@dataclass(slots=True, frozen=True)
class Closed:
    """
    The peer broke the protocol: what there is to send is the last.
    """

    problem: str


@dataclass(slots=True, eq=False)
class Undecided:
    """
    The policy needs time; L{HostConnection.decide} or L{HostConnection.fail} ends the wait.

    @ivar promise: What the policy returned instead of a decision.
    """

    call: calls.Call
    opened: OpenedRequest
    promise: object


#: An L{Answer} says that a request was answered, with a grant or an HRESULT.
HostEvent = Answer | Faulted | PolicyFailed | Closed | Undecided


def make_rpc_server(*, ndr64: bool, bind_time_features: bool, group_seed: int) -> server.RPCServer:
    """
    Make what the connections of a host share on the RPC layer.

    @param ndr64: Whether NDR64 is offered, and then preferred.
    @param bind_time_features: Whether bind-time features are negotiated.
    @param group_seed: Where the ids of association groups begin.
    """
    return server.RPCServer(
        (KMS_INTERFACE,), ndr64=ndr64, bind_time_features=bind_time_features, group_seed=group_seed
    )


class HostConnection:
    """
    One connection of a host.

    @param host: What answers.
    @param rpc_server: What the connections share; of L{make_rpc_server}.
    @param peer: Who is at the other end.
    @param secondary_address: The own port in decimal.
    """

    __slots__ = ("_peer", "_rpc", "host")

    def __init__(
        self, host: Host, rpc_server: server.RPCServer, peer: Peer, secondary_address: str
    ) -> None:
        #: What answers; another may take its place between two calls.
        self.host = host
        self._peer = peer
        self._rpc = rpc_server.accept(peer.address, secondary_address)

    @property
    def closed(self) -> bool:
        """
        Whether no input is looked at any more.
        """
        return self._rpc.closed

    @property
    def waiting(self) -> int:
        """
        How many calls wait for a decision.
        """
        return self._rpc.waiting

    @property
    def paused(self) -> bool:
        """
        Whether input is left alone until a call is answered.
        """
        return self._rpc.paused

    @property
    def unfinished(self) -> str:
        """
        What was begun and not finished; nothing when the peer is merely silent.
        """
        if self._rpc.waiting:
            return "a call waits for its decision"
        if self._rpc.incomplete:
            return "a PDU is incomplete"
        return "a call is incomplete" if self._rpc.state is ServerState.RECEIVING else ""

    @property
    def bound(self) -> bool:
        """
        Whether the peer has bound.
        """
        return self._rpc.state is not ServerState.ESTABLISHED

    def receive_short(self, data: bytes, now: float) -> HostEvent | bytes | None:
        """
        Take a segment on the short path, if it is one whole PDU of the kinds that nearly all are.

        @param now: POSIX seconds.
        @return: What happened; or bytes, which are to be sent now; or L{None}, and nothing has happened:
            L{receive_data} must have the segment.
        """
        taken = self._rpc.receive_short(data)
        return self._receive_call(taken, now) if isinstance(taken, calls.Call) else taken

    def receive_data(self, data: bytes, now: float) -> list[HostEvent]:
        """
        Take a segment, or, with no bytes, go on after a decision.

        @param now: POSIX seconds.
        @return: What happened, up to the next L{Undecided}.  Begin to wait for that, and ask again with no bytes: if
            it is decided already, its answer comes before what stands behind it in the stream.
        """
        report: list[HostEvent] = []
        events = self._rpc.receive_data(data)
        while events:
            report.extend(self._handle(event, now) for event in events)
            if isinstance(report[-1], Undecided):
                break
            events = self._rpc.receive_data(b"")
        return report

    def data_to_send(self) -> bytes:
        """
        Hand out the bytes that are to be sent now.
        """
        return self._rpc.data_to_send()

    def decide(self, question: Undecided, decision: Decision) -> HostEvent:
        """
        Answer a call whose policy needed time.
        """
        return self._decided(question.call, question.opened, decision)

    def fail(self, question: Undecided, error: BaseException) -> HostEvent:
        """
        Answer a call whose policy failed in the end.
        """
        return self._failed(question.call, error)

    def close(self) -> None:
        """
        End the connection; calls that wait are forgotten.  May be repeated.
        """
        self._rpc.close()

    def _handle(self, event: calls.Event, now: float) -> HostEvent:
        if isinstance(event, calls.CallReceived):
            return self._receive_call(event.call, now)
        if isinstance(event, calls.CallRefused):
            return Faulted(event.status, event.problem)
        return Closed(event.problem)

    def _receive_call(self, call: calls.Call, now: float) -> HostEvent:
        try:
            payload = ndr.decode_activation_request(
                call.stub, call.context.transfer_syntax, call.byte_order
            )
        except ndr.BadStubError as error:
            self._rpc.fault(call, error.status)
            return Faulted(error.status, str(error))
        opened = self.host.open(payload)
        if isinstance(opened, Answer):
            return self._respond(call, opened)
        try:
            decision: object = self.host.decide(opened, self._peer, now)
        except Exception as error:  # noqa: BLE001 - the policy is somebody else's code, and this is its outlet
            return self._failed(call, error)
        if isinstance(decision, _DECISIONS):
            return self._decided(call, opened, decision)
        return Undecided(call, opened, decision)

    def _decided(self, call: calls.Call, opened: OpenedRequest, decision: Decision) -> HostEvent:
        try:
            answer = self.host.seal(opened, decision)
        except Exception as error:  # noqa: BLE001 - a decision of somebody else's that cannot be written
            return self._failed(call, error)
        return self._respond(call, answer)

    def _respond(self, call: calls.Call, answer: Answer) -> HostEvent:
        syntax = call.context.transfer_syntax
        if answer.hresult:
            stub = ndr.encode_activation_failure(answer.hresult, syntax)
        else:
            stub = ndr.encode_activation_response(answer.payload, syntax)
        self._rpc.respond(call, stub)
        return answer

    def _failed(self, call: calls.Call, error: BaseException) -> HostEvent:
        self._rpc.fault(call, FaultStatus.FAULT_UNSPEC)
        return PolicyFailed(error)


@dataclass(slots=True, frozen=True)
class Bound:
    """
    The host accepted the bind, and a context that we can use.
    """


@dataclass(slots=True, frozen=True)
class Outcome:
    """
    What became of a request: all there is to know about it, whether it was granted or not.

    @ivar request: What was asked for.
    @ivar request_payload: The KMS request as it was sent.
    @ivar transfer_syntax: NDR or NDR64.
    @ivar response_payload: The KMS response as it came; empty if there was none.
    @ivar verified: The response opened and checked; L{None} if there was none.
    @ivar error: Why this is no activation; L{None} if it is one.
    """

    request: OpenedRequest
    request_payload: bytes
    transfer_syntax: SyntaxId
    response_payload: bytes = b""
    verified: Verified | None = None
    error: KMSProtoError | None = None

    @property
    def response(self) -> OpenedResponse:
        """
        The response, which passed every check.

        @raise KMSProtoError: The error, if there is one.
        """
        if self.error is not None:
            raise self.error
        assert self.verified is not None and self.verified.body is not None
        return OpenedResponse(self.verified.body, self.verified.hardware_id)


@dataclass(slots=True, frozen=True)
class Activated:
    """
    A request was granted, and the response passed every check.
    """

    call_id: int
    response: OpenedResponse
    outcome: Outcome = field(compare=False)


@dataclass(slots=True, frozen=True)
class NotActivated:
    """
    A request was not granted, or not well; the connection goes on.
    """

    call_id: int
    error: KMSProtoError
    outcome: Outcome = field(compare=False)


@dataclass(slots=True, frozen=True)
class SessionEnded:
    """
    The host refused the bind or broke the protocol; nothing more will come.
    """

    error: KMSProtoError


ClientEvent = Bound | Activated | NotActivated | SessionEnded


class ClientSession:
    """
    One connection of a client.

    @param ndr64: Whether to offer NDR64 beside NDR.
    @param bind_time_features: Whether to ask for bind-time features.
    @param multiplexed: Whether to ask for concurrent multiplexing.
    @param scrutinize: Whether to look for broken rules in all that the host sends.
    """

    def __init__(
        self,
        *,
        ndr64: bool,
        bind_time_features: bool,
        multiplexed: bool,
        scrutinize: bool = False,
    ) -> None:
        self._scrutiny = Scrutiny() if scrutinize else None
        self._rpc = client.ClientConnection(multiplexed=multiplexed, scrutiny=self._scrutiny)
        self._calls: dict[int, Outcome] = {}
        #: The association group that the host put the connection into; 0 before the bind.
        self.association_group = 0
        self._rpc.bind(
            client.offer(KMS_INTERFACE.syntax, ndr64=ndr64, bind_time_features=bind_time_features)
        )

    @property
    def context(self) -> tuple[int, SyntaxId]:
        """
        The context that calls are made on, and its transfer syntax: NDR64 when the host accepted it, else NDR.

        @raise ContextRefusedError: If the host accepted neither.
        """
        for wanted in (NDR64, NDR):
            for context_id, syntax in self._rpc.contexts.items():
                if syntax == wanted:
                    return context_id, syntax
        raise ContextRefusedError(
            "the host accepts the bind, but no transfer syntax for the KMS interface"
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """
        The rules that the host was seen to break, if that was to be looked for.
        """
        return () if self._scrutiny is None else self._scrutiny.findings

    @property
    def multiplexed(self) -> bool:
        """
        Whether the host granted that calls overlap.
        """
        return self._rpc.multiplexed

    def connected_to(self, port: int | None) -> None:
        """
        Take note of the port that the client connected to, which a host tells in its bind_ack; L{None} if it has none.
        """
        if self._scrutiny is not None:
            self._scrutiny.port = port

    def activate(self, body: RequestBody, salt: bytes) -> int:
        """
        Ask for an activation.

        @param salt: 16 random bytes.
        @return: The call id, by which the outcome will be known.
        @raise KMSProtoError: If the request cannot be written, or calls cannot be made.
        """
        payload, request = seal_request(body, salt)
        context_id, syntax = self.context
        call_id = self._rpc.call(
            context_id, REQUEST_ACTIVATION, ndr.encode_activation_request(payload, syntax)
        )
        self._calls[call_id] = Outcome(request, payload, syntax)
        return call_id

    def data_to_send(self) -> bytes:
        """
        Hand out the bytes that are to be sent now.
        """
        return self._rpc.data_to_send()

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """
        Take a segment.

        @return: What happened.
        """
        return [self._handle(event) for event in self._rpc.receive_data(data)]

    def close(self) -> None:
        """
        End the session; what waits is forgotten.
        """
        self._rpc.close()
        self._calls.clear()

    def _handle(self, event: client.Event) -> ClientEvent:
        if isinstance(event, client.ResponseReceived):
            return self._answered(event)
        if isinstance(event, client.FaultReceived):
            fault = FaultError(event.status, FaultStatus.describe(event.status))
            return _not_activated(event.call_id, self._calls.pop(event.call_id), fault)
        if isinstance(event, client.BindRefused):
            return SessionEnded(
                BindRefusedError(event.reason, BindNakReason.describe(event.reason))
            )
        if isinstance(event, client.ServerMisbehaved):
            return SessionEnded(RemoteProtocolError(event.problem))
        if isinstance(event, client.BindAccepted):
            self.association_group = event.ack.association_group
        try:
            _ = self.context
        except ContextRefusedError as error:
            return SessionEnded(error)
        return Bound()

    def _answered(self, event: client.ResponseReceived) -> ClientEvent:
        """
        Take the KMS response out of an answer and verify it.
        """
        asked = self._calls.pop(event.call_id)
        try:
            payload, code = ndr.decode_activation_response(
                event.stub, asked.transfer_syntax, event.byte_order
            )
        except ndr.BadStubError as problem:
            return _not_activated(event.call_id, asked, VerificationError("stub", str(problem)))
        if self._scrutiny is not None:
            self._scrutiny.answered(event.stub, asked.transfer_syntax, event.byte_order)
        if code:
            error = HResultError(code, HResult(code).meaning)
            return _not_activated(event.call_id, replace(asked, response_payload=payload), error)
        verified = verify_response(payload, asked.request)
        outcome = replace(asked, response_payload=payload, verified=verified)
        if verified.failed:
            first = verified.failed[0]
            return _not_activated(
                event.call_id, outcome, VerificationError(first.name, first.problem)
            )
        return Activated(event.call_id, outcome.response, outcome)


def _not_activated(call_id: int, outcome: Outcome, error: KMSProtoError) -> NotActivated:
    return NotActivated(call_id, error, replace(outcome, error=error))
