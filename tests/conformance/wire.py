"""
One connection to the host, in memory: what a peer sends, what it gets, and who closes.

L{Wire} plays the part of the network.  It hands the bytes of a test to a server protocol of
Twisted, cut as the test wants, and behaves like a real TCP transport where that matters: nothing is
delivered while the protocol has paused reading or after it has let go of the connection, writes
after a close go nowhere, what was written in the same turn as an abort is lost, and the protocol
learns of the end of the connection later than it asked for it.

L{ConformanceCase} adds the assertions that the tables of the standard are made of: this answer and
no other; the connection stays (proved by an activation on it); the connection is closed (proved by
input that is not answered any more).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypedDict, Unpack

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.testing import host_factory
from tests.conformance.answers import (
    PDU,
    expected_bind_nak,
    expected_fault,
    parse,
)
from tests.conformance.payloads import RECORDED_AT, REQUEST_V4, check_activation
from tests.conformance.pdus import (
    NDR,
    NDR64,
    Element,
    PType,
    Syntax,
    activation_stub,
    bind,
    element,
    features,
    request,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.protocol import Factory

#: Where the clients of the tests are, unless told otherwise: in a private network.
PEER = "10.0.0.10"


class Settings(TypedDict, total=False):
    """
    What may differ between the hosts of the tests.
    """

    ndr64: bool
    bind_time_features: bool


def build_factory(clock: IReactorTime, **settings: Unpack[Settings]) -> Factory:
    """
    Make a host with fixed identity, policy and randomness.

    @param clock: The only source of time.
    @return: A factory of server protocols.
    """
    return host_factory(clock, catalog=_catalog(), **settings)


@cache
def _catalog() -> Catalog:
    """
    The built-in catalogue, read once: property tests make hundreds of hosts.
    """
    return load_catalog()


@implementer(ITCPTransport, IHalfCloseableDescriptor)
class MemoryTransport(StringTransportWithDisconnection):
    """
    The host's end of a connection.

    @ivar calls: The names of the methods called that say something about the connection.
    @ivar write_closed: The protocol has closed its direction.
    @ivar aborted: The protocol has thrown the connection away.
    """

    def __init__(self, host: IPv4Address, peer: IPv4Address) -> None:
        super().__init__(hostAddress=host, peerAddress=peer)
        self.calls: list[str] = []
        self.write_closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        """
        Take bytes, as long as this direction is open.
        """
        if self.write_closed or self.disconnecting:
            self.calls.append("write after close")
        else:
            super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Take several pieces at once.
        """
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """
        Close one direction, behind what was written.
        """
        self.calls.append("loseWriteConnection")
        self.write_closed = True

    def loseConnection(self) -> None:
        """
        Close both directions, behind what was written.
        """
        self.calls.append("loseConnection")
        self.disconnecting = True

    def abortConnection(self) -> None:
        """
        Close both directions at once.
        """
        self.calls.append("abortConnection")
        self.aborted = self.disconnecting = True

    def readConnectionLost(self, reason: Failure) -> None:
        """
        Part of C{IHalfCloseableDescriptor}; the reactor's business.
        """

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        Part of C{IHalfCloseableDescriptor}; the reactor's business.
        """

    def pauseProducing(self) -> None:
        """
        Stop delivering.
        """
        self.calls.append("pauseProducing")
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        """
        Go on delivering, unless it is too late.
        """
        self.calls.append("resumeProducing")
        if not self.disconnecting:
            self.producerState = "producing"

    def unregisterProducer(self) -> None:
        """
        Forget the producer; as in a real transport, there need not be one.
        """
        self.producer = None

    def getTcpNoDelay(self) -> bool:
        """
        Tell what was set.
        """
        return "setTcpNoDelay" in self.calls

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Take note.
        """
        if enabled:
            self.calls.append("setTcpNoDelay")

    def getTcpKeepAlive(self) -> bool:
        """
        Tell what was set.
        """
        return "setTcpKeepAlive" in self.calls

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Take note.
        """
        if enabled:
            self.calls.append("setTcpKeepAlive")


class Wire:
    """
    A connection from a peer to the host.

    @ivar transport: The host's end.
    @ivar raw: All bytes the host has sent.
    @ivar lost: The host has been told that the connection is gone.
    @ivar group: The association group, once bound by L{ConformanceCase.bound}.
    """

    def __init__(
        self, factory: Factory, clock: Clock, *, peer: str = PEER, host_port: int = 1688
    ) -> None:
        address = IPv4Address("TCP", peer, 50000)
        self.transport = MemoryTransport(IPv4Address("TCP", "10.0.0.1", host_port), address)
        protocol = factory.buildProtocol(address)
        if protocol is None:
            raise AssertionError("the host does not take the connection")
        self._protocol = self.transport.protocol = protocol
        self._clock = clock
        self._queue: deque[bytes] = deque()
        self._call_ids = iter(range(0x4000, 0x7FFFFFFF))
        self._seen = 0
        self._bytes = b""
        self.lost = False
        self.group = 0
        protocol.makeConnection(self.transport)
        self._settle()

    @property
    def closed(self) -> bool:
        """
        The host has closed its direction, or all of the connection.
        """
        return self.transport.write_closed or self.transport.disconnecting

    @property
    def raw(self) -> bytes:
        """
        All bytes the host has sent.
        """
        self._settle()
        return self._bytes

    def send(self, data: bytes, chunk: int | Sequence[int] | None = None) -> None:
        """
        Deliver bytes.

        @param chunk: The size of each segment, or the sizes of the first segments, with all the
            rest in one more; C{None} for a single segment.
        """
        if isinstance(chunk, int):
            self._queue.extend(data[at : at + chunk] for at in range(0, len(data), chunk))
        else:
            at = 0
            for size in chunk or ():
                self._queue.append(data[at : at + size])
                at += size
            self._queue.append(data[at:])
        self._pump()

    def take(self) -> bytes:
        """
        What the host has sent since the last look.
        """
        fresh = self.raw[self._seen :]
        self._seen += len(fresh)
        return fresh

    def pdus(self) -> list[PDU]:
        """
        What the host has sent since the last look, PDU by PDU.
        """
        return parse(self.take())

    def call_id(self) -> int:
        """
        A call id that was not used before.
        """
        return next(self._call_ids)

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self._clock.advance(seconds)
        self._pump()

    def half_close(self) -> None:
        """
        The peer has nothing more to send, and says so by a FIN.
        """
        if IHalfCloseableProtocol.providedBy(self._protocol):
            IHalfCloseableProtocol(self._protocol).readConnectionLost()
            self._settle()
        else:
            self._lose(ConnectionDone())

    def drop(self) -> None:
        """
        The connection breaks, if it is still there.
        """
        if not self.lost:
            self._lose(ConnectionLost())

    def _pump(self) -> None:
        """
        Deliver segment by segment, as long as the host reads.
        """
        self._settle()
        while self._queue and self._reading():
            segment = self._queue.popleft()
            if segment:
                self._protocol.dataReceived(segment)
                self._settle()

    def _reading(self) -> bool:
        transport = self.transport
        return not (self.lost or transport.disconnecting or transport.producerState != "producing")

    def _settle(self) -> None:
        """
        Let the rest of a reactor's turn happen.
        """
        self._collect()
        self._clock.advance(0)
        self._collect()
        if self.transport.disconnecting and not self.lost:
            self._lose(ConnectionAborted() if self.transport.aborted else ConnectionDone())

    def _collect(self) -> None:
        if not self.transport.aborted:
            self._bytes += self.transport.value()
        self.transport.clear()

    def _lose(self, reason: Exception) -> None:
        self.lost = True
        self.transport.connected = False
        self.transport.disconnecting = True
        self._protocol.connectionLost(Failure(reason))


def listing(data: bytes) -> str:
    """
    Bytes for the eye: a line for each PDU, as far as there are PDUs.
    """
    lines = []
    rest = data
    while len(rest) >= 16:
        size = max(int.from_bytes(rest[8:10], "little"), 16)
        lines.append(rest[:size].hex(" ", -4))
        rest = rest[size:]
    if rest:
        lines.append(rest.hex(" ", -4))
    return "\n  ".join(lines) or "nothing"


class ConformanceCase(SynchronousTestCase):
    """
    What the tests of the RPC layer have in common.
    """

    def setUp(self) -> None:
        """
        Start the clock.
        """
        self.clock = Clock()
        self.clock.advance(RECORDED_AT)
        self._factories: dict[tuple[tuple[str, object], ...], Factory] = {}

    def factory(self, **settings: Unpack[Settings]) -> Factory:
        """
        The host of this test with these settings; the same one each time.
        """
        key = tuple(sorted(settings.items()))
        if key not in self._factories:
            factory = self._factories[key] = build_factory(self.clock, **settings)
            factory.doStart()
            self.addCleanup(factory.doStop)
        return self._factories[key]

    def wire(
        self, *, peer: str = PEER, host_port: int = 1688, **settings: Unpack[Settings]
    ) -> Wire:
        """
        A new connection.
        """
        wire = Wire(self.factory(**settings), self.clock, peer=peer, host_port=host_port)
        self.addCleanup(wire.drop)
        return wire

    def bound(
        self,
        *elements: Element,
        peer: str = PEER,
        group: int = 0,
        **settings: Unpack[Settings],
    ) -> Wire:
        """
        A new connection with a bind on it; by default of NDR as context 0.
        """
        wire = self.wire(peer=peer, **settings)
        wire.send(bind(*(elements or [element(0, NDR)]), group=group))
        (answer,) = wire.pdus()
        self.assertEqual(answer.ptype, PType.BIND_ACK)
        self.assertFalse(wire.closed)
        wire.group = answer.group
        return wire

    def bound_like_windows(self) -> Wire:
        """
        A new connection after the bind of Windows: context 1 is NDR64, 0 and 2 are refused.
        """
        return self.bound(element(0, NDR), element(1, NDR64), element(2, features(3)))

    def assertAnswers(self, wire: Wire, sent: bytes, *expected: bytes) -> None:
        """
        The host answers these bytes with these PDUs and no other.
        """
        wire.take()
        wire.send(sent)
        self.assertSent(wire, *expected, cause=sent)

    def assertSent(self, wire: Wire, *expected: bytes, cause: bytes = b"") -> None:
        """
        Since the last look the host has sent these PDUs and no other.
        """
        got, wanted = wire.take(), b"".join(expected)
        if got != wanted:
            self.fail(
                f"sent\n  {listing(cause[:600])}\nexpected\n  {listing(wanted)}"
                f"\ngot\n  {listing(got)}"
            )

    def assertActivates(
        self,
        wire: Wire,
        context: int = 0,
        syntax: Syntax = NDR,
        payload: bytes = REQUEST_V4,
        call_id: int | None = None,
    ) -> None:
        """
        A good activation is granted.
        """
        call_id = wire.call_id() if call_id is None else call_id
        wire.take()
        wire.send(request(activation_stub(payload, syntax), context=context, call_id=call_id))
        self.assertGranted(wire, call_id, context, syntax, payload)

    def assertGranted(
        self,
        wire: Wire,
        call_id: int = 1,
        context: int = 0,
        syntax: Syntax = NDR,
        payload: bytes = REQUEST_V4,
        cancels: Sequence[int] = (0,),
    ) -> None:
        """
        Since the last look the host has granted one activation, and sent nothing else.
        """
        answers = wire.pdus()
        self.assertEqual([answer.ptype for answer in answers], [PType.RESPONSE], answers)
        self.assertGrants(answers[0], call_id, context, syntax, payload, cancels)

    def assertGrants(
        self,
        answer: PDU,
        call_id: int = 1,
        context: int = 0,
        syntax: Syntax = NDR,
        payload: bytes = REQUEST_V4,
        cancels: Sequence[int] = (0,),
    ) -> None:
        """
        This PDU grants an activation.
        """
        self.assertEqual(answer.ptype, PType.RESPONSE)
        self.assertEqual((answer.call_id, answer.context), (call_id, context))
        self.assertIn(answer.cancel_count, cancels)
        check_activation(answer.stub, payload, syntax)

    def assertStays(self, wire: Wire, context: int = 0, syntax: Syntax = NDR) -> None:
        """
        The connection is still there and fit for use.
        """
        self.assertFalse(wire.closed, "the connection was closed")
        self.assertActivates(wire, context, syntax)

    def assertClosed(self, wire: Wire) -> None:
        """
        The connection is closed, nothing was cut off, and the host answers nothing any more.
        """
        self.assertTrue(wire.closed, "the connection was not closed")
        self.assertNotIn("write after close", wire.transport.calls)
        before = wire.raw
        wire.send(request(activation_stub(REQUEST_V4), call_id=wire.call_id()))
        wire.send(bind(element(0, NDR)))
        wire.send(b"\0" * 100)
        self.assertEqual(wire.raw, before, "input was answered after the close")

    def assertNak(self, wire: Wire, sent: bytes, reason: int, call_id: int = 1) -> None:
        """
        The host refuses a bind and closes.
        """
        self.assertAnswers(wire, sent, expected_bind_nak(reason, call_id))
        self.assertClosed(wire)

    def assertFaultStays(
        self,
        wire: Wire,
        sent: bytes,
        status: int,
        call_id: int = 1,
        context: int = 0,
        *,
        executed: bool = False,
        live: tuple[int, Syntax] = (0, NDR),
    ) -> None:
        """
        The host answers with this fault, and the connection stays.

        @param live: A context of the connection that can be called, and its syntax.
        """
        fault = expected_fault(status, call_id, context, executed=executed)
        self.assertAnswers(wire, sent, fault)
        self.assertStays(wire, *live)

    def assertFaultCloses(
        self,
        wire: Wire,
        sent: bytes,
        status: int,
        call_id: int = 1,
        context: int = 0,
        *,
        executed: bool = False,
    ) -> None:
        """
        The host answers with this fault and closes.
        """
        fault = expected_fault(status, call_id, context, executed=executed)
        self.assertAnswers(wire, sent, fault)
        self.assertClosed(wire)
