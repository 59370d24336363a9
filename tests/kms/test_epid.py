"""
Tests of L{kmsproto.kms.epid}.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import CSVLK, HostBuild, load_catalog
from kmsproto.kms.epid import (
    EPIDError,
    ExtendedPID,
    Installation,
    derive_epid,
    derive_hardware_id,
    pick,
)

GROUP = CSVLK(
    key="Lab",
    name="Lab keys",
    guid=None,
    group_id=42,
    key_id_ranges=((3, 3), (10, 12), (999_999_998, 999_999_999)),
    release_date=date(2020, 2, 29),
    minimum_active_clients=0,
    invalid_host_builds=frozenset({7601}),
    is_lab=True,
    is_preview=False,
    kms_ids=None,
)
BUILD = HostBuild(
    build=17763,
    name="Windows Server 2019",
    platform_id=3612,
    release_date=date(2018, 10, 2),
    uses_ndr64=True,
    for_epid=True,
    may_be_server=True,
)

CATALOG = load_catalog()
COMBINATIONS = [
    (csvlk, host_build)
    for csvlk in CATALOG.csvlks.values()
    for host_build in CATALOG.host_builds.values()
    if host_build.build not in csvlk.invalid_host_builds
]

extended_pids = st.builds(
    ExtendedPID,
    platform_id=st.integers(0, 99_999),
    group_id=st.integers(0, 99_999),
    key_id=st.integers(0, 999_999_999),
    lcid=st.integers(0, 0xFFFFF),
    build=st.integers(0, 99_999),
    day=st.dates(),
)
installations = st.builds(Installation, st.binary(min_size=16, max_size=16), st.dates())


class ExtendedPIDTests(SynchronousTestCase):
    """
    The text form of an extended PID.
    """

    def test_text(self) -> None:
        """
        The parts stand where the specification has them, with leading zeros where it has them.
        """
        pid = ExtendedPID(3612, 206, 491_000_007, 1033, 14393, date(2016, 8, 2))
        self.assertEqual(str(pid), "03612-00206-491-000007-03-1033-14393.0000-2152016")

    def test_parse(self) -> None:
        """
        A text of that form is read into its parts.
        """
        self.assertEqual(
            ExtendedPID.parse("55041-00168-305-190595-03-1031-7600.0000-3662012"),
            ExtendedPID(55041, 168, 305_190_595, 1031, 7600, date(2012, 12, 31)),
        )

    @given(extended_pids)
    def test_round_trip(self, pid: ExtendedPID) -> None:
        """
        What was written is read back as it was, and fits a response: 126 bytes of UTF-16.
        """
        self.assertEqual(ExtendedPID.parse(str(pid)), pid)
        self.assertLessEqual(len(str(pid).encode("utf-16-le")), 104)

    def test_refused(self) -> None:
        """
        A text that departs from the form in any way is no extended PID.
        """
        good = "03612-00206-491-000007-03-1033-14393.0000-2152016"
        ExtendedPID.parse(good)
        for text in (
            "",
            good + "\n",
            " " + good,
            good + "0",
            good[:-1],
            good.replace("03612", "3612"),
            good.replace("-03-", "-04-"),
            good.replace(".0000", ".0001"),
            good.replace("1033", "01033"),
            good.replace("1033", "1048576"),
            good.replace("1033", "9" * 5000),
            good.replace("14393", "100000"),
            good.replace("00206", "0020\N{ARABIC-INDIC DIGIT SIX}"),
            good.replace("2152016", "0002016"),
            good.replace("2152016", "3662015"),
            good.replace("2152016", "9992016"),
            good.replace("2152016", "2150000"),
            good.replace("2152016", "3669999"),
        ):
            error = self.assertRaises(EPIDError, ExtendedPID.parse, text)
            self.assertLess(len(str(error)), 200)

    @given(st.text(max_size=70))
    def test_any_text(self, text: str) -> None:
        """
        A text is either refused with the one error, or comes out again unchanged.
        """
        try:
            pid = ExtendedPID.parse(text)
        except EPIDError:
            return
        self.assertEqual(str(pid), text)

    def test_out_of_range(self) -> None:
        """
        Parts that the form has no room for are refused when the extended PID is made.
        """
        pid = ExtendedPID(3612, 206, 491_000_007, 1033, 14393, date(2016, 8, 2))
        for name, value in (
            ("platform_id", 100_000),
            ("group_id", 100_000),
            ("key_id", 1_000_000_000),
            ("lcid", 0x100000),
            ("build", 100_000),
        ):
            for wrong in (value, -1):
                self.assertRaises(EPIDError, replace, pid, **{name: wrong})

    def test_error(self) -> None:
        """
        The error is one of the package's, and a C{ValueError} to those who know nothing of the package.
        """
        self.assertTrue(issubclass(EPIDError, KMSProtoError))
        self.assertTrue(issubclass(EPIDError, ValueError))


class InstallationTests(SynchronousTestCase):
    """
    What tells one host from another.
    """

    def test_size(self) -> None:
        """
        An identifier has 16 bytes.
        """
        for size in (0, 15, 17):
            self.assertRaises(EPIDError, Installation, bytes(size), date(2025, 1, 1))


class DerivationTests(SynchronousTestCase):
    """
    Extended PIDs and hardware ids that are derived from an installation.
    """

    def test_stable(self) -> None:
        """
        What an installation was given once, it has for ever: these values never change.
        """
        installation = Installation(bytes(range(16)), date(2025, 1, 1))
        epid = derive_epid(installation, GROUP, BUILD, 1033)
        self.assertEqual(str(epid), "03612-00042-000-000003-03-1033-17763.0000-0292021")
        self.assertEqual(derive_hardware_id(installation).hex(), "321f4b89804657d7")

    @given(installations, st.integers(0, 0xFFFFF))
    def test_bounds(self, installation: Installation, lcid: int) -> None:
        """
        Whatever the installation, the key id is one of the group's, and the day lies between release and installation.
        """
        epid = derive_epid(installation, GROUP, BUILD, lcid)
        self.assertIn(epid.key_id, {3, 10, 11, 12, 999_999_998, 999_999_999})
        self.assertLessEqual(GROUP.release_date, epid.day)
        self.assertLessEqual(epid.day, max(installation.created, GROUP.release_date))
        self.assertEqual(
            (epid.platform_id, epid.group_id, epid.lcid, epid.build), (3612, 42, lcid, 17763)
        )
        self.assertEqual(derive_epid(installation, GROUP, BUILD, lcid), epid)

    @given(installations, st.sampled_from(COMBINATIONS))
    def test_catalogue(self, installation: Installation, pair: tuple[CSVLK, HostBuild]) -> None:
        """
        Every key group of the catalogue gives a valid extended PID with every build that can host it.
        """
        csvlk, host_build = pair
        epid = derive_epid(installation, csvlk, host_build, 1033)
        self.assertTrue(any(low <= epid.key_id <= high for low, high in csvlk.key_id_ranges))
        self.assertGreaterEqual(epid.day, max(csvlk.release_date, host_build.release_date))
        self.assertEqual(ExtendedPID.parse(str(epid)), epid)

    def test_unbiased(self) -> None:
        """
        Each key id is equally likely, however long the range that it is in; so is each day.
        """
        created = date(2020, 3, 4)
        drawn = [
            derive_epid(Installation(n.to_bytes(16, "big"), created), GROUP, BUILD, 1033)
            for n in range(6000)
        ]
        keys = Counter(epid.key_id for epid in drawn)
        days = Counter(epid.day for epid in drawn)
        self.assertEqual(len(keys), 6)
        self.assertEqual(len(days), 5)
        self.assertEqual((min(days), max(days)), (GROUP.release_date, created))
        # Six standard deviations; the draws are the same every time, so this cannot fail by chance.
        for count in keys.values():
            self.assertLess(abs(count - 1000), 173)
        for count in days.values():
            self.assertLess(abs(count - 1200), 186)

    def test_wrong_clock(self) -> None:
        """
        An installation that seems older than its products was activated on the day of the later release.
        """
        installation = Installation(bytes(16), date(1970, 1, 1))
        self.assertEqual(derive_epid(installation, GROUP, BUILD, 1033).day, date(2020, 2, 29))
        later = replace(BUILD, release_date=date(2021, 8, 18))
        self.assertEqual(derive_epid(installation, GROUP, later, 1033).day, date(2021, 8, 18))

    def test_only_its_own(self) -> None:
        """
        An extended PID depends on its key group and build, not on locale, names or GUIDs.
        """
        installation = Installation(b"0123456789abcdef", date(2025, 1, 1))
        epid = derive_epid(installation, GROUP, BUILD, 1033)
        renamed = replace(GROUP, name="Other", kms_ids=frozenset(), is_lab=False)
        self.assertEqual(derive_epid(installation, renamed, BUILD, 1033), epid)
        self.assertEqual(derive_epid(installation, GROUP, BUILD, 1031), replace(epid, lcid=1031))

    def test_independent(self) -> None:
        """
        Installations, key groups and builds each change the key id; installations change the hardware id.
        """
        wide = replace(GROUP, key_id_ranges=((0, 999_999_999),))
        first = Installation(bytes(16), date(2025, 1, 1))
        second = Installation(bytes(15) + b"\1", date(2025, 1, 1))
        key_ids = {
            derive_epid(first, wide, BUILD, 1033).key_id,
            derive_epid(second, wide, BUILD, 1033).key_id,
            derive_epid(first, replace(wide, key="Lab2"), BUILD, 1033).key_id,
            derive_epid(first, wide, replace(BUILD, build=20348), 1033).key_id,
        }
        self.assertEqual(len(key_ids), 4)
        self.assertEqual(len(derive_hardware_id(first)), 8)
        self.assertNotEqual(derive_hardware_id(first), derive_hardware_id(second))

    def test_cannot_host(self) -> None:
        """
        A build that is too old for a key is refused by name.
        """
        error = self.assertRaises(
            EPIDError,
            derive_epid,
            Installation(bytes(16), date(2025, 1, 1)),
            GROUP,
            replace(BUILD, build=7601, name="Windows 7"),
            1033,
        )
        self.assertEqual(
            str(error),
            "host build 7601 (Windows 7) is too old for a host key of group 'Lab' (Lab keys)",
        )


class PickTests(SynchronousTestCase):
    """
    A choice that an installation makes.
    """

    def test_stable(self) -> None:
        """
        What an installation picks for a purpose it picks for ever; for another purpose it may pick something else.
        """
        installation = Installation(bytes(range(16)), date(2025, 1, 1))
        picks = [pick(installation, purpose, range(1000)) for purpose in ("build", "locale")]
        self.assertEqual(picks, [138, 439])

    def test_unbiased(self) -> None:
        """
        Each of the choices is equally likely.
        """
        counts = Counter(
            pick(Installation(n.to_bytes(16, "big"), date(2025, 1, 1)), "build", "abcde")
            for n in range(5000)
        )
        self.assertEqual(set(counts), set("abcde"))
        for count in counts.values():
            self.assertLess(abs(count - 1000), 170)

    @given(installations, st.integers(0, 0xFFFFF))
    def test_single(self, installation: Installation, choice: int) -> None:
        """
        Of one thing that one is picked.
        """
        self.assertEqual(pick(installation, "build", [choice]), choice)
