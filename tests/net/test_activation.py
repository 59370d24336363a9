"""
The meeting of RPC and KMS without I/O: a host's connection and a client's session, alone and with each other.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HResultError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.host import Answer
from kmsproto.kms.hresults import HResult
from kmsproto.kms.policy import Decision, Grant, Peer, Policy
from kmsproto.net.activation import (
    KMS_INTERFACE,
    REQUEST_ACTIVATION,
    Activated,
    Bound,
    ClientSession,
    Closed,
    Faulted,
    HostConnection,
    NotActivated,
    PolicyFailed,
    SessionEnded,
    Undecided,
    make_rpc_server,
)
from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.numbers import BindNakReason, FaultStatus, PacketType
from kmsproto.testing import make_host
from tests.golden import EXCHANGES, load_exchange
from tests.net.wiring import (
    BOUND,
    FAULT_UNSPEC,
    NOW,
    PEER,
    PROTO_ERROR,
    SALT,
    bind,
    body,
    call,
    calls,
    catalog,
    chunks,
    granted,
    payload,
    read_replies,
    split,
)


def make_connection(
    policy: Policy | None = None, *, ndr64: bool = True, features: bool = True
) -> HostConnection:
    """
    Make one connection of a host.
    """
    rpc_server = make_rpc_server(ndr64=ndr64, bind_time_features=features, group_seed=0)
    return HostConnection(make_host(policy, catalog()), rpc_server, Peer(PEER, 50123), "1688")


def make_session(
    *, ndr64: bool = True, features: bool = True, multiplexed: bool = True
) -> ClientSession:
    """
    Make one session of a client.
    """
    return ClientSession(ndr64=ndr64, bind_time_features=features, multiplexed=multiplexed)


class HostConnectionTests(SynchronousTestCase):
    """
    Segments and the time go in; bytes and a report come out.
    """

    def bound(self, policy: Policy | None = None, *, multiplexed: bool = False) -> HostConnection:
        """
        Make a connection and bind.
        """
        connection = make_connection(policy)
        self.assertEqual(connection.receive_data(bind(multiplexed=multiplexed), NOW), [])
        self.assertEqual(read_replies(connection.data_to_send()), [BOUND])
        return connection

    def test_answered(self) -> None:
        """
        A granted request is reported with what was asked and granted.
        """
        connection = self.bound()
        (event,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(event, Answer)
        self.assertEqual(event.request, body())
        self.assertEqual(event.grant, Grant(50))
        self.assertEqual(event.hresult, HResult.SUCCESS)
        self.assertEqual(read_replies(connection.data_to_send()), granted(2))
        self.assertEqual(connection.data_to_send(), b"")

    def test_refused(self) -> None:
        """
        A refused request is reported with its HRESULT and no grant.
        """
        connection = self.bound(lambda *_: HResult.PRODUCT_REFUSED)
        (event,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(event, Answer)
        self.assertEqual((event.hresult, event.grant), (0xC004F042, None))
        self.assertEqual(event.request, body())

    def test_unreadable(self) -> None:
        """
        A request that cannot be opened is answered with an HRESULT, reported with the problem, and not decided.
        """
        asked: list[object] = []
        connection = self.bound(lambda *question: asked.append(question))  # type: ignore[arg-type]
        (event,) = connection.receive_data(call(b"nonsense"), NOW)
        assert isinstance(event, Answer)
        self.assertEqual((event.request, event.hresult), (None, 0x8007000D))
        self.assertTrue(event.problem)
        self.assertEqual(asked, [])

    def test_bad_stub(self) -> None:
        """
        A stub that is none is a fault, and the connection goes on.
        """
        connection = self.bound()
        (request,) = pdu.encode_request(2, 0, REQUEST_ACTIVATION, b"abc", 5840)
        (event,) = connection.receive_data(request, NOW)
        self.assertIsInstance(event, Faulted)
        self.assertEqual(
            read_replies(connection.data_to_send()), [("fault", 2, FaultStatus.BAD_STUB_DATA)]
        )
        self.assertFalse(connection.closed)

    def test_refused_call(self) -> None:
        """
        A call of an operation that does not exist is reported as a fault.
        """
        connection = self.bound()
        (request,) = pdu.encode_request(2, 0, 5, b"", 5840)
        (event,) = connection.receive_data(request, NOW)
        assert isinstance(event, Faulted)
        self.assertEqual(event.status, FaultStatus.OP_RNG_ERROR)

    def test_closed(self) -> None:
        """
        A protocol error is reported, answered, and the end.
        """
        connection = self.bound()
        (event,) = connection.receive_data(b"\4" + call(payload())[1:], NOW)
        self.assertIsInstance(event, Closed)
        self.assertTrue(connection.closed)
        self.assertEqual(read_replies(connection.data_to_send()), [("fault", 2, PROTO_ERROR)])
        self.assertEqual(connection.receive_data(call(payload()), NOW), [])
        connection.close()
        connection.close()

    def test_policy_raises(self) -> None:
        """
        An error of the policy is reported as it is, and answered with a fault.
        """
        error = RuntimeError("of the policy")

        def policy(*_: object) -> Any:
            raise error

        connection = self.bound(policy)
        self.assertEqual(connection.receive_data(call(payload()), NOW), [PolicyFailed(error)])
        self.assertEqual(read_replies(connection.data_to_send()), [("fault", 2, FAULT_UNSPEC)])

    def test_undecided(self) -> None:
        """
        What is no decision is handed out, and the decision is taken back.
        """
        connection = self.bound(lambda *_: "later")  # type: ignore[arg-type]
        (question,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(question, Undecided)
        self.assertEqual((question.promise, question.opened.body), ("later", body()))
        self.assertEqual((connection.waiting, connection.paused), (1, True))
        self.assertEqual(connection.unfinished, "a call waits for its decision")
        event = connection.decide(question, Grant(50))
        self.assertIsInstance(event, Answer)
        self.assertEqual((connection.waiting, connection.paused), (0, False))
        self.assertEqual(read_replies(connection.data_to_send()), granted(2))

    def test_fail(self) -> None:
        """
        A question can be answered by an error.
        """
        connection = self.bound(lambda *_: None)  # type: ignore[arg-type]
        (question,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(question, Undecided)
        error = RuntimeError("later")
        self.assertEqual(connection.fail(question, error), PolicyFailed(error))
        self.assertEqual(read_replies(connection.data_to_send()), [("fault", 2, FAULT_UNSPEC)])

    def test_decided_twice(self) -> None:
        """
        A question is answered once.
        """
        connection = self.bound(lambda *_: None)  # type: ignore[arg-type]
        (question,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(question, Undecided)
        connection.decide(question, Grant(50))
        with self.assertRaises(LocalProtocolError):
            connection.decide(question, Grant(50))

    def test_decided_after_close(self) -> None:
        """
        A decision after the end changes nothing.
        """
        connection = self.bound(lambda *_: None)  # type: ignore[arg-type]
        (question,) = connection.receive_data(call(payload()), NOW)
        assert isinstance(question, Undecided)
        connection.close()
        connection.decide(question, Grant(50))
        self.assertEqual(connection.data_to_send(), b"")

    def test_unfinished(self) -> None:
        """
        What a peer has begun and not finished is told in words.
        """
        connection = make_connection()
        self.assertEqual((connection.bound, connection.unfinished), (False, ""))
        connection.receive_data(bind()[:20], NOW)
        self.assertEqual((connection.bound, connection.unfinished), (False, "a PDU is incomplete"))
        connection.receive_data(bind()[20:], NOW)
        self.assertEqual((connection.bound, connection.unfinished), (True, ""))
        fragment = bytearray(call(payload()))
        fragment[3] = 0x01
        connection.receive_data(bytes(fragment), NOW)
        self.assertEqual(connection.unfinished, "a call is incomplete")

    def test_decided_on_the_way(self) -> None:
        """
        Calls that are decided at once are all answered in one go.
        """
        connection = self.bound()
        self.assertEqual(len(connection.receive_data(calls(100), NOW)), 100)
        self.assertEqual(read_replies(connection.data_to_send()), granted(*range(2, 102)))

    def test_byte_order(self) -> None:
        """
        A call in the other byte order is granted, and answered in our own.
        """
        message = payload()
        stub = len(message).to_bytes(4, "big") * 2 + message
        request = (
            bytes((5, 0, 0, 3, 0, 0, 0, 0))
            + (24 + len(stub)).to_bytes(2, "big")
            + bytes(2)
            + (2).to_bytes(4, "big")
            + len(stub).to_bytes(4, "big")
            + bytes(4)
            + stub
        )
        connection = self.bound()
        connection.receive_data(request, NOW)
        self.assertEqual(read_replies(connection.data_to_send()), granted(2))

    @settings(max_examples=50)
    @given(st.lists(st.binary(max_size=300), max_size=5))
    def test_any_bytes(self, segments: list[bytes]) -> None:
        """
        Any bytes, before and after a bind, make a report and raise nothing.
        """
        for beginning in (b"", bind()):
            connection = make_connection()
            connection.receive_data(beginning, NOW)
            for segment in segments:
                for event in connection.receive_data(segment, NOW):
                    self.assertIsInstance(event, Closed | Faulted | Answer)

    @settings(max_examples=50)
    @given(st.integers(0, 291), st.integers(0, 255))
    def test_any_changed_byte(self, position: int, value: int) -> None:
        """
        A call with any byte changed is answered or refused, or waits for more, and raises nothing.
        """
        request = bytearray(call(payload()))
        request[position] = value
        connection = self.bound()
        for event in connection.receive_data(bytes(request), NOW):
            self.assertIsInstance(event, Closed | Faulted | Answer)


#: The client's side of the recorded exchanges, PDU by PDU.
RECORDED = [
    [sent.data for sent in load_exchange(name) if sent.sender == "client"] for name in EXCHANGES
]


class ShortPathTests(SynchronousTestCase):
    """
    The short path of a host's connection and the long one.
    """

    def run_through(self, segments: list[bytes], *, short: bool) -> object:
        """
        Feed segments on two connections, one after the other, with the short path or without it.

        @return: All that was sent, and all that was reported.
        """
        host = make_host(None, catalog())
        rpc_server = make_rpc_server(ndr64=True, bind_time_features=True, group_seed=0)
        sent, report = [], []
        for _ in range(2):
            connection = HostConnection(host, rpc_server, Peer(PEER, 50123), "1688")
            for segment in segments:
                taken = connection.receive_short(segment, NOW) if short else None
                if taken is None:
                    report += connection.receive_data(segment, NOW)
                elif not isinstance(taken, bytes):
                    report.append(taken)
                sent.append(taken if isinstance(taken, bytes) else connection.data_to_send())
        return sent, report

    @settings(max_examples=200)
    @given(
        st.sampled_from(RECORDED),
        st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 400), st.integers(0, 255)), max_size=2
        ),
        st.integers(0, 400),
    )
    def test_same(
        self, recorded: list[bytes], damage: list[tuple[int, int, int]], cut: int
    ) -> None:
        """
        Both send and report the same, for recorded exchanges as they are, with bytes changed, and cut anywhere.
        """
        pdus = [bytearray(data) for data in recorded]
        for number, place, value in damage:
            data = pdus[number % len(pdus)]
            data[place % len(data)] = value
        segments = [bytes(data) for data in pdus]
        if cut < len(segments[-1]):
            segments[-1:] = [segments[-1][:cut], segments[-1][cut:]]
        self.assertEqual(
            self.run_through(segments, short=True), self.run_through(segments, short=False)
        )

    def test_taken(self) -> None:
        """
        Of an exchange that was met before, every PDU of the recorded client goes the short way.
        """
        for recorded in RECORDED:
            first = make_connection()
            for data in recorded:
                first.receive_data(data, NOW)
            server = first._rpc._server
            second = HostConnection(first.host, server, Peer(PEER, 50124), "1688")
            for data in recorded:
                taken = second.receive_short(data, NOW)
                self.assertIsNotNone(taken)
                self.assertTrue(taken if isinstance(taken, bytes) else second.data_to_send())


class TogetherTests(SynchronousTestCase):
    """
    A session and a connection, with nothing between them.
    """

    def exchange(
        self, session: ClientSession, connection: HostConnection, size: int = 65536
    ) -> list[object]:
        """
        Carry bytes to and fro until nobody has anything to say.
        """
        events: list[object] = []
        while sent := session.data_to_send():
            for segment in chunks(sent, size):
                connection.receive_data(segment, NOW)
            for segment in chunks(connection.data_to_send(), size):
                events.extend(session.receive_data(segment))
        return events

    def test_every_combination(self) -> None:
        """
        Every combination of options on both sides binds, chooses NDR64 when both have it, and activates.
        """
        for ndr64, features, multiplexed, host_ndr64, host_features in product(
            (True, False), repeat=5
        ):
            with self.subTest(client=(ndr64, features, multiplexed), host=host_ndr64):
                session = make_session(ndr64=ndr64, features=features, multiplexed=multiplexed)
                connection = make_connection(ndr64=host_ndr64, features=host_features)
                self.assertEqual(self.exchange(session, connection), [Bound()])
                expected = pdu.NDR64 if ndr64 and host_ndr64 else pdu.NDR
                self.assertEqual(session.context[1], expected)
                for version in (4, 5, 6):
                    call_id = session.activate(body(version), SALT)
                    (event,) = self.exchange(session, connection)
                    assert isinstance(event, Activated)
                    self.assertEqual(event.call_id, call_id)
                    self.assertEqual(event.response.body.client_count, 50)
                    self.assertEqual(len(event.response.hardware_id), 8 if version == 6 else 0)

    def test_small_segments(self) -> None:
        """
        Segments of one byte make no difference.
        """
        session, connection = make_session(), make_connection()
        self.assertEqual(self.exchange(session, connection, 1), [Bound()])
        session.activate(body(), SALT)
        (event,) = self.exchange(session, connection, 1)
        self.assertIsInstance(event, Activated)

    def test_refusal(self) -> None:
        """
        A refusal is an error with the HRESULT and its meaning, and the session goes on.
        """
        answers: list[Decision] = [HResult.PRODUCT_REFUSED, HResult(0xC0DE0001), Grant(50)]
        decisions = iter(answers)
        session = make_session()
        connection = make_connection(lambda *_: next(decisions))
        self.exchange(session, connection)
        for hresult in (0xC004F042, 0xC0DE0001):
            session.activate(body(), SALT)
            (event,) = self.exchange(session, connection)
            assert isinstance(event, NotActivated) and isinstance(event.error, HResultError)
            self.assertEqual(event.error.hresult, hresult)
            self.assertEqual(event.error.meaning, HResult(hresult).meaning)
        session.activate(body(), SALT)
        (event,) = self.exchange(session, connection)
        self.assertIsInstance(event, Activated)

    def test_fault(self) -> None:
        """
        A fault is an error with its status and name, and the session goes on.
        """

        def policy(*_: object) -> Any:
            raise RuntimeError

        session, connection = make_session(), make_connection(policy)
        self.exchange(session, connection)
        session.activate(body(), SALT)
        (event,) = self.exchange(session, connection)
        assert isinstance(event, NotActivated) and isinstance(event.error, FaultError)
        self.assertEqual((event.error.status, event.error.name), (0x1C000012, "nca_s_fault_unspec"))

    def test_overlapping(self) -> None:
        """
        Calls that overlap are told apart by their ids.
        """
        session = make_session()
        connection = make_connection(lambda request, *_: Grant(request.n_policy))
        self.exchange(session, connection)
        asked = {
            session.activate(body(version, n_policy=number), SALT): number
            for number, version in enumerate((4, 5, 6, 6, 5, 4), 1)
        }
        events = self.exchange(session, connection)
        answered = {
            event.call_id: event.response.body.client_count
            for event in events
            if isinstance(event, Activated)
        }
        self.assertEqual(answered, asked)

    def test_recorded_client(self) -> None:
        """
        What a widely used client sent is answered: granted, or refused where the recorded host refused it.
        """
        for name in EXCHANGES:
            exchange = load_exchange(name)
            connection = make_connection()
            for number, sent in enumerate(exchange):
                if sent.sender != "client":
                    continue
                recorded = exchange[number + 1]
                connection.receive_data(sent.data, NOW)
                ((header, data),) = split(connection.data_to_send())
                with self.subTest(exchange=name, packet=sent.packet):
                    self.assertEqual(PacketType(header.packet_type).name.lower(), recorded.packet)
                    if sent.packet == "request":
                        syntax = pdu.NDR64 if sent.transfer_syntax == "NDR64" else pdu.NDR
                        stub = pdu.decode_response(header, data).stub
                        _, hresult = ndr.decode_activation_response(stub, syntax, "<")
                        self.assertEqual(hresult, recorded.hresult)


class ClientSessionTests(SynchronousTestCase):
    """
    What hosts may do to a session.
    """

    def accept(self, *accepted: int, count: int = 3) -> bytes:
        """
        Make a bind_ack that accepts these contexts, with the syntaxes that a client offers in this order.
        """
        results = tuple(
            pdu.Negotiated(0, 0, (pdu.NDR, pdu.NDR64)[number])
            if number in accepted
            else pdu.Negotiated(2, 2, pdu.NO_SYNTAX)
            for number in range(count)
        )
        ack = pdu.BindAck(5840, 5840, 1, "1688", results)
        return pdu.encode_bind_ack(PacketType.BIND_ACK, 3, 2, ack)

    def test_binds_at_once(self) -> None:
        """
        A session begins with a bind of what it was told to offer.
        """
        for ndr64, features in product((True, False), repeat=2):
            session = make_session(ndr64=ndr64, features=features)
            ((header, data),) = split(session.data_to_send())
            offered = pdu.decode_bind(header, data).elements
            self.assertEqual(len(offered), 1 + ndr64 + features)
            self.assertEqual(offered[0].abstract_syntax, KMS_INTERFACE.syntax)

    def test_prefers_ndr64(self) -> None:
        """
        A host that accepts both syntaxes is called in NDR64.
        """
        session = make_session()
        self.assertEqual(session.receive_data(self.accept(0, 1)), [Bound()])
        self.assertEqual(session.context, (1, pdu.NDR64))

    def test_ndr_only(self) -> None:
        """
        A host that accepts NDR only is called in NDR.
        """
        session = make_session()
        self.assertEqual(session.receive_data(self.accept(0)), [Bound()])
        self.assertEqual(session.context, (0, pdu.NDR))

    def test_nothing_accepted(self) -> None:
        """
        A host that accepts the bind but no context ends the session.
        """
        session = make_session()
        (event,) = session.receive_data(self.accept())
        assert isinstance(event, SessionEnded)
        self.assertIsInstance(event.error, ContextRefusedError)

    def test_no_context_yet(self) -> None:
        """
        Before the bind is accepted nothing can be asked.
        """
        session = make_session()
        self.assertRaises(ContextRefusedError, session.activate, body(), SALT)

    def test_bind_refused(self) -> None:
        """
        A bind_nak ends the session with its reason, known or not.
        """
        for reason, name in (
            (BindNakReason.TEMPORARY_CONGESTION, "temporary_congestion"),
            (77, "unknown reason"),
        ):
            session = make_session()
            (event,) = session.receive_data(pdu.encode_bind_nak(2, reason))
            assert isinstance(event, SessionEnded) and isinstance(event.error, BindRefusedError)
            self.assertEqual((event.error.reason, event.error.name), (reason, name))

    def test_misbehaviour(self) -> None:
        """
        A host that breaks the protocol ends the session.
        """
        session = make_session()
        (event,) = session.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert isinstance(event, SessionEnded)
        self.assertIsInstance(event.error, RemoteProtocolError)
        self.assertEqual(session.receive_data(self.accept(0)), [])

    def test_bad_answers(self) -> None:
        """
        An answer whose stub or message is wrong is a failed check, and the session goes on.
        """
        for stub, check in (
            (b"", "stub"),
            (bytes(11), "stub"),
            ((5).to_bytes(4, "little") + bytes(8), "stub"),
            (bytes((4, 0, 0, 0, 0, 0, 2, 0, 4, 0, 0, 0)) + bytes(8), "layout"),
            (bytes((4, 0, 0, 0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 5, 0)) + bytes(4), "version"),
            (bytes(12), "layout"),
        ):
            session = make_session()
            session.receive_data(self.accept(0))
            call_id = session.activate(body(), SALT)
            (answer,) = pdu.encode_response(call_id, 0, stub, 5840)
            (event,) = session.receive_data(answer)
            with self.subTest(stub=stub):
                assert isinstance(event, NotActivated)
                assert isinstance(event.error, VerificationError)
                self.assertEqual((event.call_id, event.error.check), (call_id, check))

    def test_close(self) -> None:
        """
        After its end a session looks at nothing, and nothing can be asked.
        """
        session = make_session()
        session.receive_data(self.accept(0))
        call_id = session.activate(body(), SALT)
        session.close()
        self.assertEqual(
            session.receive_data(pdu.encode_fault(call_id, 0, 5, did_not_execute=True)), []
        )
        self.assertRaises(LocalProtocolError, session.activate, body(), SALT)

    def test_unwritable(self) -> None:
        """
        A request that cannot be written is the caller's error, and sends nothing.
        """
        session = make_session()
        session.receive_data(self.accept(0))
        session.data_to_send()
        with self.assertRaises(LocalProtocolError):
            session.activate(body(6, "x" * 64), SALT)
        self.assertEqual(session.data_to_send(), b"")
