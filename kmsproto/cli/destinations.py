"""
Finding the hosts that a user means: one by name or address, or those that DNS names for a domain.

As vlmcs has it: C{.DOMAIN} stands for the SRV records of that domain, C{-} for those of this machine's own, and
everything else for a host.  What comes out is a list of places to try, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click
from twisted.internet.interfaces import IStreamClientEndpoint

from kmsproto.cli.targets import Target, parse_target
from kmsproto.errors import HostUnreachableError, KMSProtoError
from kmsproto.net.addresses import endpoint_to
from kmsproto.net.discovery import discover
from kmsproto.net.resolver import (
    DiscoveryError,
    NameServerTimeoutError,
    look_for_own_domains,
    make_resolver,
    normalize_domain,
    parse_nameserver,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: What stands for this machine's own domain.
OWN_DOMAIN = "-"
#: Places that are tried at most.
MAX_DESTINATIONS = 64


class Destination(NamedTuple):
    """
    A place to try.

    @ivar name: What to call it.
    @ivar endpoint: How to get there.
    """

    name: str
    endpoint: IStreamClientEndpoint


class Whereabouts(NamedTuple):
    """
    What the user named.

    @ivar text: In the user's words.
    @ivar target: A host; L{None} for a domain.
    @ivar domain: A domain; empty for this machine's own.
    """

    text: str
    target: Target | None = None
    domain: str = ""


class WhereaboutsType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A host, or a domain whose hosts DNS knows.
    """

    name = "target"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Whereabouts:
        """
        Read it.
        """
        if isinstance(value, Whereabouts):
            return value
        text = str(value)
        try:
            if text == OWN_DOMAIN:
                return Whereabouts(text)
            if text.startswith("."):
                return Whereabouts(text, domain=normalize_domain(text[1:]))
            return Whereabouts(text, parse_target(text))
        except (ValueError, KMSProtoError) as error:
            self.fail(str(error), param, ctx)


class NameServerType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A name server: an address, with or without a port.
    """

    name = "nameserver"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """
        Read it.
        """
        if isinstance(value, tuple):
            return value
        try:
            return parse_nameserver(str(value))
        except (ValueError, KMSProtoError) as error:
            self.fail(str(error), param, ctx)


def family_option(command: _Command) -> _Command:
    """
    Add C{-i}, which arrives as C{family}: 4, 6 or L{None}.
    """
    return click.option(
        "-i",
        "--ip-version",
        "family",
        type=click.Choice(["4", "6"]),
        callback=lambda context, parameter, value: value and int(value),
        help="Use IPv4 or IPv6 only.",
    )(command)


def nameserver_option(command: _Command) -> _Command:
    """
    Add C{--nameserver}, which arrives as C{nameservers}.
    """
    return click.option(
        "--nameserver",
        "nameservers",
        type=NameServerType(),
        multiple=True,
        metavar="ADDRESS[:PORT]",
        help="Name server to ask for SRV records; may be repeated.  [default: this machine's]",
    )(command)


def ignore_order_option(command: _Command) -> _Command:
    """
    Add C{-P}, which arrives as C{ignore_order}.
    """
    return click.option(
        "-P",
        "--ignore-order",
        is_flag=True,
        help="Ignore priority and weight of SRV records.",
    )(command)


async def destinations(
    reactor: Any,
    whereabouts: Whereabouts,
    *,
    family: int | None = None,
    ignore_order: bool = False,
    nameservers: Sequence[tuple[str, int]] = (),
    timeout: float,
) -> list[Destination]:
    """
    Find the places to try.

    @param family: The IP version, 4 or 6; L{None} for both.
    @param ignore_order: Whether to take SRV records in the order of the answer.
    @param nameservers: Whom to ask; by default this machine's own name servers.
    @param timeout: Seconds for each step of the look-up.
    @return: At least one.
    @raise KMSProtoError: If DNS has none, or none that can be used.
    """
    target = whereabouts.target
    if target is not None:
        return [Destination(str(target), endpoint_to(reactor, target.host, target.port, family))]
    resolver = make_resolver(reactor, list(nameservers) or None)
    domains = [whereabouts.domain] if whereabouts.domain else await look_for_own_domains(reactor)
    problem: KMSProtoError | None = None
    for domain in domains:
        try:
            found = await discover(
                reactor, resolver, domain, timeout=timeout, ignore_order=ignore_order
            )
        except NameServerTimeoutError:
            # It will not answer for the next domain either.
            raise
        except DiscoveryError as error:
            problem = error
            continue
        places = [
            Destination(
                f"{candidate.target} ({Target(candidate.address, candidate.port)})",
                endpoint_to(reactor, candidate.address, candidate.port),
            )
            for candidate in found.candidates(family)
        ]
        if places:
            return places[:MAX_DESTINATIONS]
        reasons = "; ".join(host.problem for host in found.hosts if host.problem)
        problem = HostUnreachableError(
            f"none of the SRV records of {found.service} can be used"
            f" ({reasons or f'no IPv{family} address'}); kmsproto discover {domain} tells more"
        )
    assert problem is not None, "there is at least one domain"
    raise problem
