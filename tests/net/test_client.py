"""
The client on a simulated network: against the real host, and against hosts that cannot be reached.

Hosts that mean no good are in C{test_client_hostile}, callers who end things in C{test_client_ends}.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from kmsproto.errors import (
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    LocalProtocolError,
)
from kmsproto.kms.envelopes import open_request
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant
from kmsproto.net.client import DEFAULT_TIMEOUT, ActivationClient, ClientOptions, activate, connect
from kmsproto.rpc import calls, ndr
from kmsproto.rpc.numbers import PacketType
from kmsproto.testing import fixed_entropy
from tests.net.client_wiring import ADDRESS, ClientCase, OddHost, ScriptedHost, UnreachableEndpoint
from tests.net.wiring import FakeTCP, Questions, body, unsupported


class ActivateTests(ClientCase):
    """
    Clients and the real host.
    """

    def test_defaults(self) -> None:
        """
        A request with the options that stand for themselves is granted, and the connection closed.
        """
        asked = activate(self.clock, self.endpoint, body())
        self.flush()
        response = self.successResultOf(asked)
        self.assertEqual(response.body.client_count, 50)
        self.assertClosed()

    def test_every_combination(self) -> None:
        """
        Every combination of options of client and host is granted in every version.
        """
        for ndr64, features, multiplexed, host_ndr64, host_features in product(
            (True, False), repeat=5
        ):
            self.factory = self.make_factory(ndr64=host_ndr64, bind_time_features=host_features)
            for version in (4, 5, 6):
                with self.subTest(client=(ndr64, features, multiplexed), version=version):
                    response = self.successResultOf(
                        self.ask(
                            body(version),
                            ndr64=ndr64,
                            bind_time_features=features,
                            multiplexed=multiplexed,
                        )
                    )
                    self.assertEqual(response.body.major_version, version)
        self.assertClosed()

    def test_overlapping_calls(self) -> None:
        """
        Calls on one connection may overlap; each gets its own answer.
        """
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        client = self.connected()
        asked = [client.activate(body(version)) for version in (4, 5, 6)]
        self.flush()
        for number in (2, 0, 1):
            self.assertNoResult(asked[number])
            waiting[number].callback(Grant(number))
            self.flush()
            self.assertEqual(self.successResultOf(asked[number]).body.client_count, number)
        closed = client.close()
        self.flush()
        self.successResultOf(closed)
        self.assertClosed()

    def test_overlapping_without_multiplexing(self) -> None:
        """
        Without multiplexing calls that overlap are answered one after the other.
        """
        client = self.connected(multiplexed=False)
        asked = [client.activate(body(version)) for version in (4, 5, 6)]
        self.flush()
        for each in asked:
            self.successResultOf(each)

    def test_refusal(self) -> None:
        """
        A refusal is an error with the HRESULT; further calls on the connection are served.
        """
        decisions = iter([HResult.PRODUCT_REFUSED, Grant(50)])
        self.factory = self.make_factory(policy=lambda *_: next(decisions))
        client = self.connected()
        refused, asked = client.activate(body()), client.activate(body())
        self.flush()
        problem: Any = self.failureResultOf(refused, HResultError).value
        self.assertEqual(problem.hresult, 0xC004F042)
        self.successResultOf(asked)

    def test_refusal_closes(self) -> None:
        """
        A request on a connection of its own that is refused leaves no connection.
        """
        self.factory = self.make_factory(policy=lambda *_: HResult.ACCESS_DENIED)
        problem = self.assertFails(self.ask(), HResultError)
        self.assertEqual(problem.hresult, 0x80070005)

    def test_fault(self) -> None:
        """
        A fault is an error with its status.
        """
        self.factory = self.make_factory(policy=lambda *_: None)
        problem = self.assertFails(self.ask(), FaultError)
        self.assertEqual(problem.status, 0x1C000012)
        self.flushLoggedErrors()

    def test_unwritable(self) -> None:
        """
        A request that cannot be written fails at once, and the connection is closed.
        """
        self.assertFails(self.ask(body(6, "x" * 64)), LocalProtocolError)

    def test_entropy(self) -> None:
        """
        Salts are drawn from the entropy that was given.
        """
        drawn: list[bytes] = []
        source = fixed_entropy()

        def entropy(length: int) -> bytes:
            drawn.append(source(length))
            return drawn[-1]

        seen: list[bytes] = []

        def answer(call: calls.Call) -> bytes:
            message = ndr.decode_activation_request(
                call.stub, call.context.transfer_syntax, call.byte_order
            )
            seen.append(open_request(message).salt)
            return ndr.encode_activation_failure(5, call.context.transfer_syntax)

        self.use(lambda: OddHost(answer))
        client = self.connected(entropy=entropy)
        for _ in range(2):
            client.activate(body()).addErrback(lambda failure: failure.trap(HResultError))
        self.flush()
        self.assertEqual([len(salt) for salt in drawn], [16, 16])
        self.assertEqual(seen, drawn)

    def test_salts_differ(self) -> None:
        """
        By default every request has a salt of its own.
        """
        first, second = ClientOptions(), ClientOptions()
        self.assertNotEqual(first.entropy(16), second.entropy(16))
        self.assertEqual(first.timeout, DEFAULT_TIMEOUT)

    def test_other_transports(self) -> None:
        """
        On what is no TCP the client binds too, also on a UNIX socket, whose transport knows the call but fails it.
        """
        unix = FakeTCP(UNIXAddress(None), UNIXAddress("/run/kms.socket"))
        self.patch(unix, "setTcpNoDelay", unsupported)
        for transport in (StringTransport(), unix):
            client = ActivationClient(self.clock, ClientOptions())
            client.makeConnection(transport)
            self.assertEqual(transport.value()[2], PacketType.BIND)

    def test_no_delay(self) -> None:
        """
        On TCP requests are sent without delay, and begin with a bind.
        """
        client = ActivationClient(self.clock, ClientOptions())
        transport = FakeTCP(ADDRESS, ADDRESS)
        client.makeConnection(transport)
        self.assertTrue(transport.no_delay)
        self.assertEqual(transport.value()[2], PacketType.BIND)


class UnreachableTests(ClientCase):
    """
    Hosts that cannot be reached, or hang up.
    """

    def test_errors(self) -> None:
        """
        Whatever keeps a connection from being made is one error, which says what it was.
        """
        for problem in (
            error.ConnectionRefusedError(),
            error.TCPTimedOutError(),
            error.NoRouteError(),
            error.ConnectError(string="some reason"),
            error.DNSLookupError("no such name"),
            OSError(101, "Network is unreachable"),
        ):
            for ask in (
                lambda endpoint: connect(self.clock, endpoint),
                lambda endpoint: activate(self.clock, endpoint, body()),
            ):
                with self.subTest(problem=problem):
                    asked = ask(UnreachableEndpoint(fail(problem)))
                    found = self.failureResultOf(asked, HostUnreachableError).value
                    self.assertIn(str(problem).rstrip("."), str(found))
                    self.assertIs(found.__cause__, problem)
        self.assertTimers(0)

    def test_impossible_name(self) -> None:
        """
        A name that no host can have is no host that can be reached.
        """
        for name in ("a..b", "x" * 64 + ".example"):
            with self.subTest(name=name):
                endpoint = HostnameEndpoint(MemoryReactorClock(), name, 1688)
                self.failureResultOf(connect(self.clock, endpoint), HostUnreachableError)

    def test_error_of_the_caller(self) -> None:
        """
        An error that is none of the network's stays what it is.
        """
        asked = connect(self.clock, UnreachableEndpoint(fail(ZeroDivisionError())))
        self.failureResultOf(asked, ZeroDivisionError)

    def test_connecting_takes_too_long(self) -> None:
        """
        When no connection is made in time, the attempt is given up.
        """
        cancelled: list[object] = []
        asked = activate(
            self.clock,
            UnreachableEndpoint(Deferred(cancelled.append)),
            body(),
            ClientOptions(timeout=3),
        )
        self.clock.advance(2.5)
        self.assertNoResult(asked)
        self.clock.advance(0.5)
        problem = self.failureResultOf(asked, HostTimeoutError).value
        self.assertEqual(str(problem), "no connection within 3 seconds")
        self.assertEqual(len(cancelled), 1)
        self.assertTimers(0)

    def test_odd_limits(self) -> None:
        """
        A limit is told in as many digits as mean something, and never as none at all.
        """
        for timeout, shown in (
            (0.999988, "1"),
            (9.87654, "9.877"),
            (3600, "3600"),
            (1e-9, "1e-09"),
        ):
            asked = activate(
                self.clock, UnreachableEndpoint(Deferred()), body(), ClientOptions(timeout=timeout)
            )
            self.clock.advance(timeout)
            problem = self.failureResultOf(asked, HostTimeoutError).value
            self.assertEqual(str(problem), f"no connection within {shown} seconds")

    def test_errors_of_endpoints_that_are_cancelled(self) -> None:
        """
        Each kind of endpoint fails in its own way when it is given up; all of them mean that time was over.
        """
        for problem in (
            error.ConnectingCancelledError(IPv4Address("TCP", "10.0.0.1", 1688)),
            error.DNSLookupError("cancelled"),
            CancelledError(),
        ):
            with self.subTest(problem=problem):

                def cancel(attempt: Deferred[Any], problem: Exception = problem) -> None:
                    attempt.errback(problem)

                asked = connect(self.clock, UnreachableEndpoint(Deferred(cancel)))
                self.clock.advance(10)
                self.failureResultOf(asked, HostTimeoutError)

    def test_connects_when_it_is_too_late(self) -> None:
        """
        A connection that comes although it was given up is closed.
        """
        client = ActivationClient(self.clock, ClientOptions())
        transport = FakeTCP(ADDRESS, ADDRESS)
        client.makeConnection(transport)
        endpoint = UnreachableEndpoint(Deferred(lambda attempt: attempt.callback(client)))
        asked = connect(self.clock, endpoint, ClientOptions(timeout=3))
        self.clock.advance(3)
        self.failureResultOf(asked, HostTimeoutError)
        self.assertEqual(transport.ends, ["abort"])
        client.wait_until_bound().addErrback(lambda failure: None)
        self.clock.advance(10)

    def test_hangs_up_at_once(self) -> None:
        """
        A host that hangs up instead of binding is not reached.
        """
        self.use(lambda: ScriptedHost(None))
        self.assertFails(self.ask(), HostUnreachableError)

    def test_hangs_up_before_the_answers(self) -> None:
        """
        A host that hangs up with calls unanswered fails all of them, and later ones at once.
        """
        self.factory = self.make_factory(policy=lambda *_: Deferred())
        client = self.connected()
        asked = [client.activate(body()), client.activate(body())]
        self.flush()
        self.endpoint.pumps[0].serverIO.loseConnection()
        self.flush()
        for each in (*asked, client.activate(body())):
            self.failureResultOf(each, HostUnreachableError)
        self.successResultOf(client.close())
        self.assertClosed()

    def test_turned_away(self) -> None:
        """
        A connection that is closed before it carries a byte is a host that was not reached.
        """
        client = ActivationClient(self.clock, ClientOptions())
        bound = client.wait_until_bound()
        client.makeConnection(FakeTCP(ADDRESS, ADDRESS))
        client.connectionLost(Failure(error.ConnectionDone()))
        self.failureResultOf(bound, HostUnreachableError)
        self.assertTimers(0)
