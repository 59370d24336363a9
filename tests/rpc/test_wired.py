"""
Our two sides wired to each other, without a transport in between.
"""

from __future__ import annotations

from itertools import product
from struct import pack, unpack_from

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.calls import Call, CallReceived, CallRefused, ConnectionRefused
from kmsproto.rpc.calls import Event as ServerEvent
from kmsproto.rpc.client import (
    AlterRefused,
    BindAccepted,
    BindRefused,
    ClientConnection,
    ContextsAltered,
    FaultReceived,
    ResponseReceived,
    offer,
)
from kmsproto.rpc.client import Event as ClientEvent
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId
from kmsproto.rpc.server import RPCServer
from tests.rpc import PROPERTY
from tests.rpc.building import (
    ECHO,
    KMS,
    UNKNOWN,
    accepted,
    element,
    features,
    only,
    refused,
)


class Wire:
    """
    A client and a server, and an application that answers operation 3 of any interface with fault 5, and all others
    with the stub turned round.

    @ivar calls: The calls that the application has seen.
    @ivar server_events: Everything else that the server told.
    """

    def __init__(
        self, server: RPCServer | None = None, *, multiplexed: bool = True, peer: str = "a"
    ) -> None:
        self.server = (server or RPCServer([KMS, ECHO])).accept(peer, "1688")
        self.client = ClientConnection(multiplexed=multiplexed)
        self.calls: list[Call] = []
        self.server_events: list[ServerEvent] = []

    def run(self) -> list[ClientEvent]:
        """
        Carry bytes until nobody has anything to say.

        @return: What the client told.
        """
        told: list[ClientEvent] = []
        data = self.client.data_to_send()
        while True:
            events = self.server.receive_data(data)
            for event in events:
                if isinstance(event, CallReceived):
                    self.calls.append(event.call)
                    if event.call.opnum == 3:
                        self.server.fault(event.call, FaultStatus.ACCESS_DENIED)
                    else:
                        self.server.respond(event.call, event.call.stub[::-1])
                else:
                    self.server_events.append(event)
            told += self.client.receive_data(self.server.data_to_send())
            data = self.client.data_to_send()
            if not events and not data:
                return told


class WiredTests(SynchronousTestCase):
    """
    Binds, alter_contexts and calls between our two sides.
    """

    def test_every_combination(self) -> None:
        """
        Whatever each side can do, they agree on what both can, and a call is answered.
        """
        choices = product((True, False), repeat=5)
        for server_ndr64, server_features, ndr64, wanted, multiplexed in choices:
            server = RPCServer([KMS], ndr64=server_ndr64, bind_time_features=server_features)
            wire = Wire(server, multiplexed=multiplexed)
            wire.client.bind(offer(KMS.syntax, ndr64=ndr64, bind_time_features=wanted))
            ack = only(BindAccepted, wire.run()).ack
            both = ndr64 and server_ndr64
            results = [refused(2) if both else accepted()]
            if ndr64:
                results.append(accepted(NDR64) if both else refused(2))
            if wanted:
                results.append(features(3) if server_features else refused(2))
            self.assertEqual(ack.results, tuple(results))
            self.assertEqual(wire.client.contexts, {1: NDR64} if both else {0: NDR})
            (context_id,) = wire.client.contexts
            call_id = wire.client.call(context_id, 0, b"stub")
            self.assertEqual(wire.run(), [ResponseReceived(call_id, "<", b"buts")])
            self.assertEqual(wire.server_events, [])

    def test_alter_context(self) -> None:
        """
        NDR that lost against NDR64 is proposed again, and both contexts can be called.
        """
        wire = Wire()
        elements = offer(KMS.syntax, ndr64=True, bind_time_features=True)
        wire.client.bind(elements)
        wire.run()
        wire.client.alter_context(elements[:1])
        ack = only(ContextsAltered, wire.run()).ack
        self.assertEqual((ack.results, ack.secondary_address), ((accepted(),), ""))
        self.assertEqual(wire.client.contexts, {0: NDR, 1: NDR64})
        wire.client.call(0, 0, b"one")
        wire.client.call(1, 0, b"two")
        self.assertEqual(len(wire.run()), 2)
        self.assertEqual([call.context.transfer_syntax for call in wire.calls], [NDR, NDR64])

    def test_illegal_alter_context(self) -> None:
        """
        An alter_context that would change a context is answered with a fault, and the server closes.
        """
        wire = Wire()
        wire.client.bind([element(0)])
        wire.run()
        wire.client.alter_context([element(0, KMS.syntax, NDR64)])
        self.assertEqual(wire.run(), [AlterRefused(FaultStatus.PROTO_ERROR)])
        only(ConnectionRefused, wire.server_events)

    def test_refused_bind(self) -> None:
        """
        A bind to a group that does not live is refused on both sides.
        """
        wire = Wire()
        wire.client.bind([element(0)], association_group=5)
        self.assertEqual(wire.run(), [BindRefused(0)])
        self.assertTrue(wire.client.closed)
        self.assertTrue(wire.server.closed)

    def test_shared_group(self) -> None:
        """
        A second connection joins the group that the first one was given.
        """
        server = RPCServer([KMS], group_seed=40)
        for wanted in (0, 41):
            wire = Wire(server)
            wire.client.bind([element(0)], association_group=wanted)
            self.assertEqual(only(BindAccepted, wire.run()).ack.association_group, 41)

    def test_nothing_accepted(self) -> None:
        """
        A bind of which every context is refused can be repaired.
        """
        wire = Wire()
        wire.client.bind([element(0, UNKNOWN)])
        self.assertEqual(only(BindAccepted, wire.run()).ack.results, (refused(1),))
        self.assertEqual(wire.client.contexts, {})
        wire.client.alter_context([element(0)])
        wire.run()
        self.assertEqual(wire.client.contexts, {0: NDR})

    @PROPERTY
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20000)), max_size=5),
        st.sampled_from([1, 2, 64]),
        st.booleans(),
    )
    def test_fragments_both_ways(
        self, calls: list[tuple[int, int]], max_calls: int, multiplexed: bool
    ) -> None:
        """
        Stubs of any size go both ways in fragments of the smallest size, and every call is answered in its order.
        """
        wire = Wire(RPCServer([ECHO], max_calls=max_calls), multiplexed=multiplexed)
        wire.client._fragment_size = 2048
        wire.client.bind([element(7, ECHO.syntax)])
        self.assertEqual(only(BindAccepted, wire.run()).ack.max_recv_frag, 2048)
        expected: list[ClientEvent] = []
        for opnum, size in calls:
            stub = (bytes(range(251)) * 80)[:size]
            call_id = wire.client.call(7, opnum, stub)
            expected.append(
                FaultReceived(call_id, FaultStatus.ACCESS_DENIED)
                if opnum == 3
                else ResponseReceived(call_id, "<", stub[::-1])
            )
        self.assertEqual(wire.run(), expected)
        self.assertEqual([(call.opnum, len(call.stub)) for call in wire.calls], calls)
        self.assertEqual(wire.server_events, [])

    def test_faults(self) -> None:
        """
        A call of an operation that does not exist is answered with a fault, and the next one is served.
        """
        wire = Wire()
        wire.client.bind([element(0)])
        wire.run()
        wire.client.call(0, 1, bytes(20000))
        wire.client.call(0, 0, b"ab")
        self.assertEqual(
            wire.run(),
            [FaultReceived(2, FaultStatus.OP_RNG_ERROR), ResponseReceived(3, "<", b"ba")],
        )
        self.assertEqual(only(CallRefused, wire.server_events).call_id, 2)

    def test_too_large_call(self) -> None:
        """
        A call beyond the server's limit ends the connection with a fault.
        """
        wire = Wire(RPCServer([KMS], max_stub=9000))
        wire.client.bind([element(0)])
        wire.run()
        wire.client.call(0, 0, bytes(9001))
        self.assertEqual(wire.run(), [FaultReceived(2, FaultStatus.ACCESS_DENIED)])
        self.assertTrue(wire.server.closed)


class WiredManagementTests(SynchronousTestCase):
    """
    The management interface between our two sides.
    """

    def ask(self, syntax: SyntaxId, opnum: int, stub: bytes = b"") -> ClientEvent:
        """
        Bind to the management interface beside the KMS interface, and make one call.
        """
        wire = Wire(RPCServer([KMS]))
        wire.client.bind([element(0), element(1, MANAGEMENT.syntax, syntax)])
        self.assertEqual(only(BindAccepted, wire.run()).ack.results[1], accepted(syntax))
        self.assertEqual(wire.client.call(1, opnum, stub), 2)
        (event,) = wire.run()
        self.assertEqual(wire.calls, [])
        return event

    def test_interfaces(self) -> None:
        """
        The interfaces of the server are told in both syntaxes.
        """
        for syntax, start, bound in ((NDR, 20, "<I"), (NDR64, 40, "<Q")):
            event = self.ask(syntax, 0)
            assert isinstance(event, ResponseReceived)
            (count,) = unpack_from(bound, event.stub, 4 if syntax == NDR else 8)
            self.assertEqual(count, 2)
            self.assertEqual(event.stub[start : start + 16], KMS.syntax.uuid.bytes_le)
            self.assertEqual(event.stub[start + 20 :][:16], MANAGEMENT.syntax.uuid.bytes_le)
            self.assertEqual(event.stub[-4:], bytes(4))

    def test_statistics(self) -> None:
        """
        One call and two PDUs have come in, and one PDU has gone out, when the statistics are asked for.
        """
        for syntax, layout in ((NDR, "<II"), (NDR64, "<I4xQ")):
            event = self.ask(syntax, 1, pack("<I", 4))
            expected = pack(layout, 4, 4) + pack("<5I", 1, 0, 2, 1, 0)
            self.assertEqual(event, ResponseReceived(2, "<", expected))

    def test_listening(self) -> None:
        """
        The server listens, and does not let itself be stopped.
        """
        for syntax in (NDR, NDR64):
            self.assertEqual(self.ask(syntax, 2), ResponseReceived(2, "<", pack("<II", 0, 1)))
            self.assertEqual(self.ask(syntax, 3), ResponseReceived(2, "<", pack("<I", 5)))

    def test_principal_name(self) -> None:
        """
        Nobody has a principal name.
        """
        for syntax, layout in ((NDR, "<3IB3xI"), (NDR64, "<3QB3xI")):
            expected = pack(layout, 9, 0, 1, 0, 0x16C9A011)
            self.assertEqual(
                self.ask(syntax, 4, pack("<II", 10, 9)), ResponseReceived(2, "<", expected)
            )

    def test_faults(self) -> None:
        """
        A stub without its arguments, or an operation that does not exist, is answered with a fault.
        """
        for syntax in (NDR, NDR64):
            self.assertEqual(self.ask(syntax, 1), FaultReceived(2, FaultStatus.BAD_STUB_DATA))
            self.assertEqual(self.ask(syntax, 5), FaultReceived(2, FaultStatus.OP_RNG_ERROR))
