"""
C{kmsproto discover}: what DNS tells the clients of a domain, and whether the hosts that it names answer.

The command does what a client does, and goes on where a client would give up: it looks for records under the names
that people write by mistake, asks every address of every host for an activation, and says of each record why it would
not be used.  L{survey} collects all that as data (L{Survey}); L{show} and L{Survey.to_json} show it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IResolver

from kmsproto.cli.asking import Asked, Verdict, ask, make_body, product_options
from kmsproto.cli.destinations import (
    OWN_DOMAIN,
    family_option,
    ignore_order_option,
    nameserver_option,
)
from kmsproto.cli.output import (
    ExitStatus,
    catalog_option,
    console,
    emit_json,
    fail,
    json_option,
    run,
    timeout_option,
)
from kmsproto.cli.targets import Target
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.messages import RequestBody
from kmsproto.net import discovery
from kmsproto.net.discovery import (
    SERVICE,
    Discovered,
    DiscoveryError,
    DomainNameError,
    Found,
    NameServerTimeoutError,
    ServiceRecord,
    look_for_own_domains,
    look_up_service,
    make_resolver,
    normalize_domain,
    share,
)
from kmsproto.net.quoting import printable
from kmsproto.net.usability import address_flaw, record_notes

#: Places that are asked at the same time, and in all.
_AT_ONCE = 16
MAXIMUM_PLACES = 64
#: Columns of what is not printed on a terminal.
_WIDTH = 180

#: Names under which records are found that were meant for the right one, and what is wrong with each.
MISTAKEN_NAMES: tuple[tuple[str, str], ...] = (
    ("_vlmcs._udp.{domain}", "clients look for _tcp, not for _udp"),
    ("_vlmcs.{domain}", "it lacks the label _tcp"),
    ("vlmcs._tcp.{domain}", "it lacks the underscore before vlmcs"),
    ("_vlmcs.tcp.{domain}", "it lacks the underscore before tcp"),
    ("vlmcs.tcp.{domain}", "it lacks both underscores"),
    ("_kms._tcp.{domain}", "the service is called _vlmcs, not _kms"),
    ("_vlmcsd._tcp.{domain}", "the service is called _vlmcs, not _vlmcsd"),
    (
        "_vlmcs._tcp.{domain}.{domain}",
        "it has the domain twice; end the name with a dot in the zone file",
    ),
)
#: A name that nobody has; if it has records, every name has them.
NOBODYS_NAME = "_kmsproto-nobody._tcp.{domain}"


@dataclass(frozen=True, slots=True)
class Misplaced:
    """
    Records under a name that no client looks for.

    @ivar name: The name.
    @ivar mistake: What is wrong with it.
    @ivar records: Its records.
    """

    name: str
    mistake: str
    records: tuple[ServiceRecord, ...]

    def __str__(self) -> str:
        targets = ", ".join(f"{each.target}:{each.port}" for each in self.records[:4])
        return f"{self.name} names {targets}, but no client looks there: {self.mistake}"


@dataclass(frozen=True, slots=True)
class Place:
    """
    A record, and what a client makes of it.

    @ivar found: The record with its addresses.
    @ivar addresses: Those of the IP versions that are wanted.
    @ivar use: C{"first"}, C{"fall-back"} or C{"never"}.
    @ivar share: How probable it is that a client begins with it, from 0 to 1.
    @ivar problem: Why no client uses it; empty if they do.
    @ivar asked: What came of asking, by address.
    """

    found: Found
    addresses: tuple[str, ...]
    use: str
    share: float
    problem: str
    asked: dict[str, Asked] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """
        The host and the port.
        """
        return f"{self.found.record.target}:{self.found.record.port}"

    def to_json(self, number: int) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        record = self.found.record
        return {
            "order": number,
            "target": record.target,
            "port": record.port,
            "priority": record.priority,
            "weight": record.weight,
            "ttl": record.ttl,
            "use": self.use,
            "share": round(self.share, 4),
            "problem": self.problem or None,
            "warnings": list(self.found.warnings),
            "addresses": [
                {"address": address, **_asked_json(self.asked.get(address))}
                for address in self.addresses
            ],
        }


@dataclass(slots=True)
class Survey:
    """
    All that was found out.

    @ivar tried: The domains that have no records, and why.
    @ivar discovered: What DNS says about the first domain that has some.
    @ivar own: Whether the domains are this machine's own.
    @ivar misplaced: Records under wrong names, in all these domains.
    @ivar places: The records in order.
    @ivar is_asked: Whether the places were asked.
    @ivar unasked: How many addresses were too many to be asked.
    """

    tried: list[tuple[str, DiscoveryError]] = field(default_factory=list)
    discovered: Discovered | None = None
    own: bool = False
    misplaced: list[Misplaced] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    is_asked: bool = False
    unasked: int = 0

    def problems(self) -> list[str]:
        """
        Say in a line each what is wrong.
        """
        lines = []
        for place in self.places:
            if place.problem:
                lines.append(f"{place.name} is never used: {place.problem}")
            lines += [f"{place.name}: {warning}" for warning in place.found.warnings]
            for address, asked in place.asked.items():
                if asked.verdict is not Verdict.GRANTED:
                    where = Target(address, place.found.record.port)
                    lines.append(
                        f"{place.name} at {where}: {asked.problem}{_CONSEQUENCES[asked.verdict]}"
                    )
        lines += [str(each) for each in self.misplaced]
        if self.discovered is not None and self.discovered.omitted:
            lines.append(
                f"{self.discovered.omitted} more records were not looked at; there are too many"
            )
        if self.unasked:
            lines.append(f"{self.unasked} more addresses were not asked; there are too many")
        return lines

    def notes(self) -> list[str]:
        """
        Say in a line each what is odd but need not be wrong: a test on one machine has such addresses as well.
        """
        lines = [
            f"{place.name} at {address}: {flaw}"
            for place in self.places
            for address in place.addresses
            if (flaw := address_flaw(address))
        ]
        return lines + record_notes([place.found.record for place in self.places])

    def status(self) -> ExitStatus:
        """
        Tell how the command ends.
        """
        asked = [each for place in self.places for each in place.asked.values()]
        if not any(place.use != "never" for place in self.places):
            return ExitStatus.NO_HOST
        if self.is_asked and not any(each.verdict.answered for each in asked):
            return ExitStatus.NO_HOST
        return ExitStatus.FAILED if self.problems() else ExitStatus.OK

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        found = self.discovered
        return {
            "domain": None if found is None else found.domain,
            "service": None if found is None else found.service,
            "aliases": [] if found is None else list(found.aliases),
            "own_domain": self.own,
            "tried": [
                {"domain": domain, "problem": str(error), "hresult": f"0x{error.hresult:08X}"}
                for domain, error in self.tried
            ],
            "hosts": [place.to_json(number) for number, place in enumerate(self.places, 1)],
            "misplaced": [
                {
                    "name": each.name,
                    "mistake": each.mistake,
                    "targets": [f"{record.target}:{record.port}" for record in each.records],
                }
                for each in self.misplaced
            ],
            "problems": self.problems(),
            "notes": self.notes(),
        }


#: What follows for a client, by what came of asking.
_CONSEQUENCES = {
    Verdict.REFUSED: "",
    Verdict.WRONG: "; clients reject this",
    Verdict.UNREACHABLE: "; clients try the next one",
    Verdict.SILENT: "; clients wait for it, and then try the next one",
}


def _asked_json(asked: Asked | None) -> dict[str, Any]:
    if asked is None:
        return {"verdict": None}
    return {
        "verdict": asked.verdict.value,
        "seconds": round(asked.seconds, 4),
        "problem": asked.problem or None,
        "epid": asked.epid or None,
        "count": asked.count,
    }


@click.command()
@click.argument("domain", required=False, metavar="[DOMAIN]")
@nameserver_option
@ignore_order_option
@family_option
@click.option("--no-probe", is_flag=True, help="Look at DNS only; ask no host.")
@product_options
@catalog_option
@timeout_option
@json_option
def discover(
    domain: str | None,
    nameservers: tuple[tuple[str, int], ...],
    ignore_order: bool,
    family: int | None,
    no_probe: bool,
    product: str | None,
    protocol: str | None,
    catalog: Catalog,
    timeout: float,
    as_json: bool,
) -> None:
    """
    Find the KMS hosts of a domain as its clients do, and see whether they answer.

    Without DOMAIN, or with "-", it tries this machine's own domain, and then the suffixes that it searches.

    Exits with status 0 when at least one host grants an activation and nothing is wrong, with 1 when a record or a host
    is wrong, and with 3 when no host is found or none answers.
    """
    if domain == OWN_DOMAIN:
        domain = None
    if domain is not None:
        try:
            domain = normalize_domain(_without_service(domain))
        except DomainNameError as error:
            raise click.BadParameter(str(error), param_hint="DOMAIN") from error
    _, request = make_body(catalog, product, protocol)
    run(
        _discover,
        domain,
        nameservers,
        _Wish(
            ignore_order,
            family,
            None if no_probe else request,
            timeout,
        ),
        as_json,
    )


def _without_service(domain: str) -> str:
    """
    Take the domain from what may be the whole name of the service, or a target for other commands.
    """
    service = f"{SERVICE}."
    domain = domain.removeprefix(".")
    return domain[len(service) :] if domain.lower().startswith(service) else domain


@dataclass(frozen=True, slots=True)
class _Wish:
    """
    How to look.

    @ivar ignore_order: Whether to keep the order of the answer.
    @ivar family: The IP version; C{None} for both.
    @ivar request: What to ask the hosts; C{None} asks none.
    @ivar timeout: Seconds for each step.
    """

    ignore_order: bool
    family: int | None
    request: RequestBody | None
    timeout: float


async def _discover(
    reactor: Any,
    domain: str | None,
    nameservers: Sequence[tuple[str, int]],
    wish: _Wish,
    as_json: bool,
) -> None:
    domains = await look_for_own_domains(reactor) if domain is None else (domain,)
    resolver = make_resolver(reactor, nameservers)
    found = await survey(reactor, resolver, domains, wish)
    found.own = domain is None
    if as_json:
        emit_json(found.to_json())
    else:
        show(found, console(width=_WIDTH))
    if found.discovered is None:
        fail(found.tried[-1][1], found.status())
    raise SystemExit(found.status())


async def survey(reactor: Any, resolver: IResolver, domains: Sequence[str], wish: _Wish) -> Survey:
    """
    Find out all about the first of some domains that has records.
    """
    found = Survey()
    for domain in domains:
        try:
            found.discovered = await discovery.discover(
                reactor,
                resolver,
                domain,
                timeout=wish.timeout,
                ignore_order=wish.ignore_order,
            )
        except DiscoveryError as error:
            found.tried.append((domain, error))
            if isinstance(error, NameServerTimeoutError):
                break  # the same servers would be asked for the next
        found.misplaced += await find_misplaced(reactor, resolver, domain, wish.timeout)
        if found.discovered is not None:
            found.places = judge(found.discovered, wish.family, wish.ignore_order)
            break
    if wish.request is not None:
        await _ask_all(reactor, found, wish.request, wish.timeout)
    return found


async def find_misplaced(
    reactor: Any, resolver: IResolver, domain: str, timeout: float
) -> list[Misplaced]:
    """
    Look for records under names that people write by mistake.

    Where a wildcard gives records to every name, there is none.

    @param timeout: Seconds for all of them together.
    """

    async def look(pattern: str) -> tuple[str, tuple[ServiceRecord, ...]]:
        name = pattern.format(domain=domain)
        try:
            answer = await look_up_service(reactor, resolver, normalize_domain(name), timeout)
        except (DiscoveryError, DomainNameError):
            return name, ()
        return name, answer.records

    patterns = [NOBODYS_NAME, *(pattern for pattern, _ in MISTAKEN_NAMES)]
    (_, wild), *others = await gatherResults(
        [Deferred.fromCoroutine(look(pattern)) for pattern in patterns], consumeErrors=True
    )
    if wild:
        return []
    return [
        Misplaced(name, mistake, records)
        for (name, records), (_, mistake) in zip(others, MISTAKEN_NAMES, strict=True)
        if records
    ]


def judge(discovered: Discovered, family: int | None, ignore_order: bool) -> list[Place]:
    """
    Say of each record what clients make of it.

    @param family: The IP version that they have; C{None} for both.
    @param ignore_order: Whether they keep the order of the answer.
    """
    addresses = {
        id(host): tuple(
            address
            for address in host.addresses
            if family in (None, ipaddress.ip_address(address).version)
        )
        for host in discovered.hosts
    }
    usable = [host for host in discovered.hosts if addresses[id(host)] and not host.problem]
    if ignore_order:
        first = usable[:1]
    else:
        best = min((host.record.priority for host in usable), default=0)
        first = [host for host in usable if host.record.priority == best]
    rivals = [host.record for host in first]
    places = []
    for host in discovered.hosts:
        problem = host.problem
        if not problem and not addresses[id(host)]:
            problem = f"it has no address of IPv{family}"
        use = "never" if problem else "first" if host in first else "fall-back"
        chance = share(host.record, rivals) if use == "first" else 0.0
        places.append(Place(host, addresses[id(host)], use, chance, problem))
    return places


async def _ask_all(reactor: Any, found: Survey, request: RequestBody, timeout: float) -> None:
    """
    Ask every address that clients may use, each once, so many at a time.
    """
    found.is_asked = True
    wanted: dict[Target, list[Place]] = {}
    for place in found.places:
        for address in () if place.use == "never" else place.addresses:
            wanted.setdefault(Target(address, place.found.record.port), []).append(place)
    slots = DeferredSemaphore(_AT_ONCE)

    async def ask_one(target: Target) -> None:
        asked = await slots.run(
            lambda: Deferred.fromCoroutine(ask(reactor, target, request, timeout))
        )
        for place in wanted[target]:
            place.asked[target.host] = asked

    targets = list(wanted)
    found.unasked = len(targets[MAXIMUM_PLACES:])
    await gatherResults(
        [Deferred.fromCoroutine(ask_one(target)) for target in targets[:MAXIMUM_PLACES]],
        consumeErrors=True,
    )


def show(found: Survey, screen: Console) -> None:
    """
    Show what was found out.
    """
    if found.discovered is not None:
        lines = [f"{domain}: {error}" for domain, error in found.tried]
        _print(screen, lines, "dim")
        _show_records(found, found.discovered, screen)
        _print(screen, ["", *explain(found.places)])
        screen.print()
    else:
        # What is left is the error that ends the command.
        _print(screen, [f"{domain}: {error}" for domain, error in found.tried[:-1]], "dim")
    _print(screen, [f"problem: {problem}" for problem in found.problems()], "yellow")
    _print(screen, [f"note: {note}" for note in found.notes()])


def _print(screen: Console, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        screen.print(_text(line, style), soft_wrap=True)


def _text(text: str, style: str = "") -> Text:
    """
    Make text that a terminal shows and does not act upon; rich finds no markup in it.
    """
    return Text(printable(text), style=style)


def _show_records(found: Survey, discovered: Discovered, screen: Console) -> None:
    """
    Show the records as a table.
    """
    suffix = f" (suffix {discovered.domain} of this machine)" if found.own else ""
    _print(screen, [f"{discovered.service}{suffix}"], "bold")
    _print(screen, [f"is an alias of {alias}" for alias in discovered.aliases[-1:]])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("#", "target", "port", "priority", "weight", "use", "address"):
        is_number = heading in ("#", "port", "priority", "weight")
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    if found.is_asked:
        table.add_column("answer", overflow="fold")
    for number, place in enumerate(found.places, 1):
        record = place.found.record
        numbers = (record.port, record.priority, record.weight)
        head = [str(number), record.target, *map(str, numbers), place.use]
        for address in place.addresses or ("-",):
            answer = [_answer(place, address)] if found.is_asked else []
            table.add_row(*map(_text, [*head, address]), *answer)
            head = [""] * len(head)
    screen.print(table)


def _answer(place: Place, address: str) -> Text:
    """
    Say what came of asking, for a cell of the table.
    """
    asked = place.asked.get(address)
    if asked is None:
        return _text("-" if place.use == "never" else "not asked", "dim")
    if asked.verdict is Verdict.GRANTED:
        milliseconds = asked.seconds * 1000
        return _text(
            f"granted in {milliseconds:.0f} ms, {asked.count} clients, {asked.epid}", "green"
        )
    # Why is told below the table, where there is room for it.
    return _text(asked.verdict.value, "red")


def explain(places: Sequence[Place]) -> list[str]:
    """
    Say in a few sentences with which host clients begin, and with which they go on.
    """
    first = [place for place in places if place.use == "first"]
    later = [place.name for place in places if place.use == "fall-back"]
    if not first:
        return ["No client can use any of these records."]
    if len(first) == 1:
        lines = [f"Clients begin with {first[0].name}."]
    else:
        chances = ", ".join(f"{place.name} ({place.share:.0%})" for place in first)
        lines = [f"Clients begin with one of {len(first)} hosts, chosen by weight: {chances}."]
    if later:
        when = "it does not answer" if len(first) == 1 else "none of these answers"
        lines.append(f"When {when}, they fall back to {', then '.join(later)}.")
    return lines
