"""
What was found, as text and as JSON.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.events import CallSeen, Conversation, PDUSeen, Remark
from kmsproto.decode.render import (
    event_to_json,
    headline,
    product_name,
    sections,
    show_route,
    show_time,
    summary_line,
)
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.envelopes import seal_request
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import decode_header
from tests.decode.dissecting import ACK, BIND, answer, ask
from tests.decode.traffic import Connection, Said, calls, capture, decode, golden
from tests.kms.samples import CLIENT, HARDWARE_ID, REQUEST, REQUEST_SALT, RESPONSE
from tests.rpc.building import build_fault, build_nak, build_pdu

CATALOG = load_catalog()
NOWHERE = Conversation()


def seen(said: list[Said]) -> list[CallSeen]:
    """
    Let the decoder find the calls in a conversation.
    """
    made = Connection()
    return calls(decode(capture(made.frames(made.whole(said))))[0])


GRANTED = seen([("client", BIND), ("host", ACK), ("client", ask()), ("host", answer())])[0]
FAULT = seen(
    [("client", BIND), ("host", ACK), ("client", ask(opnum=3)), ("host", build_fault(0x1C010002))]
)[0]
REFUSED = seen(golden("refused-version"))[0]
ALONE = seen([("client", BIND), ("host", ACK), ("client", ask())])[0]


def pdu(data: bytes, sender: str = "host") -> PDUSeen:
    """
    Make the event of a PDU.
    """
    return PDUSeen(NOWHERE, 0, sender, decode_header(data), data)


class TextTests(SynchronousTestCase):
    """
    Sentences.
    """

    def test_time(self) -> None:
        """
        Times are in UTC, with microseconds; an unknown one is nothing.
        """
        self.assertEqual(show_time(0), "")
        self.assertEqual(show_time(1_767_323_045_123_456_789), "2026-01-02T03:04:05.123456Z")

    def test_impossible_time(self) -> None:
        """
        A time that a damaged capture claims, and no calendar has, is unknown.
        """
        end = 253_402_300_800 * 10**9
        self.assertEqual(show_time(end - 1), "9999-12-31T23:59:59.999999Z")
        for time in (end, 2**64 * 10**9, -1, -(2**62) * 10**9):
            self.assertEqual(show_time(time), "")

    def test_route(self) -> None:
        """
        A route has the direction, if there is one.
        """
        there = Conversation(1, "a:1", "b:2")
        self.assertEqual(show_route(there, "client"), "a:1 -> b:2")
        self.assertEqual(show_route(there, "host"), "b:2 -> a:1")
        self.assertEqual(show_route(there, ""), "a:1 <-> b:2")
        self.assertEqual(show_route(NOWHERE, "host"), "host")

    def test_calls(self) -> None:
        """
        A call is said with the product, the version and what came of it.
        """
        product = CATALOG.sku_name(REQUEST.sku_id)
        self.assertEqual(headline(GRANTED, CATALOG), f"call 2 for {product}, version 6: granted")
        self.assertEqual(
            headline(REFUSED, CATALOG),
            "call 2: refused: 0x8007000D, the host could not make sense of the request or does not"
            " speak its version",
        )
        self.assertEqual(headline(FAULT, CATALOG), "call 2: fault 0x1C010002 (nca_s_op_rng_error)")
        self.assertTrue(headline(ALONE, CATALOG).endswith(": unanswered"))
        message, _ = seal_request(REQUEST, REQUEST_SALT)
        (alone,) = calls(decode(message)[0])
        self.assertTrue(headline(alone, CATALOG).startswith("message for "))

    def test_products(self) -> None:
        """
        A product that the catalogue does not know is named by its KMS id.
        """
        unknown, _ = seal_request(REQUEST._replace(sku_id=CLIENT), REQUEST_SALT)
        (call,) = calls(decode(unknown)[0])
        self.assertEqual(product_name(call, CATALOG), CATALOG.kms_id_name(REQUEST.kms_id))
        self.assertEqual(product_name(REFUSED, CATALOG), "")

    def test_pdus(self) -> None:
        """
        A PDU is said with its name, and why it refuses something.
        """
        self.assertEqual(headline(pdu(BIND), CATALOG), f"bind, call 1, {len(BIND)} bytes")
        self.assertEqual(
            headline(pdu(build_nak(4)), CATALOG),
            "bind_nak, call 2, 24 bytes: protocol_version_not_supported",
        )
        self.assertEqual(
            headline(pdu(build_fault(5)), CATALOG),
            "fault, call 2, 32 bytes: 0x00000005 (access denied)",
        )
        self.assertEqual(
            headline(pdu(build_pdu(PacketType.FAULT)), CATALOG), "fault, call 1, 16 bytes"
        )
        self.assertEqual(headline(Remark(NOWHERE, 0, "so it is", False), CATALOG), "so it is")

    def test_sections(self) -> None:
        """
        A call has a section for each PDU, stub and message that there is.
        """

        def titles(event: CallSeen | PDUSeen | Remark) -> list[str]:
            return [section.title for section in sections(event, CATALOG)]

        self.assertEqual(
            titles(GRANTED),
            [
                *("request PDU", "request stub in NDR", "KMS request"),
                *("response PDU", "response stub in NDR", "KMS response"),
            ],
        )
        self.assertEqual(
            titles(REFUSED),
            [
                "request PDU",
                "request stub in NDR",
                "KMS request",
                "response PDU",
                "response stub in NDR",
            ],
        )
        self.assertEqual(titles(FAULT), ["request PDU", "request stub in NDR", "fault PDU"])
        self.assertEqual(titles(pdu(BIND)), ["PDU"])
        self.assertEqual(titles(Remark(NOWHERE, 0, "", False)), [])

    def test_fragments(self) -> None:
        """
        Of several PDUs the first is shown, and how many there are.
        """
        part = ask()
        first = part[:3] + b"\1" + part[4:8] + b"\x28\0" + part[10:40]
        last = (
            part[:3]
            + b"\2"
            + part[4:8]
            + (len(part) - 16).to_bytes(2, "little")
            + part[10:24]
            + part[40:]
        )
        (call,) = seen(
            [("client", BIND), ("host", ACK), ("client", first + last), ("host", answer())]
        )
        self.assertEqual(call.problems, ())
        self.assertEqual(next(sections(call, CATALOG)).title, "request PDU, the first of 2")

    def test_summary(self) -> None:
        """
        A line of a list has eleven words.
        """
        words = summary_line(GRANTED, CATALOG)
        self.assertEqual(
            words[1:],
            [
                *("192.0.2.1:50000", "192.0.2.9:1688", "v6", CATALOG.sku_name(REQUEST.sku_id)),
                *(str(CLIENT), REQUEST.workstation, "granted", "50", RESPONSE.epid, "12/12"),
            ],
        )
        self.assertEqual(
            summary_line(REFUSED, CATALOG)[3:], ["-"] * 4 + ["refused 0x8007000D"] + ["-"] * 3
        )
        self.assertEqual(summary_line(FAULT, CATALOG)[7], "fault 0x1C010002")
        self.assertEqual(summary_line(ALONE, CATALOG)[7:], ["unanswered", "-", "-", "-"])


class JSONTests(SynchronousTestCase):
    """
    JSON.
    """

    def test_call(self) -> None:
        """
        A call has all that its messages say, the checks, and every field if that is wanted.
        """
        told = json.loads(json.dumps(event_to_json(GRANTED, CATALOG, fields=True)))
        self.assertEqual(told["type"], "call")
        self.assertEqual(told["outcome"], "granted")
        self.assertEqual(told["transfer_syntax"], "NDR")
        self.assertEqual(told["hresult"], "0x00000000")
        self.assertEqual(told["client"], "192.0.2.1:50000")
        self.assertEqual(told["connection"], 1)
        self.assertEqual(told["request"]["client_machine_id"], str(CLIENT))
        self.assertEqual(told["request"]["product"], CATALOG.sku_name(REQUEST.sku_id))
        self.assertEqual(told["response"]["epid"], RESPONSE.epid)
        self.assertEqual(told["response"]["hardware_id"], HARDWARE_ID.hex().upper())
        self.assertTrue(all(check["passed"] for check in told["checks"]))
        self.assertEqual((told["problems"], told["remarks"]), ([], []))
        titles = [section["title"] for section in told["sections"]]
        self.assertIn("KMS response", titles)
        names = [field["name"] for section in told["sections"] for field in section["fields"]]
        self.assertIn("HMAC", names)
        self.assertNotIn("sections", event_to_json(GRANTED, CATALOG, fields=False))

    def test_others(self) -> None:
        """
        What is not there is null.
        """
        told = event_to_json(FAULT, CATALOG, fields=False)
        self.assertEqual(
            (told["fault"], told["hresult"], told["response"]), ("0x1C010002", None, None)
        )
        told = event_to_json(REFUSED, CATALOG, fields=False)
        self.assertEqual((told["fault"], told["hresult"]), (None, "0x8007000D"))
        self.assertEqual(list(told["request"]), ["bytes"])
        self.assertEqual(len(told["problems"]), 1)
        told = event_to_json(pdu(BIND, ""), CATALOG, fields=True)
        self.assertEqual(
            (told["type"], told["packet_type"], told["bytes"]), ("pdu", "bind", BIND.hex())
        )
        self.assertEqual((told["sender"], told["client"], told["time"]), (None, None, None))
        told = event_to_json(Remark(NOWHERE, 1, "so it is", True), CATALOG, fields=True)
        self.assertEqual((told["text"], told["is_problem"]), ("so it is", True))
