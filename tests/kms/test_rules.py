"""
Rules about what is granted: who is refused, with which HRESULT, and who gets through.
"""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError, ProductNotFoundError
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.counts import ClientCounts
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import posix_seconds
from kmsproto.kms.policy import Grant, ImmediatePolicy, Peer
from kmsproto.kms.rules import (
    CLOCK_TOLERANCE,
    checking_time,
    denying,
    products_named,
    refusing_all,
    standard_policy,
    white_listed,
)
from tests.kms.samples import REQUEST

PEER = Peer("192.0.2.1", 49152)
UNKNOWN = UUID(int=7)
GRANT = Grant(50)
REFUSED = 0xC004F042
#: Of which POSIX second a FILETIME is.
_EPOCH = 116444736000000000


def granting(request: object, peer: object, now: float) -> Grant:
    """
    Grant.
    """
    return GRANT


class RulesTests(SynchronousTestCase):
    """
    Each rule by itself.
    """

    def setUp(self) -> None:
        """
        Load the products.
        """
        self.catalog = load_catalog()

    def ask(self, policy: ImmediatePolicy, now: float = 0.0, **changes: object) -> object:
        """
        Ask a policy.
        """
        return policy(REQUEST._replace(**changes), PEER, now)

    def test_refuse_all(self) -> None:
        """
        A host that is retired refuses everybody.
        """
        self.assertEqual(self.ask(refusing_all()), REFUSED)

    def test_white_listing(self) -> None:
        """
        Each level refuses what it names and nothing else.
        """
        retail = next(each for each in self.catalog.kms_ids.values() if each.is_retail)
        preview = next(each for each in self.catalog.kms_ids.values() if each.is_preview)
        cases = {
            "known": {},
            "unknown": {"kms_id": UNKNOWN},
            "retail": {"kms_id": retail.guid, "application_id": retail.application},
            "preview": {"kms_id": preview.guid, "application_id": preview.application},
            "other application": {"application_id": UNKNOWN},
        }
        for level, refused in (
            (0, set()),
            (1, {"unknown", "other application"}),
            (2, {"retail", "preview"}),
            (3, {"unknown", "retail", "preview", "other application"}),
        ):
            policy = white_listed(self.catalog, level, granting)
            found = {
                name for name, changes in cases.items() if self.ask(policy, **changes) == REFUSED
            }
            self.assertEqual(found, refused, level)
        self.assertIs(white_listed(self.catalog, 0, granting), granting)

    def test_time(self) -> None:
        """
        A clock may be four hours off, in both directions, and no more.
        """
        policy = checking_time(granting)
        for now in (0.0, 1.7e9):
            for off in (0, CLOCK_TOLERANCE, -CLOCK_TOLERANCE):
                time = _EPOCH + int(now + off) * 10_000_000
                self.assertEqual(self.ask(policy, now, client_time=time), GRANT)
                beyond = time + (1 if off >= 0 else -1) * 10_000_000
                if off:
                    self.assertEqual(self.ask(policy, now, client_time=beyond), 0xC004F06C)
        self.assertEqual(self.ask(policy, 0.0, client_time=0), HResult.CLOCK_SKEW)

    def test_denied(self) -> None:
        """
        Products are denied by their SKU, KMS or application id.
        """
        for guid in (REQUEST.sku_id, REQUEST.kms_id, REQUEST.application_id):
            self.assertEqual(self.ask(denying(frozenset({guid}), granting)), REFUSED)
        self.assertEqual(self.ask(denying(frozenset({UNKNOWN}), granting)), GRANT)
        self.assertIs(denying(frozenset(), granting), granting)

    def test_names(self) -> None:
        """
        A product is named by number, name or any GUID; a name that means nothing is an error.
        """
        first = next(iter(self.catalog.skus.values()))
        for text in (str(first.number), first.name.upper(), str(first.guid)):
            self.assertEqual(products_named(self.catalog, text), {first.guid})
        for text in (f"{UNKNOWN}", f" {{{UNKNOWN}}} ", f"{UNKNOWN}".upper()):
            self.assertEqual(products_named(self.catalog, text), {UNKNOWN})
        for text in ("Windoze", "99999"):
            with self.assertRaises(KMSProtoError) as caught:
                products_named(self.catalog, text)
            self.assertIn(text, str(caught.exception))

    def test_kms_id(self) -> None:
        """
        A KMS id is denied under every GUID that is known for it, by whichever of them it is named.
        """
        known = next(each for each in self.catalog.kms_ids.values() if each.aliases)
        guids = (known.guid, *known.aliases)
        for text in (*map(str, guids), f"{{{known.guid}}}"):
            self.assertEqual(products_named(self.catalog, text), set(guids))

    def test_suggestions(self) -> None:
        """
        A name that is nearly that of a product leads to it.
        """
        first = next(iter(self.catalog.skus.values()))
        with self.assertRaises(ProductNotFoundError) as caught:
            products_named(self.catalog, first.name[:-1] + "#")
        self.assertIn(first.name, caught.exception.suggestions)

    def test_needs_time(self) -> None:
        """
        What an inner policy returns that needs time is handed through.
        """
        later: Deferred[Grant] = Deferred()
        for wrap in (
            lambda inner: white_listed(self.catalog, 3, inner),
            checking_time,
            lambda inner: denying(frozenset({UNKNOWN}), inner),
        ):
            policy = wrap(lambda request, peer, now: later)
            now = posix_seconds(REQUEST.client_time)
            self.assertIs(self.ask(policy, now), later)


class StandardPolicyTests(SynchronousTestCase):
    """
    All of them together.
    """

    def setUp(self) -> None:
        """
        Load the products.
        """
        self.catalog = load_catalog()

    def test_default(self) -> None:
        """
        Without rules it is the policy of a charged host, and nothing around it.
        """
        policy = standard_policy(self.catalog, activation_interval=15, renewal_interval=16)
        self.assertEqual(policy(REQUEST, PEER, 0.0), Grant(50, 15, 16))
        self.assertTrue(policy.__qualname__.startswith("charged."))

    def test_refuse_all(self) -> None:
        """
        To refuse all comes before everything.
        """
        self.assertEqual(
            standard_policy(self.catalog, refuse_all=True)(REQUEST, PEER, 0.0), REFUSED
        )

    def test_refused_are_not_counted(self) -> None:
        """
        Who is refused by any rule is not counted as a client.
        """
        counts = ClientCounts(precharged=False)
        now = (REQUEST.client_time - _EPOCH) / 10_000_000
        policy = standard_policy(
            self.catalog,
            counts=counts,
            white_listing_level=3,
            check_client_time=True,
            denied=frozenset({UNKNOWN}),
        )
        for number, changes in enumerate(
            ({"kms_id": UUID(int=8)}, {"sku_id": UNKNOWN}, {"client_time": 0}), 1
        ):
            request = REQUEST._replace(client_machine_id=UUID(int=number), **changes)
            self.assertIsInstance(policy(request, PEER, now), HResult)
        self.assertEqual(policy(REQUEST, PEER, now), Grant(1))
