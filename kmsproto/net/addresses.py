"""
Reaching a host by name in one address family.

Twisted's C{HostnameEndpoint} takes the first address that answers, of whichever family.  Who wants to know whether a
host can be reached over IPv6 must be able to leave the other family out: L{FamilyEndpoint} does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer

#: The address families, by the number that people call them.
FAMILIES = {4: IPv4Address, 6: IPv6Address}
#: Addresses of one name that are tried at most.
MAX_ADDRESSES = 16


@implementer(IResolutionReceiver)
class _Addresses:
    """
    Gathers the addresses of a name.
    """

    def __init__(self) -> None:
        self.done: Deferred[list[IPv4Address | IPv6Address]] = Deferred()
        self._found: list[IPv4Address | IPv6Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803
        """
        The look-up has begun; it cannot be cut short.
        """

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        """
        Take an address.
        """
        if len(self._found) < MAX_ADDRESSES:
            self._found.append(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        """
        Hand out what was gathered, unless nobody waits any more.
        """
        if not self.done.called:
            self.done.callback(self._found)


async def resolve(
    reactor: Any, host: str, port: int, family: int | None = None
) -> Sequence[IPv4Address | IPv6Address]:
    """
    Look the addresses of a name up, or take an address for what it is.

    @param reactor: Knows how names are looked up.
    @param family: 4 or 6; both if L{None}.
    @return: The addresses, at most L{MAX_ADDRESSES}, as the resolver orders them.
    @raise twisted.internet.error.DNSLookupError: If there is none.
    """
    try:
        # The resolver would lose this error, and nobody would ever hear of an answer.
        host.encode("idna")
    except UnicodeError as problem:
        raise DNSLookupError(f"{host!r} is no name that a host can have") from problem
    receiver = _Addresses()
    types = list(FAMILIES.values()) if family is None else [FAMILIES[family]]
    reactor.nameResolver.resolveHostName(receiver, host, port, types)
    found = await receiver.done
    if not found:
        kind = "" if family is None else f"IPv{family} "
        raise DNSLookupError(f"no {kind}address was found for {host!r}")
    return found


@implementer(IStreamClientEndpoint)
class FamilyEndpoint:
    """
    A host by name, of which only the addresses of one family are tried, one after the other.

    @param reactor: Connects.
    @param host: A name or an address.
    @param family: 4 or 6.
    """

    def __init__(self, reactor: Any, host: str, port: int, family: int) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._family = family

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the first address that answers.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        kind: Any = {4: TCP4ClientEndpoint, 6: TCP6ClientEndpoint}[self._family]
        problem: ConnectError | None = None
        for address in await resolve(self._reactor, self._host, self._port, self._family):
            try:
                return cast(
                    IProtocol,
                    await kind(self._reactor, address.host, self._port).connect(factory),
                )
            except ConnectError as error:
                problem = error
        assert problem is not None, "a name without addresses is an error of its own"
        raise problem


def endpoint_to(
    reactor: Any, host: str, port: int, family: int | None = None
) -> IStreamClientEndpoint:
    """
    Make the endpoint of a host.

    @param family: 4 or 6; whichever answers first if L{None}.
    """
    if family is None:
        return HostnameEndpoint(reactor, host, port)
    return FamilyEndpoint(reactor, host, port, family)
