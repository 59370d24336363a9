"""
Tests of L{kmsproto.rpc.numbers}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.numbers import (
    WHOLE,
    BindNakReason,
    ContextResult,
    FaultStatus,
    PacketFlag,
    PacketType,
    ProviderReason,
)


class NumbersTests(SynchronousTestCase):
    """
    The assigned numbers, and their names.
    """

    def test_packet_types(self) -> None:
        """
        The packet types are 0 to 20 without a gap.
        """
        self.assertEqual([int(member) for member in PacketType], list(range(21)))
        used = {
            PacketType.REQUEST: 0,
            PacketType.RESPONSE: 2,
            PacketType.FAULT: 3,
            PacketType.BIND: 11,
            PacketType.BIND_ACK: 12,
            PacketType.BIND_NAK: 13,
            PacketType.ALTER_CONTEXT: 14,
            PacketType.ALTER_CONTEXT_RESP: 15,
            PacketType.AUTH3: 16,
            PacketType.SHUTDOWN: 17,
            PacketType.CO_CANCEL: 18,
            PacketType.ORPHANED: 19,
        }
        self.assertEqual({member: int(member) for member in used}, used)

    def test_flags(self) -> None:
        """
        The flags are the eight bits of one byte, and a whole PDU is first and last.
        """
        self.assertEqual([int(member) for member in PacketFlag], [1 << bit for bit in range(8)])
        used = {
            PacketFlag.FIRST: 0x01,
            PacketFlag.LAST: 0x02,
            PacketFlag.PENDING_CANCEL: 0x04,
            PacketFlag.CONC_MPX: 0x10,
            PacketFlag.DID_NOT_EXECUTE: 0x20,
            PacketFlag.OBJECT_UUID: 0x80,
        }
        self.assertEqual({member: int(member) for member in used}, used)
        self.assertEqual(WHOLE, PacketFlag.FIRST | PacketFlag.LAST)

    def test_results_and_reasons(self) -> None:
        """
        Results and provider reasons count from 0 to 3.
        """
        self.assertEqual([int(member) for member in ContextResult], [0, 1, 2, 3])
        self.assertEqual([int(member) for member in ProviderReason], [0, 1, 2, 3])
        self.assertEqual((ContextResult.ACCEPTANCE, ContextResult.NEGOTIATE_ACK), (0, 3))
        self.assertEqual(ProviderReason.ABSTRACT_SYNTAX_NOT_SUPPORTED, 1)

    def test_every_reason_has_a_name(self) -> None:
        """
        Each reason of a bind_nak is named, and one that is not known is called so.
        """
        for reason in BindNakReason:
            self.assertEqual(BindNakReason.describe(reason), reason.name.lower())
        self.assertEqual(BindNakReason.describe(3), "unknown reason")

    def test_every_status_has_a_name(self) -> None:
        """
        Each fault status has a name of its own, and one that is not known is called so.
        """
        names = [FaultStatus.describe(status) for status in FaultStatus]
        self.assertEqual(len(set(names)), len(FaultStatus))
        self.assertNotIn("unknown status", names)
        self.assertEqual(FaultStatus.describe(0x1C01000B), "nca_s_proto_error")
        self.assertEqual(FaultStatus.describe(0x12345678), "unknown status")
