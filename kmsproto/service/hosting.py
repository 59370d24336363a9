"""
What a process that serves is made of: a host, and the factory of its connections, put together from the settings.

It is the same for a host of one process and for each worker of a host of several, so it takes everything that tells
one from another: the installation, which only the first process of a service reads from the disk, the beginning of
its association groups, and where the lines about peers go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.epid import EPIDError, Installation
from kmsproto.kms.host import Host, HostIdentity, host_builds, pooled
from kmsproto.kms.policy import charged
from kmsproto.net.server import HostFactory, Limits
from kmsproto.service.settings import SettingError

#: Association groups are numbered with so many bits.
_GROUP_BITS = 32


def make_host(settings: Mapping[str, Any], catalog: Catalog, installation: Installation) -> Host:
    """
    Make what answers.

    @param settings: The values of the settings by name.
    @param installation: What makes this host the same host at every start.
    @raise SettingError: If the host build is not known, or cannot host a key of the catalogue.
    """
    policy = charged(
        catalog,
        activation_interval=settings["activation-interval"],
        renewal_interval=settings["renewal-interval"],
    )
    return Host(catalog, _identity(settings, catalog, installation), policy, pooled(os.urandom))


def make_factory(
    settings: Mapping[str, Any],
    host: Host,
    clock: IReactorTime,
    *,
    group_seed: int,
    journal: Callable[[str], None] | None = None,
) -> HostFactory:
    """
    Make what makes its connections.

    @param settings: The values of the settings by name.
    @param host: What answers.
    @param clock: The reactor.
    @param group_seed: Where the ids of association groups begin.
    @param journal: Where the lines about peers go; L{None}: to Twisted's logging system, as events with fields.
    """
    return HostFactory(
        host,
        clock,
        limits=Limits(
            idle_timeout=settings["idle-timeout"],
            max_connections=settings["max-connections"],
            max_connections_per_address=settings["max-connections-per-address"],
        ),
        ndr64=settings["ndr64"],
        bind_time_features=settings["bind-time-features"],
        allow_public_peers=settings["allow-public-peers"],
        allow_shared_address_space=settings["allow-shared-address-space"],
        group_seed=group_seed,
        journal=journal,
    )


def group_seed(entropy: Callable[[int], bytes], worker: int = 1, workers: int = 1) -> int:
    """
    Choose where a process begins to number its association groups.

    Each worker has a range of its own, so that two of them do not hand out the same id, and begins somewhere in the
    lower half of it, so that a worker which is started anew does not hand out those of its last run.

    @param entropy: Gives so many random bytes.
    @param worker: Which worker, counted from 1.
    @param workers: How many there are.
    """
    span: int = 2**_GROUP_BITS // workers
    offset = int.from_bytes(entropy(_GROUP_BITS // 8), "big")
    return (worker - 1) * span + (offset if workers == 1 else offset % (span // 2))


def _identity(
    settings: Mapping[str, Any], catalog: Catalog, installation: Installation
) -> HostIdentity:
    """
    Make what the host says of itself.

    @raise SettingError: If the build is not known, or cannot host a key of the catalogue.
    """
    build = settings["host-build"]
    try:
        return HostIdentity(catalog, installation, host_build=build, lcid=settings["lcid"])
    except (CatalogError, EPIDError) as error:
        known = ", ".join(map(str, host_builds(catalog)))
        allowed = f"a build that can host the keys of the catalogue, such as {known}"
        raise SettingError("host-build", str(build), allowed) from error
