"""
The commands C{kmsproto catalog}: what is known of products, in a form for other programs.
"""

from __future__ import annotations

from pathlib import Path

import click

from kmsproto.cli.output import write_file
from kmsproto.cli.usage import Group
from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.kmd_catalog import MOST_PRODUCTS, from_catalog
from kmsproto.service.catalogs import load

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=Group)
def catalog() -> None:
    """
    Work with catalogues of products.
    """


@catalog.command()
@click.option(
    "--kmd",
    required=True,
    type=_FILE,
    help="The file to write, for vlmcsd -j; - for the standard output.",
)
@click.option("--kms-data", type=_FILE, help="A file that extends the built-in catalogue.")
@click.option("--kms-data-only", is_flag=True, help="Use that file instead of it.")
@click.option(
    "--all-products",
    is_flag=True,
    help=f"Write more than {MOST_PRODUCTS} products, at which vlmcs -x may go wrong.",
)
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def export(
    kmd: Path, kms_data: Path | None, kms_data_only: bool, all_products: bool, force: bool
) -> None:
    """
    Write the catalogue as a .kmd file, which vlmcsd and vlmcs load.
    """
    if kms_data_only and kms_data is None:
        raise click.UsageError("--kms-data-only needs --kms-data")
    try:
        known = load_catalog() if kms_data is None else load(kms_data, kms_data_only)
        most = max((sku.number for sku in known.skus.values()), default=0)
        file = from_catalog(known, most if all_products else MOST_PRODUCTS)
        data = file.encode()
    except CatalogError as error:
        raise click.ClickException(str(error)) from error
    write_file(kmd, data, force)
    click.echo(
        f"{kmd}: {len(file.csvlks)} CSVLKs, {len(file.applications)} applications,"
        f" {len(file.kms_ids)} KMS ids, {len(file.skus)} SKUs, {len(file.host_builds)} host builds",
        # Behind the file itself it would be a part of it.
        err=str(kmd) == "-",
    )
    if len(file.skus) < most:
        click.echo(
            f"The SKUs from {MOST_PRODUCTS + 1} to {most} were left out, because vlmcs -x cannot be"
            " relied on to list more; --all-products writes them. vlmcsd needs none of them.",
            err=True,
        )
