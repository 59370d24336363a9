"""
What can be measured: each selection is a function from a workbench to findings.

Most compare hosts with the floor.  The others look at what grows: with the number of idle connections (time and
memory), with the number of answers, and at what happens when a worker is lost.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product

from benchmarks.exchanges import VERSIONS
from benchmarks.figures import Case, Comparison, typical
from benchmarks.load import MODES
from benchmarks.processes import INTERVAL, Host
from benchmarks.targets import CONNECTIONS, FEW_IDLE, FLOOR, V6, values_of
from benchmarks.workbench import PYTHON_CIPHER, Side, Workbench

#: Idle connections: as many as a small host has, and as many as a large one.
FEW, MANY = 10, 10_000
#: Seconds that a host leaves idle connections alone, where they have to stay open; its own default is half a minute.
IDLE_TIMEOUT = 3600
#: Answers after which the memory of a host is looked at, in as many steps as these go into all answers.
ALL_ANSWERS, STEPS = 1_000_000, 10
#: Seconds in which a bounded number of answers is given even by a slow host.
AMPLE = 600.0
#: Seconds of load before a worker is killed, and after that.
BEFORE, AFTER = 1.5, 4.5
_KIB = 1024


@dataclass(slots=True)
class Findings:
    """
    What came out.

    @ivar comparisons: The rows of the table.
    @ivar values: Figures that there is a target for, by its key.
    @ivar notes: Remarks on figures, by the key of their target.
    @ivar omitted: What was left out, and why.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)

    def add(self, comparison: Comparison) -> None:
        """
        Take a comparison, and what it says about targets.
        """
        self.comparisons.append(comparison)
        self.values.update(values_of(comparison))

    def merge(self, other: Findings) -> None:
        """
        Take all of another's.
        """
        self.comparisons += other.comparisons
        self.values |= other.values
        self.notes |= other.notes
        self.omitted += other.omitted


@dataclass(slots=True, frozen=True)
class Wanted:
    """
    A comparison that is to be made.

    @ivar case: How the host is asked.
    @ivar against: L{FLOOR}, or L{V6}: the same with version 6.
    """

    case: Case
    against: str = FLOOR


#: What a contributor looks at first.
QUICK = tuple(Wanted(Case(mode, 6, CONNECTIONS)) for mode in MODES)
#: The comparisons of versions with each other.
BESIDE_V6 = tuple(
    Wanted(Case(mode, version, CONNECTIONS), V6) for mode in MODES for version in (5, 4)
)
#: The comparisons that there are targets for.
AIMED_AT = (*QUICK, Wanted(Case("fresh", 6, CONNECTIONS, 2)), *BESIDE_V6)
#: Everything.
MATRIX = (
    *(
        Wanted(Case(mode, version, connections, workers))
        for mode, connections, version, workers in product(MODES, (1, 16, 256), VERSIONS, (1, 2))
    ),
    *BESIDE_V6,
)


def compare(bench: Workbench, wanted: Sequence[Wanted]) -> Findings:
    """
    Make comparisons; those with the same mode and number of connections share their rounds.
    """
    findings = Findings()
    if not bench.has_workers:
        left = [each for each in wanted if each.case.workers == 1]
        if len(left) < len(wanted):
            findings.omitted.append("more than one worker: twistd kms has no option --workers here")
        wanted = left
    for mode, connections in dict.fromkeys(
        (each.case.mode, each.case.connections) for each in wanted
    ):
        group = [each for each in wanted if each.case[0:3:2] == (mode, connections)]
        sides: dict[tuple[str, Case], Side] = {}
        for each in group:
            key, side = _base(bench, each)
            sides.setdefault(key, side)
            sides.setdefault(("host", each.case), Side(bench.host(each.case.workers), each.case))
        bench.tell(f"{mode}, {connections} connections: {len(sides)} servers in turn")
        samples = bench.in_turn(sides)
        for each in group:
            base, measured = samples[_base(bench, each)[0]], samples["host", each.case]
            findings.add(Comparison(each.case, each.against, base, measured))
    return findings


def _base(bench: Workbench, wanted: Wanted) -> tuple[tuple[str, Case], Side]:
    """
    Tell the side that a host is compared with.
    """
    if wanted.against == V6:
        case = wanted.case._replace(version=6)
        return ("host", case), Side(bench.host(case.workers), case)
    case = wanted.case._replace(workers=1)
    return (FLOOR, case), Side(bench.floor(case.version), case)


def python_cipher(bench: Workbench) -> Findings:
    """
    Measure a host whose cipher is the one in Python, as where there was no compiler.
    """
    case = Case("kept", 6, CONNECTIONS)
    bench.tell("the cipher in Python")
    host = bench.special_host("Python cipher", environment=PYTHON_CIPHER)
    samples = bench.in_turn({"host": Side(host, case)})["host"]
    return Findings(values={"python-rate": typical(samples, "rate")})


def idle(bench: Workbench, many: int = MANY) -> Findings:
    """
    Compare the cost of an answer with many idle connections, all of them bound, and with few.

    Two hosts take turns, each with its connections open all the time.
    """
    findings = Findings()
    options = ("--idle-timeout", str(IDLE_TIMEOUT))
    hosts = [bench.special_host(f"{count} idle", options=options) for count in (FEW, many)]
    few_idle, many_idle = hosts
    bench.tell(f"{FEW} and {many} idle connections")
    exchange = bench.exchange(6)
    with (
        bench.load.held(few_idle.port, exchange, connections=FEW, bound=True),
        bench.load.held(many_idle.port, exchange, connections=many, bound=True),
    ):
        for mode in MODES:
            case = Case(mode, 6, CONNECTIONS)
            samples = bench.in_turn({host.port: Side(host, case) for host in hosts})
            base, measured = (samples[host.port] for host in hosts)
            findings.add(Comparison(case, FEW_IDLE, base, measured))
            if many != MANY:
                findings.notes[f"{mode}-idle"] = f"with {many} instead of {MANY}"
    return findings


def memory(bench: Workbench, count: int = MANY) -> Findings:
    """
    Measure what an idle connection costs in resident memory: one that is merely connected, and one that is bound.

    The figure is that of the second half of the connections, because the first ones use up what was left over from
    the start of the host.
    """
    findings = Findings()
    half = count // 2
    for state, bound in (("connected", False), ("bound", True)):
        bench.tell(f"memory of {count} idle connections, {state}")
        # Each time another host, for memory that was used once is not always given back.
        host = bench.special_host(f"{count} {state}")
        for mode in MODES:
            bench.warm_up(host, Case(mode, 6, CONNECTIONS))
        resident = [host.resident()]
        with ExitStack() as held:
            for _ in range(2):
                held.enter_context(
                    bench.load.held(host.port, bench.exchange(6), connections=half, bound=bound)
                )
                _wait_for_descriptors(host, half * len(resident))
                resident.append(host.resident())
        none, some, all_of_them = resident
        key = f"{state}-memory"
        findings.values[key] = (all_of_them - some) / half / _KIB
        total = (all_of_them - none) / _KIB / _KIB
        findings.notes[key] = f"the second half of {2 * half}, which take {total:.1f} MiB together"
    return findings


def _wait_for_descriptors(host: Host, count: int) -> None:
    """
    Wait until a host itself has so many connections, for the kernel accepts them before it does.
    """
    host.wait_for(f"{count} idle connections", lambda: host.descriptors() >= count)


def growth(bench: Workbench, answers: int = ALL_ANSWERS) -> Findings:
    """
    Compare the resident memory of a host after many answers with that after a tenth of them.

    One half of each step are fresh exchanges, for connections leave more behind than calls.
    """
    host = bench.special_host("growth")
    step = answers // STEPS
    resident = []
    for number in range(1, STEPS + 1):
        for mode in MODES:
            bench.run(host, Case(mode, 6, CONNECTIONS), seconds=AMPLE, answers=step // len(MODES))
        resident.append(host.resident())
        bench.tell(f"{number * step} answers: {resident[-1] / _KIB / _KIB:.1f} MiB")
    first, last = (each / _KIB / _KIB for each in (resident[0], resident[-1]))
    return Findings(
        values={"growth": last / first},
        notes={"growth": f"{step}: {first:.1f} MiB, {STEPS * step}: {last:.1f} MiB"},
    )


def loss(bench: Workbench) -> Findings:
    """
    Kill one of two workers under load, and see how the host gets on.

    The exchanges that the worker had in hand are broken, which is no mistake of the host's; an answer that is wrong
    would be one.
    """
    if not bench.has_workers:
        return Findings(omitted=["the loss of a worker: twistd kms has no option --workers here"])
    bench.tell("a worker is killed")
    case = Case("fresh", 6, CONNECTIONS, 2)
    host = bench.special_host("loss", workers=2, killed=True)
    bench.warm_up(host, case)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(
            bench.load.run,
            host.port,
            bench.exchange(case.version),
            mode=case.mode,
            connections=case.connections,
            seconds=BEFORE + AFTER,
        )
        time.sleep(BEFORE)
        before = host.children()
        os.kill(min(before), signal.SIGKILL)
        killed = time.monotonic()
        back = _wait_for_another(host, before, killed + AFTER)
        result = running.result()
    findings = Findings(values={"worker-wrong": float(result.wrong)})
    if result.wrong or result.unanswered:
        bench.troubles.append(f"while a worker was killed: {result.problem}")
    if result.broken > case.connections:
        bench.troubles.append(f"{result.broken} connections broke when a worker was killed")
    findings.values["worker-back"] = back - killed
    findings.notes["worker-back"] = (
        f"{result.answers} answers, {result.broken} broken connections,"
        f" at most {result.longest_pause_ms:.0f} ms without an answer"
    )
    if back >= killed + AFTER:
        findings.notes["worker-back"] = "it was not replaced while the load lasted"
    return findings


def _wait_for_another(host: Host, before: set[int], end: float) -> float:
    """
    Wait until a worker that was not there before has a connection in hand.

    Those of the load are too short to be seen, so at each look another one is opened, and kept.

    @return: When that was, or C{end} if it never was.
    """
    with ExitStack() as kept:
        while (now := time.monotonic()) < end:
            kept.enter_context(socket.create_connection(("127.0.0.1", host.port), AFTER))
            if any(host.serves(pid) for pid in host.children() - before):
                return now
            time.sleep(INTERVAL)
    return end


def targets(bench: Workbench, answers: int = ALL_ANSWERS, idle_connections: int = MANY) -> Findings:
    """
    Measure everything that there is a target for.
    """
    findings = compare(bench, AIMED_AT)
    findings.merge(python_cipher(bench))
    findings.merge(idle(bench, idle_connections))
    findings.merge(memory(bench, idle_connections))
    findings.merge(loss(bench))
    findings.merge(growth(bench, answers))
    return findings
