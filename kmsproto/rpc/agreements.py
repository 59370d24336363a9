"""
What binds and alter_contexts led to, remembered: the clients of a host all say the same when they connect.

The answer to such a PDU depends on its bytes, on the contexts that the connection has already, and on the port that
is named in it; beside these only the call id and the association group differ from connection to connection, and
these have their places in the answer.  So an L{Agreement} that was reached once serves every connection that comes
the same way.  The contexts that it led to are shared by those connections, and never change.

Only what was accepted on the long path is remembered, and only so much of it that memory stays bounded whatever
clients may think of.  When there is too much, all is forgotten, and what is in use comes back with its next use.
"""

from __future__ import annotations

from typing import NamedTuple

from kmsproto.rpc.state import ContextTable

#: Agreements that are remembered; a network has a handful of kinds of clients.
MAX_AGREEMENTS = 256
#: Bytes of a PDU, and contexts of a connection, for which it is worth while.
MAX_PDU, MAX_CONTEXTS = 1024, 16

#: What an answer depends on: the PDU in two parts around its call id, the contexts before it, the port.
_Key = tuple[bytes, bytes, ContextTable, str]


class Agreement(NamedTuple):
    """
    What a bind or alter_context leads to.

    @ivar contexts: The contexts of the connection from now on.
    @ivar fragment_size: Bytes that a fragment may have from now on.
    @ivar max_calls: Calls that may wait for their answers from now on.
    @ivar start: The bind_ack or alter_context_resp up to its call id.
    @ivar sizes: What stands in it between call id and association group.
    @ivar end: What stands in it behind the association group.
    """

    contexts: ContextTable
    fragment_size: int
    max_calls: int
    start: bytes
    sizes: bytes
    end: bytes

    def answer(self, data: bytes, group: int) -> bytes:
        """
        Make the acknowledgement for one connection.

        @param data: The PDU that is answered, which is little-endian.
        @param group: The association group of the connection.
        """
        return b"".join(
            (self.start, data[12:16], self.sizes, group.to_bytes(4, "little"), self.end)
        )


def agree(
    contexts: ContextTable, fragment_size: int, max_calls: int, acknowledgement: bytes
) -> Agreement:
    """
    Take an acknowledgement apart, where the call id and the association group stand in it.
    """
    start, sizes, end = acknowledgement[:12], acknowledgement[16:20], acknowledgement[24:]
    return Agreement(contexts, fragment_size, max_calls, start, sizes, end)


class Agreements:
    """
    The agreements that a server remembers.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, Agreement] = {}

    def find(self, data: bytes, contexts: ContextTable, port: str) -> Agreement | None:
        """
        Look up what a segment leads to, if it is a PDU that was met before.

        @param data: The segment.
        @param contexts: The contexts that the connection has.
        @param port: The own port in decimal.
        """
        return self._known.get((data[:12], data[16:], contexts, port))

    def remember(
        self, data: bytes, contexts: ContextTable, port: str, agreement: Agreement
    ) -> None:
        """
        Keep what a PDU led to, if it is one that others may send too.
        """
        if len(data) > MAX_PDU or agreement.contexts.size > MAX_CONTEXTS:
            return
        if len(self._known) >= MAX_AGREEMENTS:
            self._known.clear()
        self._known[data[:12], data[16:], contexts, port] = agreement
