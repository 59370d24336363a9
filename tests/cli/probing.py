"""
What the tests of C{kmsproto probe} share: hosts that answer as a test wants them to, without a network.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from click.testing import Result
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import output
from kmsproto.cli import probe as module
from kmsproto.cli.destinations import Destination, Whereabouts
from kmsproto.cli.probe import probe
from kmsproto.errors import KMSProtoError
from kmsproto.findings import Finding
from kmsproto.kms.envelopes import OpenedRequest, seal_request, seal_response
from kmsproto.kms.messages import RequestBody, ResponseBody
from kmsproto.kms.verification import verify_response
from kmsproto.net.activation import Outcome
from kmsproto.net.client import ClientOptions
from kmsproto.net.probing import Plan
from kmsproto.rpc.pdu import NDR64
from tests.cli.running import runner
from tests.net.wiring import NOW

EPID = "03612-04919-019-424065-03-1033-26100.0000-2152026"
#: A GUID that no product and no client has.
GUID = "0f0f0f0f-1111-2222-3333-444444444444"
SALT = bytes(range(16))
HARDWARE_ID = bytes(range(1, 9))

#: What a host makes of a request.
Behaviour = Callable[[RequestBody], Outcome]


def asked(request: RequestBody) -> tuple[bytes, OpenedRequest]:
    """
    Seal a request.
    """
    return seal_request(request, SALT)


def granted(request: RequestBody, **changes: Any) -> Outcome:
    """
    Make the outcome of a request that was granted.

    @param changes: Other values for fields of the answer.
    """
    payload, opened = asked(request)
    body = ResponseBody(
        request.minor_version,
        request.major_version,
        EPID,
        request.client_machine_id,
        request.client_time,
        50,
        120,
        10080,
    )._replace(**changes)
    answer = seal_response(
        opened, body, salt=bytes(16), random=bytes(range(50, 66)), hardware_id=HARDWARE_ID
    )
    return Outcome(opened, payload, NDR64, answer, verify_response(answer, opened))


def failed(error: KMSProtoError) -> Behaviour:
    """
    Make a host that answers every request with the same failure.
    """

    def behave(request: RequestBody) -> Outcome:
        payload, opened = asked(request)
        return Outcome(opened, payload, NDR64, error=error)

    return behave


class FakeProbing:
    """
    Stands for L{kmsproto.net.probing.Probing}: asks what the plan says of hosts that the test makes up.
    """

    case: ProbeCase

    def __init__(
        self,
        clock: object,
        endpoint: Any,
        plan: Plan,
        options: ClientOptions,
        report: Callable[[int, Outcome], None],
    ) -> None:
        self._behave: Behaviour | KMSProtoError = endpoint
        self._plan = plan
        self._report = report
        self.findings = self.case.findings
        self.case.plans.append((plan, options))

    async def run(self) -> None:
        """
        Ask.
        """
        for number in range(self._plan.requests):
            request = self._plan.make_body(number)
            self.case.requests.append(request)
            behave = self._behave
            if isinstance(behave, Exception):
                raise behave
            outcome = behave(request)
            self._report(number, outcome)
            if self._plan.enough(outcome):
                return


class ProbeCase(SynchronousTestCase):
    """
    The command, with a network that the test makes up.

    @ivar hosts: The hosts that the target stands for, by name; each is a behaviour, or the error that its connection
        ends with.
    @ivar requests: What was asked.
    @ivar plans: The plans and options.
    @ivar whereabouts: What the target was read as, and how it was looked up.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the reactor, the clock and the network.
        """
        self.hosts: dict[str, Behaviour | KMSProtoError] = {"kms.example:1688": granted}
        self.findings: tuple[Finding, ...] = ()
        self.requests: list[RequestBody] = []
        self.plans: list[tuple[Plan, ClientOptions]] = []
        self.whereabouts: list[tuple[Whereabouts, dict[str, Any]]] = []
        FakeProbing.case = self
        self.patch(module, "Probing", FakeProbing)
        self.patch(module, "destinations", self.destinations)
        self.patch(output, "react", self.react)
        self.patch(time, "time", lambda: NOW)
        self.patch(socket, "gethostname", lambda: "desk-17")

    async def destinations(
        self, reactor: Any, whereabouts: Whereabouts, **options: Any
    ) -> list[Destination]:
        """
        Stand for the look-up.
        """
        self.whereabouts.append((whereabouts, options))
        return [Destination(name, host) for name, host in self.hosts.items()]  # type: ignore[arg-type]

    def react(self, main: Callable[[Any], Any]) -> None:
        """
        Stand for twisted.internet.task.react.
        """
        reactor = MemoryReactorClock()
        reactor.advance(NOW)
        results: list[Any] = []
        main(reactor).addBoth(results.append)
        (result,) = results
        if result is not None:
            result.raiseException()
        sys.exit(0)

    def run_probe(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return runner().invoke(probe, arguments)

    def request(self, *arguments: str) -> RequestBody:
        """
        Run the command, and get what it asked.
        """
        result = self.run_probe("kms.example", *arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        return self.requests[-1]

    def assertUsageError(self, *arguments: str) -> str:
        """
        A command line is refused with status 2, and nothing is asked.
        """
        before = len(self.requests)
        result = self.run_probe(*arguments)
        self.assertEqual(result.exit_code, 2, result.output)
        self.assertEqual(len(self.requests), before)
        self.assertIn("Usage:", result.output)
        return " ".join(str(result.output).split())
