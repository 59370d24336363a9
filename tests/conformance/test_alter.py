"""
Table 7: alter_context, and the alter_context_resp or fault it gets.

Each test starts from a connection that is bound, most of them the way Windows does it.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    NO_INTERFACE,
    NO_TRANSFER,
    PROTOCOL_ERROR,
    UNKNOWN_INTERFACE,
    Result,
    expected_alter_response,
    expected_bind_nak,
)
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
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
    ndr_stub,
    pdu,
    request,
)
from tests.conformance.wire import ConformanceCase, Wire


class AlterCase(ConformanceCase):
    """
    What these tests have in common.
    """

    def assertResults(self, wire: Wire, elements: list[Element], *results: Result) -> None:
        """
        An alter_context with these elements is answered with these results, and no more.
        """
        self.assertAnswers(
            wire,
            alter(*elements, call_id=31),
            expected_alter_response(wire.group, *results, call_id=31),
        )
        self.assertFalse(wire.closed)

    def assertProtocolError(self, wire: Wire, sent: bytes, call_id: int = 1) -> None:
        """
        The alter_context is a protocol error: not executed, context 0, and the end.
        """
        self.assertFaultCloses(wire, sent, PROTOCOL_ERROR, call_id)


class NewContextTests(AlterCase):
    """
    7.1, 7.2, 7.7: contexts that are added.
    """

    def test_new(self) -> None:
        """
        7.1 A new context can be called, and those before it go on working.
        """
        wire = self.bound()
        for context in (1, 2, 0xFFFF):
            self.assertResults(wire, [element(context, NDR)], ACCEPT_NDR)
        self.assertResults(wire, [element(3, NDR64)], ACCEPT_NDR64)
        for context in (0, 1, 2, 0xFFFF):
            self.assertStays(wire, context)
        self.assertStays(wire, 3, NDR64)

    def test_other_interface(self) -> None:
        """
        7.1 The other interface can be added, in either transfer syntax.
        """
        wire = self.bound()
        self.assertResults(wire, [element(1, NDR, abstract=MANAGEMENT)], ACCEPT_NDR)
        self.assertResults(wire, [element(2, NDR64, abstract=MANAGEMENT)], ACCEPT_NDR64)
        self.assertStays(wire)

    def test_refused(self) -> None:
        """
        7.1 What a bind would refuse an alter_context refuses too, and the connection stays.
        """
        wire = self.bound()
        self.assertResults(
            wire,
            [
                element(1, NDR, abstract=STRANGER),
                element(2, UNKNOWN_TRANSFER),
                element(3, NDR, abstract=Syntax(KMS.uuid, 1, 1)),
                element(4, Syntax(NDR.uuid, 1)),
            ],
            NO_INTERFACE,
            NO_TRANSFER,
            NO_INTERFACE,
            NO_TRANSFER,
        )
        for context in (1, 2, 3, 4):
            sent = request(ndr_stub(REQUEST_V4), context=context)
            self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE)

    def test_one_new_context(self) -> None:
        """
        3.15, 13 One new context for each interface holds for an alter_context as well.
        """
        wire = self.bound()
        self.assertResults(wire, [element(1, NDR), element(2, NDR)], ACCEPT_NDR, NO_TRANSFER)
        self.assertResults(wire, [element(4, NDR), element(4, NDR)], ACCEPT_NDR, NO_TRANSFER)
        for context in (0, 1, 4):
            self.assertStays(wire, context)
        sent = request(ndr_stub(REQUEST_V4), context=2)
        self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE)

    def test_ndr64_wins(self) -> None:
        """
        3.13 Of two new contexts NDR64 wins in an alter_context as well.
        """
        for elements, results in (
            ([element(1, NDR), element(2, NDR64)], [NO_TRANSFER, ACCEPT_NDR64]),
            ([element(2, NDR64), element(1, NDR)], [ACCEPT_NDR64, NO_TRANSFER]),
        ):
            wire = self.bound()
            self.assertResults(wire, elements, *results)
            self.assertStays(wire)
            self.assertStays(wire, 2, NDR64)

    def test_sizes_and_group(self) -> None:
        """
        7.2 Sizes and group of an alter_context are ignored; the answer repeats the bind_ack's.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR), xmit=4280, recv=4280))
        group = wire.pdus()[0].group
        for xmit, recv, other in (
            (0, 0, 0),
            (5840, 5840, group),
            (0xFFFF, 0xFFFF, 0xFFFFFFFF),
            (2048, 2048, group ^ 5),
        ):
            self.assertAnswers(
                wire,
                alter(element(1, NDR), xmit=xmit, recv=recv, group=other),
                expected_alter_response(group, ACCEPT_NDR, xmit=4280, recv=4280),
            )
        self.assertStays(wire, 1)

    def test_ndr_again(self) -> None:
        """
        7.7 NDR alone, for the id that was refused while NDR64 won, is accepted: as Windows does.
        """
        wire = self.bound_like_windows()
        self.assertResults(wire, [element(0, NDR)], ACCEPT_NDR)
        for _ in range(2):
            self.assertStays(wire, 0, NDR)
            self.assertStays(wire, 1, NDR64)

    def test_ndr64_when_off(self) -> None:
        """
        3.13 Where NDR64 is off an alter_context cannot bring it in.
        """
        wire = self.bound(ndr64=False)
        self.assertResults(wire, [element(1, NDR64)], NO_TRANSFER)
        self.assertResults(wire, [element(1, NDR), element(2, NDR64)], ACCEPT_NDR, NO_TRANSFER)
        self.assertStays(wire, 1)


class KnownContextTests(AlterCase):
    """
    7.3 to 7.6: ids that are in use.
    """

    def test_same(self) -> None:
        """
        7.3 What was accepted is accepted again.
        """
        wire = self.bound_like_windows()
        self.assertResults(wire, [element(0, NDR)], ACCEPT_NDR)
        for _ in range(3):
            self.assertResults(wire, [element(0, NDR)], ACCEPT_NDR)
            self.assertResults(wire, [element(1, NDR64)], ACCEPT_NDR64)
        self.assertStays(wire, 0, NDR)
        self.assertStays(wire, 1, NDR64)

    def test_same_beside_new(self) -> None:
        """
        7.3, 3.15 What was accepted is not new: a new context behind it is accepted too.  Behind a new one everything is
        refused, what was accepted as well, as Windows does; it goes on working.
        """
        wire = self.bound()
        self.assertResults(wire, [element(0, NDR), element(1, NDR)], ACCEPT_NDR, ACCEPT_NDR)
        self.assertResults(wire, [element(2, NDR), element(0, NDR)], ACCEPT_NDR, NO_TRANSFER)
        for context in (0, 1, 2):
            self.assertStays(wire, context)

    def test_same_among_unknown(self) -> None:
        """
        7.3 Unknown transfer syntaxes beside the one that was accepted do not matter.
        """
        wire = self.bound()
        self.assertResults(wire, [element(0, UNKNOWN_TRANSFER, NDR)], ACCEPT_NDR)
        self.assertResults(wire, [element(0, NDR, UNKNOWN_TRANSFER)], ACCEPT_NDR)
        self.assertStays(wire)

    def test_unknown_transfer(self) -> None:
        """
        7.4 A known id with unknown transfer syntaxes is refused, and goes on working.
        """
        wire = self.bound()
        self.assertResults(wire, [element(0, UNKNOWN_TRANSFER)], NO_TRANSFER)
        self.assertStays(wire)
        self.assertResults(wire, [element(0, Syntax(NDR.uuid, 1), UNKNOWN_TRANSFER)], NO_TRANSFER)
        self.assertStays(wire)

    def test_other_transfer(self) -> None:
        """
        7.5 A known id cannot change to the other transfer syntax: a protocol error.
        """
        wire = self.bound()
        self.assertProtocolError(wire, alter(element(0, NDR64), call_id=32), 32)
        wire = self.bound(element(0, NDR64))
        self.assertProtocolError(wire, alter(element(0, NDR), call_id=32), 32)

    def test_other_transfer_of_two(self) -> None:
        """
        7.5 Nor can one that was added later.
        """
        wire = self.bound_like_windows()
        self.assertResults(wire, [element(0, NDR)], ACCEPT_NDR)
        self.assertProtocolError(wire, alter(element(2, NDR), element(0, NDR64)))

    def test_other_transfer_unsupported(self) -> None:
        """
        7.4, 7.5 Where NDR64 is off it is one more unknown transfer syntax.
        """
        wire = self.bound(ndr64=False)
        self.assertResults(wire, [element(0, NDR64)], NO_TRANSFER)
        self.assertStays(wire)

    def test_unknown_interface(self) -> None:
        """
        7.6 A known id with an unknown interface is refused, and goes on working.
        """
        wire = self.bound()
        for abstract in (STRANGER, Syntax(KMS.uuid, 2), Syntax(KMS.uuid, 1, 1)):
            self.assertResults(wire, [element(0, NDR, abstract=abstract)], NO_INTERFACE)
            self.assertStays(wire)

    def test_other_interface(self) -> None:
        """
        7.6 A known id cannot change to the other interface: a protocol error.
        """
        wire = self.bound()
        sent = alter(element(0, NDR, abstract=MANAGEMENT), call_id=32)
        self.assertProtocolError(wire, sent, 32)
        wire = self.bound(element(0, NDR, abstract=MANAGEMENT))
        self.assertProtocolError(wire, alter(element(0, NDR), call_id=32), 32)


class RefusalTests(AlterCase):
    """
    7.8, 7.9: alter_context PDUs that are wrong as a whole.
    """

    def test_no_contexts(self) -> None:
        """
        7.8 An alter_context without contexts is a protocol error.
        """
        self.assertProtocolError(self.bound(), alter(call_id=32), 32)

    def test_no_transfer_syntaxes(self) -> None:
        """
        7.8 A context without transfer syntaxes is a protocol error, known or new.
        """
        for elements in (
            [element(0)],
            [element(1)],
            [element(1, NDR), element(2)],
            [element(2), element(1, NDR)],
        ):
            self.assertProtocolError(self.bound(), alter(*elements, call_id=32), 32)

    def test_list_past_end(self) -> None:
        """
        7.8 A context list that runs past the end is a protocol error.
        """
        whole = alter(element(1, NDR), element(2, NDR64))
        for length in (28, 30, 47, 48, 71, 72, 73, len(whole) - 1):
            cut = pdu(PType.ALTER_CONTEXT, whole[16:length], call_id=32)
            self.assertProtocolError(self.bound(), cut, 32)
        for sent in (
            alter(element(1, NDR), count=2),
            alter(Element(1, KMS, (NDR,), announced=2)),
        ):
            self.assertProtocolError(self.bound(), sent)

    def test_reserved(self) -> None:
        """
        3.9 Reserved bytes and bytes behind the list are ignored in an alter_context as well.
        """
        wire = self.bound()
        self.assertAnswers(
            wire,
            alter(
                Element(1, KMS, (NDR,), reserved=0xEE), reserved=(0xAA, 0xBBCC), extra=b"\xff" * 9
            ),
            expected_alter_response(wire.group, ACCEPT_NDR),
        )
        self.assertStays(wire, 1)

    def test_many(self) -> None:
        """
        3.18 An alter_context of 255 contexts is answered in full and in order.
        """
        wire = self.bound()
        elements = [element(i, NDR, abstract=STRANGER) for i in range(255)]
        elements[254] = element(254, NDR)
        self.assertResults(wire, elements, *[NO_INTERFACE] * 254, ACCEPT_NDR)
        self.assertStays(wire, 254)

    def test_before_bind(self) -> None:
        """
        7.9, 3.23 An alter_context before the bind is refused by a bind_nak, and never served.
        """
        wire = self.wire()
        sent = alter(element(0, NDR), call_id=32)
        self.assertAnswers(wire, sent, expected_bind_nak(4, 32))
        self.assertClosed(wire)

    def test_layout(self) -> None:
        """
        7 An alter_context_resp of one context is 56 bytes.
        """
        wire = self.bound()
        self.assertAnswers(
            wire,
            alter(element(1, NDR), call_id=0x11223344, flags=0x13),
            b"\x05\x00\x0f\x03\x10\x00\x00\x00\x38\x00\x00\x00\x44\x33\x22\x11"
            b"\xd0\x16\xd0\x16" + wire.group.to_bytes(4, "little") + bytes(4) + b"\x01\x00\x00\x00"
            b"\x00\x00\x00\x00" + NDR.encode(),
        )
