"""
Where a host listens: the endpoints that the settings ask for.

Addresses and ports become endpoints of our own, whose connections cost less than Twisted's; anything else is described
as Twisted has it.  One that speaks the PROXY protocol gets a wrapper around it, so that the peer which the proxy names
is the one that counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from kmsproto.net.activation import KMS_PORT
from kmsproto.net.interfaces import private_addresses
from kmsproto.net.listening import AddressEndpoint, BothFamiliesEndpoint, parse_listen
from kmsproto.net.proxied import ProxiedEndpoint
from kmsproto.service.kinds import ENDPOINT, SettingError
from kmsproto.service.sharing import SHAREABLE_KINDS
from kmsproto.service.sources import place

#: Bit of the level that vlmcsd calls the protection of public addresses: listen on private ones only.
LISTEN_PRIVATE = 1
#: What the description of an endpoint for a proxy begins with.
_PROXIED = "haproxy:"
#: How an error about the arguments of a function begins.
_CALLED = re.compile(r"\A[\w.]+\(\) ")


def make_endpoints(settings: Mapping[str, Any], reactor: Any) -> list[IStreamServerEndpoint]:
    """
    Make the endpoints.

    @raise SettingError: If a description is not one of a server endpoint, or no address is left to listen on.
    """
    port, free = settings["port"], settings["free-bind"]
    addresses = [
        parse_listen(text, KMS_PORT if port is None else port) for text in settings["listen"]
    ]
    private_only = settings["public-ip-protection"] & LISTEN_PRIVATE
    if private_only and not addresses and port is not None:
        addresses = [(address, port) for address in private_addresses()]
    endpoints: list[IStreamServerEndpoint] = [
        AddressEndpoint(reactor, *address, free_bind=free) for address in addresses
    ]
    if port is not None and not endpoints:
        endpoints.append(BothFamiliesEndpoint(reactor, port))
    for description in settings["endpoint"]:
        plain = description.removeprefix(_PROXIED)
        is_proxied = plain != description
        if is_proxied and settings["workers"] > 1:
            allowed = f"possible with {settings['workers']} workers; {SHAREABLE_KINDS}"
            raise SettingError(place(settings, "endpoint"), description, allowed)
        try:
            endpoint = serverFromString(reactor, plain)
        except Exception as error:
            problem = f"{ENDPOINT.allowed}: {_reason(plain, error)}"
            raise SettingError(place(settings, "endpoint"), description, problem) from error
        endpoints.append(ProxiedEndpoint(endpoint) if is_proxied else endpoint)
    return endpoints


def _reason(description: str, error: Exception) -> str:
    """
    Say what is wrong with the description of an endpoint.
    """
    if isinstance(error, LookupError) and description.startswith("systemd:"):
        return "systemd has passed no such socket; start it from a systemd socket unit"
    # What is wrong with the arguments of a function says its name first, which nobody has called.
    return _CALLED.sub("", str(error))
