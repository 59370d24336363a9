"""
The KMS host on Twisted: a Protocol for each connection, and the Factory that they share.

L{HostProtocol} is an adapter around L{HostConnection<kmsproto.net.activation.HostConnection>}: it feeds in what
arrives and writes what comes out.  A policy that answers at once costs no Deferred; one that returns a Deferred or a
coroutine is waited for, and other calls go on meanwhile.

How a connection ends is half of the work here:

  - After an answer that precedes a close, only the write side is closed, and input is thrown away until the peer
    closes too.  A plain close with unread input would send a reset, which can destroy the answer on its way.
  - A peer that closes its write side after a call still gets its answer.
  - A peer that does not read is not read from (the transport tells us as a push producer).
  - Every answer gives the connection another C{idle_timeout}.  Bytes that lead to no answer do not, so that neither
    silence nor a trickle keeps a connection.

L{HostFactory} decides who may connect at all, and drains when the service stops.  What it serves can be changed while
it runs, without harm to the connections that are open.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kmsproto.kms.host import Host
from kmsproto.kms.policy import Peer
from kmsproto.net.access import PRIVATE_ONLY, AccessRules, peer_of
from kmsproto.net.activation import (
    HostConnection,
    HostEvent,
    PolicyFailed,
    Undecided,
    make_rpc_server,
)
from kmsproto.net.deadlines import Deadlines
from kmsproto.net.rates import RateLimiter
from kmsproto.net.reporting import PLAIN, LineStyle, Reporter
from kmsproto.net.transports import Dispatcher, Outlet


@dataclass(slots=True, frozen=True)
class Limits:
    """
    What a host lets its peers use.

    @ivar idle_timeout: Seconds without an answer after which a connection is closed.
    @ivar linger_timeout: Seconds that a peer has to close a connection which we have closed.
    @ivar drain_timeout: Seconds that calls in progress have to finish when the host stops.
    @ivar max_connections: Connections at a time.
    @ivar max_connections_per_address: Connections of one address at a time.
    @ivar connection_rate: Connections per second that one address may make in the long run; L{None} for any number.
    @ivar connection_burst: Connections that one address may make at once before that holds.
    @ivar disconnect_after_call: Whether a connection ends with the answer to its first call; calls that came with that
        in one segment are answered too.
    """

    idle_timeout: float = 30.0
    linger_timeout: float = 2.0
    drain_timeout: float = 5.0
    max_connections: int = 16384
    max_connections_per_address: int = 1024
    connection_rate: float | None = None
    connection_burst: int = 20
    disconnect_after_call: bool = False


@implementer(IHalfCloseableProtocol, IPushProducer)
class HostProtocol(Protocol):
    """
    The host's side of one connection.

    @param factory: Made it, and holds what the connections share.
    @param peer: Who is at the other end.
    """

    factory: HostFactory
    #: Whatever carries the stream: TCP, TLS or a UNIX socket.
    transport: Any

    def __init__(self, factory: HostFactory, peer: Peer) -> None:
        self.factory = factory
        self.peer = peer
        self._connection: HostConnection
        self._outlet: Outlet
        self._pending: set[Deferred[Any]] = set()
        self._write_blocked = False
        self._reading = True
        self._peer_finished = False
        self._draining = False
        self._ending = False
        self._advancing = False
        self._again = False

    # What the transport tells.

    def connectionMade(self) -> None:
        """
        Begin the RPC connection, which names our own port to the client.
        """
        factory = self.factory
        self._outlet = factory.dispatcher.outlet(self.transport, self)
        port = factory.dispatcher.port(self.transport)
        self._connection = HostConnection(factory.host, factory.rpc_server, self.peer, port)
        factory.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Take a segment; what comes after our last answer is thrown away.
        """
        if self._ending:
            return
        now = self.factory.clock.seconds()
        taken = self._connection.receive_short(data, now)
        if taken is None:
            self._advance(data)
        elif isinstance(taken, Undecided):
            self._report(taken)
            self._advance(b"")
        else:
            if isinstance(taken, bytes):
                self._outlet.write(taken)
                self.factory.idle.touch(self, now)
            else:
                self.factory.reporter.report(self.peer, taken, now)
                self._send(now)
            if self._peer_finished or self._draining or not self._reading:
                self._consider()

    def readConnectionLost(self) -> None:
        """
        The peer has sent its last byte; calls in progress are still answered.
        """
        self._peer_finished = True
        if self._ending:
            self.transport.loseConnection()
        elif not self._connection.waiting:
            self._report_departure()
            self._end()

    def writeConnectionLost(self) -> None:
        """
        Our write side is closed, as we wished.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the connection, and the calls that nobody waits for any more.
        """
        if not self._ending:
            self._report_departure()
        self._ending = True
        self._abandon_calls()
        self.factory.closed(self)
        # It knows us: a ring that would be left to the garbage collector.
        del self._outlet

    def pauseProducing(self) -> None:
        """
        The peer does not read what we write: read no further.
        """
        self._write_blocked = True
        self._regulate()

    def resumeProducing(self) -> None:
        """
        The peer has read what we wrote.
        """
        self._write_blocked = False
        self._regulate()

    def stopProducing(self) -> None:
        """
        The transport is gone; C{connectionLost} follows.
        """

    # What the factory asks for.

    def expire(self) -> None:
        """
        End a connection that does not get on.
        """
        reason = self._connection.unfinished
        if self._write_blocked:
            reason = "it does not read its answers"
        elif not reason and not self._connection.bound:
            reason = "it never bound"
        if reason:
            self.factory.reporter.closed(self.peer, f"timed out: {reason}")
        self._end()

    def drain(self) -> None:
        """
        End the connection as soon as no call is in progress.
        """
        self._draining = True
        if not self._connection.waiting:
            self._end()

    def serve(self, host: Host) -> None:
        """
        Let another host answer from the next call on.
        """
        self._connection.host = host

    def abort(self) -> None:
        """
        End the connection now.
        """
        self.transport.abortConnection()

    # The life of a call.

    def _advance(self, data: bytes) -> None:
        """
        Feed the connection, send its answers, and see how things are now.

        A decision that comes while this runs makes it go round once more instead of calling itself: a client may
        have hundreds of calls in one segment, and a policy may return Deferreds that have fired already.
        """
        self._again = True
        if self._advancing:
            return
        self._advancing = True
        connection = self._connection
        now = self.factory.clock.seconds()
        try:
            while self._again:
                self._again = False
                for event in connection.receive_data(data, now):
                    self._report(event, now)
                data = b""
        finally:
            self._advancing = False
        self._send(now)
        self._consider()

    def _send(self, now: float) -> None:
        """
        Write what there is to send.
        """
        output = self._connection.data_to_send()
        if output:
            self._outlet.write(output)
            self.factory.idle.touch(self, now)

    def _consider(self) -> None:
        """
        See how things are: end the connection if it is time, and read or do not.
        """
        connection = self._connection
        leaving = self._peer_finished or self._draining
        if connection.closed or (leaving and not connection.waiting):
            self._end()
        else:
            self._regulate()

    def _report(self, event: HostEvent, started: float | None = None) -> None:
        if isinstance(event, Undecided):
            self._again = True
            self._wait(event)
        else:
            self.factory.reporter.report(self.peer, event, started)

    def _wait(self, question: Undecided) -> None:
        """
        Answer the call when the policy has decided.
        """
        promise = question.promise
        decision: Deferred[Any]
        if isinstance(promise, Deferred):
            decision = promise
        elif isinstance(promise, Coroutine):
            decision = Deferred.fromCoroutine(promise)
        else:
            # Nothing that can be waited for: the host itself says what is wrong with it.
            decision = succeed(promise)
        self._pending.add(decision)
        decision.addBoth(self._decided, question, decision)

    def _decided(self, result: Any, question: Undecided, decision: Deferred[Any]) -> None:
        self._pending.discard(decision)
        if self._ending:
            if isinstance(result, Failure):
                result.trap(CancelledError)
            return
        if isinstance(result, Failure):
            event = self._connection.fail(question, cast(BaseException, result.value))
        else:
            event = self._connection.decide(question, result)
        self._report(event)
        self._advance(b"")

    # Flow and end.

    def _report_departure(self) -> None:
        """
        Write a line if the peer leaves in the middle of something.
        """
        unfinished = self._connection.unfinished
        if unfinished:
            self.factory.reporter.closed(self.peer, f"the peer left: {unfinished}")

    def _regulate(self) -> None:
        """
        Read from the peer, or do not, as things are now.
        """
        if self._peer_finished:
            return
        wanted = self._ending or not (self._write_blocked or self._connection.paused)
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _abandon_calls(self) -> None:
        self._connection.close()
        while self._pending:
            try:
                self._pending.pop().cancel()
            except Exception as error:  # noqa: BLE001 - the canceller is somebody else's code
                self.factory.reporter.report(self.peer, PolicyFailed(error))

    def _end(self) -> None:
        """
        Close the connection once what was written is delivered.
        """
        if self._ending:
            return
        self._ending = True
        self._abandon_calls()
        self._outlet.settle()
        self.transport.unregisterProducer()
        self.factory.ending(self)
        if self._peer_finished or not _closes_by_halves(self.transport):
            self.transport.loseConnection()
            return
        self._regulate()
        self.transport.loseWriteConnection()


class OneCallProtocol(HostProtocol):
    """
    The host's side of a connection that ends with the answer to its first call.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        Take a segment on the long way, which always sees how things are behind it.
        """
        if not self._ending:
            self._advance(data)

    def _report(self, event: HostEvent, started: float | None = None) -> None:
        super()._report(event, started)
        if not isinstance(event, Undecided):
            self._draining = True


def _epid_of(host: Host, kms_id: UUID) -> str:
    """
    Tell the ePID that a host presents for a KMS id.
    """
    return host.identity.epid(host.catalog.csvlk_for(kms_id).key)


def _closes_by_halves(transport: Any) -> bool:
    """
    Tell whether a transport can close the way to the peer, and keep the one from it.
    """
    return bool(
        IHalfCloseableDescriptor.providedBy(transport) and not ISSLTransport.providedBy(transport)
    )


#: Seconds that a peer has, while the host drains, to close a connection which we have closed.
DRAINING_LINGER = 0.5


class _Drain:
    """
    Waits until certain connections are gone, and aborts those that take too long.

    @ivar done: Fires when the last is gone.
    """

    def __init__(
        self, connections: Iterable[HostProtocol], clock: IReactorTime, limit: float
    ) -> None:
        self._remaining = set(connections)
        self._timer = clock.callLater(limit, self.abort)
        self.done: Deferred[None] = Deferred()

    def closed(self, protocol: HostProtocol) -> bool:
        """
        One connection is gone.

        @return: Whether it was the last.
        """
        self._remaining.discard(protocol)
        if self._remaining:
            return False
        if self._timer.active():
            self._timer.cancel()
        self.done.callback(None)
        return True

    def abort(self) -> None:
        """
        Cut those that remain.
        """
        for protocol in list(self._remaining):
            protocol.abort()


class HostFactory(ServerFactory):
    """
    Makes the connections of a host.

    @param host: What answers.
    @param clock: The source of time: the reactor.
    @param limits: What peers may use.
    @param ndr64: Whether NDR64 is offered, and then preferred.
    @param bind_time_features: Whether bind-time features are negotiated.
    @param access: Which peers are served; by default those with private addresses.
    @param style: How the lines about peers are written.
    @param journal: Takes the lines about peers, each without its end; by default they are events of Twisted's logging
        system.
    @param group_seed: Where the ids of association groups begin.  A host that is started anew should not hand out
        those of its last run, for a client could join a group of the same name by mistake.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        host: Host,
        clock: IReactorTime,
        *,
        limits: Limits | None = None,
        ndr64: bool = True,
        bind_time_features: bool = True,
        access: AccessRules = PRIVATE_ONLY,
        style: LineStyle = PLAIN,
        journal: Callable[[str], None] | None = None,
        group_seed: int = 0,
    ) -> None:
        self.clock = clock
        self.rpc_server = make_rpc_server(
            ndr64=ndr64, bind_time_features=bind_time_features, group_seed=group_seed
        )
        self.dispatcher = Dispatcher(clock)
        self._journal = journal
        self._set(host, limits or Limits(), access, style)
        self._per_address: dict[str, int] = {}
        self._drains: list[_Drain] = []
        #: Connections that may still get on; with those that linger, all that there are.
        self.idle: Deadlines[HostProtocol] = Deadlines(
            clock, self.limits.idle_timeout, HostProtocol.expire
        )
        #: Connections that we have closed and the peer has not.
        self._lingering: Deadlines[HostProtocol] = Deadlines(
            clock, self.limits.linger_timeout, HostProtocol.abort
        )

    def _set(self, host: Host, limits: Limits, access: AccessRules, style: LineStyle) -> None:
        """
        Take over what can change, and choose now what connections need not ask for.
        """
        self.reporter = Reporter(
            self._log,
            host.catalog,
            self._journal,
            style=style,
            clock=self.clock,
            epid_of=None if host.identity.varies else partial(_epid_of, host),
        )
        self.host = host
        self.limits = limits
        self._access = access
        self._make_protocol = OneCallProtocol if limits.disconnect_after_call else HostProtocol
        self._refusal: Callable[[Peer], str] = self._judge
        if limits.connection_rate is not None:
            rates = RateLimiter(limits.connection_rate, limits.connection_burst)
            self._refusal = partial(self._judge_often, rates)

    def reconfigure(
        self,
        host: Host,
        *,
        limits: Limits,
        access: AccessRules,
        style: LineStyle = PLAIN,
        ndr64: bool | None = None,
        bind_time_features: bool | None = None,
    ) -> None:
        """
        Serve something else from now on.

        Open connections stay, with what they negotiated; their next calls are answered by the new host, and the time
        limits hold for them too.  Everything else is for connections to come.

        @param host: What answers.
        @param limits: What peers may use.
        @param access: Which peers are served.
        @param style: How the lines about peers are written.
        @param ndr64: Whether NDR64 is offered, and then preferred; L{None}: as before.
        @param bind_time_features: Whether bind-time features are negotiated; L{None}: as before.
        @raise LocalProtocolError: If the style cannot be had; then nothing has changed.
        """
        reporter = self.reporter
        self._set(host, limits, access, style)
        reporter.flush()
        self.idle.relimit(limits.idle_timeout)
        self._lingering.relimit(limits.linger_timeout)
        before = self.rpc_server
        ndr64 = before.ndr64 if ndr64 is None else ndr64
        if bind_time_features is None:
            bind_time_features = before.bind_time_features
        if (before.ndr64, before.bind_time_features) != (ndr64, bind_time_features):
            self.rpc_server = make_rpc_server(
                ndr64=ndr64, bind_time_features=bind_time_features, group_seed=0
            )
            # The clients, and what was counted, are the same.
            self.rpc_server.groups = before.groups
            self.rpc_server.statistics, self.rpc_server.facts = before.statistics, before.facts
        for protocol in self.idle.items:
            protocol.serve(host)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Take a connection, or refuse it before any byte is answered.

        @return: A L{HostProtocol}, or L{None}, at which the port closes the connection.
        """
        peer = peer_of(addr)
        refusal = self._refusal(peer)
        if refusal:
            self.reporter.turned_away(peer, refusal)
            return None
        return self._make_protocol(self, peer)

    def _judge(self, peer: Peer) -> str:
        """
        Say why a peer may not connect; nothing if it may.
        """
        refusal = self._access.refusal(peer.address)
        if refusal:
            return refusal
        limits = self.limits
        if self._count() >= limits.max_connections:
            return f"{limits.max_connections} connections are open"
        if self._per_address.get(peer.address, 0) >= limits.max_connections_per_address:
            return f"{limits.max_connections_per_address} connections of this address are open"
        return ""

    def _judge_often(self, rates: RateLimiter, peer: Peer) -> str:
        """
        Say why a peer may not connect, also if it does so too often; nothing if it may.
        """
        refusal = self._judge(peer)
        if refusal or rates.admit(peer.address, self.clock.seconds()):
            return refusal
        return f"this address makes more than {rates.rate:g} connections a second"

    def _count(self) -> int:
        """
        Count the connections.
        """
        return len(self.idle.items) + len(self._lingering.items)

    def opened(self, protocol: HostProtocol) -> None:
        """
        A connection begins.
        """
        address = protocol.peer.address
        self._per_address[address] = self._per_address.get(address, 0) + 1
        self.idle.touch(protocol)

    def ending(self, protocol: HostProtocol) -> None:
        """
        A connection has nothing more to say; now it is the peer's turn to close.
        """
        self.idle.discard(protocol)
        self._lingering.touch(protocol)

    def closed(self, protocol: HostProtocol) -> None:
        """
        A connection is gone.
        """
        self.idle.discard(protocol)
        self._lingering.discard(protocol)
        address = protocol.peer.address
        left = self._per_address[address] - 1
        if left:
            self._per_address[address] = left
        else:
            del self._per_address[address]
        if self._drains:
            self._drains = [drain for drain in self._drains if not drain.closed(protocol)]
            if not self._drains:
                self._lingering.relimit(self.limits.linger_timeout)

    def drain(self) -> Deferred[None]:
        """
        Finish the calls in progress, close every connection that there is now, and tell when the last is gone.
        """
        self.reporter.flush()
        connections = [*self.idle.items, *self._lingering.items]
        if not connections:
            return succeed(None)
        # Who stops a service does not want to wait for peers that have nothing more to hear.
        self._lingering.relimit(min(self.limits.linger_timeout, DRAINING_LINGER))
        drain = _Drain(connections, self.clock, self.limits.drain_timeout)
        self._drains.append(drain)
        for protocol in connections:
            protocol.drain()
        return drain.done

    def hurry(self) -> None:
        """
        Wait no longer for the connections that are being drained.
        """
        for drain in list(self._drains):
            drain.abort()
