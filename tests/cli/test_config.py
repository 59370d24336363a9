"""
The command C{kmsproto config}.
"""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.main import main
from kmsproto.service.settings import SETTINGS
from kmsproto.service.sources import from_document
from kmsproto.service.template import render_file, render_reference, render_vlmcsd
from tests.cli.running import runner


class ConfigTests(SynchronousTestCase):
    """
    What it prints.
    """

    def setUp(self) -> None:
        """
        Make a directory.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def run_config(self, *arguments: str, status: int = 0, **environment: str) -> Result:
        """
        Run it.
        """
        result: Result = runner().invoke(main, ["config", *arguments], env=environment)
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def file(self, name: str, text: str) -> str:
        """
        Write a file.
        """
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def test_text(self) -> None:
        """
        Every setting stands there with its value and where that comes from.
        """
        ini = self.file("a.ini", "Port = 4\nUser = x\nFreeBind = 1\nListen = ::1\n")
        text = self.run_config("--", "--lcid", "1031", KMSPROTO_VLMCSD_INI=ini).output
        lines = {line.split()[0]: line for line in text.splitlines()}
        self.assertTrue({setting.name for setting in SETTINGS} <= set(lines))
        self.assertIn("  1031  (--lcid)", lines["lcid"])
        self.assertIn(f"  4  ({ini}: line 1: Port)", lines["port"])
        self.assertIn("  on  (", lines["free-bind"])
        self.assertIn("  ::1  (", lines["listen"])
        self.assertIn("  -  (default)", lines["host-build"])
        self.assertIn("ignored: User", text)

    def test_json(self) -> None:
        """
        The same as JSON.
        """
        text = self.run_config("--json", "--", "--allow=10.0.0.0/8", "--config=/dev/null").output
        document = json.loads(text)
        self.assertEqual(document["allow"], {"value": ["10.0.0.0/8"], "origin": "--allow"})
        self.assertEqual(document["idle-timeout"], {"value": 30.0, "origin": "default"})
        self.assertEqual(document["config"]["value"], "/dev/null")

    def test_wrong(self) -> None:
        """
        What is wrong is one line and a status.
        """
        for arguments in (["--", "--port", "x"], ["--", "--prot"], ["--from-vlmcsd", "/nowhere"]):
            output = self.run_config(*arguments, status=1).output
            self.assertEqual(output.count("\n"), 1)
            self.assertTrue(output.startswith("main config: "), output)

    def test_check(self) -> None:
        """
        A file can be checked.
        """
        good = self.file("good.toml", render_file({}))
        self.assertIn("can be used", self.run_config("--check", good).output)
        bad = self.file("bad.toml", "[listen]\nport = 'x'\n")
        self.assertIn(
            f"{bad}: listen.port: 'x' is not", self.run_config("--check", bad, status=1).output
        )

    def test_check_is_a_start(self) -> None:
        """
        What a host would refuse at its start is refused here too.
        """
        for text in (
            "[activation]\ndeny_products = ['zz']\n",
            "[catalog]\nkms_data = '/nowhere.kmd'\n",
            "[listen]\nendpoints = ['foo']\n",
            "[identity]\nhost_build = 12345\n",
        ):
            self.run_config("--check", self.file("bad.toml", text), status=1)

    def test_from_vlmcsd(self) -> None:
        """
        A vlmcsd.ini becomes a file of settings that means the same.
        """
        ini = self.file(
            "v.ini",
            "Listen = 127.0.0.1:1\nRenewalInterval = 5d\nUseNDR64 = FALSE\nPidFile = x\n"
            "Windows = 03612-04919-019-949372-03-1033-26100.0000-0382025\n",
        )
        result = self.run_config("--from-vlmcsd", ini)
        text = result.stdout
        source = from_document(text, "x")
        self.assertEqual(
            {name: given.texts for name, given in source.items()},
            {
                "listen": ("127.0.0.1:1",),
                "renewal-interval": ("5d",),
                "ndr64": ("off",),
                "epid": ("Windows=03612-04919-019-949372-03-1033-26100.0000-0382025",),
            },
        )
        self.assertIn("# Made from v.ini of vlmcsd.", text)
        bad = self.file("b.ini", "Port = x\n")
        self.assertIn(
            "line 1: Port: 'x' is not", self.run_config("--from-vlmcsd", bad, status=1).output
        )

    def test_made(self) -> None:
        """
        The files that are made from the settings can be had.
        """
        for option, text in (
            ("--template", render_file({})),
            ("--reference", render_reference()),
            ("--vlmcsd-table", render_vlmcsd()),
        ):
            self.assertEqual(self.run_config(option).output, text)
