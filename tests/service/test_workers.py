"""
One worker as its supervisor sees it: start, what it writes, how it ends, and when it is started again.
"""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kmsproto.service.handover import (
    DOCUMENT_DESCRIPTOR,
    ERROR_DESCRIPTOR,
    LOG_DESCRIPTOR,
    READY,
    REPORT_DESCRIPTOR,
)
from kmsproto.service.workers import FIRST_PAUSE, LONG_LIFE, LONGEST_PAUSE, Backoff, Worker


@implementer(IProcessTransport)
class FakeProcess:
    """
    A process that does nothing by itself.

    @ivar handed: What was written to it, by descriptor.
    @ivar signals: What was sent to it.
    """

    def __init__(self, protocol: ProcessProtocol, pid: int) -> None:
        self.protocol = protocol
        self.pid: int | None = pid
        self.handed: list[tuple[int, bytes]] = []
        self.pipe_closed = False
        self.signals: list[int] = []
        protocol.makeConnection(self)

    def writeToChild(self, childFD: int, data: bytes) -> None:  # noqa: N802 - of the interface
        """
        Take note.
        """
        if self.pipe_closed:
            raise KeyError(childFD)
        self.handed.append((childFD, data))

    def signalProcess(self, signalID: int) -> None:  # noqa: N802, N803 - of the interface
        """
        Take note, unless the process is gone.
        """
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(signalID)

    def exits(self) -> None:
        """
        End, with the pipes not read out yet.
        """
        self.pid = None

    def ends(self, status: int = 0, by: int | None = None) -> None:
        """
        End for good.
        """
        self.exits()
        reason = ProcessTerminated(status, by) if status or by else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


class BackoffTests(SynchronousTestCase):
    """
    The pauses.
    """

    def test_doubles(self) -> None:
        """
        The pause doubles with each early end, up to a limit.
        """
        backoff = Backoff()
        pauses = [backoff.pause(0.1) for _ in range(9)]
        self.assertEqual(pauses, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])

    def test_long_life(self) -> None:
        """
        A worker that had lived is started again at once, and forgives what was before.
        """
        backoff = Backoff()
        backoff.pause(1)
        backoff.pause(LONG_LIFE - 1)
        self.assertEqual(backoff.pause(LONG_LIFE), 0.0)
        self.assertEqual(backoff.pause(0), FIRST_PAUSE)

    @given(st.lists(st.floats(0, 1e6)))
    def test_bounds(self, lifetimes: list[float]) -> None:
        """
        Whatever happens, nobody waits longer than the limit, and an early end never restarts at once.
        """
        backoff = Backoff()
        for lifetime in lifetimes:
            pause = backoff.pause(lifetime)
            self.assertTrue(0 <= pause <= LONGEST_PAUSE)
            self.assertEqual(pause == 0, lifetime >= LONG_LIFE)


class WorkerTests(SynchronousTestCase):
    """
    The life of a worker.
    """

    def setUp(self) -> None:
        """
        Make a worker whose processes have the ids 101, 102, …
        """
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.relayed: list[str] = []
        self.problem: OSError | None = None
        self.mask: set[signal.Signals] = set()
        self.worker = Worker(3, self.clock, self.spawn, lambda: b"document", self.relayed.append)

    def spawn(self, protocol: ProcessProtocol) -> Any:
        """
        Start a process.
        """
        self.mask = {signal.Signals(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        if self.problem is not None:
            raise self.problem
        self.processes.append(FakeProcess(protocol, 101 + len(self.processes)))
        return self.processes[-1]

    def start(self) -> FakeProcess:
        """
        Start the worker.
        """
        self.worker.start()
        return self.processes[-1]

    def lines(self, function: Any, *arguments: Any) -> list[str]:
        """
        Do something, and get what is logged: level and line.
        """
        with capturedLogs() as events:
            function(*arguments)
        return [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]

    def test_start(self) -> None:
        """
        A process is started, with the signals of terminals held back, and handed its document.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        process = self.start()
        self.assertEqual(process.handed, [(DOCUMENT_DESCRIPTOR, b"document")])
        self.assertEqual(self.worker.pid, 101)
        self.assertTrue({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1} <= self.mask)
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)

    def test_ready(self) -> None:
        """
        What the process reports is a line, however it is cut; other news are not.
        """
        process = self.start()
        self.assertEqual(
            self.lines(process.protocol.childDataReceived, REPORT_DESCRIPTOR, b"rea"), []
        )
        self.assertEqual(
            self.lines(
                process.protocol.childDataReceived, REPORT_DESCRIPTOR, b"dy\nother\nclosed\n"
            ),
            ["info: ready worker=3 pid=101"],
        )

    def test_relays(self) -> None:
        """
        Lines of its log are relayed as they are whole; what is unfinished at the end is written then.
        """
        process = self.start()
        for data in (b"one\ntw", b"o\n", b"three"):
            process.protocol.childDataReceived(LOG_DESCRIPTOR, data)
        self.assertEqual(self.relayed, ["one\n", "two\n"])
        process.exits()
        process.protocol.childDataReceived(LOG_DESCRIPTOR, b"!\nfour")
        process.ends(by=9)
        self.assertEqual(self.relayed, ["one\n", "two\n", "three!\n", "four\n"])

    def test_complaints(self) -> None:
        """
        What else it says is a warning for each line, quoted, with the number and process id.
        """
        process = self.start()
        feed = process.protocol.childDataReceived
        self.assertEqual(
            self.lines(feed, ERROR_DESCRIPTOR, b'Traceback "x"\n\x1b[1m\nha'),
            [
                'warn: stderr worker=3 pid=101 line="Traceback \\"x\\""',
                'warn: stderr worker=3 pid=101 line="\\x1b[1m"',
            ],
        )
        self.assertEqual(self.lines(process.ends, 1)[0], 'warn: stderr worker=3 pid=101 line="ha"')

    def test_dies(self) -> None:
        """
        A worker that dies early is started again after a pause, and one line says how it died.
        """
        process = self.start()
        self.assertEqual(
            self.lines(process.ends, 0, 9), ["warn: ended worker=3 pid=101 signal=9 restart=0.25"]
        )
        self.assertIsNone(self.worker.pid)
        self.clock.advance(0.24)
        self.assertEqual(len(self.processes), 1)
        self.clock.advance(0.01)
        self.assertEqual((len(self.processes), self.worker.pid), (2, 102))
        self.assertEqual(
            self.lines(self.processes[-1].ends, 1),
            ["warn: ended worker=3 pid=102 status=1 restart=0.5"],
        )

    def test_dies_late(self) -> None:
        """
        A worker that had lived is started again at once, whatever its status.
        """
        process = self.start()
        self.clock.advance(LONG_LIFE)
        self.assertEqual(
            self.lines(process.ends), ["warn: ended worker=3 pid=101 status=0 restart=0.0"]
        )
        self.clock.advance(0)
        self.assertEqual(self.worker.pid, 102)

    def test_cannot_be_started(self) -> None:
        """
        When no process can be started, one line says why, and it is tried again later and later.
        """
        self.problem = PermissionError(13, "Permission denied", "/usr/bin/python3")
        reason = "[Errno 13] Permission denied: '/usr/bin/python3'"
        line = f'error: not started worker=3 reason="{reason}" restart='
        self.assertEqual(self.lines(self.worker.start), [f"{line}0.25"])
        self.assertEqual(self.lines(self.clock.advance, 0.25), [f"{line}0.5"])
        self.problem = None
        self.clock.advance(0.5)
        self.assertEqual(self.worker.pid, 101)

    def test_hand_over(self) -> None:
        """
        What holds now reaches the process while there is one, and its pipe is open.
        """
        self.worker.hand_over()
        process = self.start()
        self.worker.reported(process.pid or 0, READY)
        before = len(process.handed)
        self.worker.hand_over()
        self.assertEqual(len(process.handed), before + 1)
        process.pipe_closed = True
        self.worker.hand_over()
        process.exits()
        self.worker.hand_over()
        self.assertEqual(len(process.handed), before + 1)

    def test_hand_over_at_its_start(self) -> None:
        """
        A process that is not ready yet gets what holds by then as soon as it is, once.
        """
        process = self.start()
        before = len(process.handed)
        for _ in range(3):
            self.worker.hand_over()
        self.assertEqual(len(process.handed), before)
        self.worker.reported(process.pid or 0, READY)
        self.assertEqual(len(process.handed), before + 1)

    def test_stop(self) -> None:
        """
        To stop is to send SIGTERM; first the worker says that it is closed, then it is gone, and stays so.
        """
        process = self.start()
        stopping = self.worker.stop()
        self.assertEqual(process.signals, [signal.SIGTERM])
        self.assertNoResult(stopping.closed)
        process.protocol.childDataReceived(REPORT_DESCRIPTOR, b"closed\n")
        self.successResultOf(stopping.closed)
        self.assertNoResult(stopping.gone)
        self.assertEqual(self.lines(process.ends), ["info: ended worker=3 pid=101 status=0"])
        self.successResultOf(stopping.gone)
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 1)

    def test_stop_of_a_dying_one(self) -> None:
        """
        A worker that ends without a word is closed and gone.
        """
        process = self.start()
        stopping = self.worker.stop()
        process.ends(by=15)
        self.successResultOf(stopping.closed)
        self.successResultOf(stopping.gone)

    def test_stop_between_two_lives(self) -> None:
        """
        A worker that waits for its next start is stopped at once, and not started.
        """
        self.start().ends(1)
        stopping = self.worker.stop()
        self.successResultOf(stopping.closed)
        self.successResultOf(stopping.gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_kill(self) -> None:
        """
        A worker that does not finish is killed, which is worth a line.
        """
        self.assertEqual(self.lines(self.worker.kill), [])
        process = self.start()
        self.worker.stop()
        self.assertEqual(
            self.lines(self.worker.kill), ["warn: killing worker=3 pid=101: it does not finish"]
        )
        self.assertEqual(process.signals, [signal.SIGTERM, signal.SIGKILL])

    def test_starts_after_a_stop(self) -> None:
        """
        A worker that was stopped can be started again, and is then watched as before.
        """
        process = self.start()
        self.worker.stop()
        process.ends()
        self.start().ends(1)
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(len(self.processes), 3)
