"""
The lines of a host's log: their fields, and that nobody else can write into them.
"""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, formatEvent, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.host import Answer
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.activation import Closed, Faulted, PolicyFailed
from kmsproto.net.quoting import quote
from kmsproto.net.reporting import Reporter
from tests.net.wiring import body, catalog

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

    @given(st.text(st.characters(exclude_categories=["Cs"])))
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
