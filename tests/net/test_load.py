"""
A load on a host in memory: what is asked when, what is counted, and when it ends.

Time is a clock that the tests move; the hosts answer at once, after a while, or never.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kmsproto.errors import (
    BindRefusedError,
    ConnectionSpentError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant
from kmsproto.net.client import ClientOptions
from kmsproto.net.load import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_KINDS,
    MAX_LAG,
    MIN_FAILURES,
    OTHERS,
    LatencyHistogram,
    Load,
    LoadPlan,
    Tally,
    first_reached,
    kind_of,
)
from kmsproto.rpc import calls
from tests.net.client_wiring import ClientCase, MemoryEndpoint, OddHost, ScriptedHost
from tests.net.wiring import body, returning

#: What an endpoint says of a port that nobody listens on.
REFUSED = error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@implementer(IStreamClientEndpoint)
class CountingEndpoint:
    """
    Takes note of when it is asked to connect, and leaves the rest to others.

    @param seconds: Tells the time.
    @param connect: Connects.
    """

    def __init__(
        self, seconds: Callable[[], float], connect: Callable[[IProtocolFactory], Deferred[Any]]
    ) -> None:
        self._seconds = seconds
        self._connect = connect
        self.times: list[float] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Connect.
        """
        self.times.append(self._seconds())
        return self._connect(protocolFactory)


class LoadCase(ClientCase):
    """
    A load, a host, and a clock that moves in small steps.
    """

    def setUp(self) -> None:
        """
        Take note of what is asked.
        """
        super().setUp()
        self.begun = self.clock.seconds()
        self.asked: list[tuple[int, float]] = []
        self.on_their_way = 0
        self.most_on_their_way = 0
        self.processor_time = 0.0

    @property
    def now(self) -> float:
        """
        Seconds since the beginning.
        """
        return self.clock.seconds() - self.begun

    def make_body(self, number: int) -> RequestBody:
        """
        Make a request, and take note of it.
        """
        self.asked.append((number, self.now))
        return body()

    def answering(self, decision: object, after: float = 0.0) -> None:
        """
        Use a host that decides like this after so many seconds.
        """

        def policy(*_: object) -> Any:
            self.on_their_way += 1
            self.most_on_their_way = max(self.most_on_their_way, self.on_their_way)
            return deferLater(self.clock, after, decide)

        def decide() -> object:
            self.on_their_way -= 1
            return decision() if callable(decision) else decision

        self.factory = self.make_factory(policy=policy)

    def begin(self, requests: int, endpoint: Any = None, **plan: Any) -> Load:
        """
        Begin a load.
        """
        options = plan.pop("options", ClientOptions(timeout=1.0))
        make = plan.pop("make_body", self.make_body)
        self.load = Load(
            self.clock,
            endpoint or self.endpoint,
            LoadPlan(make, requests, options=options, **plan),
            lambda: self.processor_time,
        )
        self.running = self.load.run()
        self.flush()
        return self.load

    def move(self, seconds: float, step: float = 0.005) -> None:
        """
        Let time pass, as long as the load runs.
        """
        for _ in range(math.ceil(seconds / step)):
            if self.running.called:
                return
            self.clock.advance(step)
            self.flush()

    def end(self, seconds: float = 60.0) -> Tally:
        """
        Let time pass until the load ends, and see that nothing of it is left.
        """
        self.move(seconds)
        tally = self.successResultOf(self.running)
        assert isinstance(tally, Tally)
        for pump in self.endpoint.pumps:
            pump.flush()
            self.assertTrue(pump.clientIO.disconnected, "a connection is open")
        self.assertTimers(0)
        return tally

    def run_load(self, requests: int, endpoint: Any = None, **plan: Any) -> Tally:
        """
        Begin a load, and wait for its end.
        """
        self.begin(requests, endpoint, **plan)
        return self.end()


class HistogramTests(SynchronousTestCase):
    """
    Percentiles in constant memory.
    """

    @given(
        st.lists(st.floats(1e-6, 7000), min_size=1, max_size=200),
        st.sampled_from([1, 50, 90, 99, 100]),
    )
    @example([1.0], 50)
    @example([1e-6, 7000.0], 100)
    @settings(max_examples=200, deadline=None)
    def test_error(self, durations: list[float], per_cent: int) -> None:
        """
        A percentile is that of the durations themselves, with an error of one per cent at most; the rest is exact.
        """
        histogram = LatencyHistogram()
        for each in durations:
            histogram.add(each)
        exact = sorted(durations)[math.ceil(len(durations) * per_cent / 100) - 1]
        self.assertLessEqual(abs(histogram.percentile(per_cent) - exact), exact * 0.01)
        self.assertEqual(histogram.count, len(durations))
        self.assertEqual((histogram.minimum, histogram.maximum), (min(durations), max(durations)))
        self.assertAlmostEqual(histogram.mean, sum(durations) / len(durations), places=6)

    def test_empty(self) -> None:
        """
        Without durations everything is 0.
        """
        empty = LatencyHistogram()
        self.assertEqual(
            (empty.count, empty.minimum, empty.mean, empty.percentile(99), empty.maximum),
            (0, 0, 0, 0, 0),
        )

    def test_extremes(self) -> None:
        """
        Durations that no class is made for are counted in the nearest, and percentiles stay within what was met.
        """
        histogram = LatencyHistogram()
        for each in (-5.0, 0.0, 1e-9, 1e9):
            histogram.add(each)
        self.assertEqual((histogram.minimum, histogram.maximum), (0.0, 1e9))
        self.assertLess(histogram.percentile(75), 2e-6)
        self.assertGreater(histogram.percentile(100), 7000)


class PlanTests(LoadCase):
    """
    What is asked, and when.
    """

    def test_all_granted(self) -> None:
        """
        Each request of the plan is asked once, in order, and counted; connections are kept.
        """
        tally = self.run_load(100, connections=4)
        self.assertEqual([number for number, _ in self.asked], list(range(100)))
        self.assertEqual((tally.granted, tally.answered, tally.done), (100, 100, 100))
        self.assertEqual((tally.refused, tally.failed, tally.connections), ({}, {}, 4))
        self.assertEqual((tally.gave_up, tally.interrupted), ("", False))
        self.assertEqual(len(self.endpoint.pumps), 4)

    def test_latency(self) -> None:
        """
        A latency is the time from a request to its answer, and the rate is that of the answers.
        """
        self.answering(Grant(50), 0.04)
        tally = self.run_load(20, connections=2)
        self.assertAlmostEqual(tally.latency.minimum, 0.04, places=3)
        self.assertAlmostEqual(tally.latency.maximum, 0.04, places=3)
        self.assertAlmostEqual(tally.seconds, 0.4, places=3)
        self.assertAlmostEqual(tally.rate, 50, places=1)

    def test_at_once(self) -> None:
        """
        As many requests are on their way as the plan says, and never more.
        """
        for plan, at_once in (
            ({"connections": 3}, 3),
            ({"connections": 3, "pipeline": 5}, 15),
            ({"connections": 3, "fresh": True}, 3),
            ({"connections": 200}, 40),
        ):
            self.setUp()
            self.answering(Grant(50), 0.02)
            tally = self.run_load(40, **plan)
            self.assertEqual((tally.granted, self.most_on_their_way), (40, at_once), plan)

    def test_fresh(self) -> None:
        """
        Each request can have a connection of its own, which is closed behind it.
        """
        self.answering(Grant(50), 0.02)
        self.begin(10, connections=2, fresh=True)
        self.move(0.05)
        closed = [pump.clientIO.disconnected for pump in self.endpoint.pumps]
        self.assertEqual((closed.count(False), closed.count(True)), (2, 4))
        tally = self.end()
        self.assertEqual((tally.granted, tally.connections), (10, 10))

    def test_fewer_requests_than_connections(self) -> None:
        """
        No connection is made that nothing would be asked on.
        """
        tally = self.run_load(3, connections=8)
        self.assertEqual((tally.granted, len(self.endpoint.pumps)), (3, 3))

    def test_duration(self) -> None:
        """
        When the time is over nothing more is asked, and what is on its way is waited for.
        """
        self.answering(Grant(50), 0.2)
        tally = self.run_load(1000, connections=2, duration=0.5)
        self.assertEqual(tally.granted, 6)
        self.assertLess(max(when for _, when in self.asked), 0.5)
        self.assertAlmostEqual(tally.seconds, 0.6, places=2)

    def test_rate(self) -> None:
        """
        A rate spaces the requests, whatever the number of connections.
        """
        for plan in ({}, {"pipeline": 4}, {"fresh": True}):
            self.setUp()
            tally = self.run_load(21, connections=3, rate=50.0, **plan)
            self.assertEqual(tally.granted, 21)
            self.assertAlmostEqual(tally.seconds, 0.4, places=2)
            for number, when in self.asked:
                self.assertGreaterEqual(when, number / 50.0 - 0.001)

    def test_slow_rate_and_duration(self) -> None:
        """
        Nobody waits for a turn that comes after the end.
        """
        tally = self.run_load(100, connections=8, rate=2.0, duration=1.2)
        self.assertEqual(tally.granted, 3)
        self.assertAlmostEqual(tally.seconds, 1.2, places=2)

    def test_lag(self) -> None:
        """
        Requests that were held up are made up for, but those of a tenth of a second at most.
        """
        hold = iter([0.5])
        self.factory = self.make_factory(
            policy=lambda *_: deferLater(self.clock, next(hold, 0.0), Grant, 50)
        )
        tally = self.run_load(101, rate=100.0)
        self.assertEqual(tally.granted, 101)
        at_once = [when for _, when in self.asked if 0.5 <= when < 0.5 + 0.02]
        self.assertLessEqual(len(at_once), 100 * MAX_LAG + 4)
        self.assertAlmostEqual(tally.seconds, 0.5 - MAX_LAG + 1.0, places=1)


class FailureTests(LoadCase):
    """
    What is counted when things go wrong, and how long it goes on.
    """

    def test_refusals(self) -> None:
        """
        Refusals are counted by HRESULT, have a latency, and leave the connection.
        """
        decisions = iter([HResult(0xC004F042), Grant(50), HResult(0xC004F042), HResult(0x80070005)])
        self.answering(lambda: next(decisions))
        tally = self.run_load(4)
        self.assertEqual(tally.refused, {0xC004F042: 2, 0x80070005: 1})
        self.assertEqual((tally.granted, tally.connections, tally.latency.count), (1, 1, 4))

    def test_kinds_are_bounded(self) -> None:
        """
        A host that has a new HRESULT for each request does not make the tally grow.
        """
        numbers = iter(range(0x80040000, 0x80050000))
        self.answering(lambda: HResult(next(numbers)))
        tally = self.run_load(100)
        self.assertEqual(len(tally.refused), MAX_KINDS + 1)
        self.assertEqual(tally.refused[OTHERS], 100 - MAX_KINDS)
        self.assertEqual(tally.answered, 100)

    def test_wrong_answers(self) -> None:
        """
        An answer that fails a check is a failure of its request alone.
        """
        self.use(lambda: OddHost(returning(bytes(8))))
        tally = self.run_load(50)
        self.assertEqual(tally.failed, {"wrong answer (stub)": 50})
        self.assertEqual((tally.connections, tally.gave_up, tally.latency.count), (1, "", 0))

    def test_connections_that_end(self) -> None:
        """
        A connection that the host ends is made anew, after a pause.
        """

        class Leaving(OddHost):
            """
            Leaves at the second call.
            """

            def __init__(inner) -> None:
                super().__init__(inner.leave)
                inner.count = 0

            def leave(inner, call: calls.Call) -> bytes | None:
                """
                Answer a call wrongly, and leave at the next.
                """
                inner.count += 1
                if inner.count == 2:
                    inner.transport.loseConnection()
                    return None
                return b""

        self.use(Leaving)
        endpoint = CountingEndpoint(lambda: self.now, self.endpoint.connect)
        tally = self.run_load(6, endpoint)
        self.assertEqual(
            tally.failed, {"wrong answer (stub)": 3, "connection closed behind an answer": 3}
        )
        self.assertEqual(tally.connections, 3)
        first, second, third = endpoint.times
        self.assertAlmostEqual(second - first, FIRST_PAUSE, places=2)
        self.assertAlmostEqual(third - second, FIRST_PAUSE, places=2)

    def test_refused_connections(self) -> None:
        """
        Where no connection can be made, attempts are rarer and rarer, and given up in the end.
        """
        for plan in ({}, {"fresh": True}, {"pipeline": 2}):
            self.setUp()
            endpoint = CountingEndpoint(lambda: self.now, lambda _: fail(REFUSED))
            tally = self.run_load(10_000, endpoint, **plan)
            self.assertEqual(tally.failed, {"connection refused": MIN_FAILURES})
            self.assertIn(
                f"{MIN_FAILURES} requests in a row got no answer: no connection: ", tally.gave_up
            )
            times = endpoint.times
            self.assertEqual(len(times), MIN_FAILURES)
            pauses = [later - earlier for earlier, later in pairwise(times)]
            for earlier, later in pairwise(pauses):
                self.assertGreaterEqual(later, earlier - 0.006)
            self.assertAlmostEqual(pauses[0], FIRST_PAUSE, places=2)
            self.assertAlmostEqual(pauses[-1], LONGEST_PAUSE, places=2)

    def test_late_connection(self) -> None:
        """
        A connection that fails when no request is left for it is none of the requests that were planned.
        """
        late: Deferred[Any] = Deferred()
        connecting = iter([None, late])
        endpoint = CountingEndpoint(
            lambda: self.now, lambda factory: next(connecting) or self.endpoint.connect(factory)
        )
        self.begin(3, endpoint, connections=2)
        self.move(0.1)
        late.errback(REFUSED)
        tally = self.end()
        self.assertEqual((tally.granted, tally.done, tally.failed), (3, 3, {}))

    def test_no_tight_loop(self) -> None:
        """
        Many workers without a host do not ask more often than their pauses allow.
        """
        endpoint = CountingEndpoint(lambda: self.now, lambda _: fail(REFUSED))
        self.run_load(10_000, endpoint, connections=50)
        # Three rounds and the rest of the one in which that was found.
        self.assertLessEqual(len(endpoint.times), 4 * 50)
        early = [when for when in endpoint.times if when < FIRST_PAUSE]
        self.assertEqual(len(early), 50)

    def test_silence(self) -> None:
        """
        A host that does not answer costs its time limit for each round, and is given up after three.
        """
        self.factory = self.make_factory(policy=lambda *_: Deferred())
        tally = self.run_load(10_000, connections=4, pipeline=2)
        self.assertEqual(tally.failed, {"timeout": 24})
        self.assertIn("24 requests in a row got no answer", tally.gave_up)
        self.assertLess(tally.seconds, 4)

    def test_answers_between_failures(self) -> None:
        """
        Whoever answers now and then is not given up.
        """
        # One call in three is never answered: its connection ends with it.
        counter = iter(range(1000))
        self.factory = self.make_factory(
            policy=lambda *_: Deferred() if next(counter) % 3 == 2 else Grant(50)
        )
        tally = self.run_load(90)
        self.assertEqual((tally.granted, tally.failed), (60, {"timeout": 30}))
        self.assertEqual(tally.gave_up, "")

    def test_requests_are_not_repeated(self) -> None:
        """
        The plan's number of requests holds, failures included.
        """
        self.factory = self.make_factory(policy=lambda *_: Deferred())
        tally = self.run_load(5, connections=2)
        self.assertEqual(tally.done, 5)

    def test_request_that_cannot_be_written(self) -> None:
        """
        A mistake of our own is not counted as one of the host's.
        """
        for fresh in (False, True):
            self.setUp()
            self.begin(
                10, connections=2, fresh=fresh, make_body=lambda _: body(workstation="x" * 64)
            )
            self.failureResultOf(self.running, LocalProtocolError)
            self.flush()
            self.assertTrue(all(pump.clientIO.disconnected for pump in self.endpoint.pumps))

    def test_kinds(self) -> None:
        """
        Every failure has a name that does not differ between requests.
        """

        def unreachable(cause: BaseException | None) -> HostUnreachableError:
            made = HostUnreachableError("no connection: x")
            made.__cause__ = cause
            return made

        cases: list[tuple[KMSProtoError, str]] = [
            (FaultError(5, "access denied"), "fault 0x00000005"),
            (VerificationError("HMAC", "it is wrong"), "wrong answer (HMAC)"),
            (BindRefusedError(2, "x"), "bind refused (2)"),
            (ContextRefusedError("x"), "no context"),
            (HostTimeoutError("x"), "timeout"),
            (RemoteProtocolError("call 17"), "protocol error"),
            (unreachable(None), "connection lost"),
            (ConnectionSpentError("x"), "connection closed behind an answer"),
            (unreachable(REFUSED), "connection refused"),
            (unreachable(error.NoRouteError(errno.EHOSTUNREACH, "x")), "no connection"),
            (unreachable(ValueError("x")), "no connection"),
        ]
        for number in (errno.EADDRNOTAVAIL, errno.EMFILE):
            for cause in (error.ConnectError(number, "x"), OSError(number, "x")):
                cases.append((unreachable(cause), "no free port or socket on this machine"))
        for problem, kind in cases:
            self.assertEqual(kind_of(problem), kind)


class StopTests(LoadCase):
    """
    Loads that somebody ends.
    """

    def test_stop(self) -> None:
        """
        What was counted stays, what is on its way is dropped, and its connections are closed.
        """
        for plan in ({}, {"fresh": True}, {"pipeline": 3}):
            self.setUp()
            self.answering(Grant(50), 0.1)
            load = self.begin(1000, connections=2, **plan)
            self.move(0.25)
            load.stop()
            tally = self.end(1.0)
            at_once = 2 * plan.get("pipeline", 1)
            self.assertEqual((tally.granted, tally.failed), (2 * at_once, {}))
            self.assertTrue(tally.interrupted)
            self.assertAlmostEqual(tally.seconds, 0.25, places=2)

    def test_stop_while_waiting(self) -> None:
        """
        Nobody goes on waiting for a turn, or for the end of a pause.
        """
        refusing = CountingEndpoint(lambda: self.now, lambda _: fail(REFUSED))
        for endpoint, plan in ((None, {"rate": 0.1}), (refusing, {})):
            self.setUp()
            load = self.begin(1000, endpoint, connections=3, **plan)
            self.move(0.2)
            load.stop()
            load.stop()
            self.assertTrue(self.end(0.1).interrupted)

    def test_stop_while_connecting(self) -> None:
        """
        An attempt to connect is given up.
        """
        waiting: Deferred[Any] = Deferred()
        load = self.begin(10, CountingEndpoint(lambda: self.now, returning(waiting)))
        load.stop()
        self.assertEqual(self.end(0.1).done, 0)
        self.assertTrue(waiting.called)

    def test_times_meanwhile(self) -> None:
        """
        The times can be brought up to date while it runs; processor time is that since the beginning.
        """
        self.processor_time = 7.0
        self.answering(Grant(50), 0.1)
        load = self.begin(4)
        self.move(0.2)
        self.processor_time += 0.05
        self.assertAlmostEqual(load.update().seconds, 0.2, places=3)
        self.assertAlmostEqual(load.tally.cpu_share, 0.25, places=2)
        self.end()

    def test_no_time(self) -> None:
        """
        A load that took no time has no rate and no share.
        """
        tally = Tally(granted=1)
        self.assertEqual((tally.rate, tally.cpu_share), (0.0, 0.0))


class ReachingTests(ClientCase):
    """
    Which of several addresses is used.
    """

    def reach(self, *endpoints: Any) -> Deferred[Any]:
        """
        Look for the first that accepts a bind.
        """
        reaching = Deferred.fromCoroutine(first_reached(self.clock, endpoints, ClientOptions()))
        self.flush()
        return reaching

    def endpoints(self) -> tuple[Any, Any]:
        """
        Make an endpoint without a host, and one where something else listens.
        """
        refusing = CountingEndpoint(self.clock.seconds, lambda _: fail(REFUSED))
        return refusing, MemoryEndpoint(lambda: ScriptedHost(b"HTTP/1.1 400 Bad Request\r\n"))

    def test_first(self) -> None:
        """
        It is the first where a host is; the connection that showed it is closed.
        """
        refusing, _ = self.endpoints()
        never = CountingEndpoint(self.clock.seconds, lambda _: succeed(None))
        self.assertIs(
            self.successResultOf(self.reach(refusing, self.endpoint, never)), self.endpoint
        )
        self.assertEqual(never.times, [])
        self.assertClosed()

    def test_none(self) -> None:
        """
        If there is none, the last one's error tells.
        """
        refusing, other = self.endpoints()
        reaching = self.reach(other, refusing)
        other.pumps[0].flush()
        self.failureResultOf(reaching, HostUnreachableError)
        refusing, other = self.endpoints()
        reaching = self.reach(refusing, other)
        other.pumps[0].flush()
        self.failureResultOf(reaching, RemoteProtocolError)
