"""
All cases, the choice among them, and the first acquaintance with a host.

Sources: "How a correct connection-oriented DCE/RPC server behaves", "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

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
    ContextRefusedError,
    HostTimeoutError,
    HostUnreachableError,
    RemoteProtocolError,
)
from kmsproto.rpc.numbers import (
    WHOLE,
    BindNakReason,
    ContextResult,
    PacketFlag,
    PacketType,
    ProviderReason,
)
from kmsproto.rpc.pdu import NDR, BindAck, bind_time_features

#: Seconds that a host has to serve a second connection while a first one is open, at least, before the first is closed.
_NEIGHBOUR = 2.0
#: The verdict of a server about an interface that it does not know.
_NO_INTERFACE = (ContextResult.PROVIDER_REJECTION, ProviderReason.ABSTRACT_SYNTAX_NOT_SUPPORTED)
#: How often a host is asked again that closed a connection at once, for it may not know yet that another had ended.
_TRIES = 3

#: All cases, in the order of the reports.  They are tried in that of L{in_order}.
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

#: Cases that a host is known not to have survived, and what it stumbled over.  They are tried last, in this order, so
#: that whatever else can be learned of such a host is learned before.
PERILOUS: Mapping[str, str] = MappingProxyType(
    {
        "header.short-request": "the answer is made of what the memory of the host happens to hold",
        "fragments.too-much": "a host without a limit keeps all of it in memory",
        "header.big-endian-bind": "read in the wrong byte order, the length promises more than comes; a host may ask"
        " for the rest even when the client is gone, and serve nobody any more",
        "header.big-endian-request": "the same",
        "header.big-endian-fault": "the same",
        "header.big-endian-ndr64": "the same",
        "fragments.byte-order": "the same",
        "connection.stalled-neighbour": "the same, of a client that leaves in the middle of a PDU",
        "connection.broken": "the same",
        "bind.first-request-65535": "the id can be the host's own mark for a context that is not there",
        "bind.first-request-65535-ndr64": "the same, with a stub that passes a check of its size and is read as NDR",
        "bind.shared-id": "the stub is checked in the one transfer syntax and read in the other, so that the version is"
        " taken from elsewhere, and leads out of a table",
    }
)


def in_order(cases: Iterable[Case]) -> list[Case]:
    """
    Put cases into the order in which they are tried: those last that hosts are known not to survive.
    """
    places = {name: place for place, name in enumerate(PERILOUS, 1)}
    return sorted(cases, key=lambda case: places.get(case.name, 0))


def choose(
    areas: Collection[Area] = (), names: Iterable[str] = (), *, spare: bool = False
) -> tuple[Case, ...]:
    """
    Choose cases, in their order; all of them where nothing is chosen.

    @param areas: Areas of which all cases are wanted.
    @param names: Names of cases, or numbers of rows.
    @param spare: Whether those of L{PERILOUS} are not wanted.
    @raise ValueError: If there is no case of such a name, or none is left.
    """
    wanted = set(names)
    unknown = wanted - {case.name for case in CASES} - {case.row for case in CASES}
    if unknown:
        raise ValueError(f"there is no case {min(unknown)!r}; --list shows all")
    chosen = tuple(
        case
        for case in CASES
        if not (areas or wanted) or case.area in areas or case.name in wanted or case.row in wanted
    )
    if not spare:
        return chosen
    harmless = tuple(case for case in chosen if case.name not in PERILOUS)
    if not harmless:
        raise ValueError(f"{chosen[0].name} may end the host, and nothing else is chosen")
    return harmless


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
    ndr, ndr64, features = acknowledged(reply, len(offered)).results
    yield from link.part()
    if all((each.result, each.reason) == _NO_INTERFACE for each in (ndr, ndr64)):
        raise ContextRefusedError(
            "a DCE/RPC server answers there, but it does not serve the interface of KMS; check the port"
        )
    subject = replace(
        subject,
        ndr64=ndr64.result == ContextResult.ACCEPTANCE,
        features=features.result == ContextResult.NEGOTIATE_ACK,
    )
    hresult, single_call = yield from _ordinary_call(subject)
    subject = replace(subject, hresult=hresult, single_call=single_call)
    subject = replace(subject, management=(yield from _has_management(subject)))
    return replace(subject, single_connection=(yield from _has_no_neighbours(subject)))


def greet(subject: Subject) -> Script[Reply]:
    """
    See whether a host is there and serves, by the shortest exchange that tells.

    @return: What it answers to an ordinary bind.
    """
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN))
    yield from link.part()
    return reply


def acknowledged(reply: Reply, count: int) -> BindAck:
    """
    Take the acknowledgement of an ordinary bind.

    @param count: How many contexts were offered.
    @return: It.
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
    if ack is not None and len(ack.results) == count:
        return ack
    if isinstance(reply, Received) and reply.type == PacketType.BIND_ACK:
        raise RemoteProtocolError(
            f"the host answered a bind of {count} contexts with a bind_ack that does not hold so many results; its"
            " clients cannot read that, so repair it first"
        )
    raise RemoteProtocolError(
        "what answers there does not speak DCE/RPC; check that it is a KMS host"
    )


def _ordinary_call(subject: Subject) -> Script[tuple[int, bool]]:
    """
    Ask what every case asks; whoever does not answer that fails cases enough.

    Whether a host closes the connection behind a call is not a matter of how long it takes to do so: one that does not
    answers a second call.

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
    again, _ = link.make_call()
    following = yield from link.exchange(again)
    closes = not isinstance(following, Received) or following.response is None
    yield from link.part()
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
    # Servers accept one new context in a bind, so that of KMS stays away, and the foreign one comes first.
    yield from link.send(
        bind(element(0, NDR, abstract=STRANGER), element(1, NDR, abstract=MANAGEMENT))
    )
    ack = yield from _ack_of(link)
    yield from link.part()
    if ack is None or len(ack.results) != 2:
        return False
    return [each.result == ContextResult.ACCEPTANCE for each in ack.results] == [False, True]


def _has_no_neighbours(subject: Subject) -> Script[bool]:
    """
    Ask whether a connection waits until the one before was closed.
    """
    first, second = Link(subject), Link(subject, 1)
    for _ in range(_TRIES):
        yield from first.connect()
        yield from first.send(bind(PLAIN))
        if (yield from _ack_of(first)) is not None:
            break
        first = Link(subject)
    yield from second.connect()
    yield from second.send(bind(PLAIN))
    reply = yield from second.reply(min(max(_NEIGHBOUR, 5 * subject.quiet), subject.patience))
    if isinstance(reply, Received) and reply.ack is not None:
        return False
    yield from first.part()
    if isinstance(reply, Silence):
        return (yield from _ack_of(second)) is not None
    # Who is refused and not kept waiting may come again, when the host has seen that the first is gone.
    yield from second.close()
    for _ in range(_TRIES):
        again = Link(subject)
        yield from again.connect()
        if (yield from again.exchange(bind(PLAIN))) != Closed():
            return True
        yield from again.close()
    return False


def _ack_of(link: Link) -> Script[BindAck | None]:
    reply = yield from link.reply()
    return reply.ack if isinstance(reply, Received) else None
