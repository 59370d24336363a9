"""
Who gets which signal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.signals import HangUp, Impatience, taken


class Reactor(MemoryReactorClock):
    """
    Calls at once, and shuts down when it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_shutdown: list[Callable[[], None]] = []

    def callFromThread(  # noqa: N802
        self, function: object, *arguments: object, **named: object
    ) -> None:
        """
        Call.
        """
        assert callable(function)
        function(*arguments, **named)

    def addSystemEventTrigger(  # type: ignore[override]  # noqa: N802
        self, phase: str, event: str, function: Callable[[], None]
    ) -> object:
        """
        Keep what is to be called at the shutdown.
        """
        assert (phase, event) == ("before", "shutdown")
        self.at_shutdown.append(function)
        return function

    def removeSystemEventTrigger(self, trigger: Any) -> None:  # noqa: N802
        """
        Forget it.
        """
        self.at_shutdown.remove(trigger)

    def sigInt(self, *_: object) -> None:  # noqa: N802
        """
        Be what handles SIGINT.
        """

    def sigTerm(self, *_: object) -> None:  # noqa: N802
        """
        Be what handles SIGTERM.
        """


class HangUpTests(SynchronousTestCase):
    """
    Taking the signal and giving it back.
    """

    def setUp(self) -> None:
        """
        Begin with what the system does.
        """
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.calls: list[str] = []
        self.hang_up = HangUp(Reactor(), lambda: self.calls.append("called"))

    def test_taken(self) -> None:
        """
        While it is taken, the function is called; afterwards the signal means what it did.
        """
        self.hang_up.take()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.calls, ["called"])
        self.hang_up.give_back()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)
        self.hang_up.give_back()

    def test_somebody_elses(self) -> None:
        """
        Where it is ignored or handled by others, that stays.
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.hang_up.take()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
        self.hang_up.give_back()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_taken_over(self) -> None:
        """
        What somebody else has put in our place is not touched.
        """
        self.hang_up.take()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.hang_up.give_back()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_other_thread(self) -> None:
        """
        A thread that may not ask does not.
        """
        thread = threading.Thread(target=self.hang_up.take)
        thread.start()
        thread.join()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_while_opening(self) -> None:
        """
        It is taken before the sockets are opened, and given back if they cannot be.
        """
        with taken(self.hang_up), taken(None):
            os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.calls, ["called"])
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)
        with self.assertRaises(KeyError), taken(self.hang_up), taken(None):
            raise KeyError
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)


class ImpatienceTests(SynchronousTestCase):
    """
    What a signal means that comes while the reactor shuts down.
    """

    def setUp(self) -> None:
        """
        Begin with a reactor that handles the signals.
        """
        self.reactor = Reactor()
        self.handlers = {
            signal.SIGINT: self.reactor.sigInt,
            signal.SIGTERM: self.reactor.sigTerm,
        }
        for number, handler in self.handlers.items():
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, handler)
        self.calls: list[str] = []
        self.impatience = Impatience(self.reactor, lambda: self.calls.append("called"))

    def shut_down(self) -> None:
        """
        Shut the reactor down.
        """
        for function in self.reactor.at_shutdown:
            function()

    def assert_untouched(self) -> None:
        """
        Check that the signals are the reactor's.
        """
        for number, handler in self.handlers.items():
            self.assertEqual(signal.getsignal(number), handler)

    def test_second(self) -> None:
        """
        Once the reactor shuts down, SIGINT calls the function and SIGTERM does nothing.
        """
        self.impatience.watch()
        self.assert_untouched()
        self.shut_down()
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual(self.calls, [])
        os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(self.calls, ["called"])
        self.impatience.forget()

    def test_forgotten(self) -> None:
        """
        A service that was stopped before leaves the signals to the reactor.
        """
        self.impatience.forget()
        self.impatience.watch()
        self.impatience.forget()
        self.assertEqual(self.reactor.at_shutdown, [])
        self.assert_untouched()

    def test_somebody_elses(self) -> None:
        """
        Where the application handles the signals, that stays.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.impatience.watch()
        self.shut_down()
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_other_thread(self) -> None:
        """
        A reactor that runs in another thread has no signals to take.
        """
        self.impatience.watch()
        thread = threading.Thread(target=self.shut_down)
        thread.start()
        thread.join()
        self.assert_untouched()
