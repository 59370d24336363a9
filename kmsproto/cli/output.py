"""
What all commands share: how they end, how they fail, how they print for people and for programs.

A command ends with one of four statuses (L{ExitStatus}), the same for all but C{kmsproto check}, which keeps the
conventions of monitoring plugins.  What it was asked for goes to the standard output; what is wrong goes to the
standard error, in one line that says what can be done.  Every command that prints facts prints them as JSON too, and
then what is wrong as well.

Twisted and rich are imported where they are needed: they take most of the time that a command needs to begin.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Coroutine
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from kmsproto.cli.usage import INTERRUPTED as INTERRUPTED
from kmsproto.cli.usage import complain, explain_error
from kmsproto.cli.usage import unwritable as unwritable  # for those who import it from here
from kmsproto.errors import CatalogError, HostTimeoutError, HostUnreachableError, KMSProtoError
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.service.catalogs import load

if TYPE_CHECKING:
    from rich.console import Console

_Command = TypeVar("_Command", bound=Callable[..., Any])


class ExitStatus(IntEnum):
    """
    How a command ends.
    """

    OK = 0  #: done, and nothing is wrong
    FAILED = 1  #: what was asked was answered with no, or something was found to be wrong
    USAGE = 2  #: the command line was wrong; nothing was done
    NO_HOST = 3  #: no host was found, reached, or answered in time


#: Under this name a command takes note that it has printed JSON.
_PRINTED = "kmsproto.printed"


def status_of(error: KMSProtoError) -> ExitStatus:
    """
    Tell how a command ends that an error ended.
    """
    if isinstance(error, HostUnreachableError | HostTimeoutError):
        return ExitStatus.NO_HOST
    return ExitStatus.FAILED


def fail(problem: object, status: ExitStatus = ExitStatus.FAILED) -> NoReturn:
    """
    End a command with one line on the standard error.

    @param problem: What is wrong and, after a semicolon, what can be done.
    """
    _complain(_command_name(), problem, status)
    raise SystemExit(status)


def _complain(name: str, problem: object, status: int) -> None:
    """
    Write the line, and for a program that reads JSON the same as that, if it was told nothing yet.
    """
    context = click.get_current_context(silent=True)
    reads_json = context is not None and bool(context.params.get("as_json"))
    told = context is not None and _PRINTED in context.meta
    complain(name, problem, status, as_json=reads_json and not told)


def _command_name() -> str:
    context = click.get_current_context(silent=True)
    return "kmsproto" if context is None else context.command_path


def emit_json(value: object) -> None:
    """
    Print a value as JSON.
    """
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_PRINTED] = True
    # Escaped, for a host could send what steers a terminal, and not every output has all characters.
    click.echo(json.dumps(value, indent=2))


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """
    Make what prints for people: colours on a terminal that has them, plain text everywhere else.

    @param width: Columns, for what is not printed on a terminal.
    """
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if width is not None and not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, emoji=False, width=width)
    return made


def react(main: Callable[[Any], Any]) -> None:
    """
    Run the reactor until what a function begins is done, as L{twisted.internet.task.react} does.
    """
    from twisted.internet import task

    task.react(main)


def run(main: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
    """
    Run a coroutine function with the reactor and further arguments, until it is done.

    A L{KMSProtoError} that it raises ends the command with one line; C{SystemExit} with its status.  Ctrl-C and SIGTERM
    cancel it, and end the command as L{INTERRUPTED} says.
    """
    from twisted.internet.defer import Deferred

    name = _command_name()
    interrupted = has_status = False

    async def guarded(reactor: Any) -> None:
        nonlocal has_status
        try:
            await main(reactor, *arguments)
        except KMSProtoError as error:
            if interrupted:
                return
            # The context of click is that of the thread, and still there; the name is taken early all the same.
            _complain(name, error, status_of(error))
            raise SystemExit(status_of(error)) from error
        except click.ClickException as error:
            _complain(name, explain_error(error), error.exit_code)
            raise SystemExit(error.exit_code) from error
        except SystemExit:
            has_status = True
            raise
        except OSError as error:
            if interrupted:
                return
            # What goes over the network has errors of its own; this is the standard output.
            raise SystemExit(unwritable(name, error)) from error
        except Exception:
            # Whatever was made of being cancelled on the way.
            if not interrupted:
                raise

    def start(reactor: Any) -> Any:
        done = Deferred.fromCoroutine(guarded(reactor))

        def stop() -> None:
            nonlocal interrupted
            if not done.called:
                interrupted = True
                done.cancel()

        reactor.addSystemEventTrigger("before", "shutdown", stop)
        return done

    try:
        react(start)
    except SystemExit:
        # A command that has something to say to being interrupted has said it.
        if not interrupted or has_status:
            raise
    if interrupted:
        _complain(name, "interrupted", INTERRUPTED)
        raise SystemExit(INTERRUPTED)


def json_option(command: _Command) -> _Command:
    """
    Add C{--json}, which arrives as C{as_json}.
    """
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def read_seconds(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """
    Check a number of seconds; a callback for options of the type C{click.FloatRange}.
    """
    # "nan" is a float, and neither below nor above any bound.
    if value is not None and math.isnan(value):
        raise click.BadParameter("'nan' is not a number of seconds")
    return value


def timeout_option(command: _Command) -> _Command:
    """
    Add C{--timeout}, which arrives as C{timeout}.
    """
    # Commands that have it need Twisted; the others shall not wait for it.
    from kmsproto.net.client import DEFAULT_TIMEOUT

    return click.option(
        "--timeout",
        type=click.FloatRange(0, 3600, min_open=True),
        callback=read_seconds,
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="Seconds that the host has for each step.",
    )(command)


def catalog_option(command: _Command) -> _Command:
    """
    Add C{-j} and C{--kms-data}, which arrive, read, as C{catalog}.
    """
    return click.option(
        "-j",
        "--kms-data",
        "catalog",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_read_catalog,
        metavar="FILE",
        help="A file, TOML or .kmd, that extends the built-in catalogue of products.",
    )(command)


def _read_catalog(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Catalog:
    try:
        return load_catalog() if value is None else load(value, False)
    except CatalogError as error:
        raise click.BadParameter(str(error)) from error


def write_file(path: Path, data: bytes, force: bool) -> None:
    """
    Write a file, all of it or nothing.

    @param path: The file; C{-} for the standard output.
    @param force: Whether a file that is there is replaced.
    @raise click.ClickException: If that cannot be done.
    """
    if str(path) == "-":
        click.echo(data, nl=False)
        return
    part = path.with_name(f"{path.name}.new") if force else path
    if force and path.exists() and not path.is_file():
        raise click.ClickException(f"{path}: is no regular file; name another")
    try:
        with part.open("xb") as file:
            try:
                file.write(data)
                file.flush()
            except OSError:
                part.unlink()
                raise
        if force:
            os.replace(part, path)
    except FileExistsError as error:
        hint = "remove it" if force else "name another, or overwrite it with --force"
        raise click.ClickException(f"{part}: is there already; {hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"{path}: cannot be written: {reason}") from error
