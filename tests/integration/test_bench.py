"""
C{kmsproto bench} as its users run it: against a real host, no host, hosts that mean no good, and with Ctrl-C.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess
from typing import Any

from tests.hostile_hosts import HOSTILE_HOSTS, Behaviour, serving
from tests.hostile_wire import Conversation
from tests.integration.processes import (
    PATIENCE,
    TwistdCase,
    environment,
    free_port,
    has_ipv6,
    run,
    script,
)

#: Commands that run at a time.
AT_A_TIME = 4


class BenchCase(TwistdCase):
    """
    The command.
    """

    def bench(self, *arguments: str) -> CompletedProcess[str]:
        """
        Run the command.
        """
        return run("kmsproto", "bench", *arguments, cwd=self.directory)

    def begin(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """
        Start the command.
        """
        process = subprocess.Popen(
            [*script("kmsproto"), "bench", *arguments],
            cwd=self.directory,
            env=environment(self.directory) | {"TERM": "xterm", "COLUMNS": "120"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def assertFails(self, result: CompletedProcess[str], status: int, pattern: str) -> None:
        """
        The command has failed with this status and one line.
        """
        self.assertEqual((result.returncode, result.stdout), (status, ""), result.stderr)
        self.assertRegex(result.stderr, rf"\Akmsproto bench: [^\n]*{pattern}[^\n]*\n\Z")


class RealHostTests(BenchCase):
    """
    A host that answers.
    """

    def test_granted(self) -> None:
        """
        Every request is granted, however the connections are used, and the host has seen as many.
        """
        host, port = self.local()
        for options, connections in (
            (["-c", "3"], 3),
            (["-c", "3", "--fresh"], 60),
            (["-c", "2", "--pipeline", "8", "--protocol", "4"], 2),
        ):
            result = self.bench(f"127.0.0.1:{port}", "-n", "60", "--json", *options)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            told = json.loads(result.stdout)
            self.assertEqual((told["requests"], told["granted"]), (60, 60))
            self.assertEqual((told["refused"], told["failed"]), ({}, {}))
            self.assertEqual(told["connections"], connections)
            self.assertGreater(told["latency_ms"]["min"], 0)
            self.assertLessEqual(told["latency_ms"]["p50"], told["latency_ms"]["max"])
        self.assertStopped(host)
        self.assertEqual(host.said.count(" granted "), 180)

    def test_text(self) -> None:
        """
        People get a few lines, and a host is found by name and over IPv6.
        """
        _, port = self.local()
        result = self.bench(f"localhost:{port}", "-n", "20", "-i", "4", "--clients", "5")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        self.assertRegex(
            lines[0], rf"^localhost:{port} \(127.0.0.1\) answered 20 of 20 requests for Windows"
        )
        self.assertEqual(
            [line.split(":")[0].strip() for line in lines[1:4]],
            ["granted", "latency", "connections"],
        )
        if has_ipv6():
            # "localhost" is ::1 too, where nobody listens; the other address is tried as well.
            self.assertEqual(self.bench(f"localhost:{port}", "-n", "2").returncode, 0)

    def test_interrupt(self) -> None:
        """
        Ctrl-C ends it at once with what was measured so far, and so does SIGTERM.
        """
        host, port = self.local()
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.begin(f"127.0.0.1:{port}", "--duration", "300", "--rate", "50", "--json")
            for _ in range(10):
                host.wait_for(" granted ")
            process.send_signal(number)
            output, problems = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, problems), (130, ""))
            told = json.loads(output)
            self.assertTrue(told["interrupted"])
            self.assertGreaterEqual(told["granted"], 8)
            self.assertLess(told["seconds"], PATIENCE)
        self.assertStopped(host)

    def test_terminal(self) -> None:
        """
        Whoever looks at a terminal sees how it gets on; the result stands alone on the standard output.
        """
        _, port = self.local()
        ours, theirs = pty.openpty()
        process = self.begin(
            f"127.0.0.1:{port}", "--duration", "1", "--rate", "20", "-c", "2", stderr=theirs
        )
        os.close(theirs)
        shown = b""
        while data := self.read(ours):
            shown += data
        output, _ = process.communicate(timeout=PATIENCE)
        os.close(ours)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b"per second", shown)
        self.assertIn(b"Ctrl-C to end", shown)
        self.assertIn("answered 20 of 20", output)
        self.assertTrue(all(line.isprintable() for line in output.splitlines()))

    def read(self, terminal: int) -> bytes:
        """
        Read from a terminal; nothing when the command has closed it.
        """
        try:
            return os.read(terminal, 65536)
        except OSError:
            return b""


class NoGoodHostTests(BenchCase):
    """
    Hosts that are not there, not one's own, or mean no good.
    """

    def test_no_host(self) -> None:
        """
        A host that is not reached ends it with status 3 and one line.
        """
        port = free_port()
        self.assertFails(self.bench(f"127.0.0.1:{port}"), 3, "; check that a KMS host runs there")
        self.assertFails(self.bench("a..b"), 3, "check the name")

    def test_public(self) -> None:
        """
        A host that is not one's own is refused before anything is sent to it.
        """
        for target in ("192.0.2.1", "[2001:db8::1]:1688", "[::ffff:192.0.2.1]"):
            self.assertFails(self.bench(target), 2, "neither a loopback nor a private address")

    def test_interrupt_before_it_begins(self) -> None:
        """
        Ctrl-C while the host is looked for is told, and is no success.
        """
        connected = threading.Event()

        def act(host: Conversation) -> None:
            connected.set()
            host.wait()

        with serving(Behaviour(act, "")) as port:
            process = self.begin(f"127.0.0.1:{port}", "--timeout", "300")
            self.assertTrue(connected.wait(PATIENCE))
            process.send_signal(signal.SIGINT)
            output, problems = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, output), (130, ""))
        self.assertIn("interrupted before the host was reached\n", problems)

    def test_hostile_hosts(self) -> None:
        """
        Whatever a host does, it ends in time, with a status that says so, and without a crash.
        """

        def meet(name: str) -> CompletedProcess[str]:
            with serving(HOSTILE_HOSTS[name]) as port:
                return self.bench(f"127.0.0.1:{port}", *("-n", "4", "-c", "2", "--timeout", "1"))

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            met = dict(zip(HOSTILE_HOSTS, pool.map(meet, HOSTILE_HOSTS), strict=True))
        for name, result in met.items():
            case = f"{name}: {result}"
            good = HOSTILE_HOSTS[name].answers
            self.assertIn(result.returncode, (0, 1) if good else (1, 3), case)
            self.assertNotIn("Traceback", result.stderr, case)
            for line in (result.stdout + result.stderr).splitlines():
                self.assertTrue(line.isprintable(), case)
            if result.stdout:
                self.assertEqual(result.stderr, "", case)
            else:
                self.assertEqual(result.stderr.count("\n"), 1, case)
        self.assertIn("4 with 0xDEADBEEF", met["an HRESULT nobody knows"].stdout)
        self.assertIn("4 with wrong answer (HMAC)", met["wrong proof"].stdout)
        self.assertIn("4 with timeout", met["silence after the bind"].stdout)
        self.assertIn("4 with fault 0x1C01000B", met["fault for an answer"].stdout)
        spent = met["close behind the answer"].stdout
        self.assertIn("with connection closed behind an answer", spent)
        self.assertIn("behind an answer with --fresh\n", spent)
        self.assertEqual(met["silence"].returncode, 3)
        self.assertIn("no connection within 1 seconds", met["nobody accepts"].stderr)

    def test_host_that_leaves(self) -> None:
        """
        A host that goes away in the middle is given up, and what it did before is told.
        """
        host, port = self.local()
        process = self.begin(f"127.0.0.1:{port}", *("--duration", "60", "--rate", "100", "--json"))
        host.wait_for(" granted ")
        self.assertStopped(host)
        output, problems = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, problems), (1, ""))
        told: dict[str, Any] = json.loads(output)
        self.assertGreater(told["granted"], 0)
        self.assertIn("requests in a row got no answer", told["gave_up"])
        self.assertIn("connection refused", told["failed"])
