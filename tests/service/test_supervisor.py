"""
The supervisor: when it opens sockets and starts workers, what it forwards, and how it stops.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kmsproto.service.handover import READY
from kmsproto.service.supervisor import Command, SupervisorService, reactor_module
from tests.service.test_sharing import FakeEndpoint, FakePort
from tests.service.test_workers import FakeProcess

PATIENCE = 7.0


class ProcessReactor(MemoryReactorClock):
    """
    A reactor that can start processes, and runs when it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[dict[str, Any]] = []
        self.processes: list[FakeProcess] = []
        self.started = False

    def spawnProcess(self, protocol: Any, executable: str, args: Any, **options: Any) -> Any:  # noqa: N802
        """
        Start a process that does nothing.
        """
        self.spawned.append({"executable": executable, "args": args, **options})
        self.processes.append(FakeProcess(protocol, 100 + len(self.spawned)))
        return self.processes[-1]

    def callWhenRunning(self, function: Any, *arguments: Any) -> None:  # noqa: N802
        """
        Call at once if it runs.
        """
        if self.started:
            function(*arguments)
        else:
            super().callWhenRunning(function, *arguments)

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # noqa: N802
        """
        Call soon.
        """
        self.callLater(0, function, *arguments)

    def begin(self) -> None:
        """
        Run.
        """
        self.started = True
        for function, arguments, keywords in self.whenRunningHooks:
            function(*arguments, **keywords)


class SupervisorTests(SynchronousTestCase):
    """
    Start and stop.
    """

    def setUp(self) -> None:
        """
        Make a supervisor of two workers on two ports.
        """
        self.reactor = ProcessReactor()
        self.ports: list[FakePort] = []
        self.closing: Deferred[None] | None = None
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.service = SupervisorService(
            self.reactor,
            [FakeEndpoint(self.port), FakeEndpoint(self.port)],
            workers=2,
            command=Command("/python", {"A": "b"}),
            document=self.document,
            patience=PATIENCE,
            reload=self.reload,
        )
        self.written: list[int] = []
        self.reloads = 0
        self.usable = True

    def document(self, number: int) -> bytes:
        """
        Make the document of a worker.
        """
        self.written.append(number)
        return b"document %d" % number

    def handed(self) -> list[bytes]:
        """
        Tell what the workers have got last, of those for whom something was written.
        """
        return [self.reactor.processes[number - 1].handed[-1][1] for number in self.written]

    def reload(self) -> bool:
        """
        Read the settings anew.
        """
        self.reloads += 1
        return self.usable

    def port(self, factory: Any) -> FakePort:
        """
        Make a port with the next descriptor from 50 on.
        """
        self.ports.append(FakePort(self.reactor, factory, 50 + len(self.ports)))
        return self.ports[-1]

    def start(self) -> list[FakeProcess]:
        """
        Start as twistd does.
        """
        self.service.privilegedStartService()
        self.service.startService()
        self.reactor.begin()
        return self.reactor.processes

    def test_interface(self) -> None:
        """
        It is a service with a name.
        """
        verifyObject(IService, self.service)
        self.assertEqual(self.service.name, "kms")

    def test_start(self) -> None:
        """
        Sockets are opened by the privileged start, and workers are started when the reactor runs, not before.
        """
        self.service.privilegedStartService()
        self.assertEqual(self.service.ports, self.ports)
        self.assertEqual(self.reactor.getReaders(), [])
        self.service.startService()
        self.assertEqual((len(self.ports), self.reactor.spawned), (2, []))
        self.reactor.begin()
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_plain_start(self) -> None:
        """
        Where nobody calls the privileged start, the start opens the sockets; a reactor that runs has workers at once.
        """
        self.reactor.begin()
        self.service.startService()
        self.assertEqual((len(self.ports), len(self.reactor.spawned)), (2, 2))

    def test_command(self) -> None:
        """
        A worker is run with its number, the environment, pipes, and the sockets behind these.
        """
        self.start()
        self.assertEqual(
            self.reactor.spawned[1],
            {
                "executable": "/python",
                "args": ["/python", "-P", "-m", "kmsproto.service.worker", "2"],
                "env": {"A": "b"},
                "childFDs": {0: "w", 1: "r", 2: "r", 3: "r", 4: 50, 5: 51},
            },
        )
        self.assertEqual(self.reactor.processes[1].handed, [(0, b"document 2")])

    def test_restart(self) -> None:
        """
        A worker that dies is started again with the same sockets; the other is left alone.
        """
        first, second = self.start()
        first.ends(by=9)
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.spawned), 3)
        self.assertEqual(self.reactor.spawned[2], self.reactor.spawned[0])
        self.assertEqual(second.signals, [])

    def test_relays_events(self) -> None:
        """
        Without a journal the lines of the workers are events.
        """
        first, _ = self.start()
        with capturedLogs() as events:
            first.protocol.childDataReceived(1, b"2026-01-01T00:00:00+0000 [x#warn] careful\n")
        ((event),) = events
        self.assertEqual((formatEvent(event), event["log_level"].name), ("careful", "warn"))

    def test_stop(self) -> None:
        """
        To stop is to tell the workers, to close the ports when they have, and to wait for the end of all.
        """
        first, second = self.start()
        stopped = self.service.stopService()
        self.assertEqual((first.signals, second.signals), ([signal.SIGTERM], [signal.SIGTERM]))
        first.protocol.childDataReceived(3, b"closed\n")
        self.assertEqual([port.stopped for port in self.ports], [0, 0])
        second.ends()
        self.assertEqual([port.stopped for port in self.ports], [1, 1])
        self.assertNoResult(stopped)
        first.ends()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_stop_too_long(self) -> None:
        """
        Workers that do not finish in time are killed; even then their end is waited for.
        """
        first, second = self.start()
        stopped = self.service.stopService()
        second.ends()
        self.reactor.advance(PATIENCE)
        self.assertEqual(first.signals, [signal.SIGTERM, signal.SIGKILL])
        self.assertNoResult(stopped)
        first.ends(by=9)
        self.successResultOf(stopped)

    def test_stop_before_the_reactor(self) -> None:
        """
        A service that is stopped before the reactor runs starts no workers.
        """
        self.service.startService()
        self.successResultOf(self.service.stopService())
        self.reactor.begin()
        self.assertEqual(self.reactor.spawned, [])

    def test_starts_again(self) -> None:
        """
        A service that was stopped can be started again.
        """
        processes = self.start()
        stopped = self.service.stopService()
        for process in processes[:]:
            process.ends()
        self.successResultOf(stopped)
        self.service.startService()
        self.assertEqual((len(self.ports), len(self.reactor.spawned)), (4, 4))
        self.assertEqual(self.reactor.spawned[3]["childFDs"][4], 52)

    def test_started_once(self) -> None:
        """
        A service that was started, stopped and started before the reactor runs has each worker once.
        """
        self.service.startService()
        self.service.stopService()
        self.start()
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_hang_up(self) -> None:
        """
        At SIGHUP each worker gets the document that is made of the new settings; after the stop the signal means what
        it did.
        """
        processes = self.start()
        for worker in self.service.workers:
            worker.reported(worker.pid or 0, READY)
        self.written.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        self.reactor.advance(0)
        self.assertEqual(self.reloads, 1)
        self.assertEqual(self.handed(), [b"document 1", b"document 2"])
        stopped = self.service.stopService()
        for process in processes:
            process.ends()
        self.successResultOf(stopped)
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_hang_up_for_nothing(self) -> None:
        """
        When the settings cannot be used, the workers hear nothing of it.
        """
        self.start()
        self.written.clear()
        self.usable = False
        self.service.hang_up()
        self.assertEqual(self.handed(), [])

    def test_refused(self) -> None:
        """
        An endpoint that cannot be shared keeps the service from starting.
        """
        service = SupervisorService(
            self.reactor,
            [FakeEndpoint(lambda _: succeed(self.port(None)))],
            workers=2,
            command=Command("/python", {}),
            document=lambda number: b"",
            patience=PATIENCE,
            reload=self.reload,
        )
        self.assertRaises(SystemExit, service.privilegedStartService)


class CommandTests(SynchronousTestCase):
    """
    How a worker is run.
    """

    def test_path(self) -> None:
        """
        A worker finds the modules of this process, from whichever directory, and has its environment otherwise.
        """
        self.patch(sys, "path", ["", "lib", "/usr/lib/x"])
        self.patch(os, "environ", {"PYTHONPATH": "/old", "LANG": "C"})
        command = Command.of_this_process()
        here = str(Path.cwd())
        self.assertEqual(
            dict(command.environment),
            {"LANG": "C", "PYTHONPATH": f"{here}:{here}/lib:/usr/lib/x"},
        )
        self.assertEqual(command.executable, sys.executable)

    def test_reactor(self) -> None:
        """
        The reactor of a worker is the one of this process.
        """
        self.assertEqual(reactor_module(installed_reactor), type(installed_reactor).__module__)
