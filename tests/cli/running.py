"""
Running commands within a test so that what they print and what they complain about can be told apart.

Of a result, C{stdout} and C{stderr} are apart and C{output} is both, with every release of click.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from click.testing import CliRunner, Result


class _Result(Result):
    """
    A result as releases of click from 8.2 have it, but for the order of C{output}.
    """

    @property
    def output(self) -> str:
        """
        What was written to both.
        """
        return self.stdout + self.stderr


class _Runner(CliRunner):
    """
    A runner of a release of click before 8.2, which wants to be told to keep the two apart.
    """

    def __init__(self) -> None:
        options: dict[str, Any] = {"mix_stderr": False}
        super().__init__(**options)

    def invoke(self, *args: Any, **kwargs: Any) -> Result:
        """
        Run a command.
        """
        return _Result(**vars(super().invoke(*args, **kwargs)))


def runner() -> CliRunner:
    """
    Make a runner whose results have a standard error of their own.
    """
    is_old = "mix_stderr" in signature(CliRunner.__init__).parameters
    return _Runner() if is_old else CliRunner()
