"""
C{kmsproto probe} against every hostile host, on real sockets and as a process of its own.

Whatever a host does, the command ends in one line about it, within the time that it was given, and with the memory
that it needs anyway.  All of them are met once, a few at a time; the tests look at what came of it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.hostile_hosts import HOSTILE_HOSTS, Behaviour, serving
from tests.integration.processes import PATIENCE, environment, free_port, script

#: Commands that run at a time.
AT_A_TIME = 4
#: Seconds that a host has for each step.
TIMEOUT = 1
#: Statuses of a command that got no good answer.
FAILED = (1, 3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a command has ended.

    @ivar status: Its exit status; negative where a signal has ended it.
    @ivar output: Its standard output.
    @ivar problems: Its standard error.
    @ivar peak: The most memory that it had, in whatever unit the system counts.
    """

    status: int
    output: str
    problems: str
    peak: int


def run_probe(port: int, directory: Path) -> Outcome:
    """
    Probe a host of this machine; a command that hangs is killed.
    """
    with (
        tempfile.TemporaryFile("w+", dir=directory, encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", dir=directory, encoding="utf-8") as problems,
    ):
        process = subprocess.Popen(
            [*script("kmsproto"), "probe", f"127.0.0.1:{port}", "--timeout", str(TIMEOUT)],
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=problems,
        )
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        # Only wait4 tells what one child needed, and not the largest of all.
        _, status, usage = os.wait4(process.pid, 0)
        guard.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        problems.seek(0)
        return Outcome(process.returncode, output.read(), problems.read(), usage.ru_maxrss)


@cache
def meet_all() -> tuple[dict[str, Outcome], int]:
    """
    Probe every hostile host, once for all tests.

    @return: What came of each, and the most memory of a command that meets no host at all.
    """
    with tempfile.TemporaryDirectory(prefix="kms-") as name:
        directory = Path(name)

        def meet(behaviour: Behaviour) -> Outcome:
            with serving(behaviour) as port:
                return run_probe(port, directory)

        usual_peak = run_probe(free_port(), directory).peak
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            met = pool.map(meet, HOSTILE_HOSTS.values())
            return dict(zip(HOSTILE_HOSTS, met, strict=True)), usual_peak


class HostileHostTests(TestCase):
    """
    What came of it.
    """

    def setUp(self) -> None:
        """
        Meet them all, if that was not done.
        """
        self.outcomes, self.usual_peak = meet_all()

    def each(self, **attributes: bool) -> Iterator[tuple[Behaviour, Outcome, str]]:
        """
        Go through the hosts with these attributes.

        @return: What the host does, how the command has ended, and both in words.
        """
        for name, behaviour in HOSTILE_HOSTS.items():
            if all(getattr(behaviour, key) == value for key, value in attributes.items()):
                outcome = self.outcomes[name]
                yield behaviour, outcome, f"{name}: {outcome}"

    def test_failures(self) -> None:
        """
        A host that gives no good answer ends the command with a status that says so, and no answer is shown.
        """
        for _, outcome, case in self.each(answers=False):
            self.assertIn(outcome.status, FAILED, case)
            self.assertNotIn("ePID", outcome.output, case)

    def test_one_line(self) -> None:
        """
        What was wrong with it is told in one line, which is about what it did.
        """
        for behaviour, outcome, case in self.each(answers=False):
            self.assertRegex(outcome.problems, r"\Akmsproto probe: [^\n]+\n\Z", case)
            self.assertRegex(outcome.problems, behaviour.problem, case)

    def test_time_limit(self) -> None:
        """
        The limit of the command's own, not that of the test, ends what would never end.
        """
        for _, outcome, case in self.each(waits=True):
            self.assertRegex(outcome.problems, rf"within {TIMEOUT} seconds", case)

    def test_answers(self) -> None:
        """
        A good answer is shown, or refused in one line; nothing crashes.
        """
        for _, outcome, case in self.each(answers=True):
            self.assertIn(outcome.status, (0, *FAILED), case)
            self.assertNotIn("Traceback", outcome.output + outcome.problems, case)
            if outcome.status:
                self.assertEqual(outcome.problems.count("\n"), 1, case)
            else:
                self.assertIn("50", outcome.output, case)

    def test_terminals(self) -> None:
        """
        Nothing that a terminal would act upon passes through from a host.
        """
        for _, outcome, case in self.each():
            for line in (outcome.output + outcome.problems).split("\n"):
                self.assertTrue(line.isprintable(), case)
        self.assertIn(r"\x1b[2J", self.outcomes["ePID that steers a terminal"].output)

    def test_memory(self) -> None:
        """
        No host makes the command need more than twice what it needs without one.
        """
        for _, outcome, case in self.each():
            self.assertLess(outcome.peak, 2 * self.usual_peak, case)
