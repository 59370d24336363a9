"""
The client against hosts that mean no good: silent, endless, or with answers that are not the right ones.

Whatever such a host does, a request ends in the error that says so, and in time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    HostTimeoutError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.policy import Peer
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.rpc import calls, ndr, pdu
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.state import Interface
from kmsproto.testing import make_host
from tests.net.client_wiring import ClientCase, OddHost, ScriptedHost
from tests.net.wiring import NOW, PEER, body, catalog, payload, returning


class HostileTests(ClientCase):
    """
    Hosts that mean no good: each ends in the error that says so, in time, with the connection closed.
    """

    def assertTimesOut(self, asked: Deferred[Any], step: str) -> None:
        """
        A request fails exactly when the timeout is over.
        """
        self.assertNoResult(asked)
        self.clock.advance(0.5)
        problem = self.assertFails(asked, HostTimeoutError)
        self.assertEqual(str(problem), f"the host did not answer {step} within 10 seconds")

    def test_silent(self) -> None:
        """
        A host that never says a word is left when the timeout is over.
        """
        self.use(ScriptedHost)
        asked = self.ask()
        self.clock.advance(9.5)
        self.assertTimesOut(asked, "the bind")

    def test_silent_after_the_bind(self) -> None:
        """
        A host that binds and does not answer is left when the timeout is over.
        """
        self.use(lambda: OddHost(lambda _: None))
        asked = self.ask()
        self.clock.advance(9.5)
        self.assertTimesOut(asked, "the activation request")

    def test_timeout_ends_all_calls(self) -> None:
        """
        When one call is too late, the connection and all its calls are given up.
        """
        self.use(lambda: OddHost(lambda _: None))
        client = self.connected()
        first = client.activate(body())
        self.clock.advance(5)
        second = client.activate(body())
        self.flush()
        self.clock.advance(5)
        self.failureResultOf(first, HostTimeoutError)
        self.assertFails(second, HostTimeoutError)
        self.failureResultOf(client.activate(body()), HostTimeoutError)
        self.successResultOf(client.close())

    def test_trickle(self) -> None:
        """
        A bind_ack that comes byte by byte is waited for as long as any other.
        """
        host = ScriptedHost()
        self.use(lambda: host)
        asked = self.ask()
        for byte in b"\5\0\x0c\3\x10\0\0\0\xff\xff":
            self.clock.advance(0.95)
            host.transport.write(bytes((byte,)))
            self.flush()
        self.assertTimesOut(asked, "the bind")

    def test_endless_fragments(self) -> None:
        """
        An answer of endless empty fragments is given up when the timeout is over.
        """
        calls: list[calls.Call] = []
        host = OddHost(calls.append)
        self.use(lambda: host)
        asked = self.ask()
        call_id, context_id = calls[0].call_id, calls[0].context_id
        empty = bytes((0, 0, 0, 0, context_id, 0, 0, 0))
        host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 1, call_id, empty))
        for _ in range(19):
            host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 0, call_id, empty) * 1000)
            self.flush()
            self.clock.advance(0.5)
        self.assertTimesOut(asked, "the activation request")

    def test_endless_answer(self) -> None:
        """
        An answer that grows without end is given up as soon as it is too large.
        """
        self.use(lambda: OddHost(lambda _: bytes(70_000)))
        self.assertFails(self.ask(), RemoteProtocolError)

    def test_flood(self) -> None:
        """
        A host that floods the client with bytes is left at the first of them.
        """
        for flood in (bytes(1_000_000), b"\xff" * 1_000_000, b"HTTP/1.1 400 Bad Request\r\n" * 99):
            self.use(partial(ScriptedHost, flood))
            self.assertFails(self.ask(), RemoteProtocolError)

    def test_answers_that_nobody_asked_for(self) -> None:
        """
        Answers to calls that were not made end the connection.
        """
        for kind in (PacketType.RESPONSE, PacketType.FAULT, PacketType.BIND_ACK, 200):
            host = OddHost(lambda _: None)
            self.use(returning(host))
            asked = self.ask()
            host.transport.write(pdu.encode_pdu(kind, 3, 99, bytes(100)))
            self.flush()
            self.assertFails(asked, RemoteProtocolError)

    def test_flood_of_answers(self) -> None:
        """
        An answer that is repeated is not taken for a second one.
        """
        host = OddHost(self.real_answer)
        self.use(lambda: host)
        client = self.connected()
        asked = client.activate(body())
        self.flush()
        self.successResultOf(asked)
        second = client.activate(body())
        self.flush()
        self.successResultOf(second)
        host.transport.write(pdu.encode_pdu(PacketType.RESPONSE, 3, 3, bytes(8)) * 1000)
        self.flush()
        self.failureResultOf(client.activate(body()), RemoteProtocolError)
        self.assertClosed()

    def real_answer(self, call: calls.Call) -> bytes:
        """
        Answer as the real host would.
        """
        syntax = call.context.transfer_syntax
        message = ndr.decode_activation_request(call.stub, syntax, call.byte_order)
        return ndr.encode_activation_response(self.answer_to(message), syntax)

    def answer_to(self, message: bytes) -> bytes:
        """
        Answer a KMS message as the real host would.
        """
        return make_host(catalog=catalog()).answer(message, Peer(PEER, 1), NOW).payload

    def test_answer_to_another_request(self) -> None:
        """
        A good answer to another request is not taken for the own.
        """
        for version in (4, 5, 6):
            other = self.answer_to(payload(version))

            def answer(call: calls.Call, message: bytes = other) -> bytes:
                return ndr.encode_activation_response(message, call.context.transfer_syntax)

            self.use(partial(OddHost, answer))
            mine = body(version, client_time=1)
            self.assertFails(self.ask(mine), VerificationError)

    def test_answer_in_another_version(self) -> None:
        """
        An answer in another version than the request's is refused.
        """
        older = self.answer_to(payload(4))
        self.use(
            lambda: OddHost(
                lambda call: ndr.encode_activation_response(older, call.context.transfer_syntax)
            )
        )
        problem = self.assertFails(self.ask(body(6)), VerificationError)
        self.assertEqual(problem.check, "version")

    def test_changed_answers(self) -> None:
        """
        An answer of which any bit was changed is refused, in the versions whose answers are signed.
        """
        for version in (4, 6):
            size = len(self.answer_to(payload(version)))
            for position in range(0, size, 7):

                def answer(call: calls.Call, at: int = position) -> bytes:
                    syntax = call.context.transfer_syntax
                    message = ndr.decode_activation_request(call.stub, syntax, call.byte_order)
                    changed = bytearray(self.answer_to(message))
                    changed[at] ^= 1
                    return ndr.encode_activation_response(bytes(changed), syntax)

                self.use(partial(OddHost, answer))
                with self.subTest(version=version, position=position):
                    self.assertFails(self.ask(body(version)), VerificationError)

    def test_sizes(self) -> None:
        """
        Stubs whose sizes are zero, enormous or at odds, and short ones, are refused.
        """
        for ndr64 in (True, False):
            word = 8 if ndr64 else 4
            for size, referent, count, rest in (
                (0, 0, 0, b""),
                (0, 0x20000, 0, bytes(4)),
                (0xFFFFFFF0, 0x20000, 0xFFFFFFF0, bytes(300)),
                (0xFFFFFFF0, 0x20000, 0, bytes(300)),
                (0, 0x20000, 0xFFFFFFF0, bytes(300)),
                (0xFFFFFFF0, 0, 0, b""),
                (200, 0x20000, 200, bytes(100)),
                (300, 0x20000, 300, bytes(304)),
                (1, 0x20000, 1, bytes(8)),
            ):
                stub = (
                    size.to_bytes(word, "little")
                    + referent.to_bytes(word, "little")
                    + count.to_bytes(word, "little")
                    + rest
                )
                self.use(partial(OddHost, returning(stub)))
                with self.subTest(ndr64=ndr64, size=size, count=count):
                    self.assertFails(self.ask(ndr64=ndr64), VerificationError)

    def test_short_stubs(self) -> None:
        """
        An answer that is cut short anywhere is refused.
        """
        message = self.answer_to(payload())
        whole = len(ndr.encode_activation_response(message, pdu.NDR64))
        for length in range(0, whole, 9):

            def answer(call: calls.Call, cut: int = length) -> bytes:
                return self.real_answer(call)[:cut]

            self.use(partial(OddHost, answer))
            with self.subTest(length=length):
                self.assertFails(self.ask(), VerificationError)

    def test_bind_refused(self) -> None:
        """
        A bind_nak is an error with its reason.
        """
        self.use(lambda: ScriptedHost(pdu.encode_bind_nak(2, 2)))
        problem = self.assertFails(self.ask(), BindRefusedError)
        self.assertEqual((problem.reason, problem.name), (2, "local_limit_exceeded"))

    def test_no_context(self) -> None:
        """
        A host that has no KMS interface, or no syntax for it, is an error of its own.
        """
        other = Interface(KMS_INTERFACE.syntax._replace(major=2), 1)
        self.use(lambda: OddHost(lambda _: None, other))
        self.assertFails(self.ask(), ContextRefusedError)

    def test_behind_a_bind_nak(self) -> None:
        """
        What comes behind a bind_nak is not looked at.
        """
        self.use(lambda: ScriptedHost(pdu.encode_bind_nak(2, 0) + bytes(10_000)))
        self.assertFails(self.ask(), BindRefusedError)

    def test_odd_answer_leaves_the_connection(self) -> None:
        """
        A failed check concerns its call only; the next one on the connection may be granted.
        """
        odd = iter([True, False])

        def answer(call: calls.Call) -> bytes:
            return b"" if next(odd) else self.real_answer(call)

        self.use(lambda: OddHost(answer))
        client = self.connected()
        first, second = client.activate(body()), client.activate(body())
        self.flush()
        self.failureResultOf(first, VerificationError)
        self.successResultOf(second)
