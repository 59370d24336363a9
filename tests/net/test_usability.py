"""
What is odd about published records.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.usability import address_flaw, record_notes
from tests.net.resolving import record


class AddressTests(SynchronousTestCase):
    """
    Addresses, one by one.
    """

    def test_flaws(self) -> None:
        """
        Addresses at which no client finds a host are told with what they are.
        """
        for address, part in (
            ("127.0.0.1", "every client's own machine"),
            ("::1", "every client's own machine"),
            ("0.0.0.0", "no address at all"),
            ("::", "no address at all"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("169.254.1.1", "one link only"),
            ("fe80::1", "one link only"),
            ("::ffff:10.0.0.1", "publish 10.0.0.1 as an A record"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.255", "documentation"),
            ("203.0.113.0", "documentation"),
            ("2001:db8::1", "documentation"),
        ):
            self.assertIn(part, address_flaw(address), address)

    def test_usual(self) -> None:
        """
        Private, shared and public addresses are as they should be.
        """
        for address in ("10.0.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2600::1"):
            self.assertEqual(address_flaw(address), "", address)

    @given(st.ip_addresses())
    def test_any_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """
        Every address is judged in one line, with a way out if there is something to say.
        """
        flaw = address_flaw(str(address))
        self.assertTrue(not flaw or "; publish " in flaw)
        self.assertNotIn("\n", flaw)


class RecordTests(SynchronousTestCase):
    """
    Records together.
    """

    def test_nothing(self) -> None:
        """
        Different hosts and ports with one TTL are as they should be.
        """
        self.assertEqual(record_notes([record("a"), record("b"), record("a", 1689)]), [])
        self.assertEqual(record_notes([]), [])

    def test_twice(self) -> None:
        """
        The same host and port twice is told, whatever the case, priority and weight; of many only some are named.
        """
        (note,) = record_notes([record("a.example"), record("A.example", priority=5)])
        self.assertIn("more than one record names a.example:1688;", note)
        (note,) = record_notes([record(f"h{number}") for number in range(9)] * 2)
        self.assertIn("h3:1688, ...;", note)
        self.assertNotIn("h4", note)

    def test_lives(self) -> None:
        """
        Different TTLs are told with the smallest and the largest.
        """
        (note,) = record_notes([record("a", ttl=9), record("b", ttl=60), record("c", ttl=30)])
        self.assertIn("from 9 to 60 s", note)
