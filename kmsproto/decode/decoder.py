"""
From a stream of bytes, whatever it holds, to what was found in it.

L{Decoder} finds out what it was given, reads it through the parts of this package, and counts.  It is the one thing
that a program needs: it makes events for as long as there is something to read, and the counts are right at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from kmsproto.decode.activation import read_messages
from kmsproto.decode.captures import ByteSource, Capture, CaptureError
from kmsproto.decode.dissection import RPCReader, Tally
from kmsproto.decode.dumps import (
    Piece,
    is_message,
    is_pdu,
    looks_like_text,
    parse_hexadecimal,
    read_all,
    split_messages,
)
from kmsproto.decode.events import CallSeen, Conversation, Event, Outcome, PDUSeen, Remark
from kmsproto.decode.frames import LIKELY_LINKS, FrameReader, Segment, endpoints
from kmsproto.decode.reassembly import Reassembler

#: The port of KMS.
KMS_PORT = 1688
#: By how much a packet may be earlier than one before it: several interfaces are read in turns.  In nanoseconds.
MAX_DISORDER = 1_000_000_000
#: Bytes of a dump that are read at once: behind each header that makes no sense the rest of them is looked at anew.
_PORTION = 16_384
_COMPRESSED = "it is compressed; {} FILE | kmsproto decode - reads it"
_OTHER_CAPTURE = (
    "it is a capture, but neither pcap nor pcapng; tshark -r FILE -w NEW.pcapng converts it"
)
#: What some files begin with that hold nothing to read as they are, and what to do with them.
_OTHERS = {
    b"\x1f\x8b": _COMPRESSED.format("gzip -dc"),
    b"BZh": _COMPRESSED.format("bzip2 -dc"),
    b"\xfd7zX": _COMPRESSED.format("xz -dc"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd -dc"),
    b"\x04\x22\x4d\x18": _COMPRESSED.format("lz4 -dc"),
    b"PK\3\4": _COMPRESSED.format("unzip -p"),
    b"snoo": _OTHER_CAPTURE,  # snoop of Solaris
    b"RTSS": _OTHER_CAPTURE,  # Network Monitor 1
    b"GMBU": _OTHER_CAPTURE,  # Network Monitor 2
    b"TRSN": _OTHER_CAPTURE,  # Sniffer
    b"XCP\0": _OTHER_CAPTURE,  # NetXRay
}


class Format(Enum):
    """
    What there is to read.
    """

    AUTO = "auto"  #: whatever it looks like
    PCAP = "pcap"  #: a capture, pcap or pcapng
    HEX = "hex"  #: a hexadecimal dump
    RAW = "raw"  #: PDUs or messages, as they travelled


@dataclass(slots=True)
class Counts:
    """
    What there was.

    @ivar frames: Frames of a capture.
    @ivar connections: TCP connections.
    @ivar rpc: How many of them were DCE/RPC.
    @ivar conversations: How many of them had to do with KMS.
    @ivar pdus: PDUs of DCE/RPC.
    @ivar calls: Calls to the KMS interface, and messages without RPC around them.
    @ivar granted: How many of them were granted.
    @ivar other_pdus: PDUs that were told beside the calls.
    @ivar problems: Things that were wrong.
    @ivar evicted: Connections that had to make room before they were over.
    @ivar noise: Frames that were not looked at, by what they were.
    @ivar notes: What there is to say about the capture itself.
    """

    frames: int = 0
    connections: int = 0
    rpc: int = 0
    conversations: int = 0
    pdus: int = 0
    calls: int = 0
    granted: int = 0
    other_pdus: int = 0
    problems: int = 0
    evicted: int = 0
    noise: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        return asdict(self)


def problems_of(event: Event) -> int:
    """
    Count what is wrong in an event.
    """
    return int(event.is_problem) if isinstance(event, Remark) else len(event.problems)


class Decoder:
    """
    Decodes what there is to read.

    @param source: What is read.
    @param form: What it is.
    @param ports: Only connections to or from one of these ports count, and all that is on them is told; L{None}: all
        connections that have to do with KMS.
    @param live: Whether it may end anywhere, because whoever makes it is stopped at some time.
    """

    def __init__(
        self,
        source: ByteSource,
        form: Format = Format.AUTO,
        ports: frozenset[int] | None = None,
        *,
        live: bool = False,
    ) -> None:
        self._source = source
        self._form = form
        self._ports = ports
        self._live = live
        self._tally = Tally()
        self._frames = FrameReader(ports)
        self._reassembler: Reassembler[Event] = Reassembler(self._open_reader)
        self._capture: Capture | None = None
        self._disordered = 0
        self._calls = self._granted = self._other_pdus = self._problems = 0

    @property
    def counts(self) -> Counts:
        """
        What there was so far.
        """
        return Counts(
            self._frames.frames,
            self._reassembler.connections,
            self._tally.rpc,
            self._tally.conversations,
            self._tally.pdus,
            self._calls,
            self._granted,
            self._other_pdus,
            self._problems,
            self._reassembler.evicted,
            dict(self._frames.noise),
            tuple(self._notes()),
        )

    @property
    def is_capture(self) -> bool:
        """
        Whether it is a capture, as far as that is known yet.
        """
        return self._capture is not None

    def events(self) -> Iterator[Event]:
        """
        Decode everything.

        @return: What is found, as soon as it is.
        @raise CaptureError: If it cannot be read, or is nothing that can be decoded.
        """
        return self._counted(self._events())

    def give_up(self) -> Iterator[Event]:
        """
        End before the end, because whoever waits for more has lost patience.

        @return: What can be told of what was waited for.
        """
        return self._counted(self._reassembler.finish())

    def _counted(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, CallSeen):
                self._calls += 1
                self._granted += event.outcome is Outcome.GRANTED
            elif isinstance(event, PDUSeen):
                self._other_pdus += 1
            self._problems += problems_of(event)
            yield event

    def _events(self) -> Iterator[Event]:
        """
        Find out what there is to read, and read it.
        """
        start = self._source.peek(4)
        if not start:
            raise CaptureError("it is empty; give a capture, a hexadecimal dump or raw bytes")
        form = self._form
        if form is Format.AUTO:
            form = self._recognize(start)
        if form is Format.PCAP:
            return self._read_capture()
        data = read_all(self._source)
        if form is Format.HEX:
            return self._read_pieces(parse_hexadecimal(data))
        return self._read_pieces([Piece(bytearray(data))])

    def _recognize(self, start: bytes) -> Format:
        """
        Find out what there is to read.
        """
        if Capture.recognizes(start):
            return Format.PCAP
        for beginning, problem in _OTHERS.items():
            if start.startswith(beginning):
                raise CaptureError(problem)
        # More is looked at only if it may be text, so that nobody waits for more of a capture.
        if looks_like_text(start) and looks_like_text(self._source.peek(4096)):
            return Format.HEX
        return Format.RAW

    def _open_reader(self, flow: bytes, midstream: bool) -> RPCReader:
        first, second = endpoints(flow)
        # Who begins a connection from that port may be any client.
        expected = (
            self._ports is not None or second[1] == KMS_PORT or (midstream and first[1] == KMS_PORT)
        )
        sides = _show(*first), _show(*second)
        return RPCReader(self._tally, sides, midstream=midstream, expected=expected)

    def _read_capture(self) -> Iterator[Event]:
        capture = self._capture = Capture(self._source)
        read, add = self._frames.read, self._reassembler.add
        latest = 0
        for time, link_type, data in capture.frames():
            if time > latest:
                latest = time
            elif time and latest - time > MAX_DISORDER:
                self._disordered += 1
            segment = read(link_type, data)
            if segment is not None:
                yield from add(segment, time)
        yield from self._reassembler.finish()
        if capture.problem and not (capture.is_cut and self._live):
            yield Remark(Conversation(), 0, capture.problem, True)

    def _notes(self) -> Iterator[str]:
        """
        Say what there is to say about the capture itself, as far as it was read.
        """
        capture = self._capture
        if capture is None:
            return
        if capture.problem and capture.is_cut and self._live:
            yield capture.problem
        if capture.dropped:
            yield (
                f"{_packets(capture.dropped, 'is', 'are')} missing: whoever captured was too slow;"
                " a filter (port 1688) or a larger buffer (tcpdump -B) helps"
            )
        if self._disordered:
            yield (
                f"{_packets(self._disordered, 'is', 'are')} earlier than some before, so that calls may look"
                " unanswered; reordercap FILE SORTED sorts them"
            )
        if self._frames.partial:
            yield (
                f"{_packets(self._frames.partial, 'was', 'were')} not captured whole;"
                " tcpdump -s 0 captures all of them"
            )
        if self._frames.incomplete:
            yield f"{_packets(self._frames.incomplete, 'is', 'are')} fragmented and not complete"

    def _read_pieces(self, pieces: list[Piece]) -> Iterator[Event]:
        """
        Decode what a dump holds.
        """
        if all(is_message(piece.data) for piece in pieces):
            return self._read_messages([bytes(piece.data) for piece in pieces])
        if not any(is_pdu(piece.data) for piece in pieces):
            for link_type in LIKELY_LINKS:
                frames = FrameReader(self._ports)
                segments = [frames.read(link_type, bytes(piece.data)) for piece in pieces]
                found = [segment for segment in segments if segment is not None]
                if found:
                    self._frames = frames
                    return self._read_segments(found)
        return self._read_pdus(pieces)

    def _read_messages(self, messages: list[bytes]) -> Iterator[Event]:
        asked: bytes | None = None
        for message in messages:
            request, response = split_messages(message)
            if asked is not None and request is not None:
                yield read_messages(asked, None)
                asked = None
            asked = asked or request
            if response is not None:
                yield read_messages(asked, response)
                asked = None
        if asked is not None:
            yield read_messages(asked, None)

    def _read_segments(self, segments: list[Segment]) -> Iterator[Event]:
        for segment in segments:
            yield from self._reassembler.add(segment, 0)
        yield from self._reassembler.finish()

    def _read_pdus(self, pieces: list[Piece]) -> Iterator[Event]:
        # Where all of it is indented, that is how it was pasted.
        two_sides = len({piece.indented for piece in pieces}) > 1
        reader = RPCReader(self._tally, midstream=True, expected=True, one_stream=not two_sides)
        for piece in pieces:
            side = int(two_sides and piece.indented)
            for start in range(0, len(piece.data), _PORTION):
                yield from reader.received(side, bytes(piece.data[start : start + _PORTION]), 0, 0)
        yield from reader.ended()


def _packets(count: int, one: str, many: str) -> str:
    """
    Say how many packets there are, with the verb that goes with them.
    """
    return f"1 packet {one}" if count == 1 else f"{count} packets {many}"


def _show(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
