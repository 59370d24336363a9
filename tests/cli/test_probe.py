"""
C{kmsproto probe}: how its command line is read, what it asks, what it prints, and its exit status.
"""

from __future__ import annotations

import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import probe as module
from kmsproto.cli.probe import DEFAULT_PRODUCT, describe, probe
from kmsproto.cli.targets import Target
from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    KMSProtoError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.kms.messages import RequestBody, ResponseBody, filetime
from kmsproto.net.client import DEFAULT_TIMEOUT, ClientOptions
from tests.net.wiring import NOW, body, catalog, returning

EPID = "03612-00206-471-000000-03-1033-26100.0000-3182026"


def response(request: RequestBody, epid: str = EPID, hardware_id: bytes = b"") -> OpenedResponse:
    """
    Make what a host answered.
    """
    return OpenedResponse(
        ResponseBody(
            0,
            request.major_version,
            epid,
            request.client_machine_id,
            request.client_time,
            50,
            120,
            10080,
        ),
        hardware_id,
    )


class ProbeCase(SynchronousTestCase):
    """
    The command, with a network that the test makes up.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the reactor, the clock and the network.
        """
        self.asked: list[tuple[Any, RequestBody, ClientOptions]] = []
        self.outcome: Callable[[RequestBody], Deferred[OpenedResponse]] = lambda request: succeed(
            response(request, hardware_id=bytes(range(8)))
        )
        self.patch(module, "activate", self.activate)
        self.patch(module, "react", self.react)
        self.patch(time, "time", lambda: NOW)
        self.patch(socket, "gethostname", lambda: "desk-17")

    def activate(
        self, reactor: Any, endpoint: Any, request: RequestBody, options: ClientOptions
    ) -> Deferred[OpenedResponse]:
        """
        Stand for the client.
        """
        self.asked.append((endpoint, request, options))
        return self.outcome(request)

    def react(self, main: Callable[..., Deferred[None]], arguments: tuple[object, ...]) -> None:
        """
        Stand for twisted.internet.task.react.
        """
        reactor = MemoryReactorClock()
        reactor.advance(NOW)
        results: list[Any] = []
        main(reactor, *arguments).addBoth(results.append)
        (result,) = results
        if result is not None:
            result.raiseException()
        sys.exit(0)

    def run_probe(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return CliRunner().invoke(probe, arguments)

    def request(self, *arguments: str) -> RequestBody:
        """
        Run the command, and get what it asked.
        """
        result = self.run_probe("kms.example", *arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        return self.asked[-1][1]


class ArgumentsTests(ProbeCase):
    """
    What is asked.
    """

    def test_defaults(self) -> None:
        """
        Without options it asks for the default product in the product's own version, in the name of this machine.
        """
        request = self.request()
        sku = catalog().product(DEFAULT_PRODUCT)
        self.assertEqual(request.sku_id, sku.guid)
        self.assertEqual(request.major_version, sku.protocol)
        self.assertEqual(request.workstation, "desk-17")
        self.assertEqual(request.client_time, filetime(NOW))
        self.assertEqual(self.asked[0][2], ClientOptions(timeout=DEFAULT_TIMEOUT))

    def test_machine_id(self) -> None:
        """
        The client machine id is the same each time, whatever the product and the workstation name.
        """
        ids = {
            self.request(*arguments).client_machine_id
            for arguments in ([], [], ["--protocol", "4"], ["-w", "other"])
        }
        self.assertEqual(ids, {uuid.uuid5(uuid.NAMESPACE_DNS, "desk-17")})

    def test_product(self) -> None:
        """
        A product is named by its number, its name, or its GUID.
        """
        sku = catalog().product("Windows 10/11 Enterprise")
        for text in (str(sku.number), sku.name, sku.name.upper(), str(sku.guid)):
            for option in ("-l", "--product"):
                self.assertEqual(self.request(option, text).sku_id, sku.guid)

    def test_protocol(self) -> None:
        """
        The protocol version may be chosen.
        """
        for version in ("4", "5", "6"):
            self.assertEqual(self.request("--protocol", version).major_version, int(version))

    def test_workstation(self) -> None:
        """
        The workstation name may be chosen, also an empty one.
        """
        self.assertEqual(self.request("-w", "lab-1").workstation, "lab-1")
        self.assertEqual(self.request("--workstation", "").workstation, "")

    def test_long_machine_name(self) -> None:
        """
        A machine name that is too long for a request is cut.
        """
        self.patch(socket, "gethostname", lambda: "x" * 64)
        self.assertEqual(self.request().workstation, "x" * 63)

    def test_timeout(self) -> None:
        """
        The timeout may be chosen.
        """
        self.request("--timeout", "2.5")
        self.assertEqual(self.asked[0][2].timeout, 2.5)

    def assertUsageError(self, *arguments: str) -> str:
        """
        A command line is refused with status 2, and nothing is asked.
        """
        result = self.run_probe(*arguments)
        self.assertEqual(result.exit_code, 2)
        self.assertEqual(self.asked, [])
        self.assertIn("Usage:", result.output)
        return str(result.output)

    def test_no_target(self) -> None:
        """
        Without a target there is a usage error.
        """
        self.assertIn("HOST[:PORT]", self.assertUsageError())

    def test_bad_target(self) -> None:
        """
        A target that is none is a usage error that says why.
        """
        self.assertIn("'0' is not a port number", self.assertUsageError("kms:0"))
        self.assertIn("names no host", self.assertUsageError(""))

    def test_bad_product(self) -> None:
        """
        A product that nobody knows is a usage error that names the option and suggests others.
        """
        output = self.assertUsageError("kms", "-l", "Windows 10/11 Enterprize")
        self.assertIn("--product", output)
        self.assertIn("did you mean", output)

    def test_bad_options(self) -> None:
        """
        A version or a timeout that cannot be is a usage error.
        """
        for arguments in (
            ["--protocol", "3"],
            ["--protocol", "7"],
            ["--timeout", "0"],
            ["--timeout", "-1"],
            ["--timeout", "3601"],
            ["--timeout", "x"],
            ["--timeout", "nan"],
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
        self.assertIn("Exits with status 0 when the host granted it", text)
        self.assertIn(DEFAULT_PRODUCT, text)


class OutcomeTests(ProbeCase):
    """
    What is printed, and the exit status.
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
                "  hardware id:         0001020304050607",
                "  count:               50 clients (the product needs 25)",
                "  activation interval: 120 minutes",
                "  renewal interval:    10080 minutes",
            ],
        )

    def test_errors(self) -> None:
        """
        Every failure is one line on the standard error that names the target, and status 1.
        """
        errors: list[KMSProtoError] = [
            HostUnreachableError("no connection: Connection refused"),
            HostTimeoutError("no connection within 10 seconds"),
            BindRefusedError(4, "protocol_version_not_supported"),
            ContextRefusedError("no context"),
            FaultError(5, "access denied"),
            HResultError(0xC004F042, "the host does not activate this product"),
            VerificationError("HMAC", "it is wrong"),
            RemoteProtocolError("the server does not speak DCE/RPC version 5.0"),
            LocalProtocolError("a workstation name has at most 63 UTF-16 code units, not 64"),
        ]
        for error in errors:
            self.outcome = returning(fail(error))
            result = self.run_probe("[::1]:1700")
            with self.subTest(error=error):
                self.assertEqual(result.exit_code, 1)
                self.assertTrue(
                    result.output.startswith(f"kmsproto probe: [::1]:1700: {error}"), result.output
                )
                self.assertEqual(result.output.count("\n"), 1)

    def test_hints(self) -> None:
        """
        Where the host may not be one, the line says what to look at.
        """
        for error in (
            HostUnreachableError("x"),
            HostTimeoutError("x"),
            RemoteProtocolError("x"),
            VerificationError("x", "y"),
        ):
            self.outcome = returning(fail(error))
            self.assertRegex(self.run_probe("kms").output, r"; check .*\n$")

    def test_no_hint(self) -> None:
        """
        An error that speaks for itself has no advice behind it.
        """
        self.outcome = lambda _: fail(HResultError(5, "no"))
        self.assertTrue(self.run_probe("kms").output.endswith(": no\n"))

    def test_other_errors_are_not_hidden(self) -> None:
        """
        A mistake of ours is not taken for one of the host's.
        """
        self.outcome = lambda _: fail(ZeroDivisionError())
        self.assertIsInstance(self.run_probe("kms").exception, ZeroDivisionError)


class DescribeTests(SynchronousTestCase):
    """
    The text about an answer.
    """

    def describe(self, answer: OpenedResponse, request: RequestBody) -> list[str]:
        """
        Describe an answer, line by line.
        """
        sku = catalog().product(DEFAULT_PRODUCT)
        return describe(Target("kms"), sku, request, answer).split("\n")

    def test_without_hardware_id(self) -> None:
        """
        Before version 6 there is no hardware id, and the text says so.
        """
        request = body(4)
        lines = self.describe(response(request), request)
        self.assertIn("(protocol version 4)", lines[0])
        self.assertEqual(lines[2], "  hardware id:         none before version 6")

    def test_hostile_epid(self) -> None:
        """
        An ePID that would steer a terminal, or look like lines of ours, is shown so that it does neither.
        """
        request = body(6)
        for epid in ("\x1b[2J\x1b[H", "a\nb: c", "a\rb", "\u202eabc", "\x9b31m", "a\u2028b"):
            with self.subTest(epid=epid):
                lines = self.describe(response(request, epid, bytes(8)), request)
                self.assertEqual(len(lines), 6)
                self.assertTrue(all(line.isprintable() for line in lines), lines)
