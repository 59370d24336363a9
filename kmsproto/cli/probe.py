"""
C{kmsproto probe}: ask a host for activations, and show what comes back.

It does what vlmcs does, with its letters, and tells more: each check that the answers passed or failed, and each rule
that the host broke although its clients would not mind.  What is asked for stands in L{kmsproto.cli.requests}, where
in L{kmsproto.cli.destinations}, how the answers are shown in L{kmsproto.cli.probe_report}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
from twisted.internet.defer import CancelledError

from kmsproto import __version__
from kmsproto.cli.asking import check_room
from kmsproto.cli.destinations import (
    Destination,
    Whereabouts,
    WhereaboutsType,
    destinations,
    family_option,
    ignore_order_option,
    nameserver_option,
)
from kmsproto.cli.epid_file import Presented, askable, render
from kmsproto.cli.output import (
    ExitStatus,
    catalog_option,
    fail,
    json_option,
    run,
    status_of,
    timeout_option,
    write_file,
)
from kmsproto.cli.probe_report import JsonReport, Report, TextReport
from kmsproto.cli.requests import RequestMaker, Wishes, request_options
from kmsproto.cli.targets import Target, agree
from kmsproto.cli.vlmcs import render_table
from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    RemoteProtocolError,
)
from kmsproto.kms.catalog import Catalog
from kmsproto.net.activation import Outcome
from kmsproto.net.client import ClientOptions
from kmsproto.net.probing import Plan, Probing

#: The host that is asked when none is named, by IP version.
DEFAULT_TARGETS = {None: "127.0.0.1", 4: "127.0.0.1", 6: "::1"}
#: Requests, and requests at a time, at most.
MAX_REQUESTS, MAX_AT_ONCE = 100_000, 256
#: What would be overruled by asking for one product of each key group.
_NOT_WITH_EPIDS = (
    *("product", "protocol", "application_id", "sku_id", "kms_id", "required_clients"),
    *("requests", "charge"),
)

_EXAMPLES = """\
kmsproto probe                                    this machine, port 1688
kmsproto probe kms.example.com:1689               another host and port
kmsproto probe '[2001:db8::1]:1688'               an IPv6 address and a port
kmsproto probe .example.com                       the hosts that DNS names for a domain
kmsproto probe -                                  the hosts of this machine's own domain
kmsproto probe -l "office 2019" -v                another product, and everything that was said
kmsproto probe -l 17 -n 30 -T                     thirty requests on connections of their own
kmsproto probe -K 7.0                             a protocol version that does not exist
kmsproto probe -G epids.toml                      the host's ePIDs as settings for kmsproto
"""


def _show_examples(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(_EXAMPLES, nl=False)
        context.exit()


def _show_table(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(render_table(), nl=False)
        context.exit()


@dataclass(frozen=True, slots=True)
class _Job:
    """
    Where to ask, what, and how the answers are shown.
    """

    whereabouts: Whereabouts
    family: int | None
    ignore_order: bool
    nameservers: Sequence[tuple[str, int]]
    plan: Plan
    options: ClientOptions
    report: Report


@click.command(context_settings={"help_option_names": ["-h", "-?", "--help"]})
@click.argument("target", type=WhereaboutsType(), required=False)
@request_options
@click.option(
    "-n",
    "--requests",
    type=click.IntRange(1, MAX_REQUESTS),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of requests; each comes from a client of its own.",
)
@click.option(
    "--charge",
    is_flag=True,
    help="Ask until the host has counted as many clients as the product needs.",
)
@click.option(
    "-T", "--fresh-connections", "fresh", is_flag=True, help="Make a connection for each request."
)
@click.option(
    "--at-once",
    type=click.IntRange(1, MAX_AT_ONCE),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of requests that wait for an answer at the same time.",
)
@family_option
@ignore_order_option
@nameserver_option
@click.option(
    "-N",
    "--ndr64",
    type=click.Choice(["0", "1"]),
    default="1",
    show_default=True,
    help="Whether to offer the transfer syntax NDR64 beside NDR.",
)
@click.option(
    "-B",
    "--bind-time-features",
    type=click.Choice(["0", "1"]),
    default="1",
    show_default=True,
    help="Whether to negotiate bind-time features.",
)
@click.option(
    "-p", "--no-multiplexing", is_flag=True, help="Do not ask for concurrent multiplexing."
)
@catalog_option
@timeout_option
@click.option(
    "-G",
    "--write-epids",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Ask for a product of each key group, and write the ePIDs and hardware ids as settings:"
    " for vlmcsd if FILE ends in .ini.",
)
@click.option("--force", is_flag=True, help="Overwrite that file.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Explain every field that was sent and received."
)
@json_option
@click.option(
    "-x",
    "--list-products",
    is_flag=True,
    help="List the products, and exit.",
)
@click.option(
    "-e",
    "--examples",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_examples,
    help="Show examples, and exit.",
)
@click.option(
    "--vlmcs-table",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_table,
    hidden=True,
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s, version %(version)s")
def probe(
    target: Whereabouts | None,
    requests: int,
    charge: bool,
    fresh: bool,
    at_once: int,
    family: int | None,
    ignore_order: bool,
    nameservers: Sequence[tuple[str, int]],
    ndr64: str,
    bind_time_features: str,
    no_multiplexing: bool,
    catalog: Catalog,
    timeout: float,
    write_epids: Path | None,
    force: bool,
    verbose: bool,
    as_json: bool,
    list_products: bool,
    **wishes: Any,
) -> None:
    """
    Ask a KMS host for activations and show its answers.

    TARGET is a host with or without a port, ".DOMAIN" for the hosts that DNS names for a domain, or "-" for those of
    this machine's own domain; this machine if it is left out.

    Exits with status 0 when the host granted everything and all answers are as they must be, with 1 when not, and with
    3 when no host was reached, or it went away or fell silent before it had answered everything.
    """
    if list_products:
        from kmsproto.cli.products import products

        click.get_current_context().invoke(products, catalog=catalog, as_json=as_json)
        return
    if no_multiplexing and at_once > 1 and not fresh:
        raise click.UsageError("--at-once without multiplexing needs --fresh-connections")
    if as_json and str(write_epids) == "-":
        raise click.UsageError("--json and --write-epids - would both go to the standard output")
    if target is not None and target.target is not None:
        agree(target.target, family)
    maker = RequestMaker(catalog, Wishes(**wishes))
    options = ClientOptions(
        ndr64=ndr64 == "1",
        bind_time_features=bind_time_features == "1",
        multiplexed=not no_multiplexing,
        timeout=timeout,
        scrutinize=True,
    )
    needed = 0
    if write_epids is not None:
        plan = _plan_for_epids(maker, catalog, write_epids, force)
    elif charge:
        if wishes["client_machine_id"] is not None:
            raise click.UsageError(
                "--charge asks as several clients; leave --client-machine-id away"
            )
        needed = maker.make(0).n_policy
        most = min(max(requests, needed, 1), MAX_REQUESTS)
        plan = Plan(most, maker.make, fresh, at_once, _counting(needed))
    else:
        plan = Plan(requests, maker.make, fresh, at_once)
    if plan.fresh and plan.at_once > 1:
        check_room(min(plan.at_once, plan.requests), "--at-once")
    kind = JsonReport if as_json else TextReport
    report = kind(
        catalog,
        maker.name,
        planned=plan.requests,
        needed=needed,
        verbose=verbose,
        aside=str(write_epids) == "-",
    )
    if target is None:
        target = Whereabouts("", Target(DEFAULT_TARGETS[family]))
    run(
        _probe,
        _Job(target, family, ignore_order, nameservers, plan, options, report),
        None if write_epids is None else Presented(catalog, write_epids),
        force,
    )


def _counting(needed: int) -> Any:
    def enough(outcome: Outcome) -> bool:
        return outcome.error is not None or outcome.response.body.client_count >= needed

    return enough


def _plan_for_epids(maker: RequestMaker, catalog: Catalog, path: Path, force: bool) -> Plan:
    """
    Plan to ask for one product of each key group.
    """
    context = click.get_current_context()
    for name in _NOT_WITH_EPIDS:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"--write-epids asks for its own products; leave {option} away")
    if str(path) != "-":
        try:
            if path.is_dir() or not path.parent.is_dir():
                raise click.UsageError(f"{path}: is no place for a file; name another")
            if path.exists() and not force:
                raise click.UsageError(f"{path}: is there already; name another, or add --force")
        except OSError as error:
            # A directory that this user may not look into, or a name that is too long.
            raise click.UsageError(f"{path}: {error.strerror}; name another file") from error
    first = maker.make(0)
    bodies = [
        first._replace(
            major_version=kms_id.protocol,
            application_id=kms_id.application,
            sku_id=sku.guid,
            kms_id=kms_id.guid,
            n_policy=kms_id.n_policy,
        )
        for kms_id, sku in askable(catalog)
    ]
    return Plan(len(bodies), lambda number: bodies[number])


async def _probe(reactor: Any, job: _Job, presented: Presented | None, force: bool) -> None:
    """
    Ask the first host that can be reached, show what came of it, and end with a status.
    """
    report = job.report
    try:
        places = await destinations(
            reactor,
            job.whereabouts,
            family=job.family,
            ignore_order=job.ignore_order,
            nameservers=job.nameservers,
            timeout=job.options.timeout,
        )
    except KMSProtoError as error:
        report.break_off(str(error))
        raise
    for left, place in enumerate(places, 1 - len(places)):
        report.begin(place.name)
        if await _asked(reactor, place, job, presented, last=left == 0):
            break
    if presented is not None:
        _write(presented, report.host, force)
    status = report.finish()
    if status:
        raise SystemExit(status)


def _write(presented: Presented, host: str, force: bool) -> None:
    """
    Write what a host presents, if it presented anything.
    """
    for problem in presented.problems:
        click.echo(problem, err=True)
    if presented.lines:
        write_file(presented.path, render(presented, host).encode(), force)
        if str(presented.path) != "-":
            click.echo(f"{presented.path}: {len(presented.lines)} ePIDs", err=True)


async def _asked(
    reactor: Any, place: Destination, job: _Job, presented: Presented | None, *, last: bool
) -> bool:
    """
    Carry the plan out on one host.

    @param last: Whether there is no other to fall back on.
    @return: Whether this was the host; else the next one is to be tried.
    """
    report = job.report

    def heard(number: int, outcome: Outcome) -> None:
        report.add(number, outcome)
        if presented is not None and outcome.error is None:
            presented.add(outcome)

    probing = Probing(reactor, place.endpoint, job.plan, job.options, heard)
    try:
        await probing.run()
    except CancelledError:
        report.note(probing.findings)
        report.break_off("interrupted")
        raise
    except KMSProtoError as error:
        problem = f"{error}{hint(error)}"
        if report.asked or status_of(error) is not ExitStatus.NO_HOST or last:
            report.note(probing.findings)
            _give_up(report, place, problem, status_of(error))
        report.passed_over(place.name, problem)
        return False
    report.note(probing.findings)
    return True


def _give_up(report: Report, place: Destination, problem: str, status: ExitStatus) -> NoReturn:
    """
    End with what there is and one line that says why there is no more.
    """
    report.break_off(problem)
    fail(f"{place.name}: {problem}", status)


#: What a user can do about an error, by its type; the first that fits counts.
_HINTS: tuple[tuple[type[KMSProtoError] | tuple[type[KMSProtoError], ...], str], ...] = (
    (HostUnreachableError, "check that a KMS host runs there, and the port"),
    (
        HostTimeoutError,
        "check that it is a KMS host, and for a firewall in between, or allow it more --timeout",
    ),
    (BindRefusedError, "see the log of the host, or ask again later"),
    ((RemoteProtocolError, ContextRefusedError), "check that it is a KMS host"),
)


def hint(error: KMSProtoError) -> str:
    """
    Say what can be done about an error, as the end of a line that tells it; nothing when it speaks for itself.
    """
    if "; " in str(error):
        return ""
    return next((f"; {advice}" for kind, advice in _HINTS if isinstance(error, kind)), "")
