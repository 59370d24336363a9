"""
What cases are made of: PDUs in which every field can be a lie, replies and their words, links, verdicts.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit import packets, replies
from kmsproto.audit.exchanges import Then, conclude, exchange
from kmsproto.audit.link import Link
from kmsproto.audit.model import (
    Area,
    Case,
    Level,
    Outcome,
    Result,
    Script,
    Step,
    UndecidedError,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import KMS, PLAIN, PLAIN64, element
from kmsproto.audit.replies import Closed, Noise, Received, Reply, Silence, fault, nak
from kmsproto.audit.subject import Subject
from kmsproto.errors import RemoteProtocolError
from kmsproto.findings import Severity
from kmsproto.net.server import Limits
from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import (
    NDR,
    NDR64,
    NO_SYNTAX,
    Bind,
    BindAck,
    ContextElement,
    Negotiated,
)
from tests.audit.memory import MemoryHost, drive, subject


def received(data: bytes) -> Received:
    """
    Make a reply of a PDU.
    """
    return Received(pdu.decode_header(data), data)


def displaced_ack(counted: bool) -> tuple[bytes, BindAck]:
    """
    Make a bind_ack whose address of five digits is followed by a gap that does not belong there.

    @param counted: Whether frag_length counts the gap.
    @return: The PDU, and what it says.
    """
    ack = BindAck(5840, 5840, 7, "16880", (Negotiated(0, 0, NDR), Negotiated(2, 2, NO_SYNTAX)))
    data = pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, ack)
    length = len(data) + (4 if counted else 0)
    return data[:8] + length.to_bytes(2, "little") + data[10:32] + bytes(4) + data[32:], ack


class PacketTests(SynchronousTestCase):
    """
    Without a lie, the PDUs are those that the library writes.
    """

    def test_bind(self) -> None:
        """
        A bind is the library's.
        """
        elements = (ContextElement(0, KMS, (NDR,)), ContextElement(1, KMS, (NDR64,)))
        expected = pdu.encode_bind(PacketType.BIND, 3, 1, Bind(5840, 5840, 7, elements))
        self.assertEqual(packets.bind(PLAIN, PLAIN64, group=7), expected)

    def test_alter(self) -> None:
        """
        So is an alter_context.
        """
        bind = Bind(5840, 5840, 0, (ContextElement(0, KMS, (NDR,)),))
        expected = pdu.encode_bind(PacketType.ALTER_CONTEXT, 3, 9, bind)
        self.assertEqual(packets.alter(PLAIN, call_id=9), expected)

    def test_request(self) -> None:
        """
        So is a request, in one piece and in several.
        """
        data = bytes(range(100))
        (expected,) = pdu.encode_request(4, 2, 1, data, 5840)
        self.assertEqual(packets.request(data, context=2, opnum=1, call_id=4), expected)
        pieces = [data[start : start + 40] for start in range(0, 100, 40)]
        self.assertEqual(
            packets.fragments(pieces, call_id=4), pdu.encode_request(4, 0, 0, data, 64)
        )

    def test_stub(self) -> None:
        """
        So are the arguments of the call.
        """
        for syntax in (NDR, NDR64):
            self.assertEqual(
                packets.stub(b"payload", syntax), ndr.encode_activation_request(b"payload", syntax)
            )

    def test_big_endian(self) -> None:
        """
        In big-endian order the library reads the same.
        """
        sent = packets.bind(PLAIN, element(0x0102, NDR64), group=0x01020304, order=">", call_id=8)
        header = pdu.decode_header(sent)
        self.assertEqual((header.byte_order, header.call_id), (">", 8))
        elements = (ContextElement(0, KMS, (NDR,)), ContextElement(0x0102, KMS, (NDR64,)))
        self.assertEqual(pdu.decode_bind(header, sent), Bind(5840, 5840, 0x01020304, elements))
        sent = packets.request(b"stub", context=0x0102, order=">", object_id=UUID(int=1))
        decoded = pdu.decode_request(pdu.decode_header(sent), sent)
        self.assertEqual(decoded, (4, 0x0102, 0, b"stub"))

    def test_lies(self) -> None:
        """
        Every field of the header can be a lie.
        """
        sent = packets.packet(
            77,
            b"body",
            flags=0x80,
            call_id=5,
            version=(6, 7),
            drep=b"\x11\x22\x33\x44",
            length=3,
            auth_length=4,
            trailer=b"behind",
        )
        self.assertEqual(sent, b"\x06\x07\x4d\x80\x11\x22\x33\x44\x03\0\x04\0\x05\0\0\0bodybehind")

    def test_trailer(self) -> None:
        """
        The length of a trailer stands in the header, without what every trailer has.
        """
        sent = packets.bind(PLAIN, trailer=packets.trailer())
        header = pdu.decode_header(sent)
        self.assertEqual(header.auth_length, 32)
        self.assertEqual(pdu.decode_auth_trailer(header, sent).auth_type, 10)


class ReplyTests(SynchronousTestCase):
    """
    What came, and how it is told.
    """

    def test_no_pdu(self) -> None:
        """
        The end, silence and noise are told as what they are.
        """
        for reply, expected in (
            (Closed(), "closed the connection"),
            (Silence(5.0), "was silent for 5 seconds"),
            (Silence(0.2, 9), "was silent for 0.2 seconds after 9 bytes of an answer"),
            (Noise(b"HTTP"), "sent bytes that are no PDU (48545450)"),
        ):
            self.assertEqual(reply.describe(), expected)

    def test_fault(self) -> None:
        """
        A fault is told by its status, and all its fields can be had.
        """
        reply = received(pdu.encode_fault(7, 3, 0x1C010002, did_not_execute=True))
        self.assertEqual(
            reply.describe(), "answered with the fault 0x1C010002 (nca_s_op_rng_error)"
        )
        self.assertEqual(reply.fault, (32, 3, 0, 0, 0x1C010002, 0))
        self.assertIsNone(reply.response)
        self.assertIsNone(reply.ack)

    def test_nak(self) -> None:
        """
        A bind_nak is told by its reason.
        """
        reply = received(pdu.encode_bind_nak(7, 8))
        self.assertEqual(reply.nak_reason, 8)
        self.assertIn("bind_nak, reason 8 (authentication_type", reply.describe())

    def test_ack(self) -> None:
        """
        A bind_ack is told by its results, those that repeat only once.
        """
        refused = Negotiated(2, 1, NO_SYNTAX)
        ack = BindAck(5840, 5840, 1, "1688", (*[refused] * 30, Negotiated(0, 0, NDR64)))
        reply = received(pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, ack))
        self.assertEqual(
            reply.describe(), "answered with a bind_ack (results: 30 times (2,1), (0,0) NDR64)"
        )
        self.assertEqual(reply.address_gap, b"\0")
        self.assertIsNone(reply.trailer_type)

    def test_displaced(self) -> None:
        """
        Results that stand four bytes behind their place are found, and their place is told.
        """
        for counted in (False, True):
            data, ack = displaced_ack(counted)
            reply = received(data)
            self.assertEqual(reply.ack, ack)
            self.assertEqual(replies.displaced(reply.header, data), range(32, 36))
            self.assertEqual(replies.excess(reply.header, data), 0 if counted else 4)

    def test_in_place(self) -> None:
        """
        What looks alike is a bind_ack as it should be, or none at all: without results, with too few bytes, with
        something in the gap.
        """
        none = BindAck(5840, 5840, 7, "16880", ())
        whole = pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, none)
        following = pdu.encode_bind_nak(1, 0)
        self.assertIsNone(replies.displaced(pdu.decode_header(whole), whole + following))
        self.assertEqual(received(whole).ack, none)
        data, _ = displaced_ack(False)
        for wrong in (data[:20], data[:33], data[:36], data[:32] + b"\1" + data[33:]):
            self.assertIsNone(replies.displaced(pdu.decode_header(data), wrong))
            self.assertEqual(replies.excess(pdu.decode_header(data), wrong), 0)
        response = pdu.encode_response(1, 0, bytes(80), 5840)[0]
        self.assertIsNone(replies.displaced(pdu.decode_header(response), response))

    def test_many_results(self) -> None:
        """
        Of many results that differ only the first are told.
        """
        ack = BindAck(1, 1, 1, "", tuple(Negotiated(2, n, NO_SYNTAX) for n in range(200)))
        told = received(pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, ack)).describe()
        self.assertTrue(told.endswith("(2,7), and 192 more)"), told)

    def test_trailer(self) -> None:
        """
        A trailer is one only behind the body of the PDU.
        """
        ack = BindAck(5840, 5840, 1, "1688", (Negotiated(0, 0, NDR),))
        data = pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, ack)
        echoed = data[:10] + b"\x20\0" + data[12:]
        self.assertIsNone(received(echoed).trailer_type)
        whole = data[16:]
        honest = packets.packet(PacketType.BIND_ACK, whole, trailer=packets.trailer())
        self.assertEqual(received(honest).trailer_type, 10)

    @given(st.integers(0, 20), st.binary(max_size=60), st.sampled_from(["<", ">"]))
    def test_anything(self, kind: int, body: bytes, order: packets.Order) -> None:
        """
        Any PDU can be told, and any property asked for.
        """
        reply = received(packets.packet(kind, body, order=order, auth_length=len(body)))
        self.assertTrue(reply.describe().startswith("answered with "))
        _ = (reply.fault, reply.response, reply.ack, reply.nak_reason)
        self.assertIn(len(reply.address_gap), range(4))
        self.assertTrue(reply.trailer_type is None or reply.trailer_type < 256)

    def test_expectations(self) -> None:
        """
        An expectation fits what it names and nothing else.
        """
        executed = received(pdu.encode_fault(1, 0, 0x6F7, did_not_execute=False))
        unmade = received(pdu.encode_fault(1, 0, 0x1C010003, did_not_execute=True))
        refused = received(pdu.encode_bind_nak(1, 4))
        for expectation, fitting in (
            (fault(0x6F7), [executed]),
            (fault(0x6F7, 0x1C010003), [executed, unmade]),
            (fault(0x1C010003, executed=True), []),
            (fault(0x1C010003, executed=False), [unmade]),
            (nak(4), [refused]),
            (nak(0, 8), []),
            (replies.ANY_FAULT, [executed, unmade]),
            (replies.ANY_NAK, [refused]),
            (replies.CLOSE, [Closed()]),
            (replies.SILENCE, [Silence(1.0)]),
            (replies.RESPONSE, []),
        ):
            all_replies: list[Reply] = [executed, unmade, refused, Closed(), Silence(1.0)]
            found = [reply for reply in (*all_replies, Silence(1.0, 3)) if expectation.fits(reply)]
            self.assertEqual(found, fitting, expectation.words)


class LinkTests(SynchronousTestCase):
    """
    A connection of a case.
    """

    def replies(self, *deeds: bytes | None, number: int = 1) -> list[Reply]:
        """
        Get so many replies from a host that does one thing after the other.
        """
        waiting = list(deeds)

        def script() -> Script[list[Reply]]:
            link = Link(subject())
            yield from link.connect()
            found = []
            for _ in range(number):
                found.append((yield from link.reply()))
            return found

        return drive(script(), lambda step: waiting.pop(0) if step.action == "receive" else b"")

    def test_cut(self) -> None:
        """
        PDUs are found in whatever segments they come.
        """
        one, two = pdu.encode_bind_nak(1, 0), pdu.encode_fault(2, 0, 5, did_not_execute=True)
        expected = [received(one), received(two)]
        self.assertEqual(self.replies(one + two, number=2), expected)
        self.assertEqual(self.replies(one[:3], one[3:] + two[:20], two[20:], number=2), expected)
        data = one + two
        singles = [data[place : place + 1] for place in range(len(data))]
        self.assertEqual(self.replies(*singles, number=2), expected)

    def test_end(self) -> None:
        """
        The end is the end for good; a PDU before it is found, half of one is noise.
        """
        one = pdu.encode_bind_nak(1, 0)
        self.assertEqual(self.replies(b"", number=3), [Closed()] * 3)
        self.assertEqual(self.replies(one, b"", number=2), [received(one), Closed()])
        self.assertEqual(self.replies(one[:20], b"", number=2), [Noise(one[:20]), Closed()])
        self.assertEqual(self.replies(b"abc", b"", number=2), [Noise(b"abc"), Closed()])

    def test_excess(self) -> None:
        """
        Bytes of a bind_ack that its header does not count belong to it, and not to the next PDU.
        """
        data, _ = displaced_ack(False)
        following = pdu.encode_bind_nak(1, 0)
        expected = [received(data), received(following)]
        self.assertEqual(self.replies(data + following, number=2), expected)
        self.assertEqual(self.replies(data[:-4], data[-4:] + following, number=2), expected)
        cut = received(data[:-4])
        self.assertEqual(self.replies(data[:-4], b"", number=2), [cut, Closed()])
        self.assertIsNone(cut.ack)

    def test_silence(self) -> None:
        """
        Silence tells of a PDU that was begun.
        """
        self.assertEqual(self.replies(None), [Silence(5.0)])
        self.assertEqual(self.replies(b"abc", None), [Silence(5.0, 3)])

    def test_noise(self) -> None:
        """
        What cannot be a PDU is noise as soon as a header could be there.
        """
        for data in (
            b"HTTP/1.1 400 Bad Request",
            packets.packet(21),
            packets.packet(2, length=15),
            packets.packet(2, drep=b"\x20\0\0\0"),
        ):
            self.assertEqual(self.replies(data), [Noise(data)])

    def test_other_versions(self) -> None:
        """
        A PDU of another version is one, for a host may answer so.
        """
        data = packets.packet(12, bytes(12), version=(4, 0))
        self.assertEqual(self.replies(data), [received(data)])

    def test_problems(self) -> None:
        """
        What is wrong with the answer to an ordinary call is told.
        """
        link = Link(subject())
        _, call = link.make_call()

        def answer(stub: bytes, call_id: int) -> Received:
            return received(pdu.encode_response(call_id, 0, stub, 5840)[0])

        good = ndr.encode_activation_response(b"answer", NDR)
        for reply, problem in (
            (answer(good, call.call_id), ""),
            (answer(good, 3), "with the call id 3"),
            (answer(b"", call.call_id), "a stub that cannot be read"),
            (answer(bytes(12), call.call_id), "an HRESULT of 0 without a KMS response"),
            (
                answer(ndr.encode_activation_failure(0x8007000D, NDR), call.call_id),
                "with 0x8007000D, otherwise with 0x00000000",
            ),
            (Closed(), "closed the connection where an ordinary call has to be served"),
        ):
            found = link.problem_of(reply, call)
            self.assertIn(problem, found)
            self.assertEqual(bool(problem), bool(found))

    def test_undecided(self) -> None:
        """
        Without an ordinary bind there is nothing to try.
        """

        def script() -> Script[object]:
            return (yield from Link(subject()).bound())

        for deed in (None, b"", pdu.encode_bind_nak(1, 1)):
            self.assertRaises(
                UndecidedError,
                drive,
                script(),
                lambda step, deed=deed: deed if step.action == "receive" else b"",
            )

    def test_single_call(self) -> None:
        """
        Where a host closes after each call, nothing that follows one is held against it.
        """

        def script(known: Subject) -> Script[list[str]]:
            link = Link(known)
            yield from link.bound()
            first = yield from link.serve()
            return [first, (yield from link.serve())]

        host = MemoryHost(limits=Limits(disconnect_after_call=True))
        met = host.meet()
        self.assertTrue(met.single_call)
        self.assertEqual(host.run(script(met)), ["", ""])
        blind = host.run(script(replace(met, single_call=False)))
        self.assertEqual(blind[0], "")
        self.assertTrue(blind[1])


class CaseTests(SynchronousTestCase):
    """
    Cases, and what comes of them.
    """

    def case(self, body: Verdict | Exception, level: Level = Level.MUST) -> Case:
        """
        Make a case that ends in some way.
        """

        def script(known: Subject) -> Script[Verdict]:
            yield Step("connect", 0)
            if isinstance(body, Exception):
                raise body
            return body

        return define("bind.test", "3.1", level, "a title", "A rule.", "C706")(script)

    def verdict(self, case: Case) -> Verdict:
        """
        Try a case.
        """
        return drive(case.script(subject()), lambda step: b"")

    def test_area(self) -> None:
        """
        The area is the first part of the name.
        """
        self.assertIs(self.case(passed("did")).area, Area.BIND)

    def test_errors(self) -> None:
        """
        What cannot be read breaks the rule; what cannot be tried is undecided.
        """
        verdict = self.verdict(self.case(RemoteProtocolError("nonsense")))
        self.assertEqual(verdict, failed("sent what cannot be read: nonsense"))
        verdict = self.verdict(self.case(UndecidedError("hung up")))
        self.assertEqual(verdict, (Outcome.UNDECIDED, "hung up"))

    def test_words(self) -> None:
        """
        A rule that is broken counts by its level; everything else is told by its outcome.
        """
        for level, word, severity in (
            (Level.MUST, "fails", Severity.ERROR),
            (Level.SHOULD, "warning", Severity.WARNING),
            (Level.WINDOWS, "note", Severity.NOTE),
            (Level.HYGIENE, "note", Severity.NOTE),
        ):
            result = Result(self.case(failed("did it"), level), failed("did it"))
            self.assertEqual((result.word, result.severity), (word, severity))
            finding = result.finding()
            assert finding is not None
            self.assertEqual(
                (finding.rule, finding.severity, finding.problem, finding.source),
                ("3.1", severity, "the host did it", "C706"),
            )
        result = Result(self.case(noted("did it")), noted("did it"))
        self.assertEqual((result.word, result.severity, result.finding()), ("noted", None, None))

    def test_conclude(self) -> None:
        """
        What is lawful but not what the rule asks for is noted; what stays open is noted too.
        """
        for reply, then, following, expected in (
            (Closed(), Then.CLOSES, [], Outcome.PASSED),
            (Silence(1.0), Then.ANY, [], Outcome.FAILED),
            (received(pdu.encode_bind_nak(1, 4)), Then.ANY, [], Outcome.NOTED),
            (received(pdu.encode_bind_nak(1, 4)), Then.CLOSES, [b""], Outcome.NOTED),
            (received(pdu.encode_bind_nak(1, 0)), Then.CLOSES, [b""], Outcome.PASSED),
            (received(pdu.encode_bind_nak(1, 0)), Then.CLOSES, [None], Outcome.NOTED),
            (received(pdu.encode_bind_nak(1, 0)), Then.CLOSES, [b"x" * 16], Outcome.NOTED),
            (received(pdu.encode_bind_nak(1, 0)), Then.STAYS, [b""], Outcome.FAILED),
        ):
            waiting = list(following)
            link = Link(subject())
            script = conclude(link, reply, (nak(0), replies.CLOSE), (replies.ANY_NAK,), then)
            verdict = drive(
                script,
                lambda step, waiting=waiting: waiting.pop(0) if step.action == "receive" else b"",
            )
            self.assertIs(verdict.outcome, expected, verdict.did)

    def test_expected(self) -> None:
        """
        A verdict on what is not allowed says what the rule asks for.
        """
        case = exchange(
            "bind.test",
            "3.1",
            Level.MUST,
            "a title",
            "A rule.",
            "C706",
            lambda known: [b"x"],
            offered=None,
            accept=(nak(0), replies.CLOSE),
        )
        verdict = drive(
            case.script(subject()), lambda step: None if step.action == "receive" else b""
        )
        self.assertEqual(
            verdict,
            failed(
                "was silent for 5 seconds;"
                " expected: a bind_nak of reason 0, or the end of the connection"
            ),
        )
