"""
Traffic for the decoder: conversations, the frames that carry them, and captures of those frames.

Frames and files are made with dpkt or by hand, never with what is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import ip_address

from dpkt import ethernet, ip, ip6, pcap, pcapng, tcp
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from kmsproto.decode.captures import ByteSource
from kmsproto.decode.decoder import Counts, Decoder, Format
from kmsproto.decode.events import CallSeen, Event
from kmsproto.testing import host_factory
from tests.golden import load_exchange

SYN, FIN, RST, PUSH, ACK = tcp.TH_SYN, tcp.TH_FIN, tcp.TH_RST, tcp.TH_PUSH, tcp.TH_ACK
ETHERNET, RAW = 1, 101
#: Seconds since 1970 of the first frame.
START = 1_767_323_045
#: Who sent it, and what.
Said = tuple[str, bytes]


def golden(name: str) -> list[Said]:
    """
    Give a recorded conversation.
    """
    return [(pdu.sender, pdu.data) for pdu in load_exchange(name)]


def converse(sent: Iterable[bytes]) -> list[Said]:
    """
    Send segments to a host of our own in memory, and note down what goes in both directions.
    """
    protocol = host_factory(Clock()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 50000))
    transport = StringTransportWithDisconnection(hostAddress=IPv4Address("TCP", "127.0.0.1", 1688))
    transport.protocol = protocol
    protocol.makeConnection(transport)
    noted: list[Said] = []
    for segment in sent:
        noted.append(("client", segment))
        protocol.dataReceived(segment)
        if transport.value():
            noted.append(("host", transport.value()))
        transport.clear()
    transport.loseConnection()
    return noted


@dataclass
class Segment:
    """
    A TCP segment, before it is put into a frame.
    """

    sender: str
    sequence: int
    acknowledgement: int
    flags: int
    data: bytes = b""


@dataclass
class Connection:
    """
    Makes the segments of one connection.

    @ivar client: Address and port.
    @ivar host: Address and port.
    @ivar sequences: The next sequence number of each side.
    """

    client: tuple[str, int] = ("192.0.2.1", 50000)
    host: tuple[str, int] = ("192.0.2.9", 1688)
    sequences: dict[str, int] = field(default_factory=lambda: {"client": 1000, "host": 2000})

    def segment(self, sender: str, flags: int, data: bytes = b"") -> Segment:
        """
        Make the next segment of a side.
        """
        other = "host" if sender == "client" else "client"
        made = Segment(
            sender,
            self.sequences[sender],
            self.sequences[other] if flags & ACK else 0,
            flags,
            data,
        )
        length = len(data) + bool(flags & SYN) + bool(flags & FIN)
        self.sequences[sender] = (made.sequence + length) % 2**32
        return made

    def opening(self) -> list[Segment]:
        """
        Make the three segments that open it.
        """
        return [
            self.segment("client", SYN),
            self.segment("host", SYN | ACK),
            self.segment("client", ACK),
        ]

    def closing(self) -> list[Segment]:
        """
        Make the segments that close it.
        """
        return [
            self.segment("client", FIN | ACK),
            self.segment("host", FIN | ACK),
            self.segment("client", ACK),
        ]

    def saying(self, said: Sequence[Said], size: int = 1448) -> list[Segment]:
        """
        Make the segments of what was said.

        @param size: Bytes of data in a segment at most.
        """
        return [
            self.segment(sender, PUSH | ACK, data[start : start + size])
            for sender, data in said
            for start in range(0, len(data), size)
        ]

    def whole(self, said: Sequence[Said], size: int = 1448) -> list[Segment]:
        """
        Make all segments.
        """
        return [*self.opening(), *self.saying(said, size), *self.closing()]

    def packet(self, segment: Segment) -> ip.IP | ip6.IP6:
        """
        Put a segment into an IP packet.
        """
        source, target = (
            (self.client, self.host) if segment.sender == "client" else (self.host, self.client)
        )
        transport = tcp.TCP(
            sport=source[1],
            dport=target[1],
            seq=segment.sequence,
            ack=segment.acknowledgement,
            flags=segment.flags,
            data=segment.data,
        )
        addresses = [ip_address(each[0]).packed for each in (source, target)]
        if len(addresses[0]) == 4:
            made = ip.IP(src=addresses[0], dst=addresses[1], p=ip.IP_PROTO_TCP, data=transport)
            made.len = len(made)
            return made
        return ip6.IP6(
            src=addresses[0],
            dst=addresses[1],
            nxt=ip.IP_PROTO_TCP,
            hlim=64,
            plen=len(transport),
            data=transport,
            extension_hdrs={},
        )

    def frames(self, segments: Iterable[Segment]) -> list[bytes]:
        """
        Put segments into Ethernet frames.
        """
        return [on_ethernet(bytes(self.packet(segment))) for segment in segments]


def on_ethernet(packet: bytes) -> bytes:
    """
    Put an IP packet into an Ethernet frame.
    """
    kind = ethernet.ETH_TYPE_IP if packet[0] >> 4 == 4 else ethernet.ETH_TYPE_IP6
    return bytes(6) + b"\x02" * 6 + struct.pack(">H", kind) + packet


def capture(frames: Iterable[bytes], link_type: int = ETHERNET) -> bytes:
    """
    Write a capture in libpcap's own format; frames are a millisecond apart.
    """
    file = BytesIO()
    writer = pcap.Writer(file, snaplen=65535, linktype=link_type)
    for index, frame in enumerate(frames):
        writer.writepkt_time(frame, START + index / 1000)
    return file.getvalue()


def capture_ng(frames: Iterable[bytes], link_type: int = ETHERNET) -> bytes:
    """
    Write a capture in the newer format.
    """
    file = BytesIO()
    description = pcapng.InterfaceDescriptionBlockLE(snaplen=65535, linktype=link_type)
    writer = pcapng.Writer(file, idb=description)
    for index, frame in enumerate(frames):
        writer.writepkt_time(frame, START + index / 1000)
    return file.getvalue()


class Pipe:
    """
    What cannot be asked for anything but its next bytes, of which it gives as many as it likes.
    """

    def __init__(self, data: bytes, size: int = 1) -> None:
        self._data = data
        self._size = size
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """
        Read.
        """
        piece = self._data[self._offset : self._offset + min(size, self._size)]
        self._offset += len(piece)
        return piece


def decode(
    data: bytes, form: Format = Format.AUTO, ports: Iterable[int] = ()
) -> tuple[list[Event], Counts]:
    """
    Decode all there is.
    """
    decoder = Decoder(ByteSource(BytesIO(data)), form, frozenset(ports) or None)
    events = list(decoder.events())
    return events, decoder.counts


def calls(events: Iterable[Event]) -> list[CallSeen]:
    """
    Give the calls among events.
    """
    return [event for event in events if isinstance(event, CallSeen)]


def essence(call: CallSeen) -> tuple[object, ...]:
    """
    Say what a call is, without when and where it was seen.
    """
    return (
        call.call_id,
        call.context_id,
        call.syntax,
        call.guessed,
        call.asked,
        call.answered,
        call.hresult,
        call.fault,
        call.verified,
        call.problems,
        call.remarks,
    )
