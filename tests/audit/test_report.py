"""
The report of an audit, and the page of the documentation that lists its cases.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import CASES, choose
from kmsproto.audit.model import (
    WORDS,
    Area,
    Outcome,
    Result,
    Verdict,
    failed,
    noted,
    passed,
)
from kmsproto.audit.reference import reference
from kmsproto.audit.report import Report, not_tried

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "audit-cases.rst"
MUST, SHOULD = choose(names=["bind.second", "bind.address"])[::-1]


def report(*verdicts: Verdict) -> Report:
    """
    Make a report of the first cases with these verdicts.
    """
    results = tuple(Result(case, verdict) for case, verdict in zip(CASES, verdicts, strict=False))
    return Report("kms.example:1688", "192.0.2.1:1688", 1772000000.0, 2.5, results)


class ReportTests(SynchronousTestCase):
    """
    What came of an audit.
    """

    def test_conforms(self) -> None:
        """
        Only a broken rule that every host must keep tells against a host.
        """
        good = report(passed("did"), noted("did"), Verdict(Outcome.NOT_APPLICABLE, "did"))
        self.assertIs(good.conforms, True)
        self.assertIs(report(passed("did"), passed("did"), failed("did")).conforms, False)
        warned = Report("", "", 0.0, 0.0, (Result(SHOULD, failed("did")),))
        self.assertTrue(warned.conforms)
        self.assertEqual(warned.counts, {"warning": 1})

    def test_undecided(self) -> None:
        """
        Nobody knows whether a host conforms that could not be asked everything, unless it broke a rule already.
        """
        self.assertIsNone(report(not_tried("why"), passed("did")).conforms)
        self.assertIs(report(passed("did"), not_tried("why")).conforms, True)
        self.assertIs(report(failed("did"), not_tried("why")).conforms, False)
        lost = Report("", "", 0.0, 0.0, (Result(SHOULD, passed("did")),), lost=True)
        self.assertIsNone(lost.conforms)

    def test_summary(self) -> None:
        """
        The summary counts the verdicts, the worst first, in words for one and for more.
        """
        self.assertEqual(
            report(passed("did"), failed("did"), passed("did"), not_tried("why")).summary(),
            "4 cases: 1 warning, 1 not tried, 2 passed",
        )
        self.assertEqual(report(failed("did")).summary(), "1 case: 1 failure")
        lost = replace(report(passed("did")), lost=True)
        self.assertEqual(lost.summary(), "1 case: 1 passed; the host could not be reached any more")
        after = replace(lost, lost_after="bind.second").summary()
        self.assertTrue(after.endswith(" any more after bind.second"), after)
        self.assertEqual(
            report(failed("did"), passed(""), failed("did")).summary()[:19], "3 cases: 2 failures"
        )

    def test_areas(self) -> None:
        """
        Results stand together by area, in the order of the areas.
        """
        results = tuple(Result(case, passed("did")) for case in CASES)
        grouped = list(Report("", "", 0.0, 0.0, results).areas())
        self.assertEqual([area for area, _ in grouped], list(Area))
        self.assertEqual(sum(len(group) for _, group in grouped), len(CASES))

    def test_findings(self) -> None:
        """
        The rules that were broken are findings.
        """
        findings = report(passed("did"), failed("did it"), failed("did that")).findings()
        self.assertEqual(
            [found.problem for found in findings], ["the host did it", "the host did that"]
        )

    def test_json(self) -> None:
        """
        A report is JSON.
        """
        told = json.loads(json.dumps(report(passed("did"), failed("broke it")).to_json()))
        self.assertEqual(told["target"], "kms.example:1688")
        self.assertEqual(told["counts"], {"warning": 1, "passed": 1})
        self.assertEqual(
            {name: told["cases"][1][name] for name in ("case", "verdict", "did", "level")},
            {
                "case": CASES[1].name,
                "verdict": "warning",
                "did": "broke it",
                "level": CASES[1].level.value,
            },
        )

    def test_not_tried(self) -> None:
        """
        A case that was never begun is told as such, and says why.
        """
        self.assertEqual(not_tried("no time"), (Outcome.NOT_TRIED, "was not asked: no time"))

    def test_killed(self) -> None:
        """
        What a host does not survive counts as much as anything can, whatever the level of the rule.
        """
        result = Result(SHOULD, passed("did it")).killed("was gone")
        self.assertEqual((result.word, result.verdict.did), ("fails", "did it, and then was gone"))
        self.assertIs(Report("", "", 0.0, 0.0, (result,)).conforms, False)

    def test_words(self) -> None:
        """
        Every verdict has a word that is counted.
        """
        for case in (MUST, SHOULD):
            for outcome in Outcome:
                self.assertIn(Result(case, Verdict(outcome, "did")).word, WORDS)


class ReferenceTests(SynchronousTestCase):
    """
    The page that lists the cases.
    """

    def test_page(self) -> None:
        """
        The page in the documentation is what C{kmsproto audit --reference} prints.
        """
        self.assertEqual(PAGE.read_text(encoding="utf-8"), reference(CASES))

    def test_complete(self) -> None:
        """
        It has every case, under a heading for each area, and no line is too long.
        """
        lines = reference(CASES).splitlines()
        for case in CASES:
            self.assertIn(f"``{case.name}`` ({case.level.value})", lines)
        for area in Area:
            self.assertIn(area.title, lines)
        self.assertLessEqual(max(map(len, lines)), 120)
