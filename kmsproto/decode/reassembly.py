"""
TCP connections, put together again from segments as a capture has them.

A capture shows segments in whatever order they passed by: once more, overlapping, too early, or not at all.  Each
direction of a connection hands its bytes on in order, each byte once, as soon as they are there.  Bytes that come too
early wait.  If those before them do not come within some seconds or some bytes, or until the connection is over, they
are given up, and whoever reads the stream is told how many are missing, so that it can look for a new beginning.

A connection whose beginning is not in the capture begins with its first segment.  What nobody wants (because the first
bytes show that it is another protocol) costs one entry in a table.  The number of connections and the bytes that wait
are bounded, over all connections together: the one that was quiet for longest makes room, and is counted.

Source: RFC 9293.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

from kmsproto.decode.frames import ACK, FIN, RST, SYN, Segment, reverse

_E = TypeVar("_E")
_E_co = TypeVar("_E_co", covariant=True)

#: Connections that are known at the same time.
MAX_CONNECTIONS = 16_384
#: Bytes that all connections together may have waiting.
MAX_HELD = 32 * 1024 * 1024
#: Bytes and segments of one direction that may wait for those before them.
MAX_WAITING, MAX_WAITING_SEGMENTS = 262_144, 512
#: How long they may, in nanoseconds.
MAX_DELAY = 10_000_000_000
#: When a connection counts as quiet, and how often that is looked at, in nanoseconds.
QUIET, _INTERVAL = 60_000_000_000, 10_000_000_000
#: Bytes that a segment that waits costs beside its data.
_COST = 128
_MODULUS = 0x1_0000_0000
_HALF = 0x8000_0000


class Reader(Protocol[_E_co]):
    """
    Who reads the two streams of a connection.

    @ivar wanted: Whether it wants more.
    """

    wanted: bool

    @property
    def held(self) -> int:
        """
        Bytes that it keeps.
        """

    def received(self, direction: int, data: bytes, lost: int, time: int) -> Iterator[_E_co]:
        """
        Take the next bytes of a direction.

        @param direction: 0 for what the side sent that was seen first, 1 for the other.
        @param data: The bytes; none if those that are missing are the last ones.
        @param lost: How many bytes before them are missing.
        @param time: When they came, in nanoseconds.
        @return: What happened.
        """

    def paused(self) -> Iterator[_E_co]:
        """
        Take note that nothing has come for long, though something still may.

        @return: What happened.
        """

    def ended(self) -> Iterator[_E_co]:
        """
        Take note that nothing more will come.

        @return: What happened.
        """


class Direction:
    """
    One direction of a connection.

    Within it places are counted without an end; sequence numbers begin again at zero.

    @ivar held: Bytes that are kept because something waits.
    """

    __slots__ = ("_count", "_end", "_place", "_since", "_waiting", "held")

    def __init__(self) -> None:
        self.held = 0
        #: The place of the next byte to hand on, once it is known; that of the last one, likewise.
        self._place: int | None = None
        self._end: int | None = None
        #: What came too early, as a heap: the place of each segment, its number, and its data.  Of two at the same
        #: place the one that came first counts, as everywhere.
        self._waiting: list[tuple[int, int, bytes]] = []
        self._count = 0
        self._since = 0

    @property
    def expected(self) -> int | None:
        """
        The sequence number of the next byte to hand on; L{None} while it is not known.
        """
        return None if self._place is None else self._place % _MODULUS

    @property
    def complete(self) -> bool:
        """
        Whether its last byte was handed on.
        """
        return self._end is not None and self._end == self._place

    @property
    def missing(self) -> int:
        """
        How many bytes are missing before its end, if nothing waits.
        """
        if self._end is None or self._place is None:
            return 0
        return max(self._end - self._place, 0)

    def begin(self, sequence: int) -> int:
        """
        Learn the sequence number of its first byte, if it is not known yet.

        @return: The place of the next byte to hand on.
        """
        if self._place is None:
            self._place = sequence
        return self._place

    def add(self, sequence: int, data: bytes, time: int, ends: bool) -> list[tuple[int, bytes]]:
        """
        Add a segment.

        @param sequence: The sequence number of its first byte.
        @param time: When it came, in nanoseconds.
        @param ends: Whether it is the last.
        @return: What can be handed on: how many bytes are missing, and those that follow them.
        """
        next_place = self.begin(sequence)
        place = next_place + (sequence - next_place + _HALF) % _MODULUS - _HALF
        if ends:
            self._end = place + len(data)
        if not data:
            return []
        ready: list[tuple[int, bytes]] = []
        if place > next_place:
            if not self._waiting:
                self._since = time
            self._count += 1
            heappush(self._waiting, (place, self._count, data))
            self.held += len(data) + _COST
        elif place + len(data) > next_place:
            fresh = data[next_place - place :]
            self._place = next_place + len(fresh)
            ready = [(0, fresh), *self._drain()]
            self._since = time
        if self._waiting and self._overdue(time):
            ready += self.give_up()
        return ready

    def give_up(self) -> list[tuple[int, bytes]]:
        """
        Give up the bytes that are missing.

        @return: What can be handed on.
        """
        ready: list[tuple[int, bytes]] = []
        while self._waiting:
            first = self._waiting[0][0]
            assert self._place is not None
            lost, self._place = first - self._place, first
            (_, data), *rest = self._drain()
            ready += [(lost, data), *rest]
        return ready

    def _drain(self) -> list[tuple[int, bytes]]:
        """
        Take out what need not wait any more.
        """
        ready: list[tuple[int, bytes]] = []
        assert self._place is not None
        while self._waiting and self._waiting[0][0] <= self._place:
            place, _, data = heappop(self._waiting)
            self.held -= len(data) + _COST
            fresh = data[self._place - place :]
            if fresh:
                self._place += len(fresh)
                ready.append((0, fresh))
        return ready

    def _overdue(self, time: int) -> bool:
        return (
            self.held > MAX_WAITING
            or len(self._waiting) > MAX_WAITING_SEGMENTS
            or time - self._since > MAX_DELAY
        )


@dataclass(slots=True, eq=False)
class _Connection(Generic[_E]):
    """
    A connection.

    @ivar flow: Its first direction.
    @ivar reader: Who reads it; L{None} once it is over, or unwanted.
    @ivar first: The sequence number of the SYN of each direction, if it was seen.
    @ivar held: Bytes that it keeps, as far as they were counted.
    @ivar time: When its last segment came, in nanoseconds.
    @ivar is_quiet: Whether that was long ago.
    """

    flow: bytes
    reader: Reader[_E] | None
    directions: tuple[Direction, Direction] = field(
        default_factory=lambda: (Direction(), Direction())
    )
    first: list[int | None] = field(default_factory=lambda: [None, None])
    held: int = 0
    time: int = 0
    is_quiet: bool = False


class Reassembler(Generic[_E]):
    """
    Puts all connections of a capture together.

    @param open_reader: Makes what reads a connection: it is told the direction that was seen first, or that of who
        began it if that shows, and whether the beginning is missing.
    @param max_connections: Connections that are known at the same time.
    @param max_held: Bytes that all of them together may keep.
    @ivar connections: How many there were.
    @ivar evicted: How many had to make room before they were over.
    """

    def __init__(
        self,
        open_reader: Callable[[bytes, bool], Reader[_E]],
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_held: int = MAX_HELD,
    ) -> None:
        self._open_reader = open_reader
        self._max_connections = max_connections
        self._max_held = max_held
        self._directions: dict[bytes, tuple[_Connection[_E], int]] = {}
        #: All connections, quiet ones and others, each time the one that was quiet for longest first.
        self._quiet: OrderedDict[bytes, _Connection[_E]] = OrderedDict()
        self._known: OrderedDict[bytes, _Connection[_E]] = OrderedDict()
        self._swept = 0
        self._held = 0
        self.connections = 0
        self.evicted = 0

    @property
    def held(self) -> int:
        """
        Bytes that all connections together keep.
        """
        return self._held

    def add(self, segment: Segment, time: int) -> Iterator[_E]:
        """
        Add a segment.

        @param time: When it was captured, in nanoseconds.
        @return: What happened.
        """
        flow, sequence, acknowledgement, flags, data, _ = segment
        if time - self._swept > _INTERVAL:
            self._swept = time
            yield from self._sweep(time)
        found = self._directions.get(flow)
        if flags & RST:
            # It may say why, in words that are not of the stream.
            data = b""
            if found is None:
                return
        if found is not None and (
            _is_another(*found, sequence, flags)
            if flags & SYN
            else data and _is_beyond(*found, sequence)
        ):
            yield from self._forget(found[0])
            found = None
        if found is None:
            yield from self._make_room(self._max_connections - 1, self._max_held)
            # Who accepts a connection did not begin it.
            accepts = flags & SYN and flags & ACK
            self._begin(reverse(flow) if accepts else flow, not flags & SYN)
            found = self._directions[flow]
        connection, number = found
        connection.time = time
        if connection.is_quiet:
            connection.is_quiet = False
            self._known[connection.flow] = self._quiet.pop(connection.flow)
        else:
            self._known.move_to_end(connection.flow)
        reader = connection.reader
        if reader is None:
            return
        direction = connection.directions[number]
        if flags & SYN:
            connection.first[number] = sequence
            sequence += 1
            direction.begin(sequence)
            if flags & ACK:
                connection.directions[1 - number].begin(acknowledgement)
        for lost, fresh in direction.add(sequence % _MODULUS, data, time, bool(flags & FIN)):
            if reader.wanted:
                yield from reader.received(number, fresh, lost, time)
        if not reader.wanted or all(each.complete for each in connection.directions):
            yield from self._end(connection)
        else:
            held = reader.held + sum(each.held for each in connection.directions)
            self._held += held - connection.held
            connection.held = held
            if self._held > self._max_held:
                yield from self._make_room(self._max_connections, self._max_held)

    def finish(self) -> Iterator[_E]:
        """
        End all connections: the capture is over.

        @return: What happened.
        """
        yield from self._make_room(0, 0, count=False)

    def _begin(self, flow: bytes, midstream: bool) -> None:
        connection = _Connection(flow, self._open_reader(flow, midstream))
        self._known[flow] = connection
        # A connection of a port with itself has one direction.
        self._directions[reverse(flow)] = connection, 1
        self._directions[flow] = connection, 0
        self.connections += 1

    def _sweep(self, time: int) -> Iterator[_E]:
        """
        Tell the readers of connections that have become quiet.
        """
        while self._known:
            connection = next(iter(self._known.values()))
            if time - connection.time < QUIET:
                return
            connection.is_quiet = True
            self._quiet[connection.flow] = self._known.pop(connection.flow)
            reader = connection.reader
            if reader is not None:
                yield from self._give_up(connection, reader)
                yield from reader.paused()

    def _give_up(self, connection: _Connection[_E], reader: Reader[_E]) -> Iterator[_E]:
        """
        Hand on what waits for bytes that are missing.
        """
        for number, direction in enumerate(connection.directions):
            for lost, fresh in direction.give_up():
                if reader.wanted:
                    yield from reader.received(number, fresh, lost, connection.time)

    def _make_room(self, connections: int, held: int, *, count: bool = True) -> Iterator[_E]:
        """
        Let go of connections, beginning with the one that was quiet for longest.

        @param connections: How many may stay.
        @param held: How many bytes they may keep.
        @param count: Whether those that are not over count as evicted.
        """
        while len(self._known) + len(self._quiet) > connections or self._held > held:
            connection = next(iter((self._quiet or self._known).values()))
            self.evicted += count and connection.reader is not None
            yield from self._forget(connection)

    def _forget(self, connection: _Connection[_E]) -> Iterator[_E]:
        yield from self._end(connection)
        del (self._quiet if connection.is_quiet else self._known)[connection.flow]
        del self._directions[connection.flow]
        self._directions.pop(reverse(connection.flow), None)

    def _end(self, connection: _Connection[_E]) -> Iterator[_E]:
        """
        Hand everything on that still waits, and keep no more of a connection than that it was there.
        """
        reader, connection.reader = connection.reader, None
        if reader is None:
            return
        self._held -= connection.held
        connection.held = 0
        yield from self._give_up(connection, reader)
        for number, direction in enumerate(connection.directions):
            if direction.missing and reader.wanted:
                yield from reader.received(number, b"", direction.missing, connection.time)
        yield from reader.ended()


def _is_another(connection: _Connection[_E], number: int, sequence: int, flags: int) -> bool:
    """
    Tell whether a SYN is that of another connection than the one that is known between its two ports.
    """
    first = connection.first[number]
    if first is not None:
        return first != sequence
    # Nothing or only the other half of this beginning was seen yet; or else no beginning at all.
    expected = connection.directions[number].expected
    return not flags & ACK and expected != (sequence + 1) % _MODULUS


def _is_beyond(connection: _Connection[_E], number: int, sequence: int) -> bool:
    """
    Tell whether data are those of another connection, of which no SYN was seen, because the one that is known between
    the two ports is over, and they are not just once more the last that it had.
    """
    if connection.reader is not None or not all(each.complete for each in connection.directions):
        return False
    expected = connection.directions[number].expected
    assert expected is not None
    return 0 < (sequence - expected) % _MODULUS < _MODULUS - MAX_WAITING
