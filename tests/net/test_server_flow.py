"""
Peers that read or send too slowly: when the host stops reading, and how long it has patience.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kmsproto.kms.policy import Grant
from kmsproto.net.server import Limits
from tests.net.wiring import (
    BOUND,
    PEER,
    HostCase,
    Questions,
    Wire,
    bind,
    call,
    calls,
    chunks,
    granted,
    host_lines,
    payload,
)


class FlowTests(HostCase):
    """
    A peer that does not read.
    """

    def test_pause_and_resume(self) -> None:
        """
        A peer that does not read is not read from until it does.
        """
        wire = self.bound()
        producer = wire.producer
        producer.pauseProducing()
        self.assertFalse(wire.reading)
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertTrue(wire.reading)
        self.assertServed(wire)

    def test_stop(self) -> None:
        """
        When the transport gives up its producer, nothing happens before the connection is lost.
        """
        wire = self.bound()
        wire.producer.stopProducing()
        self.assertEqual(wire.ends, [])
        wire.leave()
        self.assertTimers(0)

    def test_bounded(self) -> None:
        """
        A peer that sends calls and never reads is soon not read from, and what waits for it is bounded.
        """
        wire = self.bound(multiplexed=True)
        segment = calls(220)
        sent = 0
        while wire.reading:
            wire.send(segment)
            sent += 1
            self.assertLess(sent, 10)
        self.assertLess(len(wire.transport.value()), wire.tcp.room + 2 * len(segment))
        producer = wire.producer
        self.assertEqual(len(wire.replies()), 220 * sent)
        producer.resumeProducing()
        self.assertServed(wire)

    def test_never_reads(self) -> None:
        """
        A peer that never reads is closed after the idle timeout, and cut off after the linger timeout.
        """
        wire = self.bound()
        wire.producer.pauseProducing()
        self.clock.advance(30)
        self.clock.advance(2)
        self.assertEqual(wire.ends, ["half", "abort"])

    def test_call_waits(self) -> None:
        """
        Without multiplexing the peer is not read from while its call waits.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertFalse(wire.reading)
        waiting.callback(Grant(50))
        self.assertTrue(wire.reading)
        self.assertEqual(wire.replies(), granted(2))

    def test_both_reasons(self) -> None:
        """
        Reading goes on only when neither the writing nor a call holds it up.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.producer.pauseProducing()
        wire.producer.resumeProducing()
        self.assertFalse(wire.reading)
        wire.producer.pauseProducing()
        waiting.callback(Grant(50))
        self.assertFalse(wire.reading)
        wire.producer.resumeProducing()
        self.assertTrue(wire.reading)

    def test_multiplexed_calls_wait(self) -> None:
        """
        With multiplexing 64 calls wait at a time; further ones wait unread.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(70)]
        questions = Questions(waiting.__getitem__)
        self.factory = self.make_factory(policy=questions)
        wire = self.bound(multiplexed=True)
        wire.send(calls(63))
        self.assertTrue(wire.reading)
        wire.send(calls(7))
        self.assertFalse(wire.reading)
        self.assertEqual(len(questions.asked), 64)
        for each in waiting:
            each.callback(Grant(50))
        self.assertTrue(wire.reading)
        self.assertEqual(len(wire.replies()), 70)

    def test_finished_peer_is_not_resumed(self) -> None:
        """
        After the peer's FIN the transport is neither paused nor resumed.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.finish()
        wire.producer.pauseProducing()
        wire.producer.resumeProducing()
        waiting.callback(Grant(50))
        self.assertFalse(wire.reading)
        self.assertEqual(wire.replies(), granted(2))


class TimeoutTests(HostCase):
    """
    Connections that do not get on.
    """

    def test_never_binds(self) -> None:
        """
        A peer that says nothing is closed after the idle timeout, and a line says that it never bound.
        """
        with host_lines() as lines:
            wire = self.wire()
            self.clock.advance(29.75)
            self.assertEqual(wire.ends, [])
            self.clock.advance(0.25)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(
            lines, [f'closed peer={PEER} port=50123 reason="timed out: it never bound"']
        )

    def test_idle(self) -> None:
        """
        A peer that is bound and silent is closed after the idle timeout, without a line.
        """
        with host_lines() as lines:
            wire = self.bound()
            self.clock.advance(30)
        self.assertEqual((wire.ends, lines), (["half"], []))

    def test_trickle(self) -> None:
        """
        Bytes that lead to no answer do not prolong the timeout.
        """
        with host_lines() as lines:
            wire = self.bound()
            for byte in chunks(call(payload())[:29]):
                self.clock.advance(1)
                wire.send(byte)
            self.assertEqual(wire.ends, [])
            self.clock.advance(1)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(wire.replies(), [])
        self.assertEqual(len(lines), 1)
        self.assertIn("timed out: a PDU is incomplete", lines[0])

    def test_peer_that_does_not_read(self) -> None:
        """
        A peer that does not read its answers is closed after the idle timeout, and a line says so.
        """
        with host_lines() as lines:
            wire = self.bound()
            wire.producer.pauseProducing()
            self.clock.advance(30)
        self.assertEqual((wire.ends, len(lines)), (["half"], 1))
        self.assertIn("timed out: it does not read its answers", lines[0])

    def test_leaves_in_the_middle(self) -> None:
        """
        A peer that leaves in the middle of a PDU leaves one line; one that had nothing more to say leaves none.
        """
        half = call(payload())[:60]
        for leave in (Wire.leave, Wire.finish):
            for sent, expected in ((half, 1), (call(payload()), 1), (b"", 0)):
                with self.subTest(leave=leave, sent=len(sent)):
                    with host_lines() as lines:
                        wire = self.bound()
                        wire.send(sent)
                        leave(wire)
                    self.assertEqual(len(lines), expected, lines)

    def test_endless_fragments(self) -> None:
        """
        Fragments that never make a call do not prolong the timeout, and a line says that a call is incomplete.
        """
        fragment = bytearray(call(payload()))
        fragment[3] = 0x01
        with host_lines() as lines:
            wire = self.bound()
            wire.send(bytes(fragment))
            fragment[3] = 0x00
            del fragment[24:]
            fragment[8:10] = b"\x18\0"
            for _ in range(29):
                self.clock.advance(1)
                wire.send(bytes(fragment))
            self.clock.advance(1)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(
            lines, [f'closed peer={PEER} port=50123 reason="timed out: a call is incomplete"']
        )

    def test_answers_prolong(self) -> None:
        """
        Every answer gives the connection the whole timeout again.
        """
        wire = self.wire()
        self.clock.advance(29)
        wire.send(bind())
        self.assertEqual(wire.replies(), [BOUND])
        for _ in range(5):
            self.clock.advance(29)
            wire.send(call(payload()))
            self.assertEqual((wire.replies(), wire.ends), (granted(2), []))
        self.clock.advance(29)
        self.assertServed(wire)
        self.clock.advance(30)
        self.assertEqual(wire.ends, ["half"])

    def test_undecided(self) -> None:
        """
        A call that waits too long for its decision ends the connection, with a line, and is cancelled.
        """
        cancelled: list[object] = []
        self.factory = self.make_factory(policy=lambda *_: Deferred(cancelled.append))
        with host_lines() as lines:
            wire = self.bound()
            wire.send(call(payload()))
            self.clock.advance(30)
        self.assertEqual((wire.ends, len(cancelled)), (["half"], 1))
        self.assertEqual(
            lines,
            [f'closed peer={PEER} port=50123 reason="timed out: a call waits for its decision"'],
        )

    def test_one_timer(self) -> None:
        """
        A hundred connections share one timer.
        """
        wires = [self.bound() for _ in range(100)]
        self.assertTimers(1)
        self.clock.advance(30)
        self.assertEqual([wire.ends for wire in wires], [["half"]] * 100)
        self.assertTimers(1)
        self.clock.advance(2)
        self.assertEqual([wire.ends for wire in wires], [["half", "abort"]] * 100)
        self.assertTimers(0)

    def test_limits(self) -> None:
        """
        The timeouts are those of the limits.
        """
        self.factory = self.make_factory(limits=Limits(idle_timeout=7, linger_timeout=3))
        wire = self.bound()
        self.clock.advance(6.5)
        self.assertEqual(wire.ends, [])
        self.clock.advance(0.5)
        self.clock.advance(2.5)
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["half", "abort"])
