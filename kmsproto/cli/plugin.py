"""
The conventions of monitoring plugins, by the Monitoring Plugins Development Guidelines.

What is printed is one line on the standard output: the state, a sentence, and after a bar the performance data.  The
status is 0 for OK, 1 for WARNING, 2 for CRITICAL and 3 for UNKNOWN; and because 1 and 2 have a meaning here that they
do not have elsewhere, a wrong command line and a mistake of ours are UNKNOWN too (L{PluginCommand}).

The ranges of the guidelines are read here (L{Range}): there is a library for plugins, but it owns the process, where
here the reactor does, and what is left of it is not worth a dependency.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import click

from kmsproto.cli.output import emit_json
from kmsproto.cli.usage import explain_error, unwritable, wants_json
from kmsproto.net.quoting import printable

_Result = TypeVar("_Result")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(rf"(?P<inside>@)?(?:(?P<start>~|{_NUMBER})?:)?(?P<end>{_NUMBER})?", re.ASCII)


class State(IntEnum):
    """
    The states of the guidelines; the value is the exit status.
    """

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Range:
    """
    A range as the guidelines write it: C{10} is 0 to 10, C{10:} at least 10, C{~:10} at most 10; outside of it there
    is an alert.  C{@10:20} turns this round: the alert is inside, the ends included.

    @ivar text: How the user wrote it.
    """

    text: str
    start: float
    end: float
    inside: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """
        Read a range.

        @raise ValueError: If it is none.
        """
        match = _RANGE.fullmatch(text)
        if match is None or text.lstrip("@") in ("", ":"):
            raise ValueError(f"{text!r} is no range; write one like 10, 10:, ~:10, 10:20 or @10:20")
        start = match["start"] or "0"
        low = -math.inf if start == "~" else float(start)
        high = math.inf if match["end"] is None else float(match["end"])
        if low > high:
            raise ValueError(f"{text!r} begins behind its end")
        return cls(text, low, high, match["inside"] is not None)

    def alerts(self, value: float) -> bool:
        """
        Tell whether a value is cause for an alert.
        """
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        return self.text


class RangeType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A range on the command line.
    """

    name = "range"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Range:
        """
        Read it.
        """
        if isinstance(value, Range):
            return value
        try:
            return Range.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    When there is an alert about a number.

    @ivar name: What the number is.
    @ivar unit: Its unit of measurement, as performance data have it.
    """

    name: str
    unit: str
    warning: Range | None
    critical: Range | None

    def judge(self, value: float) -> tuple[State, str]:
        """
        Judge a value.

        @return: The state, and what is wrong; empty if nothing is.
        """
        shown = f"{self.name} {value:.4g}{self.unit}"
        for state, limits in ((State.CRITICAL, self.critical), (State.WARNING, self.warning)):
            if limits is not None and limits.alerts(value):
                return (
                    state,
                    f"{shown} is {'inside' if limits.inside else 'outside'} {limits.text.lstrip('@')}",
                )
        return State.OK, ""

    def performance(self, value: float | int) -> str:
        """
        Write performance data: label, value, unit, warning, critical, minimum and maximum.
        """
        number = f"{value:.4f}" if isinstance(value, float) else str(value)
        limits = ";".join(
            "" if each is None else each.text for each in (self.warning, self.critical)
        )
        return f"{self.name}={number}{self.unit};{limits};0;"


@dataclass(slots=True)
class Result:
    """
    What the plugin has to say.

    @ivar state: The state.
    @ivar text: The sentence.
    @ivar performance: The performance data.
    @ivar details: Further lines, for -v.
    @ivar facts: The numbers and names, for JSON.
    """

    state: State
    text: str
    performance: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """
        Write the one line.
        """
        line = f"KMS {self.state.name} - {plain(self.text)}"
        return f"{line} | {' '.join(self.performance)}" if self.performance else line


def plain(text: str) -> str:
    """
    Write a text so that no monitor takes a part of it for the beginning of performance data or of another line.
    """
    return printable(" ".join(text.split())).replace("|", "/")


class PluginCommand(click.Command):
    """
    A command that ends with UNKNOWN whatever goes wrong, for another status would be taken for a state of the host.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """
        Read the command line.
        """
        return _or_unknown(
            lambda: super(PluginCommand, self).make_context(info_name, args, parent, **extra),
            # There are no parameters to look at when this fails.
            as_json=wants_json(args),
        )

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run.
        """
        return _or_unknown(
            lambda: super(PluginCommand, self).invoke(ctx), as_json=bool(ctx.params.get("as_json"))
        )


def _or_unknown(step: Callable[[], _Result], *, as_json: bool) -> _Result:
    try:
        return step()
    except click.ClickException as error:
        finish(Result(State.UNKNOWN, explain_error(error)), as_json=as_json)
    except (click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # noqa: BLE001  # the status of a traceback would be taken for WARNING
        finish(mistake(error), as_json=as_json)


def mistake(error: Exception) -> Result:
    """
    Tell of a mistake of ours.

    @param error: What nobody caught.
    @return: UNKNOWN, with the traceback as details.
    """
    text = f"kmsproto itself failed: {type(error).__name__}: {error}; please report it"
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Result(State.UNKNOWN, text, details=lines)


def finish(result: Result, *, verbose: int = 0, as_json: bool = False) -> NoReturn:
    """
    Print, and end with the status of the state.

    @param verbose: Whether the details are printed too, each on a line.
    @param as_json: Whether all of it is one document in JSON.
    """
    try:
        if as_json:
            emit_json(
                {
                    "state": result.state.name,
                    "text": result.text,
                    **result.facts,
                    "details": result.details,
                }
            )
        else:
            click.echo(result.line())
            for detail in result.details if verbose else ():
                click.echo(plain(detail))
    except OSError as error:
        # Whatever goes wrong, the status must not be taken for a warning.
        unwritable("kmsproto check", error)
        raise SystemExit(State.UNKNOWN) from error
    raise SystemExit(result.state)
