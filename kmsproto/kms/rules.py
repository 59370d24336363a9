"""
Rules about what is granted: each wraps a policy and refuses before that is asked.

A rule that is off is not there, so a host with no rules pays for none.  The inner policy may need time: what it
returns is handed through, so a rule around a policy that always decides at once does too.

Source: "KMS messages, versions 4, 5 and 6", section "What a host answers".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.counts import ClientCounts, counted
from kmsproto.kms.entries import guid_from_text
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody, posix_seconds
from kmsproto.kms.policy import (
    DEFAULT_ACTIVATION_INTERVAL,
    DEFAULT_RENEWAL_INTERVAL,
    Decision,
    ImmediatePolicy,
    Peer,
    charged,
)

#: Seconds that the clock of a client may be off.
CLOCK_TOLERANCE = 4 * 3600
#: Bits of the level that vlmcsd calls white listing.
_NO_UNKNOWN, _NO_RETAIL = 1, 2

#: What an inner policy returns.
_Decided = TypeVar("_Decided", bound=Decision | Awaitable[Decision])


def refusing_all() -> ImmediatePolicy:
    """
    Make the policy of a host that is being retired: nobody gets anything.
    """

    def decide(request: RequestBody, peer: Peer, now: float) -> Decision:
        return HResult.PRODUCT_REFUSED

    return decide


def white_listed(
    catalog: Catalog, level: int, inner: Callable[[RequestBody, Peer, float], _Decided]
) -> Callable[[RequestBody, Peer, float], _Decided | HResult]:
    """
    Refuse products by what the catalogue says of them.

    @param level: 0 refuses nothing, 1 unknown KMS ids, 2 those of retail and preview products, 3 both; 1 and 3 also
        those whose application id is not that of the catalogue.
    @param inner: Decides about the others.
    """
    if level == 0:
        return inner

    def decide(request: RequestBody, peer: Peer, now: float) -> _Decided | HResult:
        known = catalog.kms_id(request.kms_id)
        if known is None:
            refused = bool(level & _NO_UNKNOWN)
        else:
            is_other = known.application != request.application_id
            refused = bool(
                (level & _NO_UNKNOWN and is_other)
                or (level & _NO_RETAIL and (known.is_retail or known.is_preview))
            )
        return HResult.PRODUCT_REFUSED if refused else inner(request, peer, now)

    return decide


def checking_time(
    inner: Callable[[RequestBody, Peer, float], _Decided],
) -> Callable[[RequestBody, Peer, float], _Decided | HResult]:
    """
    Refuse clients whose clock is more than four hours off.

    @param inner: Decides about the others.
    """

    def decide(request: RequestBody, peer: Peer, now: float) -> _Decided | HResult:
        if abs(posix_seconds(request.client_time) - now) > CLOCK_TOLERANCE:
            return HResult.CLOCK_SKEW
        return inner(request, peer, now)

    return decide


def denying(
    products: frozenset[UUID], inner: Callable[[RequestBody, Peer, float], _Decided]
) -> Callable[[RequestBody, Peer, float], _Decided | HResult]:
    """
    Refuse certain products.

    @param products: Their SKU ids, KMS ids or application ids.
    @param inner: Decides about the others.
    """
    if not products:
        return inner

    def decide(request: RequestBody, peer: Peer, now: float) -> _Decided | HResult:
        if products.isdisjoint((request.sku_id, request.kms_id, request.application_id)):
            return inner(request, peer, now)
        return HResult.PRODUCT_REFUSED

    return decide


def products_named(catalog: Catalog, text: str) -> frozenset[UUID]:
    """
    Find what an operator means to deny.

    @param text: The number or the name of a product, or any GUID, braces or not: of a SKU, a KMS id or an application,
        also one that the catalogue does not know.
    @return: What L{denying} needs: for a KMS id also the made-up GUIDs that are known for it.
    @raise kmsproto.errors.CatalogError: If no product has that number or name.
    """
    wanted = text.strip()
    guid = guid_from_text(wanted[1:-1] if wanted[:1] + wanted[-1:] == "{}" else wanted)
    if guid is None:
        return frozenset({catalog.product(text).guid})
    known = catalog.kms_id(guid)
    return frozenset({guid} if known is None else {known.guid, *known.aliases})


def standard_policy(
    catalog: Catalog,
    *,
    activation_interval: int = DEFAULT_ACTIVATION_INTERVAL,
    renewal_interval: int = DEFAULT_RENEWAL_INTERVAL,
    counts: ClientCounts | None = None,
    white_listing_level: int = 0,
    check_client_time: bool = False,
    denied: frozenset[UUID] = frozenset(),
    refuse_all: bool = False,
) -> ImmediatePolicy:
    """
    Put a policy together.  Who is refused is not counted.

    @param counts: Counts clients; L{None} for a host that is charged.
    """
    if refuse_all:
        return refusing_all()
    if counts is None:
        policy = charged(
            catalog, activation_interval=activation_interval, renewal_interval=renewal_interval
        )
    else:
        policy = counted(
            catalog,
            counts,
            activation_interval=activation_interval,
            renewal_interval=renewal_interval,
        )
    if check_client_time:
        policy = checking_time(policy)
    return denying(denied, white_listed(catalog, white_listing_level, policy))
