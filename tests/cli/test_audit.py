"""
C{kmsproto audit}: how its command line is read, which cases it tries, what it prints, and its exit status.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from click.testing import Result
from rich.console import Console
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import CASES, PERILOUS, choose
from kmsproto.audit.model import (
    Outcome,
    Script,
    Verdict,
    failed,
    noted,
    passed,
)
from kmsproto.audit.model import Result as CaseResult
from kmsproto.audit.reference import reference
from kmsproto.audit.replies import Received
from kmsproto.audit.report import Report
from kmsproto.cli import audit as module
from kmsproto.cli import audit_trial as trial
from kmsproto.cli import output
from kmsproto.cli.audit import audit, print_report
from kmsproto.cli.audit_page import render
from kmsproto.errors import BindRefusedError, HostTimeoutError, HostUnreachableError, KMSProtoError
from kmsproto.net.dialogue import Bounds
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, BindAck, Negotiated
from tests.cli.running import runner
from tests.net.wiring import NOW

#: What a host might call itself.
NASTY = "<script>alert(1)</script> & \"'\x1b[31m \u202e \x00"


_ACK = pdu.encode_bind_ack(
    PacketType.BIND_ACK, 3, 1, BindAck(5840, 5840, 1, "1688", (Negotiated(0, 0, NDR),))
)
#: What a host answers to a greeting.
ANSWER = Received(pdu.decode_header(_ACK), _ACK)


class AuditCase(SynchronousTestCase):
    """
    The command, with a network that the test makes up.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the reactor, the clock and the network.
        """
        self.carried: list[tuple[Any, Any, Bounds]] = []
        self.there = True
        self.met: list[KMSProtoError | None] = []
        self.verdicts: Callable[[int], Verdict] = lambda number: passed("did it")
        self.patch(module, "carry_out", self.carry_out)
        self.patch(trial, "carry_out", self.carry_out)
        self.patch(trial, "RETURN", 0.0)
        self.patch(module, "resolve", self.resolve)
        self.patch(output, "react", self.react)
        self.patch(time, "time", lambda: NOW)
        self.patch(socket, "gethostname", lambda: "desk-17")
        self.addresses: list[IPv4Address | IPv6Address] = [IPv4Address("TCP", "192.0.2.1", 1688)]
        self.asked: list[tuple[str, int, int | None]] = []

    def resolve(self, reactor: Any, host: str, port: int, family: int | None) -> Deferred[Any]:
        """
        Stand for name resolution.
        """
        self.asked.append((host, port, family))
        if not self.addresses:
            return fail(DNSLookupError("no address was found"))
        return succeed(self.addresses)

    def carry_out(
        self, clock: Any, endpoint: Any, script: Script[Any], bounds: Bounds
    ) -> Deferred[Any]:
        """
        Stand for the runner: the first script is the acquaintance, the others are cases.
        """
        self.carried.append((clock, endpoint, bounds))
        problem = self.met.pop(0) if self.met else None
        if problem is not None:
            return fail(problem)
        if script.gi_code.co_name == "greet":
            # Greetings are not counted.
            self.carried.pop()
            return succeed(ANSWER) if self.there else fail(HostUnreachableError("no connection"))
        if script.gi_code.co_name == "meet":
            return succeed(script.gi_frame.f_locals["subject"])
        return succeed(self.verdicts(len(self.carried) - 2))

    def react(self, main: Callable[..., Deferred[None]]) -> None:
        """
        Stand for twisted.internet.task.react.
        """
        results: list[Any] = []
        main(MemoryReactorClock()).addBoth(results.append)
        (result,) = results
        if result is not None:
            result.raiseException()
        sys.exit(0)

    def run_audit(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return runner().invoke(audit, arguments)

    def assertRefused(self, result: Result, *words: str) -> None:
        """
        The command line was wrong, and nothing was done.
        """
        self.assertEqual(result.exit_code, 2, result.output)
        for word in words:
            self.assertIn(word, result.output)
        self.assertEqual(self.carried, [])


class ArgumentsTests(AuditCase):
    """
    How the command line is read.
    """

    def test_everything(self) -> None:
        """
        Without a choice all cases are tried, after the acquaintance, on the port of KMS.
        """
        result = self.run_audit("kms.example")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(len(self.carried), len(CASES) + 1)
        self.assertEqual(self.asked, [("kms.example", 1688, None)])

    def test_chosen(self) -> None:
        """
        Areas and cases can be chosen, more than once.
        """
        result = self.run_audit(
            "kms.example", "--area", "security", "--case", "2.17", "--case", "bind.second"
        )
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(len(self.carried), 1 + len(passed_names(result.output)))
        self.assertIn("security.bind", result.output)
        self.assertIn("header.no-rpc", result.output)
        self.assertIn("bind.second", result.output)
        self.assertNotIn("kms.version-4", result.output)

    def test_family(self) -> None:
        """
        One family of addresses can be asked for.
        """
        for family in (4, 6):
            self.run_audit("kms.example:1689", "-i", str(family), "--case", "bind.second")
            self.assertEqual(self.asked[-1], ("kms.example", 1689, family))

    def test_mistakes(self) -> None:
        """
        A mistake on the command line ends with status 2, before anything is done.
        """
        self.assertRefused(self.run_audit(), "Missing argument")
        self.assertRefused(self.run_audit("host:0"), "'0' is not a port number")
        self.assertRefused(self.run_audit("host", "--case", "bind.x"), "there is no case", "--list")
        self.assertRefused(
            self.run_audit("host", "--spare", "--case", "bind.shared-id"), "--spare", "may end"
        )
        self.assertRefused(self.run_audit("host", "--area", "x"), "x")
        self.assertRefused(self.run_audit("host", "-l", "Windows 1"), "--product")
        self.assertRefused(self.run_audit("host", "--timeout", "0"), "--timeout")
        self.assertRefused(self.run_audit("host", "--timeout", "nan"), "nan")
        self.assertRefused(self.run_audit("host", "--limit", "nan"), "nan")
        self.assertRefused(self.run_audit("host", "-i", "5"), "5")

    def test_timeout(self) -> None:
        """
        The time for each step bounds connections and, several times over, cases.
        """
        self.run_audit("host", "--timeout", "20", "--case", "bind.second")
        bounds = self.carried[0][2]
        self.assertEqual((bounds.connecting, bounds.seconds), (20.0, 120.0))

    def test_list(self) -> None:
        """
        The cases can be listed, also as JSON, without a host.
        """
        result = self.run_audit("--list")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(len(result.output.splitlines()), len(CASES))
        result = self.run_audit("--list", "--spare")
        self.assertEqual(len(result.output.splitlines()), len(CASES) - len(PERILOUS))
        result = self.run_audit("--list", "--json", "--area", "fault")
        names = [case["case"] for case in json.loads(result.output)]
        self.assertTrue(names)
        self.assertEqual({name.partition(".")[0] for name in names}, {"fault"})
        self.assertEqual(self.carried, [])

    def test_reference(self) -> None:
        """
        The page of the documentation can be printed; the option is not in the help.
        """
        self.assertEqual(self.run_audit("--reference").output, reference(CASES))
        text = self.run_audit("--help").output
        self.assertNotIn("--reference", text)
        self.assertIn("your own hosts only", " ".join(text.split()))


def passed_names(text: str) -> list[str]:
    """
    Find the names of the cases in a report that passed.
    """
    return [line.split()[1] for line in text.splitlines() if line.startswith("  passed")]


class OutcomeTests(AuditCase):
    """
    How it ends.
    """

    def test_failure(self) -> None:
        """
        A broken rule that every host must keep ends with status 1; the report says what it is.
        """
        self.verdicts = lambda number: failed("did something else")
        result = self.run_audit("host", "--case", "bind.second")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("  fails          bind.second  a second bind", result.output)
        self.assertIn("It did something else.", result.output)
        self.assertIn("A connection is bound once", result.output)
        self.assertIn("rule 3.21.", result.output)
        self.assertIn("1 case: 1 failure", result.output)

    def test_warning(self) -> None:
        """
        A broken rule that a host should keep does not.
        """
        self.verdicts = lambda number: failed("did something else")
        result = self.run_audit("host", "--case", "bind.address")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("1 case: 1 warning", result.output)

    def test_json(self) -> None:
        """
        JSON has the same, and nothing else is printed.
        """
        self.verdicts = lambda number: noted("did that")
        result = self.run_audit("host", "--json", "--case", "bind.second")
        told = json.loads(result.output)
        self.assertEqual(told["address"], "192.0.2.1:1688")
        self.assertEqual(told["cases"][0]["did"], "did that")
        self.assertTrue(told["conforms"])

    def test_no_host(self) -> None:
        """
        Where there is no host the command ends with status 3 and one line.
        """
        for error in (HostUnreachableError("no connection: refused"), HostTimeoutError("late")):
            self.met = [error]
            result = self.run_audit("host")
            self.assertEqual(result.exit_code, 3)
            hint = "; check that a KMS host runs there, and the port"
            self.assertEqual(result.output, f"audit: 192.0.2.1:1688: {error}{hint}\n")

    def test_lost(self) -> None:
        """
        A host that is lost on the way fails the last case that found it, status 1; before the first it is status 3.
        """
        for found, status in ((0, 3), (1, 1)):
            self.carried.clear()
            self.there = True

            def verdict(number: int, found: int = found) -> Verdict:
                self.there = number < found
                did = "could not be reached: no connection"
                return passed("did it") if self.there else Verdict(Outcome.UNDECIDED, did)

            self.verdicts = verdict
            result = self.run_audit("host", "--area", "security")
            self.assertEqual(result.exit_code, status, result.output)
            after = " after security.bind" if found else ""
            self.assertIn(f"; the host could not be reached any more{after}\n", result.output)
            self.assertIn("  not tried  ", result.output)
            self.assertNotIn("It was not asked", result.output)

    def test_no_kms_host(self) -> None:
        """
        What answers but is no host ends it with status 1 and one line.
        """
        self.met = [BindRefusedError(2, "local_limit_exceeded")]
        result = self.run_audit("host")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.output.count("\n"), 1)
        self.assertIn("bind_nak reason 2", result.output)

    def test_next_address(self) -> None:
        """
        The next address is tried when nobody is at the first, and all cases go to the one that answers.
        """
        self.addresses = [
            IPv6Address("TCP", "fe80::1%3", 1688),
            IPv4Address("TCP", "192.0.2.7", 1688),
        ]
        self.met = [HostUnreachableError("no connection: refused")]
        result = self.run_audit("host", "--case", "bind.second")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("Audit of host:1688 (192.0.2.7:1688)", result.output)
        self.assertEqual(self.carried[0][1]._host, "fe80::1%3")
        self.assertEqual(self.carried[1][1]._host, "192.0.2.7")
        self.assertIs(self.carried[2][1], self.carried[1][1])

    def test_no_name(self) -> None:
        """
        A name without address ends with status 3 and one line.
        """

        self.addresses = []
        result = self.run_audit("host", "-i", "6")
        self.assertEqual(result.exit_code, 3)
        self.assertEqual(result.output.count("\n"), 1)
        self.assertIn("host:1688: ", result.output)
        self.assertIn("no address was found", result.output)
        self.assertIn("; check the name", result.output)

    def test_unwritable_page(self) -> None:
        """
        A page that cannot be written is refused before anything is tried, as far as that can be known.
        """
        with TemporaryDirectory() as directory:
            path = f"{directory}/missing/page.html"
            result = self.run_audit("host", "--case", "bind.second", "--html", path)
            self.assertEqual(result.exit_code, 2)
            self.assertIn("there is no such folder", result.output)
            self.assertEqual(self.carried, [])
            result = self.run_audit("host", "--case", "bind.second", "--html", directory)
        self.assertEqual(result.exit_code, 2)
        result = self.run_audit("host", "--html", "-", "--json")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("would both go to the standard output", result.output)

    def test_page(self) -> None:
        """
        The page is written beside the report.
        """
        with TemporaryDirectory() as directory:
            path = Path(directory, "page.html")
            result = self.run_audit("host", "--case", "bind.second", "--html", str(path))
            self.assertEqual(result.exit_code, 0, result.output)
            self.assertIn("1 case: 1 passed", result.output)
            self.assertTrue(path.read_bytes().startswith(b"<!DOCTYPE html>\n<html"))

    def test_page_alone(self) -> None:
        """
        The page can be written to the standard output, in place of the text.
        """
        result = self.run_audit("host", "--case", "bind.second", "--html", "-")
        self.assertTrue(result.output.startswith("<!DOCTYPE html>\n<html"))
        self.assertTrue(result.output.rstrip().endswith("</html>"))


def nasty_report(*outcomes: Outcome) -> Report:
    """
    Make a report on a host that tries to get at its readers.
    """
    results = tuple(
        CaseResult(case, Verdict(outcome, f"calls itself {NASTY}"))
        for case, outcome in zip(CASES, outcomes, strict=False)
    )
    return Report("<b>kms</b>:1688", "192.0.2.1:1688", NOW, 1.5, results)


class TextTests(SynchronousTestCase):
    """
    The report as text.
    """

    def printed(self, report: Report, width: int = 100) -> str:
        """
        Print a report.
        """
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        self.addCleanup(console.file.close)
        print_report(console, report)
        return console.export_text()

    def test_nothing_of_the_host_is_obeyed(self) -> None:
        """
        No control character of the host's reaches the terminal, and its markup is text.
        """
        text = self.printed(nasty_report(Outcome.FAILED))
        for character in "\x1b\x00\u202e":
            self.assertNotIn(character, text)
        self.assertIn("\\x1b[31m", text)
        self.assertIn("<script>", text)

    def test_every_verdict(self) -> None:
        """
        Each verdict is printed; all but those that passed are explained.
        """
        text = self.printed(nasty_report(*Outcome))
        for word in ("passed", "noted", "fails", "not applicable", "undecided"):
            self.assertIn(f"  {word} ", text)
        self.assertEqual(text.count("It calls itself"), 4)

    def test_narrow(self) -> None:
        """
        Explanations fit a narrow terminal.
        """
        text = self.printed(nasty_report(Outcome.FAILED), 60)
        rule = [line for line in text.splitlines() if line.startswith(" " * 8)]
        self.assertGreater(len(rule), 3)
        self.assertLessEqual(max(map(len, rule)), 60)


class PageTests(SynchronousTestCase):
    """
    The report as a page.
    """

    def page(self, report: Report) -> str:
        """
        Make the page.
        """
        return self.successResultOf(render(report)).decode("utf-8")

    def test_well_formed(self) -> None:
        """
        Every tag is closed in order, and every verdict is there.
        """
        text = self.page(nasty_report(*Outcome))
        checker = _Checker()
        checker.feed(text)
        checker.close()
        self.assertEqual(checker.open, [])
        for result in nasty_report(*Outcome).results:
            self.assertIn(f"<code>{result.case.name}</code>", text)
        # But for its first line it is XML as well.
        ElementTree.fromstring(text.partition("\n")[2])

    def test_escaped(self) -> None:
        """
        What the host and the user say is text.
        """
        text = self.page(nasty_report(Outcome.FAILED, Outcome.NOTED))
        self.assertNotIn("<script", text)
        self.assertNotIn("<b>", text)
        self.assertIn("&lt;script&gt;alert(1)&lt;/script&gt; &amp;", text)
        for character in "\x1b\x00\u202e":
            self.assertNotIn(character, text)

    def test_self_contained(self) -> None:
        """
        It refers to nothing outside of itself, and is for light and dark screens and for paper.
        """
        text = self.page(nasty_report(*Outcome))
        for word in ("src=", "href=", "url(", "@import", "http://", "https://"):
            self.assertNotIn(word, text)
        for word in ("prefers-color-scheme: dark", "@media print", 'charset="utf-8"'):
            self.assertIn(word, text)

    def test_verdict(self) -> None:
        """
        It says whether the host conforms, when that was, and how many cases there were.
        """
        bad = nasty_report(Outcome.FAILED)
        self.assertIn(bad.summary(), self.page(bad))
        breaking = Report("", "", NOW, 1.0, (CaseResult(choose(names=["bind.second"])[0], failed("x")),))  # fmt: skip
        self.assertIn("breaks rules that every KMS host must keep", self.page(breaking))
        keeping = self.page(nasty_report(Outcome.PASSED))
        self.assertIn("breaks none of the rules that were tried and that every KMS host", keeping)
        self.assertIn("in 1.5 seconds", keeping)


class _Checker(HTMLParser):
    """
    Looks at the order of tags.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """
        A tag is opened.
        """
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """
        A tag is opened and closed.
        """

    def handle_endtag(self, tag: str) -> None:
        """
        A tag is closed: the last one that was opened.
        """
        last = self.open.pop()
        if last != tag:
            raise AssertionError(f"{tag} closed inside {last}")
