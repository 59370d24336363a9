"""
Messages made by hand, from their parts and with the ciphers alone, for the tests of L{kmsproto.kms.envelopes}.

A message can be made wrong in exactly one point: what is proven, hashed or signed beside that point is right.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct

from kmsproto.kms.envelopes import OpenedRequest, seal_request, seal_response
from kmsproto.kms.messages import RequestBody, ResponseBody, encode_response_body
from kmsproto.kms.rijndael import Rijndael
from tests.kms.samples import (
    CLIENT_TIME,
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
)

VERSION = Struct("<HH")
CIPHERS = {
    5: Rijndael(bytes.fromhex("cd7e796f2ab25dcb55ffc8ef8364c470")),
    6: Rijndael(bytes.fromhex("a94a4195e201432d9bcb460405d84a21"), {64: 0x73, 96: 0x09, 128: 0xE4}),
}

#: The numbers of the HMAC key, from the specification.
STEP, FACTOR, OFFSET = 0x22816889BD, 0x208CBAB5ED, 0x3156CD5AC628477A

#: Versions that nobody speaks, as (minor, major).
WRONG_VERSIONS = ((0, 3), (1, 4), (1, 6), (0, 7), (6, 0), (0, 0), (65535, 65535))


def version_bytes(major: int, minor: int = 0) -> bytes:
    """
    Write a version, minor first.
    """
    return VERSION.pack(minor, major)


def xor(a: bytes, b: bytes) -> bytes:
    """
    Add two strings of bytes.
    """
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def flipped(data: bytes, place: int, mask: int = 1) -> bytes:
    """
    Change one byte.
    """
    changed = bytearray(data)
    changed[place] ^= mask
    return bytes(changed)


def padded(message: bytes) -> bytes:
    """
    Pad as RFC 5652 has it.
    """
    length = 16 - len(message) % 16
    return message + bytes([length] * length)


def expected_hmac(client_time: int, message: bytes, slot: int = 0) -> bytes:
    """
    Compute the HMAC of version 6 step by step.
    """
    number = (client_time // STEP) * FACTOR + OFFSET
    number = (number + slot * STEP) % 2**64
    key = hashlib.sha256(number.to_bytes(8, "little")).digest()[-16:]
    return hmac.new(key, message, hashlib.sha256).digest()[-16:]


def request_of(version: int) -> RequestBody:
    """
    Get the sample request in a version.
    """
    return REQUEST._replace(major_version=version)


def response_of(version: int) -> ResponseBody:
    """
    Get the sample response in a version.
    """
    return RESPONSE._replace(major_version=version)


def remembered(version: int) -> OpenedRequest:
    """
    Get what a client remembers of the sample request.
    """
    return seal_request(request_of(version), REQUEST_SALT)[1]


def sealed_response(
    version: int, body: ResponseBody | None = None, random: bytes = RANDOM
) -> bytes:
    """
    Seal the sample response, or another, to the sample request.
    """
    return seal_response(
        remembered(version),
        body or response_of(version),
        salt=RESPONSE_SALT,
        random=random,
        hardware_id=HARDWARE_ID,
    )


def made_response(
    version: int,
    *,
    body: bytes | None = None,
    salt: bytes | None = None,
    proof: bytes | None = None,
    digest: bytes | None = None,
    echo: bytes = REQUEST_SALT,
    extra: bytes = b"",
    slot: int = 0,
    signature: bytes | None = None,
    clear_version: int | None = None,
) -> bytes:
    """
    Make a response of versions 5 or 6 of its parts; what is not given is right.

    @param proof: The random bytes XOR the request salt.
    @param digest: The SHA-256 of the random bytes.
    @param echo: The request salt that version 6 repeats.
    @param extra: What stands where the padding should begin.
    @param slot: The time slot of the HMAC.
    @param signature: The HMAC itself.
    @param clear_version: The version in front, if it is another than that inside.
    """
    message = REQUEST_SALT if version == 5 else RESPONSE_SALT
    message = salt or message
    message += encode_response_body(response_of(version)) if body is None else body
    message += proof or xor(RANDOM, REQUEST_SALT)
    message += digest or hashlib.sha256(RANDOM).digest()
    if version == 6:
        message += HARDWARE_ID + echo
        message += signature or expected_hmac(CLIENT_TIME, message, slot)
    sealed = CIPHERS[version].encrypt_cbc(padded(message + extra))
    return version_bytes(clear_version or version) + sealed
