"""
Where the log of a service goes: a journal in the place of twistd's own log file.

twistd asks the application for an observer before it makes one of its own, so a service that has a
L{Journal<kmsproto.service.journal.Journal>} offers it there.  The journal writes to what twistd would have written to,
opened at the same time and in the same directory, and takes the same signal to begin a new file; where the log is none,
the signal does nothing, rather than end the host as the system would have it.  Where the operator has chosen something
else, a logger of his own or syslog, or where the service runs in a program that is not twistd, there is no journal, and
everything is an event of Twisted's logging system.

With workers the lines come from other processes, stamped already.  They are relayed as they are; without a journal
they are taken apart, so that whoever observes the events gets their level and text as if they had arisen here.  An
object about a peer is the text of its event, as it is where there are no workers.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application import app
from twisted.application.service import Service
from twisted.logger import ILogObserver, InvalidLogLevelError, Logger, LogLevel
from twisted.python.components import Componentized

from kmsproto.net.quoting import quote
from kmsproto.net.reporting import Format
from kmsproto.service.forms import SYSTEM, choose_form
from kmsproto.service.journal import Journal
from kmsproto.service.sinks import FileSink, sink_of
from kmsproto.service.startup import StartupError

#: The name of the log file of a daemon when nobody gives one: twistd's.
DEFAULT_FILE = "twistd.log"
#: What twistd writes: time, unless that is left out, source and level, text.
_STAMPED = re.compile(r"(?:\S+ )?\[([^\]]*)\] (.*)", re.DOTALL)
#: Where one event ends and the next begins: further lines of an event are indented.
_NEXT_EVENT = re.compile(r"\n(?!\t)")

_log = Logger()


def open_journal(
    twistd: Any, reactor: Any, *, log_format: Format = "text", timestamps: bool = True
) -> Journal | None:
    """
    Open what twistd would write its log to.

    @param twistd: The options of twistd, or whatever our options were parsed under.
    @param reactor: The reactor.
    @param log_format: The format of lines about peers, and so of all.
    @param timestamps: Whether lines of text begin with their times.
    @return: The journal; L{None} where the log is not twistd's own, or twistd will refuse it.
    @raise StartupError: If the file cannot be opened.
    """
    if not isinstance(twistd, app.ServerOptions) or twistd["logger"]:
        return None
    if twistd.get("syslog"):
        _heed(lambda: None)
        return None
    form = choose_form(log_format, timestamps=timestamps)
    name, foreground = twistd["logfile"], twistd.get("nodaemon")
    if foreground and name in (None, "", "-"):
        _heed(lambda: None)
        return Journal(sink_of(sys.stdout), reactor, form=form)
    if name == "-":
        return None
    return Journal(_open_file(name or DEFAULT_FILE, reactor), reactor, form=form)


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
    _heed(lambda: reactor.callFromThread(_begin, file))
    return file


def _begin(file: FileSink) -> None:
    """
    Begin a new log file.
    """
    try:
        file.begin()
    except OSError as error:
        _log.error(
            "no new file of the log was begun: {reason}", reason=quote(error.strerror or str(error))
        )


def _heed(begin_file: Callable[[], object]) -> None:
    """
    Call a function at SIGUSR1, unless that has another meaning in this process.
    """
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: begin_file())


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
        system, message = _take_apart(event)
        _log.emit(_level(system), "{text}", text=message, log_system=system)


def _take_apart(event: str) -> tuple[str, str]:
    """
    Find source and level, and the text, in what another process wrote about an event.
    """
    if event.startswith("{"):
        try:
            record = json.loads(event)
        except (ValueError, RecursionError):
            return "-", event
        if record.get("event") != "log":
            return SYSTEM, event
        return str(record.get("system", "-")), str(record.get("message", ""))
    stamped = _STAMPED.fullmatch(event)
    return (stamped[1], stamped[2]) if stamped else ("-", event)


def _level(system: str) -> Any:
    """
    Find the level in what twistd writes between brackets.
    """
    try:
        return LogLevel.levelWithName(system.rpartition("#")[2])
    except InvalidLogLevelError:
        return LogLevel.info
