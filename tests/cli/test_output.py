"""
What all commands share: how they end, fail and print.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from click.testing import Result
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import output
from kmsproto.cli.output import (
    INTERRUPTED,
    ExitStatus,
    console,
    emit_json,
    fail,
    run,
    status_of,
    unwritable,
    write_file,
)
from kmsproto.errors import HostTimeoutError, HostUnreachableError, KMSProtoError
from tests.cli.running import runner


class EndTests(SynchronousTestCase):
    """
    How a command ends.
    """

    def setUp(self) -> None:
        """
        Put a reactor in memory in the place of the real one.
        """
        self.reactor = MemoryReactorClock()
        self.patch(output, "react", self.react)

    def react(self, main: Any) -> None:
        """
        Stand for twisted.internet.task.react.
        """
        done = main(self.reactor)
        for phase, event, callback in self.triggers:
            self.assertEqual((phase, event), ("before", "shutdown"))
            callback()
        results: list[Any] = []
        done.addBoth(results.append)
        (result,) = results
        if result is not None:
            result.raiseException()
        raise SystemExit(0)

    @property
    def triggers(self) -> list[tuple[str, str, Any]]:
        """
        List what is to be called at the end, if the test wants it to end early.
        """
        if not self.is_interrupted:
            return []
        return [
            (phase, event, callback)
            for phase, events in self.reactor.triggers.items()
            for event, callbacks in events.items()
            for callback, *_ in callbacks
        ]

    is_interrupted = False

    def end(self, main: Any) -> Result:
        """
        Run a command.
        """

        @click.command()
        def command() -> None:
            run(main, 5)

        return runner().invoke(command, prog_name="kmsproto try")

    def ends_by(self, error: BaseException) -> Result:
        """
        Run a command that ends by an error.
        """

        async def main(reactor: object, argument: int) -> None:
            raise error

        return self.end(main)

    def test_well(self) -> None:
        """
        A command that is done ends with 0, and had its arguments.
        """

        async def main(reactor: object, argument: int) -> None:
            click.echo(f"{argument}")

        result = self.end(main)
        self.assertEqual((result.exit_code, result.output), (0, "5\n"))

    def test_errors(self) -> None:
        """
        An error of ours is one line, and its status tells whether there was a host.
        """
        for error, status in (
            (KMSProtoError("it is wrong; change it"), 1),
            (HostUnreachableError("it is wrong; change it"), 3),
            (HostTimeoutError("it is wrong; change it"), 3),
            (click.ClickException("it is wrong; change it"), 1),
            (click.UsageError("it is wrong; change it"), 2),
        ):
            result = self.ends_by(error)
            self.assertEqual(result.exit_code, status)
            self.assertEqual(result.stderr, "kmsproto try: it is wrong; change it\n")
            if isinstance(error, KMSProtoError):
                self.assertEqual(status_of(error), status)

    def test_status(self) -> None:
        """
        A command may end with a status of its own.
        """
        self.assertEqual(self.ends_by(SystemExit(7)).exit_code, 7)

    def test_mistakes(self) -> None:
        """
        A mistake of ours is not hidden.
        """
        self.assertIsInstance(self.ends_by(ZeroDivisionError()).exception, ZeroDivisionError)

    def test_output_that_cannot_be_written(self) -> None:
        """
        A full disk is one line; a reader that has gone is none.
        """
        closed: list[tuple[int, int]] = []
        self.patch(output.os, "dup2", lambda *numbers: closed.append(numbers))
        result = self.ends_by(OSError(28, "No space left on device"))
        self.assertEqual(
            (result.exit_code, result.stderr),
            (1, "kmsproto try: cannot write: No space left on device\n"),
        )
        result = self.ends_by(BrokenPipeError(32, "Broken pipe"))
        self.assertEqual((result.exit_code, result.stderr), (1, ""))
        self.assertEqual(unwritable("x", BrokenPipeError()), ExitStatus.FAILED)

    def test_interrupted(self) -> None:
        """
        Who interrupts a command ends what it waits for, whatever that makes of it, and hears of nothing else.
        """
        self.is_interrupted = True

        async def waits(reactor: object, argument: int) -> None:
            await Deferred()

        async def complains(reactor: object, argument: int) -> None:
            try:
                await Deferred()
            except BaseException as error:
                raise HostUnreachableError("the host went away") from error

        async def breaks(reactor: object, argument: int) -> None:
            try:
                await Deferred()
            except BaseException as error:
                raise OSError(5, "no") from error

        for main in (waits, complains, breaks):
            result = self.end(main)
            self.assertEqual(result.exit_code, INTERRUPTED)
            self.assertEqual(result.stderr, "kmsproto try: interrupted\n")

    def test_interrupted_late(self) -> None:
        """
        What is done already cannot be interrupted.
        """
        self.is_interrupted = True

        async def main(reactor: object, argument: int) -> None:
            click.echo("done")

        self.assertEqual(self.end(main).exit_code, 0)

    def test_fail(self) -> None:
        """
        A command can fail by itself, also where there is none.
        """

        @click.command()
        def command() -> None:
            fail("nothing is right", ExitStatus.NO_HOST)

        result = runner().invoke(command, prog_name="kmsproto try")
        self.assertEqual((result.exit_code, result.stderr), (3, "kmsproto try: nothing is right\n"))
        self.assertRaises(SystemExit, fail, "x")


class PrintTests(SynchronousTestCase):
    """
    What is printed.
    """

    def test_json(self) -> None:
        """
        JSON is text that every output can hold and no terminal acts upon.
        """

        @click.command()
        def command() -> None:
            emit_json({"text": "\x9b\u202e\U0001f600é"})

        result = runner().invoke(command)
        self.assertTrue(result.output.isascii())
        self.assertEqual(json.loads(result.output), {"text": "\x9b\u202e\U0001f600é"})

    def test_console(self) -> None:
        """
        What is not a terminal gets plain text, as wide as wanted.
        """

        @click.command()
        def command() -> None:
            console(width=200).print("[bold]" + "x" * 150)
            console(stderr=True).print("y")

        result = runner().invoke(command)
        self.assertEqual(result.stdout, "x" * 150 + "\n")
        self.assertEqual(result.stderr, "y\n")


class WriteTests(SynchronousTestCase):
    """
    Files that a command writes.
    """

    def setUp(self) -> None:
        """
        Make a directory.
        """
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def refuses(self, path: Path, force: bool, text: str) -> None:
        """
        A file is not written, and a line says why.
        """
        error = self.assertRaises(click.ClickException, write_file, path, b"x", force)
        self.assertIn(text, str(error))

    def test_written(self) -> None:
        """
        A file is written, and with force another one replaced, with nothing left behind.
        """
        path = self.directory / "a"
        write_file(path, b"1", False)
        write_file(path, b"2", True)
        self.assertEqual(path.read_bytes(), b"2")
        self.assertEqual([each.name for each in self.directory.iterdir()], ["a"])

    def test_refused(self) -> None:
        """
        A file that is there, what is no file, and a place that is none are refused.
        """
        path = self.directory / "a"
        path.write_bytes(b"mine")
        self.refuses(path, False, "is there already; name another, or overwrite it with --force")
        self.refuses(self.directory, True, "is no regular file; name another")
        self.refuses(self.directory / "none" / "a", False, "cannot be written: No such file")
        (self.directory / "a.new").write_bytes(b"")
        self.refuses(path, True, "a.new: is there already; remove it")
        self.assertEqual(path.read_bytes(), b"mine")

    def test_half_written(self) -> None:
        """
        Nothing is left of a file that could not be written to its end.
        """
        path = self.directory / "a"
        self.patch(
            Path,
            "open",
            lambda each, mode, _open=Path.open: _Full(_open(each, mode)),
        )
        self.refuses(path, False, "cannot be written: No space left on device")
        self.assertFalse(path.exists())

    def test_standard_output(self) -> None:
        """
        A hyphen stands for the standard output.
        """

        @click.command()
        def command() -> None:
            write_file(Path("-"), b"text\n", False)

        self.assertEqual(runner().invoke(command).stdout, "text\n")


class _Full:
    """
    A file on a full disk.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """
        Fail.
        """
        raise OSError(28, "No space left on device")
