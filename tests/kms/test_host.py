"""
Tests of L{kmsproto.kms.host}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.catalog import CSVLK, Catalog, load_catalog
from kmsproto.kms.envelopes import OpenedRequest, seal_request
from kmsproto.kms.epid import ExtendedPID
from kmsproto.kms.host import ENTROPY_POOL, Answer, Host, HostIdentity, pooled
from kmsproto.kms.hresults import HResult
from kmsproto.kms.identity import DRAWN_PER_ANSWER, Override, make_identity
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Decision, Grant, Peer, Policy, charged
from kmsproto.kms.requests import make_request
from kmsproto.kms.verification import open_response
from kmsproto.testing import INSTALLATION, fixed_entropy, make_host
from tests.kms.samples import (
    CLIENT,
    NOW,
    REQUEST,
    REQUEST_SALT,
    request_bodies,
    salts,
)

CATALOG = load_catalog()
IDENTITY = HostIdentity(CATALOG, INSTALLATION)
PEER = Peer("192.0.2.1", 49152)
UNKNOWN = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
OFFICE_2013 = UUID("e6a6f1bf-9d40-40c3-aa9f-c77ba21578c0")


def always(decision: Any) -> Policy:
    """
    Make a policy that has made up its mind, be it sound or not.
    """

    def decide(request: RequestBody, peer: Peer, now: float) -> Decision:
        result: Decision = decision
        return result

    return decide


def host_with(policy: Policy, entropy: Callable[[int], bytes] | None = None) -> Host:
    """
    Make a host with a policy.
    """
    return Host(CATALOG, IDENTITY, policy, entropy or fixed_entropy())


def sealed(**fields: Any) -> tuple[bytes, OpenedRequest]:
    """
    Seal the sample request with other values for some fields.
    """
    return seal_request(REQUEST._replace(**fields), REQUEST_SALT)


class CountingEntropy:
    """
    A source of random bytes that writes down what it is asked for.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.given: list[bytes] = []
        self._source = fixed_entropy()

    def __call__(self, length: int) -> bytes:
        """
        Give so many bytes.
        """
        self.asked.append(length)
        self.given.append(self._source(length))
        return self.given[-1]


class AnswerTests(SynchronousTestCase):
    """
    From a request to an answer.
    """

    def test_granted(self) -> None:
        """
        A granted request gets what was granted under the identity of the host, and tells the outlet all of it.
        """
        grant = Grant(77, 240, 20160)
        for version in (4, 5, 6):
            payload, opened = sealed(major_version=version)
            answer = host_with(always(grant)).answer(payload, PEER, NOW)
            self.assertIs(answer.hresult, HResult.SUCCESS)
            self.assertEqual(answer.request, opened.body)
            self.assertEqual(answer.grant, grant)
            self.assertEqual(answer.problem, "")
            body, hardware_id = open_response(answer.payload, opened)
            self.assertEqual(body[:2], (0, version))
            self.assertEqual(body.epid, IDENTITY.epid("Windows"))
            self.assertEqual(body.client_machine_id, opened.body.client_machine_id)
            self.assertEqual(body.client_time, opened.body.client_time)
            self.assertEqual(body[-3:], grant)
            self.assertEqual(hardware_id, IDENTITY.hardware_id if version == 6 else b"")

    def test_refused(self) -> None:
        """
        A refusal is the HRESULT of the policy, known or not, without data.
        """
        payload, opened = sealed()
        for code in (
            HResult.PRODUCT_REFUSED,
            HResult.CLOCK_SKEW,
            HResult.CLIENT_TABLE_FULL,
            HResult.ACCESS_DENIED,
            HResult(0xDEADBEEF),
        ):
            answer = host_with(always(code)).answer(payload, PEER, NOW)
            self.assertEqual(answer, Answer(code, request=opened.body))
            self.assertEqual((answer.payload, answer.grant, answer.problem), (b"", None, ""))

    def test_malformed(self) -> None:
        """
        A malformed request gets 0x8007000D with a reason, and the policy is not bothered.
        """
        asked: list[RequestBody] = []

        def policy(request: RequestBody, peer: Peer, now: float) -> Decision:
            asked.append(request)
            return Grant(50)

        host = host_with(policy)
        for payload, problem in (
            (b"", "no version"),
            (sealed()[0][:-1], "259 bytes"),
            (sealed(major_version=7)[0], "version 7.0"),
            (sealed(n_policy=1001)[0], "N policy"),
            (sealed(major_version=4)[0][:-1] + b"\0", "MAC"),
        ):
            answer = host.answer(payload, PEER, NOW)
            self.assertIs(answer.hresult, HResult.INVALID_DATA)
            self.assertEqual((answer.payload, answer.request, answer.grant), (b"", None, None))
            self.assertIn(problem, answer.problem)
            self.assertEqual(host.open(payload), answer)
        self.assertEqual(asked, [])

    def test_policy_is_asked(self) -> None:
        """
        The policy is asked once, for the opened request, the peer and the time as they are.
        """
        asked: list[tuple[RequestBody, Peer, float]] = []

        def policy(request: RequestBody, peer: Peer, now: float) -> Decision:
            asked.append((request, peer, now))
            return HResult.PRODUCT_REFUSED

        payload, opened = sealed()
        host_with(policy).answer(payload, PEER, NOW)
        self.assertEqual(asked, [(opened.body, PEER, NOW)])

    def test_policy_fails(self) -> None:
        """
        What a policy raises is not swallowed.
        """

        def policy(request: RequestBody, peer: Peer, now: float) -> Decision:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, host_with(policy).answer, sealed()[0], PEER, NOW)

    @given(request_bodies(), salts, st.booleans())
    def test_steps(self, body: RequestBody, salt: bytes, grants: bool) -> None:
        """
        To answer is to open, to decide and to seal.
        """
        payload, _ = seal_request(body, salt)
        policy = charged(CATALOG) if grants else always(HResult.PRODUCT_REFUSED)
        host = host_with(policy)
        opened = host.open(payload)
        assert isinstance(opened, OpenedRequest)
        decision = host.decide(opened, PEER, NOW)
        self.assertEqual(host.seal(opened, decision), host_with(policy).answer(payload, PEER, NOW))

    @given(st.binary(max_size=300))
    def test_any_bytes(self, payload: bytes) -> None:
        """
        Any bytes get an answer.
        """
        answer = make_host().answer(payload, PEER, NOW)
        self.assertIs(answer.hresult, HResult.INVALID_DATA)

    def test_epid_by_kms_id(self) -> None:
        """
        The ePID is that of the key group of the KMS id, also under an alias, and no other field chooses it.
        """
        host = make_host()
        for kms_id in CATALOG.kms_ids.values():
            for guid in (kms_id.guid, *kms_id.aliases):
                payload, opened = sealed(kms_id=guid, application_id=UNKNOWN, sku_id=UNKNOWN)
                answer = host.answer(payload, PEER, NOW)
                epid = open_response(answer.payload, opened).body.epid
                self.assertEqual(epid, IDENTITY.epid(kms_id.csvlk), kms_id.name)
        self.assertNotEqual(IDENTITY.epid("Windows"), IDENTITY.epid("Office2013"))

    def test_unknown_kms_id(self) -> None:
        """
        A KMS id that is not known is answered under the first key group.
        """
        for guid in (UNKNOWN, UUID(int=0)):
            payload, opened = sealed(kms_id=guid)
            answer = make_host().answer(payload, PEER, NOW)
            epid = open_response(answer.payload, opened).body.epid
            self.assertEqual(epid, IDENTITY.epid(next(iter(CATALOG.csvlks))))

    def test_first_key_group(self) -> None:
        """
        The first key group has an ePID even if no known KMS id is its own, for unknown ones are.
        """
        key = "first"
        first = replace(CATALOG.csvlks["Windows"], key=key, group_id=4242)
        catalog = Catalog(
            "test",
            CATALOG.applications.values(),
            CATALOG.kms_ids.values(),
            CATALOG.skus.values(),
            [first, *CATALOG.csvlks.values()],
            CATALOG.host_builds.values(),
        )
        payload, opened = sealed(kms_id=UNKNOWN)
        answer = make_host(catalog=catalog).answer(payload, PEER, NOW)
        epid = open_response(answer.payload, opened).body.epid
        self.assertEqual(epid, HostIdentity(catalog, INSTALLATION).epid(key))
        self.assertEqual(ExtendedPID.parse(epid).group_id, 4242)

    def test_hardware_id_by_kms_id(self) -> None:
        """
        A product whose key group has a hardware id of its own is answered with that, the others with the host's.
        """
        own = bytes(range(8))
        identity = HostIdentity(
            CATALOG, INSTALLATION, overrides=[Override("Office2013", "an office", own)]
        )
        host = Host(CATALOG, identity, charged(CATALOG), fixed_entropy())
        for kms_id, expected in (
            (OFFICE_2013, ("an office", own)),
            (REQUEST.kms_id, (IDENTITY.epid("Windows"), IDENTITY.hardware_id)),
            (OFFICE_2013, ("an office", own)),
        ):
            payload, opened = sealed(kms_id=kms_id)
            response = open_response(host.answer(payload, PEER, NOW).payload, opened)
            self.assertEqual((response.body.epid, response.hardware_id), expected)

    def test_asked_once(self) -> None:
        """
        A host asks its identity once for each product, unless the identity varies: then for every answer.
        """
        for varies, expected in ((False, 2), (True, 6)):
            asked: list[str] = []

            def choose(csvlk: CSVLK, asked: list[str] = asked) -> str:
                asked.append(csvlk.key)
                return f"{csvlk.key} {len(asked)}"

            identity = HostIdentity(CATALOG, INSTALLATION, choose=choose, varies=varies)
            host = Host(CATALOG, identity, charged(CATALOG), fixed_entropy())
            asked.clear()
            said = set()
            for _ in range(3):
                for kms_id in (OFFICE_2013, REQUEST.kms_id):
                    payload, opened = sealed(kms_id=kms_id)
                    answer = host.answer(payload, PEER, NOW)
                    said.add(open_response(answer.payload, opened).body.epid)
            self.assertEqual(len(said), expected)
            self.assertEqual(len(asked), 6 if varies else 0)

    def test_nothing_remembered(self) -> None:
        """
        A host whose identity varies is as content with the thousandth answer as with the first.
        """
        identity = make_identity(
            CATALOG,
            INSTALLATION,
            mode=DRAWN_PER_ANSWER,
            host_build=None,
            lcid=None,
            ndr64=True,
            overrides=[],
            entropy=fixed_entropy(),
            today=date(2026, 1, 1),
        )
        host = Host(CATALOG, identity, charged(CATALOG), fixed_entropy())
        epids = set()
        for _ in range(300):
            payload, opened = sealed()
            epids.add(open_response(host.answer(payload, PEER, NOW).payload, opened).body.epid)
        self.assertEqual(len(epids), 300)

    def test_epid_is_stable(self) -> None:
        """
        Every answer to one product has the same ePID, whoever asks, when, and in which version.
        """
        host = make_host()
        epids = set()
        for version in (4, 5, 6):
            for number in range(3):
                payload, opened = sealed(
                    major_version=version, kms_id=OFFICE_2013, client_machine_id=UUID(int=number)
                )
                answer = host.answer(payload, Peer("2001:db8::1", number), NOW + number * 1e8)
                epids.add(open_response(answer.payload, opened).body.epid)
        self.assertEqual(epids, {IDENTITY.epid("Office2013")})

    def test_every_product(self) -> None:
        """
        Every product of the catalogue is granted in every version, and its client is content.
        """
        host = make_host()
        for product in CATALOG.skus.values():
            for version in (4, 5, 6):
                body = make_request(
                    CATALOG,
                    product,
                    client_machine_id=CLIENT,
                    workstation=f"desk-{product.number}",
                    now=NOW,
                    protocol=version,
                )
                payload, opened = seal_request(body, REQUEST_SALT)
                answer = host.answer(payload, PEER, NOW)
                self.assertIs(answer.hresult, HResult.SUCCESS, product.name)
                response = open_response(answer.payload, opened).body
                kms_id = CATALOG.kms_ids[product.kms_id]
                self.assertGreaterEqual(response.client_count, kms_id.n_policy, product.name)
                self.assertEqual(response.epid, IDENTITY.epid(kms_id.csvlk), product.name)


class EntropyTests(SynchronousTestCase):
    """
    What a host asks of its source of random bytes.
    """

    def test_granted(self) -> None:
        """
        A grant draws a salt and the random bytes at once, afresh for every answer.
        """
        entropy = CountingEntropy()
        host = host_with(charged(CATALOG), entropy)
        payload, _ = sealed()
        answers = {host.answer(payload, PEER, NOW).payload for _ in range(3)}
        self.assertEqual(entropy.asked, [32, 32, 32])
        self.assertEqual(len(answers), 3)

    def test_used(self) -> None:
        """
        The answer in version 6 depends on each drawn byte, in version 5 on the second half, in version 4 on none.
        """
        drawn = bytes(range(0x40, 0x60))
        for version, used in ((4, set()), (5, set(range(16, 32))), (6, set(range(32)))):
            payload, _ = sealed(major_version=version)

            def answer(random: bytes, payload: bytes = payload) -> bytes:
                return (
                    host_with(charged(CATALOG), lambda _: random).answer(payload, PEER, NOW).payload
                )

            changing = set()
            for place in range(32):
                other = drawn[:place] + bytes([drawn[place] ^ 1]) + drawn[place + 1 :]
                if answer(other) != answer(drawn):
                    changing.add(place)
            self.assertEqual(changing, used)

    def test_not_granted(self) -> None:
        """
        A refusal and a malformed request draw nothing.
        """
        entropy = CountingEntropy()
        host = host_with(always(HResult.PRODUCT_REFUSED), entropy)
        host.answer(sealed()[0], PEER, NOW)
        host.answer(b"", PEER, NOW)
        self.assertEqual(entropy.asked, [])


class UnsoundPolicyTests(SynchronousTestCase):
    """
    A decision that cannot be carried out is the operator's mistake: a local error, never an answer.
    """

    def refused(self, decision: Any) -> None:
        """
        Hold that the host takes a decision for what it is, in every version.
        """
        for version in (4, 5, 6):
            payload, _ = sealed(major_version=version)
            host = host_with(always(decision))
            self.assertRaises(LocalProtocolError, host.answer, payload, PEER, NOW)

    def test_success(self) -> None:
        """
        HRESULT 0 grants nothing, whether it comes by name or as a number.
        """
        self.refused(HResult.SUCCESS)
        self.refused(0)

    def test_policy_that_needs_time(self) -> None:
        """
        A policy that needs time cannot be asked in one step.
        """

        async def think() -> Grant:
            return Grant(50)

        thought = think()
        self.refused(thought)
        thought.close()

    def test_plain_number(self) -> None:
        """
        A number that is an HRESULT refuses like the HRESULT itself.
        """
        payload, opened = sealed()
        answer = host_with(always(0xC004F042)).answer(payload, PEER, NOW)
        self.assertEqual(answer, Answer(HResult.PRODUCT_REFUSED, request=opened.body))
        self.assertIsInstance(answer.hresult, HResult)

    def test_no_decision(self) -> None:
        """
        A policy that decides nothing, as by a forgotten return, is in error.
        """
        self.refused(None)

    def test_no_hresult(self) -> None:
        """
        What is neither a grant nor an HRESULT of 32 bits is in error.
        """
        for decision in (-1, -0x3FFB0FBE, 2**32, True, "refused", (50, 120, 10080)):
            self.refused(decision)

    def test_negative_counts(self) -> None:
        """
        A grant of less than no clients or of less than no time cannot be written.
        """
        for grant in (Grant(-1), Grant(50, -1), Grant(50, 120, -1)):
            self.refused(grant)

    def test_enormous_counts(self) -> None:
        """
        A grant of more than 32 bits cannot be written.
        """
        for grant in (Grant(2**32), Grant(50, 2**32), Grant(50, 120, 2**32)):
            self.refused(grant)

    def test_extremes(self) -> None:
        """
        Within 32 bits a policy may grant what it likes, even nothing.
        """
        payload, opened = sealed()
        for grant in (Grant(0, 0, 0), Grant(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)):
            answer = host_with(always(grant)).answer(payload, PEER, NOW)
            self.assertEqual(open_response(answer.payload, opened).body[-3:], grant)


class PooledTests(SynchronousTestCase):
    """
    Random bytes by the pool.
    """

    def test_used_once(self) -> None:
        """
        Every byte that is drawn is handed out at most once, in pieces of any size; the rest of a pool is left.
        """
        source = fixed_entropy()
        drawn: list[bytes] = []

        def draw(length: int) -> bytes:
            self.assertEqual(length, ENTROPY_POOL)
            drawn.append(source(length))
            return drawn[-1]

        take = pooled(draw)
        pieces = [take(1000) for _ in range(9)]
        self.assertEqual([len(piece) for piece in pieces], [1000] * 9)
        self.assertEqual(len(drawn), 3)
        self.assertEqual(b"".join(pieces[:4]), drawn[0][:4000])
        self.assertEqual(b"".join(pieces[4:8]), drawn[1][:4000])
        self.assertEqual(pieces[8], drawn[2][:1000])
