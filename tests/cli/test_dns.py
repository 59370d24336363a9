"""
C{kmsproto dns}: the records in every format, and what is refused.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.names.authority import BindAuthority
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.dns import FORMATS, dns

#: Two hosts, one of which is in another domain, and addresses of both families.
ARGUMENTS = (
    *("Example.com.", "KMS1", "kms2.other.example:1689"),
    *("--priority", "0", "--priority", "10", "--weight", "5", "--ttl", "90061"),
    *("--address", "kms1=192.0.2.1", "--address", "kms1=2001:DB8::1"),
    *("--address", "kms2.other.example=192.0.2.2"),
)


class DNSCase(SynchronousTestCase):
    """
    The command.
    """

    def lines(self, *arguments: str) -> list[str]:
        """
        Run the command, and get what it prints.
        """
        result = CliRunner().invoke(dns, arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output.splitlines()

    def assertRefused(self, part: str, *arguments: str) -> None:
        """
        A command line is a usage error, and nothing is printed that could be pasted.
        """
        result = CliRunner().invoke(dns, arguments)
        self.assertEqual(result.exit_code, 2, result.output)
        self.assertIn(part, result.output)
        self.assertNotIn("SRV ", result.output.replace("an SRV record", ""))


class FormatTests(DNSCase):
    """
    What is printed.
    """

    def test_bind(self) -> None:
        """
        A zone file has all names in full; what belongs into another zone is a comment.
        """
        self.assertEqual(
            self.lines(*ARGUMENTS, "--format", "bind"),
            [
                "_vlmcs._tcp.example.com. 90061 IN SRV 0 5 1688 kms1.example.com.",
                "_vlmcs._tcp.example.com. 90061 IN SRV 10 5 1689 kms2.other.example.",
                "kms1.example.com. 90061 IN A 192.0.2.1",
                "kms1.example.com. 90061 IN AAAA 2001:db8::1",
                "; into another zone: kms2.other.example. 90061 IN A 192.0.2.2",
            ],
        )

    def test_dnsmasq(self) -> None:
        """
        dnsmasq has the target before the port, the priority and the weight.
        """
        self.assertEqual(
            self.lines(*ARGUMENTS, "--format", "dnsmasq"),
            [
                "srv-host=_vlmcs._tcp.example.com,kms1.example.com,1688,0,5",
                "srv-host=_vlmcs._tcp.example.com,kms2.other.example,1689,10,5",
                "host-record=kms1.example.com,192.0.2.1,90061",
                "host-record=kms1.example.com,2001:db8::1,90061",
                "# of another zone, which should have it: host-record=kms2.other.example,192.0.2.2,90061",
            ],
        )

    def test_unbound(self) -> None:
        """
        Unbound has each record as local data of its server section.
        """
        self.assertEqual(
            self.lines("example.com", "kms", "--address", "192.0.2.1", "--format", "unbound"),
            [
                "server:",
                '    local-data: "_vlmcs._tcp.example.com. 3600 IN SRV 0 0 1688 kms.example.com."',
                '    local-data: "kms.example.com. 3600 IN A 192.0.2.1"',
            ],
        )

    def test_nsupdate(self) -> None:
        """
        nsupdate changes another zone in a message of its own.
        """
        self.assertEqual(
            self.lines(*ARGUMENTS, "--format", "nsupdate"),
            [
                "update add _vlmcs._tcp.example.com. 90061 IN SRV 0 5 1688 kms1.example.com.",
                "update add _vlmcs._tcp.example.com. 90061 IN SRV 10 5 1689 kms2.other.example.",
                "update add kms1.example.com. 90061 IN A 192.0.2.1",
                "update add kms1.example.com. 90061 IN AAAA 2001:db8::1",
                "send",
                "update add kms2.other.example. 90061 IN A 192.0.2.2",
                "send",
            ],
        )

    def test_powershell(self) -> None:
        """
        PowerShell has names relative to the zone, a TTL with days, and one command for each type.
        """
        common = "-ZoneName 'example.com' -TimeToLive '1.01:01:01'"
        self.assertEqual(
            self.lines(*ARGUMENTS, "--format", "powershell"),
            [
                f"Add-DnsServerResourceRecord -Srv {common} -Name '_vlmcs._tcp'"
                " -DomainName 'kms1.example.com.' -Priority 0 -Weight 5 -Port 1688",
                f"Add-DnsServerResourceRecord -Srv {common} -Name '_vlmcs._tcp'"
                " -DomainName 'kms2.other.example.' -Priority 10 -Weight 5 -Port 1689",
                f"Add-DnsServerResourceRecordA {common} -Name 'kms1' -IPv4Address '192.0.2.1'",
                f"Add-DnsServerResourceRecordAAAA {common} -Name 'kms1' -IPv6Address '2001:db8::1'",
                "# kms2.other.example is not in the zone example.com; add A 192.0.2.2 to its own",
            ],
        )

    def test_host_is_the_domain(self) -> None:
        """
        A host that has the name of the domain is the top of its zone.
        """
        lines = self.lines(
            *("example.com", "example.com", "--address", "192.0.2.1", "--format", "powershell")
        )
        self.assertIn("-Name '@'", lines[1])

    def test_all(self) -> None:
        """
        Without a format there are all of them, each under a heading that is a comment in it.
        """
        text = "\n".join(self.lines("example.com", "kms"))
        blocks = text.split("\n\n")
        self.assertEqual(len(blocks), len(FORMATS))
        for block, (name, each) in zip(blocks, FORMATS.items(), strict=True):
            heading, *rest = block.split("\n")
            self.assertEqual(heading, f"{each.comment} {each.title}")
            self.assertEqual(rest, self.lines("example.com", "kms", "--format", name))

    def test_json(self) -> None:
        """
        JSON has the records as data, and the chosen formats as lines.
        """
        document = json.loads("".join(self.lines(*ARGUMENTS, "--json")))
        self.assertEqual(document["service"], "_vlmcs._tcp.example.com")
        self.assertEqual(list(document["formats"]), list(FORMATS))
        self.assertEqual(
            document["records"][1],
            {
                "name": "_vlmcs._tcp.example.com",
                "type": "SRV",
                "priority": 10,
                "weight": 5,
                "port": 1689,
                "target": "kms2.other.example",
            },
        )
        self.assertEqual(
            [each["type"] for each in document["records"]], ["SRV", "SRV", "A", "AAAA", "A"]
        )
        one = json.loads("".join(self.lines("example.com", "kms", "--json", "--format", "bind")))
        self.assertEqual(list(one["formats"]), ["bind"])

    def test_zone_file_is_one(self) -> None:
        """
        The lines for a zone file are read as one by another program.
        """
        soa = "@ 60 IN SOA ns.example.com. admin.example.com. 1 60 60 60 60"
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "example.com")
            lines = self.lines(*ARGUMENTS, "--format", "bind")
            path.write_text("\n".join(["$ORIGIN example.com.", soa, *lines, ""]))
            zone = BindAuthority(os.fsencode(path))
        records = zone.records[b"_vlmcs._tcp.example.com"]
        self.assertEqual(
            [
                (each.priority, each.weight, each.port, each.target.name.rstrip(b"."))
                for each in records
            ],
            [(0, 5, 1688, b"kms1.example.com"), (10, 5, 1689, b"kms2.other.example")],
        )
        self.assertEqual(zone.records[b"kms1.example.com"][0].dottedQuad(), "192.0.2.1")
        self.assertNotIn(b"kms2.other.example", zone.records)


class NumberTests(DNSCase):
    """
    Priorities, weights and TTLs.
    """

    def test_once_or_for_each(self) -> None:
        """
        A number is given once for all hosts, or once for each.
        """
        for given_numbers, expected in ((["7"], "7 7 7"), (["1", "2", "3"], "1 2 3")):
            options = [part for number in given_numbers for part in ("--priority", number)]
            lines = self.lines("example.com", "a", "b", "c", *options, "--format", "bind")
            self.assertEqual(" ".join(line.split()[4] for line in lines), expected)
        self.assertRefused(
            "there are 2 of them for 3 hosts", "e.com", "a", "b", "c", *["--weight", "1"] * 2
        )

    def test_ranges(self) -> None:
        """
        Numbers that the records cannot hold are refused.
        """
        for option in ("--priority", "--weight"):
            self.lines("example.com", "a", option, "65535")
            for number in ("-1", "65536", "x"):
                self.assertRefused(option, "example.com", "a", option, number)
        self.lines("example.com", "a", "--ttl", "2147483647")
        self.assertRefused("--ttl", "example.com", "a", "--ttl", "2147483648")


class NamesTests(DNSCase):
    """
    What is a name, and what is not.
    """

    def test_hosts(self) -> None:
        """
        A host without a dot is one of the domain; one with a dot stays what it is.
        """
        for host, target in (
            ("kms", "kms.example.com."),
            ("kms.example.com", "kms.example.com."),
            ("kms.lab.example", "kms.lab.example."),
            ("KMS.lab.example.", "kms.lab.example."),
        ):
            (line,) = self.lines("example.com", host, "--format", "bind")
            self.assertEqual(line.split()[-1], target)

    def test_bad_domains(self) -> None:
        """
        What is no domain is refused, and so is what could do harm where it is pasted.
        """
        for domain in (
            *("", ".", "a..b", "x" * 64, "-a", "a b", "a\nb", "a;b", "a'b", 'a"b', "$(a)", "a`b`"),
            *("192.0.2.1", "::1", "a,b", "a#b", "@", "*.a"),
        ):
            with self.subTest(domain=domain):
                self.assertRefused("DOMAIN", "--", domain, "kms")
        self.assertRefused("the form of it that begins with xn--", "b\u00fccher.example", "kms")
        self.assertRefused("write the domain alone", "_vlmcs._tcp.example.com", "kms")
        self.assertRefused("too long", ".".join(["x" * 49] * 5), "kms")

    def test_bad_hosts(self) -> None:
        """
        What is no name of a host is refused; an address with the advice to name the host.
        """
        for host, part in (
            ("192.0.2.1", "write a name, and --address 192.0.2.1"),
            ("[2001:db8::1]:1688", "--address 2001:db8::1"),
            ("a_b", "underscore"),
            ("kms.1", "ends with a number"),
            ("kms:0", "port"),
            ("kms:65536", "port"),
            ("kms'; rm -rf", "HOST"),
            ("$(reboot)", "HOST"),
            ("a;b", "HOST"),
            ("", "HOST"),
            ("b\u00fccher", "xn--"),
        ):
            with self.subTest(host=host):
                self.assertRefused(part, "example.com", host)

    def test_twice(self) -> None:
        """
        The same host and port twice is a mistake; two ports of a host are none.
        """
        self.assertRefused("twice", "example.com", "kms", "KMS.example.com:1688")
        self.assertEqual(len(self.lines("example.com", "kms", "kms:1689", "--format", "bind")), 2)

    def test_too_many(self) -> None:
        """
        More hosts than a client looks at are refused.
        """
        self.assertRefused("more than", "example.com", *(f"h{number}" for number in range(65)))

    def test_addresses(self) -> None:
        """
        An address needs its host where there are several, and each is there once.
        """
        lines = self.lines(
            *("example.com", "a", "b", "--format", "bind"),
            *("--address", "b=192.0.2.1", "--address", "B.example.com=192.0.2.1"),
        )
        self.assertEqual(lines[2:], ["b.example.com. 3600 IN A 192.0.2.1"])

    def test_bad_addresses(self) -> None:
        """
        An address that is none, or of no host, is refused.
        """
        for text, part in (
            ("192.0.2.1", "write HOST=192.0.2.1"),
            ("c=192.0.2.1", "'c' is none of the hosts: a.example.com, b.example.com"),
            ("a=192.0.2", "'192.0.2' is no address"),
            ("a=fe80::1%eth0", "is no address"),
            ("a=", "is no address"),
            ("=192.0.2.1", "is no domain"),
        ):
            with self.subTest(text=text):
                self.assertRefused(part, "example.com", "a", "b", "--address", text)
        many = [
            part
            for number in range(257)
            for part in ("--address", f"192.0.{number % 9}.{number % 200}")
        ]
        self.assertRefused("more than 256", "example.com", "a", *many)

    @given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
    def test_any_text(self, domain: str, host: str) -> None:
        """
        Whatever the command line has, what is printed is made of harmless characters.
        """
        result = CliRunner().invoke(dns, ["--format", "bind", "--", domain, host])
        if result.exit_code == 0:
            self.assertTrue(
                re.fullmatch(r"[a-z0-9_. -]+ IN SRV 0 0 \d+ [a-z0-9.-]+\.\n", result.output)
            )
        else:
            self.assertEqual(result.exit_code, 2, result.exception)

    def test_help(self) -> None:
        """
        The help tells that nothing is changed.
        """
        text = " ".join(" ".join(self.lines("--help")).split())
        self.assertIn("Nothing is changed anywhere", text)
        self.assertIn("bind|dnsmasq|unbound|nsupdate|powershell|all", text)
