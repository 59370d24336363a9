"""
The log of a service process: nothing is lost, nothing waits for long, and everything keeps its order.
"""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatTime, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.journal import BATCH, KEPT, Journal

#: 2026-01-01, 00:00 UTC.
NOW = 1767225600.0


class Stream(io.StringIO):
    """
    A file, on a disk that may be full.
    """

    full = False

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str, /) -> int:
        """
        Write, unless the disk is full.
        """
        self.writes += 1
        if self.full:
            raise OSError("no space left on device")
        return super().write(text)

    def lines(self) -> list[str]:
        """
        Read what is in the file, without the times.
        """
        return [line.partition("] ")[2] for line in self.getvalue().splitlines()]


class JournalTests(SynchronousTestCase):
    """
    L{Journal}.
    """

    def setUp(self) -> None:
        """
        Open a journal.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.stream = Stream()
        self.journal = Journal(self.stream, self.clock)
        self.publisher = LogPublisher(self.journal)
        self.log = Logger(namespace="somewhere", observer=self.publisher)

    def test_stamp(self) -> None:
        """
        A line is written in the form of twistd: the time with its zone, and where it comes from.
        """
        self.journal.write("granted count=50")
        self.journal.flush()
        self.assertEqual(
            self.stream.getvalue(), f"{formatTime(NOW)} [kmsproto#info] granted count=50\n"
        )

    def test_interrupted(self) -> None:
        """
        A signal handler that logs may interrupt the writing of a line: its own is written behind that.
        """
        write = self.stream.write

        def interrupted(text: str) -> int:
            self.stream.write = write  # type: ignore[method-assign]
            self.log.info("received a signal")
            return write(text)

        self.stream.write = interrupted  # type: ignore[method-assign]
        self.journal.relay("- [-] one\n")
        self.assertEqual(self.stream.lines(), ["one", "received a signal"])

    def test_time_goes_on(self) -> None:
        """
        Each line has the second in which it was written.
        """
        self.journal.write("one")
        self.clock.advance(1)
        self.journal.write("two")
        self.journal.flush()
        stamps = [line.partition(" ")[0] for line in self.stream.getvalue().splitlines()]
        self.assertEqual(stamps, [formatTime(NOW), formatTime(NOW + 1)])

    def test_batch(self) -> None:
        """
        Lines wait for each other a quarter of a second, and are then written at once.
        """
        for number in range(3):
            self.journal.write(str(number))
            self.clock.advance(0.1)
        self.assertEqual(self.stream.lines(), ["0", "1", "2"])
        self.assertEqual(self.stream.writes, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_batch(self) -> None:
        """
        A batch that is large enough does not wait.
        """
        for number in range(BATCH):
            self.journal.write(str(number))
        self.assertEqual(len(self.stream.lines()), BATCH)

    def test_event(self) -> None:
        """
        Any other event of the process is written at once, as twistd writes it, behind what waits.
        """
        expected = Stream()
        self.publisher.addObserver(textFileLogObserver(expected))
        self.journal.write("first")
        self.log.info("second {number}", number=2)
        try:
            raise ValueError("of a test")
        except ValueError:
            self.log.failure("third")
        self.assertEqual(self.stream.lines()[:2], ["first", "second 2"])
        self.assertEqual(self.stream.getvalue().partition("\n")[2], expected.getvalue())

    def test_event_without_text(self) -> None:
        """
        An event that has nothing to say is not written.
        """
        self.publisher({"log_level": LogLevel.info, "log_format": ""})
        self.assertEqual(self.stream.writes, 0)

    def test_relay(self) -> None:
        """
        Lines of another process keep their stamps, and stand behind what came before.
        """
        self.journal.write("own")
        self.journal.relay("2026-01-01T00:00:00+0000 [kmsproto#info] other\n")
        self.assertEqual(self.stream.lines(), ["own", "other"])

    def test_nothing(self) -> None:
        """
        Nothing is written when there is nothing to write.
        """
        self.journal.flush()
        self.assertEqual(self.stream.writes, 0)

    def test_surrogates(self) -> None:
        """
        What no encoding has is escaped; the lines around it are written.
        """
        self.journal.write("before")
        self.journal.write("half \ud800")
        self.journal.flush()
        self.assertEqual(self.stream.lines(), ["before", "half \\ud800"])


class FullDiskTests(SynchronousTestCase):
    """
    A journal whose stream fails.
    """

    def setUp(self) -> None:
        """
        Open a journal on a full disk.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.stream = Stream()
        self.stream.full = True
        self.journal = Journal(self.stream, self.clock)

    def write(self, numbers: Any) -> None:
        """
        Write lines, and let time pass.
        """
        for number in numbers:
            self.journal.write(str(number))
        self.clock.advance(1)

    def test_kept(self) -> None:
        """
        Lines that could not be written are written when it is possible again, in their order.
        """
        self.write(range(2))
        self.stream.full = False
        self.write(range(2, 4))
        self.assertEqual(self.stream.lines(), ["0", "1", "2", "3"])

    def test_bounded(self) -> None:
        """
        Only so many lines are kept; the oldest are given up, and their number is told once.
        """
        self.write(range(KEPT))
        self.write(range(KEPT, KEPT + 5))
        self.stream.full = False
        self.write(["last"])
        lines = self.stream.lines()
        self.assertEqual(lines[:2], ["lost lines=5", "5"])
        self.assertEqual(len(lines), 1 + KEPT + 1)
        self.write(["later"])
        self.assertEqual(self.stream.lines()[-2:], ["last", "later"])

    def test_tried_by_the_clock(self) -> None:
        """
        A stream that fails is tried again now and then, not for each line.
        """
        self.write(range(BATCH))
        before = self.stream.writes
        for number in range(3 * BATCH):
            self.journal.write(str(number))
        self.assertEqual(self.stream.writes, before)
        self.clock.advance(1)
        self.assertEqual(self.stream.writes, before + 1)
