"""
The assigned numbers of connection-oriented DCE/RPC: packet types, flags, results, reasons and statuses.

What a peer sends may be a number that is not listed here, so numbers travel as plain integers and are compared with
these members; C{describe} names one for people, whether it is known or not.

Sources: C706 12.1, 12.6.3.1 and appendix N, MS-RPCE 2.2.2; "How a correct connection-oriented DCE/RPC server
behaves", section 0.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

#: The smallest and the largest fragment size that is negotiated, as Windows does; a larger fragment is not received.
MIN_FRAGMENT, MAX_FRAGMENT = 2048, 5840
#: The fragment size that everybody must be able to receive, whatever it says (C706 appendix K, MustRecvFragSize).
MUST_RECEIVE_FRAGMENT = 1432
#: Bytes of a reassembled stub at most, by our own choice; a KMS stub has 320 at most.
MAX_STUB = 65536


class PacketType(IntEnum):
    """
    PTYPE, the kind of a PDU (C706 12.1, MS-RPCE 2.2.2.10; 20 is of MS-RPCH).
    """

    REQUEST = 0  #: a call, or a fragment of one
    PING = 1  #: connectionless only
    RESPONSE = 2  #: the answer to a call, or a fragment of it
    FAULT = 3  #: the call failed in the RPC layer
    WORKING = 4  #: connectionless only
    NOCALL = 5  #: connectionless only
    REJECT = 6  #: connectionless only
    ACK = 7  #: connectionless only
    CL_CANCEL = 8  #: connectionless only
    FACK = 9  #: connectionless only
    CANCEL_ACK = 10  #: connectionless only
    BIND = 11  #: the first PDU of a connection: offers presentation contexts
    BIND_ACK = 12  #: the bind is accepted, with a result for each context
    BIND_NAK = 13  #: the bind is refused; the connection ends
    ALTER_CONTEXT = 14  #: offers further presentation contexts
    ALTER_CONTEXT_RESP = 15  #: a result for each of them
    AUTH3 = 16  #: third leg of a security handshake, never answered
    SHUTDOWN = 17  #: the server asks the client to close
    CO_CANCEL = 18  #: the client would like a call to end early
    ORPHANED = 19  #: the client has lost interest in a call
    RTS = 20  #: RPC over HTTP only

    @classmethod
    def describe(cls, packet_type: int) -> str:
        """
        Name a type for people, also one that is not known here.
        """
        return f"a PDU of type {_TYPE_NAMES.get(packet_type, packet_type)}"


_TYPE_NAMES = {member.value: member.name.lower() for member in PacketType}


class PacketFlag(IntFlag):
    """
    pfc_flags of the common header (C706 12.6.3.1, MS-RPCE 2.2.2.3).
    """

    FIRST = 0x01  #: first fragment
    LAST = 0x02  #: last fragment
    PENDING_CANCEL = 0x04  #: in a call: a cancel is pending; in a bind: header signing is supported
    RESERVED = 0x08  #: without meaning
    CONC_MPX = 0x10  #: several calls may be in progress on one connection
    DID_NOT_EXECUTE = 0x20  #: in a fault: the call was surely not executed
    MAYBE = 0x40  #: the call may go unanswered
    OBJECT_UUID = 0x80  #: an object UUID follows the opnum


#: First and last fragment at once: what nearly every PDU is.
WHOLE = int(PacketFlag.FIRST | PacketFlag.LAST)


class ContextResult(IntEnum):
    """
    p_cont_def_result_t, the verdict on one presentation context (C706 12.6.3.1, MS-RPCE 2.2.2.4).
    """

    ACCEPTANCE = 0  #: calls may use it
    USER_REJECTION = 1  #: refused by the user of the RPC layer
    PROVIDER_REJECTION = 2  #: refused by the RPC layer; a L{ProviderReason} tells why
    NEGOTIATE_ACK = 3  #: bind-time feature negotiation; the reason holds the features


class ProviderReason(IntEnum):
    """
    p_provider_reason_t, why a presentation context was refused (C706 12.6.3.1).
    """

    NOT_SPECIFIED = 0  #: no reason given, as with every acceptance
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 1  #: interface or version unknown
    PROPOSED_TRANSFER_SYNTAXES_NOT_SUPPORTED = 2  #: no usable transfer syntax
    LOCAL_LIMIT_EXCEEDED = 3  #: too many contexts on this connection


class BindNakReason(IntEnum):
    """
    p_reject_reason_t of a bind_nak (C706 12.6.3.1, MS-RPCE 2.2.2.5).
    """

    NOT_SPECIFIED = 0  #: no reason given
    TEMPORARY_CONGESTION = 1  #: try again later
    LOCAL_LIMIT_EXCEEDED = 2  #: too many of something
    PROTOCOL_VERSION_NOT_SUPPORTED = 4  #: also any other protocol error in a bind (MS-RPCE)
    AUTHENTICATION_TYPE_NOT_RECOGNIZED = 8  #: no such security provider here
    INVALID_CHECKSUM = 9  #: the authentication value is wrong

    @classmethod
    def describe(cls, reason: int) -> str:
        """
        Name a reason for people, also one that is not known here.
        """
        return _REASON_NAMES.get(reason, "unknown reason")


_REASON_NAMES = {member.value: member.name.lower() for member in BindNakReason}


class FaultStatus(IntEnum):
    """
    Fault statuses that are sent or commonly met (C706 appendix N, MS-RPCE 3.1.3.5.2 and 3.3.3.5.4).
    """

    ACCESS_DENIED = (
        0x00000005  #: too much input, or an authentication trailer without a security context
    )
    CANNOT_SUPPORT = 0x000006E4  #: the server does not support what is asked
    NO_CALL_ACTIVE = 0x000006BD  #: the call was cancelled before it began
    BAD_STUB_DATA = 0x000006F7  #: the stub does not hold what the operation needs
    OP_RNG_ERROR = 0x1C010002  #: the interface has no such operation
    UNK_IF = 0x1C010003  #: the presentation context is unknown
    PROTO_ERROR = 0x1C01000B  #: the peer broke the protocol
    INVALID_BOUND = 0x1C000007  #: an array bound is wrong
    FAULT_CANCEL = 0x1C00000D  #: the call was cancelled
    FAULT_UNSPEC = 0x1C000012  #: the operation failed in a way that has no name

    @classmethod
    def describe(cls, status: int) -> str:
        """
        Name a status for people as the specifications do, also one that is not known here.
        """
        return _STATUS_NAMES.get(status, "unknown status")


_STATUS_NAMES: dict[int, str] = {
    FaultStatus.ACCESS_DENIED: "access denied",
    FaultStatus.CANNOT_SUPPORT: "cannot support",
    FaultStatus.NO_CALL_ACTIVE: "no call active",
    FaultStatus.BAD_STUB_DATA: "bad stub data",
    FaultStatus.OP_RNG_ERROR: "nca_s_op_rng_error",
    FaultStatus.UNK_IF: "nca_s_unk_if",
    FaultStatus.PROTO_ERROR: "nca_s_proto_error",
    FaultStatus.INVALID_BOUND: "nca_s_fault_invalid_bound",
    FaultStatus.FAULT_CANCEL: "nca_s_fault_cancel",
    FaultStatus.FAULT_UNSPEC: "nca_s_fault_unspec",
}
