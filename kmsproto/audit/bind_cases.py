"""
Cases about how a connection begins: sizes and groups, refusals of a whole bind, and the layout of the answers.

What of a list of contexts is accepted is in L{kmsproto.audit.context_cases}.

Source: "How a correct connection-oriented DCE/RPC server behaves", section 3.
"""

from __future__ import annotations

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
from kmsproto.audit.packets import PLAIN, alter, bind, element, packet, request, stub
from kmsproto.audit.replies import ANY_NAK, CLOSE, Received, displaced, nak, shortened
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import (
    MAX_FRAGMENT,
    MIN_FRAGMENT,
    MUST_RECEIVE_FRAGMENT,
    WHOLE,
    PacketType,
)
from kmsproto.rpc.pdu import CALL_PREFIX_LENGTH, NDR, NDR64, BindAck, SyntaxId

#: Bytes of a bind_nak with one version in it, and with the padding that Windows adds.
_NAK_LENGTHS = (21, 22, 24)


def _ack_of(link: Link, sent: bytes) -> Script[BindAck]:
    """
    Bind in some way that has to be acknowledged.
    """
    yield from link.connect()
    reply = yield from link.exchange(sent)
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        raise UndecidedError(f"{reply.describe()} when it was asked for a bind")
    return ack


def _sizes(name: str, title: str, xmit: int, recv: int) -> Case:
    """
    The sizes in the answer to those in a bind.
    """

    def body(subject: Subject) -> Script[Verdict]:
        ack = yield from _ack_of(Link(subject), bind(PLAIN, xmit=xmit, recv=recv))
        did = (
            f"answered the sizes {xmit} and {recv} with {ack.max_xmit_frag} and {ack.max_recv_frag}"
        )
        least = MUST_RECEIVE_FRAGMENT
        if min(ack.max_xmit_frag, ack.max_recv_frag) < least:
            return failed(f"{did}, below {least}")
        # Who offers less than everybody has to be able to receive gets more than that.
        most_recv, most_xmit = max(xmit, MIN_FRAGMENT), max(recv, MIN_FRAGMENT)
        if ack.max_recv_frag > most_recv or ack.max_xmit_frag > most_xmit:
            return failed(f"{did}, more than was offered")
        return passed(did)

    return define(
        f"bind.sizes-{name}",
        "3.1",
        Level.MUST,
        title,
        "A bind_ack promises fragments of at least 1432 bytes in each direction, whatever was offered, and otherwise no"
        " more than the client offered.",
        "C706 12.6.4.4, appendix K table K-2",
    )(body)


@define(
    "bind.sizes-windows",
    "3.1",
    Level.WINDOWS,
    "the sizes that Windows answers",
    "Windows answers with one size for both directions: the smaller one that was offered, from 2048 to 5840, rounded"
    " down to a multiple of 8.",
    "Samba's tests of Windows, test_neg_xmit",
)
def _sizes_windows(subject: Subject) -> Script[Verdict]:
    for number, offered in enumerate((0, 3199, 0xFFFF)):
        link = Link(subject, number)
        ack = yield from _ack_of(link, bind(PLAIN, xmit=offered, recv=0xFFFF))
        expected = min(max(offered, MIN_FRAGMENT), MAX_FRAGMENT) & ~7
        if (ack.max_xmit_frag, ack.max_recv_frag) != (expected, expected):
            return failed(
                f"answered the size {offered} with {ack.max_xmit_frag} and {ack.max_recv_frag},"
                f" Windows with {expected}"
            )
        yield from link.part()
    return passed("answered as Windows does")


@define(
    "bind.promise",
    "3.2",
    Level.MUST,
    "a fragment as large as the host promised",
    "What a bind_ack promises to receive is received: a fragment of exactly that size.",
    "C706 12.6.4.4",
)
def _promise(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    ack = yield from _ack_of(link, bind(PLAIN, xmit=0xFFFF, recv=0xFFFF))
    size = ack.max_recv_frag
    if size < MUST_RECEIVE_FRAGMENT:
        raise UndecidedError(f"promises no more than {size} bytes")
    padded = stub(subject.payload()).ljust(size - CALL_PREFIX_LENGTH, b"\0")
    reply = yield from link.exchange(request(padded, call_id=9))
    if isinstance(reply, Received) and reply.response is not None:
        return passed(f"received a fragment of the {size} bytes that it promised")
    return failed(f"{reply.describe()} when a fragment had the {size} bytes that it promised")


@define(
    "bind.address",
    "3",
    Level.SHOULD,
    "the secondary address of a bind_ack",
    "The secondary address is the port of the host in decimal and a zero.",
    "MS-RPCE 3.3.1.5.5",
)
def _address(subject: Subject) -> Script[Verdict]:
    ack = yield from _ack_of(Link(subject), bind(PLAIN))
    text = ack.secondary_address
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return failed(f"gave the secondary address {shortened(text)}, which is no port")
    if int(text) != subject.port:
        return noted(f"gave the port {text} as its address and is reached at {subject.port}")
    return passed(f"gave its port, {text}")


@define(
    "bind.layout",
    "3",
    Level.MUST,
    "where the results of a bind_ack stand",
    "The results begin at the first multiple of four bytes behind the secondary address, and frag_length counts them.",
    "C706 12.6.4.4",
)
def _layout(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN))
    if not isinstance(reply, Received) or reply.ack is None:
        raise UndecidedError(f"{reply.describe()} when it was asked for a bind")
    place = displaced(reply.header, reply.data)
    if place is None:
        return passed("put them there")
    missing = len(reply.data) - reply.header.frag_length
    uncounted = f", and sent {missing} bytes more than it said" if missing else ""
    return failed(f"put them {place.stop - place.start} bytes behind their place{uncounted}")


@define(
    "bind.padding",
    "3",
    Level.HYGIENE,
    "the gap behind the secondary address",
    "The gap that aligns the results is zero.  Anything else is remains of the host's memory, which nobody should see.",
    "C706 12.6.4.4",
)
def _padding(subject: Subject) -> Script[Verdict]:
    # An address of four digits leaves a gap in a bind_ack, and the empty one of an alter_context_resp does always.
    link = Link(subject)
    yield from link.connect()
    found: list[bytes] = []
    for sent in (bind(PLAIN), alter(element(0, NDR))):
        reply = yield from link.exchange(sent)
        if not isinstance(reply, Received) or reply.ack is None:
            if not found:
                raise UndecidedError(f"{reply.describe()} when it was asked for a bind")
            break
        found.append(reply.address_gap)
    if any(map(any, found)):
        shown = " and ".join(gap.hex() for gap in found if any(gap))
        return failed(f"filled the gap with {shown}")
    return passed("filled the gap with zeros")


@define(
    "bind.new-group",
    "3.3",
    Level.MUST,
    "association groups of two connections",
    "A client without a group gets one: an id that is not zero and that no other group has.",
    "C706 12.6.4.4, MS-RPCE 3.3.1.5.7",
)
def _new_group(subject: Subject) -> Script[Verdict]:
    Link(subject).needs_neighbours()
    groups = []
    for number in range(2):
        ack = yield from _ack_of(Link(subject, number), bind(PLAIN))
        groups.append(ack.association_group)
    did = f"gave the group ids 0x{groups[0]:08X} and 0x{groups[1]:08X}"
    return failed(did) if not all(groups) or groups[0] == groups[1] else passed(did)


@define(
    "bind.join-group",
    "3.4",
    Level.MUST,
    "a second connection of the same group",
    "A client that names a group of its own that lives joins it, and is told its id.  A host of several processes"
    " may refuse what another of them knows.",
    "C706 12.6.4.4, MS-RPCE 3.3.1.5.7",
)
def _join_group(subject: Subject) -> Script[Verdict]:
    second = Link(subject, 1)
    second.needs_neighbours()
    ack = yield from _ack_of(Link(subject), bind(PLAIN))
    yield from second.connect()
    reply = yield from second.exchange(bind(PLAIN, group=ack.association_group))
    joined = reply.ack if isinstance(reply, Received) else None
    if nak(0).fits(reply):
        # To a client that is the same as a host of several processes, of which another has the group.
        return noted(f"{reply.describe()} when a client named its living group")
    if joined is None:
        return failed(f"{reply.describe()} when a client named its living group")
    if joined.association_group != ack.association_group:
        return failed(
            f"answered the group 0x{ack.association_group:08X}"
            f" with another, 0x{joined.association_group:08X}"
        )
    return passed("let a second connection join")


@define(
    "bind.ended-group",
    "3.5",
    Level.SHOULD,
    "a group whose last connection was closed",
    "A group ends with its last connection; who names it is refused.",
    "MS-RPCE 3.3.1.1.5, 3.3.1.5.7",
)
def _ended_group(subject: Subject) -> Script[Verdict]:
    first = Link(subject)
    ack = yield from _ack_of(first, bind(PLAIN))
    yield from first.close()
    second = Link(subject, 1)
    yield from second.connect()
    # The host has a moment to notice.
    yield from second.quiet()
    reply = yield from second.exchange(bind(PLAIN, group=ack.association_group))
    return (yield from conclude(second, reply, (nak(0),), NOT_BOUND, Then.CLOSES))


@define(
    "bind.reserved",
    "3.9",
    Level.MUST,
    "reserved bytes that are not zero",
    "Reserved bytes of a bind are ignored.",
    "C706 12.6.3.1",
)
def _reserved(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    sent = bind(PLAIN._replace(reserved=0xEE), reserved=(0xAA, 0xBBCC), extra=b"\xff" * 8)
    reply = yield from link.exchange(sent)
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None or [each[:2] for each in ack.results] != [(0, 0)]:
        return failed(f"{reply.describe()}; expected: the results (0,0)")
    problem = yield from link.serve()
    return failed(f"acknowledged it, and then {problem}") if problem else passed("ignored them")


@define(
    "bind.nak-layout",
    "3",
    Level.SHOULD,
    "the layout of a bind_nak",
    "A bind_nak has a reason, the number of versions, 1, and the version 5.0; its padding is zero.  It has the call id"
    " of the bind and the flags of a whole PDU.",
    "C706 12.6.4.5, MS-RPCE 2.2.2.9",
)
def _nak_layout(subject: Subject) -> Script[Verdict]:
    attempts = (bind(PLAIN, version=(4, 0), call_id=77), bind(call_id=77))
    for number, sent in enumerate(attempts):
        link = Link(subject, number)
        yield from link.connect()
        reply = yield from link.exchange(sent)
        yield from link.part()
        if not isinstance(reply, Received) or reply.nak_reason is None:
            continue
        rest = reply.data[18:]
        if reply.header.call_id != 77:
            return failed(f"sent a bind_nak with the call id {reply.header.call_id} for call 77")
        if reply.header.flags != WHOLE:
            return failed(f"sent a bind_nak with the flags 0x{reply.header.flags:02x}")
        if len(reply.data) not in _NAK_LENGTHS or rest[:3] != b"\x01\x05\x00" or any(rest[3:]):
            return failed(f"sent a bind_nak that goes on with {rest[:16].hex()} behind its reason")
        return passed("sent a bind_nak as it has to be")
    raise NotApplicableError("sends no bind_nak where one is due")


def _first(name: str, title: str, *, context: int = 0, syntax: SyntaxId = NDR) -> Case:
    """
    A call before any bind.
    """
    return exchange(
        f"bind.first-{name}",
        "3.23",
        Level.MUST,
        title,
        "Before the bind nothing is served: a bind_nak or the end of the connection is the answer to all else.",
        "MS-RPCE 3.3.3",
        lambda subject: [request(stub(subject.payload(), syntax), context=context)],
        offered=None,
        accept=(ANY_NAK, *REFUSED),
        then=Then.CLOSES,
    )


CASES: tuple[Case, ...] = (
    _sizes("ordinary", "the fragment sizes that Windows offers", 5840, 5840),
    _sizes("unequal", "fragment sizes that differ", 2048, 4280),
    _sizes("none", "fragment sizes of 0", 0, 0),
    _sizes("large", "fragment sizes of 65535", 0xFFFF, 0xFFFF),
    _sizes_windows,
    _promise,
    _layout,
    _address,
    _padding,
    _new_group,
    _join_group,
    exchange(
        "bind.unknown-group",
        "3.5",
        Level.MUST,
        "a group that does not live",
        "A client that names a group which does not live is refused: it relies on a state that is not there.",
        "MS-RPCE 3.3.1.1.5, 3.3.1.5.7",
        lambda subject: [bind(PLAIN, group=0xFEEDBEEF)],
        offered=None,
        accept=(nak(0),),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    _ended_group,
    exchange(
        "bind.no-contexts",
        "3.6",
        Level.MUST,
        "a bind without contexts",
        "A bind has a context at least.  Windows refuses one without by a bind_nak.",
        "C706 12.6.4.3; Samba's tests of Windows, test_no_auth_no_ctx",
        lambda subject: [bind()],
        offered=None,
        accept=(nak(0, 4),),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    exchange(
        "bind.no-transfers",
        "3.7",
        Level.MUST,
        "a context without transfer syntaxes",
        "A context has a transfer syntax at least.  Windows refuses a bind with one that has none by a bind_nak.",
        "C706 12.6.4.3; Samba's tests of Windows, ctx_invalid2",
        lambda subject: [bind(element(0))],
        offered=None,
        accept=(nak(0, 4),),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    exchange(
        "bind.list-too-long",
        "3.8",
        Level.MUST,
        "a list that runs past the end",
        "A list of contexts that promises more than there is is a protocol error.",
        "C706 12.6.4.3",
        lambda subject: [bind(PLAIN, count=3)],
        offered=None,
        accept=(nak(4), CLOSE),
        lawful=NOT_BOUND,
        then=Then.CLOSES,
    ),
    _reserved,
    exchange(
        "bind.second",
        "3.21",
        Level.MUST,
        "a second bind",
        "A connection is bound once; a second bind is refused, and the connection ends.",
        "MS-RPCE 3.3.3; Samba's tests of Windows, test_no_auth_valid_valid_request",
        lambda subject: [bind(element(1, NDR))],
        accept=(nak(0),),
        lawful=(ANY_NAK, *REFUSED),
        then=Then.CLOSES,
    ),
    _first("request", "a request before any bind"),
    _first("request-65535", "a request on context 65535 before any bind", context=0xFFFF),
    _first(
        "request-65535-ndr64",
        "a request in NDR64 on context 65535 before any bind",
        context=0xFFFF,
        syntax=NDR64,
    ),
    exchange(
        "bind.first-alter",
        "3.23",
        Level.MUST,
        "an alter_context before any bind",
        "Before the bind nothing is served: a bind_nak or the end of the connection is the answer to all else.",
        "MS-RPCE 3.3.3",
        lambda subject: [alter(PLAIN)],
        offered=None,
        accept=(ANY_NAK, *REFUSED),
        then=Then.CLOSES,
    ),
    exchange(
        "bind.first-cancel",
        "3.23",
        Level.HYGIENE,
        "a co_cancel before any bind",
        "What comes before the bind is refused; there is no call that could be cancelled.",
        "MS-RPCE 3.3.3",
        lambda subject: [packet(PacketType.CO_CANCEL)],
        offered=None,
        accept=(ANY_NAK, *REFUSED),
        then=Then.CLOSES,
    ),
    _nak_layout,
)
