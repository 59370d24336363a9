"""
Which peers are served: addresses as they come from sockets, and whether they are private.

By default a host answers private networks only, because a KMS host that answers the Internet is nearly always a
mistake.  Private are the networks that nobody routes to a stranger: RFC 1918, loopback, link-local and unique-local
addresses; the shared address space of RFC 6598, which carriers use between themselves and their customers, only by
choice.  An operator can name networks: those that are allowed are then the only ones, public or not, and those that are
denied are denied in any case.  An IPv4 address that arrives in IPv6 clothes (C{::ffff:…}) is judged, counted and
logged as what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from twisted.internet import address

from kmsproto.errors import KMSProtoError
from kmsproto.kms.policy import Peer

#: A network of either family.
Network = IPv4Network | IPv6Network

#: Networks whose peers are served by default.
PRIVATE_NETWORKS: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv6Network("::1/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("fc00::/7"),
)
#: The shared address space of RFC 6598.
SHARED_ADDRESS_SPACE = IPv4Network("100.64.0.0/10")

#: The addresses of TCP; a tuple, for a union would be made anew for each connection.
_ADDRESSES = (address.IPv4Address, address.IPv6Address)

#: Addresses whose verdict is remembered: each client comes back.
CLIENTS = 4096

#: What stands for the address of a peer that has none, as on a UNIX socket: it is on this machine.
LOCAL_PEER = Peer("local", 0)

#: IPv4 in IPv6 clothes.
_MAPPED = IPv6Network("::ffff:0:0/96")


class NetworkError(KMSProtoError):
    """
    A text is no network.
    """


@dataclass(frozen=True)
class AccessRules:
    """
    Which peers may connect.

    A peer without an address, as on a UNIX socket, always may: whoever made the socket said so.

    @ivar allow: If there are any, only peers in these networks are served, be they private or public.
    @ivar deny: Peers in these networks are not served, whatever else holds.
    @ivar allow_public: Whether peers outside private networks are served where C{allow} is empty.
    @ivar allow_shared: Whether the shared address space (RFC 6598) counts as private.
    @ivar refusal: Says why a peer may not connect, or nothing (C{""}) if it may.  Takes its address as L{peer_of} gives
        it.  The last L{CLIENTS} verdicts are remembered.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    allow_public: bool = False
    allow_shared: bool = False
    refusal: Callable[[str], str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        anybody = self.allow_public and not self.allow and not self.deny
        judge = _serve if anybody else lru_cache(maxsize=CLIENTS)(self._judge)
        object.__setattr__(self, "refusal", judge)

    def _judge(self, host: str) -> str:
        if host == LOCAL_PEER.address:
            return ""
        parsed = _parse(host)
        if parsed is not None and any(parsed in network for network in self.deny):
            return "a denied address"
        if self.allow:
            allowed = parsed is not None and any(parsed in network for network in self.allow)
            return "" if allowed else "not an allowed address"
        if self.allow_public or is_private(host, shared=self.allow_shared):
            return ""
        return "not a private address"


def _serve(host: str) -> str:
    """
    Serve anybody.
    """
    return ""


#: The rules of a host that nobody told anything.
PRIVATE_ONLY = AccessRules()


def parse_network(text: str) -> Network:
    """
    Read an address, or a network in CIDR notation.

    @return: The network; one of IPv4 where it is written in IPv6 clothes, because peers are judged so.
    @raise NetworkError: If it is neither, or has bits of a host.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise NetworkError(_why_no_network(text)) from error
    if isinstance(network, IPv4Network):
        return network
    if getattr(network.network_address, "scope_id", None):
        raise NetworkError(f"{text!r} has a zone; leave that off, for peers are judged without")
    if network.subnet_of(_MAPPED):
        mapped = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def _why_no_network(text: str) -> str:
    try:
        network = ip_interface(text).network
    except ValueError:
        return (
            f"{text!r} is no address and no network; write one like 192.0.2.0/24 or 2001:db8::/32"
        )
    return f"{text!r} has bits of a host; write {network}"


def peer_of(endpoint: object) -> Peer:
    """
    Tell who is at the other end.

    @param endpoint: The address of a transport, of whatever kind.
    """
    if not isinstance(endpoint, _ADDRESSES):
        return LOCAL_PEER
    return Peer(_written(endpoint.host), endpoint.port)


@lru_cache(maxsize=CLIENTS)
def is_private(host: str, *, shared: bool = False) -> bool:
    """
    Tell whether an address is one that is served by default.

    @param host: The address of a peer, as L{peer_of} gives it.
    @param shared: Whether the shared address space counts as private.
    """
    if host == LOCAL_PEER.address:
        return True
    parsed = _parse(host)
    if parsed is None:
        return False
    return any(parsed in network for network in PRIVATE_NETWORKS) or (
        shared and parsed in SHARED_ADDRESS_SPACE
    )


@lru_cache(maxsize=CLIENTS)
def _written(host: str) -> str:
    """
    Write an address as it is judged, counted and logged.
    """
    parsed = _parse(host)
    return host if parsed is None else str(parsed)


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    """
    Read an address; a zone is left off, and an IPv4 address is taken out of an IPv6 one.
    """
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
