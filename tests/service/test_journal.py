"""
The log of a service process: nothing is lost, nothing waits for long, and everything keeps its order.
"""

from __future__ import annotations

import io
import json
from threading import Thread

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatTime, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.forms import JSONForm, UntimedForm
from kmsproto.service.journal import BATCH, KEPT, PATIENCE, Journal

#: 2026-01-01, 00:00 UTC.
NOW = 1767225600.0


class Memory:
    """
    A sink with a limit: a disk that may be full.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        #: Bytes that there is room for.
        self.room = 1 << 40

    def write(self, data: bytes, /) -> int:
        """
        Take what there is room for.
        """
        self.writes += 1
        taken = data[: self.room]
        if not taken:
            raise OSError("no space left on device")
        self.room -= len(taken)
        self.data += taken
        return len(taken)

    def getvalue(self) -> str:
        """
        Read what is in the file.
        """
        return self.data.decode()

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
        self.stream = Memory()
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

        def interrupted(data: bytes) -> int:
            self.stream.write = write  # type: ignore[method-assign]
            self.log.info("received a signal")
            return write(data)

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
        expected = io.StringIO()
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

    def test_untimed(self) -> None:
        """
        Where times are left out, they are so of every line, and never come back.
        """
        journal = Journal(self.stream, self.clock, form=UntimedForm())
        log = Logger(namespace="somewhere", observer=journal)
        for _ in range(2):
            journal.write("line")
            log.warn("event")
            self.clock.advance(1)
        self.assertEqual(
            self.stream.getvalue(), 2 * "[kmsproto#info] line\n[somewhere#warn] event\n"
        )

    def test_json(self) -> None:
        """
        Where lines are objects, ready ones are written as they are, and all others become objects, in their order.
        """
        journal = Journal(self.stream, self.clock, form=JSONForm())
        log = Logger(namespace="somewhere", observer=journal)
        objects = [f'{{"time":"x","number":{number}}}' for number in range(2)]
        journal.write(objects[0])
        log.warn("event")
        journal.relay(f"{objects[1]}\nno object\n")
        first, event, second, other = self.stream.getvalue().splitlines()
        self.assertEqual([first, second], objects)
        self.assertEqual(json.loads(event)["message"], "event")
        self.assertEqual(json.loads(other)["message"], "no object")


class FullDiskTests(SynchronousTestCase):
    """
    A journal whose sink takes nothing, or not everything.
    """

    def setUp(self) -> None:
        """
        Open a journal on a full disk.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.stream = Memory()
        self.stream.room = 0
        self.journal = Journal(self.stream, self.clock)
        self.log = Logger(namespace="somewhere", observer=self.journal)

    def make_room(self, room: int = 1 << 40) -> None:
        """
        Let the disk have room, and time pass.
        """
        self.stream.room = room
        self.clock.advance(PATIENCE)

    def test_kept(self) -> None:
        """
        Lines that could not be written are written when it is possible again, in their order, whoever brought them,
        and also when nobody writes any more.
        """
        self.journal.write("0")
        self.clock.advance(1)
        self.journal.relay("- [-] 1\n")
        self.log.info("2")
        self.journal.write("3")
        self.clock.advance(5)
        self.assertEqual(self.stream.lines(), [])
        self.make_room()
        self.assertEqual(self.stream.lines(), ["0", "1", "2", "3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_relayed_only(self) -> None:
        """
        That holds where every line is relayed.
        """
        self.journal.relay("- [-] 1\n")
        self.make_room()
        self.assertEqual(self.stream.lines(), ["1"])

    def test_taken_in_parts(self) -> None:
        """
        What a sink took of a batch is not written again, and what it did not take is not lost, wherever it stopped.
        """
        text = "".join(f"- [-] line {number}\n" for number in range(9))
        for room in range(len(text)):
            self.setUp()
            self.stream.room = room
            self.journal.relay(text)
            self.assertEqual(self.stream.getvalue(), text[:room])
            self.make_room(1)
            self.make_room()
            self.assertEqual(self.stream.getvalue(), text)

    def test_bounded(self) -> None:
        """
        Only so many bytes are kept, however they come; the oldest lines are given up, and their number is told once.
        """
        line = "- [-] " + 993 * "x" + "\n"
        chunk = 100 * line
        for _ in range(2 * KEPT // len(chunk)):
            self.journal.relay(chunk)
            self.clock.advance(PATIENCE)
        self.assertLessEqual(len(self.journal._kept) + sum(map(len, self.journal._waiting)), KEPT)
        self.make_room()
        first, *others = self.stream.lines()
        sent = 2 * KEPT // len(chunk) * 100
        self.assertEqual(first, f"lost lines={sent - len(others)}")
        self.assertEqual(set(others), {993 * "x"})
        self.journal.relay("- [-] later\n")
        self.assertEqual(self.stream.lines()[-1], "later")
        self.assertEqual(self.stream.getvalue().count("lost"), 1)

    def test_bounded_json(self) -> None:
        """
        The number of lost lines is an object where lines are, also when it had to be offered twice.
        """
        journal = Journal(self.stream, self.clock, form=JSONForm())
        filler = '{"time":"' + KEPT * "y" + '"}'
        journal.relay(f"{filler}\n")
        self.make_room(0)
        journal.relay('{"time":"z"}\n')
        self.make_room()
        lost, last = map(json.loads, self.stream.getvalue().splitlines())
        self.assertEqual((lost["event"], lost["lines"], last), ("lost", 1, {"time": "z"}))

    def test_torn(self) -> None:
        """
        A line of which only the beginning was taken before its rest was given up is ended.
        """
        self.stream.room = 12
        self.journal.relay("- [-] the first of all\n" + KEPT * "y" + "\n- [-] last\n")
        self.make_room()
        head, lost, last = self.stream.getvalue().splitlines()
        self.assertEqual((head, last), ("- [-] the fi", "- [-] last"))
        self.assertTrue(lost.endswith("lost lines=2"))

    def test_interrupted_confession(self) -> None:
        """
        When the line that tells of a loss is itself taken in parts, it is whole in the end, and not told twice.
        """
        self.journal.relay("- [-] lost\n" + KEPT * "y" + "\n")
        self.make_room(9)
        self.make_room()
        self.journal.relay("- [-] later\n")
        self.assertEqual(self.stream.lines(), ["lost lines=2", "later"])

    def test_tried_now_and_then(self) -> None:
        """
        A sink that takes nothing is tried again now and then, not for each line, whoever brings it.
        """
        self.journal.relay("- [-] 0\n")
        before = self.stream.writes
        for number in range(3 * BATCH):
            self.journal.write(str(number))
            self.journal.relay("- [-] 1\n")
            self.log.info("2")
        self.assertEqual(self.stream.writes, before)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.stream.writes, before + 1)

    def test_at_the_end(self) -> None:
        """
        The last events of a process are offered, though no clock runs any more, if the last attempt is a while ago.
        """
        self.log.info("one")
        self.stream.room = 1 << 40
        self.clock.rightNow += PATIENCE
        self.log.info("two")
        self.assertEqual(self.stream.lines(), ["one", "two"])

    def test_closed(self) -> None:
        """
        A sink that is closed is one that takes nothing: nobody who writes is told.
        """

        def closed(data: bytes) -> int:
            raise ValueError("I/O operation on closed file")

        self.patch(self.stream, "write", closed)
        self.journal.relay("- [-] one\n")
        self.journal.write("two")
        self.clock.advance(PATIENCE)
        self.log.info("three")

    def test_other_thread(self) -> None:
        """
        Another thread may log; delayed calls are left to the first.
        """
        thread = Thread(target=self.log.info, args=("of a thread",))
        thread.start()
        thread.join()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.stream.room = 1 << 40
        self.journal.write("of the reactor")
        self.make_room()
        self.assertEqual(self.stream.lines(), ["of a thread", "of the reactor"])
