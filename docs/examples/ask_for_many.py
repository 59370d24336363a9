"""
A client that asks for several products on one connection, and says of each how it went.

Run it with "python ask_for_many.py HOST PORT PRODUCT...".
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react

from kmsproto.errors import (
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    VerificationError,
)
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.requests import make_request
from kmsproto.net.client import ClientOptions, connect


async def ask(
    reactor: Any, endpoint: IStreamClientEndpoint, products: Iterable[str]
) -> dict[str, str]:
    """
    Ask for some products, one after the other.

    @return: What came of each.
    @raise kmsproto.errors.ProductNotFoundError: If there is no such product; nothing is sent then.
    @raise HostUnreachableError: If nobody answers there, or hangs up in between.
    @raise HostTimeoutError: If the host keeps silent.
    """
    catalog = load_catalog()
    machine = uuid.uuid4()
    requests = {
        name: make_request(
            catalog,
            catalog.product(name),
            client_machine_id=machine,
            workstation="lab-example",
            now=reactor.seconds(),
        )
        for name in products
    }
    outcomes = {}
    client = await connect(reactor, endpoint, ClientOptions(timeout=5))
    try:
        for name, request in requests.items():
            try:
                response = await client.activate(request)
            except HResultError as error:
                outcomes[name] = f"refused: {error.hresult:#010x}"
            except FaultError as error:
                outcomes[name] = f"failed below KMS: {error}"
            except VerificationError as error:
                outcomes[name] = f"answered, but wrong: {error}"
            else:
                body = response.body
                enough = body.client_count >= request.n_policy
                outcomes[name] = "activated" if enough else f"only {body.client_count} clients"
    finally:
        await client.close()
    return outcomes


async def main(reactor: Any, host: str, port: str, *products: str) -> None:
    """
    Ask the host on the command line.
    """
    try:
        outcomes = await ask(reactor, HostnameEndpoint(reactor, host, int(port)), products)
    except (HostUnreachableError, HostTimeoutError) as error:
        sys.exit(f"{host}: {error}")
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")


if __name__ == "__main__":
    react(
        lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:]
    )
