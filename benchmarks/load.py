"""
The load generator, from here: compiled where it is needed, run, and its result read.

The program is C{load.c}, which tells what it does and what it counts as an answer.  It is C because it shares the
machine with what it measures: what it needs itself must be small.  It is compiled anew at each start, which takes less
than a second and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exchanges import Exchange
from benchmarks.processes import PATIENCE, BenchmarkError

SOURCE = Path(__file__).with_name("load.c")
#: Bounds of one run, in case that nobody sets others.
MAX_ANSWERS = 2_000_000
#: Addresses 127.0.0.1, 127.0.0.2, … that held connections come from, so that no host meets more from one of them
#: than it allows by default, and the ports suffice.
SOURCES = 20
#: Seconds that connections are held at most.
MAX_HELD_SECONDS = 1800
#: Modes of use: a connection for each exchange, or calls on connections that stay open.
MODES = ("fresh", "kept")


@dataclass(slots=True, frozen=True)
class LoadResult:
    """
    What a run of the load generator has met.

    @ivar answers: Good answers.
    @ivar wrong: Answers that are none, or not as they must be.
    @ivar broken: Connections that were refused, reset or closed too early.
    @ivar unanswered: Exchanges that were given up.
    @ivar seconds: From the first connection to the last answer.
    @ivar p50_ms: Latency in milliseconds: half of the exchanges took no longer.
    @ivar p99_ms: The same of 99 in 100.
    @ivar max_ms: The longest of all.
    @ivar longest_pause_ms: The longest time without any answer, in milliseconds.
    @ivar answer_length: Bytes of the response PDU, which is the same for all answers.
    @ivar problem: The first problem in words; else empty.
    """

    answers: int
    wrong: int
    broken: int
    unanswered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    longest_pause_ms: float
    answer_length: int
    problem: str

    @property
    def failures(self) -> int:
        """
        How many exchanges did not end with a good answer.
        """
        return self.wrong + self.broken + self.unanswered

    @property
    def rate(self) -> float:
        """
        Answers per second.
        """
        return self.answers / self.seconds if self.seconds else 0.0


def parse_result(text: str) -> LoadResult:
    """
    Read what the load generator prints.

    @raise BenchmarkError: If it is something else.
    """
    try:
        return LoadResult(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise BenchmarkError(f"the load generator printed {text!r}: {error}") from error


def find_compiler() -> str | None:
    """
    Find a C compiler: C{$CC}, or the first of the usual names.
    """
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compile_load(directory: Path) -> Path:
    """
    Compile the load generator.

    @param directory: Where to.
    @return: The program.
    @raise BenchmarkError: If there is no compiler, or it does not succeed.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BenchmarkError(
            "no C compiler was found, and the load generator is a C program; install one"
            " (on Debian: apt-get install gcc libc6-dev), or name it in the environment variable CC"
        )
    program = directory / "load"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{result.stderr}")
    return program


class LoadGenerator:
    """
    Runs the program.

    @param directory: Where the program and its exchanges are kept.
    @param orderly: Whether connections are closed as clients do it, with a FIN from both sides.  By default the load
        generator resets them, since each closed connection would keep a port of its side for a minute.
    @raise BenchmarkError: If the program cannot be compiled.
    """

    def __init__(self, directory: Path, *, orderly: bool = False) -> None:
        self._directory = directory
        self._orderly = orderly
        self._program = compile_load(directory)

    def _command(self, mode: str, port: int, exchange: Exchange, connections: int) -> list[str]:
        path = self._directory / f"exchange-{exchange.version}"
        path.write_text("".join(f"{pdu.hex()}\n" for pdu in exchange.questions), encoding="ascii")
        return [
            str(self._program),
            *("--mode", mode),
            *("--port", str(port)),
            *("--exchange", str(path)),
            *("--connections", str(connections)),
        ]

    def run(
        self,
        port: int,
        exchange: Exchange,
        *,
        mode: str,
        connections: int,
        seconds: float,
        answers: int = MAX_ANSWERS,
    ) -> LoadResult:
        """
        Ask until so many seconds or answers are over.

        @param port: Of a server on 127.0.0.1.
        @param mode: One of L{MODES}.
        @param connections: How many are open at a time.
        @raise BenchmarkError: If the load generator itself fails.
        """
        command = self._command(mode, port, exchange, connections)
        command += ["--seconds", str(seconds), "--answers", str(answers)]
        if self._orderly:
            command += ["--orderly", "--sources", str(SOURCES)]
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
            check=False,
        )
        if result.stderr:
            raise BenchmarkError(result.stderr.strip())
        return parse_result(result.stdout)

    @contextmanager
    def held(
        self, port: int, exchange: Exchange, *, connections: int, bound: bool
    ) -> Iterator[None]:
        """
        Hold connections open, and leave them alone.

        @param bound: Whether to bind on each, or merely to connect.
        @raise BenchmarkError: If they cannot be opened, or one is closed while it is held.
        """
        command = self._command("hold", port, exchange, connections)
        command += ["--seconds", str(MAX_HELD_SECONDS), "--sources", str(SOURCES)]
        if bound:
            command.append("--bind")
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                _check_held(process.stdout.readline(), connections)
                yield
                process.stdin.close()
                _check_held(process.stdout.readline(), connections)
            finally:
                process.kill()


def _check_held(line: str, wanted: int) -> None:
    """
    @raise BenchmarkError: If fewer connections are held than were wanted.
    """
    try:
        held = json.loads(line)["held"]
    except (ValueError, KeyError) as error:
        raise BenchmarkError(line.strip() or "the load generator has ended") from error
    if held != wanted:
        raise BenchmarkError(f"{held} of {wanted} idle connections are open: {line.strip()}")
