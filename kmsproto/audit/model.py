"""
What a case is, what it asks of whoever carries it out, and what comes of it.

A case is a rule with a name and a way to try it: a I{script}, that is a generator which yields L{Step}s and is sent
what each came to.  It opens no connection and knows no clock; whoever runs it does
(C{kmsproto.net.dialogue}), and so a case can be run in memory as well as over a network.  At its end stands a
L{Verdict}: whether the rule was kept, and in a sentence what the host did.

The steps and their outcomes are made of plain values on purpose, so that those who perform them need nothing of this
package: C{"connect"} comes to an empty string of bytes, C{"receive"} to the bytes that came, to an empty string when
the host has closed its side, and to L{None} when nothing came in time.  What cannot be performed, a connection that
is refused for instance, is raised at the C{yield}, as one of the errors of L{kmsproto.errors}.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from kmsproto.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    RemoteProtocolError,
)
from kmsproto.findings import Finding, Severity

if TYPE_CHECKING:
    from kmsproto.audit.subject import Subject

_T = TypeVar("_T")

#: How the verdict begins on a case for which no connection could be made.
_UNREACHED = "could not be reached"


class Step(NamedTuple):
    """
    One thing to do.

    @ivar action: C{"connect"}, C{"send"}, C{"receive"}, C{"finish"} (close the own direction only) or C{"close"}.
    @ivar connection: Which of the connections of the case, from 0.
    @ivar data: What to send.
    @ivar piece: Bytes of each segment that it is sent in; 0 for a single one.
    @ivar seconds: How long to wait for something to receive.
    """

    action: Literal["connect", "send", "receive", "finish", "close"]
    connection: int
    data: bytes = b""
    piece: int = 0
    seconds: float = 0.0


#: What yields steps and returns something.
Script: TypeAlias = Generator[Step, bytes | None, _T]


class Area(Enum):
    """
    What a case is about; the value is its name on the command line.
    """

    HEADER = "header"  #: the header that all PDUs have in common
    BIND = "bind"  #: how a connection begins
    FEATURES = "features"  #: bind-time feature negotiation
    ALTER = "alter"  #: presentation contexts that are added later
    REQUEST = "request"  #: calls in one piece
    FAULT = "fault"  #: calls that reach no operation, and how that is told
    FRAGMENTS = "fragments"  #: calls in several pieces
    OTHER = "other"  #: other kinds of PDUs
    SECURITY = "security"  #: PDUs that ask for authentication
    KMS = "kms"  #: KMS messages, their versions, sizes and checks
    IDENTITY = "identity"  #: what the host says of itself, and whether it sticks to that
    CONNECTION = "connection"  #: how long a connection lives, and what it endures
    MANAGEMENT = "management"  #: the interface for remote management

    @property
    def title(self) -> str:
        """
        A heading.
        """
        return _TITLES[self]


_TITLES = {
    Area.HEADER: "The common header",
    Area.BIND: "Binding",
    Area.FEATURES: "Bind-time features",
    Area.ALTER: "Altering contexts",
    Area.REQUEST: "Requests and responses",
    Area.FAULT: "Faults",
    Area.FRAGMENTS: "Fragmented requests",
    Area.OTHER: "Other PDUs",
    Area.SECURITY: "Security",
    Area.KMS: "KMS messages",
    Area.IDENTITY: "The identity of the host",
    Area.CONNECTION: "The life of a connection",
    Area.MANAGEMENT: "The management interface",
}


class Level(Enum):
    """
    How much the rule of a case counts.
    """

    MUST = "must"  #: every host must keep it
    SHOULD = "should"  #: a host should keep it
    WINDOWS = "windows"  #: Windows does so, and no text demands it
    HYGIENE = "hygiene"  #: good manners, of which no text speaks

    @property
    def severity(self) -> Severity:
        """
        How a breach is reported.
        """
        return _SEVERITIES[self]


_SEVERITIES = {
    Level.MUST: Severity.ERROR,
    Level.SHOULD: Severity.WARNING,
    Level.WINDOWS: Severity.NOTE,
    Level.HYGIENE: Severity.NOTE,
}


class Outcome(Enum):
    """
    What came of a case.
    """

    PASSED = "passed"  #: the rule was kept
    NOTED = "noted"  #: lawful, but something that a reader may want to know
    FAILED = "failed"  #: the rule was broken
    NOT_APPLICABLE = "not applicable"  #: the host does not do what the rule is about
    UNDECIDED = "undecided"  #: it could not be tried
    NOT_TRIED = "not tried"  #: it was never begun


class Verdict(NamedTuple):
    """
    The end of a case.

    @ivar did: What the host did: the rest of a sentence that begins with "it", without full stop.
    """

    outcome: Outcome
    did: str


def passed(did: str) -> Verdict:
    """
    The rule was kept.
    """
    return Verdict(Outcome.PASSED, did)


def noted(did: str) -> Verdict:
    """
    What was done is lawful, but worth a word.
    """
    return Verdict(Outcome.NOTED, did)


def failed(did: str) -> Verdict:
    """
    The rule was broken.
    """
    return Verdict(Outcome.FAILED, did)


def is_unreached(verdict: Verdict) -> bool:
    """
    Tell whether a case was not tried because there was nobody to connect to.
    """
    return verdict.outcome is Outcome.UNDECIDED and verdict.did.startswith(_UNREACHED)


class UndecidedError(KMSProtoError):
    """
    A case cannot go on, because the host does not do what the case builds upon.
    """


class NotApplicableError(KMSProtoError):
    """
    A case has nothing to try, because the host does not offer what it is about.
    """


@dataclass(frozen=True, slots=True)
class Case:
    """
    One rule, and how it is tried.

    @ivar name: The name, C{area.something}.
    @ivar row: The number of the rule in "How a correct connection-oriented DCE/RPC server behaves", or C{"KMS"} for
        one of "KMS messages, versions 4, 5 and 6".
    @ivar title: What is tried, in a few words.
    @ivar rule: What the standard says, in a sentence or two.
    @ivar source: Where it says so.
    @ivar body: Makes the script.
    """

    name: str
    row: str
    area: Area
    level: Level
    title: str
    rule: str
    source: str
    body: Callable[[Subject], Script[Verdict]]

    def to_json(self) -> dict[str, str]:
        """
        Turn it into what JSON can say.
        """
        return {
            "case": self.name,
            "row": self.row,
            "area": self.area.value,
            "level": self.level.value,
            "title": self.title,
            "rule": self.rule,
            "source": self.source,
        }

    def script(self, subject: Subject) -> Script[Verdict]:
        """
        Begin to try it.

        Whatever the host does, the script ends with a verdict.
        """
        try:
            return (yield from self.body(subject))
        except UndecidedError as problem:
            return Verdict(Outcome.UNDECIDED, str(problem))
        except NotApplicableError as problem:
            return Verdict(Outcome.NOT_APPLICABLE, str(problem))
        except HostUnreachableError as problem:
            return Verdict(Outcome.UNDECIDED, f"{_UNREACHED}: {problem}")
        except HostTimeoutError as problem:
            return failed(f"did not come to an end: {problem}")
        except RemoteProtocolError as problem:
            return failed(f"sent what cannot be read: {problem}")


@dataclass(frozen=True, slots=True)
class Result:
    """
    A case that was tried.

    @ivar fatal: Whether the host did not survive it; no rule needs to say that it has to.
    """

    case: Case
    verdict: Verdict
    fatal: bool = False

    @property
    def severity(self) -> Severity | None:
        """
        How much it counts that the rule was broken; L{None} if it was not.
        """
        if self.verdict.outcome is not Outcome.FAILED:
            return None
        return Severity.ERROR if self.fatal else self.case.level.severity

    def killed(self, how: str) -> Result:
        """
        Make the result of a case that the host did not survive, whatever it answered before.

        @param how: What became of it: the rest of a sentence that begins with "it".
        """
        return Result(self.case, failed(f"{self.verdict.did}, and then {how}"), True)

    @property
    def word(self) -> str:
        """
        The verdict in a word: C{"fails"}, C{"warning"} or C{"note"} for what was broken, by how much it counts.
        """
        severity = self.severity
        return self.verdict.outcome.value if severity is None else _WORDS[severity]

    def finding(self) -> Finding | None:
        """
        Make the finding of a rule that was broken.
        """
        severity = self.severity
        if severity is None:
            return None
        return Finding(self.case.row, severity, f"the host {self.verdict.did}", self.case.source)

    def to_json(self) -> dict[str, object]:
        """
        Turn it into what JSON can say.
        """
        return {
            **self.case.to_json(),
            "verdict": self.word,
            "did": self.verdict.did,
            "fatal": self.fatal,
        }


_WORDS = {Severity.ERROR: "fails", Severity.WARNING: "warning", Severity.NOTE: "note"}

#: All words that L{Result.word} knows, the worst first.
WORDS = (
    *("fails", "warning", "note", "undecided", "not tried", "noted", "not applicable", "passed"),
)


def define(
    name: str, row: str, level: Level, title: str, rule: str, source: str
) -> Callable[[Callable[[Subject], Script[Verdict]]], Case]:
    """
    Make a case of a function that makes a script; a decorator.

    @param name: C{area.something}.
    """

    def decorate(body: Callable[[Subject], Script[Verdict]]) -> Case:
        area = Area(name.partition(".")[0])
        return Case(name, row, area, level, title, rule, source, body)

    return decorate
