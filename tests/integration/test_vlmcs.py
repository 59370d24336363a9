"""
Everything that vlmcs can be told, run against a host of ours and hosts like those that are in use, over IPv4 and IPv6.

The rows are those of the table in the documentation, and each is run as it stands there.  The other hosts are the
stand-ins of L{tests.foreign_hosts}, which deviate from the protocol as the C daemon and the Python host do; the probe
gets its answers from them and tells what they did wrong, but must not fail for it.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

from kmsproto.cli.vlmcs import ROWS, Row
from tests.foreign_hosts import PyKmsLike, VlmcsdLike, running
from tests.integration.nameserver import NameServer, a, aaaa, srv
from tests.integration.processes import TwistdCase, has_ipv6, run

KMD = sorted((Path(__file__).resolve().parent.parent / "golden" / "kmd").glob("*.kmd"))[0]


class VlmcsTests(TwistdCase):
    """
    Row for row.
    """

    timeout = 600

    def families(self) -> list[tuple[str, str]]:
        """
        List the IP versions that this machine has, and its own address in each.
        """
        return [("4", "127.0.0.1"), *([("6", "[::1]")] if has_ipv6() else [])]

    def kind(self, family: str) -> socket.AddressFamily:
        """
        Name an IP version as sockets do.
        """
        return socket.AF_INET6 if family == "6" else socket.AF_INET

    def probe(self, *arguments: str) -> CompletedProcess[str]:
        """
        Run the command.
        """
        return run("kmsproto", "probe", *arguments, cwd=self.directory)

    def run_row(self, row: Row, family: str, target: str) -> CompletedProcess[str]:
        """
        Run the sample of a row.
        """
        given = {
            "TARGET": target,
            "FAMILY": family,
            "FILE": f"{abs(hash((target, row.option)))}.toml",
            "KMD": str(KMD),
        }
        return self.probe(*(given.get(argument, argument) for argument in row.sample))

    def run_rows(self, port: int, family: str, address: str, statuses: tuple[int, ...]) -> None:
        """
        Run all samples against a host, two at a time.
        """
        rows = [row for row in ROWS if row.sample]
        target = f"{address}:{port}"
        with ThreadPoolExecutor(2) as pool:
            results = pool.map(lambda row: self.run_row(row, family, target), rows)
            for row, result in zip(rows, results, strict=True):
                with self.subTest(option=row.option, family=family):
                    said = f"{row.option}: {result.stdout}{result.stderr}"
                    self.assertIn(result.returncode, statuses, said)
                    self.assertNotIn("Traceback", said)
                    if "TARGET" in row.sample:
                        self.assertRegex(result.stdout + result.stderr, r"grants |granted|ePIDs")

    def test_host_of_ours(self) -> None:
        """
        A host of ours grants them all, and nothing is found.
        """
        host = self.start("--port", "0")
        port = host.port()
        for family, address in self.families():
            self.run_rows(port, family, address, (0,))
        self.assertStopped(host)

    def test_like_the_c_daemon(self) -> None:
        """
        A host that deviates as the C daemon does grants them all.
        """
        for family, address in self.families():
            with running(VlmcsdLike, self.kind(family)) as port:
                self.run_rows(port, family, address, (0, 1))

    def test_like_the_python_host(self) -> None:
        """
        A host that deviates as the Python host does grants them all.
        """
        for family, address in self.families():
            with running(PyKmsLike, self.kind(family)) as port:
                self.run_rows(port, family, address, (0, 1))

    def test_results_out_of_place(self) -> None:
        """
        Of a host like the Python host in its releases that misplace the results of a bind, every command tells that no
        client can read them, and with which ports that is better.
        """
        for family, address in self.families():
            with running(PyKmsLike, self.kind(family), displaced=True) as port:
                for command, status in (("probe", 1), ("check", 2), ("bench", 1)):
                    result = run("kmsproto", command, f"{address}:{port}", cwd=self.directory)
                    self.assertEqual(result.returncode, status, result.stderr)
                    self.assertIn("no client can read this bind_ack", result.stdout + result.stderr)
                    self.assertIn("on a port of four digits", result.stdout + result.stderr)


class DiscoveringTests(TwistdCase):
    """
    The hosts of a domain, as a name server of the test's own knows them.
    """

    def serve(self, *entries: tuple[str, object]) -> str:
        """
        Start a name server.
        """
        server = NameServer(*entries)
        self.addCleanup(server.stop)
        return server.address

    def silent(self) -> int:
        """
        Open a port whose host never says anything.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        return int(listening.getsockname()[1])

    def probe(self, *arguments: str) -> CompletedProcess[str]:
        """
        Run the command.
        """
        return run("kmsproto", "probe", *arguments, cwd=self.directory)

    def test_fall_back(self) -> None:
        """
        When the first host is silent the next one is asked; each step is told.
        """
        _, port = self.local()
        nameserver = self.serve(
            srv("_vlmcs._tcp.lab.example", "first.lab.example", self.silent(), 0, 0),
            srv("_vlmcs._tcp.lab.example", "second.lab.example", port, 10, 0),
            a("first.lab.example", "127.0.0.1"),
            a("second.lab.example", "127.0.0.1"),
        )
        result = self.probe(".lab.example", "--nameserver", nameserver, "--timeout", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r"^first\.lab\.example .*; trying the next host\n$")
        self.assertRegex(result.stdout, r"^second\.lab\.example .* grants ")

    def test_order(self) -> None:
        """
        Priority decides, unless the order is to be ignored; then the first record of the answer does.
        """
        _, port = self.local()
        nameserver = self.serve(
            srv("_vlmcs._tcp.lab.example", "later.lab.example", port, 20, 0),
            srv("_vlmcs._tcp.lab.example", "sooner.lab.example", port, 10, 0),
            a("later.lab.example", "127.0.0.1"),
            a("sooner.lab.example", "127.0.0.1"),
        )
        for arguments, expected in (([], "sooner"), (["-P"], "later")):
            result = self.probe(".lab.example", "--nameserver", nameserver, *arguments)
            self.assertTrue(result.stdout.startswith(expected), result.stdout)

    def test_families(self) -> None:
        """
        Only the addresses of the IP version that is wanted are tried.
        """
        _, port = self.local()
        nameserver = self.serve(
            srv("_vlmcs._tcp.lab.example", "kms.lab.example", port),
            a("kms.lab.example", "127.0.0.1"),
            aaaa("kms.lab.example", "::1"),
        )
        result = self.probe(".lab.example", "--nameserver", nameserver, "-i", "4")
        self.assertEqual(result.returncode, 0, result.stderr)
        # The host listens on IPv4 only.
        result = self.probe(".lab.example", "--nameserver", nameserver, "-i", "6")
        self.assertEqual(result.returncode, 3, result.stdout)
        self.assertIn("[::1]", result.stderr)

    def test_nothing(self) -> None:
        """
        A domain without records, that does not exist, or whose name server is silent, is one line.
        """
        nameserver = self.serve(a("kms.lab.example", "127.0.0.1"))
        for domain in (".lab.example", ".nowhere.example", ".silent.example", ".servfail.example"):
            result = self.probe(domain, "--nameserver", nameserver, "--timeout", "1")
            self.assertEqual((result.returncode, result.stdout), (3, ""), result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertTrue(result.stderr.startswith("kmsproto probe: "), result.stderr)

    def test_own_domain(self) -> None:
        """
        A machine without DNS suffix is told to name a domain; one that has a suffix asks for its records.
        """
        result = self.probe("-", "--timeout", "1", "--nameserver", self.serve())
        self.assertEqual((result.returncode, result.stdout), (3, ""), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
