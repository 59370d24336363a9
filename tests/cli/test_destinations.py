"""
Finding the hosts that a user means, with DNS answers that the test makes up.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import destinations as module
from kmsproto.cli.destinations import MAX_DESTINATIONS, Whereabouts, destinations
from kmsproto.cli.targets import Target
from kmsproto.errors import HostUnreachableError, KMSProtoError
from kmsproto.net.discovery import Discovered, Found, ServiceRecord
from kmsproto.net.resolver import (
    NameServerTimeoutError,
    NoServiceRecordError,
    NoSuchNameError,
)


def found(*hosts: Found) -> Discovered:
    """
    Make what DNS says.
    """
    return Discovered("example.com", "_vlmcs._tcp.example.com", hosts)


def host(name: str, *addresses: str, problem: str = "") -> Found:
    """
    Make what became of a record.
    """
    return Found(ServiceRecord(name, 1688), addresses, problem)


class DestinationsTests(SynchronousTestCase):
    """
    From what the user wrote to the places to try.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of DNS.
        """
        self.answers: dict[str, Discovered | KMSProtoError] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.own: tuple[str, ...] = ()
        self.servers: list[Any] = []
        self.patch(module, "discover", self.discover)
        self.patch(module, "look_for_own_domains", lambda *_: succeed(self.own))
        self.patch(module, "make_resolver", lambda reactor, servers: self.servers.append(servers))

    async def discover(
        self, reactor: Any, resolver: Any, domain: str, **options: Any
    ) -> Discovered:
        """
        Stand for the look-up.
        """
        self.asked.append((domain, options))
        answer = self.answers[domain]
        if isinstance(answer, KMSProtoError):
            raise answer
        return answer

    def look_up(self, whereabouts: Whereabouts, **options: Any) -> Deferred[Any]:
        """
        Look the places up.
        """
        return Deferred.fromCoroutine(
            destinations(MemoryReactorClock(), whereabouts, timeout=3.0, **options)
        )

    def names(self, whereabouts: Whereabouts, **options: Any) -> list[str]:
        """
        Name the places.
        """
        return [each.name for each in self.successResultOf(self.look_up(whereabouts, **options))]

    def test_host(self) -> None:
        """
        A host is one place, without any look-up here.
        """
        reached: list[tuple[Any, ...]] = []
        self.patch(module, "endpoint_to", lambda *arguments: reached.append(arguments))
        for family in (None, 4):
            looked_up = self.look_up(Whereabouts("kms", Target("kms", 1700)), family=family)
            (place,) = self.successResultOf(looked_up)
            self.assertEqual(place.name, "kms:1700")
            self.assertEqual(reached[-1][1:], ("kms", 1700, family))
        self.assertEqual((self.asked, self.servers), ([], []))

    def test_domain(self) -> None:
        """
        A domain is the addresses of its records, in their order.
        """
        self.answers["example.com"] = found(
            host("a.example.com", "192.0.2.1", "2001:db8::1"), host("b.example.com", "192.0.2.2")
        )
        wanted = Whereabouts(".example.com", domain="example.com")
        self.assertEqual(
            self.names(wanted),
            [
                "a.example.com (192.0.2.1:1688)",
                "a.example.com ([2001:db8::1]:1688)",
                "b.example.com (192.0.2.2:1688)",
            ],
        )
        self.assertEqual(self.names(wanted, family=6), ["a.example.com ([2001:db8::1]:1688)"])
        self.assertEqual(self.asked[0], ("example.com", {"timeout": 3.0, "ignore_order": False}))
        self.names(wanted, ignore_order=True, nameservers=[("127.0.0.1", 53)])
        self.assertTrue(self.asked[-1][1]["ignore_order"])
        self.assertEqual(self.servers, [None, None, [("127.0.0.1", 53)]])

    def test_own_domains(self) -> None:
        """
        This machine's own domains are tried until one has records.
        """
        self.own = ("a.example", "b.example", "c.example")
        self.answers["a.example"] = NoSuchNameError("there is no a.example")
        self.answers["b.example"] = found(host("kms", "192.0.2.1"))
        self.assertEqual(self.names(Whereabouts("-")), ["kms (192.0.2.1:1688)"])
        self.assertEqual([domain for domain, _ in self.asked], ["a.example", "b.example"])

    def test_none(self) -> None:
        """
        When no domain has records the last error is told.
        """
        self.own = ("a.example", "b.example")
        self.answers["a.example"] = NoSuchNameError("there is no a.example")
        self.answers["b.example"] = NoServiceRecordError("b.example has none")
        self.failureResultOf(self.look_up(Whereabouts("-")), NoServiceRecordError)

    def test_silent_name_server(self) -> None:
        """
        A name server that is silent is not asked for the next domain.
        """
        self.own = ("a.example", "b.example")
        self.answers["a.example"] = NameServerTimeoutError("no answer")
        self.failureResultOf(self.look_up(Whereabouts("-")), NameServerTimeoutError)
        self.assertEqual(len(self.asked), 1)

    def test_unusable(self) -> None:
        """
        Records that cannot be used are an error that says why, and what tells more.
        """
        wanted = Whereabouts(".example.com", domain="example.com")
        for answer, family, reason in (
            (found(host("a", problem="a has no address")), None, "a has no address"),
            (found(host("a", "192.0.2.1")), 6, "no IPv6 address"),
        ):
            self.answers["example.com"] = answer
            failure = self.failureResultOf(
                self.look_up(wanted, family=family), HostUnreachableError
            )
            self.assertIn(reason, str(failure.value))
            self.assertIn("kmsproto discover example.com tells more", str(failure.value))

    def test_bound(self) -> None:
        """
        Of very many places some are enough.
        """
        addresses = [f"192.0.2.{number}" for number in range(200)]
        self.answers["example.com"] = found(host("a", *addresses))
        wanted = Whereabouts(".example.com", domain="example.com")
        self.assertEqual(len(self.names(wanted)), MAX_DESTINATIONS)
