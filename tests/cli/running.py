"""
Running commands within a test so that what they print and what they complain about can be told apart.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from click.testing import CliRunner


def runner() -> CliRunner:
    """
    Make a runner whose results have a standard error of their own; releases of click before 8.2 want to be told.
    """
    options: dict[str, Any] = {}
    if "mix_stderr" in signature(CliRunner.__init__).parameters:
        options["mix_stderr"] = False
    return CliRunner(**options)
