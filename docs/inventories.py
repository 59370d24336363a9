"""
Inventories of names that are documented elsewhere, made from the modules themselves.

pydoctor turns C{L{bytes}} or C{L{Deferred}} into a link if an inventory (Sphinx' C{objects.inv}) tells where the name
is documented.  The published inventories have to be fetched, and a build that needs a network fails for reasons that
are none of its own.  The places follow from the names, though, so the inventories are written here: for the built-in
names, and for the public names of the few modules that docstrings link to.  Add a module to the tables when one more
is needed.
"""

from __future__ import annotations

import builtins
import importlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Where the names of the standard library are documented, and the modules of which docstrings link names.
PYTHON_BASE = "https://docs.python.org/3"
PYTHON_MODULES = (
    "collections.abc",
    "datetime",
    "enum",
    "hashlib",
    "ipaddress",
    "pathlib",
    "random",
    "struct",
    "tomllib",
    "uuid",
)

#: The same for Twisted, whose pages are pydoctor's: one for each class, one for each module with its functions.
TWISTED_BASE = "https://docs.twisted.org/en/stable/api"
TWISTED_MODULES = (
    "twisted.application.service",
    "twisted.internet.address",
    "twisted.internet.defer",
    "twisted.internet.endpoints",
    "twisted.internet.error",
    "twisted.internet.interfaces",
    "twisted.internet.protocol",
    "twisted.internet.task",
    "twisted.internet.testing",
    "twisted.logger",
    "twisted.plugin",
    "twisted.protocols.policies",
    "twisted.python.failure",
    "twisted.python.usage",
    "twisted.web.template",
)

#: The built-in names that are constants; the others are classes or functions.
CONSTANTS = frozenset({"None", "True", "False", "NotImplemented", "Ellipsis"})


def _public_names(module: str) -> list[str]:
    return [name for name in vars(importlib.import_module(module)) if not name.startswith("_")]


def python_names() -> Iterator[tuple[str, str]]:
    """
    Yield names of the standard library, each with the address of its text below L{PYTHON_BASE}.
    """
    for name, value in vars(builtins).items():
        if name in CONSTANTS:
            yield name, f"library/constants.html#{name}"
        elif isinstance(value, type) and issubclass(value, BaseException):
            yield name, f"library/exceptions.html#{name}"
        elif not name.startswith("_"):
            yield name, f"library/functions.html#{name}"
    for module in PYTHON_MODULES:
        yield module, f"library/{module}.html"
        for name in _public_names(module):
            yield f"{module}.{name}", f"library/{module}.html#{module}.{name}"


def twisted_names() -> Iterator[tuple[str, str]]:
    """
    Yield names of Twisted, each with the address of its text below L{TWISTED_BASE}.
    """
    for module in TWISTED_MODULES:
        yield module, f"{module}.html"
        members = vars(importlib.import_module(module))
        for name in _public_names(module):
            member = members[name]
            # An interface of zope.interface is no type, but it has a page of its own like a class.
            has_page = isinstance(member, type) or type(member).__name__ == "InterfaceClass"
            target = f"{module}.{name}.html" if has_page else f"{module}.html#{name}"
            yield f"{module}.{name}", target


def write_inventory(path: Path, project: str, names: Iterable[tuple[str, str]]) -> None:
    """
    Write an inventory in version 2 of Sphinx' format.

    @param path: The file to write.
    @param project: What the names belong to.
    @param names: Dotted names, each with its address relative to the base.
    """
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = "".join(f"{name} py:obj 1 {target} -\n" for name, target in names)
    path.write_bytes(head.encode() + zlib.compress(body.encode()))
