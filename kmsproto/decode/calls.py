"""
Calls, put together from their fragments and matched with their answers.

The two directions of a connection arrive one independent of the other, so an answer may be here before its request:
it waits for it.  A call is told once both are there, or as soon as it is clear that one of them will not come.  How
many calls are open and how large a stub may be is bounded.

Source: C706 12.6.4.9 and 12.6.4.10; "How a correct connection-oriented DCE/RPC server behaves", section 6.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from kmsproto.decode.events import Part
from kmsproto.rpc.numbers import MAX_STUB, PacketFlag
from kmsproto.rpc.pdu import CALL_PREFIX_LENGTH, OBJECT_LENGTH, Header

#: Calls of a connection that are open at the same time.
MAX_OPEN = 256
#: How long an answer waits for its request, in nanoseconds.
MAX_DELAY = 2_000_000_000
#: Bytes that a part of a stub costs beside its data; a call costs as much as eight of them.
_COST = 64
#: Bytes of a PDU before its stub that are kept.
_MAX_PREFIX = CALL_PREFIX_LENGTH + OBJECT_LENGTH


@dataclass(slots=True)
class _Stub:
    """
    A stub of which fragments have come.
    """

    first: bytes
    byte_order: str
    parts: list[bytes] = field(default_factory=list)
    length: int = 0
    fragments: int = 0


@dataclass(slots=True)
class OpenCall:
    """
    A call that was not told yet.

    @ivar call_id: The client's number for it.
    @ivar context_id: The presentation context, of the request if it is there.
    @ivar opnum: The operation, if the request is there.
    @ivar request: The request, once it is complete.
    @ivar response: The answer, once it is complete; also a fault.
    @ivar fault: The status, if the answer is a fault.
    @ivar problems: What is wrong with its fragments.
    @ivar remarks: What of it is not in the capture.
    @ivar held: Bytes that it keeps.
    """

    call_id: int
    context_id: int = 0
    opnum: int = 0
    request: Part | None = None
    response: Part | None = None
    fault: int | None = None
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    stubs: dict[str, _Stub] = field(default_factory=dict)
    held: int = 8 * _COST

    def add(
        self, kind: str, header: Header, data: bytes, stub: bytes, time: int, *, lossy: bool
    ) -> Part | None:
        """
        Add a fragment.

        @param kind: C{"request"} or C{"response"}.
        @param data: The PDU.
        @param stub: The part of the stub that it brings.
        @param lossy: Whether bytes before it may be missing.
        @return: The whole, if this is the last fragment.
        """
        begun = self.stubs.get(kind)
        if header.flags & PacketFlag.FIRST:
            if begun is not None:
                self.problems.append(f"a first fragment of the {kind} stands among others")
            begun = None
        elif begun is None:
            whose = self.remarks if lossy else self.problems
            whose.append(f"the first fragment of the {kind} is missing")
        elif begun.byte_order != header.byte_order:
            self.problems.append(f"the byte order changes within the {kind}")
        if begun is None:
            begun = self.stubs[kind] = _Stub(data[:_MAX_PREFIX], header.byte_order)
        begun.fragments += 1
        room = MAX_STUB - begun.length
        if len(stub) > room and begun.length < MAX_STUB:
            self.problems.append(f"the {kind} is larger than {MAX_STUB} bytes")
        if stub and room > 0:
            begun.parts.append(stub[:room])
            begun.length += len(begun.parts[-1])
            self.held += len(begun.parts[-1]) + _COST
        if not header.flags & PacketFlag.LAST:
            return None
        del self.stubs[kind]
        whole = b"".join(begun.parts)
        return Part(time, begun.first, begun.byte_order, whole, begun.fragments)


class CallTable:
    """
    The open calls of a connection.

    @ivar lossy: Whether bytes are missing.
    @ivar held: Bytes that they keep.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[int, OpenCall] = OrderedDict()
        #: Those whose answer waits for the request, the longest first.
        self._answered: OrderedDict[int, None] = OrderedDict()
        self.lossy = False
        self.held = 0

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._calls

    def request(
        self, header: Header, data: bytes, context_id: int, opnum: int, stub: bytes, time: int
    ) -> list[OpenCall]:
        """
        Add a request PDU.

        @param data: All of it.
        @param stub: The part of the stub that it brings.
        @return: The calls that can be told.
        """
        told = []
        call = self._calls.get(header.call_id)
        if call is not None and call.request is not None:
            # Its number is used once more, so nothing more will come of it.
            told.append(self._take(header.call_id))
            call = None
        if call is None:
            call = self._begin(header.call_id, told)
        if "request" not in call.stubs:
            call.context_id, call.opnum = context_id, opnum
        call.request = self._add(call, "request", header, data, stub, time)
        return told + self._completed(call)

    def response(
        self, header: Header, data: bytes, context_id: int, stub: bytes, time: int
    ) -> list[OpenCall]:
        """
        Add a response PDU.

        @return: The calls that can be told.
        """
        told: list[OpenCall] = []
        call = self._answering(header.call_id, context_id, told)
        call.response = self._add(call, "response", header, data, stub, time)
        return told + self._completed(call)

    def fault(
        self, header: Header, data: bytes, context_id: int, status: int, time: int
    ) -> list[OpenCall]:
        """
        Add a fault PDU.

        @return: The calls that can be told.
        """
        told: list[OpenCall] = []
        call = self._answering(header.call_id, context_id, told)
        call.fault = status
        call.response = Part(time, data, header.byte_order, b"", 1)
        return told + self._completed(call)

    def overdue(self, time: int) -> list[OpenCall]:
        """
        Give up waiting for the requests of answers that have been here for long.

        @param time: The time now, in nanoseconds.
        @return: The calls that can be told.
        """
        told = []
        while self._answered:
            call = self._calls[next(iter(self._answered))]
            if call.response is None or time - call.response.time <= MAX_DELAY:
                break
            told.append(self._take(call.call_id))
        return told

    def interrupt(self, kind: str) -> None:
        """
        Give up the stubs that cannot be completed, because bytes are missing.

        @param kind: C{"request"} or C{"response"}.
        """
        self.lossy = True
        for call in self._calls.values():
            if call.stubs.pop(kind, None) is not None:
                call.remarks.append(f"a fragment of the {kind} is missing")

    def finish(self) -> list[OpenCall]:
        """
        Tell all calls: nothing more will come.
        """
        return [self._take(call_id) for call_id in list(self._calls)]

    def _begin(self, call_id: int, told: list[OpenCall]) -> OpenCall:
        if len(self._calls) >= MAX_OPEN:
            told.append(self._take(next(iter(self._calls))))
        call = self._calls[call_id] = OpenCall(call_id)
        self.held += call.held
        return call

    def _add(
        self, call: OpenCall, kind: str, header: Header, data: bytes, stub: bytes, time: int
    ) -> Part | None:
        before = call.held
        whole = call.add(kind, header, data, stub, time, lossy=self.lossy)
        self.held += call.held - before
        return whole

    def _take(self, call_id: int) -> OpenCall:
        """
        Take a call out.
        """
        call = self._calls.pop(call_id)
        self._answered.pop(call_id, None)
        self.held -= call.held
        return call

    def _answering(self, call_id: int, context_id: int, told: list[OpenCall]) -> OpenCall:
        """
        Find the call that an answer belongs to.
        """
        call = self._calls.get(call_id)
        if call is not None and call.response is not None:
            told.append(self._take(call_id))
            call = None
        if call is None:
            call = self._begin(call_id, told)
            call.context_id = context_id
        return call

    def _completed(self, call: OpenCall) -> list[OpenCall]:
        """
        Take a call out that has both its halves; a fault needs no whole request.
        """
        if call.response is None:
            return []
        if call.request is None and (call.fault is None or "request" not in call.stubs):
            self._answered[call.call_id] = None
            return []
        return [self._take(call.call_id)]
