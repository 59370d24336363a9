"""
Text that came from elsewhere, shown.
"""

from __future__ import annotations

from io import BytesIO, StringIO, TextIOWrapper

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.quoting import printable, quote, tolerate


class QuotingTests(SynchronousTestCase):
    """
    What becomes of a text.
    """

    def test_known(self) -> None:
        """
        Letters of any script stay; quotes, backslashes, control and format characters are escaped.
        """
        for text, shown in (
            ("desk-17", "desk-17"),
            ("b\u00fcro-\u03b1", "b\u00fcro-\u03b1"),
            ("it's", "it's"),
            ('a"b\\c', 'a\\"b\\\\c'),
            ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
            ("\u202eabc\u2028", "\\u202eabc\\u2028"),
            ("\ud800", "\\ud800"),
        ):
            with self.subTest(text=text):
                self.assertEqual(printable(text), shown)
                self.assertEqual(quote(text), f'"{shown}"')

    @given(st.text(), st.text())
    def test_any(self, one: str, other: str) -> None:
        """
        Any text becomes printable, and no two texts look alike.
        """
        self.assertTrue(printable(one).isprintable())
        self.assertEqual(printable(one) == printable(other), one == other)


class TolerateTests(SynchronousTestCase):
    """
    Streams that have no characters for a text.
    """

    def test_escapes(self) -> None:
        """
        What a stream cannot write, it writes as an escape.
        """
        buffer = BytesIO()
        stream = TextIOWrapper(buffer, encoding="ascii")
        tolerate(stream)
        stream.write("b\u00fcro")
        stream.flush()
        self.assertEqual(buffer.getvalue(), b"b\\xfcro")

    def test_others(self) -> None:
        """
        Streams that are no text files are left alone.
        """
        for stream in (StringIO(), None):
            tolerate(stream)
