"""
Tests of L{kmsproto.rpc.groups}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc.groups import AssociationGroups
from tests.rpc import PROPERTY


class AssociationGroupsTests(SynchronousTestCase):
    """
    The live association groups of a server.
    """

    def test_ids_count_from_the_seed(self) -> None:
        """
        The first id is the one behind the seed, and the next ones follow.
        """
        groups = AssociationGroups(41)
        self.assertEqual([groups.create("a") for _ in range(3)], [42, 43, 44])
        self.assertEqual(AssociationGroups().create("a"), 1)

    def test_ids_wrap_around_zero(self) -> None:
        """
        Behind the largest id comes 1, for 0 means a new group.
        """
        groups = AssociationGroups(0xFFFFFFFE)
        self.assertEqual([groups.create("a") for _ in range(2)], [0xFFFFFFFF, 1])

    def test_a_live_id_is_not_given_twice(self) -> None:
        """
        An id that lives is stepped over when counting comes round to it.
        """
        groups = AssociationGroups(0)
        self.assertEqual(groups.create("a"), 1)
        groups._last = 0xFFFFFFFF
        self.assertEqual(groups.create("a"), 2)

    def test_join(self) -> None:
        """
        A group can be joined by its own client while it lives, and by nobody else.
        """
        groups = AssociationGroups()
        group = groups.create("a")
        self.assertTrue(groups.join(group, "a"))
        self.assertFalse(groups.join(group, "b"))
        self.assertFalse(groups.join(group + 1, "a"))
        self.assertFalse(groups.join(0, "a"))

    def test_a_group_ends_with_its_last_connection(self) -> None:
        """
        A group lives as long as one connection is in it.
        """
        groups = AssociationGroups()
        group = groups.create("a")
        groups.join(group, "a")
        groups.leave(group)
        self.assertTrue(groups.join(group, "a"))
        groups.leave(group)
        groups.leave(group)
        self.assertFalse(groups.join(group, "a"))
        self.assertEqual(groups._groups, {})

    @PROPERTY
    @given(
        st.integers(-(1 << 40), 1 << 40),
        st.lists(st.tuples(st.sampled_from("cjl"), st.sampled_from("ab"), st.integers(0, 9))),
    )
    def test_agrees_with_a_model(self, seed: int, steps: list[tuple[str, str, int]]) -> None:
        """
        Whatever order connections come and go in, ids are live, unique, 32 bits wide and not zero.
        """
        groups = AssociationGroups(seed)
        members: list[tuple[int, str]] = []
        for step, peer, number in steps:
            if step == "c":
                group = groups.create(peer)
                self.assertTrue(0 < group <= 0xFFFFFFFF)
                self.assertNotIn(group, [live for live, _ in members])
                members.append((group, peer))
            elif members:
                group, owner = members[number % len(members)]
                if step == "l":
                    groups.leave(group)
                    members.remove((group, owner))
                else:
                    self.assertEqual(groups.join(group, peer), peer == owner)
                    members += [(group, owner)] * (peer == owner)
        self.assertEqual(set(groups._groups), {live for live, _ in members})
