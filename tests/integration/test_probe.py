"""
C{kmsproto probe} as its users run it, against a real host, no host, and what is no host.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from subprocess import CompletedProcess

from kmsproto.cli.requests import DEFAULT_PRODUCT
from tests.integration.processes import PATIENCE, TwistdCase, free_port, has_ipv6, run


class ProbeTests(TwistdCase):
    """
    Output and exit status.
    """

    def probe(self, *arguments: str) -> CompletedProcess[str]:
        """
        Run the command.
        """
        return run("kmsproto", "probe", *arguments, cwd=self.directory)

    def assertFails(self, result: CompletedProcess[str], beginning: str, status: int = 1) -> None:
        """
        The command has failed with a status and one line.
        """
        self.assertEqual((result.returncode, result.stdout), (status, ""), result.stderr)
        self.assertTrue(result.stderr.startswith(beginning), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)

    def test_granted(self) -> None:
        """
        A host that grants is printed, in every version, with status 0.
        """
        host, port = self.local()
        for version in ("4", "5", "6"):
            result = self.probe(f"127.0.0.1:{port}", "--protocol", version, "-w", "lab-7")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            lines = result.stdout.splitlines()
            self.assertEqual(
                lines[0],
                f"127.0.0.1:{port} grants {DEFAULT_PRODUCT} (protocol version {version})",
            )
            self.assertEqual(len(lines), 7)
            host.wait_for(f'granted .* version={version} .* workstation="lab-7" ')
        self.assertStopped(host)

    def test_names_and_families(self) -> None:
        """
        A host is found by name and over IPv6.
        """
        host = self.start("--port", "0")
        port = host.port()
        targets = [f"localhost:{port}"] + ([f"[::1]:{port}"] if has_ipv6() else [])
        for target in targets:
            result = self.probe(target)
            self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_refused_port(self) -> None:
        """
        A port that nobody listens on is one line.
        """
        port = free_port()
        self.assertFails(
            self.probe(f"127.0.0.1:{port}"), f"kmsproto probe: 127.0.0.1:{port}: no connection: ", 3
        )

    def test_something_else(self) -> None:
        """
        A port that speaks something else, speaks nothing, or hangs up is one line.
        """
        for greeting, expected, status in (
            (b"SSH-2.0-Example\r\n", "the server does not speak DCE/RPC version 5.0", 1),
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "the server does not speak DCE/RPC version 5.0",
                1,
            ),
            (b"", "the host did not answer the bind within 1 seconds", 3),
            (None, "the host closed the connection before it answered", 3),
        ):
            with self.subTest(greeting=greeting), socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                thread = threading.Thread(target=self._serve, args=(server, greeting))
                thread.start()
                result = self.probe(f"127.0.0.1:{port}", "--timeout", "1")
                thread.join(PATIENCE)
                self.assertFails(result, f"kmsproto probe: 127.0.0.1:{port}: {expected}", status)

    def _serve(self, server: socket.socket, greeting: bytes | None) -> None:
        """
        Greet one client, and wait until it hangs up.
        """
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            # The client speaks first; what it says is read, so that a close is no reset.
            connection.recv(65536)
            if greeting is not None:
                connection.sendall(greeting)
                with contextlib.suppress(ConnectionError):
                    while connection.recv(65536):
                        pass

    def test_impossible_name(self) -> None:
        """
        A name that no host can have is one line.
        """
        self.assertFails(self.probe("a..b"), "kmsproto probe: a..b:1688: ", 3)

    def test_usage(self) -> None:
        """
        A mistake on the command line ends with status 2.
        """
        for arguments, problem in (
            (["127.0.0.1:0"], "'0' is not a port number (1 to 65535)"),
            (["-w", "x" * 64], "at most 63 UTF-16 code units, not 64"),
        ):
            result = self.probe(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn(problem, result.stderr)
