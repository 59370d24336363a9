"""
The parts of a worker that need no process: its document, its end, and what it says to the supervisor.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kmsproto import __version__
from kmsproto.service import worker
from kmsproto.service.journal import Journal
from kmsproto.service.worker import Lifeline, WorkerHost, read_document, report
from tests.net.wiring import Wire, bind, call, granted, payload, read_replies
from tests.service.test_handover import handover


class Sink:
    """
    A sink, or a stream, that keeps what is written.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, data: bytes | str) -> int:
        """
        Keep it.
        """
        self.text += data if isinstance(data, str) else data.decode()
        return len(data)

    def flush(self) -> None:
        """
        Nothing waits here.
        """


class StoppableReactor(MemoryReactorClock):
    """
    A reactor that counts how often it was stopped.
    """

    stops = 0

    def stop(self) -> None:
        """
        Take note.
        """
        self.stops += 1


class Port:
    """
    A port that takes its time to close.
    """

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def stopListening(self) -> Deferred[None]:
        """
        Begin to close.
        """
        return self.closed


class WorkerHostTests(SynchronousTestCase):
    """
    The host of a worker.
    """

    def setUp(self) -> None:
        """
        Make a worker with fake sockets.
        """
        self.reactor = StoppableReactor()
        self.sink = Sink()
        self.ports: list[Port] = []
        self.adopted: list[int] = []
        self.reported: list[str] = []

        def adopt(reactor: Any, descriptor: int, factory: Any) -> Any:
            self.adopted.append(descriptor)
            self.ports.append(Port())
            return self.ports[-1]

        self.patch(worker, "adopt", adopt)
        self.patch(worker, "report", self.reported.append)
        self.patch(worker, "allow_descriptors", lambda *_: None)
        self.host = WorkerHost(
            handover(catalog_file=None), self.reactor, Journal(self.sink, self.reactor)
        )

    def test_start(self) -> None:
        """
        It adopts every socket that it inherits, from the first number on.
        """
        self.host.start()
        self.assertEqual(self.adopted, [4, 5, 6])

    def test_serves(self) -> None:
        """
        It answers, with its own range of group ids, and writes its lines to the journal.
        """
        self.assertEqual(self.host.factory.rpc_server.groups.create("10.0.0.1"), 2**31 + 6)
        wire = Wire(self.host.factory)
        wire.send(bind(), call(payload()))
        self.reactor.advance(1)
        self.assertEqual(read_replies(wire.tcp.value())[1:], granted(2))
        self.assertRegex(self.sink.text, r"^\S+ \[kmsproto#info\] granted peer=10\.0\.0\.9 ")

    def test_stop(self) -> None:
        """
        It closes its sockets, tells the supervisor when that is done, and waits for the last connection.
        """
        self.host.start()
        wire = Wire(self.host.factory)
        stopped = self.host.stop()
        for port in self.ports:
            self.assertEqual(self.reported, [])
            port.closed.callback(None)
        self.assertEqual(self.reported, ["closed"])
        self.assertNoResult(stopped)
        wire.leave(cleanly=True)
        self.successResultOf(stopped)

    def test_stops_with_the_reactor(self) -> None:
        """
        The reactor waits for all that before it shuts down.
        """
        self.host.start()
        self.assertEqual(self.reactor.triggers["before"]["shutdown"], [(self.host.stop, (), {})])

    def test_end(self) -> None:
        """
        However often it is told to end, the reactor is stopped once.
        """
        self.host.end()
        self.host.end()
        self.assertEqual(self.reactor.stops, 1)

    def test_take(self) -> None:
        """
        Another document changes what the worker serves, and is a line of the log.
        """
        settings = {**handover().settings, "idle-timeout": 7.0, "renewal-interval": 77}
        line = handover(version=__version__, settings=settings, catalog_file=None).encode()
        with capturedLogs() as events:
            self.host.take(line)
        self.assertEqual(
            [formatEvent(event) for event in events], [f"reloaded worker=2 pid={os.getpid()}"]
        )
        self.assertEqual(self.host.factory.limits.idle_timeout, 7.0)

    def test_take_another_version(self) -> None:
        """
        A document that cannot be used changes nothing, and is a line of the log.
        """
        before = self.host.factory.host
        with capturedLogs() as events:
            self.host.take(handover(version="0").encode())
        (line,) = [formatEvent(event) for event in events]
        self.assertTrue(line.startswith("not reloaded worker=2: "), line)
        self.assertIs(self.host.factory.host, before)


class PipeTests(SynchronousTestCase):
    """
    The pipes between a worker and its supervisor.
    """

    def setUp(self) -> None:
        """
        Make a pipe.
        """
        self.readable, self.writable = os.pipe()
        self.open = {self.readable, self.writable}
        self.addCleanup(lambda: [os.close(each) for each in self.open])

    def close(self, descriptor: int) -> None:
        """
        Close an end.
        """
        self.open.discard(descriptor)
        os.close(descriptor)

    def test_document(self) -> None:
        """
        The document is read up to its end, and the pipe stays open.
        """
        os.write(self.writable, b"one line\n")
        self.assertEqual(read_document(self.readable), b"one line\n")

    def test_no_document(self) -> None:
        """
        A supervisor that ends without a word leaves nothing.
        """
        self.close(self.writable)
        self.assertEqual(read_document(self.readable), b"")

    def test_half_a_document(self) -> None:
        """
        What came of a document before the end is no line.
        """
        os.write(self.writable, b"half")
        self.close(self.writable)
        self.assertEqual(read_document(self.readable), b"half")

    def test_lifeline(self) -> None:
        """
        The end of the pipe is the end of the supervisor; lines in it are documents, however they arrive.
        """
        reactor = MemoryReactorClock()
        taken: list[bytes] = []
        lifeline = Lifeline(reactor, self.readable, taken.append)
        lifeline.startReading()
        self.assertEqual(reactor.getReaders(), [lifeline])
        self.assertEqual(lifeline.fileno(), self.readable)
        os.write(self.writable, b"?")
        self.assertIsNone(lifeline.doRead())
        self.assertEqual(taken, [])
        os.write(self.writable, b"!\na\n")
        self.assertIsNone(lifeline.doRead())
        self.assertEqual(taken, [b"?!\n", b"a\n"])
        self.close(self.writable)
        self.assertIs(lifeline.doRead(), CONNECTION_DONE)
        self.assertNoResult(lifeline.cut)
        lifeline.connectionLost(Failure(CONNECTION_DONE))
        self.successResultOf(lifeline.cut)
        self.assertEqual(reactor.getReaders(), [])

    def test_report(self) -> None:
        """
        A report is a line; when nobody reads it any more, nothing happens.
        """
        self.patch(worker, "REPORT_DESCRIPTOR", self.writable)
        report("ready")
        self.assertEqual(os.read(self.readable, 100), b"ready\n")
        self.close(self.readable)
        report("ready")

    def test_widen(self) -> None:
        """
        A pipe is given room where that is possible; what is none stays as it is.
        """
        worker._widen(self.writable)
        os.set_blocking(self.writable, False)
        self.assertEqual(os.write(self.writable, bytes(60000)), 60000)
        with open(os.devnull, "wb") as file:
            worker._widen(file.fileno())
