"""
The commands C{kmsproto catalog}.
"""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.catalog import catalog
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.kmd import read_kmd
from kmsproto.kms.kmd_catalog import write_kmd
from tests.cli.running import runner

KMD = Path(__file__).resolve().parent.parent / "golden" / "kmd" / "products-2020.kmd"


class ExportTests(SynchronousTestCase):
    """
    Writing a file for vlmcsd.
    """

    def setUp(self) -> None:
        """
        Make a directory.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "out.kmd"

    def export(self, *arguments: str, status: int = 0) -> Result:
        """
        Run it.
        """
        result: Result = runner().invoke(catalog, ["export", "--kmd", str(self.path), *arguments])
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def test_built_in(self) -> None:
        """
        The built-in catalogue is written; what is in the file and what was left out is told.
        """
        output = self.export().output
        self.assertEqual(self.path.read_bytes(), write_kmd(load_catalog()))
        self.assertIn("8 CSVLKs", output)
        self.assertIn("255 SKUs", output)
        self.assertIn(f"from 256 to {len(load_catalog().skus)} were left out", output)

    def test_all_products(self) -> None:
        """
        All products are written if that is wanted.
        """
        output = self.export("--all-products").output
        count = len(load_catalog().skus)
        self.assertEqual(len(read_kmd(self.path.read_bytes(), "x").skus), count)
        self.assertNotIn("left out", output)

    def test_standard_output(self) -> None:
        """
        On the standard output there is the file alone, and what is told about it is on the standard error.
        """
        self.path = Path("-")
        result = self.export()
        self.assertEqual(result.stdout_bytes, write_kmd(load_catalog()))
        self.assertIn("-: 8 CSVLKs", result.stderr)

    def test_data(self) -> None:
        """
        A file of products can stand alone, or extend the built-in catalogue.
        """
        self.export("--kms-data", str(KMD), "--kms-data-only")
        self.assertEqual(self.path.read_bytes(), KMD.read_bytes())
        self.export("--kms-data", str(KMD), "--force")
        file = read_kmd(self.path.read_bytes(), "x")
        self.assertEqual((len(file.csvlks), file.csvlks[0].name), (8, "Windows Server 2019"))

    def test_force(self) -> None:
        """
        A file that is there is only overwritten if that is wanted, and nothing else is left behind.
        """
        self.path.write_text("precious")
        output = self.export(status=1).output
        self.assertEqual(len(output.splitlines()), 1, output)
        self.assertIn("--force", output)
        self.assertEqual(self.path.read_text(), "precious")
        self.export("--force")
        self.assertEqual(os.listdir(self.directory), ["out.kmd"])
        self.assertTrue(read_kmd(self.path.read_bytes(), "x"))

    def test_part_in_the_way(self) -> None:
        """
        What another left under the name for the unfinished file is not touched.
        """
        part = self.directory / "out.kmd.new"
        part.write_text("x")
        output = self.export("--force", status=1).output
        self.assertIn("out.kmd.new: is there already; remove it", output)
        self.assertEqual(part.read_text(), "x")

    def test_unwritable(self) -> None:
        """
        A file that cannot be written is told in one line.
        """
        self.path = self.directory / "missing" / "out.kmd"
        output = self.export(status=1).output
        self.assertEqual(len(output.splitlines()), 1, output)
        self.assertIn("cannot be written: No such file", output)

    def test_bad_data(self) -> None:
        """
        A file of products that cannot be used is told in one line, and nothing is written.
        """
        output = self.export("--kms-data", str(self.directory / "none"), status=1).output
        self.assertEqual(len(output.splitlines()), 1, output)
        self.assertIn("none", output)
        self.assertFalse(self.path.exists())

    def test_usage(self) -> None:
        """
        That a file stands alone means nothing without one.
        """
        self.assertIn("needs --kms-data", self.export("--kms-data-only", status=2).output)
