"""
What a journal writes to.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service import sinks
from kmsproto.service.sinks import DescriptorSink, FileSink, TextSink, sink_of


class DescriptorTests(SynchronousTestCase):
    """
    Pipes and the like.
    """

    def test_part(self) -> None:
        """
        What a pipe has room for is taken and told; a full one raises.
        """
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        os.set_blocking(writer, False)
        sink = DescriptorSink(writer)
        taken = sink.write(bytes(1 << 22))
        self.assertTrue(0 < taken < 1 << 22)
        self.assertRaises(OSError, sink.write, b"more")
        self.assertEqual(len(os.read(reader, 10)), 10)

    def test_behind_a_stream(self) -> None:
        """
        Behind a text stream is its descriptor, with its encoding; a stream without one is written to itself.
        """
        path = Path(self.mktemp())
        with path.open("w", encoding="ascii") as stream:
            stream.write("before ")
            sink = sink_of(stream)
            self.assertEqual(sink.encoding, "ascii")
            sink.write(b"and behind")
        self.assertEqual(path.read_text(), "before and behind")
        text = io.StringIO()
        sink = sink_of(text)
        self.assertIsInstance(sink, TextSink)
        self.assertEqual(sink.write("ü".encode()), 2)
        self.assertEqual(text.getvalue(), "ü")


class FileTests(SynchronousTestCase):
    """
    Log files.
    """

    def setUp(self) -> None:
        """
        Open one that is full after ten bytes.
        """
        self.path = Path(self.mktemp())
        self.sink = FileSink(self.path.name, str(self.path.parent), rotateLength=10)
        self.addCleanup(lambda: self.sink.close())

    def test_rotation(self) -> None:
        """
        A file that is full is put aside, and the next bytes go into a new one.
        """
        for data in (b"0123456789", b"next"):
            self.assertEqual(self.sink.write(data), len(data))
        self.assertEqual(self.path.read_bytes(), b"next")
        self.assertEqual(Path(f"{self.path}.1").read_bytes(), b"0123456789")

    def test_begin(self) -> None:
        """
        A new file is begun beside the old one.
        """
        self.sink.write(b"old")
        self.sink.begin()
        self.sink.write(b"new")
        self.assertEqual(self.path.read_bytes(), b"new")
        self.assertEqual(Path(f"{self.path}.1").read_bytes(), b"old")

    def test_begin_elsewhere(self) -> None:
        """
        A file that somebody has moved away, or replaced, stays there, and nothing else is put aside.
        """
        for number, replaced in enumerate((False, True)):
            moved = Path(f"{self.path}-{number}")
            self.sink.write(b"old")
            self.path.rename(moved)
            if replaced:
                self.path.write_bytes(b"first ")
            self.sink.begin()
            self.sink.write(b"new")
            self.assertEqual(moved.read_bytes(), b"old")
            self.assertEqual(self.path.read_bytes(), b"first new" if replaced else b"new")
            self.assertFalse(Path(f"{self.path}.1").exists())
            self.path.unlink()
            self.sink.begin()

    def test_part(self) -> None:
        """
        What the disk has room for is taken and told.
        """
        self.patch(sinks.os, "write", lambda descriptor, data: 3)
        self.assertEqual(self.sink.write(b"0123"), 3)
        self.assertEqual(self.sink.size, 3)

    def test_not_opened_anew(self) -> None:
        """
        A rotation whose new file cannot be opened raises; the next bytes try it again.
        """
        self.sink.write(b"0123456789")
        opening = FileSink._openFile

        def fail(file: FileSink) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(FileSink, "_openFile", fail)
        for _ in range(2):
            self.assertRaises(OSError, self.sink.write, b"next")
        self.patch(FileSink, "_openFile", opening)
        self.assertEqual(self.sink.write(b"next"), 4)
        self.assertEqual(self.path.read_bytes(), b"next")
