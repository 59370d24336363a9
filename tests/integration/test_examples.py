"""
The examples of the documentation, run as they are, with each other.
"""

from __future__ import annotations

import importlib.util
import sys
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, TCP6ClientEndpoint
from twisted.internet.endpoints import TCP6ServerEndpoint as TCP6Server
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kmsproto.errors import HostUnreachableError, ProductNotFoundError, VerificationError
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Grant
from kmsproto.testing import host_factory, make_host
from tests.coroutines import awaited
from tests.integration.processes import free_port, has_ipv6
from tests.net.wiring import catalog

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PRODUCT = "Windows 10/11 Enterprise"

reactor: Any = installed_reactor


def load(name: str) -> ModuleType:
    """
    Import an example by its path.
    """
    specification = importlib.util.spec_from_file_location(
        f"example_{name}", EXAMPLES / f"{name}.py"
    )
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def make_certificate(name: str) -> PrivateCertificate:
    """
    Make a certificate that vouches for itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return PrivateCertificate.loadPEM(certificate.public_bytes(serialization.Encoding.PEM) + pem)


class ExampleTests(TestCase):
    """
    The embedded host, and the coroutine that asks.
    """

    timeout = 60

    def setUp(self) -> None:
        """
        Import the examples.
        """
        self.host = load("embedded_host")
        self.client = load("activate_coroutine")

    async def listen(self, endpoint: Any = None) -> Any:
        """
        Run the factory of the example on the loopback address.
        """
        factory = self.host.make_factory(reactor, Path(self.mktemp()))
        endpoint = endpoint or TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)

        def stop() -> Deferred[Any]:
            return Deferred.fromCoroutine(self.stop(port, factory))

        self.addCleanup(stop)
        return port

    async def stop(self, port: Any, factory: Any) -> None:
        """
        Close the port, then every connection.
        """
        await port.stopListening()
        await factory.drain()

    def rename(self, workstation: str) -> None:
        """
        Let the client ask in another name than the example's.
        """
        original = self.client.make_request

        def make_request(*arguments: Any, **fields: Any) -> Any:
            return original(*arguments, **fields | {"workstation": workstation})

        self.patch(self.client, "make_request", make_request)

    @awaited
    async def test_granted(self) -> None:
        """
        The embedded host grants what the example asks for, since its name begins with "lab-".
        """
        port = await self.listen()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        answer = await self.client.ask(reactor, endpoint, PRODUCT)
        self.assertRegex(answer, r"^granted by \d{5}-\d{5}-.*; the host counts 50 clients$")

    @awaited
    async def test_granted_whatever_the_case(self) -> None:
        """
        Capital letters make no difference to the policy.
        """
        port = await self.listen()
        self.rename("LAB-5")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        self.assertIn("granted", await self.client.ask(reactor, endpoint, PRODUCT))

    @awaited
    async def test_refused(self) -> None:
        """
        The embedded host refuses machines with other names.
        """
        port = await self.listen()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        for name in ("desk-1", "", "xlab-1"):
            self.rename(name)
            answer = await self.client.ask(reactor, endpoint, PRODUCT)
            self.assertEqual(
                answer, "refused with 0xC004F042: the host does not activate this product"
            )

    @awaited
    async def test_ipv6(self) -> None:
        """
        The embedded host listens wherever its application wants it, here over IPv6.
        """
        if not has_ipv6():
            self.skipTest("this machine has no IPv6")
        port = await self.listen(TCP6Server(reactor, 0, interface="::1"))
        endpoint = TCP6ClientEndpoint(reactor, "::1", port.getHost().port)
        self.assertIn("granted", await self.client.ask(reactor, endpoint, PRODUCT))

    @awaited
    async def test_nobody_there(self) -> None:
        """
        Where no host listens, the example says so.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", free_port())
        answer = await self.client.ask(reactor, endpoint, PRODUCT)
        self.assertTrue(answer.startswith("failed: no connection: "), answer)

    def test_product_exists(self) -> None:
        """
        The product that the example asks for is in the catalogue.
        """
        self.assertEqual(catalog().product(PRODUCT).name, PRODUCT)


class EndpointTests(TestCase):
    """
    The shortest host, and hosts where no client of Windows would look.
    """

    timeout = 60

    def setUp(self) -> None:
        """
        Import what asks.
        """
        self.client = load("activate_coroutine")
        self.endpoints = load("other_endpoints")

    def serve(self, factory: Any, port: Any) -> None:
        """
        See that a port, and what is connected to it, is closed at the end.
        """

        async def stop() -> None:
            await port.stopListening()
            await factory.drain()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))

    @awaited
    async def test_five_lines(self) -> None:
        """
        The shortest host grants.
        """
        port = await load("five_line_host").listen(reactor, "tcp:0:interface=127.0.0.1")
        self.serve(port.factory, port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        answer = await self.client.ask(reactor, endpoint, PRODUCT)
        self.assertRegex(answer, r"^granted by 03612-04919-.*; the host counts 50 clients$")

    @awaited
    async def test_unix(self) -> None:
        """
        Host and client meet at a UNIX socket, which only user and group may use.
        """
        factory = host_factory(reactor)
        # The path of a UNIX socket has to be short.
        path = Path(self.mktemp()).name
        port = await self.endpoints.listen_locally(reactor, factory, path)
        self.serve(factory, port)
        self.assertEqual(Path(path).stat().st_mode & 0o777, 0o660)
        endpoint = self.endpoints.local_host(reactor, path)
        self.assertIn("granted", await self.client.ask(reactor, endpoint, PRODUCT))

    @awaited
    async def test_tls(self) -> None:
        """
        They understand each other over TLS, and the client refuses a host for which nobody vouches.
        """
        certificate, other = (
            make_certificate("kms.example.com"),
            make_certificate("kms.example.com"),
        )
        factory = host_factory(reactor)
        port = await self.endpoints.listen_with_tls(reactor, factory, certificate, 0)
        self.serve(factory, port)
        for authority, expected in ((certificate, "granted"), (other, "failed: ")):
            endpoint = self.endpoints.host_with_tls(
                reactor, "kms.example.com", port.getHost().port, Certificate(authority.original)
            )
            answer = await self.client.ask(reactor, endpoint, PRODUCT)
            self.assertTrue(answer.startswith(expected), answer)

    @awaited
    async def test_own_policy(self) -> None:
        """
        The factory with a policy of its own serves this machine, and asks the inventory.
        """
        example = load("own_policy")
        asked: list[str] = []

        def look_up(name: str) -> Deferred[bool]:
            asked.append(name)
            return succeed(True)

        policy = example.make_policy(catalog(), look_up)
        factory = example.make_factory(make_host(policy), reactor)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.serve(factory, port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        answer = await self.client.ask(reactor, endpoint, PRODUCT)
        self.assertTrue(answer.endswith("; the host counts 1 clients"), answer)
        self.assertEqual(asked, ["lab-example"])
        self.assertEqual(factory.limits.max_connections_per_address, 20)


class ManyTests(TestCase):
    """
    The client that asks for several products.
    """

    timeout = 60

    def setUp(self) -> None:
        """
        Import it.
        """
        self.example = load("ask_for_many")

    async def listen(self, policy: Any) -> int:
        """
        Run a host with a policy.
        """
        factory = host_factory(reactor, policy=policy)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)

        async def stop() -> None:
            await port.stopListening()
            await factory.drain()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        number: int = port.getHost().port
        return number

    @awaited
    async def test_over_tcp(self) -> None:
        """
        It prints what came of each product.
        """
        lines: list[str] = []
        vars(self.example)["print"] = lines.append
        decisions = iter((Grant(50), HResult.PRODUCT_REFUSED))
        port = await self.listen(lambda *question: next(decisions))
        await self.example.main(reactor, "127.0.0.1", str(port), PRODUCT, "Office Mondo 2016")
        self.assertEqual(lines, [f"{PRODUCT}: activated", "Office Mondo 2016: refused: 0xc004f042"])

    @awaited
    async def test_wrong_answers(self) -> None:
        """
        An answer that fails a check costs only the one product.
        """
        port = await self.listen(lambda *question: Grant(50))

        async def activate(client: Any, request: Any) -> None:
            raise VerificationError("the MAC", "it is wrong")

        original = self.example.connect

        async def connect(*arguments: Any) -> Any:
            client = await original(*arguments)
            client.activate = lambda request: Deferred.fromCoroutine(activate(client, request))
            return client

        self.patch(self.example, "connect", connect)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        outcomes = await self.example.ask(reactor, endpoint, [PRODUCT])
        self.assertTrue(outcomes[PRODUCT].startswith("answered, but wrong: "), outcomes)

    @awaited
    async def test_nobody_there(self) -> None:
        """
        Where no host listens, it ends with one line; a product that does not exist is told before that.
        """
        with self.assertRaises(SystemExit) as caught:
            await self.example.main(reactor, "127.0.0.1", str(free_port()), PRODUCT)
        self.assertTrue(str(caught.exception).startswith("127.0.0.1: no connection: "))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", free_port())
        with self.assertRaises(HostUnreachableError):
            await self.example.ask(reactor, endpoint, [PRODUCT])
        with self.assertRaises(ProductNotFoundError):
            await self.example.ask(reactor, endpoint, ["Windows 3.11"])


class TestedExampleTests(SynchronousTestCase):
    """
    The tests among the examples.
    """

    def test_own_tests(self) -> None:
        """
        They pass, and there are some.
        """
        self.addCleanup(sys.path.remove, str(EXAMPLES))
        for name in ("own_policy", "ask_for_many"):
            self.addCleanup(sys.modules.pop, name, None)
        suite = TestLoader().loadModule(load("test_own_policy"))
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual((result.errors, result.failures), ([], []))
        self.assertEqual(result.testsRun, 5)
