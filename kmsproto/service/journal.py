"""
The log of a service process: the same lines that twistd would write, at a fraction of the cost.

Twisted's own file observer formats, writes and flushes each event by itself, which costs a busy host more than the
answer that the event tells of.  A L{Journal} takes its place.  Lines about peers are handed to it ready made
(L{Journal.write}); it stamps them with a time that is formatted once a second, gathers them, and writes a batch before
C{interval} is over.  Everything else in the process goes on through Twisted's logging system: the journal is an
observer too, and writes such an event at once, behind the lines that wait, so the order of things is kept.

The batch is written at the latest by the events with which twistd says that it ends, so a clean end loses nothing.
When the stream cannot be written (the disk is full), lines are kept up to a limit, then the oldest are given up, and
how many those were is the first thing that is written when it works again.

Lines may come from any thread: adding one is a single step of a deque, and only one thread writes at a time.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent, formatEventAsClassicLogText, formatTime
from zope.interface import implementer

#: Lines of a batch at most; it is written when it has so many, however young it is.
BATCH = 1024
#: Lines that are kept while the stream cannot be written.
KEPT = 16 * BATCH
#: What stands between the time and the text of a line, where twistd writes the source and level of an event.
SYSTEM = "kmsproto#info"


class Stream(Protocol):
    """
    What a journal writes to: C{sys.stdout}, or a C{twisted.python.logfile.LogFile}.
    """

    def write(self, text: str, /) -> Any:
        """
        Write a text.
        """

    def flush(self) -> Any:
        """
        Hand over to the system what was written.
        """


@implementer(ILogObserver)
class Journal:
    """
    Writes the log of a process.

    @param stream: Where to.
    @param clock: The source of time, and what wakes it to write a batch.
    @param interval: Seconds that a line waits at most.
    """

    def __init__(self, stream: Stream, clock: IReactorTime, *, interval: float = 0.25) -> None:
        self._stream = stream
        self._clock = clock
        self._interval = interval
        self._waiting: deque[str] = deque()
        self._writing = Lock()
        self._timer: IDelayedCall | None = None
        self._second = -1
        self._stamp = ""
        self._failing = False
        self._lost = 0

    def __call__(self, event: LogEvent) -> None:
        """
        Write an event of Twisted's logging system, in the form in which twistd does, and what waits before it.
        """
        text = formatEventAsClassicLogText(event)
        if text is not None:
            self._waiting.append(text)
            self.flush()

    def write(self, line: str) -> None:
        """
        Take a line, without a time and without its end.  To be called by the thread of the reactor.
        """
        second = int(self._clock.seconds())
        if second != self._second:
            self._second = second
            self._stamp = f"{formatTime(second)} [{SYSTEM}] "
        waiting = self._waiting
        waiting.append(f"{self._stamp}{line}\n")
        if self._timer is None:
            self._timer = self._clock.callLater(self._interval, self._due)
        # A stream that fails is tried again by the clock only: not with all that is kept, for each line that comes.
        if len(waiting) >= BATCH and not self._failing:
            self.flush()

    def relay(self, text: str) -> None:
        """
        Write whole lines that another process has stamped, behind what waits.
        """
        self._waiting.append(text)
        self.flush()

    def flush(self) -> None:
        """
        Write what waits.
        """
        # Whoever is writing now takes along what has come since, before or after it lets go.  To wait for that would be
        # the end where it is this very thread: a signal handler that logs may have interrupted it.
        while self._waiting and self._writing.acquire(blocking=False):
            try:
                self._write_batch()
            finally:
                self._writing.release()
            if self._failing:
                return

    def _write_batch(self) -> None:
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(len(waiting))]
        # No stream can write half a surrogate pair, and one such line must not hold up all others.
        text = "".join((self._confess(), *batch)).encode("utf-8", "backslashreplace")
        try:
            self._stream.write(text.decode("utf-8"))
            self._stream.flush()
        except OSError:
            self._failing = True
            self._keep(batch)
        else:
            self._failing = False
            self._lost = 0

    def _confess(self) -> str:
        """
        Say how many lines had to be given up; nothing if none was.
        """
        if not self._lost:
            return ""
        return f"{formatTime(self._clock.seconds())} [{SYSTEM}] lost lines={self._lost}\n"

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def _keep(self, batch: list[str]) -> None:
        """
        Keep for later what could not be written, the newest of it.
        """
        surplus = max(len(batch) - KEPT, 0)
        self._lost += sum(text.count("\n") for text in batch[:surplus])
        self._waiting.extendleft(reversed(batch[surplus:]))
