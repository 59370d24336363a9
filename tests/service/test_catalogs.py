"""
Files of products: of both formats, alone or beside the built-in ones, and files that are neither.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms import catalog as catalog_module
from kmsproto.kms.catalog import load_catalog
from kmsproto.service.catalogs import MAXIMUM_FILE, load

KMD = Path(__file__).parents[1] / "golden" / "kmd" / "products-2026.kmd"


class LoadTests(SynchronousTestCase):
    """
    Loading.
    """

    def file(self, data: bytes) -> Path:
        """
        Write a file.
        """
        path = Path(self.mktemp())
        path.write_bytes(data)
        return path

    def fails(self, path: Path) -> str:
        """
        Get the line about a file that cannot be used.
        """
        with self.assertRaises(CatalogError) as caught:
            load(path, False)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertIn(str(path), text)
        return text

    def test_kmd(self) -> None:
        """
        A .kmd file is known by its beginning; it stands alone or extends.
        """
        self.assertEqual(len(load(KMD, True).skus), 252)
        self.assertGreaterEqual(len(load(KMD, False).skus), len(load_catalog().skus))

    def test_toml(self) -> None:
        """
        Our own format is read too.
        """
        data = Path(catalog_module.__file__).with_name("catalog.toml").read_bytes()
        self.assertEqual(load(self.file(data), True).skus, load_catalog().skus)

    def test_neither(self) -> None:
        """
        What is neither is refused in one line that says what is wanted.
        """
        self.assertIn("is neither a .kmd file", self.fails(self.file(b"x\0y")))
        self.assertIn("is no TOML", self.fails(self.file(b"=")))

    def test_unreadable(self) -> None:
        """
        A file that is not there, no file, or too large is refused with the reason; a pipe is not waited for.
        """
        self.assertIn("No such file", self.fails(Path(self.mktemp())))
        directory = Path(self.mktemp())
        directory.mkdir()
        self.fails(directory)
        pipe = Path(self.mktemp())
        os.mkfifo(pipe)
        self.assertIn("no regular file", self.fails(pipe))
        self.assertIn("more than", self.fails(self.file(b"x" * (MAXIMUM_FILE + 1))))
