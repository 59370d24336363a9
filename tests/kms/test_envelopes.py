"""
Tests of L{kmsproto.kms.envelopes}.

Messages that are wrong in exactly one point are made here by hand, from their parts and with the ciphers alone: what is
proven, hashed or signed beside that point is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from struct import Struct
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from kmsproto.kms.envelopes import (
    REQUEST_LENGTHS,
    OpenedRequest,
    OpenedResponse,
    compute_hmac,
    compute_mac,
    open_request,
    open_response,
    seal_request,
    seal_response,
)
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import (
    MalformedMessageError,
    RequestBody,
    ResponseBody,
    encode_request_body,
    encode_response_body,
)
from kmsproto.kms.rijndael import Rijndael
from tests.kms.samples import (
    CLIENT_TIME,
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
    request_bodies,
    response_bodies,
    salts,
    uint64s,
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


class ChecksumTests(SynchronousTestCase):
    """
    The MAC of version 4 and the HMAC of version 6.
    """

    def test_mac_padding(self) -> None:
        """
        The MAC tells messages apart that differ only in zeros or a padding byte at the end.
        """
        macs = {compute_mac(b"x" * 15 + tail) for tail in (b"", b"\x80", b"\0", b"\x80\0")}
        self.assertEqual(len(macs), 4)

    @given(st.binary(max_size=70))
    def test_mac(self, message: bytes) -> None:
        """
        The MAC is the last block of the chain over the message, 0x80, and zeros up to a whole block.
        """
        cipher = Rijndael(bytes.fromhex("053d8307f9e5f088eb5ea6686cf037c7e4efd2d6"))
        rest = message + b"\x80" + bytes(15 - len(message) % 16)
        state = bytes(16)
        while rest:
            state = cipher.encrypt_block(xor(state, rest[:16]))
            rest = rest[16:]
        self.assertEqual(compute_mac(message), state)

    @given(uint64s, st.binary(max_size=300), st.integers(-2, 2))
    def test_hmac(self, client_time: int, message: bytes, slot: int) -> None:
        """
        The HMAC is that of the specification for any time and slot.
        """
        self.assertEqual(
            compute_hmac(client_time, message, slot), expected_hmac(client_time, message, slot)
        )

    def test_hmac_slots(self) -> None:
        """
        The key changes with the slot of the time and not within it.
        """
        start = CLIENT_TIME // STEP * STEP
        one = compute_hmac(start, b"x")
        self.assertEqual(compute_hmac(start + STEP - 1, b"x"), one)
        self.assertNotEqual(compute_hmac(start - 1, b"x"), one)
        self.assertNotEqual(compute_hmac(start + STEP, b"x"), one)


class RequestTests(SynchronousTestCase):
    """
    Requests, sealed by a client and opened by a host.
    """

    @given(request_bodies(), salts)
    def test_round_trip(self, body: RequestBody, salt: bytes) -> None:
        """
        The host opens what the client remembers.
        """
        payload, opened = seal_request(body, salt)
        self.assertEqual(len(payload), REQUEST_LENGTHS[body.major_version])
        self.assertEqual(open_request(payload), opened)
        self.assertEqual(opened.body, body)

    def test_version_4(self) -> None:
        """
        Version 4 is the body and its MAC, 252 bytes, without salt and vector.
        """
        payload, opened = seal_request(request_of(4), REQUEST_SALT)
        clear = encode_request_body(request_of(4))
        self.assertEqual(payload, clear + compute_mac(clear))
        self.assertEqual(len(payload), 252)
        self.assertEqual(opened, OpenedRequest(request_of(4), b"", b""))

    def test_encrypted(self) -> None:
        """
        Versions 5 and 6 are the version and the encrypted salt, body and padding, 260 bytes.
        """
        for version in (5, 6):
            payload, opened = seal_request(request_of(version), REQUEST_SALT)
            clear = encode_request_body(request_of(version))
            self.assertEqual(len(payload), 260)
            self.assertEqual(payload[:4], version_bytes(version))
            self.assertEqual(
                CIPHERS[version].decrypt_cbc(payload[4:]), REQUEST_SALT + clear + b"\4\4\4\4"
            )
            self.assertEqual(
                opened, OpenedRequest(request_of(version), REQUEST_SALT, payload[4:20])
            )

    def test_other_versions(self) -> None:
        """
        A version that does not exist is sealed like version 6, and no host opens it.
        """
        for minor, major in WRONG_VERSIONS[3:]:
            body = REQUEST._replace(minor_version=minor, major_version=major)
            payload, opened = seal_request(body, REQUEST_SALT)
            self.assertEqual(payload[:4], version_bytes(major, minor))
            self.assertEqual(
                CIPHERS[6].decrypt_cbc(payload[4:]),
                REQUEST_SALT + encode_request_body(body) + b"\4\4\4\4",
            )
            self.assertEqual(opened, OpenedRequest(body, REQUEST_SALT, payload[4:20]))
            self.assertRaises(MalformedMessageError, open_request, payload)

    def test_cannot_be_written(self) -> None:
        """
        A body that cannot be written cannot be sealed.
        """
        for version in (4, 5, 6):
            for body in (
                request_of(version)._replace(workstation="x" * 64),
                request_of(version)._replace(workstation="\ud800"),
            ):
                self.assertRaises(LocalProtocolError, seal_request, body, REQUEST_SALT)

    def test_numbers_that_do_not_fit(self) -> None:
        """
        A body with a number that its field cannot hold cannot be sealed.
        """
        self.assertRaises(
            LocalProtocolError, seal_request, REQUEST._replace(n_policy=2**32), REQUEST_SALT
        )


class MalformedRequestTests(SynchronousTestCase):
    """
    What a host refuses to open.
    """

    def refused(self, payload: bytes, problem: str = "") -> None:
        """
        Hold that a payload is malformed, for the reason given, and earns 0x8007000D.
        """
        error = self.assertRaises(MalformedMessageError, open_request, payload)
        self.assertIs(error.hresult, HResult.INVALID_DATA)
        self.assertIn(problem, str(error))

    def test_sizes(self) -> None:
        """
        A request has exactly the size of its version.
        """
        for version in (4, 5, 6):
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for wrong in (
                payload[:-1],
                payload + b"\0",
                payload[:-16],
                payload + bytes(16),
                payload[:4],
                payload[:20],
                payload[:5],
                payload * 2,
            ):
                self.refused(wrong, f"{len(wrong)} bytes")

    def test_hardly_anything(self) -> None:
        """
        Nothing at all, and up to three bytes, are no request.
        """
        for payload in (b"", b"\0", b"\0\0", b"\0\0\6"):
            self.refused(payload, "no version")

    def test_versions(self) -> None:
        """
        A version that is not spoken is refused in either size, whatever follows.
        """
        for minor, major in WRONG_VERSIONS:
            for version in (4, 6):
                payload, _ = seal_request(request_of(version), REQUEST_SALT)
                self.refused(version_bytes(major, minor) + payload[4:], f"version {major}.{minor} ")

    def test_another_version_outside(self) -> None:
        """
        A request that was sealed in one version is none of another.
        """
        for inside in (4, 5, 6):
            payload, _ = seal_request(request_of(inside), REQUEST_SALT)
            for outside in {4, 5, 6} - {inside}:
                self.refused(version_bytes(outside) + payload[4:])

    def test_version_inside(self) -> None:
        """
        The version inside must be the one outside, even if it is spoken.
        """
        for outside in (5, 6):
            for minor, major in ((0, 4), (0, 11 - outside), (1, outside), (0, 7)):
                clear = version_bytes(major, minor) + encode_request_body(REQUEST)[4:]
                sealed = CIPHERS[outside].encrypt_cbc(padded(REQUEST_SALT + clear))
                self.refused(version_bytes(outside) + sealed, "inside differs")

    def test_mac(self) -> None:
        """
        Any byte of the MAC that is wrong makes the whole wrong.
        """
        payload, _ = seal_request(request_of(4), REQUEST_SALT)
        for place in range(236, 252):
            for bit in range(8):
                self.refused(flipped(payload, place, 1 << bit), "MAC")

    def test_mac_covers_the_body(self) -> None:
        """
        Any byte of a body in version 4 that was changed on the way is noticed.
        """
        payload, _ = seal_request(request_of(4), REQUEST_SALT)
        for place in range(252):
            self.refused(flipped(payload, place, 0x40))

    def test_mac_before_body(self) -> None:
        """
        The MAC is checked before anything in the body is.
        """
        clear = encode_request_body(request_of(4)._replace(n_policy=5000))
        self.refused(clear + bytes(16), "MAC")
        self.refused(clear + compute_mac(clear), "N policy")

    def test_padding(self) -> None:
        """
        Of all values of the last byte only 4 is right, and the three bytes before it must agree.
        """
        for version in (5, 6):
            message = REQUEST_SALT + encode_request_body(request_of(version))
            for value in range(256):
                sealed = CIPHERS[version].encrypt_cbc(message + bytes([value] * 4))
                if value == 4:
                    open_request(version_bytes(version) + sealed)
                else:
                    self.refused(version_bytes(version) + sealed, "padding")
            for padding in (b"\5\4\4\4", b"\4\0\4\4", b"\4\4\3\4", b"\0\0\0\4"):
                sealed = CIPHERS[version].encrypt_cbc(message + padding)
                self.refused(version_bytes(version) + sealed, "padding")

    def test_padding_of_another_length(self) -> None:
        """
        A padding that is right in itself, but for a body of another size, is wrong.
        """
        for version in (5, 6):
            message = REQUEST_SALT + encode_request_body(request_of(version)) + bytes(4)
            for length in (1, 2, 3, 5, 8, 15, 16, 17):
                wrong = message[: 256 - length] + bytes([length] * length)
                sealed = CIPHERS[version].encrypt_cbc(wrong)
                self.refused(version_bytes(version) + sealed, "padding")

    def test_encrypted_bits(self) -> None:
        """
        A bit that was changed in either version or in the padding is noticed, and so is any in the last block.
        """
        # In a chain, a bit that is changed in one block changes the same bit of the next block in clear.
        places = [*range(4), *range(4, 8), *range(240, 244), *range(244, 260)]
        for version in (5, 6):
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for place in places:
                for bit in range(8):
                    self.refused(flipped(payload, place, 1 << bit))

    def test_bodies(self) -> None:
        """
        What is wrong in a body is wrong in every version, though it was sealed well.
        """
        for version in (4, 5, 6):
            for body, problem in (
                (request_of(version)._replace(is_virtual_machine=2), "virtual-machine"),
                (request_of(version)._replace(licence_status=7), "licence status"),
                (request_of(version)._replace(n_policy=1001), "N policy"),
            ):
                payload, _ = seal_request(body, REQUEST_SALT)
                self.refused(payload, problem)

    @given(
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                lambda version, data: version_bytes(version) + data,
                st.sampled_from((5, 6)),
                st.binary(min_size=256, max_size=256),
            ),
            st.builds(lambda data: version_bytes(4) + data, st.binary(min_size=248, max_size=248)),
        )
    )
    def test_any_bytes(self, payload: bytes) -> None:
        """
        Any bytes are malformed or opened, and raise nothing else.
        """
        # Not imported by name: trial takes a module's "suppress" for its own list of warnings.
        with contextlib.suppress(MalformedMessageError):
            open_request(payload)

    @given(request_bodies(), salts, st.lists(st.tuples(st.integers(0, 259), st.integers(1, 255))))
    def test_changed_bytes(
        self, body: RequestBody, salt: bytes, changes: list[tuple[int, int]]
    ) -> None:
        """
        A request that was changed on the way is malformed, or is one that seals to just these bytes.
        """
        payload, _ = seal_request(body, salt)
        for place, mask in changes:
            payload = flipped(payload, place % len(payload), mask)
        try:
            opened = open_request(payload)
        except MalformedMessageError:
            return
        self.assertEqual(seal_request(opened.body, opened.salt), (payload, opened))

    @given(st.sampled_from((4, 5, 6)), salts, st.binary(min_size=232, max_size=232))
    def test_any_body(self, version: int, salt: bytes, data: bytes) -> None:
        """
        Any bytes for a body, sealed well, are malformed or seal to just these bytes again.
        """
        clear = version_bytes(version) + data
        if version == 4:
            payload = clear + compute_mac(clear)
        else:
            payload = clear[:4] + CIPHERS[version].encrypt_cbc(padded(salt + clear))
        try:
            opened = open_request(payload)
        except MalformedMessageError:
            return
        self.assertEqual(seal_request(opened.body, opened.salt), (payload, opened))


class ResponseTests(SynchronousTestCase):
    """
    Responses, sealed by a host and opened by a client.
    """

    def test_version_that_does_not_exist(self) -> None:
        """
        There are no responses of a version that does not exist.
        """
        _, opened = seal_request(REQUEST, bytes(16))
        body = RESPONSE._replace(major_version=7)
        with self.assertRaises(LocalProtocolError):
            seal_response(opened, body, salt=bytes(16), random=bytes(16), hardware_id=bytes(8))

    @given(
        request_bodies(), response_bodies(), salts, salts, salts, st.binary(min_size=8, max_size=8)
    )
    def test_round_trip(
        self,
        request: RequestBody,
        body: ResponseBody,
        request_salt: bytes,
        salt: bytes,
        random: bytes,
        hardware_id: bytes,
    ) -> None:
        """
        The client opens what the host sealed, for any times, texts, salts and random bytes.
        """
        if salt == request_salt:
            return  # a host that draws the client's own salt is taken for broken
        _, opened = seal_request(request, request_salt)
        body = body._replace(
            major_version=request.major_version,
            client_machine_id=request.client_machine_id,
            client_time=request.client_time,
        )
        payload = seal_response(opened, body, salt=salt, random=random, hardware_id=hardware_id)
        expected = hardware_id if request.major_version == 6 else b""
        self.assertEqual(open_response(payload, opened), OpenedResponse(body, expected))

    def test_made_by_hand(self) -> None:
        """
        A response is what the specification puts together.
        """
        for version in (5, 6):
            self.assertEqual(sealed_response(version), made_response(version))
        clear = encode_response_body(response_of(4))
        self.assertEqual(sealed_response(4), clear + compute_mac(clear))

    def test_vectors(self) -> None:
        """
        In version 5 the vector is that of the request, in version 6 another.
        """
        self.assertEqual(sealed_response(5)[4:20], remembered(5).iv)
        self.assertNotEqual(sealed_response(6)[4:20], remembered(6).iv)
        self.assertEqual(sealed_response(6)[4:20], CIPHERS[6].encrypt_block(RESPONSE_SALT))

    def test_random_is_hidden(self) -> None:
        """
        Other random bytes give other responses in versions 5 and 6 and the same in version 4.
        """
        self.assertEqual(sealed_response(4), sealed_response(4, random=bytes(16)))
        for version in (5, 6):
            self.assertNotEqual(
                sealed_response(version), sealed_response(version, random=bytes(16))
            )

    def test_longest_epid(self) -> None:
        """
        An ePID of 63 code units travels in every version, one of 64 cannot be sealed.
        """
        for version in (4, 5, 6):
            body = response_of(version)._replace(epid="x" * 63)
            opened = open_response(sealed_response(version, body), remembered(version))
            self.assertEqual(opened.body, body)
            self.assertRaises(
                LocalProtocolError, sealed_response, version, body._replace(epid="x" * 64)
            )

    def test_padding_lengths(self) -> None:
        """
        The padding runs through every length that whole code units leave, up to a whole block.
        """
        for version in (5, 6):
            seen = set()
            for length in range(64):
                body = response_of(version)._replace(epid="x" * length)
                payload = sealed_response(version, body)
                clear = CIPHERS[version].decrypt_cbc(payload[4:])
                self.assertEqual(clear[-clear[-1] :], bytes([clear[-1]] * clear[-1]))
                size = 16 + 44 + 2 * length + 2 + 48 + (40 if version == 6 else 0)
                self.assertEqual(len(clear) - clear[-1], size)
                self.assertEqual(open_response(payload, remembered(version)).body, body)
                seen.add(clear[-1])
            self.assertEqual(seen, {2, 4, 6, 8, 10, 12, 14, 16})

    def test_client_times(self) -> None:
        """
        The first and the last time that there is, and those around a slot, are signed and verified.
        """
        for time in (0, 1, STEP - 1, STEP, 2**63, 2**64 - 1):
            for version in (4, 5, 6):
                _, opened = seal_request(
                    request_of(version)._replace(client_time=time), REQUEST_SALT
                )
                body = response_of(version)._replace(client_time=time)
                payload = seal_response(
                    opened, body, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID
                )
                self.assertEqual(open_response(payload, opened).body, body)

    def test_numbers_that_do_not_fit(self) -> None:
        """
        A body with a number that its field cannot hold cannot be sealed.
        """
        for version in (4, 5, 6):
            self.assertRaises(
                LocalProtocolError,
                sealed_response,
                version,
                response_of(version)._replace(client_count=-1),
            )


class VerificationTests(SynchronousTestCase):
    """
    Each check that a client makes fails by its own name when just that is wrong.
    """

    def fails(self, check: str, payload: bytes, version: int) -> None:
        """
        Hold that the answer to the sample request fails a check.
        """
        error = self.assertRaises(VerificationError, open_response, payload, remembered(version))
        self.assertIsInstance(error, RemoteProtocolError)
        self.assertEqual(error.check, check, str(error))
        self.assertIn(f"({check})", str(error))

    def test_version(self) -> None:
        """
        An answer in another version than the request's fails, however good it is.
        """
        for asked in (4, 5, 6):
            for answered in {4, 5, 6} - {asked}:
                self.fails("version", sealed_response(answered), asked)

    def test_version_inside(self) -> None:
        """
        The version inside an answer must be the one in front of it.
        """
        for version in (5, 6):
            for inside in (4, 11 - version, 7):
                body = encode_response_body(response_of(inside))
                self.fails("version", made_response(version, body=body), version)
            body = encode_response_body(response_of(version)._replace(minor_version=1))
            self.fails("version", made_response(version, body=body), version)

    def test_no_version(self) -> None:
        """
        An answer in a version that does not exist, or without one, has no layout.
        """
        for version in (4, 5, 6):
            for payload in (b"", b"\0", b"\0\0", b"\0\0\6"):
                self.fails("layout", payload, version)
            for minor, major in WRONG_VERSIONS:
                payload = version_bytes(major, minor) + sealed_response(version)[4:]
                self.fails("layout", payload, version)

    def test_size_version_4(self) -> None:
        """
        In version 4 the answer ends with its MAC.
        """
        payload = sealed_response(4)
        for wrong in (payload[:-1], payload + b"\0", payload[:-16], payload + bytes(16)):
            self.fails("size", wrong, 4)

    def test_size_encrypted(self) -> None:
        """
        In versions 5 and 6 the answer has whole blocks, and at least one.
        """
        for version in (5, 6):
            payload = sealed_response(version)
            for wrong in (payload[:-1], payload + b"\0", payload[:4], payload[:5], payload[:19]):
                self.fails("size", wrong, version)

    def test_size_of_proofs(self) -> None:
        """
        Behind the body stands what the version needs, neither less nor more.
        """
        for version in (5, 6):
            self.fails("size", made_response(version, extra=b"\0"), version)
            self.fails("size", made_response(version, extra=bytes(16)), version)
            self.fails("size", made_response(version, extra=bytes(40)), version)
            self.fails("size", made_response(version, digest=bytes(31)), version)
        # With the proofs of the other version.
        message = CIPHERS[6].decrypt_cbc(made_response(6)[4:])
        message = message[: -message[-1] - 40]
        self.fails("size", version_bytes(6) + CIPHERS[6].encrypt_cbc(padded(message)), 6)

    def test_layout_version_4(self) -> None:
        """
        In version 4 a body that ends early or has a broken ePID has no layout.
        """
        body = encode_response_body(response_of(4))
        for wrong in (body[:5], body[:-1], flipped(body, 4), flipped(body, 7, 0x80)):
            self.fails("layout", wrong, 4)
        zeroed = body[:10] + b"\0\0" + body[12:]
        self.fails("layout", zeroed + compute_mac(zeroed), 4)

    def test_layout_encrypted(self) -> None:
        """
        In versions 5 and 6 a broken ePID has no layout, though all around it is right.
        """
        for version in (5, 6):
            body = encode_response_body(response_of(version))
            for wrong in (
                flipped(body, 4),
                flipped(body, 7, 0x80),
                body[:10] + b"\0\0" + body[12:],
                body[:8] + b"\0\xd8" + body[10:],
            ):
                self.fails("layout", made_response(version, body=wrong), version)

    def test_empty_epid(self) -> None:
        """
        A body whose ePID has a size of zero has no layout, in any version.
        """
        for version in (4, 5, 6):
            body = encode_response_body(response_of(version)._replace(epid=""))
            body = body[:4] + bytes(4) + body[10:]
            payload = body + compute_mac(body)
            if version != 4:
                payload = made_response(version, body=body)
            self.fails("layout", payload, version)

    def test_early_end(self) -> None:
        """
        An encrypted answer whose message ends before its body does fails, down to one with nothing but padding.
        """
        for version in (5, 6):
            front = RESPONSE_SALT + encode_response_body(response_of(version))
            for length, check in ((0, "version"), (16, "version"), (20, "layout"), (23, "layout")):
                sealed = CIPHERS[version].encrypt_cbc(padded(front[:length]))
                self.fails(check, version_bytes(version) + sealed, version)

    def test_mac(self) -> None:
        """
        The MAC of version 4 covers everything before it.
        """
        payload = sealed_response(4)
        for place in range(len(payload) - 16, len(payload)):
            self.fails("MAC", flipped(payload, place), 4)
        for place in (8, len(payload) - 17, len(payload) - 52):
            self.fails("MAC", flipped(payload, place), 4)

    def test_padding(self) -> None:
        """
        The last bytes tell their own number, from 1 to 16, each of them.
        """
        for version in (5, 6):
            # An ePID for which the padding is a whole block, so that every byte of it can be wrong.
            length = 57 if version == 5 else 61
            body = response_of(version)._replace(epid="x" * length)
            clear = CIPHERS[version].decrypt_cbc(sealed_response(version, body)[4:])
            self.assertEqual(clear[-16:], bytes([16] * 16))
            wrong = [flipped(clear, place) for place in range(-16, -1)]
            wrong += [clear[:-1] + bytes([last]) for last in (0, 15, 17, 32, 255)]
            wrong += [clear[:-16] + bytes([last] * 16) for last in (0, 17, 255)]
            for message in wrong:
                sealed = CIPHERS[version].encrypt_cbc(message)
                self.fails("padding", version_bytes(version) + sealed, version)

    def test_padding_beyond_a_block(self) -> None:
        """
        More than a block of padding is wrong, though its bytes agree with each other.
        """
        for version in (5, 6):
            clear = CIPHERS[version].decrypt_cbc(sealed_response(version)[4:])
            message = clear[: -clear[-1]]
            for blocks in (1, 2, 14):
                length = clear[-1] + 16 * blocks
                sealed = CIPHERS[version].encrypt_cbc(message + bytes([length] * length))
                self.fails("padding", version_bytes(version) + sealed, version)

    def test_sha_256(self) -> None:
        """
        The hash must be that of the random bytes that come out.
        """
        digest = hashlib.sha256(RANDOM).digest()
        for version in (5, 6):
            for place in (0, 31):
                wrong = flipped(digest, place)
                self.fails("SHA-256", made_response(version, digest=wrong), version)
            for place in (0, 15):
                proof = flipped(xor(RANDOM, REQUEST_SALT), place)
                self.fails("SHA-256", made_response(version, proof=proof), version)

    def test_vector_version_5(self) -> None:
        """
        In version 5 the host keeps the vector of the request.
        """
        self.fails("IV", made_response(5, salt=RESPONSE_SALT), 5)
        self.fails("IV", made_response(5, salt=flipped(REQUEST_SALT, 15)), 5)

    def test_vector_version_6(self) -> None:
        """
        In version 6 the host draws a salt of its own.
        """
        self.fails("IV", made_response(6, salt=REQUEST_SALT), 6)

    def test_request_salt(self) -> None:
        """
        In version 6 the host repeats the salt of the request.
        """
        for place in (0, 15):
            self.fails("request salt", made_response(6, echo=flipped(REQUEST_SALT, place)), 6)

    def test_hmac(self) -> None:
        """
        In version 6 the HMAC must be right to the last bit.
        """
        right = CIPHERS[6].decrypt_cbc(made_response(6)[4:])
        right = right[: -right[-1]][-16:]
        for place in (0, 15):
            self.fails("HMAC", made_response(6, signature=flipped(right, place, 0x80)), 6)
        self.fails("HMAC", made_response(6, signature=bytes(16)), 6)

    def test_hmac_covers_all(self) -> None:
        """
        The HMAC covers what no other check does: the salt, the ePID, the count, the intervals and the hardware id.
        """
        clear = CIPHERS[6].decrypt_cbc(made_response(6)[4:])
        end = 16 + len(encode_response_body(response_of(6)))
        for place in (0, 15, 24, end - 12, end - 8, end - 4, end + 48, end + 55):
            sealed = CIPHERS[6].encrypt_cbc(flipped(clear, place))
            self.fails("HMAC", version_bytes(6) + sealed, 6)

    def test_hmac_slots(self) -> None:
        """
        The HMAC may be one time slot off, and not two.
        """
        for slot in (-1, 0, 1):
            opened = open_response(made_response(6, slot=slot), remembered(6))
            self.assertEqual(opened, OpenedResponse(response_of(6), HARDWARE_ID))
        for slot in (-2, 2, -3, 3, 2**24):
            self.fails("HMAC", made_response(6, slot=slot), 6)

    def test_client_machine_id(self) -> None:
        """
        Every version echoes the client machine id.
        """
        for version in (4, 5, 6):
            body = response_of(version)._replace(client_machine_id=UUID(int=1))
            self.fails("client machine id", sealed_response(version, body), version)

    def test_client_time(self) -> None:
        """
        Every version echoes the client time, to the step.
        """
        for version in (4, 5):
            body = response_of(version)._replace(client_time=CLIENT_TIME + 1)
            self.fails("client time", sealed_response(version, body), version)
        body = response_of(6)._replace(client_time=CLIENT_TIME + 1)
        self.fails("client time", made_response(6, body=encode_response_body(body)), 6)

    def test_another_request(self) -> None:
        """
        An answer to one request is none to another with the same body.
        """
        for version in (5, 6):
            _, other = seal_request(request_of(version), RESPONSE_SALT[::-1])
            error = self.assertRaises(
                VerificationError, open_response, sealed_response(version), other
            )
            self.assertEqual(error.check, "SHA-256")

    def test_version_that_does_not_exist(self) -> None:
        """
        To a request in a version that does not exist no answer is right.
        """
        _, opened = seal_request(request_of(7), REQUEST_SALT)
        for payload, check in (
            (sealed_response(6), "version"),
            (version_bytes(7) + sealed_response(6)[4:], "layout"),
        ):
            error = self.assertRaises(VerificationError, open_response, payload, opened)
            self.assertEqual(error.check, check)

    @given(
        st.sampled_from((4, 5, 6)),
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                lambda version, blocks: version_bytes(version) + b"".join(blocks),
                st.sampled_from((4, 5, 6)),
                st.lists(st.binary(min_size=16, max_size=16), max_size=20),
            ),
        ),
    )
    def test_any_bytes(self, version: int, payload: bytes) -> None:
        """
        Any bytes for an answer fail a check, and raise nothing else.
        """
        self.assertRaises(VerificationError, open_response, payload, remembered(version))

    @given(st.sampled_from((5, 6)), st.binary(max_size=300), st.booleans())
    def test_any_message(self, version: int, message: bytes, with_version: bool) -> None:
        """
        Any bytes inside an answer, padded and encrypted well, fail a check, and raise nothing else.
        """
        if with_version:
            message = RESPONSE_SALT + version_bytes(version) + message
        payload = version_bytes(version) + CIPHERS[version].encrypt_cbc(padded(message))
        self.assertRaises(VerificationError, open_response, payload, remembered(version))

    @given(
        st.sampled_from((4, 5, 6)),
        st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1),
        st.integers(-20, 20),
    )
    def test_changed_bytes(
        self, version: int, changes: list[tuple[int, int]], resized: int
    ) -> None:
        """
        An answer that was changed on the way fails a check, or says no lie that the protocol could notice.
        """
        payload = sealed_response(version)
        for place, mask in changes:
            payload = flipped(payload, place % len(payload), mask)
        payload = payload[:resized] if resized < 0 else payload + bytes(resized)
        try:
            opened = open_response(payload, remembered(version))
        except VerificationError:
            return
        self.assertEqual(opened.body.client_machine_id, REQUEST.client_machine_id)
        self.assertEqual(opened.body.client_time, REQUEST.client_time)

    def test_single_bits(self) -> None:
        """
        Of the answers in versions 4 and 6 no bit can be changed unnoticed.
        """
        for version in (4, 6):
            payload = sealed_response(version)
            opened = remembered(version)
            for place in range(len(payload)):
                for bit in range(8):
                    self.assertRaises(
                        VerificationError, open_response, flipped(payload, place, 1 << bit), opened
                    )
