"""
What the tests of hosts and of clients share: requests as they travel, replies as they are read, and wires between.

L{FakeTCP} stands for the host's end of a connection, L{Wire} for the connection and the peer behind it, and
L{HostCase} gives a test a host, a clock and as many wires as it wants.  Whatever is random or tells the time elsewhere
is a constant here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.envelopes import OpenedRequest, compute_mac, seal_request
from kmsproto.kms.messages import RequestBody, encode_request_body
from kmsproto.kms.requests import make_request
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.net.server import HostFactory
from kmsproto.rpc import client, ndr, pdu
from kmsproto.rpc.numbers import WHOLE, PacketFlag, PacketType
from kmsproto.testing import host_factory

#: When the tests take place, in POSIX seconds: 2026-11-14.
NOW = 1_794_700_000.0
#: A peer that every host serves.
PEER = "10.0.0.9"
SALT = bytes(range(100, 116))
PROTO_ERROR = 0x1C01000B
FAULT_UNSPEC = 0x1C000012
BAD_STUB = 0x000006F7
INVALID_DATA = 0x8007000D
PRODUCT_REFUSED = 0xC004F042

_Value = TypeVar("_Value")

#: Kind, call id and number of an answer.
Reply = tuple[str, int, int]


@cache
def catalog() -> Catalog:
    """
    Load the products once.
    """
    return load_catalog()


def body(protocol: int = 6, workstation: str = "lab-1.example", **changes: Any) -> RequestBody:
    """
    Make the body of a request.

    @param changes: Fields that shall differ from what a client would send.
    """
    made = make_request(
        catalog(),
        catalog().product("Windows 10/11 Enterprise"),
        client_machine_id=UUID(int=0x1234567890ABCDEF),
        workstation=workstation,
        now=NOW,
        protocol=protocol,
    )
    return made._replace(**changes)


def payload(protocol: int = 6, workstation: str = "lab-1.example", **changes: Any) -> bytes:
    """
    Make a request as it travels.
    """
    return sealed(body(protocol, workstation, **changes))[0]


def sealed(request: RequestBody) -> tuple[bytes, OpenedRequest]:
    """
    Seal a request with the salt of the tests.
    """
    return seal_request(request, SALT)


def payload_named(name: bytes) -> bytes:
    """
    Make a request of version 4 whose field for the name holds any bytes.

    @param name: 128 bytes.
    """
    clear = encode_request_body(body(4))[:-128] + name
    return clear + compute_mac(clear)


def bind(*, multiplexed: bool = False) -> bytes:
    """
    Make a bind that offers NDR as context 0.
    """
    elements = client.offer(KMS_INTERFACE.syntax, ndr64=False, bind_time_features=False)
    flags = WHOLE | (PacketFlag.CONC_MPX if multiplexed else 0)
    return pdu.encode_bind(PacketType.BIND, flags, 1, pdu.Bind(5840, 5840, 0, elements))


def call(message: bytes, call_id: int = 2) -> bytes:
    """
    Make a call of the KMS operation.

    @param message: The KMS request.
    """
    stub = ndr.encode_activation_request(message, pdu.NDR)
    return b"".join(pdu.encode_request(call_id, 0, 0, stub, 5840))


def calls(count: int, message: bytes | None = None) -> bytes:
    """
    Make calls with the ids 2, 3, …
    """
    message = message or payload(4)
    return b"".join(call(message, call_id) for call_id in range(2, 2 + count))


#: What breaks the protocol on a connection that is bound: a request of another RPC version.
BROKEN = b"\x04" + call(payload(4), 9)[1:]


def returning(value: _Value) -> Callable[..., _Value]:
    """
    Make a function that returns this, whatever it is asked.
    """
    return lambda *_: value


def unsupported(enabled: bool) -> None:
    """
    Fail like the option of TCP on a UNIX socket, whose transport may claim to be one of TCP.
    """
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def granted(*call_ids: int) -> list[Reply]:
    """
    Say that calls were granted, in this order.
    """
    return [("granted", call_id, 0) for call_id in call_ids]


BOUND: Reply = ("bind_ack", 1, 0)


def split(data: bytes) -> list[tuple[pdu.Header, bytes]]:
    """
    Cut a stream into whole PDUs.
    """
    parts = []
    while data:
        header = pdu.decode_header(data)
        parts.append((header, data[: header.frag_length]))
        data = data[header.frag_length :]
    return parts


def read_replies(data: bytes) -> list[Reply]:
    """
    Tell what a host answered.
    """
    return [_read_reply(header, part) for header, part in split(data)]


def _read_reply(header: pdu.Header, data: bytes) -> Reply:
    if header.packet_type == PacketType.FAULT:
        return "fault", header.call_id, pdu.decode_fault(header, data).status
    if header.packet_type == PacketType.BIND_NAK:
        return "bind_nak", header.call_id, pdu.decode_bind_nak(header, data)
    if header.packet_type == PacketType.BIND_ACK:
        return "bind_ack", header.call_id, 0
    stub = pdu.decode_response(header, data).stub
    _, hresult = ndr.decode_activation_response(stub, pdu.NDR, "<")
    return "refused" if hresult else "granted", header.call_id, hresult


@implementer(ITCPTransport, IHalfCloseableDescriptor)
class FakeTCP(StringTransport):
    """
    The host's end of a TCP connection.

    @ivar ends: How the host has closed so far: C{"half"}, C{"whole"}, C{"abort"}.
    @ivar room: Bytes that may be written and not read by the peer before the producer is paused.
    """

    room = 65536

    def __init__(self, host: Any, peer: Any) -> None:
        super().__init__(hostAddress=host, peerAddress=peer)
        self.ends: list[str] = []
        self.no_delay = False

    def write(self, data: bytes) -> None:
        """
        Take bytes while this direction is open, and stop the producer when there are too many.
        """
        assert not self.ends, "a write after a close"
        super().write(data)
        if self.producer is not None and len(self.value()) > self.room:
            self.producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self.producer = None

    def loseWriteConnection(self) -> None:
        """
        Close one direction.
        """
        self.ends.append("half")

    def loseConnection(self) -> None:
        """
        Close both directions behind what was written.
        """
        self.ends.append("whole")

    def abortConnection(self) -> None:
        """
        Close both directions now.
        """
        self.ends.append("abort")

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Take note.
        """
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        """
        Tell what was set.
        """
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Not used by a host.
        """

    def getTcpKeepAlive(self) -> bool:
        """
        Not used by a host.
        """
        return False

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The reactor's business.
        """

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        The reactor's business.
        """


class Wire:
    """
    A connection to a host.

    @param factory: The host's factory.
    @param peer: The address of the peer.
    @param transport: What carries the stream, by default TCP.
    """

    def __init__(
        self, factory: HostFactory, peer: str = PEER, transport: StringTransport | None = None
    ) -> None:
        address = IPv4Address("TCP", peer, 50123)
        self.protocol = factory.buildProtocol(address)
        if self.protocol is None:
            raise TurnedAwayError
        self.tcp = FakeTCP(IPv4Address("TCP", "10.0.0.1", 1688), address)
        self.transport = transport or self.tcp
        self.protocol.makeConnection(self.transport)

    @property
    def ends(self) -> list[str]:
        """
        How the host has closed so far.
        """
        return self.tcp.ends

    @property
    def producer(self) -> Any:
        """
        Get what the transport tells when the peer does not read.
        """
        return self.transport.producer

    @property
    def reading(self) -> bool:
        """
        Whether the host reads.
        """
        return self.transport.producerState == "producing"

    def send(self, *segments: bytes) -> None:
        """
        Hand over segments.
        """
        for segment in segments:
            assert self.reading, "the host does not read"
            self.protocol.dataReceived(segment)

    def take(self) -> bytes:
        """
        Take what the host has written since the last time.
        """
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def replies(self) -> list[Reply]:
        """
        Take the answers since the last time.
        """
        return read_replies(self.take())

    def finish(self) -> None:
        """
        The peer sends its FIN.
        """
        self.protocol.readConnectionLost()

    def leave(self, *, cleanly: bool = False) -> None:
        """
        The connection is gone.
        """
        reason = ConnectionDone() if cleanly else ConnectionLost()
        self.protocol.connectionLost(Failure(reason))


class TurnedAwayError(Exception):
    """
    The host did not take the connection.
    """


class Questions:
    """
    A policy that decides when the test wants it.

    @param make: Makes what the policy returns, with the number of the question.
    """

    def __init__(self, make: Callable[[int], object]) -> None:
        self._make = make
        self.asked: list[RequestBody] = []

    def __call__(self, request: RequestBody, peer: object, now: float) -> Any:
        """
        Take a question.
        """
        self.asked.append(request)
        return self._make(len(self.asked) - 1)


@contextmanager
def host_lines() -> Iterator[list[str]]:
    """
    Collect the lines that hosts log; the list is filled when the context ends.
    """
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    lines.extend(
        formatEvent(event)
        for event in events
        if str(event.get("log_namespace", "")).startswith("kmsproto")
    )


class HostCase(SynchronousTestCase):
    """
    A host, a clock, and wires to the host.
    """

    def setUp(self) -> None:
        """
        Start the clock.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.factory = self.make_factory()

    def make_factory(self, **settings: Any) -> HostFactory:
        """
        Make a host with fixed identity and randomness.
        """
        return host_factory(self.clock, catalog=catalog(), **settings)

    def wire(self, peer: str = PEER) -> Wire:
        """
        Connect.
        """
        return Wire(self.factory, peer)

    def bound(self, *, multiplexed: bool = False) -> Wire:
        """
        Connect and bind.
        """
        wire = self.wire()
        wire.send(bind(multiplexed=multiplexed))
        self.assertEqual(wire.replies(), [BOUND])
        return wire

    def assertServed(self, wire: Wire | None = None) -> None:
        """
        The host grants a request, on a connection that is bound or on a new one.
        """
        wire = wire or self.bound()
        wire.send(call(payload(), 77))
        self.assertEqual(wire.replies(), granted(77))

    def assertTimers(self, count: int) -> None:
        """
        So many delayed calls wait.
        """
        self.assertEqual(len(self.clock.getDelayedCalls()), count)


def utf16(text: str, *, fill: bytes = b"\0") -> bytes:
    """
    Write a field of 128 bytes.
    """
    raw = text.encode("utf-16-le", "surrogatepass")
    return raw + fill * (128 - len(raw))


def chunks(data: bytes, size: int = 1) -> Sequence[bytes]:
    """
    Cut bytes into segments.
    """
    return [data[at : at + size] for at in range(0, len(data), size)]
