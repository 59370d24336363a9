"""
Dumps: PDUs or messages as raw bytes, or written in hexadecimal by one of the usual programs.

A hexadecimal dump is read line by line, whoever made it: C{xxd}, C{hexdump -C}, C{od -A x -t x1}, Wireshark and
tshark, C{tcpdump -xx}, or a hand that wrote digits and nothing else.  What is an offset, what is bytes and what is the
same once more as text shows in the line itself.  An offset that begins at zero again begins another piece; lines that
are indented, as those of the second side in a stream that Wireshark follows, are pieces of their own.

What the bytes are shows in how they begin: PDUs of DCE/RPC, a message of KMS without anything around it, or a frame
from a network.

Dumps are read whole, so their size is bounded.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from kmsproto.decode.activation import is_response
from kmsproto.decode.captures import ByteSource, CaptureError
from kmsproto.decode.dissection import may_be_header
from kmsproto.decode.notations import (
    has_mark,
    read_arrays,
    read_base64,
    read_literals,
    read_text,
)
from kmsproto.kms.envelopes import REQUEST_LENGTHS, VERSION_LENGTH, open_request
from kmsproto.kms.messages import PROTOCOL_VERSIONS, MalformedMessageError
from kmsproto.rpc.pdu import HEADER_LENGTH

#: Bytes that a dump has at most, as a file and as what is written in it.
MAX_DUMP = 16 * 1024 * 1024
#: Bytes at the beginning of a file that are looked at to tell whether it is text.
_SAMPLE = 4096
_TEXT = frozenset(b"\t\n\f\r" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)))
#: How much of a text that is not UTF-8 is ASCII at least: the column of characters has some of an older code.
_ASCII_SHARE = 0.75

#: Bytes in a line of a dump that has text behind two blanks.
_MAX_BEFORE_TEXT = 16
#: What Format-Hex of PowerShell writes above its columns; nothing that is decoded begins so.
_RULER = bytes(range(16))

#: What tcpdump puts before an offset is no digit of it.
_OFFSET = re.compile(r"(?:0x(?=[0-9a-f]+:))?([0-9A-Fa-f]{4,16})(:|[ \t]|$)")
#: A run of bytes: pairs of digits in groups, with one blank between groups, or two in the middle of a line.
_BYTES = re.compile(r"[ \t]*((?:(?:[0-9A-Fa-f]{2})+(?:[ \t]{1,2}|$))+)")
_PREFIXED = re.compile(r"0[xX][0-9A-Fa-f]{2}(?:[ \t]+0[xX][0-9A-Fa-f]{2})*")
#: Possessive, for a line may have millions of bytes, and all of them would be remembered as places to go back to.
#: Not in the call: the documentation tool takes patterns there apart, and knows no possessive ones.
_PLAIN_LINE = r"(?:0[xX])?[0-9A-Fa-f]{2}(?:[ \t,;:-]*+(?:0[xX])?[0-9A-Fa-f]{2})*+[ \t,;]*"
_PLAIN = re.compile(_PLAIN_LINE)
_NOT_DIGITS = re.compile(r"0[xX]|[^0-9A-Fa-f]")


@dataclass(slots=True)
class Piece:
    """
    Bytes that belong together.

    @ivar data: The bytes.
    @ivar indented: Whether their lines are indented, as those of the second side of a conversation are.
    """

    data: bytearray = field(default_factory=bytearray)
    indented: bool = False


def looks_like_text(start: bytes) -> bool:
    """
    Tell whether something that begins so may be a hexadecimal dump.
    """
    if has_mark(start):
        return True
    sample = start[:_SAMPLE]
    if not sample or not _TEXT.issuperset(sample):
        return False
    try:
        # Its last character may be cut.  tshark writes dots and arrows that are not ASCII around its dumps.
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return sum(byte < 0x80 for byte in sample) >= _ASCII_SHARE * len(sample)
    return True


def read_all(source: ByteSource) -> bytes:
    """
    Read a dump.

    @raise CaptureError: If it is too large, or cannot be read.
    """
    if source.ensure(MAX_DUMP + 1):
        raise CaptureError(
            f"this is no capture, and a dump has at most {MAX_DUMP // 1024 // 1024} MiB;"
            " cut out the part that matters"
        )
    return source.take(MAX_DUMP)


def parse_hexadecimal(text: bytes) -> list[Piece]:
    """
    Read a hexadecimal dump.

    @return: Its pieces, in the order in which they begin.
    @raise CaptureError: If there is none in it, or too much.
    """
    whole = read_text(text)
    literals = read_literals(whole)
    if literals is not None:
        return [Piece(bytearray(literals))]
    arrays = read_arrays(whole)
    if arrays:
        return [Piece(bytearray(array)) for array in arrays]
    lines = whole.splitlines()
    pieces = _parse(lines, offsets=True)
    for base in (8, 10) if len(pieces) > 1 else ():
        # What fits together is read as it was written: offsets of od are octal if nothing else is said.
        others = _parse(lines, offsets=True, base=base)
        if 0 < len(others) < len(pieces):
            pieces = others
    if not any(_begins_well(piece) for piece in pieces):
        words = _read_words(pieces)
        if words:
            return words
        encoded = read_base64(whole)
        if encoded is not None and (is_message(encoded) or is_pdu(encoded)):
            return [Piece(bytearray(encoded))]
        # Digits in groups of four may look like an offset and bytes.
        plain = _parse(lines, offsets=False)
        if not pieces or any(_begins_well(piece) for piece in plain):
            pieces = plain
    if not pieces:
        raise CaptureError(
            "there are no hexadecimal bytes in it; the dumps of xxd, hexdump -C, od -A x -t x1, Wireshark and tcpdump"
            " are read, and string literals, arrays of C, and Base64"
        )
    return pieces


def _read_words(pieces: list[Piece]) -> list[Piece]:
    """
    Read a dump of little-endian words, as C{hexdump} without C{-C}, C{od -x} and C{xxd -e} write them.

    @return: Its pieces; none if nothing begins well in any size of words.
    """
    for size in (2, 4, 8):
        turned = [Piece(bytearray(), piece.indented) for piece in pieces]
        for piece, other in zip(pieces, turned, strict=True):
            for start in range(0, len(piece.data), size):
                other.data += piece.data[start : start + size][::-1]
        if any(_begins_well(piece) for piece in turned):
            return turned
    return []


def _parse(lines: list[str], *, offsets: bool, base: int = 16) -> list[Piece]:
    parser = _Parser(offsets, base)
    for line in lines:
        parser.add(line)
    return [piece for piece in parser.pieces if piece.data]


def _begins_well(piece: Piece) -> bool:
    return is_message(piece.data) or is_pdu(piece.data)


class _Parser:
    """
    Reads lines.

    Whether lines have offsets shows in the first that has bytes.  A line with an offset goes on with the piece of its
    side if that ends there, and begins another one if not; without offsets each side is one piece.

    @param offsets: Whether lines may begin with an offset.
    @param base: The base of the numbers that offsets are.
    """

    def __init__(self, offsets: bool, base: int = 16) -> None:
        self._base = base
        self._offsets = None if offsets else False
        self.pieces: list[Piece] = []
        self._current: dict[bool, Piece] = {}
        self._starts: dict[bool, int] = {}
        self._last = b""
        self._repeat = False
        self._size = 0

    def add(self, line: str) -> None:
        """
        Read a line.
        """
        stripped = line.strip()
        if stripped == "*":
            self._repeat = True
            return
        indented = line.startswith(("    ", "\t"))
        found = None if self._offsets is False else _OFFSET.match(stripped)
        if found is not None:
            data = _line_bytes(stripped[found.end(1) :])
            # Without bytes it may be the end of a dump, but not its beginning.
            if data or (data is not None and self._offsets):
                self._offsets = True
                try:
                    offset = int(found[1], self._base)
                except ValueError:
                    # It has other digits than this base.
                    return
                self._place(offset, data, indented)
                return
        if not self._offsets and _PLAIN.fullmatch(stripped):
            data = _pairs(stripped)
            if data == _RULER and not self.pieces:
                return
            self._offsets = False
            self._append(self._piece(indented), data)

    def _place(self, offset: int, data: bytes, indented: bool) -> None:
        """
        Add the bytes of a line that has an offset.
        """
        piece = self._piece(indented)
        end = self._starts.get(indented, 0) + len(piece.data)
        if self._repeat and self._last and offset > end:
            missing = offset - end
            if missing > MAX_DUMP:
                raise _too_large()
            self._append(piece, (self._last * (missing // len(self._last) + 1))[:missing])
            end = offset
        self._repeat = False
        if offset != end:
            if not data:
                # The last line of a dump names its end.
                return
            piece = self._begin(indented)
            self._starts[indented] = offset
        self._append(piece, data)
        self._last = data

    def _piece(self, indented: bool) -> Piece:
        return self._current.get(indented) or self._begin(indented)

    def _begin(self, indented: bool) -> Piece:
        piece = self._current[indented] = Piece(indented=indented)
        self.pieces.append(piece)
        return piece

    def _append(self, piece: Piece, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_DUMP:
            raise _too_large()
        piece.data += data


def _too_large() -> CaptureError:
    return CaptureError(
        f"there are more than {MAX_DUMP // 1024 // 1024} MiB in it; cut out the part that matters"
    )


def _line_bytes(rest: str) -> bytes | None:
    """
    Read the bytes of a line behind its offset.

    @return: The bytes, or L{None} if it is no such line.
    """
    by_xxd = rest.startswith(":")
    rest = rest[1:] if by_xxd else rest
    if not rest.strip():
        return b""
    if _PREFIXED.fullmatch(rest.strip()):
        # As gdb examines memory.
        return _pairs(rest)
    # The same as text: between bars, behind an angle, behind two or three blanks.
    for mark in ("  |", " |", "  >"):
        before, found, _ = rest.partition(mark)
        if found and _BYTES.fullmatch(before + " "):
            return _pairs(before)
    before = re.split(r"[ \t]{2}" if by_xxd else r"[ \t]{3}", rest.lstrip(), maxsplit=1)[0]
    found_bytes = _BYTES.match(before)
    if found_bytes is None:
        return None
    data = _pairs(found_bytes[1])
    tail = before[found_bytes.end() :]
    if not tail or by_xxd:
        return data
    # The text stands behind two blanks, so that its beginning may look like bytes; what is left of the line is no
    # longer than what was read, but for a blank in the middle.
    data = data[:_MAX_BEFORE_TEXT]
    return data if len(tail) <= len(data) + 1 else None


def _pairs(text: str) -> bytes:
    return bytes.fromhex(_NOT_DIGITS.sub("", text))


def is_message(data: bytes | bytearray) -> bool:
    """
    Tell whether some bytes begin like a message of KMS without anything around it.
    """
    return (
        len(data) >= VERSION_LENGTH
        and data[:2] == b"\0\0"
        and int.from_bytes(data[2:4], "little") in PROTOCOL_VERSIONS
    )


def is_pdu(data: bytes | bytearray) -> bool:
    """
    Tell whether some bytes begin like a PDU.
    """
    return len(data) >= HEADER_LENGTH and may_be_header(data)


def split_messages(data: bytes) -> tuple[bytes | None, bytes | None]:
    """
    Tell whether a message is a request or an answer, or both one behind the other.

    @return: The request and the answer.
    """
    length = REQUEST_LENGTHS[int.from_bytes(data[2:4], "little")]
    try:
        open_request(data[:length])
    except MalformedMessageError:
        return (None, data) if is_response(data) else (data, None)
    return data[:length], data[length:] or None
