"""
Tests of L{kmsproto.kms.hresults}.
"""

from __future__ import annotations

import copy
import pickle

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.hresults import HResult


class HResultTests(SynchronousTestCase):
    """
    An HRESULT is a number with a name and a meaning, known or not.
    """

    def test_codes(self) -> None:
        """
        The codes that hosts and clients use have the values of the specification, unsigned.
        """
        expected = {
            "SUCCESS": 0,
            "RPC_SERVER_UNAVAILABLE": 0x800706BA,
            "ACCESS_DENIED": 0x80070005,
            "INVALID_DATA": 0x8007000D,
            "DNS_NAME_NOT_FOUND": 0x8007232B,
            "DNS_NO_RECORDS": 0x8007251D,
            "CLIENT_TABLE_FULL": 0xC004D104,
            "TOO_FEW_CLIENTS": 0xC004F038,
            "HOST_NOT_ENABLED": 0xC004F039,
            "HOST_NOT_ACTIVATED": 0xC004F041,
            "PRODUCT_REFUSED": 0xC004F042,
            "CLOCK_SKEW": 0xC004F06C,
            "NO_HOST_REACHED": 0xC004F074,
        }
        self.assertEqual({code.name: code.value for code in HResult}, expected)

    def test_meanings(self) -> None:
        """
        Every code with a name has a meaning of its own.
        """
        meanings = {code.meaning for code in HResult}
        self.assertEqual(len(meanings), len(HResult))
        self.assertNotIn("unknown HRESULT", meanings)

    @given(st.integers(0, 0xFFFFFFFF))
    def test_every_value(self, value: int) -> None:
        """
        Every 32-bit value is an HRESULT that is equal to the number and survives copying and pickling.
        """
        code = HResult(value)
        self.assertIsInstance(code, HResult)
        self.assertEqual(code, value)
        self.assertEqual(hash(code), hash(value))
        self.assertEqual(copy.deepcopy(code), code)
        self.assertEqual(pickle.loads(pickle.dumps(code)), code)

    def test_unknown(self) -> None:
        """
        An unknown code is named after its value, admits that it is unknown, and is not added to the known ones.
        """
        code = HResult(0xDEADBEEF)
        self.assertEqual(code.name, "0xDEADBEEF")
        self.assertEqual(code.value, 0xDEADBEEF)
        self.assertEqual(code.meaning, "unknown HRESULT")
        self.assertNotIn(code, list(HResult))

    def test_out_of_range(self) -> None:
        """
        What is no unsigned 32-bit number is no HRESULT.
        """
        for value in (-1, -0x7FF8FFF3, 1 << 32, True, 0.5, "0", None):
            self.assertRaises(ValueError, HResult, value)
