"""
Cases about calls that reach no operation, and about each field of the fault that tells so.

Source: "How a correct connection-oriented DCE/RPC server behaves", rows 5.4 and 5.5, section 10.
"""

from __future__ import annotations

from collections.abc import Callable

from kmsproto.audit.exchanges import Then, exchange
from kmsproto.audit.link import Link
from kmsproto.audit.model import (
    Case,
    Level,
    NotApplicableError,
    Script,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import element, request, stub
from kmsproto.audit.replies import FaultBody, Received, fault, name_fault
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import WHOLE, FaultStatus, PacketFlag
from kmsproto.rpc.pdu import NDR

#: A context with both bytes in its id, and one that does not exist.
_CONTEXT, _NOWHERE = 0x0709, 0x0A0B
_CALL = 0x01020304
_UNKNOWN = fault(FaultStatus.UNK_IF)
_NO_OPERATION = fault(FaultStatus.OP_RNG_ERROR)
#: What no server ever sends (MS-RPCE 3.3.3.5.1).
_FORBIDDEN = frozenset(
    {
        *(0, 0x80000001, 0x80000002, 0x80000003, 0xC0000005, 0xC0000006, 0xC000001D, 0xC0000096),
        *(0xC00000AA, 0xC00000FD, 0xC0000194, 0xC0000235, 0xC0000409, 0xC0000420),
    }
)


def _field(
    name: str,
    level: Level,
    title: str,
    rule: str,
    source: str,
    judge: Callable[[Received, FaultBody], tuple[bool, str]],
    *,
    context: int = _NOWHERE,
    opnum: int = 0,
    row: str = "10",
) -> Case:
    """
    One field of the fault for a call that reaches no operation.

    @param judge: Tells whether it is right, and what the host did.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound(element(_CONTEXT, NDR))
        sent = request(stub(subject.payload()), context=context, opnum=opnum, call_id=_CALL)
        reply = yield from link.exchange(sent)
        body = reply.fault if isinstance(reply, Received) else None
        if not isinstance(reply, Received) or body is None:
            raise NotApplicableError(f"{reply.describe()}, so there is no fault to look at")
        right, did = judge(reply, body)
        return passed(did) if right else failed(did)

    return define(name, row, level, title, rule, source)(body)


def _no_operation(opnum: int) -> Case:
    return exchange(
        f"fault.operation-{opnum}",
        "5.5",
        Level.MUST,
        f"operation {opnum}",
        "The KMS interface has one operation, 0.  A call of another has the fault nca_s_op_rng_error, nothing is"
        " executed, and the connection stays.",
        "C706 appendix N; Samba's tests of Windows, ctx_valid1",
        lambda subject: [
            request(stub(subject.payload()), context=_CONTEXT, opnum=opnum, call_id=_CALL)
        ],
        offered=(element(_CONTEXT, NDR),),
        accept=(_NO_OPERATION,),
        then=Then.STAYS,
        serve=(_CONTEXT, NDR),
    )


def _unknown_context(context: int) -> Case:
    return exchange(
        f"fault.context-{context}",
        "5.4",
        Level.MUST,
        f"a call on context {context}, which was never offered",
        "A call on a context that does not exist has the fault nca_s_unk_if, and the connection stays.",
        "C706 12.6.4.7; Samba's tests of Windows, ctx_invalid1",
        lambda subject: [request(stub(subject.payload()), context=context, call_id=_CALL)],
        offered=(element(_CONTEXT, NDR),),
        accept=(_UNKNOWN,),
        then=Then.STAYS,
        serve=(_CONTEXT, NDR),
    )


def _flags(reply: Received, body: FaultBody) -> tuple[bool, str]:
    flags = reply.header.flags
    allowed = WHOLE | PacketFlag.DID_NOT_EXECUTE
    return flags & WHOLE == WHOLE and not flags & ~allowed, f"sent a fault with flags 0x{flags:02x}"


def _did_not_execute(reply: Received, body: FaultBody) -> tuple[bool, str]:
    said = bool(reply.header.flags & PacketFlag.DID_NOT_EXECUTE)
    return said, f"{'said' if said else 'did not say'} that the call was not executed"


def _call_id(reply: Received, body: FaultBody) -> tuple[bool, str]:
    call_id = reply.header.call_id
    return call_id == _CALL, f"answered call 0x{_CALL:08X} with a fault for call 0x{call_id:08X}"


def _zeros(reply: Received, body: FaultBody) -> tuple[bool, str]:
    # Extended error information is announced by the lowest flag, and then has to be there.
    flags = body.flags & ~1 if len(reply.data) > 32 else body.flags
    values = (body.cancel_count, flags, body.reserved)
    did = f"sent a fault with cancel count {values[0]}, flags {values[1]} and reserved {values[2]}"
    return not any(values), did


def _layout(reply: Received, body: FaultBody) -> tuple[bool, str]:
    length = len(reply.data)
    return length == 32, f"sent a fault of {length} bytes"


def _hint(reply: Received, body: FaultBody) -> tuple[bool, str]:
    return body.alloc_hint != 0, f"sent a fault with alloc_hint {body.alloc_hint}"


def _allowed_status(reply: Received, body: FaultBody) -> tuple[bool, str]:
    return body.status not in _FORBIDDEN, f"sent the status {name_fault(body.status)}"


def _context_of(expected: int) -> Callable[[Received, FaultBody], tuple[bool, str]]:
    def judge(reply: Received, body: FaultBody) -> tuple[bool, str]:
        # Windows keeps the lower byte only.
        return body.context in (
            expected,
            expected & 0xFF,
        ), f"sent a fault with context id 0x{body.context:04X}"

    return judge


@define(
    "fault.stub-executed",
    "10",
    Level.SHOULD,
    "whether a call with a bad stub was executed",
    "The flag DID_NOT_EXECUTE is set until control passes to the operation's stub.  A stub that cannot be read is met"
    " there, so that fault comes without it.",
    "C706 12.6.4.7",
)
def _stub_executed(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(request(b"", call_id=_CALL))
    if not isinstance(reply, Received) or reply.fault is None:
        raise NotApplicableError(f"{reply.describe()}, so there is no fault to look at")
    flagged, did = _did_not_execute(reply, reply.fault)
    return noted(did) if flagged else passed(did)


CASES: tuple[Case, ...] = (
    _unknown_context(9),
    _unknown_context(0xFFFF),
    _no_operation(1),
    _no_operation(0xFFFF),
    exchange(
        "fault.context-first",
        "5.4",
        Level.SHOULD,
        "operation 9 of a context that does not exist",
        "Without a context there is no operation that could be missing: the fault is nca_s_unk_if.",
        "C706 12.6.4.7",
        lambda subject: [request(context=_NOWHERE, opnum=9)],
        accept=(_UNKNOWN,),
        lawful=(_NO_OPERATION,),
        then=Then.STAYS,
    ),
    _field(
        "fault.call-id",
        Level.MUST,
        "the call id of a fault",
        "A fault has the call id of the call that failed; a client cannot tell otherwise which one that was.",
        "C706 12.6.4.7",
        _call_id,
        row="5.4",
    ),
    _field(
        "fault.flags",
        Level.MUST,
        "the flags of a fault",
        "A fault is a whole PDU: its flags are those of first and last fragment, and perhaps DID_NOT_EXECUTE.",
        "C706 12.6.4.7",
        _flags,
    ),
    _field(
        "fault.did-not-execute",
        Level.SHOULD,
        "the flag of a call that was not executed",
        "A call on a context that does not exist was surely not executed, and the fault says so by its flag.",
        "C706 12.6.4.7",
        _did_not_execute,
    ),
    _field(
        "fault.did-not-execute-operation",
        Level.SHOULD,
        "the flag of an operation that does not exist",
        "A call of an operation that does not exist was surely not executed, and the fault says so by its flag.",
        "C706 12.6.4.7",
        _did_not_execute,
        context=_CONTEXT,
        opnum=1,
    ),
    _field(
        "fault.no-context",
        Level.WINDOWS,
        "the context id where there is no context",
        "Windows sends the context id 0 in the fault for a context that does not exist.",
        "Samba's tests of Windows, ctx_invalid1",
        _context_of(0),
    ),
    _field(
        "fault.context-of-operation",
        Level.SHOULD,
        "the context id where there is no operation",
        "The fault for an operation that does not exist has the context id of the call.",
        "C706 12.6.4.7; Samba's tests of Windows, ctx_valid1",
        _context_of(_CONTEXT),
        context=_CONTEXT,
        opnum=1,
    ),
    _field(
        "fault.zeros",
        Level.MUST,
        "the bytes of a fault that have to be zero",
        "The cancel count, the flags and the reserved field of a fault are 0.  The lowest flag would announce extended"
        " error information, which a client would then look for.",
        "C706 12.6.4.7, MS-RPCE 2.2.2.8",
        _zeros,
    ),
    _field(
        "fault.length",
        Level.SHOULD,
        "the length of a fault",
        "A fault has 32 bytes and no stub.",
        "MS-RPCE 2.2.2.8",
        _layout,
    ),
    _field(
        "fault.hint",
        Level.WINDOWS,
        "the alloc_hint of a fault",
        "Windows sends an alloc_hint that is not zero.",
        "Samba's tests of Windows",
        _hint,
    ),
    _field(
        "fault.status",
        Level.MUST,
        "a status that servers never send",
        "Zero and some statuses of Windows itself are never sent in a fault.",
        "MS-RPCE 3.3.3.5.1",
        _allowed_status,
        row="0",
    ),
    _stub_executed,
)
