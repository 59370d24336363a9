"""
Asking a host several times, as a plan says: how often, how many at a time, on one connection or on one for each.

The plan is carried out until it is done, until its owner has seen enough, or until there is no host to talk to any
more: a request that was refused or answered badly is a result like any other, but when a connection cannot be made or
ends early, those that would follow are not made.  A host may end a connection behind an answer, though, and some end
every connection so: what is still to be asked then has a connection for each.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kmsproto.errors import ConnectionSpentError
from kmsproto.findings import Finding, Severity
from kmsproto.kms.messages import RequestBody
from kmsproto.net.activation import Outcome
from kmsproto.net.client import ActivationClient, ClientOptions, connect

#: Distinct findings that are kept at most.
MAX_FINDINGS = 64
_SHARED_GROUP = Finding(
    "3.3",
    Severity.ERROR,
    "two connections that are open at the same time have the same association group, though each asked for a new one",
    "C706 12.6.4.4, MS-RPCE 3.3.1.5.7",
)
_SPENT = Finding(
    "12",
    Severity.NOTE,
    "the host ends a connection behind an answer, so each request had a connection of its own",
    "no standard",
)


@dataclass(frozen=True)
class Plan:
    """
    What to ask.

    @ivar requests: How many requests.
    @ivar make_body: Makes a request of its number, counted from 0, just before it is sent.
    @ivar fresh: Whether each has a connection of its own.
    @ivar at_once: How many wait for their answer at the same time.
    @ivar enough: Tells after each answer whether the rest can be left out.
    """

    requests: int
    make_body: Callable[[int], RequestBody]
    fresh: bool = False
    at_once: int = 1
    enough: Callable[[Outcome], bool] = field(default=lambda outcome: False)


class Probing:
    """
    Carries a plan out.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param plan: What to ask.
    @param options: How to talk.
    @param report: Is told of each outcome, with the number of its request, as it comes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        plan: Plan,
        options: ClientOptions,
        report: Callable[[int, Outcome], None],
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._plan = plan
        self._options = options
        self._report = report
        self._next = 0
        self._stopped = False
        self._fresh = plan.fresh
        self._found: dict[object, Finding] = {}
        #: The association groups of the connections that are open.
        self._groups: list[int] = []

    @property
    def findings(self) -> Sequence[Finding]:
        """
        The rules that the host was seen to break, each once.
        """
        return tuple(self._found.values())

    async def run(self) -> None:
        """
        Ask all that the plan says.

        @raise KMSProtoError: If the host could not be reached, hung up, or did not answer in time; what was reported
            before stands.
        """
        plan = self._plan
        shared = None if plan.fresh else await self._connected()
        workers = min(plan.at_once, plan.requests)
        if shared is not None and not shared.multiplexed:
            # A host that did not grant it may take a second call for a mistake.
            workers = 1
        try:
            await _all([self._work(shared) for _ in range(workers)])
        finally:
            if shared is not None:
                self._look_at(shared)
                await shared.close()

    async def _work(self, shared: ActivationClient | None) -> None:
        plan = self._plan
        while self._next < plan.requests and not self._stopped:
            number = self._next
            self._next += 1
            try:
                outcome = await self._ask_somehow(shared, number)
            except BaseException:
                self._stopped = True
                raise
            self._report(number, outcome)
            if plan.enough(outcome):
                self._stopped = True

    async def _ask_somehow(self, shared: ActivationClient | None, number: int) -> Outcome:
        if shared is not None and not self._fresh:
            try:
                return await self._ask(shared, number)
            except ConnectionSpentError:
                self._fresh = True
                self._find(_SPENT)
        return await self._ask_freshly(number)

    def _ask(self, client: ActivationClient, number: int) -> Deferred[Outcome]:
        return client.ask(self._plan.make_body(number))

    async def _ask_freshly(self, number: int) -> Outcome:
        client = await self._connected()
        group = client.association_group
        # That it is 0 is a finding of its own.
        if group and group in self._groups:
            self._find(_SHARED_GROUP)
        self._groups.append(group)
        try:
            return await self._ask(client, number)
        finally:
            self._look_at(client)
            # Before it is closed, for the host may give the id to another as soon as it sees that.
            self._groups.remove(group)
            await client.close()

    def _connected(self) -> Deferred[ActivationClient]:
        return connect(self._clock, self._endpoint, self._options, self._look_at)

    def _look_at(self, client: ActivationClient) -> None:
        for finding in client.findings:
            self._find(finding)

    def _find(self, finding: Finding) -> None:
        if len(self._found) < MAX_FINDINGS:
            self._found.setdefault(finding.kind, finding)


async def _all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """
    Wait for all of them; of their errors the first is raised, once all have ended.
    """
    problems: list[BaseException] = []

    async def guarded(coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except BaseException as problem:  # noqa: BLE001 - it is raised when the others have ended
            problems.append(problem)

    running = [Deferred.fromCoroutine(guarded(each)) for each in coroutines]
    try:
        await gatherResults(running)
    except CancelledError:
        for each in running:
            each.cancel()
        raise
    if problems:
        raise problems[0]
