"""
The README as a promise: its commands are the ones that the continuous integration runs, and it says what it must.

The two commands are found by the comments that C{.ci/run} looks for, so neither can be changed or lost without a test
noticing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

#: The sentence that nobody who reads the README may miss.
LICENCE_SENTENCE = (
    "kmsproto grants no licence: "
    "owning the volume licences for everything you activate is your own duty."
)

#: A marked command: the comment, the directive, then the lines that are indented below it.
COMMAND = re.compile(
    r"^\.\. command: (?P<name>\w+)\n\n\.\. code-block:: sh\n\n(?P<lines>(?:   .+\n)+)", re.MULTILINE
)


class ReadmeTests(SynchronousTestCase):
    """
    The front door leads somewhere.
    """

    def setUp(self) -> None:
        """
        Read the README and the script.
        """
        self.readme = (ROOT / "README.rst").read_text(encoding="utf-8")
        self.script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        self.commands = {
            match["name"]: match["lines"].splitlines() for match in COMMAND.finditer(self.readme)
        }

    def test_two_commands(self) -> None:
        """
        There are two marked commands, each of one line.
        """
        self.assertEqual(sorted(self.commands), ["run", "test"])
        self.assertEqual([len(lines) for lines in self.commands.values()], [1, 1])

    def test_continuous_integration_runs_them(self) -> None:
        """
        C{.ci/run} takes both commands from the README, by name, and does not repeat their text.
        """
        for name, lines in self.commands.items():
            self.assertIn(f"readme_command {name}", self.script)
            self.assertNotIn(lines[0].strip(), self.script)

    def test_same_environment(self) -> None:
        """
        Both commands prepare the same virtual environment in the same way, so that their order does not matter.
        """
        starts = {lines[0].partition("-e ")[0].strip() for lines in self.commands.values()}
        self.assertEqual(len(starts), 1)
        self.assertIn("editable_mode=compat", starts.pop())

    def test_what_they_do(self) -> None:
        """
        One command starts the host on the registered port, the other runs all tests.
        """
        self.assertTrue(self.commands["run"][0].endswith(".venv/bin/twistd -n kms --port 1688"))
        self.assertTrue(self.commands["test"][0].endswith(".venv/bin/trial tests"))

    def test_licence(self) -> None:
        """
        The README says that no licence is granted, and that only private addresses are answered by default.
        """
        text = " ".join(self.readme.split())
        self.assertIn(LICENCE_SENTENCE, text)
        self.assertIn("private addresses only", text)

    def test_pointers(self) -> None:
        """
        Every file of the project that the README points to is there.
        """
        names = re.findall(r"``((?:docs/)?[\w/]+\.rst|docs/[\w/]+/)``", self.readme)
        self.assertIn("docs/embedding.rst", names)
        self.assertEqual([name for name in names if not (ROOT / name).exists()], [])

    def test_script_is_executable(self) -> None:
        """
        C{.ci/run} can be started as it is.
        """
        self.assertTrue(os.access(ROOT / ".ci" / "run", os.X_OK))
