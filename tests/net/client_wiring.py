"""
What the tests of the client share: endpoints in memory, and hosts that answer as a test wants them to.

The two ends are joined by C{twisted.test.iosim}.  L{ScriptedHost} knows nothing of RPC and sends what it was given;
L{OddHost} speaks RPC as it should and leaves the answers to the test; L{ClientCase} connects to the real host until it
is told to use another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.test import iosim
from zope.interface import implementer

from kmsproto.errors import KMSProtoError
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.kms.messages import RequestBody
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.net.client import ActivationClient, ClientOptions, activate, connect
from kmsproto.rpc import calls, server
from kmsproto.rpc.state import Interface
from tests.net.wiring import PEER, HostCase, body

ADDRESS = IPv4Address("TCP", PEER, 50123)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects a client to a host in memory.

    @param make: Makes the host's protocol for each connection.
    """

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make
        self.pumps: list[iosim.IOPump] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Connect at once.
        """
        client: Any = protocolFactory.buildProtocol(ADDRESS)
        host = self._make()
        self.pumps.append(
            iosim.connect(
                host,
                iosim.makeFakeServer(host),
                client,
                iosim.makeFakeClient(client),
                greet=False,
            )
        )
        return succeed(client)


@implementer(IStreamClientEndpoint)
class UnreachableEndpoint:
    """
    Answers every attempt to connect with the same Deferred.
    """

    def __init__(self, answer: Deferred[Any]) -> None:
        self._answer = answer

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Do not connect.
        """
        return self._answer


class ScriptedHost(Protocol):
    """
    A host that answers segment after segment as it was told, and then nothing.

    @param script: What to send; L{None} closes the connection.
    """

    transport: Any

    def __init__(self, *script: bytes | None) -> None:
        self._script = list(script)

    def dataReceived(self, data: bytes) -> None:
        """
        Send the next answer.
        """
        if self._script:
            answer = self._script.pop(0)
            if answer is None:
                self.transport.loseConnection()
            else:
                self.transport.write(answer)


class OddHost(Protocol):
    """
    A host whose RPC is right and whose answers are not.

    @param answer: Makes the stub of an answer; L{None} answers nothing.
    @param interface: What it offers.
    """

    transport: Any

    def __init__(
        self,
        answer: Callable[[calls.Call], bytes | None],
        interface: Interface = KMS_INTERFACE,
    ) -> None:
        self._answer = answer
        self.connection = server.RPCServer((interface,)).accept(PEER, "1688")

    def dataReceived(self, data: bytes) -> None:
        """
        Answer what can be answered.
        """
        while events := self.connection.receive_data(data):
            for event in events:
                if isinstance(event, calls.CallReceived):
                    stub = self._answer(event.call)
                    if stub is not None:
                        self.connection.respond(event.call, stub)
            data = b""
        self.transport.write(self.connection.data_to_send())


class ClientCase(HostCase):
    """
    A client, a clock, and a host of any kind.
    """

    def setUp(self) -> None:
        """
        Connect to the real host by default.
        """
        super().setUp()
        self.use(lambda: self.factory.buildProtocol(ADDRESS))

    def use(self, make: Callable[[], Any]) -> None:
        """
        Connect to another host.
        """
        self.endpoint = MemoryEndpoint(make)

    def flush(self) -> None:
        """
        Carry bytes to and fro until nobody has anything to say.
        """
        for pump in self.endpoint.pumps:
            pump.flush()

    def connected(self, **options: Any) -> ActivationClient:
        """
        Connect and bind.
        """
        connecting = connect(self.clock, self.endpoint, ClientOptions(**options))
        self.flush()
        client: ActivationClient = self.successResultOf(connecting)
        return client

    def ask(self, request: RequestBody | None = None, **options: Any) -> Deferred[OpenedResponse]:
        """
        Ask on a connection of its own, as far as it gets without time.
        """
        asked = activate(self.clock, self.endpoint, request or body(), ClientOptions(**options))
        self.flush()
        return asked

    def assertClosed(self) -> None:
        """
        Every connection is closed, and no timer waits.
        """
        self.flush()
        for pump in self.endpoint.pumps:
            self.assertTrue(pump.clientIO.disconnecting)
            self.assertTrue(pump.clientIO.disconnected or pump.serverIO.disconnected)
        self.assertTimers(0)

    def assertFails(self, asked: Deferred[Any], *kinds: type[KMSProtoError]) -> Any:
        """
        A request has failed like this, and the connection is closed.

        @return: The error.
        """
        failure = self.failureResultOf(asked, *kinds)
        self.assertClosed()
        return failure.value
