"""
How callers end things: they close the connection, or lose interest before there is an answer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.test import iosim
from zope.interface import implementer

from kmsproto.errors import HostTimeoutError, HostUnreachableError
from kmsproto.kms.policy import Grant
from kmsproto.net.client import ActivationClient, ClientOptions, activate, connect
from tests.net.client_wiring import ADDRESS, ClientCase, OddHost, ScriptedHost, UnreachableEndpoint
from tests.net.wiring import FakeTCP, Questions, body


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

    def test_host_that_answers_once(self) -> None:
        """
        A host that closes behind an answer is told apart from one that never gives any.
        """
        client = self.connected()
        first = client.activate(body())
        self.flush()
        self.successResultOf(first)
        second = client.activate(body())
        client.connectionLost()
        problem = self.failureResultOf(second, HostUnreachableError).value
        self.assertIn("closed the connection behind an answer; ask on a fresh", str(problem))
        client = self.connected()
        asked = client.activate(body())
        client.connectionLost()
        problem = self.failureResultOf(asked, HostUnreachableError).value
        self.assertIn("closed the connection before it answered", str(problem))

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
