"""
Tests of L{kmsproto.kms.catalog}; the facts of the built-in catalogue are tested in C{test_catalog_facts}.

What a catalogue refuses is tested on a small one, which each test spoils in its own way.
"""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError, ProductNotFoundError
from kmsproto.kms.catalog import SKU, HostBuild, KMSId, load_catalog, parse_catalog

SMALL = """
[[applications]]
guid = "aaaaaaaa-0000-0000-0000-000000000001"
csvlk = "Main"
minimum_clients = 50
name = "System"

[[host_builds]]
build = 300
platform_id = 3
release_date = 2023-03-03
uses_ndr64 = true
for_epid = true
may_be_server = true
name = "Three"

[[host_builds]]
build = 200
platform_id = 2
release_date = 2022-02-02
uses_ndr64 = false
for_epid = true
name = "Two"

[[host_builds]]
build = 100
platform_id = 1
release_date = 2021-01-01
uses_ndr64 = false
for_epid = false
may_be_server = false
name = "One"

[[kms_ids]]
guid = "bbbbbbbb-0000-0000-0000-000000000001"
application = "aaaaaaaa"
csvlk = "Main"
protocol = 6
n_policy = 25
name = "First"

[[kms_ids]]
guid = "cccccccc-0000-0000-0000-000000000001"
application = "aaaaaaaa-0000-0000-0000-000000000001"
csvlk = "Other"
protocol = 5
n_policy = 5
is_retail = true
is_preview = true
aliases = ["dddddddd-0000-0000-0000-000000000001"]
name = "Second"

[[skus]]
number = 1
guid = "eeeeeeee-0000-0000-0000-000000000001"
kms_id = "bbbbbbbb"
name = "First Thing"

[[skus]]
number = 2
guid = "eeeeeeee-0000-0000-0000-000000000002"
kms_id = "CCCCCCCC"
protocol = 4
name = "Second Thing"

[[skus]]
number = 3
guid = "eeeeeeee-0000-0000-0000-000000000003"
kms_id = "cccccccc"
name = "second thing"

[[csvlks]]
key = "Main"
name = "Main keys"
guid = "bbbbbbbb-0000-0000-0000-000000000001"
group_id = 7
key_id_ranges = [[10, 20], [5, 6]]
release_date = 2020-01-01
oldest_host = 200
minimum_active_clients = 3
is_lab = true
is_preview = true
kms_ids = ["bbbbbbbb", "cccccccc"]

[[csvlks]]
key = "Other"
name = "Other keys"
group_id = 8
key_id_ranges = [[0, 999999999]]
release_date = 2020-01-02
"""

APPLICATION = UUID("aaaaaaaa-0000-0000-0000-000000000001")
FIRST = UUID("bbbbbbbb-0000-0000-0000-000000000001")
SECOND = UUID("cccccccc-0000-0000-0000-000000000001")
ALIAS = UUID("dddddddd-0000-0000-0000-000000000001")
UNKNOWN = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")

Document = dict[str, Any]

#: Every field there is, as table, index of the entry and name.
FIELDS = [
    (table, index, field)
    for table, rows in tomllib.loads(SMALL).items()
    for index, row in enumerate(rows)
    for field in row
]

#: What can stand in a TOML file.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.sampled_from(["Main", "bbbbbbbb", str(FIRST), str(ALIAS)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def small() -> Document:
    """
    A new copy of the small catalogue's document.
    """
    return tomllib.loads(SMALL)


class ReadingTests(SynchronousTestCase):
    """
    A catalogue as it is read from a document.
    """

    def test_entries(self) -> None:
        """
        Every field arrives, and what a field leaves out has its default.
        """
        catalog = parse_catalog(small(), "small")
        self.assertEqual(catalog.source, "small")
        self.assertEqual(catalog.applications[APPLICATION].minimum_clients, 50)
        self.assertEqual(
            catalog.kms_ids[FIRST],
            KMSId(FIRST, "First", APPLICATION, 6, 25, False, False, "Main", ()),
        )
        self.assertEqual(
            catalog.kms_ids[SECOND],
            KMSId(SECOND, "Second", APPLICATION, 5, 5, True, True, "Other", (ALIAS,)),
        )
        first, second, third = catalog.skus.values()
        self.assertEqual(first.kms_id, FIRST)
        self.assertEqual((first.protocol, second.protocol, third.protocol), (6, 4, 5))
        self.assertEqual(
            catalog.host_build(200),
            HostBuild(200, "Two", 2, date(2022, 2, 2), False, True, None),
        )
        self.assertIs(catalog.host_build(100).may_be_server, False)
        main, other = catalog.csvlks.values()
        self.assertEqual(main.key_id_ranges, ((5, 6), (10, 20)))
        self.assertEqual(main.invalid_host_builds, {100})
        self.assertEqual(main.kms_ids, {FIRST, SECOND})
        self.assertEqual((main.guid, main.minimum_active_clients), (FIRST, 3))
        self.assertTrue(main.is_lab and main.is_preview)
        self.assertEqual(other.invalid_host_builds, frozenset())
        self.assertIsNone(other.kms_ids)
        self.assertIsNone(other.guid)
        self.assertEqual(other.minimum_active_clients, 0)
        self.assertFalse(other.is_lab or other.is_preview)

    def test_read_only(self) -> None:
        """
        The mappings of a catalogue cannot be written to.
        """
        catalog = parse_catalog(small(), "small")
        for mapping in (
            catalog.applications,
            catalog.kms_ids,
            catalog.skus,
            catalog.csvlks,
            catalog.host_builds,
        ):
            self.assertIsInstance(mapping, MappingProxyType)

    def test_file(self) -> None:
        """
        A catalogue is read from a file, also from one that an editor has given a byte order mark and CR LF.
        """
        path = Path(self.mktemp())
        path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
        catalog = load_catalog(path)
        self.assertEqual(catalog.source, str(path))
        self.assertEqual(len(catalog.skus), 3)

    def test_unreadable(self) -> None:
        """
        A file that is not there, is no TOML or no UTF-8, or asks too much of the parser, is named in one line.
        """
        path = Path(self.mktemp())
        error = self.assertRaises(CatalogError, load_catalog, path)
        self.assertEqual(str(error), f"{path}: file: cannot be read: No such file or directory")
        for data in (
            b"skus = [",
            b"\xff",
            b"a = 2024-02-30",
            b"a = " + b"1" * 5000,
            b"a = " + b"[" * 100_000,
            b"a = 1\na = 2",
        ):
            path.write_bytes(data)
            error = self.assertRaises(CatalogError, load_catalog, path)
            self.assertTrue(str(error).startswith(f"{path}: file: is no TOML: "))
            self.assertNotIn("\n", str(error))


class RefusalTests(SynchronousTestCase):
    """
    What a catalogue is refused for.
    """

    def refused(self, document: Document, entry: str, problem: str) -> None:
        """
        Assert that a document is refused in the name of this entry for this reason.
        """
        error = self.assertRaises(CatalogError, parse_catalog, document, "small")
        self.assertEqual(str(error), f"small: {entry}: {problem}")

    def spoiled(self, table: str, field: str, value: object, problem: str) -> None:
        """
        Assert that the first entry of a table is refused with this value for a field.
        """
        document = small()
        document[table][0][field] = value
        error = self.assertRaises(CatalogError, parse_catalog, document, "small")
        self.assertTrue(error.entry.startswith(f"{table} entry 1"), str(error))
        self.assertEqual(str(error), f"small: {error.entry}: {problem}")

    def test_tables(self) -> None:
        """
        There are five tables, all of them are needed, and all are arrays of tables.
        """
        for table in small():
            document = small()
            del document[table]
            self.refused(document, "file", f"lacks the table {table!r}")
            self.refused({**small(), table: {}}, table, "must be an array of tables")
            self.refused({**small(), table: ["x"]}, f"{table} entry 1", "must be a table, not 'x'")
        self.refused({**small(), "keys": []}, "file", "has an unknown table 'keys'")

    def test_no_csvlk(self) -> None:
        """
        Without any key group there is no answer to an unknown KMS id.
        """
        self.refused(
            {**small(), "csvlks": []},
            "csvlks",
            "there must be at least one, to answer for unknown KMS ids",
        )

    def test_unknown_field(self) -> None:
        """
        A field that is not known is refused, for it may be a known one misspelt.
        """
        for table in small():
            self.spoiled(table, "colour", "red", "unknown field 'colour'")

    def test_missing_field(self) -> None:
        """
        A field that has no default must be there.
        """
        optional = {
            *(
                "may_be_server",
                "is_retail",
                "is_preview",
                "is_lab",
                "aliases",
                "protocol",
                "oldest_host",
            ),
            *("minimum_active_clients", "kms_ids"),
        }
        for table, rows in small().items():
            for field in set(rows[0]) - optional - ({"guid"} if table == "csvlks" else set()):
                document = small()
                del document[table][0][field]
                error = self.assertRaises(CatalogError, parse_catalog, document, "small")
                self.assertTrue(error.entry.startswith(f"{table} entry 1"))
                self.assertTrue(str(error).endswith(f"{field} is missing"))

    def test_types(self) -> None:
        """
        A value of another type is not converted, and true is no number.
        """
        self.spoiled("kms_ids", "n_policy", True, "n_policy must be a whole number, not True")
        self.spoiled("kms_ids", "n_policy", "25", "n_policy must be a whole number, not '25'")
        self.spoiled("kms_ids", "n_policy", 25.0, "n_policy must be a whole number, not 25.0")
        self.spoiled("kms_ids", "is_retail", 1, "is_retail must be true or false, not 1")
        self.spoiled("kms_ids", "aliases", "x", "aliases must be an array of texts, not 'x'")
        self.spoiled("kms_ids", "aliases", [1], "aliases must be an array of texts, not 1")
        self.spoiled("skus", "name", 7, "name must be a text, not 7")
        self.spoiled("skus", "guid", 7, "guid must be a GUID, not 7")
        self.spoiled("skus", "kms_id", 7, "kms_id must be a GUID or its first eight digits, not 7")
        self.spoiled("csvlks", "kms_ids", [[]], "kms_ids must be an array of texts, not an array")

    def test_dates(self) -> None:
        """
        A date is a date: no text, and no time of day with it.
        """
        for table in ("host_builds", "csvlks"):
            problem = "release_date must be a date such as 2024-11-01, not "
            self.spoiled(table, "release_date", "2024-11-01", problem + "'2024-11-01'")
            moment = datetime(2024, 11, 1)  # noqa: DTZ001 - TOML knows times without a zone
            self.spoiled(table, "release_date", moment, problem + "2024-11-01 00:00:00")

    def test_ranges_of_numbers(self) -> None:
        """
        Numbers that the protocol or the extended PID has no room for are refused.
        """
        for table, field, low, high in (
            ("applications", "minimum_clients", 1, 2000),
            ("host_builds", "build", 1, 99_999),
            ("host_builds", "platform_id", 0, 99_999),
            ("kms_ids", "protocol", 4, 6),
            ("kms_ids", "n_policy", 1, 1000),
            ("skus", "number", 1, 999_999),
            ("skus", "protocol", 4, 6),
            ("csvlks", "group_id", 0, 99_999),
            ("csvlks", "oldest_host", 0, 99_999),
            ("csvlks", "minimum_active_clients", 0, 2000),
        ):
            for value in (low - 1, high + 1):
                self.spoiled(
                    table, field, value, f"{field} must be from {low} to {high}, not {value}"
                )
        self.spoiled(
            "kms_ids",
            "n_policy",
            1 << 20000,
            "n_policy must be from 1 to 1000, not a number that is far too large",
        )

    def test_names(self) -> None:
        """
        A name can be printed, and is not empty.
        """
        for table in small():
            for name in ("", " ", "x ", "a\nb", "a\x1bb", "a\u202eb"):
                self.spoiled(
                    table,
                    "name",
                    name,
                    f"name must be a printable text without space around it, not {name!r}",
                )
        self.spoiled(
            "csvlks", "key", "", "key must be a printable text without space around it, not ''"
        )

    def test_guids(self) -> None:
        """
        What is no GUID is refused.
        """
        for table in set(small()) - {"host_builds"}:
            self.spoiled(table, "guid", "x", "guid must be a GUID, not 'x'")
        self.spoiled("kms_ids", "aliases", ["x"], "aliases must be a GUID, not 'x'")

    def test_references(self) -> None:
        """
        What an entry refers to must be there, and be one.
        """
        missing = "which is not in the catalogue"
        self.spoiled("applications", "csvlk", "main", f"csvlk names 'main', {missing}")
        self.spoiled("kms_ids", "csvlk", "x", f"csvlk names 'x', {missing}")
        self.spoiled(
            "kms_ids", "application", "bbbbbbbb", f"application names 'bbbbbbbb', {missing}"
        )
        self.spoiled("skus", "kms_id", "dddddddd", f"kms_id names 'dddddddd', {missing}")
        self.spoiled("csvlks", "kms_ids", ["b"], f"kms_ids names 'b', {missing}")
        self.spoiled("csvlks", "oldest_host", 150, "oldest_host names 150, which no host build has")
        document = small()
        document["kms_ids"][1]["guid"] = "bbbbbbbb-0000-0000-0000-000000000002"
        self.refused(
            document,
            "skus entry 1 (1, 'First Thing', 'eeeeeeee-0000-0000-0000-000000000001')",
            "kms_id names 'bbbbbbbb', which fits more than one entry",
        )

    def test_duplicates(self) -> None:
        """
        No GUID, key or build stands for two things; only a key group may have the GUID of a KMS id.
        """
        sku = "eeeeeeee-0000-0000-0000-000000000001"
        first_sku = f"skus entry 1 (1, 'First Thing', '{sku}')"
        for table, index, field, value, problem in (
            ("skus", 2, "guid", sku, f"guid {sku} is already that of {first_sku}"),
            ("csvlks", 1, "guid", sku, f"guid {sku} is already that of {first_sku}"),
            ("csvlks", 1, "guid", str(FIRST), f"guid {FIRST} is already that of csvlks entry 1"),
            ("csvlks", 1, "guid", str(ALIAS), f"guid {ALIAS} is already that of kms_ids entry 2"),
            ("skus", 0, "guid", str(FIRST), f"guid {FIRST} is already that of kms_ids entry 1"),
            (
                "kms_ids",
                0,
                "aliases",
                [str(SECOND)],
                f"alias {SECOND} is already that of kms_ids entry 2",
            ),
            ("kms_ids", 0, "aliases", [sku], f"alias {sku} is already that of {first_sku}"),
            (
                "kms_ids",
                0,
                "aliases",
                [str(FIRST)],
                f"alias {FIRST} is already that of kms_ids entry 1",
            ),
            (
                "kms_ids",
                1,
                "aliases",
                [str(ALIAS)] * 2,
                f"alias {ALIAS} is already that of kms_ids entry 2",
            ),
            ("csvlks", 1, "key", "Main", "key Main is already that of csvlks entry 1"),
        ):
            document = small()
            document[table][index][field] = value
            error = self.assertRaises(CatalogError, parse_catalog, document, "small")
            self.assertTrue(error.entry.startswith(f"{table} entry {index + 1} ("))
            self.assertTrue(str(error).startswith(f"small: {error.entry}: {problem}"), str(error))

    def test_order(self) -> None:
        """
        Builds descend, and the numbers of products are their positions.
        """
        for build in (300, 301):
            document = small()
            document["host_builds"][1]["build"] = build
            self.refused(
                document,
                f"host_builds entry 2 ({build}, 'Two')",
                f"builds must descend, but {build} comes after 300",
            )
        self.spoiled("skus", "number", 2, "numbers must run 1, 2, 3 ..., but 2 stands at 1")

    def test_key_id_ranges(self) -> None:
        """
        Key id ranges are pairs, run forwards, fit nine digits, do not overlap, and there is at least one.
        """
        for ranges, problem in (
            ([], "must have at least one range"),
            (7, "must be an array of pairs, not 7"),
            ([7], "must be an array of pairs, not 7"),
            ([[7]], "must be an array of pairs, but one has 1 parts"),
            ([["7", 8]], "must be pairs of whole numbers, not '7'"),
            ([[False, 8]], "must be pairs of whole numbers, not False"),
            ([[8, 7]], "has a range that runs backwards: [8, 7]"),
            ([[-1, 7]], "must be from 0 to 999999999, not -1"),
            ([[1, 1_000_000_000]], "must be from 0 to 999999999, not 1000000000"),
            ([[5, 9], [1, 5]], "has ranges that overlap: [1, 5] and [5, 9]"),
        ):
            self.spoiled("csvlks", "key_id_ranges", ranges, f"key_id_ranges {problem}")

    @given(st.sampled_from(FIELDS), st.none() | st.floats() | st.just([None]) | st.just({"x": 1}))
    def test_names_the_entry(self, place: tuple[str, int, str], value: object) -> None:
        """
        Whichever field is broken, the error is in the name of its entry and speaks of the field.
        """
        table, index, field = place
        document = small()
        document[table][index][field] = value
        error = self.assertRaises(CatalogError, parse_catalog, document, "small")
        self.assertTrue(error.entry.startswith(f"{table} entry {index + 1}"), str(error))
        self.assertTrue(
            str(error).startswith(f"small: {error.entry}: {field} must be "), str(error)
        )

    @given(st.lists(st.tuples(st.sampled_from(FIELDS), values), min_size=1, max_size=3))
    def test_any_document(self, changes: list[tuple[tuple[str, int, str], object]]) -> None:
        """
        A document either makes a catalogue or is refused in one line; there is no third way.
        """
        document = small()
        for (table, index, field), value in changes:
            document[table][index][field] = value
        try:
            parse_catalog(document, "small")
        except CatalogError as error:
            self.assertNotIn("\n", str(error))
            self.assertTrue(str(error).isprintable(), str(error))


class LookUpTests(SynchronousTestCase):
    """
    What a host and a client ask a catalogue.
    """

    def setUp(self) -> None:
        """
        Read the small catalogue and the built-in one.
        """
        self.small = parse_catalog(small(), "small")
        self.catalog = load_catalog()

    def test_kms_id(self) -> None:
        """
        A KMS id is found by its GUID and by a made-up one that is known for it.
        """
        self.assertEqual(self.small.kms_id(SECOND), self.small.kms_ids[SECOND])
        self.assertEqual(self.small.kms_id(ALIAS), self.small.kms_ids[SECOND])
        self.assertIsNone(self.small.kms_id(UNKNOWN))

    def test_csvlk_for(self) -> None:
        """
        A KMS id has its key group, also by an alias; an unknown one has the first.
        """
        self.assertEqual(self.small.csvlk_for(FIRST).key, "Main")
        self.assertEqual(self.small.csvlk_for(SECOND).key, "Other")
        self.assertEqual(self.small.csvlk_for(ALIAS).key, "Other")
        self.assertEqual(self.small.csvlk_for(UNKNOWN).key, "Main")

    def test_names(self) -> None:
        """
        GUIDs are shown by name, and as they are if they are not known.
        """
        sku = UUID("eeeeeeee-0000-0000-0000-000000000002")
        self.assertEqual(self.small.sku_name(sku), "Second Thing")
        self.assertEqual(self.small.kms_id_name(ALIAS), "Second")
        self.assertEqual(self.small.application_name(APPLICATION), "System")
        for name in (self.small.sku_name, self.small.kms_id_name, self.small.application_name):
            self.assertEqual(name(UNKNOWN), str(UNKNOWN))

    def test_host_build(self) -> None:
        """
        A host build is found by its exact number only.
        """
        self.assertEqual(self.small.host_build(300).name, "Three")
        error = self.assertRaises(CatalogError, self.small.host_build, 299)
        self.assertEqual(str(error), "small: host build 299: is not in the catalogue")

    def test_product(self) -> None:
        """
        A product is found by number, by activation id, by name and by the beginning of a name.
        """
        for text in (
            "133",
            " 0133 ",
            "c052f164-cdf6-409a-a0cb-853ba0f0f55a",
            "{C052F164-CDF6-409A-A0CB-853BA0F0F55A}",
            "Windows Server 2025 Datacenter",
            "WINDOWS  server 2025 datacenter",
        ):
            self.assertEqual(self.catalog.product(text).number, 133, text)
        self.assertEqual(self.catalog.product("office word 2013").number, 185)
        self.assertEqual(self.catalog.product("windows server 2025 datacenter:").number, 134)

    def test_exact_name_first(self) -> None:
        """
        A name that is also the beginning of others is found; of two equal ones, the later.
        """
        self.assertEqual(self.catalog.product("Windows 10/11 Enterprise").number, 70)
        self.assertEqual(self.small.product("Second Thing").number, 3)

    @given(st.integers(1, 297))
    def test_every_product(self, number: int) -> None:
        """
        Every product of the built-in catalogue is found by its number, activation id and name.
        """
        sku = self.catalog.product(str(number))
        self.assertEqual(sku.number, number)
        self.assertEqual(self.catalog.product(str(sku.guid)), sku)
        self.assertEqual(self.catalog.product(sku.name.upper()), sku)

    def not_found(self, text: str) -> ProductNotFoundError:
        """
        Assert that there is no product of that description.
        """
        return self.assertRaises(ProductNotFoundError, self.catalog.product, text)

    def test_ambiguous(self) -> None:
        """
        The beginning of several names is none of them; up to five are suggested, in the order of their numbers.
        """
        error = self.not_found("Windows 10")
        self.assertEqual(len(error.suggestions), 5)
        self.assertEqual(error.suggestions[0], "Windows 10/11 Home")
        self.assertTrue(
            str(error).startswith("51 products have names that begin with 'Windows 10'")
        )

    def test_misspelt(self) -> None:
        """
        A name that is nearly right brings up the right one.
        """
        self.assertIn(
            "Windows Server 2022 Standard",
            self.not_found("Windos Server 2022 Standrad").suggestions,
        )

    def test_not_found(self) -> None:
        """
        What resembles nothing brings up nothing.
        """
        for text in (
            "0",
            "298",
            "9" * 5000,
            str(UNKNOWN),
            f"{{{UNKNOWN}}}",
            "\N{SUPERSCRIPT TWO}",
            "zzzz",
        ):
            self.assertEqual(self.not_found(text).suggestions, (), text[:50])

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Whatever a user types, there is a product or the one error.
        """
        try:
            sku = self.catalog.product(text)
        except ProductNotFoundError as error:
            self.assertLessEqual(len(error.suggestions), 5)
        else:
            self.assertIsInstance(sku, SKU)
