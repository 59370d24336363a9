"""
What C{twistd kms} runs: the options, made from the settings, and the service, made from the options.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.app import ServerOptions
from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from kmsproto import __version__
from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.epid import Installation
from kmsproto.kms.rijndael import IMPLEMENTATION
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.listening import BothFamiliesEndpoint
from kmsproto.net.quoting import quote, tolerate
from kmsproto.service.handover import Handover
from kmsproto.service.hosting import group_seed, make_factory, make_host
from kmsproto.service.installation import StateError, StateUnusableError, load_installation
from kmsproto.service.listener import HostService
from kmsproto.service.logs import open_journal
from kmsproto.service.settings import (
    SETTINGS,
    Setting,
    SettingError,
    check_common_view,
    default_state_directory,
)
from kmsproto.service.startup import StartupError
from kmsproto.service.supervisor import Command, SupervisorService, reactor_module

_log = Logger()
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def _read(setting: Setting, text: str) -> Any:
    """
    @raise UsageError: If the value is not allowed.
    """
    try:
        return setting.value(text)
    except SettingError as error:
        raise UsageError(str(error)) from error


def _repeatable(setting: Setting) -> Callable[[Any, str], None]:
    """
    Make the option of a setting that may be given more than once.
    """

    def option(self: Any, text: str) -> None:
        self[setting.name].append(_read(setting, text))

    # This is where usage.Options takes the help of such an option from.
    option.__doc__ = setting.help
    return option


class Options(UsageOptions):
    """
    The options of C{twistd kms}.
    """

    synopsis = "[options]"
    longdesc = (
        "A KMS (Key Management Service) host: it answers the activation requests of volume-licensed Windows and"
        " Office clients on this network. It grants no licence; whoever runs it must own the volume licences for the"
        " products it activates. Without options it listens on TCP port 1688 and answers private addresses only."
        " Daemonizing, logging, pidfile, user and group are options of twistd itself, before the word kms."
    )
    optFlags: ClassVar = [[each.name, each.short, each.help] for each in SETTINGS if each.flag]
    optParameters: ClassVar = [
        [each.name, each.short, each.default, each.help]
        for each in SETTINGS
        if not each.flag and not each.repeatable
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["endpoint"] = []

    opt_endpoint = _repeatable(_BY_NAME["endpoint"])

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

    def postOptions(self) -> None:
        """
        Read the values.

        @raise UsageError: If one is not allowed, or not together with others.
        """
        for setting in SETTINGS:
            given = self[setting.name]
            if setting.flag:
                self[setting.name] = bool(given)
            elif isinstance(given, str):
                self[setting.name] = _read(setting, given)
        if self["port"] is None and not self["endpoint"]:
            self["port"] = KMS_PORT
        if self["state-directory"] is None:
            self["state-directory"] = default_state_directory(os.environ, os.geteuid())
        try:
            check_common_view(self, self["workers"])
        except SettingError as error:
            raise UsageError(str(error)) from error


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
    workers = options["workers"]
    if workers > 1:
        _check_surroundings(twistd)
    try:
        catalog = load_catalog()
        installation = _installation(options["state-directory"])
        endpoints = _endpoints(options, reactor)
        host = make_host(options, catalog, installation)
        journal = open_journal(twistd, reactor)
    except KMSProtoError as error:
        raise StartupError(str(error)) from error
    factory = make_factory(
        options,
        host,
        reactor,
        group_seed=group_seed(os.urandom),
        journal=journal.write if journal is not None else None,
    )
    _log.info(
        "starting version={version} host_build={host_build} products={products} cipher={cipher} workers={workers}"
        " state={state}",
        version=__version__,
        host_build=options["host-build"],
        products=len(catalog.skus),
        cipher=quote(IMPLEMENTATION),
        workers=workers,
        state=quote(str(options["state-directory"])),
    )
    if workers == 1:
        return HostService(factory, endpoints, journal)
    module = reactor_module(reactor)

    def document(worker: int) -> bytes:
        return Handover(
            version=__version__,
            worker=worker,
            reactor=module,
            sockets=len(endpoints),
            group_seed=group_seed(os.urandom, worker, workers),
            installation=installation,
            settings=options,
        ).encode()

    return SupervisorService(
        reactor,
        endpoints,
        workers=workers,
        command=Command.of_this_process(),
        document=document,
        # The factory here serves nobody, but knows the limits of those that do.
        patience=factory.limits.drain_timeout + factory.limits.linger_timeout,
        journal=journal,
    )


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


def _endpoints(options: Options, reactor: Any) -> list[IStreamServerEndpoint]:
    """
    Make the endpoints.

    @raise SettingError: If a description is not one of a server endpoint.
    """
    endpoints: list[IStreamServerEndpoint] = []
    if options["port"] is not None:
        endpoints.append(BothFamiliesEndpoint(reactor, options["port"]))
    for description in options["endpoint"]:
        try:
            endpoints.append(serverFromString(reactor, description))
        except Exception as error:
            problem = f"{_BY_NAME['endpoint'].kind.allowed}: {error}"
            raise SettingError("endpoint", description, problem) from error
    return endpoints
