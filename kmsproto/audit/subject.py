"""
The host that is audited, as far as the cases know it, and the requests they send it.

Every case asks for the same product as the same client, so that an audit fills no table of clients: the host meets
one.  What only an ordinary exchange can tell, which HRESULT the host has for that product and what it negotiates, is
learned first (L{kmsproto.audit.battery.meet}) and handed to all cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.envelopes import SALT_LENGTH, OpenedRequest, seal_request
from kmsproto.kms.messages import RequestBody

#: Seconds of silence after which a host that need not say anything is believed to say nothing.
QUIET = 0.2


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What the cases are given.

    @ivar request: An ordinary request of the product that is asked for; its time is the present.
    @ivar catalog: Knows what the host's answers can be compared with.
    @ivar entropy: Gives so many random bytes.
    @ivar port: The TCP port of the host, as far as we know it.
    @ivar patience: Seconds that the host has for each answer.
    @ivar quiet: Seconds that it has where it need not say anything.
    @ivar hresult: What the host answers to an ordinary request.
    @ivar ndr64: Whether it accepts NDR64.
    @ivar features: Whether it negotiates bind-time features.
    @ivar management: Whether it has the management interface.
    @ivar single_call: Whether it closes each connection after a call.
    @ivar single_connection: Whether it lets a second connection wait until the first was closed.
    """

    request: RequestBody
    catalog: Catalog
    entropy: Callable[[int], bytes]
    port: int
    patience: float
    quiet: float = QUIET
    hresult: int = 0
    ndr64: bool = True
    features: bool = True
    management: bool = True
    single_call: bool = False
    single_connection: bool = False

    def seal(self, version: int | None = None, **changes: Any) -> tuple[bytes, OpenedRequest]:
        """
        Make a request.

        @param version: The protocol version; by default the product's own.
        @param changes: Fields of the body that shall be others.
        @return: The KMS message, and what has to be remembered to verify the answer.
        """
        body = self.request._replace(**changes)
        if version is not None:
            body = body._replace(major_version=version)
        return seal_request(body, self.entropy(SALT_LENGTH))

    def payload(self, version: int | None = None) -> bytes:
        """
        Make the KMS message of an ordinary request.
        """
        return self.seal(version)[0]
