"""
Asking a host several times: on one connection or several, one after the other or at the same time.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError

from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
)
from kmsproto.findings import Severity
from kmsproto.kms.messages import RequestBody
from kmsproto.net.activation import Outcome
from kmsproto.net.client import ClientOptions
from kmsproto.net.probing import Plan, Probing
from kmsproto.net.server import Limits
from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import WHOLE, ContextResult, FaultStatus, PacketFlag, PacketType
from tests.net.client_wiring import ADDRESS, ClientCase, OddHost, ScriptedHost, UnreachableEndpoint
from tests.net.wiring import body


class ProbingTests(ClientCase):
    """
    Plans, and what becomes of them.
    """

    def setUp(self) -> None:
        """
        Keep what is reported.
        """
        super().setUp()
        self.reported: list[tuple[int, Outcome]] = []
        self.made: list[int] = []

    def make_body(self, number: int) -> RequestBody:
        """
        Make a request that is known again by its workstation.
        """
        self.made.append(number)
        return body()._replace(workstation=f"client-{number}")

    def probing(self, plan: Plan, **options: Any) -> Probing:
        """
        Prepare to carry a plan out.
        """
        return Probing(
            self.clock,
            self.endpoint,
            plan,
            ClientOptions(scrutinize=True, **options),
            lambda number, outcome: self.reported.append((number, outcome)),
        )

    def begin(self, probing: Probing) -> Deferred[None]:
        """
        Carry a plan out, as far as it gets without time.
        """
        running = Deferred.fromCoroutine(probing.run())
        before = -1
        while before != len(self.reported) or any(pump.flush() for pump in self.endpoint.pumps):
            before = len(self.reported)
            self.flush()
        return running

    def test_one_connection(self) -> None:
        """
        By default all requests are made on one connection, one after the other.
        """
        self.successResultOf(self.begin(self.probing(Plan(5, self.make_body))))
        self.assertEqual([number for number, _ in self.reported], [0, 1, 2, 3, 4])
        self.assertTrue(all(outcome.error is None for _, outcome in self.reported))
        self.assertEqual(
            [outcome.request.body.workstation for _, outcome in self.reported],
            [f"client-{number}" for number in range(5)],
        )
        self.assertEqual(len(self.endpoint.pumps), 1)
        self.assertClosed()

    def test_fresh_connections(self) -> None:
        """
        If wanted, each request has a connection, and each is closed.
        """
        self.successResultOf(self.begin(self.probing(Plan(4, self.make_body, fresh=True))))
        self.assertEqual([number for number, _ in self.reported], [0, 1, 2, 3])
        self.assertEqual(len(self.endpoint.pumps), 4)
        self.assertClosed()

    def test_at_once(self) -> None:
        """
        So many requests wait for an answer at a time, on one connection or on several.
        """
        for fresh in (False, True):
            self.reported.clear()
            self.made.clear()
            self.use(lambda: OddHost(lambda call: None))
            running = self.begin(self.probing(Plan(9, self.make_body, fresh=fresh, at_once=3)))
            self.assertNoResult(running)
            self.assertEqual(self.made, [0, 1, 2])
            self.assertEqual(len(self.endpoint.pumps), 3 if fresh else 1)
            self.clock.advance(10)
            self.failureResultOf(running, HostTimeoutError)
            self.assertEqual(self.made, [0, 1, 2])
            self.assertClosed()

    def test_not_multiplexed(self) -> None:
        """
        A host that does not grant that calls overlap is asked one thing at a time on a connection.
        """
        self.use(lambda: OddHost(lambda call: None))
        plan = Plan(9, self.make_body, at_once=3)
        running = self.begin(self.probing(plan, multiplexed=False))
        self.assertNoResult(running)
        self.assertEqual(self.made, [0])
        self.clock.advance(10)
        self.failureResultOf(running, HostTimeoutError)

    def test_cancelled(self) -> None:
        """
        Whoever gives up ends everything, also what waits for an answer.
        """
        for fresh in (False, True):
            self.use(lambda: OddHost(lambda call: None))
            running = self.begin(self.probing(Plan(9, self.make_body, fresh=fresh, at_once=3)))
            running.cancel()
            self.flush()
            self.failureResultOf(running)
            self.assertClosed()

    def test_mistakes(self) -> None:
        """
        A mistake of its owner's is raised once, when all have ended.
        """

        def make_body(number: int) -> RequestBody:
            if number == 1:
                raise ZeroDivisionError
            return self.make_body(number)

        running = self.begin(self.probing(Plan(9, make_body, at_once=3)))
        self.failureResultOf(running, ZeroDivisionError)
        self.assertClosed()

    def test_more_at_once_than_requests(self) -> None:
        """
        No connection is made for nothing.
        """
        plan = Plan(2, self.make_body, fresh=True, at_once=50)
        self.successResultOf(self.begin(self.probing(plan)))
        self.assertEqual(len(self.endpoint.pumps), 2)

    def test_enough(self) -> None:
        """
        When its owner has seen enough, nothing more is asked.
        """
        plan = Plan(50, self.make_body, enough=lambda outcome: len(self.reported) >= 3)
        self.successResultOf(self.begin(self.probing(plan)))
        self.assertEqual(self.made, [0, 1, 2])

    def test_refusals_are_results(self) -> None:
        """
        A host that refuses, or answers badly, is asked on.
        """
        self.use(lambda: OddHost(lambda call: b"short"))
        self.successResultOf(self.begin(self.probing(Plan(3, self.make_body))))
        self.assertEqual(len(self.reported), 3)
        for _, outcome in self.reported:
            self.assertIn("stub", str(outcome.error))
            self.assertEqual(outcome.response_payload, b"")
            self.assertIsNone(outcome.verified)
            error = self.assertRaises(type(outcome.error), lambda outcome=outcome: outcome.response)
            self.assertIs(error, outcome.error)

    def test_faults(self) -> None:
        """
        A fault is a result too.
        """
        hosts: list[OddHost] = []

        def answer(call: Any) -> None:
            hosts[-1].connection.fault(call, FaultStatus.ACCESS_DENIED)

        def make() -> OddHost:
            hosts.append(OddHost(answer))
            return hosts[-1]

        self.use(make)
        self.successResultOf(self.begin(self.probing(Plan(2, self.make_body))))
        for _, outcome in self.reported:
            self.assertIsInstance(outcome.error, FaultError)

    def test_unreachable(self) -> None:
        """
        A host that cannot be reached is an error, whether the connections are shared or not.
        """
        for fresh in (False, True):
            self.endpoint = UnreachableEndpoint(fail(ConnectionRefusedError()))  # type: ignore[assignment]
            self.endpoint.pumps = []  # type: ignore[attr-defined]
            running = self.begin(self.probing(Plan(3, self.make_body, fresh=fresh, at_once=2)))
            self.failureResultOf(running, HostUnreachableError)
            self.assertEqual(self.reported, [])

    def test_lost(self) -> None:
        """
        When the host hangs up, and on the next connection too, the requests that would follow are not made, and what it
        had answered stands.
        """
        answered: list[bytes] = []
        hosts: list[OddHost] = []

        def answer(call: Any) -> bytes | None:
            answered.append(call.stub)
            if len(answered) < 3:
                return b"x"
            hosts[-1].transport.loseConnection()
            return None

        def make() -> OddHost:
            hosts.append(OddHost(answer))
            return hosts[-1]

        self.use(make)
        running = self.begin(self.probing(Plan(9, self.make_body)))
        self.failureResultOf(running, HostUnreachableError)
        self.assertEqual(len(self.reported), 2)
        self.assertEqual(self.made, [0, 1, 2, 2])

    def test_no_rpc(self) -> None:
        """
        What speaks another protocol is an error of its own.
        """
        self.use(lambda: ScriptedHost(b"SSH-2.0-Example\r\n"))
        failure = self.failureResultOf(self.begin(self.probing(Plan(1, self.make_body))))
        self.assertIn("does not speak DCE/RPC", str(failure.value))

    def test_nothing_found(self) -> None:
        """
        Nothing is found at a host of ours, in any version and transfer syntax.
        """
        for options in (
            {},
            {"ndr64": False},
            {"bind_time_features": False},
            {"multiplexed": False},
        ):
            for version in (4, 5, 6):
                plan = Plan(2, lambda number, version=version: body(version), fresh=True)  # type: ignore[misc]
                probing = self.probing(plan, **options)
                self.successResultOf(self.begin(probing))
                self.assertEqual(list(probing.findings), [])

    def test_findings_of_a_refusal(self) -> None:
        """
        What is wrong with a bind_nak is told too, although there is nobody to ask then.
        """
        nak = pdu.encode_bind_nak(99, 4)
        for fresh in (False, True):
            self.use(lambda: ScriptedHost(nak))
            probing = self.probing(Plan(3, self.make_body, fresh=fresh, at_once=3))
            self.failureResultOf(self.begin(probing), BindRefusedError)
            self.assertEqual([finding.rule for finding in probing.findings], ["2.13"])
            self.assertEqual(self.reported, [])
            self.assertClosed()

    def test_spent_connections(self) -> None:
        """
        A host that ends each connection behind an answer is asked on a fresh one each time, which is noted.
        """
        # What is there when the host ends a connection is answered before.
        for at_once, connections in ((1, 6), (3, 4)):
            self.reported.clear()
            self.factory = self.make_factory(limits=Limits(disconnect_after_call=True))
            self.use(lambda: self.factory.buildProtocol(ADDRESS))
            probing = self.probing(Plan(6, self.make_body, at_once=at_once))
            self.successResultOf(self.begin(probing))
            self.assertEqual(sorted(number for number, _ in self.reported), [0, 1, 2, 3, 4, 5])
            self.assertTrue(all(outcome.error is None for _, outcome in self.reported))
            self.assertEqual(
                [(each.rule, each.severity) for each in probing.findings], [("12", Severity.NOTE)]
            )
            self.assertEqual(len(self.endpoint.pumps), connections)
            self.assertClosed()

    def test_shared_groups(self) -> None:
        """
        Connections that are open at the same time have association groups of their own, or it is told; those that are
        open one after the other may have the same.
        """
        honest = self.probing(Plan(4, self.make_body, fresh=True, at_once=4))
        self.successResultOf(self.begin(honest))
        self.assertEqual(list(honest.findings), [])
        # Each of these connections has a server of its own, so that they all begin with the same id.
        self.use(lambda: OddHost(lambda call: None))
        odd = self.probing(Plan(2, self.make_body, fresh=True, at_once=2))
        running = self.begin(odd)
        self.assertEqual([each.rule for each in odd.findings], ["3.3"])
        self.clock.advance(10)
        self.flush()
        self.failureResultOf(running, HostTimeoutError)
        self.use(lambda: OddHost(lambda call: b""))
        one_by_one = self.probing(Plan(2, self.make_body, fresh=True))
        self.successResultOf(self.begin(one_by_one))
        self.assertNotIn("3.3", [each.rule for each in one_by_one.findings])

    def test_findings(self) -> None:
        """
        What a host was seen to break is told, each rule once, also when it comes to nothing.
        """
        ack = pdu.BindAck(
            *(5840, 5840, 0, "1688"),
            tuple(
                pdu.Negotiated(ContextResult.PROVIDER_REJECTION, 2, pdu.NO_SYNTAX) for _ in range(3)
            ),
        )
        data = pdu.encode_bind_ack(PacketType.BIND_ACK, WHOLE | PacketFlag.CONC_MPX, 2, ack)
        self.use(lambda: ScriptedHost(data))
        probing = self.probing(Plan(1, self.make_body, fresh=True))
        self.failureResultOf(self.begin(probing), ContextRefusedError)
        self.assertEqual([finding.rule for finding in probing.findings], ["3.3"])
        accepted = ack._replace(
            results=(pdu.Negotiated(0, 0, pdu.NDR), *ack.results[1:]), association_group=0
        )
        data = pdu.encode_bind_ack(PacketType.BIND_ACK, WHOLE | PacketFlag.CONC_MPX, 2, accepted)
        fault = pdu.encode_fault(2, 0, 0x80000001, did_not_execute=False)
        for fresh in (False, True):
            self.use(lambda: ScriptedHost(data, fault))
            probing = self.probing(Plan(1 + fresh, self.make_body, fresh=fresh))
            self.successResultOf(self.begin(probing))
            rules = [finding.rule for finding in probing.findings]
            self.assertEqual(sorted(set(rules)), ["10", "3.3"])
            self.assertEqual(len(rules), len(set(rules)))
