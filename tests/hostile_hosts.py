"""
Hosts that mean no good, on real sockets: what a client may meet on any port that it is pointed at.

Each is a row of L{HOSTILE_HOSTS}: a function that is given one connection and does its worst with it, and what the
client has to say of that.  L{serving} puts such a host on a port of the loopback address::

    with serving(HOSTILE_HOSTS["silence"]) as port:
        ...

The hosts follow the protocol up to the point where they leave it; so they meet any client that offers the KMS
interface, whatever it offers with it and in whatever version it asks.  What they say is the same in every run, except
for echoes of what the client drew.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.calls import Call
from kmsproto.rpc.numbers import WHOLE, PacketFlag, PacketType
from kmsproto.rpc.pdu import Negotiated, SyntaxId
from tests.hostile_wire import (
    Act,
    Behaviour,
    Conversation,
    answer,
    bind_ack,
    old_answer,
    response,
    serving,
    stub_of_sizes,
    with_auth_length,
    with_frag_length,
)

__all__ = ["HOSTILE_HOSTS", "STEERING_EPID", "Behaviour", "serving"]

#: An ePID that clears a screen, sets a title, ends lines, and turns the direction of writing.
STEERING_EPID = "\x1b[2J\x1b]0;owned\x07\r\nePID: \u202e\x9b31m"
#: PDUs in one segment of a flood.
_FLOOD = 400
#: The result of a context that is accepted.
ACCEPTED = Negotiated(0, 0, pdu.NDR)
#: What no client offers.
UNKNOWN_SYNTAX = SyntaxId(UUID(int=0xABCDEF), 1, 0)
_NOT_RPC = "does not speak DCE/RPC version 5.0"
_LATE_BIND = "did not answer the bind within"
_LATE_ANSWER = "did not answer the activation request within"
_GONE = "closed the connection before it answered|no connection: "
_CHECK = r"the answer failed a check \(%s\): "


class Asked(NamedTuple):
    """
    What a host has to know of a bind in order to answer it.

    @ivar call_id: Its number.
    @ivar contexts: How many contexts it offers.
    """

    call_id: int
    contexts: int


def _read_bind(host: Conversation) -> Asked:
    header, data = host.read_pdu()
    return Asked(header.call_id, len(pdu.decode_bind(header, data).elements))


def on_connection(data: bytes) -> Act:
    """
    Say something that is no answer, whatever the client says, and wait.
    """

    def act(host: Conversation) -> None:
        host.send(data)
        host.wait()

    return act


def on_bind(make: Callable[[Asked], bytes]) -> Act:
    """
    Answer the bind with anything, and wait.
    """

    def act(host: Conversation) -> None:
        host.send(make(_read_bind(host)))
        host.wait()

    return act


def with_results(result: Negotiated) -> Act:
    """
    Answer the bind with the same result for each context.
    """
    return on_bind(lambda asked: bind_ack(asked.call_id, (result,) * asked.contexts))


def with_so_many_results(count: int) -> Act:
    """
    Answer the bind with results for as many contexts.
    """
    return on_bind(lambda asked: bind_ack(asked.call_id, (ACCEPTED,) * count))


def on_call(make: Callable[[Call], bytes]) -> Act:
    """
    Answer each call with any bytes.
    """

    def act(host: Conversation) -> None:
        host.bind()
        for call in host.calls():
            host.send(make(call))

    return act


def with_stub(make: Callable[[Call], bytes]) -> Act:
    """
    Answer each call with any stub.
    """

    def act(host: Conversation) -> None:
        host.bind()
        for call in host.calls():
            host.respond(call, make(call))

    return act


def with_epid(epid: bytes, size: int | None = None) -> Act:
    """
    Answer each call well, but for the ePID.
    """
    return with_stub(lambda call: answer(call, epid=epid, size=size))


def flooding(data: bytes) -> Act:
    """
    Send the same for ever, from the beginning.
    """
    return lambda host: host.flood(data)


def flooding_behind(make: Callable[[Call], tuple[bytes, bytes]]) -> Act:
    """
    Answer the first call, and then send something for ever.

    @param make: Makes the answer, and what is repeated behind it.
    """

    def act(host: Conversation) -> None:
        host.bind()
        for call in host.calls():
            first, endless = make(call)
            host.send(first)
            host.flood(endless * _FLOOD)

    return act


def _half_an_answer(host: Conversation) -> None:
    host.bind()
    for call in host.calls():
        host.send(response(call, WHOLE, answer(call))[:100])
        return


def _drip_bind_ack(host: Conversation) -> None:
    host.drip(host.good_bind_ack())
    host.wait()


def _drip_answer(host: Conversation) -> None:
    host.bind()
    for call in host.calls():
        host.drip(response(call, WHOLE, answer(call)))


def _drip_fragments(host: Conversation) -> None:
    host.bind()
    for call in host.calls():
        host.send(response(call, PacketFlag.FIRST, b""))
        host.drip(response(call, 0, b"") * 100)


def _flood_of_bind_acks(host: Conversation) -> None:
    asked = _read_bind(host)
    host.flood(bind_ack(asked.call_id + 1000, (ACCEPTED,) * asked.contexts) * _FLOOD)


def _reset_after_bind(host: Conversation) -> None:
    host.bind()
    host.reset()


def _half_closed_after_bind(host: Conversation) -> None:
    host.bind()
    host.socket.shutdown(socket.SHUT_WR)
    host.wait()


def _reset_for_an_answer(host: Conversation) -> None:
    host.bind()
    for _ in host.calls():
        host.reset()
        return


def _answer_once(host: Conversation) -> None:
    host.bind()
    for call in host.calls():
        host.send(response(call, WHOLE, answer(call)))
        return


def _replay(host: Conversation) -> None:
    host.bind()
    for call in host.calls():
        host.respond(call, old_answer(call))


def _vast_alloc_hint(call: Call) -> bytes:
    data = response(call, WHOLE, answer(call))
    return data[:16] + b"\xff\xff\xff\xff" + data[20:]


def _silent_after_bind(host: Conversation) -> None:
    host.bind()
    host.wait()


def _endless_answers(call: Call) -> tuple[bytes, bytes]:
    whole = response(call, WHOLE, answer(call))
    return whole, whole


def _claims(length: int) -> Act:
    """
    Answer the bind with a PDU that tells another length than it has.
    """
    return on_bind(
        lambda asked: with_frag_length(
            bind_ack(asked.call_id, (ACCEPTED,) * asked.contexts), length
        )
    )


def _sized(size: int, max_count: int, rest: bytes) -> Act:
    return with_stub(lambda call: stub_of_sizes(call, size, max_count, rest))


def _upper_halves(call: Call) -> bytes:
    """
    Let the array have as many elements as there are bytes, if one looks at the lower half of the number only.
    """
    is_ndr64 = call.context.transfer_syntax == pdu.NDR64
    return stub_of_sizes(call, 4, 0xFFFFFFFF_00000004 if is_ndr64 else 0xFFFF0004, bytes(300))


def _zeros(length: int) -> Act:
    return with_stub(lambda call: bytes(length))


def _random_pdus() -> bytes:
    """
    Make PDUs with good headers, of types that nobody knows, and with anything in them.
    """
    draw = random.Random(5)
    return b"".join(
        pdu.encode_pdu(draw.randrange(20, 256), size, size, draw.randbytes(size))
        for size in range(256)
    )


#: What hosts do, by a name.
HOSTILE_HOSTS: dict[str, Behaviour] = {
    # Before a word is said.
    "nobody accepts": Behaviour(
        lambda host: None, "no connection within", waits=True, accepts=False
    ),
    "silence": Behaviour(Conversation.wait, _LATE_BIND, waits=True),
    "never reads": Behaviour(Conversation.idle, _LATE_BIND, waits=True, reads=False),
    "reset at once": Behaviour(Conversation.reset, _GONE),
    "close at once": Behaviour(lambda host: None, _GONE),
    # What is not RPC.
    "HTTP": Behaviour(
        on_connection(b"HTTP/1.1 400 Bad Request\r\nServer: \x1b[2J\r\n\r\n"), _NOT_RPC
    ),
    "SSH banner": Behaviour(flooding(b"SSH-2.0-\x1b]0;owned\x07\r\n"), _NOT_RPC),
    "TLS alert": Behaviour(on_connection(b"\x15\x03\x03\x00\x02\x02\x46"), _NOT_RPC),
    "TLS server hello": Behaviour(
        on_connection(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(113)), _NOT_RPC
    ),
    "zeros": Behaviour(flooding(bytes(65536)), _NOT_RPC),
    "random bytes": Behaviour(flooding(b"\xfe" + random.Random(6).randbytes(65535)), _NOT_RPC),
    "random PDUs": Behaviour(flooding(_random_pdus()), "sent a PDU of type"),
    "version 5.1": Behaviour(on_connection(b"\5\1" + bytes(100)), _NOT_RPC),
    # The answer to the bind.
    "frag_length 0": Behaviour(_claims(0), "a header that makes no sense"),
    "frag_length 15": Behaviour(_claims(15), "a header that makes no sense"),
    "frag_length 16": Behaviour(_claims(16), "reach beyond the end"),
    "frag_length 65535": Behaviour(_claims(0xFFFF), _LATE_BIND, waits=True),
    "half a bind_ack": Behaviour(lambda host: host.send(host.good_bind_ack()[:40]), _GONE),
    "bind_ack drips": Behaviour(_drip_bind_ack, _LATE_BIND, waits=True),
    "bind_ack of another call": Behaviour(
        on_bind(lambda asked: bind_ack(asked.call_id + 1, (ACCEPTED,) * asked.contexts)),
        "acknowledged call [0-9]+, which was not made",
    ),
    "flood of bind_acks": Behaviour(_flood_of_bind_acks, "acknowledged call"),
    "bind_ack without results": Behaviour(
        with_so_many_results(0), "contexts? were offered, but 0 were judged"
    ),
    "bind_ack with 255 results": Behaviour(
        with_so_many_results(255), "contexts? were offered, but 255 were judged"
    ),
    "bind_ack with a long address": Behaviour(
        on_bind(
            lambda asked: bind_ack(asked.call_id, (ACCEPTED,) * asked.contexts, b"\xff\xff1688\0")
        ),
        "reach beyond the end",
    ),
    "bind_ack with an auth trailer": Behaviour(
        on_bind(
            lambda asked: with_auth_length(
                bind_ack(asked.call_id, (ACCEPTED,) * (asked.contexts + 1)), 16
            )
        ),
        "an authentication trailer that nobody asked for",
    ),
    "bind_ack with a syntax not offered": Behaviour(
        with_results(Negotiated(0, 0, UNKNOWN_SYNTAX)), "with a syntax that was not offered"
    ),
    "bind_ack without contexts": Behaviour(
        with_results(Negotiated(2, 2, pdu.NO_SYNTAX)), "no transfer syntax for the KMS interface"
    ),
    "bind_nak with a flood behind": Behaviour(
        on_bind(lambda asked: pdu.encode_bind_nak(asked.call_id, 0xFFFF) + bytes(1_000_000)),
        "refused with bind_nak reason 65535",
    ),
    "a bind for a bind": Behaviour(
        on_bind(lambda asked: pdu.encode_pdu(PacketType.BIND, WHOLE, asked.call_id, bytes(12))),
        "sent a PDU of type 11",
    ),
    # The answer to the call.
    "reset after the bind": Behaviour(_reset_after_bind, _GONE),
    "half-closed after the bind": Behaviour(_half_closed_after_bind, _GONE),
    "reset for an answer": Behaviour(_reset_for_an_answer, _GONE),
    "silence after the bind": Behaviour(_silent_after_bind, _LATE_ANSWER, waits=True),
    "half an answer": Behaviour(_half_an_answer, _GONE),
    "answer drips": Behaviour(_drip_answer, _LATE_ANSWER, waits=True),
    "fragments drip": Behaviour(_drip_fragments, _LATE_ANSWER, waits=True),
    "answer to another call": Behaviour(
        on_call(lambda call: response(call, WHOLE, answer(call), call_id=call.call_id + 1)),
        "answered call [0-9]+, which was not made",
    ),
    "flood of faults": Behaviour(
        flooding_behind(
            lambda call: (
                b"",
                pdu.encode_fault(call.call_id + 1000, 0, 0x1C010003, did_not_execute=True),
            )
        ),
        "sent fault 0x1C010003 for call [0-9]+, which was not made",
    ),
    "answer with an auth trailer": Behaviour(
        on_call(lambda call: response(call, WHOLE, answer(call) + bytes(24), auth_length=16)),
        "an authentication trailer that nobody asked for",
    ),
    "endless fragments": Behaviour(
        flooding_behind(
            lambda call: (response(call, PacketFlag.FIRST, bytes(8)), response(call, 0, bytes(64)))
        ),
        "is larger than [0-9]+ bytes",
    ),
    "endless empty fragments": Behaviour(
        flooding_behind(
            lambda call: (response(call, PacketFlag.FIRST, b""), response(call, 0, b""))
        ),
        _LATE_ANSWER,
        waits=True,
    ),
    "fault for an answer": Behaviour(
        on_call(lambda call: pdu.encode_fault(call.call_id, 0, 0x1C01000B, did_not_execute=True)),
        "answered with RPC fault 0x1C01000B",
    ),
    "answer in version 4": Behaviour(
        with_stub(lambda call: answer(call, version=4)), _CHECK % "version"
    ),
    "replay of an old answer": Behaviour(_replay, _CHECK % "SHA-256"),
    "fragments without a first": Behaviour(
        on_call(lambda call: response(call, PacketFlag.LAST, answer(call))), "out of order"
    ),
    "sizes of 4 GiB": Behaviour(_sized(0xFFFFFFF0, 0xFFFFFFF0, bytes(300)), _CHECK % "stub"),
    "sizes at odds": Behaviour(_sized(260, 0xFFFFFFF0, bytes(300)), _CHECK % "stub"),
    "sizes with upper halves": Behaviour(with_stub(_upper_halves), _CHECK % "stub"),
    "response of size 0": Behaviour(_sized(0, 0, bytes(4)), _CHECK % "layout"),
    **{
        f"stub of {length} bytes": Behaviour(_zeros(length), _CHECK % "(stub|layout)")
        for length in (0, 1, 4, 8, 11, 12, 15)
    },
    "an HRESULT nobody knows": Behaviour(
        with_stub(
            lambda call: ndr.encode_activation_failure(0xDEADBEEF, call.context.transfer_syntax)
        ),
        "the host answered 0xDEADBEEF",
    ),
    "wrong proof": Behaviour(
        with_stub(lambda call: answer(call, damaged=True)), _CHECK % "(HMAC|SHA-256|MAC)"
    ),
    "ePID of size 0": Behaviour(with_epid(b"", 0), _CHECK % "layout"),
    "ePID of 4 GiB": Behaviour(with_epid(b"1\0\0\0", 0xFFFFFFFF), _CHECK % "layout"),
    "ePID of odd size": Behaviour(with_epid(b"1\0\0\0", 3), _CHECK % "layout"),
    "ePID without an end": Behaviour(with_epid("1".encode("utf-16-le") * 20), _CHECK % "layout"),
    "ePID of half a character": Behaviour(with_epid(b"\0\xd8\0\0"), _CHECK % "layout"),
    # Good answers, of a kind.
    "ePID that steers a terminal": Behaviour(
        with_epid((STEERING_EPID + "\0").encode("utf-16-le")), "", answers=True
    ),
    "alloc_hint of 4 GiB": Behaviour(on_call(_vast_alloc_hint), "", answers=True),
    "close behind the answer": Behaviour(_answer_once, "", answers=True),
    "endless data behind the answer": Behaviour(
        flooding_behind(_endless_answers), "answered call [0-9]+, which was not made", answers=True
    ),
}
