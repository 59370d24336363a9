"""
Table 5: requests in one piece, and the responses or faults they get.

Every row is tried in NDR and, where the stub matters, in NDR64.  A test that sends a bad request
sends a good one behind it wherever the connection has to survive.
"""

from __future__ import annotations

from uuid import UUID

from tests.conformance.answers import (
    ACCESS_DENIED,
    BAD_STUB,
    OPNUM_OUT_OF_RANGE,
    PROTOCOL_ERROR,
    UNKNOWN_INTERFACE,
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
    REQUESTS,
)
from tests.conformance.pdus import (
    CONC_MPX,
    DID_NOT_EXECUTE,
    FIRST,
    LAST,
    MANAGEMENT,
    MAYBE,
    NDR,
    NDR64,
    OBJECT,
    PENDING_CANCEL,
    WHOLE,
    PType,
    activation_stub,
    bind,
    element,
    ndr64_stub,
    ndr_stub,
    pdu,
    request,
    trailer,
)
from tests.conformance.wire import ConformanceCase, Wire

NIL = UUID(int=0)
SOME_OBJECT = UUID("00112233-4455-6677-8899-aabbccddeeff")
INVALID_DATA = 0x8007000D


class RequestCase(ConformanceCase):
    """
    A connection with both transfer syntaxes, as Windows has it.
    """

    #: The contexts of L{both}: id and transfer syntax.
    SYNTAXES = ((0, NDR), (1, NDR64))

    def both(self) -> Wire:
        """
        A connection on which context 0 is NDR and context 1 is NDR64.
        """
        wire = self.wire()
        wire.send(RECORDED_BIND + RECORDED_ALTER)
        self.assertEqual(len(wire.pdus()), 2)
        return wire


class ResponseTests(RequestCase):
    """
    5.1 to 5.3: what a good request gets.
    """

    def test_versions(self) -> None:
        """
        5.1 Requests of all KMS versions are granted in both transfer syntaxes.
        """
        wire = self.both()
        for payload in REQUESTS.values():
            for context, syntax in self.SYNTAXES:
                self.assertActivates(wire, context, syntax, payload)

    def test_context_id(self) -> None:
        """
        5.1, 13 The response has all 16 bits of the context id.
        """
        for context in (0x0100, 0x1234, 0xFF00, 0xFFFF):
            self.assertActivates(self.bound(element(context, NDR)), context)

    def test_many_calls(self) -> None:
        """
        5.1 A connection serves many calls, one after the other.
        """
        wire = self.both()
        for _ in range(100):
            for context, syntax in self.SYNTAXES:
                self.assertActivates(wire, context, syntax)

    def test_flags(self) -> None:
        """
        5.2 The flags of a response are 0x03, whatever else the request had.
        """
        wire = self.bound()
        for extra in (0x08, CONC_MPX, DID_NOT_EXECUTE, MAYBE, 0x08 | CONC_MPX | DID_NOT_EXECUTE):
            wire.send(request(ndr_stub(REQUEST_V4), flags=WHOLE | extra))
            (answer,) = wire.pdus()
            self.assertGrants(answer)
            self.assertEqual(answer.flags, WHOLE)

    def test_object(self) -> None:
        """
        5.3 An object UUID is skipped, whichever it is, and the flag for it is not echoed.
        """
        wire = self.both()
        for identifier in (NIL, SOME_OBJECT, UUID(int=2**128 - 1)):
            for context, syntax in self.SYNTAXES:
                for payload in REQUESTS.values():
                    stub = activation_stub(payload, syntax)
                    wire.send(request(stub, context=context, object_id=identifier))
                    self.assertGranted(wire, context=context, syntax=syntax, payload=payload)

    def test_object_is_no_stub(self) -> None:
        """
        5.3 The sixteen bytes of an object UUID do not count as stub.
        """
        wire = self.bound()
        stub = ndr_stub(REQUEST_V4)
        sent = request(stub[:-1], object_id=SOME_OBJECT)
        self.assertFaultStays(wire, sent, BAD_STUB, executed=True)

    def test_object_without_room(self) -> None:
        """
        5.3 A request that is too short for the object UUID it announces is a protocol error.
        """
        for length in range(16):
            sent = request(bytes(length), flags=WHOLE | OBJECT, call_id=3)
            self.assertFaultCloses(self.bound(), sent, PROTOCOL_ERROR, 3)


class RefusedCallTests(RequestCase):
    """
    5.4, 5.5: calls that reach no operation.
    """

    def test_unknown_context(self) -> None:
        """
        5.4 A context that was never proposed: unknown interface, context 0, not executed.
        """
        wire = self.both()
        for context in (3, 255, 256, 0xFFFE, 0xFFFF):
            for stub in (b"", ndr_stub(REQUEST_V4), ndr64_stub(REQUEST_V4)):
                sent = request(stub, context=context, call_id=0x01020304)
                self.assertFaultStays(wire, sent, UNKNOWN_INTERFACE, 0x01020304)

    def test_context_before_opnum(self) -> None:
        """
        5.4 Without a context there is no operation to be out of range.
        """
        sent = request(context=9, opnum=9)
        self.assertFaultStays(self.bound(), sent, UNKNOWN_INTERFACE)

    def test_opnum(self) -> None:
        """
        5.5 There is one operation; all others are out of range, and nothing is executed.
        """
        wire = self.bound(element(0x0709, NDR))
        for opnum in (1, 2, 4, 255, 256, 0xFFFF):
            for stub in (b"", ndr_stub(REQUEST_V4)):
                self.assertFaultStays(
                    wire,
                    request(stub, context=0x0709, opnum=opnum, call_id=5),
                    OPNUM_OUT_OF_RANGE,
                    5,
                    0x0709,
                    live=(0x0709, NDR),
                )


class StubTests(RequestCase):
    """
    5.6 to 5.11: the stub.
    """

    def assertBadStub(self, wire: Wire, stub: bytes, context: int) -> None:
        """
        The stub is refused by a fault, and the connection stays.
        """
        self.assertAnswers(
            wire,
            request(stub, context=context, call_id=6),
            expected_fault(BAD_STUB, 6, context, executed=True),
        )
        self.assertFalse(wire.closed)

    def assertRefused(self, wire: Wire, payload: bytes) -> None:
        """
        The KMS message is refused by an HRESULT, in both transfer syntaxes.
        """
        for context, syntax in self.SYNTAXES:
            self.assertAnswers(
                wire,
                request(activation_stub(payload, syntax), context=context, call_id=7),
                expected_response(failure_stub(INVALID_DATA, syntax), 7, context),
            )
        self.assertFalse(wire.closed)

    def test_too_short(self) -> None:
        """
        5.6 A stub that ends early is a bad stub, wherever it ends.
        """
        wire = self.both()
        for context, syntax in self.SYNTAXES:
            for payload in (REQUEST_V4, REQUEST_V6):
                stub = activation_stub(payload, syntax)
                for length in range(len(stub)):
                    self.assertBadStub(wire, stub[:length], context)
            self.assertStays(wire, context, syntax)

    def test_counts_exceed_stub(self) -> None:
        """
        5.6 Counts that promise more than there is are a bad stub.
        """
        wire = self.both()
        size = len(REQUEST_V4)
        for count in (size + 1, size + 8, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            self.assertBadStub(wire, ndr_stub(REQUEST_V4, size=count, max_count=count), 0)
            self.assertBadStub(wire, ndr64_stub(REQUEST_V4, size=count, max_count=count), 1)
        for context, syntax in self.SYNTAXES:
            self.assertStays(wire, context, syntax)

    def test_counts_disagree(self) -> None:
        """
        5.7 requestSize and max_count have to be equal.
        """
        wire = self.both()
        size = len(REQUEST_V4)
        for first, second in ((size - 1, size), (size, size - 1), (0, size), (size, 0), (4, 8)):
            self.assertBadStub(wire, ndr_stub(REQUEST_V4, size=first, max_count=second), 0)
            self.assertBadStub(wire, ndr64_stub(REQUEST_V4, size=first, max_count=second), 1)
        for high in (1 << 32, 1 << 63):
            self.assertBadStub(wire, ndr64_stub(REQUEST_V4, max_count=high | size), 1)
        for context, syntax in self.SYNTAXES:
            self.assertStays(wire, context, syntax)

    def test_gap(self) -> None:
        """
        5.8 What the four alignment bytes of NDR64 hold does not matter.
        """
        wire = self.both()
        for gap in (1, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF):
            wire.send(request(ndr64_stub(REQUEST_V4, gap=gap), context=1))
            self.assertGranted(wire, context=1, syntax=NDR64)

    def test_other_syntax(self) -> None:
        """
        5.9 NDR on a context of NDR64 and the reverse are bad stubs.
        """
        wire = self.both()
        for payload in REQUESTS.values():
            self.assertBadStub(wire, ndr_stub(payload), 1)
            self.assertBadStub(wire, ndr64_stub(payload), 0)
        for context, syntax in self.SYNTAXES:
            self.assertStays(wire, context, syntax)

    def test_bytes_behind(self) -> None:
        """
        5.10 Bytes behind the arguments are ignored, however many.
        """
        wire = self.both()
        for context, syntax in self.SYNTAXES:
            for extra in [*range(1, 17), 64, 255, 1000, 5000]:
                stub = activation_stub(REQUEST_V4, syntax) + b"\xee" * extra
                wire.send(request(stub, context=context))
                self.assertGranted(wire, context=context, syntax=syntax)

    def test_verification_trailer(self) -> None:
        """
        5.10 A verification trailer (MS-RPCE 2.2.2.13) is ignored.
        """
        wire = self.bound()
        bitmask = bytes.fromhex("8ae3137102f436710140040001000000")
        wire.send(request(ndr_stub(REQUEST_V4) + bitmask))
        self.assertGranted(wire)

    def test_verification_trailer_must_process(self) -> None:
        """
        5.10 A trailer command that must be understood is ignored or denied, both are legal.
        """
        wire = self.bound()
        unknown = bytes.fromhex("8ae3137102f436713fc0040001000000")
        wire.send(request(ndr_stub(REQUEST_V4) + unknown))
        (answer,) = wire.pdus()
        if answer.ptype == PType.RESPONSE:
            self.assertGrants(answer)
        else:
            self.assertEqual(answer.status, ACCESS_DENIED)

    def test_refused_version(self) -> None:
        """
        5.11 A KMS version that does not exist is an HRESULT in a response, no fault.
        """
        wire = self.both()
        self.assertRefused(wire, REQUEST_V7)
        for version in (0, 1, 2, 3, 7, 8, 0xFFFF):
            changed = b"\0\0" + version.to_bytes(2, "little") + REQUEST_V6[4:]
            self.assertRefused(wire, changed)
        self.assertStays(wire)

    def test_refused_size(self) -> None:
        """
        5.11 A KMS message of a wrong size is an HRESULT, also the empty one.
        """
        wire = self.both()
        for payload in REQUESTS.values():
            for length in [*range(9), 100, *range(len(payload) - 17, len(payload))]:
                self.assertRefused(wire, payload[:length])
            for extra in (1, 4, 8, 16, 1000):
                self.assertRefused(wire, payload + bytes(extra))
        self.assertStays(wire)

    def test_refused_content(self) -> None:
        """
        5.11 A KMS message with a wrong MAC, padding or inner version is an HRESULT.
        """
        wire = self.both()
        self.assertRefused(wire, REQUEST_V4[:-1] + bytes([REQUEST_V4[-1] ^ 1]))
        self.assertRefused(wire, REQUEST_V4[:100] + b"\x55" + REQUEST_V4[101:])
        for payload in (REQUEST_V5, REQUEST_V6):
            self.assertRefused(wire, payload[:-1] + bytes([payload[-1] ^ 1]))
        self.assertRefused(wire, REQUEST_V6[:2] + b"\x05\0" + REQUEST_V6[4:])
        self.assertRefused(wire, REQUEST_V5[:2] + b"\x06\0" + REQUEST_V5[4:])
        self.assertStays(wire)


class PrefixTests(RequestCase):
    """
    5.12 to 5.16: the other fields of a request.
    """

    def test_hint(self) -> None:
        """
        5.12, 5.13 alloc_hint of a request in one piece means nothing: 0, too small, too large.
        """
        wire = self.bound()
        for hint in (0, 1, 259, 261, 5840, 65537, 0x400000, 0x400001, 0x7FFFFFFF, 0xFFFFFFFF):
            wire.send(request(ndr_stub(REQUEST_V4), hint=hint))
            self.assertGranted(wire)

    def test_maybe(self) -> None:
        """
        5.14 A call with MAYBE is answered as any other, also by a fault.
        """
        wire = self.bound()
        wire.send(request(ndr_stub(REQUEST_V4), flags=WHOLE | MAYBE))
        self.assertGranted(wire)
        sent = request(opnum=1, flags=WHOLE | MAYBE)
        self.assertFaultStays(wire, sent, OPNUM_OUT_OF_RANGE)

    def test_pending_cancel(self) -> None:
        """
        5.15 A call with PENDING_CANCEL is run; the response may count the cancel.
        """
        wire = self.bound()
        wire.send(request(ndr_stub(REQUEST_V4), flags=WHOLE | PENDING_CANCEL))
        self.assertGranted(wire, cancels=(0, 1))
        self.assertStays(wire)

    def test_trailer(self) -> None:
        """
        5.16 A trailer without a security context: access denied, as executed, and the end.
        """
        for auth_type in (0, 9, 10, 16, 68, 255):
            for level in (0, 1, 2, 5, 6):
                wire = self.bound(element(0x0708, NDR))
                sent = request(
                    ndr_stub(REQUEST_V4),
                    context=0x0708,
                    call_id=9,
                    trailer=trailer(auth_type, level, bytes(16)),
                )
                self.assertFaultCloses(wire, sent, ACCESS_DENIED, 9, 0x0708, executed=True)
                wire.drop()

    def test_trailer_of_first_fragment(self) -> None:
        """
        5.16 A trailer is refused in the first of several fragments already.
        """
        sent = request(b"", flags=FIRST, call_id=9, trailer=trailer())
        self.assertFaultCloses(self.bound(), sent, ACCESS_DENIED, 9, executed=True)


class PipelineTests(RequestCase):
    """
    5.17, 5.18: calls that do not wait.
    """

    def calls(self, number: int) -> bytes:
        """
        Many calls at once, with the call ids 0, 1, 2...
        """
        return b"".join(request(ndr_stub(REQUEST_V4), call_id=i) for i in range(number))

    def test_multiplexing(self) -> None:
        """
        5.17 With CONC_MPX all calls are served that came before the first answer.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR), flags=WHOLE | CONC_MPX))
        self.assertEqual(wire.pdus()[0].flags, WHOLE | CONC_MPX)
        wire.send(self.calls(50))
        answers = wire.pdus()
        self.assertEqual(sorted(answer.call_id for answer in answers), list(range(50)))
        for answer in answers:
            self.assertGrants(answer, answer.call_id)
        self.assertStays(wire)

    def test_no_multiplexing(self) -> None:
        """
        5.17 Without CONC_MPX calls that came early are served in their order.
        """
        wire = self.bound()
        wire.send(self.calls(50))
        answers = wire.pdus()
        self.assertEqual([answer.call_id for answer in answers], list(range(50)))
        self.assertStays(wire)

    def test_same_call_id(self) -> None:
        """
        5.17 Two calls with one id, the second sent before the first is answered, are both served.
        """
        wire = self.bound()
        wire.send(request(ndr_stub(REQUEST_V4)) * 2)
        for answer in wire.pdus():
            self.assertGrants(answer)
        self.assertStays(wire)

    def test_bad_call_between(self) -> None:
        """
        5.17 A call that fails does not disturb those around it.
        """
        wire = self.bound()
        good = request(ndr_stub(REQUEST_V4))
        wire.send(good + request(opnum=7, call_id=2) + request(context=7, call_id=3) + good)
        first, second, third, fourth = wire.pdus()
        self.assertGrants(first)
        self.assertEqual(second.raw, expected_fault(OPNUM_OUT_OF_RANGE, 2))
        self.assertEqual(third.raw, expected_fault(UNKNOWN_INTERFACE, 3))
        self.assertGrants(fourth)

    def test_answered_before_the_end(self) -> None:
        """
        5.17, 13 Calls that came before a PDU that ends the connection are answered before it.
        """
        for flags in (WHOLE, WHOLE | CONC_MPX):
            for last, end in (
                (bind(element(0, NDR), call_id=9), expected_bind_nak(0, 9)),
                (pdu(PType.SHUTDOWN, call_id=9), expected_fault(PROTOCOL_ERROR, 9)),
                (request(version=(4, 0), call_id=9), expected_fault(PROTOCOL_ERROR, 9)),
                (request(auth_length=1, call_id=9), expected_fault(PROTOCOL_ERROR, 9)),
            ):
                wire = self.wire()
                wire.send(bind(element(0, NDR), flags=flags))
                wire.take()
                wire.send(self.calls(3) + last)
                answers = wire.pdus()
                self.assertEqual([one.call_id for one in answers], [0, 1, 2, 9])
                self.assertEqual(answers[-1].raw, end)
                self.assertClosed(wire)

    def test_half_close(self) -> None:
        """
        5.18 A peer that closes its direction behind a request gets the answer, then the end.
        """
        wire = self.bound()
        wire.send(request(ndr_stub(REQUEST_V4), call_id=3))
        wire.half_close()
        self.assertGranted(wire, 3)
        self.assertTrue(wire.closed)

    def test_half_close_right_behind(self) -> None:
        """
        5.18 The same with everything in one segment.
        """
        wire = self.wire()
        wire.send(bind(element(0, NDR)) + self.calls(3))
        wire.half_close()
        self.assertEqual(
            [answer.ptype for answer in wire.pdus()],
            [PType.BIND_ACK, PType.RESPONSE, PType.RESPONSE, PType.RESPONSE],
        )
        self.assertTrue(wire.closed)

    def test_half_close_of_idle_peer(self) -> None:
        """
        5.18 A peer that closes its direction and waits for nothing is let go.
        """
        for sent in (b"", bind(element(0, NDR)), pdu(PType.BIND, frag_length=72)):
            wire = self.wire()
            wire.send(sent)
            wire.half_close()
            self.assertTrue(wire.closed)

    def test_last_only_flag_is_no_call(self) -> None:
        """
        5.2 A request without FIRST is no call of its own, see table 6.
        """
        wire = self.bound(element(0, NDR), element(1, NDR, abstract=MANAGEMENT))
        sent = request(ndr_stub(REQUEST_V4), flags=LAST, call_id=4)
        self.assertFaultCloses(wire, sent, PROTOCOL_ERROR, 4, executed=True)
