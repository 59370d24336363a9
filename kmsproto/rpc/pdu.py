"""
The layouts of connection-oriented DCE/RPC, and how PDUs are read and written.

Every layout stands here once, as a compiled L{struct.Struct} for each of the two byte orders, because the receiver
makes it right: the byte order belongs to each PDU that arrives, while everything that is written is little-endian
(C706 12.4, 14.1).  Parts of variable length are read with a L{Cursor} that is bounded by the PDU's own frag_length,
so that no length field inside a PDU can reach beyond it.

Decoding answers with plain named tuples or raises L{MalformedPDUError}; which answer such a PDU earns is not decided
here, for that depends on the state of the connection (L{kmsproto.rpc.server}).

Sources: C706 chapter 12 (encodings), MS-RPCE 2.2.2 and 2.2.4; "How a correct connection-oriented DCE/RPC server
behaves", sections 0, 2, 3 and 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from kmsproto.errors import RemoteProtocolError
from kmsproto.rpc.numbers import WHOLE, PacketFlag, PacketType

#: Bytes of the common header (C706 12.6.3.1).
HEADER_LENGTH = 16
#: Bytes before the stub of a request without object UUID, and of a response (C706 12.6.4.9, 12.6.4.10).
CALL_PREFIX_LENGTH = 24
#: Bytes of the optional object UUID of a request.
OBJECT_LENGTH = 16
#: Bytes before the context list of bind and alter_context (C706 12.6.4.3).
BIND_PREFIX_LENGTH = 28
#: Bytes of a whole fault PDU (MS-RPCE 2.2.2.8: no stub data follows).
FAULT_LENGTH = 32
#: Bytes of an authentication trailer before its value (MS-RPCE 2.2.2.11).
AUTH_TRAILER_LENGTH = 8
#: Bytes of the version, packet type and flags that tell whether a stream is RPC at all.
RECOGNITION_LENGTH = 3

#: The protocol version that is spoken here: 5.0 (MS-RPCE 3.3.1.5.1 forbids 5.1).
RPC_VERSION = (5, 0)
#: The packed data representation of everything we write: little-endian, ASCII, IEEE.
LITTLE_ENDIAN_DREP = b"\x10\x00\x00\x00"


class MalformedPDUError(RemoteProtocolError):
    """
    A PDU is too short for its type, or something inside it reaches beyond its end.
    """


class SyntaxId(NamedTuple):
    """
    An abstract or transfer syntax: a UUID and a version (C706 12.6.3.1, p_syntax_id_t).

    On the wire the version is one 32-bit integer, the major version in its low half.
    """

    uuid: UUID
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.uuid} v{self.major}.{self.minor}"


#: The transfer syntax of C706 chapter 14.
NDR = SyntaxId(UUID("8a885d04-1ceb-11c9-9fe8-08002b104860"), 2, 0)
#: The 64-bit transfer syntax of MS-RPCE 2.2.5.
NDR64 = SyntaxId(UUID("71710533-beba-4937-8319-b5dbef9ccc36"), 1, 0)
#: What stands for "no syntax" in a refused element.
NO_SYNTAX = SyntaxId(UUID(int=0), 0, 0)

#: The first eight bytes, as on the wire, of the transfer syntax that asks for bind-time features (MS-RPCE 3.3.1.5.3).
_FEATURES_PREFIX = UUID("6cb71c2c-9812-4540-0000-000000000000").bytes_le[:8]
#: The features that have a meaning: SecurityContextMultiplexing 1, KeepConnectionOnOrphan 2 (MS-RPCE 2.2.2.14).
KNOWN_FEATURES = 0x03


def bind_time_features(features: int) -> SyntaxId:
    """
    Make the transfer syntax by which a client asks for bind-time features (MS-RPCE 2.2.2.14).

    @param features: The bits that are asked for.
    """
    return SyntaxId(UUID(bytes_le=_FEATURES_PREFIX + features.to_bytes(8, "little")), 1, 0)


def requested_features(syntax: SyntaxId) -> int | None:
    """
    Read the bits of a bind-time feature negotiation.

    @return: The bits, or L{None} when C{syntax} is an ordinary transfer syntax.
    """
    if syntax.uuid.bytes_le[:8] != _FEATURES_PREFIX or (syntax.major, syntax.minor) != (1, 0):
        return None
    return int.from_bytes(syntax.uuid.bytes_le[8:], "little")


class Header(NamedTuple):
    """
    The common header (C706 12.6.3.1).

    C{byte_order} is C{"<"} or C{">"}, the prefix of L{struct} for the sender's integers, or empty when the
    data representation names an integer format that does not exist.
    """

    version: tuple[int, int]
    packet_type: int
    flags: int
    byte_order: str
    frag_length: int
    auth_length: int
    call_id: int

    @property
    def object_length(self) -> int:
        """
        Bytes of the object UUID of a request: 16, or 0 without one.
        """
        return OBJECT_LENGTH if self.flags & PacketFlag.OBJECT_UUID else 0


class ContextElement(NamedTuple):
    """
    One presentation context that is offered (C706 12.6.3.1, p_cont_elem_t).
    """

    context_id: int
    abstract_syntax: SyntaxId
    transfer_syntaxes: tuple[SyntaxId, ...]


class Bind(NamedTuple):
    """
    The body of bind and alter_context (C706 12.6.4.3, 12.6.4.1).
    """

    max_xmit_frag: int
    max_recv_frag: int
    association_group: int
    elements: tuple[ContextElement, ...]


class Negotiated(NamedTuple):
    """
    The verdict on one element (C706 12.6.3.1, p_result_t).
    """

    result: int
    reason: int
    transfer_syntax: SyntaxId


class BindAck(NamedTuple):
    """
    The body of bind_ack and alter_context_resp (C706 12.6.4.4, 12.6.4.2).
    """

    max_xmit_frag: int
    max_recv_frag: int
    association_group: int
    secondary_address: str
    results: tuple[Negotiated, ...]


class Request(NamedTuple):
    """
    The body of a request (C706 12.6.4.9), without an authentication trailer.
    """

    alloc_hint: int
    context_id: int
    opnum: int
    stub: bytes


class Response(NamedTuple):
    """
    The body of a response (C706 12.6.4.10), without an authentication trailer.
    """

    alloc_hint: int
    context_id: int
    cancel_count: int
    stub: bytes


class Fault(NamedTuple):
    """
    The body of a fault (C706 12.6.4.7, MS-RPCE 2.2.2.8).
    """

    context_id: int
    status: int


class AuthTrailer(NamedTuple):
    """
    The authentication trailer (MS-RPCE 2.2.2.11).

    @ivar overlong: Whether the padding before it would be longer than what there is before it.
    """

    auth_type: int
    auth_level: int
    pad_length: int
    context_id: int
    value: bytes
    overlong: bool


class _Layouts:
    """
    All fixed layouts in one byte order.
    """

    def __init__(self, order: str) -> None:
        self.lengths = Struct(order + "HHI")
        self.bind = Struct(order + "HHIBxxx")
        self.element = Struct(order + "HBx")
        self.version = Struct(order + "I")
        self.result = Struct(order + "HH")
        self.short = Struct(order + "H")
        self.call = Struct(order + "IHH")
        self.response = Struct(order + "IHBx")
        self.fault = Struct(order + "IHBxII")
        self.auth = Struct(order + "BBBxI")


_LAYOUTS = {"<": _Layouts("<"), ">": _Layouts(">")}
_LITTLE = _LAYOUTS["<"]
#: The version of a syntax as we write it: little-endian, so the low half comes first.
_VERSION_HALVES = Struct("<HH")
#: What the high nibble of the first octet of a data representation says about integers (C706 14.1).
_BYTE_ORDERS = {0: ">", 1: "<"}


class Cursor:
    """
    Reads the variable parts of a PDU, and never beyond its end.

    @param data: The bytes of the PDU.
    @param offset: Where to start.
    @param end: Where the readable part ends.
    @param byte_order: C{"<"} or C{">"}.
    """

    def __init__(self, data: bytes, offset: int, end: int, byte_order: str) -> None:
        self._data = data
        self.offset = offset
        self._end = end
        self._layouts = _LAYOUTS[byte_order]
        self._big_endian = byte_order == ">"

    def take(self, length: int) -> bytes:
        """
        Read so many bytes.

        @raise MalformedPDUError: If there are fewer.
        """
        start = self.offset
        if start + length > self._end:
            raise MalformedPDUError(
                f"{length} bytes at offset {start} reach beyond the end at {self._end}"
            )
        self.offset = start + length
        return self._data[start : self.offset]

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """
        Read one fixed layout.

        @raise MalformedPDUError: If there are too few bytes.
        """
        return layout.unpack(self.take(layout.size))

    def align(self, boundary: int) -> None:
        """
        Step over the gap before something that is aligned from the start of the PDU.
        """
        self.offset += -self.offset % boundary

    def syntax(self) -> SyntaxId:
        """
        Read one p_syntax_id_t: its UUID is a structure of integers, so it follows the byte order too.
        """
        raw = self.take(16)
        (version,) = self.unpack(self._layouts.version)
        uuid = UUID(bytes=raw) if self._big_endian else UUID(bytes_le=raw)
        return SyntaxId(uuid, version & 0xFFFF, version >> 16)

    def element(self) -> ContextElement:
        """
        Read one p_cont_elem_t.
        """
        context_id, syntax_count = self.unpack(self._layouts.element)
        abstract_syntax = self.syntax()
        return ContextElement(
            context_id, abstract_syntax, tuple(self.syntax() for _ in range(syntax_count))
        )

    def result(self) -> Negotiated:
        """
        Read one p_result_t.
        """
        result, reason = self.unpack(self._layouts.result)
        return Negotiated(result, reason, self.syntax())


def decode_header(data: bytes | bytearray) -> Header:
    """
    Read the common header.

    @param data: At least 16 bytes.
    """
    byte_order = _BYTE_ORDERS.get(data[4] >> 4, "")
    lengths = _LAYOUTS[byte_order or "<"].lengths.unpack_from(data, 8)
    return Header((data[0], data[1]), data[2], data[3], byte_order, *lengths)


def decode_bind(header: Header, data: bytes) -> Bind:
    """
    Read a bind or alter_context PDU; bytes after the context list are ignored.

    @raise MalformedPDUError: If the list runs past the end.
    """
    cursor = Cursor(data, HEADER_LENGTH, header.frag_length, header.byte_order)
    max_xmit_frag, max_recv_frag, group, count = cursor.unpack(_LAYOUTS[header.byte_order].bind)
    return Bind(max_xmit_frag, max_recv_frag, group, tuple(cursor.element() for _ in range(count)))


def decode_bind_ack(header: Header, data: bytes) -> BindAck:
    """
    Read a bind_ack or alter_context_resp PDU.

    @raise MalformedPDUError: If something runs past the end.
    """
    layouts = _LAYOUTS[header.byte_order]
    cursor = Cursor(data, HEADER_LENGTH, header.frag_length, header.byte_order)
    max_xmit_frag, max_recv_frag, group = cursor.unpack(layouts.lengths)
    (address_length,) = cursor.unpack(layouts.short)
    address = cursor.take(address_length).rstrip(b"\0").decode("ascii", "backslashreplace")
    cursor.align(4)
    count = cursor.take(4)[0]
    results = tuple(cursor.result() for _ in range(count))
    return BindAck(max_xmit_frag, max_recv_frag, group, address, results)


def decode_bind_nak(header: Header, data: bytes) -> int:
    """
    Read a bind_nak PDU.

    @return: The provider reject reason.
    @raise MalformedPDUError: If there is none.
    """
    cursor = Cursor(data, HEADER_LENGTH, header.frag_length, header.byte_order)
    (reason,) = cursor.unpack(_LAYOUTS[header.byte_order].short)
    return reason


def decode_request(header: Header, data: bytes) -> Request:
    """
    Read a request PDU; an object UUID is stepped over, as all objects belong to the default manager.

    @param data: At least as many bytes as the header's object UUID flag asks for.
    """
    alloc_hint, context_id, opnum = _LAYOUTS[header.byte_order].call.unpack_from(
        data, HEADER_LENGTH
    )
    return Request(
        alloc_hint,
        context_id,
        opnum,
        data[CALL_PREFIX_LENGTH + header.object_length : header.frag_length],
    )


def decode_response(header: Header, data: bytes) -> Response:
    """
    Read a response PDU.

    @raise MalformedPDUError: If it is too short.
    """
    cursor = Cursor(data, HEADER_LENGTH, header.frag_length, header.byte_order)
    alloc_hint, context_id, cancel_count = cursor.unpack(_LAYOUTS[header.byte_order].response)
    return Response(
        alloc_hint, context_id, cancel_count, data[CALL_PREFIX_LENGTH : header.frag_length]
    )


def decode_fault(header: Header, data: bytes) -> Fault:
    """
    Read a fault PDU; what follows the status is not looked at.

    @raise MalformedPDUError: If it is too short.
    """
    cursor = Cursor(data, HEADER_LENGTH, header.frag_length, header.byte_order)
    _, context_id, _, status, _ = cursor.unpack(_LAYOUTS[header.byte_order].fault)
    return Fault(context_id, status)


def decode_auth_trailer(header: Header, data: bytes) -> AuthTrailer:
    """
    Read the authentication trailer at the end of a PDU that has room for it.
    """
    start = header.frag_length - header.auth_length - AUTH_TRAILER_LENGTH
    layout = _LAYOUTS[header.byte_order].auth
    auth_type, auth_level, pad_length, context_id = layout.unpack_from(data, start)
    value = data[start + AUTH_TRAILER_LENGTH : header.frag_length]
    overlong = pad_length > start - CALL_PREFIX_LENGTH
    return AuthTrailer(auth_type, auth_level, pad_length, context_id, value, overlong)


_HEADER = Struct("<BBBB4sHHI")


def encode_pdu(packet_type: int, flags: int, call_id: int, body: bytes) -> bytes:
    """
    Put our own header before a body: version 5.0, little-endian, no authentication.
    """
    length = HEADER_LENGTH + len(body)
    return (
        _HEADER.pack(*RPC_VERSION, packet_type, flags, LITTLE_ENDIAN_DREP, length, 0, call_id)
        + body
    )


def encode_syntax(syntax: SyntaxId) -> bytes:
    """
    Write one p_syntax_id_t, 20 bytes.
    """
    return syntax.uuid.bytes_le + _VERSION_HALVES.pack(syntax.major, syntax.minor)


def encode_bind(packet_type: int, flags: int, call_id: int, bind: Bind) -> bytes:
    """
    Write a bind or alter_context PDU.
    """
    parts = [
        _LITTLE.bind.pack(
            bind.max_xmit_frag, bind.max_recv_frag, bind.association_group, len(bind.elements)
        )
    ]
    for element in bind.elements:
        parts.append(_LITTLE.element.pack(element.context_id, len(element.transfer_syntaxes)))
        parts.append(encode_syntax(element.abstract_syntax))
        parts.extend(map(encode_syntax, element.transfer_syntaxes))
    return encode_pdu(packet_type, flags, call_id, b"".join(parts))


def encode_bind_ack(packet_type: int, flags: int, call_id: int, ack: BindAck) -> bytes:
    """
    Write a bind_ack or alter_context_resp PDU; gaps are zero, and the empty secondary address has no terminator.
    """
    address = ack.secondary_address.encode("ascii") + b"\0" if ack.secondary_address else b""
    head = _LITTLE.lengths.pack(ack.max_xmit_frag, ack.max_recv_frag, ack.association_group)
    head += _LITTLE.short.pack(len(address)) + address
    head += bytes(-len(head) % 4)
    results = b"".join(
        _LITTLE.result.pack(each.result, each.reason) + encode_syntax(each.transfer_syntax)
        for each in ack.results
    )
    return encode_pdu(
        packet_type, flags, call_id, head + bytes((len(ack.results), 0, 0, 0)) + results
    )


def encode_bind_nak(call_id: int, reason: int) -> bytes:
    """
    Write a bind_nak PDU: the reason, the one version that is spoken here, padded to 24 bytes.
    """
    body = _LITTLE.short.pack(reason) + bytes((1, *RPC_VERSION)) + bytes(3)
    return encode_pdu(PacketType.BIND_NAK, WHOLE, call_id, body)


def encode_fault(call_id: int, context_id: int, status: int, *, did_not_execute: bool) -> bytes:
    """
    Write a fault PDU, 32 bytes.

    @param did_not_execute: Whether the caller may rely on the call not having been executed.
    """
    flags = WHOLE | (PacketFlag.DID_NOT_EXECUTE if did_not_execute else 0)
    return encode_pdu(
        PacketType.FAULT, flags, call_id, _LITTLE.fault.pack(FAULT_LENGTH, context_id, 0, status, 0)
    )


#: All that stands before the stub of a request or response, in one piece: what nearly every PDU has.  The last number
#: is an opnum in one, and zero in the other.
_WHOLE_CALL = Struct("<8sHHIIHH")
_WHOLE_REQUEST = bytes((*RPC_VERSION, PacketType.REQUEST, WHOLE)) + LITTLE_ENDIAN_DREP
_WHOLE_RESPONSE = bytes((*RPC_VERSION, PacketType.RESPONSE, WHOLE)) + LITTLE_ENDIAN_DREP


def is_request(data: bytes) -> bool:
    """
    Tell whether a segment begins with a request PDU, if with a PDU at all.
    """
    return data[2:3] == b"\0"


def read_whole_call(data: bytes) -> tuple[int, int, int, bytes] | None:
    """
    Read a segment that is a call as nearly all are: one whole little-endian request PDU, without object or trailer.

    @return: Call id, context id, opnum and stub; or L{None}, which says nothing but that it is not such a segment.
    """
    if not data.startswith(_WHOLE_REQUEST) or len(data) < CALL_PREFIX_LENGTH:
        return None
    _, length, auth_length, call_id, _, context_id, opnum = _WHOLE_CALL.unpack_from(data)
    if length != len(data) or auth_length:
        return None
    return call_id, context_id, opnum, data[CALL_PREFIX_LENGTH:]


def _fragments(stub: bytes, max_frag: int) -> Iterator[tuple[int, int, bytes]]:
    """
    Cut a stub into parts that fit a fragment, each but the last a multiple of 8 bytes.

    @return: For each part the flags, the bytes of stub from here to the end (the alloc_hint), and the part.
    """
    room = (max_frag - CALL_PREFIX_LENGTH) & ~7
    for start in range(0, len(stub) or 1, room):
        flags = PacketFlag.FIRST if start == 0 else 0
        remaining = len(stub) - start
        if remaining <= room:
            flags |= PacketFlag.LAST
        yield flags, remaining, stub[start : start + room]


def encode_request(
    call_id: int, context_id: int, opnum: int, stub: bytes, max_frag: int
) -> list[bytes]:
    """
    Write a call, in as many request PDUs as the negotiated fragment size asks for.

    @param max_frag: The negotiated fragment size, in bytes.
    """
    return [
        encode_pdu(
            PacketType.REQUEST,
            flags,
            call_id,
            _LITTLE.call.pack(alloc_hint, context_id, opnum) + part,
        )
        for flags, alloc_hint, part in _fragments(stub, max_frag)
    ]


def encode_response(call_id: int, context_id: int, stub: bytes, max_frag: int) -> list[bytes]:
    """
    Write the answer to a call, in as many response PDUs as the negotiated fragment size asks for.

    @param max_frag: The negotiated fragment size, in bytes.
    """
    size = len(stub)
    if size <= max_frag - CALL_PREFIX_LENGTH & ~7:
        length = CALL_PREFIX_LENGTH + size
        return [_WHOLE_CALL.pack(_WHOLE_RESPONSE, length, 0, call_id, size, context_id, 0) + stub]
    return [
        encode_pdu(
            PacketType.RESPONSE,
            flags,
            call_id,
            _LITTLE.response.pack(alloc_hint, context_id, 0) + part,
        )
        for flags, alloc_hint, part in _fragments(stub, max_frag)
    ]
