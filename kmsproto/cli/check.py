"""
C{kmsproto check}: a plugin for Nagios, Icinga and their kin, by the Monitoring Plugins Development Guidelines.

A host is asked for a real activation, and the answer verified, for a port that is open tells nothing.  What is printed
and how it ends are the conventions of plugins (L{kmsproto.cli.plugin}).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.error import ConnectingCancelledError

from kmsproto import __version__
from kmsproto.cli.asking import Asked, Verdict, ask, make_body, product_options
from kmsproto.cli.destinations import OWN_DOMAIN, family_option, nameserver_option
from kmsproto.cli.output import (
    catalog_option,
    json_option,
    read_seconds,
    run,
)
from kmsproto.cli.plugin import (
    PluginCommand,
    Range,
    RangeType,
    Result,
    State,
    Thresholds,
    finish,
    mistake,
)
from kmsproto.cli.targets import Target, agree, parse_target
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
    ServiceRecord,
    discover,
    look_for_own_domains,
    make_resolver,
    normalize_domain,
)

#: Places that are asked, all at the same time, of those that DNS names.
MAXIMUM_PLACES = 32


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
@click.version_option(__version__, "-V", "--version", message="%(prog)s, version %(version)s")
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

    TARGET is HOST[:PORT]; ".DOMAIN" for the hosts that DNS names for a domain, all of which should answer;
    or "-" for those of this machine's own domain.

    Ranges are written as 10, 10:, ~:10, 10:20 or @10:20.  Exits with status 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    place, domain = _read_target(target, hostname, port)
    if place is not None:
        agree(place, family)
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
        result = mistake(error)
    finish(result, verbose=verbose, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Place:
    """
    A place to ask.

    @ivar name: What to call it.
    @ivar target: Where it is.
    @ivar priority: That of its record; lower ones come first.
    """

    name: str
    target: Target
    priority: int = 0


async def examine(reactor: Any, order: _Order) -> Result:
    """
    Find the hosts, ask all of them at the same time, and judge what clients would meet.
    """
    end = reactor.seconds() + order.timeout
    try:
        places, unusable = await _find_places(reactor, order)
    except DiscoveryError as error:
        state = State.UNKNOWN if isinstance(error, NoOwnDomainError) else State.CRITICAL
        return Result(state, str(error), facts={"problems": [str(error)]})
    left = max(end - reactor.seconds(), 0.001)
    asking = [
        Deferred.fromCoroutine(_ask_within(reactor, place.target, order, left)) for place in places
    ]
    try:
        outcomes = await gatherResults(asking, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    return conclude(order, list(zip(places, outcomes, strict=True)), unusable)


def conclude(
    order: _Order, outcomes: Sequence[tuple[_Place, Asked]], unusable: Sequence[str]
) -> Result:
    """
    Judge what came of asking all places; the same outcomes give the same result, whatever order a client draws.

    A client is content with the next host when one does not answer, so that is a warning; but it takes a refusal or a
    wrong answer for the answer.  So one of those is critical where clients begin: at the lowest priority of which a
    host answers at all.

    @param outcomes: The places, best first, and what came of asking each.
    @param unusable: What is wrong with records that lead to no place.
    """
    failed = [
        f"{place.name}: {asked.problem}"
        for place, asked in outcomes
        if asked.verdict is not Verdict.GRANTED
    ]
    problems = [*failed, *unusable]
    granted = [(place, asked) for place, asked in outcomes if asked.verdict is Verdict.GRANTED]
    first = min((place.priority for place, asked in outcomes if asked.verdict.answered), default=0)
    wrong = [
        f"{place.name}: {asked.problem}"
        for place, asked in outcomes
        if asked.verdict in (Verdict.REFUSED, Verdict.WRONG) and place.priority == first
    ]
    if wrong or not granted:
        return Result(
            State.CRITICAL,
            _abridge(wrong or failed),
            details=problems,
            facts={"problems": problems},
        )
    place, asked = granted[0]
    result = judge(order, place.name, asked, problems)
    if order.target is None:
        result.performance.append(f"hosts={len(granted)};;;0;{len(outcomes) + len(unusable)}")
    return result


def _abridge(problems: Sequence[str]) -> str:
    """
    Tell of a few problems, and how many more there are.
    """
    return (
        "; ".join(problems) if len(problems) < 3 else f"{problems[0]}; and {len(problems) - 1} more"
    )


async def _find_places(reactor: Any, order: _Order) -> tuple[list[_Place], list[str]]:
    """
    Find the places to ask, best first: by priority, then by weight, then by name.

    @return: The places, and what is wrong with the records that lead to none.
    @raise DiscoveryError: If DNS names none that can be used.
    """
    if order.target is not None:
        return [_Place(str(order.target), order.target)], []
    # Looking up has half of the time, so that the hosts have the other half.
    end = reactor.seconds() + order.timeout / 2
    if order.domain is None:
        domains = await look_for_own_domains(reactor, order.timeout / 4)
    else:
        domains = (order.domain,)
    found = await _find_first(reactor, order, domains, end)
    places: dict[Target, _Place] = {}
    unusable = []
    # Not in the order that a client draws, nor in that of the answer, which name servers turn round.
    for host in sorted(found.hosts, key=lambda each: _rank(each.record)):
        targets = [
            Target(address, host.record.port)
            for address in sorted(() if host.problem else host.addresses)
            if order.family in (None, ipaddress.ip_address(address).version)
        ]
        for target in targets:
            name = f"{host.record.target} ({target})"
            places.setdefault(target, _Place(name, target, host.record.priority))
        if host.problem:
            unusable.append(f"{host.record.target}: {host.problem}")
    if not places:
        problems = _abridge(unusable or [f"no host has an address of IPv{order.family}"])
        raise DiscoveryError(f"none of the records of {found.service} can be used: {problems}")
    omitted = found.omitted + len(places) - MAXIMUM_PLACES
    if omitted > 0:
        unusable.append(f"{omitted} more were not asked; there are too many")
    return list(places.values())[:MAXIMUM_PLACES], unusable


def _rank(record: ServiceRecord) -> tuple[int, int, str, int]:
    """
    Order records for people: those that most clients begin with first.
    """
    return record.priority, -record.weight, record.target.lower(), record.port


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

    @param failed: What is wrong with the other places.
    """
    count = asked.count or 0
    verdicts = [order.time.judge(asked.seconds), order.count.judge(count)]
    needed = order.body.n_policy
    if count < needed and order.count.warning is None and order.count.critical is None:
        verdicts.append(
            (State.WARNING, f"a client would not be content: it needs {needed} clients")
        )
    if failed:
        verdicts.append((State.WARNING, f"not all hosts can be used: {_abridge(failed)}"))
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
