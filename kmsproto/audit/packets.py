"""
PDUs of a client in which every field can be a lie.

L{kmsproto.rpc.pdu} writes what is right, and nothing else; an audit needs PDUs with exactly one thing wrong.  So the
fields stand here once more, each with its right value as the default.  Nothing is checked, and both byte orders are
written.

Sources: C706 12.6.3 and 12.6.4, MS-RPCE 2.2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, Unpack
from uuid import UUID

from kmsproto.rpc.numbers import WHOLE, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId

Order = Literal["<", ">"]

#: The interface of KMS.
KMS = SyntaxId(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1, 0)
#: The interface for remote management that every server offers (C706, "Remote Management Interface").
MANAGEMENT = SyntaxId(UUID("afa8bd80-7d8a-11c9-bef4-08002b102989"), 1, 0)
#: An interface that no KMS host has: that of the local security authority.
STRANGER = SyntaxId(UUID("12345778-1234-abcd-ef00-0123456789ab"), 0, 0)
#: A transfer syntax that nobody has.
UNKNOWN_TRANSFER = SyntaxId(UUID("b4537da9-3d03-4f6b-b594-52b2874ee9d0"), 1, 0)


class Header(TypedDict, total=False):
    """
    The fields of the common header.

    @ivar flags: pfc_flags.
    @ivar order: The byte order of everything.
    @ivar version: rpc_vers and rpc_vers_minor.
    @ivar drep: The data representation; by default it follows from the byte order.
    @ivar length: frag_length; by default the truth.
    @ivar auth_length: By default what the trailer says.
    @ivar trailer: Bytes behind the body.
    """

    flags: int
    call_id: int
    order: Order
    version: tuple[int, int]
    drep: bytes
    length: int
    auth_length: int
    trailer: bytes


def packet(packet_type: int, body: bytes = b"", **header: Unpack[Header]) -> bytes:
    """
    Write any PDU (C706 12.6.3.1).
    """
    order = header.get("order", "<")
    trailer = header.get("trailer", b"")
    length = header.get("length", 16 + len(body) + len(trailer))
    auth_length = header.get("auth_length", max(len(trailer) - 8, 0))
    return b"".join(
        (
            bytes(header.get("version", (5, 0))),
            bytes((packet_type, header.get("flags", WHOLE))),
            header.get("drep", b"\x10\0\0\0" if order == "<" else bytes(4)),
            struct.pack(order + "HHI", length, auth_length, header.get("call_id", 1)),
            body,
            trailer,
        )
    )


def write_uuid(uuid: UUID, order: Order = "<") -> bytes:
    """
    Write a UUID; its first members are integers, so they follow the byte order.
    """
    return uuid.bytes_le if order == "<" else uuid.bytes


def write_syntax(syntax: SyntaxId, order: Order = "<") -> bytes:
    """
    Write one p_syntax_id_t (C706 12.6.3.1), 20 bytes.
    """
    version = syntax.major | syntax.minor << 16
    return write_uuid(syntax.uuid, order) + struct.pack(order + "I", version)


class Element(NamedTuple):
    """
    One presentation context that is offered.

    @ivar reserved: The octet behind the number of transfer syntaxes.
    """

    context: int
    transfers: tuple[SyntaxId, ...]
    abstract: SyntaxId = KMS
    reserved: int = 0

    def encode(self, order: Order) -> bytes:
        """
        Write it (C706 12.6.3.1, p_cont_elem_t).
        """
        head = struct.pack(order + "HBB", self.context, len(self.transfers), self.reserved)
        syntaxes = (self.abstract, *self.transfers)
        return head + b"".join(write_syntax(syntax, order) for syntax in syntaxes)


def element(context: int, *transfers: SyntaxId, abstract: SyntaxId = KMS) -> Element:
    """
    Make the element of a context, for the KMS interface by default.
    """
    return Element(context, transfers, abstract)


#: NDR as context 0, which is what most cases bind.
PLAIN = element(0, NDR)
#: NDR64 as context 1.
PLAIN64 = element(1, NDR64)


def bind(
    *elements: Element,
    packet_type: int = PacketType.BIND,
    xmit: int = 5840,
    recv: int = 5840,
    group: int = 0,
    count: int | None = None,
    reserved: tuple[int, int] = (0, 0),
    extra: bytes = b"",
    **header: Unpack[Header],
) -> bytes:
    """
    Write a bind or alter_context PDU (C706 12.6.4.3, 12.6.4.1).

    @param count: The number of elements, where it shall not be the truth.
    @param reserved: The octet and the short behind that number.
    @param extra: Bytes behind the list.
    """
    order = header.get("order", "<")
    number = len(elements) if count is None else count
    body = struct.pack(order + "HHIBBH", xmit, recv, group, number, *reserved)
    body += b"".join(each.encode(order) for each in elements)
    return packet(packet_type, body + extra, **header)


def alter(*elements: Element, **header: Unpack[Header]) -> bytes:
    """
    Write an alter_context PDU.
    """
    return bind(*elements, packet_type=PacketType.ALTER_CONTEXT, **header)


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
    Write a request PDU (C706 12.6.4.9).

    @param hint: The alloc_hint; by default the length of the stub.
    @param object_id: An object UUID; the flag that announces it is set as well.
    """
    order = header.get("order", "<")
    body = struct.pack(order + "IHH", len(stub) if hint is None else hint, context, opnum)
    if object_id is not None:
        body += write_uuid(object_id, order)
        header["flags"] = header.get("flags", WHOLE) | PacketFlag.OBJECT_UUID
    return packet(PacketType.REQUEST, body + stub, **header)


def fragments(
    pieces: Sequence[bytes],
    *,
    context: int = 0,
    opnum: int = 0,
    object_id: UUID | None = None,
    **header: Unpack[Header],
) -> list[bytes]:
    """
    Write one call in as many request PDUs as there are pieces.
    """
    made = []
    remaining = sum(map(len, pieces))
    for index, piece in enumerate(pieces):
        header["flags"] = (PacketFlag.FIRST if index == 0 else 0) | (
            PacketFlag.LAST if index == len(pieces) - 1 else 0
        )
        made.append(
            request(
                piece,
                context=context,
                opnum=opnum,
                hint=remaining,
                object_id=object_id,
                **header,
            )
        )
        remaining -= len(piece)
    return made


def trailer(
    auth_type: int = 10,
    level: int = 2,
    value: bytes = b"NTLMSSP\0\1\0\0\0\x97\x82\x08\xe2" + bytes(16),
) -> bytes:
    """
    Write an authentication trailer (MS-RPCE 2.2.2.11); by default the first leg of NTLM.
    """
    return struct.pack("<BBBBI", auth_type, level, 0, 0, 0) + value


def stub(
    payload: bytes,
    syntax: SyntaxId = NDR,
    *,
    order: Order = "<",
    size: int | None = None,
    max_count: int | None = None,
    gap: int = 0,
) -> bytes:
    """
    Write the arguments of RequestActivation ("Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0").

    @param size: requestSize, where it shall not be the truth; C{max_count} likewise.
    @param gap: What stands in the gap that NDR64 has.
    """
    size = len(payload) if size is None else size
    max_count = len(payload) if max_count is None else max_count
    if syntax == NDR64:
        return struct.pack(order + "IIQ", size, gap, max_count) + payload
    return struct.pack(order + "II", size, max_count) + payload
