"""
Cases about the life of a connection: many calls, clients that stop talking, clients that dawdle.

Source: "How a correct connection-oriented DCE/RPC server behaves", rows 5.1, 5.18 and section 12.
"""

from __future__ import annotations

from kmsproto.audit.link import Link
from kmsproto.audit.model import (
    Case,
    Level,
    Script,
    UndecidedError,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import PLAIN, bind
from kmsproto.audit.replies import Closed, Received, Silence
from kmsproto.audit.subject import Subject

#: Seconds that a client dawdles.
_DAWDLING = 2.0
_MANY_CALLS = 20
_MANY_CONNECTIONS = 8


@define(
    "connection.many-calls",
    "5.1",
    Level.MUST,
    f"{_MANY_CALLS} calls on one connection",
    "A connection serves call after call.",
    "C706 9.3.3",
)
def _many_calls(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    link.needs_several_calls()
    yield from link.bound()
    for number in range(_MANY_CALLS):
        problem = yield from link.serve()
        if problem:
            return failed(f"{problem}; that was call {number + 1} of {_MANY_CALLS}")
    return passed(f"served {_MANY_CALLS} calls")


@define(
    "connection.half-close",
    "5.18",
    Level.HYGIENE,
    "a client that closes its direction behind its call",
    "A client that has nothing more to say may say so; its call is answered, and then the host closes as well.",
    "good practice",
)
def _half_close(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    sent, call = link.make_call()
    yield from link.send(sent)
    yield from link.finish()
    problem = link.problem_of((yield from link.reply()), call)
    if problem:
        return failed(f"{problem}, when the client had closed its direction")
    reply = yield from link.reply()
    if isinstance(reply, Closed):
        return passed("answered, and closed")
    return noted(f"answered, and then {reply.describe()}")


@define(
    "connection.half-close-at-once",
    "5.18",
    Level.HYGIENE,
    "a client that says all it has to say at once, and closes its direction",
    "Bind, call and the end of the client's direction may arrive together; both are answered.",
    "good practice",
)
def _half_close_at_once(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.connect()
    sent, call = link.make_call()
    yield from link.send(bind(PLAIN) + sent)
    yield from link.finish()
    reply = yield from link.reply()
    if not isinstance(reply, Received) or reply.ack is None:
        return failed(f"{reply.describe()}; expected: a bind_ack")
    problem = link.problem_of((yield from link.reply()), call)
    return (
        failed(f"acknowledged the bind, and then {problem}") if problem else passed("answered both")
    )


@define(
    "connection.idle",
    "12",
    Level.HYGIENE,
    f"a client that says nothing for {_DAWDLING:g} seconds",
    "A connection outlives a pause of some seconds between bind and call.",
    "good practice",
)
def _idle(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    reply = yield from link.reply(_DAWDLING)
    if not isinstance(reply, Silence):
        return failed(f"{reply.describe()} while the client was silent")
    problem = yield from link.serve()
    return (
        failed(f"waited, and then {problem}") if problem else passed("waited, and served the call")
    )


@define(
    "connection.slow",
    "12",
    Level.HYGIENE,
    "a call whose last byte comes a second late",
    "A PDU may take its time; a host waits for some seconds.",
    "good practice",
)
def _slow(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    sent, call = link.make_call()
    yield from link.send(sent[:-1])
    early = yield from link.reply(_DAWDLING / 2)
    if not isinstance(early, Silence):
        return failed(f"{early.describe()} before the last byte came")
    yield from link.send(sent[-1:])
    problem = link.problem_of((yield from link.reply()), call)
    return failed(problem) if problem else passed("waited, and served the call")


@define(
    "connection.several",
    "12",
    Level.SHOULD,
    f"{_MANY_CONNECTIONS} connections at the same time",
    "A host serves several clients at the same time.",
    "good practice",
)
def _several(subject: Subject) -> Script[Verdict]:
    if subject.single_connection:
        return failed("serves one connection at a time; others wait for its end, or are refused")
    links = [Link(subject, number) for number in range(_MANY_CONNECTIONS)]
    refused = ""
    for link in links:
        try:
            yield from link.bound()
        except UndecidedError as refusal:
            # A limit for each address is a good thing, as long as there is more than one connection.
            refused = str(refusal)
            del links[link.number :]
            break
    if not links:
        raise UndecidedError(refused)
    if len(links) < 2:
        return failed(f"{refused}, with one other connection open")
    for link in reversed(links):
        if problem := (yield from link.serve()):
            return failed(f"{problem}, with {len(links)} connections open")
    served = f"served {len(links)} connections that were open together"
    if refused:
        return noted(f"{served}; with these open, it {refused}")
    return passed(served)


@define(
    "connection.stalled-neighbour",
    "12",
    Level.SHOULD,
    "a client beside one that stopped in the middle of a PDU",
    "One client that stalls does not keep others from being served.",
    "good practice",
)
def _stalled(subject: Subject) -> Script[Verdict]:
    stalled = Link(subject)
    stalled.needs_neighbours()
    yield from stalled.connect()
    yield from stalled.send(bind(PLAIN)[:30])
    other = Link(subject, 1)
    yield from other.bound()
    problem = yield from other.serve()
    return failed(f"{problem}, while another client stalls") if problem else passed("served it")


@define(
    "connection.broken",
    "12",
    Level.SHOULD,
    "a client after one that hung up in the middle of a call",
    "A connection that ends in the middle of a PDU is forgotten, and the next client is served.",
    "good practice",
)
def _broken(subject: Subject) -> Script[Verdict]:
    broken = Link(subject)
    yield from broken.bound()
    sent, _ = broken.make_call()
    yield from broken.send(sent[:100])
    yield from broken.part()
    after = Link(subject, 1)
    yield from after.bound()
    problem = yield from after.serve()
    return failed(problem) if problem else passed("served it")


CASES: tuple[Case, ...] = (
    _many_calls,
    _half_close,
    _half_close_at_once,
    _idle,
    _slow,
    _several,
    _stalled,
    _broken,
)
