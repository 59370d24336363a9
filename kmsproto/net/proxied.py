"""
Peers behind a proxy that tells who they are, before anything else, in the PROXY protocol.

Twisted's wrapper for that protocol makes the inner protocol when the proxy connects, and knows the peer only when the
header has come, which is just before the first bytes.  So the host's own protocol is made then, and access, limits and
log are about the peer that the proxy names; the proxy itself is not judged.  Until then a connection is no more than a
timer, and there are as many as connections are allowed.

From then on the wrapper is of no use, and it cannot close one direction of a connection and keep the other.  So where
it stands on a plain socket, the host's protocol takes its place there.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from kmsproto.net.server import HostFactory


class ProxiedProtocol(Protocol):
    """
    Waits for the first bytes, and then is the host's protocol.

    @param factory: Made it.
    """

    factory: ProxiedFactory
    transport: Any

    def __init__(self, factory: ProxiedFactory) -> None:
        self.factory = factory
        self._inner: Any = None

    def connectionMade(self) -> None:
        """
        Wait, unless too many do.
        """
        if not self.factory.begin(self):
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """
        Hand on; the first bytes tell that the peer is known.
        """
        if self._inner is None:
            self.factory.end(self)
            self._inner = self.factory.host_factory.buildProtocol(self.transport.getPeer())
            if self._inner is None:
                self.transport.abortConnection()
                return
            self._inner.makeConnection(self._carrier())
        self._inner.dataReceived(data)

    def _carrier(self) -> Any:
        """
        Put the host's protocol in the place of Twisted's wrapper, where that stands on a plain socket.

        @return: The transport for the host's protocol.
        """
        wrapper = self.transport
        if not isinstance(wrapper, ProtocolWrapper):
            return wrapper
        socket: Any = wrapper.transport
        if not isinstance(socket, Connection) or socket.TLS:
            return wrapper
        wrapper.factory.unregisterProtocol(wrapper)
        socket.protocol = self._inner
        return socket

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Hand on.
        """
        self.factory.end(self)
        if self._inner is not None:
            self._inner.connectionLost(reason)


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

    @param inner: The endpoint that understands the PROXY protocol.
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
