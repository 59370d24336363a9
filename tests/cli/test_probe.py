"""
C{kmsproto probe}: what it prints for people and for programs, and its exit status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

from twisted.internet.defer import CancelledError

from kmsproto.cli import probe as module
from kmsproto.cli import probe_report
from kmsproto.cli.requests import DEFAULT_PRODUCT
from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    KMSProtoError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.findings import Finding, Severity
from kmsproto.kms.messages import RequestBody
from kmsproto.net.activation import Outcome
from tests.cli.probing import EPID, GUID, HARDWARE_ID, Behaviour, ProbeCase, failed, granted


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
        for error in (
            HostUnreachableError("x"),
            HostTimeoutError("x"),
            RemoteProtocolError("x"),
            ContextRefusedError("x"),
        ):
            self.hosts = {"kms": error}
            self.assertRegex(self.run_probe("kms").output, r"; check .*\n$")
        self.hosts = {"kms": BindRefusedError(2, "x")}
        self.assertIn("; see the log of the host", self.run_probe("kms").output)
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

    def test_findings_of_a_refusal(self) -> None:
        """
        They are told as well of a host that refuses the bind, as text and as JSON.
        """
        self.hosts = {"kms": BindRefusedError(4, "x")}
        self.findings = (Finding("2.13", Severity.ERROR, "another call id", "C706 12.6.3.5"),)
        for arguments in ([], ["-n", "3"]):
            result = self.run_probe("kms", *arguments)
            self.assertEqual(result.exit_code, 1)
            self.assertEqual(result.stdout, "  error: another call id (rule 2.13; C706 12.6.3.5)\n")
        told = json.loads(self.run_probe("kms", "--json").stdout)
        self.assertEqual([each["rule"] for each in told["findings"]], ["2.13"])

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
