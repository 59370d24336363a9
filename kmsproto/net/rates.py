"""
How often one address may connect: a token bucket for each, of those that connected last.

Memory is bounded: the address that has been away longest is forgotten, and finds a full bucket when it comes again.
So somebody with thousands of addresses is not held up here; the cap on all connections is for that.
"""

from __future__ import annotations

#: Addresses that are remembered.
ADDRESSES = 4096
#: What rounding may take from a token.
_ROUNDING = 1e-3


class RateLimiter:
    """
    Admits what an address asks for, as long as it does not ask too often.

    @param rate: How often per second in the long run; more than 0.
    @param burst: How often at once; at least 1.
    @param capacity: Addresses that are remembered; at least 1.
    """

    def __init__(self, rate: float, burst: int, capacity: int = ADDRESSES) -> None:
        self.rate = rate
        self.burst = burst
        self._capacity = capacity
        #: Tokens, and when they were counted, by address; the one longest away first.
        self._buckets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        """
        Tell how many addresses are remembered.
        """
        return len(self._buckets)

    def admit(self, address: str, now: float) -> bool:
        """
        Take a token of an address, if it has one.

        @param now: The time in seconds; one that goes back earns nothing.
        @return: Whether it had one.
        """
        buckets = self._buckets
        tokens, counted = buckets.pop(address, (self.burst, now))
        tokens = min(float(self.burst), tokens + max(now - counted, 0.0) * self.rate)
        admitted = tokens >= 1 - _ROUNDING
        if len(buckets) >= self._capacity:
            del buckets[next(iter(buckets))]
        buckets[address] = (tokens - 1 if admitted else tokens, now)
        return admitted
