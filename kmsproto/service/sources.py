"""
Where the values of settings come from: the command line, the environment, a file, a vlmcsd.ini, and the defaults.

Each source is a mapping from the name of a setting to the texts that it gives and the place where it gives them.  The
sources are laid over each other, the first one wins, and a value that is not allowed is reported with the place that
gave it.  Nothing here is specific to a setting but what depends on others or on the surroundings: the port, which has
a default only if nothing else says where to listen, and the state directory.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kmsproto.errors import KMSProtoError
from kmsproto.net.activation import KMS_PORT
from kmsproto.service.kinds import FILE, SettingError
from kmsproto.service.settings import (
    BY_NAME,
    ENVIRONMENT_PREFIX,
    SETTINGS,
    SYSTEM_CONFIGURATION,
    Setting,
    check_common_view,
    default_state_directory,
)
from kmsproto.service.vlmcsd import read_ini

#: Bytes of a file of settings at most.
MAXIMUM_FILE = 1 << 20
#: The last host build whose RPC server does not offer NDR64: Windows 7 and Server 2008 R2.
LAST_WITHOUT_NDR64 = 7601
#: Variables of the environment that are no settings: they choose the cipher when kmsproto is built, and when it runs.
OTHER_VARIABLES = frozenset({"KMSPROTO_CIPHER", "KMSPROTO_NATIVE_CIPHER"})
#: What a value is said to come from that nobody gave.
DEFAULT_ORIGIN = "default"


class ConfigurationError(KMSProtoError):
    """
    A file of settings cannot be used.
    """


class Given(NamedTuple):
    """
    What a source says of a setting.

    @ivar texts: The values; one, unless the setting is repeatable.
    @ivar where: The place, as an operator finds it.
    """

    texts: tuple[str, ...]
    where: str


#: What a source says, by the names of settings.
Source = Mapping[str, Given]


class Effective(Mapping[str, Any]):
    """
    The settings in force: a mapping from the name of each to its value.

    @param values: The values.
    @param given: What was given of them.
    @ivar warnings: What a reader of the sources should be told, in lines.
    """

    def __init__(
        self, values: Mapping[str, Any], given: Source, warnings: Sequence[str] = ()
    ) -> None:
        self._values = values
        self.given = given
        self.warnings = tuple(warnings)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def origin(self, name: str) -> str:
        """
        Tell where a value comes from.
        """
        return self.given[name].where if name in self.given else DEFAULT_ORIGIN

    def changes(self, other: Mapping[str, Any]) -> list[str]:
        """
        List the settings that have another value in C{other}, in their order.
        """
        return [each.name for each in SETTINGS if self[each.name] != other[each.name]]


def place(settings: Mapping[str, Any], name: str) -> str:
    """
    Name the place that gave a setting, for an error about it.

    @param settings: The values by name; of plain ones it is not known where they came from, so the option stands for
        it.
    """
    if isinstance(settings, Effective) and name in settings.given:
        return settings.given[name].where
    return f"--{name}"


def gather(command_line: Source, environment: Mapping[str, str], user_id: int) -> Effective:
    """
    Find out what holds.

    @param command_line: What the command line says.
    @param environment: The variables of the environment.
    @param user_id: The effective user id.
    @raise SettingError: If a value is not allowed.
    @raise ConfigurationError: If a file cannot be used.
    """
    sources: list[Source] = [command_line, from_environment(environment)]
    warnings: list[str] = []
    config = _path("config", sources)
    if config is None and _is_there(SYSTEM_CONFIGURATION):
        config = SYSTEM_CONFIGURATION
    if config is not None:
        sources.append(from_file(config))
    ini = _path("vlmcsd-ini", sources)
    if ini is not None:
        source, ignored = from_ini(ini)
        sources.append(source)
        warnings += ignored
    given = combine(sources)
    values = {setting.name: _value(setting, given) for setting in SETTINGS}
    values["config"] = config
    if values["port"] is None and not values["endpoint"]:
        values["port"] = KMS_PORT
    if "ndr64" not in given and values["host-build"] is not None:
        # As a Windows of that build does.
        values["ndr64"] = values["host-build"] > LAST_WITHOUT_NDR64
    if values["state-directory"] is None:
        values["state-directory"] = default_state_directory(environment, user_id)
    effective = Effective(values, given, [*warnings, *_misspelt(environment), *_idle(values)])
    check_common_view(effective, values["workers"], place=partial(place, effective))
    return effective


def _misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """
    Warn of variables that look like ours and are none; containers may set others on purpose.
    """
    known = {setting.variable for setting in SETTINGS}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known | OTHER_VARIABLES:
            # Without what all of them begin with, which would make any two alike.
            ends = [each.removeprefix(ENVIRONMENT_PREFIX) for each in known]
            alike = difflib.get_close_matches(name.removeprefix(ENVIRONMENT_PREFIX), ends, n=1)
            hint = f"; did you mean {ENVIRONMENT_PREFIX}{alike[0]}?" if alike else ""
            yield f"{name} is not a setting and counts for nothing{hint}"


def _idle(values: Mapping[str, Any]) -> Iterator[str]:
    """
    Warn of settings that need another one to mean anything.
    """
    if values["kms-data-only"] and values["kms-data"] is None:
        yield "kms-data-only counts for nothing without kms-data"
    if values["start-empty"] and not values["maintain-clients"]:
        yield "start-empty counts for nothing without maintain-clients"


def combine(sources: Sequence[Source]) -> Source:
    """
    Lay sources over each other.

    @param sources: The first one wins; of a cumulative setting all count, and the texts of the first come last.
    """
    result: dict[str, Given] = {}
    for source in reversed(sources):
        for name, given in source.items():
            if BY_NAME[name].cumulative and name in result:
                before = result[name]
                given = Given(before.texts + given.texts, f"{before.where}, {given.where}")
            result[name] = given
    return result


def from_environment(environment: Mapping[str, str]) -> Source:
    """
    Read the variables of the environment; several values of one setting have commas between them.
    """
    source: dict[str, Given] = {}
    for setting in SETTINGS:
        text = environment.get(setting.variable)
        if text is not None:
            texts = (
                tuple(part.strip() for part in text.split(",")) if setting.repeatable else (text,)
            )
            source[setting.name] = Given(texts, setting.variable)
    return source


def from_file(path: Path) -> Source:
    """
    Read a file of settings.

    @raise ConfigurationError: If it cannot be read, is no TOML, or has something that is no setting.
    """
    return from_document(_read(path), str(path))


def from_document(text: str, label: str) -> Source:
    """
    Read the text of a file of settings.

    @param label: What to call the file.
    @raise ConfigurationError: If it is no TOML, or has something that is no setting.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{label}: not TOML: {error}") from error
    tables: dict[str, dict[str, Setting]] = {}
    for setting in SETTINGS:
        if setting.section:
            tables.setdefault(setting.section, {})[setting.key] = setting
    source: dict[str, Given] = {}
    for section, table in document.items():
        if section not in tables:
            raise ConfigurationError(_unknown(label, section, [f"[{name}]" for name in tables]))
        if not isinstance(table, dict):
            raise ConfigurationError(f"{label}: {section}: a table is wanted: [{section}]")
        for key, value in table.items():
            where = f"{label}: {section}.{key}"
            known = tables[section].get(key)
            if known is None:
                names = [f"{name}.{each}" for name, keys in tables.items() for each in keys]
                raise ConfigurationError(_unknown(label, f"{section}.{key}", names))
            source[known.name] = Given(_texts(known, value, where), where)
    return source


def from_ini(path: Path) -> tuple[Source, list[str]]:
    """
    Read a vlmcsd.ini.

    @return: What it says, and what to warn of.
    @raise ConfigurationError: If it cannot be read.
    @raise SettingError: If it has a key that vlmcsd does not know.
    """
    ini = read_ini(_read(path), str(path))
    source = {name: Given(*texts_and_place) for name, texts_and_place in ini.settings.items()}
    return source, list(ini.warnings)


def _path(name: str, sources: Sequence[Source]) -> Path | None:
    """
    Find the name of a file that is a source itself.
    """
    given = combine(sources).get(name)
    if given is None:
        return None
    path: Path = BY_NAME[name].value(given.texts[-1], given.where)
    return path


def _is_there(path: Path) -> bool:
    """
    Tell whether a file is there, though it may not be for us to read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_FILE + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; name another, or make it readable"
        ) from error
    if len(data) > MAXIMUM_FILE:
        raise ConfigurationError(f"{path}: a file of settings has at most {MAXIMUM_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8, at byte {error.start}") from error


def _unknown(label: str, name: str, names: Sequence[str]) -> str:
    """
    Say that something is no setting, and what may have been meant.
    """
    alike = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {alike[0]}?" if alike else "kmsproto config lists all that there are"
    return f"{label}: {name} is not a setting; {hint}"


def _texts(setting: Setting, value: object, where: str) -> tuple[str, ...]:
    """
    Make texts of a value of TOML.
    """
    if isinstance(value, list):
        if setting.repeatable:
            return tuple(_text(setting, each, where) for each in value)
        raise SettingError(where, str(value), f"a single value: {setting.kind.allowed}")
    return (_text(setting, value, where),)


def _text(setting: Setting, value: object, where: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return f"{value}"
    raise SettingError(where, str(value), setting.kind.allowed)


def _value(setting: Setting, source: Source) -> Any:
    """
    @raise SettingError: If a text means nothing.
    """
    given = source.get(setting.name)
    if given is None:
        return setting.initial
    values = [setting.value(text, given.where) for text in given.texts]
    if setting.kind is FILE:
        # It is read again later, when the working directory may be another.
        values = [value.absolute() for value in values]
    return values if setting.repeatable else values[-1]
