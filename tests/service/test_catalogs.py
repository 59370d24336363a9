"""
Tests of L{kmsproto.service.catalogs}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms import catalog as catalog_module
from kmsproto.kms.catalog import load_catalog
from kmsproto.service.catalogs import MAXIMUM_FILE, load, parse_file, read_file

KMD = Path(__file__).resolve().parent.parent / "golden" / "kmd" / "products-2026.kmd"

TOML = """
host_builds = []
[[applications]]
guid = "aaaaaaaa-0000-0000-0000-000000000001"
csvlk = "Mine"
minimum_clients = 50
name = "System"
[[kms_ids]]
guid = "bbbbbbbb-0000-0000-0000-000000000001"
application = "aaaaaaaa"
csvlk = "Mine"
protocol = 6
n_policy = 25
name = "System One"
[[skus]]
number = 1
guid = "cccccccc-0000-0000-0000-000000000001"
kms_id = "bbbbbbbb"
name = "System One Home"
[[csvlks]]
key = "Mine"
name = "System Keys"
group_id = 1
key_id_ranges = [[1, 9]]
release_date = 2024-01-01
"""


class CatalogsTests(SynchronousTestCase):
    """
    Reading a file, and making a catalogue of it.
    """

    def setUp(self) -> None:
        """
        Make a directory.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def file(self, data: bytes) -> Path:
        """
        Write a file.
        """
        path = self.directory / "catalog"
        path.write_bytes(data)
        return path

    def refused(self, path: Path, *parts: str) -> None:
        """
        Assert that a file is refused with one line that names it and says why.
        """
        text = str(self.assertRaises(CatalogError, load, path, True))
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertNotIn(": file:", text)
        for part in (str(path), *parts):
            self.assertIn(part, text)

    def test_kmd_alone(self) -> None:
        """
        A file of vlmcsd can stand alone.
        """
        catalog = load(KMD, True)
        self.assertEqual(catalog.source, str(KMD))
        self.assertEqual((len(catalog.skus), len(catalog.csvlks)), (252, 7))
        self.assertTrue(all(each.default_epid for each in catalog.csvlks.values()))

    def test_kmd_extends(self) -> None:
        """
        It can extend the built-in catalogue.
        """
        catalog = load(KMD, False)
        self.assertEqual(list(catalog.skus), list(load_catalog().skus))
        self.assertTrue(catalog.csvlks["Windows"].default_epid)
        self.assertFalse(catalog.csvlks["WinChinaGov"].default_epid)
        self.assertIn(str(KMD), catalog.source)

    def test_toml(self) -> None:
        """
        So can a file of our own.
        """
        path = self.file(TOML.encode())
        self.assertEqual(list(load(path, True).csvlks), ["Mine"])
        catalog = load(path, False)
        self.assertEqual(catalog.product("system one home").number, len(load_catalog().skus) + 1)
        self.assertEqual(list(catalog.csvlks), [*load_catalog().csvlks, "Mine"])

    def test_by_content(self) -> None:
        """
        The kind is told by the first bytes, not by the name, and the parts do together what L{load} does.
        """
        path = self.file(KMD.read_bytes())
        self.assertEqual(read_file(path), KMD.read_bytes())
        self.assertEqual(parse_file(read_file(path), "x", True).skus, load(path, True).skus)

    def test_unreadable(self) -> None:
        """
        What is not there, or is no regular file, is refused without waiting.
        """
        self.refused(self.directory / "missing", "No such file")
        self.refused(self.directory, "no regular file")
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        self.refused(pipe, "no regular file")
        self.refused(Path("/dev/zero"), "no regular file")
        error = self.assertRaises(CatalogError, read_file, Path("a\0b"))
        self.assertIn("cannot be read", str(error))
        self.assertEqual((error.source, error.entry), ("a\0b", "file"))

    def test_size(self) -> None:
        """
        A file may have as many bytes as the limit says, and not one more.
        """
        path = self.file(TOML.encode().ljust(MAXIMUM_FILE, b"\n"))
        self.assertEqual(len(load(path, True).skus), 1)
        with path.open("ab") as file:
            file.write(b"\n")
        self.refused(path, f"more than the {MAXIMUM_FILE} bytes")

    def test_neither(self) -> None:
        """
        What is neither kind of file is refused, and damage in either is told.
        """
        self.refused(self.file(b"\x7fELF\0\0"), "neither a .kmd file", "nor TOML")
        self.refused(self.file(b"kmd\0" + KMD.read_bytes()[4:]), "neither")
        self.refused(self.file(b"[["), "neither a .kmd file", "nor TOML: ", "(at end of document)")
        self.refused(self.file(b"\xff" * 999), "neither a .kmd file", "nor TOML: it is no UTF-8;")
        self.refused(self.file(b"name = 1 2\n"), "neither a .kmd file", "(at line 1, column 10);")
        self.refused(self.file(b"skus = []\n"), "lacks the table 'applications'; name a .kmd file")
        for nothing in (b"", b"\n \r\n"):
            self.refused(self.file(nothing), "catalog: is empty; name a .kmd file")
        self.refused(self.file(KMD.read_bytes()[:-1]), "does not end with a NUL")

    def test_contradiction(self) -> None:
        """
        A file that can stand alone may still contradict the built-in catalogue.
        """
        known = next(iter(load_catalog().applications))
        path = self.file(TOML.replace("cccccccc-0000-0000-0000-000000000001", str(known)).encode())
        self.assertTrue(load(path, True))
        text = str(self.assertRaises(CatalogError, load, path, False))
        self.assertIn("is a product here, but an application in the built-in catalogue", text)


class BuiltInTests(SynchronousTestCase):
    """
    The built-in catalogue as a file of its own.
    """

    def test_toml(self) -> None:
        """
        It is read like any other file in our format, and has the same products.
        """
        path = Path(catalog_module.__file__).with_name("catalog.toml")
        self.assertEqual(load(path, True).skus, load_catalog().skus)
