"""
C{kmsproto probe --write-epids}: what a host presents, as settings.
"""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from kmsproto.errors import (
    HResultError,
)
from tests.cli.probing import EPID, GUID, HARDWARE_ID, ProbeCase, failed, granted
from tests.net.wiring import catalog


class EpidFileTests(ProbeCase):
    """
    What a host presents, as settings.
    """

    def setUp(self) -> None:
        """
        Make a directory for the file.
        """
        super().setUp()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def test_settings(self) -> None:
        """
        A product of each key group is asked for, and what is presented can be read as settings.
        """
        path = self.directory / "kms.toml"
        result = self.run_probe("kms", "-G", str(path))
        self.assertEqual(result.exit_code, 0, result.output)
        csvlks = {catalog().csvlk_for(each.kms_id).key for each in self.requests}
        self.assertEqual(csvlks, {each.csvlk for each in catalog().kms_ids.values()})
        text = path.read_text()
        self.assertIn(f'"Windows={EPID}/{HARDWARE_ID.hex().upper()}"', text)
        self.assertIn(f'"Office2010={EPID}"', text)

    def test_ini(self) -> None:
        """
        For a name that ends in .ini it is written as vlmcsd reads it.
        """
        path = self.directory / "vlmcsd.ini"
        self.assertEqual(self.run_probe("kms", "-G", str(path)).exit_code, 0)
        self.assertIn(f"Windows = {EPID} / {HARDWARE_ID.hex().upper()}\n", path.read_text())

    def test_standard_output(self) -> None:
        """
        A hyphen stands for the standard output, which then has nothing else.
        """
        result = self.run_probe("kms", "-G", "-")
        self.assertTrue(result.stdout.startswith("# What kms.example:1688 presents.\n[identity]\n"))
        self.assertTrue(result.stdout.endswith("]\n"))

    def test_file_that_is_there(self) -> None:
        """
        A file is not overwritten unless that is wanted, and nothing but a file is.
        """
        path = self.directory / "kms.toml"
        path.write_text("mine")
        self.assertIn("--force", self.assertUsageError("kms", "-G", str(path)))
        self.assertEqual(path.read_text(), "mine")
        self.assertEqual(self.run_probe("kms", "-G", str(path), "--force").exit_code, 0)
        self.assertIn("[identity]", path.read_text())
        result = self.run_probe("kms", "-G", "/dev/null", "--force")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("probe: /dev/null: is no regular file", result.output)
        for place in (self.directory, self.directory / "none" / "x"):
            self.assertUsageError("kms", "-G", str(place))
        self.assertIn("name another", self.assertUsageError("kms", "-G", "x" * 5000))

    def test_not_with_others(self) -> None:
        """
        What would be overruled is refused.
        """
        path = str(self.directory / "x")
        for arguments in (
            ["-l", "1"],
            ["-4"],
            ["-K", "5"],
            ["-a", GUID],
            ["-s", GUID],
            ["-k", GUID],
            ["-r", "5"],
            ["-n", "2"],
        ):
            self.assertIn("leave", self.assertUsageError("kms", "-G", path, *arguments))

    def test_epids_that_no_file_holds(self) -> None:
        """
        An ePID that settings cannot hold is left out, and a line says so.
        """
        epids = iter(["\U0001f600", 'a"b', "a\\b", "a\nb"])
        self.hosts = {"kms": lambda body: granted(body, epid=next(epids, EPID))}
        path = self.directory / "x.toml"
        result = self.run_probe("kms", "-G", str(path))
        self.assertEqual(result.output.count("is left out"), 4)
        document = tomllib.loads(path.read_text())
        self.assertEqual(len(document["identity"]["epids"]), len(self.requests) - 4)

    def test_nothing_granted(self) -> None:
        """
        Without an answer there is no file.
        """
        self.hosts = {"kms": failed(HResultError(0xC004F042, "no"))}
        path = self.directory / "x"
        self.assertEqual(self.run_probe("kms", "-G", str(path)).exit_code, 1)
        self.assertFalse(path.exists())
