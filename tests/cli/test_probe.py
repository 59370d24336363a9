"""
C{kmsproto probe}: how its command line is read, what it asks, what it prints, and its exit status.
"""

from __future__ import annotations

import json
import socket
import tempfile
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from twisted.internet.defer import CancelledError

from kmsproto.cli import probe as module
from kmsproto.cli import probe_report
from kmsproto.cli.requests import DEFAULT_PRODUCT
from kmsproto.cli.targets import Target
from kmsproto.cli.vlmcs import ROWS, render_table
from kmsproto.errors import (
    BindRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    KMSProtoError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.findings import Finding, Severity
from kmsproto.kms.messages import RequestBody, filetime
from kmsproto.net.activation import Outcome
from kmsproto.net.client import DEFAULT_TIMEOUT, ClientOptions
from tests.cli.probing import EPID, HARDWARE_ID, Behaviour, ProbeCase, failed, granted
from tests.net.wiring import NOW, catalog
from tests.test_packaging import ROOT

GUID = "0f0f0f0f-1111-2222-3333-444444444444"


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


class TextTests(ProbeCase):
    """
    What is printed for people, and the exit status.
    """

    def test_granted(self) -> None:
        """
        A grant is printed and ends with status 0.
        """
        result = self.run_probe("kms.example")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            result.output.splitlines(),
            [
                f"kms.example:1688 grants {DEFAULT_PRODUCT} (protocol version 6)",
                f"  ePID:                {EPID}",
                f"  hardware id:         {HARDWARE_ID.hex()}",
                "  count:               50 clients (the product needs 25)",
                "  activation interval: 120 minutes",
                "  renewal interval:    10080 minutes",
                "  checks:              12 of 12 passed",
            ],
        )

    def test_without_hardware_id(self) -> None:
        """
        Before version 6 there is no hardware id, and the text says so.
        """
        lines = self.run_probe("kms.example", "-4", "-l", "1").output.splitlines()
        self.assertIn("(protocol version 4)", lines[0])
        self.assertEqual(lines[2], "  hardware id:         none before version 6")

    def test_too_few_clients(self) -> None:
        """
        A count that would not do for a client is granted all the same, and the text says what it means.
        """
        self.hosts = {"kms": lambda body: granted(body, client_count=24)}
        result = self.run_probe("kms")
        self.assertEqual(result.exit_code, 0)
        self.assertIn(
            "24 clients (the product needs 25, so a client would fail with 0xC004F038)",
            result.output,
        )

    def test_hostile_epid(self) -> None:
        """
        An ePID that would steer a terminal, or look like lines of ours, is shown so that it does neither.
        """
        for epid in ("\x1b[2J\x1b[H", "a\nb: c", "a\rb", "\u202eabc", "\x9b31m", "a\u2028b"):
            for arguments in ([], ["-v"], ["-n", "2"], ["-G", "-"]):
                self.hosts = {"kms": lambda body, epid=epid: granted(body, epid=epid)}  # type: ignore[misc]
                with self.subTest(epid=epid):
                    output = self.run_probe("kms", *arguments).output
                    self.assertTrue(all(line.isprintable() for line in output.split("\n")), output)

    def test_several(self) -> None:
        """
        Several requests are a line each, and a sum; one that failed ends with status 1.
        """
        answers = iter((granted, failed(HResultError(0xC004F042, "no")), granted))
        self.hosts = {"kms": lambda body: next(answers)(body)}
        result = self.run_probe("kms", "-n", "3")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            result.output.splitlines(),
            [
                f"1: granted, version 6, 50 clients, {EPID}",
                "2: the host answered 0xC004F042: no",
                f"3: granted, version 6, 50 clients, {EPID}",
                "2 requests were granted, 1 was not",
            ],
        )

    def test_errors(self) -> None:
        """
        Every failure is one line on the standard error that names the host, and a status that tells of which kind.
        """
        outcomes: list[tuple[KMSProtoError, int]] = [
            (FaultError(5, "access denied"), 1),
            (HResultError(0xC004F042, "the host does not activate this product"), 1),
            (VerificationError("stub", "it is short"), 1),
        ]
        endings: list[tuple[KMSProtoError, int]] = [
            (HostUnreachableError("no connection: Connection refused"), 3),
            (HostTimeoutError("no connection within 10 seconds"), 3),
            (BindRefusedError(4, "protocol_version_not_supported"), 1),
            (RemoteProtocolError("the server does not speak DCE/RPC version 5.0"), 1),
        ]
        hosts = [(failed(error), error, status) for error, status in outcomes]
        for host, error, status in [*hosts, *((error, error, status) for error, status in endings)]:
            self.hosts = {"[::1]:1700": host}
            result = self.run_probe("[::1]:1700")
            with self.subTest(error=error):
                self.assertEqual(result.exit_code, status)
                self.assertTrue(
                    result.output.startswith(f"probe: [::1]:1700: {error}"), result.output
                )
                self.assertEqual(result.output.count("\n"), 1)

    def test_hints(self) -> None:
        """
        The line says what to look at; where an HRESULT was answered, what explains it.
        """
        for error in (HostUnreachableError("x"), HostTimeoutError("x"), RemoteProtocolError("x")):
            self.hosts = {"kms": error}
            self.assertRegex(self.run_probe("kms").output, r"; check .*\n$")
        self.hosts = {"kms": failed(HResultError(0xC004F042, "no"))}
        self.assertTrue(
            self.run_probe("kms").output.endswith("; kmsproto explain 0xC004F042 tells more\n")
        )

    def test_bad_answer(self) -> None:
        """
        An answer that fails several checks is one line with all of them.
        """

        def lie(body: RequestBody) -> Outcome:
            bad = granted(body, client_machine_id=UUID(int=3), client_time=body.client_time + 1)
            error = VerificationError(bad.verified.failed[0].name, "x")  # type: ignore[union-attr]
            return Outcome(
                bad.request,
                bad.request_payload,
                bad.transfer_syntax,
                bad.response_payload,
                bad.verified,
                error,
            )

        self.hosts = {"kms": lie}
        result = self.run_probe("kms")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.output.count("\n"), 1)
        self.assertIn("(client machine id)", result.output)
        self.assertIn("(and failed: client time)", result.output)
        self.assertEqual(self.run_probe("kms", "-n", "2").output.count("client time"), 2)

    def test_fall_back(self) -> None:
        """
        When a host cannot be reached the next one is asked, and a line says why.
        """
        self.hosts = {
            "a (192.0.2.1:1688)": HostTimeoutError("no connection within 10 seconds"),
            "b (192.0.2.2:1688)": granted,
            "c (192.0.2.3:1688)": granted,
        }
        result = self.run_probe(".example.com")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(len(self.requests), 2)
        self.assertIn("a (192.0.2.1:1688): no connection within 10 seconds", result.output)
        self.assertIn("trying the next host", result.output)
        self.assertIn("b (192.0.2.2:1688) grants", result.output)

    def test_no_fall_back(self) -> None:
        """
        A host that refuses was reached: no other is asked.
        """
        for host in (failed(HResultError(0xC004F042, "no")), BindRefusedError(1, "congestion")):
            self.requests.clear()
            self.hosts = {"a": host, "b": granted}
            self.assertEqual(self.run_probe(".example.com").exit_code, 1)
            self.assertEqual(len(self.requests), 1)

    def test_all_silent(self) -> None:
        """
        When no host can be reached the status says so.
        """
        self.hosts = {"a": HostTimeoutError("x"), "b": HostUnreachableError("y")}
        result = self.run_probe(".example.com")
        self.assertEqual(result.exit_code, 3)
        self.assertIn("probe: b: y; check", result.output)

    def test_broken_off(self) -> None:
        """
        When the host goes away in between, what it had answered is told, and why there is no more.
        """
        left = iter((granted, granted))

        def behave(body: RequestBody) -> Outcome:
            try:
                return next(left)(body)
            except StopIteration:
                raise HostUnreachableError("the host closed the connection") from None

        self.hosts = {"a": behave, "b": granted}
        result = self.run_probe("kms", "-n", "5")
        self.assertEqual(result.exit_code, 3)
        self.assertIn("2 requests were granted, 3 had no answer", result.output)
        self.assertIn("probe: a: the host closed the connection", result.output)

    def test_interrupted(self) -> None:
        """
        Who interrupts it is told what the host had answered, as text and as JSON.
        """
        for arguments in ([], ["--json"]):
            left = iter((granted,))

            def behave(body: RequestBody, left: Iterator[Behaviour] = left) -> Outcome:
                try:
                    return next(left)(body)
                except StopIteration:
                    raise CancelledError from None

            self.hosts = {"a": behave}
            result = self.run_probe("kms", "-n", "3", *arguments)
            self.assertIsInstance(result.exception, CancelledError)
            if arguments:
                told = json.loads(result.stdout)
                self.assertEqual((told["granted"], told["problem"]), (1, "interrupted"))
            else:
                self.assertIn("1 request was granted, 2 had no answer\n", result.stdout)

    def test_braces(self) -> None:
        """
        A GUID has both braces or none.
        """
        self.assertEqual(self.run_probe("kms", "-c", f"{{{GUID.upper()}}}").exit_code, 0)
        self.assertEqual(self.requests[-1].client_machine_id, UUID(GUID))
        for text in (f"{{{GUID}", f"{GUID}}}", f"{{{{{GUID}}}}}", GUID.replace("-", "")):
            self.assertEqual(self.run_probe("kms", "-c", text).exit_code, 2, text)

    def test_findings(self) -> None:
        """
        Rules that the host broke are told; one that every host must keep makes the status 1.
        """
        for severity, status in ((Severity.NOTE, 0), (Severity.WARNING, 0), (Severity.ERROR, 1)):
            self.findings = (Finding("3.3", severity, "the group id is 0", "C706 12.6.4.4"),)
            result = self.run_probe("kms")
            self.assertEqual(result.exit_code, status)
            self.assertIn(f"  {severity.value}: the group id is 0 (rule 3.3; C706", result.output)

    def test_doubts(self) -> None:
        """
        An answer that no genuine host would give is granted, and told.
        """
        self.hosts = {"kms": lambda body: granted(body, epid="nonsense")}
        result = self.run_probe("kms")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("warning: the ePID has not the form of one", result.output)
        epids = iter((EPID, EPID.replace("424065", "424066")))
        self.hosts = {"kms": lambda body: granted(body, epid=next(epids))}
        self.assertIn(
            "note: the ePID for one product changed", self.run_probe("kms", "-n", "2").output
        )

    def test_verbose(self) -> None:
        """
        Every field that was sent and received is explained, and every check told.
        """
        output = self.run_probe("kms", "-v").output
        for text in (
            "Request",
            "Response",
            "Checks",
            "desk-17",
            EPID,
            "HMAC",
            "syntax NDR64",
        ):
            with self.subTest(text=text):
                self.assertIn(text, output)
        self.hosts = {"kms": failed(HResultError(0xC004F042, "no"))}
        output = self.run_probe("kms", "-v").output
        self.assertIn("Request", output)
        self.assertNotIn("Response", output)

    def test_other_errors_are_not_hidden(self) -> None:
        """
        A mistake of ours is not taken for one of the host's.
        """
        self.hosts = {"kms": lambda body: 1 / 0}  # type: ignore[dict-item,return-value]
        self.assertIsInstance(self.run_probe("kms").exception, ZeroDivisionError)


class JsonTests(ProbeCase):
    """
    What is printed for programs.
    """

    def test_granted(self) -> None:
        """
        One object tells the host, each result with its checks, and the findings.
        """
        self.findings = (Finding("3.3", Severity.NOTE, "x", "y"),)
        result = self.run_probe("kms", "--json", "-n", "2")
        self.assertEqual(result.exit_code, 0)
        told = json.loads(result.output)
        self.assertEqual(told["host"], "kms.example:1688")
        self.assertEqual((told["requests"], told["granted"]), (2, 2))
        self.assertEqual([each["number"] for each in told["results"]], [1, 2])
        first = told["results"][0]
        self.assertEqual(first["response"]["epid"], EPID)
        self.assertEqual(first["response"]["hardware_id"], HARDWARE_ID.hex().upper())
        self.assertTrue(all(check["passed"] for check in first["checks"]))
        self.assertEqual(told["findings"][0]["rule"], "3.3")
        self.assertNotIn("request_fields", first)

    def test_refused(self) -> None:
        """
        A refusal has its number.
        """
        self.hosts = {"kms": failed(HResultError(0xC004F042, "no"))}
        result = self.run_probe("kms", "--json")
        self.assertEqual(result.exit_code, 1)
        (told,) = json.loads(result.output)["results"]
        self.assertEqual((told["granted"], told["hresult"]), (False, "0xC004F042"))

    def test_bounds(self) -> None:
        """
        Of very many results some are told, and how many are left out.
        """
        self.patch(probe_report, "MAX_RESULTS", 3)
        self.patch(probe_report, "MAX_FULL_RESULTS", 2)
        for arguments, kept in (([], 3), (["-v"], 2)):
            told = json.loads(self.run_probe("kms", "--json", "-n", "5", *arguments).output)
            self.assertEqual((len(told["results"]), told["results_left_out"]), (kept, 5 - kept))

    def test_escapes(self) -> None:
        """
        What a host sends is escaped, so that it steers no terminal and every output can hold it.
        """
        self.hosts = {"kms": lambda body: granted(body, epid="\x9b31m\u202e\U0001f600")}
        output = self.run_probe("kms", "--json").output
        self.assertTrue(output.isascii())
        (told,) = json.loads(output)["results"]
        self.assertEqual(told["response"]["epid"], "\x9b31m\u202e\U0001f600")

    def test_nothing_found(self) -> None:
        """
        When there is no host to ask the object says why.
        """

        async def nothing(*arguments: object, **options: object) -> None:
            raise HostUnreachableError("this machine has no DNS suffix")

        self.patch(module, "destinations", nothing)
        result = self.run_probe("-", "--json")
        self.assertEqual(result.exit_code, 3)
        self.assertEqual(json.loads(result.stdout)["problem"], "this machine has no DNS suffix")

    def test_verbose(self) -> None:
        """
        Every field can be had.
        """
        (told,) = json.loads(self.run_probe("kms", "--json", "-v").output)["results"]
        self.assertTrue(told["request_fields"])
        self.assertTrue(told["response_fields"])

    def test_no_host(self) -> None:
        """
        When no host was reached the object says why, beside the line on the standard error.
        """
        self.hosts = {"a": HostTimeoutError("late"), "b": HostUnreachableError("gone")}
        result = self.run_probe("kms", "--json")
        self.assertEqual(result.exit_code, 3)
        told = json.loads(result.stdout)
        self.assertEqual([each["host"] for each in told["passed_over"]], ["a"])
        self.assertIn("gone", told["problem"])


class EpidFileTests(ProbeCase):
    """
    What a host presents, as settings.
    """

    def setUp(self) -> None:
        """
        Make a directory for the file.
        """
        super().setUp()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def test_settings(self) -> None:
        """
        A product of each key group is asked for, and what is presented can be read as settings.
        """
        path = self.directory / "kms.toml"
        result = self.run_probe("kms", "-G", str(path))
        self.assertEqual(result.exit_code, 0, result.output)
        csvlks = {catalog().csvlk_for(each.kms_id).key for each in self.requests}
        self.assertEqual(csvlks, {each.csvlk for each in catalog().kms_ids.values()})
        text = path.read_text()
        self.assertIn(f'"Windows={EPID}/{HARDWARE_ID.hex().upper()}"', text)
        self.assertIn(f'"Office2010={EPID}"', text)

    def test_ini(self) -> None:
        """
        For a name that ends in .ini it is written as vlmcsd reads it.
        """
        path = self.directory / "vlmcsd.ini"
        self.assertEqual(self.run_probe("kms", "-G", str(path)).exit_code, 0)
        self.assertIn(f"Windows = {EPID} / {HARDWARE_ID.hex().upper()}\n", path.read_text())

    def test_standard_output(self) -> None:
        """
        A hyphen stands for the standard output, which then has nothing else.
        """
        result = self.run_probe("kms", "-G", "-")
        self.assertTrue(result.stdout.startswith("# What kms.example:1688 presents.\n[identity]\n"))
        self.assertTrue(result.stdout.endswith("]\n"))

    def test_file_that_is_there(self) -> None:
        """
        A file is not overwritten unless that is wanted, and nothing but a file is.
        """
        path = self.directory / "kms.toml"
        path.write_text("mine")
        self.assertIn("--force", self.assertUsageError("kms", "-G", str(path)))
        self.assertEqual(path.read_text(), "mine")
        self.assertEqual(self.run_probe("kms", "-G", str(path), "--force").exit_code, 0)
        self.assertIn("[identity]", path.read_text())
        result = self.run_probe("kms", "-G", "/dev/null", "--force")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("probe: /dev/null: is no regular file", result.output)
        for place in (self.directory, self.directory / "none" / "x"):
            self.assertUsageError("kms", "-G", str(place))

    def test_not_with_others(self) -> None:
        """
        What would be overruled is refused.
        """
        path = str(self.directory / "x")
        for arguments in (
            ["-l", "1"],
            ["-4"],
            ["-K", "5"],
            ["-a", GUID],
            ["-s", GUID],
            ["-k", GUID],
            ["-r", "5"],
            ["-n", "2"],
        ):
            self.assertIn("leave", self.assertUsageError("kms", "-G", path, *arguments))

    def test_epids_that_no_file_holds(self) -> None:
        """
        An ePID that settings cannot hold is left out, and a line says so.
        """
        epids = iter(["\U0001f600", 'a"b', "a\\b", "a\nb"])
        self.hosts = {"kms": lambda body: granted(body, epid=next(epids, EPID))}
        path = self.directory / "x.toml"
        result = self.run_probe("kms", "-G", str(path))
        self.assertEqual(result.output.count("is left out"), 4)
        document = tomllib.loads(path.read_text())
        self.assertEqual(len(document["identity"]["epids"]), len(self.requests) - 4)

    def test_nothing_granted(self) -> None:
        """
        Without an answer there is no file.
        """
        self.hosts = {"kms": failed(HResultError(0xC004F042, "no"))}
        path = self.directory / "x"
        self.assertEqual(self.run_probe("kms", "-G", str(path)).exit_code, 1)
        self.assertFalse(path.exists())


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
