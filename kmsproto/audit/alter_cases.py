"""
Cases about alter_context: contexts that are added to a connection, and ids that are offered again.

Source: "How a correct connection-oriented DCE/RPC server behaves", section 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmsproto.audit.exchanges import REFUSED, Then, conclude, exchange
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
from kmsproto.audit.packets import (
    MANAGEMENT,
    PLAIN,
    PLAIN64,
    STRANGER,
    UNKNOWN_TRANSFER,
    Element,
    alter,
    bind,
    element,
)
from kmsproto.audit.replies import Received, Reply, fault, name_result, shortened
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import WHOLE, ContextResult, FaultStatus, PacketFlag, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId

_PROTOCOL = fault(FaultStatus.PROTO_ERROR)


def _altered(reply: Reply, *expected: tuple[int, int]) -> str:
    """
    Tell what is wrong with the answer to an alter_context; empty if it has these results.
    """
    ack = reply.ack if isinstance(reply, Received) else None
    if (
        not isinstance(reply, Received)
        or ack is None
        or reply.type != PacketType.ALTER_CONTEXT_RESP
    ):
        return f"{reply.describe()}; expected: an alter_context_resp"
    if [each[:2] for each in ack.results] != list(expected):
        words = ", ".join(f"({result},{reason})" for result, reason in expected)
        return f"{reply.describe()}; expected: {words}"
    return ""


def _offered(
    name: str,
    row: str,
    title: str,
    rule: str,
    source: str,
    offered: Element,
    expected: tuple[int, int],
    *,
    served: Sequence[int],
) -> Case:
    """
    An alter_context on a connection whose context 0 is NDR.

    @param served: The contexts on which calls in NDR have to be served afterwards.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound()
        reply = yield from link.exchange(alter(offered))
        problem = _altered(reply, expected)
        if problem:
            return failed(problem)
        for context in served:
            problem = yield from link.serve(context)
            if problem:
                return failed(f"answered as it has to, and then, on context {context}, {problem}")
        return passed(f"answered with ({expected[0]},{expected[1]}), and went on serving")

    return define(f"alter.{name}", row, Level.MUST, title, rule, source)(body)


@define(
    "alter.ndr-again",
    "7.7",
    Level.MUST,
    "NDR alone, where NDR64 had been chosen",
    "Clients of Windows offer NDR once more, under the id that was refused while NDR64 won, and then call in it.  It is"
    " accepted, and both contexts can be called.",
    "MS-RPCE note 106",
)
def _ndr_again(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    ack = yield from link.bind(PLAIN, PLAIN64)
    if ack.results[1].result:
        raise NotApplicableError("does not prefer NDR64")
    reply = yield from link.exchange(alter(PLAIN))
    if problem := _altered(reply, (0, 0)):
        return failed(problem)
    link.needs_several_calls()
    for context, syntax in ((0, NDR), (1, NDR64), (0, NDR)):
        problem = yield from link.serve(context, syntax)
        if problem:
            return failed(f"accepted it, and then, on context {context}, {problem}")
    return passed("accepted it, and serves both")


@define(
    "alter.sizes",
    "7.2",
    Level.SHOULD,
    "sizes and group in an alter_context",
    "Sizes and group of an alter_context mean nothing; the answer repeats those of the bind_ack.",
    "C706 12.6.4.1; Samba's tests of Windows, _test_neg_xmit_check_values",
)
def _sizes(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    before = yield from link.bound()
    sent = bind(
        element(0, NDR),
        packet_type=PacketType.ALTER_CONTEXT,
        xmit=2048,
        recv=2048,
        group=0xFEEDBEEF,
    )
    reply = yield from link.exchange(sent)
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        return failed(f"{reply.describe()}; expected: an alter_context_resp")
    if ack[:3] != before[:3]:
        return failed(
            f"answered with the sizes {ack.max_xmit_frag} and {ack.max_recv_frag} and the group"
            f" 0x{ack.association_group:08X}, which were {before.max_xmit_frag},"
            f" {before.max_recv_frag} and 0x{before.association_group:08X}"
        )
    return passed("repeated those of the bind_ack")


@define(
    "alter.address",
    "7",
    Level.WINDOWS,
    "the secondary address of an alter_context_resp",
    "Windows sends an empty secondary address, without a zero.",
    "Samba's tests of Windows",
)
def _address(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(alter(PLAIN))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        raise NotApplicableError(f"{reply.describe()}, so there is nothing to look at")
    if ack.secondary_address:
        return failed(f"repeated its address, {shortened(ack.secondary_address)}")
    return passed("sent an empty one")


@define(
    "alter.flags",
    "2.14",
    Level.SHOULD,
    "the flags of an alter_context_resp",
    "The answer to an alter_context that brings nothing new and does not ask for header signing has the flags of a"
    " whole PDU and no other; multiplexing was settled by the bind.",
    "Samba's tests of Windows, _alter_pfc_CONC_MPX",
)
def _flags(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    flags = WHOLE | PacketFlag.CONC_MPX | PacketFlag.RESERVED
    reply = yield from link.exchange(alter(PLAIN, flags=flags))
    if not isinstance(reply, Received) or reply.ack is None:
        raise NotApplicableError(f"{reply.describe()}, so there is nothing to look at")
    did = f"answered the flags 0x{flags:02x} with 0x{reply.header.flags:02x}"
    return passed(did) if reply.header.flags == WHOLE else failed(did)


@define(
    "alter.other-transfer",
    "7.5",
    Level.MUST,
    "another transfer syntax for an id in use",
    "A context never changes its transfer syntax: to offer NDR64 for one that has NDR is a protocol error, or"
    " refused.  It does not answer for both.",
    "Samba's tests of Windows, ctx_invalid4",
)
def _other_transfer(subject: Subject) -> Script[Verdict]:
    if not subject.ndr64:
        raise NotApplicableError("does not offer NDR64")
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(alter(element(0, NDR64)))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        return (yield from conclude(link, reply, (_PROTOCOL,), REFUSED, Then.CLOSES))
    if [each.result for each in ack.results] != [ContextResult.PROVIDER_REJECTION]:
        return failed(reply.describe())
    problem = yield from link.serve()
    if problem:
        return failed(f"refused the change, and then {problem}")
    return noted("refused the change, and keeps the connection")


@define(
    "alter.management",
    "7.6",
    Level.MUST,
    "another interface for an id in use",
    "A context never changes its interface: to offer another one for its id is a protocol error, or refused.",
    "Samba's server core; Samba's tests of Windows, test_spnego_change_abstract",
)
def _management(subject: Subject) -> Script[Verdict]:
    if not subject.management:
        raise NotApplicableError("has one interface only")
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(alter(element(0, NDR, abstract=MANAGEMENT)))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        return (yield from conclude(link, reply, (_PROTOCOL,), REFUSED, Then.CLOSES))
    verdicts = [each.result for each in ack.results]
    if verdicts != [ContextResult.PROVIDER_REJECTION]:
        return failed(reply.describe())
    return noted(f"refused the change with {name_result(ack.results[0])}")


def _malformed(name: str, title: str, *elements: Element) -> Case:
    return exchange(
        f"alter.{name}",
        "7.8",
        Level.MUST,
        title,
        "An alter_context offers a context, and a context a transfer syntax.  One that does not is a protocol error.",
        "C706 12.6.4.1; Samba's tests of Windows, test_alter_no_auth_no_ctx",
        lambda subject: [alter(*elements)],
        accept=(_PROTOCOL,),
        lawful=REFUSED,
        then=Then.CLOSES,
    )


CASES: tuple[Case, ...] = (
    _offered(
        "new-context",
        "7.1",
        "a new context",
        "A context that is offered later is judged as in a bind.  Those that were there before go on working.",
        "C706 12.6.4.1",
        element(1, NDR),
        (0, 0),
        served=(0, 1, 0),
    ),
    _offered(
        "foreign-interface",
        "7.1",
        "a new context of a foreign interface",
        "What a bind would refuse an alter_context refuses too: (2,1), and the connection stays.",
        "C706 12.6.4.1, MS-RPCE 3.3.1.5.6",
        element(1, NDR, abstract=STRANGER),
        (2, 1),
        served=(0,),
    ),
    _offered(
        "same",
        "7.3",
        "a context that is there already",
        "To offer again what was accepted is accepted again.",
        "Samba's tests of Windows, ctx_valid1",
        PLAIN,
        (0, 0),
        served=(0,),
    ),
    _offered(
        "unknown-transfer",
        "7.4",
        "an unknown transfer syntax for an id in use",
        "The offer is refused with (2,2), and the context goes on as it was.",
        "Samba's tests of Windows, ctx_valid2",
        element(0, UNKNOWN_TRANSFER),
        (2, 2),
        served=(0,),
    ),
    _offered(
        "unknown-interface",
        "7.6",
        "an unknown interface for an id in use",
        "The offer is refused with (2,1), and the context goes on as it was.",
        "Samba's server core",
        element(0, NDR, abstract=SyntaxId(STRANGER.uuid, 9, 0)),
        (2, 1),
        served=(0,),
    ),
    _ndr_again,
    _sizes,
    _address,
    _flags,
    _other_transfer,
    _management,
    _malformed("no-contexts", "an alter_context without contexts"),
    _malformed("no-transfers", "a new context without transfer syntaxes", element(1)),
)
