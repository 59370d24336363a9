"""
The remote management interface that every DCE/RPC server offers beside its own.

Each operation is a function from the facts of the server to the results in a stub; L{answer} finds it by its opnum.
A server without security tells who it is not (no principal name) and does not let itself be stopped from afar; all
else it answers truthfully.

Sources: C706 chapter "Remote Management Interface" and its IDL in appendix Q; "How a correct connection-oriented
DCE/RPC server behaves", section 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from kmsproto.rpc.ndr import StubReader, StubWriter
from kmsproto.rpc.pdu import SyntaxId
from kmsproto.rpc.state import Interface

#: C{rpc_s_ok}.
STATUS_OK = 0
#: C{rpc_s_access_denied}: what stop_server_listening is refused with.
STATUS_ACCESS_DENIED = 5
#: C{rpc_s_unknown_authn_service}: there is no authentication service, so nobody has a principal name.
STATUS_UNKNOWN_AUTHENTICATION_SERVICE = 0x16C9A011


@dataclass(slots=True)
class Statistics:
    """
    What a server counts over all its connections; the interface reports each modulo 2**32.
    """

    #: Calls that were received.
    calls_in: int = 0
    #: Calls that the server itself made elsewhere.
    calls_out: int = 0
    #: PDUs that were received.
    packets_in: int = 0
    #: PDUs that were sent.
    packets_out: int = 0


class Facts:
    """
    What the operations may tell.

    @ivar interfaces: The interfaces of the server, this one among them.
    @ivar statistics: The counts of the server.
    """

    def __init__(self, interfaces: Sequence[Interface], statistics: Statistics) -> None:
        self.interfaces = interfaces
        self.statistics = statistics


def _inq_if_ids(_arguments: StubReader, results: StubWriter, facts: Facts) -> None:
    count = len(facts.interfaces)
    results.pointer()
    results.bound(count)
    results.uint32(count)
    for _ in facts.interfaces:
        results.pointer()
    for interface in facts.interfaces:
        results.raw(interface.syntax.uuid.bytes_le, 4)
        results.uint16(interface.syntax.major)
        results.uint16(interface.syntax.minor)
    results.uint32(STATUS_OK)


def _inq_stats(arguments: StubReader, results: StubWriter, facts: Facts) -> None:
    counts = facts.statistics
    values = (counts.calls_in, counts.calls_out, counts.packets_in, counts.packets_out)[
        : arguments.uint32()
    ]
    results.uint32(len(values))
    results.bound(len(values))
    for value in values:
        results.uint32(value & 0xFFFFFFFF)
    results.uint32(STATUS_OK)


def _is_server_listening(_arguments: StubReader, results: StubWriter, _facts: Facts) -> None:
    results.uint32(STATUS_OK)
    results.uint32(1)


def _stop_server_listening(_arguments: StubReader, results: StubWriter, _facts: Facts) -> None:
    results.uint32(STATUS_ACCESS_DENIED)


def _inq_princ_name(arguments: StubReader, results: StubWriter, _facts: Facts) -> None:
    arguments.uint32()  # authn_proto: whichever it is, we do not have it
    size = arguments.uint32()
    # A conformant varying string: room for what the client has room for, and in it, if it fits, the empty name.
    name = b"\0"[:size]
    results.bound(size)
    results.bound(0)
    results.bound(len(name))
    results.raw(name, 1)
    results.uint32(STATUS_UNKNOWN_AUTHENTICATION_SERVICE)


_OPERATIONS: tuple[Callable[[StubReader, StubWriter, Facts], None], ...] = (
    _inq_if_ids,
    _inq_stats,
    _is_server_listening,
    _stop_server_listening,
    _inq_princ_name,
)

#: The interface, version 1.0.
MANAGEMENT = Interface(
    SyntaxId(UUID("afa8bd80-7d8a-11c9-bef4-08002b102989"), 1, 0), len(_OPERATIONS)
)


def answer(opnum: int, stub: bytes, syntax: SyntaxId, byte_order: str, facts: Facts) -> bytes:
    """
    Carry one operation out.

    @param opnum: Its number, which L{MANAGEMENT} has.
    @param stub: The arguments.
    @param syntax: The transfer syntax of the call.
    @param byte_order: C{"<"} or C{">"}, of the call.
    @return: The results.
    @raise kmsproto.rpc.ndr.BadStubError: If the stub is too short for the arguments, or big-endian in NDR64.
    """
    results = StubWriter(syntax)
    _OPERATIONS[opnum](StubReader(stub, syntax, byte_order), results, facts)
    return results.finish()
