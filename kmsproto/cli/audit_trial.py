"""
The cases of an audit, carried out one after the other on a host that may not survive them.

A host that is gone must not be asked two hundred times more, and it must be told which case was the last that it was
there for.  So whatever comes of a case that looks as if nobody were there, a connection that is refused, silence, an
end without a word, is followed by a greeting, the shortest exchange that a host has to understand.  If that is not
answered either, the host has a few seconds to come back, as one does that is started again by a supervisor.

  - If nobody can be reached, or nobody speaks, the host is gone.  That counts against the last case that found it
    alive, however well the host had kept the rule of that.  If it comes back the audit goes on.
  - If connections are made and closed at once, the host refuses so many of them in so short a time.  That is its right:
    the case is tried again when it lets us in, and from then on the audit takes its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater

from kmsproto.audit.battery import PERILOUS, greet, in_order
from kmsproto.audit.model import Case, Outcome, Result, Script, Step, Verdict, is_unreached
from kmsproto.audit.replies import Closed, Received, Silence
from kmsproto.audit.report import not_tried
from kmsproto.audit.subject import Subject
from kmsproto.errors import HostTimeoutError, HostUnreachableError, KMSProtoError
from kmsproto.net.dialogue import Bounds, carry_out
from kmsproto.net.quoting import printable

#: Seconds that a host has to come back, and from one look to the next.
RETURN, LOOK = 5.0, 0.25
#: Seconds before a case is tried a second time that came to nothing because a connection was ended without a word.
MOMENT = 0.1
#: How often a host may go and come back.
RETURNS = 12
#: How often a case is tried again, because the host was not there for it or would not let us in.
AGAIN = 5
#: Seconds before each case once a host would not let us in: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0


class _Presence(Enum):
    """
    What a look at a host finds.
    """

    THERE = 1  #: it serves
    UNREACHABLE = 2  #: there is nobody to connect to
    SILENT = 3  #: it does not answer
    CLOSING = 4  #: it closes connections, or refuses binds, at once


class _Sight(NamedTuple):
    """
    What a look at a host finds.

    @ivar words: The rest of a sentence that begins with "it".
    """

    presence: _Presence
    words: str


_THERE = _Sight(_Presence.THERE, "served")


@dataclass(slots=True)
class _Watch:
    """
    What could be seen while a case was carried out.

    @ivar patience: Seconds that the host has for each answer.
    @ivar connected: Whether a connection was made.
    @ivar answered: Whether anything came on one, or its end.
    @ivar mute: Whether the host said nothing for as long as it has, or ended a connection without a word.
    @ivar cut: Whether it ended a connection without a word.
    @ivar ended: Whether the host ended a connection.
    """

    patience: float
    connected: bool = False
    answered: bool = False
    mute: bool = False
    cut: bool = False
    ended: bool = False
    _spoken: set[int] = field(default_factory=set)

    def saw(self, step: Step, outcome: bytes | None) -> None:
        """
        Take note of what a step came to.
        """
        if step.action == "connect":
            self.connected = True
            self._spoken.discard(step.connection)
        elif step.action == "receive":
            self.answered |= outcome is not None
            self.ended |= outcome == b""
            if outcome:
                self._spoken.add(step.connection)
            elif outcome == b"" or step.seconds >= self.patience:
                # An end without a word, or no word for as long as anybody waits.
                self.cut |= outcome == b"" and step.connection not in self._spoken
                self.mute |= outcome is None or self.cut

    def observe(self, script: Script[Verdict]) -> Script[Verdict]:
        """
        Carry a script out under observation.
        """
        problem: KMSProtoError | None = None
        outcome: bytes | None = None
        try:
            step = next(script)
            while True:
                try:
                    problem, outcome = None, (yield step)
                except KMSProtoError as failure:
                    problem = failure
                if problem is None:
                    self.saw(step, outcome)
                    step = script.send(outcome)
                elif step.action == "connect" and isinstance(problem, HostTimeoutError):
                    # Whoever cannot be connected to in time is not there, whatever the case was about.
                    step = script.throw(HostUnreachableError(str(problem)))
                else:
                    step = script.throw(problem)
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict


class Trial:
    """
    An audit while it runs.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param bounds: What a case may cost.
    @param limit: Seconds after which no further case is begun.
    @param tell: Is told of each case that is done with.
    @ivar lost: Whether the host was given up.
    @ivar lost_after: The name of the case that it was lost after; empty if it was not, or after none.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        subject: Subject,
        bounds: Bounds,
        limit: float,
        tell: Callable[[Case], None],
    ) -> None:
        self.lost = False
        self.lost_after = ""
        self._clock = clock
        self._endpoint = endpoint
        self._subject = subject
        self._bounds = bounds
        self._limit = limit
        self._tell = tell
        self._results: dict[str, Result] = {}
        self._before: Case | None = None
        #: Whether the host was found there behind that case; nobody begins with a host that was not met.
        self._seen = True
        self._returns = 0
        self._pause = 0.0

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """
        Try cases, those that are perilous last.

        @return: The results, in the order in which the cases were given.
        """
        end = self._clock.seconds() + self._limit
        order = in_order(cases)
        for case, following in zip(order, (*order[1:], None), strict=True):
            if not self.lost and self._clock.seconds() < end:
                # What a perilous case does to a host must not be held against the one before.
                await self._try(case, following is None or following.name in PERILOUS)
            elif not self.lost:
                self._take(case, not_tried(f"the audit took more than {self._limit:g} seconds"))
            if case.name not in self._results:
                after = f" after {self.lost_after}" if self.lost_after else ""
                self._take(case, not_tried(f"the host was lost{after}"))
            self._tell(case)
        return [self._results[case.name] for case in cases]

    async def _try(self, case: Case, to_be_seen: bool) -> None:
        """
        Try a case, again if need be, and take down what comes of it unless the host was lost before it began.

        @param to_be_seen: Whether the host is looked for behind it, whatever comes of it.
        """
        confirmed = False
        for attempt in range(AGAIN + 1):
            if self._pause:
                await self._wait(min(self._pause * 2**attempt, LONGEST_PAUSE))
            watch = _Watch(self._subject.patience)
            script = watch.observe(case.script(self._subject))
            verdict = await carry_out(self._clock, self._endpoint, script, self._bounds)
            unreached = is_unreached(verdict)
            doubtful = (
                watch.mute
                or verdict.outcome is Outcome.UNDECIDED
                or (watch.ended and verdict.outcome is Outcome.FAILED)
                or case.name in PERILOUS
                or to_be_seen
            )
            sight = await self._look() if doubtful else _THERE
            if sight.presence is _Presence.CLOSING and not watch.cut:
                # The case was let in; the host may not have seen yet that it is over.
                await self._wait(MOMENT)
                sight = await self._look()
            bad = verdict.outcome in (Outcome.FAILED, Outcome.UNDECIDED)
            if sight.presence is _Presence.THERE and watch.cut and bad and not confirmed:
                # A host with a limit for each address may not have seen yet that the connection before had ended.
                confirmed = True
                await self._wait(MOMENT)
                continue
            if sight.presence is _Presence.THERE and not unreached:
                self._take(case, verdict)
                self._before, self._seen = case, doubtful
                return
            if sight.presence is _Presence.CLOSING:
                self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
                if await self._returned():
                    continue
                self._give_up()
                return
            if sight.presence is not _Presence.THERE:
                # Was it there when the case began?
                # A connection may be made by a system whose program serves nobody any more, so it says little alone.
                found = watch.answered or (
                    watch.connected and (self._seen or sight.presence is _Presence.UNREACHABLE)
                )
                if found:
                    self._take(case, verdict)
                    self._before = case
                await self._gone(sight)
                if found or self.lost:
                    return
        self._take(case, Verdict(Outcome.UNDECIDED, "was not let in by the host, again and again"))

    def _take(self, case: Case, verdict: Verdict) -> None:
        self._results[case.name] = Result(case, verdict)

    async def _gone(self, sight: _Sight) -> None:
        """
        The host is gone: blame the last case that found it alive, and wait for its return.
        """
        left = self._clock.seconds()
        self._returns += 1
        back = self._seen = self._returns <= RETURNS and await self._returned()
        culprit, self._before = self._before, None
        if not back:
            self._before = culprit
            self._give_up()
        if culprit is not None:
            how = sight.words
            if back:
                how += f", until it was back after {self._clock.seconds() - left:.1f} seconds"
            self._results[culprit.name] = self._results[culprit.name].killed(how)

    def _give_up(self) -> None:
        self.lost = True
        self.lost_after = self._before.name if self._before is not None else ""

    async def _returned(self) -> bool:
        """
        Wait for the host to be there.

        @return: Whether it is.
        """
        end = self._clock.seconds() + RETURN
        while self._clock.seconds() < end:
            await self._wait(LOOK)
            if (await self._look()).presence is _Presence.THERE:
                return True
        return False

    async def _look(self) -> _Sight:
        """
        See whether the host is there.
        """
        script = greet(self._subject)
        try:
            reply = await carry_out(self._clock, self._endpoint, script, self._bounds)
        except (HostUnreachableError, HostTimeoutError) as problem:
            return _Sight(
                _Presence.UNREACHABLE, f"could not be reached any more ({printable(str(problem))})"
            )
        except KMSProtoError:
            # It says too much, so there is somebody.
            return _THERE
        if isinstance(reply, Silence):
            return _Sight(_Presence.SILENT, "did not answer any more")
        if isinstance(reply, Closed) or (
            isinstance(reply, Received) and reply.nak_reason is not None
        ):
            return _Sight(_Presence.CLOSING, "closed each connection at once")
        return _THERE

    async def _wait(self, seconds: float) -> None:
        await deferLater(self._clock, seconds, lambda: None)
