"""
Tests of L{kmsproto.kms.envelopes}: requests, as a client seals and a host opens them, and those that a host refuses.
"""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError
from kmsproto.kms.envelopes import (
    REQUEST_LENGTHS,
    OpenedRequest,
    compute_mac,
    open_request,
    seal_request,
)
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import MalformedMessageError, RequestBody, encode_request_body
from tests.kms.handmade import CIPHERS, WRONG_VERSIONS, flipped, padded, request_of, version_bytes
from tests.kms.samples import REQUEST, REQUEST_SALT, request_bodies, salts


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
