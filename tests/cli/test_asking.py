"""
Asking one place: what is asked for, how, and what is made of the outcome.
"""

from __future__ import annotations

import socket
import uuid
from typing import Any

import click
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import asking as module
from kmsproto.cli.asking import Asked, Verdict, ask, make_body
from kmsproto.cli.targets import Target
from kmsproto.errors import HResultError
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.kms.messages import ResponseBody
from kmsproto.net.client import ClientOptions
from tests.net.resolving import start
from tests.net.wiring import body, catalog

EPID = "03612-00206-471-000000-03-1033-26100.0000-3182026"


class AskTests(SynchronousTestCase):
    """
    One place.
    """

    def setUp(self) -> None:
        """
        Put a client in place that takes three seconds.
        """
        self.reactor = MemoryReactorClock()
        self.asked: list[tuple[Any, ClientOptions]] = []
        self.answered: Deferred[OpenedResponse] = Deferred()
        self.patch(module, "activate", self.activate)

    def activate(
        self, reactor: Clock, endpoint: Any, request: Any, options: ClientOptions
    ) -> Deferred[OpenedResponse]:
        """
        Stand for the client.
        """
        self.asked.append((endpoint, options))
        self.reactor.advance(3)
        return self.answered

    def ask(self, family: int | None = None) -> Asked:
        """
        Ask, and get what came of it.
        """
        asked = self.successResultOf(
            start(ask(self.reactor, Target("kms.example"), body(), 2.5, family))
        )
        assert isinstance(asked, Asked)
        return asked

    def test_granted(self) -> None:
        """
        What was granted is told with the time that it took, the connection included.
        """
        request = body()
        response = ResponseBody(
            0, 6, EPID, request.client_machine_id, request.client_time, 50, 120, 10080
        )
        self.answered = succeed(OpenedResponse(response, bytes(8)))
        self.assertEqual(self.ask(), Asked(Verdict.GRANTED, 3.0, "", EPID, 50))
        ((endpoint, options),) = self.asked
        self.assertTrue(IStreamClientEndpoint.providedBy(endpoint))
        self.assertEqual(options, ClientOptions(timeout=2.5))

    def test_failed(self) -> None:
        """
        A failure is told with the reason and the time.
        """
        self.answered = fail(HResultError(0xC004F042, "no"))
        asked = self.ask()
        self.assertEqual((asked.verdict, asked.seconds, asked.count), (Verdict.REFUSED, 3.0, None))
        self.assertIn("0xC004F042", asked.problem)

    def test_family(self) -> None:
        """
        With an IP version only its addresses are tried.
        """
        self.answered = fail(HResultError(5, "no"))
        reached: list[tuple[object, ...]] = []
        self.patch(module, "endpoint_to", lambda *arguments: reached.append(arguments))
        self.ask(6)
        self.assertEqual(reached[0][-1], 6)

    def test_mistakes_are_not_hidden(self) -> None:
        """
        A mistake of ours is not taken for one of the host.
        """
        self.answered = fail(ZeroDivisionError())
        self.failureResultOf(start(ask(self.reactor, Target("kms"), body(), 1)), ZeroDivisionError)


class BodyTests(SynchronousTestCase):
    """
    What is asked for.
    """

    def test_body(self) -> None:
        """
        The request is that of the product, in the name of this machine, which is one client however often it asks.
        """
        self.patch(socket, "gethostname", lambda: "desk-17")
        name, request = make_body(catalog(), "Windows 10/11 Professional", None)
        self.assertEqual(name, catalog().product("Windows 10/11 Professional").name)
        self.assertEqual((request.major_version, request.workstation), (6, "desk-17"))
        self.assertEqual(request.client_machine_id, uuid.uuid5(uuid.NAMESPACE_DNS, "desk-17"))
        _, again = make_body(catalog(), None, "4")
        self.assertEqual(again.major_version, 4)
        self.assertEqual(again.client_machine_id, request.client_machine_id)

    def test_no_such_product(self) -> None:
        """
        A product that nobody knows is a mistake on the command line.
        """
        with self.assertRaises(click.BadParameter):
            make_body(catalog(), "no such product", None)
