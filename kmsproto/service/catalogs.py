"""
The catalogue that an operator names: a file of vlmcsd or our own TOML, told apart by the first bytes.

Reading the file and making sense of it are two steps, because a host that gives up its privileges can only do the first
before that, and because workers are told the bytes.  The file is read once, up to a limit, and only if it is a regular
file: a pipe could let the start of a host wait without end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import Catalog, load_catalog, read_toml
from kmsproto.kms.kmd import MAGIC, read_kmd
from kmsproto.kms.kmd_catalog import to_catalog
from kmsproto.kms.merging import extended

#: Bytes of the largest file that is read; the catalogues in the field have about 20000.
MAXIMUM_FILE = 4 * 1024 * 1024


def load(path: Path, replace: bool) -> Catalog:
    """
    Read a file and make a catalogue of it.

    @param path: The file.
    @param replace: Whether it stands alone; else it extends the built-in catalogue.
    @raise CatalogError: If it cannot be read or used.
    """
    return parse_file(read_file(path), str(path), replace)


def read_file(path: Path) -> bytes:
    """
    Read the bytes of a file.

    @raise CatalogError: If it cannot be read, is no regular file, or has more than L{MAXIMUM_FILE} bytes.
    """
    source = str(path)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Asked before a file object is made of it, which a directory would not let.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CatalogError(source, "file", "is no regular file; name one that is")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAXIMUM_FILE + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise CatalogError(
            source, "file", f"cannot be read: {reason}; name another, or make it readable"
        ) from error
    if len(data) > MAXIMUM_FILE:
        raise CatalogError(source, "file", f"has more than the {MAXIMUM_FILE} bytes that are read")
    return data


def parse_file(data: bytes, source: str, replace: bool) -> Catalog:
    """
    Make a catalogue of the bytes of a file.

    @param data: All bytes of it.
    @param source: What errors call it.
    @param replace: Whether it stands alone; else it extends the built-in catalogue.
    @raise CatalogError: If it cannot be used.
    """
    if data.startswith(MAGIC):
        given = to_catalog(read_kmd(data, source))
    elif b"\0" in data:
        raise CatalogError(
            source, "file", "is neither a .kmd file, which begins with 4B 4D 44 00, nor TOML"
        )
    else:
        given = read_toml(data, source)
    return given if replace else extended(load_catalog(), given)
