"""
Tests of C{kmsproto/kms/catalog.toml}: facts that users, clients and hosts rely on.

Who changes the file should have to change these only when the world has changed.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.catalog import load_catalog

UNKNOWN = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")


class FactTests(SynchronousTestCase):
    """
    The built-in catalogue says what users and hosts rely on.
    """

    def setUp(self) -> None:
        """
        Read it.
        """
        self.catalog = load_catalog()

    def test_counts(self) -> None:
        """
        Nothing got lost.
        """
        self.assertEqual(len(self.catalog.applications), 3)
        self.assertEqual(len(self.catalog.kms_ids), 36)
        self.assertEqual(len(self.catalog.skus), 297)
        self.assertEqual(len(self.catalog.csvlks), 45)
        self.assertEqual(len(self.catalog.host_builds), 32)

    def test_numbers(self) -> None:
        """
        The products that users know by number have kept it.
        """
        for number, guid, name in (
            (1, "4f3d1606-3fea-4c01-be3c-8d671c401e3b", "Windows Vista Business"),
            (8, "b92e9980-b9d5-4821-9c94-140f632f6312", "Windows 7 Professional"),
            (40, "c06b6981-d7fd-4a35-b7b4-054742b7af67", "Windows 8.1 Professional"),
            (64, "2de67392-b7a7-462a-b1ca-108dd189f588", "Windows 10/11 Professional"),
            (70, "73111121-5638-40f6-bc11-f1d7b0d64300", "Windows 10/11 Enterprise"),
            (97, "68531fb9-5511-4989-97be-d11a0f55633f", "Windows Server 2008 R2 Standard"),
            (110, "b3ca044e-a358-4d68-9883-aaa2941aca99", "Windows Server 2012 R2 Standard"),
            (115, "8c1c5410-9f39-4805-8c9d-63a07706358f", "Windows Server 2016 Standard"),
            (123, "de32eafd-aaee-4662-9444-c1befb41bde2", "Windows Server 2019 Standard"),
            (128, "ef6cfc9f-8c5d-44ac-9aad-de6a2ea0ae03", "Windows Server 2022 Datacenter"),
            (133, "c052f164-cdf6-409a-a0cb-853ba0f0f55a", "Windows Server 2025 Datacenter"),
            (135, "6f327760-8c5c-417c-9b61-836a98287e0c", "Office Professional Plus 2010"),
            (170, "b322da9c-a2e2-4058-9e4e-f59a6970bd69", "Office Professional Plus 2013"),
            (187, "d450596f-894d-49e0-966a-fd39ed4c4c64", "Office Professional Plus 2016"),
            (238, "8d368fc1-9470-4be2-8d66-90e836cbb051", "Office LTSC Professional Plus 2024"),
            (252, "d0eded01-0881-4b37-9738-190400095098", "Office Word LTSC 2024"),
        ):
            sku = self.catalog.product(str(number))
            self.assertEqual((str(sku.guid), sku.name), (guid, name))

    def test_names_are_unique(self) -> None:
        """
        Every product, key group, KMS id and host build can be told by its name, whatever the case.
        """
        catalog = self.catalog
        for table in (catalog.skus, catalog.kms_ids, catalog.csvlks, catalog.host_builds):
            names = Counter(entry.name.casefold() for entry in table.values())
            self.assertEqual([name for name, count in names.items() if count > 1], [])

    def test_current_build_hosts_all(self) -> None:
        """
        The build to present by default, 26100, can host every key group that answers for a KMS id.
        """
        build = self.catalog.host_build(26100)
        self.assertEqual((build.platform_id, build.uses_ndr64, build.for_epid), (3612, True, True))
        for guid in self.catalog.kms_ids:
            self.assertNotIn(26100, self.catalog.csvlk_for(guid).invalid_host_builds)

    def test_windows_first(self) -> None:
        """
        An unknown KMS id is answered for by Windows, the key group of Windows Server 2025.
        """
        windows = self.catalog.csvlk_for(UNKNOWN)
        self.assertEqual((windows.key, windows.name), ("Windows", "Windows Server 2025"))
        self.assertEqual((windows.group_id, windows.key_id_ranges), (4919, ((20_000, 20_019_999),)))
        self.assertTrue({6002, 7601, 9200, 9600, 14393} <= windows.invalid_host_builds)
        self.assertNotIn(17763, windows.invalid_host_builds)

    def test_disputed(self) -> None:
        """
        Where sources disagree, most of them win.
        """
        by_prefix = {str(guid)[:8]: entry for guid, entry in self.catalog.kms_ids.items()}
        self.assertEqual(by_prefix["e6a6f1bf"].protocol, 5)
        self.assertEqual(by_prefix["5f94a0bb"].protocol, 5)
        self.assertEqual(by_prefix["7ba0bf23"].n_policy, 25)
        self.assertEqual(by_prefix["7ba0bf23"].csvlk, "WinChinaGov")
        self.assertEqual(by_prefix["aa4c7968"].csvlk, "Windows")
        self.assertEqual(
            self.catalog.csvlks["Office2024"].key_id_ranges, ((591_000_000, 610_999_999),)
        )

    def test_aliases(self) -> None:
        """
        The made-up KMS ids of some product lists lead to the genuine ones, one of which has version nibble 0.
        """
        for alias, name in (
            ("4b83307d-7788-50ff-8d1f-1861915bdb9d", "Windows Server 2025"),
            ("1b4db7eb-4057-5ddf-91e0-36dec72071f5", "Office 2024 (Volume)"),
            ("10a7e9fb-ca8c-5352-88f5-91b8dbe13b22", "Windows Server 2022"),
        ):
            self.assertEqual(self.catalog.kms_id_name(UUID(alias)), name)
        office = self.catalog.kms_id(UUID("a8973cb5-bf03-0a4c-9cef-703099645ab3"))
        self.assertEqual(office and office.name, "Office 2024 (Volume)")

    def test_retail(self) -> None:
        """
        A key that Microsoft does not keep to itself activates no retail KMS id.
        """
        retail = {guid for guid, entry in self.catalog.kms_ids.items() if entry.is_retail}
        self.assertEqual(len(retail), 3)
        for csvlk in self.catalog.csvlks.values():
            if not csvlk.is_lab and csvlk.kms_ids is not None:
                self.assertEqual(csvlk.kms_ids & retail, frozenset(), csvlk.key)

    def test_releases(self) -> None:
        """
        Builds of later generations are later, as far as servers are concerned.
        """
        servers = [build for build in self.catalog.host_builds.values() if build.for_epid]
        dates = [build.release_date for build in servers]
        self.assertEqual(dates, sorted(dates, reverse=True))
