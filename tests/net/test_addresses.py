"""
Reaching a host by name in one address family, with a resolver and a network of the test's own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.addresses import MAX_ADDRESSES, FamilyEndpoint, endpoint_to, resolve


class Resolver:
    """
    Knows what a test tells it.

    @ivar addresses: The addresses of every name.
    @ivar asked: What was asked.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked: list[tuple[str, int, list[type]]] = []

    def resolveHostName(  # noqa: N802
        self, receiver: Any, host: str, port: int, types: list[type]
    ) -> None:
        """
        Answer at once.
        """
        self.asked.append((host, port, types))
        receiver.resolutionBegan(self)
        for text in self.addresses:
            kind = IPv6Address if ":" in text else IPv4Address
            if kind in types:
                receiver.addressResolved(kind("TCP", text, port))
        receiver.resolutionComplete()


class Reactor(MemoryReactorClock):
    """
    A reactor in memory with such a resolver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()


class AddressesTests(SynchronousTestCase):
    """
    Look-ups.
    """

    def setUp(self) -> None:
        """
        Make a reactor that knows two addresses of each family.
        """
        self.reactor = Reactor()
        self.resolver = self.reactor.nameResolver
        self.resolver.addresses = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]

    def resolved(self, family: int | None = None) -> list[str]:
        """
        Look a name up.
        """
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688, family))
        return [address.host for address in self.successResultOf(asked)]

    def test_families(self) -> None:
        """
        The addresses of one family, or of both, are found in the order of the resolver.
        """
        self.assertEqual(self.resolved(4), ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(self.resolved(6), ["2001:db8::1", "2001:db8::2"])
        self.assertEqual(self.resolved(), self.resolver.addresses)

    def test_bound(self) -> None:
        """
        Of a name with many addresses some are enough.
        """
        self.resolver.addresses = [f"192.0.2.{number}" for number in range(250)]
        self.assertEqual(len(self.resolved()), MAX_ADDRESSES)

    def test_none(self) -> None:
        """
        A name without address of the family is an error that says so.
        """
        self.resolver.addresses = ["192.0.2.1"]
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688, 6))
        failure = self.failureResultOf(asked, DNSLookupError)
        self.assertIn("no IPv6 address was found for 'kms'", str(failure.value))
        self.resolver.addresses = []
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688))
        failure = self.failureResultOf(asked, DNSLookupError)
        self.assertIn("no address was found for 'kms'", str(failure.value))

    def test_impossible_name(self) -> None:
        """
        A name that no host can have is not asked for.
        """
        for name in ("a..b", "x" * 64):
            asked = Deferred.fromCoroutine(resolve(self.reactor, name, 1688, 4))
            failure = self.failureResultOf(asked, DNSLookupError)
            self.assertIn("is no name that a host can have", str(failure.value))
        self.assertEqual(self.resolver.asked, [])

    def test_nobody_waits(self) -> None:
        """
        An answer that comes when nobody waits any more is dropped.
        """
        receivers: list[Any] = []
        self.resolver.resolveHostName = (  # type: ignore[method-assign]
            lambda receiver, *arguments: receivers.append(receiver)
        )
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688))
        asked.cancel()
        self.failureResultOf(asked)
        receivers[0].resolutionComplete()

    def attempts(self) -> list[str]:
        """
        List where a connection was tried.
        """
        return [client[0] for client in self.reactor.tcpClients]

    def connecting(self, family: int) -> Deferred[Any]:
        """
        Connect.
        """
        endpoint = endpoint_to(self.reactor, "kms", 1688, family)
        self.assertIsInstance(endpoint, FamilyEndpoint)
        return endpoint.connect(Factory.forProtocol(Protocol))

    def test_first(self) -> None:
        """
        The first address that answers is taken.
        """
        connecting = self.connecting(4)
        self.assertEqual(self.attempts(), ["192.0.2.1"])
        client_factory = self.reactor.tcpClients[0][2]
        protocol = client_factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        self.successResultOf(connecting)

    def test_next(self) -> None:
        """
        When one address refuses the next is tried; when all do, the last refusal is the error.
        """
        connecting = self.connecting(6)
        for number, address in enumerate(("2001:db8::1", "2001:db8::2")):
            self.assertEqual(self.attempts()[number], address)
            self.assertNoResult(connecting)
            self.reactor.tcpClients[number][2].clientConnectionFailed(
                None, Failure(ConnectionRefusedError())
            )
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_both_families(self) -> None:
        """
        Without a family it is Twisted's own endpoint.
        """
        self.assertIsInstance(endpoint_to(self.reactor, "kms", 1688), HostnameEndpoint)
