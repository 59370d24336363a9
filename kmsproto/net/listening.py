"""
Opening the sockets that a host listens on.

A port number means both IP families at once: one IPv6 socket that takes IPv4 connections too, which the standard
library sets up explicitly, whatever the system's default is; and on a kernel without IPv6 one IPv4 socket.  An address
means that address and no other; with free bind it need not be one of this machine yet, as for an address that moves
between machines.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from kmsproto.errors import KMSProtoError
from kmsproto.net.ports import adopt_port

#: Connections that may wait to be accepted.
BACKLOG = 1024

#: Options of Linux that the standard library does not name (in.h, in6.h).
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_PORTS = range(65536)


class AddressError(KMSProtoError):
    """
    A text is no address to listen on.
    """


def parse_listen(text: str, default_port: int) -> tuple[str, int]:
    """
    Read where to listen: C{192.0.2.1}, C{192.0.2.1:1688}, C{::1}, C{[::1]} or C{[::1]:1688}.

    @param default_port: The port where none is written.
    @return: The address and the port.
    @raise AddressError: If it is none of these.
    """
    host, port = text, str(default_port)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        bracketed = "]" in text and ":" in host and (not rest or rest.startswith(":"))
        if not bracketed:
            raise AddressError(f"{text!r} is no address; write one of IPv6 like [::1]:1688")
        port = rest[1:] if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ip_address(host))
    except ValueError as error:
        raise AddressError(
            f"{text!r} is no address; write one like 192.0.2.1:1688 or [::1]:1688, not a name"
        ) from error
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) in _PORTS):
        raise AddressError(f"{text!r} has no port from 0 to 65535 behind the colon")
    return address, int(port)


@implementer(IStreamServerEndpoint)
class _SocketEndpoint:
    """
    Listens on a socket that a subclass opens.
    """

    _reactor: IReactorSocket

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: The port; or a L{CannotListenError} failure.
        """
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        # The reactor works on a duplicate of the descriptor.
        with self._open() as listener:
            listener.setblocking(False)
            # Where connections inherit it, as on Linux, nobody has to set it for each of them.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return adopt_port(self._reactor, listener.fileno(), listener.family, factory)

    def _open(self) -> socket.socket:
        """
        Open a socket that listens.

        @raise CannotListenError: If it cannot be opened.
        """
        raise NotImplementedError


class BothFamiliesEndpoint(_SocketEndpoint):
    """
    Listens on a TCP port of every address of this machine, IPv6 and IPv4.

    @param reactor: The reactor.
    @param port: The port; 0 lets the system choose one.
    """

    def __init__(self, reactor: IReactorSocket, port: int) -> None:
        self._reactor = reactor
        self._port = port

    def _open(self) -> socket.socket:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            return socket.create_server(
                ("", self._port), family=family, backlog=BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            raise CannotListenError("", self._port, error) from error


class AddressEndpoint(_SocketEndpoint):
    """
    Listens on a TCP port of one address.

    @param reactor: The reactor.
    @param address: The address.
    @param port: The port; 0 lets the system choose one.
    @param free_bind: Whether the address need not be one of this machine.
    """

    def __init__(
        self, reactor: IReactorSocket, address: str, port: int, *, free_bind: bool = False
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._port = port
        self._free_bind = free_bind

    def _open(self) -> socket.socket:
        if self._free_bind and not sys.platform.startswith("linux"):
            problem = "only Linux listens on addresses that are not there; leave --free-bind out"
            raise CannotListenError(self._address, self._port, problem)
        is_ipv6 = isinstance(ip_address(self._address), IPv6Address)
        listener: socket.socket | None = None
        try:
            listener = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self._free_bind:
                _bind_freely(listener, is_ipv6)
            # The zone of a link-local address is a part of what this knows of an address.
            (found, *_) = socket.getaddrinfo(
                self._address, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            listener.bind(found[4])
            listener.listen(BACKLOG)
        except OSError as error:
            if listener is not None:
                listener.close()
            raise CannotListenError(self._address, self._port, error) from error
        return listener


def _bind_freely(listener: socket.socket, is_ipv6: bool) -> None:
    """
    Let a socket have an address that this machine does not have.
    """
    if is_ipv6:
        listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
