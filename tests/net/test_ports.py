"""
The listening port and the connections of a host, held to Twisted's own.

The sockets and the reactor are real, as both classes are about what a kernel and a reactor do.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.net.ports import HostPort, HostTransport, adopt_port
from tests.coroutines import awaited

reactor: Any = installed_reactor


@implementer(IHalfCloseableProtocol)
class Recorder(Protocol):
    """
    Remembers what its transport tells it.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.made: Deferred[None] = Deferred()
        self.half_closed: Deferred[None] = Deferred()
        self.lost: Deferred[type[Exception]] = Deferred()
        self.arrived: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """
        The connection is there.
        """
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """
        Remember.
        """
        self.received.append(data)
        self.arrived.callback(data)

    def readConnectionLost(self) -> None:
        """
        Remember, and close.
        """
        self.half_closed.callback(None)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        Not used.
        """

    def connectionLost(self, reason: Any = None) -> None:
        """
        Remember why.
        """
        self.lost.callback(type(reason.value))


class Recorders(Factory):
    """
    Makes recorders; or does what it is told to.
    """

    noisy = False

    def __init__(self) -> None:
        self.waiting: list[Deferred[Recorder]] = []
        self.refuse: Callable[[], Any] | None = None
        self.failing = False
        self.built = 0

    def buildProtocol(self, address: Any) -> Any:
        """
        Make one.
        """
        self.built += 1
        if self.refuse is not None:
            return self.refuse()
        recorder = Failing() if self.failing else Recorder()
        self.waiting.pop(0).callback(recorder)
        return recorder


class Failing(Recorder):
    """
    Fails when its connection begins.
    """

    def connectionMade(self) -> None:
        """
        Fail.
        """
        raise RuntimeError("no")


class PortTests(TestCase):
    """
    What a port and its connections do, on Twisted's classes and on ours.
    """

    timeout = 20

    def listen(
        self, adopt: Callable[..., IListeningPort] = adopt_port, family: int = socket.AF_INET
    ) -> Any:
        """
        Listen on loopback.
        """
        self.factory = Recorders()
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        with socket.create_server((host, 0), family=socket.AddressFamily(family)) as listener:
            listener.setblocking(False)
            port: Any = adopt(reactor, listener.fileno(), family, self.factory)
        self.addCleanup(port.stopListening)
        return port

    def connect(self, port: Any) -> tuple[socket.socket, Deferred[Recorder]]:
        """
        Connect to a port.

        @return: The client's socket, and the protocol once there is one.
        """
        built: Deferred[Recorder] = Deferred()
        self.factory.waiting.append(built)
        family = socket.AF_INET6 if ":" in port.getHost().host else socket.AF_INET
        client = socket.socket(family)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect((port.getHost().host, port.getHost().port))
        return client, built

    @awaited
    async def test_like_twisted(self) -> None:
        """
        In both families a connection knows the addresses that Twisted's knows, and provides the same interface.
        """
        families = [socket.AF_INET]
        if socket.has_dualstack_ipv6():
            families.append(socket.AF_INET6)
        for family in families:
            for adopt in (adopt_port, lambda r, d, f, factory: r.adoptStreamPort(d, f, factory)):
                port = self.listen(adopt, family)
                client, built = self.connect(port)
                recorder = await built
                await recorder.made
                transport: Any = recorder.transport
                self.assertEqual(isinstance(transport, HostTransport), adopt is adopt_port)
                verifyObject(ITCPTransport, transport)
                self.assertEqual(transport.getHost(), port.getHost())
                peer = type(port.getHost())("TCP", *client.getsockname())
                self.assertEqual(transport.getPeer(), peer)
                self.assertIn(peer.host if adopt is adopt_port else "Recorder", repr(transport))
                self.assertTrue(transport.logPrefix())
                client.close()
                await recorder.lost

    @awaited
    async def test_talk_and_close(self) -> None:
        """
        Bytes go both ways; a peer that closes its side is told of, and the connection ends in order.
        """
        client, built = self.connect(self.listen())
        client.sendall(b"question")
        recorder = await built
        self.assertEqual(await recorder.arrived, b"question")
        transport: Any = recorder.transport
        transport.write(b"answer")
        client.shutdown(socket.SHUT_WR)
        await recorder.half_closed
        self.assertIs(await recorder.lost, ConnectionDone)
        self.assertEqual(client.recv(100), b"answer")
        self.assertEqual(client.recv(100), b"")
        self.assertFalse(reactor.getReaders().count(transport))

    @awaited
    async def test_reset(self) -> None:
        """
        A peer that resets the connection is a lost connection, and its producer is told.
        """
        client, built = self.connect(self.listen())
        recorder = await built
        await recorder.made
        stopped: list[bool] = []

        class Producer:
            def stopProducing(self) -> None:
                stopped.append(True)

            pauseProducing = resumeProducing = stopProducing

        transport: Any = recorder.transport
        transport.registerProducer(Producer(), True)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        self.assertIs(await recorder.lost, ConnectionLost)
        self.assertEqual(stopped, [True])

    @awaited
    async def test_abort(self) -> None:
        """
        An aborted connection is reset.
        """
        client, built = self.connect(self.listen())
        recorder = await built
        await recorder.made
        transport: Any = recorder.transport
        transport.abortConnection()
        self.assertIs(await recorder.lost, ConnectionAborted)
        with self.assertRaises(ConnectionResetError):
            client.recv(1)

    @awaited
    async def test_nothing_to_read(self) -> None:
        """
        To be woken up for nothing does no harm.
        """
        _, built = self.connect(self.listen())
        recorder = await built
        await recorder.made
        transport: Any = recorder.transport
        self.assertIs(transport.doRead(), None)
        self.assertEqual(recorder.received, [])
        transport.abortConnection()
        await recorder.lost

    @awaited
    async def test_many(self) -> None:
        """
        More connections than are accepted at a time are all accepted.
        """
        port = self.listen()
        port.numberAccepts = 1
        connected = [self.connect(port) for _ in range(40)]
        recorders = [await built for _, built in connected]
        for recorder in recorders:
            await recorder.made
        self.assertEqual(len({each.transport.sessionno for each in recorders}), 40)  # type: ignore[attr-defined]
        for client, _ in connected:
            client.close()
        for recorder in recorders:
            await recorder.lost

    @awaited
    async def test_refused(self) -> None:
        """
        A connection that the factory refuses is closed.
        """
        port = self.listen()
        self.factory.refuse = lambda: None
        client, _ = self.connect(port)
        await self.until(lambda: self.factory.built == 1)
        self.assertEqual(client.recv(1), b"")

    @awaited
    async def test_failing_factory(self) -> None:
        """
        A factory that fails costs one connection and one log event, not the port.
        """
        port = self.listen()
        self.factory.refuse = lambda: 1 // 0
        client, _ = self.connect(port)
        await self.until(lambda: self.factory.built == 1)
        self.assertEqual(client.recv(1), b"")
        await deferLater(reactor, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.still_works(port)

    @awaited
    async def test_failing_protocol(self) -> None:
        """
        A protocol that fails at the start of its connection is told that the connection is lost.
        """
        port = self.listen()
        self.factory.failing = True
        client, built = self.connect(port)
        recorder = await built
        self.assertIs(await recorder.lost, RuntimeError)
        self.assertEqual(client.recv(1), b"")
        await deferLater(reactor, 0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        await self.still_works(port)

    @awaited
    async def test_out_of_descriptors(self) -> None:
        """
        What the kernel says beside "nothing waits" is left to Twisted, and the port goes on.
        """
        port = self.listen()
        real = port.socket

        class Exhausted:
            calls = 0

            def accept(self) -> Any:
                Exhausted.calls += 1
                if Exhausted.calls > 2:
                    return real.accept()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port.socket = Exhausted()
        client, _ = self.connect(port)
        await self.until(lambda: Exhausted.calls > 2)
        # Twisted accepts and closes it with the descriptor that it holds in reserve.
        self.assertEqual(client.recv(1), b"")
        port.socket = real
        self.factory.waiting.clear()
        await self.still_works(port)

    def test_zone(self) -> None:
        """
        The zone of a link-local peer is part of its address, as Twisted has it.
        """
        if not socket.has_dualstack_ipv6():
            self.skipTest("this machine has no IPv6")
        port = self.listen(family=socket.AF_INET6)
        seen: list[Any] = []
        self.factory.buildProtocol = lambda address: seen.append(address)  # type: ignore[method-assign]
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        port._take(ours, ("fe80::1", 4711, 0, 1))
        self.assertEqual(ours.fileno(), -1)
        zone = socket.if_indextoname(1)
        self.assertEqual((seen[0].host, seen[0].port), (f"fe80::1%{zone}", 4711))

    def test_another_reactor(self) -> None:
        """
        A reactor that has its own ports makes one of them.
        """

        class Other:
            def adoptStreamPort(self, *arguments: Any) -> Any:  # noqa: N802
                return arguments

        factory = Factory()
        self.assertEqual(adopt_port(Other(), 3, 4, factory), (3, 4, factory))

    def test_kind(self) -> None:
        """
        A reactor that works with Twisted's ports gets ours.
        """
        self.assertIsInstance(self.listen(), HostPort)

    async def until(self, condition: Callable[[], bool]) -> None:
        """
        Wait until something is the case.
        """
        while not condition():
            await deferLater(reactor, 0.005)

    async def still_works(self, port: Any) -> None:
        """
        Connect once more.
        """
        self.factory.refuse = None
        self.factory.failing = False
        self.factory.waiting.clear()
        client, built = self.connect(port)
        recorder = await built
        client.close()
        await recorder.lost
