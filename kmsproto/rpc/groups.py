"""
Association groups: which connections of a client belong together.

A client that opens further connections names the group of its first, and thereby says that they share a context in
the server.  Here they share nothing, since presentation contexts belong to a connection; but a group that does not
live, or belongs to another client, must be refused, for the client relies on the difference.

Source: C706 12.6.4.4, MS-RPCE 3.3.1.1.5 and 3.3.1.5.7.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Group:
    """
    An association group: connections of one client address (C706 12.6.3.6).
    """

    peer: str
    members: int = 1


class AssociationGroups:
    """
    The live association groups of a server.

    @param seed: Where to begin counting; any number.
    """

    def __init__(self, seed: int = 0) -> None:
        self._groups: dict[int, _Group] = {}
        self._last = seed

    def create(self, peer: str) -> int:
        """
        Make a group for a connection of that client.

        @return: Its id: 32 bits, not zero, unique among the live ones.
        """
        while True:
            self._last = self._last % 0xFFFFFFFF + 1
            if self._last not in self._groups:
                self._groups[self._last] = _Group(peer)
                return self._last

    def join(self, group_id: int, peer: str) -> bool:
        """
        Put a further connection of the same client into a live group.

        @return: Whether there is such a group.
        """
        group = self._groups.get(group_id)
        if group is None or group.peer != peer:
            return False
        group.members += 1
        return True

    def leave(self, group_id: int) -> None:
        """
        Take a connection out of its group; with its last connection the group ends.
        """
        group = self._groups[group_id]
        group.members -= 1
        if not group.members:
            del self._groups[group_id]
