"""
Every setting of the host, defined once: its name, type, default, help and short letter.

A setting is a row of L{SETTINGS}; the options of the plugin and their help are made from it.  A value that was given
as text is read by the setting's own reader, which knows what is allowed and says so when it is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kmsproto.errors import KMSProtoError
from kmsproto.kms.host import DEFAULT_HOST_BUILD, DEFAULT_LCID
from kmsproto.kms.policy import DEFAULT_ACTIVATION_INTERVAL, DEFAULT_RENEWAL_INTERVAL
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.server import Limits

#: Where a service that was started by root keeps its state.
SYSTEM_STATE_DIRECTORY = Path("/var/lib/kmsproto")
#: Worker processes at most.
MAXIMUM_WORKERS = 256


class SettingError(KMSProtoError):
    """
    A setting has a value that is not allowed.
    """

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"--{name}: {value!r} is not {allowed}")


class Kind(NamedTuple):
    """
    What the values of a setting are.

    @ivar allowed: In words, for an error message: "… is not C{allowed}".
    @ivar read: Makes a value of a text, or raises L{ValueError}.
    """

    allowed: str
    read: Callable[[str], Any]


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
    @ivar repeatable: Whether it may be given more than once.
    @ivar needs_common_view: Tells of a value whether it asks for something that one process must see as a whole, such
        as a count of all clients that is kept in memory.  Workers share nothing, so with more than one of them such a
        value is refused.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None
    short: str | None = None
    repeatable: bool = False
    needs_common_view: Callable[[Any], bool] = _never

    @property
    def flag(self) -> bool:
        """
        Whether it is a switch, which is given without a value.
        """
        return self.kind is SWITCH

    def value(self, text: str) -> Any:
        """
        Read a value.

        @raise SettingError: If it is not allowed.
        """
        try:
            return self.kind.read(text)
        except ValueError as error:
            raise SettingError(self.name, text, self.kind.allowed) from error


def whole_number(what: str, smallest: int, largest: int, remark: str = "") -> Kind:
    """
    Make the kind of whole numbers between two bounds.

    @param what: What the number is, in words.
    @param remark: What else is to be known of the bounds.
    """

    def read(text: str) -> int:
        # Of what int() takes, "1_000" and " 1" are not numbers to an operator.
        if not (text.isascii() and text.isdecimal() and smallest <= int(text) <= largest):
            raise ValueError(text)
        return int(text)

    return Kind(f"{what} ({smallest} to {largest}{remark})", read)


_WORKER_COUNT = whole_number("a number of workers", 1, MAXIMUM_WORKERS, ", or auto")

#: Seconds of a time limit, at most a day.
_DAY = 86400


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _DAY:
        raise ValueError(text)
    return seconds


def _on_or_off(text: str) -> bool:
    words = {"on": True, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def usable_cores() -> int:
    """
    Count the cores that this process may use, up to L{MAXIMUM_WORKERS}.
    """
    # Not every system lets a process be tied to some of its cores.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, MAXIMUM_WORKERS)


def _workers(text: str) -> int:
    return usable_cores() if text.lower() == "auto" else _WORKER_COUNT.read(text)


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _directory(text: str) -> Path:
    return Path(_text(text))


SECONDS = Kind(f"a number of seconds (more than 0, at most {_DAY})", _seconds)
MINUTES = whole_number("a number of minutes", 15, 43200)
CONNECTIONS = whole_number("a number of connections", 1, 1000000)
WORKERS = Kind(_WORKER_COUNT.allowed, _workers)
ON_OR_OFF = Kind("on or off", _on_or_off)
SWITCH = Kind("on or off, and on when it is given", _on_or_off)


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

#: All settings, in the order in which help lists them.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "port",
        whole_number("a port number", 0, 65535, "; 0 lets the system choose"),
        "TCP port to listen on, on every address of this machine, IPv6 and IPv4"
        f" (default: {KMS_PORT}, unless --endpoint is given).",
        short="P",
    ),
    Setting(
        "endpoint",
        Kind("a server endpoint", _text),
        "Where to listen, as a Twisted server endpoint, for example tcp:1688:interface=192.0.2.1 or"
        " unix:/run/kms.socket; may be given more than once.",
        repeatable=True,
    ),
    Setting(
        "state-directory",
        Kind("a directory", _directory),
        f"Directory that keeps the identity of this installation (default: {SYSTEM_STATE_DIRECTORY} for root,"
        " ~/.local/state/kmsproto for others).",
    ),
    Setting(
        "allow-public-peers",
        SWITCH,
        "Answer any address. By default only private, loopback, link-local and unique-local addresses are answered.",
    ),
    Setting(
        "allow-shared-address-space",
        SWITCH,
        "Answer 100.64.0.0/10 (RFC 6598) as if it were private.",
    ),
    Setting(
        "host-build",
        whole_number("a build number", 1, 99999),
        "Windows build that the host presents in its ePIDs.",
        default=str(DEFAULT_HOST_BUILD),
        short="H",
    ),
    Setting(
        "lcid",
        whole_number("a locale id", 1, 32767),
        "Locale id that the host presents in its ePIDs.",
        default=str(DEFAULT_LCID),
        short="C",
    ),
    Setting(
        "activation-interval",
        MINUTES,
        "Minutes after which a client that is not activated tries again.",
        default=str(DEFAULT_ACTIVATION_INTERVAL),
        short="A",
    ),
    Setting(
        "renewal-interval",
        MINUTES,
        "Minutes after which an activated client renews.",
        default=str(DEFAULT_RENEWAL_INTERVAL),
        short="R",
    ),
    Setting(
        "ndr64",
        ON_OR_OFF,
        "Offer the transfer syntax NDR64 and prefer it: on or off.",
        default="on",
    ),
    Setting(
        "bind-time-features",
        ON_OR_OFF,
        "Negotiate bind-time features, as Windows does: on or off.",
        default="on",
    ),
    Setting(
        "idle-timeout",
        SECONDS,
        "Seconds without an answer after which a connection is closed.",
        default=f"{_LIMITS.idle_timeout:g}",
        short="t",
    ),
    Setting(
        "max-connections",
        CONNECTIONS,
        "Connections that may be open at a time, in each worker.",
        default=str(_LIMITS.max_connections),
        short="m",
    ),
    Setting(
        "max-connections-per-address",
        CONNECTIONS,
        "Connections that one address may have open at a time, in each worker.",
        default=str(_LIMITS.max_connections_per_address),
    ),
    Setting(
        "workers",
        WORKERS,
        "Processes that serve, each on a core of its own: a number, or auto for one per core that this process may use."
        " With more than one, this process only watches over them.",
        default="1",
    ),
)


def check_common_view(
    values: Mapping[str, Any], workers: int, settings: Iterable[Setting] = SETTINGS
) -> None:
    """
    See that nothing which one process must see as a whole is spread over several.

    @param values: The values of the settings by name.
    @param workers: How many processes serve.
    @param settings: The settings to look at.
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
            raise SettingError(setting.name, str(value), allowed)
