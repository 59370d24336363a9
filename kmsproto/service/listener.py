"""
The service that listens: it opens the sockets while it still may, and stops without cutting anybody off.

Ports below 1024 can only be opened before the process gives up its privileges, so listening happens in
C{privilegedStartService}; where nobody calls that, because the service runs inside another application, it happens at
the start.  To stop is to close the listening sockets first, and then to wait for the calls in progress.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.errors import KMSProtoError
from kmsproto.net.server import HostFactory


class StartupError(KMSProtoError, SystemExit):
    """
    The service cannot start, for a reason that one line tells.

    It is both kinds of exception for twistd's sake: for an L{Exception} twistd cleans up its pidfile and tells the
    process that waits for the daemon; for a L{SystemExit} the interpreter then prints the line, without a traceback,
    and exits with status 1.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = f"twistd kms: {problem}"


class HostService(Service):
    """
    A KMS host that listens.

    @param factory: Makes the connections.
    @param endpoints: Where to listen.
    """

    _log = Logger()

    def __init__(self, factory: HostFactory, endpoints: Sequence[IStreamServerEndpoint]) -> None:
        self.setName("kms")  # type: ignore[no-untyped-call]
        self.factory = factory
        self._endpoints = endpoints
        self._listening = False
        #: The open ports.
        self.ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Open the sockets.

        @raise StartupError: If one cannot be opened.
        """
        self._listen()

    def startService(self) -> None:
        """
        Start, and open the sockets unless that is done.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if not self._listening:
            self._listen()

    def stopService(self) -> Deferred[object]:
        """
        Close the sockets, and finish the calls in progress.

        @return: Fires when the last connection is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        ports, self.ports = self.ports, []
        self._listening = False
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        return closed.addCallback(lambda _: self.factory.drain())

    def _listen(self) -> None:
        _allow_descriptors(self.factory.limits.max_connections)
        problems: list[Failure] = []
        starting = True

        def failed(failure: Failure) -> None:
            if starting:
                problems.append(failure)
            else:
                self._log.failure("an endpoint failed after the start", failure)

        for endpoint in self._endpoints:
            endpoint.listen(self.factory).addCallbacks(self._opened, failed)
        starting = False
        if problems:
            ports, self.ports = self.ports, []
            for port in ports:
                port.stopListening()
            raise StartupError(_describe(problems[0]))
        self._listening = True

    def _opened(self, port: IListeningPort) -> None:
        self.ports.append(port)
        self._log.info("listening address={address}", address=_where(port.getHost()))


def _where(address: object) -> str:
    """
    Write the address of a port as people do.
    """
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return str(address)


def _describe(failure: Failure) -> str:
    """
    Say in one line why a socket could not be opened, and what can be done.
    """
    error = failure.value
    if isinstance(error, CannotListenError):
        where = ":".join(str(part) for part in (error.interface, error.port) if part)
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        return f"cannot listen on {where}: {reason}; choose another with --port or --endpoint"
    return f"cannot listen: {failure.getErrorMessage()}"


def _allow_descriptors(connections: int) -> None:
    """
    Raise the soft limit on open files as far as the connections need it and the hard limit lets us.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 64
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
