"""
What a host writes to its log about its peers: one line for each thing that happens.

A line is made of C{name=value} fields, or is a JSON object (L{kmsproto.net.records} words both).  Text that came from a
peer is quoted and escaped, so that a workstation name can neither end the line, nor pretend to be a field, nor reach
the terminal of whoever reads the log.

What is written, and in which form, is a L{LineStyle}.  Everything that it says is decided when a L{Reporter} is made,
so that a line costs the same as if there were no choice.

Where the lines go is for the owner to say.  A journal takes each as it is, which is all that a busy host can afford.
Without one they go to Twisted's logging system, with what they are about as data.  Only a policy that fails, which is
a mistake on our side, is always an event of that system, written with its traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.host import Answer
from kmsproto.kms.policy import Peer
from kmsproto.net.activation import Closed, Faulted, PolicyFailed
from kmsproto.net.noise import Summary, Suppressed
from kmsproto.net.records import (
    Describe,
    EPIDOf,
    JSONLines,
    Lines,
    TextLines,
    VerboseTextLines,
    mask_answer,
    mask_peer,
    masked,
    who,
    without_grants,
)

_Shown = TypeVar("_Shown")

#: The forms of a line.
Format = Literal["text", "json"]
#: How much is written.
Verbosity = Literal["quiet", "normal", "verbose"]


@dataclass(slots=True, frozen=True)
class LineStyle:
    """
    What is written about peers, and how.

    @ivar format: C{"text"}: fields.  C{"json"}: an object for each line, which always has all facts.
    @ivar verbosity: C{"quiet"}: nothing about what is granted.  C{"normal"}: what an operator looks for.  C{"verbose"}:
        everything in a request and its answer.
    @ivar mask: Whether workstation names are left out, and addresses cut down to their networks.
    @ivar noise_interval: Seconds in which only the first line about an address that asks for no activation is written,
        and the others are summed up; zero: all are written.  See L{kmsproto.net.noise}.
    @raise LocalProtocolError: If a value is none of these.
    """

    format: Format = "text"
    verbosity: Verbosity = "normal"
    mask: bool = False
    noise_interval: float = 0.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.format, get_args(Format)),
            ("verbosity", self.verbosity, get_args(Verbosity)),
        ):
            if value not in known:
                raise LocalProtocolError(
                    f"the log has no {name} {value!r}; choose one of {', '.join(known)}"
                )
        if not 0 <= self.noise_interval <= 86400:
            raise LocalProtocolError(
                f"a noise interval of {self.noise_interval} s; choose one from 0 to 86400"
            )


#: Today's lines, all of them.
PLAIN = LineStyle()


class Reporter:
    """
    Writes the lines of a host.  It remembers nothing but the noise that is not yet summed up, so that another can take
    its place after a L{flush}.

    @param log: Where to.
    @param catalog: Knows the names of products; what it does not know is written as a GUID.
    @param journal: Where to write the lines instead, each without its end.
    @param style: What is written, and how.
    @param clock: The source of time; needed for JSON, and where noise is summed up.
    @param epid_of: Tells the ePID that answers for a KMS counted id; without it, JSON and verbose lines have none.
    @raise LocalProtocolError: If the style needs a clock and there is none.
    """

    def __init__(
        self,
        log: Logger,
        catalog: Catalog,
        journal: Callable[[str], None] | None = None,
        *,
        style: LineStyle = PLAIN,
        clock: IReactorTime | None = None,
        epid_of: EPIDOf | None = None,
    ) -> None:
        self._log = log
        self._journal = journal
        self._lines = _choose_lines(catalog, style, clock, epid_of)
        self._describe: Describe = self._lines.answer
        self._take_answer = journal
        self._show_peer: Callable[[Peer], Peer] = _as_it_is
        self._show_answer: Callable[[Answer], Answer] = _as_it_is
        if style.mask:
            self._describe = masked(self._describe)
            self._show_peer, self._show_answer = mask_peer, mask_answer
        if style.verbosity == "quiet":
            self._describe = without_grants(self._describe)
            self._take_answer = journal and _unless_empty(journal)
        self._noise: Summary | None = None
        if style.noise_interval:
            self._noise = Summary(
                _needed(clock, "the summary of noise"),
                self._summed_up,
                interval=style.noise_interval,
            )

    def report(
        self,
        peer: Peer,
        event: Answer | Faulted | PolicyFailed | Closed,
        started: float | None = None,
    ) -> None:
        """
        Write the line about what happened on a connection.

        @param started: When the bytes that it came of were taken, in the seconds of the clock, if it came of them at
            once: for what it cost, which JSON lines tell of an answer.
        """
        if isinstance(event, Answer):
            line = self._describe(peer, event, started)
            if self._take_answer is not None:
                self._take_answer(line)
            elif line:
                self._publish(line, peer, event)
        elif isinstance(event, Faulted):
            if self._admits(peer):
                shown = self._show_peer(peer)
                self._write(self._lines.faulted(shown, event.status, event.problem), shown)
        elif isinstance(event, Closed):
            self.closed(peer, event.problem)
        else:
            shown = self._show_peer(peer)
            self._log.failure("the policy failed {who}", Failure(event.error), who=who(shown))

    def closed(self, peer: Peer, reason: str) -> None:
        """
        Write that a connection was closed for a reason.
        """
        if self._admits(peer):
            shown = self._show_peer(peer)
            self._write(self._lines.closed(shown, reason), shown)

    def turned_away(self, peer: Peer, reason: str) -> None:
        """
        Write that a peer was refused before any byte was answered.
        """
        if self._admits(peer):
            shown = self._show_peer(peer)
            self._write(self._lines.turned_away(shown, reason), shown)

    def flush(self) -> None:
        """
        Sum up the noise until now, if any was suppressed: to be called when the host stops, or another reporter takes
        the place of this one.
        """
        if self._noise is not None:
            self._noise.flush()

    def _admits(self, peer: Peer) -> bool:
        """
        Tell whether a line that is about no activation is written.
        """
        return self._noise is None or self._noise.admit(peer.address)

    def _summed_up(self, suppressed: Suppressed) -> None:
        line = self._lines.suppressed(suppressed)
        if self._journal is not None:
            self._journal(line)
        else:
            self._log.info("{line}", line=line, suppressed=suppressed)

    def _write(self, line: str, shown: Peer) -> None:
        if self._journal is not None:
            self._journal(line)
        else:
            self._log.info("{line}", line=line, peer=shown)

    def _publish(self, line: str, peer: Peer, answer: Answer) -> None:
        """
        Make an event of an answer, with what it is about as data.
        """
        shown = self._show_answer(answer)
        self._log.info(
            "{line}",
            line=line,
            peer=self._show_peer(peer),
            hresult=int(shown.hresult),
            request=shown.request,
            grant=shown.grant,
        )


def _choose_lines(
    catalog: Catalog, style: LineStyle, clock: IReactorTime | None, epid_of: EPIDOf | None
) -> Lines:
    if style.format == "json":
        return JSONLines(catalog, _needed(clock, "a line in JSON"), epid_of)
    if style.verbosity == "verbose":
        return VerboseTextLines(catalog, epid_of)
    return TextLines(catalog)


def _needed(clock: IReactorTime | None, what: str) -> IReactorTime:
    """
    @raise LocalProtocolError: If there is no clock.
    """
    if clock is None:
        raise LocalProtocolError(f"{what} tells the time: give the reporter a clock")
    return clock


def _unless_empty(take: Callable[[str], None]) -> Callable[[str], None]:
    """
    Keep empty lines from a journal.
    """

    def take_line(line: str) -> None:
        if line:
            take(line)

    return take_line


def _as_it_is(shown: _Shown) -> _Shown:
    return shown
