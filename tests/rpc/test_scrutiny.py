"""
Tests of L{kmsproto.rpc.scrutiny}: a server that keeps the rules is found to keep them, and each rule is found broken.
"""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.findings import Finding, Severity
from kmsproto.rpc import pdu
from kmsproto.rpc.client import ClientConnection, offer
from kmsproto.rpc.ndr import encode_activation_failure, encode_activation_response
from kmsproto.rpc.numbers import ContextResult, FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, NO_SYNTAX, Bind, BindAck, ContextElement, Negotiated
from kmsproto.rpc.scrutiny import MAX_FINDINGS, Scrutiny, examine_activation_response
from kmsproto.rpc.server import RPCServer
from tests.rpc import PROPERTY
from tests.rpc.building import KMS

WHOLE = 0x03
ELEMENTS = offer(KMS.syntax, ndr64=True, bind_time_features=True)
BIND = Bind(5840, 5840, 0, ELEMENTS)
REFUSED = Negotiated(ContextResult.PROVIDER_REJECTION, 2, NO_SYNTAX)
ACCEPTED = Negotiated(ContextResult.ACCEPTANCE, 0, NDR64)
FEATURES = Negotiated(ContextResult.NEGOTIATE_ACK, 3, NO_SYNTAX)
ACK = BindAck(5840, 5840, 7, "1688", (REFUSED, ACCEPTED, FEATURES))


def watching(
    bind: Bind = BIND,
    packet_type: PacketType = PacketType.BIND,
    flags: int = WHOLE | PacketFlag.CONC_MPX,
) -> Scrutiny:
    """
    Begin to look at a connection to port 1688 on which a negotiation was sent.
    """
    scrutiny = Scrutiny(1688)
    scrutiny.sent(pdu.encode_bind(packet_type, flags, 2, bind))
    return scrutiny


def shown(scrutiny: Scrutiny, data: bytes) -> list[tuple[str, Severity, str]]:
    """
    Show a PDU, and tell what was found.
    """
    scrutiny.received(pdu.decode_header(data), data)
    return [(each.rule, each.severity, each.problem) for each in scrutiny.findings]


def changed(data: bytes, place: int, value: int) -> bytes:
    """
    Change one byte.
    """
    return data[:place] + bytes([value]) + data[place + 1 :]


def bind_ack(ack: BindAck = ACK, flags: int = WHOLE | PacketFlag.CONC_MPX) -> bytes:
    """
    Write a bind_ack.
    """
    return pdu.encode_bind_ack(PacketType.BIND_ACK, flags, 2, ack)


class ScrutinyCase(SynchronousTestCase):
    """
    What the tests ask for.
    """

    def assertFound(self, found: list[tuple[str, Severity, str]], rule: str, text: str) -> None:
        """
        One rule was broken, and no other.
        """
        self.assertEqual([each[0] for each in found], [rule], found)
        self.assertIn(text, found[0][2])


class OrdinaryTrafficTests(ScrutinyCase):
    """
    A server of ours keeps the rules.
    """

    def test_nothing_found(self) -> None:
        """
        Nothing is found in a whole conversation: bind, calls, a fault, another negotiation.
        """
        scrutiny = Scrutiny(1688)
        server = RPCServer([KMS]).accept("a", "1688")
        client = ClientConnection(scrutiny=scrutiny)
        client.bind(ELEMENTS)

        def travel() -> None:
            for event in server.receive_data(client.data_to_send()):
                if hasattr(event, "call"):
                    server.respond(event.call, event.call.stub)
            self.assertTrue(client.receive_data(server.data_to_send()))

        travel()
        for _ in range(3):
            client.call(1, 0, b"x" * 7000)
            travel()
        client.call(1, 9, b"")
        travel()
        client.alter_context([ContextElement(0, KMS.syntax, (NDR,))])
        travel()
        client.call(0, 0, b"")
        travel()
        self.assertEqual(scrutiny.findings, ())

    def test_bind_nak(self) -> None:
        """
        Nothing is found in a bind_nak as it must be.
        """
        self.assertEqual(shown(watching(), pdu.encode_bind_nak(2, 4)), [])

    def test_answer_that_nobody_waits_for(self) -> None:
        """
        An ack of nothing is for the client to refuse.
        """
        self.assertEqual(shown(Scrutiny(), bind_ack()), [])

    def test_unreadable(self) -> None:
        """
        A PDU that is too short for its type is for the client to refuse.
        """
        for kind in (PacketType.BIND_ACK, PacketType.RESPONSE, PacketType.FAULT):
            data = pdu.encode_pdu(kind, WHOLE, 2, b"")
            self.assertEqual(shown(watching(), data), [])

    def test_other_kinds(self) -> None:
        """
        Of other PDUs only the header is looked at.
        """
        self.assertEqual(shown(watching(), pdu.encode_pdu(PacketType.SHUTDOWN, WHOLE, 2, b"")), [])


class HeaderTests(ScrutinyCase):
    """
    The common header.
    """

    def test_data_representation(self) -> None:
        """
        Another data representation than little-endian, ASCII and IEEE is found.
        """
        for place, value in ((4, 0x11), (5, 1), (6, 1), (7, 0xFF)):
            found = shown(watching(), changed(bind_ack(), place, value))
            self.assertFound(found, "2.15", "data representation")

    def test_big_endian(self) -> None:
        """
        Big-endian answers are noted: they are lawful, but no Windows host has them.
        """
        ack = bind_ack()
        head = ack[:4] + bytes(4) + pack(">HHI", len(ack), 0, 2) + pack(">HHIH", 5840, 5840, 7, 5)
        data = head + ack[26:36]
        for result, reason, syntax in ((2, 2, NO_SYNTAX), (0, 0, NDR64), (3, 3, NO_SYNTAX)):
            data += pack(">HH", result, reason) + syntax.uuid.bytes
            data += pack(">I", syntax.minor << 16 | syntax.major)
        found = shown(watching(), data)
        self.assertFound(found, "2.15", "big-endian")
        self.assertEqual(found[0][1], Severity.NOTE)

    def test_reserved_flag(self) -> None:
        """
        The flag without meaning is found.
        """
        data = changed(bind_ack(), 3, WHOLE | 0x10 | 0x08)
        self.assertFound(shown(watching(), data), "2.14", "reserved")


class AckTests(ScrutinyCase):
    """
    A bind_ack and an alter_context_resp.
    """

    def test_flags(self) -> None:
        """
        Flags that do not belong into a bind_ack are found, and those that are missing.
        """
        for flags, text in (
            (0x11, "first and last"),
            (0x12, "first and last"),
            (0x33, "has the flags 0x33"),
            (0x93, "has the flags 0x93"),
            (0x03, "not granted"),
        ):
            self.assertFound(shown(watching(), bind_ack(flags=flags)), "2.14", text)
        unasked = watching(flags=WHOLE)
        self.assertFound(shown(unasked, bind_ack()), "2.14", "not asked for")

    def test_flags_of_the_other(self) -> None:
        """
        An alter_context_resp is whole and nothing else.
        """
        ack = ACK._replace(secondary_address="", results=(ACCEPTED,))
        bind = BIND._replace(elements=ELEMENTS[1:2])
        for flags, found in ((0x03, []), (0x13, ["2.14"])):
            data = pdu.encode_bind_ack(PacketType.ALTER_CONTEXT_RESP, flags, 2, ack)
            scrutiny = watching(bind, PacketType.ALTER_CONTEXT)
            self.assertEqual([each[0] for each in shown(scrutiny, data)], found)

    def test_address_of_the_other(self) -> None:
        """
        An alter_context_resp has no secondary address.
        """
        ack = ACK._replace(results=(ACCEPTED,))
        data = pdu.encode_bind_ack(PacketType.ALTER_CONTEXT_RESP, WHOLE, 2, ack)
        scrutiny = watching(BIND._replace(elements=ELEMENTS[1:2]), PacketType.ALTER_CONTEXT)
        self.assertFound(shown(scrutiny, data), "3 bind_ack layout", "secondary address")

    def test_sizes(self) -> None:
        """
        Fragments smaller than every peer must take, or larger than the client said, are found.
        """
        for xmit, recv, text in (
            (1431, 5840, "transmit fragments of at most 1431"),
            (5840, 0, "receive fragments of at most 0"),
            (5848, 5840, "transmit fragments of 5848 bytes, where the client offered 5840"),
            (5840, 65535, "receive fragments of 65535 bytes, where"),
        ):
            data = bind_ack(ACK._replace(max_xmit_frag=xmit, max_recv_frag=recv))
            self.assertFound(shown(watching(), data), "3.1", text)

    def test_sizes_of_a_small_client(self) -> None:
        """
        To a client that says less than the least, the least is a good answer.
        """
        small = BIND._replace(max_xmit_frag=0, max_recv_frag=100)
        data = bind_ack(ACK._replace(max_xmit_frag=1432, max_recv_frag=1432))
        (found,) = shown(watching(small), data)
        self.assertEqual(found[1], Severity.NOTE)

    def test_sizes_of_windows(self) -> None:
        """
        Sizes that are lawful, but not as Windows has them, are noted.
        """
        for xmit, recv in ((5840, 5832), (5836, 5836), (2040, 2040)):
            data = bind_ack(ACK._replace(max_xmit_frag=xmit, max_recv_frag=recv))
            found = shown(watching(), data)
            self.assertFound(found, "3.1", "Windows has two equal ones from 2048 to 5840")

    def test_ends(self) -> None:
        """
        The bytes behind the number of results are zero, and nothing follows the results.
        """
        layout = "3 bind_ack layout"
        for place in (33, 34, 35):
            self.assertFound(shown(watching(), changed(bind_ack(), place, 1)), layout, "reserved")
        data = bind_ack() + b"\0" * 4
        data = changed(data, 8, len(data))
        self.assertFound(shown(watching(), data), layout, "4 bytes follow the results")

    def test_refusals(self) -> None:
        """
        A refusal has a reason that exists.
        """
        for result in (1, 2):
            results = (Negotiated(result, 4, NO_SYNTAX), ACCEPTED, FEATURES)
            found = shown(watching(), bind_ack(ACK._replace(results=results)))
            self.assertFound(found, "3 bind_ack layout", "with the reason 4, which does not exist")

    def test_fragment_that_is_too_long(self) -> None:
        """
        A fragment longer than the client receives is found.
        """
        data = pdu.encode_pdu(PacketType.SHUTDOWN, WHOLE, 2, bytes(5840))
        self.assertFound(
            shown(watching(), data), "3.1", "5856 bytes, where the client receives 5840"
        )

    def test_group(self) -> None:
        """
        An association group has an id that is not 0.
        """
        found = shown(watching(), bind_ack(ACK._replace(association_group=0)))
        self.assertFound(found, "3.3", "group id is 0")

    def test_address(self) -> None:
        """
        The secondary address is the port and a zero, and zeros align what follows.
        """
        layout = "3 bind_ack layout"
        other = bind_ack(ACK._replace(secondary_address="1689"))
        self.assertFound(shown(watching(), other), layout, "'1689' is not the port 1688")
        unended = changed(bind_ack(), 30, 0x20)
        self.assertEqual([each[0] for each in shown(watching(), unended)], [layout, layout])
        remains = changed(bind_ack(), 31, 0x37)
        self.assertFound(shown(watching(), remains), layout, "remains")
        anywhere = watching()
        anywhere.port = None
        self.assertEqual(shown(anywhere, other), [])

    def test_two_syntaxes(self) -> None:
        """
        Of the transfer syntaxes of one interface only one is accepted in a PDU.
        """
        feature = Negotiated(0, 0, ELEMENTS[2].transfer_syntaxes[0])
        found = shown(watching(), bind_ack(ACK._replace(results=(REFUSED, ACCEPTED, feature))))
        self.assertFound(found, "4.1", "as if it were a transfer syntax")
        both = (Negotiated(0, 0, NDR), ACCEPTED, FEATURES)
        found = shown(watching(), bind_ack(ACK._replace(results=both)))
        self.assertFound(found, "3.13", "more than one transfer syntax")

    def test_features(self) -> None:
        """
        Of the features only those that were asked for are granted, and only where they were.
        """
        for result, rule, text in (
            (Negotiated(3, 7, NO_SYNTAX), "4.2", "granted, but 0x3 were"),
            (Negotiated(3, 2, NO_SYNTAX), "4.1", "of 0x3"),
            (Negotiated(0, 0, ELEMENTS[2].transfer_syntaxes[0]), "4.1", "as if it were"),
        ):
            data = bind_ack(ACK._replace(results=(REFUSED, REFUSED, result)))
            self.assertFound(shown(watching(), data), rule, text)
        data = bind_ack(ACK._replace(results=(FEATURES, ACCEPTED, FEATURES)))
        self.assertFound(shown(watching(), data), "4.3", "which it is not")
        refused = bind_ack(ACK._replace(results=(REFUSED, ACCEPTED, REFUSED)))
        self.assertEqual(shown(watching(), refused), [])

    def test_verdicts(self) -> None:
        """
        A verdict has a known number, a reason and a transfer syntax that belong to it.
        """
        for result, text in (
            (Negotiated(4, 0, NO_SYNTAX), "is answered with 4"),
            (Negotiated(2, 2, NDR), "its transfer syntax is not zero"),
        ):
            data = bind_ack(ACK._replace(results=(result, ACCEPTED, FEATURES)))
            self.assertFound(shown(watching(), data), "3 bind_ack layout", text)
        data = bind_ack(ACK._replace(results=(REFUSED, Negotiated(0, 2, NDR64), FEATURES)))
        self.assertFound(shown(watching(), data), "3 bind_ack layout", "with the reason 2")

    def test_no_syntaxes(self) -> None:
        """
        An element without transfer syntaxes is a mistake of the client's, and none of the server's to refuse.
        """
        bind = BIND._replace(elements=(ContextElement(0, KMS.syntax, ()),))
        self.assertEqual(shown(watching(bind), bind_ack(ACK._replace(results=(REFUSED,)))), [])


class BindNakTests(ScrutinyCase):
    """
    A bind_nak.
    """

    def test_protocols(self) -> None:
        """
        It names version 5.0.
        """
        nak = pdu.encode_bind_nak(2, 4)
        for data in (changed(nak, 18, 0), changed(nak, 19, 4), nak[:18]):
            self.assertFound(shown(watching(), data), "3 bind_nak layout", "version 5.0")

    def test_call_id(self) -> None:
        """
        It has the call id of the bind.
        """
        self.assertFound(shown(watching(), pdu.encode_bind_nak(77, 4)), "2.13", "call id 77")

    def test_reason(self) -> None:
        """
        It has a reason that exists.
        """
        found = shown(watching(), pdu.encode_bind_nak(2, 77))
        self.assertFound(found, "3 bind_nak layout", "reason 77")

    def test_flags(self) -> None:
        """
        It is whole.
        """
        data = changed(pdu.encode_bind_nak(2, 4), 3, 0)
        self.assertFound(shown(watching(), data), "3 bind_nak layout", "first and last")


class ResponseTests(ScrutinyCase):
    """
    A response, and the stub in it.
    """

    def response(self, stub: bytes = b"12345678", context_id: int = 1) -> bytes:
        """
        Write a response.
        """
        (data,) = pdu.encode_response(2, context_id, stub, 5840)
        return data

    def asked(self, context_id: int = 1) -> Scrutiny:
        """
        Look at a connection on which a call was made.
        """
        scrutiny = Scrutiny()
        scrutiny.sent(b"".join(pdu.encode_request(2, context_id, 0, b"x" * 9000, 5840)))
        return scrutiny

    def test_flags(self) -> None:
        """
        Only first and last fragment are flags of a response.
        """
        data = changed(self.response(), 3, WHOLE | 0x20)
        self.assertFound(shown(self.asked(), data), "5.2", "has the flags 0x23")

    def test_zeros(self) -> None:
        """
        The cancel count and the byte behind it are zero.
        """
        for place in (22, 23):
            data = changed(self.response(), place, 1)
            self.assertFound(shown(self.asked(), data), "5.2", "not both zero")

    def test_alloc_hint(self) -> None:
        """
        The alloc_hint is the length of the stub; in a first fragment at least of what is there.
        """
        data = changed(self.response(), 16, 9)
        self.assertFound(shown(self.asked(), data), "5.2", "alloc_hint is 9 for a stub of 8")
        first = changed(self.response(), 3, 1)
        self.assertEqual(shown(self.asked(), changed(first, 16, 200)), [])
        self.assertFound(shown(self.asked(), changed(first, 16, 7)), "5.2", "alloc_hint is 7")
        later = changed(changed(self.response(), 3, 0), 16, 7)
        self.assertEqual(shown(self.asked(), later), [])

    def test_context(self) -> None:
        """
        A response names the context of the call, all of it.
        """
        found = shown(self.asked(0x101), self.response())
        self.assertFound(found, "5.1", "context 257 names context 1")

    def test_stub(self) -> None:
        """
        In the stub of an activation nothing but zeros stands before the HRESULT, and nothing behind it.
        """
        for syntax in (NDR, NDR64):
            for payload in (b"", b"x" * 5, b"x" * 8):
                stub = encode_activation_response(payload, syntax)
                if not payload:
                    stub = encode_activation_failure(5, syntax)
                scrutiny = Scrutiny()
                scrutiny.answered(stub, syntax, "<")
                self.assertEqual(scrutiny.findings, ())
                (found,) = examine_activation_response(stub + b"\0", syntax, "<")
                self.assertIn("1 bytes follow", found.problem)
                if syntax == NDR64:
                    (found,) = examine_activation_response(changed(stub, 6, 1), syntax, "<")
                    self.assertIn("align the pointer", found.problem)
            nothing = encode_activation_response(b"", syntax)
            self.assertEqual(list(examine_activation_response(nothing, syntax, "<")), [])
            both = encode_activation_response(b"x" * 4, syntax)[:-4] + pack("<I", 0xC004F042)
            (found,) = examine_activation_response(both, syntax, "<")
            self.assertIn("HRESULT 0xC004F042", found.problem)
            both = encode_activation_response(b"", syntax)[:-4] + pack("<I", 0xC004F042)
            (found,) = examine_activation_response(both, syntax, "<")
            self.assertIn("HRESULT 0xC004F042", found.problem)
            place = 10 if syntax == NDR64 else 6
            other = changed(encode_activation_response(b"x" * 4, syntax), place, 3)
            (found,) = examine_activation_response(other, syntax, "<")
            self.assertIn("is 0x00030000, where Windows has 0x00020000", found.problem)
            stub = encode_activation_response(b"x" * 5, syntax)
            (found,) = examine_activation_response(changed(stub, len(stub) - 5, 1), syntax, "<")
            self.assertIn("align the HRESULT", found.problem)


class FaultTests(ScrutinyCase):
    """
    A fault.
    """

    FAULT = pdu.encode_fault(2, 1, FaultStatus.UNK_IF, did_not_execute=True)

    def test_status(self) -> None:
        """
        Some statuses must not be sent.
        """
        for status in (0, 0xC0000005):
            data = pdu.encode_fault(2, 1, status, did_not_execute=False)
            self.assertFound(shown(Scrutiny(), data), "10", f"0x{status:08X}")

    def test_execution(self) -> None:
        """
        A fault says whether the call may have been executed, as its status demands.
        """
        for status, said in (
            (FaultStatus.UNK_IF, False),
            (FaultStatus.OP_RNG_ERROR, False),
            (FaultStatus.BAD_STUB_DATA, True),
        ):
            data = pdu.encode_fault(2, 1, status, did_not_execute=said)
            self.assertFound(shown(Scrutiny(), data), "10", "not executed")
            data = pdu.encode_fault(2, 1, status, did_not_execute=not said)
            self.assertEqual(shown(Scrutiny(), data), [])

    def test_context(self) -> None:
        """
        A fault names the context of the call, or 0.
        """
        for named, found in ((0, []), (0x105, []), (5, []), (7, ["10"])):
            scrutiny = Scrutiny()
            scrutiny.sent(pdu.encode_request(2, 0x105, 0, b"", 5840)[0])
            data = pdu.encode_fault(2, named, FaultStatus.ACCESS_DENIED, did_not_execute=False)
            self.assertEqual([each[0] for each in shown(scrutiny, data)], found)

    def test_length(self) -> None:
        """
        Nothing follows a fault, unless it says so; and its alloc_hint is not 0.
        """
        longer = changed(self.FAULT + bytes(8), 8, 40)
        self.assertFound(shown(Scrutiny(), longer), "10", "8 bytes follow")
        self.assertEqual(shown(Scrutiny(), changed(longer, 23, 1)), [])
        self.assertFound(shown(Scrutiny(), changed(self.FAULT, 16, 0)), "10", "alloc_hint")

    def test_fields(self) -> None:
        """
        Flags, cancel count and reserved fields are as they must be.
        """
        for place, value, text in (
            (3, 0x21, "flags 0x21"),
            (3, 0xA3, "flags 0xA3"),
            (22, 3, "cancel count 3"),
            (23, 1, "its own flags"),
            (23, 0x80, "its own flags"),
            (28, 1, "reserved field"),
        ):
            self.assertFound(shown(Scrutiny(), changed(self.FAULT, place, value)), "10", text)


class BoundTests(ScrutinyCase):
    """
    Whatever comes, little is kept.
    """

    def test_each_once(self) -> None:
        """
        What is found again is not kept again.
        """
        scrutiny = watching()
        data = pdu.encode_fault(2, 1, 0, did_not_execute=False)
        for _ in range(3):
            self.assertEqual(len(shown(scrutiny, data)), 1)

    def test_many(self) -> None:
        """
        There is a limit to the number of findings.
        """
        scrutiny = watching()
        for number in range(1000):
            scrutiny.sent(pdu.encode_bind(PacketType.BIND, WHOLE | PacketFlag.CONC_MPX, 2, BIND))
            name = "".join(chr(97 + int(digit)) for digit in str(number))
            shown(scrutiny, bind_ack(ACK._replace(secondary_address=name)))
        self.assertEqual(len(scrutiny.findings), MAX_FINDINGS)

    def test_numbers(self) -> None:
        """
        Of findings that differ in nothing but a number the first is enough.
        """
        scrutiny = watching()
        for hint in range(1000):
            data = pdu.encode_pdu(PacketType.RESPONSE, WHOLE, 2, pack("<IHH", hint + 1, 0, 0))
            shown(scrutiny, data)
        self.assertEqual([each.rule for each in scrutiny.findings], ["5.2"])

    def test_unanswered(self) -> None:
        """
        Calls and negotiations that are never answered are forgotten in the end.
        """
        scrutiny = Scrutiny()
        for call_id in range(1000):
            scrutiny.sent(pdu.encode_request(call_id, 7, 0, b"", 5840)[0])
            scrutiny.sent(pdu.encode_bind(PacketType.BIND, WHOLE, call_id, BIND))
        (early,) = pdu.encode_response(0, 8, b"", 5840)
        (late,) = pdu.encode_response(999, 8, b"", 5840)
        self.assertEqual(shown(scrutiny, early), [])
        self.assertFound(shown(scrutiny, late), "5.1", "context 8")

    @PROPERTY
    @given(st.sampled_from(range(20)), st.binary(max_size=120), st.integers(0, 255))
    def test_any_bytes(self, kind: int, body: bytes, drep: int) -> None:
        """
        Any PDU can be looked at, and gives findings or none.
        """
        scrutiny = watching()
        data = changed(pdu.encode_pdu(kind, WHOLE, 2, body), 4, drep & 0x1F)
        length = pack("<H" if drep & 0x10 else ">H", len(data))
        shown(scrutiny, data[:8] + length + data[10:])
        for finding in scrutiny.findings:
            self.assertIsInstance(finding, Finding)
            self.assertEqual(finding.to_json()["severity"], finding.severity.value)
            self.assertIn(finding.rule, str(finding))
