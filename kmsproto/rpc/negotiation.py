"""
What a server makes of a bind or an alter_context: the contexts that it leads to, or the refusal that it earns.

These are functions of the PDU and of the contexts that the connection has; the table that is handed in is left as it
is, and a new one comes back.  What belongs to the connection beside its contexts, the association group, is not looked
at here.

Sources: C706 12.6.4.1 and 12.6.4.3, MS-RPCE 3.3.1.5.6 and 3.3.1.5.8; "How a correct connection-oriented DCE/RPC server
behaves", sections 3 and 8.
"""

from __future__ import annotations

from kmsproto.rpc import pdu
from kmsproto.rpc.headers import ViolationError, protocol_fault
from kmsproto.rpc.numbers import MAX_FRAGMENT, MIN_FRAGMENT, BindNakReason
from kmsproto.rpc.pdu import Bind, Header, MalformedPDUError, Negotiated
from kmsproto.rpc.state import ContextTable, IllegalContextsError

#: Authentication types that name no provider anybody has: 0, and 1, which Windows treats like it.
_NO_PROVIDERS = (0, 1)
#: Authentication levels that ask for some protection (MS-RPCE 2.2.1.1.8).
_REAL_AUTH_LEVELS = range(2, 7)


def negotiate_bind(
    header: Header, data: bytes, contexts: ContextTable, *, features: bool
) -> tuple[Bind, ContextTable, tuple[Negotiated, ...]]:
    """
    Judge a bind.

    @param contexts: The contexts before it.
    @param features: Whether bind-time features are negotiated.
    @return: The bind, the contexts behind it, and the verdict on each element.
    @raise ViolationError: If it is refused as a whole.
    """
    if header.auth_length:
        raise _refuse_security(header, data)
    try:
        bind = pdu.decode_bind(header, data)
    except MalformedPDUError as error:
        raise _nak(
            header, f"a malformed bind: {error}", BindNakReason.PROTOCOL_VERSION_NOT_SUPPORTED
        ) from error
    if not bind.elements:
        problem = "a bind without presentation contexts"
        raise _nak(header, problem, BindNakReason.PROTOCOL_VERSION_NOT_SUPPORTED)
    contexts = contexts.copy()
    try:
        results = contexts.negotiate(bind.elements, features=features)
    except IllegalContextsError as error:
        raise _nak(header, f"an illegal bind: {error}", BindNakReason.NOT_SPECIFIED) from error
    return bind, contexts, results


def choose_fragment_size(bind: Bind) -> int:
    """
    Choose the bytes of a fragment: what both sides can do, within what is negotiated at all, in steps of 8.
    """
    wanted = min(bind.max_xmit_frag, bind.max_recv_frag)
    return min(max(wanted, MIN_FRAGMENT), MAX_FRAGMENT) & ~7


def negotiate_alter_context(
    header: Header, data: bytes, contexts: ContextTable
) -> tuple[ContextTable, tuple[Negotiated, ...]]:
    """
    Judge an alter_context; sizes and group in it are ignored.

    @param contexts: The contexts before it.
    @return: The contexts behind it, and the verdict on each element.
    @raise ViolationError: If it is refused as a whole.
    """
    fault = protocol_fault(header.call_id)
    if header.auth_length:
        raise ViolationError("an alter_context with authentication", fault)
    contexts = contexts.copy()
    try:
        bind = pdu.decode_bind(header, data)
        results = contexts.negotiate(bind.elements, features=False)
    except (MalformedPDUError, IllegalContextsError) as error:
        raise ViolationError(f"an illegal alter_context: {error}", fault) from error
    if not results:
        raise ViolationError("an alter_context without presentation contexts", fault)
    return contexts, results


def _nak(header: Header, problem: str, reason: BindNakReason) -> ViolationError:
    return ViolationError(problem, pdu.encode_bind_nak(header.call_id, reason))


def _refuse_security(header: Header, data: bytes) -> ViolationError:
    """
    Word the answer to a bind with an authentication trailer.
    """
    trailer = pdu.decode_auth_trailer(header, data)
    if trailer.overlong:
        reason = BindNakReason.PROTOCOL_VERSION_NOT_SUPPORTED
    elif trailer.auth_type in _NO_PROVIDERS and trailer.auth_level not in _REAL_AUTH_LEVELS:
        reason = BindNakReason.NOT_SPECIFIED
    else:
        reason = BindNakReason.AUTHENTICATION_TYPE_NOT_RECOGNIZED
    return _nak(header, f"a bind with authentication type {trailer.auth_type}", reason)
