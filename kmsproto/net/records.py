"""
The wording of what happens on a host: the same facts as C{name=value} fields, or as a JSON object.

A class words everything in one form; which one a host uses is decided once, so that no line pays for a form in which
it is not written.  What an operator does not want to keep is taken out of the facts before they are worded
(L{mask_peer}, L{mask_answer}), and so cannot get into a line whatever its form.

JSON is written in ASCII.  Everything else is an escape there, and so are the control characters of ASCII, so no text
of a peer can end a line, turn its direction or be no text in some encoding.  Half a surrogate pair, which strict
readers refuse even as an escape, is written out as in Python: a backslash, C{u} and four digits.  An object about an
answer is put together from pieces, of which those that say what product it is about are remembered.

The facts about a request are those that Microsoft's host writes as event 12290, and what else there is to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from json import JSONEncoder
from typing import Protocol
from uuid import UUID

from twisted.internet.interfaces import IReactorTime

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.host import Answer
from kmsproto.kms.messages import LICENCE_STATUSES, RequestBody
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.access import CLIENTS, LOCAL_PEER
from kmsproto.net.noise import Suppressed
from kmsproto.net.quoting import quote

#: What is written in the place of a name that is masked.
MASKED = "***"
#: Bits of an address that a mask leaves, for IPv4 and IPv6: the network of a site.
MASK_BITS = (24, 48)
#: Products that are remembered: a network has few, and each of them is written again and again.
PRODUCTS = 1024

_encode = JSONEncoder().encode
#: FILETIME 0.
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_STEPS_PER_MICROSECOND = 10


class Lines(Protocol):
    """
    Words what happens, in some form; a line has no time of its own unless its form says so, and no end.
    """

    def answer(self, peer: Peer, answer: Answer, started: float | None) -> str:
        """
        Word that a request was answered.

        @param started: When its last byte was taken, in the seconds of the clock, if that is known.
        """

    def faulted(self, peer: Peer, status: int, problem: str) -> str:
        """
        Word that a call was answered with a fault.
        """

    def closed(self, peer: Peer, reason: str) -> str:
        """
        Word that a connection was closed for a reason.
        """

    def turned_away(self, peer: Peer, reason: str) -> str:
        """
        Word that a peer was refused before any byte was answered.
        """

    def suppressed(self, suppressed: Suppressed) -> str:
        """
        Word that lines were not written.
        """


#: Words an answer: L{Lines.answer}, and what is made of it.
Describe = Callable[[Peer, Answer, float | None], str]
#: Tells the ePID that answers for a KMS counted id.
EPIDOf = Callable[[UUID], str]


class TextLines:
    """
    Fields as text: the facts that an operator looks for.

    @param catalog: Knows the names of products; what it does not know is written as a GUID.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._describe_product = lru_cache(maxsize=PRODUCTS)(self._word_product)

    def answer(self, peer: Peer, answer: Answer, started: float | None) -> str:
        """
        Word that a request was answered.
        """
        hresult, _, request, grant, problem = answer
        if request is None:
            return f"refused {who(peer)} hresult=0x{hresult:08X} reason={quote(problem)}"
        what = (
            f"version={request.major_version}"
            f" {self._describe_product(request.sku_id, request.application_id)}"
            f" workstation={quote(request.workstation)} cmid={request.client_machine_id!s}"
        )
        if grant is None:
            return f"refused {who(peer)} hresult=0x{hresult:08X} {what}"
        return f"granted {who(peer)} {what} count={grant.client_count}"

    def faulted(self, peer: Peer, status: int, problem: str) -> str:
        """
        Word that a call was answered with a fault.
        """
        return f"faulted {who(peer)} status=0x{status:08X} reason={quote(problem)}"

    def closed(self, peer: Peer, reason: str) -> str:
        """
        Word that a connection was closed for a reason.
        """
        return f"closed {who(peer)} reason={quote(reason)}"

    def turned_away(self, peer: Peer, reason: str) -> str:
        """
        Word that a peer was refused before any byte was answered.
        """
        return f"turned away {who(peer)} reason={quote(reason)}"

    def suppressed(self, suppressed: Suppressed) -> str:
        """
        Word that lines were not written.
        """
        return (
            f"suppressed count={suppressed.count} addresses={suppressed.addresses}"
            f" since={utc(suppressed.since)}"
        )

    def _word_product(self, sku_id: UUID, application_id: UUID) -> str:
        product = quote(self._catalog.sku_name(sku_id))
        application = quote(self._catalog.application_name(application_id))
        return f"product={product} application={application}"


class VerboseTextLines(TextLines):
    """
    Fields as text, with all that a request and its answer say.

    @param catalog: Knows the names of products.
    @param epid_of: Tells the ePID that answers; without it, that is not written.
    """

    def __init__(self, catalog: Catalog, epid_of: EPIDOf | None = None) -> None:
        super().__init__(catalog)
        self._epid_of = epid_of

    def answer(self, peer: Peer, answer: Answer, started: float | None) -> str:
        """
        Word that a request was answered: the usual line, and then the rest.
        """
        line = super().answer(peer, answer, started)
        request, grant = answer.request, answer.grant
        if request is None:
            return line
        status = quote(status_name(request.licence_status))
        line += (
            f" sku_id={request.sku_id} application_id={request.application_id}"
            f" kms={quote(self._catalog.kms_id_name(request.kms_id))} kms_id={request.kms_id}"
            f" previous_cmid={request.previous_client_machine_id} n_policy={request.n_policy}"
            f" client_time={client_time(request.client_time)}"
            f" virtual_machine={'yes' if request.is_virtual_machine else 'no'}"
            f" license_status={request.licence_status} license_status_name={status}"
            f" minutes_left={request.binding_expiration}"
        )
        if grant is None:
            return line
        if self._epid_of is not None:
            line += f" epid={quote(self._epid_of(request.kms_id))}"
        return (
            f"{line} activation_interval={grant.activation_interval}"
            f" renewal_interval={grant.renewal_interval}"
        )


class JSONLines:
    """
    JSON objects with all facts, the time among them.

    @param catalog: Knows the names of products.
    @param clock: The source of time.
    @param epid_of: Tells the ePID that answers; without it, that is not written.
    """

    def __init__(
        self, catalog: Catalog, clock: IReactorTime, epid_of: EPIDOf | None = None
    ) -> None:
        self._catalog = catalog
        self._seconds = clock.seconds
        self._epid_of = epid_of
        self._describe_product = lru_cache(maxsize=PRODUCTS)(self._word_product)

    def answer(self, peer: Peer, answer: Answer, started: float | None) -> str:
        """
        Word that a request was answered.
        """
        hresult, _, request, grant, problem = answer
        now = self._seconds()
        cost = "" if started is None else f',"cost_us":{max(round((now - started) * 1e6), 0)}'
        name = "refusal" if grant is None else "activation"
        head = f'{_head(now, name, peer)},"hresult":"0x{hresult:08X}"'
        if request is None:
            return f'{head},"reason":{json_text(problem)}{cost}}}'
        return f"{head}{self._request(request)}{self._grant(request, grant)}{cost}}}"

    def faulted(self, peer: Peer, status: int, problem: str) -> str:
        """
        Word that a call was answered with a fault.
        """
        head = _head(self._seconds(), "fault", peer)
        return f'{head},"status":"0x{status:08X}","reason":{json_text(problem)}}}'

    def closed(self, peer: Peer, reason: str) -> str:
        """
        Word that a connection was closed for a reason.
        """
        return f'{_head(self._seconds(), "closed", peer)},"reason":{json_text(reason)}}}'

    def turned_away(self, peer: Peer, reason: str) -> str:
        """
        Word that a peer was refused before any byte was answered.
        """
        return f'{_head(self._seconds(), "turned_away", peer)},"reason":{json_text(reason)}}}'

    def suppressed(self, suppressed: Suppressed) -> str:
        """
        Word that lines were not written.
        """
        return (
            f'{{"time":"{utc(self._seconds())}","event":"suppressed","count":{suppressed.count}'
            f',"addresses":{suppressed.addresses},"since":"{utc(suppressed.since)}"}}'
        )

    def _request(self, request: RequestBody) -> str:
        status, previous = request.licence_status, request.previous_client_machine_id
        return (
            f',"version":{request.major_version}'
            f"{self._describe_product(request.sku_id, request.kms_id, request.application_id)}"
            f',"workstation":{json_text(request.workstation)}'
            f',"cmid":"{request.client_machine_id}"'
            f',"previous_cmid":{_optional(previous)},"n_policy":{request.n_policy}'
            f',"client_time":"{client_time(request.client_time)}"'
            f',"virtual_machine":{"true" if request.is_virtual_machine else "false"}'
            f',"license_status":{{"number":{status},"name":"{status_name(status)}"}}'
            f',"minutes_left":{request.binding_expiration}'
        )

    def _grant(self, request: RequestBody, grant: Grant | None) -> str:
        if grant is None:
            return ""
        epid_of = self._epid_of
        epid = "" if epid_of is None else f',"epid":{json_text(epid_of(request.kms_id))}'
        return (
            f',"answer":{{"count":{grant.client_count}{epid}'
            f',"activation_interval":{grant.activation_interval}'
            f',"renewal_interval":{grant.renewal_interval}}}'
        )

    def _word_product(self, sku_id: UUID, kms_id: UUID, application_id: UUID) -> str:
        return "".join(
            f',"{field}":{{"id":"{guid}","name":{json_text(name)}}}'
            for field, guid, name in (
                ("sku", sku_id, self._catalog.sku_name(sku_id)),
                ("kms", kms_id, self._catalog.kms_id_name(kms_id)),
                ("application", application_id, self._catalog.application_name(application_id)),
            )
        )


def without_grants(describe: Describe) -> Describe:
    """
    Leave out the lines about what was granted: they are empty.
    """

    def describe_refusal(peer: Peer, answer: Answer, started: float | None) -> str:
        return describe(peer, answer, started) if answer.grant is None else ""

    return describe_refusal


def masked(describe: Describe) -> Describe:
    """
    Leave out of the lines about answers who it was.
    """

    def describe_masked(peer: Peer, answer: Answer, started: float | None) -> str:
        return describe(mask_peer(peer), mask_answer(answer), started)

    return describe_masked


def mask_peer(peer: Peer) -> Peer:
    """
    Leave of an address only the network of the site.
    """
    return Peer(_mask_address(peer.address), peer.port)


def mask_answer(answer: Answer) -> Answer:
    """
    Take the name of the machine out of what was asked, and what stands behind the name.
    """
    request = answer.request
    if request is None:
        return answer
    return answer._replace(request=request._replace(workstation=MASKED, remains=b""))


@lru_cache(maxsize=CLIENTS)
def _mask_address(address: str) -> str:
    if address == LOCAL_PEER.address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return MASKED
    bits = MASK_BITS[0] if isinstance(parsed, IPv4Address) else MASK_BITS[1]
    return str(ip_network((int(parsed).to_bytes(parsed.max_prefixlen // 8, "big"), bits), False))


def who(peer: Peer) -> str:
    """
    Write a peer as fields.
    """
    return f"peer={peer.address} port={peer.port}"


def _head(now: float, name: str, peer: Peer) -> str:
    """
    Begin an object about a peer.
    """
    return (
        f'{{"time":"{utc(now)}","event":"{name}"'
        f',"peer":{{"address":{json_text(peer.address)},"port":{peer.port}}}'
    )


def json_text(text: str) -> str:
    """
    Write a text in JSON, all in ASCII that prints.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _encode(text).replace("\x7f", r"\u007f")


def json_object(**fields: str | int) -> str:
    """
    Write an object of texts and numbers.
    """
    return "".join(
        (
            "{",
            ",".join(
                f'"{name}":{json_text(value) if isinstance(value, str) else value}'
                for name, value in fields.items()
            ),
            "}",
        )
    )


def status_name(status: int) -> str:
    """
    Tell the name of a licence status.
    """
    return LICENCE_STATUSES[status] if 0 <= status < len(LICENCE_STATUSES) else "unknown"


def utc(seconds: float) -> str:
    """
    Write a time: ISO 8601, in UTC, with milliseconds.

    @param seconds: POSIX seconds.
    """
    milliseconds = int(seconds * 1000)
    return f"{_whole(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _whole(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def client_time(value: int) -> str:
    """
    Write the time of a client, as L{utc} does; one that no calendar has, as a number behind C{filetime:}.

    @param value: FILETIME.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=value // _STEPS_PER_MICROSECOND)
    except OverflowError:
        return f"filetime:{value}"
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


def _optional(guid: UUID) -> str:
    return f'"{guid}"' if guid.int else "null"
