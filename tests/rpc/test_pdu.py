"""
Tests of L{kmsproto.rpc.pdu}: the recorded PDUs field by field, and any PDU there and back in both byte orders.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc import pdu
from kmsproto.rpc.client import offer
from kmsproto.rpc.numbers import ContextResult, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, ContextElement, Cursor, MalformedPDUError, Negotiated
from tests.golden import EXCHANGES, RecordedPDU, load_exchange
from tests.rpc import PROPERTY
from tests.rpc.building import (
    KMS,
    WHOLE,
    accepted,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    element,
    features,
    refused,
    split,
)

SHORTS = st.integers(0, 0xFFFF)
WORDS = st.integers(0, 0xFFFFFFFF)
ORDERS = st.sampled_from("<>")
SYNTAXES = st.builds(pdu.SyntaxId, st.uuids(), SHORTS, SHORTS)
ELEMENTS = st.lists(
    st.builds(ContextElement, SHORTS, SYNTAXES, st.lists(SYNTAXES, max_size=3).map(tuple)),
    max_size=4,
).map(tuple)
RESULTS = st.lists(st.builds(Negotiated, SHORTS, SHORTS, SYNTAXES), max_size=4).map(tuple)
STUBS = st.binary(max_size=200)
#: Letters of an address, of which the last is never the terminator.
ADDRESSES = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12)


def recorded(packet: str) -> list[tuple[str, RecordedPDU]]:
    """
    Get every recorded PDU of one type, and the name of its exchange.
    """
    found = [
        (name, each) for name in EXCHANGES for each in load_exchange(name) if each.packet == packet
    ]
    if not found:
        raise AssertionError(f"no {packet} was recorded")
    return found


class RecordedTests(SynchronousTestCase):
    """
    The PDUs of recorded exchanges.
    """

    def test_headers(self) -> None:
        """
        Every recorded header is of version 5.0, little-endian, without authentication, and as long as its PDU.
        """
        for name in EXCHANGES:
            for each in load_exchange(name):
                header = pdu.decode_header(each.data)
                negotiates = each.packet in ("bind", "bind_ack", "alter_context")
                flags = WHOLE | (PacketFlag.CONC_MPX if negotiates else 0)
                self.assertEqual(PacketType(header.packet_type).name.lower(), each.packet)
                self.assertEqual(header.version, (5, 0))
                self.assertEqual(header.flags, flags)
                self.assertEqual(header.byte_order, "<")
                self.assertEqual(header.frag_length, len(each.data))
                self.assertEqual(header.auth_length, 0)
                self.assertIn(header.call_id, (2, 3))
                self.assertEqual(header.object_length, 0)

    def test_binds(self) -> None:
        """
        A recorded bind offers what C{offer} makes, and is written again to the byte.
        """
        offers = {
            "full": offer(KMS.syntax, ndr64=True, bind_time_features=True),
            "version": offer(KMS.syntax, ndr64=True, bind_time_features=True),
            "ndr": offer(KMS.syntax, ndr64=False, bind_time_features=False),
            "unicode": offer(KMS.syntax, ndr64=False, bind_time_features=True),
        }
        for name, each in recorded("bind"):
            header = pdu.decode_header(each.data)
            bind = pdu.decode_bind(header, each.data)
            self.assertEqual(bind, pdu.Bind(5840, 5840, 0, offers[name.split("-")[1]]))
            self.assertEqual(pdu.encode_bind(PacketType.BIND, header.flags, 2, bind), each.data)

    def test_alter_contexts(self) -> None:
        """
        A recorded alter_context offers NDR again for context 0, and is written again to the byte.
        """
        for _, each in recorded("alter_context"):
            header = pdu.decode_header(each.data)
            bind = pdu.decode_bind(header, each.data)
            self.assertEqual(bind, pdu.Bind(5840, 5840, 0, (element(0),)))
            self.assertEqual(
                pdu.encode_bind(PacketType.ALTER_CONTEXT, header.flags, 2, bind), each.data
            )

    def test_bind_acks(self) -> None:
        """
        A recorded bind_ack has a verdict for each element, and is written again to the byte.
        """
        results = {
            "full": (refused(2), accepted(NDR64), features(3)),
            "version": (refused(2), accepted(NDR64), features(3)),
            "ndr": (accepted(),),
            "unicode": (accepted(), features(3)),
        }
        for name, each in recorded("bind_ack"):
            header = pdu.decode_header(each.data)
            ack = pdu.decode_bind_ack(header, each.data)
            group = int.from_bytes(each.data[20:24], "little")
            self.assertEqual(
                ack, pdu.BindAck(5840, 5840, group, "16881", results[name.split("-")[1]])
            )
            self.assertEqual(
                pdu.encode_bind_ack(PacketType.BIND_ACK, header.flags, 2, ack), each.data
            )

    def test_alter_context_resps(self) -> None:
        """
        A recorded alter_context_resp accepts NDR without an address; but for its gap it is written again to the byte.
        """
        for name, each in recorded("alter_context_resp"):
            header = pdu.decode_header(each.data)
            ack = pdu.decode_bind_ack(header, each.data)
            group = int.from_bytes(load_exchange(name)[1].data[20:24], "little")
            self.assertEqual(ack, pdu.BindAck(5840, 5840, group, "", (accepted(),)))
            # The two bytes of the gap are remains of the recorded host's memory.
            clean = each.data[:26] + b"\0\0" + each.data[28:]
            self.assertEqual(
                pdu.encode_bind_ack(PacketType.ALTER_CONTEXT_RESP, header.flags, 2, ack), clean
            )

    def test_requests(self) -> None:
        """
        A recorded request hints at its length, asks for operation 0, and is written again to the byte.
        """
        for _, each in recorded("request"):
            header = pdu.decode_header(each.data)
            request = pdu.decode_request(header, each.data)
            context_id = 1 if each.transfer_syntax == "NDR64" else 0
            stub = each.data[24:]
            self.assertEqual(request, pdu.Request(len(stub), context_id, 0, stub))
            self.assertEqual(
                pdu.encode_request(header.call_id, context_id, 0, stub, 5840), [each.data]
            )

    def test_responses(self) -> None:
        """
        A recorded response hints at its length, repeats the context, and is written again to the byte.
        """
        for _, each in recorded("response"):
            header = pdu.decode_header(each.data)
            response = pdu.decode_response(header, each.data)
            context_id = 1 if each.transfer_syntax == "NDR64" else 0
            stub = each.data[24:]
            self.assertEqual(response, pdu.Response(len(stub), context_id, 0, stub))
            self.assertEqual(
                pdu.encode_response(header.call_id, context_id, stub, 5840), [each.data]
            )


class HeaderTests(SynchronousTestCase):
    """
    The common header.
    """

    @PROPERTY
    @given(
        st.tuples(st.integers(0, 255), st.integers(0, 255)),
        st.integers(0, 255),
        st.integers(0, 255),
        ORDERS,
        SHORTS,
        SHORTS,
        WORDS,
    )
    def test_any_header(
        self,
        version: tuple[int, int],
        packet_type: int,
        flags: int,
        order: str,
        frag_length: int,
        auth_length: int,
        call_id: int,
    ) -> None:
        """
        Every header can be read, and its integers follow its own byte order.
        """
        data = build_pdu(
            packet_type,
            flags=flags,
            call_id=call_id,
            order=order,
            version=version,
            frag_length=frag_length,
            auth_length=auth_length,
        )
        expected = (version, packet_type, flags, order, frag_length, auth_length, call_id)
        self.assertEqual(pdu.decode_header(data), expected)
        self.assertEqual(pdu.decode_header(bytearray(data)), expected)

    def test_byte_order_is_the_high_nibble(self) -> None:
        """
        Character and float formats do not matter, and an integer format that does not exist has no byte order.
        """
        for drep, order in (
            (b"\x11\x02\x03\x04", "<"),
            (b"\x01\x02\x03\x04", ">"),
            (b"\x20\0\0\0", ""),
            (b"\xf0\0\0\0", ""),
        ):
            header = pdu.decode_header(build_pdu(0, drep=drep))
            self.assertEqual(header.byte_order, order)

    def test_object_length(self) -> None:
        """
        The object flag announces 16 bytes.
        """
        self.assertEqual(pdu.decode_header(build_pdu(0, flags=0x83)).object_length, 16)
        self.assertEqual(pdu.decode_header(build_pdu(0, flags=0x7F)).object_length, 0)


class SyntaxTests(SynchronousTestCase):
    """
    Syntaxes and bind-time features.
    """

    def test_text(self) -> None:
        """
        A syntax is shown as UUID and version.
        """
        self.assertEqual(str(NDR), "8a885d04-1ceb-11c9-9fe8-08002b104860 v2.0")

    @PROPERTY
    @given(st.integers(0, (1 << 64) - 1))
    def test_features(self, bits: int) -> None:
        """
        The features that a syntax asks for are the last eight bytes of its UUID.
        """
        syntax = pdu.bind_time_features(bits)
        self.assertEqual(syntax.uuid.bytes_le[:8].hex(), "2c1cb76c12984045")
        self.assertEqual(pdu.requested_features(syntax), bits)

    def test_version_is_one_integer(self) -> None:
        """
        The version of a syntax is one 32-bit integer in the byte order of its PDU; the major version is its low half.
        """
        syntax = pdu.SyntaxId(UUID(int=0), 0x0102, 0x0304)
        self.assertEqual(pdu.encode_syntax(syntax)[16:].hex(), "02010403")
        for order, version in (("<", "02010403"), (">", "03040102")):
            cursor = Cursor(bytes(16) + bytes.fromhex(version), 0, 20, order)
            self.assertEqual(cursor.syntax(), syntax)

    def test_no_features(self) -> None:
        """
        Another version, or another UUID, is an ordinary transfer syntax.
        """
        uuid = pdu.bind_time_features(3).uuid
        for syntax in (
            pdu.SyntaxId(uuid, 2, 0),
            pdu.SyntaxId(uuid, 1, 1),
            NDR,
            pdu.SyntaxId(UUID(int=uuid.int ^ (1 << 127)), 1, 0),
        ):
            self.assertIsNone(pdu.requested_features(syntax))


class BodyTests(SynchronousTestCase):
    """
    The bodies of PDUs, there and back.
    """

    @PROPERTY
    @given(ORDERS, SHORTS, SHORTS, WORDS, ELEMENTS, STUBS)
    def test_bind(
        self,
        order: str,
        xmit: int,
        recv: int,
        group: int,
        elements: tuple[ContextElement, ...],
        trailer: bytes,
    ) -> None:
        """
        Any bind is read in both byte orders without what is reserved or follows, and is what we write in ours.
        """
        data = build_bind(elements, xmit=xmit, recv=recv, group=group, order=order, trailer=trailer)
        bind = pdu.decode_bind(pdu.decode_header(data), data)
        self.assertEqual(bind, pdu.Bind(xmit, recv, group, elements))
        ours = pdu.encode_bind(PacketType.BIND, WHOLE, 1, bind)
        ((header, _),) = split(ours)
        self.assertEqual(pdu.decode_bind(header, ours), bind)
        if order == "<":
            self.assertEqual(len(ours), len(data) - len(trailer))

    @PROPERTY
    @given(ORDERS, SHORTS, SHORTS, WORDS, ADDRESSES, RESULTS)
    def test_bind_ack(
        self,
        order: str,
        xmit: int,
        recv: int,
        group: int,
        address: str,
        results: tuple[Negotiated, ...],
    ) -> None:
        """
        Any bind_ack is read in both byte orders without its gap, and is what we write in ours.
        """
        raw = address.encode("ascii") + b"\0" if address else b""
        data = build_ack(results, xmit=xmit, recv=recv, group=group, address=raw, order=order)
        ack = pdu.decode_bind_ack(pdu.decode_header(data), data)
        self.assertEqual(ack, pdu.BindAck(xmit, recv, group, address, results))
        ours = pdu.encode_bind_ack(PacketType.BIND_ACK, WHOLE, 2, ack)
        ((header, _),) = split(ours)
        self.assertEqual(pdu.decode_bind_ack(header, ours), ack)
        self.assertEqual(len(ours), len(data))

    def test_address_that_is_no_text(self) -> None:
        """
        A secondary address that is not ASCII is read with its bytes shown.
        """
        data = build_ack([], address=b"16\xff8\0")
        ack = pdu.decode_bind_ack(pdu.decode_header(data), data)
        self.assertEqual(ack.secondary_address, "16\\xff8")

    @PROPERTY
    @given(ORDERS, SHORTS)
    def test_bind_nak(self, order: str, reason: int) -> None:
        """
        A bind_nak is read in both byte orders, and ours names version 5.0 and has 24 bytes.
        """
        data = build_nak(reason, order=order)
        self.assertEqual(pdu.decode_bind_nak(pdu.decode_header(data), data), reason)
        self.assertEqual(pdu.encode_bind_nak(2, reason), build_nak(reason))
        self.assertEqual(len(pdu.encode_bind_nak(2, reason)), 24)

    @PROPERTY
    @given(ORDERS, WORDS, SHORTS, SHORTS, STUBS, st.sampled_from([b"", bytes(range(16))]))
    def test_request(
        self, order: str, hint: int, context_id: int, opnum: int, stub: bytes, uuid: bytes
    ) -> None:
        """
        A request is read in both byte orders, and an object UUID is stepped over.
        """
        data = build_request(
            stub,
            context_id=context_id,
            opnum=opnum,
            alloc_hint=hint,
            object_uuid=uuid,
            order=order,
        )
        request = pdu.decode_request(pdu.decode_header(data), data)
        self.assertEqual(request, pdu.Request(hint, context_id, opnum, stub))

    @PROPERTY
    @given(ORDERS, SHORTS, STUBS)
    def test_response(self, order: str, context_id: int, stub: bytes) -> None:
        """
        A response is read in both byte orders, and only as far as its own frag_length.
        """
        data = build_response(stub, context_id=context_id, order=order)
        response = pdu.decode_response(pdu.decode_header(data), data + b"next")
        self.assertEqual(response, pdu.Response(len(stub), context_id, 0, stub))

    @PROPERTY
    @given(ORDERS, SHORTS, WORDS, st.booleans())
    def test_fault(self, order: str, context_id: int, status: int, untouched: bool) -> None:
        """
        A fault is read in both byte orders, and ours has 32 bytes and says whether the call was executed.
        """
        data = build_fault(status, context_id=context_id, order=order)
        fault = pdu.decode_fault(pdu.decode_header(data), data)
        self.assertEqual(fault, pdu.Fault(context_id, status))
        ours = pdu.encode_fault(2, context_id, status, did_not_execute=untouched)
        flags = WHOLE | (PacketFlag.DID_NOT_EXECUTE if untouched else 0)
        self.assertEqual(ours, build_fault(status, context_id=context_id, flags=flags))
        self.assertEqual(len(ours), pdu.FAULT_LENGTH)

    def test_auth_trailer(self) -> None:
        """
        An authentication trailer is read from the end of its PDU, in both byte orders.
        """
        for order, context_id in (("<", b"\4\3\2\1"), (">", b"\1\2\3\4")):
            trailer = b"\x0a\x06\x02\x00" + context_id + b"secret"
            data = build_pdu(11, bytes(8) + b"padding" + trailer, order=order, auth_length=6)
            self.assertEqual(
                pdu.decode_auth_trailer(pdu.decode_header(data), data + b"next"),
                pdu.AuthTrailer(10, 6, 2, 0x01020304, b"secret", False),
            )

    def test_overlong_padding(self) -> None:
        """
        Padding may fill what is before a trailer, and no more.
        """
        for length, overlong in ((7, False), (8, True), (255, True)):
            trailer = bytes((10, 6, length, 0)) + bytes(4) + b"secret"
            data = build_request(b"padding" + trailer, auth_length=6)
            decoded = pdu.decode_auth_trailer(pdu.decode_header(data), data)
            self.assertEqual((decoded.pad_length, decoded.overlong), (length, overlong))


class TruncationTests(SynchronousTestCase):
    """
    PDUs that are too short for what is in them.
    """

    def test_every_shorter_pdu_is_malformed(self) -> None:
        """
        Cut anywhere, a PDU is refused as malformed, whatever bytes follow its end.
        """
        for data, decode in (
            (build_bind([element(0, KMS.syntax, NDR, NDR64), element(1)]), pdu.decode_bind),
            (build_ack([accepted(), refused(1)]), pdu.decode_bind_ack),
            (build_ack([refused(1)], address=b"135\0"), pdu.decode_bind_ack),
            (build_fault(5), pdu.decode_fault),
        ):
            for length in range(16, len(data)):
                header = pdu.decode_header(data)._replace(frag_length=length)
                self.assertRaises(MalformedPDUError, decode, header, data + bytes(100))

    def test_short_nak_and_response(self) -> None:
        """
        A bind_nak needs its reason, and a response its eight bytes before the stub.
        """
        data = build_nak(9)
        header = pdu.decode_header(data)
        self.assertEqual(pdu.decode_bind_nak(header._replace(frag_length=18), data), 9)
        self.assertRaises(
            MalformedPDUError, pdu.decode_bind_nak, header._replace(frag_length=17), data
        )
        data = build_response()
        header = pdu.decode_header(data)._replace(frag_length=23)
        self.assertRaises(MalformedPDUError, pdu.decode_response, header, data)

    @PROPERTY
    @given(st.binary(min_size=16, max_size=120), SHORTS)
    def test_garbage(self, data: bytes, frag_length: int) -> None:
        """
        Any bytes are read as a body, or are malformed, and nothing else.
        """
        header = pdu.decode_header(data)
        if not header.byte_order:
            header = header._replace(byte_order="<")
        header = header._replace(frag_length=min(frag_length, len(data)))
        for decode in (
            pdu.decode_bind,
            pdu.decode_bind_ack,
            pdu.decode_bind_nak,
            pdu.decode_response,
            pdu.decode_fault,
        ):
            try:
                decode(header, data)
            except MalformedPDUError as error:
                self.assertIn("reach beyond the end", str(error))


class CursorTests(SynchronousTestCase):
    """
    The cursor that reads the variable parts.
    """

    def test_bounds(self) -> None:
        """
        A cursor reads up to its end, and a failed read leaves it where it was.
        """
        cursor = Cursor(b"0123456789", 2, 8, "<")
        self.assertEqual(cursor.take(4), b"2345")
        self.assertRaises(MalformedPDUError, cursor.take, 3)
        self.assertEqual(cursor.take(2), b"67")
        self.assertEqual(cursor.take(0), b"")

    def test_align(self) -> None:
        """
        Alignment counts from the start of the PDU, and where nothing is to be skipped nothing is.
        """
        cursor = Cursor(bytes(20), 5, 20, "<")
        cursor.align(4)
        self.assertEqual(cursor.offset, 8)
        cursor.align(4)
        self.assertEqual(cursor.offset, 8)


class FragmentTests(SynchronousTestCase):
    """
    Stubs that are cut into fragments.
    """

    @PROPERTY
    @given(st.binary(max_size=400), st.integers(32, 128))
    def test_requests(self, stub: bytes, max_frag: int) -> None:
        """
        The fragments of a call fit, are multiples of 8 but for the last, and their hints count what remains.
        """
        pdus = pdu.encode_request(7, 2, 4, stub, max_frag)
        rest = stub
        for number, data in enumerate(pdus):
            ((header, _),) = split(data)
            request = pdu.decode_request(header, data)
            last = number == len(pdus) - 1
            self.assertTrue(len(data) <= max_frag)
            self.assertEqual(header.flags, (number == 0) | last << 1)
            self.assertEqual(header.call_id, 7)
            self.assertEqual(request[:3], (len(rest), 2, 4))
            self.assertEqual(request.stub, rest[: len(request.stub)])
            self.assertTrue(last or (request.stub and len(request.stub) % 8 == 0))
            rest = rest[len(request.stub) :]
        self.assertEqual(rest, b"")

    @PROPERTY
    @given(st.binary(max_size=400), st.integers(32, 128))
    def test_responses(self, stub: bytes, max_frag: int) -> None:
        """
        The fragments of an answer are cut like those of a call.
        """
        for request, response in zip(
            pdu.encode_request(7, 2, 0, stub, max_frag),
            pdu.encode_response(7, 2, stub, max_frag),
            strict=True,
        ):
            self.assertEqual(response[:2] + b"\0" + response[3:], request)

    def test_exact_size(self) -> None:
        """
        A stub that just fits is one PDU of exactly the negotiated size; one byte more makes a second.
        """
        room = 2048 - 24
        (whole,) = pdu.encode_response(1, 0, bytes(room), 2048)
        self.assertEqual(len(whole), 2048)
        first, second = pdu.encode_response(1, 0, bytes(room + 1), 2048)
        self.assertEqual((len(first), len(second)), (2048, 25))

    def test_negotiated_results_are_plain_numbers(self) -> None:
        """
        A result that is not known is kept as its number.
        """
        data = build_ack([Negotiated(9, 8, NDR)])
        (result,) = pdu.decode_bind_ack(pdu.decode_header(data), data).results
        self.assertNotIn(result.result, list(ContextResult))
        self.assertEqual((result.result, result.reason), (9, 8))
