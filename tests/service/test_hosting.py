"""
Where processes begin to number their association groups.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.hosting import group_seed
from kmsproto.service.kinds import MAXIMUM_WORKERS


class GroupSeedTests(SynchronousTestCase):
    """
    The choice.
    """

    @given(st.integers(2, MAXIMUM_WORKERS), st.data())
    def test_ranges(self, workers: int, data: st.DataObject) -> None:
        """
        Each worker begins in the lower half of a range of its own.
        """
        worker = data.draw(st.integers(1, workers))
        seed = group_seed(
            lambda length: data.draw(st.binary(min_size=length, max_size=length)), worker, workers
        )
        span = 2**32 // workers
        self.assertEqual((seed // span, seed % span < span // 2), (worker - 1, True))

    def test_alone(self) -> None:
        """
        A process that is alone begins anywhere.
        """
        self.assertEqual(group_seed(lambda length: b"\xff" * length), 2**32 - 1)
        self.assertEqual(group_seed(lambda length: bytes(length)), 0)
