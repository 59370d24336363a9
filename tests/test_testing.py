"""
The public fakes: fixed where a real host is unpredictable, and like a real host in everything else.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.epid import derive_hardware_id
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.server import HostFactory, Limits
from kmsproto.testing import INSTALLATION, fixed_entropy, host_factory, make_host
from tests.net.wiring import BOUND, NOW, PEER, Wire, bind, body, call, catalog, granted, payload

WHO = Peer(PEER, 50123)


class EntropyTests(SynchronousTestCase):
    """
    Bytes that look random and are not.
    """

    def test_same_in_every_run(self) -> None:
        """
        Two sources give the same bytes, today and tomorrow.
        """
        first, second = fixed_entropy(), fixed_entropy()
        drawn = [first(16), first(32), first(1)]
        self.assertEqual([second(16), second(32), second(1)], drawn)
        self.assertEqual(drawn[0].hex(), "f9fcdd9f9a6b212b9e1a79ec15dcb29f")

    def test_lengths(self) -> None:
        """
        As many bytes come as are asked for.
        """
        draw = fixed_entropy()
        for length in (0, 1, 16, 1000):
            self.assertEqual(len(draw(length)), length)

    def test_draws_differ(self) -> None:
        """
        No two draws are alike.
        """
        draw = fixed_entropy()
        self.assertEqual(len({draw(16) for _ in range(1000)}), 1000)


class HostTests(SynchronousTestCase):
    """
    A host whose answers are known beforehand.
    """

    def test_repeatable(self) -> None:
        """
        Two hosts answer the same requests with the same bytes.
        """
        hosts = make_host(), make_host(catalog=catalog())
        for version in (4, 5, 6, 6):
            answers = [host.answer(payload(version), WHO, NOW) for host in hosts]
            self.assertEqual(answers[0], answers[1])
            self.assertEqual(answers[0].hresult, HResult.SUCCESS)

    def test_answers_differ(self) -> None:
        """
        One host answers the same request twice with different random bytes, as a real one does.
        """
        host = make_host()
        self.assertNotEqual(
            host.answer(payload(), WHO, NOW).payload, host.answer(payload(), WHO, NOW).payload
        )

    def test_identity(self) -> None:
        """
        The identity is derived from the fixed installation.
        """
        self.assertEqual(make_host().identity.hardware_id, derive_hardware_id(INSTALLATION))

    def test_policy(self) -> None:
        """
        A policy of one's own is asked; without one the host is charged.
        """
        host = make_host(lambda *_: HResult.ACCESS_DENIED)
        self.assertEqual(host.answer(payload(), WHO, NOW).hresult, HResult.ACCESS_DENIED)
        self.assertEqual(make_host().answer(payload(), WHO, NOW).grant, Grant(50))

    def test_catalog(self) -> None:
        """
        A catalogue of one's own is used.
        """
        own: Catalog = catalog()
        self.assertIs(make_host(catalog=own).catalog, own)
        self.assertIsNot(make_host().catalog, own)


class FactoryTests(SynchronousTestCase):
    """
    The factory of such a host.
    """

    def test_any_transport(self) -> None:
        """
        Its protocols work on any transport.
        """
        factory = host_factory(Clock())
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", PEER, 1))
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(bind() + call(payload()))
        self.assertNotEqual(transport.value(), b"")

    def test_repeatable(self) -> None:
        """
        Two factories answer the same stream with the same bytes.
        """
        taken = []
        for _ in range(2):
            wire = Wire(host_factory(Clock()))
            wire.send(bind() + call(payload()))
            taken.append(wire.take())
        self.assertEqual(taken[0], taken[1])

    def test_settings(self) -> None:
        """
        Everything that a real factory can be told, the fake can be told.
        """
        limits = Limits(idle_timeout=1)
        seen: list[Any] = []

        def policy(*question: Any) -> Grant:
            seen.append(question)
            return Grant(7)

        clock = Clock()
        factory = host_factory(
            clock,
            policy=policy,
            catalog=catalog(),
            limits=limits,
            ndr64=False,
            bind_time_features=False,
            allow_public_peers=True,
            allow_shared_address_space=True,
        )
        self.assertIsInstance(factory, HostFactory)
        self.assertIs(factory.limits, limits)
        self.assertIs(factory.clock, clock)
        self.assertFalse(factory.rpc_server.ndr64 or factory.rpc_server.bind_time_features)
        for peer in ("8.8.8.8", "100.64.0.1"):
            wire = Wire(factory, peer)
            wire.send(bind() + call(payload()))
            self.assertEqual(wire.replies(), [BOUND, *granted(2)])
        self.assertEqual(seen[0][0], body())

    def test_defaults_are_those_of_a_host(self) -> None:
        """
        What is not told is as in a real factory: public peers are refused.
        """
        factory = host_factory(Clock())
        self.assertEqual(factory.limits, Limits())
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "8.8.8.8", 1)))
        self.assertTrue(factory.rpc_server.ndr64 and factory.rpc_server.bind_time_features)

    def test_time_is_the_clocks(self) -> None:
        """
        Time passes when the clock is told so, and not otherwise.
        """
        clock = Clock()
        wire = Wire(host_factory(clock, limits=Limits(idle_timeout=5)))
        clock.advance(5)
        self.assertEqual(wire.ends, ["half"])
