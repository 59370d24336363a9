"""
Reading a target: the host and port that a user means.
"""

from __future__ import annotations

from typing import NamedTuple

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


def parse_target(text: str) -> Target:
    """
    Read C{HOST}, C{HOST:PORT}, C{[V6]:PORT} or a bare IPv6 address.

    @raise ValueError: If there is no host, or the port is not one.
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
    if not has_port:
        return Target(host)
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port number (1 to 65535)")
    return Target(host, int(port))
