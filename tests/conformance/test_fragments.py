"""
Table 6: requests in several fragments.

Most tests use context 7, so that a fault for the open call and one for nothing in particular, which
has context 0, can be told apart.
"""

from __future__ import annotations

from uuid import UUID

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCESS_DENIED,
    BAD_STUB,
    OPNUM_OUT_OF_RANGE,
    PROTOCOL_ERROR,
    UNKNOWN_INTERFACE,
    expected_alter_response,
    expected_fault,
)
from tests.conformance.payloads import REQUEST_V4, REQUEST_V6
from tests.conformance.pdus import (
    CONC_MPX,
    FIRST,
    LAST,
    MANAGEMENT,
    NDR,
    NDR64,
    PENDING_CANCEL,
    WHOLE,
    PType,
    activation_stub,
    alter,
    bind,
    chunks,
    element,
    fragments,
    ndr64_stub,
    ndr_stub,
    pdu,
    request,
)
from tests.conformance.wire import ConformanceCase, Wire

STUB = ndr_stub(REQUEST_V4)
LIMIT = 65536
LARGEST_PIECE = 5840 - 24


class FragmentCase(ConformanceCase):
    """
    A connection whose only context is 7, and calls on it in fragments.
    """

    def seven(self) -> Wire:
        """
        A connection on which context 7 is NDR.
        """
        return self.bound(element(7, NDR))

    def opened(self, call_id: int = 20) -> Wire:
        """
        The same, with the first fragment of a call sent and not answered.
        """
        wire = self.seven()
        self.assertAnswers(wire, self.first(call_id))
        self.assertFalse(wire.closed)
        return wire

    def first(self, call_id: int = 20) -> bytes:
        """
        The first fragment of a good call.
        """
        return request(STUB[:50], context=7, flags=FIRST, call_id=call_id)

    def middle(self, call_id: int = 20) -> bytes:
        """
        Its second fragment.
        """
        return request(STUB[50:100], context=7, flags=0, call_id=call_id)

    def last(self, call_id: int = 20) -> bytes:
        """
        Its third and last fragment.
        """
        return request(STUB[100:], context=7, flags=LAST, call_id=call_id)

    def whole(self, call_id: int = 20) -> bytes:
        """
        A good call in one fragment.
        """
        return request(STUB, context=7, call_id=call_id)

    def assertSequenceFault(self, wire: Wire, sent: bytes, *alternatives: tuple[int, int]) -> None:
        """
        A fragment out of sequence: a protocol error, as executed, and the end.

        @param alternatives: Call id and context id of the fault; each pair is legal.
        """
        wire.send(sent)
        got = wire.take()
        legal = [
            expected_fault(PROTOCOL_ERROR, call_id, context, executed=True)
            for call_id, context in alternatives
        ]
        self.assertIn(got.hex(" ", -4), [one.hex(" ", -4) for one in legal])
        self.assertClosed(wire)


class ReassemblyTests(FragmentCase):
    """
    6.1, 6.2, 6.10, 6.12: fragments that make a call.
    """

    def test_each_size(self) -> None:
        """
        6.1 Fragments of each size from 0 to 300 make one call with one answer.
        """
        wire = self.seven()
        for size in range(301):
            wire.send(b"".join(fragments(chunks(STUB, size), context=7, call_id=size)))
            self.assertGranted(wire, size, 7)

    def test_each_size_ndr64(self) -> None:
        """
        6.1 The same in NDR64, where alignment counts from the start of the stub, not of the PDU.
        """
        wire = self.bound(element(7, NDR64))
        stub = ndr64_stub(REQUEST_V6)
        for size in [*range(34), *range(34, 301, 19)]:
            wire.send(b"".join(fragments(chunks(stub, size), context=7, call_id=size)))
            self.assertGranted(wire, size, 7, NDR64, REQUEST_V6)

    def test_no_answer_before_last(self) -> None:
        """
        6.1 There is no answer before the last fragment.
        """
        wire = self.seven()
        *but_last, last = fragments(chunks(STUB, 10), context=7)
        for one in but_last:
            self.assertAnswers(wire, one)
        wire.send(last)
        self.assertGranted(wire, context=7)

    def test_empty_fragments(self) -> None:
        """
        6.1 Fragments without a stub are fragments, first, last, or in any number between.
        """
        wire = self.seven()
        for pieces in (
            [b"", STUB],
            [STUB, b""],
            [b"", b"", b"", STUB],
            [STUB[:9], *[b""] * 300, STUB[9:], b""],
        ):
            wire.send(b"".join(fragments(pieces, context=7)))
            self.assertGranted(wire, context=7)

    def test_nothing_but_empty_fragments(self) -> None:
        """
        6.1 A call of empty fragments has an empty stub, which is a bad one.
        """
        wire = self.seven()
        sent = b"".join(fragments([b"", b"", b""], context=7))
        self.assertFaultStays(wire, sent, BAD_STUB, context=7, executed=True, live=(7, NDR))

    def test_bytes_behind(self) -> None:
        """
        6.1 Bytes behind the arguments are ignored, also in fragments of their own.
        """
        wire = self.seven()
        wire.send(b"".join(fragments([STUB, b"\xee" * 5000, b"\xee" * 5000], context=7)))
        self.assertGranted(wire, context=7)

    def test_hints(self) -> None:
        """
        6.1 alloc_hint means nothing, as long as that of the first fragment is no attack.
        """
        wire = self.seven()
        for hints in (
            [0, 0, 0],
            [1, 2, 3],
            [260, 0xFFFFFFFF, 0xFFFFFFFF],
            [0, 0x400001, 0x400001],
            [0x400000, 0, 0],
            [65537, 65537, 65537],
        ):
            pieces = [STUB[:50], STUB[50:100], STUB[100:]]
            wire.send(b"".join(fragments(pieces, context=7, hints=hints)))
            self.assertGranted(wire, context=7)

    def test_object(self) -> None:
        """
        6.1 An object UUID is repeated in each fragment, and skipped in each.
        """
        wire = self.seven()
        identifier = UUID("00112233-4455-6677-8899-aabbccddeeff")
        for size in (0, 1, 7, 16, 100, 260):
            pieces = chunks(STUB, size)
            wire.send(b"".join(fragments(pieces, context=7, object_id=identifier)))
            self.assertGranted(wire, context=7)

    def test_one_after_the_other(self) -> None:
        """
        6.1 Calls in fragments and in one piece follow each other, with any call ids.
        """
        wire = self.seven()
        call = self.first(5) + self.middle(5) + self.last(5)
        wire.send(call + self.whole(5) + call + call + self.whole(4))
        self.assertEqual([answer.call_id for answer in wire.pdus()], [5, 5, 5, 5, 4])
        self.assertStays(wire, 7)

    def test_later_fields(self) -> None:
        """
        6.2 Context and opnum of the first fragment count, those of the others do not.
        """
        wire = self.seven()
        wire.send(
            self.first()
            + request(STUB[50:100], context=0xFFFF, opnum=9, flags=0, call_id=20)
            + request(STUB[100:], context=0, opnum=0xFFFF, flags=LAST, call_id=20)
        )
        self.assertGranted(wire, 20, 7)

    def test_pending_cancel(self) -> None:
        """
        6.10 PENDING_CANCEL in a later fragment changes nothing.
        """
        for flags in ((PENDING_CANCEL, LAST), (0, LAST | PENDING_CANCEL), (4, LAST | 4)):
            wire = self.opened()
            wire.send(request(STUB[50:100], context=7, flags=flags[0], call_id=20))
            wire.send(request(STUB[100:], context=7, flags=flags[1], call_id=20))
            self.assertGranted(wire, 20, 7)
            self.assertStays(wire, 7)

    def test_other_flags(self) -> None:
        """
        6.1 Flags that mean nothing in a fragment change nothing.
        """
        wire = self.seven()
        for extra in (0x08, CONC_MPX, 0x20, 0x40):
            wire.send(b"".join(fragments(chunks(STUB, 100), context=7, flags=extra)))
            self.assertGranted(wire, context=7)

    def test_answer_in_one_piece(self) -> None:
        """
        6.12 An answer is one fragment, also where the peer takes the smallest.
        """
        wire = self.wire()
        wire.send(bind(element(7, NDR), element(1, NDR, abstract=MANAGEMENT), xmit=1432, recv=1432))
        self.assertEqual(wire.pdus()[0].sizes, (2048, 2048))
        wire.send(request(ndr_stub(REQUEST_V6), context=7) + request(context=1))
        for answer in wire.pdus():
            self.assertEqual(answer.flags, WHOLE)
            self.assertLessEqual(len(answer.raw), 2048)


class SequenceTests(FragmentCase):
    """
    6.3 to 6.6: fragments that make no call.
    """

    def test_second_first(self) -> None:
        """
        6.3 A second FIRST while a call is open ends the open call, whichever id it has.
        """
        for call_id in (20, 21, 19):
            for sent in (self.first(call_id), self.whole(call_id)):
                self.assertSequenceFault(self.opened(), sent, (20, 7))

    def test_second_first_elsewhere(self) -> None:
        """
        6.3 The context of the second FIRST does not matter, not even an unknown one.
        """
        for context in (0, 9):
            sent = request(STUB, context=context, flags=FIRST, call_id=21)
            self.assertSequenceFault(self.opened(), sent, (20, 7))

    def test_nothing_open(self) -> None:
        """
        6.4 A fragment that is not a first one, while nothing is open, is refused with context 0.
        """
        for flags in (0, LAST, 0x08, 0x40, LAST | PENDING_CANCEL):
            sent = request(STUB, context=7, flags=flags, call_id=500)
            self.assertSequenceFault(self.seven(), sent, (500, 0))

    def test_nothing_open_any_more(self) -> None:
        """
        6.4 After a call was answered nothing is open.
        """
        for served in (self.first() + self.last(), self.whole()):
            wire = self.seven()
            wire.send(served)
            wire.take()
            sent = request(STUB, context=7, flags=LAST, call_id=500)
            self.assertSequenceFault(wire, sent, (500, 0))

    def test_other_call(self) -> None:
        """
        6.5 A later fragment of another call is refused: for that call, or for the open one.
        """
        for call_id in (21, 500):
            for sent in (self.middle(call_id), self.last(call_id)):
                self.assertSequenceFault(self.opened(), sent, (20, 7), (call_id, 0))

    def test_other_order(self) -> None:
        """
        6.6 The byte order may not change within a call.
        """
        for flags in (0, LAST):
            sent = request(STUB[50:], context=7, flags=flags, call_id=20, order=">")
            self.assertSequenceFault(self.opened(), sent, (20, 7), (20, 0))

    def test_other_order_to_little(self) -> None:
        """
        6.6 Nor may it change the other way round.
        """
        wire = self.seven()
        wire.send(request(STUB[:50], context=7, flags=FIRST, call_id=20, order=">"))
        self.assertSequenceFault(wire, self.last(), (20, 7), (20, 0))

    def test_too_large_inside(self) -> None:
        """
        2.9 A fragment above 5840 bytes is refused inside a call as well.
        """
        sent = request(bytes(5817), context=7, flags=0, call_id=20)
        self.assertSequenceFault(self.opened(), sent, (20, 7), (20, 0))


class RefusedCallTests(FragmentCase):
    """
    6.7, 6.8: calls that are refused by their first fragment.
    """

    def refused(self, call_id: int = 20, *, context: int = 7, opnum: int = 0) -> list[bytes]:
        """
        The three fragments of a call that cannot be served.
        """
        pieces = [STUB[:50], STUB[50:100], STUB[100:]]
        return fragments(pieces, context=context, opnum=opnum, call_id=call_id)

    def test_unknown_context(self) -> None:
        """
        6.7 An unknown context is refused at the first fragment; the others are dropped silently.
        """
        wire = self.seven()
        first, middle, last = self.refused(context=9)
        self.assertAnswers(wire, first, expected_fault(UNKNOWN_INTERFACE, 20))
        self.assertAnswers(wire, middle)
        self.assertAnswers(wire, last)
        self.assertStays(wire, 7)

    def test_opnum(self) -> None:
        """
        6.8 A bad opnum is refused at the first fragment; the others are dropped silently.
        """
        wire = self.seven()
        first, middle, last = self.refused(opnum=1)
        self.assertAnswers(wire, first, expected_fault(OPNUM_OUT_OF_RANGE, 20, 7))
        self.assertAnswers(wire, middle)
        self.assertAnswers(wire, last)
        self.assertStays(wire, 7)

    def test_next_call(self) -> None:
        """
        6.7, 6.8 After such a refusal the next call is served, in fragments too, before or after.
        """
        for arguments in ({"context": 9}, {"opnum": 1}):
            for dropped in range(1, 4):
                wire = self.seven()
                wire.send(b"".join(self.refused(20, **arguments)[:dropped]))
                self.assertEqual(len(wire.pdus()), 1)
                wire.send(self.first(21) + self.middle(21) + self.last(21))
                self.assertGranted(wire, 21, 7)
                self.assertStays(wire, 7)

    def test_same_id(self) -> None:
        """
        6.7, 6.8 A new first fragment with the id of the refused call begins a new call.
        """
        wire = self.seven()
        wire.send(self.refused(context=9)[0])
        self.assertEqual(len(wire.pdus()), 1)
        wire.send(self.first() + self.middle() + self.last())
        self.assertGranted(wire, 20, 7)

    def test_many(self) -> None:
        """
        6.7, 6.8 Any number of calls may be refused so.
        """
        wire = self.seven()
        for call_id in range(200):
            wire.send(b"".join(self.refused(call_id, context=9)))
            self.assertSent(wire, expected_fault(UNKNOWN_INTERFACE, call_id))
        self.assertStays(wire, 7)


class SizeTests(FragmentCase):
    """
    6.9, 13: the reassembly limit.
    """

    def pieces(self, size: int) -> list[bytes]:
        """
        A good stub with so many bytes behind it that it has this size, in fragments of 5840 bytes.
        """
        return chunks(STUB.ljust(size, b"\xee"), LARGEST_PIECE)

    def test_limit(self) -> None:
        """
        6.9, 13 A stub of 65536 bytes is accepted.
        """
        wire = self.seven()
        wire.send(b"".join(fragments(self.pieces(LIMIT), context=7)))
        self.assertGranted(wire, context=7)
        self.assertStays(wire, 7)

    def test_too_large(self) -> None:
        """
        6.9, 13 One byte more is refused as too much input: access denied, and the end.
        """
        wire = self.seven()
        *but_last, last = fragments(self.pieces(LIMIT + 1), context=7, call_id=5)
        self.assertAnswers(wire, b"".join(but_last))
        self.assertFaultCloses(wire, last, ACCESS_DENIED, 5, 7, executed=True)

    def test_too_large_before_last(self) -> None:
        """
        6.9, 13 The refusal comes with the fragment that goes too far, not with the last one.
        """
        wire = self.seven()
        made = fragments(self.pieces(2 * LIMIT), context=7, call_id=5)
        before = LIMIT // LARGEST_PIECE
        self.assertAnswers(wire, b"".join(made[:before]))
        self.assertFaultCloses(wire, made[before], ACCESS_DENIED, 5, 7, executed=True)

    def test_small_pieces(self) -> None:
        """
        6.9, 13 It is the sum that counts, not the number of fragments.
        """
        wire = self.seven()
        made = fragments([STUB, *[b"\xee" * 16] * 5000, b""], context=7, call_id=5)
        before = 1 + (LIMIT - len(STUB)) // 16
        self.assertAnswers(wire, b"".join(made[:before]))
        self.assertFaultCloses(wire, made[before], ACCESS_DENIED, 5, 7, executed=True)

    def test_limit_is_per_call(self) -> None:
        """
        6.9 Each call has the whole limit for itself.
        """
        wire = self.seven()
        for _ in range(3):
            wire.send(b"".join(fragments(self.pieces(LIMIT), context=7)))
            self.assertGranted(wire, context=7)

    def test_hint(self) -> None:
        """
        6.9 An alloc_hint above 4 MiB in the first of several fragments is refused at once.
        """
        for hint in (0x400001, 0x7FFFFFFF, 0xFFFFFFFF):
            sent = request(STUB[:50], context=7, flags=FIRST, hint=hint, call_id=5)
            self.assertFaultCloses(self.seven(), sent, ACCESS_DENIED, 5, 7, executed=True)


class BetweenTests(FragmentCase):
    """
    6.11 and its like: other PDUs between the fragments of a call.
    """

    def test_alter(self) -> None:
        """
        6.11 An alter_context between fragments is answered, and the call goes on.
        """
        wire = self.opened()
        self.assertAnswers(
            wire,
            alter(element(8, NDR), call_id=33),
            expected_alter_response(wire.group, ACCEPT_NDR, call_id=33),
        )
        wire.send(self.middle() + self.last())
        self.assertGranted(wire, 20, 7)
        self.assertStays(wire, 8)

    def test_second_bind(self) -> None:
        """
        3.21 A bind between fragments is refused as any second bind.
        """
        self.assertNak(self.opened(), bind(element(7, NDR), call_id=33), 0, 33)

    def test_nonsense(self) -> None:
        """
        9.6 A PDU that no client sends ends the connection between fragments as well.
        """
        self.assertFaultCloses(
            self.opened(), pdu(PType.RESPONSE, bytes(8), call_id=33), PROTOCOL_ERROR, 33
        )

    def test_both_syntaxes_in_turn(self) -> None:
        """
        6.1 Calls in fragments on different contexts each use their own transfer syntax.
        """
        wire = self.bound(element(7, NDR64))
        wire.send(alter(element(8, NDR)))
        wire.take()
        for context, syntax in ((7, NDR64), (8, NDR), (7, NDR64)):
            stub = activation_stub(REQUEST_V6, syntax)
            wire.send(b"".join(fragments(chunks(stub, 11), context=context)))
            self.assertGranted(wire, 1, context, syntax, REQUEST_V6)
