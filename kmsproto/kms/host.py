"""
The host: a request and a peer in, an answer out.

L{Host} opens a request, lets a policy decide, and seals the answer.  The three steps can be taken at once with
L{Host.answer}, or one by one where a policy needs time.  It has no clock, no randomness and no I/O of its own: the
time is an argument, the random bytes come from a function that it is given.

What the host says of itself is its L{HostIdentity}.  An answer asks for it by the KMS id, and since a network has few
products, what was said for each is remembered, unless the identity is one that varies from answer to answer.

Source: "KMS messages, versions 4, 5 and 6", section "What a host answers".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.envelopes import SALT_LENGTH, OpenedRequest, open_request, seal_response
from kmsproto.kms.hresults import HResult

# What a host says of itself has a module of its own; who makes a host finds it here as well.
from kmsproto.kms.identity import DEFAULT_HOST_BUILD as DEFAULT_HOST_BUILD
from kmsproto.kms.identity import DEFAULT_LCID as DEFAULT_LCID
from kmsproto.kms.identity import HostIdentity as HostIdentity
from kmsproto.kms.identity import host_builds as host_builds
from kmsproto.kms.messages import MalformedMessageError, RequestBody, ResponseBody
from kmsproto.kms.policy import Decision, Grant, Peer, Policy

#: Random bytes that are drawn at a time.
ENTROPY_POOL = 4096


def _refusal(decision: object) -> HResult:
    """
    Check the HRESULT of a refusal: its highest bit says that it is one.

    @raise LocalProtocolError: If it is none.
    """
    if not isinstance(decision, int) or not 0x80000000 <= decision <= 0xFFFFFFFF:
        raise LocalProtocolError(
            f"a policy grants with a Grant and refuses with an HRESULT, not with {decision!r}"
        )
    return HResult(decision)


def pooled(draw: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """
    Draw random bytes by the pool: to ask the system for those of each answer costs more than to use them.

    @param draw: Returns as many random bytes as it is asked for; asked for L{ENTROPY_POOL} at a time.
    @return: The same, for at most that many.
    """
    pool, used = b"", 0

    def take(length: int) -> bytes:
        nonlocal pool, used
        start, used = used, used + length
        if used > len(pool):
            pool, start, used = draw(ENTROPY_POOL), 0, length
        return pool[start:used]

    return take


class Answer(NamedTuple):
    """
    What a host answers, and about what.

    @ivar hresult: Zero when the request is granted.
    @ivar payload: The KMS response; empty unless it is granted.
    @ivar request: What was asked; L{None} when it could not be opened.
    @ivar grant: What was granted; L{None} when nothing was.
    @ivar problem: What was wrong with a request that could not be opened; else empty.
    """

    hresult: HResult
    payload: bytes = b""
    request: RequestBody | None = None
    grant: Grant | None = None
    problem: str = ""


class Host:
    """
    A KMS host.

    @param catalog: The products; it chooses the CSVLK by the KMS id.
    @param identity: The ePIDs and the hardware ids.
    @param policy: Decides what is granted.
    @param entropy: Returns as many random bytes as it is asked for: C{os.urandom}, outside of tests.
    """

    def __init__(
        self,
        catalog: Catalog,
        identity: HostIdentity,
        policy: Policy,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.catalog = catalog
        self.identity = identity
        self.policy = policy
        self._entropy = entropy
        # A network has few products, and what is said for them mostly stays what it is.
        present = self._choose_presented
        self._presented = present if identity.varies else lru_cache(maxsize=1024)(present)

    def open(self, payload: bytes) -> OpenedRequest | Answer:
        """
        Open a request.

        @return: The opened request, or the answer that a malformed one earns.
        """
        try:
            return open_request(payload)
        except MalformedMessageError as error:
            return Answer(error.hresult, problem=str(error))

    def decide(
        self, opened: OpenedRequest, peer: Peer, now: float
    ) -> Decision | Awaitable[Decision]:
        """
        Ask the policy.

        @param now: POSIX seconds.
        @return: Its decision, or an awaitable of it from a policy that needs time.
        """
        return self.policy(opened.body, peer, now)

    def seal(self, opened: OpenedRequest, decision: Decision) -> Answer:
        """
        Make the answer that says what was decided.

        @raise LocalProtocolError: If the decision is neither a grant that can be written nor an HRESULT that refuses.
        """
        request = opened.body
        if not isinstance(decision, Grant):
            return Answer(_refusal(decision), request=request)
        epid, hardware_id = self._presented(request.kms_id)
        # As the class itself does, without the detour over its constructor; and so for the answer.
        body = tuple.__new__(
            ResponseBody,
            (
                request.minor_version,
                request.major_version,
                epid,
                request.client_machine_id,
                request.client_time,
                *decision,
            ),
        )
        random = self._entropy(2 * SALT_LENGTH)
        payload = seal_response(
            opened,
            body,
            salt=random[:SALT_LENGTH],
            random=random[SALT_LENGTH:],
            hardware_id=hardware_id,
        )
        return tuple.__new__(Answer, (HResult.SUCCESS, payload, request, decision, ""))

    def _choose_presented(self, kms_id: UUID) -> tuple[str, bytes]:
        """
        Tell the ePID and the hardware id for a KMS id.
        """
        key = self.catalog.csvlk_for(kms_id).key
        return self.identity.epid(key), self.identity.hardware_id_for(key)

    def answer(self, payload: bytes, peer: Peer, now: float) -> Answer:
        """
        Answer a request, with a policy that decides at once.

        @param payload: The KMS request.
        @param peer: Who asks.
        @param now: POSIX seconds.
        @raise LocalProtocolError: If the policy needs time, or decides what cannot be answered.
        """
        opened = self.open(payload)
        if isinstance(opened, Answer):
            return opened
        decision = self.decide(opened, peer, now)
        if isinstance(decision, Awaitable):
            raise LocalProtocolError(
                "the policy needs time, which this way to ask does not give it"
            )
        return self.seal(opened, decision)
