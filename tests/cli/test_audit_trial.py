"""
The cases of C{kmsproto audit} one after the other: time, hosts that do not survive a case, hosts that let nobody in.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import choose
from kmsproto.audit.model import Case, Level, Script, Step, UndecidedError, Verdict, define, passed
from kmsproto.audit.model import Result as CaseResult
from kmsproto.audit.replies import Closed, Noise, Silence
from kmsproto.audit.subject import Subject
from kmsproto.cli import audit_trial as trial
from kmsproto.cli.audit_trial import Trial
from kmsproto.errors import HostUnreachableError, KMSProtoError
from kmsproto.net.dialogue import Bounds
from tests.audit.memory import drive, subject


class RunTests(SynchronousTestCase):
    """
    Case after case.
    """

    def setUp(self) -> None:
        """
        Start the clock, and let a host be there whenever it is greeted.
        """
        self.clock = Clock()
        self.told: list[Case] = []
        self.greetings: list[Any] = []
        self.patch(trial, "carry_out", self.carry_out)

    def carry_out(
        self, clock: Any, endpoint: Any, script: Script[Any], bounds: Bounds
    ) -> Deferred[Any]:
        """
        Stand for the runner: a greeting comes to what was prepared, and a case to what it says.
        """
        if script.gi_code.co_name != "greet":
            return succeed(drive(script, lambda step: b""))
        script.close()
        outcome = self.greetings.pop(0) if self.greetings else Noise(b"")
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)

    def run_cases(self, *cases: Case, limit: float = 100.0) -> list[CaseResult]:
        """
        Try cases, with as much time as that takes.
        """
        self.trial = Trial(self.clock, None, subject(), Bounds(), limit, self.told.append)
        done = Deferred.fromCoroutine(self.trial.run(cases))
        for _ in range(400):
            if done.called:
                break
            self.clock.advance(0.25)
        return self.successResultOf(done)

    def case(
        self, name: str = "a", *verdicts: Verdict | KMSProtoError, seconds: float = 0.0
    ) -> Case:
        """
        Make a case that takes some time and comes to one verdict after the other.
        """
        waiting = list(verdicts)

        def body(known: Subject) -> Script[Verdict]:
            self.clock.advance(seconds)
            outcome = waiting.pop(0) if waiting else passed("did it")
            if isinstance(outcome, HostUnreachableError):
                raise outcome
            yield Step("connect", 0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return define(f"bind.{name}", "3", Level.WINDOWS, "title", "Rule.", "C706")(body)

    def test_told(self) -> None:
        """
        Each case is told when it is done with, and the results come in the order of the cases.
        """
        cases = choose(names=["bind.shared-id", "bind.second"])
        results = self.run_cases(*cases)
        self.assertEqual([result.case for result in results], list(cases))
        self.assertEqual([case.name for case in self.told], ["bind.second", "bind.shared-id"])

    def test_limit(self) -> None:
        """
        When the time is over no further case is begun, and those that are left say so.
        """
        names = [self.case(name, seconds=60) for name in "abc"]
        results = self.run_cases(*names, limit=100)
        self.assertEqual([result.word for result in results], ["passed", "passed", "not tried"])
        self.assertIn("the audit took more than 100 seconds", results[-1].verdict.did)
        self.assertFalse(self.trial.lost)

    def test_lost_after(self) -> None:
        """
        The case that a host does not survive fails whatever its level is, and the others are not tried.
        """
        self.greetings = [HostUnreachableError("no connection: refused")] * 100
        nobody = HostUnreachableError("no connection: refused")
        results = self.run_cases(self.case("a"), self.case("b", nobody), self.case("c"))
        self.assertLess(self.clock.seconds(), 10)
        self.assertEqual([each.word for each in results], ["fails", "not tried", "not tried"])
        self.assertEqual(
            results[0].verdict.did,
            "did it, and then could not be reached any more (no connection: refused)",
        )
        self.assertEqual((self.trial.lost, self.trial.lost_after), (True, "bind.a"))
        self.assertIn("the host was lost after bind.a", results[2].verdict.did)

    def test_lost_within(self) -> None:
        """
        Where a connection was made first, it is that case that the host did not survive.
        """
        self.greetings = [HostUnreachableError("no connection: refused")] * 100
        closed = UndecidedError("closed the connection")
        results = self.run_cases(self.case("a"), self.case("b", closed), self.case("c"))
        self.assertEqual([each.word for each in results], ["passed", "fails", "not tried"])
        self.assertEqual(self.trial.lost_after, "bind.b")
        self.assertTrue(results[1].to_json()["fatal"])

    def test_back(self) -> None:
        """
        A host that comes back is asked on, the case that did not find it once more.
        """
        self.greetings = [Silence(5.0)] * 3
        undecided = UndecidedError("was silent")
        results = self.run_cases(self.case("a"), self.case("b", undecided), self.case("c"))
        self.assertEqual([each.word for each in results], ["fails", "passed", "passed"])
        self.assertRegex(
            results[0].verdict.did, "did not answer any more, until it was back after 0.7|0.8"
        )
        self.assertFalse(self.trial.lost)

    def test_kept_out(self) -> None:
        """
        A host that refuses many connections in a short time is given time, and nothing is held against it.
        """
        self.greetings = [Closed()] * 4
        undecided = UndecidedError("closed the connection")
        before = self.clock.seconds()
        results = self.run_cases(self.case("a"), self.case("b", undecided), self.case("c"))
        self.assertEqual([each.word for each in results], ["passed"] * 3)
        self.assertGreater(self.clock.seconds() - before, 1.0)

    def test_never_let_in(self) -> None:
        """
        One that lets nobody in any more is given up, without blame.
        """
        self.greetings = [Closed()] * 100
        results = self.run_cases(self.case("a"), self.case("b", UndecidedError("closed")))
        self.assertEqual([each.word for each in results], ["passed", "not tried"])
        self.assertEqual((self.trial.lost, self.trial.lost_after), (True, "bind.a"))

    def test_lost_in_silence(self) -> None:
        """
        A host that was just seen and says nothing from the first word of a case on did not survive that case.
        """
        self.greetings = [Noise(b""), *[Silence(5.0)] * 100]
        undecided = UndecidedError("was silent")
        perilous = self.case("first-request-65535", undecided)
        results = self.run_cases(self.case("a"), perilous, self.case("b"))
        self.assertEqual([each.word for each in results], ["passed", "fails", "passed"])
        self.assertEqual(self.trial.lost_after, "bind.first-request-65535")

    def test_lost_in_the_first(self) -> None:
        """
        That goes for the first case as well, for nobody audits a host that was not met.
        """
        self.greetings = [Silence(5.0)] * 100
        results = self.run_cases(self.case("a", UndecidedError("was silent")), self.case("b"))
        self.assertEqual([each.word for each in results], ["fails", "not tried"])
        self.assertEqual(self.trial.lost_after, "bind.a")
