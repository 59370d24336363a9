"""
Noise: peers that never ask for an activation, such as the scanners that a port in the open meets all day.

Each of their connections would be a line that tells nothing new.  So the first line about an address is written, and
what follows in the same interval is only counted; one line at its end says how much that was.

Work per event is constant, and so is memory: only so many addresses are remembered in an interval, and lines about
others are counted at once.  An interval begins with the first line after the last one, and a timer runs only when there
is something to sum up, so a host without noise has neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds of an interval.
INTERVAL = 60.0
#: Addresses that are remembered in an interval.
CAPACITY = 4096


@dataclass(slots=True, frozen=True)
class Suppressed:
    """
    What was not written in an interval.

    @ivar count: Lines.
    @ivar addresses: Addresses that they were about; when there were too many to remember, at least so many.
    @ivar since: When the interval began, in the seconds of the clock.
    """

    count: int
    addresses: int
    since: float


class Summary:
    """
    Decides which lines about noise are written, and sums up the others.

    @param clock: The source of time.
    @param tell: Takes what was suppressed, at the end of each interval in which something was.
    @param interval: Seconds.
    @param capacity: Addresses that are remembered at most.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tell: Callable[[Suppressed], None],
        *,
        interval: float = INTERVAL,
        capacity: int = CAPACITY,
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._interval = interval
        self._capacity = capacity
        self._since = -inf
        # The addresses of this interval, and of each whether a line about it was suppressed.
        self._seen: dict[str, bool] = {}
        self._count = 0
        self._addresses = 0
        self._overflow = False
        self._timer: IDelayedCall | None = None

    def admit(self, address: str) -> bool:
        """
        Take an event about an address.

        @return: Whether its line is to be written; if not, it was counted.
        """
        now = self._clock.seconds()
        seen = self._seen
        # A clock that was set back must not make an interval longer.
        if self._timer is None and not 0 <= now - self._since < self._interval:
            self._since = now
            seen.clear()
        if address in seen:
            if not seen[address]:
                seen[address] = True
                self._addresses += 1
        elif len(seen) < self._capacity:
            seen[address] = False
            return True
        else:
            self._overflow = True
        self._count += 1
        if self._timer is None:
            self._timer = self._clock.callLater(self._since + self._interval - now, self._due)
        return False

    def flush(self) -> None:
        """
        End the interval now, and tell what it had.  What comes later begins another.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        suppressed = Suppressed(self._count, self._addresses + self._overflow, self._since)
        self._seen.clear()
        self._since = -inf
        self._count, self._addresses, self._overflow = 0, 0, False
        if suppressed.count:
            self._tell(suppressed)

    def _due(self) -> None:
        self._timer = None
        self.flush()
