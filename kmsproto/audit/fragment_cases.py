"""
Cases about calls in several pieces.

Source: "How a correct connection-oriented DCE/RPC server behaves", section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kmsproto.audit.exchanges import REFUSED, Then, conclude, exchange
from kmsproto.audit.link import Link
from kmsproto.audit.model import Case, Level, Script, Verdict, define, failed, passed
from kmsproto.audit.packets import alter, element, fragments, request, stub
from kmsproto.audit.replies import CLOSE, RESPONSE, Received, Silence, fault
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR

_FIRST, _LAST = PacketFlag.FIRST, PacketFlag.LAST
_PROTOCOL = fault(FaultStatus.PROTO_ERROR)
_OBJECT = UUID("00112233-4455-6677-8899-aabbccddeeff")
_SEQUENCE = (
    "Fragments of a call come one behind the other, the first and the last marked as such, and no two calls mix.  What"
    " is out of sequence is a protocol error, and the connection ends."
)
_SEQUENCE_SOURCE = "C706 12.6.4.9, MS-RPCE 3.3.3.5.2; Samba's tests of Windows"


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _whole(link: Link, sent: Sequence[bytes], call_id: int) -> Script[str]:
    """
    Send the fragments of a call, and look for one answer.

    @return: What is wrong; empty if nothing is.
    """
    *before, last = sent
    yield from link.send(*before)
    early = yield from link.quiet()
    if not isinstance(early, Silence):
        return f"{early.describe()} before the last fragment came"
    reply = yield from link.exchange(last)
    if not isinstance(reply, Received) or reply.response is None:
        return f"{reply.describe()} to a call in {len(sent)} fragments"
    if reply.header.call_id != call_id:
        return f"answered call {call_id} with the call id {reply.header.call_id}"
    problem = yield from link.serve()
    return f"answered it, and then {problem}" if problem else ""


def _reassembled(
    name: str,
    title: str,
    cut: str,
    *,
    object_id: UUID | None = None,
) -> Case:
    """
    A good call in some fragments.

    @param cut: How its stub is cut: C{"halves"}, C{"bytes"} or C{"empty"}.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound()
        data = stub(subject.payload())
        pieces = {
            "halves": [data[:100], data[100:]],
            "bytes": _pieces(data, 7),
            "empty": [b"", data[:1], b"", data[1:], b""],
        }[cut]
        problem = yield from _whole(link, fragments(pieces, call_id=20, object_id=object_id), 20)
        return failed(problem) if problem else passed(f"served a call in {len(pieces)} fragments")

    return define(
        f"fragments.{name}",
        "6.1",
        Level.MUST,
        title,
        "A call may come in any number of fragments of any size, also empty ones; there is one answer, behind the"
        " last.",
        "C706 12.6.4.9",
    )(body)


@define(
    "fragments.later-fields",
    "6.2",
    Level.SHOULD,
    "another context and operation in a later fragment",
    "Context and operation are those of the first fragment; what later ones say does not count.",
    "Samba's server core",
)
def _later_fields(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(request(data[:100], flags=_FIRST, call_id=20))
    reply = yield from link.exchange(
        request(data[100:], flags=_LAST, call_id=20, context=77, opnum=5)
    )
    return (yield from conclude(link, reply, (RESPONSE,), REFUSED))


def _out_of_sequence(name: str, row: str, title: str, *second: tuple[int, int]) -> Case:
    """
    Fragments that do not follow each other.

    @param second: Flags and call id of each fragment; their stubs are parts of a good one.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound()
        data = stub(subject.payload())
        size = -(-len(data) // len(second))
        sent = [
            request(part, flags=flags, call_id=call_id)
            for part, (flags, call_id) in zip(_pieces(data, size), second, strict=True)
        ]
        reply = yield from link.exchange(*sent)
        return (yield from conclude(link, reply, (_PROTOCOL,), REFUSED, Then.CLOSES))

    return define(f"fragments.{name}", row, Level.MUST, title, _SEQUENCE, _SEQUENCE_SOURCE)(body)


@define(
    "fragments.byte-order",
    "6.6",
    Level.SHOULD,
    "a byte order that changes inside a call",
    "All fragments of a call have the same byte order, for its stub is one.",
    "Samba's server core",
)
def _byte_order(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(request(data[:100], flags=_FIRST, call_id=20))
    sent = request(data[100:], flags=_LAST, call_id=20, order=">")
    reply = yield from link.exchange(sent)
    return (yield from conclude(link, reply, (_PROTOCOL,), (*REFUSED, RESPONSE)))


@define(
    "fragments.pending-cancel",
    "6.10",
    Level.WINDOWS,
    "a pending cancel in a later fragment",
    "The flag PENDING_CANCEL in a later fragment is ignored, and the call completes.",
    "Samba's tests of Windows, test_2nd_cancel_requests",
)
def _pending_cancel(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(request(data[:100], flags=_FIRST, call_id=20))
    sent = request(data[100:], flags=_LAST | PacketFlag.PENDING_CANCEL, call_id=20)
    reply = yield from link.exchange(sent)
    return (yield from conclude(link, reply, (RESPONSE,), REFUSED, Then.STAYS))


@define(
    "fragments.alter-between",
    "6.11",
    Level.WINDOWS,
    "an alter_context between two fragments",
    "An alter_context that comes inside a call is answered, or is a protocol error.",
    "MS-RPCE 3.3.3",
)
def _alter_between(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    data = stub(subject.payload())
    yield from link.send(request(data[:100], flags=_FIRST, call_id=20))
    reply = yield from link.exchange(alter(element(1, NDR)))
    if not isinstance(reply, Received) or reply.type != PacketType.ALTER_CONTEXT_RESP:
        return (yield from conclude(link, reply, REFUSED))
    reply = yield from link.exchange(request(data[100:], flags=_LAST, call_id=20))
    if not isinstance(reply, Received) or reply.response is None:
        return failed(f"answered the alter_context, and then {reply.describe()}")
    return passed("answered it, and then the call")


@define(
    "fragments.too-much",
    "6.9",
    Level.SHOULD,
    "a call without an end",
    "A host receives what it has memory for: of a call that grows beyond that it takes no more, by a fault or the end"
    " of the connection.",
    "MS-RPCE 3.3.3.5.4",
)
def _too_much(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    piece = bytes(4000)
    yield from link.send(request(piece, flags=_FIRST, hint=0x500000, call_id=20))
    for _ in range(16):
        reply = yield from link.reply(subject.quiet / 4)
        if not isinstance(reply, Silence):
            return (
                yield from conclude(
                    link, reply, (fault(FaultStatus.ACCESS_DENIED), CLOSE), REFUSED, Then.CLOSES
                )
            )
        yield from link.send(*(request(piece, flags=0, hint=0, call_id=20) for _ in range(70)))
    reply = yield from link.reply()
    if isinstance(reply, Silence):
        return failed("did not refuse a call of more than four megabytes")
    return (yield from conclude(link, reply, REFUSED))


CASES: tuple[Case, ...] = (
    _reassembled("two", "a call in two fragments", "halves"),
    _reassembled("many", "a call in fragments of seven bytes", "bytes"),
    _reassembled("empty", "a call with empty fragments", "empty"),
    _reassembled("object", "an object UUID in each fragment", "halves", object_id=_OBJECT),
    _later_fields,
    _out_of_sequence(
        "second-first", "6.3", "a second first fragment", (_FIRST, 20), (_FIRST | _LAST, 21)
    ),
    exchange(
        "fragments.last-only",
        "6.4",
        Level.MUST,
        "a last fragment without a first",
        _SEQUENCE,
        _SEQUENCE_SOURCE,
        lambda subject: [request(stub(subject.payload()), flags=_LAST, call_id=20)],
        accept=(_PROTOCOL,),
        lawful=REFUSED,
        then=Then.CLOSES,
    ),
    exchange(
        "fragments.middle-only",
        "6.4",
        Level.MUST,
        "a fragment that is neither first nor last, without a first",
        _SEQUENCE,
        _SEQUENCE_SOURCE,
        lambda subject: [request(stub(subject.payload()), flags=0, call_id=20)],
        accept=(_PROTOCOL,),
        lawful=REFUSED,
        then=Then.CLOSES,
    ),
    _out_of_sequence(
        "other-call", "6.5", "another call id inside a call", (_FIRST, 20), (_LAST, 21)
    ),
    _byte_order,
    exchange(
        "fragments.unknown-context",
        "6.7",
        Level.SHOULD,
        "a first fragment on a context that does not exist",
        "A context that does not exist is told by a fault at the first fragment; nothing of the call is needed for"
        " that.",
        "MS-RPCE 3.3.3.5.8",
        lambda subject: [request(bytes(100), flags=_FIRST, context=9, call_id=20)],
        accept=(fault(FaultStatus.UNK_IF),),
        lawful=REFUSED,
        then=Then.STAYS,
    ),
    exchange(
        "fragments.operation",
        "6.8",
        Level.MUST,
        "a call of operation 5 in two fragments",
        "An operation that does not exist has its fault at the first or at the last fragment.",
        "C706 appendix N",
        lambda subject: fragments([bytes(100), bytes(100)], opnum=5, call_id=20),
        accept=(fault(FaultStatus.OP_RNG_ERROR),),
    ),
    _too_much,
    _pending_cancel,
    _alter_between,
)
