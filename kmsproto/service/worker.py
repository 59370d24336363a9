"""
A worker: the process that answers, one of several on the same listening sockets.

It is started by the supervisor and by nobody else, and finds everything at descriptors that it inherits
(L{handover<kmsproto.service.handover>}).  It writes its log, stamped, to descriptor 1, says on descriptor 3 that it
accepts connections, and ends when it gets SIGTERM or when descriptor 0 ends: in both cases it accepts no more
connections and finishes the calls in progress first.  SIGINT, which a terminal sends to all processes at once, is left
to the supervisor.

Which reactor is installed stands in the document, so nothing that this module imports may import the reactor.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from kmsproto import __version__
from kmsproto.errors import KMSProtoError
from kmsproto.net.quoting import quote
from kmsproto.service.forms import choose_form
from kmsproto.service.handover import (
    CLOSED,
    DOCUMENT_DESCRIPTOR,
    FIRST_SOCKET,
    LOG_DESCRIPTOR,
    READY,
    REPORT_DESCRIPTOR,
    Handover,
    HandoverError,
)
from kmsproto.service.hosting import (
    Site,
    change_factory,
    make_catalog,
    make_factory,
    make_site,
)
from kmsproto.service.journal import Journal
from kmsproto.service.listener import allow_descriptors
from kmsproto.service.sharing import adopt
from kmsproto.service.sinks import DescriptorSink

#: Bytes that the pipe of the log shall hold, so that a batch of lines fits and this process need not wait for the
#: supervisor to read it.
_PIPE_SIZE = 1 << 20


class Lifeline(FileDescriptor):
    """
    The descriptor that ends with the supervisor.

    @param reactor: The reactor.
    @param descriptor: The descriptor.
    @param take: Takes each document that comes: a line.
    """

    def __init__(self, reactor: Any, descriptor: int, take: Callable[[bytes], None]) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
        self._take = take
        self._buffer = b""
        self.connected = True
        #: Fires when the supervisor is gone.
        self.cut: Deferred[None] = Deferred()

    def fileno(self) -> int:
        """
        Tell the descriptor.
        """
        return self._descriptor

    def doRead(self) -> Any:
        """
        Read documents, and notice the end.
        """
        chunk = os.read(self._descriptor, 65536)
        if not chunk:
            return CONNECTION_DONE
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._take(line + b"\n")
        return None

    def connectionLost(self, reason: Failure) -> None:
        """
        The other end is closed.
        """
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.cut.callback(None)


class WorkerHost:
    """
    The host in a worker.

    @param handover: How to serve.
    @param reactor: The reactor.
    @param journal: Where the lines about peers go.
    """

    _log = Logger()

    def __init__(self, handover: Handover, reactor: Any, journal: Journal) -> None:
        self._handover = handover
        self._reactor = reactor
        self._ending = False
        self._ports: list[IListeningPort] = []
        self.factory = make_factory(
            self._site(handover),
            reactor,
            group_seed=handover.group_seed,
            journal=journal.write,
        )

    def _site(self, handover: Handover) -> Site:
        return make_site(
            handover.settings,
            handover.installation,
            catalog=make_catalog(handover.settings, handover.catalog_file),
            counts=None,
            drawn=handover.drawn,
            today=datetime.fromtimestamp(self._reactor.seconds(), UTC).date(),
        )

    def start(self) -> None:
        """
        Accept connections.
        """
        allow_descriptors(self.factory.limits.max_connections, self._log)
        for number in range(self._handover.sockets):
            self._ports.append(adopt(self._reactor, FIRST_SOCKET + number, self.factory))
        self._reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def stop(self) -> Deferred[Any]:
        """
        Accept no more connections, and finish the calls in progress.

        @return: Fires when the last connection is gone.
        """
        ports, self._ports = self._ports, []
        closing = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        closing.addCallback(lambda _: report(CLOSED))
        return closing.addCallback(lambda _: self.factory.drain())

    def end(self) -> None:
        """
        Stop the reactor; to be told so twice changes nothing.
        """
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def take(self, line: bytes) -> None:
        """
        Take another document: the settings have changed.

        The supervisor has made the same of it before, so only a mistake of ours can be wrong with it.
        """
        try:
            handover = Handover.decode(line, __version__)
            change_factory(self.factory, self._site(handover))
        except KMSProtoError as error:
            self._log.error(
                "not reloaded worker={number}: {problem}",
                number=self._handover.worker,
                problem=quote(str(error)),
            )
            return
        self._log.info(
            "reloaded worker={number} pid={pid}", number=handover.worker, pid=os.getpid()
        )


def report(news: str) -> None:
    """
    Tell the supervisor how this worker is; when it is gone, nobody needs to know.
    """
    with suppress(BrokenPipeError):
        os.write(REPORT_DESCRIPTOR, f"{news}\n".encode("ascii"))


def read_document(descriptor: int) -> bytes:
    """
    Wait for the document of the supervisor.

    @return: The line; what came of it if the supervisor ended.
    """
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        line += chunk
    return line


def main() -> None:
    """
    Serve until told to end.
    """
    # A new file of the log and new settings are the supervisor's affair, and whoever asks for them may ask all
    # processes of a service.
    for not_for_workers in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(not_for_workers, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGUSR1, signal.SIGHUP})
    line = read_document(DOCUMENT_DESCRIPTOR)
    if not line:
        # The supervisor was gone before it could say anything.
        return
    try:
        handover = Handover.decode(line, __version__)
    except HandoverError as error:
        sys.exit(f"worker: {error}")
    import_module(handover.reactor).install()
    from twisted.internet import reactor

    settings = handover.settings
    form = choose_form(settings["log-format"], timestamps=settings["timestamps"])
    journal = Journal(DescriptorSink(LOG_DESCRIPTOR), reactor, form=form)
    _widen(LOG_DESCRIPTOR)
    globalLogBeginner.beginLoggingTo([journal])
    _serve(WorkerHost(handover, reactor, journal), reactor)
    journal.flush()


def _serve(host: WorkerHost, reactor: Any) -> None:
    """
    Run the reactor.
    """

    def take_signals() -> None:
        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(host.end))

    host.start()
    # In the place of those of the reactor: it takes a second SIGTERM for a mistake, and service managers send one to
    # every process of a service while the supervisor sends its own.
    reactor.callWhenRunning(take_signals)
    lifeline = Lifeline(reactor, DOCUMENT_DESCRIPTOR, host.take)
    lifeline.cut.addCallback(lambda _: host.end())
    reactor.callWhenRunning(lifeline.startReading)
    reactor.callWhenRunning(report, READY)
    # The reactor takes its handlers away before we are gone, and a late SIGTERM would make a death of a clean end.
    reactor.addSystemEventTrigger(
        "after", "shutdown", signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGTERM}
    )
    reactor.run()


def _widen(pipe: int) -> None:
    """
    Make room in a pipe, where the system lets us.
    """
    with suppress(AttributeError, OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


if __name__ == "__main__":
    # Under its own name, which stands in the log.
    import_module("kmsproto.service.worker").main()
