"""
Tests of L{kmsproto.rpc.server}: what its owner sees, what it allows its owner, and what it keeps.

Calls in fragments, and calls that wait, are tested in C{test_server_calls}.  Which answer each mistake of a client
earns is tested row by row in C{tests.conformance}; here each is made once.
"""

from __future__ import annotations

from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.rpc.calls import CallRefused
from kmsproto.rpc.numbers import FaultStatus, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, bind_time_features, decode_bind_ack
from kmsproto.rpc.server import RPCServer
from kmsproto.rpc.state import Context, ServerState
from tests.rpc.building import (
    ECHO,
    KMS,
    MULTIPLEXED,
    UNKNOWN,
    WHOLE,
    accepted,
    bound,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    element,
    established,
    features,
    only,
    received,
    refusal,
    refused,
    split,
    types,
)

FIRST, MIDDLE, LAST = 1, 0, 2
PROTO_ERROR = 0x1C01000B


class BindTests(SynchronousTestCase):
    """
    Binds and alter_contexts.
    """

    def test_bind_ack(self) -> None:
        """
        A bind is answered with sizes, a new group, the own port, and a verdict for each element.
        """
        connection = RPCServer([KMS], group_seed=6).accept("a", "1688")
        self.assertIs(connection.state, ServerState.ESTABLISHED)
        elements = [element(0), element(1, KMS.syntax, NDR64), element(2, UNKNOWN)]
        self.assertEqual(connection.receive_data(build_bind(elements, call_id=9)), [])
        self.assertIs(connection.state, ServerState.BOUND)
        sent = connection.data_to_send()
        ((header, _),) = split(sent)
        results = (refused(2), accepted(NDR64), refused(1))
        self.assertEqual(decode_bind_ack(header, sent)[:4], (5840, 5840, 7, "1688"))
        self.assertEqual(decode_bind_ack(header, sent).results, results)
        self.assertEqual((header.flags, header.call_id), (WHOLE, 9))
        self.assertEqual(connection.data_to_send(), b"")

    def test_fragment_sizes(self) -> None:
        """
        The smaller size of the client counts, within our own limits and in steps of eight.
        """
        for xmit, recv, agreed in (
            (0, 0, 2048),
            (65535, 65535, 5840),
            (3199, 65535, 3192),
            (65535, 2050, 2048),
        ):
            connection = established()
            connection.receive_data(build_bind([element(0)], xmit=xmit, recv=recv))
            sent = connection.data_to_send()
            self.assertEqual(decode_bind_ack(split(sent)[0][0], sent)[:2], (agreed, agreed))
            connection.receive_data(
                build_bind([element(5)], packet_type=PacketType.ALTER_CONTEXT, xmit=1, recv=1)
            )
            sent = connection.data_to_send()
            self.assertEqual(decode_bind_ack(split(sent)[0][0], sent)[:2], (agreed, agreed))

    def test_features(self) -> None:
        """
        Features are negotiated in a bind where the server offers them, and never in an alter_context.
        """
        wish = element(2, KMS.syntax, bind_time_features(7))
        for offered, verdict in ((True, features(3)), (False, refused(2))):
            server = RPCServer([KMS], bind_time_features=offered)
            connection = server.accept("a", "1")
            for packet_type, expected in ((11, verdict), (14, refused(2))):
                connection.receive_data(build_bind([wish], packet_type=packet_type))
                sent = connection.data_to_send()
                ack = decode_bind_ack(split(sent)[0][0], sent)
                self.assertEqual(ack.results, (expected,))

    def test_without_ndr64(self) -> None:
        """
        A server that does not offer NDR64 refuses it.
        """
        connection = RPCServer([KMS], ndr64=False).accept("a", "1")
        connection.receive_data(build_bind([element(0, KMS.syntax, NDR64)]))
        sent = connection.data_to_send()
        self.assertEqual(decode_bind_ack(split(sent)[0][0], sent).results, (refused(2),))

    def test_multiplexing_is_confirmed(self) -> None:
        """
        Concurrent multiplexing is confirmed to who asks for it, in the bind_ack only.
        """
        connection = established()
        connection.receive_data(build_bind([element(0)], flags=0xFF))
        connection.receive_data(build_bind([element(5)], packet_type=14, flags=0xFF))
        bind_ack, alter_context_resp = split(connection.data_to_send())
        self.assertEqual(bind_ack[0].flags, WHOLE | MULTIPLEXED)
        self.assertEqual(alter_context_resp[0].flags, WHOLE)

    def test_alter_context(self) -> None:
        """
        An alter_context adds a context, and is answered with the group and without an address.
        """
        connection = established(RPCServer([KMS, ECHO], group_seed=6))
        connection.receive_data(build_bind([element(0)]))
        connection.data_to_send()
        data = build_bind([element(1, ECHO.syntax)], packet_type=14, call_id=5, group=99)
        self.assertEqual(connection.receive_data(data), [])
        expected = build_ack([accepted()], packet_type=15, address=b"", call_id=5)
        self.assertEqual(connection.data_to_send(), zeroed(expected))
        self.assertEqual(received(connection, build_request(context_id=1)).context.interface, ECHO)

    def test_groups(self) -> None:
        """
        Connections of one client share a group while one of them lives.
        """
        server = RPCServer([KMS])
        first, second, other, late = (established(server, peer) for peer in "aaba")
        first.receive_data(build_bind([element(0)]))
        self.assertEqual(second.receive_data(build_bind([element(0)], group=1)), [])
        self.assertIn("group 1", refusal(other.receive_data(build_bind([element(0)], group=1))))
        self.assertEqual(other.data_to_send(), build_nak(0, call_id=1))
        first.close()
        first.close()
        second.close()
        self.assertIn("group 1", refusal(late.receive_data(build_bind([element(0)], group=1))))
        self.assertEqual(server.groups._groups, {})

    def test_refused_binds(self) -> None:
        """
        A bind that is malformed, empty, illegal or wants security is refused with a bind_nak, and leaves no group.
        """
        trailers = {
            (0, 1): 0,
            (0, 2): 8,
            (0, 6): 8,
            (0, 7): 0,
            (1, 0): 0,
            (10, 1): 8,
        }
        good = build_bind([element(0)])
        cases = [
            (good[:8] + pack("<H", 60) + good[10:60], "malformed", 4),
            (build_bind([]), "without presentation contexts", 4),
            (build_bind([element(0)._replace(transfer_syntaxes=())]), "illegal", 0),
        ]
        for (kind, level), reason in trailers.items():
            trailer = bytes((kind, level, 0, 0)) + bytes(4) + b"token"
            data = build_bind([element(0)], trailer=trailer, auth_length=5)
            cases.append((data, f"authentication type {kind}", reason))
        overlong = bytes((10, 5, 255, 0)) + bytes(4) + b"token"
        data = build_bind([element(0)], trailer=overlong, auth_length=5)
        cases.append((data, "authentication type 10", 4))
        for data, problem, reason in cases:
            server = RPCServer([KMS])
            connection = server.accept("a", "1")
            self.assertIn(problem, refusal(connection.receive_data(data)))
            self.assertEqual(connection.data_to_send(), build_nak(reason, call_id=1))
            self.assertTrue(connection.closed)
            self.assertEqual(server.groups._groups, {})

    def test_refused_alter_contexts(self) -> None:
        """
        An alter_context that is malformed, empty, illegal or wants security is refused with a fault.
        """
        good = build_bind([element(5)], packet_type=14)
        for data in (
            good[:8] + pack("<H", 60) + good[10:60],
            build_bind([], packet_type=14),
            build_bind([element(0, KMS.syntax, NDR64)], packet_type=14),
            build_bind([element(5)], packet_type=14, trailer=bytes(9), auth_length=1),
        ):
            connection = bound()
            self.assertIn("alter_context", refusal(connection.receive_data(data)))
            self.assertEqual(
                connection.data_to_send(), build_fault(PROTO_ERROR, flags=0x23, call_id=1)
            )

    def test_second_bind(self) -> None:
        """
        A second bind is refused with a bind_nak, also inside a call.
        """
        for before in (b"", build_request(flags=FIRST)):
            connection = bound()
            connection.receive_data(before)
            data = build_bind([element(0)], call_id=8)
            self.assertIn("second bind", refusal(connection.receive_data(data)))
            self.assertEqual(connection.data_to_send(), build_nak(0, call_id=8))

    def test_no_rpc(self) -> None:
        """
        What is not RPC is recognized by its first bytes and gets no answer.
        """
        connection = established()
        self.assertIn("not DCE/RPC", refusal(connection.receive_data(b"GET")))
        self.assertEqual(connection.data_to_send(), b"")


def zeroed(data: bytes) -> bytes:
    """
    Clear what is reserved in an ack that has two bytes of gap and no address.
    """
    return data[:26] + bytes(2) + data[28:29] + bytes(3) + data[32:]


class CallTests(SynchronousTestCase):
    """
    Calls, and what their owner may do with them.
    """

    def test_call(self) -> None:
        """
        A call brings its numbers, its context, its byte order and its stub, and is answered on that context.
        """
        connection = bound()
        data = build_request(
            b"stub", context_id=1, opnum=4, call_id=77, order=">", object_uuid=bytes(16)
        )
        call = received(connection, data)
        self.assertEqual((call.call_id, call.context_id, call.opnum), (77, 1, 4))
        self.assertEqual(call.context, Context(ECHO, NDR))
        self.assertEqual((call.byte_order, call.stub, call.orphaned), (">", b"stub", False))
        self.assertEqual(connection.waiting, 1)
        connection.respond(call, b"answer")
        self.assertEqual(connection.waiting, 0)
        body = pack("<IHBB", 6, 1, 0, 0) + b"answer"
        self.assertEqual(connection.data_to_send(), build_pdu(2, body, call_id=77))

    def test_fault(self) -> None:
        """
        A call that reached its operation is answered with a fault that does not deny it.
        """
        connection = bound()
        call = received(connection, build_request(context_id=1, call_id=5))
        connection.fault(call, FaultStatus.BAD_STUB_DATA)
        self.assertEqual(connection.data_to_send(), build_fault(0x6F7, context_id=1, call_id=5))
        self.assertFalse(connection.closed)

    def test_a_call_is_answered_once(self) -> None:
        """
        A call that was answered, in whatever way, cannot be answered again.
        """
        connection = bound()
        for answer in (connection.respond, connection.fault):
            call = received(connection, build_request())
            if answer == connection.respond:
                connection.respond(call, b"")
            else:
                connection.fault(call, 5)
            connection.data_to_send()
            self.assertRaises(LocalProtocolError, connection.respond, call, b"")
            self.assertRaises(LocalProtocolError, connection.fault, call, 5)
            self.assertEqual(connection.data_to_send(), b"")

    def test_status_that_cannot_be_written(self) -> None:
        """
        A fault status that means success or does not fit 32 bits is refused, and the call still waits.
        """
        connection = bound()
        call = received(connection, build_request())
        for status in (-1, 0, 1 << 32):
            self.assertRaises(LocalProtocolError, connection.fault, call, status)
            self.assertEqual((connection.waiting, connection.data_to_send()), (1, b""))
        connection.fault(call, 0xFFFFFFFF)
        self.assertEqual(connection.data_to_send(), build_fault(0xFFFFFFFF, call_id=1))
        self.assertEqual(connection.waiting, 0)

    def test_a_call_of_another_connection(self) -> None:
        """
        A call can only be answered where it came from, even if one with the same numbers waits there.
        """
        connection, other = bound(), bound()
        call = received(connection, build_request())
        received(other, build_request())
        self.assertRaises(LocalProtocolError, other.respond, call, b"")
        connection.respond(call, b"")

    def test_large_answer(self) -> None:
        """
        An answer that does not fit one fragment of the negotiated size is sent in several.
        """
        connection = bound(xmit=2048)
        call = received(connection, build_request())
        connection.respond(call, bytes(5000))
        pdus = split(connection.data_to_send())
        self.assertEqual([len(data) for _, data in pdus], [2048, 2048, 5000 - 2 * 2024 + 24])
        self.assertEqual([header.flags for header, _ in pdus], [FIRST, MIDDLE, LAST])

    def test_refused_calls(self) -> None:
        """
        A call on no context, or of no operation, is refused, and the connection goes on.
        """
        connection = bound()
        for data, fault in (
            (build_request(context_id=2), build_fault(0x1C010003, flags=0x23, call_id=1)),
            (build_request(context_id=0x100), build_fault(0x1C010003, flags=0x23, call_id=1)),
            (
                build_request(context_id=1, opnum=5),
                build_fault(0x1C010002, context_id=1, flags=0x23, call_id=1),
            ),
        ):
            event = only(CallRefused, connection.receive_data(data))
            self.assertEqual(event.call_id, 1)
            self.assertTrue(event.problem)
            self.assertEqual(connection.data_to_send(), fault)
        self.assertEqual(connection.waiting, 0)
        received(connection, build_request())

    def test_authentication_trailers(self) -> None:
        """
        A trailer without a security context ends the connection, in a whole call and in any fragment.
        """
        trailer = bytes((10, 5, 0, 0)) + bytes(4) + b"token"
        denied = build_fault(5, context_id=1, call_id=1)
        for before, flags in (
            (b"", WHOLE),
            (b"", FIRST),
            (build_request(flags=1, context_id=1), 2),
        ):
            connection = bound()
            connection.receive_data(before)
            data = build_request(trailer, context_id=1, flags=flags, auth_length=5)
            self.assertIn("trailer", refusal(connection.receive_data(data)))
            self.assertEqual(connection.data_to_send(), denied)

    def test_overlong_padding(self) -> None:
        """
        A trailer with more padding than there is room for ends the connection with a protocol error.
        """
        connection = bound()
        trailer = bytes((10, 5, 200, 0)) + bytes(4) + b"token"
        events = connection.receive_data(build_request(trailer, auth_length=5))
        self.assertIn("padding", refusal(events))
        self.assertEqual(connection.data_to_send(), build_fault(PROTO_ERROR, flags=0x23, call_id=1))

    def test_ignored_pdus(self) -> None:
        """
        A cancel, a third leg of a handshake and the loss of an unknown call change nothing.
        """
        connection = bound()
        for packet_type in (PacketType.CO_CANCEL, PacketType.AUTH3, PacketType.ORPHANED):
            self.assertEqual(connection.receive_data(build_pdu(packet_type, b"ab")), [])
        self.assertEqual(connection.data_to_send(), b"")
        self.assertIs(connection.state, ServerState.BOUND)

    def test_cancelled_call(self) -> None:
        """
        A call that is cancelled is answered all the same, whether it is being received or waits.
        """
        connection = bound(flags=WHOLE | MULTIPLEXED)
        cancel = build_pdu(PacketType.CO_CANCEL)
        connection.receive_data(build_request(b"ab", flags=FIRST) + cancel)
        call = received(connection, build_request(b"cd", flags=LAST))
        self.assertEqual(connection.receive_data(cancel), [])
        connection.respond(call, call.stub)
        self.assertEqual(connection.data_to_send()[24:], b"abcd")

    def test_orphaned_call(self) -> None:
        """
        The answer to a call that the client has lost interest in is dropped, and the others are sent.
        """
        connection = bound(flags=WHOLE | MULTIPLEXED)
        first = received(connection, build_request(call_id=1))
        second = received(connection, build_request(call_id=2))
        third = received(connection, build_request(call_id=3))
        connection.receive_data(build_pdu(PacketType.ORPHANED, call_id=1))
        connection.receive_data(build_pdu(PacketType.ORPHANED, call_id=3))
        self.assertEqual([each.orphaned for each in (first, second, third)], [True, False, True])
        connection.respond(first, b"x")
        connection.fault(third, 5)
        connection.respond(second, b"y")
        ((header, _),) = split(connection.data_to_send())
        self.assertEqual(header.call_id, 2)
        self.assertEqual(connection.waiting, 0)

    def test_statistics(self) -> None:
        """
        The server counts calls and PDUs over its connections.
        """
        server = RPCServer([KMS, ECHO])
        for _ in range(2):
            connection = bound(server, xmit=2048)
            connection.receive_data(build_request(flags=FIRST) + build_request(flags=MIDDLE))
            call = received(connection, build_request(flags=LAST))
            connection.respond(call, bytes(2100))
        self.assertEqual(server.statistics.calls_in, 2)
        self.assertEqual(server.statistics.calls_out, 0)
        self.assertEqual(server.statistics.packets_in, 8)
        self.assertEqual(server.statistics.packets_out, 6)


class CloseTests(SynchronousTestCase):
    """
    Connections that have ended.
    """

    def test_silence(self) -> None:
        """
        After the end nothing is looked at, answers are dropped without complaint, and nothing is sent.
        """
        connection = bound(flags=WHOLE | MULTIPLEXED)
        call = received(connection, build_request())
        connection.receive_data(build_request(flags=FIRST))
        self.assertFalse(connection.closed)
        connection.close()
        connection.close()
        self.assertTrue(connection.closed)
        self.assertEqual((connection.waiting, connection.paused), (0, False))
        self.assertEqual(connection.receive_data(build_request()), [])
        connection.respond(call, b"")
        connection.respond(call, b"")
        connection.fault(call, 5)
        self.assertEqual(connection.data_to_send(), b"")
        self.assertIs(connection.state, ServerState.CLOSED)

    def test_answers_precede_the_end(self) -> None:
        """
        What was answered before a mistake is sent before the answer to it, and the rest of the input is forgotten.
        """
        connection = bound(flags=WHOLE | MULTIPLEXED)
        first = received(connection, build_request(call_id=1))
        second = received(connection, build_request(call_id=2))
        connection.respond(first, b"")
        refusal(connection.receive_data(build_pdu(PacketType.RESPONSE) + build_request(call_id=3)))
        connection.respond(second, b"")
        self.assertEqual(types(connection.data_to_send()), [PacketType.RESPONSE, PacketType.FAULT])
        self.assertEqual(connection.receive_data(b""), [])

    def test_group_is_left_once(self) -> None:
        """
        A mistake ends the membership in a group, and closing afterwards changes nothing.
        """
        server = RPCServer([KMS])
        connection, other = established(server), established(server)
        connection.receive_data(build_bind([element(0)]))
        other.receive_data(build_bind([element(0)], group=1))
        refusal(connection.receive_data(build_pdu(PacketType.SHUTDOWN)))
        connection.close()
        self.assertEqual(server.groups._groups[1].members, 1)
