"""
From a frame to the TCP segment in it, if there is one.

Most frames of a capture are of no interest, so the headers are looked at in place, and nothing is made of a frame that
is not TCP or brings neither data nor the beginning or end of a connection.  Known are Ethernet (with VLAN tags, MPLS,
PPPoE and LLC/SNAP), the cooked captures of Linux, loopback and raw IP.  Fragments of IP are put together within
bounds; what is not complete when its room is needed for others is given up and counted.

Whatever a frame holds, it is a segment, or it is counted under one of a few reasons: nothing here raises.

Sources: the list of link types of tcpdump.org; RFC 791, RFC 8200, RFC 9293; IEEE 802.1Q; RFC 2516, RFC 3032.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

from dpkt import ethernet, ip, pcap, tcp

#: Datagrams that are put together at the same time; bytes and fragments that one of them has at most.
MAX_DATAGRAMS, MAX_DATAGRAM, MAX_FRAGMENTS = 256, 65535, 256
#: Extension headers that an IPv6 packet has at most, and tags before an Ethernet payload.
MAX_HEADERS = 16

SYN, FIN, RST, ACK = tcp.TH_SYN, tcp.TH_FIN, tcp.TH_RST, tcp.TH_ACK
_ENDS = SYN | FIN | RST

_IPV4, _IPV6 = ethernet.ETH_TYPE_IP, ethernet.ETH_TYPE_IP6
_VLAN = frozenset(
    {
        ethernet.ETH_TYPE_8021Q,
        ethernet.ETH_TYPE_8021AD,
        ethernet.ETH_TYPE_QINQ1,
        ethernet.ETH_TYPE_QINQ2,
    }
)
_MPLS = frozenset({ethernet.ETH_TYPE_MPLS, ethernet.ETH_TYPE_MPLS_MCAST})
_PPP_PROTOCOLS = {0x0021: _IPV4, 0x0057: _IPV6}
_SNAP = b"\xaa\xaa\x03\0\0\0"
#: Extension headers of IPv6 whose second byte is their length in units of 8 bytes, without the first.
_EXTENSIONS = frozenset(
    {ip.IP_PROTO_HOPOPTS, ip.IP_PROTO_ROUTING, ip.IP_PROTO_DSTOPTS, 135, 139, 140}
)
_SHORT = Struct(">H").unpack_from
_SEQUENCE = Struct(">II").unpack_from

#: Where a frame's IP packet may begin, and what its type says it is; 0 if it is something else.
_Place = tuple[int, int]


class Segment(NamedTuple):
    """
    What a TCP segment brings.

    @ivar flow: The two addresses and the two ports, the sender's first, as they stand on the wire.
    @ivar sequence: The sequence number of the first byte, or of the SYN.
    @ivar acknowledgement: The acknowledgement number.
    @ivar flags: The flags, of which only SYN, FIN, RST and ACK count.
    @ivar data: The bytes that were captured.
    @ivar missing: How many more there were, behind them.
    """

    flow: bytes
    sequence: int
    acknowledgement: int
    flags: int
    data: bytes
    missing: int


def reverse(flow: bytes) -> bytes:
    """
    Name the other direction of a connection.
    """
    half = (len(flow) - 4) // 2
    return flow[half : 2 * half] + flow[:half] + flow[-2:] + flow[-4:-2]


def endpoints(flow: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    """
    Write down the sender and the receiver of a direction: address and port of each.
    """
    half = (len(flow) - 4) // 2
    kind = IPv4Address if half == 4 else IPv6Address
    return (
        (str(kind(flow[:half])), int.from_bytes(flow[-4:-2], "big")),
        (str(kind(flow[half : 2 * half])), int.from_bytes(flow[-2:], "big")),
    )


class FrameReader:
    """
    Reads frames.

    @param ports: Only segments from or to one of these count; L{None}: all.
    @ivar frames: How many frames there were.
    @ivar segments: How many of them were TCP.
    @ivar partial: How many of them were not captured to their end, though they have data.
    @ivar noise: How many were something else, by what they were.
    """

    def __init__(self, ports: frozenset[int] | None = None) -> None:
        self._ports = ports
        self._fragments = Fragments()
        self.frames = 0
        self.segments = 0
        self.partial = 0
        self.noise: Counter[str] = Counter()

    @property
    def incomplete(self) -> int:
        """
        How many fragmented datagrams could not be put together so far.
        """
        return self._fragments.incomplete

    def read(self, link_type: int, data: bytes) -> Segment | None:
        """
        Read a frame.

        @return: The segment, if it is one that matters.
        """
        self.frames += 1
        locate = _LINKS.get(link_type)
        if locate is None:
            self.noise[f"link type {link_type}" if len(self.noise) < 100 else "link types"] += 1
            return None
        try:
            start, kind = locate(data)
            if kind == _IPV4:
                return self._read_ipv4(data, start)
            if kind == _IPV6:
                return self._read_ipv6(data, start)
        except (IndexError, struct.error):
            self.noise["cut short"] += 1
            return None
        self.noise["not IP"] += 1
        return None

    def _read_ipv4(self, data: bytes, start: int) -> Segment | None:
        first = data[start]
        length = (first & 0x0F) * 4
        if first >> 4 != 4 or length < 20:
            self.noise["not IP"] += 1
            return None
        if data[start + 9] != ip.IP_PROTO_TCP:
            self.noise["not TCP"] += 1
            return None
        total = data[start + 2] << 8 | data[start + 3]
        # A segment that the network card is to cut has no length yet.
        end = start + total if total >= length else len(data)
        placed = data[start + 6] << 8 | data[start + 7]
        addresses = data[start + 12 : start + 20]
        if placed & 0x3FFF:
            key = addresses + data[start + 4 : start + 6]
            part = data[start + length : end]
            datagram = self._join(key, (placed & 0x1FFF) * 8, bool(placed & 0x2000), part)
            if datagram is None:
                return None
            return self._read_tcp(addresses, datagram, 0, len(datagram))
        return self._read_tcp(addresses, data, start + length, end)

    def _read_ipv6(self, data: bytes, start: int) -> Segment | None:
        if data[start] >> 4 != 6:
            self.noise["not IP"] += 1
            return None
        kind = data[start + 6]
        addresses = data[start + 8 : start + 40]
        at = start + 40
        length = data[start + 4] << 8 | data[start + 5]
        end = at + length if length else len(data)
        for _ in range(MAX_HEADERS):
            if kind == ip.IP_PROTO_TCP:
                return self._read_tcp(addresses, data, at, end)
            if kind in _EXTENSIONS:
                kind, at = data[at], at + 8 + data[at + 1] * 8
            elif kind == ip.IP_PROTO_AH:
                kind, at = data[at], at + 8 + data[at + 1] * 4
            elif kind == ip.IP_PROTO_FRAGMENT:
                (placed,) = _SHORT(data, at + 2)
                kind, identity, at = data[at], data[at + 4 : at + 8], at + 8
                if not placed & 0xFFF9:
                    continue
                # Before the segment there may be more headers, in what is fragmented.
                if kind != ip.IP_PROTO_TCP and kind not in _EXTENSIONS:
                    break
                key = addresses + identity
                datagram = self._join(key, placed & 0xFFF8, bool(placed & 1), data[at:end])
                if datagram is None:
                    return None
                data, at, end = datagram, 0, len(datagram)
            else:
                break
        self.noise["not TCP"] += 1
        return None

    def _join(self, key: bytes, offset: int, more: bool, data: bytes) -> bytes | None:
        """
        Put a fragment to the others; while the datagram is not complete, it is noise.
        """
        datagram = self._fragments.add(key, offset, more, data)
        if datagram is None:
            self.noise["fragments"] += 1
        return datagram

    def _read_tcp(self, addresses: bytes, data: bytes, at: int, end: int) -> Segment | None:
        """
        Read a segment.

        @param at: Where it begins.
        @param end: Where it ends, be that captured or not.
        """
        length = (data[at + 12] >> 4) * 4
        flags = data[at + 13]
        self.segments += 1
        start = at + length
        if start >= end and not flags & _ENDS:
            return None
        ports = data[at : at + 4]
        if self._ports is not None and not self._ports.intersection(struct.unpack(">HH", ports)):
            return None
        if length < 20 or start > end:
            self.noise["cut short"] += 1
            return None
        sequence, acknowledgement = _SEQUENCE(data, at + 4)
        missing = end - max(len(data), start)
        self.partial += missing > 0
        return Segment(
            addresses + ports,
            sequence,
            acknowledgement,
            flags,
            data[start:end],
            max(missing, 0),
        )


class _Datagram:
    """
    A datagram of which fragments have come.
    """

    __slots__ = ("length", "parts", "size")

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.size = 0
        self.length: int | None = None

    def join(self) -> bytes | None:
        """
        Put it together, if it is complete.
        """
        # Parts may lie over each other; those that are too few bytes together cannot be complete.
        if self.length is None or self.size < self.length:
            return None
        whole = bytearray()
        for offset, part in sorted(self.parts.items()):
            if offset > len(whole):
                return None
            whole += part[len(whole) - offset :]
        return bytes(whole[: self.length]) if len(whole) >= self.length else None


class Fragments:
    """
    Puts fragments of IP together, in whatever order they come.
    """

    def __init__(self) -> None:
        self._datagrams: OrderedDict[bytes, _Datagram] = OrderedDict()
        self._given_up = 0

    @property
    def incomplete(self) -> int:
        """
        How many datagrams were given up, or are not complete yet.
        """
        return self._given_up + len(self._datagrams)

    def add(self, key: bytes, offset: int, more: bool, data: bytes) -> bytes | None:
        """
        Add a fragment.

        @param key: What the fragments of a datagram have in common.
        @param offset: Where it belongs.
        @param more: Whether another one follows it.
        @return: The datagram, if it is complete now.
        """
        datagram = self._datagrams.get(key)
        if datagram is None:
            if len(self._datagrams) >= MAX_DATAGRAMS:
                self._datagrams.popitem(last=False)
                self._given_up += 1
            datagram = self._datagrams[key] = _Datagram()
        known = datagram.parts.get(offset, b"")
        if len(data) > len(known):
            datagram.parts[offset] = data
            datagram.size += len(data) - len(known)
        if not more:
            datagram.length = offset + len(data)
        if datagram.size > 2 * MAX_DATAGRAM or len(datagram.parts) > MAX_FRAGMENTS:
            del self._datagrams[key]
            self._given_up += 1
            return None
        whole = datagram.join()
        if whole is not None:
            del self._datagrams[key]
        return whole


def _ethernet(data: bytes) -> _Place:
    return _unwrap(data, data[12] << 8 | data[13], 14)


def _unwrap(data: bytes, kind: int, at: int) -> _Place:
    """
    Step over what may stand between an Ethernet type and the packet.

    @param kind: The type.
    @param at: Where what is of that type begins.
    """
    for _ in range(MAX_HEADERS):
        if kind in (_IPV4, _IPV6):
            return at, kind
        if kind in _VLAN:
            (kind,) = _SHORT(data, at + 2)
            at += 4
        elif kind in _MPLS:
            while not data[at + 2] & 1:
                at += 4
            return _raw(data, at + 4)
        elif kind == ethernet.ETH_TYPE_PPPoE:
            return at + 8, _PPP_PROTOCOLS.get(_SHORT(data, at + 6)[0], 0)
        elif kind <= 1500 and data.startswith(_SNAP, at):
            (kind,) = _SHORT(data, at + 6)
            at += 8
        else:
            break
    return at, 0


def _cooked(data: bytes) -> _Place:
    return _unwrap(data, data[14] << 8 | data[15], 16)


def _cooked_2(data: bytes) -> _Place:
    return _unwrap(data, data[0] << 8 | data[1], 20)


def _raw(data: bytes, at: int = 0) -> _Place:
    """
    Tell by its first half byte what an IP packet is.
    """
    return at, {4: _IPV4, 6: _IPV6}.get(data[at] >> 4, 0)


def _loopback(data: bytes) -> _Place:
    # The family before it is in the byte order of the machine, and its number for IPv6 differs from system to system.
    return _raw(data, 4)


def _ppp(data: bytes) -> _Place:
    at = 2 if data[0] == 0xFF else 0
    return at + 2, _PPP_PROTOCOLS.get(_SHORT(data, at)[0], 0)


#: How frames of each link type begin.
_LINKS: dict[int, Callable[[bytes], _Place]] = {
    pcap.DLT_EN10MB: _ethernet,
    pcap.DLT_LINUX_SLL: _cooked,
    pcap.DLT_LINUX_SLL2: _cooked_2,
    pcap.DLT_NULL: _loopback,
    108: _loopback,
    pcap.DLT_PPP: _ppp,
    12: _raw,
    14: _raw,
    101: _raw,
    pcap.DLT_IPV4: _raw,
    pcap.DLT_IPV6: _raw,
}
#: The link types that frames of unknown origin may have, the likeliest first.
LIKELY_LINKS = (pcap.DLT_EN10MB, pcap.DLT_IPV4, pcap.DLT_LINUX_SLL, pcap.DLT_LINUX_SLL2)
