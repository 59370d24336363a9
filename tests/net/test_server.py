"""
The host on wires: how connections begin, what they are answered, and what the factory behind them is made of.

What else may happen to a connection has modules of its own, whose names begin with C{test_server}.
"""

from __future__ import annotations

from twisted.internet.address import UNIXAddress
from twisted.internet.testing import StringTransport

from kmsproto.kms.verification import open_response
from kmsproto.net.server import HostFactory, Limits
from kmsproto.rpc import ndr, pdu
from tests.net.wiring import (
    BOUND,
    SALT,
    FakeTCP,
    HostCase,
    Wire,
    bind,
    body,
    call,
    calls,
    chunks,
    granted,
    payload,
    read_replies,
    sealed,
    split,
    unsupported,
)


class ConnectionTests(HostCase):
    """
    One connection, from its first byte to its answers.
    """

    def test_every_version(self) -> None:
        """
        Requests of all versions are granted, and the answers pass every check that a client makes.
        """
        wire = self.bound()
        for version in (4, 5, 6):
            message, request = sealed(body(version))
            wire.send(call(message, version))
            ((header, data),) = split(wire.take())
            self.assertEqual(header.call_id, version)
            answer, hresult = ndr.decode_activation_response(
                pdu.decode_response(header, data).stub, pdu.NDR, "<"
            )
            self.assertEqual(hresult, 0)
            self.assertEqual(open_response(answer, request).body.client_count, 50)

    def test_one_segment(self) -> None:
        """
        A bind and a request in one segment are both answered.
        """
        wire = self.wire()
        wire.send(bind() + call(payload()))
        self.assertEqual(wire.replies(), [BOUND, *granted(2)])

    def test_byte_by_byte(self) -> None:
        """
        A stream of segments of one byte is answered like one of whole PDUs.
        """
        whole, wire = self.wire(), self.wire()
        stream = bind() + calls(3)
        whole.send(stream)
        wire.send(*chunks(stream))
        expected = whole.replies()
        self.assertEqual(expected, [BOUND, *granted(2, 3, 4)])
        self.assertEqual(wire.replies(), expected)

    def test_many_calls(self) -> None:
        """
        A segment full of calls is answered in order, whether multiplexed or not.
        """
        for multiplexed in (False, True):
            wire = self.bound(multiplexed=multiplexed)
            wire.send(calls(200))
            self.assertEqual(wire.replies(), granted(*range(2, 202)))

    def test_names_its_port(self) -> None:
        """
        The bind_ack names the port of the host.
        """
        wire = self.wire()
        wire.send(bind())
        ((header, data),) = split(wire.take())
        self.assertEqual(pdu.decode_bind_ack(header, data).secondary_address, "1688")

    def test_unix_socket(self) -> None:
        """
        On a UNIX socket there is no port to name and no address to judge, and requests are granted.
        """
        transport = StringTransport(UNIXAddress("/run/kms.socket"), UNIXAddress(None))
        protocol = self.factory.buildProtocol(UNIXAddress(None))
        protocol.makeConnection(transport)
        protocol.dataReceived(bind() + call(payload()))
        ((header, data), answer) = split(transport.value())
        self.assertEqual(pdu.decode_bind_ack(header, data).secondary_address, "")
        self.assertEqual(read_replies(answer[1]), granted(2))

    def test_unix_socket_that_claims_to_be_tcp(self) -> None:
        """
        A UNIX socket whose transport claims to be one of TCP, and fails its option, is served.
        """
        transport = FakeTCP(UNIXAddress("/run/kms.socket"), UNIXAddress(None))
        self.patch(transport, "setTcpNoDelay", unsupported)
        protocol = self.factory.buildProtocol(UNIXAddress(None))
        protocol.makeConnection(transport)
        protocol.dataReceived(bind() + call(payload()))
        self.assertEqual(read_replies(transport.value()), [BOUND, *granted(2)])

    def test_no_delay(self) -> None:
        """
        Answers are sent without delay.
        """
        self.assertTrue(self.wire().tcp.no_delay)

    def test_forgotten_when_lost(self) -> None:
        """
        A connection that is gone leaves neither a timer nor a place behind.
        """
        wire = self.bound()
        self.assertTimers(1)
        wire.leave()
        self.assertTimers(0)
        self.successResultOf(self.factory.drain())


class FactoryTests(HostCase):
    """
    What the factory is made of.
    """

    def test_defaults(self) -> None:
        """
        Without limits the documented ones hold.
        """
        self.assertEqual(HostFactory(self.factory.host, self.clock).limits, Limits())
        self.assertEqual(Limits(), Limits(30.0, 2.0, 5.0, 16384, 1024))

    def test_transfer_syntaxes(self) -> None:
        """
        NDR64 and bind-time features are offered unless they are switched off.
        """
        for ndr64 in (True, False):
            for features in (True, False):
                factory = self.make_factory(ndr64=ndr64, bind_time_features=features)
                self.assertEqual(factory.rpc_server.ndr64, ndr64)
                self.assertEqual(factory.rpc_server.bind_time_features, features)

    def test_group_seed(self) -> None:
        """
        The ids of association groups begin where they are told to.
        """
        groups = []
        for seed in (0, 1000):
            factory = HostFactory(self.factory.host, self.clock, group_seed=seed)
            wire = Wire(factory)
            wire.send(bind())
            ((header, data),) = split(wire.take())
            groups.append(pdu.decode_bind_ack(header, data).association_group)
        self.assertNotEqual(groups[0], groups[1])

    def test_salt_of_the_tests(self) -> None:
        """
        The tests' own requests carry the salt that they say.
        """
        self.assertEqual(sealed(body())[1].salt, SALT)
