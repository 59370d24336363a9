"""
What a service says when it cannot start: one line, in twistd as anywhere else.
"""

from __future__ import annotations

from kmsproto.errors import KMSProtoError


class StartupError(KMSProtoError, SystemExit):
    """
    The service cannot start, for a reason that one line tells.

    It is both kinds of exception for twistd's sake: for an L{Exception} twistd cleans up its pidfile and tells the
    process that waits for the daemon; for a L{SystemExit} the interpreter then prints the line, without a traceback,
    and exits with status 1.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = f"twistd kms: {problem}"
