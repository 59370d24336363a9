"""
Table 4: bind time feature negotiation, which travels as a transfer syntax that is none.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    NO_INTERFACE,
    NO_TRANSFER,
    UNKNOWN_INTERFACE,
    Result,
    expected_alter_response,
    expected_bind_ack,
)
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    MANAGEMENT,
    NDR,
    NDR64,
    STRANGER,
    UNKNOWN_TRANSFER,
    Element,
    alter,
    bind,
    element,
    features,
    ndr_stub,
    request,
)
from tests.conformance.wire import ConformanceCase, Wire


class FeatureTests(ConformanceCase):
    """
    Each row of table 4.
    """

    def assertResults(
        self, elements: list[Element], results: list[Result], *, enabled: bool = True
    ) -> Wire:
        """
        A bind with these elements is acknowledged with these results.
        """
        wire = self.wire(bind_time_features=enabled)
        wire.send(bind(*elements))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_bind_ack(answer.group, *results), elements)
        self.assertFalse(wire.closed)
        wire.group = answer.group
        return wire

    def test_offered(self) -> None:
        """
        4.1, 13 The answer is negotiate_ack with the two known bits, as far as they were offered.
        """
        for bits in range(4):
            wire = self.assertResults(
                [element(0, NDR), element(1, features(bits))], [ACCEPT_NDR, Result(3, bits)]
            )
            self.assertStays(wire)

    def test_any_interface(self) -> None:
        """
        4.1 The abstract syntax of the element does not matter.
        """
        for abstract in (STRANGER, MANAGEMENT, NDR):
            self.assertResults(
                [element(0, NDR), element(1, features(3), abstract=abstract)],
                [ACCEPT_NDR, Result(3, 3)],
            )

    def test_any_place(self) -> None:
        """
        4.1 The element may stand first, or alone.
        """
        wire = self.assertResults(
            [element(9, features(3)), element(0, NDR)], [Result(3, 3), ACCEPT_NDR]
        )
        self.assertStays(wire)
        wire = self.assertResults([element(9, features(3))], [Result(3, 3)])
        wire.send(alter(element(0, NDR)))
        self.assertEqual(wire.pdus()[0].results, [ACCEPT_NDR])
        self.assertStays(wire)

    def test_reserved_bits(self) -> None:
        """
        4.2 Bits that nobody defined are cleared.
        """
        for bits in (4, 0xFC, 0x100, 0xFFFF0000, 1 << 63, 0xFFFFFFFFFFFFFFFC):
            for known in range(4):
                self.assertResults(
                    [element(0, NDR), element(1, features(bits | known))],
                    [ACCEPT_NDR, Result(3, known)],
                )

    def test_not_first(self) -> None:
        """
        4.3 Behind another transfer syntax it is no negotiation: the others decide.
        """
        for one, result in (
            (element(0, NDR, features(3)), ACCEPT_NDR),
            (element(0, NDR64, features(3)), ACCEPT_NDR64),
            (element(0, UNKNOWN_TRANSFER, features(3)), NO_TRANSFER),
            (element(0, UNKNOWN_TRANSFER, features(3), NDR), ACCEPT_NDR),
            (element(0, NDR, features(3), abstract=STRANGER), NO_INTERFACE),
        ):
            self.assertResults([one], [result])

    def test_more_behind(self) -> None:
        """
        4.4 Transfer syntaxes behind it are ignored, and do not hide the next element.
        """
        wire = self.assertResults(
            [element(1, features(3), NDR, NDR64, features(1)), element(0, NDR)],
            [Result(3, 3), ACCEPT_NDR],
        )
        sent = request(ndr_stub(REQUEST_V4), context=1)
        self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE)

    def test_twice(self) -> None:
        """
        4.5 Two negotiations in one bind have it refused for reason 0.
        """
        for elements in (
            [element(0, NDR), element(1, features(3)), element(2, features(3))],
            [element(1, features(0)), element(2, features(1))],
            [element(1, features(3)), element(0, NDR), element(1, features(3), NDR)],
        ):
            self.assertNak(self.wire(), bind(*elements, call_id=3), 0, 3)

    def test_other_version(self) -> None:
        """
        4.6 In another version than 1.0 it is an unknown transfer syntax.
        """
        for version in ((2, 0), (1, 1), (0, 0), (0, 1), (0xFFFF, 0)):
            strange = features(3, *version)
            self.assertResults([element(0, NDR), element(1, strange)], [ACCEPT_NDR, NO_TRANSFER])
            self.assertResults(
                [element(1, strange, abstract=STRANGER), element(2, strange), element(0, NDR)],
                [NO_INTERFACE, NO_TRANSFER, ACCEPT_NDR],
            )

    def test_alter(self) -> None:
        """
        4.7 In an alter_context it is an unknown transfer syntax, however often it is there.
        """
        wire = self.bound()
        self.assertAnswers(
            wire,
            alter(
                element(1, features(3)),
                element(2, features(3), abstract=STRANGER),
                element(3, features(3), NDR),
            ),
            expected_alter_response(wire.group, NO_TRANSFER, NO_INTERFACE, ACCEPT_NDR),
        )
        self.assertStays(wire)
        self.assertStays(wire, 3)

    def test_no_context(self) -> None:
        """
        4.8 The id of the element is no context.
        """
        wire = self.assertResults(
            [element(0, NDR), element(1, features(3))], [ACCEPT_NDR, Result(3, 3)]
        )
        sent = request(ndr_stub(REQUEST_V4), context=1)
        self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE)

    def test_shared_id(self) -> None:
        """
        4.8 Nor does it take the id from a context that has it as well.
        """
        for elements, results in (
            ([element(0, NDR), element(0, features(3))], [ACCEPT_NDR, Result(3, 3)]),
            ([element(0, features(3)), element(0, NDR)], [Result(3, 3), ACCEPT_NDR]),
        ):
            self.assertStays(self.assertResults(elements, results))

    def test_disabled(self) -> None:
        """
        4.9 Without the feature it is an unknown transfer syntax, however often it is there.
        """
        wire = self.assertResults(
            [
                element(0, NDR),
                element(1, features(3)),
                element(2, features(3), abstract=STRANGER),
                element(3, features(3)),
            ],
            [ACCEPT_NDR, NO_TRANSFER, NO_INTERFACE, NO_TRANSFER],
            enabled=False,
        )
        self.assertStays(wire)
        self.assertResults([element(0, features(3), NDR)], [ACCEPT_NDR], enabled=False)
