"""
The list of all cases as a page of the documentation.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from kmsproto.audit.battery import PERILOUS
from kmsproto.audit.model import Area, Case

_WIDTH = 112


def reference(cases: Sequence[Case]) -> str:
    """
    Write the list of cases in reStructuredText.
    """
    lines = [
        ".. Made from kmsproto/audit/*_cases.py by ``kmsproto audit --reference``.",
        "",
        "The cases of the audit",
        "======================",
        "",
        *_wrap(
            f"These are the {len(cases)} cases of ``kmsproto audit``, area by area.  Each has a"
            " name, the level of its rule, what is tried, what the rule says, and where it says so.  The number of a"
            " rule is its row in *How a correct connection-oriented DCE/RPC server behaves*, or KMS for those of *KMS"
            " messages, versions 4, 5 and 6*.  Both name and number can be given with ``--case``."
        ),
        "",
        *_wrap(
            "They are tried in this order, but for those that hosts are known not to have survived.  These come last,"
            " so that whatever else can be learned of such a host is learned before:"
        ),
        "",
        *(line for name, why in PERILOUS.items() for line in _item(f"``{name}``: {why}")),
    ]
    for area in Area:
        chosen = [case for case in cases if case.area is area]
        if not chosen:
            continue
        lines += ["", "", area.title, "-" * len(area.title)]
        for case in chosen:
            lines += ["", f"``{case.name}`` ({case.level.value})"]
            title = case.title[0].upper() + case.title[1:]
            lines += _wrap(f"*{title}.*  {case.rule}  [rule {case.row}; {case.source}]", "   ")
    return "\n".join(lines) + "\n"


def _item(text: str) -> list[str]:
    first, *others = _wrap(text)
    return [f"- {first}", *(f"  {line}" for line in others)]


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
