"""
Tests of L{kmsproto.rpc.state}: the shape of the transition tables, and the negotiation of contexts.

That the two ends of a connection keep to the tables is tested in C{test_order}.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc import state
from kmsproto.rpc.numbers import ContextResult, PacketType
from kmsproto.rpc.pdu import (
    NDR,
    NDR64,
    ContextElement,
    Negotiated,
    SyntaxId,
    bind_time_features,
)
from kmsproto.rpc.state import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    Arrival,
    ClientState,
    Context,
    ContextTable,
    IllegalContextsError,
    Interface,
    ServerState,
    client_arrival,
    server_arrival,
)
from tests.rpc import PROPERTY
from tests.rpc.building import ECHO, KMS, STRANGE, UNKNOWN, accepted, element, features, refused

UNKNOWN_INTERFACE = refused(1)
NO_SYNTAX = refused(2)
TOO_MANY = refused(3)
FEATURES = bind_time_features(3)

ELEMENTS = st.lists(
    st.builds(
        ContextElement,
        st.integers(0, 3),
        st.sampled_from([KMS.syntax, ECHO.syntax, UNKNOWN]),
        st.lists(st.sampled_from([NDR, NDR64, STRANGE]), max_size=3).map(tuple),
    ),
    max_size=5,
)


class TransitionTests(SynchronousTestCase):
    """
    The transition tables.
    """

    def test_every_state_has_a_row(self) -> None:
        """
        Each state has a row, and the row of a closed connection is empty.
        """
        self.assertEqual(set(SERVER_TRANSITIONS), set(ServerState))
        self.assertEqual(set(CLIENT_TRANSITIONS), set(ClientState))
        self.assertEqual(SERVER_TRANSITIONS[ServerState.CLOSED], {})
        self.assertEqual(CLIENT_TRANSITIONS[ClientState.CLOSED], {})

    def test_every_state_is_reached(self) -> None:
        """
        Each state but the first is where some step leads to, or the closed one.
        """
        server = {after for row in SERVER_TRANSITIONS.values() for after in row.values()}
        client = {after for row in CLIENT_TRANSITIONS.values() for after in row.values()}
        self.assertEqual(set(ServerState) - server, {ServerState.ESTABLISHED, ServerState.CLOSED})
        self.assertEqual(set(ClientState) - client, {ClientState.UNBOUND})

    def test_every_arrival_has_a_place(self) -> None:
        """
        No arrival is illegal everywhere.
        """
        server = {arrival for row in SERVER_TRANSITIONS.values() for arrival in row}
        client = {arrival for row in CLIENT_TRANSITIONS.values() for arrival in row}
        self.assertEqual(server | client, set(Arrival))

    def test_a_call_is_open_or_not(self) -> None:
        """
        A call can only be continued where one was begun, and not be begun while one is open.
        """
        for before, row in SERVER_TRANSITIONS.items():
            begun = before in (ServerState.RECEIVING, ServerState.DISCARDING)
            self.assertEqual(Arrival.MIDDLE_FRAGMENT in row, begun)
            self.assertEqual(Arrival.LAST_FRAGMENT in row, begun)
        for first in (Arrival.WHOLE_CALL, Arrival.FIRST_FRAGMENT):
            self.assertNotIn(first, SERVER_TRANSITIONS[ServerState.RECEIVING])
            self.assertIn(first, SERVER_TRANSITIONS[ServerState.BOUND])

    def test_arrivals_at_a_server(self) -> None:
        """
        Requests are told apart by their first two flags, other PDUs of a client by their type.
        """
        for flags, arrival in enumerate(
            (
                Arrival.MIDDLE_FRAGMENT,
                Arrival.FIRST_FRAGMENT,
                Arrival.LAST_FRAGMENT,
                Arrival.WHOLE_CALL,
            )
        ):
            for more in range(0, 256, 4):
                self.assertIs(server_arrival(PacketType.REQUEST, flags | more), arrival)
        known = {
            kind: found for kind in range(1, 256) if (found := server_arrival(kind, 3)) is not None
        }
        self.assertEqual(
            known,
            {
                11: Arrival.BIND,
                14: Arrival.ALTER_CONTEXT,
                16: Arrival.AUTH3,
                18: Arrival.CO_CANCEL,
                19: Arrival.ORPHANED,
            },
        )

    def test_arrivals_at_a_client(self) -> None:
        """
        PDUs of a server are told apart by their type.
        """
        known = {
            kind: arrival for kind in range(256) if (arrival := client_arrival(kind)) is not None
        }
        self.assertEqual(
            known,
            {
                2: Arrival.RESPONSE,
                3: Arrival.FAULT,
                12: Arrival.BIND_ACK,
                13: Arrival.BIND_NAK,
                15: Arrival.ALTER_CONTEXT_RESP,
            },
        )


class NegotiationTests(SynchronousTestCase):
    """
    The negotiation of presentation contexts.
    """

    def setUp(self) -> None:
        """
        A table of each preference.
        """
        self.table = ContextTable((KMS, ECHO), ndr64=True)
        self.plain = ContextTable((KMS, ECHO), ndr64=False)

    def negotiate(
        self, *elements: ContextElement, table: ContextTable | None = None
    ) -> tuple[Negotiated, ...]:
        """
        Negotiate as a bind does.
        """
        return (table or self.table).negotiate(elements, features=True)

    def illegal(self, *elements: ContextElement, table: ContextTable | None = None) -> None:
        """
        Demand that elements are illegal and change nothing.
        """
        table = table or self.table
        before = dict(table._contexts), dict(table._counts)
        self.assertRaises(IllegalContextsError, table.negotiate, elements, features=True)
        self.assertEqual((table._contexts, table._counts), before)

    def test_preference(self) -> None:
        """
        Of NDR and NDR64 in separate elements the preferred one wins, whatever their order.
        """
        ndr, ndr64 = element(0), element(1, KMS.syntax, NDR64)
        for first, second in ((ndr, ndr64), (ndr64, ndr)):
            table = ContextTable((KMS,), ndr64=True)
            results = self.negotiate(first, second, table=table)
            self.assertEqual(results[first is ndr], accepted(NDR64))
            self.assertEqual(results[first is ndr64], NO_SYNTAX)
            self.assertIsNone(table.get(0))
            self.assertEqual(table.get(1), Context(KMS, NDR64))
            table = ContextTable((KMS,), ndr64=False)
            results = self.negotiate(first, second, table=table)
            self.assertEqual(results[first is ndr64], accepted(NDR))
            self.assertEqual(results[first is ndr], NO_SYNTAX)

    def test_preference_within_an_element(self) -> None:
        """
        Of several transfer syntaxes in one element the preferred one wins, else the first that is known.
        """
        self.assertEqual(
            self.negotiate(element(0, KMS.syntax, STRANGE, NDR, NDR64)), (accepted(NDR64),)
        )
        self.assertEqual(
            self.negotiate(element(0, KMS.syntax, NDR64, STRANGE, NDR), table=self.plain),
            (accepted(NDR),),
        )
        self.assertEqual(self.negotiate(element(1, ECHO.syntax, STRANGE, NDR)), (accepted(NDR),))

    def test_unknown(self) -> None:
        """
        An unknown interface is refused as such before its syntaxes matter, an unknown syntax as such.
        """
        self.assertEqual(
            self.negotiate(
                element(0, UNKNOWN, STRANGE),
                element(1, KMS.syntax, STRANGE),
                element(2, KMS.syntax, SyntaxId(NDR.uuid, 1, 0), SyntaxId(NDR64.uuid, 2, 0)),
            ),
            (UNKNOWN_INTERFACE, NO_SYNTAX, NO_SYNTAX),
        )

    def test_versions_of_an_interface(self) -> None:
        """
        The major version has to be the same, and the minor version at most ours.
        """
        uuid = ECHO.syntax.uuid
        for major, minor, good in ((2, 0, True), (2, 3, True), (2, 4, False), (1, 0, False)):
            table = ContextTable((KMS, ECHO), ndr64=False)
            (verdict,) = self.negotiate(element(0, SyntaxId(uuid, major, minor)), table=table)
            self.assertEqual(verdict, accepted() if good else UNKNOWN_INTERFACE)

    def test_one_context_of_an_interface_in_a_pdu(self) -> None:
        """
        One element for each interface is accepted in a PDU, and in the next PDU another.
        """
        elements = (element(0), element(1), element(2, ECHO.syntax), element(3, ECHO.syntax))
        self.assertEqual(self.negotiate(*elements), (accepted(), NO_SYNTAX, accepted(), NO_SYNTAX))
        self.assertEqual(self.negotiate(elements[1], elements[3]), (accepted(), accepted()))
        self.assertEqual(self.table.get(1), Context(KMS, NDR))

    def test_one_use_of_an_id_in_a_pdu(self) -> None:
        """
        An id that stands twice in a PDU is accepted once: the first element that is usable wins.
        """
        self.assertEqual(self.negotiate(element(0), element(0)), (accepted(), NO_SYNTAX))
        self.assertEqual(
            self.negotiate(element(1, UNKNOWN), element(1, ECHO.syntax)),
            (UNKNOWN_INTERFACE, accepted()),
        )
        self.assertEqual(
            self.negotiate(element(2), element(2, ECHO.syntax)), (accepted(), NO_SYNTAX)
        )
        self.assertEqual(self.table.get(2), Context(KMS, NDR))

    def test_one_id_for_both_syntaxes(self) -> None:
        """
        One id for NDR and NDR64 in a PDU is the preferred one.
        """
        self.assertEqual(
            self.negotiate(element(0), element(0, KMS.syntax, NDR64)),
            (NO_SYNTAX, accepted(NDR64)),
        )
        self.assertEqual(self.table.get(0), Context(KMS, NDR64))

    def test_proposed_again(self) -> None:
        """
        An accepted context that is proposed again keeps its syntax, also where another would be preferred.
        """
        self.negotiate(element(0))
        self.assertEqual(self.negotiate(element(0)), (accepted(),))
        self.assertEqual(self.negotiate(element(0, KMS.syntax, NDR64, NDR)), (accepted(),))
        self.assertEqual(self.negotiate(element(0, KMS.syntax, STRANGE)), (NO_SYNTAX,))
        self.assertEqual(self.negotiate(element(0, UNKNOWN)), (UNKNOWN_INTERFACE,))
        self.assertEqual(self.table.get(0), Context(KMS, NDR))

    def test_proposed_again_beside_others(self) -> None:
        """
        An accepted context is not new: it is accepted again, once, unless a new one of its interface stands before it.
        """
        self.negotiate(element(0))
        self.negotiate(element(1, KMS.syntax, NDR64))
        for elements, verdicts in (
            ((element(0), element(1, KMS.syntax, NDR64)), (accepted(), accepted(NDR64))),
            ((element(1, KMS.syntax, NDR64), element(0)), (accepted(NDR64), accepted())),
            ((element(0), element(0)), (accepted(), NO_SYNTAX)),
            ((element(0), element(2)), (accepted(), accepted())),
            ((element(3, KMS.syntax, NDR64), element(0)), (accepted(NDR64), NO_SYNTAX)),
            ((element(4, ECHO.syntax), element(0)), (accepted(), accepted())),
        ):
            self.assertEqual(self.negotiate(*elements), verdicts)

    def test_refused_and_proposed_again(self) -> None:
        """
        NDR that lost against NDR64 is accepted when it is proposed alone, and both stay.
        """
        self.negotiate(element(0), element(1, KMS.syntax, NDR64))
        self.assertEqual(self.negotiate(element(0)), (accepted(),))
        self.assertEqual(self.table.get(0), Context(KMS, NDR))
        self.assertEqual(self.table.get(1), Context(KMS, NDR64))

    def test_no_change_of_a_context(self) -> None:
        """
        An accepted context can change neither its syntax nor its interface.
        """
        self.negotiate(element(0))
        self.illegal(element(0, KMS.syntax, NDR64))
        self.illegal(element(5, ECHO.syntax), element(0, ECHO.syntax))

    def test_no_transfer_syntax(self) -> None:
        """
        An element without transfer syntaxes makes the whole PDU illegal.
        """
        for interface in (KMS.syntax, UNKNOWN):
            self.illegal(element(1), ContextElement(0, interface, ()))

    def test_features(self) -> None:
        """
        The features that are known are acknowledged, for any interface, and no context comes of it.
        """
        for bits, answer in ((0, 0), (1, 1), (2, 2), (3, 3), (0xFFFFFFFFFFFFFFFC, 0)):
            verdict = self.negotiate(element(9, UNKNOWN, bind_time_features(bits), NDR))
            self.assertEqual(verdict, (features(answer),))
        self.assertIsNone(self.table.get(9))

    def test_features_only_in_the_first_place(self) -> None:
        """
        Behind an ordinary transfer syntax, features are a syntax that nobody knows.
        """
        self.assertEqual(self.negotiate(element(0, KMS.syntax, NDR, FEATURES)), (accepted(),))
        self.assertEqual(self.negotiate(element(1, KMS.syntax, STRANGE, FEATURES)), (NO_SYNTAX,))

    def test_features_once(self) -> None:
        """
        Features that are negotiated twice make the whole PDU illegal.
        """
        wish = element(2, KMS.syntax, FEATURES)
        self.illegal(element(0), wish, element(1), wish)

    def test_features_are_off(self) -> None:
        """
        Where features cannot be negotiated they are a syntax that nobody knows, however often they stand there.
        """
        wish = element(2, KMS.syntax, FEATURES)
        self.assertEqual(
            self.table.negotiate([wish, wish, element(3, UNKNOWN, FEATURES)], features=False),
            (NO_SYNTAX, NO_SYNTAX, UNKNOWN_INTERFACE),
        )

    def test_too_many_contexts(self) -> None:
        """
        Beyond its limit an interface gets no further contexts; those that are known, and other interfaces, go on.
        """
        self.patch(state, "MAX_CONTEXTS_PER_INTERFACE", 2)
        self.negotiate(element(0))
        self.negotiate(element(1))
        self.assertEqual(
            self.negotiate(element(2), element(0), element(3, ECHO.syntax)),
            (TOO_MANY, accepted(), accepted()),
        )
        self.assertIsNone(self.table.get(2))

    def test_real_limit(self) -> None:
        """
        An interface may have as many contexts on a connection as Windows allows.
        """
        for number in range(4000):
            self.assertEqual(self.negotiate(element(number)), (accepted(),))
        self.assertEqual(self.negotiate(element(4000)), (TOO_MANY,))

    def test_nothing(self) -> None:
        """
        No elements have no verdicts.
        """
        self.assertEqual(self.negotiate(), ())

    @PROPERTY
    @given(st.lists(st.tuples(ELEMENTS, st.booleans()), max_size=5), st.booleans())
    def test_any_negotiation(
        self, pdus: Sequence[tuple[list[ContextElement], bool]], ndr64: bool
    ) -> None:
        """
        Whatever is offered, an interface gets one new context in a PDU, what is accepted can be called, and stays.
        """
        table = ContextTable((KMS, ECHO), ndr64=ndr64)
        known: dict[int, Context] = {}
        for elements, may_negotiate in pdus:
            try:
                verdicts = table.negotiate(elements, features=may_negotiate)
            except IllegalContextsError:
                verdicts = ()
            else:
                self.assertEqual(len(verdicts), len(elements))
            before = set(known)
            fresh: list[Interface] = []
            for offered, verdict in zip(elements, verdicts, strict=False):
                if verdict.result == ContextResult.ACCEPTANCE:
                    context = table.get(offered.context_id)
                    assert context is not None
                    self.assertEqual(context.interface.syntax, offered.abstract_syntax)
                    self.assertEqual(context.transfer_syntax, verdict.transfer_syntax)
                    self.assertIn(verdict.transfer_syntax, offered.transfer_syntaxes)
                    self.assertTrue(ndr64 or verdict.transfer_syntax == NDR)
                    known.setdefault(offered.context_id, context)
                    if offered.context_id not in before:
                        fresh.append(context.interface)
                else:
                    self.assertIn(verdict, (UNKNOWN_INTERFACE, NO_SYNTAX))
            self.assertEqual(len(fresh), len(set(fresh)))
            self.assertEqual(table._contexts, known)
