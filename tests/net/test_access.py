"""
Which peers are private, edge by edge, and how addresses of sockets become peers.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.policy import Peer
from kmsproto.net.access import (
    CLIENTS,
    LOCAL_PEER,
    PRIVATE_NETWORKS,
    PRIVATE_ONLY,
    AccessRules,
    NetworkError,
    is_private,
    parse_network,
    peer_of,
)

#: The first and the last address of each private range, with their neighbours outside.
RANGES = [
    ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
    ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
    ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
    ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
    ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
    ("::", "::1", "::1", "::2"),
    ("fe7f:" + "ffff:" * 6 + "ffff", "fe80::", "febf:" + "ffff:" * 6 + "ffff", "fec0::"),
    ("fbff:" + "ffff:" * 6 + "ffff", "fc00::", "fdff:" + "ffff:" * 6 + "ffff", "fe00::"),
]


class PrivateTests(SynchronousTestCase):
    """
    Whether an address is served by default.
    """

    def test_edges(self) -> None:
        """
        The first and the last address of every private range are private, and their neighbours are not.
        """
        self.assertEqual(len(RANGES), len(PRIVATE_NETWORKS))
        for below, first, last, above in RANGES:
            with self.subTest(first):
                self.assertEqual(
                    [is_private(each) for each in (below, first, last, above)],
                    [False, True, True, False],
                )

    def test_mapped_edges(self) -> None:
        """
        An IPv4 address is judged alike in IPv6 clothes, in both spellings.
        """
        for edges in RANGES[:5]:
            for plain in edges:
                octets = bytes(map(int, plain.split(".")))
                for mapped in (f"::ffff:{plain}", f"::ffff:{octets[:2].hex()}:{octets[2:].hex()}"):
                    with self.subTest(mapped):
                        self.assertEqual(is_private(mapped), is_private(plain))

    def test_compatible_is_not_mapped(self) -> None:
        """
        Other IPv6 addresses that hold a private IPv4 address are not private.
        """
        for host in ("::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "::fffe:10.0.0.1"):
            self.assertFalse(is_private(host), host)

    def test_shared_address_space(self) -> None:
        """
        The shared address space is private by choice only, up to its edges, also in IPv6 clothes.
        """
        edges = ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0")
        for prefix in ("", "::ffff:"):
            hosts = [prefix + host for host in edges]
            self.assertEqual([is_private(host) for host in hosts], [False] * 4)
            self.assertEqual(
                [is_private(host, shared=True) for host in hosts], [False, True, True, False]
            )

    def test_shared_choice_adds_nothing_else(self) -> None:
        """
        With the shared address space a public IPv6 address stays public.
        """
        self.assertFalse(is_private("2001:db8::1", shared=True))
        self.assertTrue(is_private("fd00::1", shared=True))

    def test_zone(self) -> None:
        """
        A zone behind an address does not change what it is.
        """
        self.assertTrue(is_private("fe80::1%eth0"))
        self.assertTrue(is_private("fe80::1%2"))
        self.assertFalse(is_private("2001:db8::1%eth0"))

    def test_public(self) -> None:
        """
        Public, documentation, unspecified and multicast addresses are not private.
        """
        for host in (
            "8.8.8.8",
            "192.0.2.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "2001:db8::1",
            "ff02::1",
            "::ffff:0:0",
        ):
            self.assertFalse(is_private(host), host)

    def test_garbage(self) -> None:
        """
        What is no address is not private.
        """
        for text in (
            "",
            " ",
            "%",
            "localhost",
            "10.0.0",
            "10.0.0.1 ",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1:1688",
            "[::1]",
            "::1::",
            "Local",
            "10.0.0.0/8",
            "١٠.0.0.1",
        ):
            self.assertFalse(is_private(text), text)

    def test_local_peer(self) -> None:
        """
        A peer without address is on this machine, and private.
        """
        self.assertTrue(is_private(LOCAL_PEER.address))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text has a verdict.
        """
        self.assertIn(is_private(text), (True, False))

    @given(st.ip_addresses(v=4), st.booleans())
    def test_mapped_is_alike(self, host: Any, shared: bool) -> None:
        """
        Every IPv4 address is judged alike in IPv6 clothes.
        """
        self.assertEqual(
            is_private(str(host), shared=shared), is_private(f"::ffff:{host}", shared=shared)
        )


class PeerTests(SynchronousTestCase):
    """
    Who is at the other end of a transport.
    """

    def test_internet(self) -> None:
        """
        An Internet address becomes its text and port.
        """
        self.assertEqual(peer_of(IPv4Address("TCP", "10.1.2.3", 40000)), Peer("10.1.2.3", 40000))
        self.assertEqual(peer_of(IPv6Address("TCP", "fd00::1", 40000)), Peer("fd00::1", 40000))

    def test_one_spelling(self) -> None:
        """
        An IPv6 address is written in one way, so that it is counted once.
        """
        peer = peer_of(IPv6Address("TCP", "FD00:0:0::0:1", 1))
        self.assertEqual(peer, Peer("fd00::1", 1))

    def test_mapped(self) -> None:
        """
        An IPv4 address in IPv6 clothes is known by its IPv4 address.
        """
        self.assertEqual(peer_of(IPv6Address("TCP", "::ffff:10.1.2.3", 5)), Peer("10.1.2.3", 5))
        self.assertEqual(peer_of(IPv6Address("TCP", "::ffff:a01:203", 5)), Peer("10.1.2.3", 5))

    def test_zone(self) -> None:
        """
        A zone is left off.
        """
        self.assertEqual(peer_of(IPv6Address("TCP", "fe80::1%eth0", 5)), Peer("fe80::1", 5))

    def test_garbage(self) -> None:
        """
        What is no address keeps its text, and is not served by default.
        """
        peer = peer_of(IPv4Address("TCP", "nonsense", 5))
        self.assertEqual(peer, Peer("nonsense", 5))
        self.assertFalse(is_private(peer.address))

    def test_other_kinds(self) -> None:
        """
        UNIX sockets, and whatever else has no Internet address, are local.
        """
        for endpoint in (
            UNIXAddress("/run/kms.socket"),
            UNIXAddress(None),
            HostnameAddress(b"kms.example", 1688),
            None,
            object(),
        ):
            self.assertEqual(peer_of(endpoint), LOCAL_PEER)
        self.assertEqual(LOCAL_PEER.port, 0)


def networks(*texts: str) -> tuple[Any, ...]:
    """
    Read networks.
    """
    return tuple(map(parse_network, texts))


class RulesTests(SynchronousTestCase):
    """
    Who may connect.
    """

    def served(self, rules: AccessRules, *hosts: str) -> list[str]:
        """
        Tell who is served.
        """
        return [host for host in hosts if not rules.refusal(host)]

    def test_default(self) -> None:
        """
        Without a word private peers are served.
        """
        hosts = ("10.0.0.1", "8.8.8.8", "100.64.0.1", "fd00::1", "local", "nonsense")
        self.assertEqual(self.served(PRIVATE_ONLY, *hosts), ["10.0.0.1", "fd00::1", "local"])
        self.assertEqual(PRIVATE_ONLY.refusal("8.8.8.8"), "not a private address")
        shared = AccessRules(allow_shared=True)
        self.assertEqual(self.served(shared, "100.64.0.1", "8.8.8.8"), ["100.64.0.1"])

    def test_public(self) -> None:
        """
        Where public peers are served, everybody is, except who is denied.
        """
        hosts = ("10.0.0.1", "8.8.8.8", "local", "nonsense")
        self.assertEqual(self.served(AccessRules(allow_public=True), *hosts), list(hosts))
        rules = AccessRules(allow_public=True, deny=networks("8.8.0.0/16"))
        self.assertEqual(self.served(rules, "8.8.8.8", "8.9.0.1"), ["8.9.0.1"])
        self.assertEqual(rules.refusal("8.8.8.8"), "a denied address")

    def test_allow(self) -> None:
        """
        Where networks are allowed nobody else is served, and a public network can be one of them.
        """
        rules = AccessRules(allow=networks("192.0.2.0/24", "2001:db8::/32"))
        hosts = ("192.0.2.7", "2001:db8::5", "10.0.0.1", "local", "nonsense")
        self.assertEqual(self.served(rules, *hosts), ["192.0.2.7", "2001:db8::5", "local"])
        self.assertEqual(rules.refusal("10.0.0.1"), "not an allowed address")

    def test_deny_wins(self) -> None:
        """
        Who is denied and allowed is denied.
        """
        rules = AccessRules(allow=networks("10.0.0.0/8"), deny=networks("10.1.0.0/16"))
        self.assertEqual(self.served(rules, "10.0.0.1", "10.1.0.1"), ["10.0.0.1"])

    def test_remembered(self) -> None:
        """
        Verdicts are remembered up to a bound, and those of other rules are others.
        """
        rules: Any = AccessRules(deny=networks("10.0.0.0/9"))
        for number in range(CLIENTS + 10):
            rules.refusal(f"10.{number % 256}.{number // 256}.1")
        rules.refusal("10.0.0.1")
        rules.refusal("10.0.0.1")
        info = rules.refusal.cache_info()
        self.assertEqual((info.currsize, info.hits), (CLIENTS, 1))
        self.assertEqual(AccessRules().refusal("10.0.0.1"), "")

    def test_equal(self) -> None:
        """
        Rules are equal if they say the same.
        """
        self.assertEqual(AccessRules(), PRIVATE_ONLY)
        self.assertNotEqual(AccessRules(allow_public=True), PRIVATE_ONLY)


class NetworkTests(SynchronousTestCase):
    """
    Networks as people write them.
    """

    def test_read(self) -> None:
        """
        An address is a network of one; IPv6 clothes are taken off.
        """
        for text, network in (
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
        ):
            self.assertEqual(str(parse_network(text)), network)

    def test_host_bits(self) -> None:
        """
        Bits of a host are a mistake, and what was meant is proposed.
        """
        for text, proposal in (("10.1.2.3/8", "10.0.0.0/8"), ("fd00::1/64", "fd00::/64")):
            error = self.assertRaises(NetworkError, parse_network, text)
            self.assertIn(f"has bits of a host; write {proposal}", str(error))

    def test_mistakes(self) -> None:
        """
        What is no network is told in one line.
        """
        for text in ("", "kms.example", "10.0.0.0/33", "fe80::1%eth0", "fe80::1%eth0/64", "10/8"):
            error = self.assertRaises(NetworkError, parse_network, text)
            self.assertNotIn("\n", str(error))
