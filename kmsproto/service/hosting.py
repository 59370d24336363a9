"""
What a process that serves is made of: a host, and the factory of its connections, put together from the settings.

It is the same for a host of one process and for each worker of a host of several, so it takes everything that tells
one from another: the installation, which only the first process of a service reads from the disk, the beginning of
its association groups, and where the lines about peers go.

A L{Site} is all that depends on settings which a running host can change.  A reload makes a new one, which either
succeeds as a whole or changes nothing, and hands it to the factory that has the connections.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, TypeVar

from twisted.internet.interfaces import IReactorTime

from kmsproto.errors import CatalogError, KMSProtoError
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.counts import ClientCounts
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import Host, host_builds, pooled
from kmsproto.kms.identity import DRAWN_PER_ANSWER, make_identity, parse_override
from kmsproto.kms.rules import products_named, standard_policy
from kmsproto.net import noise
from kmsproto.net.access import AccessRules
from kmsproto.net.reporting import LineStyle
from kmsproto.net.server import HostFactory, Limits
from kmsproto.service.catalogs import parse_file, read_file
from kmsproto.service.kinds import SettingError
from kmsproto.service.sources import place

#: Association groups are numbered with so many bits.
_GROUP_BITS = 32
#: Random bytes that ePIDs are made of which are new at every start.
DRAWN_LENGTH = 16
#: Bit of the level that vlmcsd calls the protection of public addresses: refuse peers that have one.
REFUSE_PUBLIC = 2


_Read = TypeVar("_Read")


class UnusableError(KMSProtoError):
    """
    A setting names a product that is not there, or a file that cannot be used.
    """


@dataclass(frozen=True)
class Site:
    """
    What a factory serves, and how.

    @ivar host: What answers.
    @ivar limits: What peers may use.
    @ivar access: Which peers are served.
    @ivar style: How lines about them are written.
    @ivar ndr64: Whether NDR64 is offered.
    @ivar bind_time_features: Whether bind-time features are negotiated.
    @ivar warnings: What an operator should be told, in lines.
    """

    host: Host
    limits: Limits
    access: AccessRules
    style: LineStyle
    ndr64: bool
    bind_time_features: bool
    warnings: tuple[str, ...] = ()


def make_counts(settings: Mapping[str, Any]) -> ClientCounts | None:
    """
    Make what counts clients, if the settings want that.
    """
    if not settings["maintain-clients"]:
        return None
    return ClientCounts(precharged=not settings["start-empty"])


def read_catalog(settings: Mapping[str, Any]) -> bytes | None:
    """
    Read the file of products, if the settings name one.

    @raise UnusableError: If it cannot be read.
    """
    path = settings["kms-data"]
    if path is None:
        return None
    with _placed(settings, "kms-data"):
        return read_file(path)


def make_catalog(settings: Mapping[str, Any], file: bytes | None) -> Catalog:
    """
    Make the products.

    @param file: The file of products that the settings name, if they do.
    @raise UnusableError: If it cannot be used.
    """
    if file is None:
        return load_catalog()
    with _placed(settings, "kms-data"):
        return parse_file(file, str(settings["kms-data"]), settings["kms-data-only"])


def make_site(
    settings: Mapping[str, Any],
    installation: Installation,
    *,
    catalog: Catalog,
    counts: ClientCounts | None,
    drawn: bytes,
    today: date,
) -> Site:
    """
    Make what a factory serves.

    @param settings: The values of the settings by name.
    @param installation: What makes this host the same host at every start.
    @param catalog: The products.
    @param counts: What counts clients.
    @param drawn: L{DRAWN_LENGTH} bytes, drawn when the service started: of these the ePIDs are made that are new at
        every start, and so are the same in all workers and after a reload.
    @param today: No ePID names a later day.
    @raise SettingError: If the host build is not known.
    @raise KMSProtoError: If it cannot host a key of the catalogue, or a setting means nothing with these products.
    """
    entropy = pooled(os.urandom)
    mode = settings["randomization-level"]
    overrides = _read(settings, "epid", partial(parse_override, catalog))
    denied = _read(settings, "deny-product", partial(products_named, catalog))
    try:
        identity = make_identity(
            catalog,
            installation,
            mode=mode,
            host_build=settings["host-build"],
            lcid=settings["lcid"],
            ndr64=settings["ndr64"],
            overrides=overrides,
            entropy=entropy if mode == DRAWN_PER_ANSWER else lambda length: drawn[:length],
            today=today,
        )
    except CatalogError as error:
        build, builds = settings["host-build"], ", ".join(map(str, host_builds(catalog)))
        allowed = f"a build of a KMS host that is known ({builds})"
        raise SettingError(place(settings, "host-build"), str(build), allowed) from error
    policy = standard_policy(
        catalog,
        activation_interval=settings["activation-interval"],
        renewal_interval=settings["renewal-interval"],
        counts=counts,
        white_listing_level=settings["white-listing-level"],
        check_client_time=settings["check-client-time"],
        denied=frozenset().union(*denied),
        refuse_all=settings["refuse-all"],
    )
    return Site(
        host=Host(catalog, identity, policy, entropy),
        limits=make_limits(settings),
        access=make_access(settings),
        style=LineStyle(
            format=settings["log-format"],
            verbosity=settings["verbosity"],
            mask=settings["mask-peers"],
            noise_interval=noise.INTERVAL if settings["summarize-noise"] else 0.0,
        ),
        ndr64=settings["ndr64"],
        bind_time_features=settings["bind-time-features"],
        warnings=tuple(each.warning for each in overrides if each.warning),
    )


def _read(settings: Mapping[str, Any], name: str, read: Callable[[str], _Read]) -> list[_Read]:
    """
    Read the texts of a setting that mean something only with the products.

    @raise UnusableError: If one means nothing.
    """
    with _placed(settings, name):
        return [read(text) for text in settings[name]]


@contextmanager
def _placed(settings: Mapping[str, Any], name: str) -> Iterator[None]:
    """
    Put the place that gave a setting before what is wrong with it.

    @raise UnusableError: If anything is.
    """
    try:
        yield
    except KMSProtoError as error:
        raise UnusableError(f"{place(settings, name)}: {error}") from error


class Founding:
    """
    Makes sites, at the start and at every reload.

    @param installation: What makes this host the same host at every start.
    @ivar catalog_file: The file of products, as it was read for the last site.
    @ivar drawn: Random bytes for what is new at every start.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._counts: ClientCounts | None = None
        self.catalog_file: bytes | None = None
        self.drawn = os.urandom(DRAWN_LENGTH)

    def site(self, settings: Mapping[str, Any]) -> Site:
        """
        Make a site; the clients that were counted before still count.

        @raise KMSProtoError: If it cannot be made of these settings.
        """
        file = read_catalog(settings)
        catalog = make_catalog(settings, file)
        now = time.time()
        counts = self._counts or make_counts(settings)
        site = make_site(
            settings,
            self._installation,
            catalog=catalog,
            counts=counts,
            drawn=self.drawn,
            today=datetime.fromtimestamp(now, UTC).date(),
        )
        self._counts, self.catalog_file = counts, file
        return site


def make_limits(settings: Mapping[str, Any]) -> Limits:
    """
    Make what peers may use.
    """
    return Limits(
        idle_timeout=settings["idle-timeout"],
        max_connections=settings["max-connections"],
        max_connections_per_address=settings["max-connections-per-address"],
        connection_rate=settings["connection-rate"],
        connection_burst=settings["connection-burst"],
        disconnect_after_call=settings["disconnect-after-call"],
    )


def make_access(settings: Mapping[str, Any]) -> AccessRules:
    """
    Make the rules about who may connect.
    """
    refuse_public = bool(settings["public-ip-protection"] & REFUSE_PUBLIC)
    return AccessRules(
        allow=tuple(settings["allow"]),
        deny=tuple(settings["deny"]),
        allow_public=settings["allow-public-peers"] or not refuse_public,
        allow_shared=settings["allow-shared-address-space"],
    )


def make_factory(
    site: Site,
    clock: IReactorTime,
    *,
    group_seed: int,
    journal: Callable[[str], None] | None = None,
) -> HostFactory:
    """
    Make what makes its connections.

    @param site: What it serves.
    @param clock: The reactor.
    @param group_seed: Where the ids of association groups begin.
    @param journal: Where the lines about peers go; L{None}: to Twisted's logging system, as events with fields.
    """
    return HostFactory(
        site.host,
        clock,
        limits=site.limits,
        ndr64=site.ndr64,
        bind_time_features=site.bind_time_features,
        access=site.access,
        style=site.style,
        group_seed=group_seed,
        journal=journal,
    )


def change_factory(factory: HostFactory, site: Site) -> None:
    """
    Let a factory with its open connections serve something else from now on.
    """
    factory.reconfigure(
        site.host,
        limits=site.limits,
        access=site.access,
        style=site.style,
        ndr64=site.ndr64,
        bind_time_features=site.bind_time_features,
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
