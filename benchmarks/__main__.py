"""
The command C{python -m benchmarks}.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import click

from benchmarks import selections
from benchmarks.processes import BenchmarkError
from benchmarks.report import document, environment, render
from benchmarks.selections import ALL_ANSWERS, MANY, MATRIX, QUICK, Findings
from benchmarks.targets import judge
from benchmarks.workbench import Workbench


class Settings(NamedTuple):
    """
    What the options of every selection say.
    """

    rounds: int
    seconds: float
    orderly: bool
    json_file: Path | None


def _options(rounds: int, seconds: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Add the options that every selection has, with defaults of its own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option(
                "--json",
                "json_file",
                type=click.Path(dir_okay=False, writable=True, path_type=Path),
                help="Also write everything, with all samples, to this file.",
            ),
            click.option(
                "--orderly",
                is_flag=True,
                help="Let the load close its connections as clients do; by default it resets them.",
            ),
            click.option(
                "--seconds",
                type=click.FloatRange(0.05, 30),
                default=seconds,
                show_default=True,
                help="How long a server is asked for one sample.",
            ),
            click.option(
                "--rounds",
                type=click.IntRange(1, 100),
                default=rounds,
                show_default=True,
                help="How many samples are taken of each side of a comparison.",
            ),
        ):
            function = option(function)
        return function

    return decorate


_idle_option = click.option(
    "--idle",
    type=click.IntRange(100, 100_000),
    default=MANY,
    show_default=True,
    help="How many connections are idle.",
)
_answers_option = click.option(
    "--answers",
    type=click.IntRange(1000, 10 * ALL_ANSWERS),
    default=ALL_ANSWERS,
    show_default=True,
    help="How many answers are asked for; they leave about 400 bytes each in a log, for a while.",
)


def _measure(
    selection: str,
    measure: Callable[[Workbench], Findings],
    settings: Settings,
    *,
    all_targets: bool = False,
) -> None:
    """
    Measure, and show what came out.

    @param all_targets: Whether to show the targets that were not measured, too.
    @raise click.ClickException: If it cannot be measured, or an answer was not as it must be.
    """
    # So that a kill, too, ends the servers.
    signal.signal(signal.SIGTERM, _terminate)
    bench = Workbench(
        seconds=settings.seconds,
        rounds=settings.rounds,
        orderly=settings.orderly,
        tell=lambda line: click.echo(line, err=True),
    )
    try:
        with bench:
            findings = measure(bench)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    where = environment()
    verdicts = judge(findings.values, findings.notes)
    if not all_targets:
        verdicts = [each for each in verdicts if each.value is not None]
    click.echo(render(findings, verdicts, where))
    if settings.json_file:
        text = json.dumps(document(selection, findings, verdicts, where, bench.troubles), indent=1)
        settings.json_file.write_text(text + "\n", encoding="utf-8")
    if bench.troubles:
        raise click.ClickException("these figures are worth nothing:\n" + "\n".join(bench.troubles))


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@click.group()
def main() -> None:
    """
    Measure a host beside the floor, the least that a Twisted server can do.

    A selection says what is measured.  Each starts its servers itself, on free ports of 127.0.0.1, and ends them.
    Nothing but a C compiler is needed.  Close what else is busy on this machine; docs/benchmarks.rst tells how to read
    the table.  The exit status says whether every answer was right, never how fast it came.
    """


@main.command()
@_options(rounds=5, seconds=0.7)
def quick(**options: Any) -> None:
    """
    Version 6, 16 connections, one worker: 15 seconds.
    """
    _measure("quick", lambda bench: selections.compare(bench, QUICK), Settings(**options))


@main.command()
@_options(rounds=3, seconds=1.5)
def full(**options: Any) -> None:
    """
    All versions, 1 to 256 connections, 2 workers: 5 minutes.
    """
    _measure("full", lambda bench: selections.compare(bench, MATRIX), Settings(**options))


@main.command()
@_options(rounds=5, seconds=1.5)
@_idle_option
@_answers_option
def targets(idle: int, answers: int, **options: Any) -> None:
    """
    What kmsproto wants to reach, and where it is: 5 minutes.
    """
    _measure(
        "targets",
        lambda bench: selections.targets(bench, answers, idle),
        Settings(**options),
        all_targets=True,
    )


@main.command()
@_options(rounds=5, seconds=1.5)
@_idle_option
def idle(idle: int, **options: Any) -> None:
    """
    The cost of an answer beside 10000 idle ones: 1 minute.
    """
    _measure("idle", lambda bench: selections.idle(bench, idle), Settings(**options))


@main.command()
@_options(rounds=1, seconds=1.0)
@_idle_option
def memory(idle: int, **options: Any) -> None:
    """
    The memory of an idle connection: 30 seconds.
    """
    _measure("memory", lambda bench: selections.memory(bench, idle), Settings(**options))


@main.command()
@_options(rounds=1, seconds=1.0)
@_answers_option
def growth(answers: int, **options: Any) -> None:
    """
    The memory after 1000000 answers: 2 minutes.
    """
    _measure("growth", lambda bench: selections.growth(bench, answers), Settings(**options))


@main.command()
@_options(rounds=1, seconds=1.0)
def loss(**options: Any) -> None:
    """
    What happens when one of two workers is killed: 10 seconds.
    """
    _measure("loss", selections.loss, Settings(**options))


@main.command(name="python-cipher")
@_options(rounds=5, seconds=1.5)
def python_cipher(**options: Any) -> None:
    """
    The rate where no cipher could be compiled: 10 seconds.
    """
    _measure("python-cipher", selections.python_cipher, Settings(**options))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
