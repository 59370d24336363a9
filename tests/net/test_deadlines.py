"""
One timer for any number of items: order, renewal, and what expiries cause.
"""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.deadlines import Deadlines

LIMIT = 30.0


class DeadlinesTests(SynchronousTestCase):
    """
    What expires, when, and with how many timers.
    """

    def setUp(self) -> None:
        """
        Start a clock, and deadlines that note what expires.
        """
        self.clock = Clock()
        self.expired: list[object] = []
        self.deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, self.expired.append)

    def timers(self) -> int:
        """
        Count the delayed calls.
        """
        return len(self.clock.getDelayedCalls())

    def test_nothing(self) -> None:
        """
        Without items there is no timer.
        """
        self.assertEqual(self.timers(), 0)

    def test_relimit(self) -> None:
        """
        Another limit holds for what is waited for already, counted from its last touch.
        """
        self.deadlines.relimit(LIMIT)
        self.assertEqual(self.timers(), 0)
        self.deadlines.touch("a")
        self.clock.advance(10)
        self.deadlines.touch("b")
        self.deadlines.relimit(15)
        self.clock.advance(4)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, ["a"])
        self.deadlines.relimit(5)
        self.clock.advance(0)
        self.assertEqual(self.expired, ["a", "b"])
        self.assertEqual(self.timers(), 0)

    def test_expiry(self) -> None:
        """
        An item expires when the limit is over, not before, and once.
        """
        self.deadlines.touch("a")
        self.clock.advance(LIMIT - 0.25)
        self.assertEqual(self.expired, [])
        self.clock.advance(0.25)
        self.assertEqual(self.expired, ["a"])
        self.assertEqual(self.timers(), 0)
        self.clock.advance(10 * LIMIT)
        self.assertEqual(self.expired, ["a"])

    def test_order(self) -> None:
        """
        Items expire in the order in which they were touched last.
        """
        for item in "abc":
            self.deadlines.touch(item)
            self.clock.advance(1)
        self.deadlines.touch("a")
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["b", "c", "a"])

    def test_touch_renews(self) -> None:
        """
        An item that is touched again has the whole limit again.
        """
        self.deadlines.touch("a")
        for _ in range(5):
            self.clock.advance(LIMIT - 1)
            self.deadlines.touch("a")
        self.assertEqual(self.expired, [])
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a"])

    def test_touch_renews_that_item_only(self) -> None:
        """
        Renewing one item does not renew another.
        """
        self.deadlines.touch("a")
        self.deadlines.touch("b")
        self.clock.advance(LIMIT - 1)
        self.deadlines.touch("a")
        self.clock.advance(1)
        self.assertEqual(self.expired, ["b"])

    def test_one_timer(self) -> None:
        """
        A thousand items, touched and discarded at any time, need one timer.
        """
        for number in range(1000):
            self.deadlines.touch(number)
            self.clock.advance(0.01)
            self.assertEqual(self.timers(), 1)
        for number in range(0, 1000, 3):
            self.deadlines.touch(number)
            self.deadlines.discard(number + 1)
        self.assertEqual(self.timers(), 1)
        self.clock.pump([0.5] * 200)
        self.assertEqual(self.timers(), 0)
        self.assertEqual(len(self.expired), 667)

    def test_discard(self) -> None:
        """
        A discarded item does not expire.
        """
        self.deadlines.touch("a")
        self.deadlines.touch("b")
        self.deadlines.discard("a")
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["b"])

    def test_discard_last(self) -> None:
        """
        When the last item is discarded, the timer goes too; a new item starts one.
        """
        self.deadlines.touch("a")
        self.deadlines.discard("a")
        self.assertEqual(self.timers(), 0)
        self.deadlines.touch("b")
        self.assertEqual(self.timers(), 1)
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["b"])

    def test_discard_unknown(self) -> None:
        """
        To discard what is not waited for changes nothing, also before any item was.
        """
        self.deadlines.discard("a")
        self.deadlines.touch("b")
        self.deadlines.discard("a")
        self.assertEqual(self.timers(), 1)

    def test_expiry_discards_itself(self) -> None:
        """
        An item may be discarded by its own expiry.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            deadlines.discard(item)

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        deadlines.touch("a")
        deadlines.touch("b")
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a", "b"])
        self.assertEqual(self.timers(), 0)

    def test_expiry_discards_others(self) -> None:
        """
        What an expiry discards does not expire, although it is due.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            deadlines.discard("b")

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        for item in "abc":
            deadlines.touch(item)
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a", "c"])
        self.assertEqual(self.timers(), 0)

    def test_expiry_discards_all_others(self) -> None:
        """
        An expiry that discards everything leaves no timer.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            for other in "bc":
                deadlines.discard(other)

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        deadlines.touch("a")
        self.clock.advance(1)
        deadlines.touch("b")
        deadlines.touch("c")
        self.clock.advance(LIMIT - 1)
        self.assertEqual(self.expired, ["a"])
        self.assertEqual(self.timers(), 0)

    def test_expiry_touches_others(self) -> None:
        """
        What an expiry touches has the whole limit again, and one timer still suffices.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            if item == "a":
                deadlines.touch("b")
                deadlines.touch("new")

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        for item in "abc":
            deadlines.touch(item)
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a", "c"])
        self.assertEqual(self.timers(), 1)
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a", "c", "b", "new"])
        self.assertEqual(self.timers(), 0)

    def test_expiry_touches_itself(self) -> None:
        """
        An expiry that begins anew is called once in each period.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            deadlines.touch(item)

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        deadlines.touch("a")
        self.clock.pump([LIMIT] * 3)
        self.assertEqual(self.expired, ["a"] * 3)
        self.assertEqual(self.timers(), 1)

    def test_late_timer(self) -> None:
        """
        When the timer is late, everything that is due expires at once.
        """
        for item in "abc":
            self.deadlines.touch(item)
            self.clock.advance(1)
        self.clock.advance(5 * LIMIT)
        self.assertEqual(self.expired, ["a", "b", "c"])

    def test_failing_expiry(self) -> None:
        """
        An expiry that raises does not keep later items from expiring.
        """

        def expire(item: object) -> None:
            self.expired.append(item)
            if item == "a":
                raise RuntimeError("of the expiry")

        deadlines: Deadlines[object] = Deadlines(self.clock, LIMIT, expire)
        deadlines.touch("a")
        # A reactor would log it; or the deadlines did.
        with contextlib.suppress(RuntimeError):
            self.clock.advance(LIMIT)
        self.flushLoggedErrors(RuntimeError)
        deadlines.touch("b")
        self.clock.advance(LIMIT)
        self.assertEqual(self.expired, ["a", "b"])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["touch", "discard"]),
                st.integers(0, 5),
                st.integers(0, 40).map(lambda quarters: quarters / 4),
            )
        )
    )
    def test_like_a_timer_each(self, steps: list[tuple[str, int, float]]) -> None:
        """
        Whatever is done, items expire when they would with a timer of their own, and there is one timer at most.
        """
        clock = Clock()
        expired: list[tuple[int, float]] = []
        expected: list[tuple[int, float]] = []
        due: dict[int, float] = {}
        deadlines: Deadlines[int] = Deadlines(
            clock, 4.0, lambda item: expired.append((item, clock.seconds()))
        )
        for step, item, pause in [*steps, ("discard", -1, 100.0)]:
            if step == "touch":
                deadlines.touch(item)
                due[item] = clock.seconds() + 4.0
            else:
                deadlines.discard(item)
                due.pop(item, None)
            self.assertEqual(len(clock.getDelayedCalls()), 1 if due else 0)
            end = clock.seconds() + pause
            for late, when in [each for each in due.items() if each[1] <= end]:
                expected.append((late, when))
                del due[late]
            clock.pump([0.25] * int(pause * 4))
        self.assertEqual(sorted(expired), sorted(expected))
