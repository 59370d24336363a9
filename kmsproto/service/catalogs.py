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
#: What can be named in place of a file that is of no use.
_WAY_OUT = "name a .kmd file, as 'kmsproto catalog export' writes it, or one in TOML"


class CatalogFileError(CatalogError):
    """
    A whole file is of no use as a catalogue, whatever single entries may say.

    @param source: The file.
    @param problem: What is wrong with it.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, "file", problem)
        # Nobody looks for an entry of that name.
        self.args = (f"{source}: {problem}",)


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
                raise CatalogFileError(source, "is no regular file; name one that is")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAXIMUM_FILE + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise CatalogFileError(
            source, f"cannot be read: {reason}; name another, or make it readable"
        ) from error
    if len(data) > MAXIMUM_FILE:
        problem = f"has more than the {MAXIMUM_FILE} bytes that are read; {_WAY_OUT}"
        raise CatalogFileError(source, problem)
    return data


def parse_file(data: bytes, source: str, replace: bool) -> Catalog:
    """
    Make a catalogue of the bytes of a file.

    @param data: All bytes of it.
    @param source: What errors call it.
    @param replace: Whether it stands alone; else it extends the built-in catalogue.
    @raise CatalogError: If it cannot be used.
    """
    try:
        given = _read(data, source)
    except CatalogFileError:
        raise
    except CatalogError as error:
        if error.entry != "file":
            raise
        problem = str(error).removeprefix(f"{source}: {error.entry}: ")
        raise CatalogFileError(source, f"{problem}; {_WAY_OUT}") from error
    return given if replace else extended(load_catalog(), given)


def _read(data: bytes, source: str) -> Catalog:
    """
    Make a catalogue of the bytes of a file of either kind.
    """
    if data.startswith(MAGIC):
        return to_catalog(read_kmd(data, source))
    if not data.strip():
        raise CatalogFileError(source, f"is empty; {_WAY_OUT}")
    if b"\0" in data:
        raise _is_neither(source, "it is no text")
    try:
        return read_toml(data, source)
    except CatalogError as error:
        reason = error.__cause__
        if reason is None:
            # It is TOML, but says what no catalogue can.
            raise
        text = "it is no UTF-8" if isinstance(reason, UnicodeDecodeError) else str(reason)
        raise _is_neither(source, " ".join(text.split())) from error


def _is_neither(source: str, reason: str) -> CatalogFileError:
    """
    Say that a file is of neither kind.

    @param reason: Why it is no TOML.
    """
    return CatalogFileError(
        source,
        f"is neither a .kmd file, which begins with 4B 4D 44 00, nor TOML: {reason}; {_WAY_OUT}",
    )
