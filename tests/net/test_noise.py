"""
What is suppressed of the lines about noise: the same for each address, summed up in time, in bounded memory.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.noise import Summary, Suppressed

INTERVAL = 60.0
CAPACITY = 3
#: When the tests begin.
NOW = 1000.0


class SummaryTests(SynchronousTestCase):
    """
    L{Summary}.
    """

    def setUp(self) -> None:
        """
        Make a summary with little room.
        """
        self.clock = Clock()
        self.clock.advance(NOW)
        self.told: list[Suppressed] = []
        self.summary = Summary(self.clock, self.told.append, interval=INTERVAL, capacity=CAPACITY)

    def admitted(self, *addresses: str) -> list[bool]:
        """
        Tell of each of some addresses whether its line is written.
        """
        return [self.summary.admit(address) for address in addresses]

    def timers(self) -> int:
        """
        Count the delayed calls.
        """
        return len(self.clock.getDelayedCalls())

    def test_first_is_written(self) -> None:
        """
        The first line about each address is written, and no timer runs for that.
        """
        self.assertEqual(self.admitted("a", "b", "c"), [True, True, True])
        self.assertEqual(self.timers(), 0)
        self.clock.advance(2 * INTERVAL)
        self.summary.flush()
        self.assertEqual(self.told, [])

    def test_others_are_counted(self) -> None:
        """
        What follows is counted, and told once, at the end of the interval that the first line began.
        """
        self.admitted("a", "b")
        self.clock.advance(20)
        self.assertEqual(self.admitted("a", "a", "c", "b"), [False, False, True, False])
        self.assertEqual(self.timers(), 1)
        self.clock.advance(39)
        self.assertEqual(self.told, [])
        self.clock.advance(1)
        self.assertEqual(self.told, [Suppressed(3, 2, NOW)])
        self.assertEqual(self.timers(), 0)

    def test_next_interval(self) -> None:
        """
        After an interval each address is new, whether something had been suppressed in it or not.
        """
        self.admitted("a")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.admitted("a", "a"), [True, False])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.admitted("a"), [True])
        self.assertEqual(self.told, [Suppressed(1, 1, NOW + INTERVAL)])

    def test_many_addresses(self) -> None:
        """
        Addresses beyond the capacity are counted at once, as one more at least.
        """
        self.assertEqual(self.admitted("a", "b", "c", "d", "e", "d"), [True] * 3 + [False] * 3)
        self.assertEqual(len(self.summary._seen), CAPACITY)
        self.summary.flush()
        self.assertEqual(self.told, [Suppressed(3, 1, NOW)])

    def test_flush(self) -> None:
        """
        To flush tells what there is, ends the timer, and begins anew.
        """
        self.admitted("a", "a")
        self.summary.flush()
        self.assertEqual((self.told, self.timers()), ([Suppressed(1, 1, NOW)], 0))
        self.summary.flush()
        self.assertEqual(self.admitted("a"), [True])
        self.assertEqual(len(self.told), 1)

    def test_clock_set_back(self) -> None:
        """
        A clock that was set back does not keep an address quiet until it has caught up.
        """
        self.admitted("a")
        self.clock.rightNow -= 500
        self.assertEqual(self.admitted("a"), [True])

    @given(st.lists(st.one_of(st.sampled_from("abcdefg"), st.floats(0, 100))))
    def test_nothing_lost(self, steps: list[str | float]) -> None:
        """
        Whatever happens, every line is either written or told of, and an address is written once in an interval.
        """
        self.setUp()
        written: dict[str, list[float]] = {}
        lines = 0
        for step in steps:
            if isinstance(step, float):
                self.clock.advance(step)
                continue
            lines += 1
            if self.summary.admit(step):
                written.setdefault(step, []).append(self.clock.seconds())
            self.assertLessEqual(len(self.summary._seen), CAPACITY)
        self.summary.flush()
        suppressed = sum(each.count for each in self.told)
        self.assertEqual(sum(map(len, written.values())) + suppressed, lines)
        self.assertEqual(self.timers(), 0)
        for each in self.told:
            self.assertLessEqual(each.addresses, each.count)
            self.assertGreater(each.addresses, 0)
            until = each.since + INTERVAL
            for times in written.values():
                self.assertLessEqual(sum(each.since <= time < until for time in times), 1)
