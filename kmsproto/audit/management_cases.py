"""
Cases about the interface for remote management that every DCE/RPC server offers beside its own.

Source: "How a correct connection-oriented DCE/RPC server behaves", section 14; C706, "Remote Management Interface".
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from kmsproto.audit.exchanges import conclude
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
from kmsproto.audit.packets import KMS, MANAGEMENT, element, request
from kmsproto.audit.replies import Received, Reply, fault, name_fault
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.pdu import NDR, encode_syntax

_SOURCE = "C706, chapter Remote Management Interface"
_MANAGED = (element(1, NDR, abstract=MANAGEMENT),)
#: rpc_s_access_denied.
_ACCESS_DENIED = 5


def _call(link: Link, opnum: int, arguments: bytes = b"") -> Script[Reply]:
    """
    Call an operation, on a connection of its own.

    @raise NotApplicableError: If there is no such interface.
    """
    if not link.subject.management:
        raise NotApplicableError("has no management interface")
    yield from link.bound(*_MANAGED)
    return (yield from link.exchange(request(arguments, context=1, opnum=opnum, call_id=30)))


def _operation(
    name: str,
    opnum: int,
    title: str,
    rule: str,
    judge: Callable[[bytes], tuple[bool, str]],
    arguments: bytes = b"",
    level: Level = Level.SHOULD,
) -> Case:
    """
    One operation.

    @param judge: Tells of the results whether they are right, and what the host did.
    """

    def body(subject: Subject) -> Script[Verdict]:
        reply = yield from _call(Link(subject), opnum, arguments)
        response = reply.response if isinstance(reply, Received) else None
        if response is None:
            return failed(f"{reply.describe()}; expected: a response")
        right, did = judge(response.stub)
        return passed(did) if right else failed(did)

    return define(f"management.{name}", "14", level, title, rule, _SOURCE)(body)


@define(
    "management.offered",
    "14",
    Level.SHOULD,
    "the management interface",
    "Every server offers this interface on each of its endpoints, beside its own.",
    _SOURCE,
)
def _offered(subject: Subject) -> Script[Verdict]:
    yield from Link(subject).connect()
    if subject.management:
        return passed("offers it")
    return failed("does not offer it")


def _interfaces(stub: bytes) -> tuple[bool, str]:
    # The vector has pointers and lengths in front; it is the ids in it that matter.
    found = encode_syntax(KMS) in stub
    own = encode_syntax(MANAGEMENT) in stub
    status = stub[-4:]
    if len(stub) < 32 or status != bytes(4):
        return False, f"answered with {len(stub)} bytes that are no list of interfaces"
    if not found:
        return False, "listed its interfaces without that of KMS"
    return True, f"listed the KMS interface{' and this one' if own else ''}"


def _statistics(stub: bytes) -> tuple[bool, str]:
    if len(stub) < 12 or (len(stub) - 12) % 4:
        return False, f"answered with {len(stub)} bytes that are no statistics"
    count, bound, *values, status = struct.unpack(f"<{len(stub) // 4}I", stub)
    if count != bound or count != len(values) or status:
        return False, f"answered with {count} statistics in an array of {bound}, status {status}"
    return True, f"gave {count} statistics"


def _listening(stub: bytes) -> tuple[bool, str]:
    if len(stub) != 8:
        return False, f"answered with {len(stub)} bytes; expected: 8"
    status, listening = struct.unpack("<II", stub)
    did = f"answered with the status {status} and {bool(listening)}"
    return status == 0 and listening == 1, did


def _principal(stub: bytes) -> tuple[bool, str]:
    if len(stub) < 16:
        return False, f"answered with {len(stub)} bytes that hold no name"
    status = int.from_bytes(stub[-4:], "little")
    did = f"answered with the status 0x{status:08X}"
    return status != 0, did


@define(
    "management.operation-5",
    "14",
    Level.SHOULD,
    "operation 5 of the management interface",
    "The interface has five operations, 0 to 4; another has the fault nca_s_op_rng_error.",
    _SOURCE,
)
def _operation_5(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    reply = yield from _call(link, 5)
    return (yield from conclude(link, reply, (fault(FaultStatus.OP_RNG_ERROR),)))


@define(
    "management.stop",
    "14",
    Level.MUST,
    "a client that tells the host to stop",
    "Nobody may stop a host from afar without being authorized: the answer is access denied, and the host goes on.",
    _SOURCE,
)
def _stop(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    reply = yield from _call(link, 3)
    response = reply.response if isinstance(reply, Received) else None
    body = reply.fault if isinstance(reply, Received) else None
    if response is not None:
        status = int.from_bytes(response.stub[-4:], "little")
        if not status:
            return failed("said that it stops")
        did = f"refused with the status 0x{status:08X}"
    elif body is not None:
        did = f"refused with the fault {name_fault(body.status)}"
        status = _ACCESS_DENIED
    else:
        return failed(f"{reply.describe()}; expected: access denied")
    yield from link.part()
    after = Link(subject, 1)
    yield from after.bound()
    problem = yield from after.serve()
    if problem:
        return failed(f"{did}, and then {problem}")
    return passed(did) if status == _ACCESS_DENIED else noted(did)


CASES: tuple[Case, ...] = (
    _offered,
    _operation(
        "interfaces",
        0,
        "the list of interfaces",
        "The operation inq_if_ids names the interfaces of the server, that of KMS among them.",
        _interfaces,
    ),
    _operation(
        "statistics",
        1,
        "the statistics",
        "The operation inq_stats tells as many statistics as were asked for and there are.",
        _statistics,
        struct.pack("<II", 4, 0),
    ),
    _operation(
        "listening",
        2,
        "whether the host listens",
        "The operation is_server_listening answers true.",
        _listening,
    ),
    _operation(
        "principal",
        4,
        "the principal name of a host without security",
        "The operation inq_princ_name has nothing to tell without an authentication service, and says so by its"
        " status.",
        _principal,
        struct.pack("<II", 0, 64),
    ),
    _operation_5,
    _stop,
)
