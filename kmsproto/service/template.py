"""
What is made from the settings for people: the file kms.toml, the reference page, and the page for users of vlmcsd.

All of it is generated, so none of it can say anything else than the settings do; tests compare the files in the
repository with what is made here.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from kmsproto.service.kinds import CONNECTIONS, INTERVAL, ON_OR_OFF, RATE, SECONDS, SWITCH, Kind
from kmsproto.service.settings import SETTINGS, SYSTEM_CONFIGURATION, Setting
from kmsproto.service.sources import Source
from kmsproto.service.vlmcsd import ROWS, Row

#: What the tables of the file are about.
SECTIONS: Mapping[str, str] = {
    "listen": "Where the host listens, and with how many processes",
    "access": "Who may connect, how often and for how long",
    "activation": "What is granted",
    "identity": "What the host says of itself",
    "catalog": "Which products it knows",
    "log": "What it writes",
}

_WIDTH = 100


def render_file(source: Source, remarks: Sequence[str] = ()) -> str:
    """
    Write a file of settings.

    @param source: What is set in it; everything else stands there as a comment, with its default.
    @param remarks: Lines for its beginning.
    """
    lines = [
        f"# Settings of kmsproto, a KMS host; as {SYSTEM_CONFIGURATION} they are read without being asked for.",
        "# The command line and variables of the environment (KMSPROTO_...) come before this file.",
        *(f"# {remark}" for remark in remarks),
    ]
    for section, title in SECTIONS.items():
        lines += ["", "", f"# {title}", f"[{section}]"]
        for setting in SETTINGS:
            if setting.section == section:
                lines += ["", *_entry(setting, source)]
    return "\n".join(lines) + "\n"


def _entry(setting: Setting, source: Source) -> list[str]:
    said = (
        setting.help if setting.reloadable else f"{setting.help} A restart is needed to change it."
    )
    comment = textwrap.wrap(said, _WIDTH - 2, break_on_hyphens=False)
    given = source.get(setting.name)
    if given is not None:
        assignment = f"{setting.key} = {_toml(setting, given.texts)}"
    elif setting.repeatable:
        assignment = f"#{setting.key} = []"
    elif setting.default is not None or setting.flag:
        assignment = f"#{setting.key} = {_toml(setting, (setting.default or 'off',))}"
    else:
        assignment = f"#{setting.key} ="
    return [*(f"# {line}" for line in comment), assignment]


def _toml(setting: Setting, texts: Iterable[str]) -> str:
    values = [_scalar(setting.kind, text) for text in texts]
    return f"[{', '.join(values)}]" if setting.repeatable else values[-1]


def _scalar(kind: Kind, text: str) -> str:
    """
    Write a value as TOML has it: what is on or off, and numbers, without quotation marks.
    """
    if kind in (SWITCH, ON_OR_OFF):
        return "true" if kind.read(text) else "false"
    if kind in (INTERVAL, CONNECTIONS, SECONDS, RATE) or kind.metavar in ("NUMBER", "PORT"):
        value = kind.read(text)
        return text if text.isdecimal() else json.dumps(text) if kind is INTERVAL else f"{value:g}"
    # What JSON makes of a text is a text of TOML too, once the characters beyond ASCII are left alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def render_reference() -> str:
    """
    Write the reference page of all settings, as reStructuredText.
    """
    lines = [
        ".. Made from kmsproto/service/settings.py by ``kmsproto config --reference``.",
        "",
        "Settings",
        "========",
        "",
        "Each setting can be given on the command line (after the word ``kms``), in the environment, and in a file.",
        "The command line comes first, then the environment, then the file, then the default.  Where several values",
        "are possible, a variable has commas between them, and a file has an array.  ``kmsproto config`` prints what",
        "holds and where it comes from, and SIGHUP lets a running host read everything anew: *reload* says whether a",
        "setting takes effect then.",
    ]
    for section, title in {"": "Files", **SECTIONS}.items():
        lines += ["", "", title, "-" * len(title)]
        for setting in SETTINGS:
            if setting.section == section:
                lines += ["", *_reference(setting)]
    return "\n".join(lines) + "\n"


def _reference(setting: Setting) -> list[str]:
    value = "" if setting.flag else f" {setting.kind.metavar}"
    option = f"``--{setting.name}{value}``"
    if setting.short:
        option += f", ``-{setting.short}``"
    facts = [f"variable ``{setting.variable}``"]
    if setting.section:
        facts.append(f"file ``{setting.section}.{setting.key}``")
    if setting.default is not None:
        facts.append(f"default ``{setting.default}``")
    facts.append("reload yes" if setting.reloadable else "reload no")
    body = f"{setting.help} Allowed: {setting.kind.allowed}."
    return [option, *_wrapped(body), "", *_wrapped("; ".join(facts) + ".")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text.replace("*", "\\*"),
        117,
        initial_indent="   ",
        subsequent_indent="   ",
        break_on_hyphens=False,
    )


def render_vlmcsd() -> str:
    """
    Write the table of vlmcsd's options and keys, as a list-table of reStructuredText.
    """
    lines = [
        ".. Made from kmsproto/service/vlmcsd.py by ``kmsproto config --vlmcsd-table``.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - vlmcsd",
        "     - vlmcsd.ini",
        "     - ``twistd kms``",
        "     - kms.toml",
    ]
    named = {setting.name: setting for setting in SETTINGS}
    for row in ROWS:
        cells = [
            f"``{row.option}``" if row.option else "",
            f"``{row.ini}``" if row.ini else "",
            *_ours(row, named),
        ]
        lines += [
            f"   {'*' if number == 0 else ' '} - {cell}".rstrip()
            for number, cell in enumerate(cells)
        ]
    return "\n".join(lines) + "\n"


def _ours(row: Row, named: Mapping[str, Setting]) -> tuple[str, str]:
    if not row.setting:
        return row.instead, ""
    setting = named[row.setting]
    value = "" if setting.flag or not row.text else f" {row.text}"
    option = f"``--{setting.name}{value}``"
    if row.text == "off":
        option = f"the default (``{row.option}``)"
    return option, f"``{setting.section}.{setting.key}``" if setting.section else ""
