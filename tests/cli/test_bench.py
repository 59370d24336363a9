"""
C{kmsproto bench}: how its command line is read, which hosts it refuses, and what it says of a load.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from click.testing import CliRunner, Result
from rich.console import Console
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import bench as module
from kmsproto.cli.bench import (
    DEFAULT_REQUESTS,
    MAX_REQUESTS,
    Report,
    bench,
    find_addresses,
    interrupting,
    progress,
)
from kmsproto.cli.output import ExitStatus
from kmsproto.cli.targets import Target
from kmsproto.errors import HostTimeoutError, HostUnreachableError
from kmsproto.kms.messages import filetime
from kmsproto.net.client import DEFAULT_TIMEOUT, ClientOptions
from kmsproto.net.load import SPENT, LoadPlan, Tally
from tests.net.wiring import NOW, body, catalog


class ArgumentsTests(SynchronousTestCase):
    """
    What is to be done.
    """

    def setUp(self) -> None:
        """
        Take note of what would be done, and do nothing.
        """
        self.done: list[tuple[Any, ...]] = []
        self.patch(module, "run", lambda main, *arguments: self.done.append(arguments))
        self.patch(time, "time", lambda: NOW)
        self.patch(socket, "gethostname", lambda: "desk-17")

    def invoke(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return CliRunner().invoke(bench, arguments)

    def plan(self, *arguments: str) -> LoadPlan:
        """
        Get the plan that a command line makes.
        """
        result = self.invoke("kms.example", *arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        plan = self.done[-1][4]
        assert isinstance(plan, LoadPlan)
        return plan

    def test_defaults(self) -> None:
        """
        Without options there are a thousand requests on eight connections that are kept, by one client.
        """
        plan = self.plan()
        self.assertEqual(self.done[0][0], Target("kms.example"))
        self.assertEqual((plan.requests, plan.duration, plan.rate), (DEFAULT_REQUESTS, None, None))
        self.assertEqual((plan.connections, plan.fresh, plan.pipeline), (8, False, 1))
        self.assertEqual(plan.options, ClientOptions(timeout=DEFAULT_TIMEOUT))

    def test_options(self) -> None:
        """
        Each part of the plan can be set.
        """
        plan = self.plan(
            "-n", "20", "-c", "3", "--pipeline", "5", "--rate", "2.5", "--timeout", "4"
        )
        self.assertEqual((plan.requests, plan.connections, plan.pipeline), (20, 3, 5))
        self.assertEqual((plan.rate, plan.options.timeout), (2.5, 4.0))
        self.assertTrue(self.plan("--fresh").fresh)
        self.assertFalse(self.plan("--kept").fresh)
        self.plan("-i", "6")
        self.assertEqual(self.done[-1][1], 6)

    def test_open_files(self) -> None:
        """
        More connections than the process may open are refused before anything is asked.
        """
        limits = {64: 40, 1024: 256, resource.RLIM_INFINITY: 256}
        for soft, most in limits.items():
            self.patch(resource, "getrlimit", lambda which, soft=soft: (soft, soft))
            self.assertEqual(self.plan("-c", str(most)).connections, most)
        self.patch(resource, "getrlimit", lambda which: (64, 64))
        result = self.invoke("kms.example", "-c", "41")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("may open 40 connections, not 41; raise the limit", result.output)
        self.assertEqual(len(self.done), 3)

    def test_duration(self) -> None:
        """
        A duration alone lets the number of requests be any; with a number, whichever is reached first counts.
        """
        self.assertEqual(self.plan("--duration", "2").requests, MAX_REQUESTS)
        plan = self.plan("--duration", "2", "-n", "7")
        self.assertEqual((plan.duration, plan.requests), (2.0, 7))

    def test_requests(self) -> None:
        """
        A request is that of the product's client, in the version that was asked for, with the time of its sending.
        """
        sku = catalog().product("Windows Vista Business")
        request = self.plan("-l", "Windows Vista Business", "--protocol", "5").make_body(0)
        self.assertEqual((request.sku_id, request.major_version), (sku.guid, 5))
        self.assertEqual(request.client_time, filetime(NOW))

    def test_clients(self) -> None:
        """
        So many clients take turns, and are the same ones in every run.
        """
        make = self.plan("--clients", "3").make_body
        ids = [make(number).client_machine_id for number in range(9)]
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual(ids[:3] * 3, ids)
        again = self.plan("--clients", "3").make_body
        self.assertEqual([again(number).client_machine_id for number in range(9)], ids)
        self.assertEqual(
            self.plan().make_body(5).client_machine_id, uuid5(NAMESPACE_DNS, "desk-17")
        )

    def test_usage_errors(self) -> None:
        """
        What is out of bounds or makes no sense is refused, and nothing is done.
        """
        for arguments in (
            [],
            ["kms:0"],
            ["kms", "-n", "0"],
            ["kms", "-n", "1000001"],
            ["kms", "-c", "0"],
            ["kms", "-c", "257"],
            ["kms", "--pipeline", "65"],
            ["kms", "--duration", "0"],
            ["kms", "--duration", "301"],
            ["kms", "--duration", "nan"],
            ["kms", "--rate", "0"],
            ["kms", "--rate", "nan"],
            ["kms", "--rate", "inf"],
            ["kms", "--timeout", "nan"],
            ["kms", "--clients", "0"],
            ["kms", "--clients", "10001"],
            ["kms", "--protocol", "7"],
            ["kms", "-i", "5"],
            ["kms", "-l", "Windows 10/11 Enterprize"],
            ["kms", "--fresh", "--pipeline", "2"],
        ):
            result = self.invoke(*arguments)
            self.assertEqual(result.exit_code, 2, arguments)
            self.assertIn("Usage:", result.output)
        self.assertEqual(self.done, [])

    def test_help(self) -> None:
        """
        The help says whom the command asks, that clients are counted, and how it ends.
        """
        text = " ".join(self.invoke("--help").output.split())
        for part in (
            "Only hosts on this machine or in a private network are asked.",
            "counts each of them as a client",
            "Exits with status 0 when every request was granted",
            "[default: 8",
        ):
            self.assertIn(part, text)


class AddressTests(SynchronousTestCase):
    """
    Which hosts are one's own.
    """

    def find(self, *addresses: str, host: str = "kms.example") -> Deferred[Any]:
        """
        Find the addresses of a host that has these.
        """

        async def resolve(*_: object) -> list[IPv4Address | IPv6Address]:
            return [
                IPv6Address("TCP", each, 1688) if ":" in each else IPv4Address("TCP", each, 1688)
                for each in addresses
            ]

        self.patch(module, "resolve", resolve)
        return Deferred.fromCoroutine(find_addresses(Clock(), Target(host), None, 1.0))

    def test_private(self) -> None:
        """
        Loopback, private and link-local addresses are taken, each once, in the order of the resolver.
        """
        found = ["::1", "127.0.0.1", "10.1.2.3", "192.168.0.9", "fd00::7", "fe80::1%eth0"]
        self.assertEqual(self.successResultOf(self.find(*found, *found)), found)

    def test_public(self) -> None:
        """
        A host with any other address is refused with a line that names it, also when others are private.
        """
        told: list[str] = []
        self.patch(module, "fail", self.failing(told))
        for addresses in (
            ["192.0.2.1"],
            ["10.0.0.1", "8.8.8.8"],
            ["2001:db8::1"],
            ["::ffff:8.8.8.8"],
            ["100.64.0.1"],
            ["0.0.0.0"],
            ["172.32.0.1"],
        ):
            del told[:]
            self.failureResultOf(self.find(*addresses), SystemExit)
            self.assertRegex(told[0], r"kms.example:1688: \S+ is neither a loopback nor a private")

    def failing(self, told: list[str]) -> Callable[..., None]:
        """
        Stand for the end of the command.
        """

        def fail(problem: object, status: ExitStatus) -> None:
            told.append(str(problem))
            self.assertEqual(status, ExitStatus.USAGE)
            raise SystemExit(status)

        return fail

    def test_impossible_name(self) -> None:
        """
        A name that no host can have is not looked up.
        """
        for host in ("a..b", "x" * 64 + ".example"):
            problem = self.failureResultOf(self.find(host=host), HostUnreachableError).value
            self.assertIn("check the name", str(problem))

    def test_unknown_name(self) -> None:
        """
        A name without an address is an error of its own.
        """

        async def resolve(*_: object) -> None:
            raise DNSLookupError("no")

        self.patch(module, "resolve", resolve)
        looking = Deferred.fromCoroutine(find_addresses(Clock(), Target("kms"), 6, 1.0))
        problem = self.failureResultOf(looking, HostUnreachableError).value
        self.assertEqual(str(problem), "no address was found for 'kms'; check the name")

    def test_slow_look_up(self) -> None:
        """
        A look-up has a time limit.
        """
        clock = Clock()
        self.patch(module, "resolve", self.never)
        looking = Deferred.fromCoroutine(find_addresses(clock, Target("kms"), None, 2.0))
        clock.advance(2)
        self.failureResultOf(looking, HostTimeoutError)

    async def never(self, *_: object) -> Any:
        """
        Stand for a name server that does not answer.
        """
        return await Deferred()


def report(tally: Tally, **plan: Any) -> Report:
    """
    Make a report.
    """
    made = LoadPlan(lambda number: body(), 100, **plan)
    return Report(Target("localhost"), "127.0.0.1", "Windows 10/11 Enterprise", 3, made, tally)


def tally_of(*latencies: float, **fields: Any) -> Tally:
    """
    Make a tally.
    """
    tally = Tally(**fields)
    for each in latencies:
        tally.latency.add(each)
    return tally


class ReportTests(SynchronousTestCase):
    """
    What is said of a load.
    """

    def test_granted(self) -> None:
        """
        A load without failures is told in five lines, and ends with status 0.
        """
        made = report(
            tally_of(0.001, 0.0015, 0.25, granted=3, seconds=2.0, cpu_seconds=0.5, connections=2),
            connections=2,
            pipeline=4,
        )
        lines = made.text().splitlines()
        self.assertEqual(
            lines[0],
            "localhost:1688 (127.0.0.1) answered 3 of 3 requests for Windows 10/11 Enterprise"
            " in 2.00 seconds: 2 per second",
        )
        self.assertEqual(lines[1], "  granted:     3")
        self.assertRegex(
            lines[2],
            r"^  latency:     min 1\.00, mean 84\.17, p50 1\.\d\d, p90 2[45]\d, p95 2[45]\d, p99 2[45]\d, max 250 ms$",
        )
        self.assertEqual(
            lines[3:],
            [
                "  connections: 2 made; 2 at a time, 4 requests at a time on each",
                "  this client: 25% of a processor",
            ],
        )
        self.assertEqual(made.status, ExitStatus.OK)

    def test_not_granted(self) -> None:
        """
        Refusals and failures are told by their kind, with status 1.
        """
        made = report(
            tally_of(
                granted=1,
                refused={0xC004F042: 2, "others": 1},
                failed={"timeout": 4},
                gave_up="16 requests in a row got no answer: x",
                interrupted=True,
            ),
            fresh=True,
        )
        text = made.text()
        for part in (
            "refused:     2 with 0xC004F042: ",
            "refused:     1 with others\n",
            "failed:      4 with timeout\n",
            "a fresh one for each request",
            "gave up:     16 requests in a row",
            "interrupted: the figures are those up to then",
        ):
            self.assertIn(part, text)
        self.assertNotIn("latency", text)
        self.assertEqual(
            report(tally_of(granted=1, failed={"timeout": 1})).status, ExitStatus.FAILED
        )

    def test_spent_connections(self) -> None:
        """
        Where connections were closed behind an answer, it is said how to measure a host that does so each time; not
        where the host was gone.
        """
        failed = {SPENT: 4}
        self.assertIn(
            "\n  hint:        measure a host", report(tally_of(granted=4, failed=failed)).text()
        )
        for other in (tally_of(failed={"timeout": 4}), tally_of(failed=failed, gave_up="x")):
            self.assertNotIn("hint", report(other).text())

    def test_nothing(self) -> None:
        """
        A load of which nothing came is no success.
        """
        self.assertEqual(report(Tally()).status, ExitStatus.FAILED)

    def test_interrupted(self) -> None:
        """
        A load that was interrupted ends as shells have it, whatever had come of it.
        """
        for tally in (Tally(), tally_of(granted=1), tally_of(failed={"timeout": 1})):
            tally.interrupted = True
            self.assertEqual(report(tally).status, 130)

    def test_client_is_the_limit(self) -> None:
        """
        A client that had no time left says so, unless the load was too short to tell.
        """
        busy = report(tally_of(0.1, granted=1, seconds=1.0, cpu_seconds=0.9))
        self.assertIn("90% of a processor; it was the limit itself", busy.text())
        self.assertTrue(busy.as_json()["client_limited"])
        short = report(tally_of(0.1, granted=1, seconds=0.01, cpu_seconds=0.01))
        self.assertFalse(short.client_limited)

    def test_json(self) -> None:
        """
        Programs get everything, in plain types.
        """
        made = report(
            tally_of(0.002, granted=1, refused={5: 1}, failed={"timeout": 1}, seconds=4.0),
            duration=9.0,
        )
        told = json.loads(json.dumps(made.as_json()))
        self.assertEqual(told["target"], "localhost:1688")
        self.assertEqual((told["requests"], told["granted"]), (3, 1))
        self.assertEqual((told["refused"], told["failed"]), ({"0x00000005": 1}, {"timeout": 1}))
        self.assertEqual((told["seconds"], told["rate"]), (4.0, 0.5))
        self.assertEqual(
            set(told["latency_ms"]), {"min", "mean", "p50", "p90", "p95", "p99", "max"}
        )
        self.assertEqual(told["latency_ms"]["max"], 2.0)
        self.assertEqual((told["plan"]["duration"], told["plan"]["clients"]), (9.0, 3))

    def test_progress(self) -> None:
        """
        What is shown meanwhile fits on a line, whichever limit of the plan is nearer.
        """
        for seconds, plan in ((1.0, {}), (5.0, {"duration": 4.0}), (0.0, {"duration": 4.0})):
            terminal = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
            tally = tally_of(0.5, granted=40, failed={"timeout": 2}, seconds=seconds)
            with terminal.capture() as shown:
                terminal.print(progress(tally, report(tally, **plan).plan))
            line = shown.get()
            self.assertEqual(line.count("\n"), 1)
            self.assertIn("40 granted", line)
            self.assertIn("2 not", line)


class InterruptTests(SynchronousTestCase):
    """
    Ctrl-C and SIGTERM.
    """

    def test_interrupt(self) -> None:
        """
        SIGINT and SIGTERM do what they shall while the context lasts, in the reactor, and what they did before
        afterwards.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in numbers]
        called: list[Callable[[], object]] = []

        class Reactor:
            """
            Takes note of what it shall call.
            """

            def callFromThread(self, act: Callable[[], object]) -> None:  # noqa: N802
                """
                Do not call it.
                """
                called.append(act)

        with interrupting(Reactor(), self.flushLoggedErrors):
            for number in numbers:
                signal.raise_signal(number)
        self.assertEqual(called, [self.flushLoggedErrors] * 2)
        self.assertEqual([signal.getsignal(number) for number in numbers], before)
