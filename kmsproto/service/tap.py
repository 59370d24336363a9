"""
What C{twistd kms} runs: the options, made from the settings, and the service, made from the options.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.app import ServerOptions
from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from kmsproto import __version__
from kmsproto.errors import KMSProtoError
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import DEFAULT_HOST_BUILD
from kmsproto.kms.rijndael import IMPLEMENTATION
from kmsproto.net.quoting import quote, tolerate
from kmsproto.service.endpoints import make_endpoints
from kmsproto.service.handover import Handover
from kmsproto.service.hosting import Founding, change_factory, group_seed, make_factory
from kmsproto.service.installation import StateError, StateUnusableError, load_installation
from kmsproto.service.kinds import FILE, SettingError
from kmsproto.service.listener import HostService
from kmsproto.service.logs import open_journal
from kmsproto.service.reloading import Reloader
from kmsproto.service.settings import BY_NAME, SETTINGS, Setting
from kmsproto.service.signals import HangUp
from kmsproto.service.sources import Effective, Given, gather
from kmsproto.service.startup import StartupError
from kmsproto.service.supervisor import Command, SupervisorService, reactor_module
from kmsproto.service.vlmcsd import FOREIGN, SHORTHAND, Row

_log = Logger()


def _option(setting: Setting) -> Callable[[Any, str], None]:
    """
    Make the option of a setting that takes a value.
    """

    def option(self: Any, text: str) -> None:
        self.take(setting, text, f"--{setting.name}")

    # This is where usage.Options takes the help of an option from.
    option.__doc__ = _help(setting)
    return option


def _switch(setting: Setting) -> Callable[[Any], None]:
    """
    Make the option of a setting that takes none.
    """

    def option(self: Any) -> None:
        self.take(setting, "on", f"--{setting.name}")

    option.__doc__ = _help(setting)
    return option


def _shorthand(row: Row) -> Callable[[Any], None]:
    """
    Make a letter that stands for a setting and its value.
    """

    def option(self: Any) -> None:
        self.take(BY_NAME[row.setting], row.text, row.option)

    option.__doc__ = f"The same as --{row.setting} {row.text}."
    return option


def _foreign(row: Row) -> Callable[..., None]:
    """
    Make an option of vlmcsd that belongs to twistd.
    """
    message = f"{row.option} is an option of vlmcsd; use {row.instead}"

    def with_value(self: Any, text: str) -> None:
        raise UsageError(message)

    def without_value(self: Any) -> None:
        raise UsageError(message)

    option = with_value if row.sample else without_value
    option.__doc__ = f"Not here: {row.instead}."
    return option


def _help(setting: Setting) -> str:
    return (
        setting.help if setting.default is None else f"{setting.help} [default: {setting.default}]"
    )


class Options(UsageOptions):
    """
    The options of C{twistd kms}.

    @ivar effective: The settings in force, once the command line is parsed; the options themselves are their values.
    @cvar environment: The variables of the environment.
    """

    environment: ClassVar[Mapping[str, str]] = os.environ
    synopsis = "[options]"
    longdesc = (
        "A KMS (Key Management Service) host: it answers the activation requests of volume-licensed Windows and"
        " Office clients on this network. It grants no licence; whoever runs it must own the volume licences for the"
        " products it activates. Without options it listens on TCP port 1688 and answers private addresses only."
        " Settings can also stand in a file (--config) and in variables of the environment (KMSPROTO_...); kmsproto"
        " config prints what holds. Daemonizing, logging, pidfile, user and group are options of twistd itself,"
        " before the word kms."
    )

    def __init__(self) -> None:
        self.given: dict[str, Given] = {}
        super().__init__()  # type: ignore[no-untyped-call]
        self.effective: Effective

    def opt_version(self) -> None:
        """
        Tell the version and end.
        """
        sys.stdout.write(f"kmsproto, version {__version__} (cipher: {IMPLEMENTATION})\n")
        sys.exit(0)

    def take(self, setting: Setting, text: str, where: str) -> None:
        """
        Take a value of the command line; of a setting that has one value the last one counts.

        @param where: The option that gave it.
        @raise UsageError: If it is not allowed.
        """
        try:
            setting.value(text, where)
        except SettingError as error:
            raise UsageError(str(error)) from error
        if setting.kind is FILE:
            # It is read again at each reload, when the working directory may be another.
            text = os.path.abspath(text)
        before = self.given[setting.name].texts if setting.name in self.given else ()
        self.given[setting.name] = Given((*before, text) if setting.repeatable else (text,), where)

    def parseOptions(self, options: Any = None) -> None:
        """
        Parse.

        @raise UsageError: If an option is not known, or its value not allowed.
        @raise SystemExit: Instead of that inside twistd, which would print the help of all of twistd before the line.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as error:
            if getattr(self, "parent", None) is None:
                raise
            raise SystemExit(f"twistd kms: {error}; see twistd kms --help") from error

    def parseArgs(self, *words: str) -> None:  # noqa: N802 - the name is Twisted's
        """
        Take what is no option.

        @raise UsageError: If there is anything.
        """
        if words:
            raise UsageError(f"{words[0]!r} is no option, and nothing else is wanted")

    def postOptions(self) -> None:
        """
        Find out what holds.

        @raise UsageError: If a value is not allowed, or not together with others, or a file cannot be used.
        """
        try:
            self.effective = self.gather()
        except KMSProtoError as error:
            raise UsageError(str(error)) from error
        self.update(self.effective)

    def gather(self) -> Effective:
        """
        Find out what holds now: a file may have changed.

        @raise SettingError: If a value is not allowed.
        @raise ConfigurationError: If a file cannot be used.
        """
        return gather(self.given, self.environment, os.geteuid())


def _add_options() -> None:
    """
    Give L{Options} a method for each setting, as C{usage.Options} wants it.
    """
    for setting in SETTINGS:
        option = _switch(setting) if setting.flag else _option(setting)
        name = setting.name.replace("-", "_")
        setattr(Options, f"opt_{name}", option)
        if setting.short:
            setattr(Options, f"opt_{setting.short}", option)
    for letter, row in SHORTHAND.items():
        if letter != BY_NAME[row.setting].short:
            setattr(Options, f"opt_{letter}", _shorthand(row))
    for letter, row in FOREIGN.items():
        setattr(Options, f"opt_{letter}", _foreign(row))
    Options.opt_V = Options.opt_version  # type: ignore[attr-defined]


_add_options()


def makeService(options: Options, reactor: Any = installed_reactor) -> IService:
    """
    Make the service of a host.

    @param options: Parsed options.
    @param reactor: The reactor.
    @return: A L{HostService}; with more than one worker a L{SupervisorService}.
    @raise StartupError: If the state directory, the host build, the catalogue, an endpoint or the log cannot be used.
    """
    # Where twistd logs to in the foreground; a name that the terminal has no characters for must not cost the line.
    tolerate(sys.stdout)
    twistd = getattr(options, "parent", None)
    settings = options.effective
    workers = settings["workers"]
    if workers > 1:
        _check_surroundings(twistd)
    try:
        installation = _installation(settings["state-directory"])
        endpoints = make_endpoints(settings, reactor)
        founding = Founding(installation)
        site = founding.site(settings)
        journal = open_journal(
            twistd, reactor, log_format=settings["log-format"], timestamps=settings["timestamps"]
        )
    except KMSProtoError as error:
        raise StartupError(str(error)) from error
    factory = make_factory(
        site,
        reactor,
        group_seed=group_seed(os.urandom),
        journal=journal.write if journal is not None else None,
    )
    _log.info(
        "starting version={version} host_build={host_build} products={products} cipher={cipher} workers={workers}"
        " state={state}",
        version=__version__,
        host_build=settings["host-build"] or DEFAULT_HOST_BUILD,
        products=len(site.host.catalog.skus),
        cipher=quote(IMPLEMENTATION),
        workers=workers,
        state=quote(str(settings["state-directory"])),
    )
    for warning in (*settings.warnings, *site.warnings):
        _log.warn("{remark}", remark=warning)
    reloader = Reloader(settings, options.gather, founding.site, partial(change_factory, factory))
    tolerant = settings["exit-level"] == "tolerant"
    if workers == 1:
        return HostService(
            factory,
            endpoints,
            journal,
            tolerate_failures=tolerant,
            hang_up=HangUp(reactor, reloader.reload),
        )
    module = reactor_module(reactor)

    def document(worker: int) -> bytes:
        return Handover(
            version=__version__,
            worker=worker,
            reactor=module,
            # When one of several could not be opened, there are fewer.
            sockets=len(service.ports) or len(endpoints),
            group_seed=group_seed(os.urandom, worker, workers),
            installation=installation,
            settings=reloader.settings,
            catalog_file=founding.catalog_file,
            drawn=founding.drawn,
        ).encode()

    service = SupervisorService(
        reactor,
        endpoints,
        workers=workers,
        command=Command.of_this_process(),
        document=document,
        # The factory here serves nobody, but knows the limits of those that do.
        patience=factory.limits.drain_timeout + factory.limits.linger_timeout,
        reload=reloader.reload,
        tolerate_failures=tolerant,
        journal=journal,
    )
    return service


def _check_surroundings(twistd: Any) -> None:
    """
    See that workers can be started later.

    @raise StartupError: If twistd is to change its root, beyond which the interpreter is out of reach.
    """
    if isinstance(twistd, ServerOptions) and twistd.get("chroot"):
        raise StartupError(
            "workers cannot be started after twistd --chroot; leave that out, or use --workers=1"
        )


def _installation(directory: Path) -> Installation:
    """
    @raise StateError: If the state directory cannot be used; with what an operator can do about it.
    """
    try:
        return load_installation(directory, time.time(), os.urandom)
    except StateUnusableError as error:
        raise StateError(f"{error}; choose another with --state-directory") from error
