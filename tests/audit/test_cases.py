"""
All cases of the audit, tried on our own host: it keeps every rule.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import CASES, PERILOUS, choose, in_order, meet
from kmsproto.audit.model import Area, Level, Outcome, Verdict
from kmsproto.audit.packets import KMS, MANAGEMENT
from kmsproto.errors import RemoteProtocolError
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.net.server import Limits
from kmsproto.rpc import management, pdu
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, BindAck, Negotiated
from tests.audit.memory import MemoryHost, drive, subject


class OwnHostCase(SynchronousTestCase):
    """
    Our own host, as it may be set up.
    """

    def audit(self, host: MemoryHost) -> dict[str, Verdict]:
        """
        Try all cases, and get their verdicts by name.
        """
        met = host.meet()
        return {case.name: host.run(case.script(met)) for case in CASES}

    def assertKept(self, verdicts: dict[str, Verdict], *excused: str) -> None:
        """
        No rule is broken, and all could be tried.

        @param excused: Names of cases that may come to what they like.
        """
        wrong = {
            name: verdict
            for name, verdict in verdicts.items()
            if verdict.outcome in (Outcome.FAILED, Outcome.UNDECIDED) and name not in excused
        }
        self.assertEqual(wrong, {})


class OwnHostTests(OwnHostCase):
    """
    Each of its settings keeps the rules.
    """

    def test_default(self) -> None:
        """
        The host as it comes passes every case; only facts are noted, and nothing is beside the point.
        """
        verdicts = self.audit(MemoryHost())
        self.assertKept(verdicts)
        outcomes = {name: verdict.outcome for name, verdict in verdicts.items()}
        self.assertNotIn(Outcome.NOT_APPLICABLE, outcomes.values())
        self.assertEqual(
            [name for name, outcome in outcomes.items() if outcome is Outcome.NOTED],
            [
                *("kms.clock-ahead", "kms.clock-behind", "kms.unknown-product"),
                *("kms.count", "kms.intervals"),
            ],
        )

    def test_without_options(self) -> None:
        """
        A host without NDR64 and bind-time features keeps the rules; cases about these do not apply.
        """
        verdicts = self.audit(MemoryHost(ndr64=False, bind_time_features=False))
        self.assertKept(verdicts)
        for name in ("kms.version-6-ndr64", "features.windows", "alter.ndr-again"):
            self.assertIs(verdicts[name].outcome, Outcome.NOT_APPLICABLE, name)
        self.assertIs(verdicts["features.offered"].outcome, Outcome.NOTED)

    def test_refusing(self) -> None:
        """
        A host that refuses the product keeps the rules of RPC, and what it grants cannot be looked at.
        """
        verdicts = self.audit(MemoryHost(policy=lambda *_: HResult.PRODUCT_REFUSED))
        self.assertKept(verdicts)
        self.assertIs(verdicts["request.served"].outcome, Outcome.NOTED)
        self.assertIn("0xC004F042", verdicts["request.served"].did)
        for name in ("kms.version-6", "identity.form", "kms.count"):
            self.assertIs(verdicts[name].outcome, Outcome.NOT_APPLICABLE, name)

    def test_counting(self) -> None:
        """
        A host that has seen one client keeps the rules, and its count is told.
        """
        verdicts = self.audit(MemoryHost(policy=lambda *_: Grant(1)))
        self.assertKept(verdicts)
        self.assertIn("reported 1 clients", verdicts["kms.count"].did)

    def test_checking_clocks(self) -> None:
        """
        A host that checks the clocks of clients keeps the rules, and it is told that it does.
        """
        time = subject().request.client_time

        def policy(request: object, *_: object) -> Grant | HResult:
            asked = getattr(request, "client_time", 0)
            return HResult.CLOCK_SKEW if abs(asked - time) > 4 * 36_000_000_000 else Grant(50)

        verdicts = self.audit(MemoryHost(policy=policy))
        self.assertKept(verdicts)
        for name in ("kms.clock-ahead", "kms.clock-behind"):
            self.assertEqual(
                verdicts[name],
                (Outcome.NOTED, "checks the clocks of clients: refused with 0xC004F06C"),
            )

    def test_single_call(self) -> None:
        """
        A host that closes each connection after a call keeps the rules, as far as one call shows it.
        """
        verdicts = self.audit(MemoryHost(limits=Limits(disconnect_after_call=True)))
        self.assertKept(verdicts)
        self.assertIs(verdicts["connection.many-calls"].outcome, Outcome.NOT_APPLICABLE)

    def test_impossible_numbers(self) -> None:
        """
        A count and intervals that no host has are noticed.
        """
        for grant in (Grant(0), Grant(4_000_000_000), Grant(50, 1, 10080), Grant(50, 120, 10**9)):
            host = MemoryHost(policy=lambda *_, grant=grant: grant)
            verdicts = self.audit_some(host, "kms.count", "kms.intervals")
            self.assertIn(Outcome.FAILED, [verdict.outcome for verdict in verdicts.values()])

    def audit_some(self, host: MemoryHost, *names: str) -> dict[str, Verdict]:
        """
        Try some cases.
        """
        met = host.meet()
        return {case.name: host.run(case.script(met)) for case in choose(names=names)}


class MeetTests(SynchronousTestCase):
    """
    What is learned of a host before it is audited.
    """

    def test_default(self) -> None:
        """
        Our own host has everything, grants, and keeps connections open.
        """
        met = MemoryHost().meet()
        self.assertTrue(met.ndr64 and met.features and met.management)
        self.assertEqual((met.hresult, met.single_call), (0, False))

    def test_without_options(self) -> None:
        """
        What is turned off is noticed.
        """
        met = MemoryHost(ndr64=False, bind_time_features=False).meet()
        self.assertFalse(met.ndr64 or met.features)

    def test_unreadable_ack(self) -> None:
        """
        A bind_ack without a result for each context is told as such, and not as a foreign protocol.
        """
        ack = BindAck(5840, 5840, 1, "16880", (Negotiated(0, 0, NDR),))
        said = pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 1, ack)
        problem = self.assertRaises(
            RemoteProtocolError,
            drive,
            meet(subject()),
            lambda step: said if step.action == "receive" else b"",
        )
        self.assertIn("a bind_ack that does not hold so many results", str(problem))

    def test_refusing(self) -> None:
        """
        The HRESULT of an ordinary request is known.
        """
        met = MemoryHost(policy=lambda *_: HResult.ACCESS_DENIED).meet()
        self.assertEqual(met.hresult, 0x80070005)


class BatteryTests(SynchronousTestCase):
    """
    The list of cases, and the choice among them.
    """

    def test_names(self) -> None:
        """
        Names are unique, begin with their area, and can be typed.
        """
        names = [case.name for case in CASES]
        self.assertEqual(len(set(names)), len(names))
        self.assertGreater(len(names), 200)
        for case in CASES:
            area, _, rest = case.name.partition(".")
            self.assertEqual(area, case.area.value)
            self.assertTrue(re.fullmatch(r"[a-z0-9.-]+", rest), case.name)

    def test_texts(self) -> None:
        """
        Every case says what it tries, what the rule is in whole sentences, and where it stands.
        """
        for case in CASES:
            self.assertTrue(case.title and case.source, case.name)
            self.assertFalse(case.title.endswith("."), case.name)
            self.assertTrue(case.rule[0].isupper() and case.rule.endswith("."), case.name)
            self.assertTrue(re.fullmatch(r"KMS|\d+(\.\d+)?", case.row), case.name)

    def test_every_area(self) -> None:
        """
        Every area and every level has cases, and those of an area stand together.
        """
        self.assertEqual({case.area for case in CASES}, set(Area))
        self.assertEqual({case.level for case in CASES}, set(Level))

    def test_every_row(self) -> None:
        """
        Nearly every row of the table that can be seen from outside is tried.
        """
        rows = {case.row for case in CASES}
        for section, last in ((2, 17), (3, 23), (4, 8), (5, 18), (6, 11), (7, 8), (8, 3), (9, 7)):
            expected = {f"{section}.{number}" for number in range(1, last + 1)}
            # Row 2.12 is section 8.
            self.assertEqual(expected - rows - {"2.12"}, set())

    def test_in_order(self) -> None:
        """
        What hosts are known not to survive is tried last, and everything is tried once.
        """
        order = in_order(CASES)
        self.assertEqual([case.name for case in order[-len(PERILOUS) :]], list(PERILOUS))
        self.assertEqual({case.name for case in order}, {case.name for case in CASES})
        self.assertEqual(len(order), len(CASES))

    def test_choose(self) -> None:
        """
        Cases are chosen by area, name and row, in their order; without a choice all of them.
        """
        self.assertEqual(choose(), CASES)
        self.assertEqual({case.area for case in choose([Area.KMS])}, {Area.KMS})
        self.assertEqual(
            [case.name for case in choose(names=["bind.second", "2.17"])],
            ["header.no-rpc", "bind.second"],
        )
        chosen = choose([Area.SECURITY], ["2.17"])
        self.assertEqual({case.area for case in chosen}, {Area.SECURITY, Area.HEADER})

    def test_spare(self) -> None:
        """
        What hosts are known not to survive can be left out, but nothing is not a choice.
        """
        spared = choose(spare=True)
        self.assertEqual({*CASES} - {*spared}, {case for case in CASES if case.name in PERILOUS})
        self.assertEqual(
            [case.name for case in choose(names=["bind.second", "bind.shared-id"], spare=True)],
            ["bind.second"],
        )
        problem = self.assertRaises(ValueError, choose, names=["bind.shared-id"], spare=True)
        self.assertEqual(
            str(problem), "bind.shared-id may end the host, and nothing else is chosen"
        )

    def test_choose_unknown(self) -> None:
        """
        A name that no case has is an error that tells how to find them.
        """
        problem = self.assertRaises(ValueError, choose, names=["bind.nothing"])
        self.assertEqual(str(problem), "there is no case 'bind.nothing'; --list shows all")

    def test_interfaces(self) -> None:
        """
        The interfaces that the cases bind are those that the host has.
        """
        self.assertEqual(KMS, KMS_INTERFACE.syntax)
        self.assertEqual(MANAGEMENT, management.MANAGEMENT.syntax)
