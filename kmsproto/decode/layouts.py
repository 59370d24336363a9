"""
What stands where in a PDU and in a stub: every field with its offset, its value and its meaning, for people.

As with the messages of KMS (L{kmsproto.kms.fields}) nothing here raises: what is there is shown, and what is left is
one last field.

Sources: C706 chapter 12; MS-RPCE 2.2.2; "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from kmsproto.kms.fields import Field
from kmsproto.kms.hresults import HResult
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.numbers import (
    BindNakReason,
    ContextResult,
    FaultStatus,
    PacketFlag,
    PacketType,
    ProviderReason,
)
from kmsproto.rpc.pdu import (
    HEADER_LENGTH,
    NDR,
    NDR64,
    Header,
    SyntaxId,
    decode_header,
    requested_features,
)

#: The interface of the key management service.
KMS_INTERFACE = SyntaxId(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1, 0)
_NAMES = {
    KMS_INTERFACE: "KMS",
    MANAGEMENT.syntax: "remote management",
    NDR: "NDR",
    NDR64: "NDR64",
}
#: Bytes of what belongs to no field that are shown.
_MAX_SHOWN = 32
#: How a value is written, and what it means.
_Meaning = Callable[[int], str]


def syntax_name(syntax: SyntaxId) -> str:
    """
    Name an interface or a transfer syntax.

    @return: Its name; its UUID and version if it has none.
    """
    features = requested_features(syntax)
    if features is not None:
        return f"bind-time features 0x{features:X}"
    return _NAMES.get(syntax, str(syntax))


@lru_cache(maxsize=256)
def flag_names(flags: int, packet_type: int) -> str:
    """
    Name the flags of a PDU.
    """
    names = [
        flag.name.lower().replace("_", " ") for flag in PacketFlag if flags & flag and flag.name
    ]
    if packet_type in (PacketType.BIND, PacketType.BIND_ACK):
        names = ["header signing" if name == "pending cancel" else name for name in names]
    return ", ".join(names)


def pdu_fields(data: bytes) -> tuple[Field, ...]:
    """
    Take a PDU apart, up to its stub if it has one.

    @param data: At least its header of 16 bytes; what stands behind its frag_length is ignored.
    @return: Its fields; offsets are those in the PDU.
    """
    header = decode_header(data)
    reader = _Reader(data[: max(header.frag_length, HEADER_LENGTH)], header.byte_order or "<")
    _read_header(reader, header)
    read_body = _BODIES.get(header.packet_type)
    if read_body is not None:
        read_body(reader, header)
    if header.packet_type in (PacketType.REQUEST, PacketType.RESPONSE):
        return reader.fields
    return reader.finish()


def request_stub_fields(stub: bytes, syntax: SyntaxId, byte_order: str) -> tuple[Field, ...]:
    """
    Take the stub of a request apart.

    @return: Its fields; offsets are those in the stub.
    """
    reader = _Reader(stub, byte_order)
    word = 8 if syntax == NDR64 else 4
    size = reader.number("requestSize", 4)
    reader.gap(word)
    reader.number("max_count", word, lambda value: "" if value == size else "not requestSize")
    if size is not None:
        reader.raw("request", size, "the KMS request")
    return reader.finish("what follows the arguments")


def response_stub_fields(stub: bytes, syntax: SyntaxId, byte_order: str) -> tuple[Field, ...]:
    """
    Take the stub of an answer apart.

    @return: Its fields; offsets are those in the stub.
    """
    reader = _Reader(stub, byte_order)
    word = 8 if syntax == NDR64 else 4
    size = reader.number("responseSize", 4)
    reader.gap(word)
    referent = reader.number("referent id", word, lambda value: "" if value else "a null pointer")
    if referent:
        reader.number("max_count", word, lambda value: "" if value == size else "not responseSize")
        reader.raw("response", size or 0, "the KMS response")
        reader.gap(4)
    reader.number("HRESULT", 4, lambda value: HResult(value).meaning, "0x{:08X}")
    return reader.finish("what follows the results")


class _Reader:
    """
    Reads fields, for as long as there are bytes.
    """

    def __init__(self, data: bytes, byte_order: str) -> None:
        self._data = data
        self._order = byte_order
        self._endian = "little" if byte_order == "<" else "big"
        self._fields: list[Field] = []
        self._offset = 0
        self._stopped = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """
        What was read.
        """
        return tuple(self._fields)

    def take(self, name: str, size: int, show: Callable[[bytes], tuple[str, str]]) -> bytes | None:
        """
        Take the next field.

        @param show: Writes its value, and what it means.
        @return: Its bytes; L{None} if they are not all there, which ends the reading.
        """
        raw = self._data[self._offset : self._offset + size]
        if self._stopped or len(raw) < size:
            self._stopped = True
            return None
        self._fields.append(Field(self._offset, size, name, *show(raw)))
        self._offset += size
        return raw

    def number(
        self, name: str, size: int, mean: _Meaning = lambda value: "", form: str = "{}"
    ) -> int | None:
        """
        Take a number.
        """
        raw = self.take(name, size, lambda raw: (form.format(self._int(raw)), mean(self._int(raw))))
        return None if raw is None else self._int(raw)

    def _int(self, raw: bytes) -> int:
        return int.from_bytes(raw, "little" if self._order == "<" else "big")

    def raw(self, name: str, size: int, meaning: str = "") -> None:
        """
        Take bytes.
        """
        self.take(name, size, lambda raw: (_shown(raw), meaning))

    def gap(self, alignment: int) -> None:
        """
        Take the bytes that align what follows, if there are any.
        """
        size = -self._offset % alignment
        if size:
            self.raw("gap", size, f"aligns what follows to {alignment}")

    def syntax(self, name: str) -> None:
        """
        Take an interface or a transfer syntax.
        """

        def show(raw: bytes) -> tuple[str, str]:
            uuid = UUID(bytes_le=raw[:16]) if self._order == "<" else UUID(bytes=raw[:16])
            version = self._int(raw[16:])
            syntax = SyntaxId(uuid, version & 0xFFFF, version >> 16)
            named = syntax_name(syntax)
            return str(syntax), "" if named == str(syntax) else named

        self.take(name, 20, show)

    def finish(self, meaning: str = "") -> tuple[Field, ...]:
        """
        End the reading: what is left is one field.
        """
        rest = self._data[self._offset :]
        if rest:
            self._fields.append(
                Field(
                    self._offset,
                    len(rest),
                    "undecoded",
                    _shown(rest),
                    meaning or "what belongs to no field",
                )
            )
        return self.fields


def _shown(raw: bytes) -> str:
    return raw[:_MAX_SHOWN].hex() + ("..." if len(raw) > _MAX_SHOWN else "")


def _type_name(value: int) -> str:
    return PacketType.describe(value).removeprefix("a PDU of type ")


def _read_header(reader: _Reader, header: Header) -> None:
    reader.number("rpc_vers", 1)
    reader.number("rpc_vers_minor", 1)
    reader.number("PTYPE", 1, _type_name)
    reader.number("pfc_flags", 1, lambda value: flag_names(value, header.packet_type), "0x{:02X}")
    order = {"<": "little-endian", ">": "big-endian"}.get(header.byte_order, "unknown")
    reader.raw("packed_drep", 4, order)
    reader.number("frag_length", 2)
    reader.number("auth_length", 2)
    reader.number("call_id", 4)


def _read_bind(reader: _Reader, header: Header) -> None:
    reader.number("max_xmit_frag", 2)
    reader.number("max_recv_frag", 2)
    reader.number("assoc_group_id", 4, lambda value: "" if value else "a new one", "0x{:08X}")
    count = reader.number("n_context_elem", 1)
    reader.raw("reserved", 3)
    for _ in range(count or 0):
        reader.number("p_cont_id", 2)
        syntaxes = reader.number("n_transfer_syn", 1)
        reader.raw("reserved", 1)
        reader.syntax("abstract_syntax")
        for _ in range(syntaxes or 0):
            reader.syntax("transfer_syntax")


def _read_bind_ack(reader: _Reader, header: Header) -> None:
    reader.number("max_xmit_frag", 2)
    reader.number("max_recv_frag", 2)
    reader.number("assoc_group_id", 4, form="0x{:08X}")
    length = reader.number("sec_addr length", 2)
    if length:
        reader.take(
            "sec_addr",
            length,
            lambda raw: (raw.rstrip(b"\0").decode("ascii", "backslashreplace"), "the port"),
        )
    reader.gap(4)
    count = reader.number("n_results", 1)
    reader.raw("reserved", 3)
    for _ in range(count or 0):
        result = reader.number("result", 2, _result_meaning)
        reader.number("reason", 2, lambda value, result=result: _reason_meaning(result, value))  # type: ignore[misc]
        reader.syntax("transfer_syntax")


def _result_meaning(value: int) -> str:
    names = {member.value: member.name.lower().replace("_", " ") for member in ContextResult}
    return names.get(value, "no such result")


def _reason_meaning(result: int | None, value: int) -> str:
    if result == ContextResult.NEGOTIATE_ACK:
        return "the features that are granted"
    if result != ContextResult.PROVIDER_REJECTION:
        return ""
    names = {member.value: member.name.lower().replace("_", " ") for member in ProviderReason}
    return names.get(value, "no such reason")


def _read_bind_nak(reader: _Reader, header: Header) -> None:
    reader.number("provider_reject_reason", 2, BindNakReason.describe)
    count = reader.number("n_protocols", 1)
    for _ in range(count or 0):
        reader.take("protocol", 2, lambda raw: (f"{raw[0]}.{raw[1]}", "a version that is spoken"))


def _read_request(reader: _Reader, header: Header) -> None:
    reader.number("alloc_hint", 4)
    reader.number("p_cont_id", 2)
    reader.number("opnum", 2)
    if header.object_length:
        reader.raw("object", header.object_length)


def _read_response(reader: _Reader, header: Header) -> None:
    reader.number("alloc_hint", 4)
    reader.number("p_cont_id", 2)
    reader.number("cancel_count", 1)
    reader.raw("reserved", 1)


def _read_fault(reader: _Reader, header: Header) -> None:
    reader.number("alloc_hint", 4)
    reader.number("p_cont_id", 2)
    reader.number("cancel_count", 1)
    reader.number("flags", 1)
    reader.number("status", 4, FaultStatus.describe, "0x{:08X}")
    reader.raw("reserved", 4)


_BODIES: dict[int, Callable[[_Reader, Header], None]] = {
    PacketType.BIND: _read_bind,
    PacketType.ALTER_CONTEXT: _read_bind,
    PacketType.BIND_ACK: _read_bind_ack,
    PacketType.ALTER_CONTEXT_RESP: _read_bind_ack,
    PacketType.BIND_NAK: _read_bind_nak,
    PacketType.REQUEST: _read_request,
    PacketType.RESPONSE: _read_response,
    PacketType.FAULT: _read_fault,
}
