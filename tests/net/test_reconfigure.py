"""
What a running host can change: for open connections, for those to come, and for who waits.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant
from kmsproto.net.access import AccessRules
from kmsproto.net.reporting import LineStyle
from kmsproto.net.server import Limits
from kmsproto.testing import make_host
from tests.net.wiring import HostCase, Questions, TurnedAwayError, call, granted, payload, returning


class ReconfigureTests(HostCase):
    """
    Another host, other limits, other rules.
    """

    def change(self, policy: object = None, **limits: object) -> None:
        """
        Change what the factory serves.
        """
        self.factory.reconfigure(
            make_host(policy),  # type: ignore[arg-type]
            limits=Limits(**limits),  # type: ignore[arg-type]
            access=AccessRules(),
            style=LineStyle(),
        )

    def test_open_connections(self) -> None:
        """
        An open connection stays open, and its next call is answered by the new host.
        """
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), granted(2))
        self.change(returning(HResult.PRODUCT_REFUSED))
        wire.send(call(payload(), 3))
        self.assertEqual(wire.replies(), [("refused", 3, 0xC004F042)])
        self.assertEqual(wire.ends, [])

    def test_call_in_progress(self) -> None:
        """
        A call that waits for the old policy is answered when that has decided.
        """
        waiting: list[Deferred[object]] = [Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        wire = self.bound()
        wire.send(call(payload()))
        self.change()
        waiting[0].callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2))

    def test_idle_timeout(self) -> None:
        """
        A new time limit holds for open connections too, from their last answer on.
        """
        wire = self.bound()
        self.clock.advance(10)
        self.change(idle_timeout=15.0)
        self.clock.advance(4)
        self.assertEqual(wire.ends, [])
        self.clock.advance(1)
        self.assertEqual(wire.ends, ["half"])

    def test_access(self) -> None:
        """
        New rules are for connections to come.
        """
        wire = self.bound()
        self.factory.reconfigure(
            make_host(),
            limits=Limits(),
            access=AccessRules(allow_public=True),
            style=LineStyle(),
        )
        self.wire(peer="8.8.8.8")
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), granted(2))

    def test_disconnect_after_call(self) -> None:
        """
        A connection can be made to end with its first answer, whether that is given at once or later.
        """
        waiting: list[Deferred[object]] = [Deferred()]
        for policy in (None, Questions(waiting.__getitem__)):
            self.change(policy, disconnect_after_call=True)
            wire = self.bound()
            self.assertEqual(wire.ends, [])
            wire.send(call(payload()))
            if policy is not None:
                self.assertEqual(wire.ends, [])
                waiting[0].callback(Grant(50))
            self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))

    def test_rate(self) -> None:
        """
        An address that connects too often is turned away until it may again; others are not.
        """
        self.change(connection_rate=0.5, connection_burst=2)
        for _ in range(2):
            self.wire()
        self.assertRaises(TurnedAwayError, self.wire)
        self.wire(peer="10.9.9.9")
        self.clock.advance(2)
        self.wire()
        self.assertRaises(TurnedAwayError, self.wire)
