"""
The commands on a RPC stack that shares nothing with ours: a KMS host on the server of impacket.

Its departures from the standards can be read in its code, and every finding must be one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.foreign_hosts import EPID, HARDWARE_ID
from tests.integration.processes import TwistdCase, environment, run

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that it has for each answer, and after which no further case is begun.
BOUNDS = ("--timeout", "0.5", "--limit", "15")

#: Cases that it does not survive are left out.
VERDICTS = {
    "header.bind-version-4.0": "fails",
    # It acknowledges with the flags and sizes that it was sent.
    "header.flags-all": "fails",
    "bind.sizes-none": "fails",
    "bind.sizes-ordinary": "passed",
    # All are of the group 0x1234.
    "bind.unknown-group": "fails",
    # What is refused has the result of a user, and names NDR.
    "bind.foreign-interface": "fails",
    "bind.unknown-transfer": "fails",
    "bind.result-layout": "fails",
    "bind.second": "fails",
    "features.offered": "note",
    "features.windows": "not applicable",
    # The last interface that was bound, on whatever connection, is that of all contexts.
    "bind.first-request": "fails",
    "fault.context-9": "fails",
    # Faults are short, and have the number of another protocol.
    "fault.operation-1": "fails",
    # It knows no alter_context.
    "alter.new-context": "fails",
    "request.served": "passed",
    "request.served-ndr64": "not applicable",
    # It repeats the alloc_hint of the request.
    "request.response-fields": "fails",
    "request.pipelined": "passed",
    # Of a call in fragments it takes the last for the whole.
    "fragments.empty": "fails",
    "security.bind": "fails",
    "kms.version-4": "passed",
    "kms.version-5": "passed",
    "kms.version-6": "passed",
    "kms.unsupported-7.0": "passed",
    "identity.form": "passed",
    "identity.connections": "passed",
    "connection.many-calls": "passed",
    "connection.several": "warning",
    "management.offered": "warning",
    "management.statistics": "not applicable",
}
#: What it does not survive: it asks for the rest of a PDU for ever, behind its client's end.
FATAL = "header.big-endian-bind"


class ImpacketHostTests(TwistdCase):
    """
    What the commands make of a host on impacket.
    """

    timeout = 120
    if find_spec("impacket") is None:  # pragma: no cover
        skip = "impacket is not installed"

    def setUp(self) -> None:
        """
        Start a host.
        """
        super().setUp()
        host = subprocess.Popen(
            [sys.executable, "-m", "tests.impacket_host", "0"],
            cwd=ROOT,
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # It tells of all that it does not know; nobody reads that.
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(host.communicate)
        # It ends by nothing else.
        self.addCleanup(host.kill)
        assert host.stdout is not None
        self.target = f"127.0.0.1:{int(host.stdout.readline())}"

    def command(self, status: int, *arguments: str) -> str:
        """
        Run a command on the host that ends with a status and says nothing on the standard error.

        @return: What it printed.
        """
        result = run("kmsproto", *arguments, self.target, cwd=self.directory)
        self.assertEqual((result.returncode, result.stderr), (status, ""), result.stdout)
        return result.stdout

    def audit(self, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Run an audit that finds failures.

        @return: The report, and the results of its cases by their names.
        """
        report = json.loads(self.command(1, "audit", "--json", *BOUNDS, *arguments))
        return report, {case["case"]: case for case in report["cases"]}

    def test_probe(self) -> None:
        """
        All KMS versions are granted, and what is found is what the host does.
        """
        for version in (4, 5, 6):
            report = json.loads(self.command(0, "probe", "--json", "--protocol", str(version)))
            (result,) = report["results"]
            self.assertTrue(result["granted"])
            self.assertEqual(result["transfer_syntax"], "NDR")
            self.assertEqual(result["protocol_version"], f"{version}.0")
            self.assertEqual(result["response"]["epid"], EPID)
            self.assertEqual(
                result["response"]["hardware_id"],
                HARDWARE_ID.hex().upper() if version == 6 else "",
            )
            self.assertTrue(all(check["passed"] for check in result["checks"]))
            found = json.dumps(report)
            self.assertIn("context 1 is not accepted, but its transfer syntax is not zero", found)
            self.assertRegex(found, r"the alloc_hint is 26[08] for a stub of \d+ bytes")
            self.assertRegex(found, "the referent id of the response is 0x0000[0-9A-F]{4}")

    def test_probe_again(self) -> None:
        """
        Several requests go over one connection, and over one each.
        """
        for option in ((), ("--fresh-connections",), ("--at-once", "3")):
            report = json.loads(self.command(0, "probe", "--json", "-n", "3", *option))
            self.assertEqual((report["requests"], report["granted"]), (3, 3))

    def test_check(self) -> None:
        """
        It is a good host to a monitor.
        """
        said = self.command(0, "check")
        self.assertTrue(said.startswith(f"KMS OK - {self.target} grants "), said)

    def test_audit(self) -> None:
        """
        Cases that it survives come to the verdicts which its code deserves.
        """
        report, cases = self.audit(*(f"--case={name}" for name in VERDICTS))
        found = {name: case["verdict"] for name, case in cases.items()}
        self.assertEqual(found, VERDICTS)
        self.assertFalse(report["lost"])
        self.assertIn("(1,2); expected: (0,0), (2,2)", cases["bind.unknown-transfer"]["did"])

    def test_audit_lost(self) -> None:
        """
        The case that leaves it in an endless loop is blamed, and no other, and the audit ends.
        """
        # The one before makes no look at the host necessary.
        names = ("header.alter-version", FATAL, "header.big-endian-request")
        report, cases = self.audit(*(f"--case={name}" for name in names))
        found = {name: (case["verdict"], case["fatal"]) for name, case in cases.items()}
        expected = [("noted", False), ("fails", True), ("not tried", False)]
        self.assertEqual(found, dict(zip(names, expected, strict=True)))
        self.assertIn("and then did not answer any more", cases[FATAL]["did"])
        self.assertTrue(report["lost"])
        # Nobody else finds a host there.
        result = run("kmsproto", "check", "--timeout", "1", self.target, cwd=self.directory)
        self.assertEqual((result.returncode, result.stderr), (2, ""), result.stdout)
        self.assertTrue(result.stdout.startswith("KMS CRITICAL"), result.stdout)
