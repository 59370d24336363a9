"""
Counting clients, as a genuine host does: the distinct CMIDs that asked within the last 30 days, by application.

The CMIDs of an application lie in a dictionary in the order in which they asked last, so what has expired is at its
front, and each request costs the same however many clients there are.  It is an C{OrderedDict}, since an ordinary one
searches for its front across everything that was removed there.  A client whose CMID has changed says what it was, and
is then counted once.

Clocks get set.  A client that seems to have asked in the future still counts, unless it is 30 days off as well, so no
clock that was once years ahead keeps clients for ever.  Behind a client from the future others may lie for as long as
it does, which is less than 30 days more than they should.

Memory is bounded.  No request can be told of more than twice the largest N policy, which is 2000 clients, and those
that asked last are enough to know that, so the oldest are forgotten beyond L{CAPACITY}.  The spare above 2000 is for
clients that turn out to be one and the same: only after more than two thousand of those among the clients that asked
last could a count be too low.  Applications are counted only if the catalogue knows them.

Source: "KMS messages, versions 4, 5 and 6", section "What a host answers".
"""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import (
    DEFAULT_ACTIVATION_INTERVAL,
    DEFAULT_RENEWAL_INTERVAL,
    Grant,
    ImmediatePolicy,
    Peer,
)

#: Seconds after which a client that did not ask again no longer counts.
LIFETIME = 30 * 86400.0
#: CMIDs that are remembered for an application.
CAPACITY = 4096

_NONE = UUID(int=0)


class ClientCounts:
    """
    Who asked within 30 days.

    @param precharged: Whether to begin with half of the clients that each application wants to see, less one, so that
        the first real ones suffice.  They have no CMIDs and do not expire.
    """

    def __init__(self, *, precharged: bool) -> None:
        self.precharged = precharged
        #: When each client asked last, in POSIX seconds, by application and CMID, the first first.
        self.seen: dict[UUID, OrderedDict[UUID, float]] = {}

    def count(self, application: UUID, cmid: UUID, previous: UUID, now: float) -> int:
        """
        Count a client that asks, and tell how many there are with it.

        @param application: For what it asks.
        @param cmid: Its CMID.
        @param previous: Its CMID before that; zero if it never changed.
        @param now: POSIX seconds, which may be less than before.
        """
        seen = self.seen.get(application)
        if seen is None:
            seen = self.seen[application] = OrderedDict()
        if previous != _NONE:
            seen.pop(previous, None)
        seen.pop(cmid, None)
        seen[cmid] = now
        if len(seen) > CAPACITY:
            seen.popitem(last=False)
        # The client that asks is at the end, and zero seconds off.
        while abs(now - seen[oldest := next(iter(seen))]) >= LIFETIME:
            del seen[oldest]
        return len(seen)


def counted(
    catalog: Catalog,
    counts: ClientCounts,
    *,
    activation_interval: int = DEFAULT_ACTIVATION_INTERVAL,
    renewal_interval: int = DEFAULT_RENEWAL_INTERVAL,
) -> ImmediatePolicy:
    """
    Make the policy of a host that counts: it grants every request, and reports the clients of the application, but
    never more than twice the N policy of the request.

    @param catalog: Knows the applications; where it has none, all clients are counted together.
    @param counts: Who asked; it outlives the policy.
    @param activation_interval: Minutes.
    @param renewal_interval: Minutes.
    """
    charges = {
        guid: max(application.minimum_clients // 2 - 1, 0) if counts.precharged else 0
        for guid, application in catalog.applications.items()
    } or {_NONE: 0}
    fallback = next(iter(charges))

    def decide(request: RequestBody, peer: Peer, now: float) -> Grant | HResult:
        application = request.application_id
        if application not in charges:
            known = catalog.kms_id(request.kms_id)
            application = known.application if known is not None else fallback
        seen = counts.count(
            application, request.client_machine_id, request.previous_client_machine_id, now
        )
        count = min(seen + charges[application], max(2 * request.n_policy, 1))
        return Grant(count, activation_interval, renewal_interval)

    return decide
