"""
Table 9: the packet types that are neither bind, alter_context nor request.

Each is tried on a connection that is bound, while a call is being received, and after a call.
"""

from __future__ import annotations

from tests.conformance.answers import PROTOCOL_ERROR
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    FIRST,
    LAST,
    NDR,
    PType,
    element,
    ndr_stub,
    pdu,
    request,
    trailer,
)
from tests.conformance.wire import ConformanceCase, Wire

STUB = ndr_stub(REQUEST_V4)


class OtherCase(ConformanceCase):
    """
    A connection with a call that is being received.
    """

    def opened(self) -> Wire:
        """
        A connection on which the first fragment of call 20 has come.
        """
        wire = self.bound()
        self.assertAnswers(wire, self.first())
        return wire

    def first(self, call_id: int = 20) -> bytes:
        """
        The first fragment of a call.
        """
        return request(STUB[:100], flags=FIRST, call_id=call_id)

    def last(self, call_id: int = 20) -> bytes:
        """
        The second and last fragment of that call.
        """
        return request(STUB[100:], flags=LAST, call_id=call_id)

    def variants(self, ptype: PType, call_id: int) -> list[bytes]:
        """
        A PDU without a body, in the forms in which it may come.
        """
        return [
            pdu(ptype, call_id=call_id),
            pdu(ptype, call_id=call_id, flags=0),
            pdu(ptype, call_id=call_id, flags=0xFF),
            pdu(ptype, call_id=call_id, order=">"),
            pdu(ptype, call_id=call_id, trailer=trailer(value=bytes(16))),
            pdu(ptype, bytes(4), call_id=call_id),
        ]


class CancelTests(OtherCase):
    """
    9.1, 9.2: co_cancel.
    """

    def test_no_call(self) -> None:
        """
        9.1 A co_cancel without a call is ignored, with or without a trailer.
        """
        wire = self.bound()
        for sent in self.variants(PType.CO_CANCEL, 20):
            self.assertAnswers(wire, sent)
            self.assertStays(wire)

    def test_finished_call(self) -> None:
        """
        9.1 A co_cancel for a call that was answered is ignored.
        """
        wire = self.bound()
        self.assertActivates(wire, call_id=20)
        self.assertAnswers(wire, pdu(PType.CO_CANCEL, call_id=20))
        self.assertActivates(wire, call_id=20)

    def test_open_call(self) -> None:
        """
        9.2 A call that is cancelled while it is received completes; the cancel may be counted.
        """
        for sent in self.variants(PType.CO_CANCEL, 20):
            wire = self.opened()
            self.assertAnswers(wire, sent)
            wire.send(self.last())
            self.assertGranted(wire, 20, cancels=(0, 1))
            self.assertStays(wire)

    def test_other_call(self) -> None:
        """
        9.1 A co_cancel for another call than the open one is ignored.
        """
        wire = self.opened()
        for call_id in (19, 21, 0xFFFFFFFF):
            self.assertAnswers(wire, pdu(PType.CO_CANCEL, call_id=call_id))
        wire.send(self.last())
        self.assertGranted(wire, 20)

    def test_does_not_stick(self) -> None:
        """
        9.2 The cancel of one call is not counted for the next.
        """
        wire = self.opened()
        wire.send(pdu(PType.CO_CANCEL, call_id=20) + self.last())
        self.assertGranted(wire, 20, cancels=(0, 1))
        self.assertActivates(wire, call_id=20)
        wire.send(self.first() + self.last())
        self.assertGranted(wire, 20)


class OrphanedTests(OtherCase):
    """
    9.3, 9.4: orphaned.
    """

    def test_no_call(self) -> None:
        """
        9.3 An orphaned without a call is ignored, with or without a trailer.
        """
        wire = self.bound()
        for sent in self.variants(PType.ORPHANED, 20):
            self.assertAnswers(wire, sent)
            self.assertStays(wire)

    def test_finished_call(self) -> None:
        """
        9.3 An orphaned for a call that was answered is ignored.
        """
        wire = self.bound()
        self.assertActivates(wire, call_id=20)
        self.assertAnswers(wire, pdu(PType.ORPHANED, call_id=20))
        self.assertActivates(wire, call_id=20)

    def test_open_call(self) -> None:
        """
        9.4, 13 A call that is orphaned while it is received is forgotten; the next one is served.
        """
        for sent in self.variants(PType.ORPHANED, 20):
            wire = self.opened()
            self.assertAnswers(wire, sent)
            self.assertStays(wire)
            wire.send(self.first(21) + self.last(21))
            self.assertGranted(wire, 21)

    def test_later_fragments(self) -> None:
        """
        9.4, 13 Fragments of an orphaned call that come late are dropped silently.
        """
        wire = self.opened()
        self.assertAnswers(wire, pdu(PType.ORPHANED, call_id=20))
        self.assertAnswers(wire, request(STUB[100:], flags=0, call_id=20))
        self.assertAnswers(wire, self.last())
        self.assertStays(wire)

    def test_same_id(self) -> None:
        """
        9.4, 13 A new first fragment with the id of the orphaned call begins a new call.
        """
        wire = self.opened()
        wire.send(pdu(PType.ORPHANED, call_id=20) + self.first() + self.last())
        self.assertGranted(wire, 20)
        self.assertStays(wire)

    def test_other_call(self) -> None:
        """
        9.3 An orphaned for another call than the open one is ignored.
        """
        wire = self.opened()
        for call_id in (19, 21, 0xFFFFFFFF):
            self.assertAnswers(wire, pdu(PType.ORPHANED, call_id=call_id))
        wire.send(self.last())
        self.assertGranted(wire, 20)

    def test_many(self) -> None:
        """
        9.4, 13 Any number of calls may be orphaned.
        """
        wire = self.bound()
        for call_id in range(300):
            self.assertAnswers(wire, self.first(call_id) + pdu(PType.ORPHANED, call_id=call_id))
        self.assertStays(wire)


class NonsenseTests(OtherCase):
    """
    9.5 to 9.7: what no client of a connection sends.
    """

    def assertProtocolError(self, ptype: int, wire: Wire) -> None:
        """
        The PDU is a protocol error: not executed, context 0, and the end.
        """
        sent = pdu(ptype, bytes(8), call_id=33)
        self.assertFaultCloses(wire, sent, PROTOCOL_ERROR, 33)
        wire.drop()

    def test_shutdown(self) -> None:
        """
        9.5 A shutdown comes from servers only.
        """
        self.assertProtocolError(PType.SHUTDOWN, self.bound())
        wire = self.bound()
        self.assertFaultCloses(wire, pdu(PType.SHUTDOWN, call_id=33), PROTOCOL_ERROR, 33)

    def test_answers(self) -> None:
        """
        9.6 Answers come from servers only.
        """
        for ptype in (
            PType.RESPONSE,
            PType.FAULT,
            PType.BIND_ACK,
            PType.BIND_NAK,
            PType.ALTER_CONTEXT_RESP,
        ):
            self.assertProtocolError(ptype, self.bound())
            self.assertProtocolError(ptype, self.opened())

    def test_connectionless(self) -> None:
        """
        9.7 The packet types of the connectionless protocol and RTS do not occur here.
        """
        for ptype in (
            PType.PING,
            PType.WORKING,
            PType.NOCALL,
            PType.REJECT,
            PType.ACK,
            PType.CL_CANCEL,
            PType.FACK,
            PType.CANCEL_ACK,
            PType.RTS,
        ):
            self.assertProtocolError(ptype, self.bound())

    def test_unknown(self) -> None:
        """
        9.7 Packet types that nobody defined are a protocol error.
        """
        for ptype in range(21, 256):
            self.assertProtocolError(ptype, self.bound())

    def test_after_call(self) -> None:
        """
        9.7 That holds after a call as well.
        """
        wire = self.bound(element(0, NDR))
        self.assertStays(wire)
        self.assertProtocolError(200, wire)
