"""
What both sides ask of their transports, and the short way to the wire.

Twisted's C{write} puts bytes into a buffer and asks the reactor to tell when the socket can take them: two changes of
what the reactor waits for, for each answer, where the socket of a peer that reads could take the answer at once.  So
a L{Dispatcher} collects what is written in one round of the reactor, and at its end offers it to the sockets directly,
one behind the other.  (To send each answer as it is made would cost more: each wakes its client up, which is dear, and
clients that are still awake from the last answer are not woken again.)

When a socket does not take all of it, the peer is slow or gone: what is left, and everything that follows on that
connection, goes the transport's own way, so the order of bytes is kept, and a socket that fails is the transport's to
find out.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport

from kmsproto.net.ports import HostTransport

#: Connections of a server with nothing between them and the socket.
_PLAIN = (tcp.Server, HostTransport)


def send_at_once(transport: Any) -> None:
    """
    Let small segments leave at once, where the transport is TCP.

    A UNIX socket is known by its address: older releases of Twisted let it pretend to be TCP.
    """
    has_port = isinstance(transport.getHost(), IPv4Address | IPv6Address)
    if has_port and ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)


class Outlet:
    """
    Writes to a transport in its own way.

    @param transport: Whatever carries a stream.
    @param producer: Is told when the peer does not read what is written.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: Any, producer: IPushProducer) -> None:
        self._transport = transport
        transport.registerProducer(producer, True)

    def write(self, data: bytes) -> None:
        """
        Write, soon.
        """
        self._transport.write(data)

    def settle(self) -> None:
        """
        Hand everything over to the transport, as has to be done before it is told to close.
        """


class _ShortOutlet(Outlet):
    """
    Writes to the socket of a TCP connection, for as long as it takes everything.
    """

    __slots__ = ("_dispatcher", "_producer", "_send", "_short", "_waiting")

    def __init__(
        self, transport: tcp.Server, producer: IPushProducer, dispatcher: Dispatcher
    ) -> None:
        self._transport = transport
        self._producer = producer
        self._dispatcher = dispatcher
        self._send = transport.socket.send
        self._short = True
        self._waiting = b""

    def write(self, data: bytes) -> None:
        if not self._short:
            self._transport.write(data)
        elif self._waiting:
            self._waiting += data
        else:
            self._waiting = data
            self._dispatcher.add(self)

    def settle(self) -> None:
        self._short = False
        data, self._waiting = self._waiting, b""
        if data:
            self._transport.write(data)

    def dispatch(self) -> None:
        """
        Offer what waits to the socket.
        """
        data, self._waiting = self._waiting, b""
        if not data:
            return  # It was settled meanwhile.
        try:
            sent = self._send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._leave(data[sent:])

    def _leave(self, data: bytes) -> None:
        """
        Go the transport's own way from now on.

        @param data: What comes first.
        """
        self._short = False
        # Nobody had to be told before: the socket took everything.
        self._transport.registerProducer(self._producer, True)
        self._transport.write(data)


class Dispatcher:
    """
    Knows whom something waits for, in this round of the reactor.

    @param clock: The reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[_ShortOutlet] = []
        self._listener: object = None
        self._inherits_no_delay = False
        self._port = ""

    def outlet(self, transport: Any, producer: IPushProducer) -> Outlet:
        """
        Choose how to write to a transport, and let small segments leave at once.

        @param producer: Is told when the peer does not read what is written.
        @return: The short way where the transport is a plain TCP connection of a server in this reactor, and its own
            way where anything stands between us and the socket.
        """
        # A round of another clock than the transport's reactor may never end.
        is_plain = type(transport) in _PLAIN and not transport.TLS
        if not is_plain or transport.reactor is not self._clock:
            send_at_once(transport)
            return Outlet(transport, producer)
        self._meet(transport)
        if not self._inherits_no_delay:
            transport.setTcpNoDelay(True)
        return _ShortOutlet(transport, producer, self)

    def port(self, transport: Any) -> str:
        """
        Tell the own port of a connection, in decimal; nothing where there are no ports.
        """
        self._meet(transport)
        return self._port

    def _meet(self, transport: Any) -> None:
        """
        Ask a connection what those of the same listener have in common, unless one of them was the last that we met.
        """
        listener = getattr(transport, "server", None)
        if listener is not None and listener is self._listener:
            return
        self._listener = listener
        self._port = str(getattr(transport.getHost(), "port", ""))
        self._inherits_no_delay = type(transport) in _PLAIN and bool(transport.getTcpNoDelay())

    def add(self, outlet: _ShortOutlet) -> None:
        """
        Remember that something waits.
        """
        if not self._waiting:
            self._clock.callLater(0, self._dispatch)
        self._waiting.append(outlet)

    def _dispatch(self) -> None:
        waiting, self._waiting = self._waiting[::-1], []
        try:
            while waiting:
                waiting.pop().dispatch()
        finally:
            # One that fails is no reason for the others to wait for ever.
            for outlet in reversed(waiting):
                self.add(outlet)
