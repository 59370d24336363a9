"""
C{kmsproto products}: what the catalogue knows of products, KMS ids, host keys, host builds and applications.

Each kind of entry becomes rows (L{ROWS}): plain values under the names that JSON and CSV have for them, so that what
people, programs and spreadsheets are shown is the same.  Words are looked for in the names, numbers and GUIDs are taken
as what they are.  When one product is left it is shown in full: who answers for it, which host keys activate it, and
which systems can hold those.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

import click

from kmsproto.cli.output import catalog_option, emit_json, fail, json_option
from kmsproto.errors import ProductNotFoundError
from kmsproto.kms.catalog import CSVLK, SKU, Catalog, HostBuild
from kmsproto.kms.messages import PROTOCOL_VERSIONS
from kmsproto.net.quoting import printable

_GUID_PART = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f-]*)?)\}?", re.ASCII)
_SHOWN_NAMES = 80

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """
    How one kind of entry is listed.

    @ivar title: What it is called, as a plural.
    @ivar rows: Makes the rows.
    @ivar columns: Which fields people are shown, with the heading of each.
    @ivar searched: In which fields words are looked for.
    """

    title: str
    rows: Callable[[Catalog], list[_Row]]
    columns: tuple[tuple[str, str], ...]
    searched: tuple[str, ...]


def _skus(catalog: Catalog) -> list[_Row]:
    return [_sku_row(catalog, sku) for sku in catalog.skus.values()]


def _sku_row(catalog: Catalog, sku: SKU) -> _Row:
    kms_id = catalog.kms_ids[sku.kms_id]
    return {
        "number": sku.number,
        "name": sku.name,
        "protocol": sku.protocol,
        "n_policy": kms_id.n_policy,
        "sku_id": str(sku.guid),
        "kms_id": str(kms_id.guid),
        "kms_id_name": kms_id.name,
        "application_id": str(kms_id.application),
        "application": catalog.application_name(kms_id.application),
        "csvlk": kms_id.csvlk,
        "is_retail": kms_id.is_retail,
        "is_preview": kms_id.is_preview,
    }


def _kms_ids(catalog: Catalog) -> list[_Row]:
    products: dict[UUID, int] = {}
    for sku in catalog.skus.values():
        products[sku.kms_id] = products.get(sku.kms_id, 0) + 1
    return [
        {
            "kms_id": str(kms_id.guid),
            "name": kms_id.name,
            "protocol": kms_id.protocol,
            "n_policy": kms_id.n_policy,
            "application_id": str(kms_id.application),
            "application": catalog.application_name(kms_id.application),
            "csvlk": kms_id.csvlk,
            "is_retail": kms_id.is_retail,
            "is_preview": kms_id.is_preview,
            "products": products.get(kms_id.guid, 0),
            "aliases": [str(alias) for alias in kms_id.aliases],
        }
        for kms_id in catalog.kms_ids.values()
    ]


def _csvlks(catalog: Catalog) -> list[_Row]:
    return [_csvlk_row(catalog, csvlk) for csvlk in catalog.csvlks.values()]


def _csvlk_row(catalog: Catalog, csvlk: CSVLK) -> _Row:
    activates = csvlk.kms_ids
    return {
        "key": csvlk.key,
        "name": csvlk.name,
        "csvlk_id": csvlk.guid and str(csvlk.guid),
        "group_id": csvlk.group_id,
        "key_id_ranges": [f"{first}-{last}" for first, last in csvlk.key_id_ranges],
        "release_date": csvlk.release_date.isoformat(),
        "minimum_active_clients": csvlk.minimum_active_clients,
        "is_lab": csvlk.is_lab,
        "is_preview": csvlk.is_preview,
        "host_builds": [build.build for build in hosts_of(catalog, csvlk)],
        "activates": None
        if activates is None
        else [entry.name for guid, entry in catalog.kms_ids.items() if guid in activates],
    }


def _host_builds(catalog: Catalog) -> list[_Row]:
    return [
        {
            "build": build.build,
            "name": build.name,
            "platform_id": build.platform_id,
            "release_date": build.release_date.isoformat(),
            "uses_ndr64": build.uses_ndr64,
            "known_as_host": build.for_epid,
            "may_be_server": build.may_be_server,
        }
        for build in catalog.host_builds.values()
    ]


def _applications(catalog: Catalog) -> list[_Row]:
    return [
        {
            "application_id": str(entry.guid),
            "name": entry.name,
            "csvlk": entry.csvlk,
            "minimum_clients": entry.minimum_clients,
            "kms_ids": sum(each.application == entry.guid for each in catalog.kms_ids.values()),
        }
        for entry in catalog.applications.values()
    ]


#: The kinds of entries, by the name of the option for each.
ROWS: Mapping[str, Listing] = MappingProxyType(
    {
        "products": Listing(
            "products",
            _skus,
            (
                ("number", "no."),
                ("name", "product"),
                ("protocol", "protocol"),
                ("n_policy", "clients"),
                ("kms_id_name", "KMS id"),
            ),
            ("name", "kms_id_name", "application"),
        ),
        "kms-ids": Listing(
            "KMS ids",
            _kms_ids,
            (
                ("kms_id", "KMS id"),
                ("name", "name"),
                ("protocol", "protocol"),
                ("n_policy", "clients"),
                ("products", "products"),
                ("csvlk", "answers by"),
            ),
            ("name", "application"),
        ),
        "csvlks": Listing(
            "host keys",
            _csvlks,
            (
                ("key", "key"),
                ("name", "name"),
                ("group_id", "group"),
                ("key_id_ranges", "key ids"),
                ("release_date", "released"),
                ("host_builds", "host builds"),
            ),
            ("name", "key"),
        ),
        "host-builds": Listing(
            "host builds",
            _host_builds,
            (
                ("build", "build"),
                ("name", "name"),
                ("platform_id", "platform"),
                ("release_date", "released"),
                ("uses_ndr64", "NDR64"),
                ("known_as_host", "KMS host"),
                ("may_be_server", "server"),
            ),
            ("name", "build"),
        ),
        "applications": Listing(
            "applications",
            _applications,
            (
                ("application_id", "application"),
                ("name", "name"),
                ("kms_ids", "KMS ids"),
                ("csvlk", "speaks by"),
                ("minimum_clients", "clients kept"),
            ),
            ("name",),
        ),
    }
)


def hosts_of(catalog: Catalog, csvlk: CSVLK) -> list[HostBuild]:
    """
    List the builds known as KMS hosts that are not too old for a host key, the newest first.
    """
    return [
        build
        for build in catalog.host_builds.values()
        if build.for_epid and build.build not in csvlk.invalid_host_builds
    ]


def describe(catalog: Catalog, sku: SKU) -> _Row:
    """
    Tell all that is known of a product.

    @return: The row of the list, and: the CSVLK that answers for it, those that activate it, and those of which that is
        not known.
    """
    return _sku_row(catalog, sku) | {
        "aliases": [str(alias) for alias in catalog.kms_ids[sku.kms_id].aliases],
        "answered_by": _csvlk_row(catalog, catalog.csvlk_for(sku.kms_id)),
        "activated_by": [
            _csvlk_row(catalog, csvlk)
            for csvlk in catalog.csvlks.values()
            if sku.kms_id in (csvlk.kms_ids or ())
        ],
        "not_known_of": [csvlk.key for csvlk in catalog.csvlks.values() if csvlk.kms_ids is None],
    }


def _kind_options(command: Any) -> Any:
    for name, listing in reversed(list(ROWS.items())[1:]):
        command = click.option(
            f"--{name}", "kind", flag_value=name, help=f"List {listing.title} instead."
        )(command)
    return command


@click.command()
@click.argument("text", nargs=-1, metavar="[TEXT]...")
@click.option("-s", "--show", is_flag=True, help="Show each product that fits in full.")
@_kind_options
@click.option(
    "--application", metavar="TEXT", help="Only those of an application, by its name or GUID."
)
@click.option(
    "--protocol",
    type=click.Choice([str(version) for version in PROTOCOL_VERSIONS]),
    help="Only those whose clients speak this version.",
)
@catalog_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def products(
    text: tuple[str, ...],
    show: bool,
    kind: str | None,
    application: str | None,
    protocol: str | None,
    catalog: Catalog,
    as_json: bool,
    as_csv: bool,
) -> None:
    """
    List, search and show the products that are known.

    Without TEXT, all are listed with the numbers that vlmcs has for them.  TEXT is a number, a name, a GUID or the
    first eight digits of it, or words that the name, its KMS id or its application have somewhere.  A product that is
    the only one to fit, or has exactly that name, is shown in full.

    Exits with status 1 when nothing fits; JSON is then an empty list, and CSV the header alone.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if show and kind:
        raise click.UsageError("--show shows products; leave --" + kind + " away")
    listing = ROWS[kind or "products"]
    known = listing.rows(catalog)
    rows = _filtered(known, application, protocol)
    wanted = " ".join(" ".join(text).split())
    found = _search(listing, rows, wanted) if wanted else rows
    if not found:
        # What a program reads has the form that it has when something fits.
        if as_json:
            emit_json([])
        elif as_csv:
            click.echo(_csv(known[:1], []), nl=False)
        fail(_nothing(catalog, listing, wanted, kind))
    in_full = not kind and (show or (bool(wanted) and len(found) == 1))
    if in_full and not as_csv:
        skus = {sku.number: sku for sku in catalog.skus.values()}
        full = [describe(catalog, skus[row["number"]]) for row in found]
        if as_json:
            emit_json(full)
        else:
            click.echo("\n\n".join("\n".join(_in_full(each)) for each in full))
    elif as_json:
        emit_json(found)
    elif as_csv:
        click.echo(_csv(known[:1], found), nl=False)
    else:
        click.echo("\n".join(_table(listing, found)))


def _filtered(rows: list[_Row], application: str | None, protocol: str | None) -> list[_Row]:
    """
    Keep the rows of an application and a protocol.

    @raise click.UsageError: If the rows have none.
    """
    for option, value, field in (
        ("--application", application, "application_id"),
        ("--protocol", protocol, "protocol"),
    ):
        if value is not None and not all(field in row for row in rows):
            raise click.UsageError(f"{option} goes with products and KMS ids only")
    if protocol is not None:
        rows = [row for row in rows if str(row["protocol"]) == protocol]
    if application is not None:
        words = application.casefold().split()
        rows = [
            row
            for row in rows
            if _has_words(str(row.get("application", row["name"])), words)
            or _has_guid(row, "application_id", application)
        ]
    return rows


def _search(listing: Listing, rows: Sequence[_Row], wanted: str) -> list[_Row]:
    """
    Find rows by number, by exact name, by GUID, or by words; the first that finds anything counts.
    """
    folded = wanted.casefold()
    if folded.isascii() and folded.isdigit():
        digits = folded.lstrip("0")
        for field in ("number", "build"):
            found = [row for row in rows if str(row.get(field)) == digits]
            if found:
                return found
    exact = [
        row for row in rows if folded in (row["name"].casefold(), str(row.get("key")).casefold())
    ]
    if exact:
        return exact
    fields = ("sku_id", "kms_id", "application_id", "csvlk_id", "aliases")
    by_guid = [row for row in rows if any(_has_guid(row, field, folded) for field in fields)]
    if by_guid:
        return by_guid
    words = folded.split()
    return [
        row
        for row in rows
        if _has_words(" ".join(str(row[field]) for field in listing.searched), words)
    ]


def _has_words(text: str, words: Sequence[str]) -> bool:
    text = text.casefold()
    return all(word in text for word in words)


def _has_guid(row: _Row, field: str, text: str) -> bool:
    match = _GUID_PART.fullmatch(text.strip().casefold())
    if match is None or field not in row:
        return False
    values = row[field] if isinstance(row[field], list) else [row[field] or ""]
    return any(value.startswith(match[1]) for value in values)


def _nothing(catalog: Catalog, listing: Listing, wanted: str, kind: str | None) -> str:
    """
    Say that nothing fits, and what can be done.
    """
    option = f" --{kind}" if kind else ""
    problem = (
        f"no {listing.title} fit {printable(wanted[:_SHOWN_NAMES])!r}" if wanted else "nothing fits"
    )
    if not kind and wanted:
        try:
            catalog.product(wanted)
        except ProductNotFoundError as error:
            if error.suggestions:
                names = " or ".join(f"'{printable(name)}'" for name in error.suggestions)
                return f"{problem}; did you mean {names}?"
    return f"{problem}; try fewer words, or list all with kmsproto products{option}"


def _word(value: object) -> str:
    """
    Write a value for people.
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_word, value)) or "none"
    return printable(str(value))


def _table(listing: Listing, rows: Sequence[_Row]) -> list[str]:
    """
    Lay rows out in columns, numbers to the right.
    """
    columns = []
    for field, heading in listing.columns:
        words = [_word(row[field]) for row in rows]
        width = max(map(len, (heading, *words)))
        numeric = all(type(row[field]) is int for row in rows)
        columns.append(
            [word.rjust(width) if numeric else word.ljust(width) for word in (heading, *words)]
        )
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


def _csv(samples: Sequence[_Row], rows: Sequence[_Row]) -> str:
    """
    Write rows as RFC 4180 has it: a header, CRLF; lists have semicolons, and what is not known is empty.

    @param samples: A row that has the names for the header, or none.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerows(samples and [list(samples[0])])
    for row in rows:
        writer.writerow(map(_cell, row.values()))
    return file.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(str, value)) if isinstance(value, list) else value


def _in_full(product: _Row) -> list[str]:
    """
    Write all about one product.
    """
    kinds = [word for word in ("retail", "preview") if product[f"is_{word}"]]
    lines = [
        f"{product['number']}  {_word(product['name'])}",
        *_facts(
            ("SKU id", product["sku_id"]),
            ("KMS id", f"{product['kms_id']}  {_word(product['kms_id_name'])}"),
            *(("also known as", alias) for alias in product["aliases"]),
            ("application", f"{product['application_id']}  {_word(product['application'])}"),
            ("protocol", product["protocol"]),
            ("clients needed", product["n_policy"]),
            *((("kind", ", ".join(kinds)),) if kinds else ()),
        ),
        "",
        "A host of kmsproto answers with an ePID of this host key:",
        *_key_lines(product["answered_by"]),
        "",
    ]
    ours = product["answered_by"]["key"]
    activating = [csvlk for csvlk in product["activated_by"] if not csvlk["is_lab"]]
    labs = len(product["activated_by"]) - len(activating)
    if activating:
        lines.append("Host keys that activate it, and the host builds that can hold them:")
        width = max(len(_word(csvlk["name"])) for csvlk in activating)
        lines += [
            f"  {_word(csvlk['name']):{width}}  {', '.join(map(str, csvlk['host_builds'])) or 'none known'}"
            for csvlk in activating
        ]
    else:
        lines.append("No host key that is sold is known to activate it.")
    if all(csvlk["key"] != ours for csvlk in product["activated_by"]):
        known = (
            "is not known to activate" if ours in product["not_known_of"] else "does not activate"
        )
        lines.append(f"The key that answers, {_word(ours)}, {known} it at genuine hosts.")
    if labs:
        lines.append(f"Keys that Microsoft keeps to itself activate it too: {labs}.")
    if product["not_known_of"]:
        lines.append(
            f"Whether it is activated by these is not known: {_word(product['not_known_of'])}."
        )
    return lines


def _key_lines(csvlk: _Row) -> list[str]:
    return _facts(
        ("host key", f"{_word(csvlk['name'])} ({_word(csvlk['key'])})"),
        ("group id", f"{csvlk['group_id']:05}"),
        ("key ids", _word(csvlk["key_id_ranges"])),
        ("released", csvlk["release_date"]),
        ("least clients", csvlk["minimum_active_clients"]),
        ("host builds", _word(csvlk["host_builds"])),
    )


def _facts(*facts: tuple[str, object]) -> list[str]:
    return [f"  {name:14}  {value}" for name, value in facts]
