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

from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from kmsproto import __version__
from kmsproto.errors import CatalogError, KMSProtoError
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.epid import EPIDError, Installation
from kmsproto.kms.host import Host, HostIdentity, host_builds
from kmsproto.kms.policy import charged
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.listening import BothFamiliesEndpoint
from kmsproto.net.quoting import quote, tolerate
from kmsproto.net.server import HostFactory, Limits
from kmsproto.service.installation import StateError, StateUnusableError, load_installation
from kmsproto.service.listener import HostService, StartupError
from kmsproto.service.settings import (
    SETTINGS,
    Setting,
    SettingError,
    default_state_directory,
)

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

        @raise UsageError: If one is not allowed.
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


def makeService(options: Options, reactor: Any = installed_reactor) -> IService:
    """
    Make the service of a host.

    @param options: Parsed options.
    @param reactor: The reactor.
    @raise StartupError: If the state directory, the host build, the catalogue or an endpoint cannot be used.
    """
    # Where twistd logs to in the foreground; a name that the terminal has no characters for must not cost the line.
    tolerate(sys.stdout)
    try:
        catalog = load_catalog()
        installation = _installation(options["state-directory"])
        identity = _identity(options, catalog, installation)
        endpoints = _endpoints(options, reactor)
    except KMSProtoError as error:
        raise StartupError(str(error)) from error
    policy = charged(
        catalog,
        activation_interval=options["activation-interval"],
        renewal_interval=options["renewal-interval"],
    )
    factory = HostFactory(
        Host(catalog, identity, policy, os.urandom),
        reactor,
        limits=Limits(
            idle_timeout=options["idle-timeout"],
            max_connections=options["max-connections"],
            max_connections_per_address=options["max-connections-per-address"],
        ),
        ndr64=options["ndr64"],
        bind_time_features=options["bind-time-features"],
        allow_public_peers=options["allow-public-peers"],
        allow_shared_address_space=options["allow-shared-address-space"],
        group_seed=int.from_bytes(os.urandom(4), "big"),
    )
    _log.info(
        "starting version={version} host_build={host_build} products={products} state={state}",
        version=__version__,
        host_build=options["host-build"],
        products=len(catalog.skus),
        state=quote(str(options["state-directory"])),
    )
    return HostService(factory, endpoints)


def _installation(directory: Path) -> Installation:
    """
    @raise StateError: If the state directory cannot be used; with what an operator can do about it.
    """
    try:
        return load_installation(directory, time.time(), os.urandom)
    except StateUnusableError as error:
        raise StateError(f"{error}; choose another with --state-directory") from error


def _identity(options: Options, catalog: Catalog, installation: Installation) -> HostIdentity:
    """
    Make what the host says of itself.

    @raise SettingError: If the build is not known, or cannot host a key of the catalogue.
    """
    build = options["host-build"]
    try:
        return HostIdentity(catalog, installation, host_build=build, lcid=options["lcid"])
    except (CatalogError, EPIDError) as error:
        known = ", ".join(map(str, host_builds(catalog)))
        allowed = f"a build that can host the keys of the catalogue, such as {known}"
        raise SettingError("host-build", str(build), allowed) from error


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
