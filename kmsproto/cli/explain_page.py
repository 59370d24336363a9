"""
The page of the documentation about all codes, made of what C{kmsproto explain} knows.
"""

from __future__ import annotations

import re
import textwrap

from kmsproto.kms.explanations import Explanation, Explanations, Kind

#: Where the page stands in the repository.
PAGE = "docs/codes.rst"
_WIDTH = 117
_HEADINGS = {
    Kind.HRESULT: "HRESULTs",
    Kind.WIN32: "Win32 errors of RPC",
    Kind.FAULT: "RPC fault statuses",
    Kind.BIND_NAK: "Reasons of a bind_nak",
    Kind.RESULT: "Results of a presentation context",
    Kind.REASON: "Reasons why a presentation context is refused",
}


def render_page(explanations: Explanations) -> str:
    """
    Write the page, as reStructuredText.
    """
    lines = [
        ".. Made from kmsproto/kms/explanations.toml by ``kmsproto explain --reference``.",
        "",
        "Codes",
        "=====",
        "",
        "What the codes of an activation mean, who says them, what they come from and what can be done.",
        "``kmsproto explain CODE`` shows the same.  A Win32 error and the HRESULT that is made of it are",
        "one entry, and either finds it.",
    ]
    for kind, heading in _HEADINGS.items():
        lines += ["", "", heading, "-" * len(heading)]
        for entry in explanations.entries:
            if entry.kind is kind:
                lines += ["", *_entry(explanations, entry)]
    return "\n".join(lines) + "\n"


def anchor(entry: Explanation) -> str:
    """
    Name the place of an entry on the page.
    """
    if entry.kind is Kind.WIN32:
        return f"code-win32-{entry.code}"
    return "code-" + entry.label.lower().replace("_", "-").replace(" ", "-")


def _entry(explanations: Explanations, entry: Explanation) -> list[str]:
    title = f"``{entry.label}``" + (f" {entry.name}" if entry.name else "")
    lines = [f".. _{anchor(entry)}:", "", title, "~" * len(title), ""]
    lines += _wrapped(entry.meaning)
    said = f"*Said by:* {', '.join(entry.said_by)}."
    if entry.twin:
        said += (
            f"  *{'Win32 error' if entry.kind is Kind.HRESULT else 'HRESULT'}:* ``{entry.twin}``."
        )
    lines += ["", said]
    for heading, items in (("Causes", entry.causes), ("What to do", entry.remedies)):
        lines += ["", f"*{heading}:*", ""]
        for item in items:
            lines += _wrapped(item, "* ", "  ")
    if entry.related:
        links = [
            f":ref:`{label} <{anchor(explanations.labelled(label))}>`" for label in entry.related
        ]
        lines += ["", *f"*See also:* {','.join(links)}.".replace(",", ",\n").splitlines()]
    return lines


def _wrapped(text: str, first: str = "", indent: str = "") -> list[str]:
    """
    Break a text into lines, as reStructuredText.
    """
    marked = "".join(
        f"``{part}``" if number % 2 else re.sub(r"([\\*]|_\b)", r"\\\1", part)
        for number, part in enumerate(text.split("`"))
    )
    return textwrap.wrap(
        marked,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
