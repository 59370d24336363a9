"""
Tests of L{kmsproto.kms.explanations}.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms.explanations import (
    SPEAKERS,
    Explanations,
    Kind,
    Parts,
    UnknownCodeError,
    load_explanations,
    number_of,
    parse_explanations,
)
from kmsproto.kms.hresults import HResult
from kmsproto.rpc.numbers import BindNakReason, ContextResult, FaultStatus, ProviderReason
from tests.test_packaging import ROOT

KNOWN = load_explanations()

#: A code as the file has it.
ROW = {
    "kind": "hresult",
    "code": 0xC0040001,
    "name": "E_SAMPLE",
    "said_by": ["client"],
    "meaning": "It did not work.",
    "causes": ["Something was wrong."],
    "remedies": ["Put it right."],
}

#: What an administrator of volume activation meets.
HRESULTS = frozenset(
    re.findall(
        r"0x\w+",
        """
    0x80072329 0x8007232C 0x8007232D 0x800705B4 0x80070721
    0x8007000D 0x8004FE21 0x80070005 0x8007007B 0x80070490 0x800706BA 0x8007232A 0x8007232B 0x8007251D 0x80092328
    0xC004B100 0xC004C001 0xC004C003 0xC004C008 0xC004C020 0xC004C021 0xC004F009 0xC004F00F 0xC004F014 0xC004F02C
    0xC004F035 0xC004F038 0xC004F039 0xC004F041 0xC004F042 0xC004F050 0xC004F051 0xC004F064 0xC004F065 0xC004F06C
    0xC004F074 0xC004D104 0x00000000
""",
    )
)


def labels(text: str) -> list[str]:
    """
    Look a text up.
    """
    return [entry.label for entry in KNOWN.look_up(text)]


class FileTests(SynchronousTestCase):
    """
    The file that comes with the package.
    """

    def test_hresults(self) -> None:
        """
        All the HRESULTs of volume activation are there, and those that this package has names for.
        """
        there = {entry.label for entry in KNOWN.entries if entry.kind is Kind.HRESULT}
        self.assertEqual(there, HRESULTS)
        self.assertLessEqual({f"0x{code.value:08X}" for code in HResult}, there)

    def test_looking_up(self) -> None:
        """
        Every HRESULT that a look-up in DNS ends with is explained.
        """
        text = (ROOT / "kmsproto" / "net" / "resolver.py").read_text(encoding="utf-8")
        for code in re.findall(r"0x800\w{5}", text):
            self.assertTrue(KNOWN.look_up(code), code)

    def test_names(self) -> None:
        """
        Codes have the names that the Windows SDK has for them.
        """
        for label, name in {
            "0xC004F02C": "SL_E_CIDIID_INVALID_DATA",
            "0xC004F035": "SL_E_VL_NOT_WINDOWS_SLP",
            "0xC004F038": "SL_E_VL_NOT_ENOUGH_COUNT",
            "0xC004F042": "SL_E_VL_KEY_MANAGEMENT_SERVICE_ID_MISMATCH",
            "0xC004F06C": "SL_E_VL_INVALID_TIMESTAMP",
            "0xC004F074": "SL_E_VL_BINDING_SERVICE_UNAVAILABLE",
            "1717": "RPC_S_UNKNOWN_IF",
            "1783": "RPC_X_BAD_STUB_DATA",
        }.items():
            self.assertEqual(KNOWN.labelled(label).name, name)

    def test_fault_statuses(self) -> None:
        """
        Every fault status that the RPC layer knows is there, by the name that it has there.
        """
        for status in FaultStatus:
            [entry] = KNOWN.look_up(f"0x{status.value:08X}")
            if entry.kind is Kind.FAULT:
                self.assertEqual(entry.name, FaultStatus.describe(status))
            else:
                self.assertIs(entry.kind, Kind.WIN32)

    def test_refusals(self) -> None:
        """
        Every reason of a bind_nak is there, and every result and reason by which a context is refused.
        """
        for reason in BindNakReason:
            self.assertEqual(
                KNOWN.labelled(f"bind_nak {reason.value}").name, BindNakReason.describe(reason)
            )
        for why in ProviderReason:
            self.assertIn(why.name.lower(), KNOWN.labelled(f"reason {why.value}").name)
        for result in (ContextResult.USER_REJECTION, ContextResult.PROVIDER_REJECTION):
            self.assertEqual(KNOWN.labelled(f"result {result.value}").name, result.name.lower())

    def test_complete(self) -> None:
        """
        Every entry says what it means, who says it, what it comes from and what to do, in whole sentences.
        """
        for entry in KNOWN.entries:
            self.assertLessEqual(set(entry.said_by), set(SPEAKERS), entry.label)
            for text in (entry.meaning, *entry.causes, *entry.remedies):
                self.assertRegex(text, r"^[A-Z`0-9].*\.$", entry.label)
                self.assertEqual(text.count("`") % 2, 0, text)

    def test_no_keys(self) -> None:
        """
        No text has a product key in it.
        """
        for entry in KNOWN.entries:
            for text in (entry.meaning, *entry.causes, *entry.remedies):
                self.assertIsNone(re.search(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){2}", text))

    def test_meanings(self) -> None:
        """
        No two HRESULTs mean the same.
        """
        meanings = [entry.meaning for entry in KNOWN.entries if entry.kind is Kind.HRESULT]
        self.assertEqual(len(set(meanings)), len(meanings))

    def test_kinds(self) -> None:
        """
        Every kind has a title of its own, and an entry.
        """
        self.assertEqual(len({kind.title for kind in Kind}), len(Kind))
        self.assertEqual({entry.kind for entry in KNOWN.entries}, set(Kind))

    def test_json(self) -> None:
        """
        An entry can be told to programs; what has no name has none.
        """
        document = KNOWN.labelled("0x800706BA").to_json()
        self.assertEqual(
            [document[key] for key in ("code", "value", "twin", "kind", "name")],
            ["0x800706BA", 0x800706BA, "1722", "hresult", "RPC_S_SERVER_UNAVAILABLE"],
        )
        self.assertIsNone(KNOWN.labelled("0x80092328").to_json()["name"])


class LookUpTests(SynchronousTestCase):
    """
    Codes are found in every spelling.
    """

    def test_spellings(self) -> None:
        """
        An HRESULT is found in hexadecimal and decimal, with and without sign, prefix and capitals.
        """
        for text in (
            *("0xC004F074", "C004F074", "0xc004f074", "c004f074", "0XC004F074", " 0xC004F074 "),
            *("-1073418124", "3221549172", "SL_E_VL_BINDING_SERVICE_UNAVAILABLE"),
            *("binding_service_unavailable", "Binding Service Unavailable"),
        ):
            self.assertEqual(labels(text), ["0xC004F074"], text)

    @given(st.sampled_from([each for each in KNOWN.entries if each.kind is Kind.HRESULT]))
    def test_every_hresult(self, entry: Any) -> None:
        """
        Every HRESULT is found first in each of its spellings.
        """
        signed = entry.code - (1 << 32) if entry.code >> 31 else entry.code
        for text in (
            entry.label,
            entry.label[2:],
            entry.label.lower(),
            str(entry.code),
            str(signed),
        ):
            self.assertIs(KNOWN.look_up(text)[0], entry, text)

    @given(st.sampled_from(KNOWN.entries))
    def test_every_label(self, entry: Any) -> None:
        """
        Every entry is found by its label, and by its name if it has one.
        """
        self.assertIn(entry, KNOWN.look_up(entry.label))
        self.assertIs(KNOWN.labelled(entry.label), entry)
        if entry.name:
            self.assertIn(entry, KNOWN.look_up(entry.name.upper()))

    def test_eight_digits(self) -> None:
        """
        Eight hexadecimal digits are hexadecimal, also when they have no letter.
        """
        self.assertEqual(labels("80070005"), ["0x80070005"])
        self.assertEqual(labels("00000005"), ["5"])

    def test_twins(self) -> None:
        """
        A Win32 error and the HRESULT that is made of it are found by each other.
        """
        for text in ("1722", "0x6BA", "6ba", "0x800706BA", "RPC_S_SERVER_UNAVAILABLE"):
            self.assertEqual(labels(text), ["0x800706BA"], text)
        for text in ("1726", "0x800706BE", "-2147023170"):
            self.assertEqual(labels(text), ["1726"], text)
        self.assertEqual(KNOWN.labelled("1726").twin, "0x800706BE")
        self.assertEqual(KNOWN.labelled("0x8007000D").twin, "13")
        for label in ("0x00000000", "0xC004F074", "bind_nak 4", "0x1C010003"):
            self.assertEqual(KNOWN.labelled(label).twin, "")

    def test_other_values(self) -> None:
        """
        A code that is met with another severity is found by both values.
        """
        self.assertEqual(labels("0x4004F065"), ["0xC004F065"])
        self.assertEqual(labels("0xC004F065"), ["0xC004F065"])

    def test_small_numbers(self) -> None:
        """
        A small number may be a reason of RPC, unless it is written in hexadecimal.
        """
        self.assertEqual(labels("2"), ["bind_nak 2", "result 2", "reason 2"])
        self.assertEqual(labels("4"), ["bind_nak 4"])
        self.assertEqual(labels("0"), ["0x00000000", "bind_nak 0", "reason 0"])
        self.assertEqual(labels("0x0"), ["0x00000000"])
        self.assertRaises(UnknownCodeError, KNOWN.look_up, "0x4")

    def test_labels(self) -> None:
        """
        What stands between the words of a label does not matter.
        """
        for text in ("bind_nak 4", "BIND-NAK:4", "bind_nak=4", "bind nak 4"):
            self.assertEqual(labels(text), ["bind_nak 4"], text)

    def test_parts_of_names(self) -> None:
        """
        A part of a name finds all that have it; a whole name finds only what is called so.
        """
        self.assertEqual(labels("NOT_ENOUGH_COUNT"), ["0xC004F038"])
        self.assertEqual(labels("bad"), ["1783"])
        self.assertEqual(labels("unk_if"), ["0x1C010003"])
        self.assertEqual(labels("local_limit_exceeded"), ["bind_nak 2", "reason 3"])
        self.assertEqual(labels("not_specified"), ["bind_nak 0"])
        self.assertGreater(len(labels("RPC_S")), 10)

    def test_unknown(self) -> None:
        """
        What is not known is refused, with its number if it is one; a part of a name must have three letters.
        """
        for text, code in (
            ("0x80041234", 0x80041234),
            ("-1", 0xFFFFFFFF),
            ("nonsense", None),
            ("s_", None),
            ("", None),
            ("0x", None),
            ("1.5", None),
        ):
            error = self.assertRaises(UnknownCodeError, KNOWN.look_up, text)
            self.assertEqual(error.code, code, text)
        self.assertRaises(UnknownCodeError, KNOWN.labelled, "0xC004F0740")

    def test_too_large(self) -> None:
        """
        A number that 32 bits do not hold is refused as such.
        """
        for text in ("4294967296", "-2147483649", "0x100000000", "-0xFFFFFFFF"):
            error = self.assertRaises(UnknownCodeError, KNOWN.look_up, text)
            self.assertIn("32 bits", str(error))

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """
        Any text at all is found or refused, in one line of bounded length.
        """
        try:
            self.assertTrue(KNOWN.look_up(text))
        except UnknownCodeError as error:
            self.assertLess(len(str(error)), 500)

    @given(st.integers(0, 0xFFFFFFFF))
    def test_numbers(self, number: int) -> None:
        """
        Every 32-bit number is read back from hexadecimal and from decimal.
        """
        self.assertEqual(number_of(f"0x{number:X}"), (number, True))
        self.assertEqual(number_of(f"{number:08x}"), (number, True))
        if len(str(number)) != 8:
            self.assertEqual(number_of(str(number)), (number, False))


class PartsTests(SynchronousTestCase):
    """
    An HRESULT has parts, known or not.
    """

    def test_parts(self) -> None:
        """
        Severity, facility and code are told, the facility by name.
        """
        parts = Parts(0x800706BA)
        self.assertEqual((parts.failed, parts.facility, parts.number), (True, 7, 1722))
        self.assertIn("facility 7 (WIN32), code 1722 (0x06BA)", str(parts))
        self.assertEqual(
            Parts(0x0FFF0001).to_json(),
            {"severity": 0, "facility": 0x7FF, "facility_name": "unknown", "code": 1},
        )
        self.assertIn("success", str(Parts(1)))


class ReadingTests(SynchronousTestCase):
    """
    Reading trusts nothing.
    """

    def read(self, *changes: dict[str, Any]) -> Explanations:
        """
        Read rows that are changed.
        """
        return parse_explanations(
            {"codes": [copy.deepcopy(ROW) | change for change in changes]}, "sample"
        )

    def refused(self, *changes: dict[str, Any]) -> str:
        """
        Read what cannot be, and give the complaint back.
        """
        problem = str(self.assertRaises(CatalogError, self.read, *changes))
        self.assertTrue(problem.startswith("sample: codes entry "), problem)
        self.assertEqual(len(problem.splitlines()), 1)
        return problem

    def test_read(self) -> None:
        """
        A row becomes an entry; name, other values and related codes may be absent.
        """
        [entry] = self.read({}).entries
        self.assertEqual((entry.label, entry.also, entry.related), ("0xC0040001", (), ()))
        row = {key: value for key, value in ROW.items() if key != "name"}
        [entry] = parse_explanations({"codes": [row]}, "sample").entries
        self.assertEqual(entry.name, "")

    def test_wrong_fields(self) -> None:
        """
        A field of the wrong kind or out of range is told by its name.
        """
        for change, field in (
            ({"kind": "error"}, "kind"),
            ({"code": 1 << 32}, "code"),
            ({"code": "0x1"}, "code"),
            ({"kind": "reason", "code": 0x10000}, "code"),
            ({"name": ""}, "name"),
            ({"meaning": "two\nlines"}, "meaning"),
            ({"said_by": ["nobody"]}, "said_by"),
            ({"said_by": []}, "said_by"),
            ({"causes": "a text"}, "causes"),
            ({"causes": [1]}, "causes"),
            ({"causes": [" blank before"]}, "causes"),
            ({"remedies": ["", "x"]}, "remedies"),
            ({"remedies": ["x", "x"]}, "remedies"),
            ({"also": [True]}, "also"),
            ({"also": 7}, "also"),
            ({"related": ["0x00000001"]}, "related"),
            ({"related": ["0xC0040001"]}, "related"),
            ({"colour": "red"}, "colour"),
        ):
            self.assertIn(field, self.refused(change), change)

    def test_missing_fields(self) -> None:
        """
        Whatever must be there is missed.
        """
        for field in ("kind", "code", "said_by", "meaning", "causes", "remedies"):
            row = {key: value for key, value in ROW.items() if key != field}
            error = self.assertRaises(CatalogError, parse_explanations, {"codes": [row]}, "sample")
            self.assertIn(field, str(error))

    def test_twice(self) -> None:
        """
        No code is there twice, be it as another value; two kinds may have the same number.
        """
        self.assertIn("already", self.refused({}, {}))
        self.assertIn("already", self.refused({}, {"code": 1, "also": [ROW["code"]]}))
        self.assertEqual(len(self.read({"code": 1}, {"code": 1, "kind": "reason"}).entries), 2)

    def test_file(self) -> None:
        """
        The file has one array of tables and nothing else.
        """
        for document in ({}, {"codes": {}}, {"codes": [], "more": 1}):
            self.assertRaises(CatalogError, parse_explanations, document, "sample")
        self.assertRaises(CatalogError, parse_explanations, {"codes": [1]}, "sample")
