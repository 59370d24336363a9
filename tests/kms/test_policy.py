"""
Tests of L{kmsproto.kms.policy}.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.catalog import CSVLK, Catalog, KMSId, load_catalog
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer, charged
from tests.kms.samples import NOW, REQUEST, WINDOWS, request_bodies

PEER = Peer("192.0.2.1", 49152)
DEMANDING = UUID(int=1)
DEMANDING_ALIAS = UUID(int=2)
MODEST = UUID(int=3)
UNKNOWN = UUID(int=4)


def make_catalog(minimums: Mapping[str, int], kms_ids: Mapping[UUID, str]) -> Catalog:
    """
    Make a catalogue of key groups that demand a number of clients, and of KMS ids that they answer for.
    """
    return Catalog(
        "test",
        [],
        [
            KMSId(
                guid=guid,
                name=str(guid),
                application=WINDOWS,
                protocol=6,
                n_policy=25,
                is_retail=False,
                is_preview=False,
                csvlk=key,
                aliases=(DEMANDING_ALIAS,) if guid == DEMANDING else (),
            )
            for guid, key in kms_ids.items()
        ],
        [],
        [
            CSVLK(
                key=key,
                name=key,
                guid=None,
                group_id=1,
                key_id_ranges=((1, 1),),
                release_date=date(2020, 1, 1),
                minimum_active_clients=minimum,
                invalid_host_builds=frozenset(),
                is_lab=False,
                is_preview=False,
                kms_ids=None,
            )
            for key, minimum in minimums.items()
        ],
        [],
    )


CATALOG = make_catalog(
    {"first": 70, "modest": 0, "demanding": 300}, {DEMANDING: "demanding", MODEST: "modest"}
)
BUILT_IN = load_catalog()


class GrantTests(SynchronousTestCase):
    """
    A grant has Microsoft's intervals unless it is told others.
    """

    def test_defaults(self) -> None:
        """
        A client retries after two hours and renews after seven days.
        """
        self.assertEqual(Grant(50), (50, 120, 10080))
        self.assertEqual(Grant(50).activation_interval, 2 * 60)
        self.assertEqual(Grant(50).renewal_interval, 7 * 24 * 60)


class ChargedTests(SynchronousTestCase):
    """
    The policy of a charged host.
    """

    def count(self, kms_id: UUID, n_policy: int) -> int:
        """
        Ask the policy for the number of clients.
        """
        decision = charged(CATALOG)(REQUEST._replace(kms_id=kms_id, n_policy=n_policy), PEER, NOW)
        assert isinstance(decision, Grant)
        return decision.client_count

    def test_twice_the_n_policy(self) -> None:
        """
        The count is twice the N policy of the request, whatever the catalogue says of the product.
        """
        for n_policy in (1, 5, 25, 26, 1000):
            self.assertEqual(self.count(MODEST, n_policy), 2 * n_policy)

    def test_minimum_of_the_key_group(self) -> None:
        """
        The count is never less than the minimum of the key group, which twice the N policy may exceed.
        """
        for n_policy, expected in ((0, 300), (25, 300), (150, 300), (151, 302), (1000, 2000)):
            self.assertEqual(self.count(DEMANDING, n_policy), expected)

    def test_the_one_that_asks(self) -> None:
        """
        The count is at least one: the client that asks.
        """
        self.assertEqual(self.count(MODEST, 0), 1)

    def test_unknown(self) -> None:
        """
        A KMS id that is not known is granted, with the minimum of the first key group.
        """
        self.assertEqual(self.count(UNKNOWN, 5), 70)
        self.assertEqual(self.count(UNKNOWN, 36), 72)

    def test_alias(self) -> None:
        """
        A made-up GUID counts like the KMS id that it stands for.
        """
        self.assertEqual(self.count(DEMANDING_ALIAS, 5), 300)

    def test_intervals(self) -> None:
        """
        The intervals are Microsoft's, or those that the operator gives, zero and the highest included.
        """
        for first, second in ((0, 0), (1440, 20160), (0xFFFFFFFF, 0xFFFFFFFF)):
            policy = charged(CATALOG, activation_interval=first, renewal_interval=second)
            self.assertEqual(policy(REQUEST, PEER, NOW), Grant(70, first, second))
        self.assertEqual(charged(CATALOG)(REQUEST, PEER, NOW), Grant(70, 120, 10080))
        self.assertEqual(
            charged(CATALOG, renewal_interval=1)(REQUEST, PEER, NOW), Grant(70, 120, 1)
        )

    @given(request_bodies(), st.floats(allow_nan=False), st.text(), st.integers(0, 65535))
    def test_grants_everything(
        self, request: RequestBody, now: float, address: str, port: int
    ) -> None:
        """
        Every request is granted; who asks and when makes no difference.
        """
        policy = charged(BUILT_IN)
        decision = policy(request, Peer(address, port), now)
        assert isinstance(decision, Grant)
        self.assertEqual(decision, policy(request, PEER, NOW))
        self.assertGreaterEqual(decision.client_count, max(1, 2 * request.n_policy))

    def test_suffices(self) -> None:
        """
        Every product of the catalogue is told of as many clients as it wants.
        """
        policy = charged(BUILT_IN)
        for kms_id in BUILT_IN.kms_ids.values():
            request = REQUEST._replace(kms_id=kms_id.guid, n_policy=kms_id.n_policy)
            decision = policy(request, PEER, NOW)
            assert isinstance(decision, Grant)
            self.assertGreaterEqual(decision.client_count, kms_id.n_policy)
