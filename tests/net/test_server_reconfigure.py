"""
What changes in a factory with open connections, how often peers may connect, and connections for one call.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant
from kmsproto.net.access import PRIVATE_ONLY, AccessRules, parse_network
from kmsproto.net.server import HostFactory, Limits
from kmsproto.testing import make_host
from tests.net.wiring import (
    BOUND,
    PEER,
    PRODUCT_REFUSED,
    HostCase,
    TurnedAwayError,
    Wire,
    bind,
    call,
    calls,
    granted,
    host_lines,
    payload,
    returning,
)


class ReconfigureTests(HostCase):
    """
    A factory that serves something else.
    """

    def change(self, policy: Any = None, access: AccessRules = PRIVATE_ONLY, **others: Any) -> None:
        """
        Change it.
        """
        others.setdefault("limits", Limits())
        self.factory.reconfigure(make_host(policy), access=access, **others)

    def test_open_connections(self) -> None:
        """
        An open connection goes on, and its next call is answered by the new host.
        """
        wire = self.bound()
        self.change(returning(HResult.PRODUCT_REFUSED))
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED)])
        other = self.bound()
        other.send(call(payload()))
        self.assertEqual(other.replies(), [("refused", 2, PRODUCT_REFUSED)])

    def test_call_in_progress(self) -> None:
        """
        A call that waits for the old policy is answered as that decides.
        """
        waiting: Deferred[Any] = Deferred()
        self.factory = self.make_factory(policy=returning(waiting))
        wire = self.bound()
        wire.send(call(payload()))
        self.change(returning(HResult.PRODUCT_REFUSED))
        waiting.callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2))

    def test_access(self) -> None:
        """
        New rules hold for new connections only; the counts of the open ones stay.
        """
        wire = self.bound()
        self.change(
            access=AccessRules(allow=(parse_network("192.0.2.0/24"),)),
            limits=Limits(max_connections=2),
        )
        self.assertRaises(TurnedAwayError, self.wire)
        self.assertServed(wire)
        Wire(self.factory, "192.0.2.1")
        self.assertRaises(TurnedAwayError, Wire, self.factory, "192.0.2.2")

    def test_time_limits(self) -> None:
        """
        New time limits hold at once for every connection, longer ones and shorter ones.
        """
        wire = self.bound()
        self.clock.advance(20)
        self.change(limits=Limits(idle_timeout=100))
        self.clock.advance(50)
        self.assertEqual(wire.ends, [])
        self.change(limits=Limits(idle_timeout=60, linger_timeout=9))
        self.clock.advance(0)
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(8)
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(1)
        self.assertEqual(wire.ends, ["half", "abort"])

    def test_transfer_syntaxes(self) -> None:
        """
        What is negotiated stays unless told; association groups live on.
        """
        self.factory = HostFactory(make_host(), self.clock, ndr64=False, bind_time_features=False)
        before = self.factory.rpc_server
        self.change()
        self.assertIs(self.factory.rpc_server, before)
        wire = self.bound()
        self.change(ndr64=True)
        after = self.factory.rpc_server
        self.assertEqual((after.ndr64, after.bind_time_features), (True, False))
        self.assertIs(after.groups, before.groups)
        self.assertServed(wire)
        self.assertServed()


class RateTests(HostCase):
    """
    Peers that connect too often.
    """

    def test_rate(self) -> None:
        """
        Beyond the burst a peer is refused with a line until time has passed; others are served.
        """
        self.factory = self.make_factory(limits=Limits(connection_rate=0.5, connection_burst=2))
        self.wire().leave()
        self.wire().leave()
        with host_lines() as lines:
            self.assertIsNone(self.factory.buildProtocol(IPv4Address("TCP", PEER, 5)))
        self.assertEqual(
            lines,
            [
                f'turned away peer={PEER} port=5 reason="this address makes more than 0.5 connections a second"'
            ],
        )
        Wire(self.factory, "10.0.0.1")
        self.clock.advance(2)
        self.assertServed()

    def test_refused_costs_nothing(self) -> None:
        """
        Who is refused for another reason is not counted.
        """
        self.factory = self.make_factory(
            limits=Limits(connection_rate=0.5, connection_burst=1, max_connections=1)
        )
        wire = Wire(self.factory, "10.0.0.1")
        self.assertRaises(TurnedAwayError, self.wire)
        wire.leave()
        self.assertServed()


class OneCallTests(HostCase):
    """
    Connections that end with their first call.
    """

    def setUp(self) -> None:
        """
        Make such a host.
        """
        super().setUp()
        self.factory = self.make_factory(limits=Limits(disconnect_after_call=True))

    def test_ends(self) -> None:
        """
        The bind does not end it; the first answer does.
        """
        wire = self.bound()
        self.assertEqual(wire.ends, [])
        wire.send(call(payload()))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))
        wire.send(call(payload(), 3))
        self.assertEqual(wire.replies(), [])

    def test_one_segment(self) -> None:
        """
        What comes in one segment is answered as a whole.
        """
        wire = self.wire()
        wire.send(bind() + calls(3))
        self.assertEqual((wire.replies(), wire.ends), ([BOUND, *granted(2, 3, 4)], ["half"]))

    def test_fault(self) -> None:
        """
        A fault is an answer.
        """
        wire = self.bound()
        wire.send(call(b""))
        self.assertEqual((len(wire.replies()), wire.ends), (1, ["half"]))

    def test_policy_that_waits(self) -> None:
        """
        It ends with the answer, not with the call.
        """
        waiting: Deferred[Any] = Deferred()
        self.factory = self.make_factory(
            policy=returning(waiting), limits=Limits(disconnect_after_call=True)
        )
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.ends, [])
        waiting.callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))
