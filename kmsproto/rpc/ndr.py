"""
Stubs in NDR and NDR64: the one operation of the KMS interface, and the two cursors that other stubs are made with.

The KMS operation is always the same few integers around one opaque byte array::

    HRESULT RequestActivation(
        [in]  DWORD requestSize,
        [in,  size_is(requestSize)] BYTE *request,
        [out] DWORD *responseSize,
        [out, size_is(, *responseSize)] BYTE **response);

so both directions are single precompiled layouts; the KMS payload itself is never interpreted.  The integers of a
request follow the data representation of its PDU; NDR64 knows little-endian only.

Sources: C706 14.2.2, 14.3.3 and 14.3.12, MS-RPCE 2.2.5; "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

from struct import Struct

from kmsproto.errors import RemoteProtocolError
from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.pdu import NDR64, SyntaxId

#: The referent id of the first pointer of a stub, as Windows counts.
FIRST_REFERENT = 0x00020000


class BadStubError(RemoteProtocolError):
    """
    A stub does not hold what its operation needs.

    @ivar status: The fault that a call with such a stub earns (MS-RPCE 3.1.3.5.2).
    """

    status = FaultStatus.BAD_STUB_DATA


class _ActivationLayouts:
    """
    The integers around the payload, in one syntax and byte order.
    """

    def __init__(self, request: str, response: str, failure: str, order: str = "<") -> None:
        self.request = Struct(order + request)
        self.response = Struct(order + response)
        self.failure = Struct(order + failure)
        self.hresult = Struct(order + "I")


_NDR = _ActivationLayouts("II", "III", "III")
_NDR_BIG_ENDIAN = _ActivationLayouts("II", "III", "III", ">")
_NDR64 = _ActivationLayouts("IxxxxQ", "IxxxxQQ", "IxxxxQI")


def _layouts(syntax: SyntaxId, byte_order: str) -> _ActivationLayouts:
    """
    @raise BadStubError: If the syntax does not exist in that byte order (MS-RPCE 2.2.5).
    """
    if syntax == NDR64:
        if byte_order != "<":
            raise BadStubError("NDR64 is little-endian")
        return _NDR64
    return _NDR if byte_order == "<" else _NDR_BIG_ENDIAN


def encode_activation_request(payload: bytes, syntax: SyntaxId) -> bytes:
    """
    Write the stub of a request.

    @param payload: The KMS request.
    """
    return _layouts(syntax, "<").request.pack(len(payload), len(payload)) + payload


def decode_activation_request(stub: bytes, syntax: SyntaxId, byte_order: str) -> bytes:
    """
    Read the stub of a request; padding and verification trailers behind it are ignored (MS-RPCE 2.2.2.13).

    @return: The KMS request, of whatever size the client says it has.
    @raise BadStubError: If the stub is too short, or its two sizes differ.
    """
    layout = _layouts(syntax, byte_order).request
    if len(stub) < layout.size:
        raise BadStubError(f"a stub of {len(stub)} bytes has no room for two sizes")
    size, max_count = layout.unpack_from(stub)
    if size != max_count:
        raise BadStubError(f"requestSize is {size}, but the array has {max_count} elements")
    end = layout.size + size
    if end > len(stub):
        raise BadStubError(f"an array of {size} bytes reaches beyond a stub of {len(stub)} bytes")
    return stub[layout.size : end]


def encode_activation_response(payload: bytes, syntax: SyntaxId) -> bytes:
    """
    Write the stub of an answer with HRESULT 0; the HRESULT is aligned to 4, and nothing follows it.

    @param payload: The KMS response.
    """
    size = len(payload)
    layouts = _layouts(syntax, "<")
    return layouts.response.pack(size, FIRST_REFERENT, size) + payload + bytes(-size % 4 + 4)


def encode_activation_failure(hresult: int, syntax: SyntaxId) -> bytes:
    """
    Write the stub of an answer without data: size zero, a null pointer and the HRESULT; 12 bytes, in NDR64 20.
    """
    return _layouts(syntax, "<").failure.pack(0, 0, hresult)


def decode_activation_response(stub: bytes, syntax: SyntaxId, byte_order: str) -> tuple[bytes, int]:
    """
    Read the stub of an answer.

    @return: The KMS response, empty when the pointer is null, and the HRESULT.
    @raise BadStubError: If the stub is too short, or its sizes differ.
    """
    layouts = _layouts(syntax, byte_order)
    if len(stub) < layouts.failure.size:
        raise BadStubError(f"a stub of {len(stub)} bytes has no room for an answer")
    size, referent, hresult = layouts.failure.unpack_from(stub)
    if not referent:
        if size:
            raise BadStubError(f"responseSize is {size}, but there is no response")
        return b"", hresult
    layout = layouts.response
    if len(stub) < layout.size:
        raise BadStubError(f"a stub of {len(stub)} bytes has no room for a response")
    size, _, max_count = layout.unpack_from(stub)
    if size != max_count:
        raise BadStubError(f"responseSize is {size}, but the array has {max_count} elements")
    end = layout.size + size
    aligned = end + -end % 4
    if aligned + 4 > len(stub):
        raise BadStubError(f"an array of {size} bytes reaches beyond a stub of {len(stub)} bytes")
    (hresult,) = layouts.hresult.unpack_from(stub, aligned)
    return stub[layout.size : end], hresult


class StubReader:
    """
    Reads the arguments of a call one by one, each aligned to its size from the start of the stub.

    @param stub: The stub.
    @param syntax: NDR or NDR64.
    @param byte_order: C{"<"} or C{">"}, of the PDU that brought it.
    @raise BadStubError: If the syntax does not exist in that byte order.
    """

    def __init__(self, stub: bytes, syntax: SyntaxId, byte_order: str) -> None:
        _layouts(syntax, byte_order)
        self._stub = stub
        self._uint32 = Struct(byte_order + "I")
        self._offset = 0

    def uint32(self) -> int:
        """
        Read an unsigned 32-bit integer.

        @raise BadStubError: If the stub ends before it.
        """
        start = self._offset + -self._offset % 4
        if start + 4 > len(self._stub):
            raise BadStubError(
                f"an integer at offset {start} reaches beyond a stub of {len(self._stub)} bytes"
            )
        self._offset = start + 4
        (value,) = self._uint32.unpack_from(self._stub, start)
        return int(value)


class StubWriter:
    """
    Writes results one by one, little-endian, each aligned to its size from the start of the stub.

    @param syntax: NDR or NDR64; pointers and array bounds have 4 bytes in one and 8 in the other.
    """

    def __init__(self, syntax: SyntaxId) -> None:
        self._word = 8 if syntax == NDR64 else 4
        self._stub = bytearray()
        self._referent = FIRST_REFERENT

    def _integer(self, value: int, size: int) -> None:
        self._stub += bytes(-len(self._stub) % size) + value.to_bytes(size, "little")

    def uint16(self, value: int) -> None:
        """
        Write an unsigned 16-bit integer.
        """
        self._integer(value, 2)

    def uint32(self, value: int) -> None:
        """
        Write an unsigned 32-bit integer.
        """
        self._integer(value, 4)

    def bound(self, value: int) -> None:
        """
        Write a bound of an array: its maximum, offset or actual count.
        """
        self._integer(value, self._word)

    def pointer(self) -> None:
        """
        Write a pointer that is not null, with a referent id of its own.
        """
        self._integer(self._referent, self._word)
        self._referent += 4

    def raw(self, data: bytes, alignment: int) -> None:
        """
        Write bytes as they are, for example those of a UUID, which is aligned to 4.
        """
        self._stub += bytes(-len(self._stub) % alignment) + data

    def finish(self) -> bytes:
        """
        Get the stub.
        """
        return bytes(self._stub)
