"""
The listening port and the connections of a host that accepts many of them.

A client of KMS connects, asks once and leaves, so what a connection costs counts as much as what it asks.  These
classes are Twisted's own, less what Twisted does for each connection and a host has no use for: names for its log, a
text of the peer's address that the kernel has given already, and shutting a socket down which is closed next.
Whatever is out of the ordinary (no more descriptors, a connection that is aborted, TLS) goes Twisted's way.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

#: How a connection ends that nobody aborted.
_ORDINARY_ENDS = (ConnectionDone, ConnectionLost)
#: Where the zone of an IPv6 address is in that of a socket.
_ZONE = 3


class HostTransport(Server):
    """
    One connection of a host.

    @param sock: Its socket.
    @param protocol: The protocol.
    @param client: The address of the peer, as the socket gives it.
    @param server: The port.
    @param sessionno: Which connection of the port it is.
    @param reactor: The reactor.
    """

    logstr = "KMS"

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: HostPort,
        sessionno: int,
        reactor: Any,
    ) -> None:
        FileDescriptor.__init__(self, reactor)
        sock.setblocking(False)
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol
        self.client = client
        self.server = server
        self.sessionno = sessionno
        self.hostname = client[0]
        self._addressType = server._addressType
        self.connected = 1
        reactor.addReader(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} #{self.sessionno} of {self.hostname}>"

    def doRead(self) -> Any:
        """
        Hand on what has come.

        @return: Nothing, or why the connection is over.
        """
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """
        Close the socket, and tell the protocol.
        """
        if type(reason.value) not in _ORDINARY_ENDS or not hasattr(self, "socket"):
            super().connectionLost(reason)
            return
        FileDescriptor.connectionLost(self, reason)
        # To shut it down before would be for those who share the socket, and nobody does.
        self.socket.close()
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)


class HostPort(Port):
    """
    Accepts the connections of a host.
    """

    transport = HostTransport  # type: ignore[assignment]
    factory: Any

    def doRead(self) -> None:
        """
        Accept what waits: at least one connection, and as many as last time, as Twisted does.
        """
        accepted = 0
        while accepted < self.numberAccepts:
            try:
                sock, client = self.socket.accept()
            except BlockingIOError:
                break
            except OSError:
                # Twisted knows what can be done, and whether anything has to be.
                super().doRead()  # type: ignore[no-untyped-call]
                return
            accepted += 1
            try:
                self._take(sock, client)
            except Exception:  # noqa: BLE001 - whatever the factory and the protocol of somebody else raise
                _log.failure("a connection could not be taken")
                sock.close()
        if accepted == self.numberAccepts:
            self.numberAccepts += 20
        else:
            self.numberAccepts = max(1, accepted)

    def _take(self, sock: socket.socket, client: Any) -> None:
        """
        Begin a connection, unless the factory refuses it.
        """
        if client[_ZONE:] not in ((), (0,)):
            numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            client = (socket.getnameinfo(client, numbers)[0], *client[1:])
        protocol: Any = self.factory.buildProtocol(self._addressType("TCP", *client))
        if protocol is None:
            sock.close()
            return
        self.sessionno += 1
        transport = self.transport(sock, protocol, client, self, self.sessionno, self.reactor)
        try:
            protocol.makeConnection(transport)
        except Exception:
            # Nobody knows how far it came, so it is told that this is the end.
            transport.connectionLost(Failure())
            raise


def adopt_port(
    reactor: Any, descriptor: int, family: int, factory: IProtocolFactory
) -> IListeningPort:
    """
    Accept connections from a listening socket of TCP, as C{adoptStreamPort} of the reactor does.

    @param reactor: The reactor.
    @param descriptor: The descriptor, of which the port takes a duplicate.
    @param family: The address family.
    @param factory: Makes the connections.
    @return: A L{HostPort}, where the reactor is one that works with Twisted's ports.
    """
    port: IListeningPort
    if isinstance(reactor, PosixReactorBase):
        # What the reactor itself calls, there on the class that it knows.
        adopt: Any = HostPort._fromListeningDescriptor
        port = adopt(reactor, descriptor, family, factory)
        port.startListening()
    else:
        port = reactor.adoptStreamPort(descriptor, family, factory)
    return port
