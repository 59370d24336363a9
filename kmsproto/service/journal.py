"""
The log of a service process: the same lines that twistd would write, at a fraction of the cost.

Twisted's own file observer formats, writes and flushes each event by itself, which costs a busy host more than the
answer that the event tells of.  A L{Journal} takes its place.  Lines about peers are handed to it ready made
(L{Journal.write}); it stamps them with a time that is formatted once a second, gathers them, and writes a batch before
C{interval} is over.  Everything else in the process goes on through Twisted's logging system: the journal is an
observer too, and writes such an event at once, behind the lines that wait, so the order of things is kept.

The batch is written at the latest by the events with which twistd says that it ends, so a clean end loses nothing.
When the sink takes nothing (the disk is full), what it has not taken is kept up to a limit, and offered again now and
then.  Beyond the limit the oldest lines are given up, and how many those were is the first thing that is written when
it works again.  Nothing that can go wrong with a log is raised to those who write to it.

In what form lines are written is the affair of a L{Form<kmsproto.service.forms.Form>}.

Lines may come from any thread: adding one is a single step of a deque, and only one thread writes at a time.
"""

from __future__ import annotations

from collections import deque
from threading import Lock, current_thread, main_thread

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from kmsproto.service.forms import TEXT, Form
from kmsproto.service.sinks import Sink

#: Lines of a batch at most; it is written when it has so many, however young it is.
BATCH = 1024
#: Bytes that are kept while the sink takes nothing.
KEPT = 4 << 20
#: Seconds between two attempts meanwhile.
PATIENCE = 1.0


@implementer(ILogObserver)
class Journal:
    """
    Writes the log of a process.

    @param sink: Where to.
    @param clock: The source of time, and what wakes it to write a batch.
    @param interval: Seconds that a line waits at most.
    @param form: The form of the lines.
    """

    def __init__(
        self, sink: Sink, clock: IReactorTime, *, interval: float = 0.25, form: Form = TEXT
    ) -> None:
        self._sink = sink
        self._form = form
        self._clock = clock
        self._interval = interval
        self._waiting: deque[str] = deque()
        self._writing = Lock()
        self._timer: IDelayedCall | None = None
        self._second = -1
        self._stamp = ""
        # While the sink takes nothing: what is kept, and when it is offered again.
        self._kept = b""
        self._again: float | None = None
        self._lost = 0
        self._torn = False

    def __call__(self, event: LogEvent) -> None:
        """
        Write an event of Twisted's logging system, and what waits before it.
        """
        text = self._form.event(event, self._clock.seconds())
        if text:
            self._append(text)

    def write(self, line: str) -> None:
        """
        Take a line, without its end, and without a time unless it is an object.  To be called by the thread of the
        reactor.
        """
        second = int(self._clock.seconds())
        if second != self._second:
            self._second = second
            self._stamp = self._form.stamp(second)
        waiting = self._waiting
        waiting.append(f"{self._stamp}{line}\n")
        if self._timer is None:
            delay = self._interval if self._again is None else PATIENCE
            self._timer = self._clock.callLater(delay, self._due)
        if len(waiting) >= BATCH and self._again is None:
            self.flush()

    def relay(self, text: str) -> None:
        """
        Write whole lines that are stamped already, such as those of another process, behind what waits.
        """
        self._append(self._form.relayed(text, self._clock.seconds()))

    def _append(self, text: str) -> None:
        """
        Write whole lines behind what waits.
        """
        self._waiting.append(text)
        # A sink that takes nothing is offered everything again now and then, not for each line that comes.
        if self._again is None or self._clock.seconds() >= self._again:
            self.flush()

    def flush(self) -> None:
        """
        Write what waits.
        """
        # Whoever is writing now takes along what has come since, before or after it lets go.  To wait for that would be
        # the end where it is this very thread: a signal handler that logs may have interrupted it.
        while (self._waiting or self._kept) and self._writing.acquire(blocking=False):
            try:
                self._write_batch()
            finally:
                self._writing.release()
            if self._again is not None:
                self._try_later()
                return

    def _write_batch(self) -> None:
        waiting = self._waiting
        batch = "".join([waiting.popleft() for _ in range(len(waiting))])
        # Half a surrogate pair has no bytes in any encoding, and one such line must not hold up all others.
        data = b"".join(
            (self._confess(), self._kept, batch.encode(self._sink.encoding, "backslashreplace"))
        )
        written = 0
        try:
            while written < len(data):
                written += self._sink.write(data[written:])
        except (OSError, ValueError):
            self._again = self._clock.seconds() + PATIENCE
            self._keep(data, written)
        else:
            self._kept, self._again, self._lost, self._torn = b"", None, 0, False

    def _confess(self) -> bytes:
        """
        Say how many lines had to be given up, behind the rest of a line that was torn thereby; nothing if none was.
        """
        if not self._lost:
            return b""
        line = self._form.lost(self._lost, self._clock.seconds())
        return b"\n" * self._torn + line.encode()

    def _keep(self, data: bytes, written: int) -> None:
        """
        Keep what was not taken, the newest of it, and in whole lines when something has to be given up.
        """
        rest = data[written:]
        if written:
            # Of what stood in front nothing is left to say.
            self._lost, self._torn = 0, not data[:written].endswith(b"\n")
        elif self._lost:
            rest = rest[len(self._confess()) :]
        if len(rest) > KEPT:
            end = rest.find(b"\n", len(rest) - KEPT) + 1
            self._lost += rest.count(b"\n", 0, end)
            rest = rest[end:]
        self._kept = rest

    def _try_later(self) -> None:
        """
        See that a sink which takes nothing is tried again, also when nobody writes any more.
        """
        # Delayed calls are the affair of the thread that the reactor has, which is the first of the process.
        if self._timer is None and current_thread() is main_thread():
            self._timer = self._clock.callLater(PATIENCE, self._due)

    def _due(self) -> None:
        self._timer = None
        self.flush()
