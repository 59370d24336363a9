"""
C{kmsproto explain}: codes, extended PIDs and events of KMS, in words.

What is known of codes stands in L{kmsproto.kms.explanations}, and L{kmsproto.cli.explain_codes} finds them in what
people paste; extended PIDs and events are taken apart in L{kmsproto.cli.explain_epid} and
L{kmsproto.cli.explain_event}.  The first word says what the rest is: C{epid}, C{event}, an event by number, or a code.
Without such a word, an extended PID and an event are taken for what they are.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from kmsproto.cli.explain_codes import codes_in, is_number, problem_with, suggestions
from kmsproto.cli.explain_epid import EPIDReport, explain_epid, looks_like_epid
from kmsproto.cli.explain_event import LAYOUTS, Event, EventError, Layout, parse_event
from kmsproto.cli.explain_page import render_page
from kmsproto.cli.output import catalog_option, emit_json, fail, json_option
from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import Catalog
from kmsproto.kms.epid import EPIDError
from kmsproto.kms.explanations import (
    Explanation,
    Explanations,
    Kind,
    Parts,
    UnknownCodeError,
    load_explanations,
)
from kmsproto.net.quoting import printable

_EVENT = re.compile(r"event[\s_-]*(\d*)", re.ASCII | re.IGNORECASE)
#: Entries that are shown in full for one text; more are listed.
_MOST_IN_FULL = 4
_WIDTH = 100
_MOST_CODES = 64
_SAMPLE_EPID = "03612-00206-437-000001-03-1033-14393.0000-0102017"
#: How the same code is called in the other kind.
_TWIN = {Kind.HRESULT: "of Win32 error", Kind.WIN32: "as HRESULT"}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[CODE]...")
@catalog_option
@json_option
@click.option("--reference", is_flag=True, hidden=True)
def explain(words: tuple[str, ...], catalog: Catalog, as_json: bool, reference: bool) -> None:
    """
    Explain codes, extended PIDs and events of KMS.

    CODE is an HRESULT, a Win32 error, an RPC fault status or a reason of a refusal: 0xC004F074, C004F074, -1073418124,
    3221549172, nca_s_unk_if, NOT_ENOUGH_COUNT.  A whole message with a code in it will do.  Without CODE, all that are
    known are listed.

    \b
    kmsproto explain epid EPID      takes an extended PID apart
    kmsproto explain event TEXT     explains the fields of an event, such as 12288 or 12290
    kmsproto explain event12290     tells which fields it has
    kmsproto explain event          tells it of all events that are known

    Exits with status 1 when something is not known.
    """
    explanations = load_explanations()
    if reference:
        click.echo(render_page(explanations), nl=False)
        return
    for word in words:
        if word.startswith("-") and word.strip("-") and not is_number(word):
            raise click.UsageError(f"no such option: {printable(word)}")
    try:
        _explain(words, catalog, explanations, as_json)
    except EPIDError as error:
        fail(f"{error}; one is written like {_SAMPLE_EPID}")
    except KMSProtoError as error:
        fail(error)


def _explain(
    words: tuple[str, ...], catalog: Catalog, explanations: Explanations, as_json: bool
) -> None:
    first = words[0].casefold() if words else ""
    event = _EVENT.fullmatch(first)
    if first == "epid":
        if len(words) < 2:
            raise click.UsageError("give the extended PID behind epid")
        _explain_epids(words[1:], catalog, as_json)
    elif event:
        _explain_event(event[1], words[1:], catalog, explanations, as_json)
    elif words:
        _explain_words(words, catalog, explanations, as_json)
    elif as_json:
        emit_json([entry.to_json() for entry in explanations.entries])
    else:
        click.echo("\n".join(_listed(explanations.entries)))


def _explain_words(
    words: Sequence[str], catalog: Catalog, explanations: Explanations, as_json: bool
) -> None:
    """
    Explain what stands there without a word that says what it is.
    """
    if all(map(looks_like_epid, words)):
        _explain_epids(words, catalog, as_json)
        return
    try:
        event = parse_event(" ".join(words), catalog, explanations)
    except EventError:
        event = None
    # A message with nothing in it but a code is better explained as that code.
    if event is None or len(event.fields) < 2:
        _explain_codes(words, explanations, as_json)
    else:
        _emit([event], _event_lines, as_json)


def _explain_epids(words: Sequence[str], catalog: Catalog, as_json: bool) -> None:
    today = datetime.now(UTC).date()
    _emit([explain_epid(word, catalog, today) for word in words], _epid_lines, as_json)


def _emit(found: Sequence[Any], lines: Any, as_json: bool) -> None:
    if as_json:
        emit_json([each.to_json() for each in found])
    else:
        click.echo("\n\n".join("\n".join(lines(each)) for each in found))


def _explain_event(
    digits: str,
    words: Sequence[str],
    catalog: Catalog,
    explanations: Explanations,
    as_json: bool,
) -> None:
    if not digits and words and words[0] in map(str, LAYOUTS):
        digits, words = words[0], words[1:]
    if digits and digits not in map(str, LAYOUTS):
        known = ", ".join(map(str, LAYOUTS))
        raise click.UsageError(f"event {digits} is none of KMS that is known; there are {known}")
    number = int(digits) if digits else None
    if words:
        event = parse_event(" ".join(words), catalog, explanations, number)
        _emit([event], _event_lines, as_json)
    else:
        layouts = [LAYOUTS[number]] if number else list(LAYOUTS.values())
        _emit(layouts, _layout_lines, as_json)


def _event_meant(word: str) -> str:
    """
    Say what to ask for where the number of an event was given and not a code; nothing if it is none.
    """
    if word not in map(str, LAYOUTS):
        return ""
    return f"{word} is the number of an event; kmsproto explain event{word} tells what is in it"


def _explain_codes(words: Sequence[str], explanations: Explanations, as_json: bool) -> None:
    """
    Explain what is known, and say last what is not.
    """
    codes = codes_in(words)
    if len(codes) > _MOST_CODES:
        raise click.UsageError(f"there are {len(codes)} codes; give {_MOST_CODES} at most")
    results: list[dict[str, Any]] = []
    blocks: list[list[str]] = []
    problems: list[str] = []
    for word in codes:
        try:
            found = explanations.look_up(word)
        except UnknownCodeError as error:
            problems.append(_event_meant(word) or problem_with(error, word, explanations))
            results.append(
                {
                    "asked": word,
                    "codes": [],
                    "problem": str(error),
                    "parts": None if error.code is None else Parts(error.code).to_json(),
                    "suggestions": suggestions(word, explanations),
                }
            )
            continue
        results.append({"asked": word, "codes": [entry.to_json() for entry in found]})
        if len(found) > _MOST_IN_FULL:
            blocks.append(_listed(found))
        else:
            blocks += [lines for lines in map(_code_lines, found) if lines not in blocks]
    if as_json:
        emit_json(results)
    elif blocks:
        click.echo("\n\n".join(map("\n".join, blocks)))
    if problems:
        fail(f"{'; '.join(problems)}; list all codes with kmsproto explain")


def _listed(entries: Sequence[Explanation]) -> list[str]:
    labels = max(len(entry.label) for entry in entries)
    names = max(len(entry.name) for entry in entries)
    return [
        f"{entry.label:{labels}}  {entry.name:{names}}  {entry.meaning}".rstrip()
        for entry in entries
    ]


def _code_lines(entry: Explanation) -> list[str]:
    kind = (
        f"{entry.kind.title}, {_TWIN[entry.kind]} {entry.twin}" if entry.twin else entry.kind.title
    )
    lines = [" ".join(filter(None, (entry.label, entry.name, f"({kind})")))]
    lines += _wrapped(entry.meaning, "  ")
    lines += ["", f"  Said by: {', '.join(entry.said_by)}"]
    for heading, items in (("Causes:", entry.causes), ("What to do:", entry.remedies)):
        lines += ["", f"  {heading}"]
        for item in items:
            lines += _wrapped(item, "    ", "  - ")
    if entry.related:
        lines += ["", f"  See also: {', '.join(entry.related)}"]
    return lines


def _epid_lines(report: EPIDReport) -> list[str]:
    lines = [str(report.pid)]
    for part in report.parts:
        lines += _wrapped(f"{part.name:16} {part.text:12} {part.meaning}", " " * 32, "  ")
    lines += [""]
    for csvlk in report.csvlks:
        activates = "not known" if csvlk.kms_ids is None else f"{len(csvlk.kms_ids)} KMS ids"
        released = csvlk.release_date.isoformat()
        lines.append(f"  host key {csvlk.key}: released {released}, activates {activates}")
    lines += [f"  warning: {warning}" for warning in report.warnings] or ["  nothing is odd in it"]
    return lines


def _event_lines(event: Event) -> list[str]:
    lines = [f"event {event.layout.number} ({event.layout.writer}): {event.layout.meaning}"]
    for field in event.fields:
        text = f"{field.name:20} {printable(field.value)}"
        lines += _wrapped(f"{text}  {field.meaning}" if field.meaning else text, " " * 23, "  ")
    if event.failure:
        lines += ["", f"  What to do: kmsproto explain {event.failure}"]
    return lines


def _layout_lines(layout: Layout) -> list[str]:
    lines = [f"event {layout.number} ({layout.writer}): {layout.meaning}"]
    for place, field in enumerate(layout.fields, 1):
        lines.append(f"  {place:2}  {field.name:20} {field.help}")
    return lines


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    """
    Break a text into lines.

    @param indent: What lines begin with.
    @param first: What the first line begins with, if something else.
    """
    return textwrap.wrap(
        text,
        min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
