"""
Chapter 14: the management interface that every DCE/RPC server offers (C706, "Remote Management
Interface").

The stubs are read by hand, in both transfer syntaxes, from the IDL of the standard.  NDR64 differs
in that conformance, offsets and pointers have eight bytes and are aligned to eight.
"""

from __future__ import annotations

import struct
from uuid import UUID

from tests.conformance.answers import (
    ACCEPT_NDR,
    ACCEPT_NDR64,
    BAD_STUB,
    NO_TRANSFER,
    OPNUM_OUT_OF_RANGE,
    expected_response,
)
from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    KMS,
    MANAGEMENT,
    NDR,
    NDR64,
    Order,
    Syntax,
    alter,
    bind,
    chunks,
    element,
    fragments,
    ndr_stub,
    request,
)
from tests.conformance.wire import ConformanceCase, Wire

INQ_IF_IDS, INQ_STATS, IS_SERVER_LISTENING, STOP_SERVER_LISTENING, INQ_PRINC_NAME = range(5)
UNKNOWN_AUTHN_SERVICE = 0x16C9A011
SYNTAXES = (NDR, NDR64)


class Reader:
    """
    A stub, read from its start to its end.
    """

    def __init__(self, stub: bytes, syntax: Syntax) -> None:
        self._stub = stub
        self._at = 0
        self._wide = "Q" if syntax == NDR64 else "I"

    def number(self, form: str = "I") -> int:
        """
        An aligned integer.
        """
        size = struct.calcsize(form)
        gap = -self._at % size
        assert not any(self._stub[self._at : self._at + gap]), self._stub.hex()
        (value,) = struct.unpack_from("<" + form, self._stub, self._at + gap)
        self._at += gap + size
        assert isinstance(value, int)
        return value

    def wide(self) -> int:
        """
        What has eight bytes in NDR64 and four in NDR: a conformance or a pointer.
        """
        return self.number(self._wide)

    def octets(self, size: int) -> bytes:
        """
        Bytes as they are.
        """
        self._at += size
        assert self._at <= len(self._stub), self._stub.hex()
        return self._stub[self._at - size : self._at]

    def end(self) -> None:
        """
        Nothing follows.
        """
        assert self._at == len(self._stub), self._stub.hex()


class ManagementCase(ConformanceCase):
    """
    A connection with the KMS interface as context 0 and the management interface as context 1.
    """

    def managed(self, syntax: Syntax = NDR) -> Wire:
        """
        Such a connection; the management interface in this transfer syntax.
        """
        return self.bound(element(0, NDR), element(1, syntax, abstract=MANAGEMENT))

    def call(self, wire: Wire, opnum: int, stub: bytes = b"", order: Order = "<") -> bytes:
        """
        The stub of the answer to a call.
        """
        call_id = wire.call_id()
        wire.send(request(stub, context=1, opnum=opnum, call_id=call_id, order=order))
        (answer,) = wire.pdus()
        self.assertEqual(answer.raw, expected_response(answer.stub, call_id, 1))
        return answer.stub


class NegotiationTests(ManagementCase):
    """
    The interface is negotiated like any other.
    """

    def test_alone(self) -> None:
        """
        14 A bind of the management interface alone is accepted, in either transfer syntax.
        """
        for syntax, result in ((NDR, ACCEPT_NDR), (NDR64, ACCEPT_NDR64)):
            wire = self.wire()
            wire.send(bind(element(1, syntax, abstract=MANAGEMENT)))
            self.assertEqual(wire.pdus()[0].results, [result])
            self.assertEqual(self.call(wire, IS_SERVER_LISTENING), b"\0\0\0\0\x01\0\0\0")

    def test_ndr64_wins(self) -> None:
        """
        14 NDR64 wins over NDR here as well.
        """
        wire = self.wire()
        wire.send(
            bind(element(0, NDR, abstract=MANAGEMENT), element(1, NDR64, abstract=MANAGEMENT))
        )
        self.assertEqual(wire.pdus()[0].results, [NO_TRANSFER, ACCEPT_NDR64])

    def test_ndr64_off(self) -> None:
        """
        14 Where NDR64 is off it is off here as well.
        """
        wire = self.wire(ndr64=False)
        wire.send(bind(element(0, NDR64, abstract=MANAGEMENT)))
        self.assertEqual(wire.pdus()[0].results, [NO_TRANSFER])

    def test_both_interfaces(self) -> None:
        """
        14 Calls of both interfaces follow each other on one connection.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for _ in range(3):
                self.assertEqual(self.call(wire, IS_SERVER_LISTENING), b"\0\0\0\0\x01\0\0\0")
                self.assertStays(wire)

    def test_added_later(self) -> None:
        """
        14 It can be added by an alter_context.
        """
        wire = self.bound()
        wire.send(alter(element(1, NDR, abstract=MANAGEMENT)))
        wire.take()
        self.assertEqual(self.call(wire, STOP_SERVER_LISTENING), b"\x05\0\0\0")

    def test_opnum(self) -> None:
        """
        14 It has five operations; other numbers are out of range.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for opnum in (5, 6, 255, 256, 0xFFFF):
                sent = request(bytes(64), context=1, opnum=opnum, call_id=3)
                self.assertFaultStays(wire, sent, OPNUM_OUT_OF_RANGE, 3, 1)

    def test_context_decides(self) -> None:
        """
        14 The operation is that of the interface of the context, and of no other.
        """
        wire = self.managed()
        # Opnum 0 of this interface takes no arguments, whatever they would mean to the other.
        stub = self.call(wire, INQ_IF_IDS, ndr_stub(REQUEST_V4))
        self.assertIn(KMS.uuid.bytes_le, stub)
        sent = request(opnum=IS_SERVER_LISTENING, call_id=3)
        self.assertFaultStays(wire, sent, OPNUM_OUT_OF_RANGE, 3, 0)

    def test_fragments(self) -> None:
        """
        14 A call of this interface may come in fragments.
        """
        wire = self.managed()
        pieces = chunks(struct.pack("<I", 4), 1)
        wire.send(b"".join(fragments(pieces, context=1, opnum=INQ_STATS)))
        (answer,) = wire.pdus()
        self.assertEqual(answer.stub[:8], struct.pack("<II", 4, 4))


class InterfaceIdTests(ManagementCase):
    """
    Operation 0, rpc_mgmt_inq_if_ids.
    """

    def test_vector(self) -> None:
        """
        14 inq_if_ids names the KMS interface and this one, by a vector of pointers.
        """
        for syntax in SYNTAXES:
            reader = Reader(self.call(self.managed(syntax), INQ_IF_IDS), syntax)
            pointers = [reader.wide()]
            self.assertEqual(reader.wide(), 2)
            self.assertEqual(reader.number(), 2)
            pointers += [reader.wide(), reader.wide()]
            self.assertEqual(len({*pointers, 0}), 4, "referent ids differ and are not zero")
            interfaces = []
            for _ in range(2):
                uuid = UUID(bytes_le=reader.octets(16))
                interfaces.append(Syntax(uuid, reader.number("H"), reader.number("H")))
            self.assertEqual(interfaces, [KMS, MANAGEMENT])
            self.assertEqual(reader.number(), 0)
            reader.end()

    def test_sizes(self) -> None:
        """
        14 That takes 64 bytes in NDR and 84 in NDR64.
        """
        self.assertEqual(len(self.call(self.managed(NDR), INQ_IF_IDS)), 64)
        self.assertEqual(len(self.call(self.managed(NDR64), INQ_IF_IDS)), 84)


class StatisticsTests(ManagementCase):
    """
    Operation 1, rpc_mgmt_inq_stats.
    """

    def statistics(self, wire: Wire, syntax: Syntax, count: int = 4) -> list[int]:
        """
        The statistics, by a call for so many of them.
        """
        reader = Reader(self.call(wire, INQ_STATS, struct.pack("<I", count)), syntax)
        told = reader.number()
        self.assertEqual(reader.wide(), told)
        values = [reader.number() for _ in range(told)]
        self.assertEqual(reader.number(), 0)
        reader.end()
        return values

    def test_four(self) -> None:
        """
        14 inq_stats tells calls in, calls out, packets in and packets out.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            self.assertEqual(len(self.statistics(wire, syntax)), 4)
            self.assertStays(wire)

    def test_fewer_and_more(self) -> None:
        """
        14 inq_stats tells no more than it was asked for, and no more than there are.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for count, told in ((0, 0), (1, 1), (3, 3), (4, 4), (5, 4), (1000, 4), (2**32 - 1, 4)):
                self.assertEqual(len(self.statistics(wire, syntax, count)), told)

    def test_counted(self) -> None:
        """
        14 Calls and packets are counted.
        """
        wire = self.managed()
        before = self.statistics(wire, NDR)
        for _ in range(3):
            self.assertStays(wire)
        stub = ndr_stub(REQUEST_V4)
        wire.send(b"".join(fragments(chunks(stub, 100))))
        self.assertGranted(wire)
        after = self.statistics(wire, NDR)
        calls_in, _, packets_in, packets_out = (
            new - old for old, new in zip(before, after, strict=True)
        )
        self.assertEqual(calls_in, 5)
        self.assertEqual(packets_in, 7)
        self.assertEqual(packets_out, 5)

    def test_big_endian(self) -> None:
        """
        14 The arguments have the byte order of their PDU, the results that of the host.
        """
        wire = self.managed()
        stub = self.call(wire, INQ_STATS, struct.pack(">I", 2), ">")
        self.assertEqual(stub[:8], struct.pack("<II", 2, 2))
        self.assertEqual(len(stub), 20)

    def test_bad_stub(self) -> None:
        """
        14 Without its argument the call is a bad stub.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for length in range(4):
                sent = request(bytes(length), context=1, opnum=INQ_STATS)
                self.assertFaultStays(wire, sent, BAD_STUB, context=1, executed=True)


class ListeningTests(ManagementCase):
    """
    Operations 2 and 3, rpc_mgmt_is_server_listening and rpc_mgmt_stop_server_listening.
    """

    def test_is_listening(self) -> None:
        """
        14 is_server_listening answers status 0, then true.
        """
        for syntax in SYNTAXES:
            stub = self.call(self.managed(syntax), IS_SERVER_LISTENING)
            self.assertEqual(stub, b"\0\0\0\0\x01\0\0\0")

    def test_stop(self) -> None:
        """
        14 stop_server_listening is refused by its status, access denied; the host goes on.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            self.assertEqual(self.call(wire, STOP_SERVER_LISTENING), b"\x05\0\0\0")
            self.assertEqual(self.call(wire, IS_SERVER_LISTENING), b"\0\0\0\0\x01\0\0\0")
            self.assertStays(wire)
            self.assertStays(self.bound())

    def test_arguments(self) -> None:
        """
        14 Bytes where no arguments are expected are ignored.
        """
        wire = self.managed()
        for stub in (b"\0", b"\xff" * 100):
            self.assertEqual(self.call(wire, IS_SERVER_LISTENING, stub), b"\0\0\0\0\x01\0\0\0")


class ByteOrderTests(ManagementCase):
    """
    2.3, 2.5: big-endian calls of this interface.
    """

    def test_ndr(self) -> None:
        """
        2.3 All operations are answered in the host's own byte order.
        """
        wire = self.managed()
        for opnum, arguments in enumerate(("", ">I", "", "", ">II")):
            stub = struct.pack(arguments, *[4] * (len(arguments) - 1)) if arguments else b""
            answer = self.call(wire, opnum, stub, ">")
            # The statistics go on counting; all else is the same.
            if opnum != INQ_STATS:
                self.assertEqual(answer, self.call(wire, opnum, struct.pack("<II", 4, 4)))

    def test_ndr64(self) -> None:
        """
        2.5 NDR64 has no big-endian form, with or without arguments.
        """
        wire = self.managed(NDR64)
        for opnum in range(5):
            sent = request(bytes(8), context=1, opnum=opnum, order=">")
            self.assertFaultStays(wire, sent, BAD_STUB, context=1, executed=True)


class PrincipalNameTests(ManagementCase):
    """
    Operation 4, rpc_mgmt_inq_princ_name.
    """

    def test_no_name(self) -> None:
        """
        14 There is no authentication service, so there is no name: an empty one, and the error.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for service in (0, 9, 10, 16, 0xFFFFFFFF):
                for size in (1, 4, 256, 4096):
                    stub = self.call(wire, INQ_PRINC_NAME, struct.pack("<II", service, size))
                    reader = Reader(stub, syntax)
                    self.assertLessEqual(reader.wide(), size)
                    self.assertEqual(reader.wide(), 0)
                    actual = reader.wide()
                    self.assertLessEqual(actual, 1)
                    self.assertEqual(reader.octets(actual), bytes(actual))
                    self.assertEqual(reader.number(), UNKNOWN_AUTHN_SERVICE)
                    reader.end()
            self.assertStays(wire)

    def test_no_room(self) -> None:
        """
        14 Where there is no room even for an empty name, the error comes all the same.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            stub = self.call(wire, INQ_PRINC_NAME, bytes(8))
            self.assertEqual(stub[-4:], struct.pack("<I", UNKNOWN_AUTHN_SERVICE))
            self.assertStays(wire)

    def test_huge_room(self) -> None:
        """
        14 However much room the client says it has, the answer is small.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            stub = self.call(wire, INQ_PRINC_NAME, struct.pack("<II", 10, 0xFFFFFFFF))
            self.assertLess(len(stub), 64)

    def test_bad_stub(self) -> None:
        """
        14 Without its arguments the call is a bad stub.
        """
        for syntax in SYNTAXES:
            wire = self.managed(syntax)
            for length in range(8):
                sent = request(bytes(length), context=1, opnum=INQ_PRINC_NAME)
                self.assertFaultStays(wire, sent, BAD_STUB, context=1, executed=True)
