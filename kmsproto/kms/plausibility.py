"""
What an answer says, judged by what is known of genuine hosts: the ePID, the count, the intervals.

Nothing here makes an answer invalid: that is for L{kmsproto.kms.verification}.  But a client or an administrator may
wonder about a host whose ePID belongs to another product, or that nobody could have activated on the day it names.

Source: "KMS messages, versions 4, 5 and 6", sections "The extended PID" and "What a host answers"; the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from kmsproto.findings import Finding, Severity
from kmsproto.kms.catalog import CSVLK, Catalog
from kmsproto.kms.epid import EPIDError, ExtendedPID
from kmsproto.kms.identity import doubts_about_epid
from kmsproto.kms.messages import MAX_N_POLICY, RequestBody, ResponseBody, posix_seconds

#: Minutes that the two intervals of an answer may have: 15 minutes to 30 days.
INTERVALS = range(15, 43200 + 1)
_SOURCE = "KMS messages: {}"


def examine_answer(
    body: ResponseBody, hardware_id: bytes, request: RequestBody, catalog: Catalog
) -> Iterator[Finding]:
    """
    Look at an answer that passed every check.

    @param body: What the host says.
    @param hardware_id: Its hardware id; empty before version 6.
    @param request: What it was asked.
    @param catalog: What is known of products, host keys and host builds.
    """
    source = _SOURCE.format("The extended PID")
    for doubt in _doubts(body.epid, request, catalog):
        yield Finding("ePID", Severity.WARNING, doubt, source)
    source = _SOURCE.format("The response body")
    if not body.client_count:
        yield Finding(
            "count",
            Severity.WARNING,
            "the count is 0, though it includes the client that asked",
            _SOURCE.format("What a host answers"),
        )
    csvlk = catalog.csvlk_for(request.kms_id)
    if body.client_count > max(2 * request.n_policy, csvlk.minimum_active_clients):
        yield Finding(
            "count",
            Severity.NOTE,
            f"the count is {body.client_count}, where a host counts no more than twice the N policy"
            f" of {request.n_policy}",
            _SOURCE.format("What a host answers"),
        )
    if request.n_policy > MAX_N_POLICY:
        yield Finding(
            "N policy",
            Severity.WARNING,
            f"an N policy of {request.n_policy} was granted, though it is over {MAX_N_POLICY}",
            _SOURCE.format("What a host answers"),
        )
    for name, minutes in (
        ("activation interval", body.activation_interval),
        ("renewal interval", body.renewal_interval),
    ):
        if minutes not in INTERVALS:
            yield Finding(
                name,
                Severity.WARNING,
                f"the {name} is {minutes} minutes, which is not within 15 minutes and 30 days",
                source,
            )
    if hardware_id and not any(hardware_id):
        yield Finding("hardware id", Severity.NOTE, "the hardware id is zero", source)


def csvlks_of(catalog: Catalog, pid: ExtendedPID) -> list[CSVLK]:
    """
    List the key groups that an ePID may belong to: those of its group id whose key ids have room for its own; if there
    are none, all of its group id.
    """
    group = [csvlk for csvlk in catalog.csvlks.values() if csvlk.group_id == pid.group_id]
    fitting = [
        csvlk
        for csvlk in group
        if any(first <= pid.key_id <= last for first, last in csvlk.key_id_ranges)
    ]
    return fitting or group


def _doubts(epid: str, request: RequestBody, catalog: Catalog) -> list[str]:
    try:
        pid = ExtendedPID.parse(epid)
    except EPIDError:
        return ["the ePID has not the form of one"]
    csvlks = csvlks_of(catalog, pid)
    if not csvlks:
        return [f"no key group has the group id {pid.group_id}"]
    answering = catalog.csvlk_for(request.kms_id)
    activating = [csvlk for csvlk in csvlks if request.kms_id in (csvlk.kms_ids or ())]
    known = any(csvlk.kms_ids is not None for csvlk in csvlks)
    if catalog.kms_id(request.kms_id) is None or answering in csvlks or activating or not known:
        csvlk = next(
            iter([*activating, *(each for each in csvlks if each == answering)]), csvlks[0]
        )
        doubts = doubts_about_epid(catalog, csvlk, epid)
        # A day more, for the host may be where the day has begun already.
        today = posix_seconds(request.client_time) // 86400 + 1
        if (pid.day - date(1970, 1, 1)).days > today:
            doubts.append(f"{pid.day}, the day of activation, has not come yet")
        return doubts
    name = catalog.kms_id_name(request.kms_id)
    return [f"the ePID belongs to {csvlks[0].name}, whose keys do not activate {name}"]
