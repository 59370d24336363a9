"""
Carries out a script: steps that say what to send to a host and when to listen, and that are told what came of it.

The script is a generator, such as those of C{kmsproto.audit}.  It yields steps, plain records that L{Step} describes,
and is sent the outcome of each; what cannot be done is thrown into it.  This module does what the steps say on
endpoints of Twisted and understands none of the bytes.

The host may be anything, so it gets little: every wait has an end, so has the script as a whole, and a connection on
which more comes than was reckoned with is cut.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from typing import Protocol as Structure

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    LocalProtocolError,
    RemoteProtocolError,
)
from kmsproto.net.transports import send_at_once

#: Seconds that the first of several pieces stands alone.
ALONE = 0.05

_Result = TypeVar("_Result")


class Step(Structure):
    """
    What a script yields.
    """

    @property
    def action(self) -> str:
        """
        C{"connect"}, C{"send"}, C{"receive"}, C{"finish"} (close the own direction) or C{"close"}.
        """

    @property
    def connection(self) -> int:
        """
        Which of the connections of the script.
        """

    @property
    def data(self) -> bytes:
        """
        What to send.
        """

    @property
    def piece(self) -> int:
        """
        Bytes of each segment that it is sent in; 0 for a single one.
        """

    @property
    def seconds(self) -> float:
        """
        How long to wait for something to receive.
        """


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What a host may cost.

    @ivar connecting: Seconds for a connection to be made, and for one to close.
    @ivar seconds: Seconds for a script as a whole.
    @ivar unread: Bytes that may have come on a connection and not been received by the script.
    @ivar bytes: Bytes that may come on a connection at all.
    """

    connecting: float = 10.0
    seconds: float = 60.0
    unread: int = 256 * 1024
    bytes: int = 1024 * 1024


class Line(Protocol):
    """
    One connection.

    @param clock: The source of time: the reactor.
    @param bounds: What may come.
    """

    #: Whatever carries the stream.
    transport: Any

    def __init__(self, clock: IReactorTime, bounds: Bounds) -> None:
        self._clock = clock
        self._bounds = bounds
        self._unread = bytearray()
        self._total = 0
        self._over = False
        self._excess = False
        self._waiting: Deferred[None] | None = None
        self._closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """
        Let small segments leave at once.
        """
        send_at_once(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Take what came, until it is too much.
        """
        if self._excess:
            return
        self._total += len(data)
        self._unread += data
        if len(self._unread) > self._bounds.unread or self._total > self._bounds.bytes:
            self._excess = True
            self._unread.clear()
            self.transport.abortConnection()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell whoever waits.
        """
        self._over = True
        self._wake()
        self._closed.callback(None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def send(self, data: bytes, piece: int) -> None:
        """
        Send, as one segment or as many; on a connection that is gone, nothing happens.

        @param piece: Bytes of each segment; 0 for a single one.
        """
        if not piece:
            self.transport.write(data)
            return
        for start in range(0, len(data), piece):
            self.transport.write(data[start : start + piece])
            # What is written within one round of the reactor would leave together, and a host that is busy would find
            # the pieces joined, so it is given the time to find the first alone.
            await deferLater(self._clock, 0 if start else ALONE, lambda: None)

    async def receive(self, seconds: float) -> bytes | None:
        """
        Wait for something to come.

        @return: What came; nothing if the connection is over; L{None} if nothing came in time.
        @raise RemoteProtocolError: If too much came.
        """
        if not self._unread and not self._over and not self._excess:
            self._waiting = Deferred()
            timer = self._clock.callLater(seconds, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        if self._excess:
            raise RemoteProtocolError(
                f"more than {min(self._bounds.unread, self._bounds.bytes)} bytes came"
            )
        data = bytes(self._unread)
        self._unread.clear()
        return data if data or self._over else None

    def finish(self) -> None:
        """
        Close the own direction, behind what was sent.
        """
        if not self._over:
            self.transport.loseWriteConnection()

    async def close(self) -> None:
        """
        Close; a connection that does not close in time is cut.
        """

        def late(result: object, seconds: float) -> None:
            self.transport.abortConnection()

        if not self._over:
            self._closed.addTimeout(self._bounds.connecting, self._clock, late)
            self.transport.loseConnection()
            await self._closed


class _LineFactory(Factory):
    """
    Makes connections.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, bounds: Bounds) -> None:
        self._clock = clock
        self._bounds = bounds

    def buildProtocol(self, addr: IAddress | None) -> Line:
        """
        Make one.
        """
        return Line(self._clock, self._bounds)


class Dialogue:
    """
    The connections of one script.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param bounds: What it may cost.
    """

    def __init__(
        self, clock: IReactorTime, endpoint: IStreamClientEndpoint, bounds: Bounds
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._bounds = bounds
        self._lines: dict[int, Line] = {}
        self._end = clock.seconds() + bounds.seconds

    async def perform(self, step: Step) -> bytes | None:
        """
        Do what a step says.

        @return: What came, for one that receives; nothing for others.
        @raise KMSProtoError: If it cannot be done.
        """
        left = self._end - self._clock.seconds()
        if left <= 0:
            raise HostTimeoutError(f"the host took more than {self._bounds.seconds:g} seconds")
        if step.action == "connect":
            await self._connect(step.connection, left)
            return b""
        line = self._lines.get(step.connection)
        if line is None:
            raise LocalProtocolError(f"there is no connection {step.connection}")
        if step.action == "receive":
            return await line.receive(min(step.seconds, left))
        if step.action == "send":
            await line.send(step.data, step.piece)
        elif step.action == "finish":
            line.finish()
        else:
            await line.close()
        return b""

    async def _connect(self, number: int, left: float) -> None:
        limit = min(self._bounds.connecting, left)

        def late(result: Any, seconds: float) -> Any:
            if not isinstance(result, Failure):
                result.transport.abortConnection()
            raise HostTimeoutError(f"no connection within {seconds:g} seconds")

        factory = _LineFactory(self._clock, self._bounds)
        try:
            made = await self._endpoint.connect(factory).addTimeout(limit, self._clock, late)
        except (error.ConnectError, error.DNSLookupError, OSError, ValueError) as problem:
            # A ValueError is what an endpoint has to say of a name that no host can have.
            raise HostUnreachableError(f"no connection: {str(problem).rstrip('.')}") from problem
        before = self._lines.pop(number, None)
        self._lines[number] = cast(Line, made)
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """
        Close all that is open.
        """
        for line in self._lines.values():
            await line.close()


async def carry_out(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    script: Generator[Step, bytes | None, _Result],
    bounds: Bounds | None = None,
) -> _Result:
    """
    Carry out a script, and close its connections.

    @param clock: The source of time: the reactor.
    @param endpoint: Where the host is.
    @param script: What to do.
    @param bounds: What the host may cost.
    @return: What the script returns.
    @raise Exception: What the script raises.
    """
    dialogue = Dialogue(clock, endpoint, bounds or Bounds())
    try:
        step = next(script)
        while True:
            try:
                outcome = await dialogue.perform(step)
            except KMSProtoError as problem:
                step = script.throw(problem)
            else:
                step = script.send(outcome)
    except StopIteration as end:
        result: _Result = end.value
        return result
    finally:
        script.close()
        await dialogue.close()
