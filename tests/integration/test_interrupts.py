"""
Commands that are interrupted, or whose output cannot be written, as a shell sees them.
"""

from __future__ import annotations

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
