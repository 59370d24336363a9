"""
A connection of a case: what cases do again and again, as scripts to be delegated to.

L{Link} cuts what comes into replies, numbers the calls, and makes the two judgements that most cases end with:
whether an ordinary call is still served, and whether the host closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmsproto.audit import packets
from kmsproto.audit.model import NotApplicableError, Script, Step, UndecidedError
from kmsproto.audit.packets import PLAIN, Element
from kmsproto.audit.replies import Closed, Noise, Received, Reply, Silence, excess
from kmsproto.audit.subject import Subject
from kmsproto.errors import RemoteProtocolError
from kmsproto.kms.envelopes import OpenedRequest
from kmsproto.rpc import ndr
from kmsproto.rpc.numbers import ContextResult, PacketType
from kmsproto.rpc.pdu import HEADER_LENGTH, NDR, BindAck, Header, SyntaxId, decode_header

#: The highest packet type that exists.
_HIGHEST_TYPE = max(PacketType)
#: What answers a call.
_ANSWERS = (PacketType.RESPONSE, PacketType.FAULT)
#: Where the call ids of ordinary calls begin, so that they differ from those that cases choose.
_FIRST_CALL = 0x4000


@dataclass(frozen=True, slots=True)
class Call:
    """
    An ordinary call that was sent.

    @ivar context: Its presentation context.
    @ivar syntax: How its stub is written.
    @ivar request: What has to be remembered to verify the answer.
    """

    call_id: int
    context: int
    syntax: SyntaxId
    request: OpenedRequest


class Link:
    """
    One connection.

    @param subject: The host.
    @ivar number: Which of the connections of the case it is.
    """

    def __init__(self, subject: Subject, number: int = 0) -> None:
        self.subject = subject
        self.number = number
        self._unused = bytearray()
        self._ended = False
        self._last_call = _FIRST_CALL
        self._answered = False

    # The steps.

    def connect(self) -> Script[None]:
        """
        Connect.
        """
        yield Step("connect", self.number)

    def send(self, *data: bytes, piece: int = 0) -> Script[None]:
        """
        Send one segment for each argument.

        @param piece: Bytes of each segment, instead.
        """
        for each in data:
            yield Step("send", self.number, each, piece)

    def finish(self) -> Script[None]:
        """
        Close the own direction.
        """
        yield Step("finish", self.number)

    def close(self) -> Script[None]:
        """
        Close the connection.
        """
        yield Step("close", self.number)

    def part(self) -> Script[None]:
        """
        Close the connection, and give the host a moment to close it too, so that it does not count any more.
        """
        yield from self.finish()
        yield from self.quiet()
        yield from self.close()

    def reply(self, seconds: float | None = None) -> Script[Reply]:
        """
        Wait for an answer.

        @param seconds: How long each piece of it may take; by default as long as the host has.
        """
        limit = self.subject.patience if seconds is None else seconds
        while True:
            reply = self._cut()
            if reply is not None:
                self._answered |= isinstance(reply, Received) and reply.type in _ANSWERS
                return reply
            if self._ended:
                return Closed()
            data = yield Step("receive", self.number, seconds=limit)
            if data is None:
                return Silence(limit, len(self._unused))
            if not data:
                self._ended = True
            self._unused += data

    def quiet(self) -> Script[Reply]:
        """
        Wait a moment, where the host need not say anything.
        """
        return (yield from self.reply(self.subject.quiet))

    def _cut(self) -> Reply | None:
        """
        Take the next PDU out of what came; L{None} if more is needed.
        """
        data = self._unused
        if len(data) < HEADER_LENGTH:
            # What begins like no PDU and then stops would only be waited for.
            if not data or not self._ended:
                return None
            return self._noise()
        header = decode_header(data)
        if (
            header.packet_type > _HIGHEST_TYPE
            or not header.byte_order
            or header.frag_length < HEADER_LENGTH
        ):
            return self._noise()
        if len(data) < header.frag_length:
            return self._noise() if self._ended else None
        length = header.frag_length + excess(header, data)
        if len(data) < length and not self._ended:
            return None
        whole = bytes(data[:length])
        del data[:length]
        return Received(header, whole)

    def _noise(self) -> Noise:
        data = bytes(self._unused)
        self._unused.clear()
        return Noise(data)

    # What cases are made of.

    def bind(self, *elements: Element, flags: int = 0x03) -> Script[BindAck]:
        """
        Connect and bind in the ordinary way.

        @param elements: By default NDR as context 0.
        @raise UndecidedError: If the host does not acknowledge it.
        """
        offered = elements or (PLAIN,)
        yield from self.connect()
        yield from self.send(packets.bind(*offered, flags=flags))
        reply = yield from self.reply()
        ack = reply.ack if isinstance(reply, Received) else None
        if ack is None or len(ack.results) != len(offered):
            raise UndecidedError(f"{reply.describe()} when it was asked for an ordinary bind")
        return ack

    def bound(self, *elements: Element, flags: int = 0x03) -> Script[BindAck]:
        """
        Connect and bind, with contexts that all have to be accepted.

        @raise UndecidedError: If one is not.
        """
        ack = yield from self.bind(*elements, flags=flags)
        for result in ack.results:
            if result.result != ContextResult.ACCEPTANCE:
                raise UndecidedError("did not accept the context that this is tried on")
        return ack

    def exchange(self, *data: bytes) -> Script[Reply]:
        """
        Send something and wait for the answer.
        """
        yield from self.send(*data)
        return (yield from self.reply())

    def needs_several_calls(self) -> None:
        """
        Say that more than one call will be made.

        @raise NotApplicableError: If the host closes each connection after a call.
        """
        if self.subject.single_call:
            raise NotApplicableError("closes each connection after a call")

    def needs_neighbours(self) -> None:
        """
        Say that more than one connection will be open at a time.

        @raise NotApplicableError: If the host serves one only.
        """
        if self.subject.single_connection:
            raise NotApplicableError("serves one connection at a time")

    @property
    def is_spent(self) -> bool:
        """
        Whether the host owes this connection nothing more, for it closes each after a call.
        """
        return self.subject.single_call and self._answered

    def make_call(
        self, context: int = 0, syntax: SyntaxId = NDR, version: int | None = None
    ) -> tuple[bytes, Call]:
        """
        Make an ordinary call in one PDU.
        """
        self._last_call += 1
        payload, request = self.subject.seal(version)
        sent = packets.request(
            packets.stub(payload, syntax), context=context, call_id=self._last_call
        )
        return sent, Call(self._last_call, context, syntax, request)

    def serve(self, context: int = 0, syntax: SyntaxId = NDR) -> Script[str]:
        """
        Make an ordinary call.

        @return: What is wrong with the answer, as the rest of a sentence that begins with "it"; empty if it is served,
            and where it cannot be for the host closes each connection after a call.
        """
        if self.is_spent:
            return ""
        sent, call = self.make_call(context, syntax)
        reply = yield from self.exchange(sent)
        return self.problem_of(reply, call)

    def problem_of(self, reply: Reply, call: Call) -> str:
        """
        Tell what is wrong with the answer to an ordinary call; empty if it was served as such calls are.
        """
        response = reply.response if isinstance(reply, Received) else None
        if not isinstance(reply, Received) or response is None:
            return f"{reply.describe()} where an ordinary call has to be served"
        if reply.header.call_id != call.call_id:
            return f"answered call {call.call_id} with the call id {reply.header.call_id}"
        try:
            _, hresult = read_answer(reply.header, response.stub, call.syntax)
        except RemoteProtocolError as problem:
            return f"answered an ordinary call with a stub that cannot be read: {problem}"
        if hresult != self.subject.hresult:
            return f"answered an ordinary call with 0x{hresult:08X}, otherwise with 0x{self.subject.hresult:08X}"
        return ""


def read_answer(header: Header, stub: bytes, syntax: SyntaxId) -> tuple[bytes, int]:
    """
    Read the stub of an answer.

    @return: The KMS response and the HRESULT.
    @raise kmsproto.errors.RemoteProtocolError: If it cannot be read, or grants and has no KMS response.
    """
    payload, hresult = ndr.decode_activation_response(stub, syntax, header.byte_order)
    if not hresult and not payload:
        raise RemoteProtocolError("an HRESULT of 0 without a KMS response")
    return payload, hresult
