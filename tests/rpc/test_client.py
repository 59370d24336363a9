"""
Tests of L{kmsproto.rpc.client}: what its owner may ask for, and servers that cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
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
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, NDR64, BindAck, bind_time_features, decode_bind, decode_request
from kmsproto.rpc.state import ClientState
from tests.rpc.building import (
    KMS,
    MULTIPLEXED,
    STRANGE,
    WHOLE,
    accepted,
    bound_client,
    build_ack,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    element,
    features,
    misbehaviour,
    only,
    refused,
    split,
)

FIRST, MIDDLE, LAST = 1, 0, 2


def calling(*, max_stub: int = 65536) -> ClientConnection:
    """
    Make a client whose call 2 on context 0 waits for its answer.
    """
    connection = bound_client(max_stub=max_stub)
    connection.call(0, 0, b"stub")
    connection.data_to_send()
    return connection


def altering() -> ClientConnection:
    """
    Make a client whose alter_context 2 waits for its answer.
    """
    connection = bound_client()
    connection.alter_context([element(1, KMS.syntax, NDR64)])
    connection.data_to_send()
    return connection


def binding() -> ClientConnection:
    """
    Make a client whose bind 2 waits for its answer.
    """
    connection = ClientConnection()
    connection.bind([element(0), element(1, KMS.syntax, NDR64)])
    connection.data_to_send()
    return connection


class OfferTests(SynchronousTestCase):
    """
    The context list of a bind.
    """

    def test_elements(self) -> None:
        """
        Each transfer syntax has an element of its own, and the features come last.
        """
        wish = bind_time_features(3)
        for ndr64, wanted, syntaxes in (
            (False, False, [NDR]),
            (True, False, [NDR, NDR64]),
            (False, True, [NDR, wish]),
            (True, True, [NDR, NDR64, wish]),
        ):
            self.assertEqual(
                offer(KMS.syntax, ndr64=ndr64, bind_time_features=wanted),
                tuple(element(number, KMS.syntax, each) for number, each in enumerate(syntaxes)),
            )


class WishTests(SynchronousTestCase):
    """
    What the owner of a client asks for.
    """

    def test_bind(self) -> None:
        """
        A bind is the first thing that is sent, and its answer tells what can be called.
        """
        connection = ClientConnection()
        self.assertIs(connection.state, ClientState.UNBOUND)
        elements = [element(0), element(1, KMS.syntax, NDR64), element(2, KMS.syntax, STRANGE)]
        connection.bind(elements, association_group=77)
        self.assertIs(connection.state, ClientState.BINDING)
        ((header, data),) = split(connection.data_to_send())
        self.assertEqual(connection.data_to_send(), b"")
        self.assertEqual((header.packet_type, header.call_id), (PacketType.BIND, 2))
        self.assertEqual(header.flags, WHOLE | MULTIPLEXED)
        self.assertEqual(decode_bind(header, data), (5840, 5840, 77, tuple(elements)))
        results = (refused(2), accepted(NDR64), features(3))
        events = connection.receive_data(build_ack(results, group=9))
        self.assertEqual(events, [BindAccepted(BindAck(5840, 5840, 9, "1688", results))])
        self.assertIs(connection.state, ClientState.BOUND)
        self.assertEqual(connection.contexts, {1: NDR64})

    def test_multiplexing(self) -> None:
        """
        Who asks for concurrent multiplexing does so in negotiations, never in calls; who does not, nowhere.
        """
        for multiplexed, flags in ((True, WHOLE | MULTIPLEXED), (False, WHOLE)):
            connection = ClientConnection(multiplexed=multiplexed)
            connection.bind([element(0)])
            connection.receive_data(build_ack([accepted()]))
            connection.call(0, 0, b"")
            connection.alter_context([element(1)])
            sent = [header.flags for header, _ in split(connection.data_to_send())]
            self.assertEqual(sent, [flags, WHOLE, flags])

    def test_bind_refused(self) -> None:
        """
        A bind_nak ends the connection, with its reason and with nothing of what follows.
        """
        connection = binding()
        events = connection.receive_data(build_nak(8) + build_ack([]))
        self.assertEqual(events, [BindRefused(8)])
        self.assertTrue(connection.closed)
        self.assertEqual(connection._stream.peek(1), b"")
        self.assertEqual(connection.receive_data(build_nak(8)), [])
        self.assertRaises(LocalProtocolError, connection.bind, [element(0)])
        self.assertEqual(connection.data_to_send(), b"")

    def test_features_are_no_context(self) -> None:
        """
        A server that accepts the features as if they were a transfer syntax makes no context that can be called.
        """
        wish = bind_time_features(3)
        connection = ClientConnection()
        connection.bind([element(0), element(1, KMS.syntax, wish)])
        connection.data_to_send()
        only(BindAccepted, connection.receive_data(build_ack([accepted(), accepted(wish)])))
        self.assertEqual(connection.contexts, {0: NDR})
        self.assertRaises(LocalProtocolError, connection.call, 1, 0, b"")
        self.assertEqual(connection.data_to_send(), b"")

    def test_alter_context(self) -> None:
        """
        An alter_context adds what is accepted, and what was accepted before stays.
        """
        connection = altering()
        self.assertIs(connection.state, ClientState.ALTERING)
        data = build_ack([accepted(NDR64)], packet_type=15, address=b"", order=">")
        ack = BindAck(5840, 5840, 7, "", (accepted(NDR64),))
        self.assertEqual(connection.receive_data(data), [ContextsAltered(ack)])
        self.assertIs(connection.state, ClientState.BOUND)
        self.assertEqual(connection.contexts, {0: NDR, 1: NDR64})

    def test_alter_context_names_no_group(self) -> None:
        """
        An alter_context leaves the association group empty, whatever group the connection belongs to.
        """
        connection = bound_client()
        connection.alter_context([element(4)])
        ((header, data),) = split(connection.data_to_send())
        self.assertEqual(header.packet_type, PacketType.ALTER_CONTEXT)
        self.assertEqual(decode_bind(header, data), (5840, 5840, 0, (element(4),)))

    def test_alter_context_refused(self) -> None:
        """
        An alter_context that is answered with a fault leaves the connection as it was.
        """
        connection = altering()
        events = connection.receive_data(build_fault(0x1C01000B))
        self.assertEqual(events, [AlterRefused(0x1C01000B)])
        self.assertIs(connection.state, ClientState.BOUND)
        self.assertEqual(connection.contexts, {0: NDR})
        self.assertEqual(connection.call(0, 0, b""), 2)

    def test_call(self) -> None:
        """
        A call is numbered and sent, and its answer comes with its byte order.
        """
        connection = bound_client()
        self.assertEqual(connection.call(0, 6, b"stub"), 2)
        self.assertEqual(connection.data_to_send(), build_request(b"stub", opnum=6, call_id=2))
        events = connection.receive_data(build_response(b"answer", order=">"))
        self.assertEqual(events, [ResponseReceived(2, ">", b"answer")])
        self.assertEqual(connection.call(0, 6, b""), 3)

    def test_only_calls_use_numbers_up(self) -> None:
        """
        Each negotiation has the number of the next call, and only a call uses it up.
        """
        connection = bound_client()
        for number in (2, 3, 4):
            for _ in range(2):
                connection.alter_context([element(0)])
                ((header, _),) = split(connection.data_to_send())
                self.assertEqual(header.call_id, number)
                ack = build_ack([accepted()], packet_type=15, call_id=number)
                only(ContextsAltered, connection.receive_data(ack))
            self.assertEqual(connection.call(0, 0, b""), number)
            ((header, _),) = split(connection.data_to_send())
            self.assertEqual(header.call_id, number)

    def test_answer_with_half_a_context(self) -> None:
        """
        An answer names the context of its call, or as Windows does only its lower 8 bits, in each fragment.
        """
        connection = ClientConnection()
        connection.bind([element(0x1234)])
        connection.receive_data(build_ack([accepted()]))
        for context_ids in ((0x1234, 0x1234), (0x34, 0x34), (0x34, 0x1234)):
            call_id = connection.call(0x1234, 0, b"")
            first, last = (
                build_response(b"a", context_id=context_id, flags=flags, call_id=call_id)
                for context_id, flags in zip(context_ids, (FIRST, LAST), strict=True)
            )
            events = connection.receive_data(first + last)
            self.assertEqual(events, [ResponseReceived(call_id, "<", b"aa")])

    def test_large_call(self) -> None:
        """
        A stub that does not fit is sent in fragments as large as the server receives, but never below the minimum.
        """
        for recv, size in ((2048, 2048), (1000, 1432), (65535, 5840)):
            connection = bound_client(recv=recv)
            stub = bytes(range(256)) * 40
            connection.call(0, 0, stub)
            pdus = split(connection.data_to_send())
            self.assertEqual(len(pdus[0][1]), size)
            self.assertEqual(b"".join(decode_request(*each).stub for each in pdus), stub)

    def test_answers_in_any_order(self) -> None:
        """
        Answers and faults belong to their calls in whatever order they come, also mixed by fragments.
        """
        connection = bound_client()
        calls = [connection.call(0, 0, b"") for _ in range(3)]
        self.assertEqual(calls, [2, 3, 4])
        events = connection.receive_data(
            build_response(b"ab", call_id=4, flags=FIRST)
            + build_response(b"xy", call_id=2, flags=FIRST, order=">")
            + build_fault(0x6F7, call_id=3)
            + build_response(b"", call_id=4, flags=MIDDLE)
            + build_response(b"cd", call_id=4, flags=LAST)
            + build_response(b"", call_id=2, flags=LAST, order=">")
        )
        self.assertEqual(
            events,
            [
                FaultReceived(3, 0x6F7),
                ResponseReceived(4, "<", b"abcd"),
                ResponseReceived(2, ">", b"xy"),
            ],
        )

    def test_fault_after_a_fragment(self) -> None:
        """
        A call may end with a fault after a part of its answer, whatever the byte order of either.
        """
        for order in "<>":
            connection = calling()
            first = build_response(b"ab", flags=FIRST)
            events = connection.receive_data(first + build_fault(5, order=order))
            self.assertEqual(events, [FaultReceived(2, 5)])

    def test_answers_while_altering(self) -> None:
        """
        Calls that were made before an alter_context are answered before or after it.
        """
        connection = bound_client()
        for _ in range(3):
            connection.call(0, 0, b"")
        connection.alter_context([element(6)])
        events = connection.receive_data(
            build_response(call_id=3)
            + build_fault(5, call_id=2)
            + build_ack([accepted()], packet_type=15, call_id=5)
            + build_response(call_id=4)
        )
        self.assertEqual(
            [type(event) for event in events],
            [ResponseReceived, FaultReceived, ContextsAltered, ResponseReceived],
        )

    def test_call_ids_wrap(self) -> None:
        """
        Behind the largest call id that Windows accepts comes 1.
        """
        connection = bound_client()
        connection._next_call_id = 0x7FFFFFFF
        connection.alter_context([element(0)])
        ack = build_ack([accepted()], packet_type=15, call_id=0x7FFFFFFF)
        only(ContextsAltered, connection.receive_data(ack))
        self.assertEqual(connection.call(0, 0, b""), 0x7FFFFFFF)
        self.assertEqual(connection.call(0, 0, b""), 1)


class MisuseTests(SynchronousTestCase):
    """
    Wishes that are out of order or cannot be written.
    """

    def test_out_of_order(self) -> None:
        """
        A wish that has no place now is refused, and nothing is sent or changed.
        """
        closed = bound_client()
        closed.close()
        bind, alter, call = (
            lambda connection: connection.bind([element(0)]),
            lambda connection: connection.alter_context([element(0)]),
            lambda connection: connection.call(0, 0, b""),
        )
        wishes: list[tuple[ClientConnection, tuple[Callable[[ClientConnection], object], ...]]] = [
            (ClientConnection(), (alter, call)),
            (binding(), (bind, alter, call)),
            (bound_client(), (bind,)),
            (altering(), (bind, alter, call)),
            (closed, (bind, alter, call)),
        ]
        for connection, wrong in wishes:
            state = connection.state
            for wish in wrong:
                self.assertRaises(LocalProtocolError, wish, connection)
                self.assertIs(connection.state, state)
                self.assertEqual(connection.data_to_send(), b"")

    def test_refused_context(self) -> None:
        """
        A call can only be made on a context that was accepted.
        """
        connection = bound_client()
        for context_id in (1, 2):
            self.assertRaises(LocalProtocolError, connection.call, context_id, 0, b"")
        self.assertEqual(connection.data_to_send(), b"")
        self.assertEqual(connection.call(0, 0, b""), 2)

    def test_operation_that_cannot_be_written(self) -> None:
        """
        A call of an operation that does not fit 16 bits is refused as the caller's mistake, and no call is open.
        """
        connection = bound_client()
        for opnum in (-1, 0x10000):
            self.assertRaises(LocalProtocolError, connection.call, 0, opnum, b"")
        self.assertEqual(connection.data_to_send(), b"")
        self.assertEqual(connection._calls, {})
        self.assertIs(connection.state, ClientState.BOUND)
        self.assertEqual(connection.call(0, 0xFFFF, b""), 2)

    def test_bind_that_cannot_be_written(self) -> None:
        """
        Contexts that do not fit a bind are refused as the caller's mistake, and another bind can be made.
        """
        many = [element(number) for number in range(256)]
        for elements, group in (
            (many, 0),
            ([element(0x10000)], 0),
            ([element(0)], 1 << 32),
            ([element(0, KMS.syntax, *[NDR] * 256)], 0),
            ([element(0, KMS.syntax, *[NDR] * 255)] * 13, 0),
        ):
            connection = ClientConnection()
            self.assertRaises(
                LocalProtocolError, connection.bind, elements, association_group=group
            )
            self.assertEqual(connection.data_to_send(), b"")
            self.assertIs(connection.state, ClientState.UNBOUND)
            self.assertEqual(connection._offered, {})
            connection.bind(many[:255])
            self.assertEqual(len(split(connection.data_to_send())), 1)

    def test_alter_context_that_cannot_be_written(self) -> None:
        """
        That holds for an alter_context too: the connection stays bound, and calls go on.
        """
        connection = calling()
        for elements in ([element(number) for number in range(256)], [element(-1)]):
            self.assertRaises(LocalProtocolError, connection.alter_context, elements)
            self.assertEqual(connection.data_to_send(), b"")
            self.assertIs(connection.state, ClientState.BOUND)
        self.assertEqual(connection._offered, {})
        events = connection.receive_data(build_response(b"ab"))
        self.assertEqual(events, [ResponseReceived(2, "<", b"ab")])
        self.assertEqual(connection.call(0, 0, b""), 3)

    def test_silence_after_the_end(self) -> None:
        """
        After the end nothing is looked at, and closing again changes nothing.
        """
        connection = calling()
        connection.receive_data(build_response(b"", flags=FIRST))
        connection.close()
        connection.close()
        self.assertTrue(connection.closed)
        self.assertEqual(connection.receive_data(build_response()), [])
        self.assertEqual(connection.receive_data(b"GET / HTTP/1.1"), [])
        self.assertEqual(connection.data_to_send(), b"")


class HostileServerTests(SynchronousTestCase):
    """
    Servers that break the protocol: each time there is one event, and the connection is over.
    """

    def misbehaves(self, connection: ClientConnection, data: bytes, problem: str) -> None:
        """
        Demand that a stream ends a connection for that reason, and that nothing comes after it.
        """
        self.assertIn(problem, misbehaviour(connection.receive_data(data)))
        self.assertTrue(connection.closed)
        self.assertEqual(connection.receive_data(build_response()), [])
        self.assertEqual(connection.data_to_send(), b"")
        self.assertEqual(connection._stream.peek(1), b"")

    def test_headers(self) -> None:
        """
        A header that makes no sense is not waited for.
        """
        for header in (
            build_pdu(2, frag_length=0),
            build_pdu(2, frag_length=15),
            build_pdu(2, frag_length=0, order=">"),
            build_pdu(2, drep=b"\x20\0\0\0", frag_length=65535),
        ):
            self.misbehaves(calling(), header, "makes no sense")

    def test_other_versions(self) -> None:
        """
        Another version, or no RPC at all, is seen with the second byte.
        """
        for start in (b"\5\1", b"\4\0", b"HT", b"\0\5"):
            connection = calling()
            self.assertEqual(connection.receive_data(start[:1]), [])
            self.misbehaves(connection, start[1:], "version 5.0")

    def test_types(self) -> None:
        """
        A PDU that no server sends, or asks us to go, ends the connection in every state.
        """
        for make in (ClientConnection, binding, calling, altering):
            for packet_type in (*range(2), *range(4, 12), 14, *range(16, 22), 255):
                data = build_pdu(packet_type, bytes(16), call_id=2)
                self.misbehaves(make(), data, f"type {packet_type} ")

    def test_order(self) -> None:
        """
        A PDU that does not belong to what we wait for ends the connection.
        """
        ack = build_ack([accepted(), refused(2)])
        resp = build_ack([accepted(NDR64)], packet_type=15)
        for make, wrong in (
            (ClientConnection, (ack, build_nak(), resp, build_response(), build_fault(5))),
            (binding, (resp, build_response(), build_fault(5), build_fault(5, call_id=3))),
            (calling, (ack, build_nak(), resp)),
            (altering, (ack, build_nak())),
        ):
            for data in wrong:
                self.misbehaves(make(), data, "while we were")

    def test_unsolicited(self) -> None:
        """
        An answer, a fault or a verdict that nobody asked for ends the connection.
        """
        for data in (build_response(call_id=3), build_fault(5, call_id=3), build_fault(5)):
            connection = calling()
            if data == build_fault(5):
                connection.receive_data(build_response())
            self.misbehaves(connection, data, "which was not made")
        again = calling()
        only(ResponseReceived, again.receive_data(build_response()))
        self.misbehaves(again, build_response(), "which was not made")
        self.misbehaves(binding(), build_ack([accepted()] * 2, call_id=3), "which was not made")
        resp = build_ack([accepted(NDR64)], packet_type=15, call_id=3)
        self.misbehaves(altering(), resp, "which was not made")
        self.misbehaves(altering(), build_response(), "which was not made")
        # A negotiation that is over waits for no fault, though the next call will have its number.
        self.misbehaves(bound_client(), build_fault(5), "which was not made")

    def test_wrong_context(self) -> None:
        """
        An answer on another context than that of its call ends the connection, in any fragment.
        """
        self.misbehaves(calling(), build_response(context_id=1), "on context 1")
        connection = calling()
        connection.receive_data(build_response(flags=FIRST))
        self.misbehaves(connection, build_response(context_id=1, flags=LAST), "on context 1")
        for context_id in (0x12, 0x1200, 0x35, 0x1134, 0):
            connection = ClientConnection()
            connection.bind([element(0x1234)])
            connection.receive_data(build_ack([accepted()]))
            connection.call(0x1234, 0, b"")
            connection.data_to_send()
            answer = build_response(context_id=context_id)
            self.misbehaves(connection, answer, f"on context {context_id} a call on context 4660")
        # A number that fits 8 bits is not made longer.
        self.misbehaves(calling(), build_response(context_id=0x100), "on context 256")

    def test_fragments_out_of_order(self) -> None:
        """
        An answer begins with its first fragment and has no second one.
        """
        for begun, flags in ((False, MIDDLE), (False, LAST), (True, FIRST), (True, WHOLE)):
            connection = calling()
            if begun:
                connection.receive_data(build_response(flags=FIRST))
            self.misbehaves(connection, build_response(flags=flags), "out of order")

    def test_byte_order_changes(self) -> None:
        """
        An answer whose byte order changes between its fragments ends the connection, as its integers have two.
        """
        for order, other in ("<>", "><"):
            for flags in (MIDDLE, LAST):
                connection = calling()
                connection.receive_data(build_response(flags=FIRST, order=order))
                connection.receive_data(build_response(bytes(8), flags=MIDDLE, order=order))
                wrong = build_response(bytes(8), flags=flags, order=other)
                self.misbehaves(connection, wrong, "byte order")

    def test_too_large(self) -> None:
        """
        An answer beyond the limit ends the connection with the fragment that goes beyond it.
        """
        only(ResponseReceived, calling(max_stub=10).receive_data(build_response(bytes(10))))
        self.misbehaves(calling(max_stub=10), build_response(bytes(11)), "larger than 10")
        self.assertEqual(ClientConnection()._max_stub, 65536)
        connection = calling(max_stub=10)
        connection.receive_data(build_response(bytes(5), flags=FIRST))
        self.assertEqual(connection.receive_data(build_response(bytes(5), flags=MIDDLE)), [])
        self.misbehaves(connection, build_response(b"x", flags=MIDDLE), "larger than 10")

    def test_endless_fragments(self) -> None:
        """
        Fragments without end are bounded by the limit, and those without bytes cost nothing.
        """
        connection = calling()
        connection.receive_data(build_response(bytes(8), flags=FIRST))
        for _ in range(10):
            self.assertEqual(connection.receive_data(build_response(flags=MIDDLE) * 100), [])
        self.assertEqual(len(connection._calls[2].parts), 1)
        self.misbehaves(connection, build_response(bytes(5816), flags=MIDDLE) * 12, "larger than")

    def test_number_of_results(self) -> None:
        """
        There is one verdict for each context that was offered.
        """
        for count in (0, 1, 3, 255):
            self.misbehaves(binding(), build_ack([refused(2)] * count), f"{count} were judged")
        for count in (0, 2):
            resp = build_ack([refused(2)] * count, packet_type=15)
            self.misbehaves(altering(), resp, f"{count} were judged")

    def test_misplaced_results(self) -> None:
        """
        Of results that a host puts behind four bytes too many, as is known of one at a port of five digits, it is told
        that nobody can read them, and which ports do better.
        """
        data = build_ack([accepted(), refused(2)], address=b"16880\0")
        start = 16 + 10 + 6
        moved = data[:start] + bytes(4) + data[start:]
        problem = misbehaviour(binding().receive_data(moved))
        self.assertIn("2 contexts were offered, but 0 were judged; no client can read", problem)
        self.assertIn("a port of four digits", problem)
        for answer in (build_ack([]), build_ack([refused(2)], address=b"16880\0")):
            problem = misbehaviour(binding().receive_data(answer))
            self.assertIn("; no client can read this answer; check that it is", problem)

    def test_syntax_that_was_not_offered(self) -> None:
        """
        A context cannot be accepted with a transfer syntax that it did not offer.
        """
        for results in ([accepted(NDR64), refused(2)], [accepted(), accepted(STRANGE)]):
            self.misbehaves(binding(), build_ack(results), "that was not offered")
        resp = build_ack([accepted(NDR)], packet_type=15)
        self.misbehaves(altering(), resp, "that was not offered")

    def test_short_pdus(self) -> None:
        """
        A PDU that is too short for its type ends the connection.
        """
        for make, data in (
            (binding, build_nak()[:17]),
            (binding, build_nak()[:16]),
            (calling, build_fault(5)[:31]),
            (calling, build_fault(5)[:16]),
            (altering, build_fault(5)[:24]),
            (calling, build_response()[:23]),
            (binding, build_ack([accepted(), refused(2)])[:-1]),
            (binding, build_ack([accepted(), refused(2)], address=b"1688\0")[:26]),
            (altering, build_ack([accepted(NDR64)], packet_type=15)[:31]),
        ):
            short = data[:8] + pack("<H", len(data)) + data[10:]
            self.misbehaves(make(), short, "reach beyond the end")

    def test_authentication_trailers(self) -> None:
        """
        A trailer that nobody asked for ends the connection, whatever it is attached to.
        """
        for make, packet_type in ((binding, 12), (binding, 13), (calling, 2), (calling, 3)):
            data = build_pdu(packet_type, bytes(100), auth_length=16, call_id=2)
            self.misbehaves(make(), data, "authentication trailer")

    def test_mistake_after_an_answer(self) -> None:
        """
        What was answered before a mistake is reported before it.
        """
        connection = calling()
        answer, *rest = connection.receive_data(build_response(b"ab") + b"HTTP")
        self.assertEqual(answer, ResponseReceived(2, "<", b"ab"))
        self.assertIn("version 5.0", misbehaviour(rest))
