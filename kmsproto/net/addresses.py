"""
Reaching a host by name or address, if wanted in one address family only.

Names are looked up by the system, as everywhere else, but in a thread that nobody waits for: those of Twisted's pool
are waited for when a program ends, so that one silent name server would keep a command alive long after it gave up.
The attempts are those of Twisted's C{HostnameEndpoint}, which tries the next address while one is silent.  How long
that may take is for whoever connects to say, so the endpoints here leave it the time.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer

#: Addresses of one name that are tried at most.
MAX_ADDRESSES = 16
#: Seconds that an attempt may take when nobody ends it before: more than anybody waits.
LONGEST = 86400.0
#: The kinds of addresses, by IP version and as sockets name their families.
_KINDS: dict[int, type[IPv4Address] | type[IPv6Address]] = {4: IPv4Address, 6: IPv6Address}
_FAMILIES = {socket.AF_INET: IPv4Address, socket.AF_INET6: IPv6Address}

_Address = IPv4Address | IPv6Address


def _look_up(host: str, port: int) -> list[_Address]:
    """
    Ask the system for the addresses of a name; none if there is none, or no host can have the name.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    addresses: list[_Address] = []
    for family, _, _, _, where in found:
        kind = _FAMILIES.get(family)
        if kind is not None:
            # What makes a link-local address usable stands in a field of its own.
            scope = f"%{where[3]}" if len(where) > 3 and where[3] else ""
            addresses.append(kind("TCP", f"{where[0]}{scope}", int(where[1])))
    return addresses


@implementer(IHostResolution)
class _Resolution:
    """
    A look-up in progress; it cannot be cut short, but nobody has to wait for it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """
        Nothing can be done.
        """


@implementer(IHostnameResolver)
class SystemResolver:
    """
    Looks names up in threads that nobody waits for.

    @param reactor: Takes the answers.
    @param family: The IP version of the addresses that are wanted, 4 or 6; L{None} for both.
    @param name: What is looked up, whichever name is asked for; L{None} for that.
    """

    def __init__(self, reactor: Any, family: int | None = None, name: str | None = None) -> None:
        self._reactor = reactor
        self._name = name
        self._kinds = tuple(_KINDS.values()) if family is None else (_KINDS[family],)

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """
        Look a name up.
        """
        name = self._name or hostName
        resolution = _Resolution(name)
        resolutionReceiver.resolutionBegan(resolution)

        def deliver(found: Sequence[_Address]) -> None:
            for address in [each for each in found if isinstance(each, self._kinds)][
                :MAX_ADDRESSES
            ]:
                resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        def look_up() -> None:
            self._reactor.callFromThread(deliver, _look_up(name, portNumber))

        threading.Thread(target=look_up, name=f"look-up of {name}", daemon=True).start()
        return resolution


@implementer(IReactorPluggableNameResolver)
class _NamingReactor:
    """
    A reactor whose names are looked up by a resolver of ours.
    """

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:  # noqa: N802
        """
        Look names up by another resolver.
        """
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IResolutionReceiver)
class _Addresses:
    """
    Gathers the addresses of a name.
    """

    def __init__(self) -> None:
        self.done: Deferred[list[_Address]] = Deferred()
        self._found: list[_Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803
        """
        The look-up has begun.
        """

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        """
        Take an address.
        """
        self._found.append(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        """
        Hand out what was gathered, unless nobody waits any more.
        """
        if not self.done.called:
            self.done.callback(self._found)


def _nothing_found(host: str, family: int | None) -> DNSLookupError:
    kind = "" if family is None else f"IPv{family} "
    return DNSLookupError(f"no {kind}address was found for {host!r}; check the name")


async def resolve(
    reactor: Any,
    host: str,
    port: int,
    family: int | None = None,
    resolver: IHostnameResolver | None = None,
) -> Sequence[_Address]:
    """
    Look the addresses of a name up, or take an address for what it is.

    @param reactor: Takes the answer.
    @param family: 4 or 6; both if L{None}.
    @param resolver: Looks it up; by default a L{SystemResolver}.
    @return: The addresses, at most L{MAX_ADDRESSES}, in the order of the system.
    @raise twisted.internet.error.DNSLookupError: If there is none.
    """
    receiver = _Addresses()
    looking = resolver or SystemResolver(reactor, family)
    looking.resolveHostName(receiver, host, port)
    found = await receiver.done
    if not found:
        raise _nothing_found(host, family)
    return found


@implementer(IStreamClientEndpoint)
class _NamedEndpoint:
    """
    A host by name: Twisted's endpoint, with errors that say what was looked for.
    """

    def __init__(self, reactor: Any, host: str, port: int, family: int | None) -> None:
        self._host = host
        self._family = family
        # The endpoint refuses names that are none of the Internet's, as Windows machines have with an underscore.  What
        # such a name means is for the system to say, so the endpoint is given another one, and never looks it up.
        named = host if host.isascii() else None
        naming = _NamingReactor(reactor, SystemResolver(reactor, family, named))
        self._endpoint = HostnameEndpoint(naming, "host" if named else host, port, timeout=LONGEST)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the first address that answers.
        """
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._explain)

    def _explain(self, failure: Any) -> Any:
        if failure.check(DNSLookupError):
            raise _nothing_found(self._host, self._family) from failure.value
        return failure


def endpoint_to(
    reactor: Any, host: str, port: int, family: int | None = None
) -> IStreamClientEndpoint:
    """
    Make the endpoint of a host, which tries to connect until it is cancelled.

    @param host: A name, or an address; one of IPv6 may have a scope, as in C{fe80::1%eth0}.
    @param family: The IP version, 4 or 6; whichever answers first if L{None}.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return _NamedEndpoint(reactor, host, port, family)
    if family not in (None, version):
        return _NamedEndpoint(reactor, host, port, family)
    kind: Any = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=LONGEST)
    return endpoint
