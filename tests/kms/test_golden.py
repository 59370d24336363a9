"""
Tests of L{kmsproto.kms} on recorded exchanges: opened field by field, and rebuilt to the byte.

What was recorded was opened by other means when it was recorded, so both sides of a comparison are independent.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.envelopes import (
    OpenedRequest,
    compute_hmac,
    compute_mac,
    open_request,
    seal_request,
    seal_response,
)
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody, ResponseBody, decode_request_body
from kmsproto.kms.policy import Peer
from kmsproto.kms.rijndael import Rijndael
from kmsproto.kms.verification import open_response
from kmsproto.testing import make_host
from tests.golden import EXCHANGES, RecordedPDU, load_exchange
from tests.kms.samples import NOW

CIPHERS = {
    5: Rijndael(bytes.fromhex("cd7e796f2ab25dcb55ffc8ef8364c470")),
    6: Rijndael(bytes.fromhex("a94a4195e201432d9bcb460405d84a21"), {64: 0x73, 96: 0x09, 128: 0xE4}),
}

#: Bytes before the KMS message: the header of the PDU, then the integers of the stub.
STARTS = {
    ("request", "NDR"): 24 + 8,
    ("request", "NDR64"): 24 + 16,
    ("response", "NDR"): 24 + 12,
    ("response", "NDR64"): 24 + 24,
}


class Recorded(NamedTuple):
    """
    A call and its answer.

    @ivar name: Where it was found, for failures.
    """

    name: str
    request: bytes
    asked: dict[str, Any]
    response: bytes
    answered: dict[str, Any]
    hresult: int


def message(pdu: RecordedPDU) -> bytes:
    """
    Cut the KMS message out of a PDU; its length stands first in the stub.
    """
    start = STARTS[pdu.packet, pdu.transfer_syntax]
    return pdu.data[start : start + int.from_bytes(pdu.data[24:28], "little")]


def load_calls() -> list[Recorded]:
    """
    Load every call of every exchange together with its answer.
    """
    calls = []
    for name in EXCHANGES:
        pdus = [pdu for pdu in load_exchange(name) if pdu.packet in ("request", "response")]
        for call, answer in zip(pdus[::2], pdus[1::2], strict=True):
            calls.append(
                Recorded(
                    f"{name}, {call.transfer_syntax}",
                    message(call),
                    call.opened,
                    message(answer),
                    answer.opened,
                    answer.hresult,
                )
            )
    return calls


def field(opened: dict[str, Any], name: str) -> bytes:
    """
    Get a recorded field of bytes.
    """
    return bytes.fromhex(opened[name])


def xor(a: bytes, b: bytes) -> bytes:
    """
    Add two strings of bytes.
    """
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def recorded_request_body(body: dict[str, Any]) -> RequestBody:
    """
    Make a request body of the recorded fields, each of which must be used.
    """
    fields = dict(body)
    made = RequestBody(
        minor_version=fields.pop("minor"),
        major_version=fields.pop("major"),
        is_virtual_machine=fields.pop("is_virtual_machine"),
        licence_status=fields.pop("licence_status"),
        binding_expiration=fields.pop("binding_expiration"),
        application_id=UUID(fields.pop("application_id")),
        sku_id=UUID(fields.pop("sku_id")),
        kms_id=UUID(fields.pop("kms_id")),
        client_machine_id=UUID(fields.pop("client_machine_id")),
        n_policy=fields.pop("n_policy"),
        client_time=fields.pop("client_time"),
        previous_client_machine_id=UUID(fields.pop("previous_client_machine_id")),
        workstation=fields.pop("workstation"),
    )
    assert not fields, fields
    return made


def recorded_response_body(body: dict[str, Any]) -> ResponseBody:
    """
    Make a response body of the recorded fields, each of which must be used.
    """
    fields = dict(body)
    epid = fields.pop("epid")
    assert fields.pop("epid_size") == 2 * len(epid) + 2
    made = ResponseBody(
        minor_version=fields.pop("minor"),
        major_version=fields.pop("major"),
        epid=epid,
        client_machine_id=UUID(fields.pop("client_machine_id")),
        client_time=fields.pop("client_time"),
        client_count=fields.pop("count"),
        activation_interval=fields.pop("activation_interval"),
        renewal_interval=fields.pop("renewal_interval"),
    )
    assert not fields, fields
    return made


class GoldenTests(SynchronousTestCase):
    """
    What was recorded is opened and rebuilt.
    """

    def setUp(self) -> None:
        """
        Load the calls; those that were granted are the subject of most tests.
        """
        calls = load_calls()
        self.granted = [call for call in calls if call.hresult == 0]
        self.refused = [call for call in calls if call.hresult != 0]

    def test_coverage(self) -> None:
        """
        There is something of each version, in clear and encrypted, and something that is refused.
        """
        versions = sorted(call.asked["body"]["major"] for call in self.granted)
        self.assertEqual(versions, [4, 4, 4, 5, 5, 5, 6, 6, 6, 6])
        self.assertEqual(len(self.refused), 2)

    def test_requests_open(self) -> None:
        """
        Every field of every request is read as it was recorded.
        """
        for call in self.granted:
            opened = open_request(call.request)
            version = opened.body.major_version
            self.assertEqual(
                opened.body._replace(remains=b""), recorded_request_body(call.asked["body"])
            )
            if version == 4:
                self.assertEqual(set(call.asked), {"body", "mac"}, call.name)
                self.assertEqual((opened.salt, opened.iv), (b"", b""), call.name)
                self.assertEqual(call.request[236:], field(call.asked, "mac"), call.name)
                self.assertEqual(compute_mac(call.request[:236]), field(call.asked, "mac"))
            else:
                self.assertEqual(set(call.asked), {"iv", "request_salt", "body", "padding"})
                self.assertEqual(opened.salt, field(call.asked, "request_salt"), call.name)
                self.assertEqual(opened.iv, field(call.asked, "iv"), call.name)
                clear = CIPHERS[version].decrypt_cbc(call.request[4:])
                self.assertEqual(clear[252:], field(call.asked, "padding"), call.name)

    def test_requests_rebuild(self) -> None:
        """
        A request that is sealed with the recorded salt is the recorded request, and so is what is remembered of it.
        """
        for call in self.granted:
            opened = open_request(call.request)
            salt = field(call.asked, "request_salt") if "request_salt" in call.asked else b""
            body = recorded_request_body(call.asked["body"])._replace(remains=opened.body.remains)
            self.assertEqual(seal_request(body, salt), (call.request, opened), call.name)

    def test_remains(self) -> None:
        """
        The recorded client leaves remains behind the zero of some names, and they are kept as they stand.
        """
        found = 0
        for call in self.granted:
            version = call.asked["body"]["major"]
            clear = call.request[:236]
            if version != 4:
                clear = CIPHERS[version].decrypt_cbc(call.request[4:])[16:252]
            end = 2 * len(call.asked["body"]["workstation"])
            self.assertEqual(clear[108 + end : 110 + end], b"\0\0", call.name)
            remains = clear[110 + end :].rstrip(b"\0")
            self.assertEqual(open_request(call.request).body.remains, remains, call.name)
            found += bool(remains)
        self.assertGreater(found, 0)

    def test_responses_open(self) -> None:
        """
        Every response passes every check, and its body and hardware id are read as they were recorded.
        """
        for call in self.granted:
            opened = open_response(call.response, open_request(call.request))
            self.assertEqual(opened.body, recorded_response_body(call.answered["body"]), call.name)
            self.assertEqual(opened.hardware_id.hex(), call.answered.get("hardware_id", ""))

    def test_response_fields(self) -> None:
        """
        What stands around the body of a response is what the specification derives, and in its order.
        """
        for call in self.granted:
            version = call.answered["body"]["major"]
            size = 44 + call.answered["body"]["epid_size"]
            if version == 4:
                self.assertEqual(set(call.answered), {"body", "mac"}, call.name)
                self.assertEqual(compute_mac(call.response[:size]), field(call.answered, "mac"))
                self.assertEqual(call.response[size:], field(call.answered, "mac"), call.name)
                continue
            clear = CIPHERS[version].decrypt_cbc(call.response[4:])
            parts = ["response_salt", "random_xor_request_salt", "random_sha256"]
            parts += ["hardware_id", "request_salt", "hmac"] if version == 6 else []
            parts += ["padding"]
            self.assertEqual(set(call.answered), {"iv", "body", *parts}, call.name)
            fields = [field(call.answered, part) for part in parts]
            self.assertEqual(clear[:16] + clear[16 + size :], b"".join(fields), call.name)
            self.assertEqual(call.response[4:20], field(call.answered, "iv"), call.name)
            request_salt = field(call.asked, "request_salt")
            random = xor(field(call.answered, "random_xor_request_salt"), request_salt)
            self.assertEqual(
                hashlib.sha256(random).digest(), field(call.answered, "random_sha256"), call.name
            )
            padding = field(call.answered, "padding")
            self.assertEqual(padding, bytes([len(padding)]) * len(padding), call.name)
            if version == 5:
                self.assertEqual(call.answered["iv"], call.asked["iv"], call.name)
                self.assertEqual(field(call.answered, "response_salt"), request_salt, call.name)
            else:
                self.assertNotEqual(call.answered["iv"], call.asked["iv"], call.name)
                self.assertEqual(field(call.answered, "request_salt"), request_salt, call.name)
                signed = clear[: -len(padding) - 16]
                self.assertEqual(
                    compute_hmac(call.asked["body"]["client_time"], signed),
                    field(call.answered, "hmac"),
                    call.name,
                )

    def test_responses_rebuild(self) -> None:
        """
        A response that is sealed with the recorded random bytes is the recorded response.
        """
        for call in self.granted:
            opened = open_request(call.request)
            salt = random = hardware_id = b""
            if opened.salt:
                salt = field(call.answered, "response_salt")
                random = xor(field(call.answered, "random_xor_request_salt"), opened.salt)
            if opened.body.major_version == 6:
                hardware_id = field(call.answered, "hardware_id")
            sealed = seal_response(
                opened,
                recorded_response_body(call.answered["body"]),
                salt=salt,
                random=random,
                hardware_id=hardware_id,
            )
            self.assertEqual(sealed, call.response, call.name)

    def test_host_grants(self) -> None:
        """
        Our host grants what the recorded host granted, with the count that it reported.
        """
        host = make_host()
        for call in self.granted:
            answer = host.answer(call.request, Peer("192.0.2.1", 49152), NOW)
            self.assertEqual(answer.hresult, HResult.SUCCESS, call.name)
            opened = open_response(answer.payload, open_request(call.request))
            self.assertEqual(opened.body.client_count, call.answered["body"]["count"], call.name)

    def test_refused_version(self) -> None:
        """
        Version 7.0 is answered with 0x8007000D and no data, as the recorded host did.
        """
        host = make_host()
        for call in self.refused:
            self.assertEqual(call.request[:4], b"\0\0\7\0", call.name)
            answer = host.answer(call.request, Peer("192.0.2.1", 49152), NOW)
            self.assertEqual(answer.hresult, 0x8007000D, call.name)
            self.assertEqual(answer.hresult, call.hresult, call.name)
            self.assertEqual((answer.payload, call.response), (b"", b""), call.name)
            self.assertEqual(answer.problem, "protocol version 7.0 is not supported")

    def test_refused_version_rebuilds(self) -> None:
        """
        The request in version 7.0 was sealed like one of version 6, and is sealed so here.
        """
        for call in self.refused:
            clear = CIPHERS[6].decrypt_cbc(call.request[4:])
            self.assertEqual(clear[16:20], b"\0\0\7\0", call.name)
            body = decode_request_body(b"\0\0\6\0" + clear[20:252])._replace(major_version=7)
            payload, remembered = seal_request(body, clear[:16])
            self.assertEqual(payload, call.request, call.name)
            self.assertEqual(remembered, OpenedRequest(body, clear[:16], call.request[4:20]))
