"""
The KMS client on Twisted: connect to a host, ask, and get an answer that was verified, or an error that says why not.

L{activate} is the whole of it for most: one connection, one request.  L{connect} gives an L{ActivationClient} for
those who ask more than once on a connection; its calls may overlap.  Whoever wants to know all about an exchange, not
only whether it was good, calls L{ActivationClient.ask}.

Every way in which it can go wrong is an error of its own (L{kmsproto.errors}): the host was not reached or hung up,
did not answer in time, refused the bind, offers no context that we can use, answered with a fault or an HRESULT, or
gave an answer that failed a check.  A host that breaks the RPC protocol ends the connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from kmsproto.errors import (
    ConnectionSpentError,
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
)
from kmsproto.findings import Finding
from kmsproto.kms.envelopes import SALT_LENGTH, OpenedResponse
from kmsproto.kms.messages import RequestBody
from kmsproto.net.activation import (
    Activated,
    Bound,
    ClientEvent,
    ClientSession,
    NotActivated,
    Outcome,
)
from kmsproto.net.transports import send_at_once

_Result = TypeVar("_Result")

#: Seconds that a host has for each step by default.
DEFAULT_TIMEOUT = 10.0


@dataclass(slots=True, frozen=True)
class ClientOptions:
    """
    How a client talks.

    @ivar ndr64: Whether to offer NDR64 beside NDR.
    @ivar bind_time_features: Whether to ask for bind-time features.
    @ivar multiplexed: Whether to ask for concurrent multiplexing.
    @ivar timeout: Seconds that the host has for the connection, the bind, and each answer.
    @ivar entropy: Gives so many random bytes.
    @ivar scrutinize: Whether to look for broken rules in all that the host sends.
    """

    ndr64: bool = True
    bind_time_features: bool = True
    multiplexed: bool = True
    timeout: float = DEFAULT_TIMEOUT
    entropy: Callable[[int], bytes] = os.urandom
    scrutinize: bool = False


class ActivationClient(Protocol):
    """
    The client's side of one connection; made by L{connect}.

    @param clock: The source of time: the reactor.
    @param options: How to talk.
    """

    #: Whatever carries the stream: TCP, TLS or a UNIX socket.
    transport: Any

    def __init__(self, clock: IReactorTime, options: ClientOptions) -> None:
        self._clock = clock
        self._options = options
        self._session = ClientSession(
            ndr64=options.ndr64,
            bind_time_features=options.bind_time_features,
            multiplexed=options.multiplexed,
            scrutinize=options.scrutinize,
        )
        self._bound: Deferred[None] = Deferred()
        self._calls: dict[int, Deferred[Outcome]] = {}
        self._answered = False
        self._over: KMSProtoError | None = None
        self._closed: Deferred[None] | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """
        The rules that the host was seen to break on this connection, if that was to be looked for.
        """
        return self._session.findings

    @property
    def multiplexed(self) -> bool:
        """
        Whether the host granted that calls overlap.
        """
        return self._session.multiplexed

    @property
    def association_group(self) -> int:
        """
        The id of the association group that the host put the connection into; 0 before the bind.
        """
        return self._session.association_group

    def wait_until_bound(self) -> Deferred[None]:
        """
        Wait for the bind that the connection began with; L{connect} does that.
        """
        return self._limited(self._bound, "the bind")

    def activate(self, body: RequestBody) -> Deferred[OpenedResponse]:
        """
        Ask for an activation.

        @param body: What to ask for; its version decides how it is sealed.
        @return: The verified answer, or one of the failures that L{kmsproto.errors} knows.
        """
        return self.ask(body).addCallback(lambda outcome: outcome.response)

    def ask(self, body: RequestBody) -> Deferred[Outcome]:
        """
        Ask for an activation, and learn all about what came of it.

        @param body: What to ask for; its version decides how it is sealed.
        @return: What the host answered, good or bad; it fails only when there was no answer.
        """
        if self._over is not None:
            return fail(self._over)
        try:
            call_id = self._session.activate(body, self._options.entropy(SALT_LENGTH))
        except KMSProtoError:
            return fail(Failure())
        answered: Deferred[Outcome] = Deferred()
        self._calls[call_id] = answered
        self._send()
        return self._limited(answered, "the activation request")

    def close(self) -> Deferred[None]:
        """
        Close the connection; one that does not close in time is cut.

        @return: Fires when it is gone.  It does not fail.
        """

        def late(result: object, seconds: float) -> None:
            self._end(HostTimeoutError(f"the connection did not close within {_shown(seconds)}"))

        if self._closed is None:
            self._closed = Deferred()
            if self._over is None:
                self._closed.addTimeout(self._options.timeout, self._clock, late)
                self.transport.loseConnection()
            else:
                self._closed.callback(None)
        return self._closed

    # What the transport tells.

    def connectionMade(self) -> None:
        """
        Bind at once.
        """
        send_at_once(self.transport)
        self._session.connected_to(getattr(self.transport.getPeer(), "port", None))
        self._send()

    def dataReceived(self, data: bytes) -> None:
        """
        Take a segment.
        """
        for event in self._session.receive_data(data):
            self._handle(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell everybody who waits.
        """
        self._give_up(
            ConnectionSpentError(
                "the host closed the connection behind an answer; ask on a fresh connection each time"
            )
            if self._answered
            else HostUnreachableError("the host closed the connection before it answered")
        )
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    # The steps.

    def _send(self) -> None:
        self.transport.write(self._session.data_to_send())

    def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, Activated | NotActivated):
            self._answered = True
            self._calls.pop(event.call_id).callback(event.outcome)
        elif isinstance(event, Bound):
            self._bound.callback(None)
        else:
            self._end(event.error)

    def _limited(self, waited: Deferred[_Result], step: str) -> Deferred[_Result]:
        """
        Put the time limit on a step; when it is over, so is the connection.
        """
        timeout = self._options.timeout

        def late(result: object, seconds: float) -> Any:
            problem = HostTimeoutError(f"the host did not answer {step} within {_shown(seconds)}")
            self._end(problem)
            return Failure(problem)

        return waited.addTimeout(timeout, self._clock, late)

    def _end(self, problem: KMSProtoError) -> None:
        """
        Give up, and close without waiting for anything.
        """
        self._give_up(problem)
        self.transport.abortConnection()

    def _give_up(self, problem: KMSProtoError) -> None:
        """
        Tell everybody who waits that it is over.
        """
        if self._over is not None:
            return
        self._over = problem
        self._session.close()
        steps: list[Deferred[Any]] = [self._bound, *self._calls.values()]
        self._calls.clear()
        for step in steps:
            if not step.called:
                step.errback(problem)


def connect(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    options: ClientOptions | None = None,
    unbound: Callable[[ActivationClient], object] | None = None,
) -> Deferred[ActivationClient]:
    """
    Connect to a host and bind.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param options: How to talk.
    @param unbound: Is given the client whose bind came to nothing, for what was found out until then.
    @return: The client, bound; or a failure that L{kmsproto.errors} knows.
    """
    return Deferred.fromCoroutine(_connect(clock, endpoint, options or ClientOptions(), unbound))


def activate(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    body: RequestBody,
    options: ClientOptions | None = None,
) -> Deferred[OpenedResponse]:
    """
    Ask a host for one activation, on a connection of its own.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param body: What to ask for.
    @param options: How to talk.
    @return: The verified answer; or a failure that L{kmsproto.errors} knows.
    """
    return Deferred.fromCoroutine(_activate(clock, endpoint, body, options or ClientOptions()))


def _shown(seconds: float) -> str:
    """
    Write a time limit for people: one that is the rest of another is no round number.
    """
    return f"{round(seconds, 3) or seconds:g} seconds"


async def _connect(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    options: ClientOptions,
    unbound: Callable[[ActivationClient], object] | None = None,
) -> ActivationClient:
    def late(result: Any, seconds: float) -> Any:
        # Whatever the endpoint makes of being cancelled: each kind has an error of its own for that.
        if not isinstance(result, Failure):
            result.transport.abortConnection()
        raise HostTimeoutError(f"no connection within {_shown(seconds)}")

    factory = _ClientFactory(clock, options)
    try:
        protocol = await endpoint.connect(factory).addTimeout(options.timeout, clock, late)
    except (error.ConnectError, error.DNSLookupError, OSError, ValueError) as problem:
        # A ValueError is what an endpoint has to say of a name that no host can have.
        raise HostUnreachableError(f"no connection: {str(problem).rstrip('.')}") from problem
    client = cast(ActivationClient, protocol)
    try:
        await client.wait_until_bound()
    except BaseException:
        # Whatever ends the wait, also that whoever waits gave up: nobody will close the connection later.
        client.transport.abortConnection()
        if unbound is not None:
            unbound(client)
        raise
    return client


async def _activate(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, body: RequestBody, options: ClientOptions
) -> OpenedResponse:
    client = await _connect(clock, endpoint, options)
    try:
        return await client.activate(body)
    finally:
        await client.close()


class _ClientFactory(Factory):
    """
    Makes clients.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, options: ClientOptions) -> None:
        self._clock = clock
        self._options = options

    def buildProtocol(self, addr: IAddress | None) -> ActivationClient:
        """
        Make the client of a connection.
        """
        return ActivationClient(self._clock, self._options)
