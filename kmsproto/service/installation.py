"""
What makes a host the same host at every start: an identifier in a file.

The file is written once, at the first start, and only read afterwards.  It appears in the directory whole or not at
all, and when two processes start at once, the file of the first one counts for both.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from kmsproto.errors import KMSProtoError
from kmsproto.kms.epid import INSTALLATION_IDENTIFIER_LENGTH, Installation

#: The name of the file in the state directory.
FILE_NAME = "installation.json"
_FORMAT = 1


class StateError(KMSProtoError):
    """
    The identity of the installation cannot be read or made.
    """


class StateUnusableError(StateError):
    """
    The state directory cannot be written or read.
    """


def load_installation(directory: Path, now: float, entropy: Callable[[int], bytes]) -> Installation:
    """
    Read the identity of the installation, or make it when this is the first start.

    @param directory: The state directory; it is made if need be.
    @param now: POSIX seconds: when the installation was made, if this is the first start.
    @param entropy: Gives so many random bytes.
    @raise StateUnusableError: If the directory cannot be used.
    @raise StateError: If the file in it is damaged.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write_new(
                path,
                Installation(
                    entropy(INSTALLATION_IDENTIFIER_LENGTH), datetime.fromtimestamp(now, UTC).date()
                ),
            )
        data = path.read_bytes()
    except OSError as error:
        raise StateUnusableError(
            f"the state directory {directory} cannot be used: {error.strerror}"
        ) from error
    try:
        return _parse(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(
            f"{path} is damaged; restore it from a backup, or move it away to start anew, with new ePIDs"
        ) from error


def _write_new(path: Path, installation: Installation) -> None:
    """
    Write the file, unless another process was faster.
    """
    document = {
        "format": _FORMAT,
        "identifier": installation.identifier.hex(),
        "created": installation.created.isoformat(),
    }
    # Made with mode 0600, and in the same directory, so that a link can put it in its place.
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".installation-", encoding="utf-8"
    ) as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)


def _parse(data: bytes) -> Installation:
    document = json.loads(data)
    if document["format"] != _FORMAT:
        raise ValueError("not an installation file of this version")
    identifier = bytes.fromhex(document["identifier"])
    return Installation(identifier, date.fromisoformat(document["created"]))
