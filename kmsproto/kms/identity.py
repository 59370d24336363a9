"""
What a host says of itself: which ePID stands in an answer, and which hardware id beside it.

There are four ways to come by ePIDs, and all of them end in L{derive_epid}; they differ only in the L{Installation}
that it is given.  That of the host makes what never changes, a fixed one what every host has alike, one of random bytes
what is new at every start, and one of random bytes for each answer what is new in every answer.  So each ePID, however
it was come by, has a key id of its group, a build that can host the key, and a day on which both were released.  What
cannot be done is found out when the identity is made, never when a client waits for an answer.

An operator may also say what stands there.  Such an L{Override} can be any text that fits: it may have been copied from
a host, and to present something odd on purpose is no mistake either.  What looks like one is told in its warning.

Sources: "KMS messages, versions 4, 5 and 6", section "The extended PID", and "KMS data files", section "How an ePID is
found", for what vlmcsd does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from uuid import UUID

from kmsproto.kms.catalog import CSVLK, Catalog, HostBuild
from kmsproto.kms.epid import (
    INSTALLATION_IDENTIFIER_LENGTH,
    EPIDError,
    ExtendedPID,
    Installation,
    derive_epid,
    derive_hardware_id,
    pick,
)
from kmsproto.kms.messages import HARDWARE_ID_LENGTH, MAX_EPID_SIZE

#: The host build that is presented by default: the current server, Windows Server 2025.
DEFAULT_HOST_BUILD = 26100
#: The locale that is presented by default: English (United States).
DEFAULT_LCID = 1033

#: ePIDs are derived from the installation, and stay what they are.
STABLE = "stable"
#: ePIDs are those of the catalogue, the same on every host.
CATALOGUE = "0"
#: ePIDs are drawn once, when the host starts.
DRAWN_AT_START = "1"
#: ePIDs are drawn for every answer.
DRAWN_PER_ANSWER = "2"
#: All of these, the last three as vlmcsd calls them.
MODES = (STABLE, CATALOGUE, DRAWN_AT_START, DRAWN_PER_ANSWER)

#: What ePIDs are derived from that every host has alike.  Never to be changed: they would change with it.
EVERY_INSTALLATION = Installation(bytes(INSTALLATION_IDENTIFIER_LENGTH), date(2026, 1, 1))

#: The locale ids that are drawn from: those of places for which there is a Windows Server in the language.
LCIDS = (
    *(1025, 1026, 1028, 1029, 1030, 1031, 1032, 1033, 1035, 1036, 1037, 1038, 1040, 1041, 1042),
    *(1043, 1044, 1045, 1046, 1048, 1049, 1050, 1051, 1053, 1054, 1055, 1058, 1060, 1061, 1062),
    *(1063, 2052, 2055, 2057, 2058, 2060, 2067, 2070, 3076, 3079, 3081, 3082, 3084, 4105, 4108),
)

#: The characters of an ePID, in UTF-16 code units: a zero must fit behind it.
_MAX_EPID_UNITS = MAX_EPID_SIZE // 2 - 1
_HARDWARE_ID = re.compile(
    rf"[0-9A-F]{{2}}(?:[-: ]*[0-9A-F]{{2}}){{{HARDWARE_ID_LENGTH - 1}}}", re.ASCII | re.IGNORECASE
)
#: A KMS id that no catalogue knows: the CSVLK that answers for it must have an ePID too.
_UNKNOWN = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Override:
    """
    What an operator wants to stand in the answers under one CSVLK.

    @ivar csvlk_key: The L{CSVLK.key}.
    @ivar epid: Any printable text that fits an answer: up to 63 UTF-16 code units.
    @ivar hardware_id: 8 bytes; L{None}: the one of the host.
    @ivar warning: What looks like a mistake, in one line; or nothing.
    @raise EPIDError: If the ePID or the hardware id does not fit an answer.
    """

    csvlk_key: str
    epid: str
    hardware_id: bytes | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        _check_fits(self.csvlk_key, self.epid)
        if self.hardware_id is not None and len(self.hardware_id) != HARDWARE_ID_LENGTH:
            raise EPIDError(
                f"the hardware id for {self.csvlk_key} must have {HARDWARE_ID_LENGTH} bytes,"
                f" not {len(self.hardware_id)}"
            )


def parse_override(catalog: Catalog, text: str) -> Override:
    """
    Read what vlmcsd takes behind its option C{-a}, or as a line of vlmcsd.ini: C{CSVLK=EPID} or C{CSVLK=EPID/HWID}.

    The CSVLK is found by its key, whatever the case.  If there is none of that name it is, as in vlmcsd, the first
    whose key the name begins with.  The hardware id is 16 hexadecimal digits, between whose pairs there may be blanks,
    hyphens and colons.  Blanks around each part mean nothing.

    @param catalog: The CSVLKs.
    @raise EPIDError: If it has another form, names no CSVLK, or holds what does not fit an answer.
    """
    name, separator, value = (part.strip() for part in text.partition("="))
    epid, stroke, digits = (part.strip() for part in value.partition("/"))
    if not (name and separator and epid):
        raise EPIDError(
            f"an ePID is given as CSVLK=EPID or CSVLK=EPID/HWID, for example"
            f" Windows=06401-00206-..., not as {text[:80]!r}"
        )
    csvlk = _csvlk_named(catalog, name)
    hardware_id = None
    if stroke:
        if _HARDWARE_ID.fullmatch(digits) is None:
            raise EPIDError(
                f"a hardware id is {2 * HARDWARE_ID_LENGTH} hexadecimal digits, for example"
                f" 3A1C049600B60076, not {digits[:80]!r}"
            )
        hardware_id = bytes.fromhex(re.sub("[-: ]", "", digits))
    doubts = [*_doubts_about_name(catalog, csvlk, name), *doubts_about_epid(catalog, csvlk, epid)]
    warning = f"the ePID given for {name[:80]!r}: {'; '.join(doubts)}" if doubts else ""
    return Override(csvlk.key, epid, hardware_id, warning)


def _check_fits(key: str, epid: str) -> None:
    """
    @raise EPIDError: If an ePID is nothing that can be shown, or does not fit an answer.
    """
    if not epid or not epid.isprintable():
        raise EPIDError(f"the ePID for {key} must be printable text, not {epid[:80]!r}")
    units = len(epid.encode("utf-16-le")) // 2
    if units > _MAX_EPID_UNITS:
        raise EPIDError(
            f"the ePID for {key} has {units} characters where an answer has room for"
            f" {_MAX_EPID_UNITS}: {epid[:80]!r}"
        )


def _csvlk_named(catalog: Catalog, name: str) -> CSVLK:
    wanted = name.casefold()
    beginnings = [
        csvlk for csvlk in catalog.csvlks.values() if wanted.startswith(csvlk.key.casefold())
    ]
    for csvlk in beginnings:
        if csvlk.key.casefold() == wanted:
            return csvlk
    if beginnings:
        return beginnings[0]
    known = ", ".join(_answering(catalog))
    raise EPIDError(f"there is no CSVLK {name[:80]!r} to give an ePID to; there are {known}")


def _doubts_about_name(catalog: Catalog, csvlk: CSVLK, name: str) -> list[str]:
    doubts = []
    if name.casefold() != csvlk.key.casefold():
        doubts.append(f"there is no CSVLK of that name, so it is taken for {csvlk.key}")
    if csvlk.key not in _answering(catalog):
        doubts.append(f"it is never used, for {csvlk.key} answers for no product")
    return doubts


def doubts_about_epid(catalog: Catalog, csvlk: CSVLK, epid: str) -> list[str]:
    """
    Tell what in an ePID no genuine host with a key of the group would say.
    """
    try:
        pid = ExtendedPID.parse(epid)
    except EPIDError:
        return [f"{epid!r} has not the form of one"]
    if pid.group_id != csvlk.group_id:
        return [f"its group is {pid.group_id}, but that of {csvlk.key} is {csvlk.group_id}"]
    doubts = []
    if not any(first <= pid.key_id <= last for first, last in csvlk.key_id_ranges):
        doubts.append(f"group {pid.group_id} has no key id {pid.key_id} in {csvlk.key}")
    build = catalog.host_builds.get(pid.build)
    if build is not None and build.platform_id != pid.platform_id:
        doubts.append(f"the platform id of build {pid.build} is {build.platform_id:05}")
    if pid.build in csvlk.invalid_host_builds:
        doubts.append(f"build {pid.build} is too old for {csvlk.key}")
    if pid.day < csvlk.release_date or (build is not None and pid.day < build.release_date):
        doubts.append(f"on {pid.day} there was no such host yet")
    return doubts


def _answering(catalog: Catalog) -> dict[str, CSVLK]:
    """
    Gather the CSVLKs that answer for some KMS id, or for one that nobody knows.
    """
    csvlks = map(catalog.csvlk_for, (*catalog.kms_ids, _UNKNOWN))
    return {csvlk.key: csvlk for csvlk in csvlks}


def host_builds(catalog: Catalog) -> list[int]:
    """
    List the builds that are known as KMS hosts and can host every CSVLK that answers, the newest first.
    """
    return [build.build for build in _hosting(catalog, _answering(catalog).values())]


def _hosting(catalog: Catalog, csvlks: Iterable[CSVLK]) -> list[HostBuild]:
    """
    Gather the builds that are known as KMS hosts and can host some CSVLKs, the newest first.
    """
    too_old = frozenset[int]().union(*(csvlk.invalid_host_builds for csvlk in csvlks))
    return [
        build
        for build in catalog.host_builds.values()
        if build.for_epid and build.build not in too_old
    ]


class HostIdentity:
    """
    What a host says of itself: an ePID for each CSVLK, and a hardware id.

    Without more, it is derived from the installation and never changes.  L{make_identity} makes the others.

    @param catalog: The CSVLKs and host builds.
    @param installation: What the ePIDs and the hardware id are derived from.
    @param host_build: The build number that is presented.
    @param lcid: The locale that is presented.
    @param overrides: What the operator wants instead; of two for the same CSVLK the later counts.
    @param choose: Tells the ePID for a CSVLK, if it is not to be derived from the installation; the build and the
        locale then count for nothing.
    @param varies: Whether that is asked again for every answer.
    @ivar hardware_id: The hardware id of the host, 8 bytes.
    @ivar varies: Whether the ePIDs are others in every answer, so that nobody should remember them.
    @raise kmsproto.errors.CatalogError: If the build is not known.
    @raise kmsproto.kms.epid.EPIDError: If it cannot host one of the CSVLKs, or the locale id is none.
    """

    def __init__(
        self,
        catalog: Catalog,
        installation: Installation,
        *,
        host_build: int = DEFAULT_HOST_BUILD,
        lcid: int = DEFAULT_LCID,
        overrides: Iterable[Override] = (),
        choose: Callable[[CSVLK], str] | None = None,
        varies: bool = False,
    ) -> None:
        if choose is None:
            choose = _deriving(installation, catalog.host_build(host_build), lcid)
        self.hardware_id = derive_hardware_id(installation)
        self.varies = varies
        self._hardware_ids: dict[str, bytes] = {}
        self._epids: dict[str, str] = {}
        self._drawing: dict[str, Callable[[], str]] = {}
        given = {override.csvlk_key: override for override in overrides}
        for key, csvlk in _answering(catalog).items():
            override = given.get(key)
            if override is not None:
                self._epids[key] = override.epid
                self._hardware_ids[key] = override.hardware_id or self.hardware_id
            elif varies:
                self._drawing[key] = partial(choose, csvlk)
            else:
                self._epids[key] = choose(csvlk)

    def epid(self, csvlk_key: str) -> str:
        """
        Tell the ePID for a CSVLK that answers for some KMS id.
        """
        draw = self._drawing.get(csvlk_key)
        return self._epids[csvlk_key] if draw is None else draw()

    def hardware_id_for(self, csvlk_key: str) -> bytes:
        """
        Tell the hardware id for a CSVLK: its own if the operator gave one, else that of the host.

        @return: 8 bytes.
        """
        return self._hardware_ids.get(csvlk_key, self.hardware_id)


def make_identity(
    catalog: Catalog,
    installation: Installation,
    *,
    mode: str,
    host_build: int | None,
    lcid: int | None,
    ndr64: bool,
    overrides: Sequence[Override],
    entropy: Callable[[int], bytes],
    today: date,
) -> HostIdentity:
    """
    Make the identity of a host in one of the L{MODES}.

    The hardware id is that of the installation in every mode: a host that gets another key is still the same machine.

    A build that is not given is L{DEFAULT_HOST_BUILD}, or the newest that is known as a KMS host where the catalogue
    has no such build or it is too old for a key.  Where ePIDs are drawn, it is drawn: from those known as KMS hosts
    that can host the key, exist already, and use NDR64 or not as the host does.  A locale that is not given is
    L{DEFAULT_LCID}, or drawn from L{LCIDS}.  A host that draws at its start draws one build and one locale for all its
    ePIDs.

    @param catalog: The CSVLKs and host builds.
    @param installation: What the hardware id, and in the mode L{STABLE} the ePIDs, are derived from.
    @param mode: One of L{MODES}.
    @param host_build: The build number to present, or L{None}.  One that is given need not agree with C{ndr64}.
    @param lcid: The locale to present, or L{None}.
    @param ndr64: Whether the host offers NDR64.
    @param overrides: What the operator wants instead; of two for the same CSVLK the later counts.
    @param entropy: Returns as many random bytes as it is asked for.  Asked for 16 bytes: once and at once in the mode
        L{DRAWN_AT_START}, for every ePID in the mode L{DRAWN_PER_ANSWER}, else never.
    @param today: No ePID that is drawn names a later day, unless what it is about was released later.
    @raise kmsproto.errors.CatalogError: If the given build is not known.
    @raise EPIDError: If there is no such mode, no build fits, or the locale id is none.
    """
    if mode not in MODES:
        raise EPIDError(f"ePIDs come about in one of the ways {', '.join(MODES)}, not {mode!r}")
    given = {override.csvlk_key for override in overrides}
    csvlks = [csvlk for key, csvlk in _answering(catalog).items() if key not in given]
    if mode == CATALOGUE:
        csvlks = [csvlk for csvlk in csvlks if not _default_epid(csvlk)]
    known = None if host_build is None else _given_build(catalog, host_build, csvlks)
    make = partial(HostIdentity, catalog, installation, overrides=overrides)
    if not csvlks:
        # Each has its ePID from the operator or the catalogue, so it does not matter which builds there are.
        return make(choose=_default_epid)
    if mode == DRAWN_PER_ANSWER:
        alone = [[csvlk] for csvlk in csvlks]
        builds = [[known]] * len(csvlks) if known else _fitting(catalog, alone, ndr64, today)
        fitting = dict(zip((csvlk.key for csvlk in csvlks), builds, strict=True))

        def choose_anew(csvlk: CSVLK) -> str:
            drawn = Installation(entropy(INSTALLATION_IDENTIFIER_LENGTH), today)
            return _drawing(drawn, fitting[csvlk.key], lcid)(csvlk)

        # The locale id is all that could still be wrong; better now than in an answer.
        _drawing(EVERY_INSTALLATION, fitting[csvlks[0].key], lcid)(csvlks[0])
        return make(choose=choose_anew, varies=True)
    if mode == DRAWN_AT_START:
        drawn = Installation(entropy(INSTALLATION_IDENTIFIER_LENGTH), today)
        [together] = [[known]] if known else _fitting(catalog, [csvlks], ndr64, today)
        return make(choose=_drawing(drawn, together, lcid))
    source = EVERY_INSTALLATION if mode == CATALOGUE else installation
    derive = _deriving(
        source, known or _default_build(catalog, csvlks), DEFAULT_LCID if lcid is None else lcid
    )
    if mode == CATALOGUE:
        return make(choose=lambda csvlk: _default_epid(csvlk) or derive(csvlk))
    return make(choose=derive)


def _default_epid(csvlk: CSVLK) -> str:
    """
    Tell the ePID that the catalogue has for a CSVLK, or nothing.

    @raise EPIDError: If it does not fit an answer.
    """
    if csvlk.default_epid:
        _check_fits(csvlk.key, csvlk.default_epid)
    return csvlk.default_epid


def _deriving(installation: Installation, build: HostBuild, lcid: int) -> Callable[[CSVLK], str]:
    def derive(csvlk: CSVLK) -> str:
        return str(derive_epid(installation, csvlk, build, lcid))

    return derive


def _drawing(
    drawn: Installation, builds: Sequence[HostBuild], lcid: int | None
) -> Callable[[CSVLK], str]:
    """
    Let an installation that was drawn decide about build and locale as well.
    """
    build = pick(drawn, "host build", builds)
    return _deriving(drawn, build, pick(drawn, "locale id", LCIDS) if lcid is None else lcid)


def _given_build(catalog: Catalog, number: int, csvlks: Sequence[CSVLK]) -> HostBuild:
    build = catalog.host_build(number)
    stuck = [csvlk.key for csvlk in csvlks if number in csvlk.invalid_host_builds]
    if stuck:
        newer = ", ".join(str(each.build) for each in _hosting(catalog, csvlks)) or "there is none"
        raise EPIDError(
            f"host build {number} ({build.name}) is too old for a host key of {', '.join(stuck)}:"
            f" choose a newer one ({newer}), or give an ePID for each of these"
        )
    return build


def _default_build(catalog: Catalog, csvlks: Sequence[CSVLK]) -> HostBuild:
    default = catalog.host_builds.get(DEFAULT_HOST_BUILD)
    if default and not any(default.build in csvlk.invalid_host_builds for csvlk in csvlks):
        return default
    fitting = _hosting(catalog, csvlks)
    if not fitting:
        raise EPIDError(
            f"{catalog.source} has no build known as a KMS host that can have a host key of"
            f" {', '.join(csvlk.key for csvlk in csvlks)}: choose a host build, or give an ePID for each of these"
        )
    return fitting[0]


def _fitting(
    catalog: Catalog, groups: Sequence[Sequence[CSVLK]], ndr64: bool, today: date
) -> list[list[HostBuild]]:
    """
    Gather the builds to draw from.

    @param groups: CSVLKs that one build must be able to host together.
    @return: Some builds for each group.
    @raise EPIDError: If there are none for one.
    """

    def find(csvlks: Sequence[CSVLK]) -> list[HostBuild]:
        return [build for build in _hosting(catalog, csvlks) if build.uses_ndr64 == ndr64]

    found = [find(group) for group in groups]
    if not all(found):
        csvlks = [csvlk for group in groups for csvlk in group]
        stuck = [csvlk for csvlk in csvlks if not find([csvlk])] or csvlks
        uses, change = ("uses", "off") if ndr64 else ("does not use", "on")
        raise EPIDError(
            f"{catalog.source} has no build known as a KMS host that {uses} NDR64 and can have a host key of"
            f" {', '.join(csvlk.key for csvlk in stuck)}: turn NDR64 {change}, choose a host build, or give an ePID for"
            " each of these"
        )
    # A clock that is behind all of them is wrong, and no reason not to start.
    return [
        [build for build in builds if build.release_date <= today] or builds for builds in found
    ]
