"""
Showing what was found in a capture or dump: all of it, in lists, or as JSON.

Each event is shown when it is found, so that nothing is kept however much there is.  Where there is no terminal the
text is made by hand: a library that lays tables out would take longer for each than all the decoding.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod

from rich.console import Console
from rich.text import Text

from kmsproto.cli.output import console
from kmsproto.decode.decoder import Counts, problems_of
from kmsproto.decode.events import CallSeen, Event, Outcome, PDUSeen, Remark
from kmsproto.decode.render import (
    event_to_json,
    headline,
    sections,
    show_route,
    show_time,
    summary_line,
)
from kmsproto.kms.catalog import Catalog
from kmsproto.net.quoting import printable

#: The styles of rich for what is right, what is refused, and what is wrong.
_STYLES = {
    Outcome.GRANTED: "green",
    Outcome.REFUSED: "yellow",
    Outcome.FAULT: "yellow",
    Outcome.INVALID: "red",
    Outcome.UNANSWERED: "yellow",
}


def flush() -> None:
    """
    Hand on what was written to the standard output.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def _write(text: str) -> None:
    """
    Write a line, or some; where the standard output was closed by whoever called nobody wants them.
    """
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")


class Report(ABC):
    """
    What all reports have.

    @param catalog: Names products and keys.
    @param errors_only: Whether only that is shown which is wrong, or was not granted.
    @param live: Whether somebody waits for every line.
    """

    def __init__(self, catalog: Catalog, *, errors_only: bool, live: bool) -> None:
        self._catalog = catalog
        self._errors_only = errors_only
        self._live = live

    def add(self, event: Event) -> None:
        """
        Show an event, if it is to be shown.
        """
        if self._errors_only and not _is_error(event):
            return
        self.show(event)
        if self._live:
            flush()

    @abstractmethod
    def show(self, event: Event) -> None:
        """
        Show an event.
        """

    def finish(self, counts: Counts) -> None:
        """
        Say the last words on the standard output, if there are any.
        """
        del counts

    def fail(self, problem: str, status: int) -> None:
        """
        Tell a program what people are told on the standard error: why there is nothing to report.

        @param status: The exit status.
        """
        del problem, status


def _is_error(event: Event) -> bool:
    if problems_of(event):
        return True
    return isinstance(event, CallSeen) and event.outcome is not Outcome.GRANTED


class TextReport(Report):
    """
    Everything, for people.
    """

    def __init__(self, catalog: Catalog, *, errors_only: bool, live: bool) -> None:
        super().__init__(catalog, errors_only=errors_only, live=live)
        out = console()
        self._console: Console | None = out if out.is_terminal else None
        self._lines: list[str] = []

    def show(self, event: Event) -> None:
        """
        Show an event: a line about it, its fields, the checks, and what is wrong.
        """
        conversation = event.conversation
        number = f"#{conversation.number}" if conversation.number else ""
        sender = event.sender if isinstance(event, PDUSeen) else ""
        words = [show_time(event.time), number, show_route(conversation, sender)]
        start = "  ".join(word for word in words if word)
        if isinstance(event, Remark):
            style = "red" if event.is_problem else "yellow"
            self._line((f"{start}  " if start else "", "dim"), (printable(event.text), style))
            self._flush()
            return
        style = _STYLES[event.outcome] if isinstance(event, CallSeen) else "bold"
        self._line(
            (f"{start}  " if start else "", "dim"),
            (printable(headline(event, self._catalog)), style),
        )
        for section in sections(event, self._catalog):
            self._line((f"  {section.title}", "bold"))
            for field in section.fields:
                self._line(
                    (f"  {field.offset:6} {field.size:4}  ", "dim"),
                    (f"{field.name:<26} ", "cyan"),
                    (printable(field.value), ""),
                    (f"  {printable(field.meaning)}" if field.meaning else "", "dim"),
                )
        if isinstance(event, CallSeen):
            self._show_checks(event)
        for problem in event.problems:
            self._line((f"  problem: {printable(problem)}", "red"))
        for remark in event.remarks if isinstance(event, CallSeen) else ():
            self._line((f"  note: {printable(remark)}", "yellow"))
        self._line(("", ""))
        self._flush()

    def _show_checks(self, call: CallSeen) -> None:
        if call.verified is None:
            return
        failed = {check.name for check in call.verified.failed}
        passed = [check.name for check in call.verified.checks if check.name not in failed]
        names = ", ".join(dict.fromkeys(passed)) or "none"
        self._line((f"  checks passed: {names}", "green" if not failed else ""))
        if failed:
            self._line((f"  checks failed: {', '.join(sorted(failed))}", "red"))

    def _line(self, *parts: tuple[str, str]) -> None:
        if self._console is None:
            self._lines.append("".join(text for text, _ in parts))
        else:
            self._console.print(Text.assemble(*parts), soft_wrap=True)

    def _flush(self) -> None:
        if self._lines:
            _write("\n".join(self._lines))
            self._lines.clear()


class ListReport(Report):
    """
    A line for each activation.
    """

    def show(self, event: Event) -> None:
        """
        Show an activation; everything else only if it is wrong.
        """
        if isinstance(event, CallSeen):
            words = map(_word, summary_line(event, self._catalog))
            _write("  ".join(words))
            for problem in event.problems:
                _write(f"  problem: {printable(problem)}")
        elif problems_of(event):
            problems = (event.text,) if isinstance(event, Remark) else event.problems
            route = show_route(event.conversation, "")
            for problem in problems:
                told = [route, printable(problem)] if route else [printable(problem)]
                _write(f"  problem: {'  '.join(told)}")


def _word(text: str) -> str:
    """
    Quote what has blanks in it, so that a line can be cut into its words.
    """
    text = printable(text)
    return f'"{text}"' if " " in text else text


class JsonReport(Report):
    """
    A JSON document in each line: one for each event, and one with the counts at the end.

    @param fields: Whether to tell everything; otherwise calls alone, without their fields.
    """

    def __init__(self, catalog: Catalog, *, errors_only: bool, live: bool, fields: bool) -> None:
        super().__init__(catalog, errors_only=errors_only, live=live)
        self._fields = fields

    def show(self, event: Event) -> None:
        """
        Print an event.
        """
        if self._fields or isinstance(event, CallSeen) or problems_of(event):
            self._print(event_to_json(event, self._catalog, fields=self._fields))

    def finish(self, counts: Counts) -> None:
        """
        Print the counts.
        """
        self._print({"type": "counts"} | counts.to_json())

    def fail(self, problem: str, status: int) -> None:
        """
        Print why there is nothing to report.
        """
        self._print({"type": "error", "problem": problem, "status": status})

    def _print(self, document: dict[str, object]) -> None:
        # Escapes are for whoever looks at it on a terminal: names are chosen by peers.
        _write(json.dumps(document))
