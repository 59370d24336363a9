"""
C{kmsproto check}: a plugin for Nagios, Icinga and their kin, by the Monitoring Plugins Development Guidelines.

A host is asked for a real activation, and the answer verified, for a port that is open tells nothing.  What is printed
is one line on the standard output: the state, a sentence, and after a bar the performance data.  The status is 0 for
OK, 1 for WARNING, 2 for CRITICAL and 3 for UNKNOWN; and because 1 and 2 have a meaning here that they do not have
elsewhere, a wrong command line and a mistake of ours are UNKNOWN too (L{PluginCommand}).

The ranges of the guidelines are read here (L{Range}): there is a library for plugins, but it owns the process, where
here the reactor does, and what is left of it is not worth a dependency.
"""

from __future__ import annotations

import contextlib
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError

from kmsproto.cli.asking import Asked, Verdict, ask, make_body, product_options
from kmsproto.cli.destinations import OWN_DOMAIN, family_option, nameserver_option
from kmsproto.cli.output import (
    catalog_option,
    emit_json,
    json_option,
    read_seconds,
    run,
    unwritable,
)
from kmsproto.cli.targets import Target, parse_target
from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.messages import RequestBody
from kmsproto.net.client import DEFAULT_TIMEOUT
from kmsproto.net.discovery import (
    Discovered,
    DiscoveryError,
    DomainNameError,
    NoOwnDomainError,
    NoServiceRecordError,
    NoSuchNameError,
    discover,
    find_own_domains,
    make_resolver,
    normalize_domain,
)
from kmsproto.net.quoting import printable

_Result = TypeVar("_Result")

#: Places that are tried, of those that DNS names.
MAXIMUM_PLACES = 8
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
        line = f"KMS {self.state.name} - {_plain(self.text)}"
        return f"{line} | {' '.join(self.performance)}" if self.performance else line


def _plain(text: str) -> str:
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
            lambda: super(PluginCommand, self).make_context(info_name, args, parent, **extra)
        )

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run.
        """
        return _or_unknown(lambda: super(PluginCommand, self).invoke(ctx))


def _or_unknown(step: Callable[[], _Result]) -> _Result:
    try:
        return step()
    except click.ClickException as error:
        _finish(
            Result(
                State.UNKNOWN, f"{error.format_message()}; kmsproto check --help tells the options"
            )
        )
    except (click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # noqa: BLE001  # the status of a traceback would be taken for WARNING
        _finish(_mistake(error))


def _mistake(error: Exception) -> Result:
    """
    Tell of a mistake of ours.
    """
    text = f"kmsproto itself failed: {type(error).__name__}: {error}; please report it"
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Result(State.UNKNOWN, text, details=lines)


def _finish(result: Result, *, verbose: int = 0, as_json: bool = False) -> NoReturn:
    """
    Print, and end with the status of the state.
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
                click.echo(_plain(detail))
    except OSError as error:
        # Whatever goes wrong, the status must not be taken for a warning.
        unwritable("kmsproto check", error)
        raise SystemExit(State.UNKNOWN) from error
    raise SystemExit(result.state)


@dataclass(frozen=True, slots=True)
class _Order:
    """
    What to check.

    @ivar target: A host; C{None} for what DNS names.
    @ivar domain: The domain; C{None} for this machine's own, if there is no target.
    @ivar nameservers: Whom to ask about it.
    @ivar family: The IP version; C{None} for both.
    @ivar product: What is asked for, for people.
    @ivar body: What is asked for.
    @ivar time: Thresholds of the seconds.
    @ivar count: Thresholds of the clients counted.
    @ivar timeout: Seconds for everything.
    """

    target: Target | None
    domain: str | None
    nameservers: tuple[tuple[str, int], ...]
    family: int | None
    product: str
    body: RequestBody
    time: Thresholds
    count: Thresholds
    timeout: float


@click.command(cls=PluginCommand)
@click.argument("target", required=False, metavar="[TARGET]")
@click.option("-H", "--hostname", metavar="HOST", help="Host to check, in the place of TARGET.")
@click.option(
    "-p", "--port", type=click.IntRange(1, 65535), metavar="PORT", help="Its port.  [default: 1688]"
)
@click.option(
    "-w", "--warning", type=RangeType(), metavar="RANGE", help="Seconds outside of which to warn."
)
@click.option(
    "-c",
    "--critical",
    type=RangeType(),
    metavar="RANGE",
    help="Seconds outside of which the state is critical.",
)
@click.option(
    "--warning-count",
    type=RangeType(),
    metavar="RANGE",
    help="Number of clients outside of which to warn, for example 25:",
)
@click.option(
    "--critical-count",
    type=RangeType(),
    metavar="RANGE",
    help="Number of clients outside of which the state is critical.",
)
@product_options
@catalog_option
@nameserver_option
@family_option
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    callback=read_seconds,
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Seconds for all of it; then the state is critical.",
)
@click.option("-v", "--verbose", count=True, help="Print more lines behind the first.")
@json_option
def check(
    target: str | None,
    hostname: str | None,
    port: int | None,
    warning: Range | None,
    critical: Range | None,
    warning_count: Range | None,
    critical_count: Range | None,
    product: str | None,
    protocol: str | None,
    catalog: Catalog,
    nameservers: tuple[tuple[str, int], ...],
    family: int | None,
    timeout: float,
    verbose: int,
    as_json: bool,
) -> None:
    """
    Check a KMS host for a monitoring system (Nagios, Icinga and others).

    TARGET is HOST[:PORT]; ".DOMAIN" for the hosts that DNS names for a domain, of which the first that answers counts;
    or "-" for those of this machine's own domain.

    Ranges are written as 10, 10:, ~:10, 10:20 or @10:20.  Exits with status 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    place, domain = _read_target(target, hostname, port)
    name, body = make_body(catalog, product, protocol)
    order = _Order(
        place,
        domain,
        nameservers,
        family,
        name,
        body,
        Thresholds("time", "s", warning, critical),
        Thresholds("count", "", warning_count, critical_count),
        timeout,
    )
    run(_check, order, verbose, as_json)


def _read_target(
    target: str | None, hostname: str | None, port: int | None
) -> tuple[Target | None, str | None]:
    """
    Tell what is to be checked.

    @return: A host and a domain, of which at least one is C{None}; both are for this machine's own domain.
    """
    if (target is None) == (hostname is None):
        raise click.UsageError("name one target: HOST[:PORT], .DOMAIN or -, or a host with -H")
    if port is not None and hostname is None:
        raise click.UsageError("-p goes with -H; write TARGET as HOST:PORT")
    text = hostname if target is None else target
    assert text is not None, "one of them is there"
    try:
        if text != OWN_DOMAIN and not text.startswith("."):
            found = parse_target(text)
            return (found if port is None else Target(found.host, port)), None
        if port is not None:
            raise DomainNameError("the hosts that DNS names have ports of their own; leave -p out")
        return None, None if text == OWN_DOMAIN else normalize_domain(text[1:])
    except (DomainNameError, ValueError) as error:
        raise click.UsageError(str(error)) from error


async def _check(reactor: Any, order: _Order, verbose: int, as_json: bool) -> None:
    try:
        result = await examine(reactor, order)
    except KMSProtoError as error:
        result = Result(State.UNKNOWN, str(error))
    except (CancelledError, ConnectingCancelledError):
        result = Result(State.UNKNOWN, "interrupted before the host had answered")
    except Exception as error:  # noqa: BLE001  # see PluginCommand; within the reactor it would not get there
        result = _mistake(error)
    _finish(result, verbose=verbose, as_json=as_json)


async def examine(reactor: Any, order: _Order) -> Result:
    """
    Find the hosts, ask them, and judge the first that answers.
    """
    end = reactor.seconds() + order.timeout
    try:
        places = await _find_places(reactor, order)
    except DiscoveryError as error:
        state = State.UNKNOWN if isinstance(error, NoOwnDomainError) else State.CRITICAL
        return Result(state, str(error), facts={"problems": [str(error)]})
    failed: list[str] = []
    for number, (name, target) in enumerate(places):
        left = end - reactor.seconds()
        # Whoever comes first must leave the others their time.
        asked = await _ask_within(reactor, target, order, left / (len(places) - number))
        if asked.verdict is Verdict.GRANTED:
            return judge(order, name, asked, failed)
        failed.append(f"{name}: {asked.problem}")
        if asked.verdict.answered:
            break
    text = "; ".join(failed) if len(failed) < 3 else f"{failed[0]}; and {len(failed) - 1} more"
    return Result(State.CRITICAL, text, details=failed, facts={"problems": failed})


async def _find_places(reactor: Any, order: _Order) -> list[tuple[str, Target]]:
    """
    Find the places to try, with a name for each.

    @raise DiscoveryError: If DNS names none that can be used.
    """
    if order.target is not None:
        return [(str(order.target), order.target)]
    # Records and addresses have half of the time together, so that the hosts have the other half.
    end = reactor.seconds() + order.timeout / 2
    domains = find_own_domains() if order.domain is None else (order.domain,)
    found = await _find_first(reactor, order, domains, end)
    places = [
        (f"{each.target} ({Target(each.address, each.port)})", Target(each.address, each.port))
        for each in found.candidates(order.family)
    ]
    if not places:
        problems = "; ".join(host.problem or "no such address" for host in found.hosts[:2])
        raise DiscoveryError(f"none of the records of {found.service} can be used: {problems}")
    return places[:MAXIMUM_PLACES]


async def _find_first(
    reactor: Any, order: _Order, domains: Sequence[str], end: float
) -> Discovered:
    """
    Find what DNS says about the first of some domains that has records.

    @param end: When it is too late.
    """
    resolver = make_resolver(reactor, order.nameservers)
    for domain in domains[:-1]:
        with contextlib.suppress(NoSuchNameError, NoServiceRecordError):
            left = (end - reactor.seconds()) / 2
            return await discover(reactor, resolver, domain, timeout=left)
    left = (end - reactor.seconds()) / 2
    return await discover(reactor, resolver, domains[-1], timeout=left)


async def _ask_within(reactor: Any, target: Target, order: _Order, limit: float) -> Asked:
    """
    Ask a place, and give up when the time for it is over, whatever step it is at.
    """
    late = Asked(Verdict.SILENT, limit, f"no answer within {limit:.1f} seconds")
    asking = Deferred.fromCoroutine(ask(reactor, target, order.body, limit, order.family))
    return await asking.addTimeout(limit, reactor, lambda result, seconds: late)


def judge(order: _Order, name: str, asked: Asked, failed: Sequence[str]) -> Result:
    """
    Judge an answer that was granted.

    @param failed: What became of those that clients try before.
    """
    count = asked.count or 0
    verdicts = [order.time.judge(asked.seconds), order.count.judge(count)]
    needed = order.body.n_policy
    if count < needed and order.count.warning is None and order.count.critical is None:
        verdicts.append(
            (State.WARNING, f"a client would not be content: it needs {needed} clients")
        )
    if failed:
        verdicts.append((State.WARNING, f"clients have to fall back: {'; '.join(failed[:2])}"))
    state = max(state for state, _ in verdicts)
    answer = (
        f"{name} grants {order.product}, {count} client{'' if count == 1 else 's'} (it needs {needed}),"
        f" {asked.seconds:.4f} s"
    )
    text = "; ".join([*(problem for _, problem in verdicts if problem), answer])
    return Result(
        state,
        text,
        [order.time.performance(asked.seconds), order.count.performance(count)],
        [f"ePID: {asked.epid}", *failed],
        {
            "target": name,
            "product": order.product,
            "seconds": round(asked.seconds, 4),
            "count": count,
            "epid": asked.epid,
            "problems": list(failed),
        },
    )
