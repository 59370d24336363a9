"""
What both sides ask of their transports.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITCPTransport


def send_at_once(transport: Any) -> None:
    """
    Let small segments leave at once, where the transport is TCP.

    A UNIX socket is known by its address: older releases of Twisted let it pretend to be TCP.
    """
    has_port = isinstance(transport.getHost(), IPv4Address | IPv6Address)
    if has_port and ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
