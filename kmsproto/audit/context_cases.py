"""
Cases about presentation contexts: which of those that a bind offers are accepted, and what may be done with each.

Source: "How a correct connection-oriented DCE/RPC server behaves", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmsproto.audit.exchanges import NOT_BOUND, Then, conclude
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
    KMS,
    PLAIN,
    STRANGER,
    UNKNOWN_TRANSFER,
    Element,
    alter,
    bind,
    element,
    request,
    stub,
)
from kmsproto.audit.replies import ANY_FAULT, ANY_NAK, CLOSE, Received, fault, listed, nak
from kmsproto.audit.subject import Subject
from kmsproto.rpc.numbers import FaultStatus
from kmsproto.rpc.pdu import NDR, NDR64, NO_SYNTAX, Negotiated, SyntaxId, bind_time_features

_NO_INTERFACE = (2, 1)
_NO_TRANSFER = (2, 2)
_ACCEPTED = (0, 0)
_LIMIT = (2, 3)
_UNKNOWN = fault(FaultStatus.UNK_IF)
#: How many contexts a PDU can offer, and in how many PDUs more are offered than a connection need have.
_PER_PDU, _PDUS = 255, 16


def _offer(link: Link, *elements: Element) -> Script[list[Negotiated] | str]:
    """
    Connect, and offer contexts.

    @return: The verdicts on them; or what the host did that is none.
    """
    yield from link.connect()
    reply = yield from link.exchange(bind(*elements))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        return f"{reply.describe()}; expected: a bind_ack"
    if len(ack.results) != len(elements):
        return f"gave {len(ack.results)} results for {len(elements)} contexts"
    return list(ack.results)


def _pairs(results: Sequence[Negotiated]) -> list[tuple[int, int]]:
    return [each[:2] for each in results]


def _show(pairs: Sequence[tuple[int, int]]) -> str:
    return listed(f"({result},{reason})" for result, reason in pairs)


def _judged(
    name: str,
    row: str,
    title: str,
    rule: str,
    source: str,
    elements: Sequence[Element],
    expected: Sequence[tuple[int, int]],
    *,
    level: Level = Level.MUST,
    serve: tuple[int, SyntaxId] | None = (0, NDR),
) -> Case:
    """
    A list of contexts on which exactly one list of verdicts is right.

    @param serve: The context that has to be callable afterwards, and its transfer syntax.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        results = yield from _offer(link, *elements)
        if isinstance(results, str):
            return failed(results)
        pairs = _pairs(results)
        if pairs != list(expected):
            # What was accepted beside that has no reason; a refusal with another reason is told as such.
            return failed(f"gave the results {_show(pairs)}; expected: {_show(expected)}")
        if serve is not None and (problem := (yield from link.serve(*serve))):
            return failed(f"gave the right results, and then {problem}")
        return passed(f"gave the results {_show(pairs)}")

    return define(name, row, level, title, rule, source)(body)


_INTERFACE_RULE = (
    "An element for an interface that the host does not have is refused with the reason"
    " abstract_syntax_not_supported (2,1); the others are judged as if it were not there."
)
_TRANSFER_RULE = (
    "An element without a transfer syntax that the host knows, in that version, is refused with the reason"
    " proposed_transfer_syntaxes_not_supported (2,2)."
)


def _interface(name: str, title: str, abstract: SyntaxId, rule: str, source: str) -> Case:
    return _judged(
        f"bind.{name}",
        "3.10",
        title,
        rule,
        source,
        (PLAIN, element(1, NDR, abstract=abstract)),
        (_ACCEPTED, _NO_INTERFACE),
    )


def _transfer(name: str, title: str, syntax: SyntaxId) -> Case:
    return _judged(
        f"bind.{name}",
        "3.11",
        title,
        _TRANSFER_RULE,
        "MS-RPCE 3.3.1.5.6, 2.2.5.1",
        (PLAIN, element(1, syntax)),
        (_ACCEPTED, _NO_TRANSFER),
    )


def _refused(name: str, title: str, refused: Element) -> Case:
    """
    A call on a context that was refused.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        results = yield from _offer(link, PLAIN, refused)
        if isinstance(results, str):
            return failed(results)
        if results[1].result == 0:
            return failed("accepted the context that it has to refuse")
        sent = request(stub(subject.payload()), context=refused.context, call_id=9)
        reply = yield from link.exchange(sent)
        return (yield from conclude(link, reply, (_UNKNOWN,), (CLOSE,), Then.STAYS))

    return define(
        f"bind.{name}",
        "3.14",
        Level.MUST,
        title,
        "A context that was refused does not exist; a call on it has the fault nca_s_unk_if and is never served.",
        "MS-RPCE 3.3.3.1.1",
    )(body)


@define(
    "bind.result-layout",
    "3",
    Level.MUST,
    "the results of a bind_ack",
    "A result that accepts has the reason 0 and names the transfer syntax; one that refuses, or negotiates features,"
    " has twenty zeros in its place.",
    "C706 12.6.3.1, 12.6.4.4",
)
def _result_layout(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(
        link, PLAIN, element(1, NDR, abstract=STRANGER), element(2, bind_time_features(3))
    )
    if isinstance(results, str):
        return failed(results)
    for context, (result, reason, transfer) in enumerate(results):
        if result == 0 and (reason or transfer != NDR):
            return failed(f"accepted context {context} with the reason {reason} and {transfer}")
        if result and transfer != NO_SYNTAX:
            return failed(f"named {transfer} where it did not accept context {context}")
    return passed("filled them as it has to")


@define(
    "bind.preferred-transfer",
    "3.12",
    Level.MUST,
    "several transfer syntaxes in one element",
    "The host chooses one of those that an element offers, and names it in the result.  The elements behind it are read"
    " where they are.",
    "C706 12.6.4.3, MS-RPCE 3.3.1.5.6",
)
def _several(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    offered = (element(0, UNKNOWN_TRANSFER, NDR), element(1, NDR, abstract=STRANGER))
    results = yield from _offer(link, *offered)
    if isinstance(results, str):
        return failed(results)
    if _pairs(results) != [_ACCEPTED, _NO_INTERFACE]:
        return failed(f"gave the results {_show(_pairs(results))}; expected: (0,0), (2,1)")
    if results[0].transfer_syntax != NDR:
        return failed(f"accepted {results[0].transfer_syntax} where only NDR could be")
    problem = yield from link.serve()
    return failed(f"accepted NDR, and then {problem}") if problem else passed("chose NDR")


@define(
    "bind.one-of-two",
    "3.13",
    Level.MUST,
    "NDR and NDR64 in separate elements",
    "Of NDR and NDR64 for the same interface in two elements one is accepted and the other refused with (2,2),"
    " whichever comes first.  What is accepted can be called.",
    "MS-RPCE 3.3.1.5.6",
)
def _one_of_two(subject: Subject) -> Script[Verdict]:
    chosen = []
    syntaxes = (NDR, NDR64)
    for number in range(2):
        order = syntaxes[::-1] if number else syntaxes
        link = Link(subject, number)
        results = yield from _offer(link, *(element(syntaxes.index(s), s) for s in order))
        if isinstance(results, str):
            return failed(results)
        accepted = [s for s, each in zip(order, results, strict=True) if each.result == 0]
        if len(accepted) != 1 or _NO_TRANSFER not in _pairs(results):
            return failed(
                f"gave the results {_show(_pairs(results))}; expected: one (0,0) and one (2,2)"
            )
        problem = yield from link.serve(syntaxes.index(accepted[0]), accepted[0])
        if problem:
            return failed(f"accepted one, and then {problem}")
        yield from link.part()
        chosen.append(accepted[0])
    name = "NDR64" if chosen[0] == NDR64 else "NDR"
    if chosen[0] != chosen[1]:
        return failed("chose by the order of the elements")
    return passed(f"chose {name}, in either order")


@define(
    "bind.accepted-is-callable",
    "3.15",
    Level.MUST,
    "two contexts of the same kind",
    "Windows accepts one new context for an interface in a bind, C706 would accept two.  Either way each that is"
    " accepted can be called.",
    "C706 12.6.4.3; Samba's tests of Windows",
)
def _two_alike(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(link, PLAIN, element(1, NDR))
    if isinstance(results, str):
        return failed(results)
    callable_ones = [index for index, each in enumerate(results) if each.result == 0]
    if not callable_ones:
        return failed("accepted neither")
    for context in callable_ones:
        problem = yield from link.serve(context)
        if problem:
            return failed(f"accepted context {context}, and then {problem}")
    return passed(f"accepted {len(callable_ones)} of two, and serves what it accepted")


@define(
    "bind.shared-id",
    "3.17",
    Level.MUST,
    "NDR and NDR64 under the same id",
    "At most one of the two is accepted, for an id has one meaning; it can be called, and the host survives.",
    "C706 12.6.3.1",
)
def _shared_id(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(link, element(0, NDR), element(0, NDR64))
    if isinstance(results, str):
        return (
            passed(results) if results.startswith("answered with a bind_nak") else failed(results)
        )
    accepted = [each.transfer_syntax for each in results if each.result == 0]
    if len(accepted) != 1:
        return failed(f"gave the results {_show(_pairs(results))} for one id")
    problem = yield from link.serve(0, accepted[0])
    if problem:
        return failed(f"accepted one of them, and then {problem}")
    return passed("accepted one of them, and serves it")


def _many(count: int, level: Level, row: str, rule: str) -> Case:
    """
    As many contexts as this, of which the last is a good one.
    """
    elements = [element(i, NDR, abstract=STRANGER) for i in range(count - 1)]
    return _judged(
        f"bind.contexts-{count}",
        row,
        f"a bind of {count} contexts",
        rule,
        "C706 12.6.4.3",
        (*elements, element(count - 1, NDR)),
        (_NO_INTERFACE,) * (count - 1) + (_ACCEPTED,),
        level=level,
        serve=(count - 1, NDR),
    )


@define(
    "bind.contexts-4000",
    "3.20",
    Level.SHOULD,
    f"{_PDUS * _PER_PDU} contexts on one connection",
    "A server sets a limit to the contexts of a connection, 4000 for each of its interfaces.  Whether it judges each of"
    " so many or refuses more of them, by local_limit_exceeded or the end of the connection, what it accepted goes on"
    " being served.",
    "MS-RPCE 3.3.3.5.5",
)
def _very_many(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    accepted, last = 1, 0
    for number in range(_PDUS):
        ids = range(1 + number * _PER_PDU, 1 + (number + 1) * _PER_PDU)
        reply = yield from link.exchange(alter(*(element(i, NDR) for i in ids)))
        ack = reply.ack if isinstance(reply, Received) else None
        if ack is None:
            done = f"offered {ids.start} contexts"
            verdict = yield from conclude(link, reply, (CLOSE, ANY_FAULT), (ANY_NAK,))
            return verdict._replace(did=f"{verdict.did} when it had been {done}")
        if len(ack.results) != _PER_PDU:
            return failed(f"gave {len(ack.results)} results for {_PER_PDU} contexts")
        good = [i for i, each in zip(ids, ack.results, strict=True) if each.result == 0]
        accepted += len(good)
        last = good[-1] if good else last
        if _LIMIT in _pairs(ack.results):
            break
    for context in {0, last}:
        if problem := (yield from link.serve(context)):
            return failed(f"accepted context {context} of many, and then {problem}")
    return passed(f"accepted {accepted} of them, and serves what it accepted")


def _identifier(context: int) -> Case:
    return _judged(
        f"bind.context-{context}",
        "3.19",
        f"context id {context}",
        "A context id is any number of 16 bits.",
        "C706 12.6.3.1",
        (element(context, NDR),),
        (_ACCEPTED,),
        serve=(context, NDR),
    )


@define(
    "bind.all-refused",
    "3.22",
    Level.MUST,
    "a bind of which everything is refused",
    "A bind whose contexts are all refused is acknowledged all the same; an alter_context can offer others.",
    "MS-RPCE 3.3.1.5.6",
)
def _all_refused(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(link, element(0, NDR, abstract=STRANGER))
    if isinstance(results, str):
        return failed(results)
    if _pairs(results) != [_NO_INTERFACE]:
        return failed(f"gave the results {_show(_pairs(results))}; expected: (2,1)")
    reply = yield from link.exchange(alter(element(1, NDR)))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None or _pairs(ack.results) != [_ACCEPTED]:
        return failed(f"{reply.describe()} when an alter_context offered a good context")
    problem = yield from link.serve(1)
    return (
        failed(f"accepted it then, and then {problem}")
        if problem
        else passed("stayed, and accepted a context that came later")
    )


def _features(
    name: str, row: str, level: Level, title: str, rule: str, offered: int, *, strict: bool
) -> Case:
    """
    Bits of a bind-time feature negotiation.

    @param strict: Whether the answer has to be exactly what Windows says, and not only what may be said.
    """

    def body(subject: Subject) -> Script[Verdict]:
        if not subject.features:
            raise NotApplicableError("does not negotiate bind-time features")
        link = Link(subject)
        results = yield from _offer(link, PLAIN, element(1, bind_time_features(offered)))
        if isinstance(results, str):
            return failed(results)
        if _pairs(results)[0] != _ACCEPTED:
            return failed(f"gave the results {_show(_pairs(results))}")
        result, granted = _pairs(results)[1]
        did = f"answered the features 0x{offered:X} with ({result},{granted})"
        if (
            result != 3
            or granted & ~(offered & 3)
            or (strict and granted not in (offered & 3, offered & 2))
        ):
            return failed(did)
        return passed(did)

    return define(name, row, level, title, rule, "MS-RPCE 3.3.1.5.3, 2.2.2.14")(body)


_FEATURES = bind_time_features(3)


@define(
    "features.additional",
    "4.4",
    Level.MUST,
    "transfer syntaxes behind a negotiation",
    "What follows the negotiation in its element is ignored, and the next element is read where it is.",
    "Samba's tests of Windows, test_no_auth_bind_time_ignore_additional",
)
def _additional(subject: Subject) -> Script[Verdict]:
    if not subject.features:
        raise NotApplicableError("does not negotiate bind-time features")
    link = Link(subject)
    results = yield from _offer(link, element(1, _FEATURES, UNKNOWN_TRANSFER, NDR), PLAIN)
    if isinstance(results, str):
        return failed(results)
    did = f"gave the results {_show(_pairs(results))}"
    if results[0].result != 3 or results[1].result != 0:
        return failed(f"{did}; expected: a negotiation and (0,0)")
    problem = yield from link.serve()
    return failed(f"{did}, and then {problem}") if problem else passed(did)


@define(
    "features.twice",
    "4.5",
    Level.WINDOWS,
    "two negotiations in one bind",
    "Windows refuses a bind that negotiates features twice.",
    "Samba's tests of Windows, test_no_auth_bind_time_twice",
)
def _twice(subject: Subject) -> Script[Verdict]:
    if not subject.features:
        raise NotApplicableError("does not negotiate bind-time features")
    link = Link(subject)
    yield from link.connect()
    reply = yield from link.exchange(bind(PLAIN, element(1, _FEATURES), element(2, _FEATURES)))
    return (yield from conclude(link, reply, (nak(0),), NOT_BOUND, Then.CLOSES))


@define(
    "features.alter",
    "4.7",
    Level.WINDOWS,
    "a negotiation in an alter_context",
    "Features are negotiated at bind time; in an alter_context the element has an unknown transfer syntax.",
    "MS-RPCE 3.3.1.5.3",
)
def _features_alter(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.exchange(alter(element(1, _FEATURES)))
    ack = reply.ack if isinstance(reply, Received) else None
    if ack is None:
        return failed(f"{reply.describe()}; expected: an alter_context_resp")
    if [each.result for each in ack.results] != [2]:
        return failed(f"gave the results {_show(_pairs(ack.results))}; expected: (2,2)")
    return passed(f"gave the results {_show(_pairs(ack.results))}")


@define(
    "features.offered",
    "4.1",
    Level.WINDOWS,
    "bind-time features",
    "Windows negotiates bind-time features.  A host that does not refuses the element with (2,2), and its clients do"
    " without.",
    "MS-RPCE 3.3.1.5.3",
)
def _offered(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(link, PLAIN, element(1, _FEATURES))
    if isinstance(results, str):
        return failed(results)
    pair = _pairs(results)[1]
    if pair[0] == 3:
        return passed("negotiates them")
    if pair == _NO_TRANSFER:
        return noted("does not negotiate them")
    return failed(f"answered the negotiation with ({pair[0]},{pair[1]})")


@define(
    "features.no-context",
    "4.8",
    Level.MUST,
    "a call on the context that negotiated features",
    "The id of an element that negotiates features is no context; a call on it has the fault nca_s_unk_if.",
    "MS-RPCE 3.3.1.5.3, 3.3.3.1.1",
)
def _no_context(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    results = yield from _offer(link, PLAIN, element(1, _FEATURES))
    if isinstance(results, str):
        return failed(results)
    if results[1].result == 0:
        return failed("accepted the negotiation as a context")
    reply = yield from link.exchange(request(stub(subject.payload()), context=1, call_id=9))
    return (yield from conclude(link, reply, (_UNKNOWN,), (CLOSE,), Then.STAYS))


CASES: tuple[Case, ...] = (
    _judged(
        "bind.ordinary",
        "3",
        "an ordinary bind",
        "A bind of the KMS interface in NDR is acknowledged, with one result for each element and in their order.",
        "MS-RPCE 3.3.1.5.3",
        (PLAIN,),
        (_ACCEPTED,),
    ),
    _interface(
        "foreign-interface",
        "an interface that is not of KMS",
        STRANGER,
        _INTERFACE_RULE,
        "MS-RPCE 3.3.1.5.6",
    ),
    _interface(
        "interface-major",
        "the KMS interface in version 2.0",
        SyntaxId(KMS.uuid, 2, 0),
        "An interface of another major version is another interface: (2,1).",
        "C706 2.3.3, 6.1.5",
    ),
    _interface(
        "interface-minor",
        "the KMS interface in version 1.1",
        SyntaxId(KMS.uuid, 1, 1),
        "A host serves minor versions up to its own, 0; a later one is refused with (2,1).",
        "C706 2.3.3, 6.1.5",
    ),
    _transfer("unknown-transfer", "a transfer syntax that nobody has", UNKNOWN_TRANSFER),
    _transfer("ndr-version", "NDR in version 1.0", SyntaxId(NDR.uuid, 1, 0)),
    _transfer("ndr64-version", "NDR64 in version 2.0", SyntaxId(NDR64.uuid, 2, 0)),
    _result_layout,
    _several,
    _one_of_two,
    _refused(
        "refused-interface",
        "a call on the context of a foreign interface",
        element(1, NDR, abstract=STRANGER),
    ),
    _refused(
        "refused-transfer",
        "a call on a context with an unknown transfer syntax",
        element(1, UNKNOWN_TRANSFER),
    ),
    _two_alike,
    _judged(
        "bind.same-id",
        "3.16",
        "an id that is refused first and accepted then",
        "Elements are judged one by one: an id that one of them has in vain may be accepted in the next.",
        "Samba's tests of Windows",
        (element(5, NDR, abstract=STRANGER), element(5, NDR)),
        (_NO_INTERFACE, _ACCEPTED),
        serve=(5, NDR),
    ),
    _shared_id,
    _many(
        31,
        Level.MUST,
        "3.18",
        "As many contexts as fit into the fragment that everybody receives are answered in full.",
    ),
    _many(
        255,
        Level.SHOULD,
        "3.18",
        "A bind may have 255 contexts, in a PDU that is larger than fragments of calls are.",
    ),
    _very_many,
    _identifier(0xFFFE),
    _identifier(0xFFFF),
    _all_refused,
    _offered,
    _features(
        "features.windows",
        "4.1",
        Level.WINDOWS,
        "the features that Windows grants",
        "Windows grants of the two features that exist those that were asked for.  A host without security may leave"
        " out the first.",
        3,
        strict=True,
    ),
    _features(
        "features.reserved",
        "4.2",
        Level.MUST,
        "features that do not exist",
        "Bits that were not offered or have no meaning are clear in the answer.",
        0xFFFFFFFFFFFFFFFD,
        strict=False,
    ),
    _judged(
        "features.second",
        "4.3",
        "a negotiation behind another transfer syntax",
        "Only an element whose first transfer syntax says so negotiates features; others are judged by what"
        " they offer.",
        "Samba's tests of Windows, test_no_auth_bind_time_only_first",
        (element(0, NDR, _FEATURES),),
        (_ACCEPTED,),
    ),
    _judged(
        "features.version",
        "4.6",
        "a negotiation of version 2.0",
        "In another version than 1.0 it is no negotiation but an unknown transfer syntax.",
        "MS-RPCE 3.3.1.5.3",
        (PLAIN, element(1, SyntaxId(_FEATURES.uuid, 2, 0))),
        (_ACCEPTED, _NO_TRANSFER),
    ),
    _additional,
    _twice,
    _features_alter,
    _no_context,
)
