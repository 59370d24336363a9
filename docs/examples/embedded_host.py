"""
A Twisted application that runs a KMS host of its own, beside whatever else it does.

Run it with "python embedded_host.py"; it listens on port 1688 of this machine's loopback address.  Its policy grants
what the host would grant anyway, but only to machines whose name begins with "lab-".
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogBeginner, textFileLogObserver

from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.host import Host, HostIdentity
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Decision, ImmediatePolicy, Peer, charged
from kmsproto.net.server import HostFactory
from kmsproto.service.installation import load_installation


def lab_only(grant: ImmediatePolicy) -> ImmediatePolicy:
    """
    Wrap a policy so that it is only asked for machines of the lab.

    A policy may also return a Deferred or a coroutine of the decision.
    """

    def decide(request: RequestBody, peer: Peer, now: float) -> Decision:
        if not request.workstation.lower().startswith("lab-"):
            return HResult.PRODUCT_REFUSED
        return grant(request, peer, now)

    return decide


def make_factory(reactor: IReactorTime, state_directory: Path) -> HostFactory:
    """
    Make a factory that any server endpoint can listen with.
    """
    catalog = load_catalog()
    installation = load_installation(state_directory, time.time(), os.urandom)
    host = Host(
        catalog, HostIdentity(catalog, installation), lab_only(charged(catalog)), os.urandom
    )
    return HostFactory(host, reactor)


def main() -> None:
    """
    Listen until stopped.
    """
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    factory = make_factory(installed_reactor, Path("state"))
    endpoint = serverFromString(installed_reactor, "tcp:1688:interface=127.0.0.1")
    endpoint.listen(factory)
    installed_reactor.run()


if __name__ == "__main__":
    main()
