"""
Commands that are interrupted, or whose output cannot be written, as a shell sees them.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time

from tests.integration.processes import PATIENCE, TwistdCase, environment, script


class InterruptTests(TwistdCase):
    """
    Signals and outputs.
    """

    def silent(self) -> int:
        """
        Open a port whose host never says anything.
        """
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        return int(self.listening.getsockname()[1])

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """
        Start a command.
        """
        process = subprocess.Popen(
            [*script("kmsproto"), *arguments],
            cwd=self.directory,
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def test_signals(self) -> None:
        """
        A command that waits for its host ends at once, with one line and the status of an interrupt.
        """
        port = self.silent()
        self.listening.settimeout(PATIENCE)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.begin("probe", f"127.0.0.1:{port}", "--timeout", "600")
            # It is connected, and has begun to wait for the answer to its bind.
            connection, _ = self.listening.accept()
            connection.settimeout(PATIENCE)
            connection.recv(1000)
            began = time.monotonic()
            process.send_signal(number)
            said = process.communicate(timeout=PATIENCE)
            connection.close()
            self.assertLess(time.monotonic() - began, PATIENCE)
            self.assertEqual(
                (process.returncode, *said), (130, "", "kmsproto probe: interrupted\n")
            )

    def test_json(self) -> None:
        """
        Who reads JSON is told that it was interrupted.
        """
        port = self.silent()
        self.listening.settimeout(PATIENCE)
        for command in ("probe", "audit"):
            process = self.begin(command, f"127.0.0.1:{port}", "--json", "--timeout", "600")
            connection, _ = self.listening.accept()
            connection.settimeout(PATIENCE)
            connection.recv(1000)
            process.send_signal(signal.SIGINT)
            said, complaint = process.communicate(timeout=PATIENCE)
            connection.close()
            self.assertEqual(json.loads(said)["problem"], "interrupted")
            self.assertEqual(
                (process.returncode, complaint), (130, f"kmsproto {command}: interrupted\n")
            )

    def waiting(self, command: str, *options: str) -> tuple[int, subprocess.Popen[str]]:
        """
        Begin a command, and let it wait for a host that says nothing.

        @return: The port of the host, and the process.
        """
        port = self.silent()
        self.listening.settimeout(PATIENCE)
        process = self.begin(command, f"127.0.0.1:{port}", "--timeout", "600", *options)
        connection, _ = self.listening.accept()
        self.addCleanup(connection.close)
        connection.settimeout(PATIENCE)
        connection.recv(1000)
        return port, process

    def test_check(self) -> None:
        """
        A monitoring plugin that is told to end, or cannot write, says that it knows nothing.
        """
        _, process = self.waiting("check")
        process.terminate()
        said, complaint = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, complaint), (3, ""))
        self.assertEqual(said, "KMS UNKNOWN - interrupted before the host had answered\n")
        result = self.shell(f"kmsproto check 127.0.0.1:{self.local()[1]} > /dev/full")
        self.assertEqual(result.returncode, 3, result.stderr)

    def test_bench(self) -> None:
        """
        A load that is interrupted before its host was reached is one line, and with --json the same as JSON.
        """
        for arguments in ((), ("--json",)):
            port, process = self.waiting("bench", *arguments)
            process.send_signal(signal.SIGINT)
            said, complaint = process.communicate(timeout=PATIENCE)
            problem = f"127.0.0.1:{port}: interrupted before the host was reached"
            self.assertEqual(process.returncode, 130)
            self.assertEqual(complaint, f"kmsproto bench: {problem}\n")
            if arguments:
                self.assertEqual(json.loads(said), {"problem": problem, "status": 130})
            else:
                self.assertEqual(said, "")

    def test_closed_input(self) -> None:
        """
        A decoder without input is one line.
        """
        result = self.shell("kmsproto decode <&-")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(
            result.stderr,
            "kmsproto decode: the standard input is closed; name a file\n",
        )

    def test_json_of_failures(self) -> None:
        """
        Whoever reads JSON is told of a failure in JSON too.
        """
        for arguments in ("audit 127.0.0.1:1", "bench 127.0.0.1:1", "explain epid xx"):
            result = self.shell(f"kmsproto {arguments} --json")
            self.assertNotEqual(result.returncode, 0)
            told = json.loads(result.stdout)
            self.assertEqual(told["status"], result.returncode)
            self.assertIn(told["problem"], result.stderr)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """
        Run a command in a shell.
        """
        kmsproto = " ".join(f"'{word}'" for word in script("kmsproto"))
        return subprocess.run(
            ["bash", "-c", f'kmsproto() {{ {kmsproto} "$@"; }}; {command}'],
            cwd=self.directory,
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def test_full_disk(self) -> None:
        """
        An output that cannot be written is one line, whichever way the command writes.
        """
        _, port = self.local()
        for arguments in (
            f"probe 127.0.0.1:{port}",
            f"probe -v 127.0.0.1:{port}",
            "probe -e",
            "products",
        ):
            result = self.shell(f"kmsproto {arguments} > /dev/full")
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertRegex(
                result.stderr, r"^kmsproto.*: cannot write: No space left on device\n$"
            )

    def test_reader_that_leaves(self) -> None:
        """
        A reader that has seen enough is nothing to complain about.
        """
        _, port = self.local()
        for arguments in (f"probe -v -n 200 127.0.0.1:{port}", "products"):
            result = self.shell(f"kmsproto {arguments} | head -1")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertEqual(result.stdout.count("\n"), 1)
