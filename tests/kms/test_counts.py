"""
Counting clients: the counts are those of the rule at every step, and memory is bounded.
"""

from __future__ import annotations

from unittest import mock
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms import counts as counts_module
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.counts import CAPACITY, LIFETIME, ClientCounts, counted
from kmsproto.kms.policy import Grant, Peer
from tests.kms.samples import REQUEST, WINDOWS

PEER = Peer("192.0.2.1", 49152)
NOBODY = UUID(int=0)
OFFICE = UUID("59a52881-a989-479d-af46-f275c6370663")


class Rule:
    """
    The rule, as it is written.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[UUID, UUID], float] = {}

    def count(self, application: UUID, cmid: UUID, previous: UUID, now: float) -> int:
        """
        Count.
        """
        if previous != NOBODY:
            self.seen.pop((application, previous), None)
        self.seen[application, cmid] = now
        return sum(
            1
            for (other, _), last in self.seen.items()
            if other == application and now - last < LIFETIME
        )


class CountTests(SynchronousTestCase):
    """
    The counter.
    """

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([WINDOWS, OFFICE]),
                st.integers(1, 8),
                st.integers(0, 8),
                st.sampled_from([0.0, 1.0, LIFETIME / 3, LIFETIME - 1, LIFETIME]),
            ),
            max_size=60,
        )
    )
    def test_rule(self, steps: list[tuple[UUID, int, int, float]]) -> None:
        """
        Whoever asks, whatever it was before and however time passes, the count is that of the rule.
        """
        counts, rule = ClientCounts(precharged=False), Rule()
        now = 1e9
        for application, cmid, previous, passed in steps:
            now += passed
            arguments = (application, UUID(int=cmid), UUID(int=previous), now)
            self.assertEqual(counts.count(*arguments), rule.count(*arguments))

    @given(
        st.lists(
            st.tuples(st.integers(1, 12), st.sampled_from([0.0, LIFETIME / 3, LIFETIME])),
            max_size=60,
        )
    )
    def test_forgotten(self, steps: list[tuple[int, float]]) -> None:
        """
        To forget the oldest clients beyond the capacity changes no count up to it, also when time passes.
        """
        counts, rule, now = ClientCounts(precharged=False), Rule(), 1e9
        with mock.patch.object(counts_module, "CAPACITY", 5):
            for cmid, passed in steps:
                now += passed
                arguments = (WINDOWS, UUID(int=cmid), NOBODY, now)
                self.assertEqual(counts.count(*arguments), min(rule.count(*arguments), 5))

    def test_clock_set_back(self) -> None:
        """
        When a clock is set back nobody is forgotten, and all expire in time.
        """
        counts, now = ClientCounts(precharged=False), 1e9
        for number, off in ((1, 0.0), (2, 1 - LIFETIME), (3, 0.0)):
            self.assertEqual(counts.count(WINDOWS, UUID(int=number), NOBODY, now + off), number)
        self.assertEqual(counts.count(WINDOWS, UUID(int=4), NOBODY, now + LIFETIME), 1)

    def test_clock_put_right(self) -> None:
        """
        When a clock that was years ahead is put right, those that asked meanwhile do not count for years.
        """
        counts, now = ClientCounts(precharged=False), 1e9
        for number in (1, 2, 3):
            self.assertEqual(counts.count(WINDOWS, UUID(int=number), NOBODY, 4e9), number)
        self.assertEqual(counts.count(WINDOWS, UUID(int=4), NOBODY, now), 1)
        self.assertEqual(counts.count(WINDOWS, UUID(int=5), NOBODY, now + LIFETIME - 1), 2)
        self.assertEqual(counts.count(WINDOWS, UUID(int=6), NOBODY, now + LIFETIME), 2)

    def test_bounded(self) -> None:
        """
        No more clients are remembered than the capacity, and that is more than any request can be told of.
        """
        counts = ClientCounts(precharged=False)
        found = [
            counts.count(WINDOWS, UUID(int=number), NOBODY, 0.0)
            for number in range(1, CAPACITY + 100)
        ]
        self.assertEqual(max(found), CAPACITY)
        self.assertEqual(len(counts.seen[WINDOWS]), CAPACITY)
        self.assertGreater(CAPACITY, 2000)


class CountedTests(SynchronousTestCase):
    """
    The policy of a host that counts.
    """

    def setUp(self) -> None:
        """
        Load the products.
        """
        self.catalog = load_catalog()

    def reported(self, counts: ClientCounts, now: float = 0.0, **changes: object) -> int:
        """
        Ask, and get the count.
        """
        decision = counted(self.catalog, counts)(REQUEST._replace(**changes), PEER, now)
        assert isinstance(decision, Grant)
        return decision.client_count

    def test_ten_thousand(self) -> None:
        """
        10,000 clients against a host that starts empty are told the rule at every step: as many as there were, up to
        twice what they want to see; and after 30 days the first that asks is alone.
        """
        counts = ClientCounts(precharged=False)
        policy = counted(self.catalog, counts)
        for number in range(1, 10_001):
            request = REQUEST._replace(client_machine_id=UUID(int=number), n_policy=1000)
            decision = policy(request, PEER, float(number))
            self.assertEqual(decision, Grant(min(number, 2000)))
        again = REQUEST._replace(client_machine_id=UUID(int=10_000), n_policy=1000)
        # The last one asks, and asks again while the others expire one by one.
        for left in (2001, 2000, 1999, 1000, 2, 1):
            decision = policy(again, PEER, 10_000 - left + LIFETIME)
            self.assertEqual(decision, Grant(min(left, 2000)))

    def test_falls_step_by_step(self) -> None:
        """
        Clients fall out one by one as their 30 days pass.
        """
        counts = ClientCounts(precharged=False)
        for day in range(10):
            self.reported(counts, day * 86400.0, client_machine_id=UUID(int=day + 1))
        for day in range(10):
            now = LIFETIME + day * 86400.0
            self.assertEqual(self.reported(counts, now, client_machine_id=UUID(int=99)), 10 - day)

    def test_cap(self) -> None:
        """
        No request is told of more than twice its N policy, nor of fewer than itself.
        """
        counts = ClientCounts(precharged=False)
        for number in range(1, 100):
            reported = self.reported(counts, client_machine_id=UUID(int=number), n_policy=25)
            self.assertEqual(reported, min(number, 50))
        self.assertEqual(self.reported(counts, n_policy=0), 1)

    def test_precharged(self) -> None:
        """
        A host that starts charged has 24 clients for Windows and 4 for Office, so the first real one suffices.
        """
        counts = ClientCounts(precharged=True)
        self.assertEqual(self.reported(counts), 25)
        self.assertEqual(self.reported(counts, application_id=OFFICE, n_policy=5), 5)
        self.assertEqual(self.reported(counts, LIFETIME * 2), 25)

    def test_applications(self) -> None:
        """
        Applications are counted apart; one that nobody knows counts as that of its KMS id, or else as Windows, and is
        not remembered as one of its own.
        """
        counts = ClientCounts(precharged=False)
        self.assertEqual(self.reported(counts, client_machine_id=UUID(int=1)), 1)
        self.assertEqual(
            self.reported(counts, client_machine_id=UUID(int=2), application_id=OFFICE), 1
        )
        unknown = UUID(int=7)
        self.assertEqual(
            self.reported(counts, client_machine_id=UUID(int=3), application_id=unknown), 2
        )
        self.assertEqual(
            self.reported(
                counts, client_machine_id=UUID(int=4), application_id=unknown, kms_id=unknown
            ),
            3,
        )
        self.assertEqual(set(counts.seen), {WINDOWS, OFFICE})

    def test_no_applications(self) -> None:
        """
        With a catalogue without applications all clients are counted together, and none in advance.
        """
        known = self.catalog
        catalog = Catalog("test", [], [], [], known.csvlks.values(), known.host_builds.values())
        policy = counted(catalog, ClientCounts(precharged=True))
        for number, application in ((1, WINDOWS), (2, OFFICE)):
            request = REQUEST._replace(
                client_machine_id=UUID(int=number), application_id=application
            )
            self.assertEqual(policy(request, PEER, 0.0), Grant(number))

    def test_intervals(self) -> None:
        """
        The intervals are those that were wanted.
        """
        policy = counted(
            self.catalog,
            ClientCounts(precharged=False),
            activation_interval=15,
            renewal_interval=16,
        )
        self.assertEqual(policy(REQUEST, PEER, 0.0), Grant(1, 15, 16))
