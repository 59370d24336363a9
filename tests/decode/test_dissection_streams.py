"""
Connections that are none of ours, that begin in the middle, or that have holes and nonsense in them.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kmsproto.decode.dissection import MAX_TRIES
from kmsproto.decode.events import CallSeen, Outcome, PDUSeen, Remark
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.ndr import encode_activation_failure, encode_activation_request
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, NDR64
from tests.decode.dissecting import ACK, ANSWERED, ASKED, BIND, SECOND, DissectionCase, answer, ask
from tests.decode.traffic import calls
from tests.rpc.building import (
    build_bind,
    build_fault,
    build_pdu,
    build_request,
    build_response,
    element,
)


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
