"""
The recorded exchanges that both servers are asked with, and that the floor answers with.

They are those of the tests, C{tests/golden}, read here without importing any test.  Of the two calls of a recording
the one in NDR64 is taken, for that is the syntax which clients prefer; so an exchange is what a client does to be
activated once: bind, alter_context, call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
#: The protocol versions of which there are recordings.
VERSIONS = (4, 5, 6)


class Exchange(NamedTuple):
    """
    The PDUs of one connection.

    @ivar version: The protocol version of the KMS messages in it.
    @ivar questions: What the client sends: a bind, an alter_context and a request.
    @ivar answers: What the host answered to each.
    """

    version: int
    questions: tuple[bytes, ...]
    answers: tuple[bytes, ...]

    @property
    def call(self) -> bytes:
        """
        The request PDU.
        """
        return self.questions[-1]


def load_exchange(version: int) -> Exchange:
    """
    Read the exchange of a protocol version.
    """
    document = json.loads((GOLDEN / f"v{version}-full.json").read_text(encoding="utf-8"))
    pdus = document["pdus"]
    asked = [bytes.fromhex(pdu["bytes"]) for pdu in pdus if pdu["sender"] == "client"]
    answered = [bytes.fromhex(pdu["bytes"]) for pdu in pdus if pdu["sender"] == "host"]
    # The recordings go: bind, alter_context, a call in NDR, a call in NDR64.
    taken = (0, 1, 3)
    return Exchange(
        version,
        tuple(asked[index] for index in taken),
        tuple(answered[index] for index in taken),
    )
