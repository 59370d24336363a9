"""
What a host can cost a client at most: memory, time, and what it may do to a connection that is over.

Here the host is bytes that are handed to the client, and time is what the test says.  The memory is what Python's own
allocator was asked for while the bytes arrived.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    RemoteProtocolError,
)
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.net.client import ActivationClient, ClientOptions
from kmsproto.rpc import pdu, server
from kmsproto.rpc.calls import Call, CallReceived
from kmsproto.rpc.numbers import WHOLE, PacketFlag, PacketType
from tests.hostile_wire import answer, response, with_frag_length
from tests.net.wiring import PEER, SALT, FakeTCP, body, chunks, returning

#: Bytes that one segment brings at most.
SEGMENT = 65536
#: Bytes of a flood.
FLOOD = 16 * SEGMENT
#: Bytes that a client may hold on behalf of one connection: a PDU of the largest size and the segment that it came in,
#: the answer as it grows, and as much again while these are copied.
MAX_HELD = 6 * 65536
ADDRESS = IPv4Address("TCP", PEER, 1688)


class Connection:
    """
    A client's connection that is bound, with one call that waits for its answer.

    @param scrutinize: Whether the client looks for broken rules.
    """

    def __init__(self, scrutinize: bool = False) -> None:
        self.clock = Clock()
        self.transport = FakeTCP(ADDRESS, ADDRESS)
        self.client = ActivationClient(
            self.clock, ClientOptions(entropy=returning(SALT), scrutinize=scrutinize)
        )
        self.client.makeConnection(self.transport)
        host = server.RPCServer((KMS_INTERFACE,)).accept(PEER, "1688")
        host.receive_data(self.transport.value())
        #: What bound it.
        self.bind_ack = host.data_to_send()
        self.client.dataReceived(self.bind_ack)
        self.transport.clear()
        self.asked: Deferred[OpenedResponse] = self.client.activate(body())
        (event,) = host.receive_data(self.transport.value())
        assert isinstance(event, CallReceived)
        self.call: Call = event.call
        self.transport.clear()

    @property
    def over(self) -> bool:
        """
        Whether the client has cut it.
        """
        return "abort" in self.transport.ends

    def fragments(self, size: int) -> tuple[bytes, bytes]:
        """
        Make the first fragment of an answer, and any further one, with so many bytes each.
        """
        stub = bytes(size)
        return response(self.call, PacketFlag.FIRST, stub), response(self.call, 0, stub)

    def flooding(self, data: bytes) -> Callable[[], None]:
        """
        Make what lets the same arrive again and again, in segments as large as they get.
        """
        segment = data * (SEGMENT // len(data))

        def flood() -> None:
            for _ in range(FLOOD // SEGMENT):
                self.client.dataReceived(segment)

        return flood


def held_during(act: Callable[[], object]) -> int:
    """
    Tell how many bytes something needed at its peak, beyond those that were held before.
    """
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        act()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


class LimitsCase(SynchronousTestCase):
    """
    A connection, and assertions about its end.
    """

    #: Whether the client looks for broken rules meanwhile.
    scrutinize = False

    def setUp(self) -> None:
        """
        Bind, and make a call.
        """
        self.connection = Connection(self.scrutinize)

    def assertOver(self, *kinds: type[KMSProtoError]) -> None:
        """
        The call has failed, the connection was cut, and no timer waits.
        """
        self.failureResultOf(self.connection.asked, *kinds)
        self.assertEqual(self.connection.transport.ends, ["abort"])
        self.assertEqual(self.connection.clock.getDelayedCalls(), [])


class MemoryTests(LimitsCase):
    """
    What a host can make a client hold.
    """

    def test_endless_empty_fragments(self) -> None:
        """
        Fragments without content are not collected, however many come.
        """
        first, further = self.connection.fragments(0)
        self.connection.client.dataReceived(first)
        self.assertLess(held_during(self.connection.flooding(further)), MAX_HELD)
        self.assertNoResult(self.connection.asked)
        self.connection.clock.advance(10)
        self.assertOver(HostTimeoutError)

    def test_endless_fragments(self) -> None:
        """
        An answer is given up when it is too large, whatever the size of its fragments, and what follows costs nothing.
        """
        for size in (2, 8, 1400, 60_000):
            self.connection = Connection(self.scrutinize)
            first, further = self.connection.fragments(size)
            self.connection.client.dataReceived(first)
            # Small fragments make many objects: up to 32,768 for 64 KiB of answer.
            limit = MAX_HELD if size > 8 else 8 * MAX_HELD
            self.assertLess(held_during(self.connection.flooding(further)), limit)
            self.assertOver(RemoteProtocolError)
            self.assertLess(held_during(self.connection.flooding(further)), SEGMENT // 8)

    def test_unfinished_pdu(self) -> None:
        """
        A PDU that never ends is held once, and only as far as it came.
        """
        first, _ = self.connection.fragments(0xFFFF - 24)
        pieces = chunks(first[:-1], 1000)

        def arrive() -> None:
            for piece in pieces:
                self.connection.client.dataReceived(piece)

        self.assertLess(held_during(arrive), MAX_HELD)
        self.connection.clock.advance(10)
        self.assertOver(HostTimeoutError)

    def test_unfinished_pdu_and_flood(self) -> None:
        """
        A length that nothing follows but other PDUs is filled by these, and refused.
        """
        first, further = self.connection.fragments(0)
        swallowing = with_frag_length(first, 0xFFFF)
        self.connection.client.dataReceived(swallowing)
        self.assertLess(held_during(self.connection.flooding(further)), MAX_HELD)
        self.assertOver(RemoteProtocolError)

    def test_unasked_answers(self) -> None:
        """
        The first answer that nobody asked for ends the connection, and a flood of them costs nothing more.
        """
        for data in (
            pdu.encode_fault(99, 0, 5, did_not_execute=True),
            pdu.encode_pdu(PacketType.RESPONSE, WHOLE, 99, bytes(100)),
            pdu.encode_pdu(PacketType.ALTER_CONTEXT_RESP, WHOLE, 99, bytes(100)),
            Connection().bind_ack,
            b"\xff",
        ):
            self.connection = Connection(self.scrutinize)
            self.assertLess(held_during(self.connection.flooding(data)), MAX_HELD)
            self.assertOver(RemoteProtocolError)

    def test_flood_behind_the_answer(self) -> None:
        """
        A good answer is taken, and what comes behind it ends the connection without cost.
        """
        good = response(self.connection.call, WHOLE, answer(self.connection.call))
        self.assertLess(held_during(self.connection.flooding(good)), MAX_HELD)
        self.successResultOf(self.connection.asked)
        self.assertTrue(self.connection.over)

    def test_flood_during_the_close(self) -> None:
        """
        A host that goes on while the connection closes is not listened to for longer than the time limit.
        """
        first, further = self.connection.fragments(0)
        closed = self.connection.client.close()
        self.connection.client.dataReceived(first)
        self.assertLess(held_during(self.connection.flooding(further)), MAX_HELD)
        self.assertNoResult(closed)
        self.connection.clock.advance(10)
        self.successResultOf(closed)
        self.failureResultOf(self.connection.asked, HostTimeoutError)
        # Two limits are over at the same time: that of the call, and that of the close.
        self.assertEqual(self.connection.transport.ends[:2], ["whole", "abort"])


class ScrutinyMemoryTests(MemoryTests):
    """
    What a host can make a client hold that looks for broken rules.
    """

    scrutinize = True

    def test_findings(self) -> None:
        """
        Rules that are broken again and again are told once.
        """
        first, further = self.connection.fragments(1)
        self.connection.client.dataReceived(first)
        self.connection.flooding(further)()
        findings = self.connection.client.findings
        self.assertEqual(len(findings), len(set(findings)))
        self.assertLess(len(findings), 10)
        self.connection.clock.advance(10)
        self.assertOver(HostTimeoutError)


class TimeTests(LimitsCase):
    """
    How long a host can make a client wait.
    """

    @given(
        st.lists(st.tuples(st.floats(0.01, 9.9), st.integers(1, 40)), max_size=40),
    )
    @settings(max_examples=60, deadline=None)
    def test_drip(self, segments: list[tuple[float, int]]) -> None:
        """
        However an answer is dripped, the call is over at the limit, unless the whole of it has come before.
        """
        connection = Connection()
        data = response(connection.call, WHOLE, answer(connection.call))
        now = 0.0
        for pause, size in segments:
            if now + pause >= 10:
                break
            connection.clock.advance(pause)
            now += pause
            connection.client.dataReceived(data[:size])
            data = data[size:]
            if not data:
                self.successResultOf(connection.asked)
                return
            self.assertNoResult(connection.asked)
        connection.clock.advance(10 - now + 0.001)
        self.failureResultOf(connection.asked, HostTimeoutError)
        self.assertEqual(connection.transport.ends, ["abort"])
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    def test_each_call_has_its_own_limit(self) -> None:
        """
        An answer to one call gives the others no more time.
        """
        second = self.connection.client.activate(body())
        self.connection.clock.advance(9)
        self.connection.client.dataReceived(
            response(self.connection.call, WHOLE, answer(self.connection.call))
        )
        self.successResultOf(self.connection.asked)
        self.assertNoResult(second)
        self.connection.clock.advance(1)
        self.failureResultOf(second, HostTimeoutError)
        self.assertEqual(self.connection.transport.ends, ["abort"])

    def test_faults_of_others_give_no_time(self) -> None:
        """
        A call that is answered with a fault leaves the limit of the next one as it was.
        """
        fault = pdu.encode_fault(self.connection.call.call_id, 0, 5, did_not_execute=False)
        later = self.connection.client.activate(body())
        self.connection.clock.advance(9.5)
        self.connection.client.dataReceived(fault)
        self.failureResultOf(self.connection.asked, KMSProtoError)
        self.connection.clock.advance(0.5)
        self.failureResultOf(later, HostTimeoutError)

    def test_host_that_does_not_read(self) -> None:
        """
        Calls that the host never reads are over at the limit, and the connection is cut, not closed behind them.
        """
        calls = [self.connection.client.activate(body()) for _ in range(100)]
        self.assertGreater(len(self.connection.transport.value()), 100 * 260)
        self.connection.clock.advance(10)
        for each in calls:
            self.failureResultOf(each, HostTimeoutError)
        self.assertOver(HostTimeoutError)


class AfterTheEndTests(LimitsCase):
    """
    A connection that is over stays over.
    """

    def assertDead(self, *kinds: type[KMSProtoError]) -> None:
        """
        Nothing can be asked, nothing is written, and nothing that arrives is looked at.
        """
        written = self.connection.transport.value()
        good = response(self.connection.call, WHOLE, answer(self.connection.call))
        self.connection.client.dataReceived(good)
        self.failureResultOf(self.connection.client.activate(body()), *kinds)
        self.connection.client.dataReceived(b"\xff" * 100)
        self.assertEqual(self.connection.transport.value(), written)
        self.successResultOf(self.connection.client.close())
        self.assertEqual(self.connection.clock.getDelayedCalls(), [])

    def test_after_a_timeout(self) -> None:
        """
        An answer that comes too late is not taken.
        """
        self.connection.clock.advance(10)
        self.assertOver(HostTimeoutError)
        self.assertDead(HostTimeoutError)

    def test_after_a_mistake(self) -> None:
        """
        A good answer behind a broken PDU is not taken.
        """
        self.connection.client.dataReceived(with_frag_length(self.connection.bind_ack, 0))
        self.assertOver(RemoteProtocolError)
        self.assertDead(RemoteProtocolError)

    def test_after_a_reset(self) -> None:
        """
        A connection that the host has cut takes no more calls.
        """
        self.connection.client.connectionLost()
        self.failureResultOf(self.connection.asked, HostUnreachableError)
        self.assertDead(HostUnreachableError)


class AnyBytesTests(SynchronousTestCase):
    """
    Whatever arrives, a call ends in an answer or in an error that is foreseen; nothing escapes to the reactor.
    """

    def meet(self, connection: Connection, segments: Iterable[bytes]) -> None:
        """
        Let segments arrive, wait until the limit is over, and look at the end.
        """
        results: list[Any] = []
        connection.asked.addBoth(results.append)
        for segment in segments:
            connection.client.dataReceived(segment)
        connection.clock.advance(10)
        (result,) = results
        if not isinstance(result, OpenedResponse):
            self.assertIsInstance(result.value, KMSProtoError)
            self.assertNotIn("\n", str(result.value))
            self.assertTrue(str(result.value).isprintable(), str(result.value))
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    @given(
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
        st.integers(1, 400),
        st.booleans(),
    )
    @settings(max_examples=150, deadline=None)
    def test_changed_answer(
        self, changes: list[tuple[int, int]], size: int, scrutinize: bool
    ) -> None:
        """
        A good answer with any bytes changed, in any segments.
        """
        connection = Connection(scrutinize)
        data = bytearray(response(connection.call, WHOLE, answer(connection.call)))
        for position, value in changes:
            data[position % len(data)] = value
        self.meet(connection, chunks(bytes(data), size))

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 20),
                st.integers(0, 255),
                st.integers(0, 4),
                st.binary(max_size=120),
            ),
            max_size=8,
        ),
        st.booleans(),
    )
    @settings(max_examples=150, deadline=None)
    def test_any_pdus(self, parts: list[tuple[int, int, int, bytes]], scrutinize: bool) -> None:
        """
        PDUs of any type with anything in them.
        """
        data = b"".join(pdu.encode_pdu(*part) for part in parts)
        self.meet(Connection(scrutinize), [data])

    @given(
        st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
        st.integers(1, 200),
        st.booleans(),
    )
    @settings(max_examples=150, deadline=None)
    def test_changed_bind_ack(
        self, changes: list[tuple[int, int]], size: int, scrutinize: bool
    ) -> None:
        """
        A good answer to the bind with any bytes changed, in any segments.
        """
        data = bytearray(Connection().bind_ack)
        for position, value in changes:
            data[position % len(data)] = value
        clock = Clock()
        client = ActivationClient(clock, ClientOptions(scrutinize=scrutinize))
        client.makeConnection(FakeTCP(ADDRESS, ADDRESS))
        results: list[Any] = []
        client.wait_until_bound().addBoth(results.append)
        for segment in chunks(bytes(data), size):
            client.dataReceived(segment)
        clock.advance(10)
        (result,) = results
        if result is not None:
            self.assertIsInstance(result.value, KMSProtoError)
            self.assertTrue(str(result.value).isprintable(), str(result.value))
        self.assertEqual(clock.getDelayedCalls(), [])
