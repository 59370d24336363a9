"""
The order of PDUs: both of our sides against a model that knows nothing but the transition tables.

The model adds to the tables only what they leave out, namely which call is meant: a fragment belongs to the call that
is open or was given up, an answer to a call that was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.rpc.calls import CallReceived, ConnectionRefused
from kmsproto.rpc.client import ClientConnection, ServerMisbehaved
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.state import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    Arrival,
    ClientState,
    ServerState,
    client_arrival,
    server_arrival,
)
from tests.rpc import PROPERTY
from tests.rpc.building import (
    accepted,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    element,
    established,
    serve,
    types,
)

#: Rare sequences matter here, and an example costs little.
MANY = settings(PROPERTY, max_examples=400)


@dataclass(frozen=True)
class ServerStep:
    """
    A PDU that arrives at a server.
    """

    packet_type: int
    flags: int
    call_id: int
    #: Whether a request is on a context that was accepted.
    known: bool

    def build(self) -> bytes:
        """
        Write the PDU.
        """
        if self.packet_type == PacketType.REQUEST:
            return build_request(
                b"ab", context_id=0 if self.known else 9, flags=self.flags, call_id=self.call_id
            )
        if self.packet_type in (PacketType.BIND, PacketType.ALTER_CONTEXT):
            return build_bind(
                [element(0)],
                packet_type=self.packet_type,
                flags=self.flags,
                call_id=self.call_id,
            )
        return build_pdu(self.packet_type, bytes(16), flags=self.flags, call_id=self.call_id)


@dataclass
class ServerModel:
    """
    What a server should have agreed to.
    """

    state: ServerState = ServerState.ESTABLISHED
    open: int | None = None
    dropped: int | None = None

    def take(self, step: ServerStep) -> None:
        """
        Take a step as the table says.
        """
        arrival = server_arrival(step.packet_type, step.flags)
        state = SERVER_TRANSITIONS[self.state].get(arrival) if arrival else None
        if state is None or not self.fits(arrival, step.call_id):
            self.state = ServerState.CLOSED
            return
        self.state = state
        if arrival is Arrival.FIRST_FRAGMENT:
            self.open = step.call_id
            if not step.known:
                self.drop()
        elif arrival in (Arrival.LAST_FRAGMENT, Arrival.WHOLE_CALL):
            self.open = None
        elif arrival is Arrival.ORPHANED and self.open == step.call_id:
            self.drop()

    def fits(self, arrival: Arrival | None, call_id: int) -> bool:
        """
        Tell whether a later fragment belongs to the call that is open or was given up.
        """
        if arrival not in (Arrival.MIDDLE_FRAGMENT, Arrival.LAST_FRAGMENT):
            return True
        return call_id == (self.dropped if self.open is None else self.open)

    def drop(self) -> None:
        """
        Give the open call up.
        """
        self.state = SERVER_TRANSITIONS[self.state][Arrival.CALL_DROPPED]
        self.dropped, self.open = self.open, None


#: Arrivals that are mostly legal, so that long sequences come about.
SERVER_STEPS = st.builds(
    ServerStep,
    st.sampled_from([0] * 8 + [14, 14, 16, 18, 19, 19, 19]) | st.sampled_from([11, 2, 17, 20, 99]),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from([True, True, False]),
)
BIND = ServerStep(PacketType.BIND, 3, 1, True)


class ServerOrderTests(SynchronousTestCase):
    """
    Our server against its table.
    """

    def agree(self, steps: list[ServerStep]) -> None:
        """
        Feed a server and the model, and compare them after each PDU.
        """
        connection, model = established(), ServerModel()
        for step in steps:
            was_open = model.state is not ServerState.CLOSED
            model.take(step)
            events = serve(connection, step.build())
            self.assertIs(connection.state, model.state)
            refused = [event for event in events if isinstance(event, ConnectionRefused)]
            self.assertEqual(len(refused), was_open and model.state is ServerState.CLOSED)
            arrival = server_arrival(step.packet_type, step.flags)
            complete = arrival in (Arrival.WHOLE_CALL, Arrival.LAST_FRAGMENT)
            if any(isinstance(event, CallReceived) for event in events):
                self.assertTrue(complete)

    @MANY
    @given(st.lists(SERVER_STEPS, max_size=12))
    def test_bound(self, steps: list[ServerStep]) -> None:
        """
        After a bind, whatever arrives, the server is where its table says.
        """
        self.agree([BIND, *steps])

    @MANY
    @given(SERVER_STEPS | st.just(BIND), st.lists(SERVER_STEPS, max_size=3))
    def test_established(self, first: ServerStep, rest: list[ServerStep]) -> None:
        """
        Before a bind, whatever arrives, the server is where its table says.
        """
        self.agree([first, *rest])

    def test_every_cell(self) -> None:
        """
        In each state each type with each flags is taken if and only if the table has it.
        """
        first = ServerStep(0, 1, 1, True)
        ways = {
            ServerState.ESTABLISHED: [],
            ServerState.BOUND: [BIND],
            ServerState.RECEIVING: [BIND, first],
            ServerState.DISCARDING: [BIND, first, ServerStep(19, 3, 1, True)],
            ServerState.CLOSED: [ServerStep(17, 3, 1, True)],
        }
        self.assertEqual(set(ways), set(ServerState))
        for state, way in ways.items():
            for packet_type in range(22):
                for flags in range(4):
                    connection = established()
                    for step in way:
                        connection.receive_data(step.build())
                    self.assertIs(connection.state, state)
                    arrival = server_arrival(packet_type, flags)
                    serve(connection, ServerStep(packet_type, flags, 1, True).build())
                    legal = arrival is not None and arrival in SERVER_TRANSITIONS[state]
                    self.assertEqual(connection.closed, not legal)
                    self.agree([*way, ServerStep(packet_type, flags, 1, True)])


@dataclass(frozen=True)
class ClientStep:
    """
    A wish of a client's owner, or a PDU of its server.

    @ivar wish: C{"bind"}, C{"alter"} or C{"call"}; empty for a PDU.
    @ivar packet_type: The type of the PDU.
    @ivar which: Which of the calls or negotiations that wait it names, or -1 for one that was never made.
    @ivar flags: The flags of a response.
    """

    wish: str
    packet_type: int = 0
    which: int = 0
    flags: int = 3


@dataclass
class ClientModel:
    """
    What a client should be waiting for.
    """

    state: ClientState = ClientState.UNBOUND
    next_id: int = 2
    negotiation: int | None = None
    #: The calls that wait, and whether a fragment of the answer has come.
    calls: dict[int, bool] = field(default_factory=dict)

    def wish(self, arrival: Arrival) -> bool:
        """
        Take a step of our own.

        @return: Whether it is legal.
        """
        state = CLIENT_TRANSITIONS[self.state].get(arrival)
        if state is None:
            return False
        self.state = state
        if arrival is Arrival.WHOLE_CALL:
            self.calls[self.next_id] = False
            self.next_id += 1
        else:
            self.negotiation = self.next_id
        return True

    def call_id(self, step: ClientStep) -> int:
        """
        Tell which call id a step names.
        """
        waiting = list(self.calls)
        if self.negotiation is not None:
            waiting.append(self.negotiation)
        return 1 if step.which < 0 or not waiting else waiting[step.which % len(waiting)]

    def take(self, step: ClientStep) -> None:
        """
        Take a PDU as the table says.
        """
        call_id = self.call_id(step)
        arrival = client_arrival(step.packet_type)
        negotiates = call_id == self.negotiation
        if arrival is Arrival.FAULT and negotiates:
            arrival = Arrival.ALTER_REFUSED
        state = CLIENT_TRANSITIONS[self.state].get(arrival) if arrival else None
        legal = state is not None
        if arrival is Arrival.RESPONSE:
            begun = self.calls.get(call_id)
            legal = legal and begun is not None and begun != bool(step.flags & 1)
            if legal:
                self.calls[call_id] = True
                if step.flags & 2:
                    del self.calls[call_id]
        elif arrival is Arrival.FAULT:
            legal = legal and self.calls.pop(call_id, None) is not None
        elif arrival is not Arrival.BIND_NAK:
            legal = legal and negotiates
            self.negotiation = None
        self.state = state if state is not None and legal else ClientState.CLOSED


CLIENT_STEPS = st.builds(
    ClientStep,
    st.sampled_from(["bind", "alter", "alter", "call", "call", "call"]),
) | st.builds(
    ClientStep,
    st.just(""),
    st.sampled_from([2] * 5 + [3, 3, 15, 15]) | st.sampled_from([12, 13, 17, 0]),
    st.sampled_from([0, 1, 2, 3] * 3 + [-1]),
    st.integers(0, 3),
)


class ClientOrderTests(SynchronousTestCase):
    """
    Our client against its table.
    """

    def build(self, step: ClientStep, call_id: int) -> bytes:
        """
        Write the PDU of a step.
        """
        if step.packet_type == PacketType.RESPONSE:
            return build_response(b"ab", flags=step.flags, call_id=call_id)
        if step.packet_type == PacketType.FAULT:
            return build_fault(5, call_id=call_id)
        if step.packet_type in (PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP):
            return build_ack([accepted()], packet_type=step.packet_type, call_id=call_id)
        if step.packet_type == PacketType.BIND_NAK:
            return build_nak(call_id=call_id)
        return build_pdu(step.packet_type, bytes(16), call_id=call_id)

    def agree(self, steps: list[ClientStep]) -> None:
        """
        Do the same to a client and the model, and compare them after each step.
        """
        connection, model = ClientConnection(), ClientModel()
        wishes = {
            "bind": (Arrival.BIND, lambda: connection.bind([element(0)])),
            "alter": (Arrival.ALTER_CONTEXT, lambda: connection.alter_context([element(0)])),
            "call": (Arrival.WHOLE_CALL, lambda: connection.call(0, 0, b"")),
        }
        for step in steps:
            if step.wish:
                arrival, act = wishes[step.wish]
                if model.wish(arrival):
                    act()
                    self.assertEqual(len(types(connection.data_to_send())), 1)
                else:
                    self.assertRaises(LocalProtocolError, act)
            else:
                was_open = model.state is not ClientState.CLOSED
                data = self.build(step, model.call_id(step))
                model.take(step)
                events = connection.receive_data(data)
                wrong = [event for event in events if isinstance(event, ServerMisbehaved)]
                ended = was_open and model.state is ClientState.CLOSED
                refused = ended and step.packet_type == PacketType.BIND_NAK and not wrong
                self.assertEqual(len(wrong), ended and not refused)
            self.assertIs(connection.state, model.state)
            self.assertEqual(connection.data_to_send(), b"")

    @MANY
    @given(st.lists(CLIENT_STEPS, max_size=14))
    def test_bound(self, steps: list[ClientStep]) -> None:
        """
        After a bind_ack, whatever is asked for and arrives, the client is where its table says.
        """
        self.agree([ClientStep("bind"), ClientStep("", PacketType.BIND_ACK), *steps])

    @MANY
    @given(st.lists(CLIENT_STEPS, max_size=5))
    def test_unbound(self, steps: list[ClientStep]) -> None:
        """
        From the beginning, whatever is asked for and arrives, the client is where its table says.
        """
        self.agree(steps)

    def test_every_cell(self) -> None:
        """
        In each state each type is taken, or each wish granted, if and only if the table has it.
        """
        bind, ack = ClientStep("bind"), ClientStep("", PacketType.BIND_ACK)
        ways = {
            ClientState.UNBOUND: [],
            ClientState.BINDING: [bind],
            ClientState.BOUND: [bind, ack, ClientStep("call")],
            ClientState.ALTERING: [bind, ack, ClientStep("call"), ClientStep("alter")],
            ClientState.CLOSED: [bind, ClientStep("", PacketType.BIND_NAK)],
        }
        self.assertEqual(set(ways), set(ClientState))
        for way in ways.values():
            for wish in ("bind", "alter", "call"):
                self.agree([*way, ClientStep(wish)])
            for packet_type in range(22):
                for which in (-1, 0, 1):
                    for flags in range(4):
                        self.agree([*way, ClientStep("", packet_type, which, flags)])
