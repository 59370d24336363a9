"""
Tests of L{kmsproto.kms.envelopes}: responses, as a host seals and a client opens them, and the checksums they carry.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.envelopes import (
    OpenedResponse,
    compute_hmac,
    compute_mac,
    seal_request,
    seal_response,
)
from kmsproto.kms.messages import RequestBody, ResponseBody, encode_response_body
from kmsproto.kms.rijndael import Rijndael
from kmsproto.kms.verification import open_response
from tests.kms.handmade import (
    CIPHERS,
    STEP,
    expected_hmac,
    made_response,
    remembered,
    request_of,
    response_of,
    sealed_response,
    xor,
)
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
