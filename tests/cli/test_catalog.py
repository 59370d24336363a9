"""
The command C{kmsproto catalog}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.main import main
from kmsproto.service.catalogs import load

KMD = Path(__file__).parents[1] / "golden" / "kmd" / "products-2026.kmd"


class ExportTests(SynchronousTestCase):
    """
    Writing a .kmd file.
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
        Run the command.
        """
        runner: Any = CliRunner()
        result: Result = runner.invoke(
            main, ["catalog", "export", "--kmd", str(self.path), *arguments]
        )
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def test_built_in(self) -> None:
        """
        The built-in catalogue is written as far as vlmcs can list it, or whole, and can be read again.
        """
        self.assertIn("were left out", self.export().output)
        self.assertEqual(len(load(self.path, True).skus), 255)
        self.assertNotIn("left out", self.export("--all-products", "--force").output)
        self.assertGreater(len(load(self.path, True).skus), 255)

    def test_same_bytes(self) -> None:
        """
        A real file is written back with the same products.
        """
        self.export("--kms-data", str(KMD), "--kms-data-only")
        self.assertEqual(load(self.path, True).skus, load(KMD, True).skus)

    def test_overwriting(self) -> None:
        """
        A file that is there is not overwritten by mistake.
        """
        self.path.write_bytes(b"mine")
        self.assertIn("--force", self.export(status=1).output)
        self.assertEqual(self.path.read_bytes(), b"mine")
        self.export("--force")
        self.assertNotEqual(self.path.read_bytes(), b"mine")
        self.assertEqual(list(self.directory.iterdir()), [self.path])

    def test_wrong(self) -> None:
        """
        What cannot be is one line.
        """
        self.assertIn("needs --kms-data", self.export("--kms-data-only", status=2).output)
        output = self.export("--kms-data", str(self.directory / "none"), status=1).output
        self.assertEqual(output.count("\n"), 1)
        self.path = self.directory / "none" / "x"
        self.assertIn("cannot be written", self.export(status=1).output)
