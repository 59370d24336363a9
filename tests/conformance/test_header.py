"""
Table 2: the 16 bytes that every PDU begins with, and how a stream of bytes becomes PDUs.

The rows about C{auth_length} stand here as far as they are about the length itself; what a trailer
with room leads to is in L{tests.conformance.test_security}.
"""

from __future__ import annotations

import struct
from uuid import UUID

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    BAD_STUB,
    NO_TRANSFER,
    OPNUM_OUT_OF_RANGE,
    PROTOCOL_ERROR,
    UNKNOWN_INTERFACE,
    Result,
    expected_alter_response,
    expected_bind_ack,
    expected_bind_nak,
    expected_fault,
    expected_response,
    failure_stub,
)
from tests.conformance.payloads import (
    RECORDED_ALTER,
    RECORDED_BIND,
    REQUEST_V4,
    REQUEST_V5,
    REQUEST_V6,
    REQUEST_V7,
)
from tests.conformance.pdus import (
    CONC_MPX,
    KMS,
    MANAGEMENT,
    NDR,
    NDR64,
    Order,
    PType,
    Syntax,
    activation_stub,
    alter,
    bind,
    element,
    features,
    fragments,
    ndr64_stub,
    ndr_stub,
    pdu,
    request,
)
from tests.conformance.wire import ConformanceCase

ORDERS: tuple[Order, Order] = ("<", ">")
WRONG_VERSIONS = [(4, 0), (5, 1), (6, 0), (0, 0), (5, 255), (255, 0)]
CALL_IDS = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0x12345678, 0xFFFFFFFF]


class VersionTests(ConformanceCase):
    """
    2.1, 2.2: rpc_vers and rpc_vers_minor.
    """

    def test_bind(self) -> None:
        """
        2.1 A bind of another version than 5.0 is refused for reason 4, in a PDU of version 5.0.
        """
        for version in WRONG_VERSIONS:
            sent = bind(element(0, NDR), version=version, call_id=77)
            self.assertNak(self.wire(), sent, 4, 77)

    def test_bind_header_alone(self) -> None:
        """
        2.1 A bind of another version is refused as soon as its header is there.
        """
        for version in WRONG_VERSIONS:
            sent = pdu(PType.BIND, version=version, call_id=77, frag_length=65535)
            self.assertNak(self.wire(), sent, 4, 77)

    def test_request(self) -> None:
        """
        2.2 A request of another version is not executed: a protocol error, and the end.
        """
        for version in WRONG_VERSIONS:
            sent = request(ndr_stub(REQUEST_V4), version=version, call_id=78)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 78)

    def test_request_header_alone(self) -> None:
        """
        2.2 A request of another version is refused as soon as its header is there.
        """
        for version in WRONG_VERSIONS:
            sent = pdu(PType.REQUEST, version=version, call_id=78, frag_length=60000)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 78)

    def test_alter(self) -> None:
        """
        2.2 An alter_context of another version is a protocol error, and the end.
        """
        for version in WRONG_VERSIONS:
            sent = alter(element(1, NDR), version=version, call_id=79)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 79)


class ByteOrderTests(ConformanceCase):
    """
    2.3, 2.4, 2.5: the data representation of each PDU.
    """

    def test_big_endian_bind(self) -> None:
        """
        2.3 A big-endian bind is understood and answered in the host's own order.
        """
        wire = self.wire()
        sent = bind(element(0x0102, NDR), order=">", call_id=0x01020304, xmit=4280, recv=4296)
        wire.send(sent)
        (answer,) = wire.pdus()
        expected = expected_bind_ack(
            answer.group, ACCEPT_NDR, call_id=0x01020304, xmit=4280, recv=4280
        )
        self.assertEqual(answer.raw, expected)
        self.assertStays(wire, 0x0102)

    def test_big_endian_group(self) -> None:
        """
        2.3 The association group of a big-endian bind is a big-endian number.
        """
        wire, other = self.bound(), self.wire()
        self.assertAnswers(
            other,
            bind(element(0, NDR), order=">", group=wire.group),
            expected_bind_ack(wire.group, ACCEPT_NDR),
        )

    def test_big_endian_features(self) -> None:
        """
        2.3 The bitmask of bind time features lies in the byte array of its UUID: it has no order.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR), element(1, features(3)), order=">"))
        (answer,) = wire.pdus()
        self.assertEqual(answer.results, [ACCEPT_NDR, Result(3, 3)])

    def test_big_endian_list(self) -> None:
        """
        2.3 All elements and versions of a big-endian bind are big-endian.
        """
        wire = self.wire()
        newer = Syntax(KMS.uuid, 1, 1)
        wire.send(
            bind(
                element(0, NDR),
                element(1, NDR64),
                element(2, NDR, abstract=MANAGEMENT),
                element(3, NDR, abstract=newer),
                order=">",
            )
        )
        (answer,) = wire.pdus()
        self.assertEqual(answer.results, [NO_TRANSFER, ACCEPT_NDR64, ACCEPT_NDR, Result(2, 1)])

    def test_big_endian_request(self) -> None:
        """
        2.3 A big-endian request has big-endian counts in its stub, and the message as it is.
        """
        wire = self.bound(element(0x0102, NDR))
        for payload in (REQUEST_V4, REQUEST_V5, REQUEST_V6):
            stub = ndr_stub(payload, order=">")
            wire.send(request(stub, context=0x0102, order=">", call_id=0x01020304))
            self.assertGranted(wire, 0x01020304, 0x0102, payload=payload)

    def test_order_belongs_to_the_pdu(self) -> None:
        """
        2.3 Each PDU has a byte order of its own: big and little-endian ones follow each other.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR), order=">"))
        (answer,) = wire.pdus()
        self.assertStays(wire)
        self.assertAnswers(
            wire,
            alter(element(0x0201, NDR), order=">", call_id=0x0A0B0C0D),
            expected_alter_response(answer.group, ACCEPT_NDR, call_id=0x0A0B0C0D),
        )
        for _ in range(2):
            wire.send(request(ndr_stub(REQUEST_V4, order=">"), context=0x0201, order=">"))
            self.assertGranted(wire, context=0x0201)
            self.assertStays(wire, 0x0201)

    def test_wrong_order_in_stub(self) -> None:
        """
        2.3 The stub has the order of its PDU and no other.
        """
        wire = self.bound()
        for order, other in (ORDERS, ORDERS[::-1]):
            sent = request(ndr_stub(REQUEST_V4, order=other), order=order)
            self.assertFaultStays(wire, sent, BAD_STUB, executed=True)

    def test_big_endian_object(self) -> None:
        """
        2.3 An object UUID in a big-endian request is skipped as well.
        """
        wire = self.bound()
        identifier = UUID("00112233-4455-6677-8899-aabbccddeeff")
        stub = ndr_stub(REQUEST_V4, order=">")
        wire.send(request(stub, order=">", object_id=identifier))
        self.assertGranted(wire)

    def test_big_endian_fragments(self) -> None:
        """
        2.3 A big-endian request may come in fragments.
        """
        wire = self.bound()
        stub = ndr_stub(REQUEST_V4, order=">")
        wire.send(b"".join(fragments([stub[:5], stub[5:100], stub[100:]], order=">")))
        self.assertGranted(wire)

    def test_big_endian_faults(self) -> None:
        """
        2.3 Faults for big-endian requests are in the host's own order.
        """
        wire = self.bound()
        sent = request(context=0x0A0B, order=">", call_id=0x0C0D0E0F)
        self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, 0x0C0D0E0F)
        sent = request(opnum=0x0100, order=">", call_id=0x0C0D0E0F)
        self.assertFaultStays(wire, sent, OPNUM_OUT_OF_RANGE, 0x0C0D0E0F)

    def test_big_endian_nak(self) -> None:
        """
        2.3 The bind_nak for a big-endian bind is in the host's own order.
        """
        sent = bind(order=">", call_id=0x0C0D0E0F)
        self.assertNak(self.wire(), sent, 4, 0x0C0D0E0F)

    def test_other_characters_and_floats(self) -> None:
        """
        2.4 EBCDIC and foreign floating point are accepted, since neither occurs; never echoed.
        """
        for drep in (b"\x11\0\0\0", b"\x10\x01\0\0", b"\x10\x02\0\0", b"\x11\x03\0\0"):
            wire = self.wire()
            wire.send(bind(element(0, NDR), drep=drep))
            (answer,) = wire.pdus()
            self.assertEqual(answer.raw, expected_bind_ack(answer.group, ACCEPT_NDR))
            self.assertAnswers(
                wire,
                alter(element(1, NDR), drep=drep),
                expected_alter_response(answer.group, ACCEPT_NDR),
            )
            wire.send(request(ndr_stub(REQUEST_V4), drep=drep))
            self.assertGranted(wire)

    def test_big_endian_with_other_characters(self) -> None:
        """
        2.4 The byte order is the high half of its octet; the low half does not matter.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR), order=">", drep=b"\x01\0\0\0"))
        (answer,) = wire.pdus()
        self.assertEqual(answer.results, [ACCEPT_NDR])

    def test_big_endian_ndr64(self) -> None:
        """
        2.5 NDR64 has no big-endian form: such a request is a bad stub, whatever its counts say.
        """
        wire = self.bound(element(3, NDR64))
        for stub in (ndr64_stub(REQUEST_V4, order=">"), ndr64_stub(REQUEST_V4, order="<")):
            self.assertFaultStays(
                wire,
                request(stub, context=3, order=">"),
                BAD_STUB,
                context=3,
                executed=True,
                live=(3, NDR64),
            )


class LengthTests(ConformanceCase):
    """
    2.6 to 2.11: frag_length and auth_length.
    """

    def test_below_header_unbound(self) -> None:
        """
        2.6 A first PDU shorter than its header ends the connection at once, at most with a nak.
        """
        for ptype in (PType.BIND, PType.REQUEST, PType.ALTER_CONTEXT):
            for length in range(16):
                wire = self.wire()
                wire.send(pdu(ptype, frag_length=length))
                self.assertIn(wire.take(), (b"", expected_bind_nak(4)))
                self.assertClosed(wire)

    def test_below_header_bound(self) -> None:
        """
        2.6 A later PDU shorter than its header ends the connection at once, at most with a fault.
        """
        for ptype in (PType.BIND, PType.REQUEST, PType.ALTER_CONTEXT, PType.CO_CANCEL):
            for length in range(16):
                wire = self.bound()
                wire.send(pdu(ptype, frag_length=length))
                self.assertIn(wire.take(), (b"", expected_fault(PROTOCOL_ERROR)))
                self.assertClosed(wire)

    def test_bind_too_short(self) -> None:
        """
        2.7, 2.8 A bind that ends before its context list does gets a bind_nak at once.
        """
        whole = bind(element(0, NDR))
        for length in range(16, 28):
            cut = pdu(PType.BIND, whole[16:length], call_id=5)
            self.assertNak(self.wire(), cut, 4, 5)

    def test_request_too_short(self) -> None:
        """
        2.7, 2.8 A request that ends before its stub begins is a protocol error at once.
        """
        whole = request(ndr_stub(REQUEST_V4))
        for length in range(16, 24):
            cut = pdu(PType.REQUEST, whole[16:length], call_id=5)
            self.assertFaultCloses(self.bound(), cut, PROTOCOL_ERROR, 5)

    def test_alter_too_short(self) -> None:
        """
        2.7, 2.8 An alter_context that ends before its context list does is a protocol error.
        """
        whole = alter(element(1, NDR))
        for length in range(16, len(whole)):
            cut = pdu(PType.ALTER_CONTEXT, whole[16:length], call_id=5)
            self.assertFaultCloses(self.bound(), cut, PROTOCOL_ERROR, 5)

    def test_request_too_long(self) -> None:
        """
        2.9 A request fragment above 5840 bytes is refused as executed, with context 0.
        """
        for length in (5841, 5848, 65535):
            wire = self.bound(element(7, NDR))
            stub = ndr_stub(REQUEST_V4).ljust(length - 24, b"\0")
            sent = request(stub, context=7, call_id=9)
            self.assertFaultCloses(wire, sent, PROTOCOL_ERROR, 9, executed=True)

    def test_request_too_long_header_alone(self) -> None:
        """
        2.9 A request fragment above 5840 bytes is refused as soon as its header is there.
        """
        for order in ORDERS:
            sent = pdu(PType.REQUEST, frag_length=5841, call_id=9, order=order)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 9, executed=True)

    def test_longer_than_negotiated(self) -> None:
        """
        2.10 A fragment above the negotiated size is accepted up to 5840 bytes.
        """
        for length in (2049, 2056, 4096, 5839, 5840):
            wire = self.wire()
            wire.send(bind(element(0, NDR), xmit=2048, recv=2048))
            self.assertEqual(wire.pdus()[0].sizes, (2048, 2048))
            wire.send(request(ndr_stub(REQUEST_V4).ljust(length - 24, b"\0")))
            self.assertGranted(wire)

    def test_bind_trailer_without_room(self) -> None:
        """
        2.11 A bind whose auth_length leaves no room for the trailer is refused for reason 4.
        """
        body = len(bind(element(0, NDR))) - 16
        for auth_length in (body - 7, body, body + 8, 0xFFFF):
            sent = bind(element(0, NDR), auth_length=auth_length, call_id=6)
            self.assertNak(self.wire(), sent, 4, 6)

    def test_request_trailer_without_room(self) -> None:
        """
        2.11 A request whose auth_length leaves no room for the trailer is a protocol error.
        """
        stub = ndr_stub(REQUEST_V4)
        for auth_length in (len(stub) + 8 - 7, len(stub) + 8, 0xFFFF):
            sent = request(stub, auth_length=auth_length, call_id=6)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 6)

    def test_empty_request_trailer_without_room(self) -> None:
        """
        2.11 A request without a stub has no room for a trailer at all.
        """
        sent = request(auth_length=1, call_id=6)
        self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 6)

    def test_alter_trailer_without_room(self) -> None:
        """
        2.11 An alter_context whose auth_length leaves no room is a protocol error.
        """
        for auth_length in (64, 0xFFFF):
            sent = alter(element(1, NDR), auth_length=auth_length, call_id=6)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 6)

    def test_large_negotiation(self) -> None:
        """
        2.9 The limit of 5840 bytes is not for bind and alter_context: 65535 bytes are accepted.
        """
        wire = self.wire()
        filling = bytes(65535 - len(bind(element(0, NDR))))
        wire.send(bind(element(0, NDR), extra=filling))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_bind_ack(answer.group, ACCEPT_NDR))
        self.assertAnswers(
            wire,
            alter(element(1, NDR), extra=filling),
            expected_alter_response(answer.group, ACCEPT_NDR),
        )
        self.assertStays(wire, 1)


class CallIdTests(ConformanceCase):
    """
    2.13: call_id is the peer's, and comes back as it was.
    """

    def test_bind_ack(self) -> None:
        """
        2.13 A bind_ack has the call id of its bind.
        """
        for call_id in CALL_IDS:
            wire = self.wire()
            wire.send(bind(element(0, NDR), call_id=call_id))
            (answer,) = wire.pdus()
            expected = expected_bind_ack(answer.group, ACCEPT_NDR, call_id=call_id)
            self.assertEqual(answer.raw, expected)

    def test_bind_nak(self) -> None:
        """
        2.13 A bind_nak has the call id of its bind.
        """
        for call_id in CALL_IDS:
            self.assertNak(self.wire(), bind(call_id=call_id), 4, call_id)

    def test_alter(self) -> None:
        """
        2.13 An alter_context_resp has the call id of its alter_context.
        """
        wire = self.bound()
        for call_id in CALL_IDS:
            self.assertAnswers(
                wire,
                alter(element(0, NDR), call_id=call_id),
                expected_alter_response(wire.group, ACCEPT_NDR, call_id=call_id),
            )

    def test_response(self) -> None:
        """
        2.13 A response has the call id of its request, in any order of the ids.
        """
        wire = self.bound()
        for call_id in [*CALL_IDS, *reversed(CALL_IDS)]:
            self.assertActivates(wire, call_id=call_id)

    def test_fault(self) -> None:
        """
        2.13 A fault has the call id of its request.
        """
        wire = self.bound()
        for call_id in CALL_IDS:
            sent = request(context=99, call_id=call_id)
            self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, call_id)

    def test_used_again(self) -> None:
        """
        2.13 The call id of a call that was answered may be used again.
        """
        wire = self.bound()
        for _ in range(5):
            self.assertActivates(wire, call_id=1)


class FlagTests(ConformanceCase):
    """
    2.14: pfc_flags of bind and alter_context.
    """

    def test_bind(self) -> None:
        """
        2.14 No flag of a bind changes its answer but CONC_MPX, and that one is echoed.
        """
        for flags in range(256):
            wire = self.wire()
            wire.send(bind(element(0, NDR), flags=flags))
            (answer,) = wire.pdus()
            self.assertEqual(
                answer.raw,
                expected_bind_ack(answer.group, ACCEPT_NDR, flags=0x03 | flags & CONC_MPX),
                f"flags 0x{flags:02x}",
            )
            wire.drop()

    def test_alter(self) -> None:
        """
        2.14 No flag of an alter_context changes its answer, whose flags are 0x03 always.
        """
        for multiplexing in (0, CONC_MPX):
            wire = self.wire()
            wire.send(bind(element(0, NDR), flags=0x03 | multiplexing))
            (answer,) = wire.pdus()
            for flags in range(256):
                self.assertAnswers(
                    wire,
                    alter(element(0, NDR), flags=flags),
                    expected_alter_response(answer.group, ACCEPT_NDR),
                )

    def test_bind_nak(self) -> None:
        """
        2.14 A bind_nak echoes no flag.
        """
        self.assertNak(self.wire(), bind(flags=0xFF), 4)


class ReplyHeaderTests(ConformanceCase):
    """
    2.15: the header of all answers.
    """

    def test_windows_exchange(self) -> None:
        """
        2.15 The whole conversation that Windows opens with is answered byte for byte.
        """
        wire = self.wire()
        wire.send(RECORDED_BIND)
        answer = wire.take()
        self.assertEqual(
            answer.hex(),
            "05000c13100000006c00000002000000d016d016"
            + answer[20:24].hex()
            + "0500313638380000"
            + "03000000"
            + "02000200" + "00" * 20
            + "00000000" + "33057171babe37498319b5dbef9ccc3601000000"
            + "03000300" + "00" * 20,
        )  # fmt: skip
        wire.send(RECORDED_ALTER)
        self.assertEqual(
            wire.take().hex(),
            "05000f03100000003800000002000000d016d016"
            + answer[20:24].hex()
            + "0000000001000000"
            + "00000000" + "045d888aeb1cc9119fe808002b10486002000000",
        )  # fmt: skip
        self.assertActivates(wire, 0, NDR, REQUEST_V6, call_id=2)
        self.assertActivates(wire, 1, NDR64, REQUEST_V6, call_id=3)

    def test_response_header(self) -> None:
        """
        2.15 The header and prefix of a response are those of the standard.
        """
        wire = self.bound(element(0x1234, NDR))
        wire.send(request(ndr_stub(REQUEST_V5), context=0x1234, call_id=0xA1B2C3D4))
        answer = wire.take()
        self.assertEqual(
            answer[:24],
            b"\x05\x00\x02\x03\x10\0\0\0"
            + struct.pack("<HHI", len(answer), 0, 0xA1B2C3D4)
            + struct.pack("<IHBB", len(answer) - 24, 0x1234, 0, 0),
        )

    def test_refused_message(self) -> None:
        """
        2.15 The answer to a KMS message that is refused is known to the last byte.
        """
        wire = self.bound_like_windows()
        wire.send(RECORDED_ALTER)
        for context, syntax in ((0, NDR), (1, NDR64)):
            self.assertAnswers(
                wire,
                request(activation_stub(REQUEST_V7, syntax), context=context, call_id=8),
                expected_response(failure_stub(0x8007000D, syntax), 8, context),
            )
