"""
The command C{kmsproto serve-socket}: serve one connection that inetd or systemd has accepted, and end.

Its log goes to standard error, unless that is the connection itself; then it goes nowhere, or to where the options say.
"""

from __future__ import annotations

import os
import sys
import syslog
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from twisted.internet import reactor as installed_reactor
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.usage import UsageError
from zope.interface import provider

from kmsproto.errors import KMSProtoError
from kmsproto.net.quoting import tolerate
from kmsproto.service.hosting import Founding, group_seed, make_factory
from kmsproto.service.inetd import guard_output, serve_descriptor
from kmsproto.service.installation import load_installation
from kmsproto.service.startup import StartupError
from kmsproto.service.tap import Options

_log = Logger()

#: What the system's log calls our levels.
_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


@click.command("serve-socket")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the log to a file.",
)
@click.option("--syslog", "to_syslog", is_flag=True, help="Write the log to the system's log.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve_socket(log_file: Path | None, to_syslog: bool, arguments: tuple[str, ...]) -> None:
    """
    Serve one connection, which is standard input, and end.

    For inetd, and for a systemd socket unit with Accept=yes. ARGUMENTS are options of twistd kms, after two dashes:
    kmsproto serve-socket -- --state-directory /var/lib/kmsproto
    """
    can_write = guard_output()
    try:
        _begin_log(log_file, to_syslog, can_write)
        options = Options()
        options.parseOptions(list(arguments))
        status = run(options.effective)
    except (KMSProtoError, UsageError) as error:
        _log.error("{problem}", problem=str(error))
        if can_write and (log_file or to_syslog):
            click.echo(str(error), err=True)
        sys.exit(1)
    sys.exit(status)


def run(settings: Mapping[str, Any], descriptor: int = 0, reactor: Any = installed_reactor) -> int:
    """
    Serve a connection with the reactor of this process.

    @param settings: The values of the settings by name; those about listening mean nothing here.
    @param descriptor: The socket.
    @param reactor: The reactor, not running.
    @return: The exit status.
    @raise KMSProtoError: If it cannot be served.
    """
    installation = load_installation(settings["state-directory"], time.time(), os.urandom)
    site = Founding(installation).site(settings)
    factory = make_factory(site, reactor, group_seed=group_seed(os.urandom))
    done = serve_descriptor(reactor, factory, descriptor)
    # It may be over before the reactor runs.
    done.addCallback(lambda _: reactor.callWhenRunning(reactor.stop))
    reactor.run()
    factory.reporter.flush()
    return 0


def _begin_log(file: Path | None, to_syslog: bool, can_write: bool) -> None:
    """
    @raise StartupError: If the file cannot be written.
    """
    if file is not None:
        try:
            stream = file.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise StartupError(
                f"the log {file} cannot be written: {error.strerror or error};"
                " choose another with --log-file"
            ) from error
        observer: ILogObserver = textFileLogObserver(stream)
    elif to_syslog:
        syslog.openlog("kmsproto", syslog.LOG_PID, syslog.LOG_DAEMON)
        observer = _to_syslog
    elif can_write:
        tolerate(sys.stderr)
        observer = textFileLogObserver(sys.stderr)
    else:
        observer = _to_nobody
    # Without any, Twisted would write failures to standard error.
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


@provider(ILogObserver)
def _to_syslog(event: LogEvent) -> None:
    text = formatEvent(event)
    if event.get("log_failure") is not None:
        text = f"{text}: {event['log_failure'].getErrorMessage()}"
    syslog.syslog(_PRIORITIES.get(event["log_level"], syslog.LOG_INFO), text.replace("\0", "?"))


@provider(ILogObserver)
def _to_nobody(event: LogEvent) -> None:
    """
    Lose an event.
    """
