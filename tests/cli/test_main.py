"""
The C{kmsproto} command: its help and version.
"""

from __future__ import annotations

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from kmsproto import __version__
from kmsproto.cli.main import COMMANDS, main
from kmsproto.kms.rijndael import IMPLEMENTATION
from tests.test_packaging import ROOT


class MainTests(SynchronousTestCase):
    """
    The group of commands.
    """

    def test_help(self) -> None:
        """
        The help names the commands and whose duty licences are, in the long and the short spelling.
        """
        for option in ("--help", "-h"):
            result = CliRunner().invoke(main, [option])
            self.assertEqual(result.exit_code, 0)
            self.assertIn("probe", result.output)
            self.assertIn("grant no licence", " ".join(result.output.split()))

    def test_short_help(self) -> None:
        """
        Beside each command stands the whole first sentence of its help.
        """
        text = CliRunner().invoke(main, ["--help"]).output
        words = " ".join(text.split())
        for name in COMMANDS:
            command = main.get_command(click.Context(main), name)
            assert command is not None
            sentence = " ".join((command.help or "").split(".")[0].split())
            self.assertIn(f"{name} {sentence}", words)

    def test_version(self) -> None:
        """
        The version is that of the package, and comes with the implementation of the cipher that is in use.
        """
        result = CliRunner().invoke(main, ["--version"])
        self.assertEqual(
            (result.exit_code, result.output),
            (0, f"kmsproto, version {__version__} (cipher: {IMPLEMENTATION})\n"),
        )

    def test_unknown_command(self) -> None:
        """
        A command that does not exist is a usage error.
        """
        result = CliRunner().invoke(main, ["activate-windows"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("activate-windows", result.output)

    def test_help_of_each(self) -> None:
        """
        Every command is there, under its own name.
        """
        for name in COMMANDS:
            with self.subTest(command=name):
                result = CliRunner().invoke(main, [name, "--help"])
                self.assertEqual(result.exit_code, 0, result.output)
                self.assertIn(f"Usage: main {name}", result.output)

    def test_pages(self) -> None:
        """
        Every command has a page in the documentation, which is its man page too.
        """
        pages = {path.stem for path in (ROOT / "docs" / "commands").glob("*.rst")}
        self.assertEqual(pages - {"index"}, set(COMMANDS))

    def test_json(self) -> None:
        """
        Every command that prints facts prints JSON too.
        """
        without = {
            name
            for name in COMMANDS
            if "--json" not in CliRunner().invoke(main, [name, "--help"]).output
        }
        self.assertEqual(without, {"catalog", "completion", "serve-socket"})
