"""
Where the log of a service goes: a journal in the place of twistd's own log file.

twistd asks the application for an observer before it makes one of its own, so a service that has a
L{Journal<kmsproto.service.journal.Journal>} offers it there.  The journal writes to what twistd would have written to,
opened at the same time and in the same directory, and takes the same signal to begin a new file.  Where the operator
has chosen something else, a logger of his own or syslog, or where the service runs in a program that is not twistd,
there is no journal, and everything is an event of Twisted's logging system.

With workers the lines come from other processes, stamped already.  They are relayed as they are; without a journal
they are taken apart, so that whoever observes the events gets their level and text as if they had arisen here.
"""

from __future__ import annotations

import re
import signal
import sys
from typing import Any

from twisted.application import app
from twisted.application.service import Service
from twisted.logger import ILogObserver, InvalidLogLevelError, Logger, LogLevel
from twisted.python.components import Componentized

from kmsproto.service.journal import Journal
from kmsproto.service.sinks import FileSink, sink_of
from kmsproto.service.startup import StartupError

#: The name of the log file of a daemon when nobody gives one: twistd's.
DEFAULT_FILE = "twistd.log"
#: What twistd writes: time, source and level, text.
_STAMPED = re.compile(r"\S+ \[([^\]]*)\] (.*)", re.DOTALL)
#: Where one event ends and the next begins: further lines of an event are indented.
_NEXT_EVENT = re.compile(r"\n(?!\t)")

_log = Logger()


def open_journal(twistd: Any, reactor: Any) -> Journal | None:
    """
    Open what twistd would write its log to.

    @param twistd: The options of twistd, or whatever our options were parsed under.
    @param reactor: The reactor.
    @return: The journal; L{None} where the log is not twistd's own, or twistd will refuse it.
    @raise StartupError: If the file cannot be opened.
    """
    if not isinstance(twistd, app.ServerOptions) or twistd["logger"] or twistd.get("syslog"):
        return None
    name, foreground = twistd["logfile"], twistd.get("nodaemon")
    if foreground and name in (None, "", "-"):
        return Journal(sink_of(sys.stdout), reactor)
    if name == "-":
        return None
    return Journal(_open_file(name or DEFAULT_FILE, reactor), reactor)


def _open_file(name: str, reactor: Any) -> FileSink:
    """
    Open a log file, and begin a new one at SIGUSR1, unless that has another meaning here.

    @raise StartupError: If it cannot be opened.
    """
    try:
        file: FileSink = FileSink.fromFullPath(name)  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = error.strerror or error
        raise StartupError(
            f"the log {name} cannot be written: {reason}; choose another with twistd --logfile"
        ) from error
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return file


class JournalledService(Service):
    """
    A service that offers its journal to the application.

    @ivar journal: The journal, or L{None}.
    """

    journal: Journal | None = None

    def setServiceParent(self, parent: Any) -> None:
        """
        Become a part of an application, whose log the journal is from now on, unless it has an observer.
        """
        if (
            self.journal is not None
            and isinstance(parent, Componentized)
            and parent.getComponent(ILogObserver, None) is None
        ):
            parent.setComponent(ILogObserver, self.journal)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def relay(journal: Journal | None, text: str) -> None:
    """
    Write whole lines that another process has stamped.

    @param journal: Where to; L{None}: to Twisted's logging system, each as an event of its level.
    @param text: The lines, with their ends.
    """
    if journal is not None:
        journal.relay(text)
        return
    for event in _NEXT_EVENT.split(text.removesuffix("\n")):
        stamped = _STAMPED.fullmatch(event)
        system, message = stamped.groups() if stamped else ("-", event)
        _log.emit(_level(system), "{text}", text=message, log_system=system)


def _level(system: str) -> Any:
    """
    Find the level in what twistd writes between brackets.
    """
    try:
        return LogLevel.levelWithName(system.rpartition("#")[2])
    except InvalidLogLevelError:
        return LogLevel.info
