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
from contextlib import suppress
from importlib import import_module
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from kmsproto import __version__
from kmsproto.kms.catalog import load_catalog
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
from kmsproto.service.hosting import make_factory, make_host
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
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
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
        Notice the end; nothing else is expected here.
        """
        return None if os.read(self._descriptor, 4096) else CONNECTION_DONE

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
            handover.settings,
            make_host(handover.settings, load_catalog(), handover.installation),
            reactor,
            group_seed=handover.group_seed,
            journal=journal.write,
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

    def hang_up(self) -> None:
        """
        Take SIGHUP: the settings of a host that runs do not change, so there is nothing to do.
        """
        self._log.info(
            "received SIGHUP worker={number} pid={pid}: nothing to reload",
            number=self._handover.worker,
            pid=os.getpid(),
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
    # A new file is the supervisor's affair too, and whoever asks for one may ask all processes of a service.
    for not_for_workers in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(not_for_workers, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGUSR1})
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

    journal = Journal(DescriptorSink(LOG_DESCRIPTOR), reactor)
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
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(host.hang_up))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    host.start()
    # In the place of those of the reactor: it takes a second SIGTERM for a mistake, and service managers send one to
    # every process of a service while the supervisor sends its own.
    reactor.callWhenRunning(take_signals)
    lifeline = Lifeline(reactor, DOCUMENT_DESCRIPTOR)
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
