"""
The workbench: the servers that run, the load that they get, and the samples that come of it.

A server is started when it is first needed and stays until the end, since one that is not asked costs nothing; so a
round can go from one to the other at once.  The first time that a server is asked in some way, that run is a warm-up
and is thrown away.

Whatever is not a good answer is a trouble, which is kept and told at the end: measuring goes on, but the figures
are not to be trusted.  When a host is stopped, its log must have one line for each answer that was counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from benchmarks.exchanges import Exchange, load_exchange
from benchmarks.figures import Case, Sample
from benchmarks.load import MAX_ANSWERS, LoadGenerator, LoadResult
from benchmarks.processes import CLOCK_TICK, BenchmarkError, Floor, Host, Server, has_option
from kmsproto.kms import rijndael

#: Seconds of a warm-up at most; with workers each of them has to get its share.
WARM_UP = 0.5
#: What makes a host use the cipher in Python.
PYTHON_CIPHER = {rijndael.VARIABLE: "Python"}

_Key = TypeVar("_Key")


class Side(NamedTuple):
    """
    A server, and how it is asked.
    """

    server: Server
    case: Case


class Workbench:
    """
    Runs servers and measures them; a context manager, at whose end all of them are gone.

    @param seconds: How long a server is asked for one sample.
    @param rounds: How many samples are taken of each side of a comparison.
    @param orderly: Whether the load generator closes connections instead of resetting them.
    @param tell: Is told what goes on, a line at a time.
    @ivar troubles: Everything that went wrong.
    """

    def __init__(
        self, *, seconds: float, rounds: int, orderly: bool, tell: Callable[[str], object]
    ) -> None:
        self.seconds = seconds
        self.rounds = rounds
        self.tell = tell
        self.troubles: list[str] = []
        self._orderly = orderly
        self._exit = ExitStack()
        self._floors: dict[int, Floor] = {}
        self._hosts: dict[tuple[object, ...], Host] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._warm: set[tuple[object, ...]] = set()
        self._count = 0
        self._directory: Path
        self.load: LoadGenerator
        #: Whether this C{twistd kms} can serve from several processes.
        self.has_workers = False

    def __enter__(self) -> Self:
        with self._exit as stack:
            self._directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="kmsproto-benchmarks-"))
            )
            self.load = LoadGenerator(self._directory, orderly=self._orderly)
            self.has_workers = has_option("--workers")
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.__exit__(kind, error, traceback)

    def exchange(self, version: int) -> Exchange:
        """
        Get the exchange of a protocol version.
        """
        if version not in self._exchanges:
            self._exchanges[version] = load_exchange(version)
        return self._exchanges[version]

    def _new_directory(self) -> Path:
        self._count += 1
        return self._directory / f"server-{self._count}"

    def floor(self, version: int) -> Floor:
        """
        Get the floor for a protocol version.
        """
        if version not in self._floors:
            floor = Floor(self._new_directory(), version)
            self._exit.callback(floor.stop)
            self._floors[version] = floor
        return self._floors[version]

    def host(self, workers: int = 1) -> Host:
        """
        Get a host that is as users have it.
        """
        return self.special_host("usual", workers=workers)

    def special_host(
        self,
        name: str,
        *,
        workers: int = 1,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        killed: bool = False,
    ) -> Host:
        """
        Get a host of its own for a purpose.

        @param name: The purpose.
        @param options: Further options of C{twistd kms}.
        @param environment: Environment variables to set.
        @param killed: Whether a part of it will be killed, so that lines may be missing in its log.
        """
        key = (name, workers)
        if key not in self._hosts:
            host = Host(
                self._new_directory(), workers=workers, options=options, environment=environment
            )
            self._exit.callback(self._stop_host, host, killed)
            self._hosts[key] = host
        return self._hosts[key]

    def _stop_host(self, host: Host, killed: bool) -> None:
        host.stop()
        granted = host.granted()
        if granted != host.answers and not killed:
            self.troubles.append(
                f"the log of the {host.name} tells of {granted} grants, and {host.answers} were received"
            )
        self.troubles.extend(f"the {host.name} logged: {line}" for line in host.troubles())

    def run(
        self,
        server: Server,
        case: Case,
        *,
        seconds: float | None = None,
        answers: int = MAX_ANSWERS,
    ) -> LoadResult:
        """
        Put load on a server.

        @param seconds: How long, if not as long as for a sample.
        @param answers: How many answers end it earlier.
        @raise BenchmarkError: If there is no answer at all.
        """
        result = self.load.run(
            server.port,
            self.exchange(case.version),
            mode=case.mode,
            connections=case.connections,
            seconds=self.seconds if seconds is None else seconds,
            answers=answers,
        )
        server.answers += result.answers
        if result.failures:
            self.troubles.append(
                f"the {server.name}, {case}: {result.wrong} wrong answers, {result.broken} broken connections,"
                f" {result.unanswered} unanswered; the first: {result.problem}"
            )
        if not result.answers:
            raise BenchmarkError(f"the {server.name} does not answer: {result.problem}")
        return result

    def warm_up(self, server: Server, case: Case) -> None:
        """
        Ask a server for the first time in this way, so that what happens once is not measured.
        """
        key = (server.port, case)
        if key not in self._warm:
            self._warm.add(key)
            self.run(server, case, seconds=min(WARM_UP, self.seconds))

    def sample(self, server: Server, case: Case) -> Sample:
        """
        Measure a server.
        """
        self.warm_up(server, case)
        before = server.processor_time()
        result = self.run(server, case)
        # After a very short run it may be too little to be told, but nothing is free.
        used = max(server.processor_time() - before, CLOCK_TICK)
        return Sample(result.rate, used / result.answers * 1e6, result.p50_ms, result.p99_ms)

    def in_turn(self, sides: Mapping[_Key, Side]) -> dict[_Key, tuple[Sample, ...]]:
        """
        Measure servers in turn: all of them in each round, in the order given, one immediately after the other.

        @param sides: What to measure, under names of the caller's.
        @return: The samples of each, one for a round.
        """
        for side in sides.values():
            self.warm_up(*side)
        samples: dict[_Key, tuple[Sample, ...]] = dict.fromkeys(sides, ())
        for _ in range(self.rounds):
            for key, side in sides.items():
                samples[key] += (self.sample(*side),)
        return samples
