"""
The private addresses of a machine.
"""

from __future__ import annotations

from types import SimpleNamespace as Bag

import ifaddr
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.interfaces import private_addresses
from kmsproto.net.listening import AddressError


class InterfaceTests(SynchronousTestCase):
    """
    What is listed.
    """

    def listed(self, *addresses: object) -> list[str]:
        """
        List the private ones of these.
        """
        adapters = [Bag(ips=[Bag(ip=each)]) for each in addresses]
        self.patch(ifaddr, "get_adapters", lambda: adapters)
        return private_addresses()

    def test_private(self) -> None:
        """
        Private addresses of both families, each once; not public ones, nor link-local ones of IPv6.
        """
        self.assertEqual(
            self.listed(
                "127.0.0.1", ("::1", 0, 0), "10.0.0.1", "192.0.2.1", "10.0.0.1",
                ("fd00::1", 0, 0), ("fe80::1", 0, 2), ("2001:db8::1", 0, 0), "100.64.0.1",
            ),
            ["127.0.0.1", "::1", "10.0.0.1", "fd00::1"],
        )  # fmt: skip

    def test_none(self) -> None:
        """
        A machine without any is an error, rather than a host that listens on all.
        """
        self.assertIn("--listen", str(self.assertRaises(AddressError, self.listed, "192.0.2.1")))

    def test_this_machine(self) -> None:
        """
        This machine has its loopback address.
        """
        self.assertIn("127.0.0.1", private_addresses())
