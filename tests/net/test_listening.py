"""
Opening sockets for both IP families, or for one where a kernel has no other.

The sockets are real, as only a kernel can tell what they take; the reactor is not.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorSocket, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.net.listening import BothFamiliesEndpoint


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
