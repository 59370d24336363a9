"""
Listening sockets that several processes share: opened by the supervisor, accepted from by its workers.

The supervisor opens them in the ordinary way, through endpoints, so that everything which can be said of an endpoint
holds: both families, file modes, lock files, and who removes the file of a UNIX socket.  But it does not read from
them, from the very moment they are open, and what it listens with, L{SharedFactory}, cannot make a connection anyhow.

What a worker inherits is the bare listening socket.  So a port can be shared only if it accepts connections and does
nothing else with them; one that wraps them, as TLS does, would be robbed of its wrapping, and is refused.

A worker adopts TCP sockets as Twisted does.  For UNIX sockets Twisted's port does too much: it changes the mode of the
file and removes it in the end.  L{SharedUNIXPort} accepts from such a socket and leaves its file alone.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IPushProducer,
    IReadDescriptor,
)
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kmsproto.errors import KMSProtoError
from kmsproto.net.ports import adopt_port
from kmsproto.service.listener import Listener, where
from kmsproto.service.startup import StartupError

#: Connections that one process accepts before it looks at those that it has.
ACCEPTED_AT_ONCE = 16
#: Seconds without accepting when this process has no descriptor left.
EXHAUSTED_PAUSE = 1.0

#: What to do where a socket cannot be shared.
SHAREABLE_KINDS = "use endpoints of the kinds tcp, tcp6, unix or systemd, or --workers=1"


class NotSharedError(KMSProtoError):
    """
    Somebody wants a connection of a process that makes none.
    """


class SharedFactory(ServerFactory):
    """
    What the supervisor listens with.
    """

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Make no connection.

        @raise NotSharedError: Always.
        """
        raise NotSharedError("it makes connections of its own and cannot be shared by workers")


def open_shared(listener: Listener, count: int) -> list[int]:
    """
    Open the sockets of a supervisor, and accept nothing from them.

    @param listener: What opens them.
    @param count: How many there must be, unless the listener tolerates that some cannot be opened.
    @return: Their descriptors.
    @raise StartupError: If one cannot be opened or cannot be shared.
    """
    factory = SharedFactory()
    listener.open(factory)
    for port in listener.ports:
        # No connection is accepted outside the reactor's loop, and that has not come round since the port was opened.
        if IPushProducer.providedBy(port):
            port.pauseProducing()
    problems = [
        f"the port at {where(port.getHost())} cannot be shared by workers; {SHAREABLE_KINDS}"
        for port in listener.ports
        if not _shareable(port, factory)
    ]
    if len(listener.ports) + listener.failures < count:
        problems.append(
            f"an endpoint that opens its port later cannot be shared by workers; {SHAREABLE_KINDS}"
        )
    if problems:
        listener.close()
        raise StartupError(problems[0])
    return [port.fileno() for port in listener.ports if IReadDescriptor.providedBy(port)]


def _shareable(port: Any, factory: IProtocolFactory) -> bool:
    """
    Tell whether a port is a socket that can be paused, and makes connections with the factory itself.
    """
    return (
        IPushProducer.providedBy(port)
        and IReadDescriptor.providedBy(port)
        and getattr(port, "factory", None) is factory
        and port.fileno() >= 0
    )


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> IListeningPort:
    """
    Accept connections from a socket that this process has inherited.

    @param reactor: The reactor.
    @param descriptor: The descriptor, which is the port's from now on.
    @param factory: Makes the connections.
    """
    listener = socket.socket(fileno=descriptor)
    # It does not block, but this object does not know, and might change that for everybody.
    listener.setblocking(False)
    if listener.family == socket.AF_UNIX:
        port = SharedUNIXPort(reactor, listener, factory)
        port.startListening()
        return port
    # The reactor works on a duplicate.
    with listener:
        return adopt_port(reactor, listener.fileno(), listener.family, factory)


@implementer(IListeningPort)
class SharedUNIXPort(FileDescriptor):
    """
    Accepts connections from a UNIX socket whose file is another process's.

    @param reactor: The reactor.
    @param listener: The socket, listening and not blocking.
    @param factory: Makes the connections.
    """

    _log = Logger()
    reactor: Any

    def __init__(self, reactor: Any, listener: socket.socket, factory: Any) -> None:
        super().__init__(reactor)
        self._listener = listener
        self._factory = factory

    def fileno(self) -> int:
        """
        Tell the descriptor.
        """
        return self._listener.fileno()

    def getHost(self) -> UNIXAddress:
        """
        Tell the address.
        """
        return UNIXAddress(self._listener.getsockname())

    def startListening(self) -> None:
        """
        Begin to accept.
        """
        self._factory.doStart()
        self.connected = True
        self.startReading()  # type: ignore[no-untyped-call]

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more.
        """
        if self.connected:
            self.connectionLost(Failure(CONNECTION_DONE))
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """
        Close our descriptor of the socket.
        """
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._listener.close()
        self._factory.doStop()

    def doRead(self) -> None:
        """
        Accept connections that wait.
        """
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                # Another worker was faster, or the peer has left.
                return
            except OSError as error:
                self._pause(error)
                return
            with connection:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        """
        Make a connection of an accepted socket, of which the reactor has a duplicate then.
        """
        try:
            connection.setblocking(False)
            self.reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, self._factory)
        except Exception:  # noqa: BLE001 - one connection that cannot be made must not end the port
            self._log.failure("a connection could not be made")

    def _pause(self, error: OSError) -> None:
        """
        Leave those who wait for others, and for later.
        """
        self._log.warn("not accepting reason={reason}", reason=errno.errorcode[error.errno or 0])
        self.stopReading()  # type: ignore[no-untyped-call]
        self.reactor.callLater(EXHAUSTED_PAUSE, self._go_on)

    def _go_on(self) -> None:
        if self.connected:
            self.startReading()  # type: ignore[no-untyped-call]
