"""
The command C{kmsproto completion}, and the completion of products.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

import click
from click.shell_completion import split_arg_string
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.completion import SHELLS
from kmsproto.cli.main import main
from kmsproto.cli.product_type import MOST_OFFERED, ProductType, complete_product
from kmsproto.kms.catalog import SKU, load_catalog

CATALOG = load_catalog()


@click.command()
@click.option("-l", "--product", type=ProductType())
def sample(product: SKU | None) -> None:
    """
    Take a product.
    """
    click.echo(product and f"{product.number} {product.name}")


class _CompletionCase(SynchronousTestCase):
    """
    Asks as a shell does.
    """

    def complete(self, words: str, command: click.Command = main, shell: str = "bash") -> list[str]:
        """
        Ask what fits the last of some words.

        @param words: The command line, as the shell tells it.
        """
        position = len(split_arg_string(words)) - (not words.endswith(" "))
        name = "kmsproto" if command is main else "sample"
        result = CliRunner().invoke(
            command,
            [],
            prog_name=name,
            env={
                f"_{name.upper()}_COMPLETE": f"{shell}_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(position),
            },
        )
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output.splitlines()


class ScriptTests(_CompletionCase):
    """
    The scripts.
    """

    def invoke(self, *arguments: str) -> Result:
        """
        Run it.
        """
        return CliRunner().invoke(main, ["completion", *arguments])

    def test_scripts(self) -> None:
        """
        The script for each shell asks kmsproto by the variable that it listens to.
        """
        for shell in SHELLS:
            result = self.invoke(shell)
            self.assertEqual(result.exit_code, 0)
            self.assertIn(f"_KMSPROTO_COMPLETE={shell}_complete", result.output)
            self.assertIn("kmsproto", result.output)
            self.assertNotIn("%(", result.output)

    def run_shell(self, program: str, text: str, answer: str) -> list[str]:
        """
        Run a shell that has sourced its script, where kmsproto answers with what a test wants.

        @param text: What the shell is to do then.
        @param answer: What C{kmsproto} prints.
        """
        if shutil.which(program) is None:
            raise SkipTest(f"{program} is not installed")
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        stand_in = directory / "kmsproto"
        (directory / "answer").write_text(answer)
        stand_in.write_text(f"#!/bin/sh\ncat '{directory.absolute()}/answer'\n")
        stand_in.chmod(0o755)
        done = subprocess.run(
            [program, "-c", f"{self.invoke(program).stdout}\n{text}"],
            env={
                "PATH": f"{directory.absolute()}:{os.environ['PATH']}",
                "HOME": str(directory.absolute()),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.splitlines()

    def test_bash(self) -> None:
        """
        bash is offered names as they were quoted, whole, and takes none for a pattern.
        """
        words = "COMP_WORDS=(kmsproto probe -l Win); COMP_CWORD=3; _kmsproto_completion kmsproto"
        self.assertEqual(
            self.run_shell(
                "bash",
                f"cd /; {words}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                "plain,Windows\\ A\\ \\(1\\,\\ 2\\)\nplain,*\nplain,probe\n",
            ),
            ["Windows\\ A\\ \\(1\\,\\ 2\\)", "*", "probe"],
        )

    def test_fish(self) -> None:
        """
        fish is offered names and their help whole, with the commas that they have.
        """
        self.assertEqual(
            self.run_shell(
                "fish",
                "complete -C 'kmsproto probe -l Win'",
                "plain,Windows A (1, 2)\tnumber 1, the first\nplain,Windows B\n",
            ),
            ["Windows A (1, 2)\tnumber 1, the first", "Windows B"],
        )

    def test_usage(self) -> None:
        """
        Another shell is refused, and the help tells where a script is put.
        """
        self.assertEqual(self.invoke("tcsh").exit_code, 2)
        self.assertEqual(self.invoke().exit_code, 2)
        text = self.invoke("--help").output
        for shell in SHELLS:
            self.assertIn(f"\n  {shell} ", text)


class CommandTests(_CompletionCase):
    """
    What the script asks is answered.
    """

    def test_command(self) -> None:
        """
        The name of a command is completed.
        """
        self.assertEqual(self.complete("kmsproto pro"), ["plain,probe", "plain,products"])
        self.assertEqual(self.complete("kmsproto expl"), ["plain,explain"])

    def test_option(self) -> None:
        """
        The name of an option is completed.
        """
        self.assertEqual(self.complete("kmsproto products --host"), ["plain,--host-builds"])

    def test_value(self) -> None:
        """
        The values of an option and of an argument are completed.
        """
        self.assertEqual(self.complete("kmsproto completion z"), ["plain,zsh"])
        self.assertEqual(
            self.complete("kmsproto products --protocol "), ["plain,4", "plain,5", "plain,6"]
        )


class ProductTypeTests(_CompletionCase):
    """
    A product as the value of an option.
    """

    def test_convert(self) -> None:
        """
        A product is found by number, by the beginning of its name and by its GUID.
        """
        sku = CATALOG.product("17")
        for text in ("17", sku.name.lower(), f"{{{sku.guid}}}"):
            result = CliRunner().invoke(sample, ["-l", text])
            self.assertEqual(result.output, f"17 {sku.name}\n")
        self.assertIs(ProductType().convert(sku, None, None), sku)

    def test_unknown(self) -> None:
        """
        One that is not known is a usage error with names that may have been meant, or the list to look at.
        """
        for text, hint in (
            ("windws vista busines", "did you mean 'Windows Vista Business'"),
            ("qqqqqqqq", "kmsproto products lists them"),
            ("0", "kmsproto products lists them"),
        ):
            result = CliRunner().invoke(sample, ["-l", text])
            self.assertEqual(result.exit_code, 2)
            self.assertIn(hint, " ".join(result.output.split()))

    def test_names(self) -> None:
        """
        Names are offered whatever the case, quoted for bash so that each stays one word.
        """
        offered = self.complete("sample -l windows\\ vista\\ b", sample)
        self.assertEqual(
            offered, ["plain,Windows\\ Vista\\ Business", "plain,Windows\\ Vista\\ Business\\ N"]
        )
        for line in self.complete("sample -l off", sample):
            name = split_arg_string(line.removeprefix("plain,"))
            self.assertEqual(CATALOG.product(name[0]).name, name[0])

    def test_names_in_quotes(self) -> None:
        """
        Within quotes that the user has opened nothing is quoted again.
        """
        self.assertEqual(
            self.complete('sample -l "Windows Vista Business n', sample),
            ["plain,Windows Vista Business N"],
        )

    def test_other_shells(self) -> None:
        """
        Other shells quote for themselves, and show the number of each name.
        """
        lines = self.complete("sample -l Windows\\ Vista\\ Business", sample, "zsh")
        self.assertEqual(lines[:3], ["plain", "Windows Vista Business", "number 1"])

    def test_numbers(self) -> None:
        """
        Numbers are completed too.
        """
        self.assertEqual(
            [line.removeprefix("plain,") for line in self.complete("sample -l 29", sample)],
            [str(n) for n in (29, *range(290, 1 + len(CATALOG.skus)))],
        )

    def test_as_text(self) -> None:
        """
        An option that takes the product as text can offer the same.
        """

        @click.command("sample")
        @click.option("-l", "product", shell_complete=complete_product)
        def plain(product: str | None) -> None:
            click.echo(product)

        words = "sample -l Windows\\ Vista\\ Business\\ "
        self.assertEqual(
            self.complete(words + "N", plain), ["plain,Windows\\ Vista\\ Business\\ N"]
        )

    def test_bounded(self) -> None:
        """
        Not everything is offered at once.
        """
        self.assertEqual(len(self.complete("sample -l ", sample)), MOST_OFFERED)
