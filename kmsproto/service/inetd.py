"""
One connection that somebody else has accepted: as inetd does, and a systemd socket unit with C{Accept=yes}.

Standard input, standard output and standard error may all be the connection, and then nothing but answers may ever be
written there; L{guard_output} sees to that.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from kmsproto.service.startup import StartupError

#: The descriptors of standard output and standard error.
OUTPUTS = (1, 2)

_WAY_OUT = "start it from inetd, or from a systemd socket unit with Accept=yes"


class _RefusedProtocol(Protocol):
    """
    Closes a connection that is not to be.
    """

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


class _OneConnection(ServerFactory):
    """
    Makes one connection, and tells when it is over.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.done: Deferred[None] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        # An adopted connection cannot be without a protocol.
        protocol: Any = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
        if protocol is None:
            protocol = _RefusedProtocol()
        self._watch(protocol)
        return protocol

    def _watch(self, protocol: IProtocol) -> None:
        """
        Tell when a connection is over.

        Its protocol stays what the transport knows, as how it ends depends on what the protocol can do.
        """
        lost = protocol.connectionLost

        def connection_lost(reason: Failure = connectionDone) -> None:
            try:
                lost(reason)
            finally:
                self.done.callback(None)

        vars(protocol)["connectionLost"] = connection_lost


def serve_descriptor(
    reactor: Any, factory: IProtocolFactory, descriptor: int = 0
) -> Deferred[None]:
    """
    Serve a connection that this process was given.

    @param reactor: The reactor.
    @param factory: Makes the connection, or refuses it.
    @param descriptor: The descriptor of its socket, which is closed: the reactor has a duplicate.
    @return: Fires when the connection is over.
    @raise StartupError: If it is not the socket of a connection.
    """
    try:
        given = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise StartupError(_no_connection(descriptor)) from error
    with given:
        try:
            # A listening socket has no peer.
            given.getpeername()
        except OSError as error:
            raise StartupError(_no_connection(descriptor)) from error
        if given.type != socket.SOCK_STREAM:
            raise StartupError(_no_connection(descriptor))
        given.setblocking(False)
        one = _OneConnection(factory)
        reactor.adoptStreamConnection(given.fileno(), given.family, one)
    os.close(descriptor)
    return one.done


def _no_connection(descriptor: int) -> str:
    return f"descriptor {descriptor} is not a connected socket; {_WAY_OUT}"


def guard_output(descriptor: int = 0, outputs: tuple[int, ...] = OUTPUTS) -> bool:
    """
    Let what is written to standard output and standard error not go to the peer, where they are the connection.

    @param descriptor: The connection.
    @param outputs: What lines may be written to; the last one is standard error.
    @return: Whether standard error is something else, which can be written to.
    """
    writable = False
    for output in outputs:
        writable = _is_open(output) and not _same_socket(descriptor, output)
        if not writable:
            nothing = os.open(os.devnull, os.O_WRONLY)
            if nothing != output:
                os.dup2(nothing, output)
                os.close(nothing)
    return writable


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _same_socket(one: int, other: int) -> bool:
    """
    Tell whether two descriptors are the same socket.
    """
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return stat.S_ISSOCK(first.st_mode) and os.path.samestat(first, second)
