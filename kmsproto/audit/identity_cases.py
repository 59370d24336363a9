"""
Cases about what a host says of itself, and whether it says the same to everybody.

Source: "KMS messages, versions 4, 5 and 6", section "The extended PID".
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from kmsproto.audit.kms_cases import granted
from kmsproto.audit.link import Link
from kmsproto.audit.model import (
    Case,
    Level,
    NotApplicableError,
    Script,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import PLAIN, PLAIN64
from kmsproto.audit.subject import Subject
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.epid import EPIDError, ExtendedPID
from kmsproto.kms.messages import posix_seconds
from kmsproto.kms.plausibility import examine_answer
from kmsproto.rpc.pdu import NDR, NDR64

_SOURCE = "KMS messages, versions 4, 5 and 6"
_STICKS = (
    "A host has one key and one machine, so it says the same of itself to every client, on every connection and in"
    " every version."
)


def _epid(subject: Subject) -> Script[str]:
    link = Link(subject)
    yield from link.bound()
    body, _, _ = yield from granted(link)
    return body.epid


@define(
    "identity.form",
    "KMS",
    Level.SHOULD,
    "the form of the ePID",
    "An extended PID is written PPPPP-GGGGG-KKK-KKKKKK-03-LCID-BUILD.0000-DDDYYYY, all of it digits.",
    _SOURCE,
)
def _form(subject: Subject) -> Script[Verdict]:
    text = yield from _epid(subject)
    try:
        ExtendedPID.parse(text)
    except EPIDError:
        return failed(f"calls itself {text!r}")
    return passed(f"calls itself {text}")


@define(
    "identity.plausible",
    "KMS",
    Level.HYGIENE,
    "whether the ePID can be that of a host",
    "The parts of an extended PID fit together: the platform id belongs to the host build, the group and key id to a"
    " host key for the product, and the day of activation lies between both releases and today.",
    _SOURCE,
)
def _plausible(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    body, hardware_id, _ = yield from granted(link)
    text = body.epid
    try:
        parts = ExtendedPID.parse(text)
    except EPIDError:
        raise NotApplicableError("calls itself what is no extended PID") from None
    doubts = [
        found.problem
        for found in examine_answer(body, hardware_id, subject.request, subject.catalog)
        if found.rule == "ePID"
    ]
    doubts += _further_doubts(parts, subject.catalog, _day(subject))
    if doubts:
        return failed(f"calls itself {text}: {'; '.join(doubts)}")
    if parts.build not in subject.catalog.host_builds:
        return noted(f"calls itself {text}, of a build that we do not know")
    return passed(f"calls itself {text}, which fits together")


def _day(subject: Subject) -> date | None:
    """
    The day of the client; L{None} if no calendar has it.
    """
    try:
        return datetime.fromtimestamp(posix_seconds(subject.request.client_time), UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


def _further_doubts(parts: ExtendedPID, catalog: Catalog, today: date | None) -> list[str]:
    """
    Say what does not fit the world outside of the catalogue's keys.
    """
    doubts = []
    build = catalog.host_builds.get(parts.build)
    if build is not None and build.may_be_server is False:
        doubts.append(f"there is no server of build {parts.build}")
    # A day of grace, for the zone of the host.
    if today is not None and parts.day > today + timedelta(days=1):
        doubts.append("it was activated in the future")
    return doubts


@define(
    "identity.connections", "KMS", Level.SHOULD, "the ePID on three connections", _STICKS, _SOURCE
)
def _connections(subject: Subject) -> Script[Verdict]:
    said = []
    for number in range(3):
        link = Link(subject, number)
        yield from link.bound()
        body, _, _ = yield from granted(link)
        said.append(body.epid)
        yield from link.part()
    return _same(said, "on another connection")


@define("identity.versions", "KMS", Level.SHOULD, "the ePID in each version", _STICKS, _SOURCE)
def _versions(subject: Subject) -> Script[Verdict]:
    said: list[str] = []
    syntaxes = [(PLAIN, NDR)] + [(PLAIN64, NDR64)] * subject.ndr64
    for offered, syntax in syntaxes:
        for version in (4, 5, 6):
            link = Link(subject, len(said))
            yield from link.bound(offered)
            body, _, _ = yield from granted(link, version, offered.context, syntax)
            said.append(body.epid)
            yield from link.part()
    return _same(said, "in another version or transfer syntax")


def _same(said: list[str], where: str) -> Verdict:
    other = next((each for each in said if each != said[0]), None)
    if other is None:
        return passed("said the same each time")
    return failed(f"calls itself {said[0]!r}, and {where} {other!r}")


@define(
    "identity.hardware-id",
    "KMS",
    Level.SHOULD,
    "the hardware id",
    "Answers of version 6 have the host's hardware id: always the same, and not zero.",
    _SOURCE,
)
def _hardware_id(subject: Subject) -> Script[Verdict]:
    said = []
    for number in range(3):
        link = Link(subject, number)
        yield from link.bound()
        _, hardware_id, _ = yield from granted(link, 6)
        said.append(hardware_id.hex().upper())
        yield from link.part()
    if not any(bytes.fromhex(said[0])):
        return failed(f"has the hardware id {said[0] or 'of no bytes'}")
    return _same(said, "another time")


CASES: tuple[Case, ...] = (_form, _plausible, _connections, _versions, _hardware_id)
