"""
Who gets what: a policy is one function from a request, a peer and the time to a grant or an HRESULT.

The function is the whole contract, so an embedder replaces it with its own, or wraps one of those that are made here
and calls it when its own rules are satisfied.  A policy is pure as far as the host is concerned: the time is handed
in, and whatever it remembers is its own affair.  One that needs time returns an awaitable of its decision, a Deferred
or a coroutine; the Twisted side waits for it.

Source: "KMS messages, versions 4, 5 and 6", section "What a host answers".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody

#: Microsoft's default: minutes after which a client that failed tries again.
DEFAULT_ACTIVATION_INTERVAL = 120
#: Microsoft's default: minutes after which an activated client renews.
DEFAULT_RENEWAL_INTERVAL = 10080


class Peer(NamedTuple):
    """
    Who asks: the address of the other end as text, and its port (0 where there is none, as with UNIX sockets).
    """

    address: str
    port: int


class Grant(NamedTuple):
    """
    The request is granted.

    @ivar client_count: The number of clients that the host reports.
    @ivar activation_interval: Minutes after which a client that still lacks clients tries again.
    @ivar renewal_interval: Minutes after which an activated client renews.
    """

    client_count: int
    activation_interval: int = DEFAULT_ACTIVATION_INTERVAL
    renewal_interval: int = DEFAULT_RENEWAL_INTERVAL


#: What a policy answers: a grant, or the HRESULT that refuses.
Decision = Grant | HResult
#: C{(request, peer, now) -> decision}, where C{now} is in POSIX seconds.
Policy = Callable[[RequestBody, Peer, float], Decision | Awaitable[Decision]]
#: A policy that always decides at once.
ImmediatePolicy = Callable[[RequestBody, Peer, float], Decision]


def charged(
    catalog: Catalog,
    *,
    activation_interval: int = DEFAULT_ACTIVATION_INTERVAL,
    renewal_interval: int = DEFAULT_RENEWAL_INTERVAL,
) -> ImmediatePolicy:
    """
    Make the policy of a charged host: it grants every request, and reports twice the N policy of the request, or the
    minimum of the CSVLK if that is more, and never less than the one client that asks.

    @param catalog: Knows the CSVLK of each KMS id.
    @param activation_interval: Minutes.
    @param renewal_interval: Minutes.
    """

    @lru_cache(maxsize=1024)
    def grant(kms_id: UUID, n_policy: int) -> Grant:
        minimum = catalog.csvlk_for(kms_id).minimum_active_clients
        return Grant(max(2 * n_policy, minimum, 1), activation_interval, renewal_interval)

    def decide(request: RequestBody, peer: Peer, now: float) -> Decision:
        return grant(request.kms_id, request.n_policy)

    return decide
