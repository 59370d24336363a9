"""
Lines out of a stream that comes in chunks.

A chunk ends anywhere, also in the middle of a character, so text is only made of whole lines.  What is unfinished
waits for the rest, up to a limit: whoever writes without ever ending a line gets it ended here.
"""

from __future__ import annotations


class LineBuffer:
    """
    Collects a stream and hands out its lines.

    @param limit: Bytes of an unfinished line that are kept at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = bytearray()

    def feed(self, data: bytes) -> str:
        """
        Take a chunk.

        @return: The lines that are whole now, with their ends; nothing if none is.
        """
        end = data.rfind(b"\n") + 1
        if not end:
            self._waiting += data
            return self.finish() if len(self._waiting) > self._limit else ""
        whole = bytes(self._waiting) + data[:end]
        self._waiting = bytearray(data[end:])
        return _decode(whole)

    def finish(self) -> str:
        """
        Take the end of the stream.

        @return: What was unfinished, as a line; nothing if nothing was.
        """
        rest, self._waiting = bytes(self._waiting), bytearray()
        return _decode(rest) + "\n" if rest else ""


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
