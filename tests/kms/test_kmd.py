"""
Tests of L{kmsproto.kms.kmd} and L{kmsproto.kms.kmd_catalog}.

Two real files of vlmcsd, of 2020 and 2026, stand in C{tests/golden/kmd}; the rest is tested on a small one, which each
test spoils in its own way.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import MAX_KEY_ID, Catalog, load_catalog
from kmsproto.kms.epid import ExtendedPID
from kmsproto.kms.kmd import (
    MAX_TEXT,
    CSVLKRecord,
    HostBuildRecord,
    ItemRecord,
    KMDFile,
    read_kmd,
)
from kmsproto.kms.kmd_catalog import MOST_PRODUCTS, from_catalog, to_catalog, write_kmd

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "kmd"
REAL = {year: (GOLDEN / f"products-{year}.kmd").read_bytes() for year in (2020, 2026)}

EPID = "03612-00206-551-000001-03-1033-26100.0000-0012025"


def guid(number: int) -> UUID:
    """
    Make a GUID.
    """
    return UUID(int=number << 64 | 0xABCDEF)


SMALL = KMDFile(
    offers_ndr64=True,
    csvlks=(
        CSVLKRecord(EPID, "Windows", "Windows Server", 86_400, 206, 10, 20, 3),
        CSVLKRecord(EPID, "Office", "", 0, 96, 0, MAX_KEY_ID, 0),
    ),
    applications=(
        ItemRecord(guid(1), "Windows", 0, 0, 0, 50, 0, 0, 0),
        ItemRecord(guid(2), "Office", 0, 0, 0, 10, 0, 0, 1),
    ),
    kms_ids=(
        ItemRecord(guid(3), "Windows Ten", 0, 0, 6, 25, 0, 1, 0),
        ItemRecord(guid(4), "Office Überall", 1, 0, 5, 5, 1, 0, 1),
    ),
    skus=(
        ItemRecord(guid(5), "Windows Ten Home", 0, 0, 6, 25, 0, 1, 0),
        ItemRecord(guid(6), "Office All", 1, 1, 4, 5, 1, 0, 1),
        ItemRecord(guid(7), "office all", 1, 1, 5, 5, 1, 0, 1),
    ),
    host_builds=(
        HostBuildRecord("New", 1_700_000_001, 26100, 3612, 7),
        HostBuildRecord("Old", -1, 7601, 55041, 2),
    ),
    source="small.kmd",
)

#: Where the tables of L{SMALL} begin.
CSVLKS, APPLICATIONS, KMS_IDS, SKUS, HOSTS, TEXTS = 72, 136, 200, 264, 360, 424


def vlmcsd_loads(data: bytes) -> bool:
    """
    Tell whether vlmcsd takes a file, by its own checks, written down once more from the specification.
    """
    size = len(data)
    if data[:4] != b"KMD\0" or data[6:8] != b"\2\0" or data[-1] != 0:
        return False
    csvlks, *_ = data[8:9]
    apps, kms_ids, skus, hosts = struct.unpack_from("<4i", data, 12)
    offsets = struct.unpack_from("<5Q", data, 32)
    items = apps + kms_ids + skus
    if any(offset > size for offset in offsets) or 104 + 32 * items >= size:
        return False
    for number in range(csvlks):
        if struct.unpack_from("<Q", data, 72 + 32 * number)[0] > size:
            return False
    for number in range(items):
        name, app, kms_id = struct.unpack_from("<QBB", data, offsets[0] + 32 * number + 16)
        if name >= size or app >= apps or kms_id >= kms_ids:
            return False
    return all(
        struct.unpack_from("<Q", data, offsets[3] + 32 * number)[0] <= size
        for number in range(hosts)
    )


def spoilt(offset: int, layout: str, *values: Any, data: bytes | None = None) -> bytes:
    """
    Overwrite something in L{SMALL}.
    """
    changed = bytearray(SMALL.encode() if data is None else data)
    struct.pack_into("<" + layout, changed, offset, *values)
    return bytes(changed)


def with_text(data: bytes, pointer: int, text: bytes) -> bytes:
    """
    Append a text, point to it, and make NULs of the one that was pointed to.
    """
    changed = bytearray(data)
    (old,) = struct.unpack_from("<Q", changed, pointer)
    struct.pack_into("<Q", changed, pointer, len(changed))
    end = changed.index(0, old)
    changed[old:end] = bytes(end - old)
    return bytes(changed) + text + b"\0"


class ReadingTests(SynchronousTestCase):
    """
    What is read, and what is refused.
    """

    def refused(self, data: bytes, *parts: str) -> str:
        """
        Assert that a file is refused, with one line that has some parts.
        """
        error = self.assertRaises(CatalogError, read_kmd, data, "small.kmd")
        text = str(error)
        self.assertTrue(text.startswith("small.kmd: "), text)
        self.assertEqual(len(text.splitlines()), 1, text)
        for part in parts:
            self.assertIn(part, text)
        return text

    def test_layout(self) -> None:
        """
        The tables stand in the order of the specification, and the texts behind them.
        """
        data = SMALL.encode()
        self.assertEqual(
            struct.unpack_from("<4sHHBBH5i5Q", data),
            (b"KMD\x00", 0, 2, 2, 1, 0, 2, 2, 3, 2, 0, APPLICATIONS, KMS_IDS, SKUS, HOSTS, 0),
        )
        self.assertTrue(data[TEXTS:].startswith(EPID.encode() + b"\0Windows\0Windows Server\0"))
        self.assertEqual(data[SKUS : SKUS + 16], guid(5).bytes_le)
        self.assertTrue(data.endswith(b"\0office all\0"))

    def test_round_trip(self) -> None:
        """
        What is written is read as the same.
        """
        self.assertEqual(read_kmd(SMALL.encode(), "x"), SMALL)

    def test_real_files(self) -> None:
        """
        The real files are read, with what the specification says is in them, and written as the same bytes.
        """
        counts = {2020: (6, 3, 29, 202, 6), 2026: (7, 3, 36, 252, 3)}
        for year, data in REAL.items():
            file = read_kmd(data, "real")
            tables = (file.csvlks, file.applications, file.kms_ids, file.skus, file.host_builds)
            self.assertEqual(tuple(map(len, tables)), counts[year])
            self.assertTrue(file.offers_ndr64)
            self.assertEqual(file.encode(), data)

    def test_harmless(self) -> None:
        """
        NULs at the end, equal texts that are stored once, and host builds in another place are all the same file.
        """
        data = SMALL.encode()
        self.assertEqual(read_kmd(data + bytes(3), "x"), SMALL)
        (name,) = struct.unpack_from("<Q", data, APPLICATIONS + 16)
        shared = spoilt(KMS_IDS + 16, "Q", name, data=with_text(data, KMS_IDS + 16, b"Windows"))
        shared = shared[: -len(b"Windows\0")]
        self.assertEqual(read_kmd(shared, "x").kms_ids[0].name, "Windows")
        padded = data + bytes(-len(data) % 8)
        hosts = padded[HOSTS:TEXTS]
        moved = spoilt(
            56, "Q", len(padded), data=padded[:HOSTS] + bytes(64) + padded[TEXTS:] + hosts
        )
        self.assertEqual(read_kmd(moved + b"\0", "x"), SMALL)

    def test_few(self) -> None:
        """
        A file needs neither SKUs nor host builds.
        """
        file = replace(SMALL, skus=(), host_builds=())
        self.assertEqual(read_kmd(file.encode(), "x"), file)

    def test_header(self) -> None:
        """
        Each field of the header is checked.
        """
        for offset, layout, value, part in (
            (0, "B", 0x6B, "4B 4D 44 00"),
            (3, "B", 1, "4B 4D 44 00"),
            (4, "H", 1, "version 2.1"),
            (6, "H", 1, "version 1.0"),
            (8, "B", 0, "number of CSVLKs must be from 1 to 255"),
            (9, "B", 2, "field of flags must be from 0 to 1, not 2"),
            (10, "H", 1, "reserved"),
            (12, "i", 0, "number of applications must be from 1 to 256, not 0"),
            (12, "i", -1, "not -1"),
            (16, "i", 0, "number of KMS ids"),
            (16, "i", 257, "number of KMS ids"),
            (20, "i", -3, "number of SKUs"),
            (20, "i", 0x7FFFFFFF, "number of SKUs"),
            (24, "i", -2, "number of host builds"),
            (28, "i", 1, "reserved"),
            (64, "Q", 8, "reserved"),
        ):
            self.refused(spoilt(offset, layout, value), "header: ", part)
        self.refused(SMALL.encode()[:71], "ends after 71 bytes")
        self.refused(SMALL.encode() + b"x", "does not end with a NUL")
        self.refused(b"", "4B 4D 44 00")

    def test_tables(self) -> None:
        """
        Tables are adjacent where they must be, aligned, within the file, and keep apart.
        """
        self.refused(spoilt(40, "Q", KMS_IDS + 8), "table of KMS ids", "does not follow")
        self.refused(spoilt(48, "Q", SKUS - 32), "table of SKUs", "does not follow")
        self.refused(spoilt(56, "Q", HOSTS + 4), "at a multiple of 8")
        self.refused(spoilt(56, "Q", 1 << 20), "does not fit")
        self.refused(spoilt(56, "Q", 2**64 - 32), "does not fit")
        self.refused(spoilt(56, "Q", HOSTS - 32), "applications and host builds")
        self.refused(spoilt(56, "Q", 0), "CSVLKs and host builds")
        self.refused(spoilt(8, "B", 3), "CSVLKs and applications")
        # Three offsets that agree with each other once they have wrapped.
        start = 2**64 - 64
        self.refused(spoilt(32, "3Q", start, 0, 64), "table of KMS ids")
        data = SMALL.encode()
        size = len(data) + -len(data) % 8
        self.refused(spoilt(32, "3Q", size, size + 64, size + 128), "applications", "does not fit")

    def test_csvlks(self) -> None:
        """
        Each field of a CSVLK is checked.
        """
        for offset, layout, value, part in (
            (0, "Q", 2**64 - 1, "behind the end"),
            (0, "Q", len(SMALL.encode()), "behind the end"),
            (8, "q", 2**63 - 1, "no day of a calendar"),
            (8, "q", -(2**63), "no day of a calendar"),
            (16, "I", 100_000, "group id must be"),
            (20, "I", 20, "20 is not below 20"),
            (20, "I", 21, "21 is not below 20"),
            (24, "I", MAX_KEY_ID + 1, "highest key id"),
            (29, "B", 1, "reserved"),
            (31, "B", 1, "reserved"),
        ):
            self.refused(spoilt(CSVLKS + offset, layout, value), "CSVLK record 1", part)

    def test_csvlk_texts(self) -> None:
        """
        The ePID is one, keys are different whatever the case, and only the name may be empty.
        """
        first = SMALL.csvlks[0]
        for changed, part in (
            (replace(first, epid="x" * 64), "not the form of an extended PID"),
            (replace(first, epid=EPID.replace("0012025", "3662025")), "is no day"),
            (replace(first, epid=""), "the ePID is empty"),
            (replace(first, key=""), "the key is empty"),
            (replace(first, key="oFFICE"), "same key as CSVLK record 1"),
        ):
            file = replace(SMALL, csvlks=(changed, SMALL.csvlks[1]))
            self.assertIn(part, str(self.assertRaises(CatalogError, file.encode)))

    def test_items(self) -> None:
        """
        Each field of an application, KMS id and SKU is checked.
        """
        for start, label in (
            (APPLICATIONS, "application record 1 ('Windows')"),
            (KMS_IDS, "KMS id record 1 ('Windows Ten')"),
            (SKUS, "SKU record 1 ('Windows Ten Home')"),
        ):
            self.refused(spoilt(start + 24, "B", 2), label)
            self.refused(spoilt(start + 25, "B", 2), label)
            self.refused(spoilt(start + 26, "B", 7), label)
            self.refused(spoilt(start + 27, "B", 0), label, "number of clients")
            self.refused(spoilt(start + 28, "B", 2), label)
            self.refused(spoilt(start + 29, "B", 2), label)
            self.refused(spoilt(start + 30, "B", 2), label, "index of the CSVLK")
            self.refused(spoilt(start + 31, "B", 1), label, "reserved")
            self.refused(spoilt(start + 16, "Q", 2**64 - 8), "behind the end")
        self.refused(spoilt(KMS_IDS + 26, "B", 3), "protocol must be from 4 to 6, not 3")

    def test_contradictions(self) -> None:
        """
        A SKU repeats what its KMS id says, and no GUID stands twice.
        """
        for offset, value in ((24, 1), (25, 1), (27, 24), (28, 1), (29, 0), (30, 1)):
            self.refused(
                spoilt(SKUS + offset, "B", value), "SKU record 1", "departs from its KMS id"
            )
        self.refused(
            spoilt(SKUS, "16s", guid(1).bytes_le),
            "SKU record 1",
            "application record 1 ('Windows')",
        )

    def test_host_builds(self) -> None:
        """
        Each field of a host build is checked.
        """
        for offset, layout, value, part in (
            (0, "Q", 1 << 40, "behind the end"),
            (8, "q", 1 << 50, "no day of a calendar"),
            (16, "i", 0, "the build must be"),
            (16, "i", -26100, "the build must be"),
            (16, "i", 7601, "builds must descend, but 7601 comes after 7601"),
            (20, "i", -1, "platform id"),
            (20, "i", 100_000, "platform id"),
            (24, "I", 8, "flags"),
            (28, "I", 1, "reserved"),
        ):
            self.refused(spoilt(HOSTS + offset, layout, value), "host build record", part)

    def test_texts(self) -> None:
        """
        Texts are UTF-8, printable, not empty, not endless, and outside of the tables.
        """
        data = SMALL.encode()
        for text, part in (
            (b"\xff", "is not UTF-8"),
            (b"\xed\xa0\x80", "is not UTF-8"),
            (b"a\nb", "printable"),
            (b" a", "printable"),
            (b"", "is empty"),
            (b"x" * (MAX_TEXT + 1), "more than 255 bytes"),
        ):
            self.refused(with_text(data, SKUS + 16, text), "SKU record 1", part)
        longest = read_kmd(with_text(data, SKUS + 16, b"x" * MAX_TEXT), "x")
        self.assertEqual(len(longest.skus[0].name), MAX_TEXT)
        in_table = spoilt(SKUS + 8, "8s", b"\0abcdef\0")
        in_table = spoilt(KMS_IDS + 16, "Q", SKUS + 9, data=with_text(in_table, KMS_IDS + 16, b""))
        self.refused(in_table, "lies in a table")

    def test_unclaimed(self) -> None:
        """
        Bytes that nothing points to are refused, between texts and at the end.
        """
        self.refused(SMALL.encode() + b"abc\0", "belong to no table and no text")
        (name,) = struct.unpack_from("<Q", SMALL.encode(), SKUS + 16)
        self.refused(spoilt(SKUS + 16, "Q", name + 1), "belong to no table and no text")


class WritingTests(SynchronousTestCase):
    """
    What cannot be written.
    """

    def test_no_room(self) -> None:
        """
        Numbers and texts that a file has no room for are refused, with the name of what has them.
        """
        first = SMALL.csvlks[0]
        for file, part in (
            (replace(SMALL, csvlks=(first,) * 256), "header"),
            (replace(SMALL, csvlks=(replace(first, minimum_active_clients=256),)), "'Windows'"),
            (replace(SMALL, csvlks=(replace(first, name="a\0b"),)), "UTF-8"),
            (replace(SMALL, csvlks=(replace(first, name="\ud800"),)), "UTF-8"),
            (replace(SMALL, skus=(replace(SMALL.skus[0], clients=1000),)), "'Windows Ten Home'"),
            (replace(SMALL, applications=()), "number of applications"),
        ):
            text = str(self.assertRaises(CatalogError, file.encode))
            self.assertIn(part, text)
            self.assertEqual(len(text.splitlines()), 1)


class CatalogTests(SynchronousTestCase):
    """
    From a file to a catalogue and back.
    """

    def test_catalog(self) -> None:
        """
        A catalogue says what the records say.
        """
        catalog = to_catalog(SMALL)
        self.assertEqual(catalog.source, "small.kmd")
        windows, office = catalog.csvlks.values()
        self.assertEqual((windows.key, windows.default_epid), ("Windows", EPID))
        self.assertEqual(windows.release_date, date(1970, 1, 2))
        self.assertEqual(windows.key_id_ranges, ((10, 20),))
        self.assertEqual((windows.minimum_active_clients, windows.group_id), (3, 206))
        self.assertEqual(office.name, "unknown")
        self.assertEqual(catalog.csvlk_for(guid(4)), office)
        self.assertEqual(catalog.csvlk_for(guid(99)), windows)
        self.assertEqual(catalog.applications[guid(2)].minimum_clients, 10)
        kms_id = catalog.kms_ids[guid(3)]
        self.assertEqual((kms_id.n_policy, kms_id.protocol, kms_id.application), (25, 6, guid(1)))
        self.assertEqual((kms_id.is_retail, kms_id.is_preview), (False, True))
        sku = catalog.skus[guid(6)]
        self.assertEqual((sku.number, sku.kms_id, sku.protocol), (2, guid(4), 4))
        old = catalog.host_build(7601)
        self.assertEqual(old.release_date, date(1969, 12, 31))
        self.assertEqual((old.uses_ndr64, old.for_epid, old.may_be_server), (False, True, False))

    def test_same_name(self) -> None:
        """
        Of two products with the same name the later is found by it, in the small file and in the old one.
        """
        self.assertEqual(to_catalog(SMALL).product("OFFICE ALL").guid, guid(7))
        old = to_catalog(read_kmd(REAL[2020], "x"))
        names = [sku.name.casefold() for sku in old.skus.values()]
        doubled = {name for name in names if names.count(name) > 1}
        self.assertEqual(len(doubled), 2)
        for name in doubled:
            last = max(n for n, each in enumerate(names, 1) if each == name)
            self.assertEqual(old.product(name).number, last)

    def test_real_files(self) -> None:
        """
        The real files are the same bytes after they were catalogues.
        """
        for data in REAL.values():
            self.assertEqual(write_kmd(to_catalog(read_kmd(data, "x"))), data)

    def test_built_in(self) -> None:
        """
        The built-in catalogue makes a file that vlmcsd loads, with the CSVLKs that answer, host builds with NDR64 and
        without, and as many products as C{vlmcs -x} can list.
        """
        catalog = load_catalog()
        data = write_kmd(catalog)
        self.assertTrue(vlmcsd_loads(data))
        file = read_kmd(data, "x")
        self.assertEqual(file.csvlks[0].key, "Windows")
        self.assertEqual(
            {each.key for each in file.csvlks}, {each.csvlk for each in catalog.kms_ids.values()}
        )
        self.assertEqual({each.flags & 1 for each in file.host_builds}, {0, 1})
        self.assertEqual(len(file.skus), MOST_PRODUCTS)
        again = to_catalog(file)
        for old, new in zip(catalog.skus.values(), again.skus.values(), strict=False):
            self.assertEqual(new, old)
        for guid_, kms_id in catalog.kms_ids.items():
            self.assertEqual(again.kms_ids[guid_], replace(kms_id, aliases=()))
        # vlmcs -G takes the first KMS id of a CSVLK and the first SKU of that.
        for index in range(len(file.csvlks)):
            first = next(n for n, each in enumerate(file.kms_ids) if each.csvlk == index)
            self.assertTrue(any(each.kms_id == first for each in file.skus))

    def test_all_products(self) -> None:
        """
        More products are written if that is wanted.
        """
        catalog = load_catalog()
        file = from_catalog(catalog, 999)
        self.assertEqual(len(read_kmd(file.encode(), "x").skus), len(catalog.skus))

    def test_made_epids(self) -> None:
        """
        A CSVLK without an ePID gets one that its own key group and a fitting build can have, the same every time.
        """
        catalog = load_catalog()
        for record in from_catalog(catalog).csvlks:
            pid = ExtendedPID.parse(record.epid)
            csvlk = catalog.csvlks[record.key]
            self.assertEqual(pid.group_id, csvlk.group_id)
            self.assertTrue(record.lowest_key_id <= pid.key_id <= record.highest_key_id)
            self.assertNotIn(pid.build, csvlk.invalid_host_builds)
        self.assertEqual(from_catalog(catalog), from_catalog(catalog))

    def changed(self, **fields: Any) -> Catalog:
        """
        Make the small catalogue with another first CSVLK.
        """
        catalog = to_catalog(SMALL)
        first, *others = catalog.csvlks.values()
        return Catalog(
            "changed",
            catalog.applications.values(),
            catalog.kms_ids.values(),
            catalog.skus.values(),
            [replace(first, **fields), *others],
            catalog.host_builds.values(),
        )

    def test_longest_range(self) -> None:
        """
        Of several ranges of key ids the longest is written; without one of two numbers there is nothing to write.
        """
        file = from_catalog(self.changed(key_id_ranges=((1, 5), (7, 70), (80, 90))))
        self.assertEqual((file.csvlks[0].lowest_key_id, file.csvlks[0].highest_key_id), (7, 70))
        error = self.assertRaises(CatalogError, write_kmd, self.changed(key_id_ranges=((5, 5),)))
        self.assertIn("no range of key ids", str(error))

    def test_another_build(self) -> None:
        """
        An ePID names an older build where the usual one cannot have the key; if none can, it cannot be made.
        """
        file = from_catalog(self.changed(default_epid="", invalid_host_builds=frozenset({26100})))
        self.assertEqual(ExtendedPID.parse(file.csvlks[0].epid).build, 7601)
        none = self.changed(default_epid="", invalid_host_builds=frozenset({26100, 7601}))
        self.assertIn("'Windows'", str(self.assertRaises(CatalogError, write_kmd, none)))

    def test_builds(self) -> None:
        """
        Only builds known as KMS hosts are written, unless there are none.
        """
        new, old = SMALL.host_builds
        some = replace(SMALL, host_builds=(replace(new, flags=1), old))
        self.assertEqual(
            [each.build for each in from_catalog(to_catalog(some)).host_builds], [7601]
        )
        none = replace(SMALL, host_builds=(replace(new, flags=1), replace(old, flags=0)))
        self.assertEqual(len(from_catalog(to_catalog(none)).host_builds), 2)


NAMES = st.text(
    st.characters(whitelist_categories=("L", "N", "P", "S")).filter(str.isprintable),
    min_size=1,
    max_size=20,
)
TIMES = st.integers(-62_135_596_800, 253_402_300_799)
EPIDS = st.builds(
    ExtendedPID,
    st.integers(0, 99_999),
    st.integers(0, 99_999),
    st.integers(0, MAX_KEY_ID),
    st.integers(0, 0xFFFFF),
    st.integers(0, 99_999),
    st.dates(),
).map(str)


@st.composite
def files(draw: st.DrawFn) -> KMDFile:
    """
    Draw the records of a file.
    """
    keys = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold))
    counts = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 6)))
    guids = iter(
        draw(st.lists(st.uuids(), min_size=sum(counts), max_size=sum(counts), unique=True))
    )
    csvlks = []
    for key in keys:
        low, high = sorted(
            draw(st.lists(st.integers(0, MAX_KEY_ID), min_size=2, max_size=2, unique=True))
        )
        name = draw(st.just("") | NAMES)
        group, clients = draw(st.integers(0, 99_999)), draw(st.integers(0, 255))
        csvlks.append(CSVLKRecord(draw(EPIDS), key, name, draw(TIMES), group, low, high, clients))
    index = st.integers(0, len(keys) - 1)
    eight, bit, version = st.integers(1, 255), st.integers(0, 1), st.integers(4, 6)
    applications = [
        ItemRecord(next(guids), draw(NAMES), 0, 0, 0, draw(eight), 0, 0, draw(index))
        for _ in range(counts[0])
    ]
    kms_ids = [
        ItemRecord(
            *(next(guids), draw(NAMES), draw(st.integers(0, counts[0] - 1)), 0, draw(version)),
            *(draw(eight), draw(bit), draw(bit), draw(index)),
        )
        for _ in range(counts[1])
    ]
    skus = []
    for _ in range(counts[2]):
        number = draw(st.integers(0, counts[1] - 1))
        same = replace(kms_ids[number], guid=next(guids), name=draw(NAMES))
        skus.append(replace(same, kms_id=number, protocol=draw(version)))
    builds = sorted(draw(st.sets(st.integers(1, 99_999), max_size=4)), reverse=True)
    host_builds = [
        HostBuildRecord(
            *(draw(NAMES), draw(TIMES), build, draw(st.integers(0, 99_999))),
            draw(st.integers(0, 7)),
        )
        for build in builds
    ]
    return KMDFile(
        *(draw(st.booleans()), tuple(csvlks), tuple(applications), tuple(kms_ids)),
        *(tuple(skus), tuple(host_builds), "drawn"),
    )


#: Values that programs trip over.
EVIL = st.sampled_from(
    [
        0,
        1,
        31,
        71,
        72,
        104,
        255,
        256,
        2**15,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**32 + 72,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64 - 32,
        2**64 - 64,
        2**64 - 104,
    ]
)


class PropertyTests(SynchronousTestCase):
    """
    What holds for every file, whole or damaged.
    """

    def survives(self, data: bytes) -> bool:
        """
        Assert that bytes are refused with one clear line, or are a file that can be used and written.
        """
        try:
            file = read_kmd(data, "damaged.kmd")
        except CatalogError as error:
            text = str(error)
            self.assertTrue(text.startswith("damaged.kmd: "), text)
            self.assertTrue(text.isprintable() and len(text) < 400, text)
            return False
        self.assertEqual(read_kmd(file.encode(), "again"), file)
        self.assertTrue(vlmcsd_loads(file.encode()))
        self.assertTrue(vlmcsd_loads(data))
        write_kmd(to_catalog(file))
        return True

    @given(files())
    def test_round_trip(self, file: KMDFile) -> None:
        """
        Whatever can be said in records is written, loaded by vlmcsd, and read as the same.
        """
        data = file.encode()
        self.assertEqual(read_kmd(data, "x"), file)
        self.assertTrue(vlmcsd_loads(data))
        self.assertTrue(self.survives(data))

    @settings(max_examples=400)
    @given(st.sampled_from(sorted(REAL)), st.data())
    def test_flipped_bits(self, year: int, data: st.DataObject) -> None:
        """
        A real file with some bits flipped is refused or usable.
        """
        changed = bytearray(REAL[year])
        size = data.draw(st.sampled_from([104, 500, len(changed)]))
        for place in data.draw(st.lists(st.integers(0, 8 * size - 1), min_size=1, max_size=3)):
            changed[place // 8] ^= 1 << place % 8
        self.survives(bytes(changed))

    @settings(max_examples=300)
    @given(st.integers(0, TEXTS // 8 - 1), EVIL)
    def test_evil_numbers(self, place: int, value: int) -> None:
        """
        A small file with any eight aligned bytes of its tables replaced is refused or usable.
        """
        self.survives(spoilt(8 * place, "Q", value))

    @settings(max_examples=300)
    @given(st.integers(0, TEXTS // 4 - 1), EVIL)
    def test_evil_halves(self, place: int, value: int) -> None:
        """
        So it is with any four aligned bytes.
        """
        self.survives(spoilt(4 * place, "I", value % 2**32))

    @settings(max_examples=200)
    @given(st.binary(max_size=400))
    def test_noise(self, noise: bytes) -> None:
        """
        Noise behind a good beginning is refused.
        """
        self.assertFalse(self.survives(struct.pack("<4sHH", b"KMD\0", 0, 2) + noise))

    @settings(max_examples=200)
    @given(st.sampled_from(sorted(REAL)), st.integers(0, 14_000))
    def test_cut_off(self, year: int, size: int) -> None:
        """
        A real file that is cut off is refused, wherever.
        """
        self.assertFalse(self.survives(REAL[year][:size]))

    def test_cut_off_small(self) -> None:
        """
        So is the small one at every length, and with a NUL put at its end.
        """
        data = SMALL.encode()
        for size in range(len(data)):
            self.assertFalse(self.survives(data[:size]))
        for size in range(TEXTS):
            self.assertFalse(self.survives(data[:size] + b"\0"))

    def test_every_byte(self) -> None:
        """
        The small file with any one byte of the header and tables inverted is refused or usable, and most are refused.
        """
        data = SMALL.encode()
        usable = [
            place for place in range(TEXTS) if self.survives(spoilt(place, "B", data[place] ^ 0xFF))
        ]
        self.assertTrue(len(usable) < TEXTS // 2, usable)
