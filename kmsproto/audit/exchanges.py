"""
The shape that most cases have: bind, send something odd, hold the answer against what the rule allows, and see what
follows.

L{exchange} makes a case of a row of a table.  Its parts are there for the cases that are made by hand:
L{conclude} judges a reply and what follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from kmsproto.audit.link import Link
from kmsproto.audit.model import Case, Level, Outcome, Script, Verdict, define, failed
from kmsproto.audit.packets import PLAIN, Element
from kmsproto.audit.replies import (
    ANY_FAULT,
    ANY_NAK,
    CLOSE,
    Closed,
    Expectation,
    Reply,
    Silence,
    matches,
)
from kmsproto.audit.subject import Subject
from kmsproto.rpc.pdu import NDR, SyntaxId

#: Seconds that a host has to close behind an answer.
CLOSING = 1.0
#: How a host can refuse what came on a connection that is bound.
REFUSED = (ANY_FAULT, CLOSE)
#: How it can refuse what came first.
NOT_BOUND = (ANY_NAK, CLOSE)


class Then(Enum):
    """
    What has to follow an answer.
    """

    ANY = "any"  #: whatever the host likes
    STAYS = "stays"  #: the connection goes on serving
    CLOSES = "closes"  #: the host closes; one that does not is only noted


def conclude(
    link: Link,
    reply: Reply,
    accept: Iterable[Expectation],
    lawful: Iterable[Expectation] = (),
    then: Then = Then.ANY,
    serve: tuple[int, SyntaxId] = (0, NDR),
) -> Script[Verdict]:
    """
    Judge a reply, and what follows it.

    @param accept: What the rule asks for.
    @param lawful: What is lawful too, but noted.
    @param serve: The context, and its transfer syntax, on which an ordinary call has to be served if the connection
        must stay.
    """
    did = reply.describe()
    wanted = tuple(accept)
    if not matches(reply, (*wanted, *lawful)):
        words = ", or ".join(each.words for each in wanted)
        return failed(f"{did}; expected: {words}")
    outcome = Outcome.PASSED if matches(reply, wanted) else Outcome.NOTED
    stays = then is Then.STAYS and outcome is Outcome.PASSED
    if stays and not isinstance(reply, Closed) and not link.is_spent:
        problem = yield from link.serve(*serve)
        if problem:
            return failed(f"{did}, and then {problem}")
        did += ", and went on serving"
    elif then is Then.CLOSES and not isinstance(reply, Closed):
        following = yield from link.reply(min(CLOSING, link.subject.patience))
        if isinstance(following, Closed):
            did += ", and closed the connection"
        else:
            outcome = Outcome.NOTED
            did += (
                ", and left the connection open"
                if isinstance(following, Silence)
                else f", and then {following.describe()}"
            )
    return Verdict(outcome, did)


def exchange(
    name: str,
    row: str,
    level: Level,
    title: str,
    rule: str,
    source: str,
    send: Callable[[Subject], Iterable[bytes]],
    *,
    accept: Iterable[Expectation],
    lawful: Iterable[Expectation] = (),
    offered: tuple[Element, ...] | None = (PLAIN,),
    then: Then = Then.ANY,
    serve: tuple[int, SyntaxId] = (0, NDR),
    quiet: bool = False,
) -> Case:
    """
    Make a case of one exchange.

    @param send: Makes what is sent, segment by segment.
    @param offered: The contexts that are bound before; L{None} if nothing is bound.
    @param quiet: Whether the host is expected to say nothing, so that it is not waited for.
    @param accept: See L{conclude}, also for the others.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        if offered is None:
            yield from link.connect()
        else:
            yield from link.bound(*offered)
        yield from link.send(*send(subject))
        reply = yield from (link.quiet() if quiet else link.reply())
        return (yield from conclude(link, reply, accept, lawful, then, serve))

    return define(name, row, level, title, rule, source)(body)
