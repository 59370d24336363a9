"""
A policy that asks an inventory about each machine, and counts those that it knows.

The inventory may take its time: the policy is a coroutine, and the host goes on serving others while it waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_network

from twisted.internet.interfaces import IReactorTime

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.counts import ClientCounts, counted
from kmsproto.kms.host import Host
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Decision, ImmediatePolicy, Peer, Policy
from kmsproto.kms.rules import white_listed
from kmsproto.net.access import AccessRules
from kmsproto.net.server import HostFactory, Limits


def known_only(look_up: Callable[[str], Awaitable[bool]], grant: ImmediatePolicy) -> Policy:
    """
    Wrap a policy so that it is only asked for machines that an inventory knows.

    @param look_up: Tells, sooner or later, whether it knows a machine.
    """

    async def decide(request: RequestBody, peer: Peer, now: float) -> Decision:
        if not await look_up(request.workstation.lower()):
            return HResult.ACCESS_DENIED
        return grant(request, peer, now)

    return decide


def make_policy(catalog: Catalog, look_up: Callable[[str], Awaitable[bool]]) -> Policy:
    """
    Grant what the catalogue knows to machines that the inventory knows, and report how many of these there are.
    """
    counts = ClientCounts(precharged=False)
    return known_only(look_up, white_listed(catalog, 3, counted(catalog, counts)))


def make_factory(host: Host, reactor: IReactorTime) -> HostFactory:
    """
    Serve one network only, and each address of it with a few connections at a time.
    """
    return HostFactory(
        host,
        reactor,
        access=AccessRules(allow=(ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"))),
        limits=Limits(max_connections_per_address=20, idle_timeout=10),
    )
