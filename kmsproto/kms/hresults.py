"""
The HRESULTs of an activation, by name and in a sentence.

A host answers a request with one of a handful of codes, and a client meets a few more on the way: some are made by
Windows when an answer does not suffice, some when there was no answer at all.  The enumeration admits every other
32-bit value too, since a peer may send what it likes: an unknown code becomes a member named after its value, equal to
the number, and nobody needs two paths for codes known and unknown.

Values are unsigned, as they travel and as people write them.

Source: the specification "KMS messages, versions 4, 5 and 6", section "What a host answers"; Microsoft's documentation
of volume activation errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class HResult(IntEnum):
    """
    An HRESULT: 32 bits, unsigned.  Any value in that range makes a member; one outside raises C{ValueError}.
    """

    #: The request was granted.
    SUCCESS = 0
    #: RPC: the server's address is known, but nobody answers there (RPC_S_SERVER_UNAVAILABLE).
    RPC_SERVER_UNAVAILABLE = 0x800706BA
    #: The operator's policy denies access; our own use of the standard code (E_ACCESSDENIED).
    ACCESS_DENIED = 0x80070005
    #: The request is malformed, or of an unsupported version (ERROR_INVALID_DATA).
    INVALID_DATA = 0x8007000D
    #: DNS: the name that was asked for does not exist (DNS_ERROR_RCODE_NAME_ERROR).
    DNS_NAME_NOT_FOUND = 0x8007232B
    #: DNS: the name exists, but without records of the kind asked for (DNS_INFO_NO_RECORDS).
    DNS_NO_RECORDS = 0x8007251D
    #: The host has no room for another client.
    CLIENT_TABLE_FULL = 0xC004D104
    #: Made by the client: the count that the host reported does not suffice.
    TOO_FEW_CLIENTS = 0xC004F038
    #: The host's KMS service is not enabled.
    HOST_NOT_ENABLED = 0xC004F039
    #: The host itself has not been activated.
    HOST_NOT_ACTIVATED = 0xC004F041
    #: The host does not activate this product.
    PRODUCT_REFUSED = 0xC004F042
    #: The clocks of client and host differ by more than four hours.
    CLOCK_SKEW = 0xC004F06C
    #: Made by the client: no host could be reached.
    NO_HOST_REACHED = 0xC004F074

    @classmethod
    def _missing_(cls, value: object) -> HResult | None:
        if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"0x{value:08X}"
        member._value_ = value
        return member

    def __reduce_ex__(self, protocol: object) -> tuple[type[HResult], tuple[int]]:
        # By value: some releases of Python would look a code without a name up by its name.
        return HResult, (self.value,)

    @property
    def meaning(self) -> str:
        """
        What the code means, in one sentence; C{"unknown HRESULT"} if we do not know.
        """
        return _MEANINGS.get(self.value, "unknown HRESULT")


_MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        HResult.SUCCESS: "the request was granted",
        HResult.RPC_SERVER_UNAVAILABLE: "no RPC server answers at the host's address and port",
        HResult.ACCESS_DENIED: "the host's policy denies this client access",
        HResult.INVALID_DATA: "the host could not make sense of the request or does not speak its version",
        HResult.DNS_NAME_NOT_FOUND: "the DNS name under which a host was looked up does not exist",
        HResult.DNS_NO_RECORDS: "DNS has no SRV record that names a host",
        HResult.CLIENT_TABLE_FULL: "the host has no room in its client table for another client",
        HResult.TOO_FEW_CLIENTS: "the host has not yet counted as many clients as the product requires",
        HResult.HOST_NOT_ENABLED: "the KMS service of the host is not enabled",
        HResult.HOST_NOT_ACTIVATED: "the host has no activated KMS host key",
        HResult.PRODUCT_REFUSED: "the host does not activate this product",
        HResult.CLOCK_SKEW: "the clocks of client and host are more than four hours apart",
        HResult.NO_HOST_REACHED: "no KMS host could be reached",
    }
)
