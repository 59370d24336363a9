"""
Asking one place for one activation and telling what came of it, for the commands that ask many places or for a monitor.

The errors of the client say who made which mistake; here each becomes one of five verdicts (L{Verdict}), which is what
an operator wants to know of a place first.  The options that say what is asked for are here too, and what keeps a
command from more connections than it may have (L{check_room}).
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import click

from kmsproto.cli.requests import RequestMaker, Wishes, product_option
from kmsproto.cli.targets import Target
from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    RemoteProtocolError,
)
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.messages import PROTOCOL_VERSIONS, RequestBody
from kmsproto.net.addresses import endpoint_to
from kmsproto.net.client import ClientOptions, activate

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Files that a command needs besides its connections.
_OTHER_FILES = 24


class Verdict(Enum):
    """
    What came of asking.
    """

    GRANTED = "granted"  #: an answer that passed every check
    REFUSED = (
        "refused"  #: a refusal: an HRESULT, a fault, a bind_nak, or no context that we can use
    )
    WRONG = "wrong"  #: an answer that breaks the protocol, or failed a check
    UNREACHABLE = "unreachable"  #: no connection, or one that ended too early
    SILENT = "silent"  #: no answer in time

    @property
    def answered(self) -> bool:
        """
        Whether a host is there, be its answer as it may.
        """
        return self in (Verdict.GRANTED, Verdict.REFUSED, Verdict.WRONG)


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What came of asking one place.

    @ivar verdict: How it went.
    @ivar seconds: How long it took, the connection included.
    @ivar problem: Why it was not granted, as text of the error; empty if it was.
    @ivar epid: The ePID of the host, as it came.
    @ivar count: The clients that the host has counted; C{None} if it granted nothing.
    """

    verdict: Verdict
    seconds: float
    problem: str = ""
    epid: str = ""
    count: int | None = None


def verdict_of(error: KMSProtoError) -> Verdict:
    """
    Tell what came of asking from the error that the client made of it.
    """
    if isinstance(error, HostTimeoutError):
        return Verdict.SILENT
    if isinstance(error, HostUnreachableError):
        return Verdict.UNREACHABLE
    return Verdict.WRONG if isinstance(error, RemoteProtocolError) else Verdict.REFUSED


async def ask(
    reactor: Any, target: Target, request: RequestBody, timeout: float, family: int | None = None
) -> Asked:
    """
    Ask one place.

    @param timeout: Seconds for each step.
    @param family: The IP version, 4 or 6; C{None} for both.
    """
    begun = reactor.seconds()
    endpoint = endpoint_to(reactor, target.host, target.port, family)
    try:
        response = await activate(reactor, endpoint, request, ClientOptions(timeout=timeout))
    except KMSProtoError as error:
        return Asked(verdict_of(error), reactor.seconds() - begun, str(error))
    return Asked(
        Verdict.GRANTED,
        reactor.seconds() - begun,
        epid=response.body.epid,
        count=response.body.client_count,
    )


def check_room(connections: int, option: str) -> None:
    """
    See to it that the limit on open files leaves room for so many connections.

    @param option: The option that asks for them.
    @raise click.BadParameter: If it does not.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = connections if soft == resource.RLIM_INFINITY else max(soft - _OTHER_FILES, 0)
    if connections > room:
        raise click.BadParameter(
            f"this process may open {room} connections, not {connections};"
            " raise the limit with 'ulimit -n', or ask for fewer",
            param_hint=option,
        )


def make_body(
    catalog: Catalog, product: str | None, protocol: str | None
) -> tuple[str, RequestBody]:
    """
    Make the request of a product's client, in the name of this machine.

    @param product: What the user calls the product; C{None} for the usual one.
    @param protocol: The major version; C{None} for the product's own.
    @return: What is asked for, for people, and the request.
    @raise click.BadParameter: If there is no such product.
    """
    version = None if protocol is None else (int(protocol), 0)
    maker = RequestMaker(catalog, Wishes(product=product, protocol=version))
    return maker.name, maker.make(0)


def product_options(command: _Command) -> _Command:
    """
    Add C{--product} and C{--protocol}, which arrive as C{product} and C{protocol}.
    """
    command = click.option(
        "--protocol",
        type=click.Choice([str(version) for version in PROTOCOL_VERSIONS]),
        help="Protocol version to ask in.  [default: the product's own]",
    )(command)
    return product_option(command)
