"""
Cuts a byte stream into PDUs.

The stream knows one rule: a PDU is what its own frag_length says, whatever the segments were in which its bytes
arrived.  Bytes of the next PDU are kept.  A header is handed out as soon as its 16 bytes are there, so that the owner
can refuse a PDU that it would not want to wait for.  Memory is bounded by the largest frag_length, 65,535 bytes, plus
what one segment brings, as long as the owner takes PDUs out when they are whole.
"""

from __future__ import annotations

from kmsproto.rpc.pdu import HEADER_LENGTH, Header, decode_header


class PDUStream:
    """
    The bytes of one direction of a connection that have not been used yet.
    """

    __slots__ = ("_header", "unused")

    def __init__(self) -> None:
        #: The bytes that have not been used; for looking at only.
        self.unused = bytearray()
        self._header: Header | None = None

    def feed(self, data: bytes) -> None:
        """
        Add a segment.
        """
        self.unused += data

    def peek(self, length: int) -> bytes:
        """
        Look at the next bytes, at most C{length} of them, without using them.
        """
        return bytes(self.unused[:length])

    def header(self) -> Header | None:
        """
        Look at the header of the next PDU.

        @return: The header, or L{None} while it is incomplete.
        """
        if self._header is None and len(self.unused) >= HEADER_LENGTH:
            self._header = decode_header(self.unused)
        return self._header

    def take(self, header: Header) -> bytes | None:
        """
        Use up the next PDU.

        @param header: The PDU's header, as L{header} gave it; its frag_length is at least 16.
        @return: The whole PDU, or L{None} while it is incomplete.
        """
        length = header.frag_length
        if len(self.unused) < length:
            return None
        data = bytes(self.unused[:length])
        del self.unused[:length]
        self._header = None
        return data

    def clear(self) -> None:
        """
        Forget everything: no PDU is wanted any more.
        """
        self.unused.clear()
        self._header = None
