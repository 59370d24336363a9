"""
Peers behind a proxy: who is judged and logged, and that a silent proxy does not keep anything.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import StringTransport
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.net.proxied import ProxiedEndpoint, ProxiedFactory
from kmsproto.net.server import Limits
from tests.net.wiring import (
    HostCase,
    bind,
    call,
    granted,
    host_lines,
    payload,
    read_replies,
)


class Transport(StringTransport):
    """
    What the proxy has connected to.
    """

    def __init__(self) -> None:
        proxy = IPv4Address("TCP", "8.8.8.8", 1)
        super().__init__(IPv4Address("TCP", "10.0.0.1", 1688), proxy)
        self.aborted = False

    def abortConnection(self) -> None:
        """
        Take note.
        """
        self.aborted = True


class ProxiedTests(HostCase):
    """
    Connections of a proxy.
    """

    def connect(self, limits: Limits | None = None) -> tuple[Any, Transport]:
        """
        Let the proxy connect.
        """
        if not hasattr(self, "proxied"):
            if limits is not None:
                self.factory = self.make_factory(limits=limits)
            self.proxied = ProxiedFactory(self.factory)
        transport = Transport()
        protocol = self.proxied.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        return protocol, transport

    def test_served(self) -> None:
        """
        A private peer is served though the proxy is not private, and counts with its own address.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 1688\r\n" + bind())
        protocol.dataReceived(call(payload()))
        self.clock.advance(0)
        self.assertEqual(read_replies(transport.value())[1:], granted(2))
        (inner,) = self.factory.idle.items
        self.assertEqual(inner.peer, ("10.0.0.7", 4711))
        protocol.connectionLost(self.failure())
        self.assertEqual(list(self.factory.idle.items), [])

    def test_refused(self) -> None:
        """
        A public peer is turned away.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(b"PROXY TCP4 8.8.4.4 10.0.0.1 4711 1688\r\n" + bind())
        self.assertTrue(transport.aborted)
        self.assertEqual(transport.value(), b"")

    def test_segments(self) -> None:
        """
        A header may come byte by byte; the host gets the connection with the first byte behind it.
        """
        protocol, transport = self.connect()
        for byte in b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 1688\r\n":
            protocol.dataReceived(bytes([byte]))
        self.assertEqual(list(self.factory.idle.items), [])
        for byte in bind() + call(payload()):
            protocol.dataReceived(bytes([byte]))
        self.clock.advance(0)
        self.assertEqual(read_replies(transport.value())[1:], granted(2))

    def test_nobody_named(self) -> None:
        """
        Where the proxy names nobody, it is the peer itself, and is judged.
        """
        for header in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"):
            protocol, transport = self.connect()
            protocol.dataReceived(header)
            self.assertFalse(transport.aborted)
            protocol.dataReceived(bind())
            self.assertTrue(transport.aborted)

    def test_no_header(self) -> None:
        """
        What is no header ends the connection with one line, which has nothing of it; what follows is not looked at.
        """
        for text in (b"GET / ", b"PROXY TCP4 a\nFAKE 10.0.0.1 1 2\r\n"):
            with host_lines() as lines:
                protocol, transport = self.connect()
                protocol.dataReceived(text + bind())
                protocol.dataReceived(bind())
            self.assertTrue(transport.aborted)
            self.assertEqual(transport.value(), b"")
            (line,) = lines
            self.assertIn("PROXY header", line)
            self.assertNotIn("FAKE", line)
            self.assertNotIn("\n", line)

    def test_silence(self) -> None:
        """
        A proxy that says nothing is cut off when the time is over.
        """
        _, transport = self.connect()
        self.clock.advance(29)
        self.assertFalse(transport.aborted)
        self.clock.advance(1)
        self.assertTrue(transport.aborted)

    def test_gone(self) -> None:
        """
        A proxy that leaves leaves no timer.
        """
        protocol, _ = self.connect()
        protocol.connectionLost(self.failure())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """
        No more connections wait than may be open.
        """
        limits = Limits(max_connections=2)
        transports = [self.connect(limits)[1] for _ in range(3)]
        self.assertEqual([each.aborted for each in transports], [False, False, True])

    def test_endpoint(self) -> None:
        """
        The endpoint listens with the factory for proxies.
        """
        given: list[Any] = []

        @implementer(IStreamServerEndpoint)
        class Inner:
            def listen(self, protocolFactory: Any) -> Any:
                given.append(protocolFactory)
                return succeed("port")

        endpoint = ProxiedEndpoint(Inner())
        verifyObject(IStreamServerEndpoint, endpoint)
        self.assertEqual(self.successResultOf(endpoint.listen(self.factory)), "port")
        self.assertIsInstance(given[0], ProxiedFactory)

    def failure(self) -> Any:
        """
        Make the reason of an end.
        """
        from twisted.internet.protocol import connectionDone

        return connectionDone
