"""
Who gets SIGHUP.
"""

from __future__ import annotations

import os
import signal
import threading

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.signals import HangUp


class Reactor(MemoryReactorClock):
    """
    Calls at once.
    """

    def callFromThread(  # noqa: N802
        self, function: object, *arguments: object, **named: object
    ) -> None:
        """
        Call.
        """
        assert callable(function)
        function(*arguments, **named)


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
