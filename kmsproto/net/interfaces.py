"""
The addresses of this machine, for a host that listens on private ones only.
"""

from __future__ import annotations

import ifaddr

from kmsproto.net.access import is_private
from kmsproto.net.listening import AddressError

#: Where link-local IPv6 addresses begin.
_LINK_LOCAL = ("fe8", "fe9", "fea", "feb")


def private_addresses() -> list[str]:
    """
    List the private addresses of this machine, loopback included, each once.

    Link-local IPv6 addresses are left out: they mean something only together with a zone, so no client is told one.

    @raise AddressError: If there is none.
    """
    found: dict[str, None] = {}
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            # One of IPv6 comes with flow and scope.
            address = each.ip if isinstance(each.ip, str) else each.ip[0]
            if is_private(address) and not address.lower().startswith(_LINK_LOCAL):
                found[address] = None
    if not found:
        raise AddressError("this machine has no private address; choose one with --listen")
    return list(found)
