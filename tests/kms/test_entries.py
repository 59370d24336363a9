"""
Tests of L{kmsproto.kms.entries}; most of it is tested by what a catalogue refuses, in C{test_catalog}.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError
from kmsproto.kms.entries import Entry, guid_from_text, shown

GUID = "a8973cb5-bf03-0a4c-9cef-703099645ab3"


class GUIDTests(SynchronousTestCase):
    """
    GUIDs as text.
    """

    @given(st.binary(min_size=16, max_size=16))
    def test_any_guid(self, data: bytes) -> None:
        """
        All 128 bits are free: no version and no variant is asked for, and case does not matter.
        """
        guid = UUID(bytes=data)
        self.assertEqual(guid_from_text(str(guid)), guid)
        self.assertEqual(guid_from_text(str(guid).upper()), guid)

    def test_other_forms(self) -> None:
        """
        Other forms that Python would take for a GUID are none here.
        """
        for text in (
            "",
            f"{{{GUID}}}",
            f"urn:uuid:{GUID}",
            GUID.replace("-", ""),
            GUID + "\n",
            GUID.replace("5", "\N{ARABIC-INDIC DIGIT FIVE}"),
        ):
            self.assertIsNone(guid_from_text(text))


class ShownTests(SynchronousTestCase):
    """
    Values in the text of an error.
    """

    def test_values(self) -> None:
        """
        Texts are quoted, numbers and truth values are not, and what is long or nested is only named.
        """
        self.assertEqual(shown("a\nb"), "'a\\nb'")
        self.assertEqual(shown(12), "12")
        self.assertEqual(shown(True), "True")
        self.assertEqual(shown([1]), "an array")
        self.assertEqual(shown({"a": 1}), "a table")
        self.assertEqual(shown(1 << 20000), "a number that is far too large")
        self.assertEqual(shown("x" * 100), "'" + "x" * 56 + "...")


class EntryTests(SynchronousTestCase):
    """
    One entry, and how it is called.
    """

    def test_label(self) -> None:
        """
        An entry is called by table, position and what identifies it, also when it is wrong at once.
        """
        known = {"name", "number"}
        entry = Entry("here", "skus", 7, {"name": "Nine", "number": 9}, known)
        self.assertEqual(entry.label, "skus entry 7 (9, 'Nine')")
        self.assertEqual(Entry("here", "skus", 7, {}, known).label, "skus entry 7")
        error = self.assertRaises(
            CatalogError, Entry, "here", "skus", 7, {"name": 1, "x": 2}, known
        )
        self.assertEqual(str(error), "here: skus entry 7 (1): unknown field 'x'")
        error = self.assertRaises(CatalogError, Entry, "here", "skus", 7, "Nine", known)
        self.assertEqual(str(error), "here: skus entry 7: must be a table, not 'Nine'")
