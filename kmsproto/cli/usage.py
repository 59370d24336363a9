"""
A command line that is wrong: one line that says what is wrong and what can be done, whichever command it is for.

click says so in four lines, and differently for commands that do not exist, for options that lack their value, and for
files.  Here all of that goes through one outlet, the group at the top (L{Group.main}), for a command only raises.
What comes out is C{kmsproto probe: no such option '--jso'; did you mean '--json'?}, and for a program that asked for
JSON the same as that.

Nothing is imported here that takes time, for whoever only wants the help should not wait.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, TextIO

import click

from kmsproto.net.quoting import printable

#: The status of a command whose command line was wrong.
USAGE = 2
#: The status of a command that was interrupted: as shells have it for SIGINT.
INTERRUPTED = 130
#: Characters of help at most that stand beside the name of a command: more than any first sentence has.
_MOST_HELP = 500
#: The first word of a sentence, which here stands behind a colon.
_FIRST_WORD = re.compile(r"^[A-Z](?=[a-z]* )")
#: An option that does not exist, as older releases of click have it.
_NO_OPTION = re.compile(r"^no such option: ([^\s.;]+)")
#: An argument that may be left out, in its brackets.
_OPTIONAL = re.compile(r"^invalid value for '\[([A-Z]+)\]'")
#: Names that were meant, in the words of click.
_SUGGESTION = re.compile(r"[.;]? \(?[Dd]id you mean (.*?)\)?$")


def explain_error(error: click.ClickException) -> str:
    """
    Say in one line what is wrong, and what can be done.
    """
    # What was typed can have any character, and choices stand on lines of their own.
    text = printable(" ".join(error.format_message().split())).rstrip(".")
    if not isinstance(error, click.UsageError):
        return text
    text = _FIRST_WORD.sub(lambda match: match[0].lower(), text)
    text = _NO_OPTION.sub(r"no such option '\1'", text)
    text = _OPTIONAL.sub(r"invalid value for '\1'", text)
    text = _SUGGESTION.sub(r"; did you mean \1", text)
    if "; " in text:
        return text
    return f"{text}; {command_of(error)} --help tells more"


def command_of(error: click.ClickException) -> str:
    """
    Name the command that an error is about, as it was called.
    """
    context: click.Context | None = getattr(error, "ctx", None)
    if context is not None:
        return context.command_path
    return next(iter(getattr(error, "__notes__", ())), "kmsproto")


class Group(click.Group):
    """
    A group of commands: it knows names that are near to one that does not exist, and shows its help when none is given.

    The one at the top says what is wrong in one line.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """
        Read the command line of the group itself.
        """
        if not args and not ctx.resilient_parsing:
            # Not every release of click calls this an error.
            _tell(ctx.get_help())
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """
        Write the commands, each with the whole first sentence of its help; click would cut it off at the margin.
        """
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(_MOST_HELP))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        Find the command that is meant.
        """
        name = args[0]
        known = self.list_commands(ctx)
        if name in known or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = " or ".join(f"'{each}'" for each in get_close_matches(name, known))
        hint = f"; did you mean {near}?" if near else ""
        raise click.UsageError(f"no such command '{name}'{hint}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run a command; an error that does not say which command it is about is told, innermost first.
        """
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.add_note(f"{ctx.command_path} {ctx.invoked_subcommand or ''}".rstrip())
            raise

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        """
        Run, and end with one line when the command line is wrong, the output cannot be written, or it is interrupted.
        """
        arguments = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        try:
            status = super().main(arguments, *others, **options)
        except click.ClickException as error:
            name = command_of(error)
            complain(name, explain_error(error), error.exit_code, as_json=wants_json(arguments))
            raise SystemExit(error.exit_code) from error
        except click.Abort as error:
            _tell("kmsproto: interrupted")
            raise SystemExit(INTERRUPTED) from error
        except OSError as error:
            raise SystemExit(unwritable("kmsproto", error)) from error
        raise SystemExit(status if isinstance(status, int) else 0)


def wants_json(arguments: Sequence[str]) -> bool:
    """
    Tell whether a command line, which may be wrong, asks for JSON.
    """
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def complain(name: str, problem: object, status: int, *, as_json: bool) -> None:
    """
    Write the line on the standard error, and for a program the same as JSON on the standard output.

    @param name: The command.
    @param problem: What is wrong and, after a semicolon, what can be done.
    @param status: The status that the command will end with.
    """
    _tell(f"{name}: {problem}")
    if as_json:
        try:
            # In one line, for some commands print a document in each.
            click.echo(json.dumps({"problem": str(problem), "status": int(status)}))
        except OSError as error:
            unwritable(name, error)


def unwritable(name: str, error: OSError) -> int:
    """
    Say that the standard output cannot be written, unless its reader has simply gone.

    @return: The status to end with.
    """
    if not isinstance(error, BrokenPipeError):
        _tell(f"{name}: cannot write: {error.strerror or error}")
    _drop(sys.stdout)
    return 1


def _tell(text: str) -> None:
    """
    Write on the standard error; the status says it too, so that it does not matter here if nobody can be told.
    """
    try:
        click.echo(text, err=True)
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    """
    Let a stream that cannot be written lead nowhere: Python flushes it once more at its end, and would complain.
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
