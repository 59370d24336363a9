"""
The lines of a host's log: their fields, and that nobody else can write into them.
"""

from __future__ import annotations

import io
import json
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.host import Answer
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.activation import Closed, Faulted, PolicyFailed
from kmsproto.net.noise import Suppressed
from kmsproto.net.quoting import quote
from kmsproto.net.reporting import LineStyle, Reporter
from tests.net.wiring import NOW, body, catalog

PEER = Peer("10.0.0.9", 50123)


class QuoteTests(SynchronousTestCase):
    """
    Text within quotes.
    """

    def test_examples(self) -> None:
        """
        Quotes, backslashes and what does not print are escaped; everything else stays.
        """
        for text, quoted in (
            ("", '""'),
            ("lab 1", '"lab 1"'),
            ('"', r'"\""'),
            ("\\", r'"\\"'),
            ("\n", r'"\n"'),
            ("\0\x1b\x7f", r'"\x00\x1b\x7f"'),
            ("\u202e", r'"\u202e"'),
            ("\ud800", r'"\ud800"'),
            ("\U000e0001", r'"\U000e0001"'),
            ("\xa0", r'"\xa0"'),
            ("ü電", '"ü電"'),
            ("'{}%s", '"\'{}%s"'),
        ):
            self.assertEqual(quote(text), quoted)

    @given(st.text(st.characters()))
    def test_stays_within(self, text: str) -> None:
        """
        Whatever the text, its quotes are the outermost, everything prints, and it can be told what it was.
        """
        quoted = quote(text)
        self.assertTrue(quoted.isprintable())
        inner = quoted[1:-1]
        self.assertEqual(inner.replace(r"\\", "").replace(r"\"", "").count('"'), 0)
        self.assertFalse(inner.replace(r"\\", "").endswith("\\"))
        # Only what was escaped is taken for an escape.
        ascii_only = "".join(
            each if each.isascii() else each.encode("unicode_escape").decode() for each in inner
        )
        self.assertEqual(ascii_only.encode().decode("unicode_escape"), text)


class ReporterTests(SynchronousTestCase):
    """
    One line for each thing that happens.
    """

    def setUp(self) -> None:
        """
        Make a reporter that writes into a list.
        """
        self.events: list[Any] = []
        observer: Any = self.events.append
        self.reporter = Reporter(Logger("tests", observer=observer), catalog())

    def line(self) -> str:
        """
        Take the one line that was written.
        """
        (event,) = self.events
        self.events.clear()
        return formatEvent(event)

    def test_granted(self) -> None:
        """
        A grant tells who, what, in which version, and the count.
        """
        self.reporter.report(PEER, Answer(HResult.SUCCESS, b"", body(5, "lab-1"), Grant(50)))
        self.assertEqual(
            self.line(),
            'granted peer=10.0.0.9 port=50123 version=5 product="Windows 10/11 Enterprise"'
            ' application="Windows" workstation="lab-1"'
            " cmid=00000000-0000-0000-1234-567890abcdef count=50",
        )

    def test_refused(self) -> None:
        """
        A refusal tells the HRESULT as well, and no count.
        """
        self.reporter.report(PEER, Answer(HResult.PRODUCT_REFUSED, b"", body(6, "lab-1")))
        self.assertEqual(
            self.line(),
            "refused peer=10.0.0.9 port=50123 hresult=0xC004F042 version=6"
            ' product="Windows 10/11 Enterprise" application="Windows" workstation="lab-1"'
            " cmid=00000000-0000-0000-1234-567890abcdef",
        )

    def test_unreadable(self) -> None:
        """
        What could not be opened is told with the reason, quoted.
        """
        self.reporter.report(PEER, Answer(HResult.INVALID_DATA, problem='a "problem"\n'))
        self.assertEqual(
            self.line(),
            r'refused peer=10.0.0.9 port=50123 hresult=0x8007000D reason="a \"problem\"\n"',
        )

    def test_unknown_product(self) -> None:
        """
        Ids that no catalogue knows are written as they are.
        """
        request = body(sku_id=UUID(int=7), application_id=UUID(int=8))
        self.reporter.report(PEER, Answer(HResult.SUCCESS, b"", request, Grant(1)))
        line = self.line()
        self.assertIn(f' product="{UUID(int=7)}" application="{UUID(int=8)}" ', line)

    def test_faulted(self) -> None:
        """
        A fault tells its status.
        """
        self.reporter.report(PEER, Faulted(0x6F7, "a stub"))
        self.assertEqual(
            self.line(), 'faulted peer=10.0.0.9 port=50123 status=0x000006F7 reason="a stub"'
        )

    def test_closed(self) -> None:
        """
        A close tells its reason, whoever reports it.
        """
        self.reporter.report(PEER, Closed("a reason"))
        self.assertEqual(self.line(), 'closed peer=10.0.0.9 port=50123 reason="a reason"')
        self.reporter.closed(PEER, "another")
        self.assertEqual(self.line(), 'closed peer=10.0.0.9 port=50123 reason="another"')

    def test_turned_away(self) -> None:
        """
        A peer that was turned away is told with the reason.
        """
        self.reporter.turned_away(PEER, "public")
        self.assertEqual(self.line(), 'turned away peer=10.0.0.9 port=50123 reason="public"')

    def test_policy_failed(self) -> None:
        """
        An error of the policy is logged with the error itself.
        """
        error = RuntimeError("of the policy")
        self.reporter.report(PEER, PolicyFailed(error))
        failure = self.events[0]["log_failure"]
        self.assertIs(failure.value, error)
        self.assertEqual(self.line(), "the policy failed peer=10.0.0.9 port=50123")

    def test_fields(self) -> None:
        """
        Observers get the fields as data.
        """
        self.reporter.report(PEER, Answer(HResult.SUCCESS, b"", body(), Grant(50)))
        (event,) = self.events
        self.assertEqual(event["peer"], PEER)
        self.assertEqual(event["request"], body())
        self.assertEqual(event["grant"], Grant(50))
        self.assertEqual(event["hresult"], 0)

    def test_journal(self) -> None:
        """
        A journal gets the same lines as text, and nothing else is written; but a policy that fails is an event still.
        """
        events = (
            Answer(HResult.SUCCESS, b"", body(5, "lab-1"), Grant(50)),
            Answer(HResult.PRODUCT_REFUSED, b"", body(6, "lab-1")),
            Answer(HResult.INVALID_DATA, problem="a problem"),
            Faulted(0x6F7, "a stub"),
            Closed("a reason"),
        )
        for event in events:
            self.reporter.report(PEER, event)
        self.reporter.turned_away(PEER, "public")
        expected = [formatEvent(event) for event in self.events]
        self.events.clear()
        lines: list[str] = []
        observer: Any = self.events.append
        reporter = Reporter(Logger("tests", observer=observer), catalog(), lines.append)
        for event in events:
            reporter.report(PEER, event)
        reporter.turned_away(PEER, "public")
        self.assertEqual((lines, self.events), (expected, []))
        reporter.report(PEER, PolicyFailed(RuntimeError("of the policy")))
        self.assertEqual(len(self.events), 1)

    @given(st.text(st.characters(blacklist_categories=["Cs"])))
    def test_one_line(self, name: str) -> None:
        """
        Whatever name a workstation has, its line is one line of printable text in the file.
        """
        self.events.clear()
        answer = Answer(HResult.SUCCESS, b"", body(6, "x")._replace(workstation=name), Grant(50))
        self.reporter.report(PEER, answer)
        file = io.StringIO()
        textFileLogObserver(file)(self.events[0])
        line, end, rest = file.getvalue().partition("\n")
        self.assertEqual((end, rest), ("\n", ""))
        self.assertTrue(line.isprintable())
        self.assertEqual(line.count(" count="), 1 + name.count(" count="))


GRANTED = Answer(HResult.SUCCESS, b"", body(6, "lab-1"), Grant(50))
REFUSED = Answer(HResult.PRODUCT_REFUSED, b"", body(6, "lab-1"))
UNREADABLE = Answer(HResult.INVALID_DATA, problem="a problem")
FAULTED = Faulted(0x6F7, "a stub")


class StyleTests(SynchronousTestCase):
    """
    What is written, and how, with a journal and without.
    """

    def setUp(self) -> None:
        """
        Start a clock, and have room for lines and events.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.lines: list[str] = []
        self.events: list[Any] = []

    def reporters(self, **style: Any) -> list[Reporter]:
        """
        Make a reporter with a journal, and one without, in a style.
        """
        observer: Any = self.events.append
        return [
            Reporter(
                Logger("tests", observer=observer),
                catalog(),
                journal,
                style=LineStyle(**style),
                clock=self.clock,
                epid_of=lambda kms_id: f"for {kms_id}",
            )
            for journal in (self.lines.append, None)
        ]

    def written(self, *events: Any, started: float | None = None, **style: Any) -> list[str]:
        """
        Report some events in a style, and get the lines, which a journal and an observer have in common.
        """
        self.lines.clear()
        self.events.clear()
        for reporter in self.reporters(**style):
            for event in events:
                reporter.report(PEER, event, started)
            reporter.turned_away(PEER, "public")
            reporter.flush()
        self.assertEqual([formatEvent(event) for event in self.events], self.lines)
        return list(self.lines)

    def test_quiet(self) -> None:
        """
        Where it is quiet, all is written but what is granted.
        """
        others = (REFUSED, UNREADABLE, FAULTED, Closed("a reason"))
        expected = self.written(*others)
        self.assertEqual(self.written(GRANTED, *others, verbosity="quiet"), expected)
        for log_format in ("text", "json"):
            (line,) = self.written(GRANTED, verbosity="quiet", format=log_format)
            self.assertIn("public", line)

    def test_verbose(self) -> None:
        """
        Verbose lines have what the others have, and more.
        """
        usual, verbose = self.written(GRANTED), self.written(GRANTED, verbosity="verbose")
        self.assertTrue(verbose[0].startswith(f"{usual[0]} "))
        self.assertIn(f' epid="for {body().kms_id}" ', verbose[0])
        self.assertEqual(verbose[1], usual[1])

    def test_json(self) -> None:
        """
        In JSON every line is an object, with all facts however much is written, and with what an answer cost.
        """
        events = (GRANTED, REFUSED, UNREADABLE, FAULTED, Closed("a reason"))
        for verbosity in ("normal", "verbose"):
            lines = self.written(*events, started=NOW - 1, format="json", verbosity=verbosity)
            records = [json.loads(line) for line in lines]
            self.assertEqual(
                [record["event"] for record in records],
                ["activation", "refusal", "refusal", "fault", "closed", "turned_away"],
            )
            self.assertEqual(records[0]["answer"]["epid"], f"for {body().kms_id}")
            self.assertEqual([r.get("cost_us") for r in records], 3 * [1_000_000] + 3 * [None])

    def test_masked(self) -> None:
        """
        Behind a mask no line has the name or the address, nor has the data of an event.
        """
        events = (GRANTED, REFUSED, UNREADABLE, FAULTED, Closed("a reason"))
        for style in ({}, {"verbosity": "verbose"}, {"format": "json"}, {"verbosity": "quiet"}):
            self.written(*events, mask=True, **style)
            for text in (*self.lines, *map(repr, self.events)):
                self.assertNotIn("lab-1", text)
                self.assertNotIn(PEER.address, text)
                self.assertIn("10.0.0.0/24", text)
        self.events.clear()
        self.reporters(mask=True)[0].report(PEER, PolicyFailed(RuntimeError("of the policy")))
        self.assertEqual(
            formatEvent(self.events[0]), "the policy failed peer=10.0.0.0/24 port=50123"
        )

    def test_noise(self) -> None:
        """
        Of what is about no activation only the first line of an address is written, and the rest summed up; answers
        are written always.
        """
        for reporter in self.reporters(noise_interval=60.0):
            self.lines.clear()
            self.events.clear()
            for _ in range(3):
                reporter.turned_away(PEER, "public")
                reporter.report(PEER, FAULTED)
                reporter.closed(PEER, "timed out")
                for answer in (REFUSED, UNREADABLE, GRANTED):
                    reporter.report(PEER, answer)
            reporter.turned_away(Peer("10.0.0.10", 1), "public")
            self.clock.advance(60)
            lines = self.lines or [formatEvent(event) for event in self.events]
            kinds = [line.partition(" peer=")[0] for line in lines]
            self.assertEqual(
                kinds,
                [
                    "turned away",
                    *(3 * ["refused", "refused", "granted"]),
                    "turned away",
                    lines[-1],
                ],
            )
            since = "2026-11-14T23:46:40.000Z" if self.lines else "2026-11-14T23:47:40.000Z"
            self.assertEqual(lines[-1], f"suppressed count=8 addresses=1 since={since}")
        self.assertEqual(self.events[-1]["suppressed"], Suppressed(8, 1, NOW + 60))

    def test_flush(self) -> None:
        """
        What was suppressed is told when a reporter is done with, in the form of its lines.
        """
        reporter, _ = self.reporters(noise_interval=60.0, format="json")
        reporter.turned_away(PEER, "public")
        reporter.turned_away(PEER, "public")
        reporter.flush()
        self.assertEqual(json.loads(self.lines[-1])["event"], "suppressed")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        reporter.flush()
        self.assertEqual(len(self.lines), 2)

    def test_clock_needed(self) -> None:
        """
        What tells the time cannot do without a clock, and says so.
        """
        for style in (LineStyle(format="json"), LineStyle(noise_interval=1)):
            with self.assertRaises(LocalProtocolError) as caught:
                Reporter(Logger("tests"), catalog(), style=style)
            self.assertIn("give the reporter a clock", str(caught.exception))

    def test_no_such_style(self) -> None:
        """
        A style that does not exist is refused, with those that do.
        """
        wrong: Any
        for wrong, hint in (
            ({"format": "xml"}, "text, json"),
            ({"verbosity": "loud"}, "quiet, normal, verbose"),
            ({"noise_interval": -1}, "from 0 to 86400"),
            ({"noise_interval": float("nan")}, "from 0 to 86400"),
        ):
            with self.assertRaises(LocalProtocolError) as caught:
                LineStyle(**wrong)
            self.assertIn(hint, str(caught.exception))
