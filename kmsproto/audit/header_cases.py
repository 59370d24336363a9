"""
Cases about the common header: versions, byte order, lengths, call ids and flags.

Source: "How a correct connection-oriented DCE/RPC server behaves", section 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from kmsproto.audit import packets
from kmsproto.audit.exchanges import NOT_BOUND, REFUSED, Then, conclude, exchange
from kmsproto.audit.link import Link
from kmsproto.audit.model import (
    Case,
    Level,
    NotApplicableError,
    Script,
    UndecidedError,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import PLAIN, PLAIN64, alter, bind, packet, request, stub
from kmsproto.audit.replies import ANY_NAK, CLOSE, RESPONSE, Received, Reply, Silence, fault, nak
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import WHOLE, FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import LITTLE_ENDIAN_DREP, NDR, NDR64

_PROTOCOL = fault(FaultStatus.PROTO_ERROR)


def _version_of_bind(version: tuple[int, int], level: Level) -> Case:
    text = f"{version[0]}.{version[1]}"
    return exchange(
        f"header.bind-version-{text}",
        "2.1",
        level,
        f"a bind of RPC version {text}",
        "There is one version of the protocol here, 5.0.  A bind of another is refused by a bind_nak that names 5.0,"
        " and the connection ends.",
        "C706 12.6.4.5, MS-RPCE 3.3.1.5.1",
        lambda subject: [bind(PLAIN, version=version)],
        offered=None,
        accept=(nak(4),),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    )


def _later_version(name: str, what: str, row: str = "2.2") -> Case:
    def send(subject: Subject) -> Iterable[bytes]:
        if name == "alter":
            return [alter(packets.element(1, NDR), version=(4, 0))]
        return [request(stub(subject.payload()), version=(4, 0))]

    return exchange(
        f"header.{name}-version",
        row,
        Level.MUST,
        f"{what} of RPC version 4.0",
        "A PDU of another version is a protocol error; nothing is executed.",
        "MS-RPCE 3.3.1.5.1, 3.3.3.5.7",
        send,
        accept=(_PROTOCOL, CLOSE),
        lawful=REFUSED,
        then=Then.CLOSES,
    )


@define(
    "header.big-endian-bind",
    "2.3",
    Level.MUST,
    "a big-endian bind",
    "The receiver makes it right: a PDU whose data representation says big-endian is read in that order, with all"
    " integers and the members of UUIDs.",
    "C706 12.4, 14.1",
)
def _big_endian_bind(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, order=">", call_id=0x01020304))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None or not isinstance(reply, Received):
        return failed(f"{reply.describe()}; expected: a bind_ack")
    if reply.header.call_id != 0x01020304:
        return failed(f"answered the call id 0x01020304 with 0x{reply.header.call_id:08X}")
    if [each[:2] for each in ack.results] != [(0, 0)]:
        return failed(f"{reply.describe()}; expected: (0,0)")
    problem = yield from link.serve()
    return failed(f"acknowledged it, and then {problem}") if problem else passed("accepted it")


def _big_endian_call(subject: Subject) -> bytes:
    return request(stub(subject.payload(), order=">"), order=">", call_id=0x01020304)


@define(
    "header.big-endian-request",
    "2.3",
    Level.MUST,
    "a big-endian request",
    "Byte order belongs to each PDU, not to the connection: a request may be big-endian where the bind was not.  The"
    " integers of its stub are big-endian as well, the KMS message is not.",
    "C706 12.4, 14.1",
)
def _big_endian_request(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(_big_endian_call(subject))
    if isinstance(reply, Received) and reply.header.call_id != 0x01020304:
        return failed(f"answered the call id 0x01020304 with 0x{reply.header.call_id:08X}")
    return (yield from conclude(link, reply, (RESPONSE,), then=Then.STAYS))


@define(
    "header.drep-not-echoed",
    "2.4",
    Level.MUST,
    "a bind from a machine with EBCDIC and VAX floats",
    "Neither characters nor floats occur, so accepting such a bind is harmless and refusing it is usual.  An answer has"
    " the host's own data representation and never that of the peer.",
    "C706 14.1",
)
def _drep(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, drep=b"\x11\x01\0\0"))
    if isinstance(reply, Received) and reply.data[4:8] not in (LITTLE_ENDIAN_DREP, bytes(4)):
        return failed(f"answered with the data representation {reply.data[4:8].hex()}")
    if isinstance(reply, Received) and reply.ack is not None:
        problem = yield from link.serve()
        if problem:
            return failed(f"acknowledged it, and then {problem}")
        return passed("accepted it, with a data representation of its own")
    return (yield from conclude(link, reply, NOT_BOUND))


@define(
    "header.big-endian-ndr64",
    "2.5",
    Level.MUST,
    "a big-endian request in NDR64",
    "NDR64 is little-endian always, so such a request is a protocol error or has a bad stub.",
    "MS-RPCE 2.2.5",
)
def _big_endian_ndr64(subject: Subject) -> Script[Verdict]:
    if not subject.ndr64:
        raise NotApplicableError("does not offer NDR64")
    link = Link(subject)
    yield from link.bound(PLAIN64)
    sent = request(stub(subject.payload(), NDR64, order=">"), context=1, order=">")
    reply = yield from link.exchange(sent)
    return (yield from conclude(link, reply, REFUSED))


def _short(name: str, row: str, title: str, length: int, body: int, packet_type: int) -> Case:
    """
    A PDU that ends before its type allows.

    @param length: Its frag_length.
    @param body: Bytes behind its header.
    """
    is_bind = packet_type == PacketType.BIND
    return exchange(
        f"header.{name}",
        row,
        Level.MUST,
        title,
        "What is too short for its type is refused at once; there is nothing to wait for.",
        "C706 12.6.3.1, 12.6.4.3, 12.6.4.9",
        lambda subject: [packet(packet_type, bytes(body), length=length)],
        offered=None if is_bind else (PLAIN,),
        accept=NOT_BOUND if is_bind else REFUSED,
        then=Then.CLOSES,
    )


@define(
    "header.bind-cut",
    "2.8",
    Level.MUST,
    "a bind whose frag_length ends inside its context list",
    "A bind that ends before its list of contexts does is refused by a bind_nak or the end of the connection.",
    "C706 12.6.4.3",
)
def _bind_cut(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    cut = packet(PacketType.BIND, bind(PLAIN)[16:50])
    reply = yield from link.exchange(cut)
    return (yield from conclude(link, reply, NOT_BOUND, then=Then.CLOSES))


def _padded(subject: Subject, length: int) -> bytes:
    """
    An ordinary call with padding behind its arguments, as a PDU of this length.
    """
    return request(stub(subject.payload()).ljust(length - 24, b"\0"))


@define(
    "header.larger-than-negotiated",
    "2.10",
    Level.WINDOWS,
    "a fragment larger than was negotiated",
    "Windows processes a fragment of up to 5840 bytes whatever was negotiated; C706 would allow a protocol fault.",
    "Samba's tests of Windows, _test_neg_xmit_check_values",
)
def _larger(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, xmit=2048, recv=2048))
    if not isinstance(reply, Received) or reply.ack is None:
        raise UndecidedError(f"{reply.describe()} when a small fragment size was offered")
    reply = yield from link.exchange(_padded(subject, 4096))
    return (yield from conclude(link, reply, (RESPONSE,), REFUSED, Then.STAYS))


@define(
    "header.call-id",
    "2.13",
    Level.MUST,
    "call ids 0, 1 and 0x7FFFFFFF",
    "The call id is the client's.  It comes back as it was in every answer; 0 is as good as any.",
    "C706 12.6.3.5",
)
def _call_id(subject: Subject) -> Script[Verdict]:
    for number, call_id in enumerate((0, 1, 0x7FFFFFFF)):
        link = Link(subject, number)
        yield from link.connect()
        for what, sent in (
            ("bind", bind(PLAIN, call_id=call_id)),
            ("request", request(stub(subject.payload()), call_id=call_id)),
        ):
            reply = yield from link.exchange(sent)
            if not isinstance(reply, Received):
                return failed(f"{reply.describe()} when a {what} had the call id 0x{call_id:08X}")
            if reply.header.call_id != call_id:
                return failed(
                    f"answered a {what} with the call id 0x{call_id:08X}"
                    f" under the call id 0x{reply.header.call_id:08X}"
                )
        yield from link.close()
    return passed("returned each call id as it was")


@define(
    "header.call-id-large",
    "2.13",
    Level.WINDOWS,
    "call id 0xFFFFFFFF",
    "All 32 bits may be used; only Windows refuses ids over 0x7FFFFFFF.",
    "C706 12.6.3.5, MS-RPCE note 123",
)
def _call_id_large(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(request(stub(subject.payload()), call_id=0xFFFFFFFF))
    if isinstance(reply, Received) and reply.header.call_id != 0xFFFFFFFF:
        return failed(f"returned the call id 0x{reply.header.call_id:08X}")
    return (yield from conclude(link, reply, (RESPONSE,), REFUSED))


@define(
    "header.call-id-again",
    "2.13",
    Level.MUST,
    "a call id that was used before",
    "The id of a call that was answered may be used again, as Windows accepts.",
    "C706 12.6.3.5",
)
def _call_id_again(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    link.needs_several_calls()
    yield from link.bound()
    for _ in range(3):
        reply = yield from link.exchange(request(stub(subject.payload()), call_id=7))
        if not isinstance(reply, Received) or reply.response is None:
            return failed(f"{reply.describe()} when a call id was used again")
        if reply.header.call_id != 7:
            return failed(f"answered call 7 with the call id {reply.header.call_id}")
    return passed("served three calls with the same id")


def _flags_of_ack(name: str, title: str, sent: int, level: Level = Level.MUST) -> Case:
    """
    A bind with odd flags.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.connect()
        reply = yield from link.exchange(bind(PLAIN, flags=sent))
        if not isinstance(reply, Received) or reply.ack is None:
            return failed(f"{reply.describe()}; expected: a bind_ack")
        flags = reply.header.flags
        allowed = WHOLE | sent & (PacketFlag.CONC_MPX | PacketFlag.PENDING_CANCEL)
        if flags & WHOLE != WHOLE or flags & ~allowed:
            return failed(f"answered the flags 0x{sent:02x} with 0x{flags:02x}")
        return passed(f"answered the flags 0x{sent:02x} with 0x{flags:02x}")

    return define(
        f"header.{name}",
        "2.14",
        level,
        title,
        "A bind_ack has the flags of first and last fragment and beside them, of what the client set, at most those"
        " for multiplexing and header signing.  All other flags of a bind mean nothing and are not echoed.",
        "C706 12.6.3.1, MS-RPCE 2.2.2.3",
    )(body)


@define(
    "header.multiplexing",
    "2.14",
    Level.SHOULD,
    "multiplexing that is offered",
    "A host that serves calls which come before the last was answered echoes the flag for concurrent multiplexing; it"
    " is a client's only way to know.  A host that does not may leave it out.",
    "C706 12.6.3.1",
)
def _multiplexing(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, flags=WHOLE | PacketFlag.CONC_MPX))
    if not isinstance(reply, Received) or reply.ack is None:
        return failed(f"{reply.describe()}; expected: a bind_ack")
    if reply.header.flags & PacketFlag.CONC_MPX:
        return passed("echoed the flag")
    return noted("did not echo the flag, so clients make one call at a time")


@define(
    "header.answers",
    "2.15",
    Level.MUST,
    "the headers of a bind_ack and a response",
    "Every answer has version 5.0, a data representation of the host's own, no authentication, and the call id of what"
    " it answers.",
    "C706 12.6.3.1",
)
def _answers(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    for what, sent in (
        ("bind", bind(PLAIN, call_id=5)),
        ("request", request(stub(subject.payload()), call_id=6)),
    ):
        reply = yield from link.exchange(sent)
        problem = _flaw(reply)
        if problem:
            return failed(f"answered a {what} with {problem}")
    return passed("answered with headers as they have to be")


def _flaw(reply: Reply) -> str:
    """
    Tell what is wrong with a header; empty if nothing is.
    """
    if not isinstance(reply, Received):
        return f"no PDU: it {reply.describe()}"
    header = reply.header
    if header.version != (5, 0):
        return f"version {header.version[0]}.{header.version[1]}"
    if reply.data[4:8] != LITTLE_ENDIAN_DREP and reply.data[4:8] != bytes(4):
        return f"the data representation {reply.data[4:8].hex()}"
    if header.auth_length:
        return f"an auth_length of {header.auth_length}"
    if header.call_id not in (5, 6):
        return f"the call id 0x{header.call_id:08X}"
    return ""


@define(
    "header.own-version",
    "2.15",
    Level.MUST,
    "the version of an answer to a PDU of another version",
    "The header of an answer says 5.0, whatever the peer said.",
    "C706 12.6.3.1, 12.6.4.5",
)
def _own_version(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, version=(4, 0)))
    if not isinstance(reply, Received):
        raise NotApplicableError(f"{reply.describe()}, so there is no header to look at")
    major, minor = reply.header.version
    verdict = passed if (major, minor) == (5, 0) else failed
    return verdict(f"answered with a header of version {major}.{minor}")


@define(
    "header.no-authentication",
    "2.15",
    Level.MUST,
    "the auth_length of an answer to a bind with a trailer",
    "Where there is no authentication the auth_length of an answer is 0; a client would look for a trailer otherwise.",
    "C706 12.6.3.1, MS-RPCE 2.2.2.11",
)
def _no_authentication(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, trailer=packets.trailer()))
    if not isinstance(reply, Received):
        raise NotApplicableError(f"{reply.describe()}, so there is no header to look at")
    length = reply.header.auth_length
    if length and reply.trailer_type != packets.trailer()[0]:
        return failed(f"answered with an auth_length of {length} and no such trailer")
    return passed(f"{reply.describe()}, with an auth_length of {length}")


@define(
    "header.byte-by-byte",
    "2.16",
    Level.MUST,
    "a bind and a request, byte by byte",
    "A connection is a stream: a PDU may come in any number of segments.",
    "C706 12.6.3",
)
def _byte_by_byte(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    yield from link.send(bind(PLAIN), piece=1)
    reply = yield from link.reply()
    if not isinstance(reply, Received) or reply.ack is None:
        return failed(f"{reply.describe()} when a bind came byte by byte")
    sent, call = link.make_call()
    yield from link.send(sent, piece=1)
    problem = link.problem_of((yield from link.reply()), call)
    return failed(f"{problem}, when it came byte by byte") if problem else passed("served both")


@define(
    "header.joined",
    "2.16",
    Level.MUST,
    "a bind and two requests in one segment",
    "A connection is a stream: one segment may hold several PDUs.",
    "C706 12.6.3",
)
def _joined(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    # A host that closes behind each call owes no answer to a second one.
    calls = [link.make_call() for _ in range(1 if subject.single_call else 2)]
    yield from link.send(bind(PLAIN) + b"".join(sent for sent, _ in calls))
    reply = yield from link.reply()
    if not isinstance(reply, Received) or reply.ack is None:
        return failed(f"{reply.describe()} when a bind came with more behind it")
    for _, call in calls:
        problem = link.problem_of((yield from link.reply()), call)
        if problem:
            return failed(f"{problem}, when several PDUs came in one segment")
    return passed(f"answered all {len(calls) + 1}")


@define(
    "header.no-rpc",
    "2.17",
    Level.HYGIENE,
    "what is not RPC at all",
    "A stream that begins with something else is closed at once, before what would be its frag_length has come.",
    "good practice",
)
def _no_rpc(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(b"GET / HTTP/1.0\r\n\r\n")
    if isinstance(reply, Silence):
        return failed(f"{reply.describe()}, waiting for the rest of what is not RPC")
    return (yield from conclude(link, reply, (CLOSE,), (ANY_NAK, *REFUSED)))


CASES: tuple[Case, ...] = (
    _version_of_bind((4, 0), Level.MUST),
    _version_of_bind((5, 1), Level.SHOULD),
    _version_of_bind((6, 0), Level.MUST),
    _later_version("request", "a request"),
    _later_version("alter", "an alter_context"),
    _big_endian_bind,
    _big_endian_request,
    exchange(
        "header.big-endian-fault",
        "2.3",
        Level.MUST,
        "a big-endian request on a context that does not exist",
        "The context id of a big-endian request is big-endian too, so it is found out that it does not exist.",
        "C706 12.4, 14.1",
        lambda subject: [request(order=">", context=0x0A0B, call_id=3)],
        accept=(fault(FaultStatus.UNK_IF),),
        then=Then.STAYS,
    ),
    _drep,
    _big_endian_ndr64,
    _short("length-15", "2.6", "a PDU whose frag_length is less than a header", 15, 0, 0),
    _short("length-0", "2.6", "a PDU whose frag_length is 0", 0, 0, PacketType.REQUEST),
    _short("empty-bind", "2.7", "a bind that ends behind its header", 16, 0, PacketType.BIND),
    _short("empty-request", "2.7", "a request that ends behind its header", 16, 0, 0),
    _short("short-request", "2.8", "a request with four bytes of a body", 20, 4, 0),
    _bind_cut,
    exchange(
        "header.fragment-too-long",
        "2.9",
        Level.SHOULD,
        "a request fragment of 5848 bytes",
        "No fragment over 5840 bytes is received: the answer is a protocol fault, and the connection ends.  Who closes"
        " without a word leaves the client guessing.",
        "Samba's tests of Windows, _test_neg_xmit_check_values",
        lambda subject: [_padded(subject, 5848)],
        accept=(_PROTOCOL,),
        lawful=(*REFUSED, RESPONSE),
    ),
    _larger,
    exchange(
        "header.auth-length-bind",
        "2.11",
        Level.MUST,
        "a bind whose auth_length has no room",
        "A trailer that would be longer than the PDU is a protocol error.",
        "MS-RPCE 2.2.2.11",
        lambda subject: [bind(PLAIN, auth_length=0x1000)],
        offered=None,
        accept=(nak(4), nak(8)),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    exchange(
        "header.auth-length-request",
        "2.11",
        Level.MUST,
        "a request whose auth_length has no room",
        "A trailer that would be longer than the PDU is a protocol error.",
        "MS-RPCE 2.2.2.11",
        lambda subject: [request(stub(subject.payload()), auth_length=0x1000)],
        accept=(_PROTOCOL, CLOSE),
        lawful=REFUSED,
        then=Then.CLOSES,
    ),
    _call_id,
    _call_id_large,
    _call_id_again,
    _flags_of_ack("flags-none", "a bind without flags", 0x00),
    _flags_of_ack("flags-all", "a bind with every flag", 0xFF),
    _flags_of_ack("flags-no-multiplexing", "a bind with every flag but multiplexing", 0xEF),
    _multiplexing,
    _answers,
    _own_version,
    _no_authentication,
    _byte_by_byte,
    _joined,
    _no_rpc,
)
