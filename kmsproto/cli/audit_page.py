"""
The report of an audit as a page: one file that needs no other, for people who read it later or elsewhere.

Everything is put into the page by L{twisted.web.template}, which escapes it, for much of it is what a host said.  The
page takes its colours from the reader's system, light or dark, and can be printed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.web.template import Tag, flattenString, tags

from kmsproto import __version__
from kmsproto.audit.model import Result
from kmsproto.audit.report import Report
from kmsproto.net.quoting import printable

_STYLE = """
:root { color-scheme: light dark; --edge: #8886; --bad: #b3261e; --warn: #8a5a00; --note: #1d5f91; --good: #23713a; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --warn: #ffc766; --note: #8ecbff; --good: #86d99c; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--edge); }
td.verdict { white-space: nowrap; font-weight: 600; } code { font-size: .9em; overflow-wrap: anywhere; }
p { margin: .2rem 0; } .rule { opacity: .8; }
.fails { color: var(--bad); } .warning { color: var(--warn); } .passed { color: var(--good); }
.note, .noted, .undecided, .not-tried { color: var(--note); }
@media print { body { max-width: none; margin: 0; } tr { break-inside: avoid; } }
"""


def render(report: Report) -> Deferred[bytes]:
    """
    Write a report as a page.

    @return: The page, in UTF-8.
    """
    return flattenString(None, _page(report)).addCallback(b"<!DOCTYPE html>\n".__add__)


def _page(report: Report) -> Tag:
    title = f"Audit of {printable(report.target)}"
    when = datetime.fromtimestamp(report.started, UTC)
    verdict = "none of the rules that were tried and" if report.conforms else "rules"
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.title(title),
            tags.style(_STYLE),
        ),
        tags.body(
            tags.h1(title),
            tags.p(
                f"The host at {printable(report.address)} breaks {verdict} that every KMS host"
                f" must keep. {report.summary()}."
            ),
            tags.p(
                f"Made by kmsproto {__version__} on {when:%Y-%m-%d at %H:%M} UTC"
                f" in {report.seconds:.1f} seconds.",
            ),
            *(
                tags.section(tags.h2(area.title), _table(results))
                for area, results in report.areas()
            ),
        ),
        lang="en",
    )


def _table(results: list[Result]) -> Tag:
    return tags.table(
        tags.thead(tags.tr(tags.th("Verdict"), tags.th("Case"), tags.th("What the host did"))),
        tags.tbody(*map(_row, results)),
    )


def _row(result: Result) -> Tag:
    case = result.case
    told: list[Tag] = [tags.p(f"It {printable(result.verdict.did)}.")]
    if result.severity is not None:
        told.append(tags.p(f"{case.rule} ({case.source}; rule {case.row}.)", class_="rule"))
    return tags.tr(
        tags.td(result.word, class_=f"verdict {result.word.replace(' ', '-')}"),
        tags.td(tags.p(case.title), tags.p(tags.code(case.name), f" ({case.level.value})")),
        tags.td(*told),
    )
