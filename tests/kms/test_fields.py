"""
Messages taken apart: every field where it stands, whatever is wrong with the message.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.envelopes import (
    CIPHERS,
    OpenedRequest,
    compute_mac,
    open_request,
    seal_request,
    seal_response,
)
from kmsproto.kms.fields import (
    MAX_SEALED,
    Field,
    describe_epid,
    request_fields,
    response_fields,
    show_filetime,
    show_minutes,
)
from kmsproto.kms.messages import (
    RequestBody,
    ResponseBody,
    encode_request_body,
    encode_response_body,
)
from tests.kms.samples import (
    CLIENT,
    CLIENT_TIME,
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
    request_bodies,
    response_bodies,
)

CATALOG = load_catalog()
REQUEST_NAMES = [
    *("minor version", "major version", "is virtual machine", "licence status"),
    *("binding expiration", "application id", "SKU id", "KMS id", "client machine id"),
    *("N policy", "client time", "previous client machine id", "workstation name"),
]
RESPONSE_NAMES = [
    *("minor version", "major version", "ePID size", "ePID", "client machine id"),
    *("client time", "count", "activation interval", "renewal interval"),
]


def sealed_request(version: int, **changes: object) -> bytes:
    """
    Make a request.
    """
    body = REQUEST._replace(major_version=version)._replace(**changes)
    return seal_request(body, REQUEST_SALT)[0]


def exchange(version: int, **changes: object) -> tuple[bytes, OpenedRequest]:
    """
    Make an answer, and the request that it answers.
    """
    _, request = seal_request(REQUEST._replace(major_version=version), REQUEST_SALT)
    body = RESPONSE._replace(major_version=version)._replace(**changes)
    return (
        seal_response(request, body, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID),
        request,
    )


def by_name(fields: tuple[Field, ...]) -> dict[str, Field]:
    """
    Index fields; of those with the same name the last counts.
    """
    return {field.name: field for field in fields}


class FieldsCase(SynchronousTestCase):
    """
    What all sets of fields have to keep.
    """

    def assertCovers(self, fields: tuple[Field, ...], payload: bytes) -> None:
        """
        The fields lie one behind the other, and cover the message.
        """
        offset = 0
        for field in fields:
            self.assertEqual(field.offset, offset, field)
            offset += field.size
        self.assertEqual(offset, len(payload))


class RequestFieldsTests(FieldsCase):
    """
    L{request_fields}.
    """

    def test_plain(self) -> None:
        """
        A request of version 4 has its body from the beginning, and the MAC behind it.
        """
        payload = sealed_request(4)
        fields = request_fields(payload, CATALOG)
        self.assertCovers(fields, payload)
        self.assertEqual([field.name for field in fields], [*REQUEST_NAMES, "MAC"])
        offsets = {field.name: (field.offset, field.size) for field in fields}
        self.assertEqual(offsets["KMS id"], (48, 16))
        self.assertEqual(offsets["N policy"], (80, 4))
        self.assertEqual(offsets["workstation name"], (108, 128))
        self.assertEqual(offsets["MAC"], (236, 16))
        self.assertEqual(fields[-1].meaning, "right")

    def test_encrypted(self) -> None:
        """
        Requests of versions 5 and 6 have version, vector, body and padding, at the offsets that they have on the wire.
        """
        for version in (5, 6):
            payload = sealed_request(version)
            fields = request_fields(payload, CATALOG)
            self.assertCovers(fields, payload)
            self.assertEqual(
                [field.name for field in fields],
                ["minor version", "major version", "IV", *REQUEST_NAMES, "padding"],
            )
            vector, first = fields[2], fields[3]
            self.assertEqual((vector.offset, first.offset), (4, 20))
            self.assertEqual(vector.value, payload[4:20].hex())
            self.assertIn(REQUEST_SALT.hex(), vector.meaning)
            self.assertEqual(first.meaning, "as in clear")
            self.assertEqual(fields[-1].meaning, "PKCS#7")

    def test_values(self) -> None:
        """
        Values are written as people write them, and products are named.
        """
        told = by_name(request_fields(sealed_request(6), CATALOG))
        self.assertEqual(told["client machine id"].value, str(CLIENT))
        self.assertEqual(told["client time"].value, "2026-01-02T03:04:05Z")
        self.assertEqual(told["client time"].meaning, f"FILETIME {CLIENT_TIME}")
        self.assertEqual(told["licence status"].meaning, "notification")
        self.assertEqual(told["is virtual machine"].meaning, "a virtual machine")
        self.assertEqual(told["binding expiration"].value, "43200 minutes")
        self.assertEqual(told["binding expiration"].meaning, "30 days")
        self.assertEqual(told["application id"].meaning, "Windows")
        self.assertEqual(told["SKU id"].meaning, CATALOG.sku_name(REQUEST.sku_id))
        self.assertEqual(told["KMS id"].meaning, CATALOG.kms_id_name(REQUEST.kms_id))
        self.assertEqual(told["workstation name"].value, "desk-17.example.org")
        self.assertEqual(told["workstation name"].meaning, "")
        self.assertEqual(told["previous client machine id"].meaning, "the CMID before this one")

    def test_no_catalogue(self) -> None:
        """
        Without a catalogue products have no names; with one, those that are not in it are said to be so.
        """
        self.assertEqual(by_name(request_fields(sealed_request(6), None))["SKU id"].meaning, "")
        unknown = sealed_request(6, sku_id=UUID(int=7), previous_client_machine_id=UUID(int=0))
        told = by_name(request_fields(unknown, CATALOG))
        self.assertEqual(told["SKU id"].meaning, "not in the catalogue")
        self.assertEqual(told["previous client machine id"].meaning, "the CMID never changed")

    def test_odd_values(self) -> None:
        """
        Values that a host refuses are shown, and said to be wrong.
        """
        told = by_name(
            request_fields(
                sealed_request(
                    4,
                    is_virtual_machine=9,
                    licence_status=7,
                    n_policy=1001,
                    client_time=2**64 - 1,
                    remains=b"\xaa" * 40,
                    workstation="x",
                ),
                CATALOG,
            )
        )
        self.assertEqual(told["is virtual machine"].value, "9")
        self.assertIn("neither 0 nor 1", told["is virtual machine"].meaning)
        self.assertIn("no such status", told["licence status"].meaning)
        self.assertIn("over 1000", told["N policy"].meaning)
        self.assertEqual(told["client time"].value, str(2**64 - 1))
        self.assertIn("no date", told["client time"].meaning)
        self.assertIn("remains of other memory", told["workstation name"].meaning)
        self.assertTrue(told["workstation name"].meaning.endswith("..."))

    def test_name_without_end(self) -> None:
        """
        A workstation name without its zero is shown whole.
        """
        body = encode_request_body(REQUEST._replace(major_version=4))[:108] + b"x\0" * 64
        told = by_name(request_fields(body + compute_mac(body), None))
        self.assertEqual(told["workstation name"].value, "x" * 64)
        self.assertIn("no end", told["workstation name"].meaning)
        self.assertEqual(told["MAC"].meaning, "right")

    def test_wrong_mac(self) -> None:
        """
        A wrong MAC is shown beside the right one.
        """
        payload = sealed_request(4)
        told = by_name(request_fields(payload[:-1] + b"\0", None))
        self.assertEqual(told["MAC"].meaning, f"wrong: it must be {payload[-16:].hex()}")

    def test_wrong_padding(self) -> None:
        """
        Wrong padding does not keep the body from being read.
        """
        clear = encode_request_body(REQUEST)
        sealed = CIPHERS[6].encrypt_cbc(REQUEST_SALT + clear + b"\4\4\4\5")
        told = by_name(request_fields(clear[:4] + sealed, None))
        self.assertEqual(told["padding"].meaning, "wrong: it must be 04040404")
        self.assertEqual(told["client machine id"].value, str(CLIENT))

    def test_versions_differ(self) -> None:
        """
        A version inside that is not the one outside is said to be wrong.
        """
        clear = encode_request_body(REQUEST._replace(minor_version=1))
        sealed = CIPHERS[6].encrypt_cbc(REQUEST_SALT + clear + b"\4\4\4\4")
        fields = request_fields(b"\0\0\6\0" + sealed, None)
        self.assertEqual(fields[3].meaning, "wrong: it is not that in clear")
        self.assertEqual(fields[4].meaning, "as in clear")

    def test_other_key(self) -> None:
        """
        What was encrypted with another key is not taken for a body.
        """
        clear = encode_request_body(REQUEST)
        sealed = CIPHERS[6].encrypt_cbc(REQUEST_SALT + clear + b"\4\4\4\4")
        payload = b"\0\0\6\0" + sealed[:16] + bytes(16) + sealed[32:]
        fields = request_fields(payload, None)
        self.assertCovers(fields, payload)
        self.assertEqual(
            [field.name for field in fields], ["minor version", "major version", "IV", "undecoded"]
        )
        self.assertEqual(fields[-1].value, payload[20:52].hex() + "...")
        self.assertEqual(fields[-1].meaning, "belongs to no field")

    def test_unknown_versions(self) -> None:
        """
        A request in a version that does not exist is read like the one of its size, with whichever key opens it.
        """
        body = REQUEST._replace(major_version=7, minor_version=1)
        payload, _ = seal_request(body, REQUEST_SALT)
        fields = request_fields(payload, None)
        self.assertEqual(fields[0].meaning, "wrong: it must be 0")
        self.assertEqual(fields[1].meaning, "there is no such protocol version")
        self.assertEqual(by_name(fields)["client machine id"].value, str(CLIENT))
        clear = encode_request_body(body)
        with_key_5 = CIPHERS[5].encrypt_cbc(REQUEST_SALT + clear + b"\4\4\4\4")
        told = by_name(request_fields(clear[:4] + with_key_5, None))
        self.assertEqual(told["client machine id"].value, str(CLIENT))
        told = by_name(request_fields(clear + compute_mac(clear), None))
        self.assertEqual(told["MAC"].meaning, "right")

    def test_unknown_version_and_size(self) -> None:
        """
        Of a message in no known version and of no known size only the version is read.
        """
        fields = request_fields(b"\0\0\x07\0" + b"\xff", None)
        self.assertEqual(fields[-1], Field(4, 1, "undecoded", "ff", "belongs to no field"))
        self.assertEqual(len(fields), 3)

    def test_cut(self) -> None:
        """
        Of a message that is cut, every field that is there in full is read, and the rest is one field.
        """
        for version in (4, 5, 6):
            payload = sealed_request(version)
            whole = request_fields(payload, CATALOG)
            for length in range(len(payload)):
                fields = request_fields(payload[:length], CATALOG)
                self.assertCovers(fields, payload[:length])
                if version == 4 and length >= 4:
                    there = [each for each in whole if each.offset + each.size <= length]
                    self.assertEqual(list(fields[: len(there)]), there)

    def test_excess(self) -> None:
        """
        What follows a message is one field.
        """
        for version in (4, 5, 6):
            payload = sealed_request(version) + b"more"
            fields = request_fields(payload, None)
            self.assertCovers(fields, payload)
            self.assertEqual(fields[-1].name, "undecoded")
            self.assertEqual(fields[-1].size, 4)

    def test_huge(self) -> None:
        """
        However long a message is, only so much of it is decrypted.
        """
        payload = sealed_request(6) + bytes(100_000)
        fields = request_fields(payload, None)
        self.assertCovers(fields, payload)
        self.assertLess(MAX_SEALED, 100_000)
        self.assertEqual(by_name(fields)["client machine id"].value, str(CLIENT))

    def test_json(self) -> None:
        """
        A field becomes a JSON object.
        """
        self.assertEqual(
            Field(4, 2, "count", "50", "enough").to_json(),
            {"offset": 4, "size": 2, "name": "count", "value": "50", "meaning": "enough"},
        )

    @given(st.binary(max_size=300), st.sampled_from([b"", b"\0\0\4\0", b"\0\0\5\0", b"\0\0\6\0"]))
    def test_garbage(self, data: bytes, start: bytes) -> None:
        """
        Whatever a message holds, its fields cover it, and nothing is raised.
        """
        self.assertCovers(request_fields(start + data, CATALOG), start + data)
        self.assertCovers(response_fields(start + data, None, CATALOG), start + data)
        _, request = exchange(6)
        self.assertCovers(response_fields(start + data, request, CATALOG), start + data)

    @given(request_bodies())
    def test_any_request(self, body: RequestBody) -> None:
        """
        Every request that can be read has all its fields, and they say what it says.
        """
        payload, _ = seal_request(body, REQUEST_SALT)
        fields = request_fields(payload, CATALOG)
        self.assertCovers(fields, payload)
        told = by_name(fields)
        self.assertNotIn("undecoded", told)
        self.assertEqual(told["workstation name"].value, body.workstation)
        self.assertEqual(told["client machine id"].value, str(body.client_machine_id))
        self.assertEqual(told["N policy"].value, str(body.n_policy))


class ResponseFieldsTests(FieldsCase):
    """
    L{response_fields}.
    """

    def test_plain(self) -> None:
        """
        An answer of version 4 has its body from the beginning, and the MAC behind it.
        """
        payload, request = exchange(4)
        fields = response_fields(payload, request, CATALOG)
        self.assertCovers(fields, payload)
        self.assertEqual([field.name for field in fields], [*RESPONSE_NAMES, "MAC"])
        self.assertEqual(fields[-1].meaning, "right")

    def test_encrypted(self) -> None:
        """
        Answers of versions 5 and 6 have all their proofs, and each is compared with the request.
        """
        envelope = ["minor version", "major version", "IV"]
        proofs = ["random XOR request salt", "SHA-256"]
        for version, tail in (
            (5, [*proofs, "padding"]),
            (6, [*proofs, "hardware id", "request salt", "HMAC", "padding"]),
        ):
            payload, request = exchange(version)
            fields = response_fields(payload, request, CATALOG)
            self.assertCovers(fields, payload)
            self.assertEqual([field.name for field in fields], envelope + RESPONSE_NAMES + tail)
            told = by_name(fields)
            self.assertIn(RANDOM.hex(), told["random XOR request salt"].meaning)
            self.assertEqual(told["SHA-256"].meaning, "that of the random bytes")
            self.assertEqual(told["padding"].meaning, "PKCS#7")
            self.assertEqual(told["client machine id"].meaning, "as in the request")
            self.assertEqual(told["client time"].meaning, "as in the request")
        self.assertEqual(told["hardware id"].value, HARDWARE_ID.hex().upper())
        self.assertEqual(told["request salt"].meaning, "as in the request")
        self.assertEqual(told["HMAC"].meaning, "right")

    def test_without_request(self) -> None:
        """
        Without the request the proofs are judged as far as the answer itself allows.
        """
        for version in (5, 6):
            payload, _ = exchange(version)
            told = by_name(response_fields(payload, None, None))
            self.assertIn(RANDOM.hex(), told["random XOR request salt"].meaning)
            self.assertEqual(told["SHA-256"].meaning, "that of the random bytes")
            self.assertEqual(told["client machine id"].meaning, "")
            self.assertEqual(told["client time"].meaning, f"FILETIME {CLIENT_TIME}")
            self.assertEqual(told["count"].meaning, "the host's clients")
        self.assertEqual(told["HMAC"].meaning, "right")
        self.assertEqual(told["request salt"].meaning, "")

    def test_other_request(self) -> None:
        """
        An answer to another request is found out.
        """
        payload, _ = exchange(6)
        other = REQUEST._replace(client_machine_id=UUID(int=1), client_time=CLIENT_TIME * 2)
        _, request = seal_request(other, bytes(16))
        told = by_name(response_fields(payload, request, None))
        for name in ("client machine id", "client time", "request salt"):
            self.assertEqual(told[name].meaning, "wrong: it is not that of the request")
        self.assertEqual(told["SHA-256"].meaning, "wrong: it is another one")
        self.assertEqual(told["HMAC"].meaning, "wrong")

    def test_epid(self) -> None:
        """
        An ePID is taken apart, and its parts are named where the catalogue knows them.
        """
        payload, request = exchange(6)
        meaning = by_name(response_fields(payload, request, CATALOG))["ePID"].meaning
        for part in ("platform 3612", "group 206 (", "key id 491000007", "LCID 1033"):
            self.assertIn(part, meaning)
        self.assertIn("build 14393 (Windows 10 1607 / Server 2016)", meaning)
        self.assertIn("activated 2016-08-02", meaning)
        self.assertNotIn("(", describe_epid(RESPONSE.epid, None))
        unknown = "03612-99999-491-000007-03-1033-12345.0000-2152016"
        self.assertIn("group 99999 (unknown)", describe_epid(unknown, CATALOG))
        self.assertIn("build 12345 (unknown)", describe_epid(unknown, CATALOG))
        self.assertEqual(describe_epid("nonsense", CATALOG), "not of the form of an ePID")

    def test_count(self) -> None:
        """
        A count is compared with what the product needs.
        """
        for count, meaning in ((25, "the product needs 25"), (24, "too few: 25 are needed")):
            payload, request = exchange(6, client_count=count)
            told = by_name(response_fields(payload, request, CATALOG))
            self.assertEqual((told["count"].value, told["count"].meaning), (str(count), meaning))

    def test_intervals(self) -> None:
        """
        Intervals are minutes, and said in larger units as well.
        """
        told = by_name(response_fields(*exchange(5), None))
        self.assertEqual(told["activation interval"].value, "120 minutes")
        self.assertEqual(told["activation interval"].meaning, "2 hours")
        self.assertEqual(told["renewal interval"].meaning, "7 days")

    def test_wrong_epid(self) -> None:
        """
        An ePID without its zero, or of a size that cannot be, is shown and said to be wrong.
        """
        body = encode_response_body(RESPONSE._replace(major_version=4))
        size = int.from_bytes(body[4:8], "little")
        no_end = body[: 8 + size - 2] + b"x\0" + body[8 + size :]
        told = by_name(response_fields(no_end, None, None))
        self.assertIn("does not end with its only zero", told["ePID"].meaning)
        odd = body[:4] + (size - 1).to_bytes(4, "little") + body[8:]
        told = by_name(response_fields(odd, None, None))
        self.assertEqual(told["ePID size"].meaning, "wrong: it must be even, from 2 to 128")
        far = body[:4] + b"\xff\xff\xff\xff" + body[8:]
        fields = response_fields(far, None, None)
        self.assertCovers(fields, far)
        self.assertEqual([field.name for field in fields][-2:], ["ePID size", "undecoded"])

    def test_wrong_padding(self) -> None:
        """
        Wrong padding is shown as long as it can be padding at all.
        """
        payload, request = exchange(5)
        message = CIPHERS[5].decrypt_cbc(payload[4:])
        broken = payload[:4] + CIPHERS[5].encrypt_cbc(message[:-1] + b"\0")
        self.assertTrue(
            by_name(response_fields(broken, request, None))["padding"].meaning.startswith("wrong")
        )
        longer = payload[:4] + CIPHERS[5].encrypt_cbc(message + bytes(32))
        fields = response_fields(longer, request, None)
        self.assertCovers(fields, longer)
        self.assertEqual(fields[-1].name, "undecoded")

    def test_unknown_version(self) -> None:
        """
        Of an answer in a version that does not exist only the version is read.
        """
        payload = b"\0\0\x07\0" + bytes(60)
        fields = response_fields(payload, None, None)
        self.assertCovers(fields, payload)
        self.assertEqual(len(fields), 3)

    def test_cut(self) -> None:
        """
        An answer that is cut anywhere is read as far as it goes.
        """
        for version in (4, 5, 6):
            payload, request = exchange(version)
            for length in range(len(payload)):
                self.assertCovers(
                    response_fields(payload[:length], request, CATALOG), payload[:length]
                )

    @given(response_bodies())
    def test_any_response(self, body: ResponseBody) -> None:
        """
        Every answer that can be read has all its fields.
        """
        version = body.major_version
        sent, _ = seal_request(REQUEST._replace(major_version=version), REQUEST_SALT)
        request = open_request(sent)
        payload = seal_response(
            request,
            body,
            salt=RESPONSE_SALT,
            random=RANDOM,
            hardware_id=HARDWARE_ID,
        )
        fields = response_fields(payload, request, CATALOG)
        self.assertCovers(fields, payload)
        self.assertNotIn("undecoded", by_name(fields))


class ShowingTests(SynchronousTestCase):
    """
    Times and durations for people.
    """

    def test_filetime(self) -> None:
        """
        A FILETIME is a date in UTC, with a fraction if it has one, as long as there is one.
        """
        self.assertEqual(show_filetime(0), "1601-01-01T00:00:00Z")
        self.assertEqual(show_filetime(CLIENT_TIME), "2026-01-02T03:04:05Z")
        self.assertEqual(show_filetime(CLIENT_TIME + 5), "2026-01-02T03:04:05.0000005Z")
        last = 2650467743999999999
        self.assertEqual(show_filetime(last), "9999-12-31T23:59:59.9999999Z")
        self.assertEqual(show_filetime(last + 1), str(last + 1))

    def test_minutes(self) -> None:
        """
        Minutes are said in days, hours and minutes, if they are more than minutes.
        """
        for value, text in (
            (0, ""),
            (59, ""),
            (60, "1 hour"),
            (61, "1 hour, 1 minute"),
            (1440, "1 day"),
            (3002, "2 days, 2 hours, 2 minutes"),
        ):
            self.assertEqual(show_minutes(value), text)

    def test_immutable(self) -> None:
        """
        Fields are values.
        """
        field = Field(0, 1, "a", "b", "c")
        self.assertEqual(replace(field, size=1), field)
