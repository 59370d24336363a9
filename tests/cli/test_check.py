"""
C{kmsproto check}: its ranges, its one line, its statuses, and what it makes of everything that can happen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.names import error as names_error
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import check as module
from kmsproto.cli import output
from kmsproto.cli.asking import Asked, Verdict
from kmsproto.cli.main import main
from kmsproto.cli.plugin import Range, State, Thresholds
from kmsproto.cli.targets import Target
from kmsproto.errors import KMSProtoError
from kmsproto.net.resolver import NoOwnDomainError
from tests.cli.running import runner
from tests.net.resolving import SERVICE, TableResolver, a, aaaa, react_at_once, srv

EPID = "03612-00206-471-000000-03-1033-26100.0000-3182026"
GRANTED = Asked(Verdict.GRANTED, 0.0123, epid=EPID, count=50)
#: The form of a number of performance data in the guidelines.
_PERFORMANCE = re.compile(r"[a-z]+=\d+(\.\d+)?s?;[-@~:\d.]*;[-@~:\d.]*;0;")


class RangeTests(SynchronousTestCase):
    """
    Ranges as the guidelines define them.
    """

    def test_guidelines(self) -> None:
        """
        The examples of the guidelines alert where they say.
        """
        for text, quiet, loud in (
            ("10", (0, 5, 10), (-0.1, 10.1)),
            ("10:", (10, 1e9), (9.9, -5)),
            ("~:10", (-1e9, 10), (10.1,)),
            ("10:20", (10, 15, 20), (9.9, 20.1)),
            ("@10:20", (9.9, 20.1), (10, 15, 20)),
            ("@10", (-0.1, 10.1), (0, 5, 10)),
            ("0", (0,), (-1, 1)),
            ("~:", (-1e9, 0, 1e9), ()),
            ("-5:-1", (-5, -1), (0, -6)),
            (".5:1.5", (0.5, 1.5), (0.4, 1.6)),
            (":3", (0, 3), (-1, 4)),
        ):
            limits = Range.parse(text)
            self.assertEqual([value for value in quiet if limits.alerts(value)], [], text)
            self.assertEqual([value for value in loud if not limits.alerts(value)], [], text)
            self.assertEqual(str(limits), text)

    def test_bad(self) -> None:
        """
        What is no range is refused with examples of some, or with what is wrong.
        """
        for text in (
            "",
            "@",
            ":",
            "@:",
            "a",
            "1:2:3",
            "10:~",
            "~",
            "nan",
            "inf",
            "1e5",
            " 1",
            "1,5",
            "\u0661",
        ):
            with self.subTest(text=text), self.assertRaises(ValueError) as raised:
                Range.parse(text)
            self.assertIn("write one like", str(raised.exception))
        with self.assertRaises(ValueError) as raised:
            Range.parse("20:10")
        self.assertIn("begins behind its end", str(raised.exception))

    @given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(-1e7, 1e7))
    def test_inside_is_the_opposite(self, start: float, length: float, value: float) -> None:
        """
        A range alerts either outside or, with an at sign, inside, and never in both or neither.
        """
        text = f"{start:f}:{start + length:f}"
        self.assertNotEqual(Range.parse(text).alerts(value), Range.parse(f"@{text}").alerts(value))

    @given(st.text("@~:.-+0123456789ex ", max_size=12))
    def test_any_text(self, text: str) -> None:
        """
        Any text is a range whose start is not behind its end, or a ValueError.
        """
        try:
            limits = Range.parse(text)
        except ValueError:
            return
        self.assertLessEqual(limits.start, limits.end)
        self.assertFalse(math.isnan(limits.start) or math.isnan(limits.end))


class ThresholdsTests(SynchronousTestCase):
    """
    Numbers and their limits.
    """

    def test_critical_comes_first(self) -> None:
        """
        A value that is beyond both limits is critical.
        """
        both = Thresholds("time", "s", Range.parse("1"), Range.parse("2"))
        self.assertEqual(both.judge(0.5), (State.OK, ""))
        self.assertEqual(both.judge(1.5), (State.WARNING, "time 1.5s is outside 1"))
        self.assertEqual(both.judge(2.5), (State.CRITICAL, "time 2.5s is outside 2"))
        inside = Thresholds("count", "", Range.parse("@3:4"), None)
        self.assertEqual(inside.judge(3), (State.WARNING, "count 3 is inside 3:4"))

    def test_performance(self) -> None:
        """
        Performance data have the value with its unit, the limits as they were written, and the minimum.
        """
        both = Thresholds("time", "s", Range.parse("@1:2"), Range.parse("~:3"))
        self.assertEqual(both.performance(0.5), "time=0.5000s;@1:2;~:3;0;")
        self.assertEqual(Thresholds("count", "", None, None).performance(7), "count=7;;;0;")


class CheckCase(SynchronousTestCase):
    """
    The command, with name servers and hosts that the test makes up.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the reactor and the network.
        """
        self.clock = MemoryReactorClock()
        self.resolver = TableResolver({})
        self.asked: list[tuple[Target, float, int | None]] = []
        self.requests: list[Any] = []
        self.outcomes: dict[str, Asked] = {}
        self.react: Callable[..., None] = react_at_once(self.clock)
        self.patch(module, "make_resolver", lambda reactor, nameservers: self.resolver)
        self.patch(module, "ask", self.ask)
        self.patch(output, "react", lambda run: self.react(run))

    async def ask(
        self, reactor: Any, target: Target, request: Any, timeout: float, family: int | None
    ) -> Asked:
        """
        Stand for the client.
        """
        self.asked.append((target, timeout, family))
        self.requests.append(request)
        return self.outcomes.get(target.host, GRANTED)

    def run_check(self, *arguments: str, status: int = 0) -> Result:
        """
        Run the command as users do, and see how it ends.
        """
        result = runner().invoke(main, ["check", *arguments])
        self.assertEqual(result.exit_code, status, (result.output, result.exception))
        self.assertEqual(result.stderr, "")
        return result

    def line(self, *arguments: str, status: int = 0) -> str:
        """
        Run the command, and get its one line.
        """
        text = self.run_check(*arguments, status=status).stdout
        self.assertEqual(text.count("\n"), 1, text)
        self.assertTrue(text.startswith(f"KMS {State(status).name} - "), text)
        self.assertLessEqual(text.count("|"), 1)
        _, bar, performance = text.strip().partition(" | ")
        for each in performance.split():
            self.assertRegex(each, _PERFORMANCE)
        self.assertEqual(bool(bar), bool(performance))
        return text.strip()


class AnswerTests(CheckCase):
    """
    A host by its name.
    """

    def test_ok(self) -> None:
        """
        A host that grants is OK, with what it granted and the performance data.
        """
        self.assertEqual(
            self.line("kms.example"),
            "KMS OK - kms.example:1688 grants Windows 10/11 Enterprise, 50 clients (it needs 25), 0.0123 s"
            " | time=0.0123s;;;0; count=50;;;0;",
        )

    def test_thresholds(self) -> None:
        """
        The worst of the limits decides; all that is wrong is said, and the limits stand in the performance data.
        """
        line = self.line("kms", "-w", "0.01", "-c", "1", "--warning-count", "60:", status=1)
        self.assertIn(
            "time 0.0123s is outside 0.01; count 50 is outside 60:; kms:1688 grants", line
        )
        self.assertTrue(line.endswith(" | time=0.0123s;0.01;1;0; count=50;60:;;0;"), line)
        self.line("kms", "-w", "0.01", "--critical-count", "60:", status=2)
        self.line("kms", "--critical", "@0:1", status=2)
        self.line("kms", "--warning", "1", "--critical", "2", "--critical-count", "25:")

    def test_failures(self) -> None:
        """
        Whatever keeps a host from granting is critical, with the reason.
        """
        for verdict in list(Verdict)[1:]:
            self.outcomes["kms"] = Asked(verdict, 1.0, "the reason")
            self.assertEqual(self.line("kms", status=2), "KMS CRITICAL - kms:1688: the reason")

    def test_timeout(self) -> None:
        """
        A host that takes too long altogether is critical when the time is over, whatever step it is at.
        """
        cancelled: list[object] = []

        async def hang(*_: object) -> Asked:
            await Deferred(cancelled.append)
            raise AssertionError

        def react(run: Callable[[Any], Deferred[None]]) -> None:
            results: list[Any] = []
            run(self.clock).addBoth(results.append)
            self.clock.advance(2.4)
            self.assertEqual(results, [])
            self.clock.advance(0.1)
            results[0].raiseException()

        self.react = react
        self.patch(module, "ask", hang)
        line = self.line("kms", "-t", "2.5", status=2)
        self.assertEqual(line, "KMS CRITICAL - kms:1688: no answer within 2.5 seconds")
        self.assertEqual((len(cancelled), self.clock.getDelayedCalls()), (1, []))

    def test_hostile_texts(self) -> None:
        """
        What a host says makes no other line, no performance data, and nothing that a terminal acts upon.
        """
        for text in ("a|b=1", "a\nKMS OK", "\x1b[2J", "a\u2028b", "\u202e"):
            self.outcomes["kms"] = Asked(Verdict.REFUSED, 1.0, text)
            line = self.line("kms", status=2)
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertNotIn("|", line)
        self.outcomes["kms"] = Asked(Verdict.GRANTED, 0.1, epid="\x1b[2J|x\nKMS OK", count=25)
        lines = self.run_check("kms", "-v").stdout.splitlines()
        self.assertEqual(lines[1:], ["ePID: \\x1b[2J/x KMS OK"])

    def test_too_few_clients(self) -> None:
        """
        A count that no client would be content with is a warning, unless ranges for it are given.
        """
        self.outcomes["kms"] = Asked(Verdict.GRANTED, 0.1, epid=EPID, count=1)
        line = self.line("kms", status=1)
        self.assertIn("a client would not be content: it needs 25 clients", line)
        self.assertIn(", 1 client (it needs 25)", line)
        self.line("kms", "--warning-count", "1:", status=0)
        self.line("kms", "--critical-count", "1:", status=0)

    def test_verbose(self) -> None:
        """
        With -v more lines follow the first.
        """
        lines = self.run_check("kms", "-v").stdout.splitlines()
        self.assertEqual(lines[1:], [f"ePID: {EPID}"])

    def test_json(self) -> None:
        """
        JSON has the state and the numbers, with the same status.
        """
        document = json.loads(self.run_check("kms", "--json", "-w", "0.01", status=1).stdout)
        self.assertEqual(document["state"], "WARNING")
        self.assertEqual((document["seconds"], document["count"]), (0.0123, 50))
        self.assertEqual((document["target"], document["epid"]), ("kms:1688", EPID))
        self.outcomes["kms"] = Asked(Verdict.REFUSED, 1.0, "no")
        document = json.loads(self.run_check("kms", "--json", status=2).stdout)
        self.assertEqual(document["problems"], ["kms:1688: no"])

    def test_ways_to_name_a_host(self) -> None:
        """
        The host is TARGET, or given as monitors do it.
        """
        for arguments, target in (
            (["kms:1700"], Target("kms", 1700)),
            (["[::1]:1700"], Target("::1", 1700)),
            (["-H", "kms"], Target("kms", 1688)),
            (["--hostname", "kms", "--port", "1700"], Target("kms", 1700)),
            (["-H", "::1", "-p", "1700"], Target("::1", 1700)),
        ):
            self.line(*arguments)
            self.assertEqual(self.asked[-1], (target, 10.0, None))

    def test_what_is_asked(self) -> None:
        """
        Product, version, family and timeout may be chosen.
        """
        self.line("kms", "--protocol", "5", "-i", "6", "-t", "3")
        self.assertEqual(self.asked, [(Target("kms", 1688), 3.0, 6)])
        self.assertEqual(self.requests[0].major_version, 5)


class UnknownTests(CheckCase):
    """
    What is no state of a host.
    """

    def test_command_lines(self) -> None:
        """
        Whatever is wrong on the command line is one UNKNOWN line with status 3, and nobody is asked.
        """
        for arguments, part in (
            ([], "name one target: HOST[:PORT], .DOMAIN or -"),
            (["127.0.0.1", "-i", "6"], "leave --ip-version 6 away"),
            (["-H", "::1", "-i", "4"], "leave --ip-version 4 away"),
            (["http://kms"], "is no host"),
            (["kms", "-H", "kms"], "name one target"),
            (["kms", "-p", "1700"], "-p goes with -H"),
            (["kms", "more"], "more"),
            (["kms:0"], "'0' is not a port number"),
            ([""], "names no host"),
            (["."], "is no domain"),
            ([".a..b"], "is no domain"),
            (["-H", ".corp.example", "-p", "1"], "leave -p out"),
            (["-H", "kms", "-p", "65536"], "65536"),
            (["kms", "-w", "20:10"], "begins behind its end"),
            (["kms", "-c", "x"], "is no range"),
            (["kms", "--critical-count", ""], "is no range"),
            (["kms", "-t", "0"], "0"),
            (["kms", "-t", "nan"], "nan"),
            (["kms", "--protocol", "7"], "7"),
            (["kms", "-l", "no such product"], "no such product"),
            (["kms", "-j", "/nonexistent/file"], "/nonexistent/file"),
            (["kms", "--bogus"], "--bogus"),
            (["kms", "--nameserver", "dns.example"], "dns.example"),
            (["-w"], "requires an argument"),
        ):
            with self.subTest(arguments=arguments):
                self.assertIn(part, self.line(*arguments, status=3))
        self.assertEqual(self.asked, [])

    def test_mistakes_of_ours(self) -> None:
        """
        A mistake of ours is UNKNOWN, for the status of a traceback would be taken for WARNING.
        """

        async def ask(*_: object) -> Asked:
            raise ZeroDivisionError("a | b\nc")

        self.patch(module, "ask", ask)
        line = self.line("kms", status=3)
        self.assertIn("kmsproto itself failed: ZeroDivisionError: a / b c", line)
        lines = self.run_check("kms", "-v", status=3).stdout.splitlines()
        self.assertEqual(lines[0], line)
        self.assertIn("Traceback", lines[1])

    def test_mistakes_before_asking(self) -> None:
        """
        So is one before anybody is asked.
        """

        def make_body(*_: object) -> None:
            raise ZeroDivisionError("x")

        self.patch(module, "make_body", make_body)
        self.assertIn("kmsproto itself failed: ZeroDivisionError: x", self.line("kms", status=3))

    def test_errors_that_tell_nothing_of_the_host(self) -> None:
        """
        An error of ours that is no failure of a host is UNKNOWN with its text.
        """

        async def ask(*_: object) -> Asked:
            raise KMSProtoError("something; do something")

        self.patch(module, "ask", ask)
        self.assertEqual(self.line("kms", status=3), "KMS UNKNOWN - something; do something")

    def test_help(self) -> None:
        """
        Help is help.
        """
        text = self.run_check("--help").output
        self.assertIn("3 UNKNOWN", " ".join(text.split()))


class DiscoveryTests(CheckCase):
    """
    The hosts that DNS names.
    """

    def setUp(self) -> None:
        """
        Let a domain have two hosts.
        """
        super().setUp()
        self.resolver.answers.update(
            {
                (SERVICE, dns.SRV): [srv("b.example", 1689, 10), srv("a.example", 1688, 5)],
                ("a.example", dns.A): [a("a.example", "192.0.2.1")],
                ("b.example", dns.A): [a("b.example", "192.0.2.2")],
                ("b.example", dns.AAAA): [aaaa("b.example", "2001:db8::2")],
            }
        )
        self.patch(
            module, "look_for_own_domains", lambda *_: succeed(("x.example", "corp.example"))
        )

    def test_all(self) -> None:
        """
        All hosts are asked, each with all the time that is left; the best is judged, and the others are counted.
        """
        line = self.line(".corp.example", "-t", "9")
        self.assertTrue(line.startswith("KMS OK - a.example (192.0.2.1:1688) grants"), line)
        self.assertTrue(line.endswith(" hosts=3;;;0;3"), line)
        self.assertEqual([timeout for _, timeout, _ in self.asked], [9.0] * 3)

    def test_order_of_the_answer_does_not_matter(self) -> None:
        """
        Whatever the order of the records, and however small a weight, the same world gives the same line.
        """
        records = [srv("b.example", 1689, 5, 0), srv("a.example", 1688, 5, 60000)]
        self.outcomes["192.0.2.2"] = Asked(Verdict.SILENT, 5.0, "no answer")
        lines = set()
        for answer in (records, records[::-1]) * 3:
            self.resolver.answers[SERVICE, dns.SRV] = answer
            lines.add(self.line(".corp.example", status=1))
        (line,) = lines
        self.assertIn("not all hosts can be used: b.example (192.0.2.2:1689): no answer", line)
        self.assertIn("a.example (192.0.2.1:1688) grants", line)
        self.assertTrue(line.endswith(" hosts=2;;;0;3"), line)

    def test_record_without_a_host(self) -> None:
        """
        A record that leads to no host is a warning beside one that does.
        """
        self.resolver.answers[SERVICE, dns.SRV] = [srv("a.example"), srv("gone.example")]
        line = self.line(".corp.example", status=1)
        self.assertIn("not all hosts can be used: gone.example: its target does not exist", line)
        self.assertTrue(line.endswith(" hosts=1;;;0;2"), line)

    def test_too_many(self) -> None:
        """
        So many places are asked, and that there are more is a warning.
        """
        records = [srv("a.example", port) for port in range(1, module.MAXIMUM_PLACES + 3)]
        self.resolver.answers[SERVICE, dns.SRV] = records
        self.assertIn("2 more were not asked", self.line(".corp.example", status=1))
        self.assertEqual(len(self.asked), module.MAXIMUM_PLACES)

    def test_own_domain(self) -> None:
        """
        A dash means the first domain of this machine that has records.
        """
        self.line("-")
        self.assertEqual(self.asked[0][0], Target("192.0.2.1", 1688))
        self.line("-H", "-")

    def test_fall_back(self) -> None:
        """
        When clients have to fall back that is a warning, and what failed is said.
        """
        self.outcomes["192.0.2.1"] = Asked(Verdict.SILENT, 5.0, "no answer")
        line = self.line(".corp.example", status=1)
        self.assertIn("not all hosts can be used: a.example (192.0.2.1:1688): no answer", line)
        self.assertIn("b.example (192.0.2.2:1689) grants", line)

    def test_none_answers(self) -> None:
        """
        When none answers that is critical.
        """
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::2"):
            self.outcomes[address] = Asked(Verdict.UNREACHABLE, 0.1, "no connection")
        line = self.line(".corp.example", status=2)
        self.assertIn("a.example (192.0.2.1:1688): no connection; and 2 more", line)
        lines = self.run_check(".corp.example", "-v", status=2).stdout.splitlines()
        self.assertEqual(len(lines), 4)

    def test_refusal_is_an_answer(self) -> None:
        """
        A refusal or a wrong answer is critical where clients begin, and a warning where they fall back to.
        """
        for verdict in (Verdict.REFUSED, Verdict.WRONG):
            self.outcomes = {"192.0.2.1": Asked(verdict, 0.1, "no")}
            self.assertIn("a.example (192.0.2.1:1688): no", self.line(".corp.example", status=2))
            self.outcomes = {"192.0.2.2": Asked(verdict, 0.1, "no")}
            self.assertIn("not all hosts can be used: b", self.line(".corp.example", status=1))
            # Nobody answers where they begin, so they begin with the others.
            self.outcomes["192.0.2.1"] = Asked(Verdict.SILENT, 5.0, "no answer")
            self.assertIn("b.example (192.0.2.2:1689): no", self.line(".corp.example", status=2))

    def test_family(self) -> None:
        """
        With an IP version only its addresses are tried.
        """
        self.line(".corp.example", "-i", "6")
        self.assertEqual([target.host for target, _, _ in self.asked], ["2001:db8::2"])

    def test_dns_problems(self) -> None:
        """
        Whatever keeps clients from finding a host is critical.
        """
        for answer, part in (
            (names_error.DNSNameError(), "0x8007232B"),
            ([], "0x8007251D"),
            (names_error.DNSServerError(), "SERVFAIL"),
            (names_error.DNSQueryTimeoutError(1), "no name server answered"),
            ([srv("")], "can be used: .: its target is the root"),
        ):
            self.resolver.answers[SERVICE, dns.SRV] = answer
            with self.subTest(part=part):
                self.assertIn(part, self.line(".corp.example", status=2))
        self.assertEqual(self.asked, [])

    def test_no_address_of_the_family(self) -> None:
        """
        A domain whose hosts have no address of the family is critical.
        """
        self.resolver.answers.pop(("b.example", dns.AAAA))
        self.assertIn("can be used", self.line(".corp.example", "-i", "6", status=2))

    def test_no_domain(self) -> None:
        """
        A machine without a domain of its own tells nothing about a host.
        """

        def nothing(*_: object) -> None:
            raise NoOwnDomainError("this machine has no DNS suffix; name the domain")

        self.patch(module, "look_for_own_domains", nothing)
        self.assertIn("has no DNS suffix", self.line("-", status=3))

    def test_silent_name_server(self) -> None:
        """
        Name servers have a part of the time, and when it is over the state is critical.
        """
        self.resolver.answers[SERVICE, dns.SRV] = None

        def react(run: Callable[[Any], Deferred[None]]) -> None:
            results: list[Any] = []
            run(self.clock).addBoth(results.append)
            self.clock.advance(5)
            results[0].raiseException()

        self.react = react
        self.assertIn("no name server answered", self.line(".corp.example", "-t", "10", status=2))
