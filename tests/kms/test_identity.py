"""
Tests of L{kmsproto.kms.identity}.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import CatalogError, KMSProtoError
from kmsproto.kms.catalog import CSVLK, Catalog, HostBuild, load_catalog
from kmsproto.kms.epid import (
    EPIDError,
    ExtendedPID,
    Installation,
    derive_epid,
    derive_hardware_id,
)
from kmsproto.kms.host import DEFAULT_HOST_BUILD, DEFAULT_LCID, HostIdentity, host_builds
from kmsproto.kms.identity import (
    CATALOGUE,
    DRAWN_AT_START,
    DRAWN_PER_ANSWER,
    LCIDS,
    MODES,
    STABLE,
    Override,
    make_identity,
    parse_override,
)
from kmsproto.testing import INSTALLATION, fixed_entropy

CATALOG = load_catalog()
IDENTITY = HostIdentity(CATALOG, INSTALLATION)
UNKNOWN = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
TODAY = date(2026, 2, 3)
#: The CSVLKs that answer; the names by which a vlmcsd.ini calls them.
INI_KEYS = (
    *("Windows", "Office2010", "Office2013", "Office2016", "Office2019", "Office2021"),
    *("Office2024", "WinChinaGov"),
)

installations = st.builds(Installation, st.binary(min_size=16, max_size=16), st.dates())
seeds = st.binary(min_size=16, max_size=16)
days = st.dates(date(2025, 1, 1), date(2100, 1, 1))


def catalog_of(
    csvlks: Iterable[CSVLK] = CATALOG.csvlks.values(),
    builds: Iterable[HostBuild] = CATALOG.host_builds.values(),
) -> Catalog:
    """
    Make a catalogue with other CSVLKs or builds.
    """
    return Catalog(
        "products.toml",
        CATALOG.applications.values(),
        CATALOG.kms_ids.values(),
        CATALOG.skus.values(),
        csvlks,
        builds,
    )


def changed(**fields: Any) -> list[CSVLK]:
    """
    Give the CSVLKs of the catalogue with other values for some fields.
    """
    return [replace(csvlk, **fields) for csvlk in CATALOG.csvlks.values()]


#: Every key is old enough for every build, and has a hole in its key ids.
HOLES = ((3, 3), (10, 12), (999_999_998, 999_999_999))
OLD = catalog_of(changed(invalid_host_builds=frozenset(), key_id_ranges=HOLES))


def no_entropy(length: int) -> bytes:
    """
    Be asked where nobody should ask.
    """
    raise AssertionError(f"{length} random bytes were drawn")


def made(catalog: Catalog = CATALOG, **chosen: Any) -> HostIdentity:
    """
    Make an identity with what is chosen, and otherwise nothing given.
    """
    settings: dict[str, Any] = {
        "mode": STABLE,
        "host_build": None,
        "lcid": None,
        "ndr64": True,
        "overrides": [],
        "entropy": no_entropy,
        "today": TODAY,
    }
    installation = chosen.pop("installation", INSTALLATION)
    return make_identity(catalog, installation, **{**settings, **chosen})


def said(identity: HostIdentity) -> dict[str, str]:
    """
    Tell the ePIDs under all keys that answer.
    """
    return {key: identity.epid(key) for key in INI_KEYS}


def builds_of(epids: Iterable[str]) -> set[int]:
    """
    Tell the builds in some ePIDs.
    """
    return {ExtendedPID.parse(epid).build for epid in epids}


class HostIdentityTests(SynchronousTestCase):
    """
    What a host says of itself.
    """

    def test_epids(self) -> None:
        """
        Each key group that answers for a KMS id has the ePID that is derived for it.
        """
        build = CATALOG.host_build(DEFAULT_HOST_BUILD)
        for kms_id in (*CATALOG.kms_ids, UNKNOWN):
            csvlk = CATALOG.csvlk_for(kms_id)
            expected = derive_epid(INSTALLATION, csvlk, build, DEFAULT_LCID)
            self.assertEqual(IDENTITY.epid(csvlk.key), str(expected))
            self.assertEqual(ExtendedPID.parse(IDENTITY.epid(csvlk.key)).group_id, csvlk.group_id)

    def test_defaults(self) -> None:
        """
        By default a host presents itself as Windows Server 2025 in English.
        """
        self.assertEqual((DEFAULT_HOST_BUILD, DEFAULT_LCID), (26100, 1033))
        pid = ExtendedPID.parse(IDENTITY.epid("Windows"))
        self.assertEqual((pid.build, pid.lcid), (26100, 1033))

    def test_build_and_locale(self) -> None:
        """
        The build and the locale can be chosen.
        """
        identity = HostIdentity(CATALOG, INSTALLATION, host_build=20348, lcid=1031)
        for key in ("Windows", "Office2013"):
            pid = ExtendedPID.parse(identity.epid(key))
            self.assertEqual((pid.build, pid.lcid), (20348, 1031))
            self.assertEqual(pid.platform_id, CATALOG.host_build(20348).platform_id)

    def test_stable(self) -> None:
        """
        The same installation has the same identity at every start, and another has another.
        """
        again = HostIdentity(CATALOG, Installation(INSTALLATION.identifier, INSTALLATION.created))
        other = HostIdentity(CATALOG, Installation(bytes(16), date(2026, 1, 1)))
        self.assertEqual(again.hardware_id, IDENTITY.hardware_id)
        self.assertNotEqual(other.hardware_id, IDENTITY.hardware_id)
        for kms_id in CATALOG.kms_ids:
            key = CATALOG.csvlk_for(kms_id).key
            self.assertEqual(again.epid(key), IDENTITY.epid(key))
            self.assertNotEqual(other.epid(key), IDENTITY.epid(key))

    def test_hardware_id(self) -> None:
        """
        The hardware id is that of the installation, whatever build is presented.
        """
        self.assertEqual(IDENTITY.hardware_id, derive_hardware_id(INSTALLATION))
        self.assertEqual(len(IDENTITY.hardware_id), 8)
        other = HostIdentity(CATALOG, INSTALLATION, host_build=20348)
        self.assertEqual(other.hardware_id, IDENTITY.hardware_id)

    def test_unknown_build(self) -> None:
        """
        A build that the catalogue does not have cannot be presented.
        """
        for build in (0, -1, 26101):
            error = self.assertRaises(
                CatalogError, HostIdentity, CATALOG, INSTALLATION, host_build=build
            )
            self.assertIsInstance(error, KMSProtoError)

    def test_too_old_build(self) -> None:
        """
        A build that cannot host a key group that answers for a KMS id cannot be presented.
        """
        windows = CATALOG.csvlks["Windows"]
        for build in windows.invalid_host_builds:
            self.assertRaises(EPIDError, HostIdentity, CATALOG, INSTALLATION, host_build=build)
        self.assertIn(9600, windows.invalid_host_builds)

    def test_impossible_locale(self) -> None:
        """
        A locale id of more than 20 bits cannot be presented.
        """
        for lcid in (-1, 0x100000):
            self.assertRaises(EPIDError, HostIdentity, CATALOG, INSTALLATION, lcid=lcid)


class HostBuildTests(SynchronousTestCase):
    """
    The builds that a host can present.
    """

    def test_can_host(self) -> None:
        """
        Each of them makes an identity; the default is among them, and the newest comes first.
        """
        catalog = load_catalog()
        builds = host_builds(catalog)
        self.assertIn(DEFAULT_HOST_BUILD, builds)
        self.assertEqual(builds, sorted(builds, reverse=True))
        for build in builds:
            with self.subTest(build=build):
                HostIdentity(catalog, INSTALLATION, host_build=build)

    def test_others_cannot(self) -> None:
        """
        A known host that is older than a key which answers is not among them, and makes no identity.
        """
        catalog = load_catalog()
        for build in catalog.host_builds.values():
            if build.for_epid and build.build not in host_builds(catalog):
                with self.subTest(build=build.build):
                    self.assertRaises(
                        EPIDError, HostIdentity, catalog, INSTALLATION, host_build=build.build
                    )


class ModeTests(SynchronousTestCase):
    """
    The ways to come by ePIDs.
    """

    def check(self, catalog: Catalog, identity: HostIdentity, today: date, ndr64: bool) -> None:
        """
        Hold that a genuine host could have each ePID.
        """
        for key, text in said(identity).items():
            pid = ExtendedPID.parse(text)
            csvlk, build = catalog.csvlks[key], catalog.host_builds[pid.build]
            self.assertEqual((pid.group_id, pid.platform_id), (csvlk.group_id, build.platform_id))
            self.assertTrue(any(low <= pid.key_id <= high for low, high in csvlk.key_id_ranges))
            self.assertLessEqual(max(csvlk.release_date, build.release_date), pid.day)
            self.assertLessEqual(pid.day, today)
            self.assertNotIn(pid.build, csvlk.invalid_host_builds)
            self.assertTrue(build.for_epid)
            self.assertIs(build.uses_ndr64, ndr64)
            self.assertIn(pid.lcid, LCIDS)

    @given(seeds, days, st.sampled_from((DRAWN_AT_START, DRAWN_PER_ANSWER)))
    def test_drawn(self, seed: bytes, today: date, mode: str) -> None:
        """
        Whatever is drawn, it is what a genuine host could have, and names no later day than today.
        """
        for catalog, ndr64 in ((CATALOG, True), (OLD, True), (OLD, False)):
            identity = made(catalog, mode=mode, ndr64=ndr64, today=today, entropy=lambda _: seed)
            self.check(catalog, identity, today, ndr64)

    @given(seeds, st.sampled_from(host_builds(CATALOG)), st.integers(0, 0xFFFFF))
    def test_given(self, seed: bytes, build: int, lcid: int) -> None:
        """
        In every mode the build and the locale that are given are presented, even if the build and NDR64 are at odds.
        """
        for mode in MODES:
            for ndr64 in (True, False):
                identity = made(
                    mode=mode, host_build=build, lcid=lcid, ndr64=ndr64, entropy=lambda _: seed
                )
                for text in said(identity).values():
                    pid = ExtendedPID.parse(text)
                    self.assertEqual((pid.build, pid.lcid), (build, lcid))

    @given(installations)
    def test_stable(self, installation: Installation) -> None:
        """
        The stable ePIDs are those of the installation, and nothing is drawn.
        """
        identity = made(installation=installation)
        self.assertEqual(said(identity), said(HostIdentity(CATALOG, installation)))
        self.assertFalse(identity.varies)

    def test_never_changes(self) -> None:
        """
        What an installation presents, and what all hosts present alike, is the same in all versions of this program.
        """
        self.assertEqual(
            made().epid("Windows"), "03612-04919-019-949372-03-1033-26100.0000-0382025"
        )
        self.assertEqual(
            made(mode=CATALOGUE).epid("Windows"),
            "03612-04919-019-857634-03-1033-26100.0000-3372025",
        )

    @given(installations, days)
    def test_catalogue(self, installation: Installation, today: date) -> None:
        """
        The catalogue's ePIDs are the same on every host and on every day, and could be genuine.
        """
        identity = made(mode=CATALOGUE, installation=installation, today=today)
        self.assertEqual(said(identity), said(made(mode=CATALOGUE)))
        self.assertFalse(identity.varies)
        self.check(CATALOG, identity, max(today, date(2026, 1, 1)), True)

    def test_default_epids(self) -> None:
        """
        Where the catalogue has ePIDs of its own, the mode that takes the catalogue's presents them, and no other does.
        """
        csvlks = dict(CATALOG.csvlks)
        csvlks["Office2013"] = replace(csvlks["Office2013"], default_epid="the catalogue's")
        catalog = catalog_of(csvlks.values())
        for mode in MODES:
            identity = made(catalog, mode=mode, entropy=bytes)
            expected = said(made(mode=mode, entropy=bytes))
            if mode == CATALOGUE:
                expected["Office2013"] = "the catalogue's"
            self.assertEqual(said(identity), expected)

    def test_no_build_needed(self) -> None:
        """
        A catalogue that has all ePIDs needs no builds; neither does a host whose ePIDs are all given.
        """
        catalog = catalog_of(changed(default_epid="mine"), [])
        self.assertEqual(set(said(made(catalog, mode=CATALOGUE)).values()), {"mine"})
        overrides = [Override(key, "yours") for key in INI_KEYS]
        for mode in MODES:
            identity = made(catalog, mode=mode, overrides=overrides)
            self.assertEqual(set(said(identity).values()), {"yours"})
            self.assertFalse(identity.varies)

    def test_unfit_default_epid(self) -> None:
        """
        An ePID of the catalogue that fits no answer is refused at once.
        """
        catalog = catalog_of(changed(default_epid="x" * 64))
        self.assertRaises(EPIDError, made, catalog, mode=CATALOGUE)

    def test_drawn_at_start(self) -> None:
        """
        A start draws 16 bytes once; the host then says one thing, of one build and one locale, and the next another.
        """
        asked: list[int] = []
        source = fixed_entropy()

        def entropy(length: int) -> bytes:
            asked.append(length)
            return source(length)

        starts = []
        for _ in range(40):
            identity = made(mode=DRAWN_AT_START, entropy=entropy)
            starts.append(said(identity))
            self.assertEqual(said(identity), starts[-1])
            pids = [ExtendedPID.parse(epid) for epid in starts[-1].values()]
            self.assertEqual(len({(pid.build, pid.lcid) for pid in pids}), 1)
            self.assertEqual(identity.hardware_id, IDENTITY.hardware_id)
        self.assertEqual(asked, [16] * 40)
        for key in INI_KEYS:
            self.assertEqual(len({start[key] for start in starts}), 40)
        self.assertEqual(builds_of(start["Windows"] for start in starts), set(host_builds(CATALOG)))
        self.assertGreater(len({start["Windows"].split("-")[5] for start in starts}), 10)

    def test_drawn_at_start_depends_on_what_was_drawn(self) -> None:
        """
        Two that are given the same bytes, as the processes of one host can be, say the same.
        """
        first, second, other = (
            made(mode=DRAWN_AT_START, entropy=lambda _, seed=seed: seed * 16, installation=host)
            for seed, host in (
                (b"a", INSTALLATION),
                (b"a", Installation(bytes(16), TODAY)),
                (b"b", INSTALLATION),
            )
        )
        self.assertEqual(said(first), said(second))
        self.assertNotEqual(said(first), said(other))

    def test_drawn_per_answer(self) -> None:
        """
        Each time a key is asked for, 16 bytes are drawn and make another ePID, of any build that can host the key.
        """
        asked: list[int] = []
        source = fixed_entropy()

        def entropy(length: int) -> bytes:
            asked.append(length)
            return source(length)

        identity = made(mode=DRAWN_PER_ANSWER, entropy=entropy)
        self.assertTrue(identity.varies)
        self.assertEqual(asked, [])
        drawn = [said(identity) for _ in range(60)]
        self.assertEqual(asked, [16] * 60 * len(INI_KEYS))
        for key in INI_KEYS:
            self.assertEqual(len({each[key] for each in drawn}), 60)
        self.assertEqual(builds_of(each["Windows"] for each in drawn), {26100, 20348, 17763})
        self.assertEqual(
            builds_of(each["Office2024"] for each in drawn),
            {26100, 20348, 17763, 14393, 9600, 9200},
        )

    def test_overrides(self) -> None:
        """
        In every mode what is given for a key stands, the later of two; the other keys have what the mode gives them.
        """
        overrides = [
            Override("Windows", "first", bytes(8)),
            Override("Windows", "second"),
            Override("Office2013", "third", bytes(range(8))),
        ]
        for mode in MODES:
            identity = made(mode=mode, host_build=26100, overrides=overrides, entropy=bytes)
            plain = made(mode=mode, host_build=26100, entropy=bytes)
            for _ in range(2):
                self.assertEqual(
                    said(identity), said(plain) | {"Windows": "second", "Office2013": "third"}
                )
            self.assertEqual(identity.hardware_id_for("Windows"), IDENTITY.hardware_id)
            self.assertEqual(identity.hardware_id_for("Office2013"), bytes(range(8)))
            self.assertEqual(identity.hardware_id_for("Office2016"), IDENTITY.hardware_id)
            self.assertEqual(identity.hardware_id, IDENTITY.hardware_id)

    def test_no_doubts(self) -> None:
        """
        Who copies an ePID that was made here into an override hears of nothing odd.
        """
        for mode in MODES:
            for key, epid in said(made(mode=mode, entropy=fixed_entropy())).items():
                self.assertEqual(parse_override(CATALOG, f"{key}={epid}"), Override(key, epid))

    def test_zero_hardware_id(self) -> None:
        """
        A hardware id of zeros is one like any other.
        """
        identity = made(overrides=[Override("Windows", "mine", bytes(8))])
        self.assertEqual(identity.hardware_id_for("Windows"), bytes(8))

    def test_clock_behind(self) -> None:
        """
        Builds that are not yet released are not drawn; on a day before all of them the clock is wrong, and any is.
        """
        for today, builds in (
            (date(2018, 12, 1), {17763}),
            (date(2022, 1, 1), {17763, 20348}),
            (date(1980, 1, 1), {17763, 20348, 26100}),
        ):
            identity = made(mode=DRAWN_PER_ANSWER, today=today, entropy=fixed_entropy())
            pids = [ExtendedPID.parse(identity.epid("Windows")) for _ in range(40)]
            self.assertEqual({pid.build for pid in pids}, builds)
            self.assertEqual({pid.day for pid in pids}, {CATALOG.csvlks["Windows"].release_date})

    def test_days(self) -> None:
        """
        From the later release up to today each day is drawn, the first and the last included.
        """
        released = CATALOG.csvlks["Windows"].release_date
        identity = made(
            mode=DRAWN_PER_ANSWER,
            host_build=26100,
            today=released + timedelta(days=2),
            entropy=fixed_entropy(),
        )
        drawn = {ExtendedPID.parse(identity.epid("Windows")).day for _ in range(60)}
        self.assertEqual(drawn, {released + timedelta(days=n) for n in range(3)})

    def test_other_default_build(self) -> None:
        """
        Where the catalogue lacks the default build, or it is too old for a key, the newest known host stands in.
        """
        builds = [build for build in CATALOG.host_builds.values() if build.build < 26000]
        newer = replace(CATALOG.host_build(26100), build=30000)
        too_old = changed(invalid_host_builds=frozenset(CATALOG.host_builds))
        for mode in (STABLE, CATALOGUE):
            for catalog, expected in (
                (catalog_of(builds=builds), 20348),
                (catalog_of(too_old, [newer, *CATALOG.host_builds.values()]), 30000),
            ):
                identity = made(catalog, mode=mode)
                self.assertEqual(builds_of(said(identity).values()), {expected})


class UnsatisfiableTests(SynchronousTestCase):
    """
    What cannot be done is told when the identity is made.
    """

    def refused(self, error: type[KMSProtoError], *parts: str, **chosen: Any) -> None:
        """
        Hold that no identity is made, for a reason in one line that has some parts.
        """
        text = str(self.assertRaises(error, partial(made, entropy=bytes), **chosen))
        self.assertNotIn("\n", text)
        self.assertLess(len(text), 400)
        for part in parts:
            self.assertIn(part, text)

    def test_mode(self) -> None:
        """
        There are no other modes.
        """
        self.refused(EPIDError, "stable, 0, 1, 2", "'3'", mode="3")

    def test_unknown_build(self) -> None:
        """
        A given build that the catalogue lacks is refused in every mode.
        """
        for mode in MODES:
            self.refused(CatalogError, "26101", mode=mode, host_build=26101)

    def test_build_too_old(self) -> None:
        """
        A given build that is too old for a key that answers is refused, and those that can host it are named.
        """
        for mode in MODES:
            self.refused(
                EPIDError,
                "host build 9600",
                "a host key of Windows:",
                "26100, 20348, 17763",
                "give an ePID",
                mode=mode,
                host_build=9600,
            )

    def test_way_out(self) -> None:
        """
        The older build is presented as soon as the keys that it is too old for have ePIDs.
        """
        for mode in MODES:
            identity = made(
                mode=mode, host_build=9600, overrides=[Override("Windows", "mine")], entropy=bytes
            )
            epids = said(identity)
            self.assertEqual(epids.pop("Windows"), "mine")
            self.assertEqual(builds_of(epids.values()), {9600})

    def test_no_newer_build(self) -> None:
        """
        Where no build can host a key, the reason says that there is none.
        """
        catalog = catalog_of(changed(invalid_host_builds=frozenset(CATALOG.host_builds)))
        self.refused(EPIDError, "there is none", catalog=catalog, host_build=26100)
        for mode in (STABLE, CATALOGUE):
            self.refused(EPIDError, "products.toml", *INI_KEYS, catalog=catalog, mode=mode)

    def test_ndr64(self) -> None:
        """
        If no host that can have a key uses NDR64 as this one does, the keys are named, and what to change.
        """
        keys = "of Windows, WinChinaGov, Office2019, Office2021, Office2024:"
        for mode in (DRAWN_AT_START, DRAWN_PER_ANSWER):
            self.refused(
                EPIDError, "does not use NDR64", keys, "turn NDR64 on", mode=mode, ndr64=False
            )
            old = [build for build in CATALOG.host_builds.values() if not build.uses_ndr64]
            self.refused(
                EPIDError,
                "that uses NDR64",
                "turn NDR64 off",
                catalog=catalog_of(OLD.csvlks.values(), old),
                mode=mode,
            )

    def test_locale(self) -> None:
        """
        A locale id of more than 20 bits is refused in every mode.
        """
        for mode in MODES:
            for lcid in (-1, 0x100000):
                self.refused(EPIDError, "locale id", mode=mode, lcid=lcid)

    def test_too_little_entropy(self) -> None:
        """
        A source that gives fewer bytes than it is asked for is not believed.
        """
        self.assertRaises(EPIDError, made, mode=DRAWN_AT_START, entropy=lambda _: b"123")

    def test_no_common_build(self) -> None:
        """
        If each key has its builds, but none can host all, a host that draws one for all cannot, and one for each can.
        """
        csvlks = dict(CATALOG.csvlks)
        for key, wanted in (("Windows", 26100), ("Office2024", 20348)):
            others = frozenset(CATALOG.host_builds) - {wanted}
            csvlks[key] = replace(csvlks[key], invalid_host_builds=others)
        catalog = catalog_of(csvlks.values())
        self.refused(EPIDError, *INI_KEYS, catalog=catalog, mode=DRAWN_AT_START)
        identity = made(catalog, mode=DRAWN_PER_ANSWER, entropy=fixed_entropy())
        self.assertEqual(builds_of([identity.epid("Windows")]), {26100})
        self.assertEqual(builds_of([identity.epid("Office2024")]), {20348})


class LocaleTests(SynchronousTestCase):
    """
    The locales that are drawn from.
    """

    def test_sound(self) -> None:
        """
        There are many, in ascending order, none twice, and the default among them; each has a language and a place.
        """
        self.assertEqual(list(LCIDS), sorted(set(LCIDS)))
        self.assertIn(DEFAULT_LCID, LCIDS)
        self.assertGreater(len(LCIDS), 30)
        for lcid in LCIDS:
            self.assertTrue(lcid & 0x3FF and 1 <= lcid >> 10 <= 20, lcid)
