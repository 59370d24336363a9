"""
Tests of L{kmsproto.rpc.management}.
"""

from __future__ import annotations

from struct import pack, unpack
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc import management
from kmsproto.rpc.management import MANAGEMENT, Facts, Statistics
from kmsproto.rpc.ndr import BadStubError
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId
from tests.rpc.building import ECHO, KMS


class ManagementTests(SynchronousTestCase):
    """
    The operations of the remote management interface.
    """

    def setUp(self) -> None:
        """
        A server with three interfaces that has counted something.
        """
        self.facts = Facts((KMS, ECHO, MANAGEMENT), Statistics(1, 2, 3, 4))

    def answer(
        self, opnum: int, stub: bytes = b"", syntax: SyntaxId = NDR, order: str = "<"
    ) -> bytes:
        """
        Carry an operation out.
        """
        return management.answer(opnum, stub, syntax, order, self.facts)

    def test_interface(self) -> None:
        """
        The interface is the one of the standard and has five operations.
        """
        self.assertEqual(
            MANAGEMENT.syntax, SyntaxId(UUID("afa8bd80-7d8a-11c9-bef4-08002b102989"), 1, 0)
        )
        self.assertEqual(MANAGEMENT.operation_count, 5)

    def test_inq_if_ids(self) -> None:
        """
        The interfaces are a pointer to a conformant structure of pointers, their referents, and the status.
        """
        ids = b"".join(
            each.syntax.uuid.bytes_le + pack("<HH", each.syntax.major, each.syntax.minor)
            for each in self.facts.interfaces
        )
        self.assertEqual(
            self.answer(0),
            pack("<6I", 0x20000, 3, 3, 0x20004, 0x20008, 0x2000C) + ids + pack("<I", 0),
        )
        self.assertEqual(
            self.answer(0, syntax=NDR64),
            pack("<QQI4xQQQ", 0x20000, 3, 3, 0x20004, 0x20008, 0x2000C) + ids + pack("<I", 0),
        )

    def test_inq_stats(self) -> None:
        """
        As many counts are given as the client has room for, and never more than there are.
        """
        for room, values in ((0, []), (1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])):
            for asked in {room, 0xFFFFFFFF if room == 4 else room}:
                count = len(values)
                numbers = pack(f"<{count}I", *values)
                self.assertEqual(
                    self.answer(1, pack("<I", asked)),
                    pack("<II", count, count) + numbers + pack("<I", 0),
                )
                self.assertEqual(
                    self.answer(1, pack("<I", asked), NDR64),
                    pack("<I4xQ", count, count) + numbers + pack("<I", 0),
                )

    def test_inq_stats_counts_modulo(self) -> None:
        """
        A count that no longer fits is given modulo 2**32.
        """
        self.facts.statistics.calls_in = (1 << 32) + 5
        self.assertEqual(self.answer(1, pack("<I", 1)), pack("<IIII", 1, 1, 5, 0))

    def test_byte_order_of_the_call(self) -> None:
        """
        The arguments are read in the byte order of the call, and the results are little-endian.
        """
        self.assertEqual(self.answer(1, pack(">I", 2), order=">"), pack("<IIIII", 2, 2, 1, 2, 0))

    def test_ndr64_is_little_endian(self) -> None:
        """
        A big-endian call in NDR64 has a bad stub, as one of any other interface has.
        """
        for opnum in range(MANAGEMENT.operation_count):
            self.assertRaises(BadStubError, self.answer, opnum, bytes(8), NDR64, ">")

    def test_is_server_listening(self) -> None:
        """
        A server that answers is listening.
        """
        for syntax in (NDR, NDR64):
            self.assertEqual(self.answer(2, syntax=syntax), pack("<II", 0, 1))

    def test_stop_server_listening(self) -> None:
        """
        Nobody stops the server from afar.
        """
        for syntax in (NDR, NDR64):
            self.assertEqual(self.answer(3, syntax=syntax), pack("<I", 5))

    def test_inq_princ_name(self) -> None:
        """
        There is no principal name: an empty string in the room of the client, and the status that says why.
        """
        status = 0x16C9A011
        self.assertEqual(
            self.answer(4, pack("<II", 10, 100)),
            pack("<IIIB3xI", 100, 0, 1, 0, status),
        )
        self.assertEqual(
            self.answer(4, pack("<II", 10, 100), NDR64),
            pack("<QQQB3xI", 100, 0, 1, 0, status),
        )
        self.assertEqual(self.answer(4, pack("<II", 10, 0)), pack("<IIII", 0, 0, 0, status))
        (room,) = unpack("<I", self.answer(4, pack("<II", 0, 0xFFFFFFFF))[:4])
        self.assertEqual(room, 0xFFFFFFFF)

    def test_missing_arguments(self) -> None:
        """
        A stub without the arguments of its operation is a bad stub.
        """
        for opnum, stub in ((1, b""), (1, bytes(3)), (4, b""), (4, bytes(7))):
            for syntax in (NDR, NDR64):
                self.assertRaises(BadStubError, self.answer, opnum, stub, syntax)

    def test_statistics_begin_at_zero(self) -> None:
        """
        A new server has counted nothing.
        """
        self.assertEqual(Statistics(), Statistics(0, 0, 0, 0))
