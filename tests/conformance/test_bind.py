"""
Table 3: bind, and the bind_ack or bind_nak it gets.

Sizes and association groups come first, then the refusals of a whole bind, then those of single
elements.  What of a list is accepted is in L{tests.conformance.test_contexts}, bind time features
are in L{tests.conformance.test_features}, binds with security in
L{tests.conformance.test_security}.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCEPT_NDR,
    NO_INTERFACE,
    NO_TRANSFER,
    UNKNOWN_INTERFACE,
    expected_alter_response,
    expected_bind_ack,
    expected_bind_nak,
)
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    CONC_MPX,
    KMS,
    MANAGEMENT,
    NDR,
    NDR64,
    STRANGER,
    UNKNOWN_TRANSFER,
    Element,
    PType,
    Syntax,
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


class SizeTests(ConformanceCase):
    """
    3.1, 3.2: fragment sizes.
    """

    def test_negotiation(self) -> None:
        """
        3.1 Both sizes are the lesser of the peer's, within 2048 and 5840, a multiple of eight.
        """
        for xmit, recv, size in (
            (0, 0, 2048),
            (0, 0xFFFF, 2048),
            (0xFFFF, 0, 2048),
            (1432, 1432, 2048),
            (2047, 2047, 2048),
            (2048, 2048, 2048),
            (2049, 5840, 2048),
            (2055, 9000, 2048),
            (2056, 9000, 2056),
            (3199, 0xFFFF, 3192),
            (0xFFFF, 3199, 3192),
            (4280, 4280, 4280),
            (5840, 4280, 4280),
            (5839, 5839, 5832),
            (5840, 5840, 5840),
            (5841, 5847, 5840),
            (5848, 5848, 5840),
            (0xFFFF, 0xFFFF, 5840),
        ):
            wire = self.wire()
            wire.send(bind(element(0, NDR), xmit=xmit, recv=recv))
            (answer,) = wire.pdus()
            self.assertEqual(
                answer.raw,
                expected_bind_ack(answer.group, ACCEPT_NDR, xmit=size, recv=size),
                (xmit, recv),
            )

    def test_promise(self) -> None:
        """
        3.2 A fragment of exactly the size that was negotiated is accepted.
        """
        for size in (2048, 3192, 5840):
            wire = self.wire()
            wire.send(bind(element(0, NDR), xmit=size, recv=size))
            self.assertEqual(wire.pdus()[0].sizes, (size, size))
            stub = ndr_stub(REQUEST_V4).ljust(size - 24, b"\0")
            wire.send(request(stub))
            self.assertGranted(wire)
            wire.send(b"".join(fragments([stub, stub])))
            self.assertGranted(wire)


class GroupTests(ConformanceCase):
    """
    3.3 to 3.5: association groups.
    """

    def assertRefused(self, group: int, peer: str = "10.0.0.10") -> None:
        """
        Nobody at this address may join this group.
        """
        self.assertNak(self.wire(peer=peer), bind(element(0, NDR), group=group, call_id=3), 0, 3)

    def test_new(self) -> None:
        """
        3.3 Group 0 asks for a new one: never zero, and not that of any other connection.
        """
        groups = {self.bound(peer=f"10.0.0.{host}").group for host in range(1, 41)}
        self.assertEqual(len(groups), 40)
        self.assertNotIn(0, groups)

    def test_join(self) -> None:
        """
        3.4 A second connection of the same address joins a group, and is told its id.
        """
        first = self.bound()
        for _ in range(3):
            wire = self.wire()
            self.assertAnswers(
                wire,
                bind(element(0, NDR), group=first.group),
                expected_bind_ack(first.group, ACCEPT_NDR),
            )
            self.assertStays(wire)

    def test_contexts_are_not_shared(self) -> None:
        """
        3.4 The contexts of one connection of a group are not those of another.
        """
        first = self.bound(element(1, NDR))
        second = self.bound(element(2, NDR), group=first.group)
        for wire, own, other in ((first, 1, 2), (second, 2, 1)):
            sent = request(ndr_stub(REQUEST_V4), context=other)
            self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, live=(own, NDR))

    def test_unknown(self) -> None:
        """
        3.5 A group that never was cannot be joined.
        """
        group = self.bound().group
        for unknown in (group ^ 1, group ^ 0x80000000, group ^ 0xFFFFFFFF):
            if unknown:
                self.assertRefused(unknown)

    def test_unknown_on_fresh_host(self) -> None:
        """
        3.5 A host without any connection knows no group.
        """
        for unknown in (1, 0x12345678, 0xFFFFFFFF):
            self.assertRefused(unknown)

    def test_ended(self) -> None:
        """
        3.5 A group ends with its last connection, and not before.
        """
        first = self.bound()
        second = self.bound(group=first.group)
        first.drop()
        third = self.bound(group=first.group)
        self.assertEqual(third.group, first.group)
        second.drop()
        third.drop()
        self.assertRefused(first.group)

    def test_ended_by_host(self) -> None:
        """
        3.5 A connection that the host had to end does not keep its group, once it is gone.
        """
        wire = self.bound()
        wire.send(bind(element(0, NDR)))
        wire.half_close()
        self.assertTrue(wire.lost)
        self.assertRefused(wire.group)

    def test_other_address(self) -> None:
        """
        3.5 The group of another address cannot be joined, and the attempt does it no harm.
        """
        first = self.bound()
        self.assertRefused(first.group, "10.0.0.11")
        self.assertEqual(self.bound(group=first.group).group, first.group)
        self.assertStays(first)


class RefusalTests(ConformanceCase):
    """
    3.6 to 3.9, 3.21, 3.23: binds that are refused as a whole, or should not be.
    """

    def test_no_contexts(self) -> None:
        """
        3.6 A bind without contexts is refused for reason 4.
        """
        self.assertNak(self.wire(), bind(call_id=4), 4, 4)

    def test_no_transfer_syntaxes(self) -> None:
        """
        3.7 A context without transfer syntaxes has the bind refused for reason 0.
        """
        for elements in (
            [element(0)],
            [element(0, NDR), element(1)],
            [element(0), element(1, NDR)],
            [element(0, abstract=STRANGER)],
        ):
            self.assertNak(self.wire(), bind(*elements, call_id=4), 0, 4)

    def test_list_past_end(self) -> None:
        """
        3.8 A context list that runs past the end of its bind has it refused for reason 4.
        """
        whole = bind(element(0, NDR), element(1, NDR64))
        for length in range(28, len(whole)):
            cut = pdu(PType.BIND, whole[16:length], call_id=4)
            self.assertNak(self.wire(), cut, 4, 4)

    def test_counts_past_end(self) -> None:
        """
        3.8 Counts that promise more than the bind holds have it refused for reason 4.
        """
        for sent in (
            bind(element(0, NDR), count=2),
            bind(element(0, NDR), count=255),
            bind(Element(0, KMS, (NDR,), announced=2)),
            bind(Element(0, KMS, (NDR,), announced=255)),
        ):
            self.assertNak(self.wire(), sent, 4)

    def test_reserved(self) -> None:
        """
        3.9 Reserved bytes are ignored: the counts beside them are single octets.
        """
        wire = self.wire()
        wire.send(bind(Element(0, KMS, (NDR,), reserved=0xEE), reserved=(0xAA, 0xBBCC)))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_bind_ack(answer.group, ACCEPT_NDR))
        self.assertStays(wire)

    def test_bytes_behind_list(self) -> None:
        """
        3.9 Bytes behind the context list are ignored.
        """
        for extra in (b"\0", b"\xff" * 3, bytes(44), b"\xff" * 1000):
            wire = self.wire()
            wire.send(bind(element(0, NDR), extra=extra))
            (answer,) = wire.pdus()
            self.assertEqual(answer.raw, expected_bind_ack(answer.group, ACCEPT_NDR))

    def test_second_bind(self) -> None:
        """
        3.21 A second bind is refused for reason 0, and ends the connection.
        """
        for sent in (bind(element(0, NDR), call_id=4), bind(element(1, NDR64), call_id=4)):
            self.assertNak(self.bound(), sent, 0, 4)

    def test_second_bind_after_call(self) -> None:
        """
        3.21 A bind is refused after a call as well.
        """
        wire = self.bound()
        self.assertStays(wire)
        self.assertNak(wire, bind(element(0, NDR), group=wire.group), 0)

    def test_not_first(self) -> None:
        """
        3.23 A first PDU that is no bind is refused for reason 4, and never served.
        """
        for sent in (
            request(ndr_stub(REQUEST_V4), call_id=4),
            request(ndr_stub(REQUEST_V4), context=0xFFFF, call_id=4),
            request(ndr64_stub(REQUEST_V4), context=0xFFFF, call_id=4),
            alter(element(0, NDR), call_id=4),
            pdu(PType.AUTH3, bytes(4), call_id=4),
            pdu(PType.CO_CANCEL, call_id=4),
            pdu(PType.ORPHANED, call_id=4),
        ):
            self.assertNak(self.wire(), sent, 4, 4)

    def test_no_bind_header_alone(self) -> None:
        """
        3.23 Sixteen bytes decide that a first PDU of version 5.0 is no bind, whatever its type.
        """
        for ptype in range(256):
            if ptype != PType.BIND:
                sent = pdu(ptype, frag_length=5000, call_id=4)
                wire = self.wire()
                self.assertNak(wire, sent, 4, 4)
                wire.drop()


class InterfaceTests(ConformanceCase):
    """
    3.10, 3.11, 3.22: elements that are refused.
    """

    def test_unknown_interface(self) -> None:
        """
        3.10 An unknown interface, major or higher minor version is refused alone: (2, 1).
        """
        for abstract in (
            STRANGER,
            NDR,
            Syntax(KMS.uuid, 0),
            Syntax(KMS.uuid, 2),
            Syntax(KMS.uuid, 1, 1),
            Syntax(KMS.uuid, 1, 0xFFFF),
            Syntax(KMS.uuid, 0, 1),
            Syntax(MANAGEMENT.uuid, 2),
            Syntax(MANAGEMENT.uuid, 1, 1),
        ):
            wire = self.wire()
            wire.send(bind(element(0, NDR, abstract=abstract), element(1, NDR)))
            (answer,) = wire.pdus()
            self.assertEqual(
                answer.raw, expected_bind_ack(answer.group, NO_INTERFACE, ACCEPT_NDR), abstract
            )
            sent = request(ndr_stub(REQUEST_V4))
            self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, live=(1, NDR))

    def test_interface_before_transfer(self) -> None:
        """
        3.10 Where neither interface nor transfer syntax is known, the interface is the reason.
        """
        wire = self.bound(element(0, UNKNOWN_TRANSFER, abstract=STRANGER), element(1, NDR))
        self.assertStays(wire, 1)
        wire = self.wire()
        wire.send(bind(element(0, UNKNOWN_TRANSFER, abstract=STRANGER)))
        self.assertEqual(wire.pdus()[0].results, [NO_INTERFACE])

    def test_unknown_transfer(self) -> None:
        """
        3.11 A known interface with no known transfer syntax is refused alone: (2, 2).
        """
        for transfer in (
            UNKNOWN_TRANSFER,
            KMS,
            Syntax(NDR.uuid, 1),
            Syntax(NDR.uuid, 3),
            Syntax(NDR.uuid, 2, 1),
            Syntax(NDR64.uuid, 2),
            Syntax(NDR64.uuid, 1, 1),
            Syntax(NDR64.uuid, 0),
        ):
            wire = self.wire()
            wire.send(bind(element(0, transfer), element(1, NDR)))
            (answer,) = wire.pdus()
            self.assertEqual(
                answer.raw, expected_bind_ack(answer.group, NO_TRANSFER, ACCEPT_NDR), transfer
            )
            sent = request(ndr_stub(REQUEST_V4))
            self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, live=(1, NDR))

    def test_all_refused(self) -> None:
        """
        3.22 Where all is refused the connection stays, and an alter_context can repair it.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR, abstract=STRANGER), element(1, UNKNOWN_TRANSFER)))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_bind_ack(answer.group, NO_INTERFACE, NO_TRANSFER))
        self.assertAnswers(
            wire,
            alter(element(0, NDR)),
            expected_alter_response(answer.group, ACCEPT_NDR),
        )
        self.assertStays(wire)


class LayoutTests(ConformanceCase):
    """
    The layouts of bind_ack and bind_nak, in plain bytes.
    """

    def test_acknowledgement(self) -> None:
        """
        3 A bind_ack of one context is 60 bytes: nothing in them comes from the peer but the ids.
        """
        wire = self.wire()
        wire.send(bind(element(7, NDR), xmit=4280, recv=4280, call_id=0x11223344, flags=0xFF))
        answer = wire.take()
        self.assertEqual(
            answer,
            b"\x05\x00\x0c\x13\x10\x00\x00\x00\x3c\x00\x00\x00\x44\x33\x22\x11"
            b"\xb8\x10\xb8\x10" + answer[20:24] + b"\x05\x001688\x00\x00"
            b"\x01\x00\x00\x00\x00\x00\x00\x00" + NDR.encode(),
        )
        self.assertEqual(answer[3] & CONC_MPX, CONC_MPX)

    def test_port(self) -> None:
        """
        3 The secondary address is the host's own port, padded with zeros to a multiple of four.
        """
        for port, encoded in (
            (1, "0200 3100"),
            (80, "0300 383000 000000"),
            (135, "0400 31333500 0000"),
            (1688, "0500 3136383800 00"),
            (17001, "0600 313730303100"),
            (65535, "0600 363535333500"),
        ):
            wire = self.wire(host_port=port)
            wire.send(bind(element(0, NDR)))
            answer = wire.take()
            self.assertEqual(answer[24:-28].hex(), encoded.replace(" ", ""), port)
            self.assertEqual(answer[-28:], b"\x01\0\0\0" + ACCEPT_NDR.encode())

    def test_refusal(self) -> None:
        """
        3 A bind_nak is 24 bytes: reason, one version, 5.0, and three zeros.
        """
        wire = self.wire()
        self.assertAnswers(
            wire,
            bind(call_id=0x11223344, flags=0x13),
            b"\x05\x00\x0d\x03\x10\x00\x00\x00\x18\x00\x00\x00\x44\x33\x22\x11"
            b"\x04\x00\x01\x05\x00\x00\x00\x00",
        )
        self.assertEqual(wire.raw, expected_bind_nak(4, 0x11223344))

    def test_mixed_results(self) -> None:
        """
        3 All but an acceptance carries twenty zeros for a syntax.
        """
        wire = self.wire()
        wire.send(
            bind(
                element(0, NDR, abstract=STRANGER),
                element(1, UNKNOWN_TRANSFER),
                element(2, features(3)),
                element(3, NDR),
            )
        )
        answer = wire.take()
        self.assertEqual(
            answer[32:],
            b"\x04\0\0\0"
            + b"\x02\0\x01\0" + bytes(20)
            + b"\x02\0\x02\0" + bytes(20)
            + b"\x03\0\x03\0" + bytes(20)
            + b"\0\0\0\0" + NDR.encode(),
        )  # fmt: skip
