"""
Table 8 and row 7.10: security, which this host does not offer.

Requests with a trailer are row 5.16, in L{tests.conformance.test_request}; trailers for which there
is no room are row 2.11, in L{tests.conformance.test_header}.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCESS_DENIED,
    PROTOCOL_ERROR,
    expected_fault,
)
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    FIRST,
    LAST,
    NDR,
    NDR64,
    PType,
    alter,
    bind,
    element,
    features,
    ndr_stub,
    pdu,
    request,
    trailer,
)
from tests.conformance.wire import ConformanceCase

NO_SECURITY_LEVELS = (0, 1, 7, 255)
SECURITY_LEVELS = (2, 3, 4, 5, 6)


class BindTests(ConformanceCase):
    """
    8.1, 8.2: binds that ask for security.
    """

    def test_unknown_type(self) -> None:
        """
        8.1, 13 A bind with any authentication type is refused for reason 8.

        Type 1 is left out: Samba's tests call it "none", and Windows treats it like type 0 (8.2).
        """
        for auth_type in (9, 10, 14, 16, 30, 68, 100, 255):
            for level in (0, 1, *SECURITY_LEVELS):
                sent = bind(element(0, NDR), trailer=trailer(auth_type, level), call_id=4)
                wire = self.wire()
                self.assertNak(wire, sent, 8, 4)
                wire.drop()

    def test_like_windows(self) -> None:
        """
        8.1, 13 So is one with several contexts, and one in big-endian order.
        """
        elements = [element(0, NDR), element(1, NDR64), element(2, features(3))]
        self.assertNak(self.wire(), bind(*elements, trailer=trailer(), flags=0x17), 8)
        sent = bind(*elements, order=">", trailer=trailer(order=">"))
        self.assertNak(self.wire(), sent, 8)

    def test_padding(self) -> None:
        """
        8.1 Padding in front of the trailer does not hide it.
        """
        for pad in (1, 4, 12):
            sent = bind(element(0, NDR), extra=b"\xff" * pad, trailer=trailer(pad=pad))
            self.assertNak(self.wire(), sent, 8)

    def test_value_sizes(self) -> None:
        """
        8.1 The size of the token does not matter.
        """
        for size in (1, 16, 40, 5000, 60000):
            sent = bind(element(0, NDR), trailer=trailer(value=bytes(size)))
            self.assertNak(self.wire(), sent, 8)

    def test_type_none(self) -> None:
        """
        8.2 Authentication types 0 and 1 are refused for reason 0, or 8 at levels that mean security.
        """
        for auth_type in (0, 1):
            for levels, reason in ((NO_SECURITY_LEVELS, 0), (SECURITY_LEVELS, 8)):
                for level in levels:
                    sent = bind(
                        element(0, NDR), trailer=trailer(auth_type, level, bytes(8)), call_id=4
                    )
                    self.assertNak(self.wire(), sent, reason, 4)

    def test_too_much_padding(self) -> None:
        """
        2.11 Padding that would be longer than what stands before the trailer makes a bind malformed.
        """
        sent = bind(element(0, NDR), trailer=trailer(pad=200))
        self.assertNak(self.wire(), sent, 4)

    def test_retry(self) -> None:
        """
        8.1 The client that was refused comes back without security and is served.
        """
        self.assertNak(self.wire(), bind(element(0, NDR), trailer=trailer()), 8)
        self.assertStays(self.bound())


class AlterTests(ConformanceCase):
    """
    7.10: alter_context PDUs that ask for security.
    """

    def test_refused(self) -> None:
        """
        7.10 An alter_context with a trailer is refused by a fault, and the connection ends.
        """
        legal = [
            expected_fault(status, 4, executed=executed)
            for status in (PROTOCOL_ERROR, ACCESS_DENIED, 0x721)
            for executed in (False, True)
        ]
        for auth_type in (0, 9, 10, 68):
            wire = self.bound()
            wire.send(alter(element(1, NDR), trailer=trailer(auth_type), call_id=4))
            self.assertIn(wire.take(), legal)
            self.assertClosed(wire)


class ThirdLegTests(ConformanceCase):
    """
    8.3: rpc_auth_3.
    """

    def third_legs(self) -> list[bytes]:
        """
        Such PDUs as clients send them, and some that are no good at all.
        """
        return [
            pdu(PType.AUTH3, bytes(4), trailer=trailer(value=bytes(100)), call_id=4),
            pdu(PType.AUTH3, bytes(4), trailer=trailer(value=bytes(100), order=">"), order=">"),
            pdu(PType.AUTH3, bytes(4)),
            pdu(PType.AUTH3),
            pdu(PType.AUTH3, b"    ", flags=0),
        ]

    def test_ignored(self) -> None:
        """
        8.3 On a connection that is bound an rpc_auth_3 is never answered and changes nothing.
        """
        wire = self.bound()
        for sent in self.third_legs():
            self.assertAnswers(wire, sent)
            self.assertStays(wire)

    def test_between_fragments(self) -> None:
        """
        8.3 Nor does it disturb a call that is being received.
        """
        wire = self.bound()
        stub = ndr_stub(REQUEST_V4)
        self.assertAnswers(wire, request(stub[:9], flags=FIRST))
        for sent in self.third_legs():
            self.assertAnswers(wire, sent)
        wire.send(request(stub[9:], flags=LAST))
        self.assertGranted(wire)

    def test_first(self) -> None:
        """
        8.3, 3.23 Before the bind it is refused as everything else is.
        """
        sent = pdu(PType.AUTH3, bytes(4), trailer=trailer(), call_id=4)
        self.assertNak(self.wire(), sent, 4, 4)
