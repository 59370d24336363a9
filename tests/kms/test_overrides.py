"""
Tests of what an operator gives for an ePID, see L{kmsproto.kms.identity.parse_override}.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.epid import EPIDError
from kmsproto.kms.identity import Override, parse_override

CATALOG = load_catalog()
UNKNOWN = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
#: The names by which a vlmcsd.ini calls CSVLKs.
INI_KEYS = (
    *("Windows", "Office2010", "Office2013", "Office2016", "Office2019", "Office2021"),
    *("Office2024", "WinChinaGov"),
)
#: An ePID as a genuine host could have it.
GENUINE = "03612-04919-000-020000-03-1033-26100.0000-0012025"


class OverrideTests(SynchronousTestCase):
    """
    What an operator wants to stand in the answers.
    """

    def parse(self, text: str, catalog: Catalog = CATALOG) -> Override:
        """
        Read it.
        """
        return parse_override(catalog, text)

    def test_ini_keys(self) -> None:
        """
        Each name that a vlmcsd.ini has for a CSVLK names one here, whatever the case, and one that answers.
        """
        self.assertEqual(
            {CATALOG.csvlk_for(guid).key for guid in (*CATALOG.kms_ids, UNKNOWN)}, set(INI_KEYS)
        )
        for key in INI_KEYS:
            for name in (key, key.lower(), key.upper()):
                self.assertEqual(self.parse(f"{name}={GENUINE}").csvlk_key, key)

    def test_sound(self) -> None:
        """
        An ePID as a genuine host has it is taken as it is, and nothing is said about it.
        """
        self.assertEqual(self.parse(f"Windows={GENUINE}"), Override("Windows", GENUINE))

    def test_hardware_id(self) -> None:
        """
        The hardware id may be written with blanks, hyphens and colons between its bytes, and blanks around it.
        """
        expected = Override("Windows", GENUINE, bytes.fromhex("3a1c049600b60076"))
        for text in (
            f"Windows={GENUINE}/3A1C049600B60076",
            f"Windows={GENUINE}/3a1c049600b60076",
            f" Windows = {GENUINE} / 3A 1C 04 96 00 B6 00 76 ",
            f"Windows={GENUINE}/3A-1C-04-96-00-B6-00-76",
            f"Windows={GENUINE}/3A:1C:04:96:00:B6:00:76",
            f"Windows={GENUINE}/3A1C-0496-00B6-0076",
        ):
            self.assertEqual(self.parse(text), expected)

    @given(st.binary(min_size=8, max_size=8), st.sampled_from(("", " ", "-", ":")))
    def test_any_hardware_id(self, hardware_id: bytes, separator: str) -> None:
        """
        Every hardware id can be given.
        """
        digits = separator.join(f"{byte:02x}" for byte in hardware_id)
        self.assertEqual(self.parse(f"Windows={GENUINE}/{digits}").hardware_id, hardware_id)

    def test_exact_name_first(self) -> None:
        """
        The CSVLK of just that name is meant, even if the key of an earlier one is its beginning.
        """
        self.assertLess(
            list(CATALOG.csvlks).index("Windows"), list(CATALOG.csvlks).index("WindowsServer2016")
        )
        self.assertEqual(self.parse("windowsserver2016=x").csvlk_key, "WindowsServer2016")

    def test_beginning(self) -> None:
        """
        Otherwise it is the first whose key is the beginning of the name, and the operator is told.
        """
        for name, key in (("Windows2000", "Windows"), ("OFFICE2019x", "Office2019")):
            override = self.parse(f"{name}={GENUINE}")
            self.assertEqual(override.csvlk_key, key)
            self.assertIn(f"taken for {key}", override.warning)

    def test_unknown_name(self) -> None:
        """
        A name that is none is refused, and those that mean something are listed.
        """
        for name in ("Window", "Office", "Server", "\x1b[2J"):
            text = str(self.assertRaises(EPIDError, self.parse, f"{name}={GENUINE}"))
            self.assertIn(repr(name), text)
            self.assertTrue(text.isprintable())
            for key in INI_KEYS:
                self.assertIn(key, text)

    def test_form(self) -> None:
        """
        What lacks a part or has a hardware id of another form is refused in one short line.
        """
        for text in (
            "",
            "=",
            "Windows",
            "Windows=",
            "Windows = ",
            f"={GENUINE}",
            "Windows=/3A1C049600B60076",
            f"Windows={GENUINE}/",
            f"Windows={GENUINE}/3A1C049600B600",
            f"Windows={GENUINE}/3A1C049600B6007600",
            f"Windows={GENUINE}/3A1C049600B6007G",
            f"Windows={GENUINE}/3A1C049600B6007\N{ARABIC-INDIC DIGIT SIX}",
            f"Windows={GENUINE}/3A1C0496/00B60076",
            f"Windows={GENUINE}/-3A1C049600B60076",
            f"Windows={GENUINE}/{'0' * 5000}",
            f"Windows={'x' * 5000}",
            "Windows=a\tb",
            "Windows=a\0b",
            "Windows=\udc80",
        ):
            error = self.assertRaises(EPIDError, self.parse, text)
            self.assertTrue(str(error).isprintable())
            self.assertLess(len(str(error)), 250)

    def test_size(self) -> None:
        """
        An ePID has up to 63 UTF-16 code units, as many as an answer has room for.
        """
        for fits in ("x" * 63, "\N{GRINNING FACE}" * 31 + "x"):
            self.assertEqual(self.parse(f"Windows={fits}").epid, fits)
            self.assertRaises(EPIDError, self.parse, f"Windows={fits}x")

    def test_made_directly(self) -> None:
        """
        One that is not read but made is held to the same.
        """
        for epid, hardware_id in (("", None), ("x" * 64, None), ("x", b""), ("x", bytes(9))):
            self.assertRaises(EPIDError, Override, "Windows", epid, hardware_id)

    @given(st.text(max_size=100))
    def test_any_text(self, text: str) -> None:
        """
        Any text is either refused with the one error, or is what can be answered; a warning is one line.
        """
        try:
            override = self.parse(f"Windows{text}")
        except EPIDError as error:
            self.assertTrue(str(error).isprintable())
            return
        self.assertLessEqual(len(override.epid.encode("utf-16-le")), 126)
        self.assertTrue(override.warning.isprintable())
        self.assertTrue(override.warning)

    def test_warnings(self) -> None:
        """
        What no genuine host would say is taken, and told.
        """
        for key, epid, *parts in (
            ("Windows", "my own host", "has not the form"),
            ("Windows", GENUINE.replace("04919", "00206"), "group is 206", "Windows is 4919"),
            ("Windows", GENUINE.replace("020000", "019999"), "no key id 19999"),
            ("Windows", GENUINE.replace("03612", "06401"), "platform id of build 26100 is 03612"),
            ("Windows", GENUINE.replace("03612", "06401").replace("26100", "9600"), "too old"),
            ("Windows", GENUINE.replace("0012025", "0012024"), "2024-01-01", "no such host"),
            (
                "Office2010",
                "03612-00096-199-000000-03-1033-26100.0000-0012024",
                "2024-01-01",
            ),
            ("WindowsServer2016", "x", "WindowsServer2016 answers for no product", "the form"),
        ):
            override = self.parse(f"{key}={epid}")
            self.assertEqual((override.csvlk_key, override.epid), (key, epid))
            self.assertTrue(override.warning.startswith(f"the ePID given for '{key}': "))
            self.assertTrue(override.warning.isprintable())
            for part in parts:
                self.assertIn(part, override.warning)

    def test_unknown_build(self) -> None:
        """
        A build that is not known is nobody's mistake.
        """
        epid = GENUINE.replace("26100", "31000")
        self.assertEqual(self.parse(f"Windows={epid}"), Override("Windows", epid))
