"""
C{kmsproto probe}: ask a host for one activation, and show what comes back.

The request is the one that the product's own client would send.  The client machine id is derived from the name of
this machine, so that probing a host again and again does not fill its table of clients.
"""

from __future__ import annotations

import math
import socket
import time
import uuid
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import react

from kmsproto.cli.targets import Target, parse_target
from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    ProductNotFoundError,
    RemoteProtocolError,
)
from kmsproto.kms.catalog import SKU, load_catalog
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.kms.messages import PROTOCOL_VERSIONS, RequestBody
from kmsproto.kms.requests import make_request
from kmsproto.net.client import DEFAULT_TIMEOUT, ClientOptions, activate
from kmsproto.net.quoting import printable

#: The product that is asked for when none is named.
DEFAULT_PRODUCT = "Windows 10/11 Enterprise"


def _read_target(context: click.Context, parameter: click.Parameter, value: str) -> Target:
    try:
        return parse_target(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _read_seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    # "nan" is a float, and neither below nor above any bound.
    if math.isnan(value):
        raise click.BadParameter("'nan' is not a number of seconds")
    return value


@click.command()
@click.argument("target", callback=_read_target, metavar="HOST[:PORT]")
@click.option(
    "-l",
    "--product",
    default=DEFAULT_PRODUCT,
    show_default=True,
    help="Product to ask for: its number, its name (or the beginning of it), or its GUID.",
)
@click.option(
    "--protocol",
    type=click.Choice([str(version) for version in PROTOCOL_VERSIONS]),
    help="Protocol version to ask in.  [default: the product's own]",
)
@click.option(
    "-w", "--workstation", default=None, help="Workstation name to send.  [default: this machine's]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    callback=_read_seconds,
    default=DEFAULT_TIMEOUT,
    show_default=True,
    help="Seconds that the host has for each step.",
)
def probe(
    target: Target, product: str, protocol: str | None, workstation: str | None, timeout: float
) -> None:
    """
    Ask a KMS host for one activation and show its answer.

    Exits with status 0 when the host granted it and the answer passed every check, with 1 when not.
    """
    catalog = load_catalog()
    try:
        sku = catalog.product(product)
    except ProductNotFoundError as error:
        raise click.BadParameter(str(error), param_hint="--product") from error
    machine = socket.gethostname()
    request = make_request(
        catalog,
        sku,
        client_machine_id=uuid.uuid5(uuid.NAMESPACE_DNS, machine),
        workstation=machine[:63] if workstation is None else workstation,
        now=time.time(),
        protocol=None if protocol is None else int(protocol),
    )
    react(_probe, (target, sku, request, ClientOptions(timeout=timeout)))


def _probe(*arguments: Any) -> Deferred[None]:
    return Deferred.fromCoroutine(_ask(*arguments))


async def _ask(
    reactor: Any, target: Target, product: SKU, request: RequestBody, options: ClientOptions
) -> None:
    """
    Ask, and show the answer or why there is none.
    """
    endpoint = HostnameEndpoint(reactor, target.host, target.port)
    try:
        response = await activate(reactor, endpoint, request, options)
    except KMSProtoError as error:
        click.echo(f"kmsproto probe: {target}: {error}{hint(error)}", err=True)
        raise SystemExit(1) from error
    click.echo(describe(target, product, request, response))


#: What a user can do about an error, by its type; the first that fits counts.
_HINTS: tuple[tuple[type[KMSProtoError], str], ...] = (
    (HostUnreachableError, "check that a KMS host runs there, and the port"),
    (
        HostTimeoutError,
        "check that it is a KMS host, and for a firewall in between, or allow it more --timeout",
    ),
    (RemoteProtocolError, "check that it is a KMS host"),
)


def hint(error: KMSProtoError) -> str:
    """
    Say what can be done about an error, as the end of a line that tells it; nothing when it speaks for itself.
    """
    return next((f"; {advice}" for kind, advice in _HINTS if isinstance(error, kind)), "")


def describe(target: Target, product: SKU, request: RequestBody, response: OpenedResponse) -> str:
    """
    Say what a host answered.

    @return: A few lines of text.
    """
    body = response.body
    rows = [
        ("ePID", printable(body.epid)),
        ("hardware id", response.hardware_id.hex().upper() or "none before version 6"),
        ("count", f"{body.client_count} clients (the product needs {request.n_policy})"),
        ("activation interval", f"{body.activation_interval} minutes"),
        ("renewal interval", f"{body.renewal_interval} minutes"),
    ]
    head = f"{target} grants {product.name} (protocol version {request.major_version})"
    return "\n".join([head, *(f"  {name + ':':<21}{value}" for name, value in rows)])
