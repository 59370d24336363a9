"""
Fakes for those who embed a host or a client, and for our own tests.

Everything that is unpredictable in a real host is fixed here, the installation and the random bytes, or handed in,
the clock; so an answer is the same in every run, to the byte.  The fakes are made of the real parts and only replace
what these are given; they cannot do what the real ones cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date

from twisted.internet.interfaces import IReactorTime

from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import Host, HostIdentity
from kmsproto.kms.policy import Policy, charged
from kmsproto.net.access import AccessRules
from kmsproto.net.server import HostFactory, Limits

#: The installation that L{make_host} uses.
INSTALLATION = Installation(bytes(range(16)), date(2026, 1, 1))


def fixed_entropy() -> Callable[[int], bytes]:
    """
    Make a source of bytes that look random and are the same in every run.
    """
    count = 0

    def draw(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_128(count.to_bytes(8, "big")).digest(length)

    return draw


def make_host(policy: Policy | None = None, catalog: Catalog | None = None) -> Host:
    """
    Make a host with a fixed identity and fixed randomness.

    @param policy: What decides; by default the policy of a charged host.
    @param catalog: The products; by default the built-in ones.
    """
    catalog = catalog or load_catalog()
    return Host(
        catalog, HostIdentity(catalog, INSTALLATION), policy or charged(catalog), fixed_entropy()
    )


def host_factory(
    clock: IReactorTime,
    *,
    policy: Policy | None = None,
    catalog: Catalog | None = None,
    limits: Limits | None = None,
    ndr64: bool = True,
    bind_time_features: bool = True,
    allow_public_peers: bool = False,
    allow_shared_address_space: bool = False,
) -> HostFactory:
    """
    Make the factory of such a host.

    @param clock: The source of time, for example a L{twisted.internet.task.Clock}.
    @param policy: What decides; by default the policy of a charged host.
    @param catalog: The products; by default the built-in ones.
    @param limits: What peers may use.
    @param ndr64: Whether NDR64 is offered, and then preferred.
    @param bind_time_features: Whether bind-time features are negotiated.
    @param allow_public_peers: Whether peers outside private networks are served.
    @param allow_shared_address_space: Whether the shared address space (RFC 6598) counts as private.
    @return: A factory whose C{buildProtocol} gives protocols for any transport, real or not.
    """
    return HostFactory(
        make_host(policy, catalog),
        clock,
        limits=limits,
        ndr64=ndr64,
        bind_time_features=bind_time_features,
        access=AccessRules(
            allow_public=allow_public_peers, allow_shared=allow_shared_address_space
        ),
    )
