"""
What kmsproto wants to reach: one table, printed beside what was measured.

A target is a figure and its limit.  Nothing fails when one is missed, because a figure depends on the machine, on the
Python, and on what else goes on; whoever reads the table judges.  Most are ratios to L{the floor<benchmarks.floor>}.
Those of processor time come from a C daemon with a thread for each connection, measured beside such a floor: where
they are met, the host needs no more of a core for an answer than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.figures import Comparison

#: What comparisons are made against.
FLOOR, V6, FEW_IDLE = "floor", "v6", "10 idle"
#: Connections at a time wherever a target does not say otherwise.
CONNECTIONS = 16


class Target(NamedTuple):
    """
    A figure that is to be reached.

    @ivar key: Names the figure.
    @ivar what: Tells it to a reader.
    @ivar at_least: Whether more is better.
    @ivar limit: The figure.
    @ivar unit: What stands behind it; empty for a ratio.
    """

    key: str
    what: str
    at_least: bool
    limit: float
    unit: str = ""

    def met(self, value: float) -> bool:
        """
        Tell whether a value reaches the target.
        """
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS: tuple[Target, ...] = (
    Target("fresh-rate", "fresh v6: answers per second / floor", True, 0.80),
    Target("kept-rate", "kept v6: answers per second / floor", True, 0.55),
    Target("fresh-rate-v4", "fresh v4: answers per second / v6", True, 1.0),
    Target("fresh-rate-v5", "fresh v5: answers per second / v6", True, 1.0),
    Target("kept-rate-v4", "kept v4: answers per second / v6", True, 1.0),
    Target("kept-rate-v5", "kept v5: answers per second / v6", True, 1.0),
    Target("fresh-processor", "fresh v6: processor time per answer / floor", False, 1.18),
    Target("kept-processor", "kept v6: processor time per answer / floor", False, 1.9),
    Target("two-workers", "fresh v6, 2 workers: answers per second / floor", True, 1.25),
    Target("fresh-p99", "fresh v6: p99 of the latency / floor", False, 1.4),
    Target("python-rate", "kept v6, cipher in Python: answers per second", True, 1200, "/s"),
    Target("fresh-idle", "fresh v6: processor time, 10000 idle / 10 idle", False, 1.1),
    Target("kept-idle", "kept v6: processor time, 10000 idle / 10 idle", False, 1.1),
    Target("connected-memory", "memory per idle connection, connected", False, 6.0, "KiB"),
    Target("bound-memory", "memory per idle connection, bound", False, 6.0, "KiB"),
    Target("growth", "memory after 1000000 answers / after 100000", False, 1.05),
    Target("worker-back", "a killed worker is replaced after", False, 2.0, "s"),
    Target("worker-wrong", "wrong answers while a worker is killed", False, 0),
)


class Verdict(NamedTuple):
    """
    A target, and what was measured.

    @ivar value: The figure; L{None} if it was not measured.
    @ivar note: Why not; else whatever explains the figure, perhaps nothing.
    """

    target: Target
    value: float | None
    note: str = ""

    @property
    def word(self) -> str:
        """
        Say how it stands.
        """
        if self.value is None:
            return "not measured"
        return "met" if self.target.met(self.value) else "missed"


def values_of(comparison: Comparison) -> dict[str, float]:
    """
    Tell which targets a comparison has something to say about, and what.

    @return: Figures by key.
    """
    mode, version, connections, workers = comparison.case
    if connections != CONNECTIONS:
        return {}
    rate, processor = comparison.ratio("rate"), comparison.ratio("processor_us")
    if comparison.against == V6:
        return {f"{mode}-rate-v{version}": rate}
    if comparison.against == FEW_IDLE:
        return {f"{mode}-idle": processor}
    if version != 6:
        return {}
    if workers == 2:
        return {"two-workers": rate} if mode == "fresh" else {}
    values = {f"{mode}-rate": rate, f"{mode}-processor": processor}
    return values | ({"fresh-p99": comparison.ratio("p99_ms")} if mode == "fresh" else {})


def judge(values: Mapping[str, float], notes: Mapping[str, str]) -> list[Verdict]:
    """
    Set what was measured beside each target, in the order of the table.

    @param values: Figures by key.
    @param notes: Remarks by key.
    """
    return [
        Verdict(target, values.get(target.key), notes.get(target.key, "")) for target in TARGETS
    ]
