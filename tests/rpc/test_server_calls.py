"""
Tests of L{kmsproto.rpc.server}: calls that come in fragments, and calls that wait for their answers.
"""

from __future__ import annotations

from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.calls import CallReceived, CallRefused
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.numbers import FaultStatus, PacketType
from kmsproto.rpc.server import RPCServer
from kmsproto.rpc.state import ServerState
from tests.rpc.building import (
    ECHO,
    KMS,
    MULTIPLEXED,
    WHOLE,
    bound,
    build_bind,
    build_fault,
    build_pdu,
    build_request,
    drain,
    element,
    established,
    only,
    received,
    refusal,
    split,
    types,
)

FIRST, MIDDLE, LAST = 1, 0, 2
PROTO_ERROR = 0x1C01000B


class FragmentTests(SynchronousTestCase):
    """
    Calls in several fragments.
    """

    def test_joined(self) -> None:
        """
        Fragments are joined, with the numbers of the first; empty ones and what comes between do not matter.
        """
        connection = bound()
        self.assertEqual(
            connection.receive_data(
                build_request(b"ab", context_id=1, opnum=3, flags=FIRST)
                + build_request(b"", context_id=99, opnum=99, flags=MIDDLE)
                + build_bind([element(6)], packet_type=14)
                + build_pdu(PacketType.ORPHANED, call_id=5)
                + build_request(b"cd", flags=MIDDLE)
            ),
            [],
        )
        self.assertIs(connection.state, ServerState.RECEIVING)
        call = received(connection, build_request(b"ef", flags=LAST))
        self.assertEqual((call.context_id, call.opnum, call.stub), (1, 3, b"abcdef"))
        self.assertIs(connection.state, ServerState.BOUND)
        self.assertEqual(types(connection.data_to_send()), [PacketType.ALTER_CONTEXT_RESP])

    def test_complete(self) -> None:
        """
        A call that is complete is no longer open: a further fragment belongs to nothing, and the call can be orphaned.
        """
        fragments = build_request(b"ab", flags=FIRST) + build_request(b"cd", flags=LAST)
        connection = bound(flags=WHOLE | MULTIPLEXED)
        received(connection, fragments)
        refusal(connection.receive_data(build_request(flags=LAST, call_id=5)))
        self.assertEqual(connection.data_to_send(), build_fault(PROTO_ERROR, call_id=5))
        connection = bound(flags=WHOLE | MULTIPLEXED)
        call = received(connection, fragments)
        self.assertEqual(connection.receive_data(build_pdu(PacketType.ORPHANED)), [])
        self.assertTrue(call.orphaned)
        self.assertIs(connection.state, ServerState.BOUND)

    def test_out_of_order(self) -> None:
        """
        A fragment that fits no open call, or a call inside another, is a protocol error of the call that is open.
        """
        begun = build_request(context_id=1, flags=FIRST, call_id=4)
        of_open = build_fault(PROTO_ERROR, context_id=1, call_id=4)
        of_new = build_fault(PROTO_ERROR, call_id=5)
        for before, data, answer in (
            (b"", build_request(flags=MIDDLE, call_id=5), of_new),
            (b"", build_request(flags=LAST, call_id=5), of_new),
            (begun, build_request(flags=FIRST, call_id=5), of_open),
            (begun, build_request(flags=FIRST, call_id=4), of_open),
            (begun, build_request(flags=WHOLE, call_id=5), of_open),
            (begun, build_request(flags=LAST, call_id=4, order=">"), of_open),
            (begun, build_request(flags=LAST, call_id=5), of_new),
        ):
            connection = bound()
            connection.receive_data(before)
            refusal(connection.receive_data(data))
            self.assertEqual(connection.data_to_send(), answer)

    def test_too_large(self) -> None:
        """
        A call that is or grows beyond the limit, or announces a size beyond all limits, is refused.
        """
        denied = build_fault(5, context_id=1, call_id=1)
        self.assertEqual((RPCServer([]).max_stub, RPCServer([]).max_calls), (65536, 64))
        server = RPCServer([KMS, ECHO], max_stub=10)
        connection = bound(server)
        connection.receive_data(build_request(bytes(6), context_id=1, flags=FIRST))
        connection.receive_data(build_request(bytes(4), flags=MIDDLE))
        self.assertIn("too large", refusal(connection.receive_data(build_request(b"x", flags=0))))
        self.assertEqual(connection.data_to_send(), denied)
        for flags in (FIRST, WHOLE):
            connection = bound(server)
            large = build_request(bytes(11), context_id=1, flags=flags)
            self.assertIn("too large", refusal(connection.receive_data(large)))
            self.assertEqual(connection.data_to_send(), denied)
            self.assertEqual(connection.waiting, 0)
        received(bound(server), build_request(bytes(10)))
        # A whole call is as large as it is, whatever it announces.
        received(bound(server), build_request(alloc_hint=0x400001))
        connection = bound(server)
        hint = build_request(b"", context_id=1, flags=FIRST, alloc_hint=0x400001)
        self.assertIn("too large", refusal(connection.receive_data(hint)))
        self.assertEqual(connection.data_to_send(), denied)
        connection = bound(server)
        connection.receive_data(build_request(b"", flags=FIRST, alloc_hint=0x400000))
        received(connection, build_request(bytes(10), flags=LAST))

    def test_discarded(self) -> None:
        """
        The rest of a call that was refused is dropped, and the next call is served.
        """
        for context_id, opnum in ((9, 0), (0, 1)):
            connection = bound()
            first = build_request(context_id=context_id, opnum=opnum, flags=FIRST, call_id=4)
            only(CallRefused, connection.receive_data(first))
            self.assertIs(connection.state, ServerState.DISCARDING)
            rest = build_request(flags=MIDDLE, call_id=4)
            self.assertEqual(connection.receive_data(rest * 3), [])
            self.assertIs(connection.state, ServerState.DISCARDING)
            self.assertEqual(connection.receive_data(build_request(flags=LAST, call_id=4)), [])
            self.assertIs(connection.state, ServerState.BOUND)
            self.assertEqual(types(connection.data_to_send()), [PacketType.FAULT])
            received(connection, build_request(call_id=5))

    def test_discarded_without_end(self) -> None:
        """
        A new call may begin before the last fragment of one that is dropped, and may be refused as well.
        """
        refused_first = build_request(context_id=9, flags=FIRST, call_id=4)
        connection = bound()
        connection.receive_data(refused_first)
        received(connection, build_request(call_id=5))
        connection = bound()
        connection.receive_data(refused_first + build_request(b"ab", flags=FIRST, call_id=5))
        self.assertEqual(received(connection, build_request(flags=LAST, call_id=5)).stub, b"ab")
        connection = bound()
        connection.receive_data(refused_first)
        only(CallRefused, connection.receive_data(refused_first))
        self.assertIs(connection.state, ServerState.DISCARDING)

    def test_discarded_of_another_call(self) -> None:
        """
        Only fragments of the call that was given up are dropped.
        """
        connection = bound()
        connection.receive_data(build_request(context_id=9, flags=FIRST, call_id=4))
        connection.data_to_send()
        events = connection.receive_data(build_request(flags=MIDDLE, call_id=5))
        self.assertIn("not begun", refusal(events))
        self.assertEqual(connection.data_to_send(), build_fault(PROTO_ERROR, call_id=5))

    def test_orphaned(self) -> None:
        """
        A call that is orphaned while it is received is given up without a word.
        """
        connection = bound()
        orphaned = build_pdu(PacketType.ORPHANED, call_id=4)
        begun = build_request(b"ab", flags=FIRST, call_id=4)
        self.assertEqual(connection.receive_data(begun + orphaned), [])
        self.assertIs(connection.state, ServerState.DISCARDING)
        self.assertEqual(connection.receive_data(orphaned), [])
        self.assertEqual(connection.receive_data(build_request(flags=LAST, call_id=4)), [])
        self.assertEqual(connection.data_to_send(), b"")
        received(connection, build_request(call_id=5))


class PauseTests(SynchronousTestCase):
    """
    Calls that wait, and input that is left alone meanwhile.
    """

    def test_one_call_without_multiplexing(self) -> None:
        """
        Without multiplexing the next call is looked at when the last one is answered, so order is kept.
        """
        connection = bound()
        stream = b"".join(build_request(call_id=number) for number in (1, 2, 3))
        first = received(connection, stream)
        self.assertTrue(connection.paused)
        self.assertEqual(connection.receive_data(build_request(call_id=4)), [])
        answered = []
        while True:
            connection.respond(first, b"")
            answered.append(first.call_id)
            self.assertFalse(connection.paused)
            events = connection.receive_data(b"")
            if not events:
                break
            first = only(CallReceived, events).call
        self.assertEqual(answered, [1, 2, 3, 4])
        self.assertEqual(
            [header.call_id for header, _ in split(connection.data_to_send())], [1, 2, 3, 4]
        )

    def test_several_calls_with_multiplexing(self) -> None:
        """
        With multiplexing as many calls wait as the server allows, and answers come in any order.
        """
        connection = bound(RPCServer([KMS], max_calls=3), flags=WHOLE | MULTIPLEXED)
        stream = b"".join(build_request(call_id=number) for number in range(5))
        events = drain(connection, stream)
        calls = [event.call for event in events if isinstance(event, CallReceived)]
        self.assertEqual([call.call_id for call in calls], [0, 1, 2])
        self.assertTrue(connection.paused)
        connection.respond(calls[2], b"")
        self.assertFalse(connection.paused)
        calls.append(received(connection, b""))
        self.assertEqual(connection.receive_data(b""), [])
        for call in (calls[1], calls[3], calls[0]):
            connection.respond(call, b"")
        connection.respond(received(connection, b""), b"")
        order = [header.call_id for header, _ in split(connection.data_to_send())]
        self.assertEqual(order, [2, 1, 3, 0, 4])

    def test_mistakes_wait_too(self) -> None:
        """
        While input is left alone no mistake is seen in it, and none is forgotten.
        """
        connection = bound()
        call = received(connection, build_request() + b"GET / HTTP/1.1\r\n")
        self.assertEqual(connection.receive_data(b"\r\n"), [])
        connection.respond(call, b"")
        refusal(connection.receive_data(b""))
        self.assertEqual(types(connection.data_to_send()), [PacketType.RESPONSE, PacketType.FAULT])

    def test_management_does_not_wait(self) -> None:
        """
        Calls of the management interface are answered at once, one after the other, and make no events.
        """
        connection = established()
        connection.receive_data(build_bind([element(0, MANAGEMENT.syntax)]))
        connection.data_to_send()
        self.assertEqual(connection.receive_data(build_request(opnum=2) * 3), [])
        self.assertEqual(connection.waiting, 0)
        answers = split(connection.data_to_send())
        self.assertEqual([data[24:] for _, data in answers], [pack("<II", 0, 1)] * 3)

    def test_management_with_a_bad_stub(self) -> None:
        """
        A call of the management interface without its arguments is answered with a fault, and told.
        """
        connection = established()
        connection.receive_data(build_bind([element(0, MANAGEMENT.syntax)]))
        connection.data_to_send()
        event = only(CallRefused, connection.receive_data(build_request(opnum=1)))
        self.assertEqual((event.call_id, event.status), (1, FaultStatus.BAD_STUB_DATA))
        self.assertEqual(connection.data_to_send(), build_fault(0x6F7, call_id=1))
        self.assertEqual(connection.waiting, 0)

    def test_a_call_is_the_last_event(self) -> None:
        """
        What stands behind a call in the stream is looked at afterwards, so that the call can be answered before it.
        """
        connection = bound(flags=WHOLE | MULTIPLEXED)
        refused_call = build_request(context_id=9, call_id=1)
        alter = build_bind([element(5)], packet_type=14)
        events = connection.receive_data(refused_call + build_request(call_id=2) + alter + b"GET /")
        self.assertEqual([type(event) for event in events], [CallRefused, CallReceived])
        event = events[-1]
        assert isinstance(event, CallReceived)
        self.assertFalse(connection.paused)
        connection.respond(event.call, b"")
        refusal(connection.receive_data(b" HTTP/1.1\r\n"))
        self.assertEqual(
            types(connection.data_to_send()),
            [
                PacketType.FAULT,
                PacketType.RESPONSE,
                PacketType.ALTER_CONTEXT_RESP,
                PacketType.FAULT,
            ],
        )
