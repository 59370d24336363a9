"""
C{kmsproto dns}: the records that let the clients of a domain find their hosts, ready to be pasted.

Each format is a function of the same records (L{Zone}) in a table (L{FORMATS}).  No format knows a way to escape a
name, and none has to: names are letters, digits, hyphens and, in domains, underscores, and whatever else is written
is refused before anything is printed.

Source: RFC 2782; the manuals of BIND, dnsmasq, Unbound, nsupdate and the DnsServer module of PowerShell.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import click

from kmsproto.cli.output import emit_json, json_option
from kmsproto.cli.targets import parse_target
from kmsproto.net.discovery import (
    MAXIMUM_RECORDS,
    SERVICE,
    DomainNameError,
    ServiceRecord,
    is_address,
    normalize_domain,
)

#: Seconds for which clients and name servers may keep a record by default.
DEFAULT_TTL = 3600
#: The largest TTL (RFC 2181 section 8).
_MAXIMUM_TTL = 2**31 - 1
_MAXIMUM_ADDRESSES = 256
_SECONDS_OF_A_DAY = 86400


@dataclass(frozen=True, slots=True)
class Zone:
    """
    The records to add.

    @ivar domain: The domain, in small letters and without the dot at its end.
    @ivar records: The SRV records; their targets are written like the domain.
    @ivar addresses: The hosts that are to get address records, with the addresses of each.
    @ivar ttl: Seconds for all of them.
    """

    domain: str
    records: tuple[ServiceRecord, ...]
    addresses: Mapping[str, tuple[str, ...]]
    ttl: int

    @property
    def service(self) -> str:
        """
        The name that clients look for.
        """
        return f"{SERVICE}.{self.domain}"

    def relative(self, name: str) -> str | None:
        """
        Write a name relative to the domain; C{None} if it is not within it.
        """
        if name == self.domain:
            return "@"
        short = name.removesuffix(f".{self.domain}")
        return None if short == name else short

    def address_records(self) -> Iterator[tuple[str, str, str]]:
        """
        Yield the name, the type and the address of each address record.
        """
        for name, addresses in self.addresses.items():
            for address in addresses:
                yield name, "AAAA" if ":" in address else "A", address


def _srv(record: ServiceRecord) -> str:
    """
    Write the data of a record as zone files have it.
    """
    return f"{record.priority} {record.weight} {record.port} {record.target}."


def bind(zone: Zone) -> list[str]:
    """
    Write lines of a zone file (RFC 1035 section 5), as BIND, NSD and Knot read them.
    """
    lines = [f"{zone.service}. {zone.ttl} IN SRV {_srv(record)}" for record in zone.records]
    for name, kind, address in zone.address_records():
        # What is not below the domain has no place in its zone file; the line is there to be moved.
        foreign = "; into another zone: " if zone.relative(name) is None else ""
        lines.append(f"{foreign}{name}. {zone.ttl} IN {kind} {address}")
    return lines


def dnsmasq(zone: Zone) -> list[str]:
    """
    Write options of dnsmasq.  It knows no TTL for one SRV record.

    A C{host-record} takes the place of what the name's own zone says, so one of another zone is only a comment.
    """
    lines = [
        f"srv-host={zone.service},{record.target},{record.port},{record.priority},{record.weight}"
        for record in zone.records
    ]
    for name, _, address in zone.address_records():
        foreign = "# of another zone, which should have it: " if zone.relative(name) is None else ""
        lines.append(f"{foreign}host-record={name},{address},{zone.ttl}")
    return lines


def unbound(zone: Zone) -> list[str]:
    """
    Write local data of Unbound.

    Local data hide all other records that the name has in its own zone, so those of another zone are only a comment.
    """
    lines = ["server:"]
    lines += [
        f'    local-data: "{zone.service}. {zone.ttl} IN SRV {_srv(record)}"'
        for record in zone.records
    ]
    for name, kind, address in zone.address_records():
        foreign = "# of another zone, which should have it: " if zone.relative(name) is None else ""
        lines.append(f'    {foreign}local-data: "{name}. {zone.ttl} IN {kind} {address}"')
    return lines


def nsupdate(zone: Zone) -> list[str]:
    """
    Write commands for nsupdate, which finds out itself to which zone and server they belong.
    """
    lines = [
        f"update add {zone.service}. {zone.ttl} IN SRV {_srv(record)}" for record in zone.records
    ]
    foreign = []
    for name, kind, address in zone.address_records():
        line = f"update add {name}. {zone.ttl} IN {kind} {address}"
        # One message changes one zone; what may be of another has a message of its own.
        if zone.relative(name) is None:
            foreign += [line, "send"]
        else:
            lines.append(line)
    return [*lines, "send", *foreign]


def powershell(zone: Zone) -> list[str]:
    """
    Write commands for the DnsServer module of Windows Server.
    """
    days, seconds = divmod(zone.ttl, _SECONDS_OF_A_DAY)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    common = f"-ZoneName '{zone.domain}' -TimeToLive '{days}.{clock}'"
    lines = [
        f"Add-DnsServerResourceRecord -Srv {common} -Name '{SERVICE}' -DomainName '{record.target}.'"
        f" -Priority {record.priority} -Weight {record.weight} -Port {record.port}"
        for record in zone.records
    ]
    for name, kind, address in zone.address_records():
        short = zone.relative(name)
        if short is None:
            lines.append(
                f"# {name} is not in the zone {zone.domain}; add {kind} {address} to its own"
            )
            continue
        version = 6 if kind == "AAAA" else 4
        lines.append(
            f"Add-DnsServerResourceRecord{kind} {common} -Name '{short}' -IPv{version}Address '{address}'"
        )
    return lines


@dataclass(frozen=True, slots=True)
class Format:
    """
    A format.

    @ivar write: Writes the records.
    @ivar title: What it is for.
    @ivar comment: How a comment begins in it.
    """

    write: Callable[[Zone], list[str]]
    title: str
    comment: str


#: The formats by name.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "bind": Format(bind, "zone file (BIND, NSD, Knot)", ";"),
        "dnsmasq": Format(dnsmasq, "dnsmasq.conf", "#"),
        "unbound": Format(unbound, "unbound.conf", "#"),
        "nsupdate": Format(nsupdate, "nsupdate", ";"),
        "powershell": Format(powershell, "PowerShell (Windows Server)", "#"),
    }
)


class _NumberType(click.IntRange):
    """
    A number of 16 bits.
    """

    def __init__(self) -> None:
        super().__init__(0, 65535)


@click.command()
@click.argument("domain", metavar="DOMAIN")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST[:PORT]...")
@click.option(
    "--priority",
    "priorities",
    type=_NumberType(),
    multiple=True,
    default=(0,),
    metavar="NUMBER",
    help="Lower ones are tried first; once for all hosts, or once for each.  [default: 0]",
)
@click.option(
    "--weight",
    "weights",
    type=_NumberType(),
    multiple=True,
    default=(0,),
    metavar="NUMBER",
    help="Share among those of equal priority; once for all hosts, or once for each.  [default: 0]",
)
@click.option(
    "--ttl",
    type=click.IntRange(0, _MAXIMUM_TTL),
    default=DEFAULT_TTL,
    show_default=True,
    metavar="SECONDS",
    help="How long the records may be kept.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="[HOST=]ADDRESS",
    help="Add an A or AAAA record too; HOST may be left out if there is only one.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice([*FORMATS, "all"]),
    default="all",
    show_default=True,
    help="For which software.",
)
@json_option
def dns(
    domain: str,
    hosts: tuple[str, ...],
    priorities: tuple[int, ...],
    weights: tuple[int, ...],
    ttl: int,
    addresses: tuple[str, ...],
    formats: str,
    as_json: bool,
) -> None:
    """
    Print the DNS records by which the clients of DOMAIN find the KMS hosts.

    A HOST without a dot is one of DOMAIN.  Nothing is changed anywhere: paste what is printed, or pipe it.
    """
    zone = _make_zone(domain, hosts, priorities, weights, ttl, addresses)
    chosen = list(FORMATS) if formats == "all" else [formats]
    if as_json:
        emit_json(_to_json(zone, chosen))
        return
    for name in chosen:
        if len(chosen) > 1:
            prefix = "" if name == chosen[0] else "\n"
            click.echo(f"{prefix}{FORMATS[name].comment} {FORMATS[name].title}")
        for line in FORMATS[name].write(zone):
            click.echo(line)


def _make_zone(
    domain: str,
    hosts: Sequence[str],
    priorities: Sequence[int],
    weights: Sequence[int],
    ttl: int,
    addresses: Sequence[str],
) -> Zone:
    """
    Make the records of the command line.

    @raise click.BadParameter: If they cannot be made.
    """
    name = _read_domain(domain)
    if len(hosts) > MAXIMUM_RECORDS:
        raise click.BadParameter(f"there are more than {MAXIMUM_RECORDS}", param_hint="HOST")
    targets = [_read_host(host, name) for host in hosts]
    if len(set(targets)) < len(targets):
        raise click.BadParameter("one of them is there twice", param_hint="HOST")
    records = tuple(
        ServiceRecord(target, port, priority, weight, ttl)
        for (target, port), priority, weight in zip(
            targets,
            _for_each(priorities, len(hosts), "--priority"),
            _for_each(weights, len(hosts), "--weight"),
            strict=True,
        )
    )
    names = list(dict.fromkeys(target for target, _ in targets))
    return Zone(name, records, _read_addresses(addresses, names, name), ttl)


def _for_each(numbers: Sequence[int], count: int, option: str) -> Sequence[int]:
    """
    Give each host its number.
    """
    if len(numbers) == 1:
        return [numbers[0]] * count
    if len(numbers) != count:
        raise click.BadParameter(
            f"there are {len(numbers)} of them for {count} hosts; give one for all, or one for each",
            param_hint=option,
        )
    return numbers


def _read_domain(text: str) -> str:
    try:
        name = normalize_domain(text).lower()
        if name.startswith(f"{SERVICE}."):
            raise DomainNameError(f"{text!r} is the name of the service; write the domain alone")
        normalize_domain(f"{SERVICE}.{name}")
    except DomainNameError as error:
        raise click.BadParameter(str(error), param_hint="DOMAIN") from error
    return name


def _read_host(text: str, domain: str) -> tuple[str, int]:
    """
    Read a host, the domain of which may be left out.
    """
    try:
        target = parse_target(text)
        return _host_name(target.host, domain), target.port
    except (DomainNameError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="HOST") from error


def _host_name(text: str, domain: str) -> str:
    """
    Check the name of a host, which has fewer liberties than that of a domain (RFC 1123 section 2.1).
    """
    if is_address(text):
        raise DomainNameError(
            f"{text!r} is an address, and an SRV record names a host;"
            f" write a name, and --address {text}"
        )
    name = normalize_domain(text).lower()
    own_label, _, above = name.partition(".")
    if not above and not text.endswith("."):
        name = normalize_domain(f"{name}.{domain}")
    if "_" in own_label:
        raise DomainNameError(f"{text!r} has an underscore, which hosts do not have")
    if name.rpartition(".")[2].isdigit():
        raise DomainNameError(f"{text!r} ends with a number, as no name of a host does")
    return name


def _read_addresses(
    texts: Sequence[str], names: Sequence[str], domain: str
) -> dict[str, tuple[str, ...]]:
    """
    Read addresses, each with the host that it belongs to.
    """
    found: dict[str, list[str]] = {}
    if len(texts) > _MAXIMUM_ADDRESSES:
        raise click.BadParameter(
            f"there are more than {_MAXIMUM_ADDRESSES}", param_hint="--address"
        )
    for text in texts:
        host, equals, address = text.rpartition("=")
        try:
            if not equals and len(names) != 1:
                raise DomainNameError(f"there are {len(names)} hosts; write HOST={address}")
            name = _host_name(host, domain) if equals else names[0]
            if name not in names:
                raise DomainNameError(f"{host!r} is none of the hosts: {', '.join(names)}")
            if "%" in address:
                raise ValueError
            written = str(ipaddress.ip_address(address))
        except DomainNameError as error:
            raise click.BadParameter(str(error), param_hint="--address") from error
        except ValueError as error:
            raise click.BadParameter(
                f"{address!r} is no address; write one like 192.0.2.1 or 2001:db8::1",
                param_hint="--address",
            ) from error
        if written not in found.setdefault(name, []):
            found[name].append(written)
    return {name: tuple(addresses) for name, addresses in found.items()}


def _to_json(zone: Zone, formats: Sequence[str]) -> dict[str, object]:
    """
    Turn the records into what JSON can say.
    """
    return {
        "domain": zone.domain,
        "service": zone.service,
        "ttl": zone.ttl,
        "records": [
            {
                "name": zone.service,
                "type": "SRV",
                "priority": record.priority,
                "weight": record.weight,
                "port": record.port,
                "target": record.target,
            }
            for record in zone.records
        ]
        + [
            {"name": name, "type": kind, "address": address}
            for name, kind, address in zone.address_records()
        ],
        "formats": {name: FORMATS[name].write(zone) for name in formats},
    }
