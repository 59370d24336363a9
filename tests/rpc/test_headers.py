"""
Tests of L{kmsproto.rpc.headers}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.headers import (
    MAX_FRAGMENT,
    ViolationError,
    judge_header,
    protocol_fault,
    recognize,
)
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import Header
from kmsproto.rpc.state import server_arrival
from tests.rpc import PROPERTY
from tests.rpc.building import build_fault, build_nak

PROTO_ERROR = 0x1C01000B
#: What a client may send.
LEGAL = [kind for kind in range(256) if server_arrival(kind, 3) is not None]


def header(
    packet_type: int,
    frag_length: int,
    *,
    version: tuple[int, int] = (5, 0),
    flags: int = 3,
    byte_order: str = "<",
    auth_length: int = 0,
) -> Header:
    """
    Make a header of call 9.
    """
    return Header(version, packet_type, flags, byte_order, frag_length, auth_length, 9)


class JudgementTests(SynchronousTestCase):
    """
    Headers that are judged as soon as they are there.
    """

    def refused(self, judged: Header, *, established: bool) -> bytes:
        """
        Get the answer that a refused header earns.
        """
        error: ViolationError = self.assertRaises(
            ViolationError, judge_header, judged, established=established
        )
        self.assertTrue(str(error))
        return error.answer

    def test_nothing_but_a_bind_comes_first(self) -> None:
        """
        Before a bind every other type is refused with a bind_nak, for its type and not for its length.
        """
        judge_header(header(PacketType.BIND, 28), established=True)
        for kind in range(256):
            if kind != PacketType.BIND:
                answer = self.refused(header(kind, 100), established=True)
                self.assertEqual(answer, build_nak(4, call_id=9))

    def test_only_what_a_client_sends(self) -> None:
        """
        After a bind every type that no client sends is refused with a fault.
        """
        self.assertEqual(LEGAL, [0, 11, 14, 16, 18, 19])
        for kind in range(256):
            if kind in LEGAL:
                judge_header(header(kind, 100), established=False)
            else:
                answer = self.refused(header(kind, 100), established=False)
                self.assertEqual(answer, build_fault(PROTO_ERROR, flags=0x23, call_id=9))

    def test_minimal_lengths(self) -> None:
        """
        Each type has a length that it needs, and one byte less is refused in the way of the state.
        """
        for kind, needed, flags, auth_length in (
            (PacketType.REQUEST, 24, 3, 0),
            (PacketType.REQUEST, 40, 0x83, 0),
            (PacketType.REQUEST, 24 + 8 + 5, 3, 5),
            (PacketType.REQUEST, 40 + 8 + 5, 0x83, 5),
            (PacketType.ALTER_CONTEXT, 28, 3, 0),
            (PacketType.ALTER_CONTEXT, 28 + 8 + 1, 3, 1),
            (PacketType.BIND, 28, 3, 0),
            (PacketType.AUTH3, 16, 3, 0),
            (PacketType.AUTH3, 16, 3, 50),
            (PacketType.CO_CANCEL, 16, 0x83, 0),
            (PacketType.ORPHANED, 16, 3, 50),
        ):
            good = header(kind, needed, flags=flags, auth_length=auth_length)
            judge_header(good, established=False)
            for length in (0, 15, needed - 1):
                answer = self.refused(good._replace(frag_length=length), established=False)
                self.assertEqual(answer, build_fault(PROTO_ERROR, flags=0x23, call_id=9))

    def test_short_bind(self) -> None:
        """
        A first bind that is too short, for itself or for its trailer, is refused with a bind_nak.
        """
        judge_header(header(PacketType.BIND, 40, auth_length=4), established=True)
        for length, auth_length in ((27, 0), (15, 0), (0, 0), (39, 4), (65535, 65535)):
            bind = header(PacketType.BIND, length, auth_length=auth_length)
            self.assertEqual(self.refused(bind, established=True), build_nak(4, call_id=9))

    def test_large_fragments(self) -> None:
        """
        A request has a largest fragment and is refused beyond it; a bind or alter_context may be of any length.
        """
        judge_header(header(PacketType.REQUEST, MAX_FRAGMENT), established=False)
        answer = self.refused(header(PacketType.REQUEST, MAX_FRAGMENT + 1), established=False)
        self.assertEqual(answer, build_fault(PROTO_ERROR, call_id=9))
        judge_header(header(PacketType.BIND, 65535), established=True)
        judge_header(header(PacketType.ALTER_CONTEXT, 65535), established=False)

    def test_versions(self) -> None:
        """
        Another version is no RPC at all at first, but in a bind or on a bound connection it is refused as such.
        """
        for version in ((4, 0), (5, 1), (6, 0), (0, 5)):
            request = header(PacketType.REQUEST, 100, version=version)
            bind = header(PacketType.BIND, 100, version=version)
            self.assertEqual(self.refused(request, established=True), b"")
            self.assertEqual(self.refused(bind, established=True), build_nak(4, call_id=9))
            for judged in (request, bind):
                answer = self.refused(judged, established=False)
                self.assertEqual(answer, build_fault(PROTO_ERROR, flags=0x23, call_id=9))

    def test_byte_orders(self) -> None:
        """
        A data representation without a byte order is refused like another version, and both orders are good.
        """
        judge_header(header(PacketType.BIND, 28, byte_order=">"), established=True)
        request = header(PacketType.REQUEST, 100, byte_order="")
        bind = header(PacketType.BIND, 100, byte_order="")
        self.assertEqual(self.refused(request, established=True), b"")
        self.assertEqual(self.refused(bind, established=True), build_nak(4, call_id=9))
        self.assertEqual(
            self.refused(request, established=False),
            build_fault(PROTO_ERROR, flags=0x23, call_id=9),
        )

    @PROPERTY
    @given(
        st.integers(0, 30),
        st.integers(0, 65535),
        st.integers(0, 255),
        st.sampled_from(["<", ">", ""]),
        st.integers(0, 65535),
        st.booleans(),
    )
    def test_what_passes_can_be_read(
        self,
        kind: int,
        length: int,
        flags: int,
        order: str,
        auth_length: int,
        established: bool,
    ) -> None:
        """
        A header that passes has a byte order, a type of a client, and room for itself.
        """
        judged = header(kind, length, flags=flags, byte_order=order, auth_length=auth_length)
        try:
            judge_header(judged, established=established)
        except ViolationError:
            return
        self.assertIn(order, ("<", ">"))
        self.assertIn(kind, [PacketType.BIND] if established else LEGAL)
        self.assertTrue(length >= 16)


class RecognitionTests(SynchronousTestCase):
    """
    Streams that are recognized before their first header is complete.
    """

    def test_too_few_bytes(self) -> None:
        """
        With less than three bytes nothing is known yet.
        """
        for start in (b"", b"G", b"GE", b"\5", b"\5\0"):
            recognize(start, established=True)

    def test_version_five(self) -> None:
        """
        Version 5.0 is waited for, whatever its type, and so is everything once a bind was seen.
        """
        recognize(b"\5\0\0", established=True)
        recognize(b"\5\0\xff", established=True)
        recognize(b"GET", established=False)

    def test_other_versions(self) -> None:
        """
        What is neither version 5.0 nor a bind of another version is no RPC, and gets no answer.
        """
        recognize(b"\4\0\x0b", established=True)
        for start in (b"GET", b"\x16\3\1", b"\5\1\0", b"\0\0\0"):
            error: ViolationError = self.assertRaises(
                ViolationError, recognize, start, established=True
            )
            self.assertEqual(error.answer, b"")

    @PROPERTY
    @given(st.binary(min_size=16, max_size=16))
    def test_agrees_with_the_judgement(self, start: bytes) -> None:
        """
        What is refused for its first three bytes would also be refused for its header, without an answer.
        """
        try:
            recognize(start[:3], established=True)
        except ViolationError as early:
            whole = header(start[2], 100, version=(start[0], start[1]))
            late: ViolationError = self.assertRaises(
                ViolationError, judge_header, whole, established=True
            )
            self.assertEqual((str(late), late.answer), (str(early), b""))


class WordingTests(SynchronousTestCase):
    """
    Texts and answers.
    """

    def test_types(self) -> None:
        """
        A packet type is called by its name, or by its number when it has none.
        """
        self.assertEqual(PacketType.describe(14), "a PDU of type alter_context")
        self.assertEqual(PacketType.describe(21), "a PDU of type 21")

    def test_protocol_fault(self) -> None:
        """
        The fault before a close says, unless told otherwise, that the call was not executed.
        """
        self.assertEqual(protocol_fault(4), build_fault(PROTO_ERROR, flags=0x23, call_id=4))
        self.assertEqual(
            protocol_fault(4, 6, did_not_execute=False),
            build_fault(PROTO_ERROR, context_id=6, call_id=4),
        )

    def test_violation(self) -> None:
        """
        A violation is answered with nothing unless it knows an answer.
        """
        self.assertEqual(ViolationError("bad").answer, b"")
        violation = ViolationError("bad", b"x")
        self.assertEqual((str(violation), violation.answer), ("bad", b"x"))
