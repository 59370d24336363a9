"""
Scripts of the audit, carried out in memory: against the real host, and against what only a test would think of.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.task import Clock

from kmsproto.audit.battery import meet
from kmsproto.audit.model import Script, Step
from kmsproto.audit.subject import Subject
from kmsproto.errors import HostTimeoutError, KMSProtoError
from kmsproto.kms.requests import make_request
from kmsproto.testing import host_factory
from tests.conformance.wire import PEER, Wire
from tests.net.wiring import NOW, catalog

if TYPE_CHECKING:
    from twisted.internet.protocol import Factory

_T = TypeVar("_T")

#: Steps that a script may take before it is told that there is no more time.
PATIENCE = 4000


def subject(**known: Any) -> Subject:
    """
    Make what cases are given; its random bytes are the same in every run.

    @param known: Fields that shall be others.
    """
    count = 0

    def entropy(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_128(b"audit" + count.to_bytes(8, "big")).digest(length)

    request = make_request(
        catalog(),
        catalog().product("Windows 10/11 Enterprise"),
        client_machine_id=uuid.UUID(int=7),
        workstation="AUDIT",
        now=NOW,
    )
    made: dict[str, Any] = {"port": 1688, "patience": 5.0} | known
    return Subject(request, catalog(), entropy, **made)


def drive(
    script: Script[_T], perform: Callable[[Step], bytes | None], patience: int = PATIENCE
) -> _T:
    """
    Carry out a script.

    @param perform: Does what a step says; an error of ours that it raises is thrown into the script.
    @param patience: After so many steps each further one is a timeout.
    """
    taken = 0
    try:
        step = next(script)
        while True:
            taken += 1
            try:
                if taken > patience:
                    raise HostTimeoutError("the test has no more patience")
                outcome = perform(step)
            except KMSProtoError as problem:
                step = script.throw(problem)
            else:
                step = script.send(outcome)
    except StopIteration as end:
        result: _T = end.value
        return result


class MemoryHost:
    """
    Our own host, with nothing between it and the scripts.

    @param settings: Of L{host_factory}.
    @ivar alter: Changes what the host sends, if set.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.factory: Factory = host_factory(self.clock, catalog=catalog(), **settings)
        self.alter: Callable[[bytes], bytes] | None = None
        self._lines: dict[int, Wire] = {}

    def run(self, script: Script[_T]) -> _T:
        """
        Carry out a script.
        """
        self.factory.doStart()
        try:
            return drive(script, self._perform)
        finally:
            for line in self._lines.values():
                line.drop()
            self._lines.clear()
            self.factory.doStop()

    def meet(self) -> Subject:
        """
        Learn what an ordinary exchange tells of it.
        """
        return self.run(meet(subject()))

    def _perform(self, step: Step) -> bytes | None:
        if step.action == "connect":
            self._lines[step.connection] = Wire(self.factory, self.clock, peer=PEER)
            return b""
        line = self._lines[step.connection]
        if step.action == "send":
            line.send(step.data, step.piece or None)
        elif step.action == "finish":
            line.half_close()
        elif step.action == "close":
            line.drop()
        else:
            return self._received(line, step.seconds)
        return b""

    def _received(self, line: Wire, seconds: float) -> bytes | None:
        data = line.take()
        if not data and not line.closed:
            line.advance(seconds)
            data = line.take()
        if data and self.alter is not None:
            data = self.alter(data)
        return data if data or line.closed else None
