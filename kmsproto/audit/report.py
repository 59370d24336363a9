"""
What came of an audit as a whole: counted, put in order, and in a form that programs read.

The forms for people, text and page, are made elsewhere from the same L{Report}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kmsproto.audit.model import WORDS, Area, Level, Outcome, Result, Verdict
from kmsproto.findings import Finding, Severity

#: How a count of each word is written: for one, and for another number.
_COUNTED = {
    "fails": ("failure", "failures"),
    "warning": ("warning", "warnings"),
    "note": ("note", "notes"),
    "undecided": ("undecided", "undecided"),
    "not tried": ("not tried", "not tried"),
    "noted": ("remark", "remarks"),
    "not applicable": ("not applicable", "not applicable"),
    "passed": ("passed", "passed"),
}
#: What leaves it open whether a rule is kept.
_OPEN = (Outcome.UNDECIDED, Outcome.NOT_TRIED)


@dataclass(frozen=True, slots=True)
class Report:
    """
    An audit that is done.

    @ivar target: The host, as the user named it.
    @ivar address: The address that was talked to.
    @ivar started: When it began, POSIX seconds.
    @ivar seconds: How long it took.
    @ivar results: What came of each case, in their order.
    @ivar lost: Whether the host was given up, for it could not be reached any more.
    @ivar lost_after: The name of the case that it was lost after; empty if it was not lost, or after none.
    """

    target: str
    address: str
    started: float
    seconds: float
    results: tuple[Result, ...]
    lost: bool = False
    lost_after: str = ""

    @property
    def conforms(self) -> bool | None:
        """
        Whether no rule was broken that every host must keep; L{None} if none was, but not all of
        them could be tried.
        """
        if any(result.severity is Severity.ERROR for result in self.results):
            return False
        undecided = any(
            result.case.level is Level.MUST and result.verdict.outcome in _OPEN
            for result in self.results
        )
        return None if undecided or self.lost else True

    @property
    def counts(self) -> dict[str, int]:
        """
        How many cases there are of each word, the worst first; words that never occur are left out.
        """
        found = Counter(result.word for result in self.results)
        return {word: found[word] for word in WORDS if found[word]}

    def areas(self) -> Iterator[tuple[Area, list[Result]]]:
        """
        Go through the results area by area.
        """
        for area in Area:
            results = [result for result in self.results if result.case.area is area]
            if results:
                yield area, results

    def findings(self) -> list[Finding]:
        """
        List the rules that were broken, in the order of the cases.
        """
        return [found for result in self.results if (found := result.finding()) is not None]

    def summary(self) -> str:
        """
        Say what came of it, in one line without full stop.
        """
        counted = ", ".join(
            f"{count} {_COUNTED[word][count != 1]}" for word, count in self.counts.items()
        )
        total = len(self.results)
        after = f" after {self.lost_after}" if self.lost_after else ""
        lost = f"; the host could not be reached any more{after}" if self.lost else ""
        return f"{total} {'case' if total == 1 else 'cases'}: {counted}{lost}"

    def to_json(self) -> dict[str, object]:
        """
        Turn it into what JSON can say.
        """
        return {
            "target": self.target,
            "address": self.address,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "conforms": self.conforms,
            "lost": self.lost,
            "lost_after": self.lost_after or None,
            "counts": self.counts,
            "cases": [result.to_json() for result in self.results],
        }


def explained(result: Result) -> bool:
    """
    Tell whether a reader of a report wants to see more of a result than its name.

    What was not tried all has the same reason, which the end of the report tells.
    """
    return result.verdict.outcome not in (Outcome.PASSED, Outcome.NOT_TRIED)


def not_tried(why: str) -> Verdict:
    """
    Make the verdict on a case that was never begun.
    """
    return Verdict(Outcome.NOT_TRIED, f"was not asked: {why}")
