"""
What policies may return, when they may return it, and what becomes of calls that wait for a decision.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed

from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer
from tests.net.wiring import (
    BROKEN,
    FAULT_UNSPEC,
    NOW,
    PEER,
    PRODUCT_REFUSED,
    PROTO_ERROR,
    HostCase,
    Questions,
    bind,
    body,
    call,
    calls,
    granted,
    host_lines,
    payload,
    returning,
)


class PolicyTests(HostCase):
    """
    What a policy may return, and when.
    """

    def host_with(self, make: Callable[[int], object]) -> Questions:
        """
        Replace the host by one that asks this.
        """
        questions = Questions(make)
        self.factory = self.make_factory(policy=questions)
        return questions

    def test_function(self) -> None:
        """
        A function is asked with the request, the peer and the time.
        """
        asked: list[tuple[RequestBody, Peer, float]] = []

        def policy(request: RequestBody, peer: Peer, now: float) -> HResult:
            asked.append((request, peer, now))
            return HResult.PRODUCT_REFUSED

        self.factory = self.make_factory(policy=policy)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED)])
        self.assertEqual(asked, [(body(), Peer(PEER, 50123), NOW)])

    def test_coroutine(self) -> None:
        """
        A coroutine that waits for something is waited for.
        """
        waiting: Deferred[int] = Deferred()

        async def decide() -> Grant:
            return Grant(await waiting)

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [])
        waiting.callback(33)
        self.assertEqual(wire.replies(), granted(2))

    def test_coroutine_that_does_not_wait(self) -> None:
        """
        A coroutine that waits for nothing answers at once.
        """

        async def decide() -> HResult:
            return HResult.ACCESS_DENIED

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, HResult.ACCESS_DENIED)])

    def test_deferred_fired_already(self) -> None:
        """
        A Deferred that has fired already answers at once.
        """
        self.host_with(lambda _: succeed(Grant(50)))
        wire = self.bound()
        wire.send(calls(3))
        self.assertEqual(wire.replies(), granted(2, 3, 4))

    def test_deferred_that_fires_later(self) -> None:
        """
        A Deferred is waited for, and refuses or grants.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.host_with(waiting.__getitem__)
        wire = self.bound()
        wire.send(calls(2))
        waiting[0].callback(HResult.PRODUCT_REFUSED)
        waiting[1].callback(Grant(50))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED), *granted(3)])

    def test_fired_already_with_a_full_segment(self) -> None:
        """
        A segment full of calls is answered when every decision is a Deferred that has fired.
        """
        for multiplexed in (False, True):
            with self.subTest(multiplexed=multiplexed):
                self.host_with(lambda _: succeed(Grant(50)))
                wire = self.bound(multiplexed=multiplexed)
                wire.send(calls(220))
                self.assertEqual(wire.replies(), granted(*range(2, 222)))

    def test_coroutines_with_a_full_segment(self) -> None:
        """
        A segment full of calls is answered when every decision is a coroutine that waits for nothing.
        """

        async def decide() -> Grant:
            return Grant(50)

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(calls(220))
        self.assertEqual(wire.replies(), granted(*range(2, 222)))

    def test_mixed_with_a_full_segment(self) -> None:
        """
        Answers keep the order of the calls without multiplexing, however each decision is made.
        """

        async def decide() -> Grant:
            return Grant(50)

        kinds: list[Callable[[], object]] = [lambda: Grant(50), lambda: succeed(Grant(50)), decide]
        self.host_with(lambda number: kinds[number % 3]())
        wire = self.bound()
        wire.send(calls(30))
        self.assertEqual(wire.replies(), granted(*range(2, 32)))

    def test_order_without_multiplexing(self) -> None:
        """
        Without multiplexing the next call is not even asked about before the answer.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(5)]
        questions = self.host_with(waiting.__getitem__)
        wire = self.bound()
        wire.send(calls(5))
        for number, each in enumerate(waiting):
            self.assertEqual(len(questions.asked), number + 1)
            each.callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2, 3, 4, 5, 6))

    def test_any_order_with_multiplexing(self) -> None:
        """
        With multiplexing answers come in the order of the decisions.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(5)]
        questions = self.host_with(waiting.__getitem__)
        wire = self.bound(multiplexed=True)
        wire.send(calls(5))
        self.assertEqual(len(questions.asked), 5)
        for number in (3, 0, 4, 2, 1):
            waiting[number].callback(Grant(50))
        self.assertEqual(wire.replies(), granted(5, 2, 6, 4, 3))

    def test_fast_call_overtakes(self) -> None:
        """
        With multiplexing a call that is decided at once is answered while another waits.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound(multiplexed=True)
        wire.send(calls(3))
        self.assertEqual(wire.replies(), granted(3, 4))
        waiting.callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2))

    def test_cancelled_when_the_peer_leaves(self) -> None:
        """
        When the peer leaves, decisions that nobody waits for any more are cancelled, and one line says so.
        """
        cancelled: list[Deferred[object]] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(3))
        with host_lines() as lines:
            wire.leave()
        self.assertEqual((len(cancelled), wire.replies(), len(lines)), (3, [], 1))
        self.assertIn("the peer left: a call waits for its decision", lines[0])

    def test_answered_before_the_end(self) -> None:
        """
        A decision that is ready is answered before what stands behind its call in the segment ends the connection.
        """

        async def decide() -> Grant:
            return Grant(50)

        kinds: list[Callable[[], object]] = [lambda: succeed(Grant(50)), decide]
        for kind in kinds:
            for multiplexed in (False, True):
                with self.subTest(kind=kind, multiplexed=multiplexed):
                    self.host_with(lambda _, kind=kind: kind())
                    wire = self.bound(multiplexed=multiplexed)
                    wire.send(calls(3) + bind())
                    replies = wire.replies()
                    self.assertEqual(replies[:3], granted(2, 3, 4))
                    self.assertEqual((len(replies), wire.ends), (4, ["half"]))

    def test_cut_anywhere(self) -> None:
        """
        How a stream is cut into segments changes nothing, also when decisions are ready Deferreds.
        """
        self.host_with(lambda _: succeed(Grant(50)))
        stream = calls(2) + call(b"", 9)[:24] + calls(2)
        whole, apart = self.bound(multiplexed=True), self.bound(multiplexed=True)
        whole.send(stream)
        apart.send(*(stream[index : index + 1] for index in range(len(stream))))
        self.assertEqual(whole.take(), apart.take())

    def test_coroutine_cancelled(self) -> None:
        """
        A coroutine whose peer leaves is cancelled where it waits.
        """
        waiting: Deferred[object] = Deferred()
        ended: list[str] = []

        async def decide() -> object:
            try:
                return await waiting
            finally:
                ended.append("cancelled")

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertEqual(ended, ["cancelled"])

    def test_decision_that_ignores_cancellation(self) -> None:
        """
        A decision that comes although it was cancelled is dropped.
        """
        self.host_with(lambda _: Deferred(lambda deferred: deferred.callback(Grant(50))))
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertEqual(wire.replies(), [])

    def test_error_after_cancellation(self) -> None:
        """
        A policy that fails while it is cancelled leaves one logged failure.
        """
        self.host_with(lambda _: Deferred(lambda deferred: deferred.errback(OSError("clean-up"))))
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        # At the latest when the Deferred is thrown away.
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_canceller_that_raises(self) -> None:
        """
        A policy whose canceller raises harms neither the end of its connection nor the timeouts of others.
        """

        def canceller(deferred: Deferred[object]) -> None:
            raise OSError("canceller")

        self.host_with(lambda _: Deferred(canceller))
        wire = self.bound()
        wire.send(call(payload()))
        other = self.bound()
        try:
            self.clock.advance(30)
        except OSError as error:
            self.fail(f"the error of the policy reached the reactor: {error}")
        self.flushLoggedErrors(OSError)
        self.assertEqual((wire.ends, other.ends), (["half"], ["half"]))

    def test_peer_leaves_when_answered(self) -> None:
        """
        A decision after the end of the connection is dropped, and does not disturb the next client.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertServed()

    def test_broken_while_waiting(self) -> None:
        """
        A protocol error while calls wait ends the connection; what was asked is cancelled.
        """
        cancelled: list[object] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(2), BROKEN)
        self.assertEqual(wire.replies(), [("fault", 9, PROTO_ERROR)])
        self.assertEqual((wire.ends, len(cancelled)), (["half"], 2))

    def test_broken_behind_a_call_in_one_segment(self) -> None:
        """
        A call that is decided at once is answered although a protocol error follows in the same segment.
        """
        for make in (lambda _: Grant(50), lambda _: succeed(Grant(50))):
            with self.subTest():
                self.host_with(make)
                wire = self.bound()
                wire.send(call(payload()) + BROKEN)
                self.assertEqual(wire.replies(), [*granted(2), ("fault", 9, PROTO_ERROR)])
                self.assertEqual(wire.ends, ["half"])

    def test_garbage_behind_calls_in_one_segment(self) -> None:
        """
        Questions whose answers nobody gets, because garbage follows in the same segment, are not left waiting.
        """
        cancelled: list[object] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(3) + BROKEN)
        self.assertEqual(wire.ends, ["half"])
        wire.leave()
        self.assertEqual(len(cancelled), 3)

    def assertFails(self, make: Callable[[int], object], error: type[Exception]) -> None:
        """
        A policy leads to a fault and one logged failure, and the connection serves the next call.
        """
        self.host_with(lambda number: Grant(50) if number else make(number))
        wire = self.bound()
        with host_lines() as lines:
            wire.send(call(payload()))
            self.assertEqual(wire.replies(), [("fault", 2, FAULT_UNSPEC)])
        self.assertEqual(lines, [f"the policy failed peer={PEER} port=50123"])
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertServed(wire)

    def test_raises(self) -> None:
        """
        A policy that raises is a fault and a logged failure, and the connection lives.
        """

        def explode(_: int) -> object:
            raise ZeroDivisionError

        self.assertFails(explode, ZeroDivisionError)

    def test_deferred_fails(self) -> None:
        """
        A Deferred that fails is a fault and a logged failure.
        """
        self.assertFails(lambda _: fail(ZeroDivisionError()), ZeroDivisionError)

    def test_coroutine_raises(self) -> None:
        """
        A coroutine that raises is a fault and a logged failure.
        """

        async def explode() -> object:
            raise ZeroDivisionError

        self.assertFails(lambda _: explode(), ZeroDivisionError)

    def test_deferred_fails_later(self) -> None:
        """
        A Deferred that fails later is a fault and a logged failure, and the connection lives.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound()
        wire.send(call(payload()))
        waiting.errback(ZeroDivisionError())
        self.assertEqual(wire.replies(), [("fault", 2, FAULT_UNSPEC)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertServed(wire)

    def test_nonsense(self) -> None:
        """
        A policy that decides nonsense, at once or later, is a fault and a logged failure.
        """
        values: tuple[object, ...] = (
            None,
            "granted",
            b"",
            True,
            False,
            (50, 120),
            [],
            {},
            -1,
            2**32,
            0,
            1.5,
        )
        for nonsense in values:
            for make in (returning(nonsense), returning(succeed(nonsense))):
                with self.subTest(nonsense=nonsense):
                    self.assertFails(make, Exception)

    def test_grants_that_cannot_be_written(self) -> None:
        """
        A grant whose numbers do not fit, and HRESULT 0, are faults and logged failures.
        """
        for decision in (
            Grant(-1),
            Grant(2**32),
            Grant(50, 2**32),
            Grant(50, 120, -1),
            Grant("many"),  # type: ignore[arg-type]
            HResult.SUCCESS,
        ):
            with self.subTest(decision=decision):
                self.assertFails(returning(decision), Exception)

    def test_number_as_hresult(self) -> None:
        """
        A plain number that is an HRESULT refuses as if it were one.
        """
        self.host_with(lambda _: PRODUCT_REFUSED)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED)])
