"""
Every setting of the host, defined once: its name, type, default, help and short letter.

A setting is a row of L{SETTINGS}; the options of the plugin and their help are made from it.  A value that was given
as text is read by the setting's own reader, which knows what is allowed and says so when it is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmsproto.errors import KMSProtoError
from kmsproto.kms.host import DEFAULT_HOST_BUILD, DEFAULT_LCID
from kmsproto.kms.policy import DEFAULT_ACTIVATION_INTERVAL, DEFAULT_RENEWAL_INTERVAL
from kmsproto.net.server import Limits

#: The port that is registered for KMS.
KMS_PORT = 1688
#: Where a service that was started by root keeps its state.
SYSTEM_STATE_DIRECTORY = Path("/var/lib/kmsproto")


class SettingError(KMSProtoError):
    """
    A setting has a value that is not allowed.
    """

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"--{name}: {value!r} is not {allowed}")


@dataclass(slots=True, frozen=True)
class Setting:
    """
    One setting.

    @ivar name: Its long name, as on the command line.
    @ivar default: What stands for it when it is not given, as text like any value of it; L{None} when that depends
        on the surroundings, as the help says.
    @ivar help: What it does, for a stranger, with its unit.
    @ivar allowed: What its values are, for an error message: "… is not C{allowed}".
    @ivar read: Makes a value of a text, or raises L{ValueError}.
    @ivar short: Its short letter, or nothing.
    @ivar flag: Whether it is a switch without a value.
    """

    name: str
    default: str | None
    help: str
    allowed: str
    read: Callable[[str], Any]
    short: str | None = None
    flag: bool = False

    @property
    def attribute(self) -> str:
        """
        Its name in Python.
        """
        return self.name.replace("-", "_")

    def value(self, text: str) -> Any:
        """
        Read a value.

        @raise SettingError: If it is not allowed.
        """
        try:
            return self.read(text)
        except ValueError as error:
            raise SettingError(self.name, text, self.allowed) from error


def _whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not smallest <= number <= largest:
            raise ValueError(text)
        return number

    return read


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:
        raise ValueError(text)
    return seconds


def _on_or_off(text: str) -> bool:
    words = {"on": True, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


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
_MINUTES = _whole_number(15, 43200)

#: All settings, in the order in which help lists them.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "port",
        None,
        f"TCP port to listen on, on every address of this machine, IPv6 and IPv4 (default: {KMS_PORT},"
        " unless --endpoint is given).",
        "a port number (0 to 65535; 0 lets the system choose)",
        _whole_number(0, 65535),
        short="P",
    ),
    Setting(
        "endpoint",
        None,
        "Where to listen, as a Twisted server endpoint, for example tcp:1688:interface=192.0.2.1 or"
        " unix:/run/kms.socket; may be given more than once.",
        "a server endpoint",
        _text,
    ),
    Setting(
        "state-directory",
        None,
        f"Directory that keeps the identity of this installation (default: {SYSTEM_STATE_DIRECTORY} for root,"
        " ~/.local/state/kmsproto for others).",
        "a directory",
        lambda text: Path(_text(text)),
    ),
    Setting(
        "allow-public-peers",
        None,
        "Answer any address. By default only private, loopback, link-local and unique-local addresses are answered.",
        "",
        _on_or_off,
        flag=True,
    ),
    Setting(
        "allow-shared-address-space",
        None,
        "Answer 100.64.0.0/10 (RFC 6598) as if it were private.",
        "",
        _on_or_off,
        flag=True,
    ),
    Setting(
        "host-build",
        str(DEFAULT_HOST_BUILD),
        "Windows build that the host presents in its ePIDs.",
        "a build number (1 to 99999)",
        _whole_number(1, 99999),
        short="H",
    ),
    Setting(
        "lcid",
        str(DEFAULT_LCID),
        "Locale id that the host presents in its ePIDs.",
        "a locale id (1 to 32767)",
        _whole_number(1, 32767),
        short="C",
    ),
    Setting(
        "activation-interval",
        str(DEFAULT_ACTIVATION_INTERVAL),
        "Minutes after which a client that is not activated tries again.",
        "a number of minutes (15 to 43200)",
        _MINUTES,
        short="A",
    ),
    Setting(
        "renewal-interval",
        str(DEFAULT_RENEWAL_INTERVAL),
        "Minutes after which an activated client renews.",
        "a number of minutes (15 to 43200)",
        _MINUTES,
        short="R",
    ),
    Setting(
        "ndr64",
        "on",
        "Offer the transfer syntax NDR64 and prefer it: on or off.",
        "on or off",
        _on_or_off,
    ),
    Setting(
        "bind-time-features",
        "on",
        "Negotiate bind-time features, as Windows does: on or off.",
        "on or off",
        _on_or_off,
    ),
    Setting(
        "idle-timeout",
        f"{_LIMITS.idle_timeout:g}",
        "Seconds without an answer after which a connection is closed.",
        "a number of seconds (more than 0, at most 86400)",
        _seconds,
        short="t",
    ),
    Setting(
        "max-connections",
        str(_LIMITS.max_connections),
        "Connections that may be open at a time.",
        "a number (1 to 1000000)",
        _whole_number(1, 1000000),
        short="m",
    ),
    Setting(
        "max-connections-per-address",
        str(_LIMITS.max_connections_per_address),
        "Connections that one address may have open at a time.",
        "a number (1 to 1000000)",
        _whole_number(1, 1000000),
    ),
)
