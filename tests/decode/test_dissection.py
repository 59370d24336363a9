"""
One connection, from the bytes of its two streams to PDUs and calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.calls import MAX_DELAY, MAX_OPEN
from kmsproto.decode.dissection import MAX_TRIES, RPCReader, Tally, may_be_header
from kmsproto.decode.events import CallSeen, Event, Outcome, PDUSeen, Remark
from kmsproto.kms.envelopes import seal_request, seal_response
from kmsproto.rpc import pdu
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.ndr import (
    encode_activation_failure,
    encode_activation_request,
    encode_activation_response,
)
from kmsproto.rpc.numbers import MAX_STUB, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, decode_header
from tests.decode.traffic import Said, calls, converse, essence, golden
from tests.golden import EXCHANGES, load_exchange
from tests.kms.samples import (
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
)
from tests.rpc.building import (
    KMS,
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

ASKED, OPENED = seal_request(REQUEST, REQUEST_SALT)
ANSWERED = seal_response(
    OPENED, RESPONSE, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID
)
BIND = build_bind([element(0), element(1, KMS.syntax, NDR64)])
ACK = build_ack([accepted(), accepted(NDR64)], call_id=1)
SECOND = 10**9


def ask(call_id: int = 2, context_id: int = 0, **options: object) -> bytes:
    """
    Make a call.
    """
    stub = encode_activation_request(ASKED, NDR64 if context_id == 1 else NDR)
    return build_request(stub, call_id=call_id, context_id=context_id, **options)  # type: ignore[arg-type]


def answer(call_id: int = 2, context_id: int = 0, **options: object) -> bytes:
    """
    Make the answer to it.
    """
    stub = encode_activation_response(ANSWERED, NDR64 if context_id == 1 else NDR)
    return build_response(stub, call_id=call_id, context_id=context_id, **options)  # type: ignore[arg-type]


class DissectionCase(SynchronousTestCase):
    """
    A reader, and what it is fed.
    """

    def setUp(self) -> None:
        """
        Make a reader of a connection from its beginning.
        """
        self.make()

    def make(
        self, *, midstream: bool = False, expected: bool = False, one_stream: bool = False
    ) -> None:
        """
        Make another reader.
        """
        self.tally = Tally()
        sides = ("", "") if one_stream else ("192.0.2.1:50000", "192.0.2.9:1688")
        self.reader = RPCReader(
            self.tally,
            sides,
            midstream=midstream,
            expected=expected,
            one_stream=one_stream,
        )

    def feed(self, said: Iterable[Said], *, time: int = SECOND) -> list[Event]:
        """
        Feed what was said.
        """
        events: list[Event] = []
        for sender, data in said:
            events += self.reader.received(sender == "host", data, 0, time)
        return events

    def whole(self, said: Iterable[Said]) -> list[Event]:
        """
        Feed what was said, and end the connection.
        """
        return [*self.feed(said), *self.reader.ended()]

    def only_call(self, said: Iterable[Said]) -> CallSeen:
        """
        Feed what was said on a bound connection, and get the one call in it.
        """
        (call,) = calls(self.whole([("client", BIND), ("host", ACK), *said]))
        return call


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


class CallTests(DissectionCase):
    """
    Calls in all their forms.
    """

    def test_plain(self) -> None:
        """
        A call is told with its answer, and with who is who.
        """
        call = self.only_call([("client", ask()), ("host", answer())])
        self.assertEqual(call.asked, ASKED)
        self.assertEqual(call.opened, OPENED)
        self.assertEqual(call.answered, ANSWERED)
        self.assertIs(call.outcome, Outcome.GRANTED)
        self.assertEqual(call.conversation.number, 1)
        self.assertEqual(call.conversation.client, "192.0.2.1:50000")
        self.assertEqual(call.conversation.host, "192.0.2.9:1688")
        self.assertEqual(call.time, SECOND)

    def test_told_at_once(self) -> None:
        """
        A call is told as soon as its answer is there.
        """
        self.feed([("client", BIND), ("host", ACK), ("client", ask())])
        self.assertEqual(len(calls(self.feed([("host", answer())]))), 1)

    def test_fragments(self) -> None:
        """
        Requests and answers of several fragments are put together.
        """
        stub = encode_activation_request(ASKED, NDR)
        back = encode_activation_response(ANSWERED, NDR)

        def cut(build: object, stub: bytes) -> bytes:
            parts = [stub[start : start + 40] for start in range(0, len(stub), 40)]
            return b"".join(
                build(  # type: ignore[operator]
                    part,
                    call_id=2,
                    flags=(index == 0) | (index == len(parts) - 1) << 1,
                )
                for index, part in enumerate(parts)
            )

        said = [("client", cut(build_request, stub)), ("host", cut(build_response, back))]
        call = self.only_call(said)
        self.assertIs(call.outcome, Outcome.GRANTED)
        self.assertEqual(call.problems, ())
        assert call.request is not None and call.response is not None
        self.assertEqual(call.request.fragments, -(-len(stub) // 40))
        self.assertEqual(call.response.fragments, -(-len(back) // 40))
        self.assertEqual(decode_header(call.request.first).flags, PacketFlag.FIRST)

    def test_pipelined(self) -> None:
        """
        Calls that wait at the same time are matched by their numbers, whatever the order of the answers.
        """
        self.feed([("client", BIND), ("host", ACK)])
        sent = b"".join(ask(number, number % 2) for number in range(2, 8))
        self.feed([("client", sent)])
        back = b"".join(answer(number, number % 2) for number in (4, 2, 7, 3, 6, 5))
        found = calls(self.feed([("host", back)]))
        self.assertEqual([call.call_id for call in found], [4, 2, 7, 3, 6, 5])
        for call in found:
            self.assertIs(call.outcome, Outcome.GRANTED)
            self.assertEqual(call.syntax, NDR64 if call.call_id % 2 else NDR)

    def test_big_endian(self) -> None:
        """
        A client that is big-endian is understood in bind and call.
        """
        bind = build_bind([element(0)], order=">")
        stub = pack(">II", len(ASKED), len(ASKED)) + ASKED
        self.make()
        said = [
            ("client", bind),
            ("host", build_ack([accepted()], call_id=1, order=">")),
            ("client", build_request(stub, call_id=2, order=">")),
            ("host", answer()),
        ]
        (call,) = calls(self.whole(said))
        self.assertIs(call.outcome, Outcome.GRANTED)
        assert call.request is not None
        self.assertEqual(call.request.byte_order, ">")

    def test_object(self) -> None:
        """
        An object UUID before the stub is stepped over.
        """
        call = self.only_call([("client", ask(object_uuid=bytes(16))), ("host", answer())])
        self.assertIs(call.outcome, Outcome.GRANTED)

    def test_trailer(self) -> None:
        """
        An authentication trailer behind the stub, with its padding, is no part of it.
        """
        stub = encode_activation_request(ASKED, NDR)
        trailer = bytes(4) + pack("<BBBxI", 10, 2, 4, 0) + bytes(16)
        request = build_request(stub + trailer, call_id=2, auth_length=16)
        call = self.only_call([("client", request), ("host", answer())])
        assert call.request is not None
        self.assertEqual(call.request.stub, stub)
        self.assertIs(call.outcome, Outcome.GRANTED)

    def test_refused(self) -> None:
        """
        An HRESULT is a result, in both transfer syntaxes.
        """
        for context_id, syntax in enumerate((NDR, NDR64)):
            self.make()
            stub = encode_activation_failure(0xC004F042, syntax)
            back = build_response(stub, call_id=2, context_id=context_id)
            call = self.only_call([("client", ask(2, context_id)), ("host", back)])
            self.assertIs(call.outcome, Outcome.REFUSED)
            self.assertEqual(call.hresult, 0xC004F042)
            self.assertEqual(call.problems, ())
            self.assertIn("0xC004F042, the host does not activate this product", call.result)

    def test_fault(self) -> None:
        """
        A fault ends a call, even in the middle of its request.
        """
        for request in (ask(), ask(flags=PacketFlag.FIRST)):
            self.make()
            call = self.only_call([("client", request), ("host", build_fault(0x1C010003))])
            self.assertIs(call.outcome, Outcome.FAULT)
            self.assertEqual(call.result, "fault 0x1C010003 (nca_s_unk_if)")
            self.assertEqual(call.problems, ())

    def test_unanswered(self) -> None:
        """
        A call without an answer is told at the end, or when its number is used again.
        """
        call = self.only_call([("client", ask())])
        self.assertIs(call.outcome, Outcome.UNANSWERED)
        self.assertEqual(call.remarks, ("there is no answer",))
        self.assertEqual(call.problems, ())
        self.make()
        self.feed([("client", BIND), ("host", ACK), ("client", ask())])
        self.assertEqual(len(calls(self.feed([("client", ask())]))), 1)

    def test_quiet(self) -> None:
        """
        A call whose connection has become quiet is told without an answer.
        """
        self.feed([("client", BIND), ("host", ACK), ("client", ask())])
        (call,) = calls(self.reader.paused())
        self.assertIs(call.outcome, Outcome.UNANSWERED)

    def test_answer_alone(self) -> None:
        """
        An answer waits for its request a while, and is then told without it.
        """
        self.feed([("client", BIND), ("host", ACK)])
        self.assertEqual(self.feed([("host", answer())]), [])
        events = self.feed([("client", ask(9))], time=SECOND + MAX_DELAY + 1)
        (call,) = calls(events)
        self.assertEqual(call.call_id, 2)
        self.assertIsNone(call.request)
        self.assertIn("the answer cannot be verified without its request", call.remarks)
        self.assertIsNone(call.verified)
        self.assertIs(call.outcome, Outcome.GRANTED)

    def test_answered_twice(self) -> None:
        """
        A second answer to a call is told apart.
        """
        events = self.whole(
            [("client", BIND), ("host", ACK), ("client", ask()), ("host", answer() * 3)]
        )
        self.assertEqual([call.request is None for call in calls(events)], [False, True, True])

    def test_malformed_request(self) -> None:
        """
        A request that cannot be opened is a problem, though the host answered it as it should.
        """
        broken = encode_activation_request(ASKED[:-1] + b"\0", NDR)
        failure = build_response(encode_activation_failure(0x8007000D, NDR), call_id=2)
        call = self.only_call([("client", build_request(broken, call_id=2)), ("host", failure)])
        self.assertEqual(call.problems, ("the request is malformed: the padding is wrong",))
        self.assertIs(call.outcome, Outcome.REFUSED)
        self.assertEqual(call.asked, ASKED[:-1] + b"\0")

    def test_failed_check(self) -> None:
        """
        An answer that fails a check is invalid, and each check that failed is named.
        """
        wrong = RESPONSE._replace(client_time=RESPONSE.client_time + 1)
        payload = seal_response(
            OPENED, wrong, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID
        )
        back = build_response(encode_activation_response(payload, NDR), call_id=2)
        call = self.only_call([("client", ask()), ("host", back)])
        self.assertIs(call.outcome, Outcome.INVALID)
        self.assertEqual(
            call.problems,
            ("the answer failed a check (client time): it is not that of the request",),
        )

    def test_wrong_stubs(self) -> None:
        """
        Stubs that hold no message are problems.
        """
        for request, response, problem in (
            (build_request(b"\1\0\0\0\2\0\0\0", call_id=2), answer(), "the stub of the request"),
            (ask(), build_response(b"", call_id=2), "the stub of the answer"),
            (
                ask(),
                build_response(encode_activation_failure(0, NDR), call_id=2),
                "the HRESULT is zero, but the answer brings no data",
            ),
            (
                ask(),
                build_response(
                    encode_activation_response(ANSWERED, NDR)[:-4] + b"\5\0\x07\x80", call_id=2
                ),
                "the answer brings data with an HRESULT other than zero",
            ),
        ):
            self.make()
            call = self.only_call([("client", request), ("host", response)])
            self.assertEqual(len(call.problems), 1, call.problems)
            self.assertIn(problem, call.problems[0])

    def test_other_operation(self) -> None:
        """
        An operation that the interface has not is said to be so.
        """
        said = [("client", ask(opnum=3)), ("host", build_fault(0x1C010002))]
        call = self.only_call(said)
        self.assertEqual(call.opnum, 3)
        self.assertIn("the KMS interface has no operation 3", call.remarks)
        self.assertEqual(call.problems, ())

    def test_unknown_context(self) -> None:
        """
        A call on a context that nobody agreed on is read in whichever syntax fits.
        """
        for syntax in (NDR, NDR64):
            self.make()
            stub = encode_activation_request(ASKED, syntax)
            request = build_request(stub, call_id=2, context_id=9)
            call = self.only_call([("client", request), ("host", build_fault(0x1C010003))])
            self.assertEqual((call.syntax, call.guessed), (syntax, True))
            self.assertEqual(call.opened, OPENED)

    def test_fragments_out_of_order(self) -> None:
        """
        Fragments that do not belong together are problems.
        """
        first, last = PacketFlag.FIRST, PacketFlag.LAST
        stub = encode_activation_request(ASKED, NDR)
        for fragments, problem in (
            ([(first, "<"), (first | last, "<")], "a first fragment of the request stands among"),
            ([(last, "<")], "the first fragment of the request is missing"),
            ([(first, "<"), (last, ">")], "the byte order changes within the request"),
        ):
            self.make()
            said = [
                ("client", build_request(stub, call_id=2, flags=int(flags), order=order))
                for flags, order in fragments
            ]
            call = self.only_call(said)
            self.assertIn(problem, " ".join(call.problems))

    def test_huge_stub(self) -> None:
        """
        Of a stub without end no more is kept than a host would.
        """
        self.feed([("client", BIND), ("host", ACK)])
        flags = int(PacketFlag.FIRST)
        for _ in range(40):
            self.feed([("client", build_request(bytes(5000), call_id=2, flags=flags))])
            flags = 0
            self.assertLess(self.reader.held, 2 * MAX_STUB)
        last = build_request(b"", call_id=2, flags=int(PacketFlag.LAST))
        self.feed([("client", last)])
        (call,) = calls(self.reader.ended())
        self.assertIn(f"the request is larger than {MAX_STUB} bytes", call.problems)

    def test_many_calls(self) -> None:
        """
        Of calls without end the oldest are told unanswered.
        """
        self.feed([("client", BIND), ("host", ACK)])
        found = []
        for number in range(MAX_OPEN + 20):
            found += calls(self.feed([("client", ask(number))]))
        self.assertEqual([call.call_id for call in found], list(range(20)))
        self.assertEqual(len(calls(self.reader.ended())), MAX_OPEN)


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


class InterestTests(DissectionCase):
    """
    Which connections are of interest.
    """

    def test_other_protocols(self) -> None:
        """
        Another protocol is not wanted from its first bytes on.
        """
        for data in (b"GET / HTTP/1.1\r\n", b"\x05\x01\x00", b"\x16\x03\x01", b"\x05\x00\x63"):
            self.make()
            self.assertEqual(self.feed([("client", data)]), [])
            self.assertFalse(self.reader.wanted)
            self.assertEqual((self.tally.rpc, self.tally.conversations), (0, 0))
            self.assertEqual(list(self.reader.ended()), [])

    def test_other_protocols_where_kms_is_expected(self) -> None:
        """
        Where KMS is expected, another protocol is a problem.
        """
        self.make(expected=True)
        (event,) = self.feed([("client", b"GET / HTTP/1.1\r\n")])
        assert isinstance(event, Remark)
        self.assertTrue(event.is_problem)
        self.assertIn("not DCE/RPC: it begins with 474554", event.text)

    def test_names_of_other_protocols(self) -> None:
        """
        Protocols that are often met are named, however their first bytes were cut.
        """
        for data, name in (
            (b"\x16\x03\x01\x00\xc8\x01", "TLS"),
            (b"GET / HTTP/1.1\r\n", "HTTP"),
            (b"SSH-2.0-x\r\n", "SSH"),
            (b"\0\0\0\x40\xfeSMB" + bytes(60), "SMB"),
        ):
            self.make(expected=True)
            (event,) = self.feed([("client", data)])
            assert isinstance(event, Remark)
            self.assertTrue(event.text.endswith(f", as {name} does"), event.text)
        self.make(expected=True)
        (event,) = self.feed([("client", b"whatever")])
        assert isinstance(event, Remark)
        self.assertEqual(event.text, "this is not DCE/RPC: it begins with 7768617465766572")

    def test_other_interfaces(self) -> None:
        """
        RPC with other interfaces is not wanted, unless it is expected.
        """
        bind = build_bind([element(0, MANAGEMENT.syntax)])
        self.assertEqual(self.feed([("client", bind)]), [])
        self.assertFalse(self.reader.wanted)
        self.assertEqual((self.tally.rpc, self.tally.conversations), (1, 0))
        self.make(expected=True)
        self.assertEqual(len(self.feed([("client", bind)])), 1)
        self.assertTrue(self.reader.wanted)

    def test_midstream(self) -> None:
        """
        A connection whose bind is missing is known by its first call, and its syntax is found out.
        """
        for context_id, syntax in enumerate((NDR, NDR64)):
            self.make(midstream=True)
            events = self.whole([("client", ask(2, context_id)), ("host", answer(2, context_id))])
            (call,) = calls(events)
            self.assertEqual((call.syntax, call.guessed), (syntax, True))
            self.assertIs(call.outcome, Outcome.GRANTED)
            self.assertEqual(call.problems, ())

    def test_midstream_failures(self) -> None:
        """
        Also where there are only refusals, the syntax is found out.
        """
        for syntax in (NDR, NDR64):
            self.make(midstream=True, expected=True)
            stub = encode_activation_failure(0xC004F042, syntax)
            (call,) = calls(self.whole([("host", build_response(stub))]))
            self.assertEqual((call.hresult, call.syntax), (0xC004F042, syntax))

    def test_midstream_answers(self) -> None:
        """
        A connection of which there are only answers is known by them, and who is the host shows too.
        """
        self.make(midstream=True)
        (call,) = calls(self.whole([("client", answer())]))
        self.assertEqual(call.conversation.host, "192.0.2.1:50000")
        self.assertEqual(call.answered, ANSWERED)

    def test_midstream_other_pdus(self) -> None:
        """
        What stands before the first call is told once that shows what the connection is.
        """
        self.make(midstream=True)
        self.assertEqual(self.feed([("host", ACK)]), [])
        events = self.feed([("client", ask()), ("host", answer())])
        self.assertEqual([type(event) for event in events], [PDUSeen, CallSeen])
        self.assertEqual({event.conversation.number for event in events}, {1})

    def test_midstream_other_interfaces(self) -> None:
        """
        Calls that are no activations make a connection unwanted.
        """
        self.make(midstream=True)
        self.feed(
            [("client", build_request(bytes(40))), ("host", build_response(bytes(40), call_id=1))]
        )
        self.assertFalse(self.reader.wanted)
        self.assertEqual(self.tally.conversations, 0)

    def test_midstream_other_protocols(self) -> None:
        """
        Where no segment begins like a PDU, the connection is given up after some.
        """
        self.make(midstream=True)
        for _ in range(MAX_TRIES):
            self.assertTrue(self.reader.wanted)
            self.feed([("client", b"whatever")])
        self.assertFalse(self.reader.wanted)

    def test_midstream_within_a_pdu(self) -> None:
        """
        A connection that begins within a PDU is read from the next one on.
        """
        self.make(midstream=True)
        events = self.whole(
            [("client", ask()[100:]), ("host", answer()), ("client", ask(3)), ("host", answer(3))]
        )
        self.assertEqual([call.call_id for call in calls(events)], [3, 2])


class LossTests(DissectionCase):
    """
    Streams with holes and nonsense in them.
    """

    def test_hole(self) -> None:
        """
        Behind missing bytes the next PDU is looked for, and what cannot be completed is said to be so.
        """
        self.feed([("client", BIND), ("host", ACK), ("client", ask()[:150])])
        events = list(self.reader.received(0, ask()[200:] + ask(3), 50, SECOND))
        remarks = [event.text for event in events if isinstance(event, Remark)]
        self.assertEqual(
            remarks, ["50 bytes are missing", "242 bytes that belong to no PDU were skipped"]
        )
        events = self.feed([("host", answer() + answer(3))])
        (call,) = calls(events)
        self.assertEqual((call.call_id, call.outcome), (3, Outcome.GRANTED))
        self.assertFalse(any(event.is_problem for event in events if isinstance(event, Remark)))

    def test_hole_between_fragments(self) -> None:
        """
        A call of which a fragment is missing is told without it.
        """
        stub = encode_activation_request(ASKED, NDR)
        first = build_request(stub[:100], call_id=2, flags=1)
        last = build_request(stub[200:], call_id=2, flags=2)
        self.feed([("client", BIND), ("host", ACK), ("client", first)])
        events = list(self.reader.received(0, last, 124, SECOND))
        events += self.feed([("host", answer())])
        (call,) = calls(events)
        self.assertIn("a fragment of the request is missing", call.remarks)
        self.assertIn("the first fragment of the request is missing", call.remarks)

    def test_nonsense(self) -> None:
        """
        A header that makes no sense is a problem, and the next one that does is looked for.
        """
        for nonsense in (
            b"\5\1" + BIND[2:],
            build_pdu(PacketType.CO_CANCEL, drep=b"\x20\0\0\0"),
            build_pdu(PacketType.CO_CANCEL, frag_length=15),
        ):
            self.make()
            events = self.whole(
                [("client", BIND), ("host", ACK), ("client", nonsense + ask()), ("host", answer())]
            )
            texts = [event.text for event in events if isinstance(event, Remark)]
            self.assertEqual(texts[0], f"the header of a PDU makes no sense: {nonsense[:16].hex()}")
            self.assertEqual(
                texts[1:], [f"{len(nonsense)} bytes that belong to no PDU were skipped"]
            )
            self.assertEqual(len(calls(events)), 1)

    def test_cut_at_the_end(self) -> None:
        """
        That the last PDU is not complete is said.
        """
        events = self.whole([("client", BIND), ("host", ACK), ("client", ask()[:100])])
        (remark,) = (event for event in events if isinstance(event, Remark))
        self.assertIn("there are 100 bytes of it", remark.text)
        self.assertFalse(remark.is_problem)

    def test_cut_in_the_first_header(self) -> None:
        """
        Also of a connection of which there is less than a header that is said, where KMS is expected.
        """
        self.make(expected=True)
        (event,) = self.whole([("client", BIND[:9])])
        assert isinstance(event, Remark)
        self.assertIn("there are 9 bytes of it", event.text)
        self.make()
        self.assertEqual(self.whole([("client", BIND[:9])]), [])

    def test_last_bytes(self) -> None:
        """
        An answer that is not in the capture is missing there.
        """
        self.feed([("client", BIND), ("host", ACK), ("client", ask())])
        events = [*self.reader.received(1, b"", 300, SECOND), *self.reader.ended()]
        self.assertEqual([type(event) for event in events], [Remark, CallSeen])
        assert isinstance(events[0], Remark)
        self.assertEqual(events[0].text, "300 bytes are missing")

    def test_hole_before_a_last_pdu(self) -> None:
        """
        What was skipped is told also where it is a PDU without its end that stands behind it.
        """
        self.feed([("client", BIND), ("host", ACK), ("client", ask()[:150])])
        events = list(self.reader.received(0, ask(3)[:99], 50, SECOND))
        events += self.reader.ended()
        texts = [event.text for event in events if isinstance(event, Remark)]
        self.assertEqual(
            texts,
            [
                "50 bytes are missing",
                "150 bytes that belong to no PDU were skipped",
                "the last PDU is not complete: there are 99 bytes of it",
            ],
        )

    def test_one_stream(self) -> None:
        """
        In a dump both directions may stand in one stream, behind whatever else there is.
        """
        self.make(midstream=True, expected=True, one_stream=True)
        data = b"garbage \5\0" + BIND + ACK + ask() + answer()
        events = self.whole([("client", data)])
        self.assertEqual([type(event) for event in events], [Remark, PDUSeen, PDUSeen, CallSeen])
        self.assertIs(calls(events)[0].outcome, Outcome.GRANTED)
        self.assertEqual(calls(events)[0].conversation.client, "")

    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.binary(max_size=60)
                | st.sampled_from([BIND, ACK, ask(), answer(), build_fault(5), ask(flags=1)])
                | st.builds(
                    build_pdu,
                    st.integers(0, 21),
                    st.binary(max_size=60),
                    flags=st.integers(0, 255),
                    call_id=st.integers(1, 3),
                    order=st.sampled_from("<>"),
                    auth_length=st.sampled_from([0, 0, 0, 5]),
                ),
                st.sampled_from([0, 0, 0, 7]),
            ),
            max_size=20,
        ),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    )
    def test_anything(
        self,
        said: list[tuple[bool, bytes, int]],
        midstream: bool,
        expected: bool,
        one_stream: bool,
    ) -> None:
        """
        Whatever is said raises nothing, and leaves nothing behind.
        """
        self.make(midstream=midstream, expected=expected, one_stream=one_stream)
        for index, (back, data, lost) in enumerate(said):
            if self.reader.wanted and data:
                list(self.reader.received(int(back), data, lost, index * SECOND))
                self.assertLess(self.reader.held, 1_000_000)
        list(self.reader.ended())


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
