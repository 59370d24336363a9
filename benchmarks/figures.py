"""
The figures: what was measured of one server, and of two side by side.

The absolute figures of a machine that does other things as well are worth little, for they change from one second to
the next; so nothing is compared but what was measured in turn.  A L{Comparison} is a number of rounds; in each, both
sides were measured immediately after one another, and the ratio of a figure is the I{median of the ratios of the
rounds}, not the ratio of two medians.  A round that something else disturbed then costs one of the ratios and not the
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

#: The names of the figures of a sample.
FIGURES = ("rate", "processor_us", "p50_ms", "p99_ms")


class Sample(NamedTuple):
    """
    What one run of the load generator showed of a server.

    @ivar rate: Answers per second.
    @ivar processor_us: Processor time of the server and its children for each answer, in microseconds, in user and
        system mode.
    @ivar p50_ms: Half of the exchanges took no longer than this, in milliseconds.
    @ivar p99_ms: The same of 99 in 100.
    """

    rate: float
    processor_us: float
    p50_ms: float
    p99_ms: float


class Case(NamedTuple):
    """
    How a server is asked.

    @ivar mode: C{"fresh"} or C{"kept"}.
    @ivar version: The protocol version.
    @ivar connections: Connections at a time.
    @ivar workers: Processes that serve, on the side that is measured.
    """

    mode: str
    version: int
    connections: int
    workers: int = 1

    def __str__(self) -> str:
        workers = "worker" if self.workers == 1 else "workers"
        return f"{self.mode} v{self.version} × {self.connections}, {self.workers} {workers}"


@dataclass(slots=True, frozen=True)
class Comparison:
    """
    One side beside another, in rounds.

    @ivar case: How the measured side was asked.
    @ivar against: What the other side is.
    @ivar base: The samples of the other side, one for each round.
    @ivar measured: The samples of the measured side, in the same rounds.
    """

    case: Case
    against: str
    base: tuple[Sample, ...]
    measured: tuple[Sample, ...]

    def ratio(self, figure: str) -> float:
        """
        Tell how often the figure of the other side goes into that of the measured one: the median of the rounds.

        @param figure: One of L{FIGURES}.
        """
        return median(self.ratios(figure))

    def ratios(self, figure: str) -> list[float]:
        """
        Tell the same for each round.
        """
        return [
            getattr(measured, figure) / getattr(base, figure)
            for base, measured in zip(self.base, self.measured, strict=True)
        ]


def typical(samples: Sequence[Sample], figure: str) -> float:
    """
    Get the median of a figure.
    """
    return float(median(getattr(sample, figure) for sample in samples))
