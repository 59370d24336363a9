"""
What C{kmsproto dns} prints, read by the programs that it is meant for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from unittest import SkipTest

from tests.integration.processes import PATIENCE, TwistdCase, run

#: A domain with two hosts, one of which lies in another zone.
_ARGUMENTS = (
    *("example.com", "kms1", "kms2.other.example:1689", "--priority", "0", "--priority", "10"),
    *("--address", "kms1=10.0.0.1", "--address", "kms1=fd00::1"),
    *("--address", "kms2.other.example=10.0.0.2"),
)
#: What a zone has besides.
_ZONE = """$TTL 60
@ IN SOA ns.example.com. admin.example.com. 1 60 60 60 60
@ IN NS ns.example.com.
ns IN A 10.0.0.9
"""


class DNSFormatsTests(TwistdCase):
    """
    Each format is good in the eyes of its own program.
    """

    def written(self, name: str) -> str:
        """
        Get the records in a format.
        """
        result = run("kmsproto", "dns", *_ARGUMENTS, "--format", name, cwd=self.directory)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout

    def check(self, program: str, content: str, *arguments: str) -> str:
        """
        Let a program check a file, and get what it says.
        """
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        found = shutil.which(program, path=path)
        if found is None:
            raise SkipTest(f"{program} is not installed")
        file = f"{self.directory}/checked"
        with open(file, "w", encoding="ascii") as written:
            written.write(content)
        result = subprocess.run(
            [found, *arguments, file], capture_output=True, text=True, timeout=PATIENCE
        )
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, 0, said)
        return said

    def test_bind(self) -> None:
        """
        named-checkzone loads the zone, and passes over nothing.
        """
        said = self.check("named-checkzone", _ZONE + self.written("bind"), "example.com")
        self.assertNotIn("ignoring out-of-zone data", said)

    def test_dnsmasq(self) -> None:
        """
        dnsmasq reads its options.
        """
        self.assertIn(
            "syntax check OK", self.check("dnsmasq", self.written("dnsmasq"), "--test", "-C")
        )

    def test_unbound(self) -> None:
        """
        unbound-checkconf has nothing to say about its local data.
        """
        self.assertIn("no errors", self.check("unbound-checkconf", self.written("unbound")))
