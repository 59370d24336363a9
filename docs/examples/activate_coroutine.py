"""
A coroutine that asks a KMS host for an activation.

Run it with "python activate_coroutine.py HOST [PORT]".
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react

from kmsproto.errors import HResultError, KMSProtoError
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.requests import make_request
from kmsproto.net.client import activate


async def ask(reactor: Any, endpoint: IStreamClientEndpoint, product: str) -> str:
    """
    Ask for a product, and say in one line how it went.
    """
    catalog = load_catalog()
    request = make_request(
        catalog,
        catalog.product(product),
        client_machine_id=uuid.uuid4(),
        workstation="lab-example",
        now=reactor.seconds(),
    )
    try:
        response = await activate(reactor, endpoint, request)
    except HResultError as error:
        return f"refused with 0x{error.hresult:08X}: {error.meaning}"
    except KMSProtoError as error:
        return f"failed: {error}"
    return f"granted by {response.body.epid}; the host counts {response.body.client_count} clients"


async def main(reactor: Any, host: str, port: str = "1688") -> None:
    """
    Ask the host on the command line for Windows 10/11 Enterprise.
    """
    print(
        await ask(reactor, HostnameEndpoint(reactor, host, int(port)), "Windows 10/11 Enterprise")
    )


if __name__ == "__main__":
    react(
        lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:]
    )
