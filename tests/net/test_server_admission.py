"""
Which connections a host takes: by the address of the peer, and by the number that are open.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from kmsproto.net.server import Limits
from tests.net.wiring import (
    BOUND,
    BROKEN,
    PEER,
    HostCase,
    TurnedAwayError,
    Wire,
    bind,
    call,
    granted,
    host_lines,
    payload,
)


class AdmissionTests(HostCase):
    """
    Who may connect.
    """

    def refuse(self, peer: str, address: Any = None) -> list[str]:
        """
        Connect, expect a refusal, and get the lines about it.
        """
        with host_lines() as lines:
            refused = self.factory.buildProtocol(address or IPv4Address("TCP", peer, 50123))
        self.assertIsNone(refused)
        return lines

    def test_public(self) -> None:
        """
        A public peer gets no protocol, thus no byte, and one line says why.
        """
        self.assertEqual(
            self.refuse("8.8.8.8"),
            ['turned away peer=8.8.8.8 port=50123 reason="not a private address"'],
        )
        self.assertTimers(0)
        self.assertServed()

    def test_public_ipv6(self) -> None:
        """
        A public peer is refused over IPv6 too, also in IPv6 clothes.
        """
        for host, named in (("2001:db8::1", "2001:db8::1"), ("::ffff:8.8.8.8", "8.8.8.8")):
            (line,) = self.refuse("", IPv6Address("TCP", host, 5))
            self.assertIn(f"turned away peer={named} port=5 ", line)

    def test_shared(self) -> None:
        """
        The shared address space is refused, unless it is allowed.
        """
        self.assertEqual(len(self.refuse("100.64.0.1")), 1)
        self.factory = self.make_factory(allow_shared_address_space=True)
        Wire(self.factory, "100.64.0.1")
        self.assertEqual(len(self.refuse("8.8.8.8")), 1)

    def test_public_allowed(self) -> None:
        """
        Where public peers are allowed, any address is served.
        """
        self.factory = self.make_factory(allow_public_peers=True)
        for peer in ("8.8.8.8", "100.64.0.1", PEER):
            wire = Wire(self.factory, peer)
            wire.send(bind() + call(payload()))
            self.assertEqual(wire.replies(), [BOUND, *granted(2)])

    def test_cap(self) -> None:
        """
        Beyond the cap on connections a peer is refused with a line; a place that gets free is given away again.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=2))
        first, second = Wire(self.factory, "10.0.0.1"), Wire(self.factory, "10.0.0.2")
        self.assertEqual(
            self.refuse("10.0.0.3"),
            ['turned away peer=10.0.0.3 port=50123 reason="2 connections are open"'],
        )
        first.leave()
        self.assertServed()
        self.assertEqual(len(self.refuse("10.0.0.3")), 1)
        second.leave()
        self.assertServed()

    def test_cap_per_address(self) -> None:
        """
        Beyond the cap of its address a peer is refused with a line, while others are served.
        """
        self.factory = self.make_factory(limits=Limits(max_connections_per_address=2))
        first, _ = self.wire(), self.wire()
        self.assertEqual(
            self.refuse(PEER),
            [f'turned away peer={PEER} port=50123 reason="2 connections of this address are open"'],
        )
        Wire(self.factory, "10.0.0.1")
        first.leave()
        self.assertServed(self.bound())
        self.assertEqual(len(self.refuse(PEER)), 1)

    def test_cap_counts_both_families(self) -> None:
        """
        An IPv4 address is counted together with itself in IPv6 clothes.
        """
        self.factory = self.make_factory(limits=Limits(max_connections_per_address=1))
        self.wire()
        self.assertEqual(len(self.refuse("", IPv6Address("TCP", f"::ffff:{PEER}", 5))), 1)

    def test_lingering_counts(self) -> None:
        """
        A connection that was closed by the host but not by the peer still has its place.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=1))
        wire = self.bound()
        wire.send(BROKEN)
        self.assertEqual(len(self.refuse(PEER)), 1)
        wire.leave()
        self.wire()

    def test_refused_connection_takes_no_place(self) -> None:
        """
        Peers that were turned away do not count.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=1))
        for _ in range(3):
            self.refuse("8.8.8.8")
        self.assertServed()

    def test_wire_notices(self) -> None:
        """
        The tests' own wire knows a refusal.
        """
        self.assertRaises(TurnedAwayError, Wire, self.factory, "8.8.8.8")
