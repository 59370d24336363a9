"""
The command C{kmsproto serve-socket}, in a process of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.net.wiring import bind, read_replies

COMMAND = [
    sys.executable,
    "-c",
    "from kmsproto.cli.serve_socket import serve_socket; serve_socket(prog_name='serve-socket')",
]


class ServeSocketTests(SynchronousTestCase):
    """
    The command.
    """

    def setUp(self) -> None:
        """
        Make a state directory.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.settings = ["--", "--state-directory", str(self.directory / "state")]

    def start(self, *options: str, inherit: bool) -> tuple[bytes, int, str]:
        """
        Serve one TCP connection.

        @param inherit: Whether all three descriptors are the connection, as under inetd.
        @return: What the peer got, the exit status, and what was written to standard error.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server = listener.accept()[0]
        with client:
            client.settimeout(60)
            with server:
                process = subprocess.Popen(
                    [*COMMAND, *options],
                    stdin=server,
                    stdout=server if inherit else subprocess.DEVNULL,
                    stderr=server if inherit else subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
            client.sendall(bind())
            client.shutdown(socket.SHUT_WR)
            try:
                got = client.makefile("rb").read()
            except ConnectionResetError:
                got = b""
        errors = process.communicate(timeout=60)[1]
        return got, process.returncode, errors or ""

    def test_inetd(self) -> None:
        """
        Where every descriptor is the connection, the peer gets answers and nothing else, and the log has its file.
        """
        log = self.directory / "log"
        got, status, _ = self.start("--log-file", str(log), *self.settings, inherit=True)
        self.assertEqual((read_replies(got), status), ([("bind_ack", 1, 0)], 0))
        self.assertTrue(log.exists())

    def test_error_under_inetd(self) -> None:
        """
        A mistake in the settings is not told to the peer.
        """
        got, status, _ = self.start("--", "--port", "nonsense", inherit=True)
        self.assertEqual((got, status), (b"", 1))

    def test_standard_error(self) -> None:
        """
        Elsewhere the log goes to standard error: here it tells who is turned away.
        """
        got, status, errors = self.start(*self.settings, "--deny", "127.0.0.1", inherit=False)
        self.assertEqual((got, status), (b"", 0))
        self.assertIn("turned away peer=127.0.0.1", errors)

    def test_no_connection(self) -> None:
        """
        Without a connection it says what is wrong, once.
        """
        result = subprocess.run(
            [*COMMAND, *self.settings],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr.count("is not a connected socket"), 1)
