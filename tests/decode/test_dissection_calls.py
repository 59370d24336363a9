"""
Calls on one connection, in all their forms.
"""

from __future__ import annotations

from struct import pack

from kmsproto.decode.calls import MAX_DELAY, MAX_OPEN
from kmsproto.decode.events import Outcome
from kmsproto.kms.envelopes import seal_response
from kmsproto.rpc.ndr import (
    encode_activation_failure,
    encode_activation_request,
    encode_activation_response,
)
from kmsproto.rpc.numbers import MAX_STUB, PacketFlag
from kmsproto.rpc.pdu import NDR, NDR64, decode_header
from tests.decode.dissecting import (
    ACK,
    ANSWERED,
    ASKED,
    BIND,
    OPENED,
    SECOND,
    DissectionCase,
    answer,
    ask,
)
from tests.decode.traffic import calls
from tests.kms.samples import HARDWARE_ID, RANDOM, RESPONSE, RESPONSE_SALT
from tests.rpc.building import (
    accepted,
    build_ack,
    build_bind,
    build_fault,
    build_request,
    build_response,
    element,
)


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
