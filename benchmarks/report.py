"""
What is shown at the end: one table for people, or a document for programs that keep a history.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from benchmarks.figures import FIGURES, Comparison, typical
from benchmarks.selections import Findings
from benchmarks.targets import Verdict
from kmsproto.kms import rijndael

#: The version of the layout of the document.
DOCUMENT_VERSION = 1

_HEADINGS = (
    *(("", name) for name in ("mode", "KMS", "conns", "workers", "against")),
    *(("answers/s", "base"), ("", "host"), ("", "ratio")),
    *(("CPU µs/answer", "base"), ("", "host"), ("", "ratio")),
    *(("p50 ms", "base"), ("", "host"), ("", "ratio")),
    *(("p99 ms", "base"), ("", "host"), ("", "ratio")),
)
_LEFT = (0, 4)


@dataclass(slots=True, frozen=True)
class Environment:
    """
    What the figures depend on, beside the code.
    """

    kmsproto: str
    cipher: str
    python: str
    twisted: str
    machine: str
    processors: int

    def __str__(self) -> str:
        return (
            f"kmsproto {self.kmsproto}, cipher: {self.cipher}; Python {self.python}, Twisted {self.twisted};"
            f" {self.machine}, {self.processors} processors"
        )


def environment() -> Environment:
    """
    Look around.
    """
    return Environment(
        metadata.version("kmsproto"),
        rijndael.IMPLEMENTATION,
        platform.python_version(),
        metadata.version("twisted"),
        f"{platform.system()} {platform.machine()}",
        len(os.sched_getaffinity(0)),
    )


def _align(rows: Sequence[Sequence[str]], left: Iterable[int]) -> list[str]:
    """
    Lay out cells in columns, those of numbers to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _number(value: float) -> str:
    """
    Write a number with three digits or more.
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def comparison_table(comparisons: Sequence[Comparison]) -> list[str]:
    """
    Lay out comparisons: for each figure both sides, and the ratio.

    @return: Lines.
    """
    upper, lower = zip(*_HEADINGS, strict=True)
    rows: list[Sequence[str]] = [lower]
    for each in comparisons:
        mode, version, connections, workers = each.case
        row = [mode, f"v{version}", str(connections), str(workers), each.against]
        for figure in FIGURES:
            row += [
                _number(typical(each.base, figure)),
                _number(typical(each.measured, figure)),
                f"{each.ratio(figure):.2f}",
            ]
        rows.append(row)
    lines = _align(rows, _LEFT)
    # A heading above three columns begins where the first of them does.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading = ""
    for index, text in enumerate(upper):
        start = sum(widths[:index]) + 2 * index
        heading = heading.ljust(start) + text if text else heading
    return [heading, *lines]


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """
    Lay out targets beside what was measured.

    @return: Lines.
    """
    rows = [("figure", "measured", "", "target", "", "")]
    for value in verdicts:
        target = value.target
        measured = (
            "-" if value.value is None else f"{value.value:.{_digits(target.unit, value.value)}f}"
        )
        bound = "at least" if target.at_least else "at most"
        rows.append(
            (
                target.what,
                measured,
                target.unit,
                f"{bound} {target.limit:g}",
                value.word,
                value.note,
            )
        )
    return _align(rows, (0, 2, 3, 4, 5))


def _digits(unit: str, value: float) -> int:
    return 0 if value >= 100 or value == 0 else 1 if unit == "KiB" else 2


def render(findings: Findings, verdicts: Sequence[Verdict], where: Environment) -> str:
    """
    Write everything for people.
    """
    parts = [[str(where)]]
    if findings.comparisons:
        parts.append(comparison_table(findings.comparisons))
    if verdicts:
        parts.append(verdict_table(verdicts))
    if findings.omitted:
        parts.append([f"left out: {reason}" for reason in findings.omitted])
    return "\n\n".join("\n".join(part) for part in parts)


def document(
    selection: str,
    findings: Findings,
    verdicts: Sequence[Verdict],
    where: Environment,
    troubles: Sequence[str],
) -> dict[str, Any]:
    """
    Write everything for programs.

    @param selection: What was asked for.
    @param verdicts: The targets to show.
    @param troubles: What went wrong.
    @return: An object for JSON; all samples are in it.
    """
    return {
        "document_version": DOCUMENT_VERSION,
        "selection": selection,
        "environment": asdict(where),
        "comparisons": [
            {
                **each.case._asdict(),
                "against": each.against,
                "ratios": {figure: each.ratio(figure) for figure in FIGURES},
                "rounds": [
                    {"base": base._asdict(), "host": measured._asdict()}
                    for base, measured in zip(each.base, each.measured, strict=True)
                ],
            }
            for each in findings.comparisons
        ],
        "targets": [
            {
                "key": each.target.key,
                "figure": each.target.what,
                "at_least" if each.target.at_least else "at_most": each.target.limit,
                "unit": each.target.unit,
                "measured": each.value,
                "note": each.note,
            }
            for each in verdicts
        ],
        "omitted": findings.omitted,
        "troubles": list(troubles),
    }
