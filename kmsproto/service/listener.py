"""
The service that listens: it opens the sockets while it still may, and stops without cutting anybody off.

Ports below 1024 can only be opened before the process gives up its privileges, so listening happens in
C{privilegedStartService}; where nobody calls that, because the service runs inside another application, it happens at
the start.  To stop is to close the listening sockets first, and then to wait for the calls in progress.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.errors import KMSProtoError
from kmsproto.net.server import HostFactory

#: Open files that a process needs beside its connections.
SPARE_DESCRIPTORS = 64


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
        self._starting = False
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

    def stopService(self) -> Deferred[Any]:
        """
        Close the sockets, and finish the calls in progress.

        @return: Fires when the last connection is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._close().addCallback(lambda _: self.factory.drain())

    def _listen(self) -> None:
        self._allow_descriptors()
        self._listening = self._starting = True
        problems: list[Failure] = []
        for endpoint in self._endpoints:
            opening = endpoint.listen(self.factory)
            opening.addCallbacks(self._opened, self._failed, errbackArgs=(problems,))
        self._starting = False
        if problems:
            self._close()
            raise StartupError(_describe(problems[0]))

    def _close(self) -> Deferred[Any]:
        """
        Close the sockets.
        """
        self._listening = False
        ports, self.ports = self.ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def _opened(self, port: IListeningPort) -> object:
        if not self._listening:
            # An endpoint that takes its time has taken too much of it.
            return port.stopListening()
        self.ports.append(port)
        self._log.info("listening address={address}", address=_where(port.getHost()))
        return None

    def _failed(self, failure: Failure, problems: list[Failure]) -> None:
        if self._starting:
            problems.append(failure)
        else:
            self._log.failure("an endpoint failed after the start", failure)

    def _allow_descriptors(self) -> None:
        """
        Raise the soft limit on open files as far as the connections need it and the hard limit lets us.
        """
        connections = self.factory.limits.max_connections
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + SPARE_DESCRIPTORS
        if hard != resource.RLIM_INFINITY and hard < wanted:
            self._log.warn(
                "limited open_files={hard} max_connections={connections}",
                hard=hard,
                connections=connections,
            )
            wanted = hard
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _where(address: object) -> str:
    """
    Write the address of a port as people do.
    """
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress):
        return os.fsdecode(address.name or b"")
    return str(address)


def _describe(failure: Failure) -> str:
    """
    Say in one line why a socket could not be opened, and what can be done.
    """
    error = failure.value
    if isinstance(error, CannotListenError):
        where = ":".join(_text(part) for part in (error.interface, error.port) if part)
        number = getattr(error.socketError, "errno", None)
        reason = os.strerror(number) if number else error.socketError
    else:
        where, reason = "an endpoint", failure.getErrorMessage()
    return f"cannot listen on {where}: {reason}; choose another with --port or --endpoint"


def _text(part: object) -> str:
    """
    Write a part of an address, which is bytes where it is the path of a UNIX socket.
    """
    return os.fsdecode(part) if isinstance(part, bytes) else str(part)
