"""
Opening an answer, as a client does: every check that a client must make, one after the other.

L{verify_response} makes all checks that can be made and gives their outcomes; so a tool can show what is wrong with a
host, and what is right.  A check whose object is not there, because the bytes end or their layout is broken, is not
made.  L{open_response} is for those who only want to know whether the answer is good: it raises an error that names
the first check that failed.

Source: "KMS messages, versions 4, 5 and 6", sections "Version 4", "Versions 5 and 6" and "The response body".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from kmsproto.errors import VerificationError
from kmsproto.kms.envelopes import (
    CIPHERS,
    HASH_LENGTH,
    HMAC_LENGTH,
    MAC_LENGTH,
    SALT_LENGTH,
    VERSION_LENGTH,
    OpenedRequest,
    OpenedResponse,
    compute_hmac,
    compute_mac,
    unpad,
    xor,
)
from kmsproto.kms.messages import (
    HARDWARE_ID_LENGTH,
    MalformedMessageError,
    ResponseBody,
    decode_response_body,
    decode_version,
)
from kmsproto.kms.rijndael import BLOCK_LENGTH

#: Bytes behind the body, by version.
_TAIL_LENGTHS = {
    5: SALT_LENGTH + HASH_LENGTH,
    6: SALT_LENGTH + HASH_LENGTH + HARDWARE_ID_LENGTH + SALT_LENGTH + HMAC_LENGTH,
}


@dataclass(frozen=True, slots=True)
class Check:
    """
    One check of an answer, and its outcome.

    @ivar name: What was looked at, for example C{"HMAC"}.
    @ivar passed: Whether it is as it must be.
    @ivar problem: If not, what is wrong with it.
    """

    name: str
    passed: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """
    What came out of an answer.

    @ivar body: What the host says, or L{None} if that cannot be read.
    @ivar hardware_id: The host's hardware id, 8 bytes; empty before version 6, or if it is not there.
    @ivar checks: The checks, in the order in which they were made.
    """

    body: ResponseBody | None
    hardware_id: bytes
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """
        The checks that failed.
        """
        return tuple(check for check in self.checks if not check.passed)


def open_response(payload: bytes, request: OpenedRequest) -> OpenedResponse:
    """
    Open an answer and make every check that a client must make.

    @param request: What L{seal_request<kmsproto.kms.envelopes.seal_request>} gave to remember.
    @raise VerificationError: If a check fails; it names the first that did.
    """
    verified = verify_response(payload, request)
    for check in verified.checks:
        if not check.passed:
            raise VerificationError(check.name, check.problem)
    # An answer without a body has failed the check of its layout, if no other.
    assert verified.body is not None
    return OpenedResponse(verified.body, verified.hardware_id)


def verify_response(payload: bytes, request: OpenedRequest) -> Verified:
    """
    Open an answer as far as that is possible, and make every check that can be made.

    @param request: The request that it answers.
    """
    verification = _Verification(request)
    body, hardware_id = verification.run(payload)
    return Verified(body, hardware_id, tuple(verification.checks))


class _Verification:
    """
    Collects the outcomes.
    """

    def __init__(self, request: OpenedRequest) -> None:
        self._request = request
        self.checks: list[Check] = []

    def run(self, payload: bytes) -> tuple[ResponseBody | None, bytes]:
        body = self._request.body
        try:
            # What can be answered has the minor version 0.
            answered = decode_version(payload)
        except MalformedMessageError as error:
            self._check("layout", False, str(error))
            return None, b""
        asked = f"{body.major_version}.{body.minor_version}"
        if not self._check(
            "version",
            asked == f"{answered}.0",
            f"asked in version {asked}, answered in {answered}.0",
        ):
            return None, b""
        if answered == 4:
            return self._run_plain(payload), b""
        return self._run_encrypted(payload, answered)

    def _check(self, name: str, passed: bool, problem: str) -> bool:
        self.checks.append(Check(name, passed, "" if passed else problem))
        return passed

    def _decode(self, data: bytes) -> tuple[ResponseBody | None, int]:
        try:
            body, length = decode_response_body(data)
        except MalformedMessageError as error:
            self._check("layout", False, str(error))
            return None, 0
        self._check("layout", True, "")
        return body, length

    def _run_plain(self, payload: bytes) -> ResponseBody | None:
        body, end = self._decode(payload)
        if body is None:
            return None
        needed = end + MAC_LENGTH
        if self._check("size", len(payload) == needed, f"{len(payload)} bytes, not {needed}"):
            mac = compute_mac(payload[:end])
            self._check("MAC", hmac.compare_digest(mac, payload[end:]), "it is wrong")
        self._check_echoes(body)
        return body

    def _run_encrypted(self, payload: bytes, version: int) -> tuple[ResponseBody | None, bytes]:
        sealed = payload[VERSION_LENGTH:]
        if not self._check(
            "size",
            bool(sealed) and len(sealed) % BLOCK_LENGTH == 0,
            f"{len(sealed)} bytes are no whole blocks",
        ):
            return None, b""
        padded = CIPHERS[version].decrypt_cbc(sealed)
        message = unpad(padded)
        if not self._check("padding", message is not None, "it is wrong") or message is None:
            # Who knows what else is wrong; the body may be readable all the same.
            message = padded
        if not self._check(
            "version inside",
            message[SALT_LENGTH : SALT_LENGTH + VERSION_LENGTH] == payload[:VERSION_LENGTH],
            "they differ",
        ):
            return None, b""
        body, length = self._decode(message[SALT_LENGTH:])
        if body is None:
            return None, b""
        tail = message[SALT_LENGTH + length :]
        needed = _TAIL_LENGTHS[version]
        hardware_id = b""
        if message is padded or self._check(
            "size of proofs",
            len(tail) == needed,
            f"{len(tail)} bytes follow the body, not {needed}",
        ):
            hardware_id = self._check_tail(
                version, sealed[:SALT_LENGTH], message[: len(message) - len(tail) + needed], tail
            )
        self._check_echoes(body)
        return body, hardware_id

    def _check_tail(self, version: int, iv: bytes, message: bytes, tail: bytes) -> bytes:
        """
        Check the proofs behind the body.

        @param iv: The vector on the wire.
        @param message: All that is encrypted, from the salt to the end of the proofs.
        @param tail: The proofs; behind wrong padding there may be more, or less.
        @return: The hardware id, empty where there is none.
        """
        request = self._request
        if len(tail) < _TAIL_LENGTHS[version]:
            return b""
        random = xor(tail[:SALT_LENGTH], request.salt)
        proofs = tail[SALT_LENGTH : _TAIL_LENGTHS[version]]
        digest, rest = proofs[:HASH_LENGTH], proofs[HASH_LENGTH:]
        self._check(
            "SHA-256",
            hashlib.sha256(random).digest() == digest,
            "it is not that of the random bytes",
        )
        if version == 5:
            self._check("IV", iv == request.iv, "the host did not keep that of the request")
            return b""
        self._check("IV", iv != request.iv, "the host did not draw a salt of its own")
        echoed = rest[HARDWARE_ID_LENGTH : HARDWARE_ID_LENGTH + SALT_LENGTH]
        self._check("request salt", echoed == request.salt, "it is not that of the request")
        signed, given = message[:-HMAC_LENGTH], rest[-HMAC_LENGTH:]
        slots = (compute_hmac(request.body.client_time, signed, slot) for slot in (0, -1, 1))
        self._check("HMAC", any(hmac.compare_digest(each, given) for each in slots), "it is wrong")
        return rest[:HARDWARE_ID_LENGTH]

    def _check_echoes(self, body: ResponseBody) -> None:
        asked = self._request.body
        for name, echoed, sent in (
            ("client machine id", body.client_machine_id, asked.client_machine_id),
            ("client time", body.client_time, asked.client_time),
        ):
            self._check(name, echoed == sent, "it is not that of the request")
