"""
What a journal writes to: things that take bytes, and say how many of them they took.

The streams of Python and the log files of Twisted either take a text or raise an error, and do not tell what part of
it was written before the error came.  Who goes on behind such an error loses lines, or writes them twice.  So a sink
goes to the descriptor itself.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from twisted.python.logfile import LogFile


class Sink(Protocol):
    """
    What a journal writes to.

    @ivar encoding: How text becomes bytes for it.
    """

    encoding: str

    def write(self, data: bytes, /) -> int:
        """
        Take some bytes.

        @return: How many of them, from the beginning; at least one.
        @raise OSError: If none can be taken now.
        """


class DescriptorSink:
    """
    A file descriptor: standard output, or a pipe.

    @param descriptor: The descriptor, which stays open.
    @param encoding: How text becomes bytes for it.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self.encoding = encoding

    def write(self, data: bytes, /) -> int:
        """
        Take some bytes.
        """
        return os.write(self._descriptor, data)


class TextSink:
    """
    A text stream without a descriptor, such as one that a test puts in the place of standard output.

    @param stream: The stream.
    """

    encoding = "utf-8"

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> int:
        """
        Take all bytes.
        """
        self._stream.write(data.decode(self.encoding))
        self._stream.flush()
        return len(data)


class FileSink(LogFile):
    """
    A log file that rotates as twistd's does.

    When it cannot be opened anew after a rotation, that is tried again with the next bytes.
    """

    encoding = "utf-8"

    def begin(self) -> None:
        """
        Begin a new file.  The old one is put aside, unless somebody has done that already, as logrotate does.

        @raise OSError: If that cannot be done; the next bytes try again.
        """
        if self._is_in_place():
            self.rotate()  # type: ignore[no-untyped-call]
        else:
            self._file.close()
            self._openFile()  # type: ignore[no-untyped-call]

    def _is_in_place(self) -> bool:
        """
        Tell whether the file that is open is the one that has the name.
        """
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except (OSError, ValueError):
            # There is none of that name, or none is open.
            return False

    def write(self, data: bytes, /) -> int:
        """
        Take some bytes, in a new file if the old one is full.
        """
        if self._file.closed:
            self._openFile()  # type: ignore[no-untyped-call]
        if self.shouldRotate():  # type: ignore[no-untyped-call]
            self.rotate()  # type: ignore[no-untyped-call]
        written = os.write(self._file.fileno(), data)
        self.size += written
        return written


def sink_of(stream: Any) -> Sink:
    """
    Find the sink behind a text stream.

    @param stream: For example C{sys.stdout}.
    """
    try:
        stream.flush()
        return DescriptorSink(stream.fileno(), stream.encoding or "utf-8")
    except (AttributeError, OSError):
        return TextSink(stream)
