"""
Tests of L{kmsproto.rpc.ndr}.
"""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc import ndr
from kmsproto.rpc.ndr import BadStubError, StubReader, StubWriter
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId
from tests.golden import EXCHANGES, RecordedPDU, load_exchange
from tests.rpc import PROPERTY

SYNTAXES = {"NDR": NDR, "NDR64": NDR64}
PAYLOADS = st.binary(max_size=300)


def recorded(packet: str) -> list[tuple[RecordedPDU, bytes, SyntaxId]]:
    """
    Get every recorded request or response, its stub and its transfer syntax.
    """
    return [
        (each, each.data[24:], SYNTAXES[each.transfer_syntax])
        for name in EXCHANGES
        for each in load_exchange(name)
        if each.packet == packet
    ]


def build_request(
    payload: bytes, syntax: SyntaxId, order: str = "<", gap: bytes = bytes(4)
) -> bytes:
    """
    Write a request stub.
    """
    size = len(payload)
    if syntax == NDR64:
        return pack("<I4sQ", size, gap, size) + payload
    return pack(order + "II", size, size) + payload


def build_response(payload: bytes, syntax: SyntaxId, order: str = "<", hresult: int = 0) -> bytes:
    """
    Write a response stub with data.
    """
    size = len(payload)
    head = pack(order + "III", size, 1, size)
    if syntax == NDR64:
        head = pack("<IIQQ", size, 0xEEEEEEEE, 1, size)
    return head + payload + b"\xee" * (-size % 4) + pack(order + "I", hresult)


class RecordedTests(SynchronousTestCase):
    """
    The stubs of recorded exchanges.
    """

    def test_requests(self) -> None:
        """
        The payload of a recorded call is all behind its sizes, and its stub is written again to the byte.
        """
        sizes = set()
        for _, stub, syntax in recorded("request"):
            payload = ndr.decode_activation_request(stub, syntax, "<")
            self.assertEqual(payload, stub[16 if syntax == NDR64 else 8 :])
            self.assertEqual(ndr.encode_activation_request(payload, syntax), stub)
            sizes.add((len(payload), syntax))
        self.assertEqual(sizes, {(252, NDR), (252, NDR64), (260, NDR), (260, NDR64)})

    def test_responses(self) -> None:
        """
        The payload and HRESULT of a recorded answer are read, and its stub is written again to the byte.
        """
        for each, stub, syntax in recorded("response"):
            payload, hresult = ndr.decode_activation_response(stub, syntax, "<")
            self.assertEqual(hresult, each.hresult)
            if hresult:
                self.assertEqual(payload, b"")
                self.assertEqual(len(stub), 20 if syntax == NDR64 else 12)
                self.assertEqual(ndr.encode_activation_failure(hresult, syntax), stub)
            else:
                self.assertEqual(payload, stub[24 if syntax == NDR64 else 12 : -4])
                self.assertEqual(ndr.encode_activation_response(payload, syntax), stub)


class RequestTests(SynchronousTestCase):
    """
    The stub of a request.
    """

    @PROPERTY
    @given(PAYLOADS, st.binary(max_size=20), st.binary(min_size=4, max_size=4))
    def test_round_trip(self, payload: bytes, trailer: bytes, gap: bytes) -> None:
        """
        Any payload goes there and back; a gap may hold anything, and what follows is ignored.
        """
        for syntax, order in ((NDR, "<"), (NDR, ">"), (NDR64, "<")):
            stub = build_request(payload, syntax, order, gap) + trailer
            self.assertEqual(ndr.decode_activation_request(stub, syntax, order), payload)
        for syntax in (NDR, NDR64):
            self.assertEqual(
                ndr.encode_activation_request(payload, syntax), build_request(payload, syntax)
            )

    @PROPERTY
    @given(PAYLOADS, st.data())
    def test_truncated(self, payload: bytes, data: st.DataObject) -> None:
        """
        A stub that is cut anywhere is a bad stub.
        """
        for syntax, order in ((NDR, "<"), (NDR, ">"), (NDR64, "<")):
            stub = build_request(payload, syntax, order)
            short = stub[: data.draw(st.integers(0, len(stub) - 1))]
            self.assertRaises(BadStubError, ndr.decode_activation_request, short, syntax, order)

    def test_sizes_that_differ(self) -> None:
        """
        A stub whose two sizes differ is a bad stub, however many bytes there are.
        """
        for stub, syntax in (
            (pack("<II", 4, 5) + bytes(20), NDR),
            (pack("<II", 5, 4) + bytes(20), NDR),
            (pack("<IIQ", 4, 0, 4 + (1 << 32)) + bytes(20), NDR64),
        ):
            self.assertRaises(BadStubError, ndr.decode_activation_request, stub, syntax, "<")

    def test_ndr64_is_little_endian(self) -> None:
        """
        A big-endian stub in NDR64 does not exist.
        """
        stub = pack(">IIQ", 0, 0, 0)
        self.assertRaises(BadStubError, ndr.decode_activation_request, stub, NDR64, ">")
        self.assertRaises(BadStubError, ndr.decode_activation_response, stub * 2, NDR64, ">")


class ResponseTests(SynchronousTestCase):
    """
    The stub of an answer.
    """

    @PROPERTY
    @given(PAYLOADS, st.integers(0, 0xFFFFFFFF), st.binary(max_size=8))
    def test_round_trip(self, payload: bytes, hresult: int, trailer: bytes) -> None:
        """
        Any payload goes there and back, with the HRESULT aligned behind it; what follows is ignored.
        """
        for syntax, order in ((NDR, "<"), (NDR, ">"), (NDR64, "<")):
            stub = build_response(payload, syntax, order, hresult) + trailer
            answer = ndr.decode_activation_response(stub, syntax, order)
            self.assertEqual(answer, (payload, hresult))
        for syntax in (NDR, NDR64):
            stub = ndr.encode_activation_response(payload, syntax)
            self.assertEqual(len(stub), len(build_response(payload, syntax)))
            self.assertEqual(ndr.decode_activation_response(stub, syntax, "<"), (payload, 0))

    def test_layout(self) -> None:
        """
        A referent counts as Windows counts, gaps are zero, and nothing follows the HRESULT.
        """
        self.assertEqual(
            ndr.encode_activation_response(b"abcdef", NDR).hex(),
            "060000000000020006000000616263646566000000000000",
        )
        self.assertEqual(
            ndr.encode_activation_response(b"abcdef", NDR64).hex(),
            "060000000000000000000200000000000600000000000000616263646566000000000000",
        )

    @PROPERTY
    @given(st.integers(0, 0xFFFFFFFF))
    def test_failure(self, hresult: int) -> None:
        """
        An answer without data is size zero, a null pointer and the HRESULT.
        """
        for syntax, order, stub in (
            (NDR, "<", pack("<III", 0, 0, hresult)),
            (NDR, ">", pack(">III", 0, 0, hresult)),
            (NDR64, "<", pack("<IIQI", 0, 0, 0, hresult)),
        ):
            answer = ndr.decode_activation_response(stub, syntax, order)
            self.assertEqual(answer, (b"", hresult))
            if order == "<":
                self.assertEqual(ndr.encode_activation_failure(hresult, syntax), stub)

    @PROPERTY
    @given(PAYLOADS, st.data())
    def test_truncated(self, payload: bytes, data: st.DataObject) -> None:
        """
        A stub that is cut anywhere is a bad stub.
        """
        for syntax, order in ((NDR, "<"), (NDR, ">"), (NDR64, "<")):
            stub = build_response(payload, syntax, order)
            short = stub[: data.draw(st.integers(0, len(stub) - 1))]
            self.assertRaises(BadStubError, ndr.decode_activation_response, short, syntax, order)

    def test_no_room_for_a_response(self) -> None:
        """
        A pointer that is not null needs an array behind it.
        """
        for stub, syntax in (
            (pack("<III", 0, 1, 0), NDR),
            (pack("<IIQI", 0, 0, 1, 0), NDR64),
        ):
            self.assertRaises(BadStubError, ndr.decode_activation_response, stub, syntax, "<")

    def test_sizes_that_differ(self) -> None:
        """
        Sizes that differ, or a size without data, make a bad stub.
        """
        for stub, syntax in (
            (pack("<III", 3, 0, 0), NDR),
            (pack("<IIQI", 3, 0, 0, 0), NDR64),
            (pack("<III", 4, 1, 5) + bytes(20), NDR),
            (pack("<IIQQ", 4, 0, 1, 4 + (1 << 32)) + bytes(20), NDR64),
        ):
            self.assertRaises(BadStubError, ndr.decode_activation_response, stub, syntax, "<")


class CursorTests(SynchronousTestCase):
    """
    The cursors that other stubs are made with.
    """

    @PROPERTY
    @given(st.lists(st.integers(0, 0xFFFFFFFF)), st.sampled_from("<>"))
    def test_reader(self, values: list[int], order: str) -> None:
        """
        Integers are read one by one, and behind the last one is nothing.
        """
        reader = StubReader(pack(f"{order}{len(values)}I", *values) + bytes(3), NDR, order)
        self.assertEqual([reader.uint32() for _ in values], values)
        self.assertRaises(BadStubError, reader.uint32)

    def test_reader_aligns(self) -> None:
        """
        An integer is read at the next multiple of its size.
        """
        reader = StubReader(b"x" + bytes(3) + pack("<I", 7), NDR, "<")
        reader._offset = 1
        self.assertEqual(reader.uint32(), 7)

    def test_writer(self) -> None:
        """
        Each result is aligned to its own size, and bounds and pointers have the size of the syntax.
        """
        for syntax, expected in (
            (NDR, "61000100020000000300000000000200040002006262"),
            (
                NDR64,
                "61000100020000000300000000000000000002000000000004000200000000006262",
            ),
        ):
            writer = StubWriter(syntax)
            writer.raw(b"a", 1)
            writer.uint16(1)
            writer.uint32(2)
            writer.bound(3)
            writer.pointer()
            writer.pointer()
            writer.raw(b"bb", 4)
            self.assertEqual(writer.finish().hex(), expected)

    def test_writer_fills_gaps_with_zero(self) -> None:
        """
        A gap before a larger integer is zero.
        """
        writer = StubWriter(NDR64)
        writer.uint32(0xFFFFFFFF)
        writer.bound(1)
        self.assertEqual(writer.finish(), b"\xff" * 4 + bytes(4) + pack("<Q", 1))
