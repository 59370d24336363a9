"""
Every product that has a number is activated over real TCP, in every version and in every way to bind.
"""

from __future__ import annotations

import uuid
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.trial.unittest import TestCase

from kmsproto.kms.catalog import SKU, load_catalog
from kmsproto.kms.messages import PROTOCOL_VERSIONS, RequestBody
from kmsproto.kms.requests import make_request
from kmsproto.net.client import ClientOptions, activate, connect
from kmsproto.testing import host_factory

reactor: Any = installed_reactor
#: How many products users know by number.
NUMBERED = 252
WAYS_TO_BIND = [(ndr64, features) for ndr64 in (True, False) for features in (True, False)]


class ProductTests(TestCase):
    """
    A host on loopback, and our client.
    """

    timeout = 120

    def setUp(self) -> None:
        """
        Listen.
        """
        self.catalog = load_catalog()
        self.products = sorted(self.catalog.skus.values(), key=lambda sku: sku.number)[:NUMBERED]
        factory = host_factory(reactor, catalog=self.catalog)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(factory.drain)
        self.addCleanup(port.stopListening)
        self.endpoint = HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)

    def request(self, product: SKU, protocol: int) -> RequestBody:
        """
        Make a request of a client of its own.
        """
        return make_request(
            self.catalog,
            product,
            client_machine_id=uuid.uuid4(),
            workstation=f"desk-{product.number}",
            now=reactor.seconds(),
            protocol=protocol,
        )

    async def ask_for_all(self, options: ClientOptions) -> int:
        """
        Ask for all of them in all versions, on one connection.

        @return: How many were granted with enough clients.
        """
        granted = 0
        client = await connect(reactor, self.endpoint, options)
        for product in self.products:
            for protocol in PROTOCOL_VERSIONS:
                request = self.request(product, protocol)
                response = await client.activate(request)
                granted += response.body.client_count >= request.n_policy
        await client.close()
        return granted

    async def ask_each_way(self) -> None:
        """
        Ask for all in every way to bind.
        """
        self.assertEqual(
            [product.number for product in self.products], list(range(1, NUMBERED + 1))
        )
        for ndr64, features in WAYS_TO_BIND:
            options = ClientOptions(ndr64=ndr64, bind_time_features=features)
            self.assertEqual(await self.ask_for_all(options), NUMBERED * len(PROTOCOL_VERSIONS))

    async def ask_apart(self) -> None:
        """
        Ask for each in its own version on a connection of its own.
        """
        for product in self.products:
            response = await activate(
                reactor, self.endpoint, self.request(product, product.protocol)
            )
            self.assertEqual(response.body.major_version, product.protocol)

    def test_one_connection(self) -> Deferred[None]:
        """
        All products are granted in all versions, with hundreds of calls on each of a few connections.
        """
        return Deferred.fromCoroutine(self.ask_each_way())

    def test_connection_for_each(self) -> Deferred[None]:
        """
        All products are granted with a connection for each.
        """
        return Deferred.fromCoroutine(self.ask_apart())
