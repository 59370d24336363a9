"""
The service that listens: when it opens its sockets, what it says when it cannot, and how it stops.
"""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kmsproto.kms.policy import Grant
from kmsproto.net.server import Limits
from kmsproto.service.listener import HostService
from kmsproto.service.startup import StartupError
from tests.net.wiring import HostCase, call, granted, payload


@implementer(IListeningPort)
class FakePort:
    """
    A port that takes its time to close.
    """

    def __init__(self, address: Any) -> None:
        self._address = address
        self.stopped = 0
        self.closed: Deferred[None] = Deferred()

    def startListening(self) -> None:
        """
        Not used.
        """

    def stopListening(self) -> Deferred[None]:
        """
        Begin to close.
        """
        self.stopped += 1
        return self.closed

    def getHost(self) -> Any:
        """
        Tell the address.
        """
        return self._address


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """
    An endpoint that opens fake ports, or fails.
    """

    def __init__(self, problem: Exception | None = None, address: Any = None) -> None:
        self.problem = problem
        self._address = address or IPv4Address("TCP", "10.0.0.1", 1688)
        self.factories: list[Any] = []
        self.ports: list[FakePort] = []

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Listen at once.
        """
        self.factories.append(protocolFactory)
        if self.problem is not None:
            return fail(self.problem)
        self.ports.append(FakePort(self._address))
        return succeed(self.ports[-1])


class ListenerTests(HostCase):
    """
    Start and stop.
    """

    def service(self, *endpoints: FakeEndpoint) -> HostService:
        """
        Make a service.
        """
        return HostService(self.factory, endpoints)

    def test_interface(self) -> None:
        """
        It is a service with a name.
        """
        service = self.service()
        verifyObject(IService, service)
        self.assertEqual(service.name, "kms")

    def test_privileged_start(self) -> None:
        """
        The sockets are opened by the privileged start, and not again by the start.
        """
        endpoints = FakeEndpoint(), FakeEndpoint()
        service = self.service(*endpoints)
        service.privilegedStartService()
        self.assertEqual([each.factories for each in endpoints], [[self.factory]] * 2)
        service.startService()
        self.assertEqual([each.factories for each in endpoints], [[self.factory]] * 2)
        self.assertTrue(service.running)

    def test_plain_start(self) -> None:
        """
        Where nobody calls the privileged start, the start opens the sockets.
        """
        endpoint = FakeEndpoint()
        service = self.service(endpoint)
        parent = MultiService()
        parent.startService()
        service.setServiceParent(parent)
        self.assertEqual(len(endpoint.ports), 1)

    def test_says_where(self) -> None:
        """
        Each address is logged once its port is open, as people write it.
        """
        service = self.service(
            FakeEndpoint(),
            FakeEndpoint(address=IPv6Address("TCP", "::", 1688)),
            FakeEndpoint(address=UNIXAddress("/run/kms.socket")),
        )
        with capturedLogs() as events:
            service.startService()
        self.assertEqual(
            [formatEvent(event) for event in events if event.get("log_source") is service],
            [
                "listening address=10.0.0.1:1688",
                "listening address=[::]:1688",
                "listening address=/run/kms.socket",
            ],
        )

    def test_stop(self) -> None:
        """
        To stop is to close the ports, then to drain; it is over when both are.
        """
        endpoint = FakeEndpoint()
        service = self.service(endpoint)
        service.startService()
        wire = self.bound()
        stopped = service.stopService()
        (port,) = endpoint.ports
        self.assertEqual((port.stopped, wire.ends), (1, []))
        port.closed.callback(None)
        self.assertEqual(wire.ends, ["half"])
        self.assertNoResult(stopped)
        wire.leave(cleanly=True)
        self.successResultOf(stopped)
        self.assertFalse(service.running)
        self.assertEqual(service.ports, [])

    def test_stop_finishes_calls(self) -> None:
        """
        Calls in progress are answered before the service is stopped.
        """
        waiting: Deferred[Any] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        endpoint = FakeEndpoint()
        service = self.service(endpoint)
        service.startService()
        wire = self.bound()
        wire.send(call(payload()))
        stopped = service.stopService()
        endpoint.ports[0].closed.callback(None)
        self.assertEqual(wire.ends, [])
        waiting.callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))
        wire.leave(cleanly=True)
        self.successResultOf(stopped)

    def test_starts_again(self) -> None:
        """
        A service that was stopped can be started again.
        """
        endpoint = FakeEndpoint()
        service = self.service(endpoint)
        for number in (1, 2):
            service.startService()
            self.assertEqual(len(endpoint.ports), number)
            stopped = service.stopService()
            endpoint.ports[-1].closed.callback(None)
            self.successResultOf(stopped)

    def test_stop_without_ports(self) -> None:
        """
        A service without endpoints stops at once.
        """
        service = self.service()
        service.startService()
        self.successResultOf(service.stopService())

    def failing(self, *endpoints: FakeEndpoint) -> str:
        """
        Start, expect a failure, and get the line about it.
        """
        service = self.service(*endpoints)
        with self.assertRaises(StartupError) as caught:
            service.privilegedStartService()
        text = str(caught.exception)
        self.assertEqual(caught.exception.code, f"twistd kms: {text}")
        self.assertNotIn("\n", text)
        return text

    def test_port_in_use(self) -> None:
        """
        A port that is taken is one line that names it and says what can be done.
        """
        problem = OSError(errno.EADDRINUSE, "Address already in use")
        for interface, port, where in (
            ("", 1688, "1688"),
            ("127.0.0.1", 1688, "127.0.0.1:1688"),
            (None, "/run/kms.socket", "/run/kms.socket"),
        ):
            self.assertEqual(
                self.failing(FakeEndpoint(CannotListenError(interface, port, problem))),
                f"cannot listen on {where}: Address already in use;"
                " choose another with --port or --endpoint",
            )

    def test_name_unknown(self) -> None:
        """
        What a resolver says of an address is told as it says it.
        """
        problem = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.assertIn(
            "cannot listen on nowhere:1688: Name or service not known;",
            self.failing(FakeEndpoint(CannotListenError("nowhere", 1688, problem))),
        )

    def test_reason_without_errno(self) -> None:
        """
        A reason that is only a text is told as it is.
        """
        self.assertIn(
            "/run/kms.socket: Cannot acquire lock;",
            self.failing(
                FakeEndpoint(CannotListenError(None, "/run/kms.socket", "Cannot acquire lock"))
            ),
        )

    def test_other_error(self) -> None:
        """
        Whatever else keeps an endpoint from listening is told in one line too.
        """
        self.assertEqual(
            self.failing(FakeEndpoint(OverflowError("port must be 0-65535"))),
            "cannot listen on an endpoint: port must be 0-65535; choose another with --port or --endpoint",
        )

    def test_all_or_none(self) -> None:
        """
        When one endpoint cannot be opened, the others are closed again; the first problem is told.
        """
        good, other = FakeEndpoint(), FakeEndpoint()
        text = self.failing(
            good, FakeEndpoint(ValueError("first")), other, FakeEndpoint(ValueError("second"))
        )
        self.assertIn("first", text)
        self.assertEqual([each.ports[0].stopped for each in (good, other)], [1, 1])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_tolerated(self) -> None:
        """
        Where failures are tolerated, one endpoint that works is enough, and a line warns of each other.
        """
        good = FakeEndpoint()
        service = HostService(
            self.factory, [FakeEndpoint(ValueError("first")), good], tolerate_failures=True
        )
        with capturedLogs() as events:
            service.startService()
        self.assertEqual(service.ports, good.ports)
        self.assertIn("cannot listen on an endpoint: first", str([formatEvent(e) for e in events]))

    def test_none_works(self) -> None:
        """
        Where failures are tolerated, it is an error when every endpoint fails.
        """
        endpoints = [FakeEndpoint(ValueError("first")), FakeEndpoint(ValueError("second"))]
        service = HostService(self.factory, endpoints, tolerate_failures=True)
        error = self.assertRaises(StartupError, service.startService)
        self.assertIn("first", str(error))

    def test_start_after_a_failure(self) -> None:
        """
        An application that tries again after a failed start gets a service that listens.
        """
        good, busy = FakeEndpoint(), FakeEndpoint(ValueError("busy"))
        service = self.service(good, busy)
        self.assertRaises(StartupError, service.startService)
        busy.problem = None
        service.startService()
        self.assertEqual(service.ports, [good.ports[-1], busy.ports[-1]])
        self.assertEqual((good.ports[0].stopped, good.ports[-1].stopped), (1, 0))

    def test_opened_too_late(self) -> None:
        """
        An endpoint that opens its socket only after the stop has it closed again.
        """
        pending: Deferred[Any] = Deferred()

        @implementer(IStreamServerEndpoint)
        class SlowEndpoint:
            """
            An endpoint that takes its time.
            """

            def listen(self, protocolFactory: Any) -> Deferred[Any]:
                """
                Listen later.
                """
                return pending

        service = HostService(self.factory, [SlowEndpoint()])
        service.startService()
        service.stopService()
        port = FakePort(IPv4Address("TCP", "10.0.0.1", 1688))
        pending.callback(port)
        self.assertEqual((port.stopped, service.ports), (1, []))

    def test_start_again_on_a_busy_port(self) -> None:
        """
        A service that is started anew tells as at its first start what keeps it from listening.
        """
        endpoint = FakeEndpoint()
        service = self.service(endpoint)
        service.startService()
        service.stopService()
        endpoint.problem = ValueError("busy")
        self.assertRaises(StartupError, service.startService)

    def test_says_where_it_is_elsewhere(self) -> None:
        """
        An address of another kind is told as it tells itself.
        """
        with capturedLogs() as events:
            self.service(FakeEndpoint(address=OtherAddress())).startService()
        self.assertIn("listening address=elsewhere", [formatEvent(event) for event in events])

    def test_too_few_descriptors(self) -> None:
        """
        When the system allows fewer open files than connections need, one line says so.
        """
        self.patch(resource, "getrlimit", lambda _: (1024, 4096))
        self.patch(resource, "setrlimit", lambda *_: None)
        with capturedLogs() as events:
            self.service().startService()
        lines = [formatEvent(event) for event in events]
        self.assertIn("limited open_files=4096 max_connections=16384", lines)

    def test_fails_later(self) -> None:
        """
        An endpoint that fails only later leaves a logged failure, not silence.
        """
        pending: Deferred[Any] = Deferred()

        @implementer(IStreamServerEndpoint)
        class SlowEndpoint:
            """
            An endpoint that takes its time.
            """

            def listen(self, protocolFactory: Any) -> Deferred[Any]:
                """
                Listen later.
                """
                return pending

        service = HostService(self.factory, [SlowEndpoint()])
        service.startService()
        with capturedLogs() as events:
            pending.errback(OSError("too late"))
        self.flushLoggedErrors(OSError)
        self.assertNotEqual(events, [])

    def test_descriptors(self) -> None:
        """
        The soft limit on open files is raised as far as the connections need it and the hard limit lets us.
        """
        infinite = resource.RLIM_INFINITY
        for limits, connections, expected in (
            ((1024, 1_000_000), 16384, [(16448, 1_000_000)]),
            ((1024, 4096), 16384, [(4096, 4096)]),
            ((1024, infinite), 16384, [(16448, infinite)]),
            ((infinite, infinite), 16384, []),
            ((20000, 1_000_000), 16384, []),
            ((1024, 4096), 10, []),
            ((4096, 4096), 16384, []),
        ):
            with self.subTest(limits=limits, connections=connections):
                wanted: list[tuple[int, int]] = []
                self.patch(resource, "getrlimit", lambda _, value=limits: value)
                self.patch(resource, "setrlimit", lambda _, value, to=wanted: to.append(value))
                self.factory = self.make_factory(limits=Limits(max_connections=connections))
                self.service().startService()
                self.assertEqual(wanted, expected)


class OtherAddress:
    """
    An address of a kind that nobody here knows.
    """

    def __str__(self) -> str:
        return "elsewhere"


class StartupErrorTests(HostCase):
    """
    The error with which a start ends.
    """

    def test_both_kinds(self) -> None:
        """
        It is an Exception, at which twistd cleans up, and a SystemExit, at which the interpreter exits in one line.
        """
        error = StartupError("no luck")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((str(error), error.code), ("no luck", "twistd kms: no luck"))

    def test_interpreter(self) -> None:
        """
        An interpreter that ends with it writes the line and nothing else.
        """
        code = "from kmsproto.service.startup import StartupError as E; raise E('no luck')"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(
            (result.returncode, result.stdout, result.stderr), (1, "", "twistd kms: no luck\n")
        )


class FactoryTests(HostCase):
    """
    What listens.
    """

    def test_quiet(self) -> None:
        """
        The factory that endpoints get is the host's own.
        """
        endpoint = FakeEndpoint()
        HostService(self.factory, [endpoint]).startService()
        self.assertIsInstance(endpoint.factories[0], Factory)
