"""
Tests of the two ways through L{kmsproto.kms.envelopes}: the short one in C and the long one in Python.

Nobody can tell the ways apart: the same requests come out, the same errors, the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms import envelopes
from kmsproto.kms.envelopes import (
    OpenedRequest,
    compute_mac,
    open_request,
    seal_request,
)
from kmsproto.kms.messages import (
    MalformedMessageError,
    RequestBody,
    ResponseBody,
    encode_request_body,
    known_guid,
)
from tests.kms import test_golden
from tests.kms.handmade import CIPHERS, flipped, padded, request_of, response_of, version_bytes
from tests.kms.samples import (
    HARDWARE_ID,
    RANDOM,
    REQUEST_SALT,
    RESPONSE_SALT,
    request_bodies,
    response_bodies,
    salts,
    versions,
)
from tests.kms.ways import VERSIONS, need_c, sealed_by

#: What comes of a request: it, or the words of the refusal.
Outcome = OpenedRequest | str


def outcome(payload: bytes) -> Outcome:
    """
    Open a request by way of whatever is in use.
    """
    try:
        return open_request(payload)
    except MalformedMessageError as error:
        return str(error)


def sealed_body(version: int, salt: bytes, data: bytes) -> bytes:
    """
    Seal any bytes behind the version as a client seals the body.
    """
    clear = version_bytes(version) + data
    if version == 4:
        return clear + compute_mac(clear)
    return clear[:4] + CIPHERS[version].encrypt_cbc(padded(salt + clear))


class WaysTestCase(SynchronousTestCase):
    """
    A test that goes both ways.
    """

    def setUp(self) -> None:
        """
        Make the envelopes.
        """
        self.native = need_c()

    def both(self, take: Callable[[], object]) -> object:
        """
        Hold that something comes out the same by every way.

        @return: What comes out.
        """
        with mock.patch.object(envelopes, "_NATIVE", {}):
            expected = take()
        for name, each in self.native.items():
            with mock.patch.object(envelopes, "_NATIVE", each):
                self.assertEqual(take(), expected, name)
        return expected


class OpeningTests(WaysTestCase):
    """
    Requests, opened both ways.
    """

    def opened(self, payload: bytes) -> Outcome:
        """
        Open a request by every way.
        """
        return self.both(lambda: outcome(payload))

    def short(self, payload: bytes) -> bool:
        """
        Find whether a request is opened in C, and hold that all envelopes agree on that.
        """
        version = payload[2]
        found = {each[version].open(payload, known_guid) is None for each in self.native.values()}
        self.assertEqual(len(found), 1)
        return not found.pop()

    @given(request_bodies(), salts)
    def test_well_formed(self, body: RequestBody, salt: bytes) -> None:
        """
        What a client sealed is opened the same; in C if the name is ASCII.
        """
        payload, remembered = seal_request(body, salt)
        self.assertEqual(self.opened(payload), remembered)
        self.assertEqual(self.short(payload), body.workstation.isascii())

    def test_types(self) -> None:
        """
        What comes from C has the types of the long way, to the last field.
        """
        for version in VERSIONS:
            payload, expected = seal_request(request_of(version), REQUEST_SALT)
            for each in self.native.values():
                with mock.patch.object(envelopes, "_NATIVE", each):
                    opened = open_request(payload)
                self.assertIs(type(opened), OpenedRequest)
                self.assertIs(type(opened.body), RequestBody)
                self.assertEqual(list(map(type, opened.body)), list(map(type, expected.body)))
                self.assertEqual(list(map(type, opened)), list(map(type, expected)))
                machine = opened.body.client_machine_id
                self.assertEqual(
                    (hash(machine), str(machine), machine.is_safe),
                    (hash(UUID(str(machine))), str(UUID(str(machine))), UUID(int=0).is_safe),
                )

    def test_shared_guids(self) -> None:
        """
        The GUIDs that many requests share are one object, whichever way a request went.
        """
        payload, _ = seal_request(request_of(6), REQUEST_SALT)
        sku = known_guid(request_of(6).sku_id.bytes_le)
        for each in (*self.native.values(), {}):
            with mock.patch.object(envelopes, "_NATIVE", each):
                self.assertIs(open_request(payload).body.sku_id, sku)

    @given(st.uuids())
    def test_machine(self, machine: UUID) -> None:
        """
        Any GUID of a client is read and written alike.
        """
        for version in VERSIONS:
            body = request_of(version)._replace(client_machine_id=machine)
            payload, remembered = seal_request(body, REQUEST_SALT)
            self.assertEqual(self.opened(payload), remembered)
            answer = response_of(version)._replace(client_machine_id=machine)
            self.both(
                lambda answer=answer, remembered=remembered: sealed_by(
                    remembered, answer, RESPONSE_SALT, RANDOM, HARDWARE_ID
                )
            )

    def test_every_byte_changed(self) -> None:
        """
        A change of any byte has the same consequences.
        """
        for version in VERSIONS:
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for place in range(len(payload)):
                self.opened(flipped(payload, place, 1))

    def test_every_length(self) -> None:
        """
        A request that ends too early or too late is refused with the same words.
        """
        for version in VERSIONS:
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for length in range(len(payload)):
                self.assertIsInstance(self.opened(payload[:length]), str)
            for more in (b"\0", bytes(16), payload):
                self.assertIsInstance(self.opened(payload + more), str)

    def test_other_versions(self) -> None:
        """
        A request in a version that is not spoken, outside or inside, is refused with the same words.
        """
        for version in VERSIONS:
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for outside in (*range(8), 256 + version, version << 16 | 1):
                wrong = version_bytes(outside & 0xFFFF, outside >> 16) + payload[4:]
                if wrong != payload:
                    self.assertIsInstance(self.opened(wrong), str)

    @given(
        versions,
        salts,
        st.tuples(
            st.sampled_from((0, 1, 2, 2**31, 2**32 - 1)),
            st.sampled_from((0, 6, 7, 2**31, 2**32 - 1)),
            st.sampled_from((0, 1000, 1001, 2**31, 2**32 - 1)),
        ),
    )
    def test_ranges(self, version: int, salt: bytes, values: tuple[int, int, int]) -> None:
        """
        The numbers that have a range are judged the same on either side of its end.
        """
        machine, status, policy = values
        body = request_of(version)._replace(
            is_virtual_machine=machine, licence_status=status, n_policy=policy
        )
        opened = self.opened(seal_request(body, salt)[0])
        fits = machine <= 1 and status <= 6 and policy <= 1000
        self.assertEqual(isinstance(opened, OpenedRequest), fits)

    @given(
        versions,
        st.one_of(
            st.binary(min_size=128, max_size=128),
            st.lists(st.sampled_from((0, 1, 0x41, 0x7F, 0x80, 0xD8)), min_size=128, max_size=128),
            st.integers(0, 64).map(lambda length: b"a\0" * length + bytes(128 - 2 * length)),
        ),
    )
    def test_names(self, version: int, name: bytes | list[int]) -> None:
        """
        A name of any bytes is read the same, with what stands behind it; so is one that fills its field.
        """
        clear = encode_request_body(request_of(version))
        self.opened(sealed_body(version, REQUEST_SALT, clear[4:108] + bytes(name)))

    @given(versions, salts, st.binary(min_size=232, max_size=232))
    def test_any_body(self, version: int, salt: bytes, data: bytes) -> None:
        """
        Any bytes for a body have the same consequences.
        """
        self.opened(sealed_body(version, salt, data))

    @given(st.one_of(st.binary(max_size=300), st.binary(min_size=256, max_size=256)), versions)
    def test_any_bytes(self, data: bytes, version: int) -> None:
        """
        Any bytes at all have the same consequences, with a version in front or without.
        """
        self.opened(data)
        self.opened(version_bytes(version) + data)

    def test_padding(self) -> None:
        """
        Any value of any byte of the padding has the same consequences.
        """
        for version in (5, 6):
            message = REQUEST_SALT + encode_request_body(request_of(version))
            for place in range(4):
                for value in range(256):
                    padding = bytes(value if each == place else 4 for each in range(4))
                    sealed = CIPHERS[version].encrypt_cbc(message + padding)
                    opened = self.opened(version_bytes(version) + sealed)
                    self.assertEqual(isinstance(opened, OpenedRequest), value == 4)

    def test_like_bytes(self) -> None:
        """
        What is like bytes is opened as well, and given back when that is done.
        """
        for version in VERSIONS:
            payload, remembered = seal_request(request_of(version), REQUEST_SALT)
            payload = bytearray(payload)
            self.assertEqual(self.opened(payload), remembered)
            # An array that is still lent out could not grow.
            payload.append(0)
            self.assertIsInstance(self.opened(payload), str)


class SealingTests(WaysTestCase):
    """
    Answers, sealed both ways.
    """

    @given(response_bodies(), salts, salts, salts, st.binary(min_size=8, max_size=8))
    def test_any_answer(
        self, body: ResponseBody, asked: bytes, salt: bytes, random: bytes, hardware_id: bytes
    ) -> None:
        """
        Any answer is sealed to the same bytes; in C if the ePID is ASCII.
        """
        request = seal_request(request_of(body.major_version), asked)[1]
        sealed = self.both(lambda: sealed_by(request, body, salt, random, hardware_id))
        self.assertIsInstance(sealed, bytes)
        for each in self.native.values():
            short = envelopes._seal_short(
                each[body.major_version], request, body, salt, random, hardware_id
            )
            self.assertEqual(short, sealed if body.epid.isascii() else None)

    @given(versions, st.integers(0, 70))
    def test_epid_sizes(self, version: int, length: int) -> None:
        """
        An ePID of any size is written, or refused with the same words.
        """
        request = seal_request(request_of(version), REQUEST_SALT)[1]
        body = response_of(version)._replace(epid="0" * length)
        sealed = self.both(lambda: sealed_by(request, body, RESPONSE_SALT, RANDOM, HARDWARE_ID))
        self.assertEqual(isinstance(sealed, bytes), length <= 63)

    def test_numbers_and_texts(self) -> None:
        """
        What does not fit its field, or is no text, is refused with the same words.
        """
        for version in VERSIONS:
            request = seal_request(request_of(version), REQUEST_SALT)[1]
            for change in (
                {"epid": "a\0b"},
                {"epid": "\ud800"},
                {"client_time": -1},
                {"client_time": 2**64},
                {"client_count": 2**32},
                {"activation_interval": -1},
                {"renewal_interval": 2**64},
                {"renewal_interval": 1.0},
                {"minor_version": 2**16},
            ):
                body = response_of(version)._replace(**change)
                sealed = self.both(
                    lambda request=request, body=body: sealed_by(
                        request, body, RESPONSE_SALT, RANDOM, HARDWARE_ID
                    )
                )
                self.assertIsInstance(sealed, str)

    def test_other_versions(self) -> None:
        """
        A minor version is written as it is given, and there are no answers of versions that do not exist.
        """
        request = seal_request(request_of(6), REQUEST_SALT)[1]
        for version in (0, 3, *VERSIONS, 7, 65535):
            for minor in (0, 1):
                body = response_of(version)._replace(minor_version=minor)
                self.both(
                    lambda body=body: sealed_by(request, body, RESPONSE_SALT, RANDOM, HARDWARE_ID)
                )

    def test_other_sizes(self) -> None:
        """
        Salts and ids of other sizes than there are come out as the long way has them.
        """
        for version in VERSIONS:
            for length in (0, 7, 15, 17, 40):
                request = seal_request(request_of(version), bytes(length))[1]
                for parts in (
                    (bytes(length), RANDOM, HARDWARE_ID),
                    (RESPONSE_SALT, RANDOM, bytes(length)),
                    (RESPONSE_SALT, bytes(length), HARDWARE_ID),
                ):
                    self.both(
                        lambda request=request, parts=parts, version=version: sealed_by(
                            request, response_of(version), *parts
                        )
                    )


class RecordedLongWayTests(test_golden.GoldenTests):
    """
    Recorded exchanges, opened and rebuilt the long way, whatever is in use.
    """

    def setUp(self) -> None:
        """
        Leave the envelopes in C out.
        """
        super().setUp()
        self.patch(envelopes, "_NATIVE", {})


class RecordedPortableTests(test_golden.GoldenTests):
    """
    Recorded exchanges, opened and rebuilt by the envelopes in C that every processor runs.
    """

    def setUp(self) -> None:
        """
        Put these envelopes in.
        """
        super().setUp()
        self.patch(envelopes, "_NATIVE", need_c()["portable C"])
