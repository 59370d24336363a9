"""
Taking signals while a service runs, and giving them back.

A signal has one handler in a process, and kmsproto may be a guest in somebody else's.  So SIGHUP is taken only where
it still has the meaning that the system gives it, which is to end the process: not where the operator has it ignored,
as under nohup, nor where the application handles it, nor in a thread that may not ask.  SIGINT and SIGTERM are the
reactor's, which shuts down at the first and knows nothing to do at a second; so they are taken from it as soon as it
shuts down.  Who presses Ctrl-C again does not want to wait for the calls in progress, while a service manager may well
send SIGTERM twice and have nothing in mind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class HangUp:
    """
    Calls a function at SIGHUP.

    @param reactor: The reactor, in whose thread it is called.
    @param function: The function.
    """

    def __init__(self, reactor: Any, function: Callable[[], object]) -> None:
        self._reactor = reactor
        self._function = function
        self._handler: Any = None

    def take(self) -> None:
        """
        Take the signal, unless it has another meaning in this process.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            self._handler = lambda *_: self._reactor.callFromThread(self._function)
            signal.signal(signal.SIGHUP, self._handler)

    def give_back(self) -> None:
        """
        Give the signal back, if it is still ours.
        """
        handler, self._handler = self._handler, None
        if handler is not None and signal.getsignal(signal.SIGHUP) is handler:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def taken(hang_up: HangUp | None) -> Iterator[None]:
    """
    Take the signal before the sockets are opened, and give it back if that fails.

    Who reads in the log that the host listens may send it, and the reactor does not run yet: it would end the host.

    @param hang_up: What takes it, if anything shall.
    """
    if hang_up is not None:
        hang_up.take()
    try:
        yield
    except BaseException:
        if hang_up is not None:
            hang_up.give_back()
        raise


class Impatience:
    """
    Calls a function at a SIGINT that comes while the reactor shuts down, when a further SIGTERM says nothing new.

    @param reactor: The reactor, in whose thread it is called.
    @param function: The function.
    """

    def __init__(self, reactor: Any, function: Callable[[], object]) -> None:
        self._reactor = reactor
        self._function = function
        self._trigger: Any = None

    def watch(self) -> None:
        """
        Wait for the reactor to shut down.
        """
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._take)

    def forget(self) -> None:
        """
        Wait no longer; what the shutdown has begun stays.
        """
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)

    def _take(self) -> None:
        self._trigger = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number, function in (
            (signal.SIGINT, lambda *_: self._reactor.callFromThread(self._function)),
            (signal.SIGTERM, lambda *_: None),
        ):
            if getattr(signal.getsignal(number), "__self__", None) is self._reactor:
                signal.signal(number, function)
