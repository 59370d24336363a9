"""
C{kmsproto probe}: how its command line is read, what it asks, and its counterparts of what vlmcs can be told.
"""

from __future__ import annotations

import json
import resource
import socket
import uuid
from pathlib import Path
from uuid import UUID

from kmsproto.cli.requests import DEFAULT_PRODUCT
from kmsproto.cli.targets import Target
from kmsproto.cli.vlmcs import ROWS, render_table
from kmsproto.errors import (
    HResultError,
)
from kmsproto.kms.messages import filetime
from kmsproto.net.client import DEFAULT_TIMEOUT, ClientOptions
from tests.cli.probing import GUID, ProbeCase, failed, granted
from tests.net.wiring import NOW, catalog
from tests.test_packaging import ROOT


class ArgumentsTests(ProbeCase):
    """
    What is asked.
    """

    def test_defaults(self) -> None:
        """
        Without options it asks once for the default product in the product's own version, in the name of this machine.
        """
        request = self.request()
        sku = catalog().product(DEFAULT_PRODUCT)
        self.assertEqual(request.sku_id, sku.guid)
        self.assertEqual((request.major_version, request.minor_version), (sku.protocol, 0))
        self.assertEqual(request.workstation, "desk-17")
        self.assertEqual(request.client_time, filetime(NOW))
        ((plan, options),) = self.plans
        self.assertEqual((plan.requests, plan.fresh, plan.at_once), (1, False, 1))
        self.assertEqual(options, ClientOptions(timeout=DEFAULT_TIMEOUT, scrutinize=True))

    def test_machine_id(self) -> None:
        """
        The client machine id is the same each time, whatever the product and the workstation name.
        """
        ids = {
            self.request(*arguments).client_machine_id
            for arguments in ([], [], ["--protocol", "4"], ["-w", "other"])
        }
        self.assertEqual(ids, {uuid.uuid5(uuid.NAMESPACE_DNS, "desk-17")})

    def test_several_clients(self) -> None:
        """
        Several requests come from several clients, the same ones each time; or from the one that is named.
        """
        for _ in range(2):
            self.request("-n", "3")
        ids = [request.client_machine_id for request in self.requests]
        self.assertEqual(ids[:3], ids[3:])
        self.assertEqual(len(set(ids)), 3)
        self.request("-n", "2", "-c", "{" + GUID.upper() + "}")
        self.assertEqual(
            [each.client_machine_id for each in self.requests[-2:]], [UUID(GUID), UUID(GUID)]
        )

    def test_product(self) -> None:
        """
        A product is named by its number, its name, the beginning of its name, or its GUID.
        """
        sku = catalog().product("Windows 10/11 Enterprise")
        for text in (str(sku.number), sku.name, sku.name.upper(), str(sku.guid)):
            for option in ("-l", "--product"):
                self.assertEqual(self.request(option, text).sku_id, sku.guid)
        unique = self.request("-l", "office professional plus 2019")
        self.assertEqual(catalog().skus[unique.sku_id].name, "Office Professional Plus 2019")

    def test_protocol(self) -> None:
        """
        The protocol version may be chosen, also one that does not exist.
        """
        for arguments, expected in (
            (["--protocol", "4"], (4, 0)),
            (["-K", "5.0"], (5, 0)),
            (["-K", "6.1"], (6, 1)),
            (["-K", "65535.65535"], (65535, 65535)),
            (["-4"], (4, 0)),
            (["-5"], (5, 0)),
            (["-6"], (6, 0)),
        ):
            self.hosts = {"kms": failed(HResultError(0x8007000D, "no"))}
            self.run_probe("kms", *arguments)
            request = self.requests[-1]
            self.assertEqual((request.major_version, request.minor_version), expected)

    def test_every_field(self) -> None:
        """
        Every other field of the request may be chosen.
        """
        request = self.request(
            *("-a", GUID, "-s", GUID.replace("0f", "a0"), "-k", GUID.replace("0f", "b0")),
            *("-o", GUID.replace("0f", "c0"), "-r", "7", "-m", "-t", "notification", "-g", "99"),
        )
        self.assertEqual(request.application_id, UUID(GUID))
        self.assertEqual(request.sku_id, UUID(GUID.replace("0f", "a0")))
        self.assertEqual(request.kms_id, UUID(GUID.replace("0f", "b0")))
        self.assertEqual(request.previous_client_machine_id, UUID(GUID.replace("0f", "c0")))
        self.assertEqual(
            (
                request.n_policy,
                request.is_virtual_machine,
                request.licence_status,
                request.binding_expiration,
            ),
            (7, 1, 5, 99),
        )
        self.assertEqual(self.request("-t", "77").licence_status, 77)

    def test_clock(self) -> None:
        """
        The client time may be off, also before time began.
        """
        for offset, expected in ((18000, NOW + 18000), (-18000, NOW - 18000)):
            request = self.request("--clock-offset", str(offset))
            self.assertEqual(request.client_time, filetime(expected))
        self.assertEqual(self.request("--clock-offset", "0").client_time, filetime(NOW))

    def test_names(self) -> None:
        """
        What is asked for is named as the request has it.
        """
        for arguments, name in (
            (["-l", "1"], "Windows Vista Business"),
            (["-l", "1", "-s", GUID], GUID),
            (
                ["-l", "1", "-k", "58e2134f-8e11-4d17-9cb2-91069c151148"],
                "KMS id Windows 10/11 (Volume)",
            ),
            (["-k", GUID], f"KMS id {GUID}"),
        ):
            output = self.run_probe("kms", *arguments).output
            self.assertIn(f" grants {name} (protocol", output)

    def test_guid_brings_product(self) -> None:
        """
        The SKU id or KMS id of a known product brings the other fields of it along.
        """
        sku = catalog().product("Office Professional Plus 2010")
        kms_id = catalog().kms_ids[sku.kms_id]
        for arguments in (["-s", str(sku.guid)], ["-k", str(sku.kms_id)]):
            request = self.request(*arguments)
            self.assertEqual(
                (request.kms_id, request.application_id, request.n_policy, request.major_version),
                (sku.kms_id, kms_id.application, kms_id.n_policy, 4),
            )

    def test_workstation(self) -> None:
        """
        The workstation name may be chosen, also an empty one; a NetBIOS name is made of this machine's.
        """
        self.assertEqual(self.request("-w", "lab-1").workstation, "lab-1")
        self.assertEqual(self.request("--workstation", "").workstation, "")
        self.assertEqual(self.request("-d", "-w", "lab-1").workstation, "lab-1")
        self.patch(socket, "gethostname", lambda: "a-very-long-machine.example.com")
        self.assertEqual(self.request("-d").workstation, "A-VERY-LONG-MAC")

    def test_long_machine_name(self) -> None:
        """
        A machine name that is too long for a request is cut.
        """
        self.patch(socket, "gethostname", lambda: "x" * 64)
        self.assertEqual(self.request().workstation, "x" * 63)

    def test_how_to_talk(self) -> None:
        """
        Time, transfer syntax, features and multiplexing may be chosen.
        """
        self.request("--timeout", "2.5", "-N", "0", "-B", "0", "-p")
        self.assertEqual(
            self.plans[-1][1],
            ClientOptions(
                ndr64=False,
                bind_time_features=False,
                multiplexed=False,
                timeout=2.5,
                scrutinize=True,
            ),
        )

    def test_how_often(self) -> None:
        """
        The number of requests, of connections and of those at a time may be chosen.
        """
        self.request("-n", "5", "-T", "--at-once", "3")
        plan = self.plans[-1][0]
        self.assertEqual((plan.requests, plan.fresh, plan.at_once), (5, True, 3))

    def test_open_files(self) -> None:
        """
        More connections at a time than the process may open are refused before anything is asked.
        """
        self.patch(resource, "getrlimit", lambda which: (64, 64))
        output = self.assertUsageError("kms", "-T", "-n", "99", "--at-once", "41")
        self.assertIn("may open 40 connections, not 41; raise the limit", output)
        output = self.assertUsageError("kms", "-T", "--charge", "-r", "50", "--at-once", "99")
        self.assertIn("may open 40 connections, not 50", output)
        for arguments in (["-T", "-n", "40"], ["-n", "99"]):
            self.assertEqual(self.run_probe("kms", *arguments, "--at-once", "41").exit_code, 0)

    def test_charge(self) -> None:
        """
        Charging a host ends when it has counted enough clients, and at the latest with as many requests.
        """
        counts = iter(range(10, 60))
        self.hosts = {"kms": lambda body: granted(body, client_count=next(counts))}
        result = self.run_probe("kms", "--charge")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(len(self.requests), 16)
        self.assertIn("16 requests were granted\n", result.output)
        self.requests.clear()
        self.hosts = {"kms": lambda body: granted(body, client_count=1)}
        result = self.run_probe("kms", "--charge")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(len(self.requests), 25)
        self.assertIn("the host counts 1 of 25 clients", result.output)
        told = json.loads(self.run_probe("kms", "--charge", "--json").output)
        self.assertIn("the host counts 1 of 25 clients", told["problem"])
        self.run_probe("kms", "--charge", "-r", "4294967295")
        self.assertEqual(self.plans[-1][0].requests, 100_000)
        self.assertUsageError("kms", "--charge", "-c", GUID)

    def test_targets(self) -> None:
        """
        A target is a host, a domain, this machine's own domain, or this machine.
        """
        for arguments, target, domain in (
            (["[2001:db8::1]:1700"], Target("2001:db8::1", 1700), ""),
            ([".example.com"], None, "example.com"),
            (["-"], None, ""),
            ([], Target("127.0.0.1"), ""),
            (["-i", "4"], Target("127.0.0.1"), ""),
            (["-i", "6"], Target("::1"), ""),
        ):
            self.assertEqual(self.run_probe(*arguments).exit_code, 0)
            self.assertEqual(self.whereabouts[-1][0][1:], (target, domain))
        self.run_probe(".a", "-i", "6", "-P", "--nameserver", "127.0.0.1:5353")
        options = self.whereabouts[-1][1]
        self.assertEqual((options["family"], options["ignore_order"]), (6, True))
        self.assertEqual(list(options["nameservers"]), [("127.0.0.1", 5353)])

    def test_catalogue(self) -> None:
        """
        A file of products can be added.
        """
        path = Path(__file__).parent.parent / "golden" / "kmd"
        file = sorted(path.glob("*.kmd"))[0]
        self.assertEqual(self.request("-j", str(file)).workstation, "desk-17")
        self.assertIn("cannot be read", self.assertUsageError("kms", "-j", "no-such-file"))

    def test_bad_targets(self) -> None:
        """
        A target that is none is a usage error that says why.
        """
        self.assertIn("'0' is not a port number", self.assertUsageError("kms:0"))
        self.assertIn("names no host", self.assertUsageError(""))
        self.assertUsageError(".")
        self.assertUsageError("kms", "--nameserver", "x y")

    def test_bad_product(self) -> None:
        """
        A product that nobody knows is a usage error that names the option and suggests others.
        """
        output = self.assertUsageError("kms", "-l", "Windows 10/11 Enterprize")
        self.assertIn("--product", output)
        self.assertIn("did you mean", output)
        self.assertIn("kmsproto products", output)

    def test_bad_options(self) -> None:
        """
        A value that cannot be is a usage error.
        """
        for arguments in (
            *(["-K", text] for text in ("", "x", "6.", "-1", "65536", "6.65536", "6.0.0")),
            *(["--timeout", text] for text in ("0", "-1", "3601", "x", "nan")),
            *(["-t", text] for text in ("x", "4294967296", "-1")),
            *(["-r", text] for text in ("-1", "4294967296")),
            *(["-n", text] for text in ("0", "100001")),
            *([option, "1234"] for option in ("-a", "-s", "-k", "-c", "-o")),
            ["-w", "x" * 64],
            ["-w", "a\0b"],
            ["-w", "\udc80"],
            ["-i", "5"],
            ["-N", "2"],
            ["-B", "x"],
            ["-l", ""],
            ["-p", "--at-once", "2"],
            ["-G", "-", "--json"],
            ["--unknown"],
        ):
            with self.subTest(arguments=arguments):
                self.assertUsageError("kms", *arguments)

    def test_help(self) -> None:
        """
        The help tells the options and the exit status.
        """
        result = self.run_probe("--help")
        self.assertEqual(result.exit_code, 0)
        text = " ".join(result.output.split())
        for part in ("--product", "--protocol", "--workstation", "--timeout", "Seconds"):
            self.assertIn(part, text)
        self.assertIn("Exits with status 0 when the host granted everything", text)
        self.assertIn(DEFAULT_PRODUCT, text)

    def test_examples(self) -> None:
        """
        There are examples, and a version.
        """
        self.assertIn("kmsproto probe .example.com", self.run_probe("-e").output)
        self.assertIn("version", self.run_probe("-V").output)
        self.assertEqual(self.requests, [])

    def test_products(self) -> None:
        """
        The products can be listed.
        """
        result = self.run_probe("-x")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("Windows Vista Business", result.output)
        self.assertEqual(json.loads(self.run_probe("-x", "--json").output)[0]["number"], 1)
        self.assertUsageError("-x", "-j", "no-such-file")
        self.assertEqual(self.requests, [])


class TableTests(ProbeCase):
    """
    The table of what vlmcs can be told.
    """

    def test_file(self) -> None:
        """
        The documentation has the table as it is, and the command prints it.
        """
        text = (ROOT / "docs" / "vlmcs-table.rst").read_text(encoding="utf-8")
        self.assertEqual(text, render_table())
        self.assertEqual(self.run_probe("--vlmcs-table").output, text)

    def test_options(self) -> None:
        """
        Every option of the table is in the help, under both names.
        """
        output = self.run_probe("--help").output
        for row in ROWS:
            if row.ours:
                self.assertRegex(output, rf"(?m)^ +(-\w, )*{row.option}\b")
                self.assertIn(row.ours.split()[0], output)

    def test_all_letters(self) -> None:
        """
        No letter of vlmcs is missing.
        """
        letters = {row.option[1] for row in ROWS if row.option[0] == "-" and len(row.option) == 2}
        self.assertEqual(letters, set("lvxedVasckoKwrnmGTNBtgPp456ij?"))
