"""
A host of several processes: the supervisor opens the sockets and watches over the workers that serve them.

The supervisor is the process that twistd runs.  It has the pidfile and the log, it opens the sockets while it still
may, and it never accepts a connection.  The workers are started when the reactor runs, that is, after twistd has gone
into the background and given up its privileges; each inherits the listening sockets and is handed the settings
(L{handover<kmsproto.service.handover>}), and whichever is free accepts the next connection.

SIGHUP is forwarded to the workers.  To stop is to send SIGTERM to the workers, to close the sockets when they have done
so, and to wait until they have finished their calls and everything that they wrote stands in the log.  When the
supervisor itself is killed, each worker sees its descriptor 0 end, finishes its calls and ends as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort, IProcessTransport, IStreamServerEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from kmsproto.service.handover import (
    DOCUMENT_DESCRIPTOR,
    ERROR_DESCRIPTOR,
    FIRST_SOCKET,
    LOG_DESCRIPTOR,
    REPORT_DESCRIPTOR,
)
from kmsproto.service.journal import Journal
from kmsproto.service.listener import Listener
from kmsproto.service.logs import JournalledService, relay
from kmsproto.service.sharing import open_shared
from kmsproto.service.signals import HangUp, Impatience, taken
from kmsproto.service.startup import StartupError
from kmsproto.service.workers import Worker

#: The module that a worker runs.
WORKER_MODULE = "kmsproto.service.worker"


@dataclass(slots=True, frozen=True)
class Command:
    """
    How to run a worker.

    @ivar executable: The interpreter.
    @ivar environment: Environment variables.
    """

    executable: str
    environment: Mapping[str, str]

    @classmethod
    def of_this_process(cls) -> Command:
        """
        Run workers as this process runs, with the same interpreter and the same modules, wherever it will be then.

        @raise StartupError: If this process has no interpreter to name.
        """
        if not sys.executable:
            raise StartupError("workers cannot be started: the interpreter is not known")
        # Relative entries count from the directory in which twistd was started, which it may leave.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        return cls(sys.executable, {**os.environ, "PYTHONPATH": path})

    def arguments(self, worker: int) -> list[str]:
        """
        Write the command line of a worker.

        @param worker: Its number, which only people look at, in a list of processes.
        """
        # -P: whatever lies in the working directory of a daemon is not imported.
        return [self.executable, "-P", "-m", WORKER_MODULE, str(worker)]


def reactor_module(reactor: object) -> str:
    """
    Name the module that installs a reactor like this one.

    @raise StartupError: If its module does not do that.
    """
    name = type(reactor).__module__
    if not hasattr(import_module(name), "install"):
        raise StartupError(f"workers cannot be started with the reactor {type(reactor).__name__}")
    return name


class SupervisorService(JournalledService):
    """
    A KMS host whose connections are served by workers.

    @param reactor: The reactor.
    @param endpoints: Where to listen.
    @param workers: How many workers there are.
    @param command: How to run one.
    @param document: Makes what a worker is handed at its start, of its number.
    @param patience: Seconds that the workers have to finish when the service stops.
    @param reload: Reads the settings anew, and tells whether they could be used; C{document} is made of them then.
    @param tolerate_failures: Whether it is enough that one of several endpoints can be opened.
    @param journal: What to offer to the application as its log, if anything.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Sequence[IStreamServerEndpoint],
        *,
        workers: int,
        command: Command,
        document: Callable[[int], bytes],
        patience: float,
        reload: Callable[[], bool],
        tolerate_failures: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self.setName("kms")  # type: ignore[no-untyped-call]
        self.journal = journal
        self._reactor = reactor
        self._command = command
        self._patience = patience
        self._listener = Listener(endpoints, self._log, tolerate_failures=tolerate_failures)
        self._count = len(endpoints)
        self._sockets: list[int] = []
        self._reload = reload
        self._hang_up = HangUp(reactor, self.hang_up)
        self._impatience = Impatience(reactor, self._kill)
        self._started = False
        #: The workers.
        self.workers = [
            Worker(
                number,
                reactor,
                partial(self._spawn, number),
                partial(document, number),
                partial(relay, journal),
            )
            for number in range(1, workers + 1)
        ]

    @property
    def ports(self) -> list[IListeningPort]:
        """
        The open ports.
        """
        return self._listener.ports

    def privilegedStartService(self) -> None:
        """
        Open the sockets.

        @raise StartupError: If one cannot be opened, or cannot be shared.
        """
        with taken(self._hang_up):
            self._sockets = open_shared(self._listener, self._count)

    def startService(self) -> None:
        """
        Start the workers as soon as the reactor runs, and open the sockets unless that is done.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if not self._listener.listening:
            self.privilegedStartService()
        self._reactor.callWhenRunning(self._start_workers)
        self._impatience.watch()

    def stopService(self) -> Deferred[Any]:
        """
        Close the sockets, and let the workers finish.

        @return: Fires when all are gone and everything that they wrote stands in the log.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._started = False
        self._impatience.forget()
        killing = self._reactor.callLater(self._patience, self._kill)
        stopping = [worker.stop() for worker in self.workers]
        # To close some ports is to shut their sockets down for everybody, which the workers would take for an error.
        closing: Deferred[Any] = DeferredList([each.closed for each in stopping])
        closing.addCallback(lambda _: self._listener.close())
        ends = [closing, *(each.gone for each in stopping)]

        def stopped(_: object) -> None:
            if killing.active():
                killing.cancel()
            self._hang_up.give_back()

        return DeferredList(ends).addCallback(stopped)

    def hang_up(self) -> None:
        """
        Read the settings anew, and hand them to the workers.
        """
        if self._reload():
            for worker in self.workers:
                worker.hand_over()

    def _start_workers(self) -> None:
        if self._started or not self.running:
            return
        self._started = True
        for worker in self.workers:
            worker.start()

    def _kill(self) -> None:
        for worker in self.workers:
            worker.kill()

    def _spawn(self, number: int, protocol: ProcessProtocol) -> IProcessTransport:
        descriptors: dict[int, int | str] = {
            DOCUMENT_DESCRIPTOR: "w",
            LOG_DESCRIPTOR: "r",
            ERROR_DESCRIPTOR: "r",
            REPORT_DESCRIPTOR: "r",
        }
        descriptors |= dict(enumerate(self._sockets, FIRST_SOCKET))
        process: IProcessTransport = self._reactor.spawnProcess(
            protocol,
            self._command.executable,
            self._command.arguments(number),
            env=dict(self._command.environment),
            childFDs=descriptors,
        )
        return process
