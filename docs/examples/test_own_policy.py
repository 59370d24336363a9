"""
Tests of own_policy.py and of ask_for_many.py without sockets and without waiting.

Run them with "python -m twisted.trial test_own_policy" in the folder of the examples.
"""

# Much of trial has no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

sys.path.insert(0, str(Path(__file__).parent))

import ask_for_many
import own_policy

from kmsproto.errors import HResultError
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer, Policy
from kmsproto.kms.requests import make_request
from kmsproto.net.client import activate
from kmsproto.testing import host_factory

CATALOG = load_catalog()
PRODUCT = "Windows 10/11 Enterprise"
PEER = Peer("10.0.0.9", 50123)


@implementer(IStreamClientEndpoint)
class InMemory:
    """
    An endpoint that leads to a factory in this process, over no network at all.

    @ivar pump: Moves bytes from one side to the other when it is told to.
    """

    pump: Any

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def connect(self, protocol_factory: IProtocolFactory) -> Deferred[Any]:
        """
        Connect both sides.
        """
        host = self._factory.buildProtocol(IPv4Address("TCP", *PEER))
        client: Any = protocol_factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1688))
        self.pump = iosim.connect(
            host,
            iosim.FakeTransport(host, isServer=True),
            client,
            iosim.FakeTransport(client, False),
        )
        return succeed(client)


def request(workstation: str = "desk-1", cmid: int = 1) -> RequestBody:
    """
    Make what a client asks.
    """
    return make_request(
        CATALOG,
        CATALOG.product(PRODUCT),
        client_machine_id=UUID(int=cmid),
        workstation=workstation,
        now=0.0,
    )


class PolicyTests(SynchronousTestCase):
    """
    The policy by itself: a function of a request, a peer and the time.
    """

    def decide(self, policy: Policy, asked: RequestBody) -> Any:
        """
        Ask it, and wait for nothing.
        """
        answer: Any = policy(asked, PEER, 0.0)
        return self.successResultOf(Deferred.fromCoroutine(answer))

    def test_known(self) -> None:
        """
        Machines that the inventory knows are granted, and counted once each.
        """
        policy = own_policy.make_policy(CATALOG, lambda name: succeed(name == "desk-1"))
        self.assertEqual(self.decide(policy, request("DESK-1", cmid=1)), Grant(1))
        self.assertEqual(self.decide(policy, request(cmid=2)), Grant(2))
        self.assertEqual(self.decide(policy, request(cmid=2)), Grant(2))

    def test_unknown(self) -> None:
        """
        Others are refused.
        """
        policy = own_policy.make_policy(CATALOG, lambda name: succeed(False))
        self.assertEqual(self.decide(policy, request()), HResult.ACCESS_DENIED)


class WireTests(SynchronousTestCase):
    """
    Host and client together, down to the bytes.
    """

    def setUp(self) -> None:
        """
        Make a host whose inventory answers when the test wants it to.
        """
        self.clock = Clock()
        self.asked: list[Deferred[bool]] = []
        policy = own_policy.make_policy(CATALOG, self.look_up)
        self.endpoint = InMemory(host_factory(self.clock, policy=policy))

    def look_up(self, name: str) -> Deferred[bool]:
        """
        Stand for the inventory.
        """
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_waits(self) -> None:
        """
        The client has its answer when the inventory has answered, and not before.
        """
        answered = activate(self.clock, self.endpoint, request())
        self.endpoint.pump.flush()
        self.assertNoResult(answered)
        self.asked.pop().callback(True)
        self.endpoint.pump.flush()
        self.assertEqual(self.successResultOf(answered).body.client_count, 1)

    def test_refused(self) -> None:
        """
        A refusal arrives as the HRESULT that the policy chose.
        """
        answered = activate(self.clock, self.endpoint, request())
        self.endpoint.pump.flush()
        self.asked.pop().callback(False)
        self.endpoint.pump.flush()
        error = self.failureResultOf(answered, HResultError).value
        self.assertEqual(error.hresult, HResult.ACCESS_DENIED)


class ClientTests(SynchronousTestCase):
    """
    A program that asks, against a host that is told what to answer.
    """

    def test_outcomes(self) -> None:
        """
        It tells apart who has enough clients, who has not, and who is refused.
        """
        decisions = iter((Grant(25), Grant(24), HResult.PRODUCT_REFUSED))
        clock = Clock()
        endpoint = InMemory(host_factory(clock, policy=lambda *question: next(decisions)))
        products = [PRODUCT, "Windows 10/11 Education", "Windows 10/11 Professional"]
        asked = Deferred.fromCoroutine(ask_for_many.ask(clock, endpoint, products))
        endpoint.pump.flush()
        outcomes = list(self.successResultOf(asked).values())
        self.assertEqual(outcomes, ["activated", "only 24 clients", "refused: 0xc004f042"])
