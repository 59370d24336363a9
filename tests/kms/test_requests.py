"""
Tests of L{kmsproto.kms.requests}.
"""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.catalog import SKU, load_catalog
from kmsproto.kms.envelopes import open_request, seal_request
from kmsproto.kms.messages import LICENCE_STATUSES, RequestBody
from kmsproto.kms.requests import FRESH_STATUS, make_request
from tests.kms.samples import CLIENT, CLIENT_TIME, NOW, REQUEST_SALT

CATALOG = load_catalog()
VISTA = CATALOG.product("Windows Vista Business")
OFFICE_2013 = CATALOG.product("Office Professional Plus 2013")


def request_for(product: SKU, protocol: int | None = None, workstation: str = "pc") -> RequestBody:
    """
    Make the request of a product at a fixed time on a fixed machine.
    """
    return make_request(
        CATALOG,
        product,
        client_machine_id=CLIENT,
        workstation=workstation,
        now=NOW,
        protocol=protocol,
    )


class MakeRequestTests(SynchronousTestCase):
    """
    The request that a product's own client would send.
    """

    def test_fields(self) -> None:
        """
        A machine that was just installed asks for its product, and has never been another machine.
        """
        self.assertEqual(
            request_for(OFFICE_2013, workstation="desk-17.example.org"),
            RequestBody(
                minor_version=0,
                major_version=5,
                is_virtual_machine=0,
                licence_status=2,
                binding_expiration=0,
                application_id=UUID("0ff1ce15-a989-479d-af46-f275c6370663"),
                sku_id=UUID("b322da9c-a2e2-4058-9e4e-f59a6970bd69"),
                kms_id=UUID("e6a6f1bf-9d40-40c3-aa9f-c77ba21578c0"),
                client_machine_id=CLIENT,
                n_policy=5,
                client_time=CLIENT_TIME,
                previous_client_machine_id=UUID(int=0),
                workstation="desk-17.example.org",
                remains=b"",
            ),
        )

    def test_fresh_status(self) -> None:
        """
        The licence status of a machine that was just installed is the out-of-box grace.
        """
        self.assertEqual(FRESH_STATUS, 2)
        self.assertEqual(LICENCE_STATUSES[FRESH_STATUS], "OOB grace")

    def test_own_protocol(self) -> None:
        """
        A product asks in the version of its own clients, which may differ from that of its KMS id.
        """
        for product in CATALOG.skus.values():
            self.assertEqual(request_for(product).major_version, product.protocol)
        self.assertEqual(request_for(VISTA).major_version, 4)

    def test_other_protocol(self) -> None:
        """
        It can be made to ask in another version, also in one that does not exist.
        """
        for protocol in (4, 5, 6, 7, 0):
            body = request_for(VISTA, protocol)
            self.assertEqual((body.minor_version, body.major_version), (0, protocol))
            self.assertEqual(body, request_for(VISTA)._replace(major_version=protocol))

    def test_every_product(self) -> None:
        """
        Every product's request says its application, KMS id and N policy.
        """
        for product in CATALOG.skus.values():
            kms_id = CATALOG.kms_ids[product.kms_id]
            body = request_for(product)
            self.assertEqual(
                (body.sku_id, body.kms_id, body.application_id, body.n_policy),
                (product.guid, kms_id.guid, kms_id.application, kms_id.n_policy),
            )

    def test_host_opens(self) -> None:
        """
        A host opens what was made.
        """
        body = request_for(OFFICE_2013)
        payload, opened = seal_request(body, REQUEST_SALT)
        self.assertEqual(open_request(payload), opened)

    def test_name_too_long(self) -> None:
        """
        A name of 64 code units is found out when the request is sealed.
        """
        body = request_for(OFFICE_2013, workstation="x" * 64)
        self.assertRaises(LocalProtocolError, seal_request, body, REQUEST_SALT)
