"""
Cases about calls in one piece: what a good one gets, what a bad stub gets, and what the other fields mean.

Source: "How a correct connection-oriented DCE/RPC server behaves", sections 5 and 10; "Stub layout of
RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from kmsproto.audit import packets
from kmsproto.audit.exchanges import REFUSED, Then, conclude, exchange
from kmsproto.audit.link import Link, read_answer
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
from kmsproto.audit.packets import PLAIN, PLAIN64, bind, element, request, stub
from kmsproto.audit.replies import CLOSE, RESPONSE, Expectation, Received, fault, matches
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import WHOLE, FaultStatus, PacketFlag
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId
from kmsproto.rpc.scrutiny import examine_activation_response

_BAD_STUB = fault(FaultStatus.BAD_STUB_DATA, FaultStatus.INVALID_BOUND)
_SOME_OBJECT = UUID("00112233-4455-6677-8899-aabbccddeeff")
_CONTEXTS = {NDR: (0, PLAIN), NDR64: (1, PLAIN64)}
#: A verification trailer with a bit mask (MS-RPCE 2.2.2.13).
_VERIFICATION = bytes.fromhex("8ae3137102f436710140040000000000")


def _served(
    name: str,
    row: str,
    level: Level,
    title: str,
    rule: str,
    source: str,
    make: Callable[[bytes], bytes],
    *,
    lawful: tuple[Expectation, ...] = (),
) -> Case:
    """
    A call that is odd, and has to be served all the same.

    @param make: Makes the PDU of a KMS message; its call id is 9.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound()
        reply = yield from link.exchange(make(subject.payload()))
        problem = _refusal(subject, reply)
        if problem:
            return failed(problem)
        return (yield from conclude(link, reply, (RESPONSE,), lawful, Then.STAYS))

    return define(name, row, level, title, rule, source)(body)


def _refusal(subject: Subject, reply: object) -> str:
    """
    Tell whether a response refuses what is otherwise not refused; empty if not, and for what is no response.
    """
    response = reply.response if isinstance(reply, Received) else None
    if not isinstance(reply, Received) or response is None:
        return ""
    _, hresult = read_answer(reply.header, response.stub, NDR)
    if hresult != subject.hresult:
        return f"answered with 0x{hresult:08X}, an ordinary call with 0x{subject.hresult:08X}"
    return ""


def _bad_stub(
    name: str,
    row: str,
    title: str,
    rule: str,
    make: Callable[[bytes], bytes],
    syntax: SyntaxId = NDR,
) -> Case:
    """
    A call whose stub is wrong.

    @param make: Makes the stub of a KMS message.
    """
    context, offered = _CONTEXTS[syntax]

    def body(subject: Subject) -> Script[Verdict]:
        if syntax == NDR64 and not subject.ndr64:
            raise NotApplicableError("does not offer NDR64")
        link = Link(subject)
        yield from link.bound(offered)
        sent = request(make(subject.payload()), context=context, call_id=9)
        reply = yield from link.exchange(sent)
        response = reply.response if isinstance(reply, Received) else None
        if isinstance(reply, Received) and response is not None:
            _, hresult = read_answer(reply.header, response.stub, syntax)
            how = f"the HRESULT 0x{hresult:08X}" if hresult else "a grant"
            return failed(f"answered with {how}; expected: {_BAD_STUB.words}")
        return (
            yield from conclude(link, reply, (_BAD_STUB,), REFUSED, Then.STAYS, (context, syntax))
        )

    return define(name, row, Level.MUST, title, rule, "C706 14.3.3.2, MS-RPCE 3.1.3.5.2")(body)


@define(
    "request.served",
    "5.1",
    Level.MUST,
    "an ordinary request in NDR",
    "A request on a context that was accepted has a response with its call id and context id.",
    "C706 12.6.4.10",
)
def _ordinary(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    problem = yield from link.serve()
    if problem:
        return failed(problem)
    if subject.hresult:
        return noted(f"answers ordinary requests with 0x{subject.hresult:08X}")
    return passed("served it")


@define(
    "request.served-ndr64",
    "5.1",
    Level.MUST,
    "an ordinary request in NDR64",
    "A host that accepts NDR64 serves calls in it.",
    "C706 12.6.4.10, MS-RPCE 2.2.5",
)
def _ordinary64(subject: Subject) -> Script[Verdict]:
    if not subject.ndr64:
        raise NotApplicableError("does not offer NDR64")
    link = Link(subject)
    yield from link.bound(PLAIN64)
    problem = yield from link.serve(1, NDR64)
    return failed(problem) if problem else passed("served it")


@define(
    "request.context-id",
    "5.1",
    Level.MUST,
    "the context id of a response",
    "A response has the context id of the call, all 16 bits; Windows returns the lower 8 only.",
    "C706 12.6.4.10",
)
def _context_id(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound(element(0x0102, NDR))
    sent, _ = link.make_call(0x0102)
    reply = yield from link.exchange(sent)
    response = reply.response if isinstance(reply, Received) else None
    if response is None:
        return failed(f"{reply.describe()} when the context id was 0x0102")
    if response.context == 0x02:
        return noted("returned the lower 8 bits of the context id, as Windows does")
    did = f"returned the context id 0x0102 as 0x{response.context:04X}"
    return passed(did) if response.context == 0x0102 else failed(did)


@define(
    "request.response-fields",
    "5.2",
    Level.MUST,
    "the other fields of a response",
    "In a response the alloc_hint is the length of the stub, or 0, the cancel count and the reserved byte are 0, and"
    " the flags are those of a whole PDU.",
    "C706 12.6.4.10",
)
def _response_fields(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    sent, _ = link.make_call()
    reply = yield from link.exchange(sent)
    response = reply.response if isinstance(reply, Received) else None
    if not isinstance(reply, Received) or response is None:
        return failed(f"{reply.describe()}; expected: a response")
    # It is a hint, and says nothing where it is 0.
    hint = response.alloc_hint or len(response.stub)
    for what, value, right in (
        ("flags", reply.header.flags, WHOLE),
        ("alloc_hint", hint, len(response.stub)),
        ("cancel count", response.cancel_count, 0),
        ("reserved byte", response.reserved, 0),
    ):
        if value != right:
            return failed(f"answered with the {what} {value}, where {right} is right")
    return passed("filled them as it has to")


@define(
    "request.stub-end",
    "5.2",
    Level.HYGIENE,
    "the end of the stub of a response",
    "The HRESULT is aligned by zeros and nothing follows it, as Windows has it.  Anything else there is remains of the"
    " host's memory, or padding that clients have to step over.",
    "C706 14.2.2, 14.3.12; Stub layout of RequestActivation",
)
def _stub_end(subject: Subject) -> Script[Verdict]:
    for version in (4, 5, 6):
        link = Link(subject, version)
        yield from link.bound()
        sent, call = link.make_call(version=version)
        reply = yield from link.exchange(sent)
        response = reply.response if isinstance(reply, Received) else None
        if not isinstance(reply, Received) or response is None:
            raise UndecidedError(f"{reply.describe()} when it was asked in version {version}")
        found = list(
            examine_activation_response(response.stub, call.syntax, reply.header.byte_order)
        )
        if found:
            return failed(f"sent a stub in which {found[0].problem} (version {version})")
        yield from link.part()
    return passed("ended its stubs as Windows does")


@define(
    "request.flags",
    "5.2",
    Level.MUST,
    "the flags of a response to a request with odd flags",
    "Flags of a request that mean nothing in a response are not echoed.",
    "C706 12.6.3.1, 12.6.4.10",
)
def _flags(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    odd = WHOLE | PacketFlag.RESERVED | PacketFlag.DID_NOT_EXECUTE | PacketFlag.MAYBE
    reply = yield from link.exchange(request(stub(subject.payload()), flags=odd))
    if not isinstance(reply, Received) or reply.response is None:
        return failed(f"{reply.describe()}; expected: a response")
    did = f"answered the flags 0x{odd:02x} with 0x{reply.header.flags:02x}"
    return passed(did) if reply.header.flags == WHOLE else failed(did)


@define(
    "request.stub-layout",
    "5.11",
    Level.MUST,
    "the layout of the answer to a message that is refused",
    "A refusal is a response whose size is 0 and whose pointer is null, with the HRESULT behind: 12 bytes in NDR and"
    " 20 in NDR64.",
    "C706 14.3.12; Stub layout of RequestActivation",
)
def _failure_layout(subject: Subject) -> Script[Verdict]:
    for number, (syntax, size) in enumerate(((NDR, 12), (NDR64, 20))):
        if syntax == NDR64 and not subject.ndr64:
            continue
        context, offered = _CONTEXTS[syntax]
        link = Link(subject, number)
        yield from link.bound(offered)
        payload, _ = subject.seal(7)
        reply = yield from link.exchange(request(stub(payload, syntax), context=context))
        response = reply.response if isinstance(reply, Received) else None
        if response is None:
            return failed(
                f"{reply.describe()} to a version that does not exist; expected: a response"
            )
        hresult = int.from_bytes(response.stub[-4:], "little")
        if len(response.stub) != size or any(response.stub[:-4]) or not hresult & 0x80000000:
            return failed(
                f"refused with a stub of {len(response.stub)} bytes, {response.stub[:24].hex()}"
            )
        yield from link.part()
    return passed("refused as it has to")


@define(
    "request.wrong-syntax",
    "5.9",
    Level.MUST,
    "NDR on a context of NDR64",
    "A stub that is written in the other transfer syntax is a bad stub, as its counts show.",
    "MS-RPCE 3.1.3.5.2",
)
def _wrong_syntax(subject: Subject) -> Script[Verdict]:
    if not subject.ndr64:
        raise NotApplicableError("does not offer NDR64")
    link = Link(subject)
    yield from link.bound(PLAIN64)
    reply = yield from link.exchange(request(stub(subject.payload()), context=1))
    return (yield from conclude(link, reply, (_BAD_STUB,), REFUSED, Then.STAYS, (1, NDR64)))


@define(
    "request.ndr64-gap",
    "5.8",
    Level.MUST,
    "a gap of NDR64 that is not zero",
    "What stands in a gap that aligns something means nothing.",
    "C706 14.2.2",
)
def _gap(subject: Subject) -> Script[Verdict]:
    if not subject.ndr64:
        raise NotApplicableError("does not offer NDR64")
    link = Link(subject)
    yield from link.bound(PLAIN64)
    sent = stub(subject.payload(), NDR64, gap=0xDEADBEEF)
    reply = yield from link.exchange(request(sent, context=1))
    return (yield from conclude(link, reply, (RESPONSE,), then=Then.STAYS, serve=(1, NDR64)))


def _pipelined(name: str, level: Level, title: str, rule: str, flags: int) -> Case:
    """
    Calls that do not wait for answers.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.connect()
        reply = yield from link.exchange(bind(PLAIN, flags=flags))
        if not isinstance(reply, Received) or reply.ack is None:
            return failed(f"{reply.describe()}; expected: a bind_ack")
        if flags & ~reply.header.flags & PacketFlag.CONC_MPX:
            raise NotApplicableError("does not offer to serve calls at the same time")
        link.needs_several_calls()
        calls = {call.call_id: (sent, call) for sent, call in (link.make_call() for _ in range(5))}
        yield from link.send(*(sent for sent, _ in calls.values()))
        while calls:
            reply = yield from link.reply()
            call_id = reply.header.call_id if isinstance(reply, Received) else None
            found = calls.pop(call_id, None) if call_id is not None else None
            if not flags & PacketFlag.CONC_MPX and matches(reply, REFUSED):
                # As Windows does; nothing was promised.
                return noted(f"{reply.describe()} to a call that did not wait")
            if found is None:
                return failed(f"{reply.describe()} where {len(calls)} calls waited")
            problem = link.problem_of(reply, found[1])
            if problem:
                return failed(problem)
        return passed("answered five calls that did not wait")

    return define(name, "5.17", level, title, rule, "C706 12.6.3.1, MS-RPCE 3.3.1.5.8")(body)


_SHORT_RULE = (
    "A stub that ends before its arguments do is answered by the fault bad stub data, and the connection"
    " stays."
)
_COUNT_RULE = "The count of the array in a stub is the size that stands before it; if they differ the stub is bad."
_TRAILING_RULE = "Bytes behind the arguments are padding or a trailer, and are ignored."

CASES: tuple[Case, ...] = (
    _ordinary,
    _ordinary64,
    _context_id,
    _response_fields,
    _stub_end,
    _flags,
    _served(
        "request.object",
        "5.3",
        Level.MUST,
        "a request with an object UUID",
        "A flag announces an object UUID of 16 bytes before the stub.  All objects belong to the same manager here,"
        " so it is stepped over.",
        "C706 12.6.4.9",
        lambda payload: request(stub(payload), object_id=_SOME_OBJECT, call_id=9),
    ),
    exchange(
        "request.object-cut",
        "5.3",
        Level.MUST,
        "a request too short for the object UUID that it announces",
        "A request that ends inside its object UUID is a protocol error.",
        "C706 12.6.4.9",
        lambda subject: [request(bytes(8), flags=WHOLE | PacketFlag.OBJECT_UUID)],
        accept=(fault(FaultStatus.PROTO_ERROR), CLOSE),
        lawful=REFUSED,
        then=Then.CLOSES,
    ),
    _bad_stub("request.stub-empty", "5.6", "a request without a stub", _SHORT_RULE, lambda _: b""),
    _bad_stub(
        "request.stub-cut",
        "5.6",
        "a stub that ends a byte early",
        _SHORT_RULE,
        lambda payload: stub(payload)[:-1],
    ),
    _bad_stub(
        "request.stub-cut-ndr64",
        "5.6",
        "a stub in NDR64 that ends a byte early",
        _SHORT_RULE,
        lambda payload: stub(payload, NDR64)[:-1],
        NDR64,
    ),
    _bad_stub(
        "request.count-huge",
        "5.6",
        "counts of 4294967295",
        "Counts that promise more than the stub holds make a bad stub.",
        lambda payload: stub(payload, size=0xFFFFFFFF, max_count=0xFFFFFFFF),
    ),
    _bad_stub(
        "request.count-smaller",
        "5.7",
        "an array count below requestSize",
        _COUNT_RULE,
        lambda payload: stub(payload, max_count=len(payload) - 4),
    ),
    _bad_stub(
        "request.count-larger",
        "5.7",
        "an array count above requestSize",
        _COUNT_RULE,
        lambda payload: stub(payload, size=len(payload) - 4),
    ),
    _bad_stub(
        "request.count-ndr64",
        "5.7",
        "an array count of NDR64 that differs in its upper half",
        _COUNT_RULE,
        lambda payload: stub(payload, NDR64, max_count=1 << 32 | len(payload)),
        NDR64,
    ),
    _gap,
    _wrong_syntax,
    _served(
        "request.padding",
        "5.10",
        Level.MUST,
        "four bytes behind the arguments",
        _TRAILING_RULE,
        "MS-RPCE 2.2.2.13",
        lambda payload: request(stub(payload) + b"\xee" * 4, call_id=9),
    ),
    _served(
        "request.padding-large",
        "5.10",
        Level.SHOULD,
        "a thousand bytes behind the arguments",
        _TRAILING_RULE,
        "MS-RPCE 2.2.2.13",
        lambda payload: request(stub(payload) + bytes(1000), call_id=9),
    ),
    _served(
        "request.verification",
        "5.10",
        Level.MUST,
        "a verification trailer",
        "A verification trailer behind the arguments is understood or ignored.",
        "MS-RPCE 2.2.2.13",
        lambda payload: request(stub(payload) + _VERIFICATION, call_id=9),
        lawful=(fault(FaultStatus.ACCESS_DENIED),),
    ),
    _served(
        "request.hint-none",
        "5.12",
        Level.MUST,
        "an alloc_hint of 0",
        "An alloc_hint of 0 says nothing.",
        "C706 12.6.4.9",
        lambda payload: request(stub(payload), hint=0, call_id=9),
    ),
    _served(
        "request.hint-large",
        "5.13",
        Level.WINDOWS,
        "an alloc_hint larger than the stub",
        "Windows ignores an alloc_hint that is too large in a call of one piece; MS-RPCE would have it rejected.",
        "MS-RPCE 2.2.2.6; Samba's tests of Windows, test_alloc_hint",
        lambda payload: request(stub(payload), hint=0x10000, call_id=9),
        lawful=REFUSED,
    ),
    _served(
        "request.maybe",
        "5.14",
        Level.MUST,
        "a request that may go unanswered",
        "Over a connection a call with the flag MAYBE is answered like any other.",
        "MS-RPCE 2.2.2.2",
        lambda payload: request(stub(payload), flags=WHOLE | PacketFlag.MAYBE, call_id=9),
    ),
    _served(
        "request.pending-cancel",
        "5.15",
        Level.WINDOWS,
        "a request with a pending cancel",
        "A call with the flag PENDING_CANCEL is run, or refused as Windows does.",
        "C706 12.6.3.1; Samba's tests of Windows, test_first_cancel_requests",
        lambda payload: request(stub(payload), flags=WHOLE | PacketFlag.PENDING_CANCEL, call_id=9),
        lawful=REFUSED,
    ),
    exchange(
        "request.trailer",
        "5.16",
        Level.MUST,
        "a request with an authentication trailer",
        "Without a security context a call with an authentication trailer is denied, and the connection ends.",
        "Samba's tests of Windows, test_no_auth_ctx_request",
        lambda subject: [
            request(stub(subject.payload()), trailer=packets.trailer(value=bytes(16)))
        ],
        accept=(fault(FaultStatus.ACCESS_DENIED), fault(FaultStatus.PROTO_ERROR)),
        lawful=REFUSED,
        then=Then.CLOSES,
    ),
    _pipelined(
        "request.pipelined",
        Level.MUST,
        "calls that do not wait, where that was agreed upon",
        "Who echoed the flag for concurrent multiplexing serves all calls that come before the first was answered.",
        WHOLE | PacketFlag.CONC_MPX,
    ),
    _pipelined(
        "request.pipelined-plain",
        Level.WINDOWS,
        "calls that do not wait, where nothing was agreed upon",
        "Without the flag a client has no right to that.  To serve its calls in their order is fine; Windows faults one"
        " that comes while another is at work.",
        WHOLE,
    ),
    _failure_layout,
)
