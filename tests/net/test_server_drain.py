"""
How a host stops: which connections it closes at once, which it waits for and how long, and that it can serve again.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kmsproto.kms.policy import Grant
from kmsproto.net.server import Limits
from tests.net.wiring import HostCase, Questions, call, calls, granted, payload


class DrainTests(HostCase):
    """
    How a host stops.
    """

    def test_nobody(self) -> None:
        """
        Without connections the host is drained at once.
        """
        self.successResultOf(self.factory.drain())
        self.assertTimers(0)

    def test_idle(self) -> None:
        """
        Idle connections are closed at once; the host is drained when the last is gone.
        """
        wires = [self.wire(), self.bound(), self.bound()]
        drained = self.factory.drain()
        self.assertEqual([wire.ends for wire in wires], [["half"]] * 3)
        for wire in wires:
            self.assertNoResult(drained)
            wire.finish()
            wire.leave(cleanly=True)
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_calls_in_progress(self) -> None:
        """
        Calls in progress are finished, then their connection is closed.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        wire = self.bound(multiplexed=True)
        wire.send(calls(2))
        drained = self.factory.drain()
        self.assertEqual(wire.ends, [])
        waiting[1].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(3), []))
        waiting[0].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))
        wire.leave(cleanly=True)
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_timeout(self) -> None:
        """
        What is not finished within the drain timeout is cut off.
        """
        self.factory = self.make_factory(
            policy=lambda *_: Deferred(), limits=Limits(drain_timeout=5, idle_timeout=600)
        )
        wire = self.bound()
        wire.send(call(payload()))
        drained = self.factory.drain()
        self.clock.advance(4.5)
        self.assertEqual(wire.ends, [])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["abort"])
        wire.leave()
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_peer_that_does_not_close(self) -> None:
        """
        A peer that does not close its side is cut off soon, also one that had lingered before.
        """
        wire, other = self.bound(), self.bound()
        other.send(b"this is no RPC at all")
        self.assertEqual(other.ends, ["half"])
        drained = self.factory.drain()
        self.clock.advance(0.4)
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(0.1)
        self.assertEqual((wire.ends, other.ends), (["half", "abort"], ["half", "abort"]))
        wire.leave()
        other.leave()
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_lingering_afterwards(self) -> None:
        """
        Once a host has drained, a peer has its usual time to close a connection.
        """
        wire = self.bound()
        self.factory.drain()
        wire.leave()
        later = self.bound()
        later.send(b"this is no RPC at all")
        self.clock.advance(1.9)
        self.assertEqual(later.ends, ["half"])
        self.clock.advance(0.1)
        self.assertEqual(later.ends, ["half", "abort"])

    def test_twice(self) -> None:
        """
        Whoever asks a second time while the host drains hears of its end too.
        """
        wire = self.bound()
        first, second = self.factory.drain(), self.factory.drain()
        wire.leave()
        self.successResultOf(second)
        self.successResultOf(first)
        self.assertTimers(0)

    def test_later_connections(self) -> None:
        """
        Whoever connects after a host was drained, as after a restart, is neither waited for nor cut off.
        """
        old = self.bound()
        drained = self.factory.drain()
        new = self.bound()
        old.leave()
        self.successResultOf(drained)
        self.clock.advance(5)
        self.assertEqual(new.ends, [])
        self.assertServed(new)

    def test_serves_again(self) -> None:
        """
        A host that was drained serves whoever connects afterwards.
        """
        wire = self.bound()
        drained = self.factory.drain()
        wire.leave()
        self.successResultOf(drained)
        self.assertServed()
