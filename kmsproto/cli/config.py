"""
The command C{kmsproto config}: what is set, and where it comes from.
"""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import click
from twisted.internet import reactor
from twisted.python.usage import UsageError

from kmsproto.errors import KMSProtoError
from kmsproto.kms.epid import INSTALLATION_IDENTIFIER_LENGTH, Installation
from kmsproto.service.endpoints import make_endpoints
from kmsproto.service.hosting import Founding
from kmsproto.service.settings import BY_NAME
from kmsproto.service.sources import Effective, combine, from_ini, gather
from kmsproto.service.tap import Options
from kmsproto.service.template import render_file, render_reference, render_vlmcsd

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--check", type=_FILE, help="Only see whether a file of settings can be used.")
@click.option("--from-vlmcsd", type=_FILE, help="Turn a vlmcsd.ini into a file of settings.")
@click.option("--template", is_flag=True, help="Print a file of settings with nothing set.")
@click.option("--reference", is_flag=True, hidden=True)
@click.option("--vlmcsd-table", is_flag=True, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def config(
    check: Path | None,
    from_vlmcsd: Path | None,
    template: bool,
    reference: bool,
    vlmcsd_table: bool,
    as_json: bool,
    arguments: tuple[str, ...],
) -> None:
    """
    Print the settings that hold, and where each comes from.

    ARGUMENTS are options of twistd kms, after two dashes: kmsproto config -- --port 1689
    """
    try:
        if check is not None:
            _try(gather({}, {"KMSPROTO_CONFIG": str(check)}, os.geteuid()))
            click.echo(f"{check}: can be used")
        elif from_vlmcsd is not None:
            click.echo(_converted(from_vlmcsd), nl=False)
        elif template:
            click.echo(render_file({}), nl=False)
        elif reference:
            click.echo(render_reference(), nl=False)
        elif vlmcsd_table:
            click.echo(render_vlmcsd(), nl=False)
        else:
            _show(_effective(arguments), as_json)
    except (KMSProtoError, UsageError) as error:
        raise click.ClickException(str(error)) from error


def _effective(arguments: tuple[str, ...]) -> Effective:
    options = Options()
    options.parseOptions(list(arguments))
    return options.effective


def _try(settings: Effective) -> None:
    """
    Make what a host makes of settings at its start, short of listening.

    @raise KMSProtoError: If it cannot be made.
    """
    # No identity is read or written; any will do to see whether there can be one.
    Founding(Installation(bytes(INSTALLATION_IDENTIFIER_LENGTH), date.min)).site(settings)
    make_endpoints(settings, reactor)


def _converted(path: Path) -> str:
    """
    Make a file of settings of a vlmcsd.ini.
    """
    source, warnings = from_ini(path)
    for name, given in source.items():
        for text in given.texts:
            BY_NAME[name].value(text, given.where)
    for warning in warnings:
        click.echo(warning, err=True)
    return render_file(combine([source]), [f"Made from {path.name} of vlmcsd.", *warnings])


def _show(effective: Effective, as_json: bool) -> None:
    shown = {name: _shown(effective[name]) for name in effective}
    if as_json:
        document = {
            name: {"value": shown[name], "origin": effective.origin(name)} for name in effective
        }
        click.echo(json.dumps(document, indent=2))
        return
    width = max(map(len, shown))
    for name, value in shown.items():
        written = ", ".join(value) if isinstance(value, list) else _word(value)
        click.echo(f"{name:{width}}  {written}  ({effective.origin(name)})")
    for warning in effective.warnings:
        click.echo(warning, err=True)


def _shown(value: Any) -> Any:
    """
    Make of a value what JSON knows.
    """
    if isinstance(value, list):
        return [str(each) for each in value]
    return value if isinstance(value, bool | int | float | None) else str(value)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value is None else str(value)
