"""
Where the log goes: the journal in the place of twistd's file, who keeps his own log, and lines of other processes.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Application, MultiService
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, capturedLogs, formatEvent
from twisted.python.usage import Options
from twisted.scripts import twistd as twistd_script
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.forms import JSONForm
from kmsproto.service.journal import Journal
from kmsproto.service.logs import JournalledService, open_journal, relay
from kmsproto.service.startup import StartupError
from tests.service.test_worker import Sink


class ThreadReactor(MemoryReactorClock):
    """
    A reactor that can be called from anywhere.
    """

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # noqa: N802
        """
        Call soon.
        """
        self.callLater(0, function, *arguments)


def observer_of_ones_own() -> Any:
    """
    Make an observer as an operator may name one.
    """
    return lambda event: None


class OpenJournalTests(SynchronousTestCase):
    """
    What is opened.
    """

    def setUp(self) -> None:
        """
        Work in a directory of the test, with no meaning of SIGUSR1.
        """
        self.reactor = ThreadReactor()
        self.stdout = Sink()
        self.patch(sys, "stdout", self.stdout)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(directory)
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    def journal(self, *arguments: str) -> Journal | None:
        """
        Open the journal for a command line of twistd.
        """
        script: Any = twistd_script
        options = script.ServerOptions()
        options.parseOptions([*arguments, "kms"])
        return open_journal(options, self.reactor)

    def written(self, *arguments: str) -> str:
        """
        Write a line to the journal, and get what stands on standard output then.
        """
        journal = self.journal(*arguments)
        assert journal is not None
        journal.relay("line\n")
        return self.stdout.text

    def test_foreground(self) -> None:
        """
        In the foreground it is standard output, unless a file is given.
        """
        self.assertEqual(self.written("--nodaemon"), "line\n")
        self.assertEqual(self.written("--nodaemon", "--logfile=-"), "line\nline\n")
        self.assertEqual(os.listdir(), [])
        self.assertEqual(self.written("--nodaemon", "--logfile=x.log"), "line\nline\n")
        self.assertEqual(Path("x.log").read_text(), "line\n")

    def test_background(self) -> None:
        """
        In the background it is the file that is given, or twistd.log, and is appended to.
        """
        self.written()
        self.written()
        self.assertEqual(Path("twistd.log").read_text(), "line\nline\n")
        self.written("--logfile=x.log")
        self.assertEqual(Path("x.log").read_text(), "line\n")
        self.assertEqual(self.stdout.text, "")

    def test_somebody_elses(self) -> None:
        """
        With a logger of the operator's own, with syslog, and outside of twistd there is none.
        """
        own = f"--logger={__name__}.{observer_of_ones_own.__name__}"
        for arguments in ([own], ["--nodaemon", own], ["--syslog"], ["--nodaemon", "--syslog"]):
            with self.subTest(arguments=arguments):
                self.assertIsNone(self.journal(*arguments))
        for options in (None, Options()):
            self.assertIsNone(open_journal(options, self.reactor))
        self.assertEqual(os.listdir(), [])

    def test_form(self) -> None:
        """
        The journal has the form that was asked for.
        """
        script: Any = twistd_script
        options = script.ServerOptions()
        options.parseOptions(["--nodaemon", "kms"])
        expected = ""
        for form, start in (
            ({"timestamps": False}, "[kmsproto#info] line"),
            ({"log_format": "json"}, "line"),
        ):
            journal = open_journal(options, self.reactor, **form)
            assert journal is not None
            journal.write("line")
            journal.flush()
            expected += f"{start}\n"
            self.assertEqual(self.stdout.text, expected)

    def test_daemon_without_output(self) -> None:
        """
        A daemon cannot write to standard output, which twistd itself will say.
        """
        self.assertIsNone(self.journal("--logfile=-"))

    def test_cannot_be_opened(self) -> None:
        """
        A file that cannot be opened is one line.
        """
        Path("file").write_text("")
        for name, reason in (("file/x.log", "Not a directory"), ("no/x.log", "No such file")):
            with self.assertRaises(StartupError) as caught:
                self.journal(f"--logfile={name}")
            text = str(caught.exception)
            self.assertTrue(text.startswith(f"the log {name} cannot be written: {reason}"), text)
            self.assertNotIn("\n", text)

    def test_rotates(self) -> None:
        """
        SIGUSR1 begins a new file.
        """
        journal = self.journal("--logfile=x.log")
        assert journal is not None
        journal.relay("old\n")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.reactor.advance(0)
        journal.relay("new\n")
        self.assertEqual(Path("x.log").read_text(), "new\n")
        self.assertEqual(Path("x.log.1").read_text(), "old\n")

    def test_moved_away(self) -> None:
        """
        SIGUSR1 begins a new file where the old one was moved away, and says so if that cannot be done.
        """
        os.mkdir("logs")
        journal = self.journal("--logfile=logs/x.log")
        assert journal is not None
        journal.relay("old\n")
        os.rename("logs", "moved")
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGUSR1)
            self.reactor.advance(0)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ['no new file of the log was begun: "No such file or directory"'],
        )
        journal.relay("kept\n")
        os.mkdir("logs")
        self.reactor.advance(1)
        journal.relay("new\n")
        self.assertEqual(Path("moved/x.log").read_text(), "old\n")
        self.assertEqual(Path("logs/x.log").read_text(), "kept\nnew\n")

    def test_no_file_to_begin(self) -> None:
        """
        Where the log is no file, SIGUSR1 does nothing; with somebody else's logger it is left alone.
        """
        for arguments in (["--nodaemon"], ["--nodaemon", "--logfile=-"], ["--syslog"]):
            with self.subTest(arguments=arguments):
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
                self.journal(*arguments)
                os.kill(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.journal(f"--logger={__name__}.{observer_of_ones_own.__name__}")
        self.assertEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_DFL)
        self.assertEqual(os.listdir(), [])

    def test_signal_is_somebody_elses(self) -> None:
        """
        Where SIGUSR1 has a meaning already, or is ignored, that stays.
        """
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.journal("--logfile=x.log")
        self.assertEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)


class OfferTests(SynchronousTestCase):
    """
    The journal as the log of an application.
    """

    def setUp(self) -> None:
        """
        Make a service with a journal.
        """
        self.service = JournalledService()
        self.service.journal = Journal(Sink(), MemoryReactorClock())

    def test_offered(self) -> None:
        """
        An application without an observer takes the journal, and the service becomes a part of it.
        """
        application = Application("kms")
        self.service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), self.service.journal)
        self.assertIsNotNone(self.service.parent)

    def test_observed_already(self) -> None:
        """
        An application keeps the observer that it has.
        """
        application, observer = Application("kms"), observer_of_ones_own()
        application.setComponent(ILogObserver, observer)
        self.service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), observer)

    def test_no_application(self) -> None:
        """
        A collection of services is no application.
        """
        parent = MultiService()
        self.service.setServiceParent(parent)
        self.assertEqual(list(parent), [self.service])

    def test_no_journal(self) -> None:
        """
        Without a journal nothing is offered.
        """
        application = Application("kms")
        self.service.journal = None
        self.service.setServiceParent(application)
        self.assertIsNone(application.getComponent(ILogObserver, None))


class RelayTests(SynchronousTestCase):
    """
    Lines that another process has stamped.
    """

    def events(self, text: str) -> list[tuple[str, str, str]]:
        """
        Relay lines without a journal, and get level, source and text of the events.
        """
        with capturedLogs() as events:
            relay(None, text)
        return [
            (event["log_level"].name, event["log_system"], formatEvent(event)) for event in events
        ]

    def test_journal(self) -> None:
        """
        A journal gets them as they are.
        """
        sink = Sink()
        relay(Journal(sink, MemoryReactorClock()), "one\ntwo\n")
        self.assertEqual(sink.text, "one\ntwo\n")

    def test_events(self) -> None:
        """
        Without a journal each line is an event, with the level and the source that it names, and braces as they are.
        """
        self.assertEqual(
            self.events(
                "2026-01-01T00:00:00+0000 [kmsproto#info] granted {x}\n"
                "2026-01-01T00:00:00+0000 [a.b.C#critical] bad [y] z\n"
                "2026-01-01T00:00:00+0000 [-] (Port Closed)\n"
                "2026-01-01T00:00:00+0000 [x#nonsense] text\n"
            ),
            [
                ("info", "kmsproto#info", "granted {x}"),
                ("critical", "a.b.C#critical", "bad [y] z"),
                ("info", "-", "(Port Closed)"),
                ("info", "x#nonsense", "text"),
            ],
        )

    def test_several_lines(self) -> None:
        """
        The further lines of an event are a part of it.
        """
        self.assertEqual(
            self.events("- [a#error] Traceback\n\tline\n\t\n\tend\n- [a#info] next\n"),
            [
                ("error", "a#error", "Traceback\n\tline\n\t\n\tend"),
                ("info", "a#info", "next"),
            ],
        )

    def test_no_stamp(self) -> None:
        """
        A line of another shape, such as the rest of one, is an event as it is.
        """
        self.assertEqual(self.events("half a line\n"), [("info", "-", "half a line")])

    def test_untimed(self) -> None:
        """
        Lines without times are taken apart as well.
        """
        self.assertEqual(
            self.events("[a#warn] one\n\ttwo\n[-] three [b#info] x\n"),
            [("warn", "a#warn", "one\n\ttwo"), ("info", "-", "three [b#info] x")],
        )

    def test_objects(self) -> None:
        """
        Of an object that is an event, level, source and text are those of the event; one about a peer is the text, and
        what only begins like an object is taken as it is.
        """
        event = JSONForm().event({"log_format": "a\nb", "log_system": "x#error"}, 0)
        peer = '{"time":"x","event":"closed","reason":"{y}"}'
        self.assertEqual(
            self.events(f"{event}{peer}\n{{half\n"),
            [
                ("error", "x#error", "a\nb"),
                ("info", "kmsproto#info", peer),
                ("info", "-", "{half"),
            ],
        )
        self.assertEqual(
            self.events('{"event":"log"}\n{' + '"a":{' * 50000 + "\n")[0], ("info", "-", "")
        )
