"""
The short path of the server side: it says and does what the long one does.

Each property runs the same segments through two connections of servers that are alike, one of which is never offered
the short path.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.agreements import MAX_AGREEMENTS, MAX_CONTEXTS, MAX_PDU
from kmsproto.rpc.calls import Call, CallReceived, Event
from kmsproto.rpc.numbers import MAX_FRAGMENT
from kmsproto.rpc.pdu import NDR64
from kmsproto.rpc.server import RPCServer, ServerConnection
from kmsproto.rpc.state import ServerState
from tests.rpc import PROPERTY
from tests.rpc.building import (
    ECHO,
    KMS,
    MULTIPLEXED,
    WHOLE,
    build_bind,
    build_request,
    element,
    established,
    pieces,
)
from tests.rpc.test_robustness import BINDS, CLIENT_PDUS, CUTS, told

ALTER_CONTEXT = 14


def feed(connection: ServerConnection, data: bytes, *, short: bool) -> tuple[list[Event], bytes]:
    """
    Feed a segment as an owner does that knows the short path, or as one that does not.

    @return: What happened, and what is to be sent at once.
    """
    call = connection.receive_short(data) if short else None
    if call is None:
        return connection.receive_data(data), connection.data_to_send()
    return ([], call) if isinstance(call, bytes) else ([CallReceived(call)], b"")


def run(connection: ServerConnection, segments: list[bytes], *, short: bool) -> object:
    """
    Feed segments, answer each call with its own stub, and tell all that can be seen.
    """
    seen: list[Event] = []
    sent = []
    for segment in segments:
        events, output = feed(connection, segment, short=short)
        sent.append(output)
        while events:
            seen.extend(events)
            for event in events:
                if isinstance(event, CallReceived):
                    connection.respond(event.call, event.call.stub)
            events = connection.receive_data(b"")
        sent.append(connection.data_to_send())
    return told(seen), b"".join(sent), connection.state, connection.incomplete


def taken(connection: ServerConnection, data: bytes) -> bool:
    """
    Tell whether the short path takes a segment.
    """
    return connection.receive_short(data) is not None


class SameTests(SynchronousTestCase):
    """
    Both paths are one.
    """

    @PROPERTY
    @given(BINDS, st.lists(CLIENT_PDUS, max_size=8), CUTS)
    def test_any_stream(self, bind: bytes, pdus: list[bytes], cuts: list[int]) -> None:
        """
        Whole PDUs as segments, and any other segments, lead to the same answers, states and counts on both; also on
        the second and third connection, when what the first agreed on is remembered.
        """
        stream = bind + b"".join(pdus)
        short, long = RPCServer((KMS, ECHO)), RPCServer((KMS, ECHO))
        for segments in ([bind, *pdus], pieces(stream, cuts), [bind, *pdus]):
            expected = run(established(long), segments, short=False)
            self.assertEqual(run(established(short), segments, short=True), expected)
        self.assertEqual(
            (short.statistics.packets_in, short.statistics.packets_out, short.statistics.calls_in),
            (long.statistics.packets_in, long.statistics.packets_out, long.statistics.calls_in),
        )

    @PROPERTY
    @given(st.lists(CLIENT_PDUS, max_size=6), st.booleans())
    def test_waiting_calls(self, pdus: list[bytes], multiplexed: bool) -> None:
        """
        They are one as well while calls wait for their answers.
        """
        bind = build_bind([element(0)], flags=WHOLE | (MULTIPLEXED if multiplexed else 0))
        results = []
        for short in (True, False):
            connection = established(RPCServer((KMS, ECHO), max_calls=2))
            seen: list[Event] = []
            sent = b""
            for data in (bind, *pdus):
                events, output = feed(connection, data, short=short)
                seen += events
                sent += output + connection.data_to_send()
            results.append((told(seen), sent, connection.waiting))
        self.assertEqual(*results)


class CallTests(SynchronousTestCase):
    """
    Which segments the short path takes for calls.
    """

    def setUp(self) -> None:
        """
        Bind.
        """
        self.connection = established(RPCServer((KMS, ECHO), max_stub=4096))
        self.connection.receive_data(build_bind([element(0), element(1, ECHO.syntax, NDR64)]))
        self.connection.data_to_send()

    def test_taken(self) -> None:
        """
        A whole call to an interface of the owner's is taken, and its answer sent.
        """
        call = self.connection.receive_short(build_request(b"stub", call_id=7))
        assert isinstance(call, Call)
        self.assertEqual((call.call_id, call.stub), (7, b"stub"))
        self.assertEqual(self.connection.waiting, 1)
        self.connection.respond(call, b"answer")
        self.assertEqual(self.connection.waiting, 0)

    def test_left_alone(self) -> None:
        """
        Everything out of the ordinary is left to the long path, and nothing has happened.
        """
        call = build_request(b"stub")
        for data in (
            b"",
            call[:20],
            call[:-1],
            call + b"\0",
            call + call,
            build_request(b"stub", order=">"),
            build_request(b"stub", flags=1),
            build_request(b"stub", object_uuid=bytes(16)),
            build_request(b"stub", context_id=9),
            build_request(b"stub", opnum=9),
            build_request(bytes(4097)),
            build_request(bytes(MAX_FRAGMENT)),
            call[:10] + b"\1\0" + call[12:],
        ):
            self.assertFalse(taken(self.connection, data), data[:40])
        self.assertEqual((self.connection.waiting, self.connection.incomplete), (0, False))
        self.assertEqual(self.connection.data_to_send(), b"")

    def test_behind_others(self) -> None:
        """
        Behind an incomplete PDU, a first fragment, or a call that waits, nothing is taken.
        """
        call = build_request(b"stub")
        for before in (call[:20], build_request(b"stub", flags=1), call):
            self.setUp()
            self.connection.receive_data(before)
            self.assertFalse(taken(self.connection, call))

    def test_behind_an_answer(self) -> None:
        """
        While an answer waits to be sent, nothing is taken, since its own answer would come before.
        """
        call = self.connection.receive_short(build_request(b"stub"))
        assert isinstance(call, Call)
        self.connection.respond(call, b"answer")
        self.assertFalse(taken(self.connection, build_request(b"stub")))
        self.connection.data_to_send()
        self.assertTrue(taken(self.connection, build_request(b"stub")))

    def test_before_and_after(self) -> None:
        """
        Nothing is taken before a bind, nor on a connection that has ended.
        """
        call = build_request(b"stub")
        self.assertFalse(taken(established(), call))
        self.connection.close()
        self.assertFalse(taken(self.connection, call))


class AgreementTests(SynchronousTestCase):
    """
    What is remembered of binds and alter_contexts.
    """

    def setUp(self) -> None:
        """
        Make a server.
        """
        self.server = RPCServer((KMS, ECHO))

    def meet(self, *segments: bytes, port: str = "1688") -> ServerConnection:
        """
        Send PDUs over a new connection on the long path.
        """
        connection = self.server.accept("192.0.2.1", port)
        for segment in segments:
            connection.receive_data(segment)
        connection.data_to_send()
        return connection

    def test_second_time(self) -> None:
        """
        What was agreed on once is taken the next time: a bind, and an alter_context behind it.
        """
        bind, alter = build_bind([element(0)]), build_bind([element(1)], packet_type=ALTER_CONTEXT)
        connection = self.server.accept("192.0.2.1", "1688")
        self.assertFalse(taken(connection, bind))
        self.meet(bind, alter)
        self.assertTrue(taken(connection, bind))
        self.assertIs(connection.state, ServerState.BOUND)
        self.assertTrue(taken(connection, alter))

    def test_each_has_its_own(self) -> None:
        """
        The call id is that of the PDU, and the association group that of the connection.
        """
        self.meet(build_bind([element(0)], call_id=3))
        answers = []
        for call_id in (4, 5):
            connection = self.server.accept("192.0.2.1", "1688")
            answer = connection.receive_short(build_bind([element(0)], call_id=call_id))
            assert isinstance(answer, bytes)
            answers.append(answer)
        first, second = answers
        self.assertEqual((first[12], second[12]), (4, 5))
        self.assertNotEqual(first[20:24], second[20:24])
        self.assertEqual(
            (first[:12], first[16:20], first[24:]), (second[:12], second[16:20], second[24:])
        )

    def test_not_shared(self) -> None:
        """
        A connection that goes on negotiating changes no other that came the same way.
        """
        bind = build_bind([element(0)])
        self.meet(bind)
        one, other = (self.server.accept("192.0.2.1", "1688") for _ in range(2))
        self.assertTrue(taken(one, bind) and taken(other, bind))
        one.receive_data(build_bind([element(7)], packet_type=ALTER_CONTEXT))
        one.data_to_send()
        self.assertTrue(taken(one, build_request(b"", context_id=7)))
        self.assertFalse(taken(other, build_request(b"", context_id=7)))

    def test_not_remembered(self) -> None:
        """
        What depends on more than the PDU is not remembered: a group that is joined, another port, another byte
        order, a refusal.
        """
        joined = build_bind([element(0)], group=1)
        foreign = build_bind([element(0)], order=">")
        refused = build_bind([])
        first = self.meet(build_bind([element(2)]))
        for bind in (joined, foreign, refused):
            self.meet(bind)
            self.assertFalse(taken(self.server.accept("192.0.2.1", "1688"), bind))
        self.assertFalse(first.closed)
        elsewhere = self.server.accept("192.0.2.1", "1689")
        self.assertFalse(taken(elsewhere, build_bind([element(2)])))

    def test_bounded(self) -> None:
        """
        Only so much is remembered: not too many, no large PDUs, and no large tables.
        """
        known = self.server.agreements._known
        for number in range(2 * MAX_AGREEMENTS + 5):
            self.meet(build_bind([element(number)]))
            self.assertLessEqual(len(known), MAX_AGREEMENTS)
        self.assertEqual(len(known), 5)
        large = build_bind([element(number) for number in range(MAX_PDU // 44 + 1)])
        self.meet(large)
        many = [
            build_bind([element(number)], packet_type=ALTER_CONTEXT)
            for number in range(1, MAX_CONTEXTS + 5)
        ]
        self.meet(build_bind([element(0)]), *many)
        self.assertEqual(len(known), 5 + MAX_CONTEXTS)
