"""
The command C{kmsproto products}.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.main import main
from kmsproto.cli.products import ROWS, products
from kmsproto.kms.catalog import load_catalog

CATALOG = load_catalog()
KMD = Path(__file__).resolve().parent.parent / "golden" / "kmd" / "products-2020.kmd"


class _ProductsCase(SynchronousTestCase):
    """
    Runs the command.
    """

    def invoke(self, *arguments: str, status: int = 0) -> Result:
        """
        Run it, and expect a status.
        """
        result = CliRunner().invoke(main, ["products", *arguments])
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def lines(self, *arguments: str) -> list[str]:
        """
        Run it, and give the lines back.
        """
        return self.invoke(*arguments).output.splitlines()

    def json(self, *arguments: str) -> Any:
        """
        Run it with JSON.
        """
        return json.loads(self.invoke(*arguments, "--json").output)


class ListTests(_ProductsCase):
    """
    The list as users know it.
    """

    def test_all(self) -> None:
        """
        All products are listed by their numbers, with name, protocol and count of clients.
        """
        heading, *lines = self.lines()
        self.assertEqual(heading.split()[:2], ["no.", "product"])
        self.assertEqual(len(lines), len(CATALOG.skus))
        for line, sku in zip(lines, CATALOG.skus.values(), strict=True):
            number, rest = line.split(None, 1)
            self.assertEqual(int(number), sku.number)
            self.assertTrue(rest.startswith(sku.name))
            self.assertRegex(rest, rf" {sku.protocol} +{CATALOG.kms_ids[sku.kms_id].n_policy}  ")

    def test_filters(self) -> None:
        """
        Products of one protocol and of one application can be picked out, by name and by GUID.
        """
        picked = self.json("--protocol", "5")
        self.assertEqual({row["protocol"] for row in picked}, {5})
        self.assertEqual(len(picked), sum(sku.protocol == 5 for sku in CATALOG.skus.values()))
        by_name = self.json("--application", "office 2010")
        self.assertEqual({row["application"] for row in by_name}, {"Office 2010"})
        self.assertEqual(self.json("--application", "59a52881"), by_name)
        both = self.json("server", "--protocol", "4", "--application", "windows")
        self.assertTrue(both)
        for row in both:
            self.assertEqual((row["protocol"], row["application"]), (4, "Windows"))
            self.assertIn("Server", row["name"])

    def test_extended(self) -> None:
        """
        A file of products can be added.
        """
        known = {row["number"] for row in self.json("-j", str(KMD))}
        self.assertGreaterEqual(len(known), len(CATALOG.skus))
        self.assertIn("none", self.invoke("-j", "/none.kmd", status=2).output)

    def test_csv(self) -> None:
        """
        CSV has a header and lines that end with CRLF, and says the same as JSON.
        """
        text = self.invoke("--csv").stdout_bytes.decode()
        self.assertEqual(text.count("\r\n"), len(CATALOG.skus) + 1)
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        for row, document in zip(rows, self.json(), strict=True):
            self.assertEqual(list(row), list(document))
            self.assertEqual(row["name"], document["name"])
            self.assertEqual(row["is_retail"], str(document["is_retail"]).lower())

    def test_no_keys(self) -> None:
        """
        No product key is told.
        """
        self.assertIsNone(
            re.search(r"\b[0-9A-Z]{5}(-[0-9A-Z]{5}){4}\b", self.invoke("--json").output)
        )


class SearchTests(_ProductsCase):
    """
    Finding products.
    """

    def test_words(self) -> None:
        """
        All words must be somewhere in the names, in any order and case, as one argument or several.
        """
        found = self.json("2019", "OFFICE")
        self.assertTrue(found)
        self.assertEqual(found, self.json("office 2019"))
        for row in found:
            self.assertIn("2019", row["name"] + row["kms_id_name"])

    def test_number(self) -> None:
        """
        A number is that of a product, with zeros before it too; one that no product has is a word.
        """
        [seventeen] = self.json("17")
        self.assertEqual(seventeen["number"], 17)
        self.assertEqual(self.json("017"), [seventeen])
        self.assertGreater(len(self.json("2019")), 10)

    def test_guid(self) -> None:
        """
        A GUID, in braces or not, or its beginning finds the product; that of a KMS id all its products.
        """
        sku = next(iter(CATALOG.skus.values()))
        for text in (str(sku.guid), f"{{{sku.guid}}}".upper(), str(sku.guid)[:8]):
            self.assertEqual([row["number"] for row in self.json(text)], [sku.number], text)
        of_id = self.json(str(sku.kms_id))
        self.assertEqual({row["kms_id"] for row in of_id}, {str(sku.kms_id)})
        self.assertEqual(
            len(of_id), sum(each.kms_id == sku.kms_id for each in CATALOG.skus.values())
        )

    def test_exact_name(self) -> None:
        """
        A whole name finds only what is called so, though others begin with it.
        """
        self.assertEqual([row["number"] for row in self.json("windows vista business")], [1])

    def test_nothing(self) -> None:
        """
        When nothing fits, one line says so and what to do, and the status is 1.
        """
        for arguments, hint in (
            (("windws vista busines",), "did you mean 'Windows Vista Business'"),
            (("\x1b[31mqqqq",), "list all with kmsproto products"),
            (("qqqq", "--csvlks"), "list all with kmsproto products --csvlks"),
            (("--application", "qqqq"), "list all with kmsproto products"),
        ):
            result = self.invoke(*arguments, status=1)
            [line] = result.output.splitlines()
            self.assertIn(hint, line)
            self.assertNotIn("\x1b", line)
        self.assertIn("list all", self.invoke("0" * 5000 + "x", status=1).output)


class FullTests(_ProductsCase):
    """
    One product in full.
    """

    def test_in_full(self) -> None:
        """
        The ids, the protocol, the host key that answers, and those that activate it with their hosts are shown.
        """
        sku = CATALOG.product("Windows Server 2022 Datacenter")
        text = self.invoke("Windows", "Server", "2022", "Datacenter").output
        self.assertTrue(text.startswith(f"{sku.number}  {sku.name}\n"))
        for part in (str(sku.guid), str(sku.kms_id), "55c92734", "protocol        6", "04919"):
            self.assertIn(part, text)
        self.assertRegex(text, r"Windows Server 2025 +26100, 20348, 17763\n")
        self.assertIn("is not known: WindowsServer2022", text)
        self.assertIn("also known as", text)
        self.assertEqual(self.invoke(str(sku.number)).output, text)
        self.assertEqual(self.invoke(str(sku.guid)).output, text)

    def test_json(self) -> None:
        """
        JSON has the host keys too, each with what it activates or that this is not known.
        """
        [document] = self.json("Windows 10/11 Enterprise")
        kms_id = CATALOG.kms_ids[CATALOG.product("Windows 10/11 Enterprise").kms_id]
        self.assertEqual(document["answered_by"]["key"], "Windows")
        self.assertEqual(
            {row["key"] for row in document["activated_by"]},
            {
                csvlk.key
                for csvlk in CATALOG.csvlks.values()
                if kms_id.guid in (csvlk.kms_ids or ())
            },
        )
        for row in document["activated_by"]:
            self.assertIn(kms_id.name, row["activates"])
        for key in document["not_known_of"]:
            self.assertIsNone(CATALOG.csvlks[key].kms_ids)

    def test_retail(self) -> None:
        """
        That no key on sale activates a product is said, and that the one that answers does not.
        """
        text = self.invoke("Windows 8 Core Single Language").output
        self.assertIn("kind            retail", text)
        self.assertIn("No host key that is sold", text)
        self.assertIn("The key that answers, Windows, does not activate it", text)
        self.assertRegex(text, r"keeps to itself activate it too: \d+\.")

    def test_show(self) -> None:
        """
        All that fit can be shown in full.
        """
        found = self.json("office", "2010")
        text = self.invoke("office", "2010", "--show").output
        self.assertEqual(text.count("SKU id"), len(found))
        self.assertEqual(len(self.json("office", "2010", "-s")), len(found))
        self.assertIn("answered_by", self.json("office", "2010", "-s")[0])

    def test_every_product(self) -> None:
        """
        Every product can be shown.
        """
        text = self.invoke("--show").output
        self.assertEqual(text.count("SKU id"), len(CATALOG.skus))


class OtherListTests(_ProductsCase):
    """
    The lists of what is no product.
    """

    def test_kinds(self) -> None:
        """
        KMS ids, host keys, host builds and applications are listed in full, for people, JSON and CSV alike.
        """
        for name, entries in (
            ("kms-ids", CATALOG.kms_ids),
            ("csvlks", CATALOG.csvlks),
            ("host-builds", CATALOG.host_builds),
            ("applications", CATALOG.applications),
        ):
            rows = self.json(f"--{name}")
            self.assertEqual([row["name"] for row in rows], [e.name for e in entries.values()])
            self.assertEqual(len(self.lines(f"--{name}")), len(entries) + 1)
            text = self.invoke(f"--{name}", "--csv").stdout_bytes.decode()
            self.assertEqual(len(list(csv.reader(io.StringIO(text, newline="")))), len(entries) + 1)

    def test_facts(self) -> None:
        """
        They have what the catalogue has, and say what is not known.
        """
        keys = {row["key"]: row for row in self.json("--csvlks")}
        self.assertIsNone(keys["WindowsServer2022"]["activates"])
        self.assertEqual(keys["Office2016"]["activates"], ["Office 2016 (Volume)"])
        self.assertEqual(keys["Office2016"]["key_id_ranges"], ["437000000-458999999"])
        [build] = self.json("--host-builds", "26100")
        self.assertEqual((build["platform_id"], build["known_as_host"]), (3612, True))
        self.assertIn("not known", self.invoke("--host-builds", "28000").output)
        [kms_id] = self.json("--kms-ids", "10a7e9fb-ca8c-5352-88f5-91b8dbe13b22")
        self.assertEqual(kms_id["name"], "Windows Server 2022")
        [application] = self.json("--applications", "office 2010")
        self.assertEqual(application["minimum_clients"], 10)

    def test_filter(self) -> None:
        """
        KMS ids can be filtered as products are; what has no protocol cannot.
        """
        self.assertEqual(
            {row["protocol"] for row in self.json("--kms-ids", "--protocol", "5")}, {5}
        )
        self.assertIn("--protocol", self.invoke("--csvlks", "--protocol", "5", status=2).output)
        self.invoke("--host-builds", "--application", "windows", status=2)

    def test_usage(self) -> None:
        """
        What contradicts itself is refused.
        """
        self.invoke("--json", "--csv", status=2)
        self.assertIn("--show", self.invoke("--show", "--csvlks", status=2).output)

    def test_listings(self) -> None:
        """
        Whatever people are shown or search in is a field of the rows.
        """
        for listing in ROWS.values():
            row = listing.rows(CATALOG)[0]
            shown = {field for field, _ in listing.columns}
            self.assertLessEqual(shown | set(listing.searched), set(row))

    def test_from_another_command(self) -> None:
        """
        Another command can print the list.
        """
        result = CliRunner().invoke(products, [])
        self.assertEqual(result.output, self.invoke().output)
