"""
The legal order of PDUs as transition tables, and the negotiation of presentation contexts.

An arrival that is not in the table of its side is a protocol error, found by a failed look-up; which answer it earns,
and that a first PDU is refused for its header alone, is for the side to say (L{kmsproto.rpc.server},
L{kmsproto.rpc.headers}).  What may arrive is a small alphabet (L{Arrival}), because the legality of a request depends
only on whether it opens a call, continues one, closes one, or is all three at once.

The negotiation (L{ContextTable}) judges a whole list of elements at a time, for the verdict on one depends on the
others: of the new contexts for one interface at most one is accepted in each PDU, as Windows does, and it is the one
with the preferred transfer syntax if there is one.

Sources: C706 12.6.4.1 to 12.6.4.4, MS-RPCE 3.3.1.5.3 and 3.3.1.5.6; "How a correct connection-oriented DCE/RPC server
behaves", sections 1, 3, 4, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from kmsproto.errors import RemoteProtocolError
from kmsproto.rpc.numbers import ContextResult, PacketFlag, PacketType, ProviderReason
from kmsproto.rpc.pdu import (
    KNOWN_FEATURES,
    NDR,
    NDR64,
    NO_SYNTAX,
    ContextElement,
    Negotiated,
    SyntaxId,
    requested_features,
)


class ServerState(Enum):
    """
    What the server side of a connection has agreed to so far.
    """

    ESTABLISHED = auto()  #: the TCP connection is there; only a bind is legal
    BOUND = auto()  #: contexts are negotiated; calls are served
    RECEIVING = auto()  #: a fragmented call has begun
    DISCARDING = auto()  #: the rest of a fragmented call that was refused or orphaned is dropped
    CLOSED = auto()  #: nothing is looked at any more


class ClientState(Enum):
    """
    What the client side of a connection is waiting for.
    """

    UNBOUND = auto()  #: nothing was sent yet
    BINDING = auto()  #: a bind waits for its bind_ack
    BOUND = auto()  #: calls may be made
    ALTERING = auto()  #: an alter_context waits for its alter_context_resp
    CLOSED = auto()  #: nothing is looked at any more


class Arrival(Enum):
    """
    What can happen to a connection, as far as order is concerned.
    """

    BIND = auto()  #: a bind PDU
    ALTER_CONTEXT = auto()  #: an alter_context PDU
    AUTH3 = auto()  #: an rpc_auth_3 PDU, tolerated and not answered
    CO_CANCEL = auto()  #: a co_cancel PDU
    ORPHANED = auto()  #: an orphaned PDU
    WHOLE_CALL = auto()  #: a request PDU that is a call by itself
    FIRST_FRAGMENT = auto()  #: a request PDU that opens a call
    MIDDLE_FRAGMENT = auto()  #: a request PDU that continues a call
    LAST_FRAGMENT = auto()  #: a request PDU that completes a call
    CALL_DROPPED = auto()  #: we gave up the call that is being received
    BIND_ACK = auto()  #: a bind_ack PDU
    BIND_NAK = auto()  #: a bind_nak PDU
    ALTER_CONTEXT_RESP = auto()  #: an alter_context_resp PDU
    RESPONSE = auto()  #: a response PDU
    FAULT = auto()  #: a fault PDU for a call
    ALTER_REFUSED = auto()  #: a fault PDU for the alter_context that is waiting


_REQUESTS = {
    0: Arrival.MIDDLE_FRAGMENT,
    int(PacketFlag.FIRST): Arrival.FIRST_FRAGMENT,
    int(PacketFlag.LAST): Arrival.LAST_FRAGMENT,
    int(PacketFlag.FIRST | PacketFlag.LAST): Arrival.WHOLE_CALL,
}

_SERVER_ARRIVALS: dict[int, Arrival] = {
    PacketType.BIND: Arrival.BIND,
    PacketType.ALTER_CONTEXT: Arrival.ALTER_CONTEXT,
    PacketType.AUTH3: Arrival.AUTH3,
    PacketType.CO_CANCEL: Arrival.CO_CANCEL,
    PacketType.ORPHANED: Arrival.ORPHANED,
}

_CLIENT_ARRIVALS: dict[int, Arrival] = {
    PacketType.BIND_ACK: Arrival.BIND_ACK,
    PacketType.BIND_NAK: Arrival.BIND_NAK,
    PacketType.ALTER_CONTEXT_RESP: Arrival.ALTER_CONTEXT_RESP,
    PacketType.RESPONSE: Arrival.RESPONSE,
    PacketType.FAULT: Arrival.FAULT,
}


def server_arrival(packet_type: int, flags: int) -> Arrival | None:
    """
    Name what a PDU from a client means for the order.

    @return: The arrival, or L{None} for a packet type that no client may send.
    """
    if packet_type == PacketType.REQUEST:
        return _REQUESTS[flags & 3]
    return _SERVER_ARRIVALS.get(packet_type)


def client_arrival(packet_type: int) -> Arrival | None:
    """
    Name what a PDU from a server means for the order.

    @return: The arrival, or L{None} for a packet type that we do not expect from a server.
    """
    return _CLIENT_ARRIVALS.get(packet_type)


#: Every legal step of the server side; all others are protocol errors.
SERVER_TRANSITIONS: dict[ServerState, dict[Arrival, ServerState]] = {
    ServerState.ESTABLISHED: {
        Arrival.BIND: ServerState.BOUND,
    },
    ServerState.BOUND: {
        Arrival.ALTER_CONTEXT: ServerState.BOUND,
        Arrival.AUTH3: ServerState.BOUND,
        Arrival.CO_CANCEL: ServerState.BOUND,
        Arrival.ORPHANED: ServerState.BOUND,
        Arrival.WHOLE_CALL: ServerState.BOUND,
        Arrival.FIRST_FRAGMENT: ServerState.RECEIVING,
    },
    ServerState.RECEIVING: {
        Arrival.ALTER_CONTEXT: ServerState.RECEIVING,
        Arrival.AUTH3: ServerState.RECEIVING,
        Arrival.CO_CANCEL: ServerState.RECEIVING,
        Arrival.ORPHANED: ServerState.RECEIVING,
        Arrival.MIDDLE_FRAGMENT: ServerState.RECEIVING,
        Arrival.LAST_FRAGMENT: ServerState.BOUND,
        Arrival.CALL_DROPPED: ServerState.DISCARDING,
    },
    ServerState.DISCARDING: {
        Arrival.ALTER_CONTEXT: ServerState.DISCARDING,
        Arrival.AUTH3: ServerState.DISCARDING,
        Arrival.CO_CANCEL: ServerState.DISCARDING,
        Arrival.ORPHANED: ServerState.DISCARDING,
        Arrival.WHOLE_CALL: ServerState.BOUND,
        Arrival.FIRST_FRAGMENT: ServerState.RECEIVING,
        Arrival.MIDDLE_FRAGMENT: ServerState.DISCARDING,
        Arrival.LAST_FRAGMENT: ServerState.BOUND,
    },
    ServerState.CLOSED: {},
}

#: Every legal step of the client side; what we send is named by the PDU that it is.
CLIENT_TRANSITIONS: dict[ClientState, dict[Arrival, ClientState]] = {
    ClientState.UNBOUND: {
        Arrival.BIND: ClientState.BINDING,
    },
    ClientState.BINDING: {
        Arrival.BIND_ACK: ClientState.BOUND,
        Arrival.BIND_NAK: ClientState.CLOSED,
    },
    ClientState.BOUND: {
        Arrival.ALTER_CONTEXT: ClientState.ALTERING,
        Arrival.WHOLE_CALL: ClientState.BOUND,
        Arrival.RESPONSE: ClientState.BOUND,
        Arrival.FAULT: ClientState.BOUND,
    },
    ClientState.ALTERING: {
        Arrival.ALTER_CONTEXT_RESP: ClientState.BOUND,
        Arrival.ALTER_REFUSED: ClientState.BOUND,
        Arrival.RESPONSE: ClientState.ALTERING,
        Arrival.FAULT: ClientState.ALTERING,
    },
    ClientState.CLOSED: {},
}


class Interface(NamedTuple):
    """
    An interface that a server offers.

    @ivar syntax: Its UUID and version.
    @ivar operation_count: How many operations it has; the opnums are 0 to this, exclusive.
    """

    syntax: SyntaxId
    operation_count: int


class Context(NamedTuple):
    """
    A presentation context that was accepted.

    @ivar interface: What a call on it talks about.
    @ivar transfer_syntax: How: NDR or NDR64.
    """

    interface: Interface
    transfer_syntax: SyntaxId


class IllegalContextsError(RemoteProtocolError):
    """
    A list of elements breaks the protocol as a whole, so that no verdict on its elements is due.
    """


#: Contexts of one interface that a connection may hold (MS-RPCE 3.3.3.5.5, spread evenly over the interfaces).
MAX_CONTEXTS_PER_INTERFACE = 4000


def _refused(reason: ProviderReason) -> Negotiated:
    return Negotiated(ContextResult.PROVIDER_REJECTION, reason, NO_SYNTAX)


def _accepted(syntax: SyntaxId) -> Negotiated:
    return Negotiated(ContextResult.ACCEPTANCE, ProviderReason.NOT_SPECIFIED, syntax)


_UNKNOWN_INTERFACE = _refused(ProviderReason.ABSTRACT_SYNTAX_NOT_SUPPORTED)
_NO_TRANSFER_SYNTAX = _refused(ProviderReason.PROPOSED_TRANSFER_SYNTAXES_NOT_SUPPORTED)
_TOO_MANY_CONTEXTS = _refused(ProviderReason.LOCAL_LIMIT_EXCEEDED)


class ContextTable:
    """
    The presentation contexts of one connection.

    Connections that came to the same contexts may share a table; who negotiates takes a L{copy} first.

    @param interfaces: What is offered.
    @param ndr64: Whether NDR64 is spoken; where it is, it is preferred.
    """

    __slots__ = ("_contexts", "_counts", "_interfaces", "_supported")

    def __init__(self, interfaces: Sequence[Interface], *, ndr64: bool) -> None:
        self._interfaces = interfaces
        self._supported = (NDR64, NDR) if ndr64 else (NDR,)
        self._contexts: dict[int, Context] = {}
        self._counts: dict[SyntaxId, int] = {}

    @property
    def size(self) -> int:
        """
        How many contexts were accepted.
        """
        return len(self._contexts)

    def copy(self) -> ContextTable:
        """
        Make a table with the same contexts, which can be negotiated further.
        """
        other = ContextTable(self._interfaces, ndr64=NDR64 in self._supported)
        other._contexts.update(self._contexts)
        other._counts.update(self._counts)
        return other

    def get(self, context_id: int) -> Context | None:
        """
        Look an accepted context up.
        """
        return self._contexts.get(context_id)

    def negotiate(
        self, elements: Sequence[ContextElement], *, features: bool
    ) -> tuple[Negotiated, ...]:
        """
        Judge the elements of one PDU, and remember what is accepted.

        @param features: Whether bind-time features may be negotiated, which only a bind can do.
        @return: One verdict for each element, in order.
        @raise IllegalContextsError: If an element without transfer syntaxes, a second negotiation of features, or
            the change of an accepted context makes the PDU illegal; then nothing has changed.
        """
        verdicts: list[Negotiated | None] = []
        candidates: list[tuple[int, Interface, SyntaxId]] = []
        for position, element in enumerate(elements):
            verdict = self._judge_features(element) if features else None
            if verdict is not None and any(v and v.result == verdict.result for v in verdicts):
                raise IllegalContextsError("bind-time features are negotiated twice")
            verdicts.append(verdict)
            if verdict is None:
                interface = self._find_interface(element.abstract_syntax)
                syntax = self._choose_syntax(element, interface)
                if interface is None:
                    verdicts[position] = _UNKNOWN_INTERFACE
                elif syntax is not None:
                    candidates.append((position, interface, syntax))
        self._decide(elements, candidates, verdicts)
        return tuple(verdict or _NO_TRANSFER_SYNTAX for verdict in verdicts)

    def _decide(
        self,
        elements: Sequence[ContextElement],
        candidates: Sequence[tuple[int, Interface, SyntaxId]],
        verdicts: list[Negotiated | None],
    ) -> None:
        """
        Accept what can be accepted of the elements that name an interface and a transfer syntax of ours.

        As Windows does: of the new contexts for an interface only one, with the preferred transfer syntax if there is
        one; a known context again, unless it stands behind that new one; and no id twice.
        """
        preferred = self._supported[0]
        accepted_ids: set[int] = set()
        accepted_at: dict[SyntaxId, int] = {}
        known = []
        # The sort is stable: the preferred syntax first, and within it the order of the client.
        for position, interface, syntax in sorted(
            candidates, key=lambda each: each[2] != preferred
        ):
            context_id = elements[position].context_id
            if context_id in self._contexts and context_id not in accepted_ids:
                known.append((position, interface, syntax))
            elif context_id not in accepted_ids and interface.syntax not in accepted_at:
                verdict = verdicts[position] = self._accept(context_id, Context(interface, syntax))
                if verdict.result == ContextResult.ACCEPTANCE:
                    accepted_ids.add(context_id)
                    accepted_at[interface.syntax] = position
        for position, interface, syntax in sorted(known):
            context_id = elements[position].context_id
            behind = position > accepted_at.get(interface.syntax, position)
            if context_id not in accepted_ids and not behind:
                accepted_ids.add(context_id)
                verdicts[position] = _accepted(syntax)

    @staticmethod
    def _judge_features(element: ContextElement) -> Negotiated | None:
        asked = (
            requested_features(element.transfer_syntaxes[0]) if element.transfer_syntaxes else None
        )
        if asked is None:
            return None
        return Negotiated(ContextResult.NEGOTIATE_ACK, asked & KNOWN_FEATURES, NO_SYNTAX)

    def _find_interface(self, wanted: SyntaxId) -> Interface | None:
        """
        Find the interface of that UUID and major version whose minor version is at least the one asked for.
        """
        for interface in self._interfaces:
            offered = interface.syntax
            if offered[:2] == wanted[:2] and offered.minor >= wanted.minor:
                return interface
        return None

    def _choose_syntax(
        self, element: ContextElement, interface: Interface | None
    ) -> SyntaxId | None:
        """
        Choose the transfer syntax that an element would be accepted with.

        @raise IllegalContextsError: If the element would change a context that was accepted before, or has none.
        """
        offered = element.transfer_syntaxes
        if not offered:
            raise IllegalContextsError(f"context {element.context_id} offers no transfer syntax")
        usable = [syntax for syntax in self._supported if syntax in offered]
        known = self._contexts.get(element.context_id)
        if known is None or interface is None:
            return next(iter(usable), None)
        if interface != known.interface:
            raise IllegalContextsError(f"context {element.context_id} would change its interface")
        if known.transfer_syntax in usable:
            return known.transfer_syntax
        if usable:
            raise IllegalContextsError(
                f"context {element.context_id} would change its transfer syntax"
            )
        return None

    def _accept(self, context_id: int, context: Context) -> Negotiated:
        """
        Remember a new context, if there is room for it.
        """
        interface = context.interface.syntax
        count = self._counts.get(interface, 0)
        if count >= MAX_CONTEXTS_PER_INTERFACE:
            return _TOO_MANY_CONTEXTS
        self._counts[interface] = count + 1
        self._contexts[context_id] = context
        return _accepted(context.transfer_syntax)
