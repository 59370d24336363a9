"""
The way over from vlmcsd: its options and the keys of its vlmcsd.ini, with what they are called here.

L{ROWS} is the one place that knows them.  The letters of the settings are vlmcsd's own, so a command line mostly means
the same here; what belongs to twistd is answered with the option of twistd that does it, and the page about vlmcsd in
the documentation is made from the same rows.  A vlmcsd.ini becomes a source of settings like any other: keys count
whatever their case, the later of two equal ones wins, C{Listen} may come more than once, and a key that is no option
names a CSVLK, whose value is an ePID and perhaps a hardware id.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kmsproto.service.kinds import SettingError

#: An ePID, if only by its look, and what may follow it.
_EPID = re.compile(r"\d{5}-\d{5}-\d{3}-\d{6}-", re.ASCII)


class Row(NamedTuple):
    """
    One thing that vlmcsd can be told.

    @ivar option: Its letter, with the value that it stands for behind it where there are several; or nothing.
    @ivar ini: Its key in vlmcsd.ini; or nothing.
    @ivar setting: Our setting; or nothing.
    @ivar text: The value of our setting that a letter without a value stands for.
    @ivar instead: What to do where we have no setting for it.
    @ivar sample: A value to try it with.
    """

    option: str
    ini: str
    setting: str
    text: str = ""
    instead: str = ""
    sample: str = ""


#: An ePID to try options with.
_SAMPLE = "03612-04919-019-949372-03-1033-26100.0000-0382025"

#: Everything, in the order of vlmcsd's manual.
ROWS: tuple[Row, ...] = (
    Row("-L", "Listen", "listen", sample="127.0.0.1:0"),
    Row("-P", "Port", "port", sample="0"),
    Row("-a", "", "epid", sample=f"Windows={_SAMPLE}"),
    Row("-r", "RandomizationLevel", "randomization-level", sample="1"),
    Row("-C", "LCID", "lcid", sample="1031"),
    Row("-H", "HostBuild", "host-build", sample="26100"),
    Row("-o", "PublicIPProtectionLevel", "public-ip-protection", sample="3"),
    Row("-x", "ExitLevel", "exit-level", sample="0"),
    Row("-F", "FreeBind", "free-bind", sample="1"),
    Row("-m", "MaxWorkers", "max-connections", sample="100"),
    Row("-t", "ConnectionTimeout", "idle-timeout", sample="20"),
    Row("-d", "DisconnectClientsImmediately", "disconnect-after-call", text="on", sample="1"),
    Row("-k", "", "disconnect-after-call", text="off"),
    Row("-K", "WhiteListingLevel", "white-listing-level", sample="3"),
    Row("-c", "CheckClientTime", "check-client-time", sample="1"),
    Row("-M", "MaintainClients", "maintain-clients", sample="1"),
    Row("-E", "StartEmpty", "start-empty", sample="1"),
    Row("-N", "UseNDR64", "ndr64", sample="0"),
    Row("-B", "UseBTFN", "bind-time-features", sample="0"),
    Row("-i", "", "vlmcsd-ini"),
    Row("-j", "KmsData", "kms-data"),
    Row("-R", "RenewalInterval", "renewal-interval", sample="5d"),
    Row("-A", "ActivationInterval", "activation-interval", sample="3h"),
    Row("-T", "LogDateAndTime", "timestamps", sample="0"),
    Row("-v", "LogVerbose", "verbosity", text="verbose", sample="TRUE"),
    Row("-q", "", "verbosity", text="normal"),
    Row("-X", "", "mask-peers", text="on"),
    Row("-V", "", "", instead="twistd kms --version"),
    Row("-u", "User", "", instead="twistd --uid, before the word kms", sample="nobody"),
    Row("-g", "Group", "", instead="twistd --gid, before the word kms", sample="nogroup"),
    Row("-p", "PidFile", "", instead="twistd --pidfile, before the word kms", sample="/run/x.pid"),
    Row(
        "-l",
        "LogFile",
        "",
        instead="twistd --logfile (or --syslog), before the word kms",
        sample="/var/log/x",
    ),
    Row("-D", "", "", instead="twistd --nodaemon (-n), before the word kms"),
    Row("-e", "", "", instead="twistd --nodaemon --logfile=-, before the word kms"),
    Row("-w", "", "", instead="-a Windows=EPID", sample=_SAMPLE),
    Row("-0", "", "", instead="-a Office2010=EPID", sample=_SAMPLE),
    Row("-3", "", "", instead="-a Office2013=EPID", sample=_SAMPLE),
    Row("-6", "", "", instead="-a Office2016=EPID", sample=_SAMPLE),
    Row("-G", "", "", instead="-a WinChinaGov=EPID", sample=_SAMPLE),
    Row("-O", "VPN", "", instead="nothing: it is for Windows only", sample="on"),
    Row("-s", "", "", instead="a service manager: it is for Windows only"),
    Row("-S", "", "", instead="a service manager: it is for Windows only"),
    Row("-U", "", "", instead="a service manager: it is for Windows only", sample="x"),
    Row("-W", "", "", instead="a service manager: it is for Windows only", sample="x"),
)

#: The rows of options that are no settings, by their letters.
FOREIGN: Mapping[str, Row] = {row.option[1:]: row for row in ROWS if row.option and not row.setting}
#: The rows of options that stand for a value, by their letters.
SHORTHAND: Mapping[str, Row] = {row.option[1:]: row for row in ROWS if row.text}

_BY_KEY = {row.ini.lower(): row for row in ROWS if row.ini}


@dataclass
class Ini:
    """
    What a vlmcsd.ini says.

    @ivar settings: Texts and their place by the name of the setting.
    @ivar warnings: Lines about what counts for nothing here.
    """

    settings: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_ini(text: str, label: str) -> Ini:
    """
    Read a vlmcsd.ini.

    @param text: The text of the file.
    @param label: What to call it.
    @raise SettingError: If a line is none that vlmcsd knows.
    """
    ini = Ini()
    foreign: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content[0] in ";#":
            continue
        key, separator, value = (part.strip() for part in content.partition("="))
        where = f"{label}: line {number}: {key}"
        if not (key and separator and value):
            raise SettingError(
                f"{label}: line {number}", content, "a key, an equals sign and a value"
            )
        row = _BY_KEY.get(key.lower())
        if row is None:
            _add(ini, "epid", f"{key}={_csvlk_value(key, value, where)}", where)
        elif not row.setting:
            foreign[row.ini] = row.instead
        elif row.setting == "listen":
            _add(ini, "listen", value, where)
        else:
            _set(ini, row, value, where)
    if foreign:
        said = "; ".join(f"{key} (use {instead})" for key, instead in foreign.items())
        ini.warnings.append(f"{label}: ignored: {said}")
    return ini


def _csvlk_value(key: str, value: str, where: str) -> str:
    """
    Check that an unknown key at least has an ePID for its value; whether it names a CSVLK, the catalogue knows.
    """
    if _EPID.match(value):
        # Blanks may stand around the stroke before the hardware id.
        return re.sub(r"\s*/\s*", "/", value)
    alike = difflib.get_close_matches(key.lower(), _BY_KEY, n=1)
    hint = f"; did you mean {_BY_KEY[alike[0]].ini}?" if alike else ""
    raise SettingError(where, value, f"an ePID, and {key} is no other key of vlmcsd.ini{hint}")


def _add(ini: Ini, name: str, text: str, where: str) -> None:
    before = ini.settings[name][0] if name in ini.settings else ()
    ini.settings[name] = ((*before, text), where)


def _set(ini: Ini, row: Row, value: str, where: str) -> None:
    """
    Take a value; what vlmcsd writes in another way is written in ours.
    """
    if row.setting in ("lcid", "host-build") and value == "0":
        # vlmcsd's way to say that it shall choose.
        ini.settings.pop(row.setting, None)
        return
    if row.setting == "verbosity":
        words = {**dict.fromkeys(("1", "true", "yes", "on"), "verbose")}
        words |= dict.fromkeys(("0", "false", "no", "off"), "normal")
        if value.lower() not in words:
            raise SettingError(where, value, "on or off")
        value = words[value.lower()]
    ini.settings[row.setting] = ((value,), where)
