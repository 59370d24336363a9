"""
One connection, from the bytes of its two streams to PDUs: recorded conversations, PDUs that are no calls, headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.dissection import may_be_header
from kmsproto.decode.events import CallSeen, Outcome, PDUSeen
from kmsproto.rpc import pdu
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, NDR64
from tests.decode.dissecting import ACK, BIND, DissectionCase, answer, ask
from tests.decode.traffic import Said, calls, converse, essence, golden
from tests.golden import EXCHANGES, load_exchange
from tests.rpc.building import (
    UNKNOWN,
    accepted,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    element,
    refused,
)


class RecordedTests(DissectionCase):
    """
    Conversations that were recorded.
    """

    def test_all(self) -> None:
        """
        Every recorded call is found, in its transfer syntax, and says what was recorded; all other PDUs are named.
        """
        for name in EXCHANGES:
            self.make()
            events = self.whole(golden(name))
            recorded = load_exchange(name)
            requests = [each for each in recorded if each.packet == "request"]
            responses = [each for each in recorded if each.packet == "response"]
            found = calls(events)
            self.assertEqual(len(found), len(requests))
            for call, request, response in zip(found, requests, responses, strict=True):
                self.assertEqual(call.syntax, {"NDR": NDR, "NDR64": NDR64}[request.transfer_syntax])
                self.assertFalse(call.guessed)
                self.assertEqual(call.hresult, response.hresult)
                self.assertIs(
                    call.outcome, Outcome.REFUSED if response.hresult else Outcome.GRANTED
                )
                if response.opened:
                    assert call.verified is not None and call.verified.body is not None
                    self.assertEqual(call.verified.failed, ())
                    self.assertEqual(call.problems + call.remarks, ())
            others = [event for event in events if isinstance(event, PDUSeen)]
            self.assertEqual(
                [PacketType(each.header.packet_type).name.lower() for each in others],
                [each.packet for each in recorded if each.packet not in ("request", "response")],
            )
            self.assertEqual(
                [each.sender for each in others], ["client", "host"] * (len(others) // 2)
            )
            self.assertEqual(len(events), len(found) + len(others))
            self.assertEqual(self.tally.pdus, len(recorded))

    def test_own_host(self) -> None:
        """
        What our own host answers to the recorded clients passes every check.
        """
        for name in EXCHANGES[:-1]:
            self.make()
            sent = [data for sender, data in golden(name) if sender == "client"]
            found = calls(self.whole(converse(sent)))
            self.assertTrue(found)
            for call in found:
                self.assertIs(call.outcome, Outcome.GRANTED)
                self.assertEqual(call.problems + call.remarks, ())

    @given(st.sampled_from(EXCHANGES), st.integers(1, 300), st.booleans())
    def test_any_segments(self, name: str, size: int, one_first: bool) -> None:
        """
        However a conversation is cut, and even if one direction comes after the other, the calls are the same.
        """
        self.make()
        whole = [essence(call) for call in calls(self.whole(golden(name)))]
        pieces = [
            (sender, data[start : start + size])
            for sender, data in golden(name)
            for start in range(0, len(data), size)
        ]
        if one_first:
            pieces.sort(key=lambda piece: piece[0], reverse=size % 2 == 0)
        self.make()
        cut = [essence(call) for call in calls(self.whole(pieces))]
        self.assertEqual(sorted(cut, key=str), sorted(whole, key=str))

    def test_byte_by_byte(self) -> None:
        """
        One byte at a time is enough.
        """
        said = golden("v6-full")
        single = [(sender, data[at : at + 1]) for sender, data in said for at in range(len(data))]
        self.make()
        self.assertEqual(len(calls(self.whole(single))), 2)


class PDUTests(DissectionCase):
    """
    PDUs that are no calls to the KMS interface.
    """

    def assertProblem(self, said: Sequence[Said], problem: str) -> None:
        """
        One PDU has this problem.
        """
        self.make(expected=True)
        events = self.whole([("client", BIND), ("host", ACK), *said])
        found = [
            *chain.from_iterable(each.problems for each in events if isinstance(each, PDUSeen))
        ]
        self.assertEqual(len(found), 1, found)
        self.assertIn(problem, found[0])

    def test_bind_nak(self) -> None:
        """
        A bind that is refused is no problem of the traffic.
        """
        events = self.whole([("client", BIND), ("host", build_nak(4, call_id=1))])
        self.assertEqual([type(event) for event in events], [PDUSeen, PDUSeen])
        self.assertEqual([event.problems for event in events], [(), ()])  # type: ignore[union-attr]

    def test_other_types(self) -> None:
        """
        PDUs of all other types are told, with their sender.
        """
        kinds = (PacketType.AUTH3, PacketType.CO_CANCEL, PacketType.ORPHANED)
        events = self.whole(
            [
                ("client", BIND),
                ("client", b"".join(build_pdu(kind) for kind in kinds)),
                ("host", build_pdu(PacketType.SHUTDOWN)),
            ]
        )
        seen = [event for event in events if isinstance(event, PDUSeen)][1:]
        self.assertEqual([each.header.packet_type for each in seen], [*kinds, PacketType.SHUTDOWN])
        self.assertEqual([each.sender for each in seen], ["client"] * 3 + ["host"])
        self.assertEqual({each.problems for each in seen}, {()})

    def test_wrong_type(self) -> None:
        """
        A PDU that no connection has is a problem.
        """
        said = [("client", build_pdu(PacketType.PING))]
        self.assertProblem(said, "a PDU of type ping, which no connection has")
        self.assertProblem([("host", build_pdu(77))], "a PDU of type 77, which no connection has")

    def test_wrong_side(self) -> None:
        """
        A PDU from the wrong side is a problem, and no part of a call.
        """
        self.assertProblem([("host", ask())], "a PDU of type request, which a host must not send")
        self.assertProblem(
            [("client", answer())], "a PDU of type response, which a client must not send"
        )

    def test_malformed(self) -> None:
        """
        PDUs that are too short for what they are, are problems.
        """
        for sender, data in (
            ("client", build_pdu(PacketType.REQUEST, b"")),
            ("client", build_pdu(PacketType.REQUEST, bytes(8), flags=0x83)),
            ("client", build_pdu(PacketType.ALTER_CONTEXT, b"")),
            ("host", build_pdu(PacketType.RESPONSE, b"")),
            ("host", build_pdu(PacketType.FAULT, bytes(8))),
            ("host", build_pdu(PacketType.BIND_NAK, b"")),
            ("host", build_pdu(PacketType.BIND_ACK, bytes(9))),
            ("client", build_request(bytes(4), auth_length=8)),
        ):
            self.assertProblem([(sender, data)], "it is malformed")

    def test_refused_alter_context(self) -> None:
        """
        A fault that answers an alter_context is no call.
        """
        alter = build_bind([element(2)], packet_type=PacketType.ALTER_CONTEXT, call_id=5)
        events = self.whole(
            [
                ("client", BIND),
                ("host", ACK),
                ("client", alter),
                ("host", build_fault(5, call_id=5)),
            ]
        )
        self.assertEqual([type(event) for event in events], [PDUSeen] * 4)

    def test_other_interface(self) -> None:
        """
        Calls to another interface on the same connection are PDUs, and so are their answers.
        """
        bind = build_bind([element(0), element(1, MANAGEMENT.syntax)])
        ack = build_ack([accepted(), accepted()], call_id=1)
        events = self.whole(
            [
                ("client", bind),
                ("host", ack),
                ("client", build_request(b"", context_id=1, call_id=2, opnum=2)),
                ("host", build_response(bytes(8), context_id=1, call_id=2)),
                ("client", build_request(b"", context_id=1, call_id=3, opnum=9)),
                ("host", build_fault(0x1C010002, call_id=3)),
                ("client", ask(4)),
                ("host", answer(4)),
            ]
        )
        self.assertEqual([type(event) for event in events], [PDUSeen] * 6 + [CallSeen])
        self.assertEqual(calls(events)[0].outcome, Outcome.GRANTED)

    def test_refused_contexts(self) -> None:
        """
        A context that was refused is none.
        """
        events = self.whole(
            [
                ("client", build_bind([element(0), element(1, UNKNOWN)])),
                ("host", build_ack([refused(2), refused(1)], call_id=1)),
                ("client", ask()),
                ("host", build_fault(0x1C010003)),
            ]
        )
        (call,) = calls(events)
        self.assertTrue(call.guessed)


class HeaderTests(SynchronousTestCase):
    """
    L{may_be_header}.
    """

    def test_beginnings(self) -> None:
        """
        Every beginning of a header may be one.
        """
        for data in (BIND, ACK, ask(), answer(), build_fault(5)):
            for length in range(40):
                self.assertTrue(may_be_header(data[:length]))

    def test_others(self) -> None:
        """
        What is no header is found out as early as possible.
        """
        for data in (
            b"G",
            b"\5\1",
            b"\5\0\1",
            b"\5\0\x0b\3\x20\0\0\0",
            b"\5\0\x0b\3\x10\4\0\0",
            b"\5\0\x0b\3\x10\0\0\1",
            BIND[:8] + b"\x0f\0" + BIND[10:],
            BIND[:8] + b"\xff\xff" + BIND[10:],
            BIND[:10] + b"\xff\xff" + BIND[12:],
        ):
            self.assertFalse(may_be_header(data), data)
        self.assertEqual(pdu.RPC_VERSION, (5, 0))
