"""
C{kmsproto audit} as its users run it: against our host, hosts of other make, no host, and what is no host.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

from kmsproto.audit.battery import CASES
from tests.foreign_hosts import ForeignHost, PyKmsLike, VlmcsdLike, running
from tests.integration.processes import (
    PATIENCE,
    TwistdCase,
    environment,
    free_port,
    has_ipv6,
    script,
)

#: Seconds that an audit may take on a busy machine.
LONGEST = 200.0
#: The verdicts that say that a rule was broken, and the one that says that it could not be tried.
BROKEN = ("fails", "warning", "note", "undecided")

#: For each row of the table that knows of a departure, the cases that find it on the stand-in; what hosts are free
#: to do (2.9, 2.10, 3.6 to 3.8, 7.8: the end without a word) is noted, and no failure.
DEPARTURES = {
    "2.1": ["header.bind-version-4.0", "header.bind-version-5.1", "header.bind-version-6.0"],
    "2.2": ["header.alter-version", "header.request-version"],
    "2.3": ["header.big-endian-bind", "header.big-endian-fault", "header.big-endian-request"],
    "2.4": ["header.drep-not-echoed"],
    "2.7": ["header.empty-bind", "header.empty-request"],
    "2.8": ["header.short-request"],
    "2.11": ["header.auth-length-bind", "header.auth-length-request"],
    "2.14": ["header.flags-all", "header.flags-no-multiplexing", "header.flags-none"],
    "2.15": ["header.no-authentication", "header.own-version"],
    "3.1": ["bind.sizes-none", "bind.sizes-unequal", "bind.sizes-windows"],
    "3.2": ["bind.promise"],
    "3.4": ["bind.join-group"],
    "3.5": ["bind.ended-group", "bind.unknown-group"],
    "3.9": ["bind.reserved"],
    "3.10": ["bind.foreign-interface", "bind.interface-major", "bind.interface-minor"],
    "3.11": ["bind.ndr-version", "bind.ndr64-version"],
    "3.12": ["bind.preferred-transfer"],
    "3.14": ["bind.refused-interface"],
    "3.15": ["bind.accepted-is-callable"],
    "3.17": ["bind.shared-id"],
    "3.18": ["bind.contexts-255", "bind.contexts-31"],
    "3.19": ["bind.context-65535"],
    "3.21": ["bind.second"],
    "3.23": ["bind.first-alter", "bind.first-cancel", "bind.first-request-65535"],
    "4.4": ["features.additional"],
    "4.5": ["features.twice"],
    "4.6": ["features.version"],
    "4.7": ["features.alter"],
    "5.2": ["request.flags"],
    "5.3": ["request.object", "request.object-cut"],
    "5.4": ["fault.call-id", "fault.context-65535"],
    "5.5": ["fault.operation-1", "fault.operation-65535"],
    "5.6": [
        "request.count-huge",
        "request.stub-cut",
        "request.stub-cut-ndr64",
        "request.stub-empty",
    ],
    "5.7": ["request.count-larger", "request.count-ndr64", "request.count-smaller"],
    "5.9": ["request.wrong-syntax"],
    "5.10": ["request.padding-large", "request.verification"],
    "6.1": ["fragments.empty", "fragments.many", "fragments.object", "fragments.two"],
    "6.3": ["fragments.second-first"],
    "6.4": ["fragments.last-only", "fragments.middle-only"],
    "6.5": ["fragments.other-call"],
    "6.8": ["fragments.operation"],
    "6.10": ["fragments.pending-cancel"],
    "6.11": ["fragments.alter-between"],
    "7.1": ["alter.foreign-interface", "alter.new-context"],
    "7.2": ["alter.sizes"],
    "7.5": ["alter.other-transfer"],
    "7.10": ["security.alter"],
    "8.1": ["security.bind"],
    "8.2": ["security.none"],
    "9.1": ["other.cancel"],
    "9.2": ["other.cancel-open"],
    "9.3": ["other.orphaned"],
    "9.4": ["other.orphaned-open"],
    "10": ["fault.zeros"],
}


class AuditCase(TwistdCase):
    """
    The command, in a process of its own.
    """

    timeout = 300

    def audit(self, *arguments: str) -> CompletedProcess[str]:
        """
        Run the command.
        """
        return subprocess.run(
            [*script("kmsproto"), "audit", *arguments],
            cwd=self.directory,
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    def verdicts(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """
        Run the command, and get what it found by the names of the cases.
        """
        result = self.audit("--json", *arguments)
        self.assertEqual(result.stderr, "")
        return {case["case"]: case for case in json.loads(result.stdout)["cases"]}

    def assertKept(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """
        Every case was tried, and no rule broken.
        """
        verdicts = self.verdicts(*arguments)
        self.assertEqual(len(verdicts), len(CASES))
        broken = {name: case["did"] for name, case in verdicts.items() if case["verdict"] in BROKEN}
        self.assertEqual(broken, {})
        return verdicts


class OwnHostTests(AuditCase):
    """
    Our own host breaks no rule.
    """

    def test_text_and_page(self) -> None:
        """
        The report on a host as it comes: text, a page, status 0, and nothing on the standard error.
        """
        host, port = self.local()
        result = self.audit(f"127.0.0.1:{port}", "--html", "page.html")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], f"Audit of 127.0.0.1:{port}")
        self.assertRegex(lines[-1], rf"^{len(CASES)} cases: \d+ remarks, \d+ passed$")
        self.assertNotIn("\x1b", result.stdout)
        page = self.directory.joinpath("page.html").read_text(encoding="utf-8")
        self.assertIn(lines[-1], page)
        self.assertStopped(host)

    def test_ipv6(self) -> None:
        """
        The same over IPv6, by a name, with a product of version 5.
        """
        if not has_ipv6():
            self.skipTest("this machine has no IPv6")
        host = self.start("--endpoint", r"tcp:0:interface=\:\:1")
        self.assertKept(f"[::1]:{host.port()}", "-l", "Windows 8 Enterprise")
        self.assertStopped(host)

    def test_checking_host(self) -> None:
        """
        What a host checks and counts is told as a fact and breaks no rule.
        """
        host, port = self.local(
            *("--maintain-clients", "on", "--start-empty", "on", "--check-client-time", "on"),
            *("--white-listing-level", "3"),
        )
        verdicts = self.assertKept(f"127.0.0.1:{port}")
        for name, fact in (
            ("kms.clock-ahead", "checks the clocks of clients: refused with 0xC004F06C"),
            ("kms.unknown-product", "refuses what it does not know, with 0xC004F042"),
            ("kms.count", "reported 1 clients, where the product needs 25"),
        ):
            self.assertEqual((verdicts[name]["verdict"], verdicts[name]["did"]), ("noted", fact))
        self.assertStopped(host)

    def test_other_settings(self) -> None:
        """
        A host with everything turned off that can be breaks no rule.
        """
        host, port = self.local(
            *("--ndr64", "off", "--bind-time-features", "off", "--refuse-all"),
            "--disconnect-after-call",
        )
        self.assertKept(f"127.0.0.1:{port}")
        self.assertStopped(host)

    def test_limits(self) -> None:
        """
        A host that limits the connections of an address fails nothing for that.
        """
        for number, verdict in ((1, "warning"), (3, "noted")):
            _, port = self.local("--max-connections-per-address", str(number))
            verdicts = self.verdicts(
                *(f"127.0.0.1:{port}", "--area", "connection", "--case", "3.4", "--case", "3.3")
            )
            self.assertEqual(verdicts.pop("connection.several")["verdict"], verdict)
            words = {case["verdict"] for case in verdicts.values()}
            self.assertLessEqual(words, {"passed", "not applicable"})

    def test_changing_identity(self) -> None:
        """
        A host that calls itself something else each time is told so, and fails nothing.
        """
        _, port = self.local("--randomization-level", "2")
        result = self.audit(f"127.0.0.1:{port}", "--area", "identity")
        self.assertEqual(result.returncode, 0)
        self.assertIn("warning        identity.connections", result.stdout)


class ForeignHostTests(AuditCase):
    """
    What is known of hosts of other make is found.
    """

    def assertFound(self, kind: type[ForeignHost], *names: str) -> dict[str, dict[str, Any]]:
        """
        These rules are found to be broken, and whatever the host does is put into words.
        """
        with running(kind) as port:
            result = self.audit(f"127.0.0.1:{port}", "--timeout", "1", "--json")
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        verdicts = {case["case"]: case for case in json.loads(result.stdout)["cases"]}
        self.assertEqual(len(verdicts), len(CASES))
        missed = [name for name in names if verdicts[name]["verdict"] not in BROKEN[:3]]
        self.assertEqual(missed, [])
        self.assertNotIn("undecided", [case["verdict"] for case in verdicts.values()])
        return verdicts

    def test_vlmcsd(self) -> None:
        """
        The departures of a host in C are found, and what it does right passes.
        """
        names = [name for found in DEPARTURES.values() for name in found]
        verdicts = self.assertFound(VlmcsdLike, *names, "bind.padding", "management.offered")
        found: dict[str, list[str]] = {}
        for name, case in sorted(verdicts.items()):
            if case["verdict"] in BROKEN[:3] and case["row"] not in ("KMS", "3", "14"):
                found.setdefault(case["row"], []).append(name)
        self.assertEqual(found, DEPARTURES)
        for name in ("kms.short-6-8", "kms.short-4-1", "kms.mac-zero"):
            self.assertIn(verdicts[name]["verdict"], BROKEN[:3])
        for name in (
            *("header.byte-by-byte", "header.call-id", "bind.one-of-two", "alter.ndr-again"),
            *("features.windows", "request.pipelined", "fault.context-9", "connection.half-close"),
            *("kms.version-4", "kms.version-5-ndr64", "kms.version-6", "identity.plausible"),
        ):
            self.assertEqual(verdicts[name]["verdict"], "passed", verdicts[name])

    def test_py_kms(self) -> None:
        """
        The departures of a host in Python are found, and what it does right passes.
        """
        verdicts = self.assertFound(
            PyKmsLike,
            *("header.byte-by-byte", "header.joined", "header.bind-version-4.0"),
            *("bind.foreign-interface", "bind.interface-major", "bind.new-group"),
            *("bind.second", "bind.first-request", "alter.new-context", "alter.same"),
            *("fault.context-9", "fault.operation-1", "features.reserved", "connection.slow"),
            *("fragments.two", "other.cancel", "kms.mac-zero", "kms.n-policy"),
            *("kms.version-inside", "kms.short-4-1", "management.offered"),
        )
        for name in ("kms.version-4", "kms.version-5", "kms.version-6", "identity.connections"):
            self.assertEqual(verdicts[name]["verdict"], "passed", verdicts[name])
        self.assertEqual(verdicts["kms.version-6-ndr64"]["verdict"], "not applicable")

    def test_gone(self) -> None:
        """
        A host that does not survive a case is told so, by the case and soon, and is not asked any more.
        """
        begun = time.monotonic()
        with running(VlmcsdLike, mortal=True) as port:
            result = self.audit(f"127.0.0.1:{port}", "--timeout", "1", "--json")
        self.assertLess(time.monotonic() - begun, 60)
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        told = json.loads(result.stdout)
        killer = "bind.first-request-65535-ndr64"
        self.assertEqual((told["lost"], told["lost_after"]), (True, killer))
        self.assertEqual([case["case"] for case in told["cases"] if case["fatal"]], [killer])
        self.assertEqual(told["counts"]["not tried"], 1)

    def test_back(self) -> None:
        """
        A host that is started again is audited to the end.
        """
        with running(VlmcsdLike, mortal=True, restart=1.0) as port:
            result = self.audit(
                *(f"127.0.0.1:{port}", "--timeout", "1", "--json", "--case", "3.23"),
                *("--case", "3.17", "--case", "kms.version-6"),
            )
        told = json.loads(result.stdout)
        fatal = [case["case"] for case in told["cases"] if case["fatal"]]
        self.assertEqual(set(fatal), {"bind.first-request-65535-ndr64", "bind.shared-id"})
        self.assertFalse(told["lost"])
        self.assertNotIn("not tried", told["counts"])

    def test_one_at_a_time(self) -> None:
        """
        A host that serves one connection at a time fails the case that asks for more, and no other for that reason.
        """
        with running(VlmcsdLike) as port:
            parallel = self.verdicts(f"127.0.0.1:{port}", "--timeout", "1")
        with running(VlmcsdLike, sequential=True) as port:
            sequential = self.verdicts(f"127.0.0.1:{port}", "--timeout", "1")
        changed = {
            name: case["verdict"]
            for name, case in sequential.items()
            if case["verdict"] != parallel[name]["verdict"]
        }
        self.assertEqual(
            changed,
            {
                "bind.new-group": "not applicable",
                "bind.join-group": "not applicable",
                "connection.stalled-neighbour": "not applicable",
                "connection.several": "warning",
            },
        )

    def test_late_end(self) -> None:
        """
        It does not matter how long a host takes to close behind a call.
        """
        with running(PyKmsLike, dawdle=0.5) as port:
            late = self.verdicts(f"127.0.0.1:{port}", "--timeout", "2")
        with running(PyKmsLike) as port:
            soon = self.verdicts(f"127.0.0.1:{port}", "--timeout", "2")
        self.assertEqual(
            {name: case["verdict"] for name, case in late.items()},
            {name: case["verdict"] for name, case in soon.items()},
        )

    def test_displaced_results(self) -> None:
        """
        A host whose bind_ack no client can read is audited all the same; where the results stand is a case of its own.
        """
        with running(PyKmsLike, displaced=True) as port:
            self.assertGreater(port, 9999, "the address has five digits")
            displaced = self.verdicts(f"127.0.0.1:{port}", "--timeout", "2")
        with running(PyKmsLike) as port:
            ordinary = self.verdicts(f"127.0.0.1:{port}", "--timeout", "2")
        self.assertEqual(
            {
                name: (case["verdict"], ordinary[name]["verdict"])
                for name, case in displaced.items()
                if case["verdict"] != ordinary[name]["verdict"]
            },
            {"bind.layout": ("fails", "passed")},
        )
        self.assertIn("4 bytes behind their place", displaced["bind.layout"]["did"])

    def test_random_identity(self) -> None:
        """
        A host that draws an ePID for every answer is told so, over IPv6 too.
        """
        families = [socket.AF_INET] + [socket.AF_INET6] * has_ipv6()
        for family in families:
            with running(PyKmsLike, family, random_epid=True) as port:
                place = f"[::1]:{port}" if family == socket.AF_INET6 else f"127.0.0.1:{port}"
                verdicts = self.verdicts(place, "--area", "identity")
            self.assertEqual(verdicts["identity.connections"]["verdict"], "warning")
            self.assertEqual(verdicts["identity.form"]["verdict"], "passed")


class NoHostTests(AuditCase):
    """
    Where there is nothing to audit the command says so in one line.
    """

    def assertLine(self, result: CompletedProcess[str], status: int, *words: str) -> None:
        """
        The command has ended with this status and one line.
        """
        self.assertEqual((result.returncode, result.stdout), (status, ""), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in ("kmsproto audit: ", *words):
            self.assertIn(word, result.stderr)

    @contextlib.contextmanager
    def saying(self, greeting: bytes | None) -> Iterator[int]:
        """
        Run a server that says the same to everybody; L{None} closes each connection.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._serve, args=(server, greeting), daemon=True)
            thread.start()
            try:
                yield server.getsockname()[1]
            finally:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                thread.join(PATIENCE)

    def _serve(self, server: socket.socket, greeting: bytes | None) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(PATIENCE)
                    connection.recv(65536)
                    if greeting is not None:
                        connection.sendall(greeting)
                        while connection.recv(65536):
                            pass

    def test_closed_port(self) -> None:
        """
        A port that nobody listens on: status 3.
        """
        port = free_port()
        self.assertLine(self.audit(f"127.0.0.1:{port}"), 3, f"127.0.0.1:{port}", "no connection")

    def test_silent(self) -> None:
        """
        A socket that accepts and says nothing: status 3, after the time that was given.
        """
        with self.saying(b"") as port:
            result = self.audit(f"127.0.0.1:{port}", "--timeout", "1")
        self.assertLine(result, 3, "did not answer the bind within 1 seconds")

    def test_hanging_up(self) -> None:
        """
        A socket that hangs up: status 3.
        """
        with self.saying(None) as port:
            result = self.audit(f"127.0.0.1:{port}", "--timeout", "5")
        self.assertLine(result, 3, "closed the connection before it answered")

    def test_something_else(self) -> None:
        """
        A server of something else: status 1.
        """
        for greeting in (b"SSH-2.0-Example_9.9\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            with self.saying(greeting) as port:
                result = self.audit(f"127.0.0.1:{port}", "--timeout", "5")
            self.assertLine(result, 1, "does not speak DCE/RPC")

    def test_flooding(self) -> None:
        """
        A server that says far too much: status 1, and soon.
        """
        with self.saying(
            b"\x05\0\x0c\x03\x10\0\0\0\xff\xff\0\0\1\0\0\0" + bytes(3_000_000)
        ) as port:
            result = self.audit(f"127.0.0.1:{port}", "--timeout", "5")
        self.assertLine(result, 1)

    def test_impossible_name(self) -> None:
        """
        A name that no host can have: status 3.
        """
        self.assertLine(self.audit("a..b"), 3, "check the name")

    def test_usage(self) -> None:
        """
        A mistake on the command line: status 2.
        """
        result = self.audit("127.0.0.1", "--case", "no.such")
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("there is no case 'no.such'", result.stderr)
