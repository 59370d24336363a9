"""
How Sphinx builds the documentation, with the API pages that pydoctor makes beside it.

The build needs no network: what is documented elsewhere is linked by inventories made here (C{inventories.py}), so a
warning is always a mistake in the text, and warnings are errors (C{sphinx-build -W}).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

_root = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_root), str(_root / "docs")]

import click  # noqa: E402
import inventories  # noqa: E402

from kmsproto import __version__  # noqa: E402
from kmsproto.cli.main import COMMANDS, main  # noqa: E402

project = "kmsproto"
author = "The kmsproto authors"
project_copyright = author
version = release = __version__

extensions = ["sphinx.ext.intersphinx", "sphinx_click"]
# The pages about the API need it; who packages kmsproto makes the manual pages only, and may go without.
_has_pydoctor = find_spec("pydoctor") is not None
if _has_pydoctor:
    extensions.append("pydoctor.sphinx_ext.build_apidocs")
exclude_patterns = ["_build", "vlmcsd-table.rst", "vlmcs-table.rst"]
nitpicky = True
highlight_language = "python3"

html_theme = "alabaster"
html_theme_options = {
    "description": "A KMS host and client framework on Twisted",
    "fixed_sidebar": True,
    "page_width": "1000px",
}
html_copy_source = False

# The API: references such as :py:class:`kmsproto.net.server.HostFactory` lead there.
intersphinx_mapping: dict[str, tuple[str, str | None]] = {}
pydoctor_args = [
    "--project-name=kmsproto",
    f"--project-version={__version__}",
    "--docformat=epytext",
    "--theme=readthedocs",
    "--warnings-as-errors",
    f"--project-base-dir={_root}",
    "--html-output={outdir}/api",
    f"{_root}/kmsproto",
]
pydoctor_url_path = "api/"


def _write_inventories(app: Sphinx, config: Config) -> None:
    directory = Path(app.doctreedir)
    directory.mkdir(parents=True, exist_ok=True)
    for project, base, names in (
        ("python", inventories.PYTHON_BASE, inventories.python_names()),
        ("twisted", inventories.TWISTED_BASE, inventories.twisted_names()),
    ):
        path = directory / f"{project}.inv"
        inventories.write_inventory(path, project, names)
        config.pydoctor_args.append(f"--intersphinx-file={path}::{base}")


def setup(app: Sphinx) -> None:
    """
    Called by Sphinx when this file has been read.
    """
    if _has_pydoctor:
        app.connect("config-inited", _write_inventories)


def _short_help(name: str) -> str:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command.get_short_help_str(limit=120).rstrip(".")


_AUTHORS = "The kmsproto authors"
# kms.toml(5) is the page about the settings; each command has the page that tells its options.
man_pages = [
    ("settings", "kms.toml", "settings of kmsproto, a KMS host", _AUTHORS, 5),
    ("man-host", "kmsproto-host", "the KMS host of kmsproto", _AUTHORS, 8),
    ("commands/index", "kmsproto", "tools for KMS hosts", _AUTHORS, 1),
    *(
        (f"commands/{name}", f"kmsproto-{name}", _short_help(name), _AUTHORS, 1)
        for name in COMMANDS
    ),
]
