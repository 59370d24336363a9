"""
The examples of the documentation, run as they are, with each other.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, TCP6ClientEndpoint
from twisted.internet.endpoints import TCP6ServerEndpoint as TCP6Server
from twisted.trial.unittest import TestCase

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

    async def test_granted(self) -> None:
        """
        The embedded host grants what the example asks for, since its name begins with "lab-".
        """
        port = await self.listen()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        answer = await self.client.ask(reactor, endpoint, PRODUCT)
        self.assertRegex(answer, r"^granted by \d{5}-\d{5}-.*; the host counts 50 clients$")

    async def test_granted_whatever_the_case(self) -> None:
        """
        Capital letters make no difference to the policy.
        """
        port = await self.listen()
        self.rename("LAB-5")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        self.assertIn("granted", await self.client.ask(reactor, endpoint, PRODUCT))

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

    async def test_ipv6(self) -> None:
        """
        The embedded host listens wherever its application wants it, here over IPv6.
        """
        if not has_ipv6():
            self.skipTest("this machine has no IPv6")
        port = await self.listen(TCP6Server(reactor, 0, interface="::1"))
        endpoint = TCP6ClientEndpoint(reactor, "::1", port.getHost().port)
        self.assertIn("granted", await self.client.ask(reactor, endpoint, PRODUCT))

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
