"""
All cases, the choice among them, and the first acquaintance with a host.

Sources: "How a correct connection-oriented DCE/RPC server behaves", "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from kmsproto.audit import (
    alter_cases,
    bind_cases,
    connection_cases,
    context_cases,
    fault_cases,
    fragment_cases,
    header_cases,
    identity_cases,
    kms_cases,
    management_cases,
    other_cases,
    request_cases,
)
from kmsproto.audit.link import Link, read_answer
from kmsproto.audit.model import Area, Case, Script
from kmsproto.audit.packets import MANAGEMENT, PLAIN, PLAIN64, STRANGER, bind, element
from kmsproto.audit.replies import Closed, Received, Reply, Silence
from kmsproto.audit.subject import Subject
from kmsproto.errors import (
    BindRefusedError,
    HostTimeoutError,
    HostUnreachableError,
    RemoteProtocolError,
)
from kmsproto.rpc.numbers import WHOLE, BindNakReason, ContextResult, PacketFlag
from kmsproto.rpc.pdu import NDR, BindAck, bind_time_features

#: All cases, in the order in which they are tried.
CASES: tuple[Case, ...] = (
    *header_cases.CASES,
    *bind_cases.CASES,
    *context_cases.CASES,
    *alter_cases.CASES,
    *request_cases.CASES,
    *fault_cases.CASES,
    *fragment_cases.CASES,
    *other_cases.CASES,
    *kms_cases.CASES,
    *identity_cases.CASES,
    *connection_cases.CASES,
    *management_cases.CASES,
)


def choose(areas: Collection[Area] = (), names: Iterable[str] = ()) -> tuple[Case, ...]:
    """
    Choose cases, in their order; all of them where nothing is chosen.

    @param areas: Areas of which all cases are wanted.
    @param names: Names of cases, or numbers of rows.
    @raise ValueError: If there is no case of such a name.
    """
    wanted = set(names)
    unknown = wanted - {case.name for case in CASES} - {case.row for case in CASES}
    if unknown:
        raise ValueError(f"there is no case {min(unknown)!r}; --list shows all")
    if not areas and not wanted:
        return CASES
    return tuple(
        case for case in CASES if case.area in areas or case.name in wanted or case.row in wanted
    )


def meet(subject: Subject) -> Script[Subject]:
    """
    Learn what an ordinary exchange tells of a host.

    @return: The subject, with that.
    @raise KMSProtoError: If there is nothing that can be audited.
    """
    link = Link(subject)
    yield from link.connect()
    offered = (PLAIN, PLAIN64, element(2, bind_time_features(3)))
    reply = yield from link.exchange(bind(*offered, flags=WHOLE | PacketFlag.CONC_MPX))
    _, ndr64, features = _acknowledged(reply, len(offered)).results
    yield from link.close()
    subject = replace(
        subject,
        ndr64=ndr64.result == ContextResult.ACCEPTANCE,
        features=features.result == ContextResult.NEGOTIATE_ACK,
    )
    hresult, single_call = yield from _ordinary_call(subject)
    subject = replace(subject, hresult=hresult, single_call=single_call)
    return replace(subject, management=(yield from _has_management(subject)))


def _acknowledged(reply: Reply, count: int) -> BindAck:
    """
    @raise KMSProtoError: If a reply does not acknowledge an ordinary bind.
    """
    if isinstance(reply, Silence):
        raise HostTimeoutError(
            f"the host did not answer the bind within {reply.seconds:g} seconds; check that it is a KMS host, and"
            " for a firewall in between, or allow it more --timeout"
        )
    if isinstance(reply, Closed):
        raise HostUnreachableError(
            "the host closed the connection before it answered; check that it serves this address"
        )
    ack = reply.ack if isinstance(reply, Received) else None
    if isinstance(reply, Received) and (reason := reply.nak_reason) is not None:
        raise BindRefusedError(reason, BindNakReason.describe(reason))
    if ack is None or len(ack.results) != count:
        raise RemoteProtocolError(
            "what answers there does not speak DCE/RPC; check that it is a KMS host"
        )
    return ack


def _ordinary_call(subject: Subject) -> Script[tuple[int, bool]]:
    """
    Ask what every case asks; whoever does not answer that fails cases enough.

    @return: The HRESULT, and whether the host closes the connection behind it.
    """
    link = Link(subject)
    yield from link.connect()
    yield from link.send(bind(PLAIN))
    if (yield from _ack_of(link)) is None:
        return 0, False
    sent, call = link.make_call()
    reply = yield from link.exchange(sent)
    response = reply.response if isinstance(reply, Received) else None
    if not isinstance(reply, Received) or response is None:
        return 0, False
    closes = isinstance((yield from link.quiet()), Closed)
    yield from link.close()
    try:
        return read_answer(reply.header, response.stub, call.syntax)[1], closes
    except RemoteProtocolError:
        return 0, closes


def _has_management(subject: Subject) -> Script[bool]:
    """
    Ask whether there is a management interface; a host that has every interface has none.
    """
    link = Link(subject)
    yield from link.connect()
    yield from link.send(
        bind(PLAIN, element(1, NDR, abstract=MANAGEMENT), element(2, NDR, abstract=STRANGER))
    )
    ack = yield from _ack_of(link)
    yield from link.close()
    if ack is None or len(ack.results) != 3:
        return False
    return [each.result == ContextResult.ACCEPTANCE for each in ack.results[1:]] == [True, False]


def _ack_of(link: Link) -> Script[BindAck | None]:
    reply = yield from link.reply()
    return reply.ack if isinstance(reply, Received) else None
