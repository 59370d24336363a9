"""
Finding hosts by DNS, as a client of the product does it: the SRV records of C{_vlmcs._tcp} in a domain.

L{discover} asks for the records, puts them into the order of RFC 2782, and finds the addresses of each host: among the
additional records where they are, by asking otherwise.  What is wrong with a record is data, not an error, for the
others may be good: a L{Found} whose C{problem} is not empty is none that a client could use.  Only when there is no
record at all there is an error, and it says whether the name is missing, the records, or the name servers.

L{order} and L{share} are pure; randomness is an argument.  Everything is bounded: records, addresses, aliases, and the
time, which is at most twice the timeout.

Source: RFC 2782; Microsoft's documentation of volume activation ("Configuring DNS"), which adds that clients look in
the domain of their own first.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns

from kmsproto.net.resolver import (
    REFUSED,
    AliasLoopError,
    DiscoveryError,
    DomainNameError,
    NameServerError,
    NameServerTimeoutError,
    NoOwnDomainError,
    NoServiceRecordError,
    NoSuchNameError,
    find_own_domains,
    is_address,
    look_for_own_domains,
    look_up,
    make_resolver,
    normalize_domain,
    own_domain,
    parse_nameserver,
)

__all__ = [
    "MAXIMUM_RECORDS",
    "SERVICE",
    "AliasLoopError",
    "Candidate",
    "Discovered",
    "DiscoveryError",
    "DomainNameError",
    "Found",
    "NameServerError",
    "NameServerTimeoutError",
    "NoOwnDomainError",
    "NoServiceRecordError",
    "NoSuchNameError",
    "ServiceRecord",
    "discover",
    "find_own_domains",
    "is_address",
    "look_for_own_domains",
    "look_up_service",
    "make_resolver",
    "normalize_domain",
    "order",
    "own_domain",
    "parse_nameserver",
    "share",
]

#: The service that KMS clients look for, below their domain.
SERVICE = "_vlmcs._tcp"
#: Records that are looked at, and addresses of each of them.
MAXIMUM_RECORDS = 64
MAXIMUM_ADDRESSES = 16
#: Aliases that are followed.
_MAXIMUM_ALIASES = 8
#: Questions that wait for answers at the same time.
_AT_ONCE = 8
#: The types of address records by IP version.
_ADDRESS_KINDS = {4: dns.A, 6: dns.AAAA}


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """
    An SRV record.

    @ivar target: The host, without the dot at its end; C{"."} says that there is none.
    @ivar port: Its TCP port.
    @ivar priority: Lower ones come first.
    @ivar weight: How often it is chosen among those of equal priority.
    @ivar ttl: Seconds for which it may be kept.
    """

    target: str
    port: int
    priority: int = 0
    weight: int = 0
    ttl: int = 0


class Candidate(NamedTuple):
    """
    A place where a host may be.

    @ivar target: The name that its record has.
    @ivar address: One of its addresses.
    @ivar port: Its TCP port.
    """

    target: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Found:
    """
    What became of a record.

    @ivar record: The record.
    @ivar addresses: The addresses of its target, IPv4 first.
    @ivar problem: Why no client can use it, in a clause; empty if they can.
    @ivar warnings: What is not as it should be, although clients can use it.
    """

    record: ServiceRecord
    addresses: tuple[str, ...] = ()
    problem: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovered:
    """
    What DNS says about a domain.

    @ivar domain: The domain.
    @ivar service: The name that was asked for.
    @ivar hosts: The records in the order in which a client would try them.
    @ivar aliases: The names that the service's name stands for, when it is an alias.
    @ivar omitted: How many records were not looked at.
    """

    domain: str
    service: str
    hosts: tuple[Found, ...]
    aliases: tuple[str, ...] = ()
    omitted: int = 0

    def candidates(self, version: int | None = None) -> Iterator[Candidate]:
        """
        Yield the places to try, in their order.

        @param version: The IP version, 4 or 6; C{None} for both.
        """
        for host in self.hosts:
            for address in () if host.problem else host.addresses:
                if version in (None, ipaddress.ip_address(address).version):
                    yield Candidate(host.record.target, address, host.record.port)


def uniform(limit: int) -> int:
    """
    Choose a number from 0 to a limit, both included.
    """
    return secrets.randbelow(limit + 1)


def order(
    records: Sequence[ServiceRecord], random: Callable[[int], int] = uniform
) -> list[ServiceRecord]:
    """
    Put records into the order in which a client tries them (RFC 2782, "The format of the SRV RR").

    By priority; and among those of equal priority again and again one is drawn by weight, those of weight 0 standing
    first so that they have a small chance.

    @param records: The records, in the order of the answer.
    @param random: Gives a number from 0 to its argument, both included.
    """
    ordered: list[ServiceRecord] = []
    for priority in sorted({record.priority for record in records}):
        left = [record for record in records if record.priority == priority]
        left.sort(key=lambda record: record.weight > 0)
        while left:
            ordered.append(left.pop(_draw(left, random)))
    return ordered


def _draw(records: Sequence[ServiceRecord], random: Callable[[int], int]) -> int:
    """
    Draw the first record whose running sum of weights reaches a random number.
    """
    threshold = random(sum(record.weight for record in records))
    total = 0
    for index, record in enumerate(records):
        total += record.weight
        if total >= threshold:
            return index
    raise ValueError(f"{threshold} is more than the sum of the weights, {total}")


def share(record: ServiceRecord, among: Sequence[ServiceRecord]) -> float:
    """
    Tell how probable it is that a record is drawn first.

    @param among: All records of its priority, itself included.
    @return: From 0 to 1.  Where the rule leaves the order open, the mean of all orders.
    """
    total = sum(each.weight for each in among)
    lucky = [each for each in among if not each.weight] or among
    bonus = 1 / len(lucky) if record in lucky else 0.0
    return (record.weight + bonus) / (total + 1)


async def discover(
    clock: IReactorTime,
    resolver: IResolver,
    domain: str,
    *,
    timeout: float,
    ignore_order: bool = False,
    random: Callable[[int], int] = uniform,
) -> Discovered:
    """
    Find the hosts of a domain.

    @param clock: The source of time: the reactor.
    @param resolver: Asks the name servers; see L{make_resolver}.
    @param domain: The domain.
    @param timeout: Seconds for the records, and as many for all addresses together.
    @param ignore_order: Whether to keep the order of the answer, whatever the priorities and weights.
    @param random: Gives a number from 0 to its argument, both included.
    @raise DomainNameError: If it cannot be a domain.
    @raise DiscoveryError: If there is no record; its types say why.
    """
    domain = normalize_domain(domain)
    service = normalize_domain(f"{SERVICE}.{domain}")
    answer = await look_up_service(clock, resolver, service, timeout)
    records = list(answer.records)
    omitted = max(0, len(records) - MAXIMUM_RECORDS)
    del records[MAXIMUM_RECORDS:]
    if not ignore_order:
        records = order(records, random)
    finder = _Finder(clock, resolver, domain, answer.additional, clock.seconds() + timeout)
    hosts = await gatherResults(
        [Deferred.fromCoroutine(finder.find(record)) for record in records], consumeErrors=True
    )
    return Discovered(domain, service, tuple(hosts), answer.aliases, omitted)


class ServiceAnswer(NamedTuple):
    """
    What name servers say about the name of a service.

    @ivar records: Its SRV records in the order of the answer.
    @ivar aliases: The names that were followed.
    @ivar additional: Further records that came along, as C{twisted.names} has them.
    """

    records: tuple[ServiceRecord, ...]
    aliases: tuple[str, ...]
    additional: tuple[Any, ...]


async def look_up_service(
    clock: IReactorTime, resolver: IResolver, name: str, limit: float
) -> ServiceAnswer:
    """
    Ask for the SRV records of a name, and follow it when it is an alias.

    @param limit: Seconds that all this may take.
    @raise DiscoveryError: If there is no record; its types say why.
    """
    end = clock.seconds() + limit
    aliases: list[str] = []
    asked = name
    while len(aliases) <= _MAXIMUM_ALIASES:
        try:
            answers, additional = await look_up(
                clock, resolver, asked, dns.SRV, end - clock.seconds()
            )
        except NoSuchNameError as error:
            raise NoSuchNameError(
                f"{asked} does not exist in DNS (on Windows 0x8007232B);"
                " check the domain, or add the records that kmsproto dns prints"
            ) from error
        final, followed = _follow(asked, answers)
        aliases += followed
        records = tuple(
            _service_record(answer)
            for answer in answers
            if answer.type == dns.SRV and _text(answer.name) == final
        )
        if records:
            return ServiceAnswer(records, tuple(aliases), tuple(additional))
        if len(set(aliases)) < len(aliases) or name.lower() in aliases:
            raise AliasLoopError(
                f"{name} is an alias that leads back to {aliases[-1]}; correct its CNAME records"
            )
        if final == asked.lower() or not _is_askable(final):
            break
        asked = final
    else:
        raise AliasLoopError(
            f"{name} is an alias of an alias, more than {_MAXIMUM_ALIASES} times;"
            " let its CNAME record name the last of them"
        )
    raise NoServiceRecordError(
        f"{asked} is in DNS, but has no SRV record (on Windows 0x8007251D);"
        " add the records that kmsproto dns prints"
    )


def _service_record(answer: Any) -> ServiceRecord:
    payload = answer.payload
    return ServiceRecord(
        _text(payload.target, fold=False) or ".",
        payload.port,
        payload.priority,
        payload.weight,
        answer.ttl,
    )


def _follow(name: str, answers: Sequence[Any]) -> tuple[str, list[str]]:
    """
    Follow the aliases within an answer.

    @return: The name at the end, and those that were passed on the way, itself included.
    """
    alias = {
        _text(answer.name): _text(answer.payload.name)
        for answer in answers
        if answer.type == dns.CNAME
    }
    final = name.lower()
    passed: list[str] = []
    while final in alias and len(passed) < _MAXIMUM_ALIASES:
        final = alias[final]
        passed.append(final)
    return final, passed


def _text(name: Any, *, fold: bool = True) -> str:
    """
    Turn a name of C{twisted.names} into text; bytes that are none of ASCII become escapes.
    """
    text: str = name.name.decode("ascii", "backslashreplace")
    return text.lower() if fold else text


def _is_askable(name: str) -> bool:
    """
    Tell whether a name that came from DNS can be asked for.
    """
    try:
        normalize_domain(name)
    except DomainNameError:
        return False
    return True


class _Finder:
    """
    Finds the addresses of the targets of records, so many at a time and until it is too late.
    """

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        domain: str,
        additional: Sequence[Any],
        end: float,
    ) -> None:
        self._clock = clock
        self._resolver = resolver
        self._domain = domain.lower()
        self._additional = additional
        self._end = end
        self._slots = DeferredSemaphore(_AT_ONCE)

    async def find(self, record: ServiceRecord) -> Found:
        """
        Find out whether a record can be used.
        """
        problem = _flaw(record)
        if problem:
            return Found(record, problem=problem)
        addresses: list[str] = []
        problems: list[DiscoveryError] = []
        aliases: list[str] = []
        for version in _ADDRESS_KINDS:
            try:
                found, passed = await self._addresses(record.target, version)
            except DiscoveryError as error:
                problems.append(error)
                continue
            addresses += found
            aliases += passed
        del addresses[MAXIMUM_ADDRESSES:]
        warnings = []
        if aliases:
            warnings.append(
                f"its target is an alias of {aliases[-1]}, which RFC 2782 forbids; name that host itself"
            )
        if addresses:
            # Some forwarders refuse questions about what they do not have, and clients do not mind.
            warnings += [
                str(error)
                for error in problems
                if not isinstance(error, NoSuchNameError) and error.hresult != REFUSED
            ]
            return Found(record, tuple(addresses), "", tuple(warnings))
        return Found(record, (), self._without_address(record, problems), tuple(warnings))

    async def _addresses(self, name: str, version: int) -> tuple[list[str], list[str]]:
        """
        Find the addresses of one IP version.

        @return: The addresses, and the names that were followed.
        """
        kind = _ADDRESS_KINDS[version]
        known = _addresses_in(self._additional, name.lower(), kind)
        if known:
            return known, []
        aliases: list[str] = []
        asked = name
        while len(aliases) <= _MAXIMUM_ALIASES and _is_askable(asked):
            answers = await self._ask(asked, kind)
            final, followed = _follow(asked, answers)
            aliases += followed
            found = _addresses_in(answers, final, kind)
            if found or final == asked.lower():
                return found, aliases
            asked = final
        return [], aliases

    async def _ask(self, name: str, kind: int) -> list[Any]:
        await self._slots.acquire()
        try:
            left = self._end - self._clock.seconds()
            answers, _ = await look_up(self._clock, self._resolver, name, kind, left)
        finally:
            self._slots.release()
        return answers

    def _without_address(self, record: ServiceRecord, problems: Sequence[DiscoveryError]) -> str:
        """
        Say why a target has no address.
        """
        target = record.target.lower()
        others = [error for error in problems if not isinstance(error, NoSuchNameError)]
        if others:
            return f"its addresses are not known: {others[0]}"
        if target.endswith(f".{self._domain}.{self._domain}"):
            return "its target has the domain twice; end the target with a dot in the zone file"
        if "." not in target:
            return f"its target has no domain; write {target}.{self._domain}. if that is the host"
        if problems:
            return (
                "its target does not exist in DNS; correct the target, or add its A or AAAA record"
            )
        return "its target has no address; add an A or AAAA record"


def _flaw(record: ServiceRecord) -> str:
    """
    Say what is wrong with a record in itself.
    """
    if record.target == ".":
        return "its target is the root, which says that the service is not offered here"
    if is_address(record.target):
        return "its target is an address; name a host, and give that an A or AAAA record"
    if not _is_askable(record.target):
        return "its target is no name that a host can have"
    if not record.port:
        return "its port is 0; write the port of the host, by default 1688"
    return ""


def _addresses_in(records: Sequence[Any], name: str, kind: int) -> list[str]:
    """
    Pick the addresses of a name from records, each once.
    """
    found = [
        record.payload.dottedQuad()
        if kind == dns.A
        else str(ipaddress.IPv6Address(record.payload.address))
        for record in records
        if record.type == kind and _text(record.name) == name
    ]
    return list(dict.fromkeys(found))
