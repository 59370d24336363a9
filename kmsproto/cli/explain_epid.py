"""
C{kmsproto explain epid}: an extended PID taken apart, and what in it no genuine host would say.

Source: "KMS messages, versions 4, 5 and 6", section "The extended PID"; the catalogue.
"""

from __future__ import annotations

import locale
from dataclasses import dataclass
from datetime import date
from typing import Any

from kmsproto.kms.catalog import CSVLK, Catalog
from kmsproto.kms.epid import ExtendedPID
from kmsproto.kms.identity import doubts_about_epid
from kmsproto.kms.plausibility import csvlks_of


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of an extended PID.

    @ivar name: What it is called.
    @ivar text: How it is written.
    @ivar meaning: What it says.
    """

    name: str
    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class EPIDReport:
    """
    What there is to say about an extended PID.

    @ivar pid: What it says.
    @ivar parts: Its parts, in their order.
    @ivar csvlks: The host keys that it may come from.
    @ivar warnings: What no genuine host would say.
    """

    pid: ExtendedPID
    parts: tuple[Part, ...]
    csvlks: tuple[CSVLK, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.
        """
        return {
            "epid": str(self.pid),
            "platform_id": self.pid.platform_id,
            "group_id": self.pid.group_id,
            "key_id": self.pid.key_id,
            "lcid": self.pid.lcid,
            "build": self.pid.build,
            "activated": self.pid.day.isoformat(),
            "parts": [
                {"name": part.name, "text": part.text, "meaning": part.meaning}
                for part in self.parts
            ],
            "csvlks": [csvlk.key for csvlk in self.csvlks],
            "warnings": list(self.warnings),
        }


def explain_epid(text: str, catalog: Catalog, today: date) -> EPIDReport:
    """
    Take an extended PID apart.

    @param today: No host was activated later.
    @raise kmsproto.kms.epid.EPIDError: If it has not the form of one.
    """
    pid = ExtendedPID.parse(text)
    platform, group, high, low, channel, lcid, build, day = text.split("-")
    csvlks = tuple(csvlks_of(catalog, pid))
    parts = (
        Part("platform id", platform, _platform(catalog, pid)),
        Part("group id", group, _named(csvlks) or "no host key has it"),
        Part("key id", f"{high}-{low}", _key_id(pid, csvlks)),
        Part("licence channel", channel, "volume licence"),
        Part("locale id", lcid, locale.windows_locale.get(pid.lcid, "not known")),
        Part("build", build, _build(catalog, pid)),
        Part("activated", day, f"{pid.day.isoformat()}: day {int(day[:3])} of {pid.day.year}"),
    )
    return EPIDReport(pid, parts, csvlks, tuple(_warnings(pid, text, catalog, csvlks, today)))


def _named(csvlks: tuple[CSVLK, ...]) -> str:
    return " or ".join(f"{csvlk.name} ({csvlk.key})" for csvlk in csvlks)


def _platform(catalog: Catalog, pid: ExtendedPID) -> str:
    builds = [
        str(build.build)
        for build in catalog.host_builds.values()
        if build.platform_id == pid.platform_id
    ]
    return f"that of the builds {', '.join(builds)}" if builds else "no build has it"


def _key_id(pid: ExtendedPID, csvlks: tuple[CSVLK, ...]) -> str:
    said = [
        f"in the range {first} to {last} of {csvlk.key}"
        for csvlk in csvlks
        for first, last in csvlk.key_id_ranges
        if first <= pid.key_id <= last
    ]
    return f"{pid.key_id}, " + (" and ".join(said) or "in no range of a host key of the group")


def _build(catalog: Catalog, pid: ExtendedPID) -> str:
    build = catalog.host_builds.get(pid.build)
    if build is None:
        return "not in the catalogue"
    note = "" if build.for_epid else "; not known as a KMS host"
    return f"{build.name}, released {build.release_date.isoformat()}{note}"


def _warnings(
    pid: ExtendedPID, text: str, catalog: Catalog, csvlks: tuple[CSVLK, ...], today: date
) -> list[str]:
    build = catalog.host_builds.get(pid.build)
    if csvlks:
        # Where the ranges of several keys have room for it, it is that of the key that it suits best.
        warnings = min((doubts_about_epid(catalog, csvlk, text) for csvlk in csvlks), key=len)
    else:
        warnings = [f"no host key has the group id {pid.group_id}"]
        if build is not None and build.platform_id != pid.platform_id:
            warnings.append(f"the platform id of build {pid.build} is {build.platform_id:05}")
        if build is not None and pid.day < build.release_date:
            warnings.append(f"on {pid.day} there was no such host yet")
    if build is None:
        warnings.append(f"build {pid.build} is not in the catalogue")
    if pid.lcid not in locale.windows_locale:
        warnings.append(f"no language has the locale id {pid.lcid}")
    if pid.day > today:
        warnings.append(f"{pid.day} is still to come")
    return warnings
