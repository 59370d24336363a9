"""
The client on a simulated network: against the real host, and against hosts that mean no good.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer

from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    KMSProtoError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.envelopes import OpenedResponse, open_request
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.net.client import (
    DEFAULT_TIMEOUT,
    ActivationClient,
    ClientOptions,
    activate,
    connect,
)
from kmsproto.rpc import ndr, pdu, server
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.state import Interface
from kmsproto.testing import fixed_entropy, make_host
from tests.net import (
    NOW,
    PEER,
    FakeTCP,
    HostCase,
    Questions,
    body,
    catalog,
    payload,
    returning,
    unsupported,
)

ADDRESS = IPv4Address("TCP", PEER, 50123)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects a client to a host in memory.

    @param make: Makes the host's protocol for each connection.
    """

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make
        self.pumps: list[iosim.IOPump] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Connect at once.
        """
        client: Any = protocolFactory.buildProtocol(ADDRESS)
        host = self._make()
        self.pumps.append(
            iosim.connect(
                host,
                iosim.makeFakeServer(host),
                client,
                iosim.makeFakeClient(client),
                greet=False,
            )
        )
        return succeed(client)


@implementer(IStreamClientEndpoint)
class UnreachableEndpoint:
    """
    Answers every attempt to connect with the same Deferred.
    """

    def __init__(self, answer: Deferred[Any]) -> None:
        self._answer = answer

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Do not connect.
        """
        return self._answer


class ScriptedHost(Protocol):
    """
    A host that answers segment after segment as it was told, and then nothing.

    @param script: What to send; L{None} closes the connection.
    """

    transport: Any

    def __init__(self, *script: bytes | None) -> None:
        self._script = list(script)

    def dataReceived(self, data: bytes) -> None:
        """
        Send the next answer.
        """
        if self._script:
            answer = self._script.pop(0)
            if answer is None:
                self.transport.loseConnection()
            else:
                self.transport.write(answer)


class OddHost(Protocol):
    """
    A host whose RPC is right and whose answers are not.

    @param answer: Makes the stub of an answer; L{None} answers nothing.
    @param interface: What it offers.
    """

    transport: Any

    def __init__(
        self,
        answer: Callable[[server.Call], bytes | None],
        interface: Interface = KMS_INTERFACE,
    ) -> None:
        self._answer = answer
        self.connection = server.RPCServer((interface,)).accept(PEER, "1688")

    def dataReceived(self, data: bytes) -> None:
        """
        Answer what can be answered.
        """
        while events := self.connection.receive_data(data):
            for event in events:
                if isinstance(event, server.CallReceived):
                    stub = self._answer(event.call)
                    if stub is not None:
                        self.connection.respond(event.call, stub)
            data = b""
        self.transport.write(self.connection.data_to_send())


class ClientCase(HostCase):
    """
    A client, a clock, and a host of any kind.
    """

    def setUp(self) -> None:
        """
        Connect to the real host by default.
        """
        super().setUp()
        self.use(lambda: self.factory.buildProtocol(ADDRESS))

    def use(self, make: Callable[[], Any]) -> None:
        """
        Connect to another host.
        """
        self.endpoint = MemoryEndpoint(make)

    def flush(self) -> None:
        """
        Carry bytes to and fro until nobody has anything to say.
        """
        for pump in self.endpoint.pumps:
            pump.flush()

    def connected(self, **options: Any) -> ActivationClient:
        """
        Connect and bind.
        """
        connecting = connect(self.clock, self.endpoint, ClientOptions(**options))
        self.flush()
        client: ActivationClient = self.successResultOf(connecting)
        return client

    def ask(self, request: RequestBody | None = None, **options: Any) -> Deferred[OpenedResponse]:
        """
        Ask on a connection of its own, as far as it gets without time.
        """
        asked = activate(self.clock, self.endpoint, request or body(), ClientOptions(**options))
        self.flush()
        return asked

    def assertClosed(self) -> None:
        """
        Every connection is closed, and no timer waits.
        """
        self.flush()
        for pump in self.endpoint.pumps:
            self.assertTrue(pump.clientIO.disconnecting)
            self.assertTrue(pump.clientIO.disconnected or pump.serverIO.disconnected)
        self.assertTimers(0)

    def assertFails(self, asked: Deferred[Any], *kinds: type[KMSProtoError]) -> Any:
        """
        A request has failed like this, and the connection is closed.

        @return: The error.
        """
        failure = self.failureResultOf(asked, *kinds)
        self.assertClosed()
        return failure.value


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

        def answer(call: server.Call) -> bytes:
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


class HostileTests(ClientCase):
    """
    Hosts that mean no good: each ends in the error that says so, in time, with the connection closed.
    """

    def assertTimesOut(self, asked: Deferred[Any], step: str) -> None:
        """
        A request fails exactly when the timeout is over.
        """
        self.assertNoResult(asked)
        self.clock.advance(0.5)
        problem = self.assertFails(asked, HostTimeoutError)
        self.assertEqual(str(problem), f"the host did not answer {step} within 10 seconds")

    def test_silent(self) -> None:
        """
        A host that never says a word is left when the timeout is over.
        """
        self.use(ScriptedHost)
        asked = self.ask()
        self.clock.advance(9.5)
        self.assertTimesOut(asked, "the bind")

    def test_silent_after_the_bind(self) -> None:
        """
        A host that binds and does not answer is left when the timeout is over.
        """
        self.use(lambda: OddHost(lambda _: None))
        asked = self.ask()
        self.clock.advance(9.5)
        self.assertTimesOut(asked, "the activation request")

    def test_timeout_ends_all_calls(self) -> None:
        """
        When one call is too late, the connection and all its calls are given up.
        """
        self.use(lambda: OddHost(lambda _: None))
        client = self.connected()
        first = client.activate(body())
        self.clock.advance(5)
        second = client.activate(body())
        self.flush()
        self.clock.advance(5)
        self.failureResultOf(first, HostTimeoutError)
        self.assertFails(second, HostTimeoutError)
        self.failureResultOf(client.activate(body()), HostTimeoutError)
        self.successResultOf(client.close())

    def test_trickle(self) -> None:
        """
        A bind_ack that comes byte by byte is waited for as long as any other.
        """
        host = ScriptedHost()
        self.use(lambda: host)
        asked = self.ask()
        for byte in b"\5\0\x0c\3\x10\0\0\0\xff\xff":
            self.clock.advance(0.95)
            host.transport.write(bytes((byte,)))
            self.flush()
        self.assertTimesOut(asked, "the bind")

    def test_endless_fragments(self) -> None:
        """
        An answer of endless empty fragments is given up when the timeout is over.
        """
        calls: list[server.Call] = []
        host = OddHost(calls.append)
        self.use(lambda: host)
        asked = self.ask()
        call_id, context_id = calls[0].call_id, calls[0].context_id
        empty = bytes((0, 0, 0, 0, context_id, 0, 0, 0))
        host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 1, call_id, empty))
        for _ in range(19):
            host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 0, call_id, empty) * 1000)
            self.flush()
            self.clock.advance(0.5)
        self.assertTimesOut(asked, "the activation request")

    def test_endless_answer(self) -> None:
        """
        An answer that grows without end is given up as soon as it is too large.
        """
        self.use(lambda: OddHost(lambda _: bytes(70_000)))
        self.assertFails(self.ask(), RemoteProtocolError)

    def test_flood(self) -> None:
        """
        A host that floods the client with bytes is left at the first of them.
        """
        for flood in (bytes(1_000_000), b"\xff" * 1_000_000, b"HTTP/1.1 400 Bad Request\r\n" * 99):
            self.use(partial(ScriptedHost, flood))
            self.assertFails(self.ask(), RemoteProtocolError)

    def test_answers_that_nobody_asked_for(self) -> None:
        """
        Answers to calls that were not made end the connection.
        """
        for kind in (PacketType.RESPONSE, PacketType.FAULT, PacketType.BIND_ACK, 200):
            host = OddHost(lambda _: None)
            self.use(returning(host))
            asked = self.ask()
            host.transport.write(pdu.encode_pdu(kind, 3, 99, bytes(100)))
            self.flush()
            self.assertFails(asked, RemoteProtocolError)

    def test_flood_of_answers(self) -> None:
        """
        An answer that is repeated is not taken for a second one.
        """
        host = OddHost(self.real_answer)
        self.use(lambda: host)
        client = self.connected()
        asked = client.activate(body())
        self.flush()
        self.successResultOf(asked)
        second = client.activate(body())
        self.flush()
        self.successResultOf(second)
        host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 3, 3, bytes(8)) * 1000)
        self.flush()
        self.failureResultOf(client.activate(body()), RemoteProtocolError)
        self.assertClosed()

    def real_answer(self, call: server.Call) -> bytes:
        """
        Answer as the real host would.
        """
        syntax = call.context.transfer_syntax
        message = ndr.decode_activation_request(call.stub, syntax, call.byte_order)
        return ndr.encode_activation_response(self.answer_to(message), syntax)

    def answer_to(self, message: bytes) -> bytes:
        """
        Answer a KMS message as the real host would.
        """
        return make_host(catalog=catalog()).answer(message, Peer(PEER, 1), NOW).payload

    def test_answer_to_another_request(self) -> None:
        """
        A good answer to another request is not taken for the own.
        """
        for version in (4, 5, 6):
            other = self.answer_to(payload(version))

            def answer(call: server.Call, message: bytes = other) -> bytes:
                return ndr.encode_activation_response(message, call.context.transfer_syntax)

            self.use(partial(OddHost, answer))
            mine = body(version, client_time=1)
            self.assertFails(self.ask(mine), VerificationError)

    def test_answer_in_another_version(self) -> None:
        """
        An answer in another version than the request's is refused.
        """
        older = self.answer_to(payload(4))
        self.use(
            lambda: OddHost(
                lambda call: ndr.encode_activation_response(older, call.context.transfer_syntax)
            )
        )
        problem = self.assertFails(self.ask(body(6)), VerificationError)
        self.assertEqual(problem.check, "version")

    def test_changed_answers(self) -> None:
        """
        An answer of which any bit was changed is refused, in the versions whose answers are signed.
        """
        for version in (4, 6):
            size = len(self.answer_to(payload(version)))
            for position in range(0, size, 7):

                def answer(call: server.Call, at: int = position) -> bytes:
                    syntax = call.context.transfer_syntax
                    message = ndr.decode_activation_request(call.stub, syntax, call.byte_order)
                    changed = bytearray(self.answer_to(message))
                    changed[at] ^= 1
                    return ndr.encode_activation_response(bytes(changed), syntax)

                self.use(partial(OddHost, answer))
                with self.subTest(version=version, position=position):
                    self.assertFails(self.ask(body(version)), VerificationError)

    def test_sizes(self) -> None:
        """
        Stubs whose sizes are zero, enormous or at odds, and short ones, are refused.
        """
        for ndr64 in (True, False):
            word = 8 if ndr64 else 4
            for size, referent, count, rest in (
                (0, 0, 0, b""),
                (0, 0x20000, 0, bytes(4)),
                (0xFFFFFFF0, 0x20000, 0xFFFFFFF0, bytes(300)),
                (0xFFFFFFF0, 0x20000, 0, bytes(300)),
                (0, 0x20000, 0xFFFFFFF0, bytes(300)),
                (0xFFFFFFF0, 0, 0, b""),
                (200, 0x20000, 200, bytes(100)),
                (300, 0x20000, 300, bytes(304)),
                (1, 0x20000, 1, bytes(8)),
            ):
                stub = (
                    size.to_bytes(word, "little")
                    + referent.to_bytes(word, "little")
                    + count.to_bytes(word, "little")
                    + rest
                )
                self.use(partial(OddHost, returning(stub)))
                with self.subTest(ndr64=ndr64, size=size, count=count):
                    self.assertFails(self.ask(ndr64=ndr64), VerificationError)

    def test_short_stubs(self) -> None:
        """
        An answer that is cut short anywhere is refused.
        """
        message = self.answer_to(payload())
        whole = len(ndr.encode_activation_response(message, pdu.NDR64))
        for length in range(0, whole, 9):

            def answer(call: server.Call, cut: int = length) -> bytes:
                return self.real_answer(call)[:cut]

            self.use(partial(OddHost, answer))
            with self.subTest(length=length):
                self.assertFails(self.ask(), VerificationError)

    def test_bind_refused(self) -> None:
        """
        A bind_nak is an error with its reason.
        """
        self.use(lambda: ScriptedHost(pdu.encode_bind_nak(2, 2)))
        problem = self.assertFails(self.ask(), BindRefusedError)
        self.assertEqual((problem.reason, problem.name), (2, "local_limit_exceeded"))

    def test_no_context(self) -> None:
        """
        A host that has no KMS interface, or no syntax for it, is an error of its own.
        """
        other = Interface(KMS_INTERFACE.syntax._replace(major=2), 1)
        self.use(lambda: OddHost(lambda _: None, other))
        self.assertFails(self.ask(), ContextRefusedError)

    def test_behind_a_bind_nak(self) -> None:
        """
        What comes behind a bind_nak is not looked at.
        """
        self.use(lambda: ScriptedHost(pdu.encode_bind_nak(2, 0) + bytes(10_000)))
        self.assertFails(self.ask(), BindRefusedError)

    def test_odd_answer_leaves_the_connection(self) -> None:
        """
        A failed check concerns its call only; the next one on the connection may be granted.
        """
        odd = iter([True, False])

        def answer(call: server.Call) -> bytes:
            return b"" if next(odd) else self.real_answer(call)

        self.use(lambda: OddHost(answer))
        client = self.connected()
        first, second = client.activate(body()), client.activate(body())
        self.flush()
        self.failureResultOf(first, VerificationError)
        self.successResultOf(second)


class EndTests(ClientCase):
    """
    How callers end things.
    """

    def test_close(self) -> None:
        """
        To close a connection is to wait until it is gone; it may be asked for again.
        """
        client = self.connected()
        first, second = client.close(), client.close()
        self.assertNoResult(first)
        self.flush()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(client.close())
        self.assertClosed()

    def test_close_with_calls_waiting(self) -> None:
        """
        Calls that wait when the connection is closed fail.
        """
        self.factory = self.make_factory(policy=lambda *_: Deferred())
        client = self.connected()
        asked = client.activate(body())
        closed = client.close()
        self.flush()
        self.assertFails(asked, HostUnreachableError)
        self.successResultOf(closed)

    def test_close_takes_too_long(self) -> None:
        """
        A connection that does not close in time is cut off.
        """
        client = ActivationClient(self.clock, ClientOptions())
        transport = FakeTCP(ADDRESS, ADDRESS)
        client.makeConnection(transport)
        closed, bound = client.close(), client.wait_until_bound()
        self.clock.advance(10)
        self.assertEqual(transport.ends, ["whole", "abort"])
        self.failureResultOf(bound, HostTimeoutError)
        self.successResultOf(closed)
        self.assertTimers(0)

    def test_answer_survives_a_slow_close(self) -> None:
        """
        An answer that was verified is not lost because the connection does not close in time.
        """

        class StickyTransport(iosim.FakeTransport):
            """
            A transport that closes only when it is cut off.
            """

            def loseConnection(self) -> None:
                """
                Wait for the peer, as TLS does.
                """

        client_factories: list[Any] = []

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            """
            Connects through it.
            """

            def connect(_, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                """
                Connect at once.
                """
                client: Any = protocolFactory.buildProtocol(ADDRESS)
                host = self.factory.buildProtocol(ADDRESS)
                client_factories.append(
                    iosim.connect(
                        host,
                        iosim.makeFakeServer(host),
                        client,
                        StickyTransport(client, isServer=False),
                        greet=False,
                    )
                )
                return succeed(client)

        asked = activate(self.clock, Endpoint(), body())
        client_factories[0].flush()
        self.clock.advance(10)
        client_factories[0].flush()
        self.assertEqual(self.successResultOf(asked).body.client_count, 50)

    def test_cancel_while_connecting(self) -> None:
        """
        A caller who loses interest while the connection is made gives the attempt up.
        """
        cancelled: list[object] = []
        for ask in (
            lambda endpoint: connect(self.clock, endpoint),
            lambda endpoint: activate(self.clock, endpoint, body()),
        ):
            asked = ask(UnreachableEndpoint(Deferred(cancelled.append)))
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.assertEqual(len(cancelled), 2)
        self.assertTimers(0)

    def test_cancel_connect_during_the_bind(self) -> None:
        """
        A caller who loses interest during the bind leaves no connection.
        """
        self.use(ScriptedHost)
        asked = connect(self.clock, self.endpoint)
        self.flush()
        asked.cancel()
        self.flush()
        self.failureResultOf(asked, CancelledError)
        self.assertClosed()

    def test_cancel_activate_during_the_bind(self) -> None:
        """
        A caller who loses interest in a request during the bind leaves no connection.
        """
        self.use(ScriptedHost)
        asked = self.ask()
        asked.cancel()
        self.flush()
        self.failureResultOf(asked, CancelledError)
        self.assertClosed()

    def test_cancel_activate_during_the_call(self) -> None:
        """
        A caller who loses interest in a request during the call leaves no connection.
        """
        self.use(lambda: OddHost(lambda _: None))
        asked = self.ask()
        asked.cancel()
        self.flush()
        self.failureResultOf(asked, CancelledError)
        self.assertClosed()

    def test_cancel_one_call(self) -> None:
        """
        A call that is cancelled does not disturb others, and its late answer is dropped.
        """
        waiting: list[Deferred[Any]] = [Deferred(), Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        client = self.connected()
        first, second = client.activate(body()), client.activate(body())
        self.flush()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        for each in waiting:
            each.callback(Grant(50))
        self.flush()
        self.successResultOf(second)
        client.close()
        self.assertClosed()

    def test_cancelled_call_and_lost_connection(self) -> None:
        """
        A call that was cancelled is not told again that the connection is lost.
        """
        self.factory = self.make_factory(policy=lambda *_: Deferred())
        client = self.connected()
        asked = client.activate(body())
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        client.close()
        self.assertClosed()
