"""
Reading a target: the host and port that a user means.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import click

from kmsproto.net.activation import KMS_PORT


class Target(NamedTuple):
    """
    A host, by name or address, and a port.
    """

    host: str
    port: int = KMS_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def ip_version(host: str) -> int | None:
    """
    Tell the IP version of an address, 4 or 6; L{None} for a name.
    """
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def agree(target: Target, family: int | None) -> None:
    """
    See to it that an address is of the IP version that is wanted.

    @param family: That version; L{None} if any will do.
    @raise click.UsageError: If it is not.
    """
    found = ip_version(target.host)
    if family is not None and found not in (family, None):
        raise click.UsageError(
            f"{target.host} is an IPv{found} address; leave --ip-version {family} away"
        )


def parse_target(text: str) -> Target:
    """
    Read C{HOST}, C{HOST:PORT}, C{[V6]:PORT} or a bare IPv6 address.

    @raise ValueError: If there is no host, or what cannot be one, or the port is not one.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} has no closing bracket before its port")
        port = rest[1:]
        has_port = bool(rest)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        has_port = True
    else:
        host, port, has_port = text, "", False
    if not host or any(character.isspace() for character in host):
        raise ValueError(f"{text!r} names no host")
    if any(character in "/@" for character in text):
        raise ValueError(f"{text!r} is no host; write HOST or HOST:PORT, and nothing around it")
    # Of a scope Python believes everything, so also that it is a scope and a port.
    if ":" in host and (ip_version(host) is None or ":" in host.partition("%")[2]):
        raise ValueError(f"{host!r} is no IPv6 address; write HOST:PORT or [IPv6]:PORT")
    if not has_port:
        return Target(host)
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port number (1 to 65535)")
    return Target(host, int(port))
