"""
The root of the errors of kmsproto, and those that cross layers; an error of one module stands in that module.

Two questions are answered by the type of an error.  I{Whose mistake was it?}  A L{LocalProtocolError} is that of the
program that called: it asked for something out of order or out of range, and nothing was sent.  A
L{RemoteProtocolError} is the peer's.  The others say what was asked for and could not be had.  I{What does it earn,
or what was answered?}  Where the protocol has a number for that (a fault status, a bind_nak reason, an HRESULT), the
error carries it, so that whoever sits at the outlet translates it once, and nobody compares texts.

This module imports nothing of the package; everything else may import it.
"""

from __future__ import annotations


class KMSProtoError(Exception):
    """
    The root of all errors of this package.
    """


class LocalProtocolError(KMSProtoError):
    """
    Our own side asked for something the protocol does not allow now, or for a value that cannot be encoded.
    """


class RemoteProtocolError(KMSProtoError):
    """
    The peer sent something that breaks the protocol.
    """


class HostUnreachableError(KMSProtoError):
    """
    No connection to the host could be made, or it ended before the host answered.
    """


class ConnectionSpentError(HostUnreachableError):
    """
    The host closed a connection behind an answer, as some do with every connection; another one may be answered.
    """


class HostTimeoutError(KMSProtoError):
    """
    The host did not answer in time.
    """


class FaultError(KMSProtoError):
    """
    The server answered a call with a fault PDU (C706 12.6.4.7).

    @ivar status: The fault status, 32 bits.
    @ivar name: A name of the status, for people.
    """

    def __init__(self, status: int, name: str) -> None:
        super().__init__(f"the call was answered with RPC fault 0x{status:08X} ({name})")
        self.status = status
        self.name = name


class BindRefusedError(KMSProtoError):
    """
    The server answered a bind with a bind_nak PDU (C706 12.6.4.5).

    @ivar reason: The provider reject reason, 16 bits.
    @ivar name: A name of the reason, for people.
    """

    def __init__(self, reason: int, name: str) -> None:
        super().__init__(f"the bind was refused with bind_nak reason {reason} ({name})")
        self.reason = reason
        self.name = name


class ContextRefusedError(KMSProtoError):
    """
    The server accepted the bind, but no presentation context that we can use (C706 12.6.3.1).
    """


class HResultError(KMSProtoError):
    """
    The host answered the activation with an HRESULT other than zero.

    @ivar hresult: The HRESULT, 32 bits.
    @ivar meaning: What it means, in one sentence.
    """

    def __init__(self, hresult: int, meaning: str) -> None:
        super().__init__(f"the host answered 0x{hresult:08X}: {meaning}")
        self.hresult = hresult
        self.meaning = meaning


class VerificationError(RemoteProtocolError):
    """
    The host answered, but its answer failed one of the checks that a client must make.

    @ivar check: The name of the check, for example C{"HMAC"}.
    """

    def __init__(self, check: str, problem: str) -> None:
        super().__init__(f"the answer failed a check ({check}): {problem}")
        self.check = check


class CatalogError(KMSProtoError):
    """
    A catalogue of products cannot be used.

    @ivar source: The file, or C{"built-in catalogue"}.
    @ivar entry: The entry that is wrong, as a reader of the file finds it.
    """

    def __init__(self, source: str, entry: str, problem: str) -> None:
        super().__init__(f"{source}: {entry}: {problem}")
        self.source = source
        self.entry = entry


class ProductNotFoundError(KMSProtoError):
    """
    No product, or more than one, answers to what was asked for.

    @ivar suggestions: Names that may have been meant, best first; empty when there are none.
    """

    def __init__(self, problem: str, suggestions: tuple[str, ...] = ()) -> None:
        hint = (
            "; did you mean " + " or ".join(repr(name) for name in suggestions) + "?"
            if suggestions
            else ""
        )
        super().__init__(problem + hint)
        self.suggestions = suggestions
