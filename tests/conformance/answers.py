"""
Connection-oriented DCE/RPC PDUs of a server, for tests: as they should be, and as they came.

The functions whose name starts with C{expected_} spell the answers of a correct server (C706
12.6.4), byte for byte.  L{parse} is as strict as can be: it accepts only what a correct server may
send (its own byte order, version 5.0, no trailer, zeros where zeros belong), so that a test which
looks at one field still notices garbage in all others.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from tests.conformance.pdus import CONC_MPX, DID_NOT_EXECUTE, NDR, NDR64, WHOLE, PType, Syntax

UNKNOWN_INTERFACE: Final = 0x1C010003
OPNUM_OUT_OF_RANGE: Final = 0x1C010002
PROTOCOL_ERROR: Final = 0x1C01000B
BAD_STUB: Final = 0x000006F7
ACCESS_DENIED: Final = 0x00000005

#: MS-RPCE 3.3.3.5.1: a server never sends these.
FORBIDDEN_STATUSES: Final = frozenset(
    [0, 0x80000001, 0x80000002, 0x80000003]
    + [0xC0000000 | low for low in (0x05, 0x06, 0x1D, 0x96, 0xAA, 0xFD, 0x194, 0x235, 0x409, 0x420)]
)


class Result(NamedTuple):
    """
    One element of the result list of a bind_ack or alter_context_resp.
    """

    result: int
    reason: int
    syntax: Syntax | None = None

    def encode(self) -> bytes:
        """
        The 24 bytes of p_result_t (C706 12.6.3.1).
        """
        syntax = bytes(20) if self.syntax is None else self.syntax.encode()
        return struct.pack("<HH", self.result, self.reason) + syntax


ACCEPT_NDR: Final = Result(0, 0, NDR)
ACCEPT_NDR64: Final = Result(0, 0, NDR64)
NO_INTERFACE: Final = Result(2, 1)
NO_TRANSFER: Final = Result(2, 2)
LIMIT_EXCEEDED: Final = Result(2, 3)


def _expected(ptype: PType, flags: int, call_id: int, body: bytes) -> bytes:
    """
    A PDU as a correct server writes it: 5.0, little-endian, no trailer.
    """
    return (
        bytes([5, 0, ptype, flags])
        + b"\x10\0\0\0"
        + struct.pack("<HHI", 16 + len(body), 0, call_id)
        + body
    )


def _acknowledgement(
    group: int, results: Sequence[Result], secondary: bytes, xmit: int, recv: int
) -> bytes:
    body = struct.pack("<HHIH", xmit, recv, group, len(secondary)) + secondary
    body += bytes(-len(body) % 4)
    return body + struct.pack("<BBH", len(results), 0, 0) + b"".join(r.encode() for r in results)


def expected_bind_ack(
    group: int,
    *results: Result,
    call_id: int = 1,
    flags: int = WHOLE,
    xmit: int = 5840,
    recv: int = 5840,
    secondary: str = "1688",
) -> bytes:
    """
    C706 12.6.4.4: the host's port as text and a zero byte, zeros up to a multiple of four, and one
    result per element.
    """
    body = _acknowledgement(group, results, secondary.encode("ascii") + b"\0", xmit, recv)
    return _expected(PType.BIND_ACK, flags, call_id, body)


def expected_alter_response(
    group: int, *results: Result, call_id: int = 1, xmit: int = 5840, recv: int = 5840
) -> bytes:
    """
    C706 12.6.4.2: as L{expected_bind_ack}, with an empty secondary address and two zero bytes.
    """
    body = _acknowledgement(group, results, b"", xmit, recv)
    return _expected(PType.ALTER_CONTEXT_RESP, WHOLE, call_id, body)


def expected_bind_nak(reason: int, call_id: int = 1) -> bytes:
    """
    C706 12.6.4.5: the reason, one protocol version (5.0), and three bytes of padding.
    """
    return _expected(PType.BIND_NAK, WHOLE, call_id, struct.pack("<HBBB3x", reason, 1, 5, 0))


def expected_fault(
    status: int, call_id: int = 1, context: int = 0, *, executed: bool = False
) -> bytes:
    """
    C706 12.6.4.7: alloc_hint 32, the context, two zero bytes, the status, four zero bytes.

    @param executed: Whether the call had reached the stub; DID_NOT_EXECUTE is set where it had not.
    """
    flags = WHOLE if executed else WHOLE | DID_NOT_EXECUTE
    return _expected(
        PType.FAULT, flags, call_id, struct.pack("<IHBBII", 32, context, 0, 0, status, 0)
    )


def expected_response(
    stub: bytes, call_id: int = 1, context: int = 0, cancel_count: int = 0
) -> bytes:
    """
    C706 12.6.4.10: alloc_hint is the length of the stub.
    """
    prefix = struct.pack("<IHBB", len(stub), context, cancel_count, 0)
    return _expected(PType.RESPONSE, WHOLE, call_id, prefix + stub)


def failure_stub(hresult: int, syntax: Syntax = NDR) -> bytes:
    """
    The stub of an activation that failed: size 0, a null pointer, and the HRESULT.
    """
    return bytes(16 if syntax == NDR64 else 8) + struct.pack("<I", hresult)


class MalformedAnswerError(AssertionError):
    """
    The host sent bytes that no correct server sends.
    """


def _demand(condition: bool, problem: str, data: bytes) -> None:
    if not condition:
        raise MalformedAnswerError(f"{problem}: {data.hex()}")


@dataclass(frozen=True, slots=True)
class PDU:
    """
    One PDU of the host, its header and its layout checked.

    @ivar raw: All of its bytes.
    @ivar body: What follows the common header.
    """

    raw: bytes
    ptype: PType
    flags: int
    call_id: int
    body: bytes

    @property
    def group(self) -> int:
        """
        The association group of a bind_ack or alter_context_resp.
        """
        return int.from_bytes(self.body[4:8], "little")

    @property
    def sizes(self) -> tuple[int, int]:
        """
        max_xmit_frag and max_recv_frag of a bind_ack or alter_context_resp.
        """
        xmit, recv = struct.unpack_from("<HH", self.body)
        return xmit, recv

    @property
    def results(self) -> list[Result]:
        """
        The result list of a bind_ack or alter_context_resp.
        """
        start = self._result_list()
        results = []
        for index in range(self.body[start]):
            offset = start + 4 + 24 * index
            result, reason = struct.unpack_from("<HH", self.body, offset)
            encoded = self.body[offset + 4 : offset + 24]
            version = int.from_bytes(encoded[16:], "little")
            syntax = Syntax(UUID(bytes_le=encoded[:16]), version & 0xFFFF, version >> 16)
            results.append(Result(result, reason, syntax if any(encoded) else None))
        return results

    @property
    def reason(self) -> int:
        """
        The reason of a bind_nak.
        """
        return int.from_bytes(self.body[:2], "little")

    @property
    def context(self) -> int:
        """
        The context id of a response or a fault.
        """
        return int.from_bytes(self.body[4:6], "little")

    @property
    def cancel_count(self) -> int:
        """
        The cancel count of a response or a fault.
        """
        return self.body[6]

    @property
    def status(self) -> int:
        """
        The status of a fault.
        """
        return int.from_bytes(self.body[8:12], "little")

    @property
    def stub(self) -> bytes:
        """
        The stub of a response.
        """
        return self.body[8:]

    def _result_list(self) -> int:
        """
        Where n_results stands.
        """
        end = 10 + int.from_bytes(self.body[8:10], "little")
        return end + -end % 4

    def check(self) -> None:
        """
        Compare with the layout that the packet type demands.

        @raise MalformedAnswerError: It differs.
        """
        body, raw = self.body, self.raw
        match self.ptype:
            case PType.BIND_ACK | PType.ALTER_CONTEXT_RESP:
                _demand(len(body) >= 12, "too short for an acknowledgement", raw)
                start = self._result_list()
                end = 10 + int.from_bytes(body[8:10], "little")
                _demand(not any(body[end:start]), "padding that is not zero", raw)
                _demand(body[start + 1 : start + 4] == bytes(3), "reserved bytes not zero", raw)
                _demand(len(body) == start + 4 + 24 * body[start], "a list of other length", raw)
                known = {PType.BIND_ACK: WHOLE | CONC_MPX, PType.ALTER_CONTEXT_RESP: WHOLE}
                _demand(self.flags | WHOLE | known[self.ptype] == known[self.ptype], "flags", raw)
                for result in self.results:
                    _demand(result.result in (0, 2, 3), "an unknown result", raw)
                    _demand((result.result == 0) == (result.syntax is not None), "syntax", raw)
            case PType.BIND_NAK:
                _demand(body[2:] == b"\x01\x05\x00\0\0\0", "not a bind_nak", raw)
                _demand(self.flags == WHOLE, "flags", raw)
            case PType.FAULT:
                _demand(len(body) == 16, "a fault of other length", raw)
                _demand(body[:4] == b"\x20\0\0\0", "alloc_hint is not 32", raw)
                _demand(body[6:8] == bytes(2), "cancel count or flags are set", raw)
                _demand(body[12:] == bytes(4), "reserved bytes not zero", raw)
                _demand(self.flags in (WHOLE, WHOLE | DID_NOT_EXECUTE), "flags", raw)
                _demand(self.status not in FORBIDDEN_STATUSES, "a forbidden status", raw)
            case PType.RESPONSE:
                _demand(len(body) >= 8, "too short for a response", raw)
                _demand(int.from_bytes(body[:4], "little") == len(body) - 8, "alloc_hint", raw)
                _demand(body[7] == 0, "the reserved byte is not zero", raw)
                _demand(self.flags == WHOLE, "flags", raw)
            case _:
                raise MalformedAnswerError(f"no PDU of a server: {raw.hex()}")


def parse(data: bytes) -> list[PDU]:
    """
    Everything the host sent, PDU by PDU.

    @raise MalformedAnswerError: A correct server does not send this.
    """
    found = []
    rest = data
    while rest:
        _demand(len(rest) >= 16, "an incomplete header", rest)
        _demand(rest[:2] == b"\x05\x00", "not version 5.0", rest)
        _demand(rest[4:8] == b"\x10\0\0\0", "not the host's own data representation", rest)
        frag_length, auth_length, call_id = struct.unpack_from("<HHI", rest, 8)
        _demand(16 <= frag_length <= len(rest), "a wrong frag_length", rest)
        _demand(auth_length == 0, "a trailer is announced", rest)
        _demand(rest[2] in PType.__members__.values(), "an unknown packet type", rest)
        raw, rest = rest[:frag_length], rest[frag_length:]
        one = PDU(raw, PType(raw[2]), raw[3], call_id, raw[16:])
        one.check()
        found.append(one)
    return found
