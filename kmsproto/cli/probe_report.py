"""
Showing what a host answered: to people as text, to programs as JSON.

A report is told of the hosts that are tried, of each outcome as it comes, and at the end of the rules that the host
was seen to break; it keeps what it needs for its last words and no more, however many requests there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from kmsproto.cli.output import ExitStatus, console, emit_json
from kmsproto.errors import FaultError, HResultError, KMSProtoError, RemoteProtocolError
from kmsproto.findings import Finding, Severity
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.envelopes import OpenedResponse
from kmsproto.kms.fields import Field, request_fields, response_fields
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.plausibility import examine_answer
from kmsproto.net.activation import Outcome
from kmsproto.net.quoting import printable
from kmsproto.rpc.pdu import NDR64

#: Columns of a table that is not shown on a terminal.
_WIDTH = 160
#: Results that JSON tells at most, and those that it tells with every field.
MAX_RESULTS, MAX_FULL_RESULTS = 10_000, 500
_EPID_CHANGED = Finding(
    "ePID",
    Severity.NOTE,
    "the ePID for one product changed from answer to answer",
    'KMS messages: "The extended PID"',
)
_HARDWARE_ID_CHANGED = Finding(
    "hardware id",
    Severity.NOTE,
    "the hardware id changed from answer to answer",
    'KMS messages: "Versions 5 and 6"',
)


class Report(ABC):
    """
    What all reports have.

    @param catalog: Names what is asked for.
    @param product: What is asked for.
    @param planned: How many requests there are to be.
    @param needed: How many clients the host shall count in the end; 0 if that does not matter.
    @param verbose: Whether to tell every field.
    @param aside: Whether the standard output is for something else.
    @ivar host: The host that is asked.
    @ivar asked: How many outcomes there were.
    @ivar granted: How many of them were grants.
    """

    def __init__(
        self,
        catalog: Catalog,
        product: str,
        *,
        planned: int,
        needed: int = 0,
        verbose: bool,
        aside: bool = False,
    ) -> None:
        self._catalog = catalog
        self._product = product
        self._planned = planned
        self._needed = needed
        self._one = planned == 1
        self._verbose = verbose
        self._aside = aside
        self._found: dict[Finding, None] = {}
        self._epids: dict[str, str] = {}
        self._hardware_id = b""
        self._count = 0
        self.host = ""
        self.asked = 0
        self.granted = 0

    def begin(self, host: str) -> None:
        """
        Take note of who is asked now.
        """
        self.host = host

    def add(self, number: int, outcome: Outcome) -> None:
        """
        Take an outcome.

        @param number: The number of its request, counted from 0.
        """
        self.asked += 1
        if outcome.error is None:
            self.granted += 1
            self._look_at(outcome.request.body, outcome.response)
        self._show(number, outcome)

    def note(self, findings: Sequence[Finding]) -> None:
        """
        Take the rules that the host was seen to break.
        """
        self._found.update(dict.fromkeys(findings))

    def _look_at(self, request: RequestBody, response: OpenedResponse) -> None:
        body = response.body
        self.note(list(examine_answer(body, response.hardware_id, request, self._catalog)))
        key = str(request.kms_id)
        if self._epids.setdefault(key, body.epid) != body.epid:
            self.note([_EPID_CHANGED])
        self._hardware_id = self._hardware_id or response.hardware_id
        if response.hardware_id not in (b"", self._hardware_id):
            self.note([_HARDWARE_ID_CHANGED])
        self._count = body.client_count

    @property
    def status(self) -> ExitStatus:
        """
        How the command ends, as far as the answers tell.
        """
        broken = any(finding.severity is Severity.ERROR for finding in self._found)
        if broken or self.granted < self.asked or self._count < self._needed:
            return ExitStatus.FAILED
        return ExitStatus.OK

    @property
    def _shortfall(self) -> str:
        if self._count >= self._needed:
            return ""
        return f"the host counts {self._count} of {self._needed} clients; it may keep no count, or one of its own"

    @abstractmethod
    def passed_over(self, host: str, problem: str) -> None:
        """
        Take note of a host that could not be asked, so that the next one is tried.
        """

    @abstractmethod
    def _show(self, number: int, outcome: Outcome) -> None:
        """
        Show an outcome.
        """

    @abstractmethod
    def break_off(self, problem: str) -> None:
        """
        Say what there is, though not everything could be asked.
        """

    @abstractmethod
    def finish(self) -> ExitStatus:
        """
        Say the last words.

        @return: How the command ends.
        """


class TextReport(Report):
    """
    A report for people.
    """

    def passed_over(self, host: str, problem: str) -> None:
        """
        Say so at once.
        """
        click.echo(f"{host}: {problem}; trying the next host", err=True)

    def _show(self, number: int, outcome: Outcome) -> None:
        if self._verbose:
            _explain(outcome, self._catalog, aside=self._aside)
        error = outcome.error
        if error is not None:
            self._show_failure(number, outcome, str(error))
        elif self._one:
            self._say(describe(self.host, self._product, outcome))
        else:
            body = outcome.response.body
            self._say(
                f"{number + 1}: granted, version {outcome.request.body.major_version},"
                f" {body.client_count} clients, {printable(body.epid)}"
            )

    def _show_failure(self, number: int, outcome: Outcome, problem: str) -> None:
        failed = outcome.verified.failed[1:] if outcome.verified is not None else ()
        if failed:
            problem += f" (and failed: {', '.join(check.name for check in failed)})"
        if self._one:
            click.echo(f"{_command()}: {self.host}: {problem}{_advice(outcome.error)}", err=True)
        else:
            self._say(f"{number + 1}: {problem}")

    def _say(self, text: str) -> None:
        click.echo(text, err=self._aside)

    def break_off(self, problem: str) -> None:
        """
        Say how far it came, if anywhere.
        """
        if self.asked:
            self._sum_up()
        else:
            self._say_findings()

    def _sum_up(self) -> None:
        if self._planned > 1:
            refused = self.asked - self.granted
            parts = [
                f"{self.granted} {'request was' if self.granted == 1 else 'requests were'} granted"
            ]
            if refused:
                parts.append(f"{refused} {'was' if refused == 1 else 'were'} not")
            if self.asked < self._planned and not self._needed:
                parts.append(f"{self._planned - self.asked} had no answer")
            self._say(", ".join(parts))
        self._say_findings()

    def _say_findings(self) -> None:
        for finding in self._found:
            self._say(f"  {finding}")

    def finish(self) -> ExitStatus:
        """
        Say the last words.
        """
        self._sum_up()
        if self._shortfall:
            self._say(f"  {self._shortfall}")
        return self.status


class JsonReport(Report):
    """
    A report for programs: one object at the end.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._passed: list[dict[str, str]] = []
        self._results: list[dict[str, Any]] = []

    def passed_over(self, host: str, problem: str) -> None:
        """
        Keep it for the end.
        """
        self._passed.append({"host": host, "problem": problem})

    def _show(self, number: int, outcome: Outcome) -> None:
        if len(self._results) < (MAX_FULL_RESULTS if self._verbose else MAX_RESULTS):
            self._results.append(outcome_to_json(number, outcome, self._catalog, self._verbose))

    def break_off(self, problem: str) -> None:
        """
        Print what there is, and what is wrong.
        """
        emit_json(self._whole() | {"problem": problem})

    def finish(self) -> ExitStatus:
        """
        Print all.
        """
        emit_json(self._whole() | ({"problem": self._shortfall} if self._shortfall else {}))
        return self.status

    def _whole(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "passed_over": self._passed,
            "product": self._product,
            "planned": self._planned,
            "requests": self.asked,
            "granted": self.granted,
            "results": self._results,
            "results_left_out": self.asked - len(self._results),
            "findings": [finding.to_json() for finding in self._found],
        }


def _command() -> str:
    return click.get_current_context().command_path


def _advice(error: KMSProtoError | None) -> str:
    if isinstance(error, RemoteProtocolError):
        return "; check that it is a KMS host"
    if isinstance(error, HResultError):
        return f"; kmsproto explain 0x{error.hresult:08X} tells more"
    if isinstance(error, FaultError):
        return f"; kmsproto explain 0x{error.status:08X} tells more"
    return ""


def describe(host: str, product: str, outcome: Outcome) -> str:
    """
    Say what a host answered.

    @return: A few lines of text.
    """
    request = outcome.request.body
    response = outcome.response
    body = response.body
    needed = f"the product needs {request.n_policy}"
    if body.client_count < request.n_policy:
        needed += f", so a client would fail with 0x{HResult.TOO_FEW_CLIENTS:08X}"
    checks = outcome.verified.checks if outcome.verified is not None else ()
    rows = [
        ("ePID", printable(body.epid)),
        ("hardware id", response.hardware_id.hex().upper() or "none before version 6"),
        ("count", f"{body.client_count} clients ({needed})"),
        ("activation interval", f"{body.activation_interval} minutes"),
        ("renewal interval", f"{body.renewal_interval} minutes"),
        ("checks", f"{len(checks)} of {len(checks)} passed"),
    ]
    head = f"{host} grants {product} (protocol version {request.major_version})"
    return "\n".join([head, *(f"  {name + ':':<21}{value}" for name, value in rows)])


def _explain(outcome: Outcome, catalog: Catalog, *, aside: bool) -> None:
    """
    Show every field that was sent and received, and every check.
    """
    out = console(stderr=aside, width=_WIDTH)
    request = outcome.request
    out.print(_fields_table("Request", request_fields(outcome.request_payload, catalog)))
    out.print(Text(f"in the transfer syntax {syntax_name(outcome)}"))
    if outcome.response_payload:
        fields = response_fields(outcome.response_payload, request, catalog)
        out.print(_fields_table("Response", fields))
    if outcome.verified is not None:
        table = Table("check", "outcome", title="Checks", title_justify="left")
        for check in outcome.verified.checks:
            table.add_row(Text(check.name), Text("passed" if check.passed else check.problem))
        out.print(table)


def syntax_name(outcome: Outcome) -> str:
    """
    Name the transfer syntax of a call.
    """
    return "NDR64" if outcome.transfer_syntax == NDR64 else "NDR"


def _fields_table(title: str, fields: Sequence[Field]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("offset", justify="right")
    table.add_column("size", justify="right")
    for name in ("field", "value", "meaning"):
        table.add_column(name, overflow="fold")
    for field in fields:
        table.add_row(
            str(field.offset),
            str(field.size),
            *(Text(printable(text)) for text in (field.name, field.value, field.meaning)),
        )
    return table


def outcome_to_json(
    number: int, outcome: Outcome, catalog: Catalog, verbose: bool
) -> dict[str, Any]:
    """
    Turn an outcome into what JSON can say.

    @param verbose: Whether to add every field of request and response.
    """
    request = outcome.request.body
    result: dict[str, Any] = {
        "number": number + 1,
        "granted": outcome.error is None,
        "protocol_version": f"{request.major_version}.{request.minor_version}",
        "client_machine_id": str(request.client_machine_id),
        "transfer_syntax": syntax_name(outcome),
    }
    if outcome.error is not None:
        result["error"] = str(outcome.error)
        for name in ("hresult", "status", "check"):
            value = getattr(outcome.error, name, None)
            if value is not None:
                result[name] = f"0x{value:08X}" if isinstance(value, int) else value
    verified = outcome.verified
    if verified is not None:
        if verified.body is not None:
            result["response"] = {
                "epid": verified.body.epid,
                "hardware_id": verified.hardware_id.hex().upper(),
                "client_count": verified.body.client_count,
                "activation_interval": verified.body.activation_interval,
                "renewal_interval": verified.body.renewal_interval,
            }
        result["checks"] = [
            {"name": check.name, "passed": check.passed, "problem": check.problem}
            for check in verified.checks
        ]
    if verbose:
        result["request_fields"] = [
            field.to_json() for field in request_fields(outcome.request_payload, catalog)
        ]
        result["response_fields"] = [
            field.to_json()
            for field in response_fields(outcome.response_payload, outcome.request, catalog)
        ]
    return result
