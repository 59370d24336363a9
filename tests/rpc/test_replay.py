"""
Recorded exchanges, replayed against each of our two sides.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.calls import CallReceived
from kmsproto.rpc.client import (
    BindAccepted,
    ClientConnection,
    ContextsAltered,
    Event,
    ResponseReceived,
)
from kmsproto.rpc.ndr import (
    decode_activation_request,
    decode_activation_response,
    encode_activation_failure,
    encode_activation_request,
    encode_activation_response,
)
from kmsproto.rpc.pdu import (
    NDR,
    NDR64,
    SyntaxId,
    decode_bind,
    decode_bind_ack,
    decode_header,
    decode_response,
)
from kmsproto.rpc.server import RPCServer
from tests.golden import EXCHANGES, RecordedPDU, load_exchange
from tests.rpc.building import KMS, only

SYNTAXES: dict[str, SyntaxId] = {"NDR": NDR, "NDR64": NDR64}


def answer_stub(response: RecordedPDU) -> bytes:
    """
    Make the stub of a recorded answer anew, from its payload or its HRESULT.
    """
    syntax = SYNTAXES[response.transfer_syntax]
    payload, hresult = decode_activation_response(response.data[24:], syntax, "<")
    if hresult:
        return encode_activation_failure(hresult, syntax)
    return encode_activation_response(payload, syntax)


class ServerReplayTests(SynchronousTestCase):
    """
    The recorded client against our server.
    """

    def replay(self, name: str, segment: int) -> None:
        """
        Feed a server what the client sent, in segments of that size, and demand what the host sent.
        """
        exchange = load_exchange(name)
        ack = decode_bind_ack(decode_header(exchange[1].data), exchange[1].data)
        server = RPCServer([KMS], group_seed=ack.association_group - 1)
        connection = server.accept("192.0.2.1", ack.secondary_address)
        for sent, expected in zip(exchange[::2], exchange[1::2], strict=True):
            self.assertEqual((sent.sender, expected.sender), ("client", "host"))
            events = [
                event
                for start in range(0, len(sent.data), segment)
                for event in connection.receive_data(sent.data[start : start + segment])
            ]
            answer = expected.data
            if sent.packet == "request":
                call = only(CallReceived, events).call
                self.assertEqual(call.context.transfer_syntax, SYNTAXES[sent.transfer_syntax])
                payload = decode_activation_request(
                    call.stub, call.context.transfer_syntax, call.byte_order
                )
                self.assertIn(len(payload), (252, 260))
                self.assertEqual(payload, sent.data[-len(payload) :])
                connection.respond(call, answer_stub(expected))
            else:
                self.assertEqual(events, [])
                if sent.packet == "alter_context":
                    # Its gap is remains of the recorded host's memory.
                    answer = answer[:26] + bytes(2) + answer[28:]
            self.assertEqual(connection.data_to_send(), answer)

    def test_whole(self) -> None:
        """
        Our server answers every recorded client to the byte as its host did.
        """
        for name in EXCHANGES:
            self.replay(name, 65535)

    def test_byte_by_byte(self) -> None:
        """
        It answers the same when each byte is a segment.
        """
        for name in EXCHANGES:
            self.replay(name, 1)


class ClientReplayTests(SynchronousTestCase):
    """
    Our client against the recorded host.
    """

    def replay(self, name: str, segment: int) -> None:
        """
        Ask for what the recorded client asked for, and feed a client what the host sent, in segments of that size.
        """
        exchange = load_exchange(name)
        connection = ClientConnection()
        for sent, received in zip(exchange[::2], exchange[1::2], strict=True):
            header = decode_header(sent.data)
            syntax = SYNTAXES.get(sent.transfer_syntax, NDR)
            if sent.packet == "bind":
                connection.bind(decode_bind(header, sent.data).elements)
            elif sent.packet == "alter_context":
                connection.alter_context(decode_bind(header, sent.data).elements)
            else:
                payload = decode_activation_request(sent.data[24:], syntax, "<")
                context_id = next(
                    key for key, value in connection.contexts.items() if value == syntax
                )
                stub = encode_activation_request(payload, syntax)
                self.assertEqual(connection.call(context_id, 0, stub), header.call_id)
            self.assertEqual(connection.data_to_send(), sent.data)
            answer = received.data
            events: list[Event] = [
                event
                for start in range(0, len(answer), segment)
                for event in connection.receive_data(answer[start : start + segment])
            ]
            header = decode_header(answer)
            if sent.packet == "request":
                event = only(ResponseReceived, events)
                stub = decode_response(header, answer).stub
                self.assertEqual(event, ResponseReceived(header.call_id, "<", stub))
                payload, hresult = decode_activation_response(event.stub, syntax, "<")
                self.assertEqual(hresult, received.hresult)
                self.assertEqual(bool(payload), not hresult)
            else:
                ack = decode_bind_ack(header, answer)
                kind = BindAccepted if sent.packet == "bind" else ContextsAltered
                self.assertEqual(events, [kind(ack)])
        self.assertFalse(connection.closed)

    def test_whole(self) -> None:
        """
        Our client sends to the byte what the recorded one sent, and understands every answer.
        """
        for name in EXCHANGES:
            self.replay(name, 65535)

    def test_byte_by_byte(self) -> None:
        """
        It sends and understands the same when each byte is a segment.
        """
        for name in EXCHANGES:
            self.replay(name, 1)
