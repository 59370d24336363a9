"""
Both of our sides under any segments, any bytes and any amount of them.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.calls import CallReceived, CallRefused, ConnectionRefused
from kmsproto.rpc.calls import Event as ServerEvent
from kmsproto.rpc.client import ClientConnection, ServerMisbehaved
from kmsproto.rpc.client import Event as ClientEvent
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.pdu import NDR64, bind_time_features
from kmsproto.rpc.server import ServerConnection
from tests.rpc import PROPERTY
from tests.rpc.building import (
    ECHO,
    KMS,
    MULTIPLEXED,
    UNKNOWN,
    WHOLE,
    accepted,
    bound,
    bound_client,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    drain,
    element,
    established,
    pieces,
    refused,
    serve,
    split,
    types,
)

#: The largest PDU that there can be.
MAX_PDU = 65535

ORDERS = st.sampled_from("<>")
CALL_IDS = st.integers(2, 4)
FLAGS = st.sampled_from([WHOLE, WHOLE, 1, 0, 2, 0x83])

#: PDUs that a client may send, and some that it must not.
CLIENT_PDUS = st.one_of(
    st.builds(
        build_request,
        st.binary(max_size=30),
        context_id=st.sampled_from([0, 0, 1, 3, 9]),
        opnum=st.sampled_from([0, 0, 1, 4, 7]),
        flags=FLAGS,
        call_id=CALL_IDS,
        order=ORDERS,
        object_uuid=st.sampled_from([b"", bytes(16)]),
    ),
    st.builds(
        build_bind,
        st.sampled_from(
            [[element(0)], [element(5), element(6, UNKNOWN)], [], [element(3, MANAGEMENT.syntax)]]
        ),
        packet_type=st.sampled_from([14, 14, 14, 11]),
        call_id=CALL_IDS,
        order=ORDERS,
        trailer=st.binary(max_size=9),
    ),
    st.builds(
        build_pdu,
        st.sampled_from([16, 18, 18, 19, 19, 17]),
        st.binary(max_size=9),
        call_id=CALL_IDS,
        order=ORDERS,
    ),
)

#: Binds in both byte orders, with and without multiplexing.
BINDS = st.builds(
    build_bind,
    st.just(
        [
            element(0),
            element(1, ECHO.syntax, NDR64),
            element(3, MANAGEMENT.syntax),
            element(4, KMS.syntax, bind_time_features(3)),
        ]
    ),
    order=ORDERS,
    flags=st.sampled_from([WHOLE, WHOLE | MULTIPLEXED]),
)

#: PDUs that a server may send, and some that it must not.
SERVER_PDUS = st.one_of(
    st.builds(
        build_response,
        st.binary(max_size=30),
        flags=st.sampled_from([WHOLE, WHOLE, 1, 0, 2]),
        call_id=CALL_IDS,
        order=ORDERS,
        context_id=st.sampled_from([0, 0, 0, 0, 1]),
    ),
    st.builds(build_fault, st.integers(0, 0xFFFFFFFF), call_id=st.integers(2, 5), order=ORDERS),
    st.builds(
        build_ack,
        st.sampled_from([[accepted()], [refused(1)], []]),
        packet_type=st.sampled_from([15, 15, 15, 12]),
        call_id=st.sampled_from([5, 5, 2]),
        order=ORDERS,
    ),
    st.builds(build_nak, st.integers(0, 9), order=ORDERS),
    st.builds(build_pdu, st.sampled_from([17, 20, 99]), order=ORDERS),
)

CUTS = st.lists(st.integers(0, 400), max_size=12)
#: Bytes that replace others in a stream: where, and with what.
DAMAGE = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4)


def damaged(stream: bytes, damage: list[tuple[int, int]]) -> bytes:
    """
    Replace some bytes of a stream.
    """
    copy = bytearray(stream)
    for place, value in damage:
        copy[place % len(copy)] = value
    return bytes(copy)


def told(events: list[ServerEvent]) -> list[object]:
    """
    Make the events of two connections comparable, for each call is an object of its own.
    """
    comparable: list[object] = []
    for event in events:
        if isinstance(event, CallReceived):
            call = event.call
            numbers = (call.call_id, call.context_id, call.opnum)
            comparable.append((numbers, call.context, call.byte_order, call.stub))
        else:
            comparable.append(event)
    return comparable


def waiting_client(*, max_stub: int = 100) -> ClientConnection:
    """
    Make a client that waits for the answers to calls 2 to 4 and to alter_context 5.
    """
    connection = bound_client(max_stub=max_stub)
    for _ in range(3):
        connection.call(0, 0, b"")
    connection.alter_context([element(0)])
    connection.data_to_send()
    return connection


class SegmentTests(SynchronousTestCase):
    """
    The segments in which a stream arrives.
    """

    @PROPERTY
    @given(BINDS, st.lists(CLIENT_PDUS, max_size=8), CUTS)
    def test_server(self, bind: bytes, pdus: list[bytes], cuts: list[int]) -> None:
        """
        A server whose calls are answered at once tells and sends the same, whatever the segments.
        """
        stream = bind + b"".join(pdus)
        whole = established()
        expected = told(serve(whole, stream)), whole.data_to_send(), whole.state
        for segments in (pieces(stream, cuts), pieces(stream, range(len(stream)))):
            connection = established()
            events = [event for piece in segments for event in serve(connection, piece)]
            actual = told(events), connection.data_to_send(), connection.state
            self.assertEqual(actual, expected)

    @PROPERTY
    @given(st.lists(CLIENT_PDUS, max_size=8), CUTS)
    def test_waiting_server(self, pdus: list[bytes], cuts: list[int]) -> None:
        """
        A server whose calls wait tells and sends the same, whatever the segments.
        """
        stream = b"".join(pdus)
        whole = bound(flags=WHOLE | MULTIPLEXED)
        expected = told(drain(whole, stream)), whole.data_to_send(), whole.state
        connection = bound(flags=WHOLE | MULTIPLEXED)
        events = [event for piece in pieces(stream, cuts) for event in drain(connection, piece)]
        self.assertEqual((told(events), connection.data_to_send(), connection.state), expected)

    @PROPERTY
    @given(st.lists(CLIENT_PDUS, min_size=1, max_size=5), DAMAGE, CUTS)
    def test_damaged_server(
        self, pdus: list[bytes], damage: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        """
        That holds for streams with mistakes too, and with multiplexing.
        """
        stream = damaged(b"".join(pdus), damage)
        whole = bound(flags=WHOLE | MULTIPLEXED)
        expected = told(serve(whole, stream)), whole.data_to_send(), whole.state
        connection = bound(flags=WHOLE | MULTIPLEXED)
        events = [event for piece in pieces(stream, cuts) for event in serve(connection, piece)]
        self.assertEqual((told(events), connection.data_to_send(), connection.state), expected)

    @PROPERTY
    @given(st.lists(SERVER_PDUS, max_size=8), st.booleans(), DAMAGE, CUTS)
    def test_client(
        self, pdus: list[bytes], spoil: bool, damage: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        """
        A client tells the same, whatever the segments, with mistakes and without.
        """
        stream = b"".join(pdus)
        if spoil and stream:
            stream = damaged(stream, damage)
        whole = waiting_client()
        expected = whole.receive_data(stream), whole.state, whole.contexts
        for segments in (pieces(stream, cuts), pieces(stream, range(len(stream)))):
            connection = waiting_client()
            events = [event for piece in segments for event in connection.receive_data(piece)]
            self.assertEqual((events, connection.state, connection.contexts), expected)


class GarbageTests(SynchronousTestCase):
    """
    Any bytes behind a valid beginning.
    """

    def survive_server(self, connection: ServerConnection, stream: bytes, cuts: list[int]) -> None:
        """
        Feed a server anything: it raises nothing, sends nothing but PDUs of its own, and keeps little.
        """
        server = connection._server
        events: list[ServerEvent] = []
        for piece in pieces(stream, cuts):
            events += serve(connection, piece)
            self.assertTrue(connection._stream is None or len(connection._stream.unused) <= MAX_PDU)
            if connection._partial is not None:
                kept = sum(map(len, connection._partial.parts))
                self.assertEqual(kept, connection._partial.length)
                self.assertTrue(kept <= server.max_stub)
        for event in events:
            self.assertIsInstance(event, (CallReceived, CallRefused, ConnectionRefused))
        for packet_type in types(connection.data_to_send()):
            self.assertIn(packet_type, (2, 3, 12, 13, 15))
        refusals = [event for event in events if isinstance(event, ConnectionRefused)]
        self.assertEqual(len(refusals), connection.closed)
        self.assertEqual(events[len(events) - len(refusals) :], refusals)

    def survive_client(self, connection: ClientConnection, stream: bytes, cuts: list[int]) -> None:
        """
        Feed a client anything: it raises nothing, sends nothing, and keeps little.
        """
        events: list[ClientEvent] = []
        for piece in pieces(stream, cuts):
            events += connection.receive_data(piece)
            self.assertTrue(connection._stream is None or len(connection._stream.unused) <= MAX_PDU)
            for call in connection._calls.values():
                self.assertEqual(sum(map(len, call.parts)), call.length)
                self.assertTrue(call.length <= connection._max_stub)
        self.assertEqual(connection.data_to_send(), b"")
        wrong = [event for event in events if isinstance(event, ServerMisbehaved)]
        self.assertEqual(events[len(events) - len(wrong) :], wrong)
        self.assertTrue(len(wrong) <= connection.closed)

    @PROPERTY
    @given(st.binary(max_size=100), CUTS)
    def test_first_bytes(self, garbage: bytes, cuts: list[int]) -> None:
        """
        A server survives anything before a bind, and a client anything instead of a bind_ack.
        """
        self.survive_server(established(), garbage, cuts)
        client = ClientConnection()
        client.bind([element(0)])
        client.data_to_send()
        self.survive_client(client, garbage, cuts)

    @PROPERTY
    @given(BINDS, st.lists(CLIENT_PDUS, max_size=5), st.binary(max_size=100), CUTS)
    def test_server_after_pdus(
        self, bind: bytes, pdus: list[bytes], garbage: bytes, cuts: list[int]
    ) -> None:
        """
        A server survives anything behind PDUs that make sense.
        """
        self.survive_server(established(), bind + b"".join(pdus) + garbage, cuts)

    @PROPERTY
    @given(BINDS, st.lists(CLIENT_PDUS, max_size=5), DAMAGE, CUTS)
    def test_server_with_damage(
        self, bind: bytes, pdus: list[bytes], damage: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        """
        A server survives PDUs of which some bytes are wrong, the bind included.
        """
        self.survive_server(established(), damaged(bind + b"".join(pdus), damage), cuts)

    @PROPERTY
    @given(st.lists(SERVER_PDUS, max_size=5), st.binary(max_size=100), CUTS)
    def test_client_after_pdus(self, pdus: list[bytes], garbage: bytes, cuts: list[int]) -> None:
        """
        A client survives anything behind PDUs that make sense.
        """
        self.survive_client(waiting_client(), b"".join(pdus) + garbage, cuts)

    @PROPERTY
    @given(st.lists(SERVER_PDUS, min_size=1, max_size=5), DAMAGE, CUTS)
    def test_client_with_damage(
        self, pdus: list[bytes], damage: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        """
        A client survives PDUs of which some bytes are wrong.
        """
        self.survive_client(waiting_client(), damaged(b"".join(pdus), damage), cuts)

    @PROPERTY
    @given(DAMAGE, st.booleans())
    def test_damaged_bind_ack(self, damage: list[tuple[int, int]], cut: bool) -> None:
        """
        A client survives a bind_ack of which some bytes are wrong.
        """
        client = ClientConnection()
        client.bind([element(0), element(1, KMS.syntax, NDR64)])
        client.data_to_send()
        stream = damaged(build_ack([accepted(), refused(2)]), damage)
        self.survive_client(client, stream, [20] if cut else [])


class MemoryTests(SynchronousTestCase):
    """
    Streams without end.
    """

    def test_endless_empty_fragments(self) -> None:
        """
        Empty fragments can go on forever, and cost a server nothing.
        """
        connection = bound()
        connection.receive_data(build_request(b"ab", flags=1))
        segment = build_request(flags=0) * 1000
        for _ in range(20):
            self.assertEqual(connection.receive_data(segment), [])
        assert connection._partial is not None
        self.assertEqual(connection._partial.parts, [b"ab"])
        self.assertFalse(connection.incomplete)
        self.assertEqual(connection.data_to_send(), b"")

    def test_endless_fragments(self) -> None:
        """
        Fragments with something in them end at the limit, also when they are small or discarded.
        """
        for size in (1, 7, 5816):
            connection = bound()
            connection.receive_data(build_request(flags=1))
            segment = build_request(bytes(size), flags=0) * 100
            fed = 0
            while not connection.closed:
                connection.receive_data(segment)
                fed += 100 * size
                self.assertTrue(fed <= 65536 + 100 * size)
        connection = bound()
        connection.receive_data(build_request(context_id=9, flags=1))
        connection.data_to_send()
        for _ in range(20):
            self.assertEqual(connection.receive_data(build_request(bytes(5000), flags=0)), [])
        self.assertIsNone(connection._partial)
        self.assertEqual(connection.data_to_send(), b"")

    def test_largest_pdu(self) -> None:
        """
        A PDU of the largest length is kept until it is complete, and then forgotten.
        """
        connection = bound()
        data = build_pdu(18, bytes(MAX_PDU - 16))
        connection.receive_data(data[:-1])
        self.assertEqual(len(connection._stream.peek(1 << 20)), MAX_PDU - 1)
        connection.receive_data(data[-1:])
        self.assertFalse(connection.incomplete)
        self.assertFalse(connection.closed)

    def test_paused_bytes_are_kept(self) -> None:
        """
        While a call waits every byte is kept, and none is looked at twice.
        """
        connection = bound()
        stream = b"".join(build_request(bytes(100), call_id=number) for number in range(50))
        (event,) = connection.receive_data(stream)
        self.assertEqual(len(connection._stream.peek(1 << 20)), len(stream) - 124)
        assert isinstance(event, CallReceived)
        connection.respond(event.call, b"")
        self.assertEqual(len(serve(connection, b"")), 49)
        order = [header.call_id for header, _ in split(connection.data_to_send())]
        self.assertEqual(order, list(range(50)))

    def test_nothing_is_kept_after_the_end(self) -> None:
        """
        A connection that has ended keeps nothing of what it is fed.
        """
        server, client = bound(), waiting_client()
        server.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        client.receive_data(b"HTTP/1.1 400\r\n\r\n")
        for connection in (server, client):
            self.assertTrue(connection.closed)
            for _ in range(10):
                connection.receive_data(bytes(1000))
        self.assertEqual((server.incomplete, client._stream.unused), (False, b""))
