"""
The command C{python -m benchmarks.micro}: all operations, measured with pyperf.

pyperf starts this command again and again, since one process differs from the next, and takes all options of its own
here: C{--fast} for a first look, C{--rigorous} for the opposite, C{-o FILE} to keep the results, which
C{python -m pyperf compare_to} compares with those of another day.
"""

from __future__ import annotations

import argparse

import pyperf  # type: ignore[import-untyped]  # it has no annotations

from benchmarks.operations import operations
from kmsproto.kms.rijndael import VARIABLE

#: Processes for each operation.  pyperf's own 20 would take a quarter of an hour.
PROCESSES = 5


def _hand_on(command: list[str], arguments: argparse.Namespace) -> None:
    """
    Add our own option to the command that pyperf starts its processes with.
    """
    command.extend(["--only", arguments.only])


def main() -> None:
    """
    Measure.
    """
    runner = pyperf.Runner(
        processes=PROCESSES,
        program_args=("-m", "benchmarks.micro"),
        add_cmdline_args=_hand_on,
    )
    # The processes see none of our variables but these.
    runner.argparser.set_defaults(inherit_environ=[VARIABLE, "PYTHONPATH"])
    runner.argparser.add_argument(
        "--only", default="", metavar="TEXT", help="only operations whose name has this text in it"
    )
    arguments = runner.parse_args()
    for operation in operations():
        if arguments.only in operation.name:
            runner.bench_func(operation.name, operation.run)


if __name__ == "__main__":
    main()
