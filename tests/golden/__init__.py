"""
Exchanges that were recorded between vlmcs and vlmcsd, a widely used client and host in C, as golden files.

Each file is one TCP connection: who sent, the PDU, and for calls the transfer syntax and every field of the sealed
message, opened.  The recorded host is an example, not the rule: some bytes of its bind_ack and alter_context_resp are
remains of its memory, and its intervals are settings of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The names of all exchanges.
EXCHANGES = (
    "v4-full",
    "v5-full",
    "v6-full",
    "v4-ndr",
    "v5-ndr",
    "v6-ndr",
    "v6-unicode",
    "refused-version",
)


@dataclass(frozen=True)
class RecordedPDU:
    """
    One PDU of an exchange.

    @ivar sender: C{"client"} or C{"host"}.
    @ivar packet: The packet type as the specifications spell it.
    @ivar data: The whole PDU.
    @ivar transfer_syntax: C{"NDR"} or C{"NDR64"}; empty unless it is a call or its answer.
    @ivar hresult: The HRESULT of an answer.
    @ivar opened: The fields of the sealed message; empty where none could be opened.
    """

    sender: str
    packet: str
    data: bytes
    transfer_syntax: str = ""
    hresult: int = 0
    opened: dict[str, Any] = field(default_factory=dict)


def load_exchange(name: str) -> list[RecordedPDU]:
    """
    Read an exchange, in the order in which its PDUs were sent.
    """
    document = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return [
        RecordedPDU(
            pdu["sender"],
            pdu["packet"],
            bytes.fromhex(pdu["bytes"]),
            pdu.get("transfer_syntax", ""),
            int(pdu.get("hresult", "0"), 16),
            pdu.get("opened", {}),
        )
        for pdu in document["pdus"]
    ]
