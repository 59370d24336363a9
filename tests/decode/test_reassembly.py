"""
TCP connections, put together again from whatever a capture has of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.frames import ACK, FIN, RST, SYN, Segment, reverse
from kmsproto.decode.reassembly import (
    MAX_DELAY,
    MAX_WAITING,
    MAX_WAITING_SEGMENTS,
    QUIET,
    Direction,
    Reassembler,
)

FLOW = bytes((192, 0, 2, 1, 192, 0, 2, 9, 0xC3, 0x50, 0x06, 0x98))
BACK = reverse(FLOW)


class Notebook:
    """
    Reads a connection, and notes everything down.

    @ivar streams: What came in each direction, without what was missing.
    @ivar lost: How many bytes were missing in each.
    """

    def __init__(self, flow: bytes, midstream: bool) -> None:
        self.flow = flow
        self.midstream = midstream
        self.wanted = True
        self.held = 0
        self.streams = [b"", b""]
        self.lost = [0, 0]
        self.pauses = 0
        self.has_ended = False

    def received(self, direction: int, data: bytes, lost: int, time: int) -> Iterator[str]:
        """
        Take data.
        """
        assert data or lost
        self.streams[direction] += data
        self.lost[direction] += lost
        yield f"{direction}:{data.decode('latin-1')}"

    def paused(self) -> Iterator[str]:
        """
        Take a pause.
        """
        self.pauses += 1
        yield "paused"

    def ended(self) -> Iterator[str]:
        """
        Take the end.
        """
        assert not self.has_ended
        self.has_ended = True
        yield "ended"


class ReassemblyCase(SynchronousTestCase):
    """
    A reassembler whose connections are noted down.
    """

    def setUp(self) -> None:
        """
        Make it.
        """
        self.make()

    def make(self, **bounds: int) -> None:
        """
        Make another one.
        """
        self.opened: list[Notebook] = []
        self.reassembler: Reassembler[str] = Reassembler(self.open, **bounds)

    def open(self, flow: bytes, midstream: bool) -> Notebook:
        """
        Open a notebook.
        """
        self.opened.append(Notebook(flow, midstream))
        return self.opened[-1]

    def add(
        self,
        sequence: int,
        data: bytes = b"",
        flags: int = ACK,
        *,
        flow: bytes = FLOW,
        time: int = 1,
        acknowledgement: int = 0,
    ) -> list[str]:
        """
        Add a segment.
        """
        segment = Segment(flow, sequence % 2**32, acknowledgement, flags, data, 0)
        return list(self.reassembler.add(segment, time))


class StreamTests(ReassemblyCase):
    """
    What becomes of the bytes of a connection.
    """

    def test_both_directions(self) -> None:
        """
        Each direction is one stream, and the connection ends with both.
        """
        self.add(100, flags=SYN)
        self.add(500, flags=SYN | ACK, flow=BACK, acknowledgement=101)
        self.assertEqual(self.add(101, b"ask"), ["0:ask"])
        self.assertEqual(self.add(501, b"answer", flow=BACK), ["1:answer"])
        self.assertEqual(self.add(104, b"bye", ACK | FIN), ["0:bye"])
        self.assertEqual(self.add(507, b"", ACK | FIN, flow=BACK), ["ended"])
        (notebook,) = self.opened
        self.assertEqual(notebook.flow, FLOW)
        self.assertFalse(notebook.midstream)
        self.assertEqual(self.reassembler.connections, 1)
        self.assertEqual(list(self.reassembler.finish()), [])

    def test_out_of_order(self) -> None:
        """
        What comes too early waits for what belongs before it.
        """
        self.add(100, flags=SYN)
        self.assertEqual(self.add(104, b"def"), [])
        self.assertEqual(self.add(107, b"ghi"), [])
        self.assertEqual(self.add(101, b"abc"), ["0:abc", "0:def", "0:ghi"])
        self.assertEqual(self.opened[0].lost, [0, 0])

    def test_repeated(self) -> None:
        """
        Bytes that came already are left out, whether alone or with new ones.
        """
        self.add(100, flags=SYN)
        self.add(101, b"abcdef")
        self.assertEqual(self.add(101, b"abcdef"), [])
        self.assertEqual(self.add(100, b"\0"), [])
        self.assertEqual(self.add(104, b"defghi"), ["0:ghi"])
        self.assertEqual(self.add(113, b"mno"), [])
        self.assertEqual(self.add(113, b"mnopq"), [])
        self.assertEqual(self.add(113, b"m"), [])
        self.assertEqual(self.add(108, b"hijklmn"), ["0:jklmn", "0:o", "0:pq"])
        self.assertEqual(self.reassembler.held, 0)

    def test_numbers_wrap(self) -> None:
        """
        Sequence numbers begin again at zero.
        """
        self.add(2**32 - 3, flags=SYN)
        self.assertEqual(self.add(2**32 + 2, b"ef"), [])
        self.assertEqual(self.add(2**32 - 2, b"abcd"), ["0:abcd", "0:ef"])
        self.assertEqual(self.opened[0].streams[0], b"abcdef")

    def test_midstream(self) -> None:
        """
        A connection whose beginning is missing begins with the first segment that there is.
        """
        self.assertEqual(self.add(777, b"later"), ["0:later"])
        self.assertEqual(self.add(5, b"answer", flow=BACK), ["1:answer"])
        self.assertTrue(self.opened[0].midstream)
        self.assertEqual(self.opened[0].lost, [0, 0])

    def test_handshake_turned_round(self) -> None:
        """
        The two halves of the beginning may come in either order, or one of them not at all; who began it shows.
        """
        self.add(500, flags=SYN | ACK, flow=BACK, acknowledgement=101)
        self.assertEqual(self.add(104, b"def"), [])
        self.add(100, flags=SYN)
        self.assertEqual(self.add(101, b"abc"), ["0:abc", "0:def"])
        self.assertEqual(self.opened[0].flow, FLOW)
        self.assertEqual(len(self.opened), 1)
        self.assertFalse(self.opened[0].midstream)

    def test_repeated_opening(self) -> None:
        """
        The same beginning once more changes nothing, not even when the connection is over.
        """
        for _ in range(2):
            self.add(100, flags=SYN)
            self.add(500, flags=SYN | ACK, flow=BACK, acknowledgement=101)
        self.add(101, b"abc", ACK | FIN)
        self.add(501, b"", ACK | FIN, flow=BACK)
        self.add(100, flags=SYN)
        self.assertEqual(self.add(101, b"abc"), [])
        self.assertEqual(len(self.opened), 1)

    def test_same_ports_again(self) -> None:
        """
        A beginning with another sequence number is that of another connection.
        """
        self.add(100, flags=SYN)
        self.add(101, b"abc")
        self.assertEqual(self.add(105, b"lost before"), [])
        self.assertEqual(self.add(900, flags=SYN), ["0:lost before", "ended"])
        self.assertEqual(self.opened[0].lost, [1, 0])
        self.assertEqual(self.add(901, b"new"), ["0:new"])
        # Also if of its beginning only the answer was seen.
        said = self.add(700, flags=SYN | ACK, flow=BACK, acknowledgement=333)
        self.assertEqual(said, [])
        self.add(1200, flags=SYN | ACK, flow=BACK, acknowledgement=444)
        self.assertEqual(self.add(444, b"newer"), ["0:newer"])
        # Also where of the first one no beginning was seen.
        self.make()
        self.add(101, b"abc")
        self.assertEqual(self.add(900, flags=SYN), ["ended"])
        self.assertEqual(len(self.opened), 2)

    def test_same_ports_without_a_beginning(self) -> None:
        """
        Behind a connection that is over, data elsewhere are those of another one; its own once more are not.
        """
        for sequence in (5000, 2**31 + 5000, 104):
            self.make()
            self.add(100, flags=SYN)
            self.add(101, b"ab", ACK | FIN)
            self.assertEqual(self.add(501, b"x", ACK | FIN, flow=BACK), ["1:x", "ended"])
            self.assertEqual(self.add(101, b"ab", ACK | FIN), [])
            self.assertEqual(self.add(100, b"\0"), [])
            self.assertEqual(len(self.opened), 1)
            self.assertEqual(self.add(sequence, b"new"), ["0:new"])
            self.assertEqual(self.add(9000, b"answer", flow=BACK), ["1:answer"])
            self.assertEqual(self.opened[1].midstream, True)
        self.assertEqual(self.reassembler.connections, 2)

    def test_same_place_twice(self) -> None:
        """
        Of different bytes for the same place those count that came first, also while they wait.
        """
        self.add(100, flags=SYN)
        self.add(104, b"def")
        self.add(104, b"000")
        self.add(104, b"000000")
        self.assertEqual(self.add(101, b"abc"), ["0:abc", "0:def", "0:000"])
        self.assertEqual(self.add(101, b"ZZZ"), [])

    def test_end_comes_early(self) -> None:
        """
        An end that comes before the last bytes does not keep them out.
        """
        self.add(100, flags=SYN)
        self.add(500, flags=SYN | ACK, flow=BACK, acknowledgement=101)
        self.add(501, b"", ACK | FIN, flow=BACK)
        self.assertEqual(self.add(104, b"def", ACK | FIN), [])
        self.assertEqual(self.add(101, b"abc"), ["0:abc", "0:def", "ended"])

    def test_reset(self) -> None:
        """
        A reset opens no connection; its data, if there are any, are no matter either.
        """
        self.assertEqual(self.add(100, b"", RST), [])
        self.assertEqual(self.opened, [])
        self.add(100, flags=SYN)
        self.assertEqual(self.add(101, b"", RST | ACK), [])
        self.assertEqual(self.add(101, b"no such service", RST | ACK), [])
        self.assertEqual(list(self.reassembler.finish()), ["ended"])

    def test_itself(self) -> None:
        """
        A connection of a port with itself has one direction.
        """
        alone = bytes((127, 0, 0, 1)) * 2 + b"\x06\x98" * 2
        self.assertEqual(self.add(1, b"abc", flow=alone), ["0:abc"])
        self.assertEqual(list(self.reassembler.finish()), ["ended"])


class LossTests(ReassemblyCase):
    """
    What becomes of bytes that are missing.
    """

    def test_at_the_end(self) -> None:
        """
        When nothing more comes, what waits is handed on, with how much is missing before it.
        """
        self.add(100, flags=SYN)
        self.add(104, b"def")
        self.add(110, b"jkl")
        self.assertEqual(list(self.reassembler.finish()), ["0:def", "0:jkl", "ended"])
        self.assertEqual(self.opened[0].lost, [6, 0])
        self.assertEqual(self.reassembler.held, 0)

    def test_last_bytes(self) -> None:
        """
        That the last bytes before the end are missing is told.
        """
        self.add(100, flags=SYN)
        self.add(101, b"abc")
        self.add(110, b"", ACK | FIN)
        self.assertEqual(list(self.reassembler.finish()), ["0:", "ended"])
        self.assertEqual(self.opened[0].lost, [6, 0])

    def test_after_a_time(self) -> None:
        """
        Missing bytes are waited for some seconds, not for ever.
        """
        self.add(100, flags=SYN)
        self.add(104, b"def", time=10)
        self.assertEqual(self.add(107, b"ghi", time=10 + MAX_DELAY), [])
        self.assertEqual(self.add(110, b"jkl", time=11 + MAX_DELAY), ["0:def", "0:ghi", "0:jkl"])
        self.assertEqual(self.opened[0].lost, [3, 0])
        self.assertEqual(self.add(101, b"abc"), [])

    def test_bounded(self) -> None:
        """
        Not more than some bytes or segments wait.
        """
        direction = Direction()
        direction.begin(0)
        largest = 0
        ready = 0
        for index in range(1, 400):
            ready += len(direction.add(index * 2000, bytes(1000), 0, False))
            largest = max(largest, direction.held)
        self.assertLessEqual(largest, MAX_WAITING + 2000)
        self.assertGreater(ready, 100)
        many = Direction()
        many.begin(0)
        for index in range(1, 3 * MAX_WAITING_SEGMENTS):
            many.add(index * 2, b"x", 0, False)
        self.assertLess(many.held, 200 * MAX_WAITING_SEGMENTS)

    def test_quiet(self) -> None:
        """
        Who reads a connection that has been quiet for long is told, and reads on when it goes on.
        """
        other = FLOW[:-4] + b"\1\2\3\4"
        self.add(100, flags=SYN)
        self.add(104, b"def", time=1)
        self.assertEqual(self.add(1, flags=SYN, flow=other, time=QUIET), [])
        said = self.add(2, b"x", flow=other, time=QUIET + MAX_DELAY + 2)
        self.assertEqual(said, ["0:def", "paused", "0:x"])
        self.assertEqual(self.opened[0].lost, [3, 0])
        self.assertEqual(self.add(107, b"ghi", time=QUIET + MAX_DELAY + 3), ["0:ghi"])
        self.assertEqual(list(self.reassembler.finish()), ["ended", "ended"])


class BoundsTests(ReassemblyCase):
    """
    What many connections cost.
    """

    def flow(self, number: int) -> bytes:
        """
        Name a connection.
        """
        return FLOW[:4] + number.to_bytes(4, "big") + FLOW[8:]

    def test_connections(self) -> None:
        """
        Of too many connections the one that was quiet for longest is let go.
        """
        self.make(max_connections=3)
        for number in range(3):
            self.add(1, b"x", flow=self.flow(number))
        self.add(2, b"y", flow=self.flow(0))
        self.assertEqual(self.add(1, b"x", flow=self.flow(3)), ["ended", "0:x"])
        self.assertEqual([each.has_ended for each in self.opened], [False, True, False, False])
        self.assertEqual(self.reassembler.evicted, 1)

    def test_quiet_ones_first(self) -> None:
        """
        Those that were found to be quiet go first.
        """
        self.make(max_connections=2)
        self.add(1, b"x", flow=self.flow(0), time=1)
        self.add(1, b"x", flow=self.flow(1), time=2 * QUIET)
        self.add(1, b"x", flow=self.flow(2), time=2 * QUIET)
        self.assertEqual([each.has_ended for each in self.opened], [True, False, False])
        self.assertEqual(self.opened[0].pauses, 1)

    def test_bytes(self) -> None:
        """
        All connections together keep no more than so many bytes.
        """
        self.make(max_held=5000)
        for number in range(20):
            self.add(100, flags=SYN, flow=self.flow(number))
            self.add(200, bytes(1000), flow=self.flow(number))
            self.assertLessEqual(self.reassembler.held, 5000)
        self.assertEqual(self.reassembler.evicted, 16)
        self.assertEqual(self.opened[0].streams[0], bytes(1000))

    def test_what_readers_keep(self) -> None:
        """
        What the readers keep counts too.
        """
        self.make(max_held=5000)
        self.add(1, b"x", flow=self.flow(0))
        self.opened[0].held = 4000
        self.add(2, b"x", flow=self.flow(0))
        self.add(1, b"x", flow=self.flow(1))
        self.opened[1].held = 4000
        self.assertEqual(self.add(2, b"x", flow=self.flow(1)), ["0:x", "ended"])
        self.assertTrue(self.opened[0].has_ended)

    def test_unwanted(self) -> None:
        """
        What nobody wants is neither kept nor handed on, and not opened again.
        """
        self.add(100, flags=SYN)
        self.opened[0].wanted = False
        self.assertEqual(self.add(101, b"abc"), ["ended"])
        self.assertEqual(self.add(200, b"abc"), [])
        self.assertEqual(self.add(1, b"abc", flow=BACK), [])
        self.assertEqual(self.reassembler.held, 0)
        self.assertEqual(len(self.opened), 1)

    def test_over_is_not_evicted(self) -> None:
        """
        A connection that was over when it made room does not count.
        """
        self.make(max_connections=1)
        self.add(1, b"x", ACK | FIN, flow=self.flow(0))
        self.add(1, b"x", ACK | FIN, flow=reverse(self.flow(0)))
        self.assertTrue(self.opened[0].has_ended)
        self.add(1, b"x", flow=self.flow(1))
        self.assertEqual(self.reassembler.evicted, 0)


class PropertyTests(ReassemblyCase):
    """
    Streams come out as they were, however they were cut and whatever became of the segments.
    """

    @settings(max_examples=150)
    @given(
        st.binary(min_size=1, max_size=400),
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(1, 60), min_size=1, max_size=20),
        st.randoms(use_true_random=False),
        st.integers(0, 30),
    )
    def test_any_order(
        self, data: bytes, first: int, sizes: list[int], chance: random.Random, repeated: int
    ) -> None:
        """
        Segments of any sizes, in any order, some of them repeated with other borders, make the same stream.
        """
        self.make()
        pieces = []
        start = 0
        while start < len(data):
            size = sizes[len(pieces) % len(sizes)]
            pieces.append((start, data[start : start + size]))
            start += size
        for _ in range(repeated):
            start = chance.randrange(len(data))
            pieces.append((start, data[start : start + chance.randrange(1, 80)]))
        chance.shuffle(pieces)
        self.add(first, flags=SYN)
        self.add(7, flags=SYN | ACK, flow=BACK, acknowledgement=first + 1)
        for start, piece in pieces:
            self.add(first + 1 + start, piece)
        self.assertEqual(self.opened[0].streams[0], data)
        self.assertEqual(self.opened[0].lost, [0, 0])
        self.assertEqual(self.reassembler.held, 0)

    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.integers(0, 300) | st.integers(0, 2**32 - 1),
                st.integers(0, 63),
                st.binary(max_size=40),
            ),
            max_size=60,
        )
    )
    def test_anything(self, segments: list[tuple[bool, int, int, bytes]]) -> None:
        """
        Segments that make no sense at all raise nothing, and leave nothing behind.
        """
        self.make(max_connections=2, max_held=500)
        for index, (back, sequence, flags, data) in enumerate(segments):
            self.add(sequence, data, flags, flow=BACK if back else FLOW, time=index * 10**9)
            self.assertLessEqual(self.reassembler.held, 500)
        list(self.reassembler.finish())
        self.assertEqual(self.reassembler.held, 0)
        self.assertTrue(all(each.has_ended for each in self.opened))
