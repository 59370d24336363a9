"""
A connection that this process was given.

The sockets are real, and so is the reactor, as it is about what both make of a descriptor.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kmsproto.net.access import AccessRules, parse_network
from kmsproto.net.server import HostFactory
from kmsproto.service.inetd import guard_output, serve_descriptor
from kmsproto.service.startup import StartupError
from kmsproto.testing import make_host
from tests.coroutines import awaited
from tests.net.wiring import bind, read_replies


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """
    Connect two TCP sockets.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


class ServeTests(TestCase):
    """
    Serving a descriptor.
    """

    async def talk(self, client: socket.socket, server: socket.socket, factory: Any) -> bytes:
        """
        Send a bind, half-close, and get what comes until the end.
        """
        self.addCleanup(client.close)
        client.settimeout(10)
        done = serve_descriptor(reactor, factory, server.detach())

        def ask() -> bytes:
            try:
                client.sendall(bind())
                client.shutdown(socket.SHUT_WR)
                return client.makefile("rb").read()
            except OSError:
                return b"reset"

        answer: bytes = await deferToThread(ask)
        client.close()
        await done
        return answer

    @awaited
    async def test_serves(self) -> None:
        """
        A connection is served, over TCP and on a UNIX socket, and its end is told.
        """
        factory = HostFactory(make_host(), reactor)  # type: ignore[arg-type]
        for pair in (tcp_pair(), socket.socketpair()):
            answer = await self.talk(*pair, factory)
            self.assertEqual(read_replies(answer), [("bind_ack", 1, 0)])

    @awaited
    async def test_refused(self) -> None:
        """
        A peer that may not connect gets no byte.
        """
        rules = AccessRules(deny=(parse_network("127.0.0.0/8"),))
        factory = HostFactory(make_host(), reactor, access=rules)  # type: ignore[arg-type]
        self.assertIn(await self.talk(*tcp_pair(), factory), (b"", b"reset"))


class DescriptorTests(SynchronousTestCase):
    """
    Descriptors that are no connection.
    """

    def assertNoConnection(self, descriptor: int) -> None:
        """
        It is an error that tells the way out.
        """
        error = self.assertRaises(
            StartupError, serve_descriptor, reactor, Factory.forProtocol(Protocol), descriptor
        )
        self.assertIn("is not a connected socket; start it from inetd", str(error))

    def test_file(self) -> None:
        """
        A file is none, nor is what is closed.
        """
        descriptor = os.open(os.devnull, os.O_RDWR)
        self.assertNoConnection(descriptor)
        os.close(descriptor)
        self.assertNoConnection(descriptor)

    def test_sockets(self) -> None:
        """
        A socket that listens is none, nor one of datagrams.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.assertNoConnection(listener.fileno())
        one, other = socket.socketpair(type=socket.SOCK_DGRAM)
        with one, other:
            self.assertNoConnection(one.fileno())

    def test_guard(self) -> None:
        """
        An output that is the connection leads nowhere afterwards; another socket or file is left alone.
        """
        one, other = socket.socketpair()
        with one, other:
            for make, writable in ((one, False), (other, True)):
                outputs = (os.dup(make.fileno()), os.dup(make.fileno()))
                self.assertEqual(guard_output(one.fileno(), outputs), writable)
                os.write(outputs[0], b"x")
                for output in outputs:
                    os.close(output)
            other.setblocking(False)
            self.assertRaises(BlockingIOError, other.recv, 1)
            self.assertEqual(one.recv(9), b"x")
