"""
Reading capture files, frame by frame.
"""

from __future__ import annotations

import struct
from io import BytesIO

from dpkt import pcap, pcapng
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.captures import (
    MAX_BLOCK,
    MAX_FRAME,
    MAX_INTERFACES,
    ByteSource,
    Capture,
    CaptureError,
    Frame,
)
from tests.decode.traffic import START, Pipe, capture, capture_ng

FRAMES = [b"one", b"", b"three" * 100, b"\0" * 5]


def read(data: bytes) -> tuple[list[Frame], str]:
    """
    Read a capture, and why it ended.
    """
    made = Capture(ByteSource(BytesIO(data)))
    return list(made.frames()), made.problem


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """
    Write a block of pcapng.
    """
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order: str = "<") -> bytes:
    """
    Write the beginning of a section.
    """
    return block(
        pcapng.PCAPNG_BT_SHB,
        struct.pack(order + "IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, -1),
        order,
    )


def interface(
    link_type: int = 1, options: bytes = b"", order: str = "<", snap_length: int = 0
) -> bytes:
    """
    Describe an interface.
    """
    return block(
        pcapng.PCAPNG_BT_IDB, struct.pack(order + "HHI", link_type, 0, snap_length) + options, order
    )


def option(code: int, data: bytes, order: str = "<") -> bytes:
    """
    Write an option, and the end of options.
    """
    padded = data + bytes(-len(data) % 4)
    return struct.pack(order + "HH", code, len(data)) + padded + bytes(4)


def packet(data: bytes, number: int = 0, ticks: int = 0, order: str = "<") -> bytes:
    """
    Write an enhanced packet block.
    """
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)
    )
    return block(pcapng.PCAPNG_BT_EPB, head + data, order)


class PcapTests(SynchronousTestCase):
    """
    The format of libpcap.
    """

    def test_as_dpkt_writes_it(self) -> None:
        """
        All frames come with their times and the link type of the file.
        """
        frames, problem = read(capture(FRAMES, 113))
        self.assertEqual(problem, "")
        self.assertEqual([data for _, _, data in frames], FRAMES)
        self.assertEqual({link_type for _, link_type, _ in frames}, {113})
        times = [time - START * 10**9 for time, _, _ in frames]
        self.assertEqual([round(time / 1e6) for time in times], [0, 1, 2, 3])

    def test_variants(self) -> None:
        """
        Both byte orders, microseconds and nanoseconds, and longer frame headers are read.
        """
        for magic, fraction, extra in (
            (pcap.TCPDUMP_MAGIC, 5_000, b""),
            (pcap.TCPDUMP_MAGIC_NANO, 5_000_000, b""),
            (pcap.MODPCAP_MAGIC, 5_000, bytes(8)),
        ):
            for order in "<>":
                data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 0x1000_0001)
                for each in FRAMES:
                    head = struct.pack(order + "IIII", START, fraction, len(each), len(each))
                    data += head + extra + each
                frames, problem = read(data)
                self.assertEqual(problem, "")
                self.assertEqual(frames, [(START * 10**9 + 5_000_000, 1, each) for each in FRAMES])

    def test_cut_anywhere(self) -> None:
        """
        Of a capture that was cut every whole frame is read, and that it was cut is said.
        """
        data = capture(FRAMES)
        ends = [24]
        for each in FRAMES:
            ends.append(ends[-1] + 16 + len(each))
        for length in range(4, len(data) + 1):
            frames, problem = read(data[:length])
            whole = sum(end <= length for end in ends[1:])
            self.assertEqual([each for _, _, each in frames], FRAMES[:whole])
            self.assertEqual(problem == "", length in ends, (length, problem))
            if problem:
                self.assertIn("ends", problem)

    def test_pipe(self) -> None:
        """
        A capture that comes in any pieces is read, and each frame is there as soon as its last byte is.
        """
        data = capture(FRAMES)
        for size in (1, 7, 1000):
            made = Capture(ByteSource(Pipe(data, size)))
            self.assertEqual([each for _, _, each in made.frames()], FRAMES)
        pipe = Pipe(data, 1)
        frames = Capture(ByteSource(pipe)).frames()
        next(frames)
        self.assertEqual(pipe.read(1000), data[24 + 16 + 3 :][:1])

    def test_damaged(self) -> None:
        """
        A frame that cannot be so long ends the reading.
        """
        good = capture(FRAMES[:1])
        frames, problem = read(good + struct.pack("<IIII", 0, 0, MAX_FRAME + 1, 9) + bytes(99))
        self.assertEqual(len(frames), 1)
        self.assertIn(
            f"{MAX_FRAME + 1} bytes: the capture is damaged, and what follows cannot be read"
            f" (at byte {len(good)})",
            problem,
        )
        largest = bytes(MAX_FRAME)
        self.assertEqual(read(capture([largest]))[0][0][2], largest)

    def test_other_formats(self) -> None:
        """
        What is no capture is an error that tells what can be done.
        """
        for data in (b"snoop\0\0\0", b"abc", b"GET / HTTP/1.1"):
            self.assertFalse(Capture.recognizes(data))
            error = self.assertRaises(CaptureError, read, data)
            self.assertIn("; tshark -r FILE", str(error))

    def test_unreadable(self) -> None:
        """
        A file that cannot be read is an error of our own.
        """

        class Broken:
            def read(self, size: int, /) -> bytes:
                raise OSError(5, "Input/output error")

        error = self.assertRaises(CaptureError, ByteSource(Broken()).peek, 4)
        self.assertEqual(str(error), "it cannot be read: Input/output error")


class PcapngTests(SynchronousTestCase):
    """
    The newer format.
    """

    def test_as_dpkt_writes_it(self) -> None:
        """
        All frames come with their times and the link type of their interface.
        """
        frames, problem = read(capture_ng(FRAMES, 113))
        self.assertEqual(problem, "")
        self.assertEqual([data for _, _, data in frames], FRAMES)
        self.assertEqual(frames[0][:2], (START * 10**9, 113))

    def test_sections(self) -> None:
        """
        Sections differ in byte order, and each describes its interfaces anew.
        """
        data = b""
        for order, link_type in (("<", 1), (">", 101)):
            data += section(order) + interface(113, order=order)
            data += interface(link_type, order=order) + packet(b"abc", 1, 10**6, order)
        frames, problem = read(data)
        self.assertEqual(problem, "")
        self.assertEqual(frames, [(10**9, 1, b"abc"), (10**9, 101, b"abc")])

    def test_times(self) -> None:
        """
        The resolution and the offset of an interface count.
        """
        for order, sign in (("<", "little"), (">", "big")):
            offset = option(pcapng.PCAPNG_OPT_IF_TSOFFSET, (100).to_bytes(8, sign), order)[:-4]
            for exponent, ticks in ((9, 5 * 10**9), (0x8A, 5 * 1024), (0, 5), (6, 5 * 10**6)):
                options = offset + option(pcapng.PCAPNG_OPT_IF_TSRESOL, bytes((exponent,)), order)
                data = section(order) + interface(options=options, order=order)
                frames, problem = read(data + packet(b"x", 0, ticks, order))
                self.assertEqual((frames, problem), ([(105 * 10**9, 1, b"x")], ""))

    def test_other_blocks(self) -> None:
        """
        Old and simple packet blocks are read too, and blocks of other kinds are passed over.
        """
        old = struct.pack("<HHIIII", 0, 7, 0, 10**6, 3, 3) + b"old"
        simple = struct.pack("<I", 9) + b"simple"
        data = (
            section()
            + interface(snap_length=6)
            + block(pcapng.PCAPNG_BT_PB, old)
            + block(0x0BAD, b"whatever")
            + block(pcapng.PCAPNG_BT_SPB, simple)
        )
        frames, problem = read(data)
        self.assertEqual(problem, "")
        self.assertEqual(frames, [(10**9, 1, b"old"), (0, 1, b"simple")])

    def test_cut_anywhere(self) -> None:
        """
        Of a capture that was cut every whole frame is read, and that it was cut is said.
        """
        parts = [section(), interface(), packet(b"abcd"), packet(b"efgh")]
        data = b"".join(parts)
        ends = [sum(map(len, parts[:count])) for count in range(1, 5)]
        for length in range(4, len(data) + 1):
            frames, problem = read(data[:length])
            self.assertEqual(len(frames), sum(end <= length for end in ends[2:]))
            self.assertEqual(problem == "", length in ends, (length, problem))

    def test_damaged(self) -> None:
        """
        Whatever makes no sense ends the reading, with what stands before it read and the reason told.
        """
        good = section() + interface() + packet(b"abcd")
        bad_comment = interface(options=option(1, b"\xff\xfe\xfd\xfc"))
        unequal = packet(b"abcd")[:-4] + b"\0\0\0\0"
        for damage, reason in (
            (packet(b"efgh", number=1), "a frame is of interface 1, which is not described"),
            (struct.pack("<III", 6, 13, 0), "claims to have 13 bytes"),
            (struct.pack("<III", 6, MAX_BLOCK + 4, 0), f"claims to have {MAX_BLOCK + 4} bytes"),
            (unequal, "does not end as it began"),
            (section()[:8] + bytes(20), "has no byte order"),
            (bad_comment, "described in a way that makes no sense"),
            (block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "99 bytes does not fit its block"),
            (interface() * MAX_INTERFACES, f"more than {MAX_INTERFACES} interfaces"),
        ):
            frames, problem = read(good + damage)
            self.assertEqual([data for _, _, data in frames], [b"abcd"])
            self.assertIn(reason, problem)
            self.assertIn("(at byte ", problem)

    def test_dropped(self) -> None:
        """
        What whoever captured counted as lost is told: the last count of each interface, in every section.
        """
        for order in "<>":

            def counted(
                number: int, *options: tuple[int, int | bytes], order: str = order
            ) -> bytes:
                text = b""
                for code, value in options:
                    data = value if isinstance(value, bytes) else struct.pack(order + "Q", value)
                    text += option(code, data, order)[:-4]
                return block(5, struct.pack(order + "III", number, 0, 0) + text, order)

            begin = section(order) + interface(order=order) + interface(order=order)
            data = (
                begin
                + counted(0, (4, 99), (5, 3))
                + packet(b"abcd", order=order)
                + counted(0, (1, b"so far"), (5, 10), (7, 2), (0, b""), (5, 99))
                + counted(1, (7, 30), (5, 2**64 - 1))
                + counted(2, (5, 99))
                + begin
                + counted(1, (5, b"four"), (5, 500))
                + counted(0, (5, 8))[:-16]
                + struct.pack(order + "II", 0, 0)
            )
            made = Capture(ByteSource(BytesIO(data)))
            self.assertEqual([frame for _, _, frame in made.frames()], [b"abcd"])
            self.assertEqual(made.dropped, 542)

    def test_short_blocks(self) -> None:
        """
        Blocks that are too short for what they are, are passed over.
        """
        for kind in (pcapng.PCAPNG_BT_EPB, pcapng.PCAPNG_BT_PB, pcapng.PCAPNG_BT_SPB):
            data = section() + interface() + block(kind, b"") + packet(b"abcd")
            self.assertEqual(len(read(data)[0]), 1)


class GarbageTests(SynchronousTestCase):
    """
    Captures that are none.
    """

    @given(
        st.sampled_from([capture(FRAMES), capture_ng(FRAMES)]),
        st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=4),
        st.binary(max_size=64),
    )
    def test_changed(self, data: bytes, changes: list[tuple[int, int]], tail: bytes) -> None:
        """
        Whatever is changed in a capture, it is read to some end, and nothing is raised but our own error.
        """
        changed = bytearray(data)
        for place, value in changes:
            changed[place % len(changed)] = value
        try:
            frames, _ = read(bytes(changed) + tail)
        except CaptureError:
            return
        self.assertLessEqual(sum(len(each) for _, _, each in frames), len(changed) + len(tail))
