"""
The short way to the wire: when it is taken, and that it loses and reorders nothing.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net import transports
from kmsproto.net.transports import Dispatcher, Outlet


class Socket:
    """
    A socket that takes so many bytes of each write, or fails.
    """

    def __init__(self) -> None:
        self.room: list[int] = []
        self.taken = b""
        self.sends = 0
        self.broken = False

    def send(self, data: bytes) -> int:
        """
        Take what there is room for.
        """
        self.sends += 1
        if self.broken:
            raise ConnectionResetError
        count = min(self.room.pop(0), len(data)) if self.room else len(data)
        if not count:
            raise BlockingIOError
        self.taken += data[:count]
        return count


class Connection(StringTransport):
    """
    A TCP connection of a server, with what the short way needs of it.
    """

    TLS = False

    def __init__(self, listener: Any = None) -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "127.0.0.1", 1688))
        self.socket = Socket()
        self.reactor: Any = None
        self.server = listener
        self.asked = 0
        self.changes = 0
        self.no_delay = False

    def getHost(self) -> Any:
        """
        Tell the own address.
        """
        self.asked += 1
        return super().getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Take note.
        """
        self.changes += 1
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        """
        Tell what holds.
        """
        return self.no_delay


class Producer:
    """
    Is told to pause, or not.
    """

    def pauseProducing(self) -> None:
        """
        Never called by these transports.
        """

    resumeProducing = stopProducing = pauseProducing


class TransportCase(SynchronousTestCase):
    """
    A dispatcher, for which our transports are TCP connections.
    """

    def setUp(self) -> None:
        """
        Start the clock.
        """
        self.patch(transports, "_PLAIN", (Connection,))
        self.clock = Clock()
        self.dispatcher = Dispatcher(self.clock)
        self.producer: Any = Producer()

    def connect(self) -> tuple[Connection, Outlet]:
        """
        Make a connection and its outlet.
        """
        connection = Connection()
        connection.reactor = self.clock
        return connection, self.dispatcher.outlet(connection, self.producer)


class ShortWayTests(TransportCase):
    """
    Plain TCP connections.
    """

    def test_end_of_round(self) -> None:
        """
        What is written in one round of the reactor leaves at its end: one send for each connection, past its buffer.
        """
        (one, outlet), (other, second) = self.connect(), self.connect()
        outlet.write(b"a")
        second.write(b"b")
        outlet.write(b"c")
        self.assertEqual((one.socket.taken, other.socket.taken), (b"", b""))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual((one.socket.taken, other.socket.taken), (b"ac", b"b"))
        self.assertEqual((one.socket.sends, one.value(), one.producer), (1, b"", None))
        outlet.write(b"d")
        self.clock.advance(0)
        self.assertEqual(one.socket.taken, b"acd")

    def test_small_segments(self) -> None:
        """
        Small segments leave at once; connections that inherit that from their listener are not told again.
        """
        connection, _ = self.connect()
        self.assertTrue(connection.no_delay)
        for inherits, changes in ((True, 0), (False, 1)):
            listener = type("Listener", (), {})()
            for _ in range(2):
                connection = Connection(listener)
                connection.no_delay = inherits
                connection.reactor = self.clock
                self.dispatcher.outlet(connection, self.producer)
                self.assertEqual((connection.no_delay, connection.changes), (True, changes))

    def test_slow_peer(self) -> None:
        """
        What the socket does not take goes through the transport, and so does all that follows.
        """
        connection, outlet = self.connect()
        connection.socket.room = [2]
        outlet.write(b"abcd")
        self.clock.advance(0)
        outlet.write(b"ef")
        self.clock.advance(0)
        self.assertEqual((connection.socket.taken, connection.value()), (b"ab", b"cdef"))
        self.assertIs(connection.producer, self.producer)
        self.assertEqual(connection.socket.sends, 1)

    def test_full_or_broken(self) -> None:
        """
        A socket that takes nothing, or fails, is left to the transport.
        """
        for broken in (False, True):
            connection, outlet = self.connect()
            connection.socket.room, connection.socket.broken = [0], broken
            outlet.write(b"abcd")
            self.clock.advance(0)
            self.assertEqual((connection.socket.taken, connection.value()), (b"", b"abcd"))

    def test_settle(self) -> None:
        """
        Before a close, what waits is handed to the transport, once, and nothing goes the short way any more.
        """
        connection, outlet = self.connect()
        outlet.write(b"ab")
        outlet.settle()
        self.assertEqual(connection.value(), b"ab")
        outlet.settle()
        outlet.write(b"c")
        self.clock.advance(0)
        self.assertEqual((connection.value(), connection.socket.sends), (b"abc", 0))

    def test_one_fails(self) -> None:
        """
        A connection that cannot be written to at all does not keep the answers of others.
        """
        (one, outlet), (other, second) = self.connect(), self.connect()
        one.socket.broken = True
        self.patch(one, "write", None)
        outlet.write(b"a")
        second.write(b"b")
        self.assertRaises(TypeError, self.clock.advance, 0)
        self.clock.advance(0)
        self.assertEqual(other.socket.taken, b"b")

    @given(
        st.lists(
            st.one_of(st.binary(min_size=1, max_size=9), st.just("round"), st.just("settle")),
            max_size=20,
        ),
        st.lists(st.integers(0, 9), max_size=20),
    )
    def test_order(self, steps: list[Any], room: list[int]) -> None:
        """
        Whatever the socket takes and whenever, all bytes arrive, in order: the socket's before the transport's.
        """
        self.setUp()
        connection, outlet = self.connect()
        connection.socket.room = room
        for step in steps:
            if step == "round":
                self.clock.advance(0)
            elif step == "settle":
                outlet.settle()
            else:
                outlet.write(step)
        self.clock.advance(0)
        written = b"".join(step for step in steps if isinstance(step, bytes))
        self.assertEqual(connection.socket.taken + connection.value(), written)


class OtherWayTests(TransportCase):
    """
    Everything else.
    """

    def test_others(self) -> None:
        """
        TLS, a connection of another reactor, and any other transport are written to in their own way, at once.
        """
        secured, elsewhere = Connection(), Connection()
        secured.TLS, secured.reactor = True, self.clock
        for transport in (secured, elsewhere, StringTransport()):
            outlet = self.dispatcher.outlet(transport, self.producer)
            outlet.write(b"a")
            outlet.settle()
            self.assertEqual(transport.value(), b"a")
        self.assertEqual((secured.socket.sends, elsewhere.socket.sends), (0, 0))


class PortTests(TransportCase):
    """
    The own port of a connection.
    """

    def test_asked_once(self) -> None:
        """
        The connections of one listener have the same port, so only the first is asked.
        """
        listener = type("Listener", (), {})()
        connections = [Connection(listener), Connection(listener)]
        self.assertEqual([self.dispatcher.port(each) for each in connections], ["1688", "1688"])
        self.assertEqual([each.asked for each in connections], [1, 0])

    def test_without_listener(self) -> None:
        """
        A connection that no listener accepted is asked itself; where there are no ports, there is none.
        """
        self.assertEqual(self.dispatcher.port(Connection()), "1688")
        self.assertEqual(self.dispatcher.port(StringTransport(hostAddress=object())), "")
