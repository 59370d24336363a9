"""
An independent client over TCP: impacket, which knows DCE/RPC and nothing of this project.

The host listens on the loopback interface in the reactor of trial, the client blocks in a thread
with a time limit on its socket.  Everything is taken from the message level up: the KMS messages
were recorded and travel in raw calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.conformance.payloads import REQUESTS, check_activation
from tests.conformance.pdus import (
    KMS,
    MANAGEMENT,
    NDR,
    NDR64,
    STRANGER,
    Syntax,
    activation_stub,
)
from tests.conformance.wire import build_factory

try:
    from impacket.dcerpc.v5 import mgmt, rpcrt, transport  # type: ignore[import-untyped]
    from impacket.uuid import bin_to_string, uuidtup_to_bin  # type: ignore[import-untyped]
except ImportError:  # pragma: no cover
    mgmt = None

Outcome = TypeVar("Outcome")

#: How long the client waits for anything, in seconds.
PATIENCE = 10


def described(syntax: Syntax) -> tuple[str, str]:
    """
    A syntax as impacket wants it.
    """
    return str(syntax.uuid), f"{syntax.major}.{syntax.minor}"


class Client:
    """
    A connection of impacket, for use in a thread.

    @ivar dce: The object that impacket has for a connection.
    """

    def __init__(self, port: int) -> None:
        self.dce: Any = transport.DCERPCTransportFactory(
            f"ncacn_ip_tcp:127.0.0.1[{port}]"
        ).get_dce_rpc()
        self.dce.get_rpc_transport().set_connect_timeout(PATIENCE)
        self.dce.connect()
        self.dce.get_rpc_transport().get_socket().settimeout(PATIENCE)

    def bind(self, interface: Syntax, syntax: Syntax) -> None:
        """
        Bind an interface in one transfer syntax.
        """
        self.dce.bind(uuidtup_to_bin(described(interface)), transfer_syntax=described(syntax))

    def close(self) -> None:
        """
        Close the connection.
        """
        self.dce.disconnect()


def activate(dce: Any, syntax: Syntax, payload: bytes) -> None:
    """
    One activation by a raw call, and a look at its answer.
    """
    dce.call(0, activation_stub(payload, syntax))
    check_activation(dce.recv(), payload, syntax)


class ImpacketTests(TestCase):
    """
    What impacket says to the host and hears from it.
    """

    timeout = 60
    if mgmt is None:  # pragma: no cover
        skip = "impacket is not installed"

    def setUp(self) -> None:
        """
        Start a host.
        """
        factory = build_factory(reactor)
        port = reactor.listenTCP(0, cast(ServerFactory, factory), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        self.port = address.port

    def with_client(self, use: Callable[[Client], Outcome]) -> Deferred[Outcome]:
        """
        Run a function with a connection, in a thread.
        """

        def run() -> Outcome:
            client = Client(self.port)
            try:
                return use(client)
            finally:
                client.close()

        return deferToThread(run)

    def test_activation(self) -> Deferred[None]:
        """
        Requests of all KMS versions are granted, several on one connection, in NDR.
        """

        def use(client: Client) -> None:
            client.bind(KMS, NDR)
            for payload in REQUESTS.values():
                activate(client.dce, NDR, payload)

        return self.with_client(use)

    def test_activation_ndr64(self) -> Deferred[None]:
        """
        Requests of all KMS versions are granted in NDR64.
        """

        def use(client: Client) -> None:
            client.bind(KMS, NDR64)
            for payload in REQUESTS.values():
                activate(client.dce, NDR64, payload)

        return self.with_client(use)

    def test_fragments(self) -> Deferred[None]:
        """
        Calls in fragments of a few bytes are granted.
        """

        def use(client: Client) -> None:
            client.bind(KMS, NDR)
            for size in (1, 7, 8, 100, 259):
                client.dce.set_max_fragment_size(size)
                activate(client.dce, NDR, REQUESTS[6])
            client.dce.set_default_max_fragment_size()
            activate(client.dce, NDR, REQUESTS[6])

        return self.with_client(use)

    def test_alter_context(self) -> Deferred[None]:
        """
        An interface added by alter_context is served beside the one that was bound.
        """

        def use(client: Client) -> None:
            client.bind(KMS, NDR)
            other = client.dce.alter_ctx(uuidtup_to_bin(described(MANAGEMENT)))
            self.assertEqual(mgmt.his_server_listening(other)["status"], 0)
            activate(client.dce, NDR, REQUESTS[4])
            self.assertEqual(mgmt.his_server_listening(other)["status"], 0)

        return self.with_client(use)

    def test_bogus_contexts(self) -> Deferred[None]:
        """
        Many contexts that mean nothing, in front of the one that does, do not disturb.
        """

        def use(client: Client) -> None:
            client.dce.bind(
                uuidtup_to_bin(described(KMS)), bogus_binds=30, transfer_syntax=described(NDR)
            )
            activate(client.dce, NDR, REQUESTS[5])

        return self.with_client(use)

    def management(self, syntax: Syntax) -> Deferred[None]:
        """
        Call all operations of the management interface.
        """

        def use(client: Client) -> None:
            client.bind(MANAGEMENT, syntax)
            dce = client.dce
            answer = mgmt.hinq_if_ids(dce)
            self.assertEqual(answer["status"], 0)
            self.assertEqual(answer["if_id_vector"]["count"], 2)
            interfaces = [
                bin_to_string(one["Data"]["Uuid"]).lower()
                for one in answer["if_id_vector"]["if_id"]
            ]
            self.assertEqual(interfaces, [str(KMS.uuid), str(MANAGEMENT.uuid)])
            answer = mgmt.hinq_stats(dce)
            self.assertEqual((answer["count"], answer["status"]), (4, 0))
            self.assertEqual(len(answer["statistics"]), 4)
            self.assertEqual(mgmt.his_server_listening(dce)["status"], 0)
            with self.assertRaises(rpcrt.DCERPCException) as caught:
                mgmt.hstop_server_listening(dce)
            self.assertEqual(caught.exception.get_error_code(), 5)
            answer = mgmt.hinq_princ_name(dce)
            self.assertEqual(answer["status"], 0x16C9A011)

        return self.with_client(use)

    def test_management(self) -> Deferred[None]:
        """
        All operations of the management interface answer in NDR.
        """
        return self.management(NDR)

    def test_management_ndr64(self) -> Deferred[None]:
        """
        All operations of the management interface answer in NDR64.
        """
        return self.management(NDR64)

    def test_stopped_by_nobody(self) -> Deferred[None]:
        """
        A host that was asked to stop goes on, for that client and for others.
        """

        def use(client: Client) -> None:
            client.bind(MANAGEMENT, NDR)
            with self.assertRaises(rpcrt.DCERPCException):
                mgmt.hstop_server_listening(client.dce)
            second = Client(self.port)
            second.bind(KMS, NDR)
            activate(second.dce, NDR, REQUESTS[6])
            second.close()

        return self.with_client(use)

    def test_unknown_interface(self) -> Deferred[None]:
        """
        An interface that the host does not have is refused, in words that impacket knows.
        """

        def use(client: Client) -> None:
            with self.assertRaises(rpcrt.DCERPCException) as caught:
                client.bind(STRANGER, NDR)
            self.assertIn("abstract_syntax_not_supported", str(caught.exception))

        return self.with_client(use)

    def test_bad_opnum(self) -> Deferred[None]:
        """
        An operation that does not exist is a fault, and the connection serves the next call.
        """

        def use(client: Client) -> None:
            client.bind(KMS, NDR)
            client.dce.call(7, b"")
            with self.assertRaises(rpcrt.DCERPCException) as caught:
                client.dce.recv()
            self.assertIn("nca_s_op_rng_error", str(caught.exception))
            activate(client.dce, NDR, REQUESTS[6])

        return self.with_client(use)

    @inlineCallbacks
    def test_authentication(self) -> Any:
        """
        A bind with NTLM is refused in a way that impacket survives; without it, it is served.
        """

        def refused(client: Client) -> None:
            client.dce.set_credentials("user", "password", "domain")
            client.dce.set_auth_type(rpcrt.RPC_C_AUTHN_WINNT)
            client.dce.set_auth_level(rpcrt.RPC_C_AUTHN_LEVEL_PKT_PRIVACY)
            with self.assertRaises(rpcrt.DCERPCException) as caught:
                client.bind(KMS, NDR)
            self.assertEqual(caught.exception.get_error_code(), 8)

        def served(client: Client) -> None:
            client.bind(KMS, NDR)
            activate(client.dce, NDR, REQUESTS[6])

        yield self.with_client(refused)
        yield self.with_client(served)
