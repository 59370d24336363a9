"""
One worker as its supervisor sees it: a process, and the next one when that ends.

A worker that ends without being told to is started again: at once if it had lived for a while, so that a crash costs
little; otherwise after a pause that doubles from one failure to the next, so that a worker which cannot live does not
keep the machine busy.  Each end is one line in the log, as is each beginning.

What a worker writes is relayed to the end: the life of its process is only over when its pipes are read out.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.net.quoting import quote
from kmsproto.service.handover import (
    CLOSED,
    DOCUMENT_DESCRIPTOR,
    ERROR_DESCRIPTOR,
    LOG_DESCRIPTOR,
    READY,
    REPORT_DESCRIPTOR,
)
from kmsproto.service.lines import LineBuffer

#: Seconds after which a worker counts as one that can live.
LONG_LIFE = 10.0
#: Seconds before a worker that ended early is started again: the first time, and at most.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

#: Bytes of an unfinished line that are kept: of the log, and of what else a worker says.
_LOG_LINE = 65536
_OTHER_LINE = 4096
#: Signals that a worker must not die of before it can handle them, be they for all processes of a terminal.
_HELD_BACK = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})

#: Bytes of a report.
_REPORT_LINE = 64

#: Starts a process that speaks to this protocol.
Spawn = Callable[[ProcessProtocol], IProcessTransport]


class Backoff:
    """
    Decides how long to wait before a worker is started again.
    """

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def pause(self, lifetime: float) -> float:
        """
        Tell how long to wait.

        @param lifetime: Seconds that the worker has lived.
        @return: Seconds.
        """
        if lifetime >= LONG_LIFE:
            self._next = FIRST_PAUSE
            return 0.0
        pause, self._next = self._next, min(2 * self._next, LONGEST_PAUSE)
        return pause


class Stopping(NamedTuple):
    """
    What happens to a worker that was told to finish.

    @ivar closed: Fires when it accepts no more connections.
    @ivar gone: Fires when it is gone and everything that it wrote is relayed.
    """

    closed: Deferred[None]
    gone: Deferred[None]


class Worker:
    """
    One of the workers of a host.

    @param number: Which one, counted from 1.
    @param clock: The reactor.
    @param spawn: Starts its process.
    @param document: Makes what the process is handed.
    @param relay: Takes whole lines of its log, with their ends.
    """

    _log = Logger()

    def __init__(
        self,
        number: int,
        clock: IReactorTime,
        spawn: Spawn,
        document: Callable[[], bytes],
        relay: Callable[[str], None],
    ) -> None:
        self.number = number
        self._clock = clock
        self._spawn = spawn
        #: Makes what the next process is handed.
        self.document = document
        self._relay = relay
        self._backoff = Backoff()
        self._born = 0.0
        self._ready = self._changed = False
        self._process: _WorkerProcess | None = None
        self._restart: IDelayedCall | None = None
        self._stopping: Stopping | None = None

    @property
    def pid(self) -> int | None:
        """
        The process id; L{None} while there is no process.
        """
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """
        Start a process.
        """
        self._restart = None
        self._ready = self._changed = False
        self._born = self._clock.seconds()
        process = _WorkerProcess(self, self._relay)
        try:
            with _held_back():
                self._spawn(process)
        except OSError as error:
            pause = self._wait()
            self._log.error(
                "not started worker={number} reason={reason} restart={pause}",
                number=self.number,
                reason=quote(str(error)),
                pause=pause,
            )
            return
        self._process = process
        process.hand_over(self.document())

    def hand_over(self) -> None:
        """
        Hand over what holds now, if there is a process; to one that still reads its first document, when it has.
        """
        if self._process is None:
            return
        if self._ready:
            self._process.hand_over(self.document())
        else:
            self._changed = True

    def stop(self) -> Stopping:
        """
        Tell the process to finish, and start no other.
        """
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._process is None:
            return Stopping(succeed(None), succeed(None))
        self._stopping = Stopping(Deferred(), Deferred())
        self._process.signal(signal.SIGTERM)
        return self._stopping

    def kill(self) -> None:
        """
        End a process that does not finish.
        """
        if self._process is not None:
            self._log.warn(
                "killing worker={number} pid={pid}: it does not finish",
                number=self.number,
                pid=self.pid,
            )
            self._process.signal(signal.SIGKILL)

    def reported(self, pid: int, news: str) -> None:
        """
        The process tells how it is.
        """
        if news == READY:
            self._ready = True
            if self._changed:
                self._changed = False
                self.hand_over()
            self._log.info("ready worker={number} pid={pid}", number=self.number, pid=pid)
        elif news == CLOSED and self._stopping is not None and not self._stopping.closed.called:
            self._stopping.closed.callback(None)

    def complained(self, pid: int, line: str) -> None:
        """
        The process said something that is no line of its log.
        """
        self._log.warn(
            "stderr worker={number} pid={pid} line={line}",
            number=self.number,
            pid=pid,
            line=quote(line),
        )

    def ended(self, pid: int, outcome: str) -> None:
        """
        The process is gone.

        @param outcome: Its status or signal, as a field.
        """
        self._process = None
        line = "ended worker={number} pid={pid} {outcome}"
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            self._log.info(line, number=self.number, pid=pid, outcome=outcome)
            for each in stopping:
                if not each.called:
                    each.callback(None)
            return
        pause = self._wait()
        line += " restart={pause}"
        self._log.warn(line, number=self.number, pid=pid, outcome=outcome, pause=pause)

    def _wait(self) -> float:
        """
        Have another process started after a pause.

        @return: How long that is, in seconds.
        """
        pause = self._backoff.pause(self._clock.seconds() - self._born)
        self._restart = self._clock.callLater(pause, self.start)
        return pause


class _WorkerProcess(ProcessProtocol):
    """
    The pipes of one process.

    @param worker: Whose it is.
    @param relay: Takes whole lines of its log.
    """

    transport: IProcessTransport
    pid = 0

    def __init__(self, worker: Worker, relay: Callable[[str], None]) -> None:
        self._worker = worker
        self._relay = relay
        self._log_lines = LineBuffer(_LOG_LINE)
        self._other_lines = LineBuffer(_OTHER_LINE)
        self._reports = LineBuffer(_REPORT_LINE)

    def connectionMade(self) -> None:
        """
        The process runs.
        """
        # The transport forgets it when the process is gone.
        self.pid = int(self.transport.pid or 0)

    def hand_over(self, document: bytes) -> None:
        """
        Tell the process how to serve.
        """
        # A process that is at its end has closed the pipe.
        with suppress(KeyError):
            self.transport.writeToChild(DOCUMENT_DESCRIPTOR, document)

    def signal(self, number: int) -> None:
        """
        Send a signal, unless the process is gone.
        """
        try:
            self.transport.signalProcess(number)
        except ProcessExitedAlready:
            # Its end is on the way to us.
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Take what the process writes.
        """
        if childFD == LOG_DESCRIPTOR:
            self._pass_on(self._log_lines.feed(data))
        elif childFD == ERROR_DESCRIPTOR:
            self._complain(self._other_lines.feed(data))
        elif childFD == REPORT_DESCRIPTOR:
            for news in self._reports.feed(data).splitlines():
                self._worker.reported(self.pid, news)

    def processEnded(self, reason: Failure) -> None:
        """
        The process is gone and its pipes are read out.
        """
        self._pass_on(self._log_lines.finish())
        self._complain(self._other_lines.finish())
        end: Any = reason.value
        outcome = f"signal={end.signal}" if end.signal else f"status={end.exitCode}"
        self._worker.ended(self.pid, outcome)

    def _pass_on(self, text: str) -> None:
        if text:
            self._relay(text)

    def _complain(self, text: str) -> None:
        for line in text.splitlines():
            self._worker.complained(self.pid, line)


@contextmanager
def _held_back() -> Iterator[None]:
    """
    Let a process be born with certain signals held back; it lets them through when it can handle them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
