"""
The way over from vlmcsd: its file, and the table of all that it can be told.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.kinds import SettingError
from kmsproto.service.settings import BY_NAME
from kmsproto.service.vlmcsd import ROWS, Ini, read_ini

EPID = "03612-04919-019-949372-03-1033-26100.0000-0382025"


class IniTests(SynchronousTestCase):
    """
    A vlmcsd.ini.
    """

    def texts(self, text: str) -> dict[str, tuple[str, ...]]:
        """
        Read a file, and leave the places out.
        """
        return {name: found[0] for name, found in read_ini(text, "x").settings.items()}

    def test_every_key(self) -> None:
        """
        Every key that has a setting gives it a value which is allowed.
        """
        for row in ROWS:
            if row.ini and row.setting and row.setting != "kms-data":
                with self.subTest(row.ini):
                    (found,) = self.texts(f"{row.ini} = {row.sample}")[row.setting]
                    BY_NAME[row.setting].value(found)

    def test_form(self) -> None:
        """
        Keys have any case, blanks count for nothing, comments begin with a semicolon or a hash, and of two equal keys
        the later one counts.
        """
        found = self.texts("; a\n# b\n\n  PORT=1\n port  =  2 \nHostBuild = 20348\n")
        self.assertEqual(found, {"port": ("2",), "host-build": ("20348",)})

    def test_listen(self) -> None:
        """
        Addresses add up.
        """
        found = self.texts("Listen = 127.0.0.1:1\nlisten = [::1]:2\n")
        self.assertEqual(found, {"listen": ("127.0.0.1:1", "[::1]:2")})

    def test_csvlk(self) -> None:
        """
        A key that is no option names a CSVLK, whose value is an ePID and perhaps a hardware id.
        """
        found = self.texts(f"Windows = {EPID}\nOffice2019={EPID} / 01 23 45 67 89 AB CD EF\n")
        self.assertEqual(
            found,
            {"epid": (f"Windows={EPID}", f"Office2019={EPID}/01 23 45 67 89 AB CD EF")},
        )

    def test_left_to_the_host(self) -> None:
        """
        A zero for locale or build is vlmcsd's way to say that it shall choose.
        """
        self.assertEqual(self.texts("LCID = 1031\nLCID = 0\nHostBuild = 0"), {})

    def test_verbose(self) -> None:
        """
        What is on or off there is a word here.
        """
        self.assertEqual(self.texts("LogVerbose = TRUE"), {"verbosity": ("verbose",)})
        self.assertEqual(self.texts("LogVerbose = 0"), {"verbosity": ("normal",)})

    def test_ignored(self) -> None:
        """
        Keys that make no sense here are named in one warning, with what to do instead.
        """
        ini = read_ini("User = x\nGroup = y\nuser = z\nVPN = on", "f")
        self.assertEqual(ini.settings, {})
        (warning,) = ini.warnings
        self.assertTrue(warning.startswith("f: ignored: User (use twistd --uid"), warning)
        self.assertEqual(warning.count("User"), 1)
        self.assertIn("Group", warning)
        self.assertIn("VPN", warning)

    def test_wrong(self) -> None:
        """
        A line that vlmcsd would not know is an error with its number.
        """
        for text, said in (
            ("\nhello", "f: line 2: 'hello' is not a key, an equals sign and a value"),
            ("Port =", "f: line 1: 'Port =' is not a key"),
            ("= 1", "f: line 1: '= 1' is not a key"),
            ("Prot = 1", "f: line 1: Prot: '1' is not an ePID, and Prot is no other key of"),
            (
                "qqq = 1",
                "f: line 1: qqq: '1' is not an ePID, and qqq is no other key of vlmcsd.ini",
            ),
            ("LogVerbose = x", "f: line 1: LogVerbose: 'x' is not on or off"),
        ):
            with self.subTest(text):
                with self.assertRaises(SettingError) as caught:
                    read_ini(text, "f")
                self.assertIn(said, str(caught.exception))
        with self.assertRaises(SettingError) as caught:
            read_ini("Prot = 1", "f")
        self.assertIn("did you mean Port?", str(caught.exception))

    def test_empty(self) -> None:
        """
        Nothing says nothing.
        """
        self.assertEqual(read_ini("", "x"), Ini())


class TableTests(SynchronousTestCase):
    """
    The table.
    """

    def test_letters(self) -> None:
        """
        Each letter is the short one of its setting, stands for a value of it, or is answered with what to use.
        """
        for row in ROWS:
            with self.subTest(row):
                if not row.setting:
                    self.assertTrue(row.instead)
                elif row.text:
                    BY_NAME[row.setting].value(row.text)
                elif row.option:
                    self.assertEqual(BY_NAME[row.setting].short, row.option[1:])

    def test_short_letters_are_theirs(self) -> None:
        """
        No setting has a letter that means something else to vlmcsd.
        """
        letters = {row.option[1:]: row.setting for row in ROWS if row.option}
        for setting in BY_NAME.values():
            if setting.short:
                self.assertEqual(letters[setting.short], setting.name)
