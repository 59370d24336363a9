"""
The host on wires: how connections begin, what they are answered, what policies may return, and how all of it ends.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides

from kmsproto.kms.envelopes import open_response
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.server import HostFactory, Limits
from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.numbers import PacketType
from tests.net import (
    BAD_STUB,
    BOUND,
    FAULT_UNSPEC,
    INVALID_DATA,
    NOW,
    PEER,
    PRODUCT_REFUSED,
    PROTO_ERROR,
    SALT,
    FakeTCP,
    HostCase,
    Questions,
    TurnedAwayError,
    Wire,
    bind,
    body,
    call,
    calls,
    chunks,
    granted,
    host_lines,
    payload,
    payload_named,
    read_replies,
    returning,
    sealed,
    split,
    unsupported,
    utf16,
)

#: What breaks the protocol on a connection that is bound: a request of another RPC version.
BROKEN = b"\x04" + call(payload(4), 9)[1:]


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


class EndTests(HostCase):
    """
    How a connection ends.
    """

    def test_half_close_after_the_request(self) -> None:
        """
        A peer that closes its side after the request was answered gets the connection closed.
        """
        wire = self.bound()
        wire.send(call(payload()))
        wire.finish()
        self.assertEqual(wire.replies(), granted(2))
        self.assertEqual(wire.ends, ["whole"])

    def test_half_close_before_the_answer(self) -> None:
        """
        A peer that closes its side while its calls wait still gets all answers, then the connection is closed.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        wire = self.bound()
        wire.send(calls(2))
        wire.finish()
        self.assertEqual((wire.replies(), wire.ends), ([], []))
        waiting[0].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), []))
        waiting[1].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(3), ["whole"]))

    def test_half_close_of_a_silent_peer(self) -> None:
        """
        A peer that closes its side without having asked gets the connection closed.
        """
        for wire in (self.wire(), self.bound()):
            wire.finish()
            self.assertEqual((wire.replies(), wire.ends), ([], ["whole"]))

    def test_half_close_inside_a_request(self) -> None:
        """
        A peer that closes its side in the middle of a request is not waited for.
        """
        wire = self.bound()
        wire.send(call(payload())[:100])
        wire.finish()
        self.assertEqual((wire.replies(), wire.ends), ([], ["whole"]))

    def test_answer_before_close(self) -> None:
        """
        After a protocol error the answer is written, then only the write side is closed.
        """
        wire = self.bound()
        wire.send(BROKEN)
        self.assertEqual(wire.replies(), [("fault", 9, PROTO_ERROR)])
        self.assertEqual(wire.ends, ["half"])

    def test_input_after_close(self) -> None:
        """
        What comes behind the last answer is read and thrown away.
        """
        wire = self.bound()
        wire.send(BROKEN + call(payload(), 10))
        wire.take()
        wire.send(call(payload(), 11), bytes(100_000), bind())
        self.assertEqual((wire.replies(), wire.ends), ([], ["half"]))

    def test_fin_after_close(self) -> None:
        """
        When the peer closes too, the connection is closed whole.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.finish()
        self.assertEqual(wire.ends, ["half", "whole"])
        wire.protocol.writeConnectionLost()
        wire.leave(cleanly=True)
        self.assertTimers(0)

    def test_linger(self) -> None:
        """
        A peer that does not close within the linger timeout is cut off, whatever it sends meanwhile.
        """
        wire = self.bound()
        wire.send(BROKEN)
        self.clock.advance(1.5)
        wire.send(b"more")
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["half", "abort"])

    def test_linger_of_a_peer_that_does_not_read(self) -> None:
        """
        A peer that has closed its side but does not read the answer is cut off as well.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.finish()
        self.clock.advance(2)
        self.assertEqual(wire.ends, ["half", "whole", "abort"])

    def test_without_half_close(self) -> None:
        """
        A transport that cannot close one side is closed whole.
        """
        transport = StringTransport(peerAddress=IPv4Address("TCP", PEER, 1))
        wire = Wire(self.factory, transport=transport)
        wire.send(bind() + BROKEN)
        self.assertEqual(wire.replies(), [BOUND, ("fault", 9, PROTO_ERROR)])
        self.assertTrue(transport.disconnecting)

    def test_tls(self) -> None:
        """
        A TLS connection is closed whole, because one side of TLS cannot be.
        """
        wire = Wire(self.factory)
        directlyProvides(wire.tcp, ISSLTransport)
        wire.send(b"GET /")
        self.assertEqual(wire.ends, ["whole"])

    def test_no_producer_afterwards(self) -> None:
        """
        A connection that has ended is no producer any more, and reads even if it was paused.
        """
        wire = self.bound()
        wire.producer.pauseProducing()
        self.assertFalse(wire.reading)
        self.clock.advance(30)
        self.assertEqual(wire.ends, ["half"])
        self.assertIsNone(wire.producer)
        self.assertTrue(wire.reading)

    def test_ends_once(self) -> None:
        """
        An end that comes on top of another changes nothing.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.protocol.drain()
        wire.protocol.expire()
        self.assertEqual(wire.ends, ["half"])

    def test_lost_in_the_middle(self) -> None:
        """
        A peer that vanishes at any byte of its stream leaves nothing behind.
        """
        stream = bind() + call(payload())
        for length in range(len(stream) + 1):
            wire = self.wire()
            wire.send(stream[:length])
            wire.leave()
            self.assertTimers(0)
        self.assertServed()


class FlowTests(HostCase):
    """
    A peer that does not read.
    """

    def test_pause_and_resume(self) -> None:
        """
        A peer that does not read is not read from until it does.
        """
        wire = self.bound()
        producer = wire.producer
        producer.pauseProducing()
        self.assertFalse(wire.reading)
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertTrue(wire.reading)
        self.assertServed(wire)

    def test_stop(self) -> None:
        """
        When the transport gives up its producer, nothing happens before the connection is lost.
        """
        wire = self.bound()
        wire.producer.stopProducing()
        self.assertEqual(wire.ends, [])
        wire.leave()
        self.assertTimers(0)

    def test_bounded(self) -> None:
        """
        A peer that sends calls and never reads is soon not read from, and what waits for it is bounded.
        """
        wire = self.bound(multiplexed=True)
        segment = calls(220)
        sent = 0
        while wire.reading:
            wire.send(segment)
            sent += 1
            self.assertLess(sent, 10)
        self.assertLess(len(wire.transport.value()), wire.tcp.room + 2 * len(segment))
        producer = wire.producer
        self.assertEqual(len(wire.replies()), 220 * sent)
        producer.resumeProducing()
        self.assertServed(wire)

    def test_never_reads(self) -> None:
        """
        A peer that never reads is closed after the idle timeout, and cut off after the linger timeout.
        """
        wire = self.bound()
        wire.producer.pauseProducing()
        self.clock.advance(30)
        self.clock.advance(2)
        self.assertEqual(wire.ends, ["half", "abort"])

    def test_call_waits(self) -> None:
        """
        Without multiplexing the peer is not read from while its call waits.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertFalse(wire.reading)
        waiting.callback(Grant(50))
        self.assertTrue(wire.reading)
        self.assertEqual(wire.replies(), granted(2))

    def test_both_reasons(self) -> None:
        """
        Reading goes on only when neither the writing nor a call holds it up.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.producer.pauseProducing()
        wire.producer.resumeProducing()
        self.assertFalse(wire.reading)
        wire.producer.pauseProducing()
        waiting.callback(Grant(50))
        self.assertFalse(wire.reading)
        wire.producer.resumeProducing()
        self.assertTrue(wire.reading)

    def test_multiplexed_calls_wait(self) -> None:
        """
        With multiplexing 64 calls wait at a time; further ones wait unread.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(70)]
        questions = Questions(waiting.__getitem__)
        self.factory = self.make_factory(policy=questions)
        wire = self.bound(multiplexed=True)
        wire.send(calls(63))
        self.assertTrue(wire.reading)
        wire.send(calls(7))
        self.assertFalse(wire.reading)
        self.assertEqual(len(questions.asked), 64)
        for each in waiting:
            each.callback(Grant(50))
        self.assertTrue(wire.reading)
        self.assertEqual(len(wire.replies()), 70)

    def test_finished_peer_is_not_resumed(self) -> None:
        """
        After the peer's FIN the transport is neither paused nor resumed.
        """
        waiting: Deferred[object] = Deferred()
        self.factory = self.make_factory(policy=lambda *_: waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.finish()
        wire.producer.pauseProducing()
        wire.producer.resumeProducing()
        waiting.callback(Grant(50))
        self.assertFalse(wire.reading)
        self.assertEqual(wire.replies(), granted(2))


class TimeoutTests(HostCase):
    """
    Connections that do not get on.
    """

    def test_never_binds(self) -> None:
        """
        A peer that says nothing is closed after the idle timeout, and a line says that it never bound.
        """
        with host_lines() as lines:
            wire = self.wire()
            self.clock.advance(29.75)
            self.assertEqual(wire.ends, [])
            self.clock.advance(0.25)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(
            lines, [f'closed peer={PEER} port=50123 reason="timed out: it never bound"']
        )

    def test_idle(self) -> None:
        """
        A peer that is bound and silent is closed after the idle timeout, without a line.
        """
        with host_lines() as lines:
            wire = self.bound()
            self.clock.advance(30)
        self.assertEqual((wire.ends, lines), (["half"], []))

    def test_trickle(self) -> None:
        """
        Bytes that lead to no answer do not prolong the timeout.
        """
        with host_lines() as lines:
            wire = self.bound()
            for byte in chunks(call(payload())[:29]):
                self.clock.advance(1)
                wire.send(byte)
            self.assertEqual(wire.ends, [])
            self.clock.advance(1)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(wire.replies(), [])
        self.assertLessEqual(len(lines), 1)

    def test_endless_fragments(self) -> None:
        """
        Fragments that never make a call do not prolong the timeout, and a line says that a call is incomplete.
        """
        fragment = bytearray(call(payload()))
        fragment[3] = 0x01
        with host_lines() as lines:
            wire = self.bound()
            wire.send(bytes(fragment))
            fragment[3] = 0x00
            del fragment[24:]
            fragment[8:10] = b"\x18\0"
            for _ in range(29):
                self.clock.advance(1)
                wire.send(bytes(fragment))
            self.clock.advance(1)
        self.assertEqual(wire.ends, ["half"])
        self.assertEqual(
            lines, [f'closed peer={PEER} port=50123 reason="timed out: a call is incomplete"']
        )

    def test_answers_prolong(self) -> None:
        """
        Every answer gives the connection the whole timeout again.
        """
        wire = self.wire()
        self.clock.advance(29)
        wire.send(bind())
        self.assertEqual(wire.replies(), [BOUND])
        for _ in range(5):
            self.clock.advance(29)
            wire.send(call(payload()))
            self.assertEqual((wire.replies(), wire.ends), (granted(2), []))
        self.clock.advance(29)
        self.assertServed(wire)
        self.clock.advance(30)
        self.assertEqual(wire.ends, ["half"])

    def test_undecided(self) -> None:
        """
        A call that waits too long for its decision ends the connection, with a line, and is cancelled.
        """
        cancelled: list[object] = []
        self.factory = self.make_factory(policy=lambda *_: Deferred(cancelled.append))
        with host_lines() as lines:
            wire = self.bound()
            wire.send(call(payload()))
            self.clock.advance(30)
        self.assertEqual((wire.ends, len(cancelled)), (["half"], 1))
        self.assertEqual(
            lines,
            [f'closed peer={PEER} port=50123 reason="timed out: a call waits for its decision"'],
        )

    def test_one_timer(self) -> None:
        """
        A hundred connections share one timer.
        """
        wires = [self.bound() for _ in range(100)]
        self.assertTimers(1)
        self.clock.advance(30)
        self.assertEqual([wire.ends for wire in wires], [["half"]] * 100)
        self.assertTimers(1)
        self.clock.advance(2)
        self.assertEqual([wire.ends for wire in wires], [["half", "abort"]] * 100)
        self.assertTimers(0)

    def test_limits(self) -> None:
        """
        The timeouts are those of the limits.
        """
        self.factory = self.make_factory(limits=Limits(idle_timeout=7, linger_timeout=3))
        wire = self.bound()
        self.clock.advance(6.5)
        self.assertEqual(wire.ends, [])
        self.clock.advance(0.5)
        self.clock.advance(2.5)
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["half", "abort"])


class AdmissionTests(HostCase):
    """
    Who may connect.
    """

    def refuse(self, peer: str, address: Any = None) -> list[str]:
        """
        Connect, expect a refusal, and get the lines about it.
        """
        with host_lines() as lines:
            refused = self.factory.buildProtocol(address or IPv4Address("TCP", peer, 50123))
        self.assertIsNone(refused)
        return lines

    def test_public(self) -> None:
        """
        A public peer gets no protocol, thus no byte, and one line says why.
        """
        self.assertEqual(
            self.refuse("8.8.8.8"),
            ['turned away peer=8.8.8.8 port=50123 reason="not a private address"'],
        )
        self.assertTimers(0)
        self.assertServed()

    def test_public_ipv6(self) -> None:
        """
        A public peer is refused over IPv6 too, also in IPv6 clothes.
        """
        for host, named in (("2001:db8::1", "2001:db8::1"), ("::ffff:8.8.8.8", "8.8.8.8")):
            (line,) = self.refuse("", IPv6Address("TCP", host, 5))
            self.assertIn(f"turned away peer={named} port=5 ", line)

    def test_shared(self) -> None:
        """
        The shared address space is refused, unless it is allowed.
        """
        self.assertEqual(len(self.refuse("100.64.0.1")), 1)
        self.factory = self.make_factory(allow_shared_address_space=True)
        Wire(self.factory, "100.64.0.1")
        self.assertEqual(len(self.refuse("8.8.8.8")), 1)

    def test_public_allowed(self) -> None:
        """
        Where public peers are allowed, any address is served.
        """
        self.factory = self.make_factory(allow_public_peers=True)
        for peer in ("8.8.8.8", "100.64.0.1", PEER):
            wire = Wire(self.factory, peer)
            wire.send(bind() + call(payload()))
            self.assertEqual(wire.replies(), [BOUND, *granted(2)])

    def test_cap(self) -> None:
        """
        Beyond the cap on connections a peer is refused with a line; a place that gets free is given away again.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=2))
        first, second = Wire(self.factory, "10.0.0.1"), Wire(self.factory, "10.0.0.2")
        self.assertEqual(
            self.refuse("10.0.0.3"),
            ['turned away peer=10.0.0.3 port=50123 reason="2 connections are open"'],
        )
        first.leave()
        self.assertServed()
        self.assertEqual(len(self.refuse("10.0.0.3")), 1)
        second.leave()
        self.assertServed()

    def test_cap_per_address(self) -> None:
        """
        Beyond the cap of its address a peer is refused with a line, while others are served.
        """
        self.factory = self.make_factory(limits=Limits(max_connections_per_address=2))
        first, _ = self.wire(), self.wire()
        self.assertEqual(
            self.refuse(PEER),
            [f'turned away peer={PEER} port=50123 reason="2 connections of this address are open"'],
        )
        Wire(self.factory, "10.0.0.1")
        first.leave()
        self.assertServed(self.bound())
        self.assertEqual(len(self.refuse(PEER)), 1)

    def test_cap_counts_both_families(self) -> None:
        """
        An IPv4 address is counted together with itself in IPv6 clothes.
        """
        self.factory = self.make_factory(limits=Limits(max_connections_per_address=1))
        self.wire()
        self.assertEqual(len(self.refuse("", IPv6Address("TCP", f"::ffff:{PEER}", 5))), 1)

    def test_lingering_counts(self) -> None:
        """
        A connection that was closed by the host but not by the peer still has its place.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=1))
        wire = self.bound()
        wire.send(BROKEN)
        self.assertEqual(len(self.refuse(PEER)), 1)
        wire.leave()
        self.wire()

    def test_refused_connection_takes_no_place(self) -> None:
        """
        Peers that were turned away do not count.
        """
        self.factory = self.make_factory(limits=Limits(max_connections=1))
        for _ in range(3):
            self.refuse("8.8.8.8")
        self.assertServed()

    def test_wire_notices(self) -> None:
        """
        The tests' own wire knows a refusal.
        """
        self.assertRaises(TurnedAwayError, Wire, self.factory, "8.8.8.8")


class PolicyTests(HostCase):
    """
    What a policy may return, and when.
    """

    def host_with(self, make: Callable[[int], object]) -> Questions:
        """
        Replace the host by one that asks this.
        """
        questions = Questions(make)
        self.factory = self.make_factory(policy=questions)
        return questions

    def test_function(self) -> None:
        """
        A function is asked with the request, the peer and the time.
        """
        asked: list[tuple[RequestBody, Peer, float]] = []

        def policy(request: RequestBody, peer: Peer, now: float) -> HResult:
            asked.append((request, peer, now))
            return HResult.PRODUCT_REFUSED

        self.factory = self.make_factory(policy=policy)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED)])
        self.assertEqual(asked, [(body(), Peer(PEER, 50123), NOW)])

    def test_coroutine(self) -> None:
        """
        A coroutine that waits for something is waited for.
        """
        waiting: Deferred[int] = Deferred()

        async def decide() -> Grant:
            return Grant(await waiting)

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [])
        waiting.callback(33)
        self.assertEqual(wire.replies(), granted(2))

    def test_coroutine_that_does_not_wait(self) -> None:
        """
        A coroutine that waits for nothing answers at once.
        """

        async def decide() -> HResult:
            return HResult.ACCESS_DENIED

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, HResult.ACCESS_DENIED)])

    def test_deferred_fired_already(self) -> None:
        """
        A Deferred that has fired already answers at once.
        """
        self.host_with(lambda _: succeed(Grant(50)))
        wire = self.bound()
        wire.send(calls(3))
        self.assertEqual(wire.replies(), granted(2, 3, 4))

    def test_deferred_that_fires_later(self) -> None:
        """
        A Deferred is waited for, and refuses or grants.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.host_with(waiting.__getitem__)
        wire = self.bound()
        wire.send(calls(2))
        waiting[0].callback(HResult.PRODUCT_REFUSED)
        waiting[1].callback(Grant(50))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED), *granted(3)])

    def test_fired_already_with_a_full_segment(self) -> None:
        """
        A segment full of calls is answered when every decision is a Deferred that has fired.
        """
        for multiplexed in (False, True):
            with self.subTest(multiplexed=multiplexed):
                self.host_with(lambda _: succeed(Grant(50)))
                wire = self.bound(multiplexed=multiplexed)
                wire.send(calls(220))
                self.assertEqual(wire.replies(), granted(*range(2, 222)))

    def test_coroutines_with_a_full_segment(self) -> None:
        """
        A segment full of calls is answered when every decision is a coroutine that waits for nothing.
        """

        async def decide() -> Grant:
            return Grant(50)

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(calls(220))
        self.assertEqual(wire.replies(), granted(*range(2, 222)))

    def test_mixed_with_a_full_segment(self) -> None:
        """
        Answers keep the order of the calls without multiplexing, however each decision is made.
        """

        async def decide() -> Grant:
            return Grant(50)

        kinds: list[Callable[[], object]] = [lambda: Grant(50), lambda: succeed(Grant(50)), decide]
        self.host_with(lambda number: kinds[number % 3]())
        wire = self.bound()
        wire.send(calls(30))
        self.assertEqual(wire.replies(), granted(*range(2, 32)))

    def test_order_without_multiplexing(self) -> None:
        """
        Without multiplexing the next call is not even asked about before the answer.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(5)]
        questions = self.host_with(waiting.__getitem__)
        wire = self.bound()
        wire.send(calls(5))
        for number, each in enumerate(waiting):
            self.assertEqual(len(questions.asked), number + 1)
            each.callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2, 3, 4, 5, 6))

    def test_any_order_with_multiplexing(self) -> None:
        """
        With multiplexing answers come in the order of the decisions.
        """
        waiting: list[Deferred[object]] = [Deferred() for _ in range(5)]
        questions = self.host_with(waiting.__getitem__)
        wire = self.bound(multiplexed=True)
        wire.send(calls(5))
        self.assertEqual(len(questions.asked), 5)
        for number in (3, 0, 4, 2, 1):
            waiting[number].callback(Grant(50))
        self.assertEqual(wire.replies(), granted(5, 2, 6, 4, 3))

    def test_fast_call_overtakes(self) -> None:
        """
        With multiplexing a call that is decided at once is answered while another waits.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound(multiplexed=True)
        wire.send(calls(3))
        self.assertEqual(wire.replies(), granted(3, 4))
        waiting.callback(Grant(50))
        self.assertEqual(wire.replies(), granted(2))

    def test_cancelled_when_the_peer_leaves(self) -> None:
        """
        When the peer leaves, decisions that nobody waits for any more are cancelled, and one line says so.
        """
        cancelled: list[Deferred[object]] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(3))
        with host_lines() as lines:
            wire.leave()
        self.assertEqual((len(cancelled), wire.replies(), len(lines)), (3, [], 1))
        self.assertIn("the peer left: a call waits for its decision", lines[0])

    def test_answered_before_the_end(self) -> None:
        """
        A decision that is ready is answered before what stands behind its call in the segment ends the connection.
        """

        async def decide() -> Grant:
            return Grant(50)

        kinds: list[Callable[[], object]] = [lambda: succeed(Grant(50)), decide]
        for kind in kinds:
            for multiplexed in (False, True):
                with self.subTest(kind=kind, multiplexed=multiplexed):
                    self.host_with(lambda _, kind=kind: kind())
                    wire = self.bound(multiplexed=multiplexed)
                    wire.send(calls(3) + bind())
                    replies = wire.replies()
                    self.assertEqual(replies[:3], granted(2, 3, 4))
                    self.assertEqual((len(replies), wire.ends), (4, ["half"]))

    def test_cut_anywhere(self) -> None:
        """
        How a stream is cut into segments changes nothing, also when decisions are ready Deferreds.
        """
        self.host_with(lambda _: succeed(Grant(50)))
        stream = calls(2) + call(b"", 9)[:24] + calls(2)
        whole, apart = self.bound(multiplexed=True), self.bound(multiplexed=True)
        whole.send(stream)
        apart.send(*(stream[index : index + 1] for index in range(len(stream))))
        self.assertEqual(whole.take(), apart.take())

    def test_coroutine_cancelled(self) -> None:
        """
        A coroutine whose peer leaves is cancelled where it waits.
        """
        waiting: Deferred[object] = Deferred()
        ended: list[str] = []

        async def decide() -> object:
            try:
                return await waiting
            finally:
                ended.append("cancelled")

        self.host_with(lambda _: decide())
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertEqual(ended, ["cancelled"])

    def test_decision_that_ignores_cancellation(self) -> None:
        """
        A decision that comes although it was cancelled is dropped.
        """
        self.host_with(lambda _: Deferred(lambda deferred: deferred.callback(Grant(50))))
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertEqual(wire.replies(), [])

    def test_error_after_cancellation(self) -> None:
        """
        A policy that fails while it is cancelled leaves one logged failure.
        """
        self.host_with(lambda _: Deferred(lambda deferred: deferred.errback(OSError("clean-up"))))
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        # At the latest when the Deferred is thrown away.
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_canceller_that_raises(self) -> None:
        """
        A policy whose canceller raises harms neither the end of its connection nor the timeouts of others.
        """

        def canceller(deferred: Deferred[object]) -> None:
            raise OSError("canceller")

        self.host_with(lambda _: Deferred(canceller))
        wire = self.bound()
        wire.send(call(payload()))
        other = self.bound()
        try:
            self.clock.advance(30)
        except OSError as error:
            self.fail(f"the error of the policy reached the reactor: {error}")
        self.flushLoggedErrors(OSError)
        self.assertEqual((wire.ends, other.ends), (["half"], ["half"]))

    def test_peer_leaves_when_answered(self) -> None:
        """
        A decision after the end of the connection is dropped, and does not disturb the next client.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound()
        wire.send(call(payload()))
        wire.leave()
        self.assertServed()

    def test_broken_while_waiting(self) -> None:
        """
        A protocol error while calls wait ends the connection; what was asked is cancelled.
        """
        cancelled: list[object] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(2), BROKEN)
        self.assertEqual(wire.replies(), [("fault", 9, PROTO_ERROR)])
        self.assertEqual((wire.ends, len(cancelled)), (["half"], 2))

    def test_broken_behind_a_call_in_one_segment(self) -> None:
        """
        A call that is decided at once is answered although a protocol error follows in the same segment.
        """
        for make in (lambda _: Grant(50), lambda _: succeed(Grant(50))):
            with self.subTest():
                self.host_with(make)
                wire = self.bound()
                wire.send(call(payload()) + BROKEN)
                self.assertEqual(wire.replies(), [*granted(2), ("fault", 9, PROTO_ERROR)])
                self.assertEqual(wire.ends, ["half"])

    def test_garbage_behind_calls_in_one_segment(self) -> None:
        """
        Questions whose answers nobody gets, because garbage follows in the same segment, are not left waiting.
        """
        cancelled: list[object] = []
        self.host_with(lambda _: Deferred(cancelled.append))
        wire = self.bound(multiplexed=True)
        wire.send(calls(3) + BROKEN)
        self.assertEqual(wire.ends, ["half"])
        wire.leave()
        self.assertEqual(len(cancelled), 3)

    def assertFails(self, make: Callable[[int], object], error: type[Exception]) -> None:
        """
        A policy leads to a fault and one logged failure, and the connection serves the next call.
        """
        self.host_with(lambda number: Grant(50) if number else make(number))
        wire = self.bound()
        with host_lines() as lines:
            wire.send(call(payload()))
            self.assertEqual(wire.replies(), [("fault", 2, FAULT_UNSPEC)])
        self.assertEqual(lines, [f"the policy failed peer={PEER} port=50123"])
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertServed(wire)

    def test_raises(self) -> None:
        """
        A policy that raises is a fault and a logged failure, and the connection lives.
        """

        def explode(_: int) -> object:
            raise ZeroDivisionError

        self.assertFails(explode, ZeroDivisionError)

    def test_deferred_fails(self) -> None:
        """
        A Deferred that fails is a fault and a logged failure.
        """
        self.assertFails(lambda _: fail(ZeroDivisionError()), ZeroDivisionError)

    def test_coroutine_raises(self) -> None:
        """
        A coroutine that raises is a fault and a logged failure.
        """

        async def explode() -> object:
            raise ZeroDivisionError

        self.assertFails(lambda _: explode(), ZeroDivisionError)

    def test_deferred_fails_later(self) -> None:
        """
        A Deferred that fails later is a fault and a logged failure, and the connection lives.
        """
        waiting: Deferred[object] = Deferred()
        self.host_with(lambda number: Grant(50) if number else waiting)
        wire = self.bound()
        wire.send(call(payload()))
        waiting.errback(ZeroDivisionError())
        self.assertEqual(wire.replies(), [("fault", 2, FAULT_UNSPEC)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertServed(wire)

    def test_nonsense(self) -> None:
        """
        A policy that decides nonsense, at once or later, is a fault and a logged failure.
        """
        values: tuple[object, ...] = (
            None,
            "granted",
            b"",
            True,
            False,
            (50, 120),
            [],
            {},
            -1,
            2**32,
            0,
            1.5,
        )
        for nonsense in values:
            for make in (returning(nonsense), returning(succeed(nonsense))):
                with self.subTest(nonsense=nonsense):
                    self.assertFails(make, Exception)

    def test_grants_that_cannot_be_written(self) -> None:
        """
        A grant whose numbers do not fit, and HRESULT 0, are faults and logged failures.
        """
        for decision in (
            Grant(-1),
            Grant(2**32),
            Grant(50, 2**32),
            Grant(50, 120, -1),
            Grant("many"),  # type: ignore[arg-type]
            HResult.SUCCESS,
        ):
            with self.subTest(decision=decision):
                self.assertFails(returning(decision), Exception)

    def test_number_as_hresult(self) -> None:
        """
        A plain number that is an HRESULT refuses as if it were one.
        """
        self.host_with(lambda _: PRODUCT_REFUSED)
        wire = self.bound()
        wire.send(call(payload()))
        self.assertEqual(wire.replies(), [("refused", 2, PRODUCT_REFUSED)])


class DrainTests(HostCase):
    """
    How a host stops.
    """

    def test_nobody(self) -> None:
        """
        Without connections the host is drained at once.
        """
        self.successResultOf(self.factory.drain())
        self.assertTimers(0)

    def test_idle(self) -> None:
        """
        Idle connections are closed at once; the host is drained when the last is gone.
        """
        wires = [self.wire(), self.bound(), self.bound()]
        drained = self.factory.drain()
        self.assertEqual([wire.ends for wire in wires], [["half"]] * 3)
        for wire in wires:
            self.assertNoResult(drained)
            wire.finish()
            wire.leave(cleanly=True)
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_calls_in_progress(self) -> None:
        """
        Calls in progress are finished, then their connection is closed.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        wire = self.bound(multiplexed=True)
        wire.send(calls(2))
        drained = self.factory.drain()
        self.assertEqual(wire.ends, [])
        waiting[1].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(3), []))
        waiting[0].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), ["half"]))
        wire.leave(cleanly=True)
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_timeout(self) -> None:
        """
        What is not finished within the drain timeout is cut off.
        """
        self.factory = self.make_factory(
            policy=lambda *_: Deferred(), limits=Limits(drain_timeout=5, idle_timeout=600)
        )
        wire = self.bound()
        wire.send(call(payload()))
        drained = self.factory.drain()
        self.clock.advance(4.5)
        self.assertEqual(wire.ends, [])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["abort"])
        wire.leave()
        self.successResultOf(drained)
        self.assertTimers(0)

    def test_peer_that_does_not_close(self) -> None:
        """
        A peer that does not close its side is cut off after the linger timeout.
        """
        wire = self.bound()
        drained = self.factory.drain()
        self.clock.advance(2)
        self.assertEqual(wire.ends, ["half", "abort"])
        wire.leave()
        self.successResultOf(drained)

    def test_twice(self) -> None:
        """
        Whoever asks a second time while the host drains hears of its end too.
        """
        wire = self.bound()
        first, second = self.factory.drain(), self.factory.drain()
        wire.leave()
        self.successResultOf(second)
        self.successResultOf(first)
        self.assertTimers(0)

    def test_later_connections(self) -> None:
        """
        Whoever connects after a host was drained, as after a restart, is neither waited for nor cut off.
        """
        old = self.bound()
        drained = self.factory.drain()
        new = self.bound()
        old.leave()
        self.successResultOf(drained)
        self.clock.advance(5)
        self.assertEqual(new.ends, [])
        self.assertServed(new)

    def test_serves_again(self) -> None:
        """
        A host that was drained serves whoever connects afterwards.
        """
        wire = self.bound()
        drained = self.factory.drain()
        wire.leave()
        self.successResultOf(drained)
        self.assertServed()


#: What comes instead of RPC, and gets no answer.
NOISE = bytes((number * 167 + 13) % 256 for number in range(20_000))
HTTP = b"GET / HTTP/1.1\r\nHost: kms.example\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c6010000c20303") + bytes(range(188))
#: Names that would like to be more than a name, and how a log shows them.
NAMES = {
    "a\nb": r"a\nb",
    "a\r\n\tb": r"a\r\n\tb",
    'a" count=9 x="': r"a\" count=9 x=\"",
    "a\\": r"a\\",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "a\u202eb\u2066c\u200f": r"a\u202eb\u2066c\u200f",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "\ufeffa\u00ad\u200d": r"\ufeffa\xad\u200d",
    "{peer} {0} %s": "{peer} {0} %s",
    "\U000e0041\U0001f600": "\\U000e0041\U0001f600",
    "büro-ПК-電腦": "büro-ПК-電腦",
    "": "",
}


class BadInputTests(HostCase):
    """
    What clients should not send: the answer it earns, one line, no traceback, and the next client is served.
    """

    def assertOneLine(self, lines: list[str], beginning: str) -> None:
        """
        One line was written, and nothing in it ends the line or moves a cursor.
        """
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith(f"{beginning} peer={PEER} port=50123 "), lines[0])
        self.assertTrue(lines[0].isprintable(), lines[0])
        self.assertEqual(self.flushLoggedErrors(), [])

    def assertClosed(self, data: bytes) -> None:
        """
        Bytes that are no RPC close the connection without an answer, in whatever segments they come.
        """
        for size in (len(data), 1, 1000):
            with host_lines() as lines:
                wire = self.wire()
                wire.send(*chunks(data, size))
            self.assertEqual((wire.take(), wire.ends), (b"", ["half"]))
            self.assertOneLine(lines, "closed")
            wire.leave()
        self.assertServed()

    def assertAnswered(self, message: bytes, reply: str, number: int = 0) -> str:
        """
        A KMS message is answered, and the connection lives.

        @return: The line about it.
        """
        wire = self.bound()
        with host_lines() as lines:
            wire.send(call(message))
        self.assertEqual(wire.replies(), [(reply, 2, number)])
        self.assertEqual(wire.ends, [])
        self.assertOneLine(lines, reply if reply != "fault" else "faulted")
        self.assertServed(wire)
        self.assertServed()
        return lines[0]

    def test_noise(self) -> None:
        """
        20,000 bytes of noise are not answered.
        """
        self.assertClosed(NOISE)

    def test_noise_on_a_bound_connection(self) -> None:
        """
        Noise on a connection that is bound earns a fault, once its header is there.
        """
        with host_lines() as lines:
            wire = self.bound()
            wire.send(NOISE)
        ((kind, _, status),) = wire.replies()
        self.assertEqual((kind, status, wire.ends), ("fault", PROTO_ERROR, ["half"]))
        self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_http(self) -> None:
        """
        An HTTP request is not answered.
        """
        self.assertClosed(HTTP)

    def test_tls(self) -> None:
        """
        A TLS hello is not answered.
        """
        self.assertClosed(TLS_HELLO)

    def test_zeros(self) -> None:
        """
        Zeros are not answered.
        """
        self.assertClosed(bytes(5000))

    def test_unknown_versions(self) -> None:
        """
        Requests of versions that do not exist are refused as invalid data.
        """
        for major, minor in ((7, 0), (6, 1), (3, 0), (0, 0), (4, 1), (65535, 65535)):
            with self.subTest(major=major, minor=minor):
                message = payload(major, minor_version=minor)
                line = self.assertAnswered(message, "refused", INVALID_DATA)
                self.assertIn(f"protocol version {major}.{minor} is not supported", line)

    def test_sizes(self) -> None:
        """
        A payload that is a byte short or long, empty, or far too long is refused as invalid data.
        """
        for version in (4, 5, 6):
            good = payload(version)
            for message in (good[:-1], good + b"\0", good[:4], good[:3], b"", good * 10):
                with self.subTest(version=version, size=len(message)):
                    self.assertAnswered(message, "refused", INVALID_DATA)

    def test_stub_sizes(self) -> None:
        """
        A stub whose sizes differ or reach beyond it is a fault.
        """
        for size, count in ((260, 259), (261, 261), (0xFFFFFFF0, 0xFFFFFFF0), (0, 0xFFFFFFFF)):
            wire = self.bound()
            stub = size.to_bytes(4, "little") + count.to_bytes(4, "little") + payload()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(2, 0, 0, stub, 5840))
            self.assertEqual(wire.replies(), [("fault", 2, BAD_STUB)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_short_stub(self) -> None:
        """
        A stub without room for its sizes is a fault.
        """
        for stub in (b"", b"\4", bytes(7)):
            wire = self.bound()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(2, 0, 0, stub, 5840))
            self.assertEqual(wire.replies(), [("fault", 2, BAD_STUB)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_n_policy(self) -> None:
        """
        An N policy of zero is granted, one over 1000 is refused as invalid data.
        """
        for version in (4, 5, 6):
            self.assertAnswered(payload(version, n_policy=0), "granted")
            self.assertAnswered(payload(version, n_policy=1000), "granted")
            for n_policy in (1001, 0x80000000, 0xFFFFFFFF):
                message = payload(version, n_policy=n_policy)
                line = self.assertAnswered(message, "refused", INVALID_DATA)
                self.assertIn(str(n_policy), line)

    def test_client_time(self) -> None:
        """
        The first and the last time that exists are granted like any other.
        """
        for version in (4, 5, 6):
            for time in (0, 2**63, 2**64 - 1):
                self.assertAnswered(payload(version, client_time=time), "granted")

    def test_enumerations(self) -> None:
        """
        A licence status or machine kind that does not exist is refused as invalid data.
        """
        for message in (payload(licence_status=7), payload(is_virtual_machine=2)):
            self.assertAnswered(message, "refused", INVALID_DATA)

    def test_lone_surrogates(self) -> None:
        """
        A name with half a character is refused as invalid data.
        """
        for name in ("\ud800", "a\udfffb", "\udc00\ud800"):
            self.assertAnswered(payload_named(utf16(name)), "refused", INVALID_DATA)

    def test_name_without_end(self) -> None:
        """
        A name without a zero is refused as invalid data.
        """
        self.assertAnswered(payload_named(b"a\0" * 64), "refused", INVALID_DATA)

    def test_remains_behind_the_name(self) -> None:
        """
        What stands behind the zero of a name does not matter, and is not logged.
        """
        line = self.assertAnswered(payload_named(utf16("lab\0", fill=b"\xd8")), "granted")
        self.assertIn(' workstation="lab" ', line)

    def test_names(self) -> None:
        """
        A name that would end the line, close its quotes or steer a terminal is escaped within one line.
        """
        for version in (4, 6):
            for name, shown in NAMES.items():
                with self.subTest(name=name):
                    line = self.assertAnswered(payload(version, name), "granted")
                    self.assertIn(f' workstation="{shown}" cmid=', line)

    def test_wrong_secrets(self) -> None:
        """
        A request with a wrong MAC or padding is refused as invalid data.
        """
        for version in (4, 5, 6):
            message = payload(version)
            broken = message[:-1] + bytes((message[-1] ^ 1,))
            self.assertAnswered(broken, "refused", INVALID_DATA)

    def test_versions_that_differ(self) -> None:
        """
        A message whose inner version differs from the outer one is refused as invalid data.
        """
        six = payload(6)
        self.assertAnswered(six[:2] + b"\5" + six[3:], "refused", INVALID_DATA)

    def test_broken_binds(self) -> None:
        """
        A bind of another version, and one that is cut short by its own length, get a bind_nak and a close.
        """
        other = b"\6" + bind()[1:]
        short = bind()[:8] + b"\x1b\0" + bind()[10:]
        for data in (other, short):
            with host_lines() as lines:
                wire = self.wire()
                wire.send(data)
            self.assertEqual((wire.replies(), wire.ends), ([("bind_nak", 1, 4)], ["half"]))
            self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_wrong_packets(self) -> None:
        """
        A packet that a client must not send gets a fault and a close.
        """
        for packet_type in (PacketType.RESPONSE, PacketType.BIND_ACK, PacketType.PING, 200):
            with host_lines() as lines:
                wire = self.bound()
                wire.send(pdu.encode_pdu(packet_type, 3, 5, bytes(32)))
            self.assertEqual((wire.replies(), wire.ends), ([("fault", 5, PROTO_ERROR)], ["half"]))
            self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_refused_calls(self) -> None:
        """
        A call on an unknown context or of an unknown operation is a fault, and the connection lives.
        """
        for context, opnum, status in ((9, 0, 0x1C010003), (0, 1, 0x1C010002)):
            wire = self.bound()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(5, context, opnum, b"", 5840))
            self.assertEqual(wire.replies(), [("fault", 5, status)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_many_bad_clients(self) -> None:
        """
        Bad clients in a row leave no timer and no place behind.
        """
        for data in (NOISE, HTTP, TLS_HELLO, bind() + BROKEN, bind() + call(b"")) * 5:
            wire = self.wire()
            wire.send(data)
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
