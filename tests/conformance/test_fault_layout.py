"""
Table 10: the fault PDU, in plain bytes, and which flags and context id go with which status.
"""

from __future__ import annotations

from tests.conformance.payloads import REQUEST_V4
from tests.conformance.pdus import (
    FIRST,
    LAST,
    NDR,
    PType,
    alter,
    element,
    ndr_stub,
    pdu,
    request,
    trailer,
)
from tests.conformance.wire import ConformanceCase, Wire

STUB = ndr_stub(REQUEST_V4)

#: The flags of a fault for a call that has not, or has, reached its stub.
NOT_EXECUTED, EXECUTED = "23", "03"


class FaultLayoutTests(ConformanceCase):
    """
    A test for each line of table 10.
    """

    def seven(self) -> Wire:
        """
        A connection on which context 0x0307 is NDR.
        """
        return self.bound(element(0x0307, NDR))

    def assertFault(
        self, wire: Wire, sent: bytes, flags: str, context: str, status: str, *, stays: bool
    ) -> None:
        """
        The answer is this fault; all but the arguments is the same in every fault.
        """
        wire.send(sent)
        self.assertEqual(
            wire.take().hex(),
            f"050003{flags}" "10000000" "2000" "0000" "44332211"
            "20000000" f"{context}" "00" "00" f"{status}" "00000000",
        )  # fmt: skip
        if stays:
            self.assertStays(wire, 0x0307)
        else:
            self.assertClosed(wire)

    def test_unknown_context(self) -> None:
        """
        10 Unknown context, 0x1C010003: not executed, context 0, stays.
        """
        sent = request(STUB, context=0x0405, call_id=0x11223344)
        self.assertFault(self.seven(), sent, NOT_EXECUTED, "0000", "0300011c", stays=True)

    def test_opnum(self) -> None:
        """
        10 Opnum out of range, 0x1C010002: not executed, context of the call, stays.
        """
        sent = request(STUB, context=0x0307, opnum=1, call_id=0x11223344)
        self.assertFault(self.seven(), sent, NOT_EXECUTED, "0703", "0200011c", stays=True)

    def test_bad_stub(self) -> None:
        """
        10 Bad stub, 0x6F7: executed, context of the call, stays.
        """
        sent = request(STUB[:-1], context=0x0307, call_id=0x11223344)
        self.assertFault(self.seven(), sent, EXECUTED, "0703", "f7060000", stays=True)

    def test_protocol_error(self) -> None:
        """
        10 Bad header, packet type or alter_context, 0x1C01000B: not executed, context 0, closes.
        """
        for sent in (
            request(STUB, context=0x0307, call_id=0x11223344, version=(5, 1)),
            pdu(PType.RESPONSE, bytes(8), call_id=0x11223344),
            alter(call_id=0x11223344),
            pdu(PType.REQUEST, call_id=0x11223344),
        ):
            self.assertFault(self.seven(), sent, NOT_EXECUTED, "0000", "0b00011c", stays=False)

    def test_too_long(self) -> None:
        """
        10 Fragment above 5840 bytes, 0x1C01000B: executed, context 0, closes.
        """
        sent = request(bytes(5817), context=0x0307, call_id=0x11223344)
        self.assertFault(self.seven(), sent, EXECUTED, "0000", "0b00011c", stays=False)

    def test_sequence(self) -> None:
        """
        10 Fragment without a call, 0x1C01000B: executed, context 0, closes.
        """
        sent = request(STUB, context=0x0307, flags=LAST, call_id=0x11223344)
        self.assertFault(self.seven(), sent, EXECUTED, "0000", "0b00011c", stays=False)

    def test_sequence_of_open_call(self) -> None:
        """
        10 Second first fragment, 0x1C01000B: executed, context of the open call, closes.
        """
        wire = self.seven()
        wire.send(request(STUB[:9], context=0x0307, flags=FIRST, call_id=0x11223344))
        sent = request(STUB[:9], context=0x0307, flags=FIRST, call_id=9)
        self.assertFault(wire, sent, EXECUTED, "0703", "0b00011c", stays=False)

    def test_too_much(self) -> None:
        """
        10 Too much input, 5: executed, context of the call, closes.
        """
        sent = request(context=0x0307, flags=FIRST, hint=0x400001, call_id=0x11223344)
        self.assertFault(self.seven(), sent, EXECUTED, "0703", "05000000", stays=False)

    def test_trailer(self) -> None:
        """
        10 Unexpected trailer, 5: executed, context of the call, closes.
        """
        sent = request(STUB, context=0x0307, trailer=trailer(), call_id=0x11223344)
        self.assertFault(self.seven(), sent, EXECUTED, "0703", "05000000", stays=False)
