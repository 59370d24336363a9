"""
Connection-oriented DCE/RPC PDUs of a client, for tests: put together by C{struct} alone.

This is no second RPC library.  It knows no state and checks nothing: every field of every header
can be set to a lie, in both byte orders, because most tests need exactly one wrong field.  What
the host answers is the business of L{tests.conformance.answers}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import Final, Literal, NamedTuple, TypedDict, Unpack
from uuid import UUID

Order = Literal["<", ">"]


class PType(IntEnum):
    """
    The packet types (C706 12.1, MS-RPCE 2.2.2.10, MS-RPCH).
    """

    REQUEST = 0
    PING = 1
    RESPONSE = 2
    FAULT = 3
    WORKING = 4
    NOCALL = 5
    REJECT = 6
    ACK = 7
    CL_CANCEL = 8
    FACK = 9
    CANCEL_ACK = 10
    BIND = 11
    BIND_ACK = 12
    BIND_NAK = 13
    ALTER_CONTEXT = 14
    ALTER_CONTEXT_RESP = 15
    AUTH3 = 16
    SHUTDOWN = 17
    CO_CANCEL = 18
    ORPHANED = 19
    RTS = 20


FIRST: Final = 0x01
LAST: Final = 0x02
WHOLE: Final = FIRST | LAST
PENDING_CANCEL: Final = 0x04
CONC_MPX: Final = 0x10
DID_NOT_EXECUTE: Final = 0x20
MAYBE: Final = 0x40
OBJECT: Final = 0x80


class Syntax(NamedTuple):
    """
    An abstract or a transfer syntax: a UUID and a version.
    """

    uuid: UUID
    major: int
    minor: int = 0

    def encode(self, order: Order = "<") -> bytes:
        """
        The 20 bytes of p_syntax_id_t (C706 12.6.3.1).
        """
        uuid = encode_uuid(self.uuid, order)
        return uuid + struct.pack(order + "I", self.major | self.minor << 16)


def encode_uuid(uuid: UUID, order: Order = "<") -> bytes:
    """
    The 16 bytes of a UUID: its first three members are integers, the last eight bytes are an array.
    """
    return uuid.bytes_le if order == "<" else uuid.bytes


KMS: Final = Syntax(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1)
MANAGEMENT: Final = Syntax(UUID("afa8bd80-7d8a-11c9-bef4-08002b102989"), 1)
STRANGER: Final = Syntax(UUID("12345778-1234-abcd-ef00-0123456789ac"), 1)
NDR: Final = Syntax(UUID("8a885d04-1ceb-11c9-9fe8-08002b104860"), 2)
NDR64: Final = Syntax(UUID("71710533-beba-4937-8319-b5dbef9ccc36"), 1)
UNKNOWN_TRANSFER: Final = Syntax(UUID("b4537da9-3d03-4f6b-b594-52b2874ee9d0"), 1)


def features(bits: int, major: int = 1, minor: int = 0) -> Syntax:
    """
    The transfer syntax that stands for bind time feature negotiation (MS-RPCE 2.2.2.14).

    @param bits: The 64 bits of the request bitmask.
    """
    uuid = bytes.fromhex("2c1cb76c12984045") + struct.pack("<Q", bits)
    return Syntax(UUID(bytes_le=uuid), major, minor)


class Element(NamedTuple):
    """
    One element of a presentation context list.

    @ivar announced: n_transfer_syn, where it shall differ from the truth.
    """

    context: int
    abstract: Syntax
    transfers: tuple[Syntax, ...]
    reserved: int = 0
    announced: int | None = None

    def encode(self, order: Order = "<") -> bytes:
        """
        The bytes of p_cont_elem_t (C706 12.6.3.1).
        """
        count = len(self.transfers) if self.announced is None else self.announced
        return (
            struct.pack(order + "HBB", self.context, count, self.reserved)
            + self.abstract.encode(order)
            + b"".join(transfer.encode(order) for transfer in self.transfers)
        )


def element(context: int, *transfers: Syntax, abstract: Syntax = KMS) -> Element:
    """
    A context list element, for the KMS interface unless told otherwise.
    """
    return Element(context, abstract, transfers)


class Header(TypedDict, total=False):
    """
    The fields of the common header that every builder takes.

    @ivar flags: pfc_flags.
    @ivar version: rpc_vers and rpc_vers_minor.
    @ivar drep: The four bytes of the data representation; by default they follow from C{order}.
    @ivar frag_length: By default the true length.
    @ivar auth_length: By default what the trailer says.
    @ivar trailer: Bytes behind the body: sec_trailer and auth_value.
    """

    flags: int
    call_id: int
    order: Order
    version: tuple[int, int]
    drep: bytes
    frag_length: int
    auth_length: int
    trailer: bytes


def pdu(ptype: int, body: bytes = b"", **header: Unpack[Header]) -> bytes:
    """
    Any PDU (C706 12.6.3.1).
    """
    order = header.get("order", "<")
    trailer = header.get("trailer", b"")
    frag_length = header.get("frag_length", 16 + len(body) + len(trailer))
    auth_length = header.get("auth_length", max(len(trailer) - 8, 0))
    return (
        bytes(header.get("version", (5, 0)))
        + bytes([ptype, header.get("flags", WHOLE)])
        + header.get("drep", b"\x10\0\0\0" if order == "<" else b"\0\0\0\0")
        + struct.pack(order + "HHI", frag_length, auth_length, header.get("call_id", 1))
        + body
        + trailer
    )


def context_list(
    elements: Iterable[Element],
    *,
    order: Order = "<",
    count: int | None = None,
    reserved: tuple[int, int] = (0, 0),
) -> bytes:
    """
    A presentation context list (C706 12.6.3.1).

    @param count: n_context_elem, where it shall differ from the truth.
    @param reserved: The reserved octet and the reserved short behind it.
    """
    encoded = [one.encode(order) for one in elements]
    number = len(encoded) if count is None else count
    return struct.pack(order + "BBH", number, *reserved) + b"".join(encoded)


def negotiation(
    ptype: int,
    *elements: Element,
    xmit: int = 5840,
    recv: int = 5840,
    group: int = 0,
    count: int | None = None,
    reserved: tuple[int, int] = (0, 0),
    extra: bytes = b"",
    **header: Unpack[Header],
) -> bytes:
    """
    What bind and alter_context have in common (C706 12.6.4.1, 12.6.4.3).

    @param extra: Bytes behind the context list.
    """
    order = header.get("order", "<")
    body = struct.pack(order + "HHI", xmit, recv, group)
    body += context_list(elements, order=order, count=count, reserved=reserved) + extra
    return pdu(ptype, body, **header)


#: A bind PDU; see L{negotiation}.
bind = partial(negotiation, PType.BIND)
#: An alter_context PDU; see L{negotiation}.
alter = partial(negotiation, PType.ALTER_CONTEXT)


def request(
    stub: bytes = b"",
    *,
    context: int = 0,
    opnum: int = 0,
    hint: int | None = None,
    object_id: UUID | None = None,
    **header: Unpack[Header],
) -> bytes:
    """
    A request PDU (C706 12.6.4.9).

    @param hint: alloc_hint; by default the length of the stub.
    @param object_id: An object UUID; the flag that announces it is set as well.
    """
    order = header.get("order", "<")
    hint = len(stub) if hint is None else hint
    body = struct.pack(order + "IHH", hint, context, opnum)
    if object_id is not None:
        body += encode_uuid(object_id, order)
        header["flags"] = header.get("flags", WHOLE) | OBJECT
    return pdu(PType.REQUEST, body + stub, **header)


def chunks(stub: bytes, size: int) -> list[bytes]:
    """
    The stub in at least two pieces of at most C{size} bytes.

    @param size: 0 stands for a first, a second and a last piece that are empty.
    """
    if not size:
        return [b"", b"", stub, b""]
    pieces = [stub[start : start + size] for start in range(0, len(stub), size)]
    return pieces if len(pieces) > 1 else [*pieces, b""] if pieces else [b"", b""]


def fragments(
    pieces: Sequence[bytes],
    *,
    context: int = 0,
    opnum: int = 0,
    hints: Sequence[int] | None = None,
    object_id: UUID | None = None,
    **header: Unpack[Header],
) -> list[bytes]:
    """
    One call in as many request PDUs as there are pieces.
    """
    remaining = sum(map(len, pieces))
    extra = header.get("flags", 0)
    made = []
    for index, piece in enumerate(pieces):
        edge = (FIRST if index == 0 else 0) | (LAST if index == len(pieces) - 1 else 0)
        header["flags"] = edge | extra
        made.append(
            request(
                piece,
                context=context,
                opnum=opnum,
                hint=remaining if hints is None else hints[index],
                object_id=object_id,
                **header,
            )
        )
        remaining -= len(piece)
    return made


def trailer(
    auth_type: int = 10,
    level: int = 2,
    value: bytes = b"NTLMSSP\0" + bytes(24),
    *,
    pad: int = 0,
    context: int = 0,
    order: Order = "<",
) -> bytes:
    """
    sec_trailer and auth_value (C706 13.2.6.1, MS-RPCE 2.2.2.11).
    """
    return struct.pack(order + "BBBBI", auth_type, level, pad, 0, context) + value


def ndr_stub(
    payload: bytes,
    *,
    order: Order = "<",
    size: int | None = None,
    max_count: int | None = None,
) -> bytes:
    """
    The stub of RequestActivation in NDR.

    @param size: requestSize, where it shall differ from the truth; C{max_count} likewise.
    """
    size = len(payload) if size is None else size
    max_count = len(payload) if max_count is None else max_count
    return struct.pack(order + "II", size, max_count) + payload


def ndr64_stub(
    payload: bytes,
    *,
    order: Order = "<",
    size: int | None = None,
    max_count: int | None = None,
    gap: int = 0,
) -> bytes:
    """
    The stub of RequestActivation in NDR64; see L{ndr_stub}.

    @param gap: The alignment bytes behind requestSize, as a number.
    """
    size = len(payload) if size is None else size
    max_count = len(payload) if max_count is None else max_count
    return struct.pack(order + "IIQ", size, gap, max_count) + payload


def activation_stub(payload: bytes, syntax: Syntax = NDR, order: Order = "<") -> bytes:
    """
    The stub of RequestActivation in one of the two transfer syntaxes.
    """
    if syntax == NDR64:
        return ndr64_stub(payload, order=order)
    return ndr_stub(payload, order=order)
