"""
One catalogue extended by another: what an operator's file says is added to what is built in.

An entry of the extension takes the place of the one that means the same: the same GUID, the same key of a CSVLK
whatever the case, the same host build.  What the extension does not mention stays.  Two things are kept even then,
since people rely on them: the number of a product, and the CSVLK that answers for KMS ids nobody knows.

A file of vlmcsd cannot say all that is known of a host key.  Where the extension has a key group without such facts,
they are taken from the group of the other catalogue to which these keys belong, so that a host build which was too old
for a key is too old still.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import CSVLK, SKU, Catalog, HostBuild

_ALIAS, _KMS_ID = "the made-up GUID of a KMS id", "a KMS id"


def extended(base: Catalog, extension: Catalog) -> Catalog:
    """
    Make the catalogue that has the entries of both.

    @param base: What is extended.
    @param extension: What is added; its entries win.
    @raise CatalogError: If a GUID is one thing in one of them and another in the other.
    """
    _check_guids(base, extension)
    keys = _spellings(base, extension)
    host_builds = {**base.host_builds, **extension.host_builds}
    csvlks = {
        key: replace(csvlk, invalid_host_builds=_too_old(csvlk, base, host_builds))
        for key, csvlk in base.csvlks.items()
    }
    for csvlk in extension.csvlks.values():
        key = keys[csvlk.key]
        csvlks[key] = replace(_informed(csvlk, key, base, extension, host_builds), key=key)
    taken = _kinds(extension)
    kms_ids = {
        guid: replace(kms_id, aliases=tuple(each for each in kms_id.aliases if each not in taken))
        for guid, kms_id in base.kms_ids.items()
    }
    for guid, kms_id in extension.kms_ids.items():
        inherited = kms_ids[guid].aliases if guid in kms_ids else ()
        kms_ids[guid] = replace(
            kms_id, csvlk=keys[kms_id.csvlk], aliases=(*kms_id.aliases, *inherited)
        )
    applications = {
        guid: replace(application, csvlk=keys[application.csvlk])
        for guid, application in extension.applications.items()
    }
    return Catalog(
        f"{base.source} with {extension.source}",
        {**base.applications, **applications}.values(),
        kms_ids.values(),
        _skus(base, extension).values(),
        csvlks.values(),
        [host_builds[number] for number in sorted(host_builds, reverse=True)],
    )


def _kinds(catalog: Catalog) -> dict[UUID, str]:
    """
    Tell what each GUID means.
    """
    return {
        **{alias: _ALIAS for each in catalog.kms_ids.values() for alias in each.aliases},
        **dict.fromkeys(catalog.applications, "an application"),
        **dict.fromkeys(catalog.kms_ids, _KMS_ID),
        **dict.fromkeys(catalog.skus, "a product"),
    }


def _check_guids(base: Catalog, extension: Catalog) -> None:
    known = _kinds(base)
    for guid, kind in _kinds(extension).items():
        before = known.get(guid, kind)
        # Whoever knows a made-up GUID as a KMS id of its own may have it so.
        if before != kind and (before, kind) != (_ALIAS, _KMS_ID):
            raise CatalogError(
                extension.source,
                f"GUID {guid}",
                f"is {kind} here, but {before} in the {base.source}",
            )


def _spellings(base: Catalog, extension: Catalog) -> dict[str, str]:
    """
    Tell for each key of the extension how the result spells it.
    """
    known = {key.casefold(): key for key in base.csvlks}
    return {
        key: key if key in base.csvlks else known.get(key.casefold(), key)
        for key in extension.csvlks
    }


def _skus(base: Catalog, extension: Catalog) -> dict[UUID, SKU]:
    """
    Put new products behind those that have a number.
    """
    skus = dict(base.skus)
    number = max((sku.number for sku in skus.values()), default=0)
    for guid, sku in extension.skus.items():
        if guid in skus:
            skus[guid] = replace(sku, number=skus[guid].number)
        else:
            number += 1
            skus[guid] = replace(sku, number=number)
    return skus


def _too_old(csvlk: CSVLK, own: Catalog, builds: dict[int, HostBuild]) -> frozenset[int]:
    """
    Tell which of all builds are too old for a key, which was told of those of its own catalogue only.
    """
    if not csvlk.invalid_host_builds:
        return frozenset()
    oldest = min(
        (number for number in own.host_builds if number not in csvlk.invalid_host_builds),
        default=max(csvlk.invalid_host_builds) + 1,
    )
    return frozenset(number for number in builds if number < oldest)


def _informed(
    csvlk: CSVLK, key: str, base: Catalog, extension: Catalog, builds: dict[int, HostBuild]
) -> CSVLK:
    """
    Add to a key group of the extension what only the other catalogue knows of these keys.
    """
    if csvlk.guid is not None or csvlk.kms_ids is not None:
        return replace(csvlk, invalid_host_builds=_too_old(csvlk, extension, builds))
    same = [base.csvlks[key]] if key in base.csvlks else []
    for known in (*same, *base.csvlks.values()):
        if known.group_id == csvlk.group_id and all(
            any(low <= first and last <= high for low, high in known.key_id_ranges)
            for first, last in csvlk.key_id_ranges
        ):
            return replace(
                csvlk,
                # Under another key the group may be there twice, but no GUID means two things.
                guid=known.guid if known.key == key else None,
                invalid_host_builds=_too_old(known, base, builds),
                is_lab=known.is_lab,
                is_preview=known.is_preview,
                kms_ids=known.kms_ids,
            )
    return replace(csvlk, invalid_host_builds=_too_old(csvlk, extension, builds))
