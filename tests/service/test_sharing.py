"""
Sockets that are opened in one process and accepted from in others: what can be shared, and how it is adopted.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import abstract
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.service.listener import Listener
from kmsproto.service.sharing import (
    EXHAUSTED_PAUSE,
    NotSharedError,
    SharedFactory,
    SharedUNIXPort,
    adopt,
    open_shared,
)
from kmsproto.service.startup import StartupError


@implementer(IListeningPort)
class FakePort(abstract.FileDescriptor):
    """
    A port that can be paused.
    """

    def __init__(self, reactor: Any, factory: Any, descriptor: int) -> None:
        super().__init__(reactor)
        self.factory = factory
        self.stopped = 0
        self._descriptor = descriptor
        self.connected = True
        self.startReading()

    def fileno(self) -> int:
        """
        Tell the descriptor.
        """
        return self._descriptor

    def startListening(self) -> None:
        """
        Not used.
        """

    def stopListening(self) -> Deferred[None]:
        """
        Close.
        """
        self.stopped += 1
        return succeed(None)

    def getHost(self) -> IPv4Address:
        """
        Tell the address.
        """
        return IPv4Address("TCP", "10.0.0.1", self._descriptor)


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """
    An endpoint with such a port.

    @param make: Makes what listens of the factory.
    """

    def __init__(self, make: Any) -> None:
        self._make = make

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Listen.
        """
        made = self._make(protocolFactory)
        return made if isinstance(made, Deferred) else succeed(made)


class OpenSharedTests(SynchronousTestCase):
    """
    The side of the supervisor.
    """

    def setUp(self) -> None:
        """
        Be no reactor.
        """
        self.reactor = MemoryReactorClock()
        self.ports: list[FakePort] = []

    def port(self, factory: Any, descriptor: int = 7) -> FakePort:
        """
        Make a port.
        """
        self.ports.append(FakePort(self.reactor, factory, descriptor))
        return self.ports[-1]

    def open(self, *makers: Any) -> list[int]:
        """
        Open the ports of such endpoints.
        """
        endpoints = [FakeEndpoint(make) for make in makers]
        return open_shared(Listener(endpoints, Logger()), len(endpoints))

    def refused(self, *makers: Any) -> str:
        """
        Open them in vain, and see that none stays open.
        """
        with self.assertRaises(StartupError) as caught:
            self.open(*makers)
        self.assertEqual([port.stopped for port in self.ports], [1] * len(self.ports))
        self.assertEqual(self.reactor.getReaders(), [])
        return str(caught.exception)

    def test_paused(self) -> None:
        """
        Ports that are open are not read from, so nothing is accepted.
        """
        descriptors = self.open(
            lambda factory: self.port(factory, 7), lambda factory: self.port(factory, 8)
        )
        self.assertEqual(descriptors, [7, 8])
        self.assertEqual(len(self.ports), 2)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_no_connection(self) -> None:
        """
        The factory that listens makes no connection, and is not noisy about itself.
        """
        factory = SharedFactory()
        self.assertRaises(NotSharedError, factory.buildProtocol, IPv4Address("TCP", "::1", 1))
        self.assertFalse(factory.noisy)

    def test_wrapped(self) -> None:
        """
        A port that wraps the connections is refused with its address, and all ports are closed.
        """
        text = self.refused(self.port, lambda factory: self.port(Factory(), 9))
        self.assertTrue(
            text.startswith("the port at 10.0.0.1:9 cannot be shared by workers;"), text
        )
        self.assertIn("--workers=1", text)

    def test_no_descriptor(self) -> None:
        """
        A port without a descriptor is refused.
        """
        self.assertIn("cannot be shared", self.refused(lambda factory: self.port(factory, -1)))

    def test_no_port_of_the_reactor(self) -> None:
        """
        A port that is not the reactor's, and cannot be paused, is refused.
        """

        @implementer(IListeningPort)
        class OtherPort:
            """
            A port that somebody else reads from.
            """

            def getHost(self) -> str:
                """
                Tell the address.
                """
                return "elsewhere"

            def startListening(self) -> None:
                """
                Not used.
                """

            def stopListening(self) -> None:
                """
                Close.
                """

        self.assertIn("the port at elsewhere cannot", self.refused(lambda factory: OtherPort()))

    def test_late(self) -> None:
        """
        An endpoint that does not open its port at once is refused, for privileges may be gone then.
        """
        self.assertIn("opens its port later", self.refused(self.port, lambda _: Deferred()))

    def test_connects_at_once(self) -> None:
        """
        An endpoint that makes a connection as it listens, such as standard input and output, is refused.
        """
        text = self.refused(lambda factory: factory.buildProtocol(None))
        self.assertIn("cannot be shared by workers", text)


class AdoptReactor(MemoryReactorClock):
    """
    A reactor that remembers which sockets it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[int, int, Any]] = []
        self.problem: Exception | None = None

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:  # noqa: N802, N803
        """
        Take a listening socket.
        """
        self.given.append((fileDescriptor, addressFamily, factory))
        return "port"

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:  # noqa: N802, N803
        """
        Take a connection.
        """
        if self.problem is not None:
            raise self.problem
        self.given.append((os.dup(fileDescriptor), addressFamily, factory))


class AdoptTests(SynchronousTestCase):
    """
    The side of a worker.
    """

    def setUp(self) -> None:
        """
        Make a directory whose path is short enough for UNIX sockets.
        """
        temporary = tempfile.TemporaryDirectory(prefix="kms-")
        self.addCleanup(temporary.cleanup)
        self.path = Path(temporary.name) / "socket"
        self.reactor = AdoptReactor()
        self.factory: Any = Factory()
        self.factory.noisy = False

    def unix(self) -> tuple[socket.socket, SharedUNIXPort]:
        """
        Listen on a UNIX socket, and adopt it.
        """
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.path))
        listener.listen()
        listener.setblocking(False)
        self.path.chmod(0o640)
        port = adopt(self.reactor, os.dup(listener.fileno()), self.factory)
        assert isinstance(port, SharedUNIXPort)
        self.addCleanup(port.stopListening)
        return listener, port

    def client(self) -> socket.socket:
        """
        Connect to it.
        """
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(str(self.path))
        return client

    def test_tcp(self) -> None:
        """
        A TCP socket is adopted with its family, and the descriptor that was inherited is closed.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            inherited = os.dup(listener.fileno())
            self.assertEqual(adopt(self.reactor, inherited, self.factory), "port")
        self.assertEqual(self.reactor.given, [(inherited, socket.AF_INET, self.factory)])
        self.assertRaises(OSError, os.fstat, inherited)

    def test_interface(self) -> None:
        """
        What stands for a UNIX socket is a port that tells its address.
        """
        _, port = self.unix()
        verifyObject(IListeningPort, port)
        self.assertEqual(port.getHost(), UNIXAddress(str(self.path)))
        self.assertEqual(self.reactor.getReaders(), [port])

    def test_accepts(self) -> None:
        """
        All connections that wait are accepted, and handed to the reactor without blocking.
        """
        _, port = self.unix()
        clients = [self.client() for _ in range(3)]
        port.doRead()
        self.assertEqual(len(self.reactor.given), 3)
        for client, (descriptor, family, factory) in zip(clients, self.reactor.given, strict=True):
            with socket.socket(fileno=descriptor) as accepted:
                self.assertEqual((family, factory), (socket.AF_UNIX, self.factory))
                self.assertFalse(os.get_blocking(accepted.fileno()))
                accepted.send(b"x")
                self.assertEqual(client.recv(1), b"x")

    def test_nobody_there(self) -> None:
        """
        When another worker was faster nothing happens.
        """
        _, port = self.unix()
        port.doRead()
        self.assertEqual(self.reactor.given, [])
        self.assertEqual(self.reactor.getReaders(), [port])

    def test_stop(self) -> None:
        """
        To stop leaves the socket to the others, and its file with its mode.
        """
        listener, port = self.unix()
        self.successResultOf(port.stopListening())
        self.successResultOf(port.stopListening())
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        self.client()
        listener.accept()[0].close()

    def test_no_descriptor_left(self) -> None:
        """
        A worker that may open no more files says so, and tries again after a while.
        """
        _, port = self.unix()

        class Exhausted:
            """
            A socket that cannot be accepted from.
            """

            def accept(self) -> Any:
                """
                Fail.
                """
                raise OSError(errno.EMFILE, "Too many open files")

        real, port._listener = port._listener, Exhausted()
        with capturedLogs() as events:
            port.doRead()
        self.assertEqual([formatEvent(event) for event in events], ["not accepting reason=EMFILE"])
        self.assertEqual(self.reactor.getReaders(), [])
        port._listener = real
        self.reactor.advance(EXHAUSTED_PAUSE)
        self.assertEqual(self.reactor.getReaders(), [port])

    def test_stopped_meanwhile(self) -> None:
        """
        A port that was stopped while it paused does not come back.
        """
        _, port = self.unix()
        port._pause(OSError(errno.EMFILE, ""))
        port.stopListening()
        self.reactor.advance(EXHAUSTED_PAUSE)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_broken_connection(self) -> None:
        """
        A connection that cannot be made is logged and closed, and the port goes on.
        """
        _, port = self.unix()
        client = self.client()
        self.reactor.problem = ValueError("no")
        port.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.reactor.getReaders(), [port])
