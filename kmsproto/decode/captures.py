"""
Capture files, cut into frames: pcap and pcapng, in either byte order, with any resolution of time.

The file is read from its beginning to its end and never twice, in pieces as large as there happen to be, so that a
pipe from a running capture is as good as a file.  What is read is bounded: a frame or block that claims to be larger
than any real one ends the reading, for behind it nothing can be found.  Such an end, and that of a capture which was
cut in the middle, is no error: everything before it counts, and L{Capture.problem} says what happened.

The magic numbers and the rarely read headers are those of dpkt.  Frames and blocks, of which there are many, are read
here, because an object for each would cost more than all that is done with it.

Sources: the Internet-Drafts "PCAP Capture File Format" and "PCAP Now Generic Capture File Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from struct import Struct
from typing import Literal, NamedTuple, Protocol

from dpkt import dpkt, pcap, pcapng

from kmsproto.errors import KMSProtoError

#: Bytes that a frame has at most (libpcap's own limit), and a block of pcapng.
MAX_FRAME, MAX_BLOCK = 262_144, 16 * 1024 * 1024
#: The block of pcapng in which whoever captured counts, and its options for frames that were lost: for want of room,
#: and in the system.
_STATISTICS = 5
_DROPPED = frozenset({5, 7})
#: What such an option is if nobody knows.
_UNKNOWN = 2**64 - 1
#: Interfaces that a section of pcapng has at most.
MAX_INTERFACES = 4096
#: Bytes that are asked for at once.
_PIECE = 262_144
_NANOSECONDS = 1_000_000_000

#: A frame: nanoseconds since 1970 (0 if that is not known), the link type, and its bytes.
Frame = tuple[int, int, bytes]


class CaptureError(KMSProtoError):
    """
    What there is to read cannot be read, or is nothing of which anything is known.
    """


class _Variant(NamedTuple):
    """
    One of the variants of pcap.

    @ivar order: The byte order, as for L{struct}.
    @ivar scale: Nanoseconds in the smaller unit of its times.
    @ivar header_length: Bytes before each frame.
    """

    order: str
    scale: int
    header_length: int


#: The variants of pcap by their first four bytes.
_VARIANTS = {
    magic.to_bytes(4, "big"): variant
    for magic, variant in (
        (pcap.TCPDUMP_MAGIC, _Variant(">", 1000, 16)),
        (pcap.PMUDPCT_MAGIC, _Variant("<", 1000, 16)),
        (pcap.TCPDUMP_MAGIC_NANO, _Variant(">", 1, 16)),
        (pcap.PMUDPCT_MAGIC_NANO, _Variant("<", 1, 16)),
        (pcap.MODPCAP_MAGIC, _Variant(">", 1000, 24)),
        (pcap.PACPDOM_MAGIC, _Variant("<", 1000, 24)),
    )
}
_FILE_HEADER_LENGTH = 24
_SECTION = pcapng.PCAPNG_BT_SHB.to_bytes(4, "big")
_BYTE_ORDERS = {
    pcapng.BYTE_ORDER_MAGIC.to_bytes(4, "big"): ">",
    pcapng.BYTE_ORDER_MAGIC_LE.to_bytes(4, "big"): "<",
}


class Readable(Protocol):
    """
    What can be read: a binary file, or what behaves like one.
    """

    def read(self, size: int, /) -> bytes:
        """
        Read so many bytes; fewer if there are no more, or no more yet.
        """


class ByteSource:
    """
    A stream of bytes that is read once, from the beginning to the end.

    @param file: It is never asked where it is, nor to be somewhere else.
    @ivar buffer: What was read and not used yet begins at L{offset} in it.
    @ivar offset: Whoever uses bytes of the buffer moves it.
    """

    def __init__(self, file: Readable) -> None:
        # What is there already is wanted at once, not when as much has come as was asked for.
        self._read = getattr(file, "read1", file.read)
        self._base = 0
        self.buffer = b""
        self.offset = 0

    @property
    def position(self) -> int:
        """
        Bytes that were used.
        """
        return self._base + self.offset

    def ensure(self, length: int) -> bool:
        """
        Read until so many bytes are there.

        @return: Whether they are; if not, the stream has ended.
        @raise CaptureError: If it cannot be read.
        """
        while len(self.buffer) - self.offset < length:
            try:
                more = self._read(_PIECE)
            except OSError as error:
                raise CaptureError(f"it cannot be read: {error.strerror or error}") from error
            if not more:
                return False
            self.buffer = self.buffer[self.offset :] + more
            self._base += self.offset
            self.offset = 0
        return True

    def peek(self, length: int) -> bytes:
        """
        Look at the next bytes; there are fewer only at the end.
        """
        self.ensure(length)
        return self.buffer[self.offset : self.offset + length]

    def take(self, length: int) -> bytes:
        """
        Use the next bytes; there are fewer only at the end.
        """
        data = self.peek(length)
        self.offset += len(data)
        return data


class Capture:
    """
    A capture, whatever its format.

    @param source: What it is read from.
    @ivar problem: Why there are no more frames, if the reason is not simply its end.
    @ivar is_cut: Whether that is only because it ends in the middle of something.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.problem = ""
        self.is_cut = False
        self._sections_dropped = 0
        self._section: _Section | None = None

    @property
    def dropped(self) -> int:
        """
        How many frames are not in it because whoever captured was too slow, as far as that was noted down.
        """
        return self._sections_dropped + (self._section.dropped if self._section else 0)

    @staticmethod
    def recognizes(start: bytes) -> bool:
        """
        Tell whether something that begins so is a capture.

        @param start: At least its first four bytes.
        """
        return start[:4] in _VARIANTS or start[:4] == _SECTION

    def frames(self) -> Iterator[Frame]:
        """
        Read the frames, one after the other.

        @raise CaptureError: If it is no capture, or cannot be read.
        """
        start = self._source.peek(4)
        if start == _SECTION:
            return self._read_blocks()
        if start not in _VARIANTS:
            raise CaptureError(
                "this is neither pcap nor pcapng; tshark -r FILE -w NEW.pcapng converts other formats"
            )
        return self._read_frames(_VARIANTS[start])

    def _stop(self, problem: str) -> None:
        self.problem = (
            f"{problem}, and what follows cannot be read (at byte {self._source.position})"
        )

    def _cut(self, where: str) -> None:
        """
        Take note that it ends where it cannot.
        """
        start = self._source.position
        left = len(self._source.buffer) - self._source.offset
        self.problem = f"the capture ends {where}: its last {left} bytes are lost (at byte {start})"
        self.is_cut = True

    def _read_frames(self, variant: _Variant) -> Iterator[Frame]:
        """
        Read the frames of pcap.
        """
        source = self._source
        head = source.take(_FILE_HEADER_LENGTH)
        if len(head) < _FILE_HEADER_LENGTH:
            self.problem = f"the capture ends within its header, after {len(head)} bytes"
            self.is_cut = True
            return
        header = (pcap.LEFileHdr if variant.order == "<" else pcap.FileHdr)(head)
        # What stands above the lower half tells about checksums at the end of frames.
        link_type = header.linktype & 0xFFFF
        unpack = Struct(variant.order + "III").unpack_from
        scale, length = variant.scale, variant.header_length
        needed = length
        while source.ensure(needed):
            buffer, offset = source.buffer, source.offset
            end = len(buffer)
            while offset + length <= end:
                seconds, fraction, size = unpack(buffer, offset)
                if size > MAX_FRAME:
                    self._stop(f"a frame claims to have {size} bytes: the capture is damaged")
                    return
                stop = offset + length + size
                if stop > end:
                    break
                source.offset = stop
                yield (
                    seconds * _NANOSECONDS + fraction * scale,
                    link_type,
                    buffer[stop - size : stop],
                )
                offset = stop
                needed = length
            if offset + length <= end:
                needed = length + size
        if source.peek(1):
            self._cut("in the middle of a frame")

    def _read_blocks(self) -> Iterator[Frame]:
        """
        Read the frames of pcapng.
        """
        source = self._source
        section = _Section("<")
        while source.peek(1):
            head = source.peek(12)
            if head[:4] == _SECTION:
                order = _BYTE_ORDERS.get(head[8:12], "")
                if len(head) < 12:
                    break
                if not order:
                    self._stop("a section has no byte order: the capture is damaged")
                    return
                self._sections_dropped = self.dropped
                section = self._section = _Section(order)
            if len(head) < 12:
                break
            kind, length = section.head.unpack_from(head)
            if length < 12 or length % 4 or length > MAX_BLOCK:
                self._stop(f"a block claims to have {length} bytes: the capture is damaged")
                return
            if not source.ensure(length):
                break
            block = source.take(length)
            if block[-4:] != block[4:8]:
                self._stop("a block does not end as it began: the capture is damaged")
                return
            try:
                frame = section.read(kind, block)
            except _DamageError as error:
                self._stop(f"{error}: the capture is damaged")
                return
            if frame is not None:
                yield frame
        if source.peek(1):
            self._cut("in the middle of a block")


class _DamageError(KMSProtoError):
    """
    A block of pcapng makes no sense.
    """


class _Interface(NamedTuple):
    """
    Where frames of pcapng came from.

    @ivar link_type: Its link type.
    @ivar divisor: Units of its times in a second.
    @ivar offset: Seconds to add to its times.
    @ivar snap_length: Bytes that are captured of a frame at most; 0 for all.
    """

    link_type: int
    divisor: int
    offset: int
    snap_length: int


class _Section:
    """
    A section of pcapng.
    """

    def __init__(self, order: str) -> None:
        self.head = Struct(order + "II")
        self._order = order
        self._enhanced = Struct(order + "IIIII")
        self._old = Struct(order + "HHIIII")
        self._number = Struct(order + "I")
        self._option = Struct(order + "HH")
        self._interfaces: list[_Interface] = []
        #: Frames that were lost, by the interface.
        self._lost: dict[int, int] = {}

    @property
    def dropped(self) -> int:
        """
        How many frames were lost at all interfaces.
        """
        return sum(self._lost.values())

    def read(self, kind: int, block: bytes) -> Frame | None:
        """
        Read a block.

        @return: The frame in it, if it has one.
        @raise _DamageError: If it makes no sense.
        """
        if kind == pcapng.PCAPNG_BT_EPB and len(block) >= 32:
            number, high, low, size, _ = self._enhanced.unpack_from(block, 8)
            return self._frame(block, 28, size, number, high << 32 | low)
        if kind == pcapng.PCAPNG_BT_IDB and len(block) >= 20:
            self._add_interface(block)
        elif kind == pcapng.PCAPNG_BT_PB and len(block) >= 32:
            number, _, high, low, size, _ = self._old.unpack_from(block, 8)
            return self._frame(block, 28, size, number, high << 32 | low)
        elif kind == pcapng.PCAPNG_BT_SPB and len(block) >= 16:
            (size,) = self._number.unpack_from(block, 8)
            snap_length = self._interfaces[0].snap_length if self._interfaces else 0
            size = min(size, len(block) - 16, snap_length or size)
            return self._frame(block, 12, size, 0, None)
        elif kind == _STATISTICS and len(block) >= 24:
            self._count_lost(block)
        return None

    def _count_lost(self, block: bytes) -> None:
        """
        Take note of how many frames were lost so far.  Options that make no sense are no matter.
        """
        (number,) = self._number.unpack_from(block, 8)
        lost, at, end = 0, 20, len(block) - 4
        while at + 4 <= end:
            code, length = self._option.unpack_from(block, at)
            if not code:
                break
            if code in _DROPPED and length == 8 and at + 12 <= end:
                order: Literal["little", "big"] = "little" if self._order == "<" else "big"
                value = int.from_bytes(block[at + 4 : at + 12], order)
                lost += value if value != _UNKNOWN else 0
            at += 4 + length + -length % 4
        if number < len(self._interfaces):
            self._lost[number] = lost

    def _frame(self, block: bytes, start: int, size: int, number: int, ticks: int | None) -> Frame:
        if number >= len(self._interfaces):
            raise _DamageError(f"a frame is of interface {number}, which is not described")
        if start + size + 4 > len(block):
            raise _DamageError(f"a frame of {size} bytes does not fit its block")
        interface = self._interfaces[number]
        time = 0
        if ticks is not None:
            time = ticks * _NANOSECONDS // interface.divisor + interface.offset * _NANOSECONDS
        return time, interface.link_type, block[start : start + size]

    def _add_interface(self, block: bytes) -> None:
        if len(self._interfaces) >= MAX_INTERFACES:
            raise _DamageError(f"there are more than {MAX_INTERFACES} interfaces")
        little = self._order == "<"
        kind = pcapng.InterfaceDescriptionBlockLE if little else pcapng.InterfaceDescriptionBlock
        try:
            description = kind(block)
        # dpkt decodes comments, and does not expect lengths that are wrong.
        except (dpkt.Error, ValueError, struct.error) as error:
            raise _DamageError("an interface is described in a way that makes no sense") from error
        divisor, offset = 1_000_000, 0
        for option in description.opts:
            if option.code == pcapng.PCAPNG_OPT_IF_TSRESOL and len(option.data) == 1:
                exponent = option.data[0]
                divisor = 2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent
            elif option.code == pcapng.PCAPNG_OPT_IF_TSOFFSET and len(option.data) == 8:
                offset = int.from_bytes(option.data, "little" if little else "big", signed=True)
        self._interfaces.append(
            _Interface(description.linktype, divisor, offset, description.snaplen)
        )
