"""
A resolver in memory, which answers from a table, badly, late or never, as a test wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IResolver
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError
from zope.interface import implementer

from kmsproto.net.discovery import ServiceRecord

SERVICE = "_vlmcs._tcp.corp.example"


def srv(
    target: str, port: int = 1688, priority: int = 0, weight: int = 0, name: str = SERVICE
) -> dns.RRHeader:
    """
    Make an SRV record.
    """
    payload = dns.Record_SRV(priority, weight, port, target.encode("latin-1"))
    return dns.RRHeader(name.encode(), dns.SRV, dns.IN, 300, payload)


def a(name: str, address: str) -> dns.RRHeader:
    """
    Make an A record.
    """
    return dns.RRHeader(name.encode(), dns.A, dns.IN, 300, dns.Record_A(address))


def aaaa(name: str, address: str) -> dns.RRHeader:
    """
    Make an AAAA record.
    """
    return dns.RRHeader(name.encode(), dns.AAAA, dns.IN, 300, dns.Record_AAAA(address))


def cname(name: str, target: str) -> dns.RRHeader:
    """
    Make a CNAME record.
    """
    payload = dns.Record_CNAME(target.encode("latin-1"))
    return dns.RRHeader(name.encode(), dns.CNAME, dns.IN, 300, payload)


def record(
    target: str, port: int = 1688, priority: int = 0, weight: int = 0, ttl: int = 300
) -> ServiceRecord:
    """
    Make a record as discovery has it.
    """
    return ServiceRecord(target, port, priority, weight, ttl)


@implementer(IResolver)
class TableResolver(ResolverBase):  # type: ignore[misc]
    """
    Answers from a table.

    @ivar answers: By name and type: the records, or records and additional ones in a pair of lists, an error, or
        C{None} for silence.  What is not there does not exist.
    @ivar asked: The names and types that were asked for.
    @ivar waiting: Those that wait for an answer.
    """

    def __init__(self, answers: Mapping[tuple[str, int], Any]) -> None:
        super().__init__()
        self.answers = dict(answers)
        self.asked: list[tuple[str, int]] = []
        self.waiting = 0

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Sequence[int]) -> Deferred[Any]:
        key = name.decode().lower(), type
        self.asked.append(key)
        answer = self.answers.get(key, DNSNameError())
        if answer is None:
            self.waiting += 1
            return Deferred(self._cancelled)
        if isinstance(answer, Exception):
            return fail(answer)
        records, additional = answer if isinstance(answer, tuple) else (answer, [])
        return succeed((list(records), [], list(additional)))

    def _cancelled(self, _: object) -> None:
        self.waiting -= 1


def start(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """
    Run a coroutine until it waits.
    """
    return Deferred.fromCoroutine(coroutine)


def lowest(limit: int) -> int:
    """
    Be no random number, but the smallest.
    """
    return 0


def react_at_once(reactor: Clock) -> Callable[..., None]:
    """
    Make what stands for C{twisted.internet.task.react}: it runs what is done at once.
    """

    def react(main: Callable[[Any], Deferred[None]]) -> None:
        results: list[Any] = []
        main(reactor).addBoth(results.append)
        (result,) = results
        if result is not None:
            result.raiseException()
        raise SystemExit(0)

    return react
