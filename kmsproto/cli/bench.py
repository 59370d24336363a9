"""
C{kmsproto bench}: put a load on a host of one's own, and tell what it can do.

It is for planning: how many requests a second a host answers, how long it takes, and what happens when more come than
it can serve.  Since the same thing pointed at a stranger would be an attack, it refuses every target that has an
address which is not private; the name is looked up once, and what was looked at is what is connected to.

The clients that it plays are made of the name of this machine, and are the same ones in every run, so that a host does
not count more of them than C{--clients} says.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import click
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from kmsproto.cli.asking import check_room
from kmsproto.cli.destinations import family_option
from kmsproto.cli.output import (
    INTERRUPTED,
    ExitStatus,
    catalog_option,
    console,
    emit_json,
    fail,
    json_option,
    read_seconds,
    run,
    status_of,
    timeout_option,
)
from kmsproto.cli.requests import RequestMaker, Wishes, product_option
from kmsproto.cli.targets import Target, agree, parse_target
from kmsproto.cli.usage import complain
from kmsproto.errors import HostTimeoutError, HostUnreachableError, KMSProtoError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import PROTOCOL_VERSIONS, RequestBody, filetime
from kmsproto.net.access import is_private
from kmsproto.net.addresses import endpoint_to, resolve
from kmsproto.net.client import ClientOptions
from kmsproto.net.load import SPENT, Load, LoadPlan, Tally, first_reached

#: Requests when nobody says how many or how long.
DEFAULT_REQUESTS = 1000
MAX_REQUESTS = 1_000_000
MAX_SECONDS = 300
MAX_CONNECTIONS = 256
MAX_PIPELINE = 64
MAX_CLIENTS = 10_000
MAX_RATE = 100_000
#: The percentiles that are told.
PERCENTILES = (50, 90, 95, 99)
#: The part of a processor above which the client itself is the limit: Python uses one at most.
BUSY = 0.85
#: Seconds of a load that is too short to tell.
LONG_ENOUGH = 0.1
#: The signals that end a load early.
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
#: Seconds between two looks at a load that runs.
REFRESH = 0.25


def _read_target(context: click.Context, parameter: click.Parameter, value: str) -> Target:
    try:
        return parse_target(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _read_rate(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("'nan' is not a number of requests")
    return value


@dataclass(frozen=True)
class Report:
    """
    A load, and what came of it.

    @ivar target: The host as the user named it.
    @ivar address: The address that was connected to.
    @ivar product: The name of the product that was asked for.
    @ivar clients: How many clients were played.
    @ivar plan: What was asked.
    @ivar tally: What came of it.
    """

    target: Target
    address: str
    product: str
    clients: int
    plan: LoadPlan
    tally: Tally

    @property
    def client_limited(self) -> bool:
        """
        Whether this client had no time left, so that the host may be able to do more.
        """
        return self.tally.seconds >= LONG_ENOUGH and self.tally.cpu_share >= BUSY

    @property
    def status(self) -> int:
        """
        How the command ends: an L{ExitStatus}, or L{INTERRUPTED}, for then it is not known what would have come.
        """
        if self.tally.interrupted:
            return INTERRUPTED
        granted = self.tally.granted
        all_granted = granted and granted == self.tally.done
        return ExitStatus.OK if all_granted else ExitStatus.FAILED

    def as_json(self) -> dict[str, Any]:
        """
        Tell everything, for programs.
        """
        tally, plan = self.tally, self.plan
        return {
            "target": str(self.target),
            "address": self.address,
            "product": self.product,
            "plan": {
                "requests": plan.requests,
                "duration": plan.duration,
                "connections": plan.connections,
                "fresh": plan.fresh,
                "pipeline": plan.pipeline,
                "rate": plan.rate,
                "clients": self.clients,
                "timeout": plan.options.timeout,
            },
            "requests": tally.done,
            "granted": tally.granted,
            "refused": {_code(code): number for code, number in tally.refused.items()},
            "failed": dict(tally.failed),
            "seconds": round(tally.seconds, 6),
            "rate": round(tally.rate, 3),
            "latency_ms": {name: round(value * 1000, 3) for name, value in _latencies(tally)},
            "connections": tally.connections,
            "cpu_share": round(tally.cpu_share, 3),
            "client_limited": self.client_limited,
            "interrupted": tally.interrupted,
            "gave_up": tally.gave_up,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """
        Tell everything, for people.

        @return: What it is about, and what is to be said.
        """
        tally, plan = self.tally, self.plan
        yield "granted", str(tally.granted)
        for code, number in tally.refused.items():
            yield "refused", f"{number} with {_code(code)}{_meaning(code)}"
        for kind, number in tally.failed.items():
            yield "failed", f"{number} with {kind}"
        if tally.latency.count:
            times = [f"{name} {_milliseconds(value)}" for name, value in _latencies(tally)]
            yield "latency", ", ".join(times) + " ms"
        used = "a fresh one for each request" if plan.fresh else f"{plan.connections} at a time"
        if plan.pipeline > 1:
            used += f", {plan.pipeline} requests at a time on each"
        yield "connections", f"{tally.connections} made; {used}"
        if SPENT in tally.failed and not tally.gave_up:
            yield "hint", "measure a host that ends each connection behind an answer with --fresh"
        limit = "; it was the limit itself: the host can do more" if self.client_limited else ""
        yield "this client", f"{tally.cpu_share:.0%} of a processor{limit}"
        if tally.gave_up:
            yield "gave up", tally.gave_up
        if tally.interrupted:
            yield "interrupted", "the figures are those up to then"

    def text(self) -> str:
        """
        Tell everything, as lines of text.
        """
        tally = self.tally
        name = str(self.target)
        if self.address != self.target.host:
            name += f" ({self.address})"
        head = (
            f"{name} answered {tally.answered} of {tally.done} requests for {self.product}"
            f" in {tally.seconds:.2f} seconds: {tally.rate:.0f} per second"
        )
        return "\n".join([head, *(f"  {about + ':':<13}{what}" for about, what in self.rows())])


def _code(code: int | str) -> str:
    return code if isinstance(code, str) else f"0x{code:08X}"


def _meaning(code: int | str) -> str:
    return "" if isinstance(code, str) else f": {HResult(code).meaning}"


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _latencies(tally: Tally) -> list[tuple[str, float]]:
    latency = tally.latency
    return [
        ("min", latency.minimum),
        ("mean", latency.mean),
        *((f"p{each}", latency.percentile(each)) for each in PERCENTILES),
        ("max", latency.maximum),
    ]


class RequestCycle:
    """
    Makes the requests of a few clients in turn, for a load that asks fast: what does not change is made once.

    @param maker: Makes the first request of each client.
    @param clients: How many clients there are.
    """

    def __init__(self, maker: RequestMaker, clients: int) -> None:
        self._bodies = tuple(maker.make(number) for number in range(clients))

    def __call__(self, number: int) -> RequestBody:
        """
        Make the request of a number, counted from 0.
        """
        body = self._bodies[number % len(self._bodies)]
        return body._replace(client_time=filetime(time.time()))


@click.command()
@click.argument("target", callback=_read_target, metavar="HOST[:PORT]")
@click.option(
    "-n",
    "--requests",
    type=click.IntRange(1, MAX_REQUESTS),
    metavar="N",
    help=f"Requests to make.  [default: {DEFAULT_REQUESTS}; with --duration as many as go]",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, MAX_SECONDS, min_open=True),
    callback=read_seconds,
    metavar="SECONDS",
    help="Make no more requests after this time.",
)
@click.option(
    "-c",
    "--connections",
    type=click.IntRange(1, MAX_CONNECTIONS),
    default=8,
    show_default=True,
    metavar="N",
    help="Connections at a time.",
)
@click.option(
    "--fresh/--kept",
    default=False,
    help="Make a new connection for each request, as most clients do, or keep connections.  [default: --kept]",
)
@click.option(
    "--pipeline",
    type=click.IntRange(1, MAX_PIPELINE),
    default=1,
    show_default=True,
    metavar="N",
    help="Requests at a time on each connection that is kept.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, MAX_RATE, min_open=True),
    callback=_read_rate,
    metavar="N",
    help="Requests per second at most.  [default: as many as go]",
)
@product_option
@click.option(
    "--protocol",
    type=click.Choice([str(version) for version in PROTOCOL_VERSIONS]),
    help="Protocol version to ask in.  [default: the product's own]",
)
@click.option(
    "--clients",
    type=click.IntRange(1, MAX_CLIENTS),
    default=1,
    show_default=True,
    metavar="N",
    help="Clients to play, with a client machine id each, the same ones in every run."
    "  A host that keeps counts counts each of them as a client.",
)
@family_option
@timeout_option
@json_option
@catalog_option
def bench(
    target: Target,
    requests: int | None,
    duration: float | None,
    connections: int,
    fresh: bool,
    pipeline: int,
    rate: float | None,
    product: str,
    protocol: str | None,
    clients: int,
    family: int | None,
    timeout: float,
    as_json: bool,
    catalog: Catalog,
) -> None:
    """
    Put a load on a KMS host of your own, and measure it.

    Only hosts on this machine or in a private network are asked.  Ctrl-C, or SIGTERM, ends it early and shows what was
    measured.

    Exits with status 0 when every request was granted, with 1 when some were not, with 3 when the host was not
    reached, and with 130 when it was interrupted.
    """
    if fresh and pipeline > 1:
        raise click.BadParameter(
            "with --fresh each request has a connection of its own; leave one of them off",
            param_hint="--pipeline",
        )
    check_room(connections, "--connections")
    agree(target, family)
    version = None if protocol is None else (int(protocol), 0)
    maker = RequestMaker(catalog, Wishes(product=product, protocol=version))
    if requests is None:
        requests = DEFAULT_REQUESTS if duration is None else MAX_REQUESTS
    plan = LoadPlan(
        RequestCycle(maker, clients),
        requests,
        duration,
        connections,
        fresh,
        pipeline,
        rate,
        ClientOptions(timeout=timeout),
    )
    run(_bench, target, family, maker.name, clients, plan, as_json)


async def _bench(
    reactor: Any,
    target: Target,
    family: int | None,
    product: str,
    clients: int,
    plan: LoadPlan,
    as_json: bool,
) -> None:
    """
    Find the host, put the load on it, and report.
    """
    reaching = Deferred.fromCoroutine(_reach(reactor, target, family, plan.options))
    try:
        with interrupting(reactor, reaching.cancel):
            address, endpoint = await reaching
    except KMSProtoError as error:
        fail(f"{target}: {error}{_hint(error)}", status_of(error))
    except (CancelledError, ConnectingCancelledError):
        complain(
            "kmsproto bench",
            f"{target}: interrupted before the host was reached",
            INTERRUPTED,
            as_json=as_json,
        )
        raise SystemExit(INTERRUPTED) from None
    load = Load(reactor, endpoint, plan)
    with interrupting(reactor, load.stop), watched(reactor, load, plan, quiet=as_json):
        tally = await load.run()
    report = Report(target, address, product, clients, plan, tally)
    if as_json:
        emit_json(report.as_json())
    else:
        click.echo(report.text())
    raise SystemExit(report.status)


async def _reach(
    reactor: Any, target: Target, family: int | None, options: ClientOptions
) -> tuple[str, IStreamClientEndpoint]:
    """
    Find the address of a host at which it accepts a bind, and how to get there.
    """
    addresses = await find_addresses(reactor, target, family, options.timeout)
    endpoints = [endpoint_to(reactor, address, target.port) for address in addresses]
    endpoint = await first_reached(reactor, endpoints, options)
    return addresses[endpoints.index(endpoint)], endpoint


def _hint(error: KMSProtoError) -> str:
    """
    Say what can be done about a host that was not reached, unless the error does.
    """
    if isinstance(error, HostUnreachableError | HostTimeoutError) and "; " not in str(error):
        return "; check that a KMS host runs there, and the port"
    return ""


async def find_addresses(
    reactor: Any, target: Target, family: int | None, timeout: float
) -> Sequence[str]:
    """
    Look a host up, and see to it that it is one's own.

    @param family: 4 or 6; both if L{None}.
    @param timeout: Seconds that the look-up may take.
    @return: Its addresses, each once; at least one.
    @raise SystemExit: If any of them is not private.
    @raise KMSProtoError: If there is none.
    """

    def late(result: object, seconds: float) -> Any:
        raise HostTimeoutError(
            f"its address was not found within {seconds:g} seconds;"
            " check the name servers of this machine, or name an address"
        )

    try:
        # What no name can be has to be found here: not every release of Twisted tells it.
        target.host.encode("idna")
        looking = Deferred.fromCoroutine(resolve(reactor, target.host, target.port, family))
        found = await looking.addTimeout(timeout, reactor, late)
    except (DNSLookupError, UnicodeError) as error:
        raise HostUnreachableError(
            f"no address was found for {target.host!r}; check the name"
        ) from error
    addresses = list(dict.fromkeys(address.host for address in found))
    public = [address for address in addresses if not is_private(address)]
    if public:
        fail(
            f"{target}: {public[0]} is neither a loopback nor a private address;"
            " measure a host of your own from inside its network",
            ExitStatus.USAGE,
        )
    return addresses


@contextmanager
def interrupting(reactor: Any, act: Callable[[], object]) -> Iterator[None]:
    """
    Let Ctrl-C and SIGTERM do this, where they would otherwise end the command without a word.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(act)

    before = {number: signal.signal(number, stop) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def watched(reactor: Any, load: Load, plan: LoadPlan, *, quiet: bool) -> Iterator[None]:
    """
    Show how a load gets on, where somebody looks at a terminal.
    """
    terminal = console(stderr=True)
    if quiet or not terminal.is_terminal:
        yield
        return
    with Live(console=terminal, auto_refresh=False, transient=True) as live:

        def look() -> None:
            live.update(progress(load.update(), plan), refresh=True)

        looking = LoopingCall(look)
        looking.clock = reactor
        looking.start(REFRESH)
        try:
            yield
        finally:
            looking.stop()


def progress(tally: Tally, plan: LoadPlan) -> Table:
    """
    Draw how far a load is.
    """
    part = tally.done / plan.requests
    if plan.duration is not None:
        part = max(part, tally.seconds / plan.duration)
    failed = tally.done - tally.granted
    p99 = _milliseconds(tally.latency.percentile(99))
    table = Table.grid(padding=(0, 2))
    table.add_row(
        ProgressBar(total=1.0, completed=min(part, 1.0), width=30),
        f"{tally.granted} granted",
        f"{failed} not",
        f"{tally.rate:.0f} per second",
        f"p99 {p99} ms",
        "Ctrl-C to end",
    )
    return table
