"""
Where processes begin to number their association groups.
"""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.kms.catalog import load_catalog
from kmsproto.service.hosting import Founding, group_seed, make_site
from kmsproto.service.kinds import MAXIMUM_WORKERS
from kmsproto.service.sources import gather
from kmsproto.testing import INSTALLATION


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


class NamesTests(SynchronousTestCase):
    """
    Names in settings that only the products know.
    """

    def test_origin_of_others(self) -> None:
        """
        So are a host build that is not known, and a file of products that cannot be used.
        """
        for variable, text in (
            ("KMSPROTO_HOST_BUILD", "12345"),
            ("KMSPROTO_KMS_DATA", "/nowhere.kmd"),
            ("KMSPROTO_KMS_DATA", "/dev/null"),
        ):
            effective = gather({}, {variable: text, "KMSPROTO_CONFIG": "/dev/null"}, 0)
            with self.assertRaises(KMSProtoError) as caught:
                Founding(INSTALLATION).site(effective)
            self.assertTrue(str(caught.exception).startswith(f"{variable}: "), caught.exception)

    def test_origin(self) -> None:
        """
        One that means nothing is reported with where it came from.
        """
        catalog = load_catalog()
        for name, variable in (
            ("deny-product", "KMSPROTO_DENY_PRODUCT"),
            ("epid", "KMSPROTO_EPID"),
        ):
            environment = {variable: "nosuch=x", "KMSPROTO_CONFIG": "/dev/null"}
            effective = gather({}, environment, 0)
            for settings, where in ((effective, variable), (dict(effective), f"--{name}")):
                with self.assertRaises(KMSProtoError) as caught:
                    make_site(
                        settings,
                        INSTALLATION,
                        catalog=catalog,
                        counts=None,
                        drawn=bytes(16),
                        today=date(2026, 1, 1),
                    )
                text = str(caught.exception)
                self.assertTrue(text.startswith(f"{where}: there is no "), text)
                self.assertNotIn("\n", text)
