"""
Scripts carried out on a simulated network: what each step does, and where a host's welcome ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kmsproto.audit.battery import CASES
from kmsproto.audit.model import Outcome, Script, Step
from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    LocalProtocolError,
    RemoteProtocolError,
)
from kmsproto.net.dialogue import ALONE, Bounds, carry_out
from tests.audit.memory import subject
from tests.net.client_wiring import ClientCase, UnreachableEndpoint

_T = TypeVar("_T")

ADDRESS = IPv4Address("TCP", "10.0.0.1", 1688)


class RecordingTransport(StringTransportWithDisconnection):
    """
    A transport that remembers each segment, and how it was closed.
    """

    def __init__(self) -> None:
        super().__init__(peerAddress=ADDRESS)
        self.segments: list[bytes] = []
        self.ended: list[str] = []
        self.stubborn = False

    def write(self, data: bytes) -> None:
        """
        Remember a segment.
        """
        self.segments.append(data)

    def loseWriteConnection(self) -> None:
        """
        Remember that the own direction was closed.
        """
        self.ended.append("half")

    def loseConnection(self) -> None:
        """
        Close, unless the peer is one of those that never let go.
        """
        self.ended.append("close")
        if not self.stubborn:
            self._end(error.ConnectionDone())

    def abortConnection(self) -> None:
        """
        Cut.
        """
        self.ended.append("abort")
        self._end(error.ConnectionAborted())

    def _end(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
class RecordingEndpoint:
    """
    Connects at once, to nobody.
    """

    def __init__(self) -> None:
        self.lines: list[RecordingTransport] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Make a transport.
        """
        protocol: Any = protocolFactory.buildProtocol(ADDRESS)
        transport = RecordingTransport()
        transport.protocol = protocol
        self.lines.append(transport)
        protocol.makeConnection(transport)
        connected: Deferred[Any] = Deferred()
        connected.callback(protocol)
        return connected


class DialogueCase(SynchronousTestCase):
    """
    A clock and an endpoint.
    """

    def setUp(self) -> None:
        """
        Start the clock.
        """
        self.clock = Clock()
        self.endpoint = RecordingEndpoint()
        self.heard: list[bytes | None] = []

    def start(
        self,
        script: Generator[Step, bytes | None, _T],
        bounds: Bounds | None = None,
        endpoint: Any = None,
    ) -> Deferred[_T]:
        """
        Begin to carry out a script.
        """
        return Deferred.fromCoroutine(
            carry_out(self.clock, endpoint or self.endpoint, script, bounds)
        )

    def script(self, *steps: Step) -> Script[str]:
        """
        Make a script that hears what comes, and says that it is done.
        """
        for step in steps:
            self.heard.append((yield step))
        return "done"

    def says(self, data: bytes, line: int = 0) -> None:
        """
        Let the host say something.
        """
        self.endpoint.lines[line].protocol.dataReceived(data)

    def assertOver(self) -> None:
        """
        Every connection is closed, and no timer waits.
        """
        self.assertFalse(any(line.connected for line in self.endpoint.lines))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StepTests(DialogueCase):
    """
    What each step does.
    """

    def test_send(self) -> None:
        """
        Data leaves in one segment, and the connection is closed at the end of the script.
        """
        done = self.start(self.script(Step("connect", 0), Step("send", 0, b"hello")))
        self.assertEqual(self.successResultOf(done), "done")
        self.assertEqual(self.endpoint.lines[0].segments, [b"hello"])
        self.assertEqual(self.endpoint.lines[0].ended, ["close"])
        self.assertEqual(self.heard, [b"", b""])
        self.assertOver()

    def test_pieces(self) -> None:
        """
        Data in pieces leaves piece by piece: the first alone for a while, each other in a round of the reactor.
        """
        done = self.start(self.script(Step("connect", 0), Step("send", 0, b"hello", 2)))
        segments = self.endpoint.lines[0].segments
        self.assertEqual(segments, [b"he"])
        self.clock.advance(ALONE / 2)
        self.assertEqual(segments, [b"he"])
        self.clock.advance(ALONE / 2)
        self.assertEqual(segments, [b"he", b"ll", b"o"])
        self.successResultOf(done)
        self.assertOver()

    def test_receive(self) -> None:
        """
        What came before the step and what comes while it waits are both received, all of it at once.
        """
        done = self.start(
            self.script(
                Step("connect", 0),
                Step("receive", 0, seconds=5),
                Step("receive", 0, seconds=5),
            )
        )
        self.assertNoResult(done)
        self.clock.advance(4.9)
        self.says(b"one")
        self.assertEqual(self.heard[1:], [b"one"])
        self.clock.advance(4.9)
        self.says(b"two")
        self.assertEqual(self.heard[1:], [b"one", b"two"])
        self.successResultOf(done)
        self.assertOver()

    def test_received_before(self) -> None:
        """
        What came while nobody waited is not lost.
        """
        done = self.start(
            self.script(
                Step("connect", 0), Step("send", 0, b"ab", 1), Step("receive", 0, seconds=5)
            )
        )
        self.says(b"on")
        self.says(b"e")
        self.clock.pump([ALONE, 0])
        self.successResultOf(done)
        self.assertEqual(self.heard[-1], b"one")

    def test_silence(self) -> None:
        """
        When nothing comes in time the script is told so, and may go on.
        """
        done = self.start(
            self.script(
                Step("connect", 0), Step("receive", 0, seconds=5), Step("receive", 0, seconds=1)
            )
        )
        self.clock.advance(5)
        self.assertEqual(self.heard[1:], [None])
        self.says(b"late")
        self.successResultOf(done)
        self.assertEqual(self.heard[1:], [None, b"late"])
        self.assertOver()

    def test_end(self) -> None:
        """
        When the host closes, what it said before is received, and then nothing, again and again.
        """
        steps = [Step("receive", 0, seconds=5)] * 3
        done = self.start(self.script(Step("connect", 0), Step("send", 0, b"x", 1), *steps))
        self.says(b"bye")
        self.endpoint.lines[0].abortConnection()
        self.clock.advance(ALONE)
        self.successResultOf(done)
        self.assertEqual(self.heard[2:], [b"bye", b"", b""])
        self.assertOver()

    def test_finish(self) -> None:
        """
        The own direction can be closed alone; what the host answers is received.
        """
        done = self.start(
            self.script(Step("connect", 0), Step("finish", 0), Step("receive", 0, seconds=5))
        )
        self.assertEqual(self.endpoint.lines[0].ended, ["half"])
        self.says(b"answer")
        self.successResultOf(done)
        self.assertEqual(self.heard[-1], b"answer")

    def test_steps_after_the_end(self) -> None:
        """
        On a connection that is gone nothing is sent, and nothing is wrong with that.
        """
        done = self.start(
            self.script(
                Step("connect", 0),
                Step("close", 0),
                Step("send", 0, b"x"),
                Step("finish", 0),
                Step("close", 0),
                Step("receive", 0, seconds=5),
            )
        )
        self.successResultOf(done)
        self.assertEqual(self.endpoint.lines[0].ended, ["close"])
        self.assertEqual(self.heard[-1], b"")

    def test_several(self) -> None:
        """
        A script may have several connections, which are kept apart, and all are closed.
        """
        done = self.start(
            self.script(
                Step("connect", 0),
                Step("connect", 5),
                Step("send", 5, b"five"),
                Step("receive", 0, seconds=5),
            )
        )
        self.says(b"for five", 1)
        self.assertNoResult(done)
        self.says(b"for zero", 0)
        self.successResultOf(done)
        self.assertEqual(self.heard[-1], b"for zero")
        self.assertEqual(self.endpoint.lines[1].segments, [b"five"])
        self.assertOver()

    def test_again(self) -> None:
        """
        To connect once more under the same number closes what was there.
        """
        done = self.start(self.script(Step("connect", 0), Step("connect", 0)))
        self.successResultOf(done)
        self.assertEqual([line.ended for line in self.endpoint.lines], [["close"], ["close"]])

    def test_nowhere(self) -> None:
        """
        A step on a connection that was never made is a mistake of the script.
        """
        done = self.start(self.script(Step("send", 3, b"x")))
        self.failureResultOf(done, LocalProtocolError)


class BoundTests(DialogueCase):
    """
    What a host may not do.
    """

    def catching(self, *steps: Step) -> Script[KMSProtoError | None]:
        """
        Make a script that returns the first error it meets.
        """
        try:
            yield from self.script(*steps)
        except KMSProtoError as problem:
            return problem
        return None

    def test_too_much_unread(self) -> None:
        """
        A connection on which more comes than may wait is cut, and the script is told.
        """
        done = self.start(
            self.catching(Step("connect", 0), Step("receive", 0, seconds=5)), Bounds(unread=100)
        )
        self.says(b"x" * 101)
        self.assertIsInstance(self.successResultOf(done), RemoteProtocolError)
        self.assertEqual(self.endpoint.lines[0].ended, ["abort"])
        self.assertOver()

    def test_too_much_in_all(self) -> None:
        """
        So is one on which too much comes in all, however fast it is received.
        """
        receive = Step("receive", 0, seconds=5)
        done = self.start(
            self.catching(Step("connect", 0), *[receive] * 20), Bounds(unread=100, bytes=500)
        )
        for _ in range(6):
            self.says(b"x" * 90)
        problem = self.successResultOf(done)
        self.assertIsInstance(problem, RemoteProtocolError)
        self.says(b"more")
        self.assertOver()

    def test_nothing_is_kept(self) -> None:
        """
        What comes behind too much is not kept.
        """
        self.start(self.catching(Step("connect", 0), Step("send", 0, b"ab", 1)), Bounds(unread=100))
        line: Any = self.endpoint.lines[0].protocol
        line.transport.stubborn = True
        for _ in range(10):
            line.dataReceived(b"x" * 101)
        self.assertEqual(len(line._unread), 0)

    def test_script_too_long(self) -> None:
        """
        A script as a whole has an end too, for a host that says a byte now and then.
        """
        receive = Step("receive", 0, seconds=5)
        done = self.start(self.catching(Step("connect", 0), *[receive] * 100), Bounds(seconds=12))
        for _ in range(6):
            self.clock.advance(2)
            self.says(b"x")
        problem = self.successResultOf(done)
        self.assertIsInstance(problem, HostTimeoutError)
        self.assertEqual(str(problem), "the host took more than 12 seconds")
        self.assertOver()

    def test_wait_cut_short(self) -> None:
        """
        A wait never goes beyond the end of the script.
        """
        done = self.start(
            self.script(Step("connect", 0), Step("receive", 0, seconds=500)), Bounds(seconds=12)
        )
        self.clock.advance(12)
        self.assertEqual(self.heard[1:], [None])
        self.successResultOf(done)

    def test_stubborn(self) -> None:
        """
        A connection that does not close in time is cut.
        """
        done = self.start(self.script(Step("connect", 0)), Bounds(connecting=3))
        self.successResultOf(done)
        script = self.script(Step("connect", 0), Step("receive", 0, seconds=1))
        done = self.start(script, Bounds(connecting=3))
        self.endpoint.lines[1].stubborn = True
        self.says(b"x", 1)
        self.assertNoResult(done)
        self.clock.advance(3)
        self.successResultOf(done)
        self.assertEqual(self.endpoint.lines[1].ended, ["close", "abort"])
        self.assertOver()

    def test_refused(self) -> None:
        """
        A connection that cannot be made is an error at the step, in one line.
        """
        for problem in (error.ConnectionRefusedError("no"), error.DNSLookupError("no"), OSError("no")):  # fmt: skip
            endpoint = UnreachableEndpoint(fail(problem))
            done = self.start(self.catching(Step("connect", 0)), None, endpoint)
            met = self.successResultOf(done)
            self.assertIsInstance(met, HostUnreachableError)
            self.assertTrue(str(met).startswith("no connection: "))

    def test_no_connection_in_time(self) -> None:
        """
        A connection that is not made in time is an error at the step, and one that comes all the same is cut.
        """
        abandoned = _Abandoned()
        for connecting in (Deferred(), Deferred(lambda late: late.callback(abandoned))):
            done = self.start(
                self.catching(Step("connect", 0)),
                Bounds(connecting=3),
                UnreachableEndpoint(connecting),
            )
            self.clock.advance(3)
            problem = self.successResultOf(done)
            self.assertIsInstance(problem, HostTimeoutError)
            self.assertEqual(str(problem), "no connection within 3 seconds")
        self.assertEqual(abandoned.transport.ended, ["abort"])

    def test_error_of_the_script(self) -> None:
        """
        What the script raises comes out, and its connections are closed all the same.
        """

        def script() -> Script[None]:
            yield Step("connect", 0)
            raise ZeroDivisionError

        self.failureResultOf(self.start(script()), ZeroDivisionError)
        self.assertOver()

    def test_given_up(self) -> None:
        """
        Whoever gives up waiting leaves no connection behind.
        """
        done = self.start(self.script(Step("connect", 0), Step("receive", 0, seconds=50)))
        done.addErrback(lambda _: None)
        done.cancel()
        self.assertOver()


class _Abandoned(Protocol):
    """
    A connection that came too late.
    """

    def __init__(self) -> None:
        self.transport: Any = RecordingTransport()
        self.transport.protocol = self


class HostTests(ClientCase):
    """
    Cases of the audit on the real host, in memory.
    """

    def test_every_quick_case(self) -> None:
        """
        Cases that need no waiting come to their verdict on the real host.
        """
        quick = ("header.call-id", "bind.join-group", "request.pipelined", "kms.version-6")
        for case in CASES:
            if case.name in quick:
                done = Deferred.fromCoroutine(
                    carry_out(self.clock, self.endpoint, case.script(subject()))
                )
                self.settle(done)
                self.assertIs(self.successResultOf(done).outcome, Outcome.PASSED, case.name)

    def settle(self, done: Deferred[Any]) -> None:
        """
        Carry bytes to and fro until a script is done.
        """
        for _ in range(200):
            if done.called:
                return
            self.flush()
            self.clock.advance(0)


class ProtocolTests(DialogueCase):
    """
    A host made of a protocol.
    """

    def test_types(self) -> None:
        """
        The steps of the audit are what the runner wants, although neither knows the other.
        """
        step = Step("connect", 1, b"x", 2, 3.0)
        wanted: list[Callable[[Any], object]] = [
            lambda one: one.action,
            lambda one: one.connection,
            lambda one: one.data,
            lambda one: one.piece,
            lambda one: one.seconds,
        ]
        self.assertEqual([get(step) for get in wanted], ["connect", 1, b"x", 2, 3.0])
        self.assertFalse(issubclass(Step, Protocol))
