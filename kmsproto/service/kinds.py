"""
What the values of settings are: how each kind is read from text, and what is said when a text means nothing.

Every value, wherever it comes from (command line, environment, file), is read from text by the same reader, so that it
means the same everywhere and is refused with the same words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kmsproto.errors import KMSProtoError
from kmsproto.net.access import parse_network
from kmsproto.net.listening import parse_listen

#: Worker processes at most.
MAXIMUM_WORKERS = 256
#: Digits of a number at most: one that is longer need not be read to be wrong.
_LONGEST_NUMBER = 20
#: Seconds of a time limit, at most a day.
_DAY = 86400
#: What Microsoft allows for the intervals, in minutes.
_INTERVAL = range(15, 43200 + 1)
#: Seconds of the units in which an interval may be given.
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?", re.ASCII)
_DURATION = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII | re.IGNORECASE)


class SettingError(KMSProtoError):
    """
    A setting has a value that is not allowed.

    @param where: What gave it, with the name by which it is known there, such as C{--port}.
    @param value: The value.
    @param allowed: What would be allowed, in words.
    """

    def __init__(self, where: str, value: str, allowed: str) -> None:
        super().__init__(f"{where}: {value!r} is not {allowed}")


class Kind(NamedTuple):
    """
    What the values of a setting are.

    @ivar allowed: In words, for an error message: "… is not C{allowed}".
    @ivar read: Makes a value of a text, or raises L{ValueError}.
    @ivar metavar: What stands for a value in lists of options.
    """

    allowed: str
    read: Callable[[str], Any]
    metavar: str = "TEXT"


def whole_number(
    what: str, smallest: int, largest: int, remark: str = "", metavar: str = "NUMBER"
) -> Kind:
    """
    Make the kind of whole numbers between two bounds.

    @param what: What the number is, in words.
    @param remark: What else is to be known of the bounds.
    """

    def read(text: str) -> int:
        # Of what int() takes, "1_000" and " 1" are not numbers to an operator.
        if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER):
            raise ValueError(text)
        number = int(text)
        if not smallest <= number <= largest:
            raise ValueError(text)
        return number

    return Kind(f"{what} ({smallest} to {largest}{remark})", read, metavar)


def one_of(*words: str, numbers: dict[str, str] | None = None) -> Kind:
    """
    Make the kind of certain words.

    @param numbers: Other texts for them.
    """
    others = numbers or {}

    def read(text: str) -> str:
        word = others.get(text, text.lower())
        if word not in words:
            raise ValueError(text)
        return word

    said = ", ".join(f"{word} ({number})" for number, word in others.items())
    return Kind(f"one of {said or ', '.join(words)}", read, "|".join(words))


def usable_cores() -> int:
    """
    Count the cores that this process may use, up to L{MAXIMUM_WORKERS}.
    """
    # Not every system lets a process be tied to some of its cores.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, MAXIMUM_WORKERS)


_WORKER_COUNT = whole_number("a number of workers", 1, MAXIMUM_WORKERS, ", or auto")


def _workers(text: str) -> int:
    return usable_cores() if text.lower() == "auto" else _WORKER_COUNT.read(text)


def _number(text: str) -> float:
    """
    Read a number that need not be whole, as an operator writes it.
    """
    # Of what float() takes, "1_0" and " 1" are not numbers to an operator.
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 < seconds <= _DAY:
        raise ValueError(text)
    return seconds


def _interval(text: str) -> int:
    """
    Read an interval; a part of a minute does not count, as a client counts whole ones.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    number, unit = match.groups()
    minutes = int(number) * _UNITS[unit.lower() or "m"] // 60
    if minutes not in _INTERVAL:
        raise ValueError(text)
    return minutes


def _rate(text: str) -> float:
    rate = _number(text)
    if not 0 < rate <= 1_000_000:
        raise ValueError(text)
    return rate


_SWITCHED = {
    **dict.fromkeys(("on", "1", "yes", "true"), True),
    **dict.fromkeys(("off", "0", "no", "false"), False),
}


def _on_or_off(text: str) -> bool:
    if text.lower() not in _SWITCHED:
        raise ValueError(text)
    return _SWITCHED[text.lower()]


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _network(text: str) -> Any:
    try:
        return parse_network(text)
    except KMSProtoError as error:
        raise ValueError(str(error)) from error


def _listen(text: str) -> str:
    try:
        parse_listen(text, 0)
    except KMSProtoError as error:
        raise ValueError(str(error)) from error
    return text


PORT = whole_number("a port number", 0, 65535, "; 0 lets the system choose", "PORT")
ADDRESS = Kind(
    "an address, with or without a port (192.0.2.1, 192.0.2.1:1688, [2001:db8::1]:1688)",
    _listen,
    "ADDRESS[:PORT]",
)
ENDPOINT = Kind("a server endpoint", _text, "ENDPOINT")
DIRECTORY = Kind("a directory", _path, "DIRECTORY")
FILE = Kind("a file", _path, "FILE")
TEXT = Kind("a text", _text)
NETWORK = Kind("an address or a network (192.0.2.0/24, 2001:db8::/32)", _network, "NETWORK")
SECONDS = Kind(f"a number of seconds (more than 0, at most {_DAY})", _seconds, "SECONDS")
RATE = Kind("a number of connections per second (more than 0, at most 1000000)", _rate, "NUMBER")
INTERVAL = Kind(
    f"a time from {_INTERVAL[0]} to {_INTERVAL[-1]} minutes: a number, and s, m, h, d or w for its unit"
    " (90, 90m, 3h, 7d, 4w)",
    _interval,
    "TIME",
)
CONNECTIONS = whole_number("a number of connections", 1, 1000000)
WORKERS = Kind(_WORKER_COUNT.allowed, _workers, "NUMBER|auto")
ON_OR_OFF = Kind("on or off (or 1 or 0)", _on_or_off, "on|off")
#: As L{ON_OR_OFF}; on the command line it is given without a value.
SWITCH = Kind("on or off", _on_or_off, "on|off")
