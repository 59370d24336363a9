"""
Asking a host as often as a plan says, on many connections at a time, and counting what comes of it.

A L{Load} is a fixed number of workers, one for each connection.  A worker connects, asks until the plan is fulfilled or
its connection ends, and connects again; where each request shall have a connection of its own, it connects for each.
What they share is the plan: a number of requests that all of them take from, a time limit, and a rate.  Everything that
happens is counted in one L{Tally}, whose size does not depend on how long a load lasts.

A failure is a result like any other.  But a worker whose connection failed waits before it makes another one, longer
each time, and when nobody gets an answer any more the load gives up: it shall measure a host, not besiege one.

Latencies are those of requests that were answered, be it with a grant or a refusal, from the moment when they are sent;
where each has a connection of its own, from the moment when that is asked for.  A request that waits for its turn,
because all workers wait for answers, is not sent yet: a host that stalls is asked less, and its latencies tell only of
what was asked.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater

from kmsproto.errors import (
    BindRefusedError,
    ConnectionSpentError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    KMSProtoError,
    LocalProtocolError,
    VerificationError,
)
from kmsproto.kms.messages import RequestBody
from kmsproto.net.client import ActivationClient, ClientOptions, connect

_Result = TypeVar("_Result")

#: Seconds that a worker waits after the first failure of its connection; each further one doubles it.
FIRST_PAUSE = 0.05
#: Seconds that it waits at most.
LONGEST_PAUSE = 1.0
#: Rounds of failures, of all requests that can be on their way at a time, after which a load gives up.
MAX_FAILED_ROUNDS = 3
#: Failures that a load bears in any case.
MIN_FAILURES = 10
#: HRESULTs, and kinds of failures, that are told apart.
MAX_KINDS = 32
#: What stands for those that are not.
OTHERS = "others"
#: The kind of failure of a request on a connection that the host had answered before and then closed.
SPENT = "connection closed behind an answer"
#: Seconds that requests may lag behind their rate and still be made up for.
MAX_LAG = 0.1

#: The answers, and no answers, that leave a connection as it is.
_ANSWERS = (HResultError, FaultError, VerificationError)


class LatencyHistogram:
    """
    Durations, counted in classes whose bounds grow by a constant factor.

    A percentile is the middle of the class that it falls into, and so off by one per cent at most, whatever the
    durations are; minimum, maximum and mean are exact.  Durations below a microsecond or above two hours are counted
    in the first or last class.  The memory is the same for one duration and for a million.
    """

    #: The upper bound of a class is this many times its lower bound.
    FACTOR = 1.02
    #: Seconds: where the first class begins, and where the last one ends.
    SHORTEST = 1e-6
    LONGEST = 7200.0

    def __init__(self) -> None:
        self._log_factor = math.log(self.FACTOR)
        size = math.ceil(math.log(self.LONGEST / self.SHORTEST) / self._log_factor)
        self._classes = [0] * size
        self.count = 0
        self._sum = 0.0
        self._minimum = math.inf
        self._maximum = 0.0

    def add(self, seconds: float) -> None:
        """
        Count a duration; one that is negative, because a clock was set, counts as none at all.
        """
        seconds = max(seconds, 0.0)
        self.count += 1
        self._sum += seconds
        self._minimum = min(self._minimum, seconds)
        self._maximum = max(self._maximum, seconds)
        place = math.log(max(seconds, self.SHORTEST) / self.SHORTEST) / self._log_factor
        self._classes[min(int(place), len(self._classes) - 1)] += 1

    @property
    def minimum(self) -> float:
        """
        The shortest duration, in seconds; 0 if there is none.
        """
        return self._minimum if self.count else 0.0

    @property
    def maximum(self) -> float:
        """
        The longest duration, in seconds.
        """
        return self._maximum

    @property
    def mean(self) -> float:
        """
        The mean, in seconds; 0 if there is none.
        """
        return self._sum / self.count if self.count else 0.0

    def percentile(self, per_cent: float) -> float:
        """
        Tell what so many in a hundred did not exceed, in seconds; 0 if there is none.
        """
        rank = max(1, math.ceil(self.count * per_cent / 100))
        seen = 0
        for place, number in enumerate(self._classes):
            seen += number
            if seen >= rank:
                middle = self.SHORTEST * math.pow(self.FACTOR, place + 0.5)
                return min(max(middle, self.minimum), self.maximum)
        return 0.0


@dataclass(frozen=True)
class LoadPlan:
    """
    What to ask, and how.

    @ivar make_body: Makes the request of a number, counted from 0, just before it is sent.
    @ivar requests: How many requests at most.
    @ivar duration: Seconds after which no further one is sent; L{None} for no such limit.
    @ivar connections: How many are open at a time.
    @ivar fresh: Whether each request has a connection of its own.
    @ivar pipeline: Requests that wait for their answer at the same time, on each connection that is kept.
    @ivar rate: Requests per second at most; L{None} for as many as go.
    @ivar options: How to talk.
    """

    make_body: Callable[[int], RequestBody]
    requests: int
    duration: float | None = None
    connections: int = 1
    fresh: bool = False
    pipeline: int = 1
    rate: float | None = None
    options: ClientOptions = field(default_factory=ClientOptions)

    @property
    def at_once(self) -> int:
        """
        How many requests can be on their way at a time.
        """
        return self.connections * (1 if self.fresh else self.pipeline)


@dataclass
class Tally:
    """
    What has come of a load so far.

    @ivar granted: Requests that were granted, with an answer that passed every check.
    @ivar refused: Requests that were refused, by HRESULT; C{"others"} for those beyond the L{MAX_KINDS}th.
    @ivar failed: Requests that got no good answer, by the kind of failure.
    @ivar latency: How long the answers took.
    @ivar connections: Connections that were made and bound.
    @ivar seconds: How long it has taken, up to now or to the end.
    @ivar cpu_seconds: Processor time of this process meanwhile.
    @ivar gave_up: Why the load ended early; empty if it did not.
    @ivar interrupted: Whether somebody has stopped it.
    """

    granted: int = 0
    refused: dict[int | str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    connections: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gave_up: str = ""
    interrupted: bool = False

    @property
    def answered(self) -> int:
        """
        How many were granted or refused.
        """
        return self.granted + sum(self.refused.values())

    @property
    def done(self) -> int:
        """
        How many have an outcome, of whatever kind.
        """
        return self.answered + sum(self.failed.values())

    @property
    def rate(self) -> float:
        """
        Answers per second.
        """
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    @property
    def cpu_share(self) -> float:
        """
        The part of one processor that this process used.
        """
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0


def kind_of(error: KMSProtoError) -> str:
    """
    Name the kind of a failure, in few words and without anything that differs from one request to the next.
    """
    if isinstance(error, FaultError):
        return f"fault 0x{error.status:08X}"
    if isinstance(error, VerificationError):
        return f"wrong answer ({error.check})"
    if isinstance(error, BindRefusedError):
        return f"bind refused ({error.reason})"
    if isinstance(error, ContextRefusedError):
        return "no context"
    if isinstance(error, HostTimeoutError):
        return "timeout"
    if isinstance(error, HostUnreachableError):
        return _kind_of_connection(error)
    return "protocol error"


def _kind_of_connection(error: HostUnreachableError) -> str:
    if isinstance(error, ConnectionSpentError):
        return SPENT
    cause = error.__cause__
    if cause is None:
        return "connection lost"
    number = getattr(cause, "osError", None) or getattr(cause, "errno", None)
    if number in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE):
        return "no free port or socket on this machine"
    return "connection refused" if number == errno.ECONNREFUSED else "no connection"


async def first_reached(
    clock: IReactorTime, endpoints: Sequence[IStreamClientEndpoint], options: ClientOptions
) -> IStreamClientEndpoint:
    """
    Find the first endpoint where a host accepts a bind.

    @param endpoints: At least one; they are tried one after the other.
    @raise KMSProtoError: What was wrong with the last one, if there is none.
    """
    problem: KMSProtoError | None = None
    for endpoint in endpoints:
        try:
            client = await connect(clock, endpoint, options)
        except KMSProtoError as error:
            problem = error
            continue
        await client.close()
        return endpoint
    assert problem is not None, "there is nothing to try"
    raise problem


class Load:
    """
    Carries a plan out.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param plan: What to ask.
    @param processor_time: Tells the processor time of this process, in seconds.
    @ivar tally: What has come of it so far; L{update} brings its times up to date.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        plan: LoadPlan,
        processor_time: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._plan = plan
        self._processor_time = processor_time
        self._max_failures = max(MIN_FAILURES, MAX_FAILED_ROUNDS * plan.at_once)
        self._taken = 0
        self._failures = 0
        self._begun = 0.0
        self._cpu_begun = 0.0
        self._end = math.inf
        self._next_slot = 0.0
        self._working: Deferred[list[None]] | None = None
        self.tally = Tally()

    def run(self) -> Deferred[Tally]:
        """
        Carry the plan out, once.

        @return: What came of it.  It fails only when a request cannot be written.
        """
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """
        Give up what is on its way, and end; what was counted stays.
        """
        self.tally.interrupted = True
        if self._working is not None and not self._working.called:
            self._working.cancel()

    def update(self) -> Tally:
        """
        Bring the times of the tally up to date.
        """
        self.tally.seconds = max(0.0, self._clock.seconds() - self._begun)
        self.tally.cpu_seconds = self._processor_time() - self._cpu_begun
        return self.tally

    async def _run(self) -> Tally:
        plan = self._plan
        self._begun = self._next_slot = self._clock.seconds()
        self._cpu_begun = self._processor_time()
        if plan.duration is not None:
            self._end = self._begun + plan.duration
        work = self._work_freshly if plan.fresh else self._work
        workers = min(plan.connections, plan.requests)
        self._working = Deferred.fromCoroutine(_all(work() for _ in range(workers)))
        try:
            await self._working
        except CancelledError:
            if not self.tally.interrupted:
                raise
        return self.update()

    # What workers share.

    @property
    def _over(self) -> bool:
        """
        Whether nothing more is to be asked.
        """
        return (
            self._taken >= self._plan.requests
            or self._clock.seconds() >= self._end
            or bool(self.tally.gave_up)
            or self.tally.interrupted
        )

    async def _take(self) -> int | None:
        """
        Take a request from the plan, and wait for its turn.

        @return: Its number, or L{None} if nothing more is to be asked.
        """
        if self._over:
            return None
        number = self._taken
        self._taken += 1
        rate = self._plan.rate
        if rate is not None:
            now = self._clock.seconds()
            slot = self._next_slot = max(self._next_slot, now - MAX_LAG)
            self._next_slot += 1 / rate
            await self._pause(slot - now)
            if self._clock.seconds() >= self._end or self.tally.gave_up:
                return None
        return number

    async def _pause(self, seconds: float) -> None:
        """
        Wait, but not beyond the end.
        """
        left = min(seconds, self._end - self._clock.seconds())
        if left > 0:
            await deferLater(self._clock, left)

    async def _back_off(self, failures: int) -> None:
        """
        Wait after so many failures of a worker in a row, unless nothing more is to be asked.
        """
        if not self._over:
            # The exponent is bounded, so that no number grows with the failures.
            await self._pause(min(FIRST_PAUSE * 2 ** min(failures - 1, 16), LONGEST_PAUSE))

    def _grant(self, begun: float) -> None:
        self._failures = 0
        self.tally.granted += 1
        self.tally.latency.add(self._clock.seconds() - begun)

    def _refuse(self, error: KMSProtoError, begun: float) -> bool:
        """
        Count a request that was not granted.

        @return: Whether its connection is as before.
        @raise LocalProtocolError: If the host has nothing to do with it.
        """
        if isinstance(error, LocalProtocolError):
            raise error
        if isinstance(error, HResultError):
            _count(self.tally.refused, error.hresult)
            self.tally.latency.add(self._clock.seconds() - begun)
        else:
            _count(self.tally.failed, kind_of(error))
        if isinstance(error, _ANSWERS):
            self._failures = 0
            return True
        self._failures += 1
        if self._failures >= self._max_failures and not self.tally.gave_up:
            self.tally.gave_up = f"{self._failures} requests in a row got no answer: {error}"
        return False

    # What a worker does.

    async def _work(self) -> None:
        """
        Ask on a connection for as long as it lasts, and then on the next one.
        """
        failures = 0
        while not self._over:
            client = await self._connected()
            if client is not None:
                try:
                    lanes = await _all(self._ask_on(client) for _ in range(self._plan.pipeline))
                finally:
                    closed = client.close()
                await closed
                if any(lanes):
                    failures = 0
            failures += 1
            await self._back_off(failures)

    async def _connected(self) -> ActivationClient | None:
        """
        Connect; a failure counts as that of one request, if one is left that could have been made.
        """
        begun = self._clock.seconds()
        try:
            client = await connect(self._clock, self._endpoint, self._plan.options)
        except KMSProtoError as error:
            if self._taken < self._plan.requests:
                self._taken += 1
                self._refuse(error, begun)
            return None
        self.tally.connections += 1
        return client

    async def _ask_on(self, client: ActivationClient) -> bool:
        """
        Ask again and again, until the plan is fulfilled or the connection over.

        @return: Whether there was any answer.
        """
        answered = False
        while (number := await self._take()) is not None:
            begun = self._clock.seconds()
            try:
                await client.activate(self._plan.make_body(number))
            except KMSProtoError as error:
                if not self._refuse(error, begun):
                    break
            else:
                self._grant(begun)
            answered = True
        return answered

    async def _work_freshly(self) -> None:
        """
        Ask on one connection after the other.
        """
        failures = 0
        while (number := await self._take()) is not None:
            if await self._ask_freshly(number):
                failures = 0
            else:
                failures += 1
                await self._back_off(failures)

    async def _ask_freshly(self, number: int) -> bool:
        """
        Ask once, on a connection of its own.

        @return: Whether there was an answer.
        """
        begun = self._clock.seconds()
        client = None
        closed: Deferred[None] | None = None
        try:
            client = await connect(self._clock, self._endpoint, self._plan.options)
            self.tally.connections += 1
            await client.activate(self._plan.make_body(number))
        except KMSProtoError as error:
            answered = self._refuse(error, begun)
        else:
            answered = True
            self._grant(begun)
        finally:
            if client is not None:
                closed = client.close()
        if closed is not None:
            await closed
        return answered


def _count(counts: dict[Any, int], kind: int | str) -> None:
    """
    Count one more of a kind.
    """
    if kind not in counts and len(counts) >= MAX_KINDS:
        kind = OTHERS
    counts[kind] = counts.get(kind, 0) + 1


async def _all(coroutines: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """
    Let coroutines run side by side, until all of them have ended.

    To cancel it is to cancel all of them.

    @return: Their results; if any has failed, its error is raised instead.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    results: list[tuple[bool, Any]] = await DeferredList(running, consumeErrors=True)
    for success, result in results:
        if not success:
            raise result.value
    return [result for _, result in results]
