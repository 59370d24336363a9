"""
One catalogue extended by another: what wins, what stays, and what cannot be.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.kmd import read_kmd
from kmsproto.kms.kmd_catalog import to_catalog
from kmsproto.kms.merging import extended

FILES = Path(__file__).parents[1] / "golden" / "kmd"
NEW = UUID(int=0xABCDEF)


def small(base: Catalog, **changes: object) -> Catalog:
    """
    Make a catalogue of one entry of each kind of another.

    @param changes: Other entries, by the name of their table.
    """
    kms_id = next(each for each in base.kms_ids.values() if each.aliases)
    parts: dict[str, object] = {
        "applications": [base.applications[kms_id.application]],
        "kms_ids": [kms_id],
        "skus": [next(each for each in base.skus.values() if each.kms_id == kms_id.guid)],
        "csvlks": [
            base.csvlks[key]
            for key in dict.fromkeys((kms_id.csvlk, base.applications[kms_id.application].csvlk))
        ],
        "host_builds": list(base.host_builds.values()),
    }
    return Catalog("extension", **(parts | changes))  # type: ignore[arg-type]


class ExtendedTests(SynchronousTestCase):
    """
    Extending.
    """

    def setUp(self) -> None:
        """
        Load the built-in catalogue.
        """
        self.base = load_catalog()
        self.part = small(self.base)

    def test_itself(self) -> None:
        """
        A catalogue extended by a part of itself has the same entries.
        """
        result = extended(self.base, self.part)
        self.assertEqual(result.applications, self.base.applications)
        self.assertEqual(result.skus, self.base.skus)
        self.assertEqual(result.host_builds, self.base.host_builds)
        self.assertEqual(set(result.kms_ids), set(self.base.kms_ids))
        self.assertEqual(list(result.csvlks), list(self.base.csvlks))
        for key, csvlk in self.base.csvlks.items():
            self.assertEqual(result.csvlks[key].invalid_host_builds, csvlk.invalid_host_builds, key)

    def test_real_files(self) -> None:
        """
        Both real files extend the built-in catalogue: nothing is lost, and numbers stay.
        """
        for path in sorted(FILES.glob("*.kmd")):
            file = to_catalog(read_kmd(path.read_bytes(), path.name))
            result = extended(self.base, file)
            self.assertTrue(set(self.base.skus) | set(file.skus) == set(result.skus), path.name)
            for guid, sku in self.base.skus.items():
                self.assertEqual(result.skus[guid].number, sku.number)
            self.assertEqual(
                next(iter(result.csvlks)), next(iter(self.base.csvlks)), "the first one answers"
            )

    def test_wins(self) -> None:
        """
        What the extension says of an entry is what holds, but for the number of a product.
        """
        sku = next(iter(self.part.skus.values()))
        renamed = replace(sku, name="another", number=7777)
        result = extended(self.base, small(self.base, skus=[renamed]))
        self.assertEqual(result.skus[sku.guid], replace(renamed, number=sku.number))

    def test_new_product(self) -> None:
        """
        A new product comes behind those that have a number.
        """
        sku = next(iter(self.part.skus.values()))
        result = extended(self.base, small(self.base, skus=[replace(sku, guid=NEW, number=1)]))
        most = max(each.number for each in self.base.skus.values())
        self.assertEqual(result.skus[NEW].number, most + 1)

    def test_aliases(self) -> None:
        """
        A made-up GUID that the extension has as a KMS id of its own is no alias any more; others stay aliases.
        """
        kms_id = next(iter(self.part.kms_ids.values()))
        alias = kms_id.aliases[0]
        own = replace(kms_id, guid=alias, aliases=())
        result = extended(self.base, small(self.base, kms_ids=[replace(kms_id, aliases=()), own]))
        found = result.kms_id(alias)
        assert found is not None
        self.assertEqual(found.guid, alias)
        self.assertNotIn(alias, result.kms_ids[kms_id.guid].aliases)
        again = extended(self.base, small(self.base, kms_ids=[replace(kms_id, aliases=())]))
        self.assertIn(alias, again.kms_ids[kms_id.guid].aliases)

    def test_two_meanings(self) -> None:
        """
        A GUID that is one thing here and another there is an error that names both.
        """
        kms_id = next(iter(self.part.kms_ids.values()))
        sku = next(iter(self.part.skus.values()))
        with self.assertRaises(CatalogError) as caught:
            extended(self.base, small(self.base, skus=[replace(sku, guid=kms_id.guid)], kms_ids=[]))
        self.assertIn(str(kms_id.guid), str(caught.exception))

    def test_spelling(self) -> None:
        """
        A key in another case is the same key, spelt as the built-in catalogue has it.
        """
        kms_id = next(iter(self.part.kms_ids.values()))
        application = self.part.applications[kms_id.application]
        csvlk = self.part.csvlks[kms_id.csvlk]
        upper = csvlk.key.upper()
        result = extended(
            self.base,
            small(
                self.base,
                applications=[replace(application, csvlk=upper)],
                kms_ids=[replace(kms_id, csvlk=upper)],
                csvlks=[replace(csvlk, key=upper, name="another")],
            ),
        )
        self.assertEqual(list(result.csvlks), list(self.base.csvlks))
        self.assertEqual(result.csvlks[csvlk.key].name, "another")
        self.assertEqual(result.kms_ids[kms_id.guid].csvlk, csvlk.key)

    def test_too_old(self) -> None:
        """
        A group that says nothing of its hosts takes that from the known group of the same keys, under any name; a
        group of other keys does not; and one whose hosts are all too old stays so.
        """
        known = next(each for each in self.base.csvlks.values() if each.invalid_host_builds)
        bare = replace(known, guid=None, kms_ids=None, invalid_host_builds=frozenset())
        for key in (known.key, "Another"):
            result = extended(
                self.base,
                small(
                    self.base, csvlks=[replace(bare, key=key)], kms_ids=[], skus=[], applications=[]
                ),
            )
            self.assertEqual(result.csvlks[key].invalid_host_builds, known.invalid_host_builds)
            self.assertEqual(result.csvlks[key].guid, known.guid if key == known.key else None)
        others = replace(bare, key="Another", group_id=99999)
        result = extended(
            self.base, small(self.base, csvlks=[others], kms_ids=[], skus=[], applications=[])
        )
        self.assertEqual(result.csvlks["Another"].invalid_host_builds, frozenset())
        all_builds = frozenset(self.base.host_builds)
        none = replace(known, key="Another", guid=NEW, invalid_host_builds=all_builds)
        result = extended(
            self.base, small(self.base, csvlks=[none], kms_ids=[], skus=[], applications=[])
        )
        self.assertEqual(result.csvlks["Another"].invalid_host_builds, all_builds)
