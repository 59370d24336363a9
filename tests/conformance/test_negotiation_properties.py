"""
What holds for every conversation, tried with conversations that nobody would think of.

Three properties: how bytes are cut into segments makes no difference; whatever bytes come, the host
answers with well-formed PDUs or not at all and never stumbles; and whatever a client proposes, what
is accepted can be called and what is refused cannot.  The last one also has an oracle: a few lines
that compute the result list of a bind from the rules of tables 3 and 4 alone.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.conformance.answers import (
    NO_INTERFACE,
    NO_TRANSFER,
    UNKNOWN_INTERFACE,
    Result,
    expected_bind_ack,
    expected_bind_nak,
    expected_fault,
)
from tests.conformance.payloads import RECORDED_AT, REQUEST_V4, REQUEST_V7
from tests.conformance.pdus import (
    KMS,
    MANAGEMENT,
    NDR,
    NDR64,
    STRANGER,
    UNKNOWN_TRANSFER,
    Element,
    PType,
    Syntax,
    activation_stub,
    alter,
    bind,
    chunks,
    element,
    features,
    fragments,
    ndr64_stub,
    ndr_stub,
    pdu,
    request,
    trailer,
)
from tests.conformance.wire import ConformanceCase, Settings, Wire, build_factory

FEW = settings(max_examples=60)
MANY = settings(max_examples=150)

STUB = ndr_stub(REQUEST_V4)

#: PDUs of which a conversation is made; each may come at any time, fit or not.
PIECES = st.sampled_from(
    [
        bind(element(0, NDR)),
        bind(element(0, NDR), element(1, NDR64), element(2, features(3)), flags=0x13),
        bind(element(0, NDR), order=">"),
        alter(element(0, NDR)),
        alter(element(1, NDR64)),
        alter(element(3, NDR, abstract=MANAGEMENT), order=">"),
        request(STUB, call_id=5),
        request(STUB, call_id=6, context=9),
        request(STUB, call_id=7, opnum=3),
        request(ndr_stub(REQUEST_V7), call_id=8),
        request(ndr64_stub(REQUEST_V4), context=1, call_id=9),
        request(ndr_stub(REQUEST_V4, order=">"), order=">", call_id=10),
        b"".join(fragments(chunks(STUB, 90), call_id=11)),
        fragments(chunks(STUB, 90), call_id=12)[0],
        fragments(chunks(STUB, 90), call_id=12)[-1],
        pdu(PType.CO_CANCEL, call_id=12),
        pdu(PType.ORPHANED, call_id=12),
        pdu(PType.AUTH3, bytes(4)),
        pdu(PType.SHUTDOWN),
        request(STUB, trailer=trailer()),
        request(STUB, version=(5, 1)),
        bytes(7),
    ]
)

#: The opening of Windows, with concurrent multiplexing.
MULTIPLEXED = bind(element(0, NDR), element(1, NDR64), flags=0x13) + alter(element(0, NDR))

#: A conversation: mostly one that begins with a good bind.
CONVERSATIONS = st.tuples(
    st.sampled_from([b"", bind(element(0, NDR)), MULTIPLEXED]),
    st.lists(PIECES, max_size=8),
).map(lambda both: both[0] + b"".join(both[1]))

#: The sizes of the first segments.
CUTS = st.lists(st.integers(0, 200), max_size=30)

TRANSFERS = st.sampled_from(
    [NDR, NDR64, UNKNOWN_TRANSFER, Syntax(NDR.uuid, 1), Syntax(NDR64.uuid, 2)]
)
ABSTRACTS = st.sampled_from(
    [KMS, KMS, MANAGEMENT, STRANGER, Syntax(KMS.uuid, 2), Syntax(KMS.uuid, 1, 1)]
)

#: Context list elements; few ids, so that some occur twice.
ELEMENTS = st.builds(
    lambda context, abstract, transfers, reserved: Element(
        context, abstract, tuple(transfers), reserved
    ),
    st.one_of(st.integers(0, 5), st.integers(0, 0xFFFF)),
    ABSTRACTS,
    st.lists(TRANSFERS, min_size=1, max_size=4),
    st.integers(0, 255),
)

#: The same, and some that negotiate features.
ELEMENTS_WITH_FEATURES = st.one_of(
    ELEMENTS,
    ELEMENTS,
    ELEMENTS,
    ELEMENTS,
    st.builds(
        lambda one, bits, version: one._replace(
            transfers=(features(bits, version), *one.transfers)
        ),
        ELEMENTS,
        st.integers(0, 7),
        st.sampled_from([1, 1, 1, 2]),
    ),
)


def fresh(**choices: bool) -> Wire:
    """
    A connection to a host of its own.
    """
    clock = Clock()
    clock.advance(RECORDED_AT)
    wanted: Settings = {}
    if "ndr64" in choices:
        wanted["ndr64"] = choices["ndr64"]
    if "bind_time_features" in choices:
        wanted["bind_time_features"] = choices["bind_time_features"]
    return Wire(build_factory(clock, **wanted), clock)


def is_feature(transfer: Syntax) -> bool:
    """
    Whether a transfer syntax stands for bind time feature negotiation.
    """
    return transfer.uuid.bytes[:8] == features(0).uuid.bytes[:8] and transfer[1:] == (1, 0)


def predict(elements: list[Element], ndr64: bool, bind_time_features: bool) -> list[Result] | None:
    """
    The result list of a bind by the rules: C{None} for a bind_nak.
    """
    negotiations = [bind_time_features and is_feature(one.transfers[0]) for one in elements]
    if sum(negotiations) > 1:
        return None
    results = []
    for one, negotiation in zip(elements, negotiations, strict=True):
        if negotiation:
            results.append(Result(3, one.transfers[0].uuid.bytes[8] & 3))
        elif one.abstract not in (KMS, MANAGEMENT):
            results.append(NO_INTERFACE)
        else:
            results.append(NO_TRANSFER)
    for interface in (KMS, MANAGEMENT):
        # One new context for each interface: the preferred syntax wins, then the first element.
        for syntax in (NDR64, NDR) if ndr64 else (NDR,):
            candidates = [
                index
                for index, one in enumerate(elements)
                if results[index] == NO_TRANSFER
                and one.abstract == interface
                and syntax in one.transfers
            ]
            if candidates:
                results[candidates[0]] = Result(0, 0, syntax)
                break
    return results


def shared_between_interfaces(elements: list[Element]) -> bool:
    """
    Whether one id is proposed for both interfaces.

    Which of them gets it (3.16) depends on which of them has another element to turn to.  No rule
    says what then, so that only the consistency of the results can be demanded.
    """
    owners = {KMS: set[int](), MANAGEMENT: set[int]()}
    for one in elements:
        if one.abstract in owners:
            owners[one.abstract].add(one.context)
    return bool(owners[KMS] & owners[MANAGEMENT])


class SegmentProperties(ConformanceCase):
    """
    2.16: segments.
    """

    @FEW
    @given(CONVERSATIONS, CUTS)
    def test_any_segments(self, conversation: bytes, cuts: list[int]) -> None:
        """
        2.16 Any segments of any conversation lead to the same bytes and the same end.
        """
        whole, cut = fresh(), fresh()
        whole.send(conversation)
        cut.send(conversation, cuts)
        self.assertEqual(cut.raw, whole.raw)
        self.assertEqual(cut.closed, whole.closed)
        whole.pdus()

    @FEW
    @given(CONVERSATIONS)
    def test_byte_by_byte(self, conversation: bytes) -> None:
        """
        2.16 Segments of a single byte are no exception.
        """
        whole, cut = fresh(), fresh()
        whole.send(conversation)
        cut.send(conversation, 1)
        self.assertEqual(cut.raw, whole.raw)
        self.assertEqual(cut.closed, whole.closed)


class GarbageProperties(ConformanceCase):
    """
    Bytes that are no conversation.
    """

    def assertWellFormed(self, wire: Wire, *legal: PType) -> None:
        """
        The host has answered with well-formed PDUs of these types only.
        """
        for answer in wire.pdus():
            self.assertIn(answer.ptype, legal)

    @MANY
    @given(st.binary(max_size=600), CUTS)
    def test_first_bytes(self, garbage: bytes, cuts: list[int]) -> None:
        """
        2.17 Garbage instead of a bind gets a bind_nak at most.
        """
        wire = fresh()
        wire.send(garbage, cuts)
        self.assertWellFormed(wire, PType.BIND_NAK)
        wire.drop()

    @MANY
    @given(st.binary(max_size=600), CUTS)
    def test_after_bind(self, garbage: bytes, cuts: list[int]) -> None:
        """
        2.17 Garbage behind a bind gets well-formed faults or a bind_nak, or nothing.
        """
        wire = fresh()
        wire.send(bind(element(0, NDR)))
        wire.take()
        wire.send(garbage, cuts)
        self.assertWellFormed(wire, PType.FAULT, PType.BIND_NAK)
        wire.drop()

    @MANY
    @given(
        st.lists(
            st.builds(
                lambda ptype, body, flags, order, drift, auth: pdu(
                    ptype,
                    body,
                    flags=flags,
                    order=order,
                    frag_length=max(16 + len(body) + drift, 0),
                    auth_length=auth,
                ),
                st.one_of(st.sampled_from([0, 11, 14, 16, 18, 19]), st.integers(0, 255)),
                st.binary(max_size=120),
                st.one_of(st.just(3), st.integers(0, 255)),
                st.sampled_from(["<", ">"]),
                st.one_of(st.just(0), st.integers(-20, 20)),
                st.one_of(st.just(0), st.just(0), st.integers(0, 130)),
            ),
            max_size=6,
        ),
        st.booleans(),
    )
    def test_garbage_in_good_headers(self, pdus: list[bytes], bound: bool) -> None:
        """
        2 PDUs of any type, flags, lengths and contents get well-formed answers, or none.
        """
        wire = fresh()
        if bound:
            wire.send(bind(element(0, NDR)))
        wire.send(b"".join(pdus))
        wire.pdus()
        wire.half_close()
        self.assertTrue(wire.closed)
        wire.drop()

    @MANY
    @given(st.data())
    def test_damaged_conversation(self, data: st.DataObject) -> None:
        """
        2 A good conversation with any octets changed gets well-formed answers, or none.
        """
        good = bytearray(
            bind(element(0, NDR), element(1, NDR64))
            + alter(element(0, NDR))
            + request(STUB)
            + b"".join(fragments(chunks(STUB, 90), call_id=2))
        )
        places = st.integers(0, len(good) - 1)
        for place, octet in data.draw(
            st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
        ):
            good[place] = octet
        wire = fresh()
        wire.send(bytes(good))
        wire.pdus()
        wire.drop()

    @MANY
    @given(st.binary(max_size=400), st.sampled_from([NDR, NDR64]))
    def test_any_stub(self, stub: bytes, syntax: Syntax) -> None:
        """
        5.6 Any stub gets a response or the fault for a bad one, and the connection stays.
        """
        wire = fresh()
        wire.send(bind(element(0, syntax)))
        wire.take()
        wire.send(request(stub))
        (answer,) = wire.pdus()
        if answer.ptype != PType.RESPONSE:
            self.assertEqual(answer.raw, expected_fault(0x6F7, executed=True))
        self.assertStays(wire, 0, syntax)

    @MANY
    @given(st.binary(max_size=60), st.integers(0, 4), st.sampled_from([NDR, NDR64]))
    def test_any_management_stub(self, stub: bytes, opnum: int, syntax: Syntax) -> None:
        """
        14 Any stub of a management operation gets a response or the fault for a bad one.
        """
        wire = fresh()
        wire.send(bind(element(0, NDR), element(1, syntax, abstract=MANAGEMENT)))
        wire.take()
        wire.send(request(stub, context=1, opnum=opnum))
        (answer,) = wire.pdus()
        if answer.ptype != PType.RESPONSE:
            self.assertEqual(answer.raw, expected_fault(0x6F7, context=1, executed=True))
        self.assertStays(wire)


class NegotiationProperties(ConformanceCase):
    """
    Tables 3, 4 and 7: what is accepted can be called.
    """

    def assertCallable(self, wire: Wire, contexts: dict[int, tuple[Syntax, Syntax]]) -> None:
        """
        These contexts can be called, by interface and transfer syntax, and no others.
        """
        for context, (abstract, syntax) in contexts.items():
            if abstract == KMS:
                self.assertActivates(wire, context, syntax)
            else:
                wire.send(request(context=context, opnum=2))
                self.assertEqual(wire.pdus()[0].stub, b"\0\0\0\0\x01\0\0\0")

    def assertNotCallable(self, wire: Wire, contexts: set[int]) -> None:
        """
        These contexts cannot be called.
        """
        for context in contexts:
            self.assertAnswers(
                wire,
                request(activation_stub(REQUEST_V4), context=context),
                expected_fault(UNKNOWN_INTERFACE),
            )

    @MANY
    @given(
        st.lists(ELEMENTS_WITH_FEATURES, min_size=1, max_size=12),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["<", ">"]),
    )
    def test_bind(
        self, elements: list[Element], ndr64: bool, bind_time_features: bool, order: str
    ) -> None:
        """
        3, 4 Each element has a result, in order; accepted is callable, refused is not.
        """
        wire = fresh(ndr64=ndr64, bind_time_features=bind_time_features)
        wire.send(bind(*elements, order="<" if order == "<" else ">"))
        expected = predict(elements, ndr64, bind_time_features)
        (answer,) = wire.pdus()
        if expected is None:
            self.assertEqual(answer.raw, expected_bind_nak(0))
            self.assertTrue(wire.closed)
            return
        results = answer.results
        self.assertEqual(len(results), len(elements))
        if not shared_between_interfaces(elements):
            self.assertEqual(answer.raw, expected_bind_ack(answer.group, *expected))
        accepted: dict[int, tuple[Syntax, Syntax]] = {}
        for one, result in zip(elements, results, strict=True):
            if result.syntax is not None:
                self.assertNotIn(one.context, accepted)
                accepted[one.context] = (one.abstract, result.syntax)
        self.assertCallable(wire, accepted)
        self.assertNotCallable(wire, {one.context for one in elements} - set(accepted))
        wire.drop()

    @FEW
    @given(st.lists(st.lists(ELEMENTS, min_size=1, max_size=4), max_size=5))
    def test_alter(self, proposals: list[list[Element]]) -> None:
        """
        7 However contexts are added, all that was ever accepted stays callable.
        """
        wire = fresh(ndr64=True)
        wire.send(bind(element(100, NDR), element(101, NDR, abstract=MANAGEMENT)))
        wire.take()
        accepted = {100: (KMS, NDR), 101: (MANAGEMENT, NDR)}
        proposed: set[int] = set()
        for elements in proposals:
            wire.send(alter(*elements))
            (answer,) = wire.pdus()
            if answer.ptype == PType.FAULT:
                # Legal only where a context that is in use was to be changed.
                self.assertTrue({one.context for one in elements} & set(accepted))
                self.assertTrue(wire.closed)
                return
            self.assertEqual(len(answer.results), len(elements))
            for one, result in zip(elements, answer.results, strict=True):
                proposed.add(one.context)
                if result.syntax is not None:
                    self.assertIn(result.syntax, one.transfers)
                    known = accepted.setdefault(one.context, (one.abstract, result.syntax))
                    self.assertEqual(known, (one.abstract, result.syntax))
            self.assertCallable(wire, accepted)
            self.assertNotCallable(wire, proposed - set(accepted))
        wire.drop()

    @MANY
    @given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
    def test_sizes(self, xmit: int, recv: int) -> None:
        """
        3.1 Both sizes are within 2048 and 5840, a multiple of eight, and not above the peer's.
        """
        wire = fresh()
        wire.send(bind(element(0, NDR), xmit=xmit, recv=recv))
        ours, theirs = wire.pdus()[0].sizes
        self.assertEqual(ours, theirs)
        self.assertEqual(ours, max(2048, min(xmit, recv, 5840)) & ~7)
