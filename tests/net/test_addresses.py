"""
Reaching a host by name or address, with a system and a network of the test's own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net import addresses as module
from kmsproto.net.addresses import LONGEST, MAX_ADDRESSES, SystemResolver, endpoint_to, resolve


class Thread:
    """
    Stands for a thread: runs at once, unless the test wants it to wait.
    """

    waiting: list[Callable[[], None]] | None = None

    def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._target = target
        # Nobody may have to wait for it.
        assert daemon

    def start(self) -> None:
        """
        Run.
        """
        if Thread.waiting is None:
            self._target()
        else:
            Thread.waiting.append(self._target)


class Reactor(MemoryReactorClock):
    """
    A reactor in memory that takes what threads have to say.
    """

    def callFromThread(self, function: Callable[..., None], *arguments: Any) -> None:  # noqa: N802
        """
        Call it at once.
        """
        function(*arguments)


class AddressesCase(SynchronousTestCase):
    """
    A system that knows what the test tells it.

    @ivar known: The addresses of every name.
    @ivar asked: The names that were asked for.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the system and of threads.
        """
        self.reactor = Reactor()
        self.known = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
        self.asked: list[str] = []
        self.patch(module.threading, "Thread", Thread)
        self.patch(Thread, "waiting", None)
        self.patch(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        """
        Stand for the system.
        """
        host.encode("idna")
        self.asked.append(host)
        if not self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (socket.AF_INET6, type, 6, "", (text, port, 0, 3 if text.startswith("fe80") else 0))
            if ":" in text
            else (socket.AF_INET, type, 6, "", (text, port))
            for text in self.known
        ]


class ResolveTests(AddressesCase):
    """
    Look-ups.
    """

    def resolved(self, family: int | None = None) -> list[str]:
        """
        Look a name up.
        """
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688, family))
        return [address.host for address in self.successResultOf(asked)]

    def test_families(self) -> None:
        """
        The addresses of one family, or of both, are found in the order of the system.
        """
        self.assertEqual(self.resolved(4), ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(self.resolved(6), ["2001:db8::1", "2001:db8::2"])
        self.assertEqual(self.resolved(), self.known)

    def test_scope(self) -> None:
        """
        A link-local address keeps the scope without which it cannot be used.
        """
        self.known = ["fe80::5", "192.0.2.1"]
        self.assertEqual(self.resolved(6), ["fe80::5%3"])

    def test_other_families(self) -> None:
        """
        What is no internet address is passed over.
        """
        self.patch(
            socket,
            "getaddrinfo",
            lambda *arguments, **options: [
                (socket.AF_UNIX, 1, 0, "", "x"),
                (socket.AF_INET, 1, 6, "", ("192.0.2.1", 1688)),
            ],
        )
        self.assertEqual(self.resolved(), ["192.0.2.1"])

    def test_bound(self) -> None:
        """
        Of a name with many addresses some are enough.
        """
        self.known = [f"192.0.2.{number}" for number in range(250)]
        self.assertEqual(len(self.resolved()), MAX_ADDRESSES)

    def test_none(self) -> None:
        """
        A name without address of the family, or that no host can have, is an error that says so.
        """
        self.known = ["192.0.2.1"]
        for name in ("kms", "a..b", "x" * 64):
            asked = Deferred.fromCoroutine(resolve(self.reactor, name, 1688, 6))
            failure = self.failureResultOf(asked, DNSLookupError)
            self.assertIn(f"no IPv6 address was found for {name!r}", str(failure.value))
        self.known = []
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688))
        failure = self.failureResultOf(asked, DNSLookupError)
        self.assertIn("no address was found for 'kms'; check the name", str(failure.value))

    def test_nobody_waits(self) -> None:
        """
        An answer that comes when nobody waits any more is dropped.
        """
        waiting: list[Callable[[], None]] = []
        self.patch(Thread, "waiting", waiting)
        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 1688))
        asked.cancel()
        self.failureResultOf(asked)
        waiting[0]()

    def test_other_resolver(self) -> None:
        """
        Another resolver may be used.
        """

        class Other:
            def resolveHostName(self, receiver: Any, host: str, port: int) -> None:  # noqa: N802
                receiver.addressResolved(IPv4Address("TCP", "192.0.2.77", port))
                receiver.resolutionComplete()

        asked = Deferred.fromCoroutine(resolve(self.reactor, "kms", 5, None, Other()))  # type: ignore[arg-type]
        (address,) = self.successResultOf(asked)
        self.assertEqual((address.host, address.port), ("192.0.2.77", 5))

    def test_resolution(self) -> None:
        """
        A look-up has the name that was asked for, and nothing happens when it is given up.
        """
        from kmsproto.net.addresses import _Addresses

        resolution = SystemResolver(self.reactor).resolveHostName(_Addresses(), "kms", 1688)  # type: ignore[arg-type]
        self.assertEqual(resolution.name, "kms")
        resolution.cancel()


class EndpointTests(AddressesCase):
    """
    Connections.
    """

    def attempts(self) -> list[str]:
        """
        List where a connection was tried.
        """
        return [client[0] for client in self.reactor.tcpClients]

    def connecting(self, host: str, family: int | None = None) -> Deferred[Any]:
        """
        Connect.
        """
        endpoint = endpoint_to(self.reactor, host, 1688, family)
        return endpoint.connect(Factory.forProtocol(Protocol))

    def answer(self, number: int) -> None:
        """
        Let an attempt succeed.
        """
        protocol = self.reactor.tcpClients[number][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())

    def test_first(self) -> None:
        """
        The first address that answers is taken.
        """
        connecting = self.connecting("kms", 4)
        self.assertEqual(self.attempts(), ["192.0.2.1"])
        self.answer(0)
        self.successResultOf(connecting)

    def test_names_of_windows(self) -> None:
        """
        A name is for the system to judge, also if it is none of the Internet's.
        """
        for name in ("kms_host", "-kms-", "kms host"):
            connecting = self.connecting(name, 4)
            self.assertEqual(self.asked[-1], name)
            self.answer(-1)
            self.successResultOf(connecting)

    def test_refused(self) -> None:
        """
        When one address refuses the next is tried; when all do, that is the error.
        """
        connecting = self.connecting("kms", 6)
        for number, address in enumerate(("2001:db8::1", "2001:db8::2")):
            self.assertEqual(self.attempts()[number], address)
            self.assertNoResult(connecting)
            self.reactor.tcpClients[number][2].clientConnectionFailed(
                None, Failure(ConnectionRefusedError())
            )
            self.reactor.advance(1)
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_silent(self) -> None:
        """
        While one address is silent the next is tried.
        """
        connecting = self.connecting("kms", 4)
        self.reactor.advance(1)
        self.assertEqual(self.attempts(), ["192.0.2.1", "192.0.2.2"])
        self.answer(1)
        self.successResultOf(connecting)

    def test_no_limit(self) -> None:
        """
        How long an attempt may take is not for the endpoint to say.
        """
        for host in ("kms", "192.0.2.1", "2001:db8::1"):
            connecting = self.connecting(host)
            self.assertEqual(self.reactor.tcpClients[-1][3], LONGEST)
            connecting.cancel()
            self.failureResultOf(connecting)

    def test_none(self) -> None:
        """
        A name without address of the family is an error that says so.
        """
        self.known = ["192.0.2.1"]
        failure = self.failureResultOf(self.connecting("kms", 6), DNSLookupError)
        self.assertIn("no IPv6 address was found for 'kms'; check the name", str(failure.value))

    def test_addresses(self) -> None:
        """
        An address is not looked up, and keeps its scope; one of the other family is no address.
        """
        for host, family, kind in (
            ("192.0.2.1", None, TCP4ClientEndpoint),
            ("192.0.2.1", 4, TCP4ClientEndpoint),
            ("2001:db8::1", 6, TCP6ClientEndpoint),
            ("fe80::1%eth0", None, TCP6ClientEndpoint),
        ):
            self.assertIsInstance(endpoint_to(self.reactor, host, 1688, family), kind)
        self.connecting("fe80::1%eth0")
        self.assertEqual((self.attempts(), self.asked), (["fe80::1%eth0"], []))

    def test_resolver_of_a_reactor(self) -> None:
        """
        As with any reactor, the resolver can be another.
        """
        from kmsproto.net.addresses import _NamingReactor

        first, second = SystemResolver(self.reactor), SystemResolver(self.reactor, 4)
        naming = _NamingReactor(self.reactor, first)
        self.assertIs(naming.installNameResolver(second), first)
        self.assertIs(naming.nameResolver, second)
        self.assertEqual(naming.seconds(), self.reactor.seconds())
