"""
A catalogue made of a file of vlmcsd, and such a file made of a catalogue.

Neither can say all that the other can.  A file knows no ranges of key ids with holes, no made-up GUIDs, and not which
builds are too old for a key; a catalogue knows no time of day.  The real files lose nothing on the way through a
catalogue and back.

Source: the specification "The .kmd file, format 2.x".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TypeVar

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import CSVLK, SKU, Application, Catalog, HostBuild, KMSId
from kmsproto.kms.entries import shown
from kmsproto.kms.epid import derive_epid
from kmsproto.kms.identity import DEFAULT_HOST_BUILD, DEFAULT_LCID, EVERY_INSTALLATION
from kmsproto.kms.kmd import (
    EPOCH,
    FOR_EPID,
    MAY_BE_SERVER,
    SECONDS_OF_DAY,
    USES_NDR64,
    CSVLKRecord,
    HostBuildRecord,
    ItemRecord,
    KMDFile,
    day_of,
    repeated,
)

_T = TypeVar("_T")

#: The most products that C{vlmcs -x} is sure to list: it counts the lines of its list with 8 bits.
MOST_PRODUCTS = 255


def to_catalog(file: KMDFile) -> Catalog:
    """
    Make a catalogue of the records of a file.

    What the format has no place for is not known: which KMS ids a key activates, and which builds are too old for it.

    @param file: A file that was read, or could be written.
    """
    csvlks = [_csvlk(record) for record in file.csvlks]
    applications = [
        Application(each.guid, each.name, csvlks[each.csvlk].key, each.clients)
        for each in file.applications
    ]
    kms_ids = [
        KMSId(
            guid=each.guid,
            name=each.name,
            application=applications[each.application].guid,
            protocol=each.protocol,
            n_policy=each.clients,
            is_retail=bool(each.is_retail),
            is_preview=bool(each.is_preview),
            csvlk=csvlks[each.csvlk].key,
            aliases=(),
        )
        for each in file.kms_ids
    ]
    skus = [
        SKU(number, each.guid, each.name, kms_ids[each.kms_id].guid, each.protocol)
        for number, each in enumerate(file.skus, 1)
    ]
    host_builds = [
        HostBuild(
            build=each.build,
            name=each.name,
            platform_id=each.platform_id,
            release_date=day_of(each.released),
            uses_ndr64=bool(each.flags & USES_NDR64),
            for_epid=bool(each.flags & FOR_EPID),
            may_be_server=bool(each.flags & MAY_BE_SERVER),
        )
        for each in file.host_builds
    ]
    return Catalog(file.source, applications, kms_ids, skus, csvlks, host_builds)


def from_catalog(catalog: Catalog, most_products: int = MOST_PRODUCTS) -> KMDFile:
    """
    Make the records for a catalogue.

    There are records for those CSVLKs only that answer for something, and, as vlmcsd draws from all host builds that
    there are, for those builds only that are known as KMS hosts, if there are such.  A CSVLK with several ranges of key
    ids gets its longest.  One that has no default extended PID gets the one that is nobody's own: that of
    L{EVERY_INSTALLATION}.

    @param most_products: SKUs with higher numbers are left out.
    @raise CatalogError: If no known host build can have a key of one of the CSVLKs.
    """
    answering = {next(iter(catalog.csvlks))}
    answering.update(each.csvlk for each in catalog.applications.values())
    answering.update(each.csvlk for each in catalog.kms_ids.values())
    csvlks = [each for key, each in catalog.csvlks.items() if key in answering]
    builds = catalog.host_builds.values()
    hosts = [each for each in builds if each.for_epid] or list(builds)
    csvlk_index = _indexes(each.key for each in csvlks)
    application_index = _indexes(catalog.applications)
    kms_id_index = _indexes(catalog.kms_ids)
    kms_ids = [
        ItemRecord(
            guid=each.guid,
            name=each.name,
            application=application_index[each.application],
            kms_id=0,
            protocol=each.protocol,
            clients=each.n_policy,
            is_retail=int(each.is_retail),
            is_preview=int(each.is_preview),
            csvlk=csvlk_index[each.csvlk],
        )
        for each in catalog.kms_ids.values()
    ]
    skus = []
    for sku in catalog.skus.values():
        if sku.number <= most_products:
            index = kms_id_index[sku.kms_id]
            application, clients, retail, preview, csvlk = repeated(kms_ids[index])
            skus.append(
                ItemRecord(
                    *(sku.guid, sku.name, application, index, sku.protocol),
                    *(clients, retail, preview, csvlk),
                )
            )
    return KMDFile(
        offers_ndr64=True,
        csvlks=tuple(_csvlk_record(catalog, each) for each in csvlks),
        applications=tuple(
            ItemRecord(
                *(each.guid, each.name, 0, 0, 0, each.minimum_clients),
                *(0, 0, csvlk_index[each.csvlk]),
            )
            for each in catalog.applications.values()
        ),
        kms_ids=tuple(kms_ids),
        skus=tuple(skus),
        host_builds=tuple(
            HostBuildRecord(
                name=each.name,
                released=_seconds(each.release_date),
                build=each.build,
                platform_id=each.platform_id,
                flags=USES_NDR64 * each.uses_ndr64
                | FOR_EPID * each.for_epid
                | MAY_BE_SERVER * bool(each.may_be_server),
            )
            for each in hosts
        ),
        source=catalog.source,
    )


def write_kmd(catalog: Catalog) -> bytes:
    """
    Write a catalogue as a file that vlmcsd can load; see L{from_catalog} for what is left out.

    @raise CatalogError: If the catalogue has something that the format has no room for.
    """
    return from_catalog(catalog).encode()


def _csvlk(record: CSVLKRecord) -> CSVLK:
    return CSVLK(
        key=record.key,
        name=record.name or "unknown",
        guid=None,
        group_id=record.group_id,
        key_id_ranges=((record.lowest_key_id, record.highest_key_id),),
        release_date=day_of(record.released),
        minimum_active_clients=record.minimum_active_clients,
        invalid_host_builds=frozenset(),
        is_lab=False,
        is_preview=False,
        kms_ids=None,
        default_epid=record.epid,
    )


def _indexes(keys: Iterable[_T]) -> dict[_T, int]:
    return {key: index for index, key in enumerate(keys)}


def _csvlk_record(catalog: Catalog, csvlk: CSVLK) -> CSVLKRecord:
    low, high = max(csvlk.key_id_ranges, key=lambda bounds: bounds[1] - bounds[0])
    return CSVLKRecord(
        epid=csvlk.default_epid or _default_epid(catalog, csvlk),
        key=csvlk.key,
        name=csvlk.name,
        released=_seconds(csvlk.release_date),
        group_id=csvlk.group_id,
        lowest_key_id=low,
        highest_key_id=high,
        minimum_active_clients=csvlk.minimum_active_clients,
    )


def _default_epid(catalog: Catalog, csvlk: CSVLK) -> str:
    """
    Make an extended PID for a CSVLK that has none.
    """
    fitting = {
        number: build
        for number, build in catalog.host_builds.items()
        if build.for_epid and number not in csvlk.invalid_host_builds
    }
    if not fitting:
        raise CatalogError(
            catalog.source,
            f"CSVLK {shown(csvlk.key)}",
            "no build that is known as a KMS host can have such a key, so there is no ePID to write",
        )
    build = fitting.get(DEFAULT_HOST_BUILD) or next(iter(fitting.values()))
    return str(derive_epid(EVERY_INSTALLATION, csvlk, build, DEFAULT_LCID))


def _seconds(day: date) -> int:
    return (day - EPOCH).days * SECONDS_OF_DAY
