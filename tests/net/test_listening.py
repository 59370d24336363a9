"""
Opening sockets for both IP families, or for one where a kernel has no other.

The sockets are real, as only a kernel can tell what they take; the reactor is not.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorSocket, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.net.listening import (
    AddressEndpoint,
    AddressError,
    BothFamiliesEndpoint,
    parse_listen,
)


@implementer(IReactorSocket)
class AdoptingReactor:
    """
    Takes sockets over, as a reactor does, and keeps duplicates.
    """

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.arguments: list[tuple[Any, Any]] = []

    def adoptStreamPort(self, descriptor: int, family: Any, factory: Any) -> Any:  # noqa: N802
        """
        Take a listening socket.
        """
        self.arguments.append((family, factory))
        self.sockets.append(socket.fromfd(descriptor, family, socket.SOCK_STREAM))
        return self.sockets[-1]

    def adoptStreamConnection(self, descriptor: int, family: Any, factory: Any) -> Any:  # noqa: N802
        """
        Not used.
        """

    def adoptDatagramPort(  # noqa: N802
        self, descriptor: int, family: Any, protocol: Any, size: int
    ) -> Any:
        """
        Not used.
        """


def ipv6_works() -> bool:
    """
    Tell whether this machine has an IPv6 loopback address.
    """
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class BothFamiliesTests(SynchronousTestCase):
    """
    One port for both families.
    """

    def setUp(self) -> None:
        """
        Make a reactor.
        """
        self.reactor = AdoptingReactor()
        self.addCleanup(self.close)
        self.factory = Factory()

    def close(self) -> None:
        """
        Close what was adopted.
        """
        for each in self.reactor.sockets:
            each.close()

    def listen(self, port: int = 0) -> socket.socket:
        """
        Listen, and get the socket.
        """
        endpoint = BothFamiliesEndpoint(self.reactor, port)
        listening: Any = self.successResultOf(endpoint.listen(self.factory))
        return self.reactor.sockets[self.reactor.sockets.index(listening)]

    def connect(self, family: int, host: str, port: int) -> None:
        """
        Connect and hang up.
        """
        with socket.socket(family) as peer:
            peer.settimeout(5)
            peer.connect((host, port))

    def test_interface(self) -> None:
        """
        It is a server endpoint.
        """
        verifyObject(IStreamServerEndpoint, BothFamiliesEndpoint(self.reactor, 0))

    def test_both(self) -> None:
        """
        With IPv6 one socket takes connections of both families on the same port.
        """
        if not ipv6_works():
            self.skipTest("this machine has no IPv6")
        port = self.listen()
        self.assertEqual(self.reactor.arguments, [(socket.AF_INET6, self.factory)])
        number = port.getsockname()[1]
        self.connect(socket.AF_INET6, "::1", number)
        self.connect(socket.AF_INET, "127.0.0.1", number)
        self.assertEqual(port.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 0)

    def test_without_ipv6(self) -> None:
        """
        Where the kernel has no dual-stack sockets, one IPv4 socket listens.
        """
        self.patch(socket, "has_dualstack_ipv6", lambda: False)
        port = self.listen()
        self.assertEqual(self.reactor.arguments, [(socket.AF_INET, self.factory)])
        self.assertEqual(port.getsockname()[0], "0.0.0.0")
        self.connect(socket.AF_INET, "127.0.0.1", port.getsockname()[1])

    def test_descriptor(self) -> None:
        """
        The socket does not block, is not inherited, and the descriptor handed over is closed afterwards.
        """
        given: list[int] = []
        adopt = self.reactor.adoptStreamPort

        def spy(descriptor: int, family: Any, factory: Any) -> object:
            given.append(descriptor)
            self.assertEqual(
                (os.get_blocking(descriptor), os.get_inheritable(descriptor)), (False, False)
            )
            return adopt(descriptor, family, factory)

        self.patch(self.reactor, "adoptStreamPort", spy)
        self.listen()
        with self.assertRaises(OSError):
            socket.socket(fileno=given[0])

    def test_port_in_use(self) -> None:
        """
        A port that is taken is a failure that names it.
        """
        for dualstack in (socket.has_dualstack_ipv6(), False):
            self.patch(socket, "has_dualstack_ipv6", lambda value=dualstack: value)
            taken = self.listen().getsockname()[1]
            failed = BothFamiliesEndpoint(self.reactor, taken).listen(self.factory)
            error = self.failureResultOf(failed, CannotListenError).value
            self.assertEqual(error.port, taken)
            self.assertIsInstance(error.socketError, OSError)

    def test_reactor_refuses(self) -> None:
        """
        When the reactor does not take the socket, the port is free again.
        """
        numbers: list[int] = []

        def refuse(descriptor: int, family: Any, factory: Any) -> object:
            with socket.socket(fileno=socket.dup(descriptor)) as copy:
                numbers.append(copy.getsockname()[1])
            raise RuntimeError("refused")

        original = self.reactor.adoptStreamPort
        self.reactor.adoptStreamPort = refuse  # type: ignore[method-assign]
        failed = BothFamiliesEndpoint(self.reactor, 0).listen(self.factory)
        self.failureResultOf(failed, RuntimeError)
        self.reactor.adoptStreamPort = original  # type: ignore[method-assign]
        self.listen(numbers[0])


class AddressTests(SynchronousTestCase):
    """
    One address.
    """

    def setUp(self) -> None:
        """
        Make a reactor.
        """
        self.reactor = AdoptingReactor()
        self.addCleanup(lambda: [each.close() for each in self.reactor.sockets])
        self.factory = Factory()

    def listen(self, address: str, *, free_bind: bool = False) -> socket.socket:
        """
        Listen, and get the socket.
        """
        endpoint = AddressEndpoint(self.reactor, address, 0, free_bind=free_bind)
        verifyObject(IStreamServerEndpoint, endpoint)
        self.successResultOf(endpoint.listen(self.factory))
        return self.reactor.sockets[-1]

    def refused(self, address: str, port: int = 0, *, free_bind: bool = False) -> Any:
        """
        Fail to listen, and get the error.
        """
        endpoint = AddressEndpoint(self.reactor, address, port, free_bind=free_bind)
        return self.failureResultOf(endpoint.listen(self.factory), CannotListenError).value

    def test_ipv4(self) -> None:
        """
        It listens on that address, and small answers leave at once.
        """
        port = self.listen("127.0.0.2")
        self.assertEqual(port.getsockname()[0], "127.0.0.2")
        self.assertEqual(self.reactor.arguments, [(socket.AF_INET, self.factory)])
        self.assertTrue(port.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_ipv6(self) -> None:
        """
        An IPv6 address means IPv6, even the one that stands for all.
        """
        if not ipv6_works():
            self.skipTest("this machine has no IPv6")
        for address in ("::1", "::"):
            port = self.listen(address)
            self.assertEqual(port.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)

    def test_not_here(self) -> None:
        """
        An address of another machine is an error that names it; with free bind it is none.
        """
        error = self.refused("198.51.100.7")
        self.assertEqual((error.interface, error.port), ("198.51.100.7", 0))
        if not sys.platform.startswith("linux"):
            self.skipTest("free bind is Linux's")
        self.assertEqual(
            self.listen("198.51.100.7", free_bind=True).getsockname()[0], "198.51.100.7"
        )
        if ipv6_works():
            port = self.listen("2001:db8::7", free_bind=True)
            self.assertEqual(port.getsockname()[0], "2001:db8::7")

    def test_free_bind_elsewhere(self) -> None:
        """
        Where there is no free bind, the error says so.
        """
        self.patch(sys, "platform", "freebsd14")
        self.assertIn("only Linux", str(self.refused("127.0.0.1", free_bind=True).socketError))

    def test_in_use(self) -> None:
        """
        A port that is taken is an error.
        """
        taken = self.listen("127.0.0.1").getsockname()[1]
        self.assertEqual(self.refused("127.0.0.1", taken).port, taken)


class ParseTests(SynchronousTestCase):
    """
    Where to listen, as people write it.
    """

    def test_read(self) -> None:
        """
        An address with or without a port.
        """
        for text, expected in (
            ("1.2.3.4", ("1.2.3.4", 7)),
            ("1.2.3.4:1688", ("1.2.3.4", 1688)),
            ("[::1]:0", ("::1", 0)),
            ("[::1]", ("::1", 7)),
            ("::1", ("::1", 7)),
            ("FD00:0::1", ("fd00::1", 7)),
            ("fe80::1%lo", ("fe80::1%lo", 7)),
        ):
            self.assertEqual(parse_listen(text, 7), expected)

    def test_mistakes(self) -> None:
        """
        What is neither is an error that repeats it.
        """
        for text in (
            "", "kms.example", "kms.example:1688", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:x",
            "1.2.3.4:٣", "[::1", "[::1]x", "[::1]:", "[1.2.3.4]:5", ":1688", "1.2.3", "1.2.3.4:-1",
        ):  # fmt: skip
            self.assertIn(repr(text), str(self.assertRaises(AddressError, parse_listen, text, 7)))
