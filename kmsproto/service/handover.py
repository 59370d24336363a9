"""
What a supervisor hands to a worker at its start: one document, and descriptors at fixed numbers.

The document holds everything that tells the worker how to serve: the settings as they are in force, not as they were
written, the installation, and which of the workers it is.  So a worker reads no command line, no environment and no
file but those of the package, and needs no more rights than to answer.  It is one line of JSON on descriptor 0.
Another may follow when the settings have changed, and the end of that stream tells the worker that nobody watches over
it any more.

Values that JSON does not know, such as paths, travel as the text which their setting reads.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from kmsproto.errors import KMSProtoError
from kmsproto.kms.epid import Installation
from kmsproto.service.kinds import SettingError
from kmsproto.service.settings import SETTINGS, Setting

#: The document comes here, and then nothing more until the supervisor ends.
DOCUMENT_DESCRIPTOR = 0
#: The log of the worker: stamped lines.
LOG_DESCRIPTOR = 1
#: What the interpreter has to say when all else fails.
ERROR_DESCRIPTOR = 2
#: The worker tells the supervisor here how it is.
REPORT_DESCRIPTOR = 3
#: The first listening socket; others follow.
FIRST_SOCKET = 4

#: What a worker reports when it accepts connections, and when it has begun to end and does so no more.
READY = "ready"
CLOSED = "closed"


class HandoverError(KMSProtoError):
    """
    A document cannot be used.
    """


@dataclass(slots=True, frozen=True)
class Handover:
    """
    How a worker is to serve.

    @ivar version: The version of the package that the supervisor runs.
    @ivar worker: Which worker it is, counted from 1.
    @ivar reactor: The module that installs the reactor.
    @ivar sockets: How many listening sockets it inherits.
    @ivar group_seed: Where its ids of association groups begin.
    @ivar installation: What the identity of the host is derived from.
    @ivar settings: The value of each setting by name.
    @ivar catalog_file: The file of products that the settings name, as it was read; L{None} if they name none.
    @ivar drawn: Random bytes for what is new at every start, the same for all workers.
    """

    version: str
    worker: int
    reactor: str
    sockets: int
    group_seed: int
    installation: Installation
    settings: Mapping[str, Any]
    catalog_file: bytes | None
    drawn: bytes

    def encode(self) -> bytes:
        """
        Write the document.
        """
        document = {
            "version": self.version,
            "worker": self.worker,
            "reactor": self.reactor,
            "sockets": self.sockets,
            "group_seed": self.group_seed,
            "identifier": self.installation.identifier.hex(),
            "created": self.installation.created.isoformat(),
            "settings": {setting.name: self.settings[setting.name] for setting in SETTINGS},
            "drawn": self.drawn.hex(),
            "catalog_file": None
            if self.catalog_file is None
            else b64encode(self.catalog_file).decode("ascii"),
        }
        return json.dumps(document, default=_text).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, line: bytes, version: str) -> Handover:
        """
        Read the document.

        @param version: The version of the package that reads.
        @raise HandoverError: If it was written by another version, or is none.
        """
        try:
            document = json.loads(line)
            written_by = document["version"]
            if written_by != version:
                raise HandoverError(
                    f"the supervisor runs version {written_by}, and this is {version}; restart the service"
                )
            catalog_file = document["catalog_file"]
            return cls(
                version,
                document["worker"],
                document["reactor"],
                document["sockets"],
                document["group_seed"],
                Installation(
                    bytes.fromhex(document["identifier"]), date.fromisoformat(document["created"])
                ),
                {each.name: _value(each, document["settings"][each.name]) for each in SETTINGS},
                None if catalog_file is None else b64decode(catalog_file, validate=True),
                bytes.fromhex(document["drawn"]),
            )
        except (ValueError, KeyError, TypeError, SettingError) as error:
            raise HandoverError(
                "no document of a supervisor came; workers are started with twistd kms --workers"
            ) from error


def _text(value: object) -> str:
    """
    Write a value that JSON does not know.
    """
    if isinstance(value, Path | IPv4Network | IPv6Network):
        return str(value)
    raise TypeError(f"{value!r} cannot be handed over")


def _value(setting: Setting, value: Any) -> Any:
    if isinstance(value, list):
        return [_value(setting, each) for each in value]
    return setting.value(value) if isinstance(value, str) else value
