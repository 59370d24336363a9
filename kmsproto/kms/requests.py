"""
What a client asks for a product: the request body that a product's own client would send.

The licence status is that of a machine that was just installed and asks for the first time; the time left in it is 0,
as widely used clients send it.
"""

from __future__ import annotations

from uuid import UUID

from kmsproto.kms.catalog import SKU, Catalog
from kmsproto.kms.messages import LICENCE_STATUSES, RequestBody, filetime

#: The licence status of a machine that was just installed.
FRESH_STATUS = LICENCE_STATUSES.index("OOB grace")


def make_request(
    catalog: Catalog,
    product: SKU,
    *,
    client_machine_id: UUID,
    workstation: str,
    now: float,
    protocol: int | None = None,
) -> RequestBody:
    """
    Make the request of a product's client.

    @param catalog: Knows the application and the N policy of the product.
    @param client_machine_id: Who asks; a host counts by it.
    @param workstation: The name of the machine, at most 63 UTF-16 code units.
    @param now: POSIX seconds.
    @param protocol: The protocol version; by default the product's own.
    """
    kms_id = catalog.kms_ids[product.kms_id]
    return RequestBody(
        minor_version=0,
        major_version=product.protocol if protocol is None else protocol,
        is_virtual_machine=0,
        licence_status=FRESH_STATUS,
        binding_expiration=0,
        application_id=kms_id.application,
        sku_id=product.guid,
        kms_id=kms_id.guid,
        client_machine_id=client_machine_id,
        n_policy=kms_id.n_policy,
        client_time=filetime(now),
        previous_client_machine_id=UUID(int=0),
        workstation=workstation,
    )
