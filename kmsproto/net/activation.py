"""
The KMS interface: where RPC calls and KMS messages meet.

A call's stub holds a KMS request, and its answer's stub a KMS response or an HRESULT.  What is wrong with the stub is
the RPC layer's affair and becomes a fault; what is wrong with the message inside is KMS's and becomes an HRESULT in
an ordinary answer (MS-RPCE 3.3.3.4.1).  Both sides of that translation stand here, and nothing else.

Source: "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

from uuid import UUID

from kmsproto.errors import HResultError, VerificationError
from kmsproto.kms.envelopes import OpenedRequest, OpenedResponse, open_response
from kmsproto.kms.hresults import HResult
from kmsproto.kms.host import Answer
from kmsproto.rpc import ndr
from kmsproto.rpc.pdu import SyntaxId
from kmsproto.rpc.server import Call
from kmsproto.rpc.state import Interface

#: The KMS interface, version 1.0, with its one operation.
KMS_INTERFACE = Interface(SyntaxId(UUID("51c82175-844e-4750-b0d8-ec255555bc06"), 1, 0), 1)
#: The opnum of RequestActivation.
REQUEST_ACTIVATION = 0


def read_request(call: Call) -> bytes:
    """
    Take the KMS request out of a call.

    @raise kmsproto.rpc.ndr.BadStubError: If the stub does not hold one; the call earns a fault.
    """
    return ndr.decode_activation_request(call.stub, call.context.transfer_syntax, call.byte_order)


def write_answer(call: Call, answer: Answer) -> bytes:
    """
    Make the stub that answers a call.
    """
    syntax = call.context.transfer_syntax
    if answer.hresult:
        return ndr.encode_activation_failure(answer.hresult, syntax)
    return ndr.encode_activation_response(answer.payload, syntax)


def write_request(payload: bytes, syntax: SyntaxId) -> bytes:
    """
    Make the stub of a call from a KMS request.
    """
    return ndr.encode_activation_request(payload, syntax)


def read_answer(stub: bytes, syntax: SyntaxId, byte_order: str, request: OpenedRequest) -> OpenedResponse:
    """
    Take the KMS response out of an answer and verify it.

    @param request: What the call asked for.
    @raise HResultError: If the host refused.
    @raise VerificationError: If the stub or the response in it is not what it must be.
    """
    try:
        payload, code = ndr.decode_activation_response(stub, syntax, byte_order)
    except ndr.BadStubError as error:
        raise VerificationError("stub", str(error)) from error
    if code:
        raise HResultError(code, HResult(code).meaning)
    return open_response(payload, request)
