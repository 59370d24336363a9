"""
Names and name servers: what a domain may look like, which domain is this machine's own, whom to ask, and asking.

C{resolv.conf} is read here and not by C{twisted.names}, which reads it again every minute and stumbles over lines that
it does not expect; the resolver is told its servers.  L{look_up} asks one question and waits no longer than it is told.
Each way in which a question can fail is an error of its own, and each carries the HRESULT that a Windows client shows
for it, so that an operator can go from one to the other.

Source: RFC 1035 section 2.3.4 for the limits of names; resolv.conf(5).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import client, dns
from twisted.names import error as names_error
from twisted.python.failure import Failure

from kmsproto.errors import HostTimeoutError, HostUnreachableError, KMSProtoError

#: The port of name servers.
DNS_PORT = 53
#: Where most systems keep their name servers and suffixes.
RESOLV_CONF = Path("/etc/resolv.conf")
#: Seconds that a name server has for each attempt; whoever asks decides when it is enough.
_ATTEMPTS = (1, 2, 4, 8, 16, 32, 64)
#: Suffixes that are looked at, and name servers that are asked.
MAXIMUM_SUFFIXES = 16
_MAXIMUM_SERVERS = 8
#: Seconds that the system has to tell the name of this machine.
_OWN_NAME_LIMIT = 3.0
_MAXIMUM_NAME = 253
#: The HRESULT for a name server that will not answer.
REFUSED = 0x8007232D
#: By the error of C{twisted.names}: the response code of an answer, and what Windows makes of it.
_RCODES: Mapping[type[Exception], tuple[str, int]] = MappingProxyType(
    {
        names_error.DNSFormatError: ("FORMERR", 0x80072329),
        names_error.DNSServerError: ("SERVFAIL", 0x8007232A),
        names_error.DNSNotImplementedError: ("NOTIMP", 0x8007232C),
        names_error.DNSQueryRefusedError: ("REFUSED", REFUSED),
    }
)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)


class DomainNameError(KMSProtoError):
    """
    A text is no name that DNS can have.
    """


class DiscoveryError(HostUnreachableError):
    """
    No host was found by DNS.

    @ivar hresult: The HRESULT that a Windows client shows for it.
    """

    hresult = 0x8007232A


class NoSuchNameError(DiscoveryError):
    """
    The name does not exist (NXDOMAIN).
    """

    hresult = 0x8007232B


class NoServiceRecordError(DiscoveryError):
    """
    The name exists, but has no SRV record.
    """

    hresult = 0x8007251D


class AliasLoopError(NoServiceRecordError):
    """
    The name is an alias that leads to no end: in a ring, or on and on.
    """

    hresult = 0x8007232A


class NameServerError(DiscoveryError):
    """
    A name server could not be asked, or answered that it cannot or will not answer.
    """

    def __init__(self, problem: str, hresult: int = DiscoveryError.hresult) -> None:
        super().__init__(problem)
        self.hresult = hresult


class NameServerTimeoutError(DiscoveryError, HostTimeoutError):
    """
    No name server answered in time.
    """

    hresult = 0x800705B4


class NoOwnDomainError(DiscoveryError):
    """
    This machine has no DNS domain of its own.
    """

    hresult = 0x8007232B


def normalize_domain(text: str) -> str:
    """
    Check a domain, and write it without the dot at its end.

    @raise DomainNameError: If DNS has no such names.
    """
    name = text.removesuffix(".")
    if not name:
        raise DomainNameError(f"{text!r} is no domain; write one like example.com")
    if not name.isascii():
        raise DomainNameError(
            f"{text!r} has other characters than those of ASCII; write the form of it that begins with xn--"
        )
    if is_address(name):
        raise DomainNameError(f"{text!r} is an address; write the name of a domain")
    for label in name.split("."):
        if not _LABEL.fullmatch(label):
            raise DomainNameError(
                f"{text!r} is no domain: its parts have 1 to 63 letters, digits, hyphens and underscores"
            )
    if len(name) > _MAXIMUM_NAME:
        raise DomainNameError(
            f"{text[:60]!r}... is too long; names have at most {_MAXIMUM_NAME} characters"
        )
    return name


def is_address(text: str) -> bool:
    """
    Tell whether a text is an address of IPv4 or IPv6.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """
    What a C{resolv.conf} says.

    @ivar nameservers: The addresses of the name servers, in the order of the file.
    @ivar search: The suffixes, in the order of the file; of C{domain} and C{search} lines the last one counts.
    """

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """
    Read a C{resolv.conf}.  What is no name server or suffix is passed over, as the system does it.
    """
    nameservers: list[str] = []
    search: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or line[0] in "#;":
            continue
        if words[0] == "nameserver" and is_address(words[1]):
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:2] if words[0] == "domain" else words[1:]
    return ResolvConf(tuple(nameservers[:_MAXIMUM_SERVERS]), _distinct(search))


def read_resolv_conf(path: Path = RESOLV_CONF) -> ResolvConf:
    """
    Read a file; one that is not there, or that this user may not read, says nothing.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ResolvConf()
    return parse_resolv_conf(text)


def own_domains(name: str, search: Sequence[str]) -> tuple[str, ...]:
    """
    Tell in which domains this machine looks for a host, best first.

    @param name: The machine's full name; one without a dot has no domain.
    @param search: The suffixes of the system.
    @return: The domain in its name, and then the suffixes, each once.
    """
    _, _, domain = name.partition(".")
    # What a system without a name calls itself tells nothing about the network.
    if name.lower().startswith("localhost.") or name.lower().endswith((".arpa", ".arpa.")):
        domain = ""
    return _distinct([domain, *search])


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """
    Keep the names that can be domains, each once whatever its case.
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            domain = normalize_domain(name)
        except DomainNameError:
            continue
        found.setdefault(domain.lower(), domain)
    return tuple(found.values())[:MAXIMUM_SUFFIXES]


def own_name(limit: float = _OWN_NAME_LIMIT) -> str:
    """
    Ask the system for the full name of this machine.  It may ask a name server that does not answer: then the short
    name has to do.

    @param limit: Seconds that it has.
    """
    found = [socket.gethostname()]
    # A thread that nobody waits for: the call can neither be cancelled nor told how long it may take.
    asking = threading.Thread(target=lambda: found.append(socket.getfqdn()), daemon=True)
    asking.start()
    asking.join(limit)
    return found[-1]


def find_own_domains(path: Path = RESOLV_CONF, limit: float = _OWN_NAME_LIMIT) -> tuple[str, ...]:
    """
    Find the domains of this machine: L{own_domains} of what the system says.

    @param path: The C{resolv.conf}.
    @param limit: Seconds that the system has to tell the name of this machine.
    @raise NoOwnDomainError: If there is none.
    """
    found = own_domains(own_name(min(limit, _OWN_NAME_LIMIT)), read_resolv_conf(path).search)
    if not found:
        raise NoOwnDomainError("this machine has no DNS suffix; name the domain")
    return found


def look_for_own_domains(reactor: Any, limit: float = _OWN_NAME_LIMIT) -> Deferred[tuple[str, ...]]:
    """
    Find the domains of this machine as L{find_own_domains} does, but in a thread that nobody waits for: the reactor
    goes on meanwhile, and a program that is told to end ends.

    @param reactor: Takes the answer.
    @param limit: Seconds that the system has to tell the name of this machine.
    @return: Fires with the domains, or fails with L{NoOwnDomainError}.
    """
    found: Deferred[tuple[str, ...]] = Deferred()

    def look() -> None:
        try:
            domains = find_own_domains(limit=limit)
        except Exception:  # noqa: BLE001  # handed over whole, to whoever waits
            reactor.callFromThread(found.errback, Failure())
        else:
            reactor.callFromThread(found.callback, domains)

    threading.Thread(target=look, name="look-up of this machine", daemon=True).start()
    return found


def own_domain(path: Path = RESOLV_CONF) -> str:
    """
    Find the domain of this machine.

    @param path: The C{resolv.conf}, for a machine whose name has no domain.
    @raise NoOwnDomainError: If there is none.
    """
    return find_own_domains(path)[0]


def parse_nameserver(text: str) -> tuple[str, int]:
    """
    Read C{ADDRESS}, C{ADDRESS:PORT}, or C{[V6]:PORT}.

    @raise DomainNameError: If it is none of these.
    """
    address, port = text, str(DNS_PORT)
    if bracketed := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text):
        address, port = bracketed[1], bracketed[2] or ("" if text.endswith(":") else port)
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        # One way to write it: an answer counts only if it comes from what was asked.
        address = str(ipaddress.ip_address(address))
    except ValueError as error:
        raise DomainNameError(
            f"{text!r} is no address of a name server; write one like 192.0.2.53 or [2001:db8::53]:5353"
        ) from error
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise DomainNameError(f"{text!r} has no port from 1 to 65535 behind the colon")
    return address, int(port)


def make_resolver(
    reactor: Any, servers: Sequence[tuple[str, int]] | None = None, path: Path = RESOLV_CONF
) -> IResolver:
    """
    Make what asks name servers: over UDP, and over TCP when an answer was cut.

    @param servers: Addresses and ports; C{None} or an empty sequence asks those of this machine.
    @param path: The C{resolv.conf} that names those of this machine.
    """
    chosen = list(servers or ())
    if not chosen:
        # Without any the system asks this machine (resolv.conf(5)).
        found = read_resolv_conf(path).nameservers or ("127.0.0.1",)
        chosen = [(str(ipaddress.ip_address(address)), DNS_PORT) for address in found]
    resolver: IResolver = client.Resolver(servers=chosen, timeout=_ATTEMPTS, reactor=reactor)
    return resolver


async def look_up(
    clock: IReactorTime, resolver: IResolver, name: str, kind: int, limit: float
) -> tuple[list[Any], list[Any]]:
    """
    Ask one question.

    @param kind: The type of record: C{dns.SRV}, C{dns.A} or C{dns.AAAA}.
    @param limit: Seconds that the name servers have, all attempts together.
    @return: The records of the answer and the additional ones, as C{twisted.names} has them.
    @raise NoSuchNameError: If the name does not exist.
    @raise NameServerTimeoutError: If there was no answer in time.
    @raise NameServerError: If there is no answer to be had.
    """
    if limit <= 0:
        raise NameServerTimeoutError(f"no time was left to ask for {name}; allow more --timeout")

    def late(result: object, seconds: float) -> Any:
        raise NameServerTimeoutError(
            f"no name server answered for {name} within {limit:.1f} seconds;"
            " check the name servers, or name another with --nameserver"
        )

    asked: Deferred[Any] = resolver.query(dns.Query(name.encode("ascii"), kind, dns.IN), _ATTEMPTS)
    try:
        answers, _, additional = await asked.addTimeout(limit, clock, late)
    except (names_error.DNSNameError, names_error.AuthoritativeDomainError) as problem:
        raise NoSuchNameError(f"{name} does not exist in DNS") from problem
    except (TimeoutError, DeferredTimeoutError) as problem:
        raise NameServerTimeoutError(
            f"no name server answered for {name};"
            " check the name servers, or name another with --nameserver"
        ) from problem
    except names_error.DomainError as problem:
        code, hresult = _RCODES.get(type(problem), ("an error", NameServerError.hresult))
        raise NameServerError(
            f"a name server answered for {name} with {code} (on Windows 0x{hresult:08X});"
            " check the name servers, or name another with --nameserver",
            hresult,
        ) from problem
    except (OSError, ConnectError, CannotListenError) as problem:
        raise NameServerError(
            f"no name server could be asked for {name}: {problem};"
            " check the network, or name another with --nameserver"
        ) from problem
    return list(answers), list(additional)
