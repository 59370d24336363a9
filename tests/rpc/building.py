"""
PDUs as peers may send them, in either byte order and with any mistake, and the cores that they are fed to.

Nothing here uses the encoders of C{kmsproto.rpc.pdu}: what they write is compared with what is built here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from struct import pack
from typing import TypeVar
from uuid import UUID

from kmsproto.rpc.calls import Call, CallReceived, ConnectionRefused
from kmsproto.rpc.calls import Event as ServerEvent
from kmsproto.rpc.client import ClientConnection, ServerMisbehaved
from kmsproto.rpc.client import Event as ClientEvent
from kmsproto.rpc.numbers import BindNakReason, ContextResult, PacketType
from kmsproto.rpc.pdu import (
    HEADER_LENGTH,
    NDR,
    NDR64,
    NO_SYNTAX,
    ContextElement,
    Header,
    Negotiated,
    SyntaxId,
    decode_header,
)
from kmsproto.rpc.server import RPCServer, ServerConnection
from kmsproto.rpc.state import Interface

#: The interface of the key management service.
KMS = Interface(SyntaxId(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1, 0), 1)
#: An interface of our own with several operations and a minor version.
ECHO = Interface(SyntaxId(UUID("7d0a2c1e-5b83-4f6e-9c11-2f6d0e8a4b70"), 2, 3), 5)
#: An interface that nobody has.
UNKNOWN = SyntaxId(UUID("00112233-4455-6677-8899-aabbccddeeff"), 1, 0)
#: A transfer syntax that nobody has.
STRANGE = SyntaxId(UUID("ffeeddcc-bbaa-9988-7766-554433221100"), 3, 1)

WHOLE = 0x03
MULTIPLEXED = 0x10
#: The data representation of each byte order.
DREPS = {"<": b"\x10\0\0\0", ">": b"\0\0\0\0"}

E = TypeVar("E")


def build_pdu(
    packet_type: int,
    body: bytes = b"",
    *,
    flags: int = WHOLE,
    call_id: int = 1,
    order: str = "<",
    version: tuple[int, int] = (5, 0),
    drep: bytes | None = None,
    frag_length: int | None = None,
    auth_length: int = 0,
) -> bytes:
    """
    Put any header before a body; without a frag_length of its own it has the right one.
    """
    length = 16 + len(body) if frag_length is None else frag_length
    return (
        bytes((*version, packet_type, flags))
        + (drep or DREPS[order])
        + pack(order + "HHI", length, auth_length, call_id)
        + body
    )


def build_syntax(syntax: SyntaxId, order: str = "<") -> bytes:
    """
    Write a p_syntax_id_t, whose version is one integer: the minor version is its high half.
    """
    uuid = syntax.uuid.bytes_le if order == "<" else syntax.uuid.bytes
    return uuid + pack(order + "I", syntax.major + 0x10000 * syntax.minor)


def build_bind(
    elements: Sequence[ContextElement],
    *,
    packet_type: int = PacketType.BIND,
    xmit: int = 5840,
    recv: int = 5840,
    group: int = 0,
    flags: int = WHOLE,
    call_id: int = 1,
    order: str = "<",
    trailer: bytes = b"",
    auth_length: int = 0,
) -> bytes:
    """
    Write a bind or alter_context; the reserved bytes are not zero, since nobody may care.
    """
    body = pack(order + "HHIBBH", xmit, recv, group, len(elements), 0xAA, 0xBBCC)
    for context_id, abstract_syntax, transfer_syntaxes in elements:
        body += pack(order + "HBB", context_id, len(transfer_syntaxes), 0xDD)
        body += build_syntax(abstract_syntax, order)
        body += b"".join(build_syntax(syntax, order) for syntax in transfer_syntaxes)
    return build_pdu(
        packet_type,
        body + trailer,
        flags=flags,
        call_id=call_id,
        order=order,
        auth_length=auth_length,
    )


def build_ack(
    results: Sequence[Negotiated],
    *,
    packet_type: int = PacketType.BIND_ACK,
    xmit: int = 5840,
    recv: int = 5840,
    group: int = 7,
    address: bytes = b"1688\0",
    flags: int = WHOLE,
    call_id: int = 2,
    order: str = "<",
) -> bytes:
    """
    Write a bind_ack or alter_context_resp; the gap before the results is not zero, since nobody may care.
    """
    body = pack(order + "HHIH", xmit, recv, group, len(address)) + address
    body += b"\xee" * (-len(body) % 4)
    body += pack(order + "BBH", len(results), 0xAA, 0xBBCC)
    for result, reason, syntax in results:
        body += pack(order + "HH", result, reason) + build_syntax(syntax, order)
    return build_pdu(packet_type, body, flags=flags, call_id=call_id, order=order)


def build_nak(
    reason: int = BindNakReason.NOT_SPECIFIED, *, call_id: int = 2, order: str = "<"
) -> bytes:
    """
    Write a bind_nak.
    """
    body = pack(order + "HBBB", reason, 1, 5, 0) + bytes(3)
    return build_pdu(PacketType.BIND_NAK, body, call_id=call_id, order=order)


def build_request(
    stub: bytes = b"",
    *,
    context_id: int = 0,
    opnum: int = 0,
    alloc_hint: int | None = None,
    object_uuid: bytes = b"",
    flags: int = WHOLE,
    call_id: int = 1,
    order: str = "<",
    auth_length: int = 0,
) -> bytes:
    """
    Write a request, or one fragment of it.
    """
    hint = len(stub) if alloc_hint is None else alloc_hint
    return build_pdu(
        PacketType.REQUEST,
        pack(order + "IHH", hint, context_id, opnum) + object_uuid + stub,
        flags=flags | (0x80 if object_uuid else 0),
        call_id=call_id,
        order=order,
        auth_length=auth_length,
    )


def build_response(
    stub: bytes = b"",
    *,
    context_id: int = 0,
    flags: int = WHOLE,
    call_id: int = 2,
    order: str = "<",
) -> bytes:
    """
    Write a response, or one fragment of it.
    """
    body = pack(order + "IHBB", len(stub), context_id, 0, 0xAA) + stub
    return build_pdu(PacketType.RESPONSE, body, flags=flags, call_id=call_id, order=order)


def build_fault(
    status: int,
    *,
    context_id: int = 0,
    flags: int = WHOLE,
    call_id: int = 2,
    order: str = "<",
) -> bytes:
    """
    Write a fault.
    """
    body = pack(order + "IHBBII", 32, context_id, 0, 0, status, 0)
    return build_pdu(PacketType.FAULT, body, flags=flags, call_id=call_id, order=order)


def element(
    context_id: int, interface: SyntaxId = KMS.syntax, *syntaxes: SyntaxId
) -> ContextElement:
    """
    Make an element; without transfer syntaxes it offers NDR.
    """
    return ContextElement(context_id, interface, syntaxes or (NDR,))


def accepted(syntax: SyntaxId = NDR) -> Negotiated:
    """
    Make the verdict that accepts a context.
    """
    return Negotiated(ContextResult.ACCEPTANCE, 0, syntax)


def refused(reason: int) -> Negotiated:
    """
    Make the verdict that refuses a context.
    """
    return Negotiated(ContextResult.PROVIDER_REJECTION, reason, NO_SYNTAX)


def features(bits: int) -> Negotiated:
    """
    Make the verdict on bind-time features.
    """
    return Negotiated(ContextResult.NEGOTIATE_ACK, bits, NO_SYNTAX)


def split(stream: bytes) -> list[tuple[Header, bytes]]:
    """
    Cut what one of our sides sent into PDUs, each of which has a header as we write it and is complete.
    """
    pdus = []
    while stream:
        header = decode_header(stream)
        length = header.frag_length
        if stream[:2] != b"\5\0" or stream[4:8] != DREPS["<"] or header.auth_length:
            raise AssertionError(f"a header of our own is wrong: {stream[:16].hex()}")
        if not HEADER_LENGTH <= length <= len(stream):
            raise AssertionError(f"{length} bytes of a PDU are not in a stream of {len(stream)}")
        pdus.append((header, stream[:length]))
        stream = stream[length:]
    return pdus


def types(stream: bytes) -> list[int]:
    """
    Tell the packet types of a stream of our own.
    """
    return [header.packet_type for header, _ in split(stream)]


def established(server: RPCServer | None = None, peer: str = "192.0.2.1") -> ServerConnection:
    """
    Make the server side of a connection.
    """
    return (server or RPCServer([KMS, ECHO])).accept(peer, "1688")


def bound(
    server: RPCServer | None = None,
    *,
    flags: int = WHOLE,
    xmit: int = 5840,
    peer: str = "192.0.2.1",
) -> ServerConnection:
    """
    Make a bound server side: context 0 is KMS and context 1 is ECHO, both in NDR, context 2 was refused.
    """
    connection = established(server, peer)
    elements = [element(0), element(1, ECHO.syntax), element(2, UNKNOWN)]
    connection.receive_data(build_bind(elements, flags=flags, xmit=xmit))
    connection.data_to_send()
    return connection


def bound_client(
    *, multiplexed: bool = True, max_stub: int = 65536, recv: int = 5840
) -> ClientConnection:
    """
    Make a bound client side: context 0 is KMS in NDR, context 1 was refused; its first call will be 2.
    """
    connection = ClientConnection(multiplexed=multiplexed, max_stub=max_stub)
    connection.bind([element(0), element(1, KMS.syntax, NDR64)])
    connection.data_to_send()
    connection.receive_data(build_ack([accepted(), refused(2)], recv=recv))
    return connection


def only(kind: type[E], events: Iterable[object]) -> E:
    """
    Get the one event that there is, which is of that kind.
    """
    (event,) = events
    if not isinstance(event, kind):
        raise AssertionError(f"{event} is something else")
    return event


def received(connection: ServerConnection, data: bytes) -> Call:
    """
    Feed a PDU that makes exactly one call.
    """
    return only(CallReceived, connection.receive_data(data)).call


def refusal(events: Sequence[ServerEvent]) -> str:
    """
    Tell why a server ended the connection, which is the one thing that happened.
    """
    return only(ConnectionRefused, events).problem


def misbehaviour(events: Sequence[ClientEvent]) -> str:
    """
    Tell why a client ended the connection, which is the one thing that happened.
    """
    return only(ServerMisbehaved, events).problem


def drain(connection: ServerConnection, data: bytes = b"") -> list[ServerEvent]:
    """
    Feed a server, and go on behind each call without answering it.

    @return: All events.
    """
    events = connection.receive_data(data)
    every = list(events)
    while events and isinstance(events[-1], CallReceived):
        events = connection.receive_data(b"")
        every += events
    return every


def serve(connection: ServerConnection, data: bytes) -> list[ServerEvent]:
    """
    Feed a server, and answer each call at once with its own stub.

    @return: All events.
    """
    events = connection.receive_data(data)
    every = list(events)
    while events and isinstance(event := events[-1], CallReceived):
        connection.respond(event.call, event.call.stub)
        events = connection.receive_data(b"")
        every += events
    return every


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """
    Cut a stream into segments.

    @param cuts: Where, in bytes from the start; what lies outside is ignored.
    """
    places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]
