"""
Tests of L{kmsproto.rpc.stream}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.stream import PDUStream
from tests.rpc import PROPERTY
from tests.rpc.building import build_pdu, pieces


def drain(stream: PDUStream) -> list[bytes]:
    """
    Take all PDUs that are complete.
    """
    taken = []
    while (header := stream.header()) is not None and (data := stream.take(header)) is not None:
        taken.append(data)
    return taken


class PDUStreamTests(SynchronousTestCase):
    """
    A stream that is cut into PDUs.
    """

    def test_header_as_soon_as_it_is_there(self) -> None:
        """
        A header is handed out with its 16th byte, and stays the same until its PDU is taken.
        """
        stream = PDUStream()
        data = build_pdu(0, b"body", call_id=9)
        stream.feed(data[:15])
        self.assertIsNone(stream.header())
        stream.feed(data[15:16])
        header = stream.header()
        assert header is not None
        self.assertEqual((header.call_id, header.frag_length), (9, 20))
        self.assertIs(stream.header(), header)
        self.assertIsNone(stream.take(header))
        stream.feed(data[16:])
        self.assertIs(stream.header(), header)
        self.assertEqual(stream.take(header), data)
        self.assertIsNone(stream.header())

    def test_unused(self) -> None:
        """
        A stream shows the bytes in it that have not been used.
        """
        stream = PDUStream()
        self.assertEqual(stream.unused, b"")
        stream.feed(build_pdu(0, b"body"))
        self.assertEqual(stream.unused, build_pdu(0, b"body"))
        drain(stream)
        self.assertEqual(stream.unused, b"")

    def test_peek_uses_nothing(self) -> None:
        """
        To look at the next bytes gives what is there and leaves it there.
        """
        stream = PDUStream()
        self.assertEqual(stream.peek(3), b"")
        stream.feed(b"ab")
        self.assertEqual(stream.peek(3), b"ab")
        self.assertEqual(stream.peek(1), b"a")
        self.assertEqual(stream.peek(3), b"ab")

    def test_two_headers_with_equal_bytes_are_two(self) -> None:
        """
        The header of the next PDU is another object, even if its bytes are the same.
        """
        stream = PDUStream()
        stream.feed(build_pdu(18) * 2)
        first = stream.header()
        assert first is not None
        stream.take(first)
        second = stream.header()
        self.assertEqual(second, first)
        self.assertIsNot(second, first)

    def test_clear(self) -> None:
        """
        A stream that was cleared has forgotten its bytes and its header.
        """
        stream = PDUStream()
        stream.feed(build_pdu(0, b"body"))
        stream.header()
        stream.clear()
        self.assertEqual(stream.peek(1), b"")
        self.assertIsNone(stream.header())
        stream.feed(build_pdu(18, call_id=5))
        header = stream.header()
        assert header is not None
        self.assertEqual(header.call_id, 5)

    @PROPERTY
    @given(
        st.lists(st.binary(max_size=40), max_size=5),
        st.lists(st.integers(0, 300)),
        st.binary(max_size=15),
    )
    def test_segments_do_not_matter(
        self, bodies: list[bytes], cuts: list[int], rest: bytes
    ) -> None:
        """
        The same PDUs come out whatever the segments were, and what belongs to the next one is kept.
        """
        pdus = [build_pdu(0, body, call_id=number) for number, body in enumerate(bodies)]
        stream = PDUStream()
        taken = []
        for piece in pieces(b"".join(pdus) + rest, cuts):
            stream.feed(piece)
            taken += drain(stream)
        self.assertEqual(taken, pdus)
        self.assertEqual(stream.peek(100), rest)
