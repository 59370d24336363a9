"""
What is odd about published records although each of them is well-formed: addresses at which no client finds a host,
records that are there twice, and TTLs that differ.

L{address_flaw} judges one address, and L{record_notes} the records of a domain together.  Both are pure.

Source: the registries of special-purpose addresses (RFC 6890); RFC 5737 and RFC 3849 for documentation; RFC 2181
section 5.2 for TTLs within a set of records.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence

from kmsproto.net.discovery import ServiceRecord

#: Networks of which addresses stand in documentation only.
_DOCUMENTATION = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    )
)
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
#: Records that are named at most in a note.
_NAMED = 4


def address_flaw(text: str) -> str:
    """
    Say why clients on other machines find no host at an address.

    @param text: An address of IPv4 or IPv6.
    @return: A clause; empty if nothing is wrong with it.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return f"it is IPv4 written as IPv6; publish {address.ipv4_mapped} as an A record"
    if address.is_unspecified:
        return "it stands for no address at all; publish that of the host"
    if address.is_loopback:
        return "it is every client's own machine; publish the address of the host"
    if address == _BROADCAST:
        return "it is the broadcast address; publish that of the host"
    if address.is_multicast:
        return "it is a multicast address, and KMS uses TCP; publish that of the host"
    if address.is_link_local:
        return "it is valid on one link only; publish an address that is routed"
    if any(address in network for network in _DOCUMENTATION):
        return "it is reserved for documentation; publish the address of the host"
    return ""


def record_notes(records: Sequence[ServiceRecord]) -> list[str]:
    """
    Say what is odd about the records of a domain together, in a line each.
    """
    notes = []
    times = Counter((record.target.lower(), record.port) for record in records)
    twice = [f"{target}:{port}" for (target, port), count in times.items() if count > 1]
    if twice:
        named = ", ".join(twice[:_NAMED]) + (", ..." if len(twice) > _NAMED else "")
        notes.append(f"more than one record names {named}; keep one for each host and port")
    lives = sorted({record.ttl for record in records})
    if len(lives) > 1:
        notes.append(
            f"the records have different TTLs, from {lives[0]} to {lives[-1]} s; RFC 2181 wants one for all of them"
        )
    return notes
