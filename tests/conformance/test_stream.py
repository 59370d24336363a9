"""
Rows 2.16, 2.17 and chapter 13: how a stream of bytes becomes PDUs, and how it ends.

The rest of table 2, what the 16 bytes of the header say, is in L{tests.conformance.test_header}.
"""

from __future__ import annotations

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    NO_TRANSFER,
    PROTOCOL_ERROR,
    UNKNOWN_INTERFACE,
    expected_bind_nak,
    expected_fault,
)
from tests.conformance.payloads import (
    REQUEST_V4,
)
from tests.conformance.pdus import (
    NDR,
    NDR64,
    PType,
    alter,
    bind,
    element,
    fragments,
    ndr64_stub,
    ndr_stub,
    pdu,
    request,
)
from tests.conformance.wire import ConformanceCase


class StreamTests(ConformanceCase):
    """
    2.16, 2.17: PDUs out of a stream of bytes.
    """

    def exchange(self) -> bytes:
        """
        A whole conversation of a client, in one piece.
        """
        return b"".join(
            (
                bind(element(0, NDR), element(1, NDR64), call_id=1),
                alter(element(0, NDR), call_id=2),
                request(ndr_stub(REQUEST_V4), call_id=3),
                *fragments([b"", ndr64_stub(REQUEST_V4)[:7], ndr64_stub(REQUEST_V4)[7:]],
                           context=1, call_id=4),
                request(context=9, call_id=5),
                pdu(PType.CO_CANCEL, call_id=77),
                request(ndr_stub(REQUEST_V4), call_id=6),
            )
        )  # fmt: skip

    def assertServed(self, chunk: int | list[int] | None) -> None:
        """
        All of the conversation is answered, however it was cut.
        """
        wire = self.wire()
        wire.send(self.exchange(), chunk)
        answers = wire.pdus()
        self.assertEqual([answer.call_id for answer in answers], [1, 2, 3, 4, 5, 6])
        acknowledged, altered, first, second, fault, third = answers
        self.assertEqual(acknowledged.results, [NO_TRANSFER, ACCEPT_NDR64])
        self.assertEqual(altered.results, [ACCEPT_NDR])
        self.assertGrants(first, 3)
        self.assertGrants(second, 4, 1, NDR64)
        self.assertEqual(fault.raw, expected_fault(UNKNOWN_INTERFACE, 5))
        self.assertGrants(third, 6)
        self.assertStays(wire)
        wire.drop()

    def test_single_segment(self) -> None:
        """
        2.16 A whole conversation in one segment is served: bind, alter_context and calls.
        """
        self.assertServed(None)

    def test_byte_by_byte(self) -> None:
        """
        2.16 A whole conversation byte by byte is served.
        """
        self.assertServed(1)

    def test_segments(self) -> None:
        """
        2.16 Segments of any one size make no difference.
        """
        for size in [*range(2, 40), 71, 72, 73, 99, 100, 101, 255, 256, 1024, 1448]:
            self.assertServed(size)

    def test_each_cut(self) -> None:
        """
        2.16 Two segments make no difference, wherever the cut between them is.
        """
        for cut in range(1, len(self.exchange()), 7):
            self.assertServed([cut])

    def test_incomplete(self) -> None:
        """
        2.16 A PDU is answered when its last byte has come, and no earlier.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR))[:-1])
        self.assertEqual(wire.take(), b"")
        self.assertFalse(wire.closed)
        wire.send(bind(element(0, NDR))[-1:])
        self.assertEqual(wire.pdus()[0].results, [ACCEPT_NDR])
        sent = request(ndr_stub(REQUEST_V4))
        wire.send(sent[:-1])
        self.assertEqual(wire.take(), b"")
        wire.send(sent[-1:])
        self.assertGranted(wire)

    def test_other_protocols(self) -> None:
        """
        2.17 What is not RPC is closed without an answer as soon as three octets show it.
        """
        for sent in (
            b"GET / HTTP/1.1\r\nHost: kms.example.org\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"\0\0\0\0",
            b"\x05\x01\x00",
            b"\x04\x00\x0e",
            b"\xff\xff\xff",
        ):
            for length in (3, len(sent)):
                wire = self.wire()
                self.assertAnswers(wire, sent[:length])
                self.assertClosed(wire)

    def test_other_protocols_octet_by_octet(self) -> None:
        """
        2.17 Two octets that might still become a bind are not closed.
        """
        wire = self.wire()
        wire.send(b"GE", 1)
        self.assertFalse(wire.closed)
        wire.send(b"T")
        self.assertEqual(wire.take(), b"")
        self.assertClosed(wire)

    def test_garbage_when_bound(self) -> None:
        """
        2.17 On a connection that is bound, a bad version octet is not waited on for more.
        """
        wire = self.bound()
        wire.send(b"GET / HTTP/1.1\r\n")
        self.assertTrue(wire.closed)
        self.assertClosed(wire)


class ClosingTests(ConformanceCase):
    """
    13: an answer that precedes a close is always delivered.
    """

    def test_direction_first(self) -> None:
        """
        13 Behind an answer only the host's direction is closed; the rest is read and thrown away.
        """
        wire = self.wire()
        wire.send(bind() + bytes(3000), 100)
        self.assertEqual(wire.take(), expected_bind_nak(4))
        self.assertTrue(wire.transport.write_closed)
        self.assertFalse(wire.transport.disconnecting)
        self.assertEqual(wire.transport.producerState, "producing")

    def test_fin_of_peer(self) -> None:
        """
        13 The connection goes when the peer has closed its direction as well.
        """
        wire = self.wire()
        wire.send(bind())
        wire.half_close()
        self.assertTrue(wire.lost)
        self.assertEqual(wire.take(), expected_bind_nak(4))

    def test_silent_peer(self) -> None:
        """
        13 A peer that never closes its direction does not keep the connection.
        """
        wire = self.wire()
        wire.send(bind())
        wire.advance(120)
        self.assertTrue(wire.lost)

    def test_fault(self) -> None:
        """
        13 A fault that ends the connection is delivered as well.
        """
        wire = self.bound()
        wire.send(request(version=(4, 0)) + bytes(3000), 100)
        self.assertEqual(wire.take(), expected_fault(PROTOCOL_ERROR))
        self.assertFalse(wire.transport.disconnecting)
        wire.half_close()
        self.assertTrue(wire.lost)

    def test_no_timer_left(self) -> None:
        """
        13 A connection that is gone leaves no timer behind, in whatever state it was.
        """
        self.factory()
        before = len(self.clock.getDelayedCalls())
        for sent in (
            b"",
            bind(element(0, NDR))[:30],
            bind(element(0, NDR)),
            bind(element(0, NDR)) + request()[:20],
            bind(element(0, NDR)) + fragments([b"", b""])[0],
            bind(),
            b"GET",
        ):
            wire = self.wire()
            wire.send(sent)
            wire.drop()
            self.assertEqual(len(self.clock.getDelayedCalls()), before, sent)
