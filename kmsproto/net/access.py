"""
Which peers are served: addresses as they come from sockets, and whether they are private.

By default a host answers private networks only, because a KMS host that answers the Internet is nearly always a
mistake.  Private are the networks that nobody routes to a stranger: RFC 1918, loopback, link-local and unique-local
addresses; the shared address space of RFC 6598, which carriers use between themselves and their customers, only by
choice.  An IPv4 address that arrives in IPv6 clothes (C{::ffff:…}) is judged, counted and logged as what it is.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from twisted.internet import address

from kmsproto.kms.policy import Peer

#: Networks whose peers are served by default.
PRIVATE_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = (
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
