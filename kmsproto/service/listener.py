"""
The service that listens: it opens the sockets while it still may, and stops without cutting anybody off.

Ports below 1024 can only be opened before the process gives up its privileges, so listening happens in
C{privilegedStartService}; where nobody calls that, because the service runs inside another application, it happens at
the start.  To stop is to close the listening sockets first, and then to wait for the calls in progress.

L{HostService} is a host of one process.  What it shares with a host of several is how sockets are opened and closed,
which is L{Listener}, and how open files are allowed for.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.net.server import HostFactory
from kmsproto.service.journal import Journal
from kmsproto.service.logs import JournalledService
from kmsproto.service.signals import HangUp, Impatience, taken
from kmsproto.service.startup import StartupError

#: Open files that a process needs beside its connections.
SPARE_DESCRIPTORS = 64


class Listener:
    """
    Opens and closes what a service listens on.

    @param endpoints: Where to listen.
    @param log: Where to say on which addresses it listens.
    @param tolerate_failures: Whether it is enough that one of several can be opened.
    @ivar listening: Whether the sockets were opened, and not closed since.
    @ivar ports: The open ports.
    @ivar failures: How many could not be opened.
    """

    def __init__(
        self,
        endpoints: Sequence[IStreamServerEndpoint],
        log: Logger,
        *,
        tolerate_failures: bool = False,
    ) -> None:
        self._endpoints = endpoints
        self._tolerate_failures = tolerate_failures
        self._log = log
        self._starting = False
        self.listening = False
        self.ports: list[IListeningPort] = []
        self.failures = 0

    def open(self, factory: IProtocolFactory) -> None:
        """
        Open the sockets.

        @raise StartupError: If one cannot be opened; where failures are tolerated, if none can.
        """
        self.listening = self._starting = True
        problems: list[Failure] = []
        for endpoint in self._endpoints:
            opening = maybeDeferred(endpoint.listen, factory)
            opening.addCallbacks(self._opened, self._failed, errbackArgs=(problems,))
        self._starting = False
        self.failures = len(problems)
        if not problems:
            return
        if self._tolerate_failures and len(problems) < len(self._endpoints):
            for problem in problems:
                self._log.warn("{problem}", problem=_describe(problem))
            return
        self.close()
        raise StartupError(_describe(problems[0]))

    def close(self) -> Deferred[Any]:
        """
        Close the sockets.

        @return: Fires when all are closed.
        """
        self.listening = False
        ports, self.ports = self.ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def _opened(self, port: IListeningPort) -> object:
        if not self.listening:
            # An endpoint that takes its time has taken too much of it.
            return port.stopListening()
        self.ports.append(port)
        self._log.info("listening address={address}", address=where(port.getHost()))
        return None

    def _failed(self, failure: Failure, problems: list[Failure]) -> None:
        if self._starting:
            problems.append(failure)
        else:
            self._log.failure("an endpoint failed after the start", failure)


class HostService(JournalledService):
    """
    A KMS host that listens.

    @param factory: Makes the connections.
    @param endpoints: Where to listen.
    @param journal: What to offer to the application as its log, if anything.
    @param tolerate_failures: Whether it is enough that one of several endpoints can be opened.
    @param hang_up: Takes SIGHUP while the service runs, if anything shall.
    """

    _log = Logger()

    def __init__(
        self,
        factory: HostFactory,
        endpoints: Sequence[IStreamServerEndpoint],
        journal: Journal | None = None,
        *,
        tolerate_failures: bool = False,
        hang_up: HangUp | None = None,
    ) -> None:
        self.setName("kms")  # type: ignore[no-untyped-call]
        self.factory = factory
        self.journal = journal
        self._listener = Listener(endpoints, self._log, tolerate_failures=tolerate_failures)
        self._hang_up = hang_up
        # A test's clock does not shut down.
        self._impatience = (
            Impatience(factory.clock, factory.hurry)
            if IReactorCore.providedBy(factory.clock)
            else None
        )

    @property
    def ports(self) -> list[IListeningPort]:
        """
        The open ports.
        """
        return self._listener.ports

    def privilegedStartService(self) -> None:
        """
        Open the sockets.

        @raise StartupError: If one cannot be opened.
        """
        allow_descriptors(self.factory.limits.max_connections, self._log)
        with taken(self._hang_up):
            self._listener.open(self.factory)

    def startService(self) -> None:
        """
        Start, and open the sockets unless that is done.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if not self._listener.listening:
            self.privilegedStartService()
        if self._impatience is not None:
            self._impatience.watch()

    def stopService(self) -> Deferred[Any]:
        """
        Close the sockets, and finish the calls in progress.

        @return: Fires when the last connection is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._hang_up is not None:
            self._hang_up.give_back()
        if self._impatience is not None:
            self._impatience.forget()
        return self._listener.close().addCallback(lambda _: self.factory.drain())


def allow_descriptors(connections: int, log: Logger) -> None:
    """
    Raise the soft limit on open files as far as the connections need it and the hard limit lets us.

    @param connections: How many connections may be open at a time.
    @param log: Where to say that the hard limit does not let us.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warn(
            "limited open_files={hard} max_connections={connections}",
            hard=hard,
            connections=connections,
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def where(address: object) -> str:
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
        place = ":".join(_text(part) for part in (error.interface, error.port) if part)
        number = getattr(error.socketError, "errno", None)
        # Those of name resolution are below zero, and only they themselves know what they mean.
        reason = os.strerror(number) if number and number > 0 else _own_words(error.socketError)
    else:
        place, reason = "an endpoint", failure.getErrorMessage()
    return f"cannot listen on {place}: {reason}; choose another with --port or --endpoint"


def _own_words(error: object) -> object:
    """
    Take what an error says without its number.
    """
    return getattr(error, "strerror", None) or error


def _text(part: object) -> str:
    """
    Write a part of an address, which is bytes where it is the path of a UNIX socket.
    """
    return os.fsdecode(part) if isinstance(part, bytes) else str(part)
