"""
What a decoder finds: PDUs, calls and remarks, as plain data.

A call is one event, told when its answer is there or nothing more can come: what was asked, what was answered, and
what there is to say about both.  All other PDUs are events of their own.  A remark is about the traffic itself: bytes
that are missing, or that make no sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kmsproto.kms.envelopes import OpenedRequest
from kmsproto.kms.hresults import HResult
from kmsproto.kms.verification import Verified
from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.pdu import Header, SyntaxId


@dataclass(frozen=True, slots=True)
class Conversation:
    """
    One connection, or a dump.

    @ivar number: Counted from 1; 0 for a dump that is no connection.
    @ivar client: Address and port of the client, or of whoever sent first if that is not known; empty in a dump.
    @ivar host: Those of the other side.
    """

    number: int = 0
    client: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class PDUSeen:
    """
    A PDU that is no part of a call to the KMS interface.

    @ivar conversation: Where.
    @ivar time: When, in nanoseconds since 1970; 0 if that is not known.
    @ivar sender: C{"client"} or C{"host"}; empty if that is not known.
    @ivar header: Its header.
    @ivar data: All of it.
    @ivar problems: What is wrong with it.
    """

    conversation: Conversation
    time: int
    sender: str
    header: Header
    data: bytes
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """
    One half of a call: the request or the answer, of one or more PDUs.

    @ivar time: When it was complete, in nanoseconds since 1970; 0 if that is not known.
    @ivar first: The first PDU.
    @ivar byte_order: C{"<"} or C{">"}, of its integers.
    @ivar stub: The arguments or results of all PDUs together.
    @ivar fragments: How many PDUs there were.
    """

    time: int
    first: bytes
    byte_order: str
    stub: bytes
    fragments: int


class Outcome(Enum):
    """
    What came of a call.
    """

    GRANTED = "granted"  #: an answer with data, and all that can be checked is right
    REFUSED = "refused"  #: an HRESULT other than zero
    FAULT = "fault"  #: a fault PDU
    INVALID = "invalid"  #: an answer that cannot be read, or that failed a check
    UNANSWERED = "unanswered"  #: there is no answer


@dataclass(frozen=True, slots=True)
class CallSeen:
    """
    A call to the KMS interface, or what there is of one.

    @ivar conversation: Where.
    @ivar call_id: The client's number for it; 0 for messages without RPC around them.
    @ivar context_id: The presentation context.
    @ivar opnum: The operation; 0 is the activation.
    @ivar request: The request, if it is there.
    @ivar response: The answer, be it a response or a fault, if it is there.
    @ivar fault: The status, if it is a fault.
    @ivar syntax: The transfer syntax, if one fits.
    @ivar guessed: Whether the syntax was found out by trying, because no agreement on it was seen.
    @ivar asked: The KMS request, as it travelled; L{None} if there is none that can be cut out.
    @ivar opened: The same opened; L{None} if it cannot be opened.
    @ivar hresult: The HRESULT of the answer.
    @ivar answered: The KMS answer, as it travelled; empty if there is only an HRESULT.
    @ivar verified: The checks of the answer; L{None} if there was nothing to check, or no request to check it with.
    @ivar problems: What is wrong.
    @ivar remarks: What else there is to say.
    """

    conversation: Conversation
    call_id: int = 0
    context_id: int = 0
    opnum: int = 0
    request: Part | None = None
    response: Part | None = None
    fault: int | None = None
    syntax: SyntaxId | None = None
    guessed: bool = False
    asked: bytes | None = None
    opened: OpenedRequest | None = None
    hresult: int | None = None
    answered: bytes | None = None
    verified: Verified | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def time(self) -> int:
        """
        When it began, in nanoseconds since 1970; 0 if that is not known.
        """
        part = self.request or self.response
        return 0 if part is None else part.time

    @property
    def outcome(self) -> Outcome:
        """
        What came of it.
        """
        if self.fault is not None:
            return Outcome.FAULT
        if self.hresult is None:
            return Outcome.UNANSWERED if self.response is None else Outcome.INVALID
        if self.hresult:
            return Outcome.REFUSED
        if not self.answered or (self.verified is not None and self.verified.failed):
            return Outcome.INVALID
        return Outcome.GRANTED

    @property
    def result(self) -> str:
        """
        What came of it, in a few words.
        """
        if self.fault is not None:
            return f"fault 0x{self.fault:08X} ({FaultStatus.describe(self.fault)})"
        if self.hresult:
            return f"refused: 0x{self.hresult:08X}, {HResult(self.hresult).meaning}"
        return self.outcome.value


@dataclass(frozen=True, slots=True)
class Remark:
    """
    Something about the traffic itself.

    @ivar conversation: Where.
    @ivar time: When, in nanoseconds since 1970; 0 if that is not known.
    @ivar text: What there is to say.
    @ivar is_problem: Whether somebody did something wrong, and it is not only that something is missing here.
    """

    conversation: Conversation
    time: int
    text: str
    is_problem: bool


#: What is found.
Event = PDUSeen | CallSeen | Remark
