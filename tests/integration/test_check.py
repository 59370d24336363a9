"""
C{kmsproto check} as a monitor runs it: one line, and the status that the monitor goes by.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.integration.nameserver import NameServer, a, srv
from tests.integration.processes import PATIENCE, TwistdCase, free_port, run


class CheckTests(TwistdCase):
    """
    Output and exit status.
    """

    def check(self, status: int, *arguments: str) -> str:
        """
        Run the command, and get its one line.
        """
        result = run("kmsproto", "check", *arguments, cwd=self.directory)
        state = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[status]
        self.assertEqual((result.returncode, result.stderr), (status, ""), result.stdout)
        self.assertTrue(result.stdout.startswith(f"KMS {state} - "), result.stdout)
        self.assertEqual(result.stdout.count("\n"), 1, result.stdout)
        return result.stdout

    def test_host(self) -> None:
        """
        A host that grants is OK, and thresholds turn that into a warning or worse.
        """
        host, port = self.local()
        target = f"127.0.0.1:{port}"
        line = self.check(0, target, "-w", "20", "-c", "30", "--critical-count", "25:")
        self.assertRegex(
            line, r"grants .* 50 clients .* \| time=\d+\.\d{4}s;20;30;0; count=50;;25:;0;\n\Z"
        )
        host.wait_for("granted ")
        self.check(1, "-H", "127.0.0.1", "-p", str(port), "--warning-count", "51:")
        self.check(2, target, "-w", "@0:20", "-c", "@0:20")

    def test_refused(self) -> None:
        """
        A host that answers with an HRESULT is critical, and the line has it.
        """
        _, port = self.local("--refuse-all")
        self.assertIn("0xC004F042", self.check(2, f"127.0.0.1:{port}"))

    def test_nobody(self) -> None:
        """
        A port on which nobody listens is critical.
        """
        self.assertIn("no connection", self.check(2, f"127.0.0.1:{free_port()}"))

    def test_silent(self) -> None:
        """
        A host that never answers is critical when the time is over.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            begun = time.monotonic()
            line = self.check(2, f"127.0.0.1:{server.getsockname()[1]}", "-t", "1")
        self.assertLess(time.monotonic() - begun, 10)
        self.assertIn("no answer within 1.0 seconds", line)

    def test_something_else(self) -> None:
        """
        A server that speaks another protocol is critical.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._greet, args=(server,))
            thread.start()
            line = self.check(2, f"127.0.0.1:{server.getsockname()[1]}")
            thread.join(PATIENCE)
        self.assertIn("does not speak DCE/RPC", line)

    def _greet(self, server: socket.socket) -> None:
        """
        Answer one client with something else.
        """
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(PATIENCE)
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            while connection.recv(65536):
                pass

    def test_discovery(self) -> None:
        """
        The hosts of a domain are found by DNS; one that is silent is a warning while another grants.
        """
        _, port = self.local()
        mute = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(mute.close)
        server = NameServer(
            srv("_vlmcs._tcp.good.example", "kms.good.example", port),
            srv("_vlmcs._tcp.half.example", "kms.good.example", port, 10),
            srv("_vlmcs._tcp.half.example", "mute.good.example", mute.getsockname()[1], 0),
            *(a(f"{name}.good.example", "127.0.0.1") for name in ("kms", "mute")),
        )
        self.addCleanup(server.stop)
        options = ("--nameserver", server.address, "-t", "4")
        self.assertIn("kms.good.example", self.check(0, ".good.example", *options))
        line = self.check(1, ".half.example", *options)
        self.assertIn("not all hosts can be used: mute.good.example", line)
        self.assertIn("0x8007232B", self.check(2, ".missing.example", *options))
        self.assertIn("no name server answered", self.check(2, ".silent.example", *options))

    def test_usage(self) -> None:
        """
        A wrong command line is UNKNOWN, on the standard output like everything else.
        """
        self.check(3)
        self.check(3, "kms", "--bogus")
        self.check(3, "kms", "-w", "2:1")
