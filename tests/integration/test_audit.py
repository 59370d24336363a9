"""
C{kmsproto audit} as its users run it: against our host, hosts of other make, no host, and what is no host.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
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
        verdicts = self.assertFound(
            VlmcsdLike,
            *("header.bind-version-4.0", "header.own-version", "header.request-version"),
            *("header.big-endian-bind", "header.drep-not-echoed", "header.empty-request"),
            *("header.short-request", "header.auth-length-bind", "header.no-authentication"),
            *("header.flags-all", "bind.sizes-none", "bind.promise", "bind.join-group"),
            *("bind.unknown-group", "bind.reserved", "bind.interface-major"),
            *("bind.interface-minor", "bind.ndr-version", "bind.preferred-transfer"),
            *("bind.refused-interface", "bind.accepted-is-callable", "bind.shared-id"),
            *("bind.contexts-31", "bind.context-65535", "bind.second", "bind.first-alter"),
            *("bind.first-request-65535", "bind.padding", "features.twice", "features.version"),
            *("features.alter", "request.flags", "request.object", "request.count-smaller"),
            *("request.stub-cut", "fault.call-id", "fault.zeros", "fault.operation-1"),
            *("kms.short-6-8", "kms.short-4-1", "kms.mac-zero", "fragments.two"),
            *("alter.new-context", "alter.other-transfer", "alter.sizes", "other.cancel"),
            *("other.orphaned", "security.bind", "security.alter", "management.offered"),
        )
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
            *("request.flags", "request.pipelined", "fault.context-9", "fault.operation-1"),
            *("fragments.two", "other.cancel", "kms.mac-zero", "kms.n-policy"),
            *("kms.version-inside", "kms.short-4-1", "management.offered"),
        )
        for name in ("kms.version-4", "kms.version-5", "kms.version-6", "identity.connections"):
            self.assertEqual(verdicts[name]["verdict"], "passed", verdicts[name])
        self.assertEqual(verdicts["kms.version-6-ndr64"]["verdict"], "not applicable")

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
