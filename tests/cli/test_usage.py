"""
Command lines that are wrong: one line and status 2, whichever command they are for.
"""

from __future__ import annotations

import json
import subprocess
import sys

import click
from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.main import main
from kmsproto.cli.usage import INTERRUPTED, Group, explain_error
from tests.cli.running import runner


class UsageTests(SynchronousTestCase):
    """
    What is said about a command line that is wrong.
    """

    def wrong(self, *arguments: str) -> Result:
        """
        Run a command line that is refused in one line.
        """
        result = runner().invoke(main, arguments, prog_name="kmsproto")
        self.assertEqual(result.exit_code, 2, result.output)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        return result

    def test_one_line(self) -> None:
        """
        Whatever is wrong is one line that names the command and what can be done.
        """
        for arguments, line in (
            ("--nosuch", "kmsproto: no such option '--nosuch'; kmsproto --help tells more"),
            ("nosuch", "kmsproto: no such command 'nosuch'; kmsproto --help tells more"),
            ("prob", "kmsproto: no such command 'prob'; did you mean 'probe'?"),
            ("catalog exprt", "kmsproto catalog: no such command 'exprt'; did you mean 'export'?"),
            (
                "probe a b",
                "kmsproto probe: got unexpected extra argument (b); kmsproto probe --help tells more",
            ),
            (
                "probe a:0",
                "kmsproto probe: invalid value for 'TARGET': '0' is not a port number (1 to 65535);"
                " kmsproto probe --help tells more",
            ),
            (
                "probe 127.0.0.1 -i 6",
                "kmsproto probe: 127.0.0.1 is an IPv4 address; leave --ip-version 6 away",
            ),
        ):
            with self.subTest(arguments=arguments):
                result = self.wrong(*arguments.split())
                self.assertEqual((result.stdout, result.stderr), ("", line + "\n"))

    def test_command_is_named(self) -> None:
        """
        The command is named for a value that lacks or is wrong, an argument that lacks, and within a group.
        """
        for arguments, command in (
            ("probe -n", "probe"),
            ("probe -n 0", "probe"),
            ("products --protocol 9", "products"),
            ("catalog export", "catalog export"),
            ("catalog export --kmd", "catalog export"),
            ("completion", "completion"),
            ("completion tcsh", "completion"),
            ("decode --nosuch", "decode"),
        ):
            with self.subTest(arguments=arguments):
                line = self.wrong(*arguments.split()).stderr
                self.assertTrue(line.startswith(f"kmsproto {command}: "), line)
                self.assertTrue(line.endswith(f"; kmsproto {command} --help tells more\n"), line)

    def test_suggestions(self) -> None:
        """
        An option that is near to one that exists is told.
        """
        self.assertIn("; did you mean", self.wrong("probe", "--jso").stderr.casefold())

    def test_json(self) -> None:
        """
        A program that asked for JSON reads the same as people, in one line, wherever it asked.
        """
        for arguments in (["probe", "--json", "-n", "0"], ["products", "--nosuch", "--json"]):
            result = self.wrong(*arguments)
            told = json.loads(result.stdout)
            self.assertEqual(told["status"], 2)
            self.assertTrue(result.stderr.endswith(f": {told['problem']}\n"))
            self.assertEqual(result.stdout.count("\n"), 1)
        self.assertEqual(self.wrong("completion", "x", "--", "--json").stdout, "")

    def test_first_word(self) -> None:
        """
        Only the first word begins small, and only if it is no name; an option is in quotes, whatever release of click.
        """
        for text, told in (
            ("No such option: --nosuch", "no such option '--nosuch'; kmsproto --help tells more"),
            (
                "No such option: --jso Did you mean --json?",
                "no such option '--jso'; did you mean --json?",
            ),
            ("name HOST[:PORT], .DOMAIN or -; or not", "name HOST[:PORT], .DOMAIN or -; or not"),
            ("TARGET is wrong; name another", "TARGET is wrong; name another"),
            ("Got A or B; leave one away", "got A or B; leave one away"),
        ):
            self.assertEqual(explain_error(click.UsageError(text)), told)

    def test_full_standard_error(self) -> None:
        """
        The status is the same where nobody can be told.
        """
        for arguments, status in (([], 2), (["probe", "--nosuch"], 2), (["check"], 3)):
            with open("/dev/full", "w") as full:
                run = subprocess.run(
                    [
                        sys.executable,
                        "-c",
                        "from kmsproto.cli.main import main; main()",
                        *arguments,
                    ],
                    stdout=full,
                    stderr=full,
                    check=False,
                    timeout=60,
                )
            self.assertEqual(run.returncode, status, arguments)

    def test_control_characters(self) -> None:
        """
        What was typed reaches no terminal as it is.
        """
        self.assertTrue(self.wrong("a\x1b[31m\nb\x07").stderr.strip().isprintable())

    def test_no_command(self) -> None:
        """
        A group without a command shows its help, on the standard error.
        """
        result = runner().invoke(main, ["catalog"], prog_name="kmsproto")
        self.assertEqual((result.exit_code, result.stdout), (2, ""))
        self.assertTrue(result.stderr.startswith("Usage: kmsproto catalog "), result.stderr)

    def test_other_failures(self) -> None:
        """
        What is no matter of the command line has its own status and no word about the help.
        """

        @click.group(cls=Group)
        def top() -> None:
            pass

        @top.command()
        def wrong() -> None:
            raise click.ClickException("the file is wrong; name another")

        @top.command()
        def stopped() -> None:
            raise KeyboardInterrupt

        @top.command()
        def full() -> None:
            raise OSError(28, "No space left on device")

        for name, status, text in (
            ("wrong", 1, "top wrong: the file is wrong; name another\n"),
            ("stopped", INTERRUPTED, "kmsproto: interrupted\n"),
            ("full", 1, "kmsproto: cannot write: No space left on device\n"),
        ):
            result = runner().invoke(top, [name])
            self.assertEqual((result.exit_code, result.stderr.lstrip()), (status, text))


class StartTests(SynchronousTestCase):
    """
    What a command waits for before it begins.
    """

    def test_imports(self) -> None:
        """
        Neither the group nor a command that only reads the catalogue imports Twisted's reactors or rich.
        """
        for module in ("main", "output", "products", "completion"):
            code = (
                f"import sys, kmsproto.cli.{module};"
                "print([name for name in ('twisted.internet', 'rich') if name in sys.modules])"
            )
            result = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            self.assertEqual(result.stdout, "[]\n", module)
