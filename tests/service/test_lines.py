"""
Lines out of chunks: whole ones, halves, limits, and bytes that are no text.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.lines import LineBuffer


class LineBufferTests(SynchronousTestCase):
    """
    The buffer.
    """

    def test_whole_lines(self) -> None:
        """
        Lines that are whole come out at once, together.
        """
        self.assertEqual(LineBuffer(10).feed(b"one\ntwo\n"), "one\ntwo\n")

    def test_half_a_line(self) -> None:
        """
        A line that is not whole waits for its end.
        """
        lines = LineBuffer(10)
        self.assertEqual(lines.feed(b"one\ntw"), "one\n")
        self.assertEqual(lines.feed(b"o"), "")
        self.assertEqual(lines.feed(b"\nth"), "two\n")
        self.assertEqual(lines.finish(), "th\n")
        self.assertEqual(lines.finish(), "")

    def test_endless_line(self) -> None:
        """
        A line beyond the limit is ended there, and what follows is another.
        """
        lines = LineBuffer(10)
        self.assertEqual(lines.feed(b"0123456789"), "")
        self.assertEqual(lines.feed(b"ab"), "0123456789ab\n")
        self.assertEqual(lines.feed(b"c\n"), "c\n")

    def test_half_a_character(self) -> None:
        """
        A chunk may end in the middle of a character.
        """
        lines = LineBuffer(10)
        data = "ä\n".encode()
        self.assertEqual(lines.feed(data[:1]) + lines.feed(data[1:]), "ä\n")

    def test_no_text(self) -> None:
        """
        Bytes that are no text are shown.
        """
        self.assertEqual(LineBuffer(10).feed(b"\xff\n"), "\\xff\n")

    @given(st.lists(st.binary(max_size=20)))
    def test_chunks(self, chunks: list[bytes]) -> None:
        """
        However a stream is cut, the same text comes out, and each piece consists of whole lines.
        """
        lines = LineBuffer(10**6)
        pieces = [lines.feed(chunk) for chunk in chunks] + [lines.finish()]
        for piece in filter(None, pieces):
            self.assertTrue(piece.endswith("\n"))
        whole = b"".join(chunks).decode("utf-8", "backslashreplace")
        self.assertEqual(
            "".join(pieces), whole if whole.endswith("\n") or not whole else whole + "\n"
        )
