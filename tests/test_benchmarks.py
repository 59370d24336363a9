"""
The tool that measures: its arithmetic, its tables, and the processes that it runs.

No figure is judged here, for how fast something is depends on the machine; what is tested is that the tool tells the
truth about what it was given, and that whatever it measures does what it should.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import main
from benchmarks.exchanges import VERSIONS, load_exchange
from benchmarks.figures import FIGURES, Case, Comparison, Sample, typical
from benchmarks.floor import FloorFactory
from benchmarks.load import LoadGenerator, compile_load, find_compiler, parse_result
from benchmarks.operations import operations
from benchmarks.processes import BenchmarkError, Floor, parse_stat
from benchmarks.report import Environment, comparison_table, document, render, verdict_table
from benchmarks.selections import AIMED_AT, MATRIX, QUICK, Findings
from benchmarks.targets import FEW_IDLE, FLOOR, TARGETS, V6, judge, values_of
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import PacketType
from tests.net.wiring import FakeTCP

WHERE = Environment("1.0", "Python", "3.11.2", "22.4.0", "Linux x86_64", 2)
RESULT = {
    "answers": 50,
    "wrong": 1,
    "broken": 2,
    "unanswered": 3,
    "seconds": 0.5,
    "p50_ms": 1.5,
    "p99_ms": 2.5,
    "max_ms": 3.5,
    "longest_pause_ms": 4.5,
    "answer_length": 312,
    "problem": "",
}


def comparison(
    mode: str = "fresh",
    version: int = 6,
    connections: int = 16,
    workers: int = 1,
    against: str = FLOOR,
) -> Comparison:
    """
    Make a comparison in two rounds.
    """
    return Comparison(
        Case(mode, version, connections, workers),
        against,
        (Sample(10000, 90, 1.5, 2), Sample(8000, 100, 1.5, 4)),
        (Sample(8000, 99, 3, 2.2), Sample(6000, 112, 3, 4.8)),
    )


class FigureTests(SynchronousTestCase):
    """
    What is made of samples.
    """

    def test_ratio(self) -> None:
        """
        A ratio is the median of the ratios of the rounds, and not the ratio of the medians.
        """
        base = tuple(Sample(rate, 1, 1, 1) for rate in (100, 10, 1000))
        measured = tuple(Sample(rate, 1, 1, 1) for rate in (50, 20, 600))
        made = Comparison(Case("kept", 6, 16), FLOOR, base, measured)
        self.assertEqual(made.ratios("rate"), [0.5, 2.0, 0.6])
        self.assertEqual(made.ratio("rate"), 0.6)
        self.assertEqual(typical(measured, "rate"), 50)

    def test_every_figure(self) -> None:
        """
        Each figure of a sample can be compared.
        """
        ratios = {figure: comparison().ratio(figure) for figure in FIGURES}
        self.assertEqual(
            ratios,
            {
                "rate": (0.8 + 0.75) / 2,
                "processor_us": (99 / 90 + 112 / 100) / 2,
                "p50_ms": 2.0,
                "p99_ms": (2.2 / 2 + 4.8 / 4) / 2,
            },
        )

    def test_case(self) -> None:
        """
        A case says in words how a server is asked.
        """
        self.assertEqual(str(Case("kept", 5, 256, 2)), "kept v5 × 256, 2 workers")


class TargetTests(SynchronousTestCase):
    """
    What is set beside what was measured.
    """

    def test_keys(self) -> None:
        """
        Everything that comparisons say about targets has its target, and each key names one.
        """
        keys = [target.key for target in TARGETS]
        self.assertEqual(len(set(keys)), len(keys))
        said: set[str] = set()
        for wanted in AIMED_AT:
            said |= values_of(comparison(*wanted.case, wanted.against)).keys()
        for mode in ("fresh", "kept"):
            said |= values_of(comparison(mode, against=FEW_IDLE)).keys()
        self.assertEqual(
            set(keys) - said,
            {"python-rate", "connected-memory", "bound-memory", "growth", "worker-back"}
            | {"worker-wrong"},
        )
        self.assertEqual(said - set(keys), set())

    def test_values(self) -> None:
        """
        A comparison with the floor speaks of rate, processor time and latency; one of versions of the rate.
        """
        made = comparison()
        self.assertEqual(
            values_of(made),
            {
                "fresh-rate": made.ratio("rate"),
                "fresh-processor": made.ratio("processor_us"),
                "fresh-p99": made.ratio("p99_ms"),
            },
        )
        self.assertEqual(
            values_of(comparison("kept", 4, against=V6)), {"kept-rate-v4": made.ratio("rate")}
        )

    def test_no_target(self) -> None:
        """
        For most of the matrix there is no target.
        """
        for made in (
            comparison(connections=1),
            comparison(version=4),
            comparison("kept", 6, 16, 2),
        ):
            self.assertEqual(values_of(made), {})

    def test_judgement(self) -> None:
        """
        A figure at the limit reaches it, from above or from below.
        """
        words = {
            each.target.key: each.word
            for each in judge({"fresh-rate": 0.8, "kept-rate": 0.54, "kept-processor": 1.91}, {})
        }
        self.assertEqual(words.pop("fresh-rate"), "met")
        self.assertEqual(words.pop("kept-rate"), "missed")
        self.assertEqual(words.pop("kept-processor"), "missed")
        self.assertEqual(set(words.values()), {"not measured"})


class ReportTests(SynchronousTestCase):
    """
    What is shown.
    """

    def test_comparisons(self) -> None:
        """
        The table has both sides and the ratio of each figure, one comparison in a line.
        """
        lines = comparison_table([comparison(), comparison("kept", 4, 256, 2, V6)])
        self.assertEqual(
            [" ".join(line.split()) for line in lines],
            [
                "answers/s CPU µs/answer p50 ms p99 ms",
                "mode KMS conns workers against" + " base host ratio" * 4,
                "fresh v6 16 1 floor 9000 7000 0.78 95 106 1.11 1.5 3 2.00 3 3.5 1.15",
                "kept v4 256 2 v6 9000 7000 0.78 95 106 1.11 1.5 3 2.00 3 3.5 1.15",
            ],
        )
        self.assertEqual(lines[0].index("answers/s"), lines[2].index("9000"))
        self.assertEqual(len({len(line) for line in lines[1:]}), 1)

    def test_verdicts(self) -> None:
        """
        A target is shown with its limit, what was measured, and what explains it.
        """
        verdicts = judge({"python-rate": 1300.4, "growth": 1.06}, {"growth": "from 1 to 2"})
        lines = [" ".join(line.split()) for line in verdict_table(verdicts)]
        self.assertEqual(len(lines), 1 + len(TARGETS))
        self.assertIn(
            "kept v6, cipher in Python: answers per second 1300 /s at least 1200 met", lines
        )
        self.assertIn(
            "memory after 1000000 answers / after 100000 1.06 at most 1.05 missed from 1 to 2",
            lines,
        )
        self.assertIn("a killed worker is replaced after - s at most 2 not measured", lines)

    def test_render(self) -> None:
        """
        What the figures depend on stands above them, and what was left out below.
        """
        findings = Findings(comparisons=[comparison()], omitted=["the weather"])
        text = render(findings, [], WHERE)
        self.assertTrue(text.startswith("kmsproto 1.0, cipher: Python; Python 3.11.2, "), text)
        self.assertTrue(text.endswith("\n\nleft out: the weather"), text)

    def test_document(self) -> None:
        """
        The document for programs holds every sample, and survives JSON.
        """
        findings = Findings()
        findings.add(comparison())
        verdicts = judge(findings.values, findings.notes)
        made = document("quick", findings, verdicts, WHERE, ["a trouble"])
        self.assertEqual(json.loads(json.dumps(made)), made)
        self.assertEqual(made["environment"]["twisted"], "22.4.0")
        (row,) = made["comparisons"]
        self.assertEqual(row["against"], FLOOR)
        self.assertEqual([each["host"]["rate"] for each in row["rounds"]], [8000, 6000])
        measured = {each["key"]: each["measured"] for each in made["targets"]}
        self.assertEqual(measured["fresh-rate"], row["ratios"]["rate"])
        self.assertEqual(made["troubles"], ["a trouble"])


class SelectionTests(SynchronousTestCase):
    """
    What can be measured.
    """

    def test_matrix(self) -> None:
        """
        The matrix has every mode, version, number of connections and of workers, and nothing twice.
        """
        cases = {each.case for each in MATRIX if each.against == FLOOR}
        self.assertEqual(len(cases), 2 * 3 * 3 * 2)
        self.assertEqual(len(set(MATRIX)), len(MATRIX))
        self.assertLessEqual({*QUICK, *AIMED_AT}, set(MATRIX))

    def test_command(self) -> None:
        """
        The command lists the selections, and refuses what is none.
        """
        runner = CliRunner()
        result = runner.invoke(main, ["--help"])
        self.assertEqual(result.exit_code, 0)
        for name in ("quick", "full", "targets", "idle", "memory", "growth", "loss"):
            self.assertIn(f"\n  {name} ", result.output)
        self.assertEqual(runner.invoke(main, ["slow"]).exit_code, 2)
        self.assertEqual(runner.invoke(main, ["quick", "--rounds", "0"]).exit_code, 2)

    def test_without_compiler(self) -> None:
        """
        Without a C compiler the command says what is missing, and ends with status 1.
        """
        with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, PATH=empty, CC=""):
            result = CliRunner().invoke(main, ["quick"])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("no C compiler was found", result.output)
        self.assertNotIn("Traceback", result.output)


class ParsingTests(SynchronousTestCase):
    """
    What is read from the system and from the load generator.
    """

    def test_stat(self) -> None:
        """
        A process may call itself what it likes; its times include those of its ended children.
        """
        text = "17 (a) b (c) S 4 " + " ".join(["0"] * 9) + " 100 20 3 1 20 0 1 0 987654 0 0"
        self.assertEqual(parse_stat(text), (4, 987654, 124))

    def test_result(self) -> None:
        """
        A result knows its rate and its failures.
        """
        result = parse_result(json.dumps(RESULT))
        self.assertEqual(result.rate, 100)
        self.assertEqual(result.failures, 6)

    def test_no_time(self) -> None:
        """
        Without any answer there is no rate.
        """
        result = parse_result(json.dumps(RESULT | {"answers": 0, "seconds": 0.0}))
        self.assertEqual(result.rate, 0)

    def test_no_result(self) -> None:
        """
        Anything else is an error that shows it.
        """
        for text in ("", "oops", "[]", json.dumps(RESULT | {"more": 1}), '{"answers": 1}'):
            error = self.assertRaises(BenchmarkError, parse_result, text)
            self.assertIn(repr(text), str(error))


class FloorTests(SynchronousTestCase):
    """
    The floor without a socket.
    """

    def test_exchanges(self) -> None:
        """
        An exchange is a bind, an alter_context and a request, with their answers.
        """
        kinds = (
            [PacketType.BIND, PacketType.ALTER_CONTEXT, PacketType.REQUEST],
            [PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP, PacketType.RESPONSE],
        )
        for version in VERSIONS:
            exchange = load_exchange(version)
            for pdus, expected in zip((exchange.questions, exchange.answers), kinds, strict=True):
                self.assertEqual([pdu.decode_header(each).packet_type for each in pdus], expected)

    def test_answers(self) -> None:
        """
        The floor answers recorded bytes, as often as it is asked.
        """
        for version in VERSIONS:
            exchange = load_exchange(version)
            protocol = FloorFactory(exchange).buildProtocol(None)
            address = IPv4Address("TCP", "127.0.0.1", 1688)
            transport = FakeTCP(address, address)
            protocol.makeConnection(transport)
            for question, answer in [*zip(exchange.questions, exchange.answers, strict=True)] * 2:
                protocol.dataReceived(question)
                self.assertEqual(transport.value(), answer)
                transport.clear()
            self.assertTrue(transport.no_delay)


class OperationTests(SynchronousTestCase):
    """
    The single operations.
    """

    def test_right(self) -> None:
        """
        Each operation does what it says, the first time and again.
        """
        names = []
        for operation in operations():
            names.append(operation.name)
            for _ in range(2):
                self.assertTrue(operation.check(operation.run()), operation.name)
        self.assertEqual(len(set(names)), len(names))

    def test_check(self) -> None:
        """
        The checks are not content with everything.
        """
        content = [each.name for each in operations() if each.check(None)]
        self.assertEqual(content, [])


class LoadTests(SynchronousTestCase):
    """
    The load generator, and a floor as a process.
    """

    if find_compiler() is None:
        skip = "there is no C compiler"
    elif sys.platform != "linux":
        skip = "the load generator is for Linux"

    def setUp(self) -> None:
        """
        Compile.
        """
        temporary = tempfile.TemporaryDirectory(prefix="kms-")
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)
        self.load = LoadGenerator(self.directory)

    def floor(self, version: int) -> Floor:
        """
        Start a floor.
        """
        floor = Floor(self.directory / f"floor-{version}", version)
        self.addCleanup(floor.stop)
        return floor

    def test_answers(self) -> None:
        """
        So many answers are counted as were asked for, each of them right, in both modes and both ways to close.
        """
        floor, exchange = self.floor(6), load_exchange(6)
        for mode in ("fresh", "kept"):
            for load in (self.load, LoadGenerator(self.directory, orderly=True)):
                result = load.run(
                    floor.port, exchange, mode=mode, connections=4, seconds=30, answers=50
                )
                self.assertEqual((result.answers, result.failures), (50, 0), result)
                self.assertEqual(result.answer_length, len(exchange.answers[-1]))
        self.assertGreater(floor.resident(), 0)
        self.assertEqual(floor.children(), set())

    def test_wrong(self) -> None:
        """
        An answer in another version than that of the request is a wrong one.
        """
        result = self.load.run(
            self.floor(5).port,
            load_exchange(6),
            mode="fresh",
            connections=2,
            seconds=30,
            answers=10,
        )
        self.assertEqual((result.answers, result.wrong), (0, 10), result)
        self.assertIn("version", result.problem)

    def test_broken(self) -> None:
        """
        Where nobody listens, connections are broken, and not tried for ever.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        result = self.load.run(port, load_exchange(6), mode="kept", connections=2, seconds=30)
        self.assertEqual(result.answers, 0)
        self.assertGreater(result.broken, 0)
        self.assertIn("refused", result.problem)

    def test_held(self) -> None:
        """
        Connections are held open, bound or not, while others ask.
        """
        floor, exchange = self.floor(4), load_exchange(4)
        for bound in (False, True):
            with self.load.held(floor.port, exchange, connections=30, bound=bound):
                floor.wait_for("idle connections", lambda: floor.descriptors() >= 30)
                self.assertTrue(floor.serves(floor.pid))
                result = self.load.run(
                    floor.port, exchange, mode="fresh", connections=1, seconds=30, answers=5
                )
                self.assertEqual((result.answers, result.failures), (5, 0), result)

    def test_lost(self) -> None:
        """
        A connection that is closed while it is held is an error.
        """
        floor = self.floor(4)
        held = self.load.held(floor.port, load_exchange(4), connections=3, bound=True)
        held.__enter__()
        floor.stop()
        error = self.assertRaises(BenchmarkError, held.__exit__, None, None, None)
        self.assertIn("of 3 idle connections are open", str(error))

    def test_program_fails(self) -> None:
        """
        What the program complains about becomes an error.
        """
        error = self.assertRaises(
            BenchmarkError,
            self.load.run,
            70000,
            load_exchange(6),
            mode="fresh",
            connections=1,
            seconds=1,
        )
        self.assertIn("70000 is not a number from 1 to 65535", str(error))

    def test_source_fails(self) -> None:
        """
        What the compiler complains about becomes an error.
        """
        with patch.dict(os.environ, CC="false"):
            error = self.assertRaises(BenchmarkError, compile_load, self.directory)
        self.assertIn("failed", str(error))
