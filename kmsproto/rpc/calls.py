"""
What the server side tells its owner: calls, and what became of those that nobody has to answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.state import Context


@dataclass(slots=True, eq=False)
class Call:
    """
    One call of a client, whole.

    @ivar call_id: The client's number for it.
    @ivar context_id: The presentation context that it came on.
    @ivar context: The interface and the transfer syntax of that context.
    @ivar opnum: The operation, which the interface has.
    @ivar byte_order: C{"<"} or C{">"}, of the integers of its stub.
    @ivar stub: The arguments.
    @ivar orphaned: Whether the client has lost interest in the answer.
    """

    call_id: int
    context_id: int
    context: Context
    opnum: int
    byte_order: str
    stub: bytes
    orphaned: bool = False


@dataclass(slots=True, frozen=True)
class CallReceived:
    """
    A call waits for its answer.
    """

    call: Call


@dataclass(slots=True, frozen=True)
class CallRefused:
    """
    A call was answered with a fault, and the connection goes on.
    """

    call_id: int
    status: FaultStatus
    problem: str


@dataclass(slots=True, frozen=True)
class ConnectionRefused:
    """
    The peer broke the protocol: what there is to send is the last, and the connection is to be closed after it.
    """

    problem: str


#: What a segment may lead to.
Event = CallReceived | CallRefused | ConnectionRefused


@dataclass(slots=True)
class PartialCall:
    """
    A call of which the last fragment has not come yet.
    """

    call: Call
    parts: list[bytes] = field(default_factory=list)
    length: int = 0
