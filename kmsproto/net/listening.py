"""
Opening the sockets that a host listens on.

A port number means both IP families at once: one IPv6 socket that takes IPv4 connections too, which the standard
library sets up explicitly, whatever the system's default is; and on a kernel without IPv6 one IPv4 socket.
"""

from __future__ import annotations

import socket
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

from kmsproto.net.ports import adopt_port

#: Connections that may wait to be accepted.
BACKLOG = 1024


@implementer(IStreamServerEndpoint)
class BothFamiliesEndpoint:
    """
    Listens on a TCP port of every address of this machine, IPv6 and IPv4.

    @param reactor: The reactor.
    @param port: The port; 0 lets the system choose one.
    """

    def __init__(self, reactor: IReactorSocket, port: int) -> None:
        self._reactor = reactor
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: The port; or a L{CannotListenError} failure.
        """
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            listener = socket.create_server(
                ("", self._port), family=family, backlog=BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            raise CannotListenError("", self._port, error) from error
        # The reactor works on a duplicate of the descriptor.
        with listener:
            listener.setblocking(False)
            # Where connections inherit it, as on Linux, nobody has to set it for each of them.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return adopt_port(self._reactor, listener.fileno(), family, factory)
