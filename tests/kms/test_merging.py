"""
Tests of L{kmsproto.kms.merging}.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import (
    CSVLK,
    SKU,
    Application,
    Catalog,
    HostBuild,
    KMSId,
    load_catalog,
)
from kmsproto.kms.kmd import read_kmd
from kmsproto.kms.kmd_catalog import to_catalog, write_kmd
from kmsproto.kms.merging import extended

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "kmd"
DAY = date(2020, 2, 2)


def guid(number: int) -> UUID:
    """
    Make a GUID.
    """
    return UUID(int=number)


def csvlk(key: str, low: int, high: int, **fields: Any) -> CSVLK:
    """
    Make a key group as a file of vlmcsd knows it.
    """
    made = CSVLK(key, key, None, 206, ((low, high),), DAY, 0, frozenset(), False, False, None)
    return replace(made, **fields)


def kms_id(number: int, key: str, *aliases: UUID, name: str = "Ten") -> KMSId:
    """
    Make a KMS id of the first application.
    """
    return KMSId(guid(number), name, guid(1), 6, 25, False, False, key, aliases)


def builds(*numbers: int, name: str = "Build") -> list[HostBuild]:
    """
    Make host builds.
    """
    return [HostBuild(number, name, 3612, DAY, True, True, True) for number in numbers]


def catalog(source: str, **tables: Any) -> Catalog:
    """
    Make a catalogue, of which a test names only what it is about.
    """
    parts: dict[str, Any] = {
        "applications": [Application(guid(1), "Windows", "Main", 50)],
        "kms_ids": [kms_id(2, "Main", guid(200))],
        "skus": [SKU(1, guid(3), "Home", guid(2), 6), SKU(2, guid(4), "Pro", guid(2), 6)],
        "csvlks": [
            csvlk(
                *("Main", 100, 199),
                guid=guid(5),
                invalid_host_builds=frozenset({10, 20}),
                is_lab=True,
                is_preview=True,
                kms_ids=frozenset({guid(2)}),
            ),
            csvlk("Other", 300, 399),
        ],
        "host_builds": builds(40, 20, 10),
        **tables,
    }
    return Catalog(source, **parts)


BASE = catalog("built-in catalogue")


class MergingTests(SynchronousTestCase):
    """
    What wins, and what stays.
    """

    def test_itself(self) -> None:
        """
        A catalogue extended by itself says the same.
        """
        merged = extended(BASE, BASE)
        self.assertEqual(merged.source, "built-in catalogue with built-in catalogue")
        for table in ("applications", "kms_ids", "skus", "csvlks", "host_builds"):
            self.assertEqual(
                list(getattr(merged, table).items()), list(getattr(BASE, table).items())
            )

    def test_extension_wins(self) -> None:
        """
        Entries of the extension take the place of those with the same GUID, key or build; the others stay.
        """
        merged = extended(
            BASE,
            catalog(
                "file",
                applications=[Application(guid(1), "System", "Main", 10)],
                kms_ids=[kms_id(2, "Main", name="Eleven")],
                skus=[SKU(1, guid(4), "Professional", guid(2), 5)],
                csvlks=[csvlk("Main", 500, 599, name="Other keys")],
                host_builds=builds(40, name="Renamed"),
            ),
        )
        self.assertEqual(merged.application_name(guid(1)), "System")
        self.assertEqual(merged.kms_id_name(guid(2)), "Eleven")
        self.assertEqual(merged.product("professional").protocol, 5)
        self.assertEqual(merged.csvlk_for(guid(2)).name, "Other keys")
        self.assertEqual(merged.host_build(40).name, "Renamed")
        self.assertEqual(merged.host_build(10).name, "Build")
        self.assertEqual(list(merged.csvlks), ["Main", "Other"])

    def test_numbers(self) -> None:
        """
        A product keeps its number, and new ones follow.
        """
        skus = [
            SKU(1, guid(30), "New", guid(2), 6),
            SKU(2, guid(4), "Pro", guid(2), 6),
            SKU(3, guid(31), "Newer", guid(2), 6),
        ]
        merged = extended(BASE, catalog("file", skus=skus))
        self.assertEqual(
            [(sku.number, sku.guid) for sku in merged.skus.values()],
            [(1, guid(3)), (2, guid(4)), (3, guid(30)), (4, guid(31))],
        )
        first = extended(catalog("none", skus=[]), catalog("file", skus=skus))
        self.assertEqual([sku.number for sku in first.skus.values()], [1, 2, 3])

    def test_fallback(self) -> None:
        """
        The CSVLK for KMS ids that nobody knows stays, whatever comes first in the extension.
        """
        merged = extended(
            BASE, catalog("file", csvlks=[csvlk("Special", 1, 9), csvlk("Main", 100, 199)])
        )
        self.assertEqual(merged.csvlk_for(guid(999)).key, "Main")
        self.assertEqual(list(merged.csvlks), ["Main", "Other", "Special"])

    def test_spelling(self) -> None:
        """
        A key in other letters, large or small, is the same key, and is spelt as before.
        """
        merged = extended(
            BASE,
            catalog(
                "file",
                applications=[Application(guid(1), "Windows", "MAIN", 50)],
                kms_ids=[kms_id(2, "MAIN"), kms_id(20, "MAIN")],
                csvlks=[csvlk("MAIN", 500, 599)],
            ),
        )
        self.assertEqual(list(merged.csvlks), ["Main", "Other"])
        self.assertEqual(merged.csvlks["Main"].key, "Main")
        self.assertEqual(merged.applications[guid(1)].csvlk, "Main")
        self.assertEqual(merged.csvlk_for(guid(20)).key_id_ranges, ((500, 599),))

    def test_host_builds(self) -> None:
        """
        Host builds descend, and a new one that is older than what a key needs is too old as well.
        """
        merged = extended(
            BASE,
            catalog(
                "file",
                applications=[],
                kms_ids=[],
                skus=[],
                csvlks=[csvlk("Other", 300, 399)],
                host_builds=builds(50, 30, 5),
            ),
        )
        self.assertEqual(list(merged.host_builds), [50, 40, 30, 20, 10, 5])
        self.assertEqual(merged.csvlks["Main"].invalid_host_builds, {5, 10, 20, 30})
        self.assertEqual(merged.csvlks["Other"].invalid_host_builds, frozenset())

    def test_all_too_old(self) -> None:
        """
        If all builds were too old for a key, only newer ones can be new enough.
        """
        base = catalog("base", csvlks=[csvlk("Main", 1, 9, invalid_host_builds=frozenset({10}))])
        own = catalog("file", csvlks=[csvlk("New", 11, 19)], kms_ids=[], applications=[])
        base = Catalog("base", [], [], [], base.csvlks.values(), builds(10))
        merged = extended(base, own)
        self.assertEqual(merged.csvlks["Main"].invalid_host_builds, {10})

    def test_what_a_file_cannot_say(self) -> None:
        """
        A key group of a file has from the group that its keys belong to what the format has no place for; the GUID only
        if it is under the same key.
        """
        known = BASE.csvlks["Main"]
        for key in ("Main", "Mine"):
            file = catalog(
                "file",
                applications=[],
                kms_ids=[kms_id(2, key)],
                csvlks=[csvlk(key, 120, 130, default_epid="E")],
            )
            merged = extended(BASE, file).csvlks[key]
            self.assertEqual(merged.guid, known.guid if key == "Main" else None)
            self.assertEqual(merged.invalid_host_builds, known.invalid_host_builds)
            self.assertEqual(merged.kms_ids, known.kms_ids)
            self.assertTrue(merged.is_lab and merged.is_preview)
            self.assertEqual((merged.key_id_ranges, merged.default_epid), (((120, 130),), "E"))

    def test_other_keys(self) -> None:
        """
        Nothing is added to other keys, even if they are called the same.
        """
        for changed in (
            csvlk("Main", 150, 250),
            csvlk("Main", 100, 199, group_id=207),
        ):
            merged = extended(BASE, catalog("file", csvlks=[changed])).csvlks["Main"]
            self.assertEqual(merged, changed)

    def test_what_the_extension_knows(self) -> None:
        """
        Nothing is added to a key group of which the extension says more than a file of vlmcsd could; which of all
        builds are too old, its own catalogue tells.
        """
        own = csvlk("Main", 100, 199, guid=guid(6), invalid_host_builds=frozenset({15}))
        merged = extended(BASE, catalog("file", csvlks=[own], host_builds=builds(18, 15))).csvlks[
            "Main"
        ]
        self.assertEqual(merged, replace(own, invalid_host_builds=frozenset({10, 15})))

    def test_aliases(self) -> None:
        """
        Made-up GUIDs of a KMS id are kept, unless the extension has another use for them.
        """
        merged = extended(BASE, catalog("file", kms_ids=[kms_id(2, "Main", guid(201))]))
        self.assertEqual(merged.kms_ids[guid(2)].aliases, (guid(201), guid(200)))
        own = [kms_id(2, "Main"), kms_id(200, "Other")]
        merged = extended(
            BASE, catalog("file", kms_ids=own, csvlks=[csvlk("Main", 1, 9), csvlk("Other", 11, 19)])
        )
        self.assertEqual(merged.kms_ids[guid(2)].aliases, ())
        self.assertEqual(merged.csvlk_for(guid(200)).key, "Other")
        own = [kms_id(2, "Main"), kms_id(21, "Main", guid(200))]
        merged = extended(BASE, catalog("file", kms_ids=own))
        self.assertEqual(merged.kms_ids[guid(2)].aliases, ())
        self.assertEqual(merged.kms_id(guid(200)), merged.kms_ids[guid(21)])

    def test_contradictions(self) -> None:
        """
        A GUID that would be two things is refused, with what it is in both.
        """
        for tables, parts in (
            (
                {"skus": [SKU(1, guid(2), "Odd", guid(2), 6)], "kms_ids": []},
                ("a product", "a KMS id"),
            ),
            ({"kms_ids": [kms_id(1, "Main")], "applications": []}, ("a KMS id", "an application")),
            ({"kms_ids": [kms_id(9, "Main", guid(3))], "skus": []}, ("made-up", "a product")),
            (
                {"skus": [SKU(1, guid(200), "Odd", guid(2), 6)], "kms_ids": []},
                ("a product", "made-up"),
            ),
        ):
            error = self.assertRaises(CatalogError, extended, BASE, catalog("my file", **tables))
            text = str(error)
            self.assertTrue(text.startswith("my file: GUID "), text)
            before, _, after = text.partition(", but ")
            self.assertIn(parts[0], before)
            self.assertIn(parts[1], after)
            self.assertIn("in the built-in catalogue", after)


class RealFileTests(SynchronousTestCase):
    """
    The built-in catalogue extended by the real files.
    """

    def test_both(self) -> None:
        """
        Nothing that was known is lost, the file's CSVLKs win, and the result can be written as a file.
        """
        base = load_catalog()
        for year in (2020, 2026):
            own = to_catalog(read_kmd((GOLDEN / f"products-{year}.kmd").read_bytes(), "file"))
            merged = extended(base, own)
            self.assertEqual(
                [sku.number for sku in merged.skus.values()], [*range(1, len(merged.skus) + 1)]
            )
            for number, sku in base.skus.items():
                self.assertEqual(merged.skus[number].number, sku.number)
            for table in ("applications", "kms_ids", "skus", "csvlks", "host_builds"):
                self.assertEqual(
                    set(getattr(merged, table)), {*getattr(base, table), *getattr(own, table)}
                )
            for key, csvlk_ in own.csvlks.items():
                self.assertEqual(merged.csvlks[key].default_epid, csvlk_.default_epid)
                self.assertEqual(merged.csvlks[key].key_id_ranges, csvlk_.key_id_ranges)
            self.assertTrue(write_kmd(merged))

    def test_server_2019(self) -> None:
        """
        The old file calls the keys of Server 2019 its Windows keys; what they can be hosted by is not forgotten.
        """
        own = to_catalog(read_kmd((GOLDEN / "products-2020.kmd").read_bytes(), "file"))
        merged = extended(load_catalog(), own)
        self.assertEqual(max(merged.csvlks["Windows"].invalid_host_builds), 9200)
        self.assertIsNone(merged.csvlks["Windows"].guid)
