"""
C{kmsproto discover} as its users run it: real name servers, real hosts, and what is wrong with either.
"""

from __future__ import annotations

import json
import socket
import time
from subprocess import CompletedProcess
from typing import Any

from twisted.names import dns

from tests.integration.nameserver import Entry, NameServer, a, aaaa, cname, srv, text
from tests.integration.processes import TwistdCase, free_port, run

_SERVICE = "_vlmcs._tcp."


class DiscoverTests(TwistdCase):
    """
    Output and exit status.
    """

    def discover(
        self, domain: str, *arguments: str, status: int, servers: tuple[NameServer, ...] = ()
    ) -> CompletedProcess[str]:
        """
        Run the command, and see how it ends.
        """
        options = [part for each in servers for part in ("--nameserver", each.address)]
        result = run("kmsproto", "discover", domain, *arguments, *options, cwd=self.directory)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertClean(result.stdout + result.stderr)
        return result

    def serve(self, *entries: Entry) -> NameServer:
        """
        Start a name server.
        """
        server = NameServer(*entries)
        self.addCleanup(server.stop)
        return server

    def mute(self) -> int:
        """
        Listen on a port, and never answer.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    def test_host(self) -> None:
        """
        A host that DNS names is found, asked and granted.
        """
        host, port = self.local()
        server = self.serve(
            srv(f"{_SERVICE}corp.example", "kms.corp.example", port),
            a("kms.corp.example", "127.0.0.1"),
        )
        result = self.discover("corp.example", status=0, servers=(server,))
        self.assertEqual(result.stderr, "")
        self.assertIn(f"Clients begin with kms.corp.example:{port}.", result.stdout)
        self.assertRegex(result.stdout, r"granted in \d+ ms, 50 clients, \d{5}-")
        host.wait_for("granted ")
        # The address came along; nobody had to ask for the A record.
        self.assertNotIn(("kms.corp.example", dns.A, "udp"), server.asked)

    def test_explained(self) -> None:
        """
        A silent host, a refused port, records that cannot be used and records in the wrong place are all explained.
        """
        _, port = self.local()
        mute, closed = self.mute(), free_port()
        name = f"{_SERVICE}corp.example"
        server = self.serve(
            srv(name, "mute.corp.example", mute, 0),
            srv(name, "closed.corp.example", closed, 10),
            srv(name, "alone.corp.example", port, 20),
            srv(name, ".", 0, 30),
            srv(name, "missing.corp.example", 1688, 30),
            srv(name, "alias.corp.example", port, 40),
            srv("_kms._tcp.corp.example", "kms.corp.example", 1688),
            *(a(f"{each}.corp.example", "127.0.0.1") for each in ("mute", "closed", "alone")),
            cname("alias.corp.example", "alone.corp.example"),
        )
        result = self.discover("corp.example", "--timeout", "1", status=1, servers=(server,))
        for part in (
            f"Clients begin with mute.corp.example:{mute}.",
            f"fall back to closed.corp.example:{closed}, then alone.corp.example:{port}, then alias",
            f"problem: mute.corp.example:{mute} at 127.0.0.1:{mute}: the host did not answer",
            f"problem: closed.corp.example:{closed} at 127.0.0.1:{closed}: no connection",
            "problem: .:0 is never used: its target is the root",
            "problem: missing.corp.example:1688 is never used: its target does not exist",
            "its target is an alias of alone.corp.example",
            "problem: _kms._tcp.corp.example names kms.corp.example:1688",
        ):
            self.assertIn(part, result.stdout)
        # Its name server keeps the address of this one to itself until it is asked.
        self.assertIn(("alone.corp.example", dns.A, "udp"), server.asked)

    def test_priority_and_weight(self) -> None:
        """
        Priorities come first; among equal ones each host is drawn first about as often as its weight says.
        """
        name = f"{_SERVICE}corp.example"
        server = self.serve(
            srv(name, "late.corp.example", 1, 20, 99),
            srv(name, "heavy.corp.example", 1, 10, 65000),
            srv(name, "light.corp.example", 1, 10, 0),
            *(a(f"{each}.corp.example", "127.0.0.1") for each in ("late", "heavy", "light")),
        )
        for _ in range(3):
            hosts = self.document("corp.example", "--no-probe", status=0, server=server)["hosts"]
            # That the light one is drawn happens once in 65001 times.
            self.assertEqual(
                [(each["target"].partition(".")[0], each["use"]) for each in hosts],
                [("heavy", "first"), ("light", "first"), ("late", "fall-back")],
            )
            self.assertGreater(hosts[0]["share"], 0.99)

    def document(self, domain: str, *arguments: str, status: int, server: NameServer) -> Any:
        """
        Run the command, and get its JSON.
        """
        result = self.discover(domain, "--json", *arguments, status=status, servers=(server,))
        return json.loads(result.stdout)

    def test_no_hosts(self) -> None:
        """
        A name that is missing, records that are missing, and name servers that fail or refuse are told apart.
        """
        server = self.serve(text(f"{_SERVICE}empty.example", "nothing"))
        for domain, part in (
            ("missing.example", "does not exist in DNS (on Windows 0x8007232B)"),
            ("empty.example", "has no SRV record (on Windows 0x8007251D)"),
            ("x.servfail.example", "SERVFAIL (on Windows 0x8007232A)"),
            ("x.refused.example", "REFUSED (on Windows 0x8007232D)"),
        ):
            with self.subTest(domain=domain):
                result = self.discover(domain, status=3, servers=(server,))
                self.assertIn(part, result.stderr)
                self.assertEqual((result.stderr.count("\n"), result.stdout), (1, ""))

    def test_wrong_name(self) -> None:
        """
        A record under a neighbouring name is found although there is none under the right one.
        """
        server = self.serve(srv("_vlmcs._udp.corp.example", "kms.corp.example", 1688))
        result = self.discover("corp.example", status=3, servers=(server,))
        self.assertIn("clients look for _tcp, not for _udp", result.stdout)

    def test_silent_name_server(self) -> None:
        """
        A name server that does not answer is given up in time.
        """
        server = self.serve()
        begun = time.monotonic()
        result = self.discover("silent.example", "--timeout", "1.5", status=3, servers=(server,))
        self.assertLess(time.monotonic() - begun, 10)
        self.assertIn("no name server answered", result.stderr)
        self.assertIn("within 1.5 seconds", result.stderr)
        # It was asked again, for a datagram may be lost.
        asked = [each for each in server.asked if each[0] == f"{_SERVICE}silent.example"]
        self.assertEqual(len(asked), 2)

    def test_second_name_server(self) -> None:
        """
        Where the first name server is silent the second is asked.
        """
        name = f"{_SERVICE}corp.example"
        quiet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(quiet.close)
        quiet.bind(("127.0.0.1", 0))
        server = self.serve(srv(name, "kms.corp.example", 1), a("kms.corp.example", "127.0.0.1"))
        self.discover(
            *("corp.example", "--no-probe", "--nameserver", f"127.0.0.1:{quiet.getsockname()[1]}"),
            status=0,
            servers=(server,),
        )

    def test_cut_answer(self) -> None:
        """
        An answer that was too long for a datagram is fetched over TCP.
        """
        name = f"{_SERVICE}cut.example"
        server = self.serve(
            *(srv(name, f"kms{number}.other.example", 1688, number) for number in range(40)),
            *(a(f"kms{number}.other.example", f"127.0.0.{number}") for number in range(1, 40)),
            aaaa("kms0.other.example", "::1"),
        )
        hosts = self.document("cut.example", "--no-probe", status=0, server=server)["hosts"]
        self.assertEqual(len(hosts), 40)
        self.assertEqual(hosts[0]["addresses"][0]["address"], "::1")
        self.assertIn((name, dns.SRV, "tcp"), server.asked)

    def test_usage(self) -> None:
        """
        A mistake on the command line ends with status 2 and asks nobody.
        """
        server = self.serve()
        self.assertIn("a..b", self.discover("a..b", status=2, servers=(server,)).stderr)
        self.assertEqual(server.asked, [])
