"""
Rows 3.12 to 3.20 of table 3: what of a context list is accepted, and that it can be called.

The rest of table 3 is in L{tests.conformance.test_bind}; contexts that come later are in
L{tests.conformance.test_alter}.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    BAD_STUB,
    LIMIT_EXCEEDED,
    NO_INTERFACE,
    NO_TRANSFER,
    UNKNOWN_INTERFACE,
    Result,
    expected_alter_response,
    expected_bind_ack,
    expected_fault,
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
    Syntax,
    activation_stub,
    alter,
    bind,
    element,
    ndr_stub,
    request,
)
from tests.conformance.wire import ConformanceCase, Wire


class ChoiceTests(ConformanceCase):
    """
    3.12 to 3.19: what is accepted of the context list, and that it can be called.
    """

    def assertResults(
        self, elements: list[Element], results: list[Result], *, ndr64: bool = True
    ) -> Wire:
        """
        The bind is acknowledged with these results, and what was accepted can be called.
        """
        wire = self.wire(ndr64=ndr64)
        wire.send(bind(*elements))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_bind_ack(answer.group, *results), elements)
        accepted = {
            one.context: result.syntax
            for one, result in zip(elements, results, strict=True)
            if result.syntax is not None
        }
        for one in elements:
            syntax = accepted.get(one.context)
            if syntax is None:
                self.assertAnswers(
                    wire,
                    request(ndr_stub(REQUEST_V4), context=one.context),
                    expected_fault(UNKNOWN_INTERFACE),
                )
            elif one.abstract == KMS:
                self.assertActivates(wire, one.context, syntax)
        return wire

    def test_several_transfers(self) -> None:
        """
        3.12 Of several transfer syntaxes the preferred one is chosen, else one that is known.
        """
        for transfers, chosen in (
            ((NDR, NDR64), NDR64),
            ((NDR64, NDR), NDR64),
            ((UNKNOWN_TRANSFER, NDR), NDR),
            ((UNKNOWN_TRANSFER, NDR64), NDR64),
            ((NDR, UNKNOWN_TRANSFER), NDR),
            ((UNKNOWN_TRANSFER, Syntax(NDR.uuid, 1), NDR), NDR),
            ((NDR, NDR), NDR),
            ((UNKNOWN_TRANSFER,) * 254 + (NDR,), NDR),
        ):
            self.assertResults([element(0, *transfers)], [Result(0, 0, chosen)])

    def test_several_transfers_without_ndr64(self) -> None:
        """
        3.12 Without NDR64 it is NDR that is chosen, wherever it stands.
        """
        for transfers in ((NDR, NDR64), (NDR64, NDR), (UNKNOWN_TRANSFER, NDR64, NDR)):
            self.assertResults([element(0, *transfers)], [ACCEPT_NDR], ndr64=False)

    def test_several_transfers_do_not_shift(self) -> None:
        """
        3.12 The element behind one with several transfer syntaxes is found.
        """
        self.assertResults(
            [
                element(0, UNKNOWN_TRANSFER, UNKNOWN_TRANSFER, Syntax(NDR.uuid, 1)),
                element(1, NDR, NDR64, UNKNOWN_TRANSFER, abstract=STRANGER),
                element(2, UNKNOWN_TRANSFER, NDR),
                element(3, NDR, NDR, abstract=MANAGEMENT),
            ],
            [NO_TRANSFER, NO_INTERFACE, ACCEPT_NDR, ACCEPT_NDR],
        )

    def test_ndr64_wins(self) -> None:
        """
        3.13 NDR and NDR64 in two elements: NDR64 is accepted and NDR refused, in either order.
        """
        ndr, ndr64 = element(0, NDR), element(1, NDR64)
        self.assertResults([ndr, ndr64], [NO_TRANSFER, ACCEPT_NDR64])
        self.assertResults([ndr64, ndr], [ACCEPT_NDR64, NO_TRANSFER])

    def test_ndr64_off(self) -> None:
        """
        3.13 Without NDR64 it is NDR that is accepted, in either order.
        """
        ndr, ndr64 = element(0, NDR), element(1, NDR64)
        self.assertResults([ndr, ndr64], [ACCEPT_NDR, NO_TRANSFER], ndr64=False)
        self.assertResults([ndr64, ndr], [NO_TRANSFER, ACCEPT_NDR], ndr64=False)
        self.assertResults([ndr64], [NO_TRANSFER], ndr64=False)

    def test_ndr64_per_interface(self) -> None:
        """
        3.13 NDR64 for one interface does not exclude NDR for the other.
        """
        self.assertResults(
            [element(0, NDR), element(1, NDR64, abstract=MANAGEMENT)], [ACCEPT_NDR, ACCEPT_NDR64]
        )

    def test_refused_is_not_callable(self) -> None:
        """
        3.14 A context that was refused cannot be called, in any transfer syntax.
        """
        wire = self.bound(element(5, NDR), element(6, NDR64), element(7, NDR, abstract=STRANGER))
        for context in (5, 7):
            for syntax in (NDR, NDR64):
                sent = request(activation_stub(REQUEST_V4, syntax), context=context)
                self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, live=(6, NDR64))

    def test_one_new_context(self) -> None:
        """
        3.15, 13 One new context for each interface: the first is accepted, the others are not.
        """
        self.assertResults([element(3, NDR), element(4, NDR)], [ACCEPT_NDR, NO_TRANSFER])
        self.assertResults([element(3, NDR64), element(4, NDR64)], [ACCEPT_NDR64, NO_TRANSFER])
        self.assertResults(
            [element(0, NDR), element(1, NDR), element(2, NDR64), element(3, NDR64)],
            [NO_TRANSFER, NO_TRANSFER, ACCEPT_NDR64, NO_TRANSFER],
        )

    def test_one_new_context_per_interface(self) -> None:
        """
        3.15, 13 The two interfaces do not take the new context from each other.
        """
        self.assertResults(
            [
                element(0, NDR, abstract=MANAGEMENT),
                element(1, NDR),
                element(2, NDR, abstract=MANAGEMENT),
                element(3, NDR),
            ],
            [ACCEPT_NDR, ACCEPT_NDR, NO_TRANSFER, NO_TRANSFER],
        )

    def test_same_id(self) -> None:
        """
        3.16 Of two elements with one id the first that can be used wins.
        """
        good, bad = element(8, NDR), element(8, NDR, abstract=STRANGER)
        unusable = element(8, UNKNOWN_TRANSFER)
        self.assertResults([good, good], [ACCEPT_NDR, NO_TRANSFER])
        self.assertResults([bad, good], [NO_INTERFACE, ACCEPT_NDR])
        self.assertResults([unusable, good], [NO_TRANSFER, ACCEPT_NDR])
        self.assertResults([good, bad], [ACCEPT_NDR, NO_INTERFACE])

    def test_same_id_for_both_syntaxes(self) -> None:
        """
        3.17 One id for NDR and NDR64: one of them is accepted, and the other's stub is a bad one.
        """
        ndr, ndr64 = element(8, NDR), element(8, NDR64)
        for elements, results in (
            ([ndr, ndr64], [NO_TRANSFER, ACCEPT_NDR64]),
            ([ndr64, ndr], [ACCEPT_NDR64, NO_TRANSFER]),
        ):
            wire = self.assertResults(elements, results)
            self.assertFaultStays(
                wire,
                request(ndr_stub(REQUEST_V4), context=8),
                BAD_STUB,
                context=8,
                executed=True,
                live=(8, NDR64),
            )

    def test_many(self) -> None:
        """
        3.18 Up to 255 contexts are answered in full and in order.
        """
        for number in (2, 6, 7, 31, 32, 128, 254, 255):
            elements = [element(i, NDR, abstract=STRANGER) for i in range(number)]
            results = [NO_INTERFACE] * number
            for good in (0, number // 2, number - 1):
                mixed, expected = list(elements), list(results)
                mixed[good], expected[good] = element(good, NDR), ACCEPT_NDR
                wire = self.wire()
                wire.send(bind(*mixed))
                (answer,) = wire.pdus()
                self.assertEqual(answer.raw, expected_bind_ack(answer.group, *expected))
                self.assertStays(wire, good)

    def test_many_equal(self) -> None:
        """
        3.18 Of 255 good contexts one is accepted.
        """
        self.assertResults(
            [element(i, NDR) for i in range(255)], [ACCEPT_NDR] + [NO_TRANSFER] * 254
        )

    def test_any_id(self) -> None:
        """
        3.19 Each number of 16 bits is an ordinary context id.
        """
        for context in (0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF):
            self.assertResults([element(context, NDR)], [ACCEPT_NDR])
            self.assertResults([element(context, NDR64)], [ACCEPT_NDR64])


class LimitTests(ConformanceCase):
    """
    3.20: contexts per connection.
    """

    def test_limit(self) -> None:
        """
        3.20 An interface has 4000 contexts on a connection; one more is refused with (2, 3).
        """
        wire = self.bound()
        wire.send(b"".join(alter(element(i, NDR)) for i in range(1, 4000)))
        accepted = expected_alter_response(wire.group, ACCEPT_NDR)
        self.assertEqual(wire.take(), accepted * 3999)
        refused = expected_alter_response(wire.group, LIMIT_EXCEEDED)
        self.assertAnswers(wire, alter(element(4000, NDR)), refused)
        self.assertAnswers(wire, alter(element(4000, NDR64)), refused)
        sent = request(ndr_stub(REQUEST_V4), context=4000)
        self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE)
        for context in (0, 1, 2000, 3999):
            self.assertStays(wire, context)
        # What is there already is not new, and the other interface counts for itself.
        self.assertAnswers(wire, alter(element(3999, NDR)), accepted)
        self.assertAnswers(wire, alter(element(4000, NDR, abstract=MANAGEMENT)), accepted)

    def test_limit_of_a_connection(self) -> None:
        """
        3.20 The limit of one connection is not that of another in the same group.
        """
        wire = self.bound()
        wire.send(b"".join(alter(element(i, NDR)) for i in range(1, 4001)))
        self.assertEqual(wire.pdus()[-1].results, [LIMIT_EXCEEDED])
        self.assertStays(self.bound(group=wire.group))
