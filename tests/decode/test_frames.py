"""
From frames of every kind to the TCP segments in them.
"""

from __future__ import annotations

import struct

from dpkt import ip
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.frames import (
    MAX_DATAGRAMS,
    MAX_FRAGMENTS,
    Fragments,
    FrameReader,
    Segment,
    endpoints,
    reverse,
)
from tests.decode.traffic import ACK, PUSH, SYN, Connection, on_ethernet

DATA = bytes(range(200))
_COOKED, _COOKED_2, _NULL, _PPP = 113, 276, 0, 9


def connection(version: int = 4) -> Connection:
    """
    Make a connection over IPv4 or IPv6.
    """
    if version == 4:
        return Connection()
    return Connection(client=("2001:db8::1", 50000), host=("2001:db8::9", 1688))


def packet(version: int = 4, data: bytes = DATA) -> bytes:
    """
    Make an IP packet with a segment.
    """
    made = connection(version)
    return bytes(made.packet(made.segment("client", PUSH | ACK, data)))


def only(link_type: int, frame: bytes) -> Segment:
    """
    Read the segment that is in a frame.
    """
    segment = FrameReader().read(link_type, frame)
    assert segment is not None
    return segment


class LinkTests(SynchronousTestCase):
    """
    What may stand before an IP packet.
    """

    def assertRead(self, link_type: int, head: bytes, version: int = 4) -> None:
        """
        A frame with this before the packet has the segment in it.
        """
        segment = only(link_type, head + packet(version))
        self.assertEqual(segment.data, DATA)
        self.assertEqual((segment.sequence, segment.acknowledgement), (1000, 2000))
        self.assertEqual(segment.missing, 0)
        address = "192.0.2.{}" if version == 4 else "2001:db8::{}"
        self.assertEqual(
            endpoints(segment.flow), ((address.format(1), 50000), (address.format(9), 1688))
        )
        self.assertEqual(
            endpoints(reverse(segment.flow)),
            ((address.format(9), 1688), (address.format(1), 50000)),
        )
        # Whatever is cut off, it is no segment or one with less data, and nothing is raised.
        frame = head + packet(version)
        for length in range(len(frame)):
            reader = FrameReader()
            cut = reader.read(link_type, frame[:length])
            if cut is None:
                self.assertEqual(sum(reader.noise.values()), 1)
            else:
                self.assertTrue(DATA.startswith(cut.data))
                self.assertEqual(len(cut.data) + cut.missing, len(DATA))

    def test_ethernet(self) -> None:
        """
        Ethernet, alone, with one tag or several, with MPLS labels, PPPoE, or LLC and SNAP.
        """
        addresses = bytes(12)
        for version, kind, ppp in ((4, b"\x08\0", b"\0\x21"), (6, b"\x86\xdd", b"\0\x57")):
            for between in (
                kind,
                b"\x81\0\0\7" + kind,
                b"\x88\xa8\0\7\x81\0\0\x08" + kind,
                b"\x91\0\0\7" * 3 + kind,
                b"\x88\x47" + b"\0\0\x10\x40" + b"\0\0\x21\x40",
                b"\x81\0\0\7\x88\x48" + b"\0\0\x11\x40",
                b"\x88\x64\x11\0\0\1\0\0" + ppp,
                b"\0\xff\xaa\xaa\x03\0\0\0" + kind,
            ):
                self.assertRead(1, addresses + between, version)

    def test_cooked(self) -> None:
        """
        The cooked captures of Linux, old and new, also with a tag.
        """
        for version, kind in ((4, b"\x08\0"), (6, b"\x86\xdd")):
            self.assertRead(_COOKED, bytes(14) + kind, version)
            self.assertRead(_COOKED, bytes(14) + b"\x81\0\0\7" + kind, version)
            self.assertRead(_COOKED_2, kind + bytes(18), version)

    def test_loopback(self) -> None:
        """
        Loopback, in whatever byte order its family is.
        """
        for version, families in ((4, (2,)), (6, (10, 24, 28, 30))):
            for family in families:
                for order in "<>":
                    self.assertRead(_NULL, struct.pack(order + "I", family), version)
                    self.assertRead(108, struct.pack(order + "I", family), version)

    def test_raw(self) -> None:
        """
        IP without anything before it, and PPP.
        """
        for link_type in (12, 14, 101):
            self.assertRead(link_type, b"")
            self.assertRead(link_type, b"", 6)
        self.assertRead(228, b"")
        self.assertRead(229, b"", 6)
        self.assertRead(_PPP, b"\xff\x03\0\x21")
        self.assertRead(_PPP, b"\0\x57", 6)

    def test_noise(self) -> None:
        """
        All else is counted by what it is.
        """
        reader = FrameReader()
        udp = bytearray(packet())
        udp[9] = ip.IP_PROTO_UDP
        udp6 = bytearray(packet(6))
        udp6[6] = ip.IP_PROTO_UDP
        for frame in (
            bytes(12) + b"\x08\x06" + bytes(28),  # ARP
            bytes(12) + b"\0\x20" + bytes(32),  # 802.3 without SNAP
            bytes(12) + b"\x81\0\0\7" * 17 + b"\x08\0" + packet(),
            bytes(12) + b"\x08\0" + packet(6),
            bytes(12) + b"\x86\xdd" + packet(),
            on_ethernet(b"\x44" + packet()[1:]),  # a header of 16 bytes
            on_ethernet(bytes(udp)),
            on_ethernet(bytes(udp6)),
            b"",
        ):
            self.assertIsNone(reader.read(1, frame))
        self.assertIsNone(reader.read(147, b"whatever"))
        self.assertEqual(
            reader.noise, {"not IP": 6, "not TCP": 2, "cut short": 1, "link type 147": 1}
        )
        self.assertEqual(reader.frames, 10)
        self.assertEqual(reader.segments, 0)

    def test_link_types_are_bounded(self) -> None:
        """
        However many link types there are that nobody knows, few of them are counted apart.
        """
        reader = FrameReader()
        for link_type in range(1000, 3000):
            reader.read(link_type, b"")
        self.assertLessEqual(len(reader.noise), 101)
        self.assertEqual(sum(reader.noise.values()), 2000)


class SegmentTests(SynchronousTestCase):
    """
    What counts in a segment.
    """

    def test_only_what_matters(self) -> None:
        """
        A segment without data that neither opens nor closes anything is passed over.
        """
        made = connection()
        reader = FrameReader()
        read = [reader.read(1, frame) for frame in made.frames([*made.opening(), *made.closing()])]
        self.assertEqual([segment is not None for segment in read], [1, 1, 0, 1, 1, 0])
        self.assertEqual(reader.segments, 6)
        first = read[0]
        assert first is not None
        self.assertEqual((first.flags, first.sequence, first.data), (SYN, 1000, b""))

    def test_padding(self) -> None:
        """
        What fills a frame up is no data.
        """
        self.assertEqual(only(1, on_ethernet(packet(4, b"x")) + bytes(18)).data, b"x")
        self.assertEqual(only(1, on_ethernet(packet(6, b"x")) + bytes(18)).data, b"x")

    def test_no_length(self) -> None:
        """
        A packet that the network card was to cut has no length, and goes to the end of the frame.
        """
        no_length = packet()[:2] + b"\0\0" + packet()[4:]
        self.assertEqual(only(101, no_length).data, DATA)
        jumbo = packet(6)[:4] + b"\0\0" + packet(6)[6:]
        self.assertEqual(only(101, jumbo).data, DATA)

    def test_cut_short(self) -> None:
        """
        Of a segment that was not captured whole there is what was captured, and how much more there was.
        """
        reader = FrameReader()
        segment = reader.read(101, packet()[:-50])
        assert segment is not None
        self.assertEqual((segment.data, segment.missing), (DATA[:-50], 50))
        self.assertEqual((reader.partial, reader.noise), (1, {}))

    def test_wrong_offset(self) -> None:
        """
        A header that is too short, or longer than the packet, is no segment.
        """
        for offset in (0x00, 0x40):
            wrong = bytearray(packet())
            wrong[20 + 12] = offset
            reader = FrameReader()
            self.assertIsNone(reader.read(101, bytes(wrong)))
            self.assertEqual(reader.noise, {"cut short": 1})

    def test_ports(self) -> None:
        """
        With ports only what is from or to one of them is read.
        """
        for ports, found in (({1688}, True), ({50000, 7}, True), ({1689}, False)):
            reader = FrameReader(frozenset(ports))
            self.assertEqual(reader.read(101, packet()) is not None, found)
            self.assertEqual(reader.noise, {})


class ExtensionTests(SynchronousTestCase):
    """
    Extension headers of IPv6.
    """

    def extended(self, *headers: tuple[int, bytes]) -> bytes:
        """
        Put headers before the segment of a packet.

        @param headers: Kind and bytes of each; its first byte will say what follows.
        """
        plain = packet(6)
        kinds = [kind for kind, _ in headers] + [ip.IP_PROTO_TCP]
        chain = b"".join(
            bytes((follows,)) + data[1:]
            for follows, (_, data) in zip(kinds[1:], headers, strict=True)
        )
        length = len(plain) - 40 + len(chain)
        return plain[:4] + struct.pack(">HB", length, kinds[0]) + plain[7:40] + chain + plain[40:]

    def test_headers(self) -> None:
        """
        They are stepped over, each by its own length.
        """
        for headers in (
            [(0, bytes(8))],
            [(0, b"\0\1" + bytes(14)), (43, bytes(8)), (60, b"\0\2" + bytes(22))],
            [(51, b"\0\4" + bytes(22))],
            [(44, bytes(8))],
        ):
            self.assertEqual(only(101, self.extended(*headers)).data, DATA)

    def test_unknown(self) -> None:
        """
        Behind a header that nobody knows, or too many, nothing is looked for.
        """
        for headers in ([(50, bytes(8))], [(0, bytes(8))] * 17):
            reader = FrameReader()
            self.assertIsNone(reader.read(101, self.extended(*headers)))
            self.assertEqual(reader.noise, {"not TCP": 1})


def cut_ipv4(whole: bytes, size: int) -> list[bytes]:
    """
    Cut an IPv4 packet into fragments.
    """
    head, body = whole[:20], whole[20:]
    fragments = []
    for start in range(0, len(body), size):
        part = body[start : start + size]
        more = 0x2000 if start + size < len(body) else 0
        placed = struct.pack(">H", more | start // 8)
        length = struct.pack(">H", 20 + len(part))
        fragments.append(head[:2] + length + b"\x12\x34" + placed + head[8:] + part)
    return fragments


def cut_ipv6(whole: bytes, size: int, kind: int = ip.IP_PROTO_TCP) -> list[bytes]:
    """
    Cut an IPv6 packet into fragments, whose contents begin with a header of a kind.
    """
    head, body = whole[:40], whole[40:]
    fragments = []
    for start in range(0, len(body), size):
        part = body[start : start + size]
        placed = start | (start + size < len(body))
        extension = struct.pack(">BxHI", kind, placed, 77)
        length = struct.pack(">H", 8 + len(part))
        fragments.append(head[:4] + length + bytes((44,)) + head[7:] + extension + part)
    return fragments


class FragmentTests(SynchronousTestCase):
    """
    Fragments of IP.
    """

    @given(st.data(), st.sampled_from([4, 6]), st.sampled_from([8, 16, 64, 104]))
    def test_any_order(self, draw: st.DataObject, version: int, size: int) -> None:
        """
        Fragments make a segment in whatever order they come, also when some come twice.
        """
        pieces = (cut_ipv4 if version == 4 else cut_ipv6)(packet(version), size)
        order = draw.draw(st.permutations(pieces))
        twice = draw.draw(st.lists(st.sampled_from(pieces), max_size=3))
        reader = FrameReader()
        read = [reader.read(101, piece) for piece in [*twice, *order]]
        segments = [segment for segment in read if segment is not None]
        self.assertGreaterEqual(len(segments), 1)
        self.assertEqual(segments[0].data, DATA)
        self.assertEqual(segments[0].flow, only(101, packet(version)).flow)

    def test_headers_within(self) -> None:
        """
        Headers of IPv6 may also be in what is fragmented, even if nothing but these fit the first fragment.
        """
        whole = packet(6)
        for tail, found in ((ip.IP_PROTO_TCP, DATA), (ip.IP_PROTO_UDP, None)):
            options = bytes((tail, 1)) + bytes(14)
            pieces = cut_ipv6(whole[:40] + options + whole[40:], 16, ip.IP_PROTO_DSTOPTS)
            reader = FrameReader()
            for piece in pieces[:-1]:
                self.assertIsNone(reader.read(101, piece))
            segment = reader.read(101, pieces[-1])
            self.assertEqual(segment and (segment.data, segment.flow), found and (DATA, self.flow))
            self.assertEqual(reader.noise["not TCP"], 0 if found else 1)
            self.assertEqual(reader.incomplete, 0)

    @property
    def flow(self) -> bytes:
        """
        The direction that packets over IPv6 have.
        """
        return only(101, packet(6)).flow

    def test_incomplete(self) -> None:
        """
        Fragments of which one is missing are counted.
        """
        reader = FrameReader()
        for piece in cut_ipv4(packet(), 64)[:-1]:
            self.assertIsNone(reader.read(101, piece))
        self.assertEqual(reader.incomplete, 1)
        self.assertEqual(reader.noise, {"fragments": 3})

    def test_other_protocols(self) -> None:
        """
        Fragments of something else than TCP are not kept.
        """
        reader = FrameReader()
        udp = bytearray(packet(6))
        udp[6] = ip.IP_PROTO_UDP
        for piece in cut_ipv6(bytes(udp), 64):
            changed = bytearray(piece)
            changed[40] = ip.IP_PROTO_UDP
            reader.read(101, bytes(changed))
        self.assertEqual(reader.incomplete, 0)
        self.assertEqual(reader.noise, {"not TCP": 4})

    def test_bounds(self) -> None:
        """
        Neither many datagrams nor one of many fragments or bytes are kept without end.
        """
        fragments = Fragments()
        for number in range(MAX_DATAGRAMS + 10):
            fragments.add(number.to_bytes(4, "big"), 0, True, b"x" * 8)
        self.assertEqual(len(fragments._datagrams), MAX_DATAGRAMS)
        self.assertEqual(fragments.incomplete, MAX_DATAGRAMS + 10)
        many = Fragments()
        for number in range(MAX_FRAGMENTS + 1):
            many.add(b"many", number * 16, True, b"x" * 8)
        self.assertEqual((len(many._datagrams), many.incomplete), (0, 1))
        large = Fragments()
        for number in range(3):
            large.add(b"large", number * 8, True, bytes(60_000))
        self.assertEqual((len(large._datagrams), large.incomplete), (0, 1))

    def test_overlapping(self) -> None:
        """
        Fragments that lie over each other make a datagram; a hole beside them does not.
        """
        fragments = Fragments()
        self.assertIsNone(fragments.add(b"k", 0, True, b"a" * 16))
        self.assertIsNone(fragments.add(b"k", 8, True, b"b" * 16))
        self.assertIsNone(fragments.add(b"k", 32, False, b"d" * 4))
        self.assertEqual(
            fragments.add(b"k", 24, True, b"c" * 8), b"a" * 16 + b"b" * 8 + b"c" * 8 + b"d" * 4
        )


class GarbageTests(SynchronousTestCase):
    """
    Frames that hold anything.
    """

    @given(
        st.sampled_from([0, 1, 9, 12, 101, 108, 113, 228, 229, 276]),
        st.binary(max_size=128),
        st.sampled_from([b"", bytes(12) + b"\x08\0\x45", bytes(12) + b"\x86\xdd\x60"]),
    )
    def test_anything(self, link_type: int, data: bytes, start: bytes) -> None:
        """
        Nothing is raised, and each frame is a segment or counted, or of no interest.
        """
        reader = FrameReader()
        segment = reader.read(link_type, start + data)
        self.assertEqual(reader.frames, 1)
        if segment is None:
            self.assertGreaterEqual(sum(reader.noise.values()) + reader.segments, 1)
        else:
            self.assertEqual(reader.segments, 1)
