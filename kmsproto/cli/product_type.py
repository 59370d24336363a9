"""
A product as the value of an option: by number, name, beginning of a name or GUID, and completed by the shell.

Names of products have blanks and parentheses in them.  zsh and fish quote what they are offered; bash inserts it as it
is, so that for bash it is quoted here, unless the user has opened quotes already.
"""

from __future__ import annotations

import os
import re
import shlex

import click
from click.shell_completion import CompletionItem

from kmsproto.errors import ProductNotFoundError
from kmsproto.kms.catalog import SKU, Catalog, load_catalog

#: Names that a shell is offered at most.
MOST_OFFERED = 100
#: What bash would not take for a part of a word.
_SPECIAL = re.compile(r"([^\w./+-])", re.ASCII)


class ProductType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A product of the catalogue.

    The catalogue is that of C{-j} if the command has such an option and it was read before (C{is_eager}), else the
    built-in one.
    """

    name = "product"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> SKU:
        """
        Find the product.
        """
        if isinstance(value, SKU):
            return value
        try:
            return _catalog(ctx).product(str(value))
        except ProductNotFoundError as error:
            hint = "" if error.suggestions else "; kmsproto products lists them"
            self.fail(f"{error}{hint}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """
        Offer what L{complete_product} finds.
        """
        return complete_product(ctx, param, incomplete)


def complete_product(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """
    Offer a shell the names of products that begin like what was typed, whatever the case; or the numbers.

    It can stand by itself as the C{shell_complete} of an option that takes the product as text.
    """
    skus = _catalog(context).skus.values()
    if incomplete.isdigit():
        offered = [
            CompletionItem(str(sku.number), help=sku.name)
            for sku in skus
            if str(sku.number).startswith(incomplete)
        ]
    else:
        begun = incomplete.casefold()
        offered = [
            CompletionItem(_for_shell(sku.name), help=f"number {sku.number}")
            for sku in skus
            if sku.name.casefold().startswith(begun)
        ]
    return offered[:MOST_OFFERED]


def _catalog(context: click.Context | None) -> Catalog:
    known = context.params.get("catalog") if context is not None else None
    return known if isinstance(known, Catalog) else load_catalog()


def _for_shell(name: str) -> str:
    """
    Quote a name for a shell that does not do so itself.
    """
    if not any(
        key.endswith("_COMPLETE") and value == "bash_complete" for key, value in os.environ.items()
    ):
        return name
    try:
        shlex.split(os.environ.get("COMP_WORDS", ""))
    except ValueError:
        return name  # within quotes
    return _SPECIAL.sub(r"\\\1", name)
