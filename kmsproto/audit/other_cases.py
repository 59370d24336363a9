"""
Cases about PDUs that are neither bind, alter_context nor request, and about those that ask for security.

Source: "How a correct connection-oriented DCE/RPC server behaves", sections 7.10, 8 and 9.
"""

from __future__ import annotations

from kmsproto.audit import packets
from kmsproto.audit.exchanges import NOT_BOUND, REFUSED, Then, conclude, exchange
from kmsproto.audit.link import Link
from kmsproto.audit.model import Case, Level, Script, Verdict, define, failed, noted, passed
from kmsproto.audit.packets import PLAIN, alter, bind, element, packet, request, stub
from kmsproto.audit.replies import ANY_NAK, RESPONSE, SECURED, SILENCE, Silence, fault, nak
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR

_FIRST, _LAST = PacketFlag.FIRST, PacketFlag.LAST
_PROTOCOL = fault(FaultStatus.PROTO_ERROR)


def _ignored(name: str, row: str, title: str, rule: str, source: str, sent: bytes) -> Case:
    """
    A PDU that has no answer and changes nothing.
    """
    return exchange(
        name,
        row,
        Level.MUST,
        title,
        rule,
        source,
        lambda subject: [sent],
        accept=(SILENCE,),
        then=Then.STAYS,
        quiet=True,
    )


def _forbidden(packet_type: int, row: str, title: str) -> Case:
    """
    A PDU that no client sends.
    """
    return exchange(
        f"other.type-{packet_type}",
        row,
        Level.MUST,
        title,
        "What a client never sends is a protocol error: a fault, or the end of the connection.",
        "C706 12.1, 12.6.4; Samba's server core",
        lambda subject: [packet(packet_type, bytes(16))],
        accept=REFUSED,
        lawful=(ANY_NAK,),
        then=Then.CLOSES,
    )


@define(
    "other.cancel-open",
    "9.2",
    Level.SHOULD,
    "a co_cancel for a call that is being received",
    "A cancel is remembered, and the call completes or has the fault nca_s_fault_cancel.",
    "C706 12.6.4.6; Samba's tests of Windows, test_co_cancel_request_after_first",
)
def _cancel_open(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(
        request(data[:100], flags=_FIRST, call_id=20), packet(PacketType.CO_CANCEL, call_id=20)
    )
    early = yield from link.quiet()
    if not isinstance(early, Silence):
        return failed(f"{early.describe()} before the last fragment came")
    reply = yield from link.exchange(request(data[100:], flags=_LAST, call_id=20))
    allowed = (RESPONSE, fault(FaultStatus.FAULT_CANCEL))
    return (yield from conclude(link, reply, allowed, then=Then.STAYS))


@define(
    "other.orphaned-open",
    "9.4",
    Level.SHOULD,
    "an orphaned for a call that is being received",
    "C706 has the part of the call discarded, and the next one served; Windows ignores the PDU and would let the last"
    " fragment complete the call.",
    "C706 12.6.4.8; Samba's tests of Windows, test_orphaned_request_after_first",
)
def _orphaned_open(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(
        request(data[:100], flags=_FIRST, call_id=20), packet(PacketType.ORPHANED, call_id=20)
    )
    early = yield from link.quiet()
    if not isinstance(early, Silence):
        return failed(f"{early.describe()}; expected: no answer")
    sent, call = link.make_call()
    reply = yield from link.exchange(sent)
    if not link.problem_of(reply, call):
        return passed("forgot the call, and served the next")
    if _PROTOCOL.fits(reply):
        return noted("ignored it, as Windows does, so that the next call came out of sequence")
    return failed(f"{reply.describe()} to the next call")


@define(
    "security.third-leg",
    "8.3",
    Level.MUST,
    "an rpc_auth_3",
    "The third leg of a security handshake is never answered by an ordinary PDU.  Without a handshake it is ignored"
    " or a protocol error.",
    "MS-RPCE 2.2.2.10; Samba's server core",
)
def _third_leg(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    yield from link.send(packet(PacketType.AUTH3, bytes(4), trailer=packets.trailer()))
    reply = yield from link.quiet()
    return (yield from conclude(link, reply, (SILENCE, *REFUSED)))


@define(
    "security.retry",
    "8.1",
    Level.MUST,
    "a bind without security after one with it",
    "The client whose security was refused comes back without, on a new connection, and is served.",
    "MS-RPCE 3.3.3.5.3",
)
def _retry(subject: Subject) -> Script[Verdict]:
    first = Link(subject)
    yield from first.connect()
    yield from first.exchange(bind(PLAIN, trailer=packets.trailer()))
    yield from first.part()
    second = Link(subject, 1)
    yield from second.bound()
    problem = yield from second.serve()
    return failed(problem) if problem else passed("served it")


_CANCEL_RULE = (
    "A cancel for a call that is not there is ignored: no answer, and the connection stays."
)
_ORPHANED_RULE = (
    "To be told that a call is orphaned which is not there means nothing: no answer, and the connection"
    " stays."
)

CASES: tuple[Case, ...] = (
    _ignored(
        "other.cancel",
        "9.1",
        "a co_cancel without a call",
        _CANCEL_RULE,
        "C706 12.6.4.6; Samba's tests of Windows, test_co_cancel_no_request",
        packet(PacketType.CO_CANCEL, call_id=20),
    ),
    _cancel_open,
    _ignored(
        "other.orphaned",
        "9.3",
        "an orphaned without a call",
        _ORPHANED_RULE,
        "C706 12.6.4.8; Samba's tests of Windows, test_orphaned_no_request",
        packet(PacketType.ORPHANED, call_id=20),
    ),
    _orphaned_open,
    _forbidden(PacketType.SHUTDOWN, "9.5", "a shutdown from a client"),
    _forbidden(PacketType.RESPONSE, "9.6", "a response from a client"),
    _forbidden(PacketType.FAULT, "9.6", "a fault from a client"),
    _forbidden(PacketType.BIND_ACK, "9.6", "a bind_ack from a client"),
    _forbidden(PacketType.BIND_NAK, "9.6", "a bind_nak from a client"),
    _forbidden(PacketType.ALTER_CONTEXT_RESP, "9.6", "an alter_context_resp from a client"),
    _forbidden(PacketType.PING, "9.7", "a ping, which connections do not have"),
    _forbidden(PacketType.CANCEL_ACK, "9.7", "a cancel_ack, which connections do not have"),
    _forbidden(PacketType.RTS, "9.7", "a PDU of RPC over HTTP"),
    _forbidden(255, "9.7", "a type that does not exist"),
    exchange(
        "security.bind",
        "8.1",
        Level.MUST,
        "a bind with NTLM",
        "A host without a security provider refuses a bind that asks for one, with the reason"
        " authentication_type_not_recognized.  To acknowledge it and leave the security out is no answer to it.",
        "MS-RPCE 3.3.3.5.3, C706 13.2",
        lambda subject: [bind(PLAIN, trailer=packets.trailer())],
        offered=None,
        accept=(nak(8),),
        # A host that has a security provider is another matter.
        lawful=(*NOT_BOUND, SECURED),
        then=Then.CLOSES,
    ),
    exchange(
        "security.none",
        "8.2",
        Level.SHOULD,
        "a bind with the authentication type 0",
        "A trailer that names no authentication is refused as well.",
        "Samba's tests of Windows, test_auth_none_bind",
        lambda subject: [bind(PLAIN, trailer=packets.trailer(0, 0, bytes(8)))],
        offered=None,
        accept=(nak(0, 8),),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    exchange(
        "security.alter",
        "7.10",
        Level.MUST,
        "an alter_context with NTLM",
        "An alter_context that asks for security is refused by a fault or the end of the connection.",
        "MS-RPCE 3.3.3.5.3",
        lambda subject: [alter(element(1, NDR), trailer=packets.trailer())],
        accept=REFUSED,
        lawful=(ANY_NAK, SECURED),
        then=Then.CLOSES,
    ),
    _third_leg,
    _retry,
)
