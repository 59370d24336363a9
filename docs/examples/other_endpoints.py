"""
The same host and the same client over a UNIX socket, and over TLS.

Clients of Windows know neither; both are for programs on the two sides that are one's own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

from kmsproto.net.server import HostFactory


def listen_locally(reactor: Any, factory: HostFactory, path: str) -> Deferred[Any]:
    """
    Listen on a UNIX socket that the group of this process may use; peers without an address are always served.
    """
    listening: Deferred[Any] = UNIXServerEndpoint(reactor, path, mode=0o660).listen(factory)
    return listening


def listen_with_tls(
    reactor: Any, factory: HostFactory, certificate: PrivateCertificate, port: int
) -> Deferred[Any]:
    """
    Listen with TLS on the loopback address.
    """
    endpoint = SSL4ServerEndpoint(reactor, port, certificate.options(), interface="127.0.0.1")
    listening: Deferred[Any] = endpoint.listen(factory)
    return listening


def local_host(reactor: Any, path: str) -> IStreamClientEndpoint:
    """
    Tell a client how to reach the first.
    """
    return UNIXClientEndpoint(reactor, path)


def host_with_tls(
    reactor: Any, name: str, port: int, authority: Certificate
) -> IStreamClientEndpoint:
    """
    Tell a client how to reach the second.

    @param authority: Who vouches for the host.
    """
    options = optionsForClientTLS(name, trustRoot=authority)
    return wrapClientTLS(options, HostnameEndpoint(reactor, "127.0.0.1", port))
