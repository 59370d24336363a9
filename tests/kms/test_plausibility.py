"""
Tests of L{kmsproto.kms.plausibility}: what one may wonder about in an answer.
"""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.findings import Severity
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.epid import ExtendedPID
from kmsproto.kms.messages import RequestBody, ResponseBody
from kmsproto.kms.plausibility import csvlks_of, examine_answer
from kmsproto.kms.requests import make_request
from kmsproto.testing import make_host
from tests.kms.handmade import response_of

CATALOG = load_catalog()
IDENTITY = make_host(catalog=CATALOG).identity
HARDWARE_ID = bytes(range(8))


def asked(product: str) -> RequestBody:
    """
    Make the request of a product.
    """
    return make_request(
        CATALOG,
        CATALOG.product(product),
        client_machine_id=UUID(int=5),
        workstation="lab-7",
        now=1.8e9,
    )


def answered(epid: str) -> ResponseBody:
    """
    Make an answer with an ePID.
    """
    return response_of(6)._replace(
        epid=epid, client_count=50, activation_interval=120, renewal_interval=10080
    )


class PlausibilityTests(SynchronousTestCase):
    """
    What is found.
    """

    def problems(
        self,
        body: ResponseBody,
        product: str = "Windows 10/11 Enterprise",
        hwid: bytes = HARDWARE_ID,
    ) -> list[str]:
        """
        List what is found, as names and problems.
        """
        found = examine_answer(body, hwid, asked(product), CATALOG)
        return [f"{each.rule}: {each.problem}" for each in found]

    def own_epid(self, product: str) -> str:
        """
        Ask a host of our own for its ePID.
        """
        csvlk = CATALOG.csvlk_for(asked(product).kms_id)
        return IDENTITY.epid(csvlk.key)

    def test_own_hosts(self) -> None:
        """
        Nothing is found in what a host of ours says, whichever product asks.
        """
        for sku in CATALOG.skus.values():
            csvlk = CATALOG.csvlk_for(sku.kms_id)
            count = max(2 * CATALOG.kms_ids[sku.kms_id].n_policy, csvlk.minimum_active_clients)
            body = answered(self.own_epid(str(sku.number)))._replace(client_count=count)
            self.assertEqual(self.problems(body, str(sku.number)), [], sku.name)

    def test_form(self) -> None:
        """
        A text that is no ePID is found.
        """
        self.assertEqual(
            self.problems(answered("none")), ["ePID: the ePID has not the form of one"]
        )

    def test_unknown_group(self) -> None:
        """
        A group id that nobody knows is found.
        """
        epid = "03612-65000-000-000000-03-1033-26100.0000-0012026"
        self.assertEqual(
            self.problems(answered(epid)), ["ePID: no key group has the group id 65000"]
        )

    def test_another_product(self) -> None:
        """
        An ePID of a key that does not activate the product is found.
        """
        epid = self.own_epid("Office Professional Plus 2019")
        (problem,) = self.problems(answered(epid))
        self.assertIn("do not activate", problem)

    def test_impossible(self) -> None:
        """
        An ePID that no genuine host could have is found, also where the product is not known.
        """
        epid = self.own_epid("Windows 10/11 Enterprise")
        early = epid[:-7] + "0012001"
        (problem,) = self.problems(answered(early))
        self.assertIn("2001-01-01", problem)
        request = asked("1")._replace(kms_id=UUID(int=77))
        found = list(examine_answer(answered(early), b"", request, CATALOG))
        self.assertEqual([each.severity for each in found], [Severity.WARNING])

    def test_future(self) -> None:
        """
        A host key cannot have been activated on a day that has not come.
        """
        epid = self.own_epid("Windows 10/11 Enterprise")
        (problem,) = self.problems(answered(epid[:-7] + "0012099"))
        self.assertIn("2099-01-01, the day of activation, has not come yet", problem)

    def test_counts(self) -> None:
        """
        A count over twice the N policy is found, and the grant of an N policy that no host may accept.
        """
        body = answered(self.own_epid("Windows 10/11 Enterprise"))._replace(client_count=51)
        (problem,) = self.problems(body)
        self.assertIn("count: the count is 51", problem)
        request = asked("Windows 10/11 Enterprise")._replace(n_policy=1001)
        (found,) = examine_answer(body, HARDWARE_ID, request, CATALOG)
        self.assertIn("N policy of 1001", found.problem)

    def test_numbers(self) -> None:
        """
        A count of 0, an interval of less than 15 minutes or more than 30 days, and a hardware id of zero are found.
        """
        body = answered(self.own_epid("Windows 10/11 Enterprise"))
        self.assertEqual(
            [each.partition(":")[0] for each in self.problems(body._replace(client_count=0))],
            ["count"],
        )
        for minutes in (0, 14, 43201):
            self.assertIn(
                f"is {minutes} minutes",
                self.problems(body._replace(activation_interval=minutes))[0],
            )
            self.assertIn("renewal", self.problems(body._replace(renewal_interval=minutes))[0])
        self.assertEqual(
            self.problems(body, hwid=bytes(8)), ["hardware id: the hardware id is zero"]
        )

    def test_key_groups(self) -> None:
        """
        The key groups of an ePID are those with its key id, or all of its group.
        """
        pid = ExtendedPID.parse(self.own_epid("Windows 10/11 Enterprise"))
        fitting = csvlks_of(CATALOG, pid)
        self.assertTrue(fitting)
        for csvlk in fitting:
            self.assertTrue(any(first <= pid.key_id <= last for first, last in csvlk.key_id_ranges))
        group = [each for each in CATALOG.csvlks.values() if each.group_id == pid.group_id]
        far = ExtendedPID(pid.platform_id, pid.group_id, 999_999_999, pid.lcid, pid.build, pid.day)
        self.assertEqual(csvlks_of(CATALOG, far), group)
