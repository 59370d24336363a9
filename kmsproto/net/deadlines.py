"""
One timer for any number of connections that share a time limit.

All limits are equal, so the order in which they expire is the order in which they were set: a dictionary keeps it, a
connection that gets on moves to the end, and one delayed call waits for the first.  Work per connection and per
answer does not grow with the number of connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_Item = TypeVar("_Item")


class Deadlines(Generic[_Item]):
    """
    Tells when an item was not touched for a time.

    @param clock: The source of time.
    @param limit: The time, in seconds.
    @param expire: Called with each item whose time is over, after it was forgotten.
    """

    def __init__(self, clock: IReactorTime, limit: float, expire: Callable[[_Item], None]) -> None:
        self._clock = clock
        self._limit = limit
        self._expire = expire
        #: What is waited for, with the time of its last touch; the oldest first.  For looking at only.
        self.items: dict[_Item, float] = {}
        self._timer: IDelayedCall | None = None

    def touch(self, item: _Item, now: float | None = None) -> None:
        """
        Begin, or begin anew, to wait for an item.

        @param now: The time of the clock, where that was read already.
        """
        self.items.pop(item, None)
        self.items[item] = self._clock.seconds() if now is None else now
        if self._timer is None:
            self._timer = self._clock.callLater(self._limit, self._sweep)

    def discard(self, item: _Item) -> None:
        """
        No longer wait for an item, if it is waited for.
        """
        self.items.pop(item, None)
        if self.items:
            return
        timer = self._timer
        if timer is not None and timer.active():
            timer.cancel()
            self._timer = None

    def relimit(self, limit: float) -> None:
        """
        Let another limit hold, for what is waited for already too.

        @param limit: The time, in seconds.
        """
        self._limit = limit
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
            self._timer = self._clock.callLater(0, self._sweep)

    def _sweep(self) -> None:
        """
        Expire what is due, then wait for the next.

        The timer that called stays in its place meanwhile, so that an item which is touched by what an expiry causes
        does not start another.
        """
        now = self._clock.seconds()
        left = 0.0
        try:
            while self.items:
                item, touched = next(iter(self.items.items()))
                left = max(touched + self._limit - now, 0.0)
                if left:
                    break
                del self.items[item]
                self._expire(item)
        finally:
            # Also when an expiry fails, the others are still due.
            self._timer = self._clock.callLater(left, self._sweep) if self.items else None
