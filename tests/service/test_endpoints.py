"""
Where a host listens: which endpoints the settings ask for, and what is said of one that is none.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.listening import AddressEndpoint, BothFamiliesEndpoint
from kmsproto.net.proxied import ProxiedEndpoint
from kmsproto.service import endpoints
from kmsproto.service.endpoints import make_endpoints
from kmsproto.service.kinds import SettingError
from kmsproto.service.sources import gather


class EndpointsTests(SynchronousTestCase):
    """
    The choice.
    """

    def make(self, **variables: str) -> list[Any]:
        """
        Make endpoints of settings that come from variables.
        """
        environment = {f"KMSPROTO_{name}": text for name, text in variables.items()}
        settings = gather({}, {**environment, "KMSPROTO_CONFIG": "/dev/null"}, 0)
        return list(make_endpoints(settings, MemoryReactorClock()))

    def kinds(self, **variables: str) -> list[type]:
        """
        Tell what kinds of endpoints they are.
        """
        return [type(each) for each in self.make(**variables)]

    def test_default(self) -> None:
        """
        Without settings there is one endpoint for both families.
        """
        self.assertEqual(self.kinds(), [BothFamiliesEndpoint])

    def test_addresses(self) -> None:
        """
        Addresses take its place, and endpoints come beside either.
        """
        listed = "127.0.0.1:1,::1"
        self.assertEqual(self.kinds(LISTEN=listed), [AddressEndpoint] * 2)
        (*_, last) = self.kinds(LISTEN=listed, ENDPOINT="haproxy:tcp:1")
        self.assertEqual(last, ProxiedEndpoint)
        self.assertEqual(len(self.kinds(ENDPOINT="tcp:1")), 1)
        self.assertEqual(len(self.kinds(ENDPOINT="tcp:1", PORT="5")), 2)

    def test_proxied_workers(self) -> None:
        """
        An endpoint for a proxy is refused with workers before anything is opened.
        """
        self.assertEqual(self.kinds(ENDPOINT="haproxy:tcp:1", WORKERS="1"), [ProxiedEndpoint])
        error = self.assertRaises(SettingError, self.make, ENDPOINT="haproxy:tcp:1", WORKERS="2")
        self.assertEqual(
            str(error),
            "KMSPROTO_ENDPOINT: 'haproxy:tcp:1' is not possible with 2 workers;"
            " use endpoints of the kinds tcp, tcp6, unix or systemd, or --workers=1",
        )

    def test_reasons(self) -> None:
        """
        What is wrong with a description is told without the names of functions, and with a way out.
        """
        for description, reason in (
            ("tcp", "missing 1 required positional argument: 'port'"),
            ("haproxy:tcp", "missing 1 required positional argument: 'port'"),
            ("tcp:1:x=y", "got an unexpected keyword argument 'x'"),
            (
                "systemd:domain=INET:index=7",
                "systemd has passed no such socket; start it from a systemd socket unit",
            ),
        ):
            with self.subTest(description=description):
                error = self.assertRaises(SettingError, self.make, ENDPOINT=description)
                self.assertEqual(
                    str(error),
                    f"KMSPROTO_ENDPOINT: {description!r} is not a server endpoint: {reason}",
                )

    def test_private(self) -> None:
        """
        The private addresses of this machine are listened on if nobody names others.
        """
        self.patch(endpoints, "private_addresses", lambda: ["127.0.0.1", "10.0.0.1", "::1"])
        for level in ("1", "3"):
            self.assertEqual(self.kinds(PUBLIC_IP_PROTECTION=level), [AddressEndpoint] * 3)
        self.assertEqual(len(self.kinds(PUBLIC_IP_PROTECTION="1", LISTEN="127.0.0.1")), 1)
        self.assertEqual(len(self.kinds(PUBLIC_IP_PROTECTION="1", ENDPOINT="tcp:1")), 1)

    def test_none(self) -> None:
        """
        What is no endpoint is reported with where it came from.
        """
        with self.assertRaises(SettingError) as caught:
            self.make(ENDPOINT="foo")
        self.assertIn("KMSPROTO_ENDPOINT: 'foo' is not a server endpoint", str(caught.exception))
