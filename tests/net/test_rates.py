"""
How often an address may connect.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.rates import RateLimiter


class RateTests(SynchronousTestCase):
    """
    The buckets.
    """

    def test_burst_and_rate(self) -> None:
        """
        A burst is admitted at once, then as much as the rate gives, and never more than a burst is saved.
        """
        rates = RateLimiter(2.0, 3)
        self.assertEqual([rates.admit("a", 0.0) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertEqual([rates.admit("a", 0.5) for _ in range(2)], [True, False])
        self.assertEqual([rates.admit("a", 1000.0) for _ in range(4)], [True] * 3 + [False])

    def test_rounding(self) -> None:
        """
        Who comes exactly at the rate is always admitted, however the clock is cut.
        """
        rates = RateLimiter(10.0, 1)
        start = 1_794_700_000.0
        self.assertTrue(all(rates.admit("a", start + step * 0.1) for step in range(1000)))

    def test_apart(self) -> None:
        """
        Addresses do not use up each other's tokens.
        """
        rates = RateLimiter(1.0, 1)
        self.assertEqual([rates.admit(each, 0.0) for each in "aab"], [True, False, True])

    def test_clock_goes_back(self) -> None:
        """
        A clock that is set back neither earns tokens nor locks an address out.
        """
        rates = RateLimiter(1.0, 1)
        rates.admit("a", 5000.0)
        self.assertFalse(rates.admit("a", 0.0))
        self.assertTrue(rates.admit("a", 1.0))

    def test_bounded(self) -> None:
        """
        Only so many addresses are remembered, those that came last.
        """
        rates = RateLimiter(1.0, 1, capacity=2)
        for each in ("a", "b", "a", "c"):
            rates.admit(each, 0.0)
        self.assertEqual(len(rates), 2)
        self.assertEqual([rates.admit(each, 0.0) for each in ("a", "b")], [False, True])
