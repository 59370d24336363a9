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
_GZIP = b"\x1f\x8b"


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
        self._notes: list[str] = []
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
            tuple(self._notes),
        )

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
            raise CaptureError("it is empty")
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
        if start.startswith(_GZIP):
            raise CaptureError("it is compressed; gzip -dc FILE | kmsproto decode - reads it")
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
        capture = Capture(self._source)
        read, add = self._frames.read, self._reassembler.add
        for time, link_type, data in capture.frames():
            segment = read(link_type, data)
            if segment is not None:
                yield from add(segment, time)
        yield from self._reassembler.finish()
        if capture.problem and capture.is_cut and self._live:
            self._notes.append(capture.problem)
        elif capture.problem:
            yield Remark(Conversation(), 0, capture.problem, True)
        if capture.dropped:
            self._notes.append(
                f"{capture.dropped} packets are missing: whoever captured was too slow;"
                " a filter (port 1688) or a larger buffer (tcpdump -B) helps"
            )
        if self._frames.partial:
            self._notes.append(
                f"{self._frames.partial} packets were not captured whole;"
                " tcpdump -s 0 captures all of them"
            )
        if self._frames.incomplete:
            self._notes.append(f"{self._frames.incomplete} fragmented packets are not complete")

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
        two_sides = any(piece.indented for piece in pieces)
        reader = RPCReader(self._tally, midstream=True, expected=True, one_stream=not two_sides)
        for piece in pieces:
            yield from reader.received(int(two_sides and piece.indented), bytes(piece.data), 0, 0)
        yield from reader.ended()


def _show(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
