"""
What was asked and answered in one call: stubs read, messages opened, the answer verified.

Everything that is wrong becomes a line of text in the result, and what could not be looked at is said to be so.

Sources: "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0"; "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

from collections.abc import Sequence

from kmsproto.decode.calls import OpenCall
from kmsproto.decode.events import CallSeen, Conversation, Part
from kmsproto.decode.layouts import syntax_name
from kmsproto.kms.envelopes import REQUEST_LENGTHS, OpenedRequest, open_request
from kmsproto.kms.fields import response_fields
from kmsproto.kms.messages import MalformedMessageError, decode_version
from kmsproto.kms.verification import Verified, verify_response
from kmsproto.rpc.ndr import (
    BadStubError,
    decode_activation_request,
    decode_activation_response,
)
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId

#: The operation of the KMS interface.
ACTIVATION = 0
#: Bytes of the stub of a failure in NDR64.
_FAILURE_LENGTH = 20


def read_call(conversation: Conversation, call: OpenCall, syntax: SyntaxId | None) -> CallSeen:
    """
    Look at a call to the KMS interface.

    @param call: The call, or as much of it as there is.
    @param syntax: The transfer syntax of its context; L{None} if that is not known.
    """
    return _Reading(conversation, call, syntax).result()


def read_messages(asked: bytes | None, answered: bytes | None) -> CallSeen:
    """
    Look at messages of KMS without RPC around them.

    @param asked: The request, if there is one.
    @param answered: The answer, if there is one.
    """
    problems: list[str] = []
    opened = None if asked is None else _open(asked, problems)
    verified = None if answered is None else _verify(answered, opened, problems)
    remarks = ["the answer cannot be verified without its request"] * (
        answered is not None and opened is None
    )
    return CallSeen(
        Conversation(),
        asked=asked,
        opened=opened,
        answered=answered,
        hresult=None if answered is None else 0,
        verified=verified,
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def is_activation(call: CallSeen) -> bool:
    """
    Tell by its messages whether a call is one to the KMS interface, where no bind was seen that would tell.
    """
    if call.opened is not None or (call.verified is not None and call.verified.body is not None):
        return True
    if call.asked is not None:
        return _has_version(call.asked) and len(call.asked) in REQUEST_LENGTHS.values()
    return bool(call.answered) and is_response(call.answered or b"")


def is_response(payload: bytes) -> bool:
    """
    Tell whether a message is an answer, as far as that shows without its request.
    """
    if not _has_version(payload):
        return False
    fields = response_fields(payload, None, None)
    names = {field.name for field in fields}
    return "renewal interval" in names and "undecoded" not in names


def _has_version(payload: bytes) -> bool:
    try:
        decode_version(payload)
    except MalformedMessageError:
        return False
    return True


def _open(asked: bytes, problems: list[str]) -> OpenedRequest | None:
    try:
        return open_request(asked)
    except MalformedMessageError as error:
        problems.append(f"the request is malformed: {error}")
        return None


def _verify(answered: bytes, opened: OpenedRequest | None, problems: list[str]) -> Verified | None:
    if opened is None:
        return None
    verified = verify_response(answered, opened)
    problems.extend(
        f"the answer failed a check ({check.name}): {check.problem}" for check in verified.failed
    )
    return verified


class _Reading:
    """
    Collects what there is to say about one call.
    """

    def __init__(self, conversation: Conversation, call: OpenCall, syntax: SyntaxId | None) -> None:
        self._conversation = conversation
        self._call = call
        self._syntax = syntax
        self._guessed = False
        self._problems = list(call.problems)
        self._remarks = list(call.remarks)
        self._asked: bytes | None = None
        self._opened: OpenedRequest | None = None
        self._hresult: int | None = None
        self._answered: bytes | None = None
        self._verified: Verified | None = None

    def result(self) -> CallSeen:
        call = self._call
        if call.opnum != ACTIVATION:
            self._remarks.append(f"the KMS interface has no operation {call.opnum}")
        else:
            if call.request is not None:
                self._read_request(call.request)
            if call.response is not None and call.fault is None:
                self._read_response(call.response)
        if call.request is None:
            self._remarks.append("the request is not there")
        if call.response is None:
            self._remarks.append("there is no answer")
        if self._guessed and self._syntax is not None:
            self._remarks.append(
                f"the transfer syntax is not known from a bind; {syntax_name(self._syntax)} fits"
            )
        return CallSeen(
            self._conversation,
            call.call_id,
            call.context_id,
            call.opnum,
            call.request,
            call.response,
            call.fault,
            self._syntax,
            self._guessed,
            self._asked,
            self._opened,
            self._hresult,
            self._answered,
            self._verified,
            tuple(self._problems),
            tuple(self._remarks),
        )

    def _candidates(self, preferred: Sequence[SyntaxId]) -> Sequence[SyntaxId]:
        if self._syntax is not None:
            return (self._syntax,)
        self._guessed = True
        return preferred

    def _read_request(self, part: Part) -> None:
        problem = ""
        for syntax in self._candidates((NDR, NDR64)):
            try:
                self._asked = decode_activation_request(part.stub, syntax, part.byte_order)
            except BadStubError as error:
                problem = problem or f"the stub of the request is wrong: {error}"
                continue
            self._syntax = syntax
            self._opened = _open(self._asked, self._problems)
            return
        # On a context that nobody agreed on there may be anything, and a fault is the right answer to it.
        unknown = self._guessed and self._call.fault is not None
        (self._remarks if unknown else self._problems).append(problem)

    def _read_response(self, part: Part) -> None:
        problem = ""
        stub = part.stub
        # With too little in them to tell by, two kinds of failures differ in their length alone.
        wide = len(stub) == _FAILURE_LENGTH and not any(stub[:16])
        for syntax in self._candidates((NDR64, NDR) if wide else (NDR, NDR64)):
            try:
                answered, hresult = decode_activation_response(stub, syntax, part.byte_order)
            except BadStubError as error:
                problem = problem or f"the stub of the answer is wrong: {error}"
                continue
            self._syntax = syntax
            self._answered, self._hresult = answered, hresult
            self._judge(answered, hresult)
            return
        self._problems.append(problem)

    def _judge(self, answered: bytes, hresult: int) -> None:
        if hresult:
            if answered:
                self._problems.append("the answer brings data with an HRESULT other than zero")
        elif not answered:
            self._problems.append("the HRESULT is zero, but the answer brings no data")
        else:
            self._verified = _verify(answered, self._opened, self._problems)
            if self._verified is None:
                self._remarks.append("the answer cannot be verified without its request")
