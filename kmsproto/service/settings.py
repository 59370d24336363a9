"""
Every setting of the host, defined once: its name, type, default, help, short letter and place in a file.

A setting is a row of L{SETTINGS}; the options of the plugin and their help, the file of settings, the variables of the
environment and the reference are made from it.  A value that was given as text is read by the setting's own kind, which
knows what is allowed and says so when it is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmsproto.kms.host import DEFAULT_HOST_BUILD, DEFAULT_LCID
from kmsproto.kms.policy import DEFAULT_ACTIVATION_INTERVAL, DEFAULT_RENEWAL_INTERVAL
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.server import Limits
from kmsproto.service.kinds import (
    ADDRESS,
    CONNECTIONS,
    DIRECTORY,
    ENDPOINT,
    FILE,
    INTERVAL,
    NETWORK,
    ON_OR_OFF,
    PORT,
    RATE,
    SECONDS,
    SWITCH,
    TEXT,
    WORKERS,
    Kind,
    SettingError,
    one_of,
    whole_number,
)

#: Where a service that was started by root keeps its state.
SYSTEM_STATE_DIRECTORY = Path("/var/lib/kmsproto")
#: The file of settings that is read without being asked for.
SYSTEM_CONFIGURATION = Path("/etc/kmsproto/kms.toml")
#: What the names of environment variables begin with.
ENVIRONMENT_PREFIX = "KMSPROTO_"


def _never(value: Any) -> bool:
    """
    Say that a setting needs no common view, whatever its value.
    """
    return False


@dataclass(slots=True, frozen=True)
class Setting:
    """
    One setting.

    @ivar name: Its long name, as on the command line.
    @ivar kind: What its values are.
    @ivar help: What it does, for a stranger, with its unit.
    @ivar default: What stands for it when it is not given, as text like any value of it; L{None} when that depends
        on the surroundings, as the help says.
    @ivar short: Its short letter, or nothing.
    @ivar section: The table of the file that it stands in; nothing for one that no file has.
    @ivar repeatable: Whether it may be given more than once.
    @ivar cumulative: Whether what a file gives still counts when the command line gives more.
    @ivar reloadable: Whether a running host can take a new value.
    @ivar file_key: Its key in the file, where that is not its name.
    @ivar needs_common_view: Tells of a value whether it asks for something that one process must see as a whole, such
        as a count of all clients that is kept in memory.  Workers share nothing, so with more than one of them such a
        value is refused.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None
    short: str | None = None
    section: str = ""
    repeatable: bool = False
    cumulative: bool = False
    reloadable: bool = False
    file_key: str | None = None
    needs_common_view: Callable[[Any], bool] = _never

    @property
    def flag(self) -> bool:
        """
        Whether it is a switch, which is given without a value.
        """
        return self.kind is SWITCH

    @property
    def key(self) -> str:
        """
        Its key in the file, in L{section}.
        """
        return self.file_key or self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """
        Its variable of the environment.
        """
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    @property
    def initial(self) -> Any:
        """
        What holds when nobody gives it.
        """
        if self.repeatable:
            return []
        if self.default is None:
            return False if self.flag else None
        return self.kind.read(self.default)

    def value(self, text: str, where: str | None = None) -> Any:
        """
        Read a value.

        @param where: What gave it; by default the command line.
        @raise SettingError: If it is not allowed.
        """
        try:
            return self.kind.read(text)
        except ValueError as error:
            raise SettingError(where or f"--{self.name}", text, self.kind.allowed) from error


def default_state_directory(environment: Mapping[str, str], user_id: int) -> Path:
    """
    Choose where the state is kept when nobody says: the system's place for root, the user's own otherwise.

    @param environment: Environment variables; C{XDG_STATE_HOME} is looked at.
    @param user_id: The effective user id.
    """
    if user_id == 0:
        return SYSTEM_STATE_DIRECTORY
    home = environment.get("XDG_STATE_HOME") or os.path.join(
        environment.get("HOME") or "/", ".local", "state"
    )
    return Path(home) / "kmsproto"


_LIMITS = Limits()

#: All settings, in the order in which help and file list them.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "config",
        FILE,
        f"File with settings, in TOML (default: {SYSTEM_CONFIGURATION}, if it is there).",
        section="",
        reloadable=True,
    ),
    Setting(
        "vlmcsd-ini",
        FILE,
        "File with settings as vlmcsd.ini has them; whatever is set elsewhere comes before it.",
        short="i",
        section="",
        reloadable=True,
    ),
    Setting(
        "port",
        PORT,
        "TCP port to listen on, on every address of this machine, IPv6 and IPv4"
        f" (default: {KMS_PORT}, unless --endpoint is given); with --listen the port of addresses that name none.",
        short="P",
        section="listen",
    ),
    Setting(
        "listen",
        ADDRESS,
        "Address to listen on, with or without a port, instead of every address; may be given more than once.",
        short="L",
        section="listen",
        repeatable=True,
        file_key="addresses",
    ),
    Setting(
        "endpoint",
        ENDPOINT,
        "Where to listen, as a Twisted server endpoint, for example unix:/run/kms.socket, systemd:domain=INET:index=0"
        " or haproxy:tcp:1688; may be given more than once.",
        section="listen",
        repeatable=True,
        file_key="endpoints",
    ),
    Setting(
        "free-bind",
        ON_OR_OFF,
        "Listen also on addresses that this machine does not have yet: on or off.",
        default="off",
        short="F",
        section="listen",
    ),
    Setting(
        "exit-level",
        one_of("tolerant", "strict", numbers={"0": "tolerant", "1": "strict"}),
        "What happens if one of several addresses cannot be listened on: 1 or strict ends the start, 0 or tolerant"
        " warns, and goes on with the others. In vlmcsd the default is 0.",
        default="strict",
        short="x",
        section="listen",
    ),
    Setting(
        "workers",
        WORKERS,
        "Processes that serve, each on a core of its own: a number, or auto for one per core that this process may use."
        " With more than one, this process only watches over them.",
        default="1",
        section="listen",
    ),
    Setting(
        "public-ip-protection",
        whole_number("a level", 0, 3),
        "1 listens on private addresses of this machine only (unless --listen or --endpoint is given), 2 refuses"
        " peers with public addresses, 3 does both, 0 neither. In vlmcsd the default is 0.",
        default="2",
        short="o",
        section="access",
        reloadable=True,
    ),
    Setting(
        "allow-public-peers",
        SWITCH,
        "Answer any address. By default only private, loopback, link-local and unique-local addresses are answered.",
        section="access",
        reloadable=True,
    ),
    Setting(
        "allow-shared-address-space",
        SWITCH,
        "Answer 100.64.0.0/10 (RFC 6598) as if it were private.",
        section="access",
        reloadable=True,
    ),
    Setting(
        "allow",
        NETWORK,
        "Network whose peers are answered, and no others; it may be a public one. May be given more than once.",
        section="access",
        repeatable=True,
        reloadable=True,
    ),
    Setting(
        "deny",
        NETWORK,
        "Network whose peers are not answered, whatever else allows them; may be given more than once.",
        section="access",
        repeatable=True,
        reloadable=True,
    ),
    Setting(
        "max-connections",
        CONNECTIONS,
        "Connections that may be open at a time, in each worker.",
        default=str(_LIMITS.max_connections),
        short="m",
        section="access",
        reloadable=True,
    ),
    Setting(
        "max-connections-per-address",
        CONNECTIONS,
        "Connections that one address may have open at a time, in each worker.",
        default=str(_LIMITS.max_connections_per_address),
        section="access",
        reloadable=True,
    ),
    Setting(
        "connection-rate",
        RATE,
        "Connections per second that one address may make in the long run, in each worker (default: any number).",
        section="access",
        reloadable=True,
    ),
    Setting(
        "connection-burst",
        CONNECTIONS,
        "Connections that one address may make at once before --connection-rate holds.",
        default="20",
        section="access",
        reloadable=True,
    ),
    Setting(
        "idle-timeout",
        SECONDS,
        "Seconds without an answer after which a connection is closed.",
        default=f"{_LIMITS.idle_timeout:g}",
        short="t",
        section="access",
        reloadable=True,
    ),
    Setting(
        "disconnect-after-call",
        SWITCH,
        "Close each connection after its first call. By default it stays open for more.",
        short="d",
        section="access",
        reloadable=True,
    ),
    Setting(
        "activation-interval",
        INTERVAL,
        "Time after which a client that is not activated tries again: a number with s, m, h, d or w; minutes without.",
        default=str(DEFAULT_ACTIVATION_INTERVAL),
        short="A",
        section="activation",
        reloadable=True,
    ),
    Setting(
        "renewal-interval",
        INTERVAL,
        "Time after which an activated client renews: a number with s, m, h, d or w; minutes without.",
        default=str(DEFAULT_RENEWAL_INTERVAL),
        short="R",
        section="activation",
        reloadable=True,
    ),
    Setting(
        "white-listing-level",
        whole_number("a level", 0, 3),
        "What is refused (0xC004F042): 0 nothing, 1 unknown products, 2 retail and preview products, 3 both; 1 and 3"
        " check the application id too.",
        default="0",
        short="K",
        section="activation",
        reloadable=True,
    ),
    Setting(
        "deny-product",
        TEXT,
        "Product that is refused (0xC004F042): its number, name or GUID; may be given more than once.",
        section="activation",
        repeatable=True,
        reloadable=True,
        file_key="deny_products",
    ),
    Setting(
        "refuse-all",
        SWITCH,
        "Refuse every request (0xC004F042) and log who still asks, to retire a host.",
        section="activation",
        reloadable=True,
    ),
    Setting(
        "check-client-time",
        ON_OR_OFF,
        "Refuse clients whose clock is more than four hours off (0xC004F06C): on or off.",
        default="off",
        short="c",
        section="activation",
        reloadable=True,
    ),
    Setting(
        "maintain-clients",
        ON_OR_OFF,
        "Report the number of clients that asked within 30 days, kept in memory, instead of what each needs: on or"
        " off.",
        default="off",
        short="M",
        section="activation",
        needs_common_view=bool,
    ),
    Setting(
        "start-empty",
        ON_OR_OFF,
        "With --maintain-clients, begin with no clients instead of almost enough (24 for Windows, 4 for Office): on or"
        " off.",
        default="off",
        short="E",
        section="activation",
    ),
    Setting(
        "state-directory",
        DIRECTORY,
        f"Directory that keeps the identity of this installation (default: {SYSTEM_STATE_DIRECTORY} for root,"
        " ~/.local/state/kmsproto for others).",
        section="identity",
    ),
    Setting(
        "randomization-level",
        one_of("stable", "0", "1", "2"),
        "Where ePIDs come from: stable is this installation's own, the same at every start; 0 the catalogue's, 1 drawn"
        " at every start, 2 drawn for every answer. In vlmcsd the default is 1.",
        default="stable",
        short="r",
        section="identity",
        reloadable=True,
    ),
    Setting(
        "epid",
        TEXT,
        "Presents an ePID, and if wanted a hardware id, for the keys of one CSVLK: it is written CSVLK=EPID[/HWID], for"
        " example Windows=03612-04919-...; may be given more than once.",
        short="a",
        section="identity",
        repeatable=True,
        cumulative=True,
        reloadable=True,
        file_key="epids",
    ),
    Setting(
        "host-build",
        whole_number("a build number", 1, 99999),
        f"Windows build that the host presents in its ePIDs (default: {DEFAULT_HOST_BUILD}; drawn too where ePIDs are"
        " drawn).",
        short="H",
        section="identity",
        reloadable=True,
    ),
    Setting(
        "lcid",
        whole_number("a locale id", 1, 32767),
        f"Locale id that the host presents in its ePIDs (default: {DEFAULT_LCID}; drawn too where ePIDs are drawn).",
        short="C",
        section="identity",
        reloadable=True,
    ),
    Setting(
        "ndr64",
        ON_OR_OFF,
        "Offer the transfer syntax NDR64 and prefer it: on or off. With a --host-build up to 7601, which has none, it"
        " is off unless it is given.",
        default="on",
        short="N",
        section="identity",
        reloadable=True,
    ),
    Setting(
        "bind-time-features",
        ON_OR_OFF,
        "Negotiate bind-time features, as Windows does: on or off.",
        default="on",
        short="B",
        section="identity",
        reloadable=True,
    ),
    Setting(
        "kms-data",
        FILE,
        "Catalogue of products that extends the built-in one: a .kmd file of vlmcsd, or our own format in TOML.",
        short="j",
        section="catalog",
        reloadable=True,
    ),
    Setting(
        "kms-data-only",
        SWITCH,
        "Use the file of --kms-data instead of the built-in catalogue. By default it extends that.",
        section="catalog",
        reloadable=True,
    ),
    Setting(
        "log-format",
        one_of("text", "json"),
        "Form of the log: text, or json with one object a line.",
        default="text",
        section="log",
    ),
    Setting(
        "verbosity",
        one_of("quiet", "normal", "verbose"),
        "What is logged: quiet leaves granted requests out, verbose (-v) writes all fields; -q is short for normal.",
        default="normal",
        section="log",
        reloadable=True,
    ),
    Setting(
        "timestamps",
        ON_OR_OFF,
        "Begin each line of the log with date and time: on or off.",
        default="on",
        short="T",
        section="log",
    ),
    Setting(
        "summarize-noise",
        ON_OR_OFF,
        "Count what scanners do (connections that never become a call) instead of writing each: the first line of an"
        " address in a minute is written, the others are summarised: on or off.",
        default="on",
        section="log",
        reloadable=True,
    ),
    Setting(
        "mask-peers",
        SWITCH,
        "Mask names and addresses of peers in the log, for privacy.",
        short="X",
        section="log",
        reloadable=True,
    ),
)

#: The settings by name.
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


def check_common_view(
    values: Mapping[str, Any],
    workers: int,
    settings: Iterable[Setting] = SETTINGS,
    place: Callable[[str], str] = "--{}".format,
) -> None:
    """
    See that nothing which one process must see as a whole is spread over several.

    @param values: The values of the settings by name.
    @param workers: How many processes serve.
    @param settings: The settings to look at.
    @param place: Names the place that gave a setting.
    @raise SettingError: If a value cannot be had with so many workers.
    """
    if workers == 1:
        return
    for setting in settings:
        value = values[setting.name]
        if setting.needs_common_view(value):
            allowed = (
                f"possible with {workers} workers, each of which sees its own clients only;"
                " use --workers=1 with it"
            )
            text = "on" if value is True else str(value)
            raise SettingError(place(setting.name), text, allowed)
