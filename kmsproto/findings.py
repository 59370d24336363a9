"""
What is wrong with a host, as data: findings, which a probe reports, an audit collects and a decoder prints.

A finding is no error.  An error says why somebody did not get what was asked for; a finding says that a rule was
broken, perhaps one that nobody noticed.  Each names the rule by its number or name in the document that has it, so
that a reader can look it up, and says in a sentence what the host did.

This module imports nothing of the package; everything else may import it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

#: Numbers in a sentence.
_NUMBER = re.compile(r"0x[0-9A-Fa-f]+|\d+")


class Severity(Enum):
    """
    How much a rule counts.
    """

    ERROR = "error"  #: a rule that every host must keep
    WARNING = "warning"  #: a rule that a host should keep, or that some clients rely on
    NOTE = "note"  #: what Windows does, though nothing demands it


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A rule that a host broke.

    @ivar rule: The number of the rule in "How a correct connection-oriented DCE/RPC server behaves", for example
        C{"3.1"}; or the name of a check of "KMS messages, versions 4, 5 and 6", for example C{"HMAC"}.
    @ivar severity: How much it counts.
    @ivar problem: What the host did, in one sentence without full stop.
    @ivar source: Where the rule stands, for example C{"C706 12.6.4.4"}.
    """

    rule: str
    severity: Severity
    problem: str
    source: str

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.problem} (rule {self.rule}; {self.source})"

    @property
    def kind(self) -> tuple[str, Severity, str]:
        """
        What two findings have in common that differ in nothing but numbers.
        """
        return self.rule, self.severity, _NUMBER.sub("#", self.problem)

    def to_json(self) -> dict[str, str]:
        """
        Turn it into what JSON can say.
        """
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "problem": self.problem,
            "source": self.source,
        }
