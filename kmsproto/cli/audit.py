"""
C{kmsproto audit}: hold a KMS host against the standards, case by case, and report what it does and what it should do.

The cases and their judgement are those of L{kmsproto.audit}; here they are chosen, carried out one after the other,
each on connections of its own, and written down: as text, as JSON, or as a page that stands for itself.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kmsproto.audit.battery import CASES, acknowledged, choose, greet, meet
from kmsproto.audit.model import Area, Case, Result
from kmsproto.audit.reference import reference
from kmsproto.audit.report import Report, explained
from kmsproto.audit.subject import QUIET, Subject
from kmsproto.cli.asking import make_body
from kmsproto.cli.audit_page import render
from kmsproto.cli.audit_trial import Trial
from kmsproto.cli.destinations import family_option
from kmsproto.cli.output import (
    ExitStatus,
    catalog_option,
    console,
    emit_json,
    json_option,
    read_seconds,
    run,
    timeout_option,
    write_file,
)
from kmsproto.cli.requests import product_option
from kmsproto.cli.targets import Target, agree, parse_target
from kmsproto.errors import HostTimeoutError, HostUnreachableError, KMSProtoError
from kmsproto.kms.catalog import Catalog
from kmsproto.net.addresses import resolve
from kmsproto.net.dialogue import Bounds, carry_out
from kmsproto.net.quoting import printable

#: Seconds after which no further case is begun.
DEFAULT_LIMIT = 600.0
#: How often the time that a host has for an answer fits into the time that a case has.
CASE_SHARE = 6
#: Seconds of silence that mean something on whatever way.
LONGEST_QUIET = 2.0
#: Columns of a report that is not written to a terminal.
WIDTH = 100

_STYLES = {
    "fails": "bold red",
    "warning": "yellow",
    "note": "cyan",
    "undecided": "magenta",
    "not tried": "magenta",
    "noted": "cyan",
    "not applicable": "dim",
    "passed": "green",
}


def _read_target(context: click.Context, parameter: click.Parameter, value: str) -> Target | None:
    if not value:
        return None
    try:
        return parse_target(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("target", callback=_read_target, metavar="HOST[:PORT]", default="")
@json_option
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report as a page too; - writes it in place of the text.",
)
@click.option(
    "--area",
    "areas",
    multiple=True,
    type=click.Choice([area.value for area in Area]),
    metavar="NAME",
    help="Try the cases of this area only; may be given more than once.",
)
@click.option(
    "--case",
    "names",
    multiple=True,
    metavar="NAME",
    help="Try this case only, by its name or the number of its rule; may be given more than once.",
)
@click.option(
    "--spare",
    is_flag=True,
    help="Leave out the cases that hosts with weaknesses are known not to survive.",
)
@click.option("--list", "listed", is_flag=True, help="List the cases, and try none.")
@product_option
@family_option
@timeout_option
@click.option(
    "--limit",
    type=click.FloatRange(0, 86400, min_open=True),
    callback=read_seconds,
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="SECONDS",
    help="Begin no further case after so long.",
)
@catalog_option
@click.option("--reference", "rst", is_flag=True, hidden=True)
def audit(
    target: Target | None,
    as_json: bool,
    page: Path | None,
    areas: tuple[str, ...],
    names: tuple[str, ...],
    spare: bool,
    listed: bool,
    product: str | None,
    family: int | None,
    timeout: float,
    limit: float,
    catalog: Catalog,
    rst: bool,
) -> None:
    """
    Hold a KMS host against the standards, and report where it departs from them.

    Run it against your own hosts only: it sends much that is wrong on purpose, and a host with weaknesses may crash;
    --spare leaves out what is known to do that.
    One connection after the other is made, and all requests come from one client.

    Exits with status 0 when every rule is kept that a host must keep, with 1 when not, and with 3 when there is no
    host, or not any more.
    """
    if rst:
        click.echo(reference(CASES), nl=False)
        return
    try:
        cases = choose([Area(name) for name in areas], names, spare=spare)
    except ValueError as error:
        hint = ["--case", "--spare"] if spare else "--case"
        raise click.BadParameter(str(error), param_hint=hint) from error
    if listed:
        _list(cases, as_json)
        return
    if target is None:
        raise click.UsageError("Missing argument 'HOST[:PORT]'.")
    agree(target, family)
    if page is not None:
        if str(page) != "-" and not page.parent.is_dir():
            raise click.UsageError(
                f"{page}: there is no such folder; name a file in one that is there"
            )
        if str(page) == "-" and as_json:
            raise click.UsageError("--json and --html - would both go to the standard output")
    _, request = make_body(catalog, product, None)
    subject = Subject(request, catalog, os.urandom, target.port, timeout)
    run(_audit, target, family, subject, cases, limit, as_json, page)


def _list(cases: Sequence[Case], as_json: bool) -> None:
    if as_json:
        emit_json([case.to_json() for case in cases])
        return
    width = max(len(case.name) for case in cases)
    for case in cases:
        click.echo(f"{case.name:{width}}  {case.level.value:<7}  {case.title}")


async def _audit(
    reactor: Any,
    target: Target,
    family: int | None,
    subject: Subject,
    cases: Sequence[Case],
    limit: float,
    as_json: bool,
    page: Path | None,
) -> None:
    """
    Find the host, try the cases, and report.
    """
    started = time.time()
    bounds = Bounds(connecting=subject.patience, seconds=max(30.0, CASE_SHARE * subject.patience))
    address, endpoint, subject = await _meet(reactor, target, family, subject, bounds)
    screen = console(stderr=True)
    progress = Progress(console=screen, transient=True)
    # One that is only disabled ends with an empty line all the same, in some releases of rich.
    with progress if screen.is_terminal else nullcontext():
        task = progress.add_task("Auditing", total=len(cases))

        def tell(case: Case) -> None:
            progress.update(task, advance=1, description=case.name)

        trial = Trial(reactor, endpoint, subject, bounds, limit, tell)
        results = tuple(await trial.run(cases))
    report = Report(
        str(target),
        address,
        started,
        time.time() - started,
        results,
        trial.lost,
        trial.lost_after,
    )
    if as_json:
        emit_json(report.to_json())
    elif str(page) != "-":
        print_report(console(width=WIDTH), report)
    if page is not None:
        write_file(page, await render(report), True)
    if report.conforms is False:
        raise SystemExit(ExitStatus.FAILED)
    if report.lost:
        raise SystemExit(ExitStatus.NO_HOST)
    if report.conforms is None:
        raise SystemExit(ExitStatus.FAILED)


async def _meet(
    reactor: Any, target: Target, family: int | None, subject: Subject, bounds: Bounds
) -> tuple[str, IStreamClientEndpoint, Subject]:
    """
    Take the first address at which somebody answers; all connections go there.

    @raise KMSProtoError: If nobody answers, or not as a host.
    """
    try:
        addresses = await resolve(reactor, target.host, target.port, family)
    except DNSLookupError as error:
        reason = str(error).rstrip(".")
        if ";" not in reason:
            reason += "; check the name"
        raise HostUnreachableError(f"{target}: {reason}") from error
    problem: KMSProtoError | None = None
    for address in addresses:
        endpoint = _endpoint(reactor, address, bounds)
        place = str(Target(address.host, address.port))
        try:
            quiet = await _measure(reactor, endpoint, subject, bounds)
            met = await carry_out(reactor, endpoint, meet(replace(subject, quiet=quiet)), bounds)
        except (HostUnreachableError, HostTimeoutError) as error:
            hint = "" if ";" in str(error) else "; check that a KMS host runs there, and the port"
            problem = type(error)(f"{place}: {error}{hint}")
        except KMSProtoError as error:
            raise KMSProtoError(f"{place}: {error}") from error
        else:
            return place, endpoint, met
    assert problem is not None, "a name without addresses is an error of its own"
    raise problem


async def _measure(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, subject: Subject, bounds: Bounds
) -> float:
    """
    Find out how long silence has to be to mean something, on the way to this host.

    @return: Seconds.
    @raise KMSProtoError: If it does not acknowledge an ordinary bind.
    """
    begun = clock.seconds()
    acknowledged(await carry_out(clock, endpoint, greet(subject), bounds), 1)
    # A connection and an answer took so long, which is two ways to the host and back.
    taken = clock.seconds() - begun
    return min(max(QUIET, 2 * taken), LONGEST_QUIET, subject.patience)


def _endpoint(
    reactor: Any, address: IPv4Address | IPv6Address, bounds: Bounds
) -> IStreamClientEndpoint:
    """
    Make the endpoint of an address.
    """
    kind: Any = TCP4ClientEndpoint if isinstance(address, IPv4Address) else TCP6ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(
        reactor, address.host, address.port, timeout=bounds.connecting
    )
    return endpoint


def print_report(printer: Console, report: Report) -> None:
    """
    Print a report for people.
    """
    where = (
        report.target if report.address == report.target else f"{report.target} ({report.address})"
    )
    printer.print(Text(f"Audit of {where}", "bold"))
    width = max(len(result.case.name) for result in report.results)
    for area, results in report.areas():
        printer.print()
        printer.print(Text(area.title, "bold"))
        for result in results:
            line = Text(f"  {result.word:<15}", _STYLES[result.word])
            line.append(f"{result.case.name:<{width}}  {result.case.title}", "default")
            printer.print(line, soft_wrap=True)
            if explained(result):
                for text in _explanation(result, printer.width):
                    printer.print(Text(text), soft_wrap=True)
    printer.print()
    printer.print(Text(report.summary()), soft_wrap=True)


def _explanation(result: Result, width: int) -> Iterator[str]:
    """
    Say what the host did and, unless it kept the rule, what the rule says.
    """
    paragraphs = [f"It {printable(result.verdict.did)}."]
    case = result.case
    if result.severity is not None:
        paragraphs.append(f"{case.rule} ({case.source}; rule {case.row}.)")
    for paragraph in paragraphs:
        yield from textwrap.wrap(
            paragraph, max(40, width - 1), initial_indent=" " * 8, subsequent_indent=" " * 8
        )
