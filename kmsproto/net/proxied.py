"""
Peers behind a proxy that tells who they are, before anything else, in the PROXY protocol.

The host's own protocol is made when the header has come (L{kmsproto.net.proxy_headers}) and the first bytes behind it,
so access, limits and log are about the peer that the proxy names; the proxy itself is not judged.  Until then a
connection is no more than a timer and the beginning of a header, and there are as many as connections are allowed.

From then on the protocol that read the header is of no use, and it cannot tell that the peer has closed one direction
of a connection.  So on a plain socket the host's protocol takes its place.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from kmsproto.net.access import peer_of
from kmsproto.net.proxy_headers import ProxyHeader, ProxyHeaderError, read_header
from kmsproto.net.server import HostFactory


class ProxiedProtocol(Protocol):
    """
    Waits for the header and the first bytes, and then is the host's protocol.

    @param factory: Made it.
    """

    factory: ProxiedFactory
    transport: Any

    def __init__(self, factory: ProxiedFactory) -> None:
        self.factory = factory
        self._inner: Any = None
        self._buffer = b""
        self._refused = False

    def connectionMade(self) -> None:
        """
        Wait, unless too many do.
        """
        if not self.factory.begin(self):
            self._refuse()

    def dataReceived(self, data: bytes) -> None:
        """
        Read the header; hand on what comes behind it.
        """
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif not self._refused:
            self._buffer += data
            try:
                header = read_header(self._buffer)
            except ProxyHeaderError as error:
                host = self.factory.host_factory
                host.reporter.turned_away(peer_of(self.transport.getPeer()), str(error))
                self._refuse()
                return
            if header is not None and len(self._buffer) > header.length:
                self._begin(header)

    def _begin(self, header: ProxyHeader) -> None:
        """
        Let the host have the connection.
        """
        first, self._buffer = self._buffer[header.length :], b""
        self.factory.end(self)
        inner = self.factory.host_factory.buildProtocol(_source(header) or self.transport.getPeer())
        if inner is None:
            self._refuse()
            return
        self._inner = inner
        if isinstance(self.transport, Connection) and not self.transport.TLS:
            self.transport.protocol = inner
        inner.makeConnection(self.transport)
        inner.dataReceived(first)

    def _refuse(self) -> None:
        """
        End the connection, and look at nothing that still comes.
        """
        self._refused = True
        self._buffer = b""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Hand on.
        """
        self.factory.end(self)
        if self._inner is not None:
            self._inner.connectionLost(reason)


def _source(header: ProxyHeader) -> IAddress | None:
    """
    Find the address of the client, if the header names one.
    """
    if header.source is None:
        return None
    address, port = header.source
    kind = IPv4Address if address.version == 4 else IPv6Address
    found: IAddress = kind("TCP", str(address), port)
    return found


class ProxiedFactory(ServerFactory):
    """
    Makes the connections of a host that come through a proxy.

    @param host_factory: The factory of the host.
    """

    noisy = False

    def __init__(self, host_factory: HostFactory) -> None:
        self.host_factory = host_factory
        self._waiting: dict[ProxiedProtocol, Any] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Take a connection of the proxy.
        """
        return ProxiedProtocol(self)

    def begin(self, protocol: ProxiedProtocol) -> bool:
        """
        A connection waits for its peer to be known.

        @return: Whether it may.
        """
        limits = self.host_factory.limits
        if len(self._waiting) >= limits.max_connections:
            return False
        self._waiting[protocol] = self.host_factory.clock.callLater(
            limits.idle_timeout, lambda: protocol.transport.abortConnection()
        )
        return True

    def end(self, protocol: ProxiedProtocol) -> None:
        """
        A connection waits no longer.
        """
        timer = self._waiting.pop(protocol, None)
        if timer is not None and timer.active():
            timer.cancel()


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """
    Listens for a proxy.

    @param inner: Listens for the connections of the proxy.
    """

    def __init__(self, inner: IStreamServerEndpoint) -> None:
        self._inner = inner

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.
        """
        factory: Any = protocolFactory
        listening: Deferred[IListeningPort] = self._inner.listen(ProxiedFactory(factory))
        return listening
