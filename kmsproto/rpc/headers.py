"""
What a server refuses for its header alone, and how its refusals are worded.

A header is judged as soon as its 16 bytes are there, so that a bogus length is never waited for.  The verdict is a
function of the header and of whether a bind has been seen: before a bind, a bind or a PDU of our version is refused
with a bind_nak; afterwards every PDU with a fault.  What is not RPC at all, or not ours and no bind, is recognized by
its first three bytes and gets no answer.

Sources: C706 12.6.3.1, MS-RPCE 3.3.1.5.1; "How a correct connection-oriented DCE/RPC server behaves", section 2.
"""

from __future__ import annotations

from typing import NoReturn

from kmsproto.errors import RemoteProtocolError
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import MAX_FRAGMENT, BindNakReason, FaultStatus, PacketType
from kmsproto.rpc.pdu import Header
from kmsproto.rpc.state import server_arrival

#: Bytes that a PDU needs at least; an authentication trailer comes on top.
_MIN_LENGTHS: dict[int, int] = {
    PacketType.REQUEST: pdu.CALL_PREFIX_LENGTH,
    PacketType.BIND: pdu.BIND_PREFIX_LENGTH,
    PacketType.ALTER_CONTEXT: pdu.BIND_PREFIX_LENGTH,
}


class ViolationError(RemoteProtocolError):
    """
    The peer broke the protocol so that the connection ends.

    @ivar answer: The PDU that tells it so; empty when nothing sensible can be answered.
    """

    def __init__(self, problem: str, answer: bytes = b"") -> None:
        super().__init__(problem)
        self.answer = answer


def protocol_fault(call_id: int, context_id: int = 0, *, did_not_execute: bool = True) -> bytes:
    """
    Word the fault that precedes a close (section 10 of the source).
    """
    return pdu.encode_fault(
        call_id, context_id, FaultStatus.PROTO_ERROR, did_not_execute=did_not_execute
    )


def recognize(start: bytes, *, established: bool) -> None:
    """
    Refuse at once what is not RPC, but give a PDU of another version the chance to be refused as one.

    @param start: The first bytes of an incomplete header, at most three.
    @param established: Whether no bind has been seen.
    @raise ViolationError: If it is no RPC.
    """
    if len(start) < pdu.RECOGNITION_LENGTH or (start[0], start[1]) == pdu.RPC_VERSION:
        return
    # The answer to a bind, or on a connection that is bound, needs the call id, so it waits for the header.
    if established and start[2] != PacketType.BIND:
        raise ViolationError("this is not DCE/RPC version 5.0")


def judge_header(header: Header, *, established: bool) -> None:
    """
    Refuse a PDU for its header alone.

    @param established: Whether no bind has been seen.
    @raise ViolationError: If it is refused.
    """
    packet_type = header.packet_type
    is_bind = packet_type == PacketType.BIND
    kind = PacketType.describe(packet_type)
    if header.version != pdu.RPC_VERSION or not header.byte_order:
        if established and not is_bind:
            raise ViolationError("this is not DCE/RPC version 5.0")
        _refuse(header, "a PDU with an unknown version or data representation", established)
    if established and not is_bind:
        _refuse(header, f"{kind} before any bind", established)
    if server_arrival(packet_type, header.flags) is None:
        _refuse(header, f"{kind}, which a client must not send", established)
    if packet_type == PacketType.REQUEST and header.frag_length > MAX_FRAGMENT:
        answer = protocol_fault(header.call_id, did_not_execute=False)
        raise ViolationError(f"a fragment of {header.frag_length} bytes", answer)
    needed = _MIN_LENGTHS.get(packet_type, pdu.HEADER_LENGTH)
    if packet_type == PacketType.REQUEST:
        needed += header.object_length
    if header.auth_length and packet_type in _MIN_LENGTHS:
        needed += pdu.AUTH_TRAILER_LENGTH + header.auth_length
    if header.frag_length < needed:
        problem = f"{kind} of {header.frag_length} bytes where {needed} are needed"
        _refuse(header, problem, established)


def _refuse(header: Header, problem: str, established: bool) -> NoReturn:
    """
    Refuse a PDU in the way of the state.
    """
    if established:
        reason = BindNakReason.PROTOCOL_VERSION_NOT_SUPPORTED
        raise ViolationError(problem, pdu.encode_bind_nak(header.call_id, reason))
    raise ViolationError(problem, protocol_fault(header.call_id))
