"""
The shortest host that does its work.

Run it with "python five_line_host.py"; it listens on port 1688 of this machine's loopback address until it is stopped.
Its identity is another one at each start; see embedded_host.py for one that stays.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString

from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import Host, HostIdentity
from kmsproto.kms.policy import charged
from kmsproto.net.server import HostFactory


def listen(reactor: Any, where: str) -> Deferred[Any]:
    """
    Listen where an endpoint description says.

    @return: The port, once it is open.
    """
    catalog = load_catalog()
    identity = HostIdentity(catalog, Installation(os.urandom(16), datetime.now(UTC).date()))
    host = Host(catalog, identity, charged(catalog), os.urandom)
    factory = HostFactory(host, reactor)
    listening: Deferred[Any] = serverFromString(reactor, where).listen(factory)
    return listening


if __name__ == "__main__":
    listen(installed_reactor, "tcp:1688:interface=127.0.0.1")
    installed_reactor.run()
