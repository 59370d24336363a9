"""
Tests of L{kmsproto.kms.verification}: what a client checks in a response, one check after the other.

The responses are made by L{tests.kms.handmade}, wrong in exactly one point.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import RemoteProtocolError, VerificationError
from kmsproto.kms.envelopes import OpenedResponse, compute_mac, seal_request
from kmsproto.kms.messages import encode_response_body
from kmsproto.kms.verification import open_response, verify_response
from tests.kms.handmade import (
    CIPHERS,
    WRONG_VERSIONS,
    flipped,
    made_response,
    padded,
    remembered,
    request_of,
    response_of,
    sealed_response,
    version_bytes,
    xor,
)
from tests.kms.samples import CLIENT_TIME, HARDWARE_ID, RANDOM, REQUEST, REQUEST_SALT, RESPONSE_SALT


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

    def test_minor_version(self) -> None:
        """
        An answer to a request of a minor version that does not exist fails, for it cannot have the same.
        """
        for version in (4, 5, 6):
            _, opened = seal_request(request_of(version)._replace(minor_version=1), REQUEST_SALT)
            error = self.assertRaises(
                VerificationError, open_response, sealed_response(version), opened
            )
            self.assertEqual(error.check, "version")
            self.assertIn(f"asked in version {version}.1, answered in {version}.0", str(error))

    def test_version_inside(self) -> None:
        """
        The version inside an answer must be the one in front of it.
        """
        for version in (5, 6):
            for inside in (4, 11 - version, 7):
                body = encode_response_body(response_of(inside))
                self.fails("version inside", made_response(version, body=body), version)
            body = encode_response_body(response_of(version)._replace(minor_version=1))
            self.fails("version inside", made_response(version, body=body), version)

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
            self.fails("size of proofs", made_response(version, extra=b"\0"), version)
            self.fails("size of proofs", made_response(version, extra=bytes(16)), version)
            self.fails("size of proofs", made_response(version, extra=bytes(40)), version)
            self.fails("size of proofs", made_response(version, digest=bytes(31)), version)
        # With the proofs of the other version.
        message = CIPHERS[6].decrypt_cbc(made_response(6)[4:])
        message = message[: -message[-1] - 40]
        self.fails("size of proofs", version_bytes(6) + CIPHERS[6].encrypt_cbc(padded(message)), 6)

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
            for length, check in (
                (0, "version inside"),
                (16, "version inside"),
                (20, "layout"),
                (23, "layout"),
            ):
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


class AllChecksTests(SynchronousTestCase):
    """
    All checks that can be made are made, and their outcomes told.
    """

    NAMES: ClassVar = {
        4: ["version", "layout", "size", "MAC"],
        5: [
            "version",
            "size",
            "padding",
            "version inside",
            "layout",
            "size of proofs",
            "SHA-256",
            "IV",
        ],
        6: [
            *("version", "size", "padding", "version inside", "layout", "size of proofs"),
            *("SHA-256", "IV", "request salt", "HMAC"),
        ],
    }

    def test_good(self) -> None:
        """
        A good answer passes every check of its version, and comes out whole.
        """
        for version, names in self.NAMES.items():
            verified = verify_response(sealed_response(version), remembered(version))
            self.assertEqual(verified.body, response_of(version))
            self.assertEqual(verified.hardware_id, HARDWARE_ID if version == 6 else b"")
            self.assertEqual(
                [check.name for check in verified.checks],
                [*names, "client machine id", "client time"],
            )
            self.assertEqual(verified.failed, ())
            self.assertEqual({check.problem for check in verified.checks}, {""})

    def test_several_failures(self) -> None:
        """
        What is wrong in several points is told in all of them.
        """
        body = response_of(6)._replace(client_machine_id=UUID(int=1), client_time=1)
        payload = made_response(
            6,
            salt=REQUEST_SALT,
            body=encode_response_body(body),
            echo=bytes(16),
            signature=bytes(16),
        )
        verified = verify_response(payload, remembered(6))
        self.assertEqual(verified.body, body)
        self.assertEqual(
            [check.name for check in verified.failed],
            ["IV", "request salt", "HMAC", "client machine id", "client time"],
        )

    def test_behind_wrong_padding(self) -> None:
        """
        Where the padding is wrong, the body and the proofs are checked all the same, as far as they are there.
        """
        for version, names in self.NAMES.items():
            if version == 4:
                continue
            clear = CIPHERS[version].decrypt_cbc(sealed_response(version)[4:])
            sealed = CIPHERS[version].encrypt_cbc(clear[:-1] + b"\0")
            verified = verify_response(version_bytes(version) + sealed, remembered(version))
            self.assertEqual(verified.body, response_of(version))
            self.assertEqual([check.name for check in verified.failed], ["padding"])
            self.assertEqual(
                [check.name for check in verified.checks][-len(names) + 5 :][-3:-2], [names[-1]]
            )
            # Nothing but padding that is none follows the body.
            body = encode_response_body(response_of(version))
            message = RESPONSE_SALT + body
            message += bytes(-len(message) % 16)
            sealed = CIPHERS[version].encrypt_cbc(message[:-1] + b"\xff")
            verified = verify_response(version_bytes(version) + sealed, remembered(version))
            self.assertEqual(
                [check.name for check in verified.checks],
                [*names[:5], "client machine id", "client time"],
            )
