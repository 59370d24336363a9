"""
The list of all cases as a page of the documentation.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

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
            f"These are the {len(cases)} cases of ``kmsproto audit``, in the order in which they are tried.  Each has a"
            " name, the level of its rule, what is tried, what the rule says, and where it says so.  The number of a"
            " rule is its row in *How a correct connection-oriented DCE/RPC server behaves*, or KMS for those of *KMS"
            " messages, versions 4, 5 and 6*.  Both name and number can be given with ``--case``."
        ),
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


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
