"""
How the bodies travel: requests sealed and opened, and answers sealed, in versions 4, 5 and 6.

Version 4 sends bodies in clear with a CBC-MAC behind them.  Versions 5 and 6 encrypt them, together with a salt in
front that plays the part of the initialization vector: everything after the version is one CBC message with a zero
vector, so that the vector on the wire is the encrypted salt.  The answers carry proofs: the host knows the salt of
the request, in version 6 also a key that changes with the time of the client.

The two things that a host does for every call, opening the request and sealing the answer, are there twice.  Where the
extension C{_envelopes} was built and the cipher in use is one in C, what is ordinary goes through it; the rest, and
with it everything that is refused, takes the long way through the Python in this module.  Both give the same.

Every random byte is an argument.  What a host cannot open is a
L{MalformedMessageError<kmsproto.kms.messages.MalformedMessageError>}.  How a client opens an answer, check after check,
stands in L{kmsproto.kms.verification}.

Source: "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.messages import (
    PROTOCOL_VERSIONS,
    REQUEST_BODY_LENGTH,
    MalformedMessageError,
    RequestBody,
    ResponseBody,
    decode_request_body,
    decode_version,
    encode_request_body,
    encode_response_body,
    encode_version,
    known_guid,
)
from kmsproto.kms.rijndael import BLOCK_LENGTH, IMPLEMENTATION, Rijndael

if TYPE_CHECKING:
    from kmsproto.kms._envelopes import Envelope

#: Bytes of a salt, and of the random bytes in an answer.
SALT_LENGTH = 16

#: The keys by version, and what is changed in them once they are expanded.
_KEYS: Mapping[int, tuple[bytes, Mapping[int, int] | None]] = {
    4: (bytes.fromhex("053d8307f9e5f088eb5ea6686cf037c7e4efd2d6"), None),
    5: (bytes.fromhex("cd7e796f2ab25dcb55ffc8ef8364c470"), None),
    6: (bytes.fromhex("a94a4195e201432d9bcb460405d84a21"), {64: 0x73, 96: 0x09, 128: 0xE4}),
}
_MAC_CIPHER = Rijndael(*_KEYS[4])
#: The ciphers of the versions that encrypt.
CIPHERS = {version: Rijndael(*_KEYS[version]) for version in (5, 6)}

#: Bytes of the version in clear, in front of an encrypted body.
VERSION_LENGTH = 4
#: Where the lower byte of the major version stands.
_MAJOR_VERSION = 2
#: Bytes of the MAC of version 4, of the hash in versions 5 and 6, and of the HMAC of version 6.
MAC_LENGTH = 16
HASH_LENGTH = 32
HMAC_LENGTH = 16
#: Bytes of a request, by version; in versions 5 and 6 its body is padded to whole blocks.
REQUEST_LENGTHS = {
    4: REQUEST_BODY_LENGTH + MAC_LENGTH,
    5: VERSION_LENGTH + SALT_LENGTH + 240,
    6: VERSION_LENGTH + SALT_LENGTH + 240,
}
#: Where the body of a request of versions 5 and 6 ends behind its salt, and what stands there: PKCS#7 padding.
_REQUEST_END = SALT_LENGTH + REQUEST_BODY_LENGTH
_REQUEST_PADDING = b"\4\4\4\4"
#: FILETIME steps of one time slot of the HMAC key, about 4.1 hours.
_SLOT_LENGTH = 0x22816889BD
_SLOT_FACTOR = 0x208CBAB5ED
_SLOT_OFFSET = 0x3156CD5AC628477A


def native_envelopes(implementation: str) -> Mapping[int, Envelope]:
    """
    Make the envelopes in C that go with an implementation of the cipher.

    @param implementation: One of the names in L{kmsproto.kms.rijndael.implementations}.
    @return: The envelopes by version; none if that is Python or the extension was not built.
    """
    if implementation == "Python":
        return {}
    try:
        from kmsproto.kms._envelopes import Envelope
    except ImportError:
        # What was built is of another time, or for another machine.  The long way does the same.
        return {}
    accelerated = implementation == "AES instructions (C)"
    return {version: Envelope(version, *key, accelerated) for version, key in _KEYS.items()}


_NATIVE = native_envelopes(IMPLEMENTATION)


class OpenedRequest(NamedTuple):
    """
    A request as its host knows it, and as its client remembers it.

    @ivar body: What is asked for.
    @ivar salt: The decrypted vector, 16 bytes; empty in version 4.
    @ivar iv: The vector on the wire, 16 bytes; empty in version 4.
    """

    body: RequestBody
    salt: bytes
    iv: bytes


class OpenedResponse(NamedTuple):
    """
    An answer that passed every check (L{kmsproto.kms.verification}).

    @ivar body: What the host answers.
    @ivar hardware_id: The host's hardware id, 8 bytes; empty before version 6.
    """

    body: ResponseBody
    hardware_id: bytes


def compute_mac(message: bytes) -> bytes:
    """
    Compute the MAC of version 4: a CBC-MAC with the 160-bit key over the message, 0x80, and zeros.

    @return: 16 bytes.
    """
    padded = message + b"\x80"
    return _MAC_CIPHER.mac(padded + bytes(-len(padded) % BLOCK_LENGTH))


def compute_hmac(client_time: int, message: bytes, slot: int = 0) -> bytes:
    """
    Compute the HMAC of version 6.

    @param client_time: The FILETIME of the request.
    @param message: Everything from the response salt up to the HMAC, in clear.
    @param slot: How many time slots away from that of the request.
    @return: 16 bytes.
    """
    # RFC 2104 by hand: the hash of each of the two pads is the same for all messages of a time slot.
    begun_inner, begun_outer = _hmac_states(client_time // _SLOT_LENGTH, slot)
    inner, outer = begun_inner.copy(), begun_outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.digest()[-HMAC_LENGTH:]


@lru_cache(maxsize=64)
def _hmac_states(time_slot: int, slot: int) -> tuple[hashlib._Hash, hashlib._Hash]:
    """
    Begin the two hashes of an HMAC with the key of a time slot, or of one beside it.
    """
    seed = time_slot * _SLOT_FACTOR + _SLOT_OFFSET + slot * _SLOT_LENGTH
    key = hashlib.sha256((seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")).digest()[16:]
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    return (
        hashlib.sha256(bytes(byte ^ 0x36 for byte in block)),
        hashlib.sha256(bytes(byte ^ 0x5C for byte in block)),
    )


def xor(a: bytes, b: bytes) -> bytes:
    """
    Combine as many bytes with as many others.
    """
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def _pad(message: bytes) -> bytes:
    """
    Add PKCS#7 padding (RFC 5652 6.3).
    """
    length = BLOCK_LENGTH - len(message) % BLOCK_LENGTH
    return message + bytes((length,)) * length


def unpad(message: bytes) -> bytes | None:
    """
    Take PKCS#7 padding off.

    @return: The message, or L{None} when the padding is wrong.
    """
    length = message[-1]
    if not 1 <= length <= BLOCK_LENGTH or message[-length:] != bytes((length,)) * length:
        return None
    return message[:-length]


def seal_request(body: RequestBody, salt: bytes) -> tuple[bytes, OpenedRequest]:
    """
    Make a request, as a client does.

    @param salt: 16 random bytes; version 4 does not use them.
    @return: The bytes to send, and what has to be remembered to verify the answer.
    @raise kmsproto.errors.LocalProtocolError: If the body cannot be written.
    """
    clear = encode_request_body(body)
    if body.major_version == 4:
        return clear + compute_mac(clear), OpenedRequest(body, b"", b"")
    # A tool may ask in a version that does not exist; it is sealed like the newest that does.
    sealed = CIPHERS.get(body.major_version, CIPHERS[6]).encrypt_cbc(_pad(salt + clear))
    return encode_version(body) + sealed, OpenedRequest(body, salt, sealed[:SALT_LENGTH])


def open_request(payload: bytes) -> OpenedRequest:
    """
    Open a request, as a host does.

    @raise MalformedMessageError: If its size, version, MAC, padding, or anything in its body is wrong.
    """
    if len(payload) >= VERSION_LENGTH and (native := _NATIVE.get(payload[_MAJOR_VERSION])):
        opened = native.open(payload, known_guid)
        if opened is not None:
            fields, salt, iv = opened
            # As the classes themselves do, without a call of theirs for each.
            return tuple.__new__(OpenedRequest, (tuple.__new__(RequestBody, fields), salt, iv))
    return _open_long(payload)


def _open_long(payload: bytes) -> OpenedRequest:
    """
    Open any request, or find what is wrong with it.
    """
    version = decode_version(payload)
    if len(payload) != REQUEST_LENGTHS[version]:
        raise MalformedMessageError(
            f"a version {version} request of {len(payload)} bytes, not {REQUEST_LENGTHS[version]}"
        )
    if version == 4:
        clear = payload[:REQUEST_BODY_LENGTH]
        if not hmac.compare_digest(compute_mac(clear), payload[REQUEST_BODY_LENGTH:]):
            raise MalformedMessageError("the MAC is wrong")
        return OpenedRequest(decode_request_body(clear), b"", b"")
    message = CIPHERS[version].decrypt_cbc(payload[VERSION_LENGTH:])
    salt, clear = message[:SALT_LENGTH], message[SALT_LENGTH:_REQUEST_END]
    if message[_REQUEST_END:] != _REQUEST_PADDING:
        raise MalformedMessageError("the padding is wrong")
    if clear[:VERSION_LENGTH] != payload[:VERSION_LENGTH]:
        raise MalformedMessageError("the version inside differs from the one outside")
    iv = payload[VERSION_LENGTH : VERSION_LENGTH + SALT_LENGTH]
    return OpenedRequest(decode_request_body(clear), salt, iv)


def seal_response(
    request: OpenedRequest, body: ResponseBody, *, salt: bytes, random: bytes, hardware_id: bytes
) -> bytes:
    """
    Make an answer, as a host does.

    @param salt: 16 random bytes; only version 6 uses them.
    @param random: 16 random bytes; version 4 does not use them.
    @param hardware_id: 8 bytes; only version 6 uses them.
    @raise kmsproto.errors.LocalProtocolError: If the body cannot be written, or in no version that exists.
    """
    if native := _NATIVE.get(body.major_version):
        sealed = _seal_short(native, request, body, salt, random, hardware_id)
        if sealed is not None:
            return sealed
    return _seal_long(request, body, salt, random, hardware_id)


def _seal_short(
    native: Envelope,
    request: OpenedRequest,
    body: ResponseBody,
    salt: bytes,
    random: bytes,
    hardware_id: bytes,
) -> bytes | None:
    """
    Make an ordinary answer in C.

    @return: The answer; L{None} if it is not ordinary.
    """
    version = body.major_version
    machine = body.client_machine_id.int.to_bytes(16, "big")
    if version == 4:
        message = native.pack(body, machine)
        return message and native.seal(message)
    digest = hashlib.sha256(random).digest()
    if version == 5:
        message = native.pack(body, machine, request.salt, random, digest)
        return message and native.seal(message)
    message = native.pack(body, machine, request.salt, random, digest, salt, hardware_id)
    return message and native.seal(message, compute_hmac(body.client_time, message))


def _seal_long(
    request: OpenedRequest, body: ResponseBody, salt: bytes, random: bytes, hardware_id: bytes
) -> bytes:
    """
    Make any answer that can be made, or find why it cannot.
    """
    clear = encode_response_body(body)
    version = body.major_version
    if version not in PROTOCOL_VERSIONS:
        raise LocalProtocolError(f"there are no responses of version {version}")
    if version == 4:
        return clear + compute_mac(clear)
    asked_salt = request.salt
    masked, digest = xor(random, asked_salt), hashlib.sha256(random).digest()
    if version == 5:
        # The same salt under the same key: the vector on the wire is that of the request.
        message = b"".join((asked_salt, clear, masked, digest))
    else:
        message = b"".join((salt, clear, masked, digest, hardware_id, asked_salt))
        message += compute_hmac(body.client_time, message)
    return encode_version(body) + CIPHERS[version].encrypt_cbc(_pad(message))
