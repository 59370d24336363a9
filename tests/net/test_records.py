"""
The wording of lines: JSON that parses back whatever peers say, verbose text, and masks that let nothing through.
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.host import Answer
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import RequestBody
from kmsproto.kms.policy import Grant, Peer
from kmsproto.net.noise import Suppressed
from kmsproto.net.records import (
    JSONLines,
    TextLines,
    VerboseTextLines,
    client_time,
    json_object,
    json_text,
    mask_answer,
    mask_peer,
    masked,
    status_name,
    utc,
)
from tests.net.wiring import NOW, body, catalog

PEER = Peer("10.0.0.9", 50123)
EPID = "03612-00206-500-000000-03-1033-26100.0000-0012026"

#: Any text, half surrogate pairs among it.
TEXTS = st.text(st.characters())
GUIDS = st.uuids() | st.just(UUID(int=0))
ADDRESSES = st.ip_addresses().map(str)
REQUESTS = st.builds(
    RequestBody,
    st.just(0),
    st.sampled_from((4, 5, 6)),
    st.sampled_from((0, 1)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    GUIDS,
    GUIDS,
    GUIDS,
    GUIDS,
    st.integers(0, 1000),
    st.integers(0, 2**64 - 1),
    GUIDS,
    TEXTS,
)
GRANTS = st.builds(Grant, st.integers(0, 2000), st.integers(0, 2**32), st.integers(0, 2**32))
ANSWERS = st.one_of(
    st.builds(Answer, st.just(HResult.SUCCESS), st.just(b""), REQUESTS, GRANTS),
    st.builds(Answer, st.just(HResult.PRODUCT_REFUSED), st.just(b""), REQUESTS),
    st.builds(Answer, st.just(HResult.INVALID_DATA), problem=TEXTS),
)


def epid_of(kms_id: UUID) -> str:
    """
    Tell the ePID of the tests.
    """
    return EPID


def all_lines() -> list[Any]:
    """
    Make one of each form.
    """
    clock = Clock()
    clock.advance(NOW)
    return [
        TextLines(catalog()),
        VerboseTextLines(catalog(), epid_of),
        JSONLines(catalog(), clock, epid_of),
    ]


def shown(text: str) -> str:
    """
    Write out half surrogate pairs, as JSON lines do.
    """
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)


class JSONTests(SynchronousTestCase):
    """
    L{JSONLines}.
    """

    def setUp(self) -> None:
        """
        Start a clock, a quarter into a second.
        """
        self.clock = Clock()
        self.clock.advance(NOW + 0.25)
        self.lines = JSONLines(catalog(), self.clock, epid_of)

    def test_activation(self) -> None:
        """
        A grant has everything that request and answer say, and what it cost.
        """
        started = self.clock.seconds()
        self.clock.advance(0.000_1)
        answer = Answer(HResult.SUCCESS, b"", body(6, "lab-1"), Grant(50))
        self.assertEqual(
            json.loads(self.lines.answer(PEER, answer, started)),
            {
                "time": "2026-11-14T23:46:40.250Z",
                "event": "activation",
                "peer": {"address": "10.0.0.9", "port": 50123},
                "hresult": "0x00000000",
                "version": 6,
                "sku": {
                    "id": "73111121-5638-40f6-bc11-f1d7b0d64300",
                    "name": "Windows 10/11 Enterprise",
                },
                "kms": {"id": "58e2134f-8e11-4d17-9cb2-91069c151148", "name": KMS_NAME},
                "application": {
                    "id": "55c92734-d682-4d71-983e-d6ec3f16059f",
                    "name": "Windows",
                },
                "workstation": "lab-1",
                "cmid": "00000000-0000-0000-1234-567890abcdef",
                "previous_cmid": None,
                "n_policy": 25,
                "client_time": "2026-11-14T23:46:40.000Z",
                "virtual_machine": False,
                "license_status": {"number": 2, "name": "OOB grace"},
                "minutes_left": body().binding_expiration,
                "answer": {
                    "count": 50,
                    "epid": EPID,
                    "activation_interval": 120,
                    "renewal_interval": 10080,
                },
                "cost_us": 100,
            },
        )

    def test_refusal(self) -> None:
        """
        A refusal has its HRESULT and the request, no answer, and no cost where nobody knows it.
        """
        previous = UUID(int=5)
        request = body(5, is_virtual_machine=1, previous_client_machine_id=previous)
        answer = Answer(HResult.PRODUCT_REFUSED, b"", request)
        record = json.loads(self.lines.answer(PEER, answer, None))
        self.assertEqual((record["event"], record["hresult"]), ("refusal", "0xC004F042"))
        self.assertEqual((record["virtual_machine"], record["version"]), (True, 5))
        self.assertEqual(record["previous_cmid"], str(previous))
        self.assertEqual({"answer", "cost_us", "reason"} & set(record), set())

    def test_without_epid(self) -> None:
        """
        Where nobody tells the ePID there is none, and the rest is the same.
        """
        answer = Answer(HResult.SUCCESS, b"", body(), Grant(50))
        with_epid = json.loads(self.lines.answer(PEER, answer, None))
        del with_epid["answer"]["epid"]
        lines = JSONLines(catalog(), self.clock)
        self.assertEqual(json.loads(lines.answer(PEER, answer, None)), with_epid)

    def test_clock_set_back(self) -> None:
        """
        Nothing costs less than no time.
        """
        answer = Answer(HResult.INVALID_DATA, problem="short")
        record = json.loads(self.lines.answer(PEER, answer, self.clock.seconds() + 9))
        self.assertEqual((record["cost_us"], record["reason"]), (0, "short"))

    def test_other_events(self) -> None:
        """
        What else happens has a name of its own, the peer, and the reason.
        """
        base = {
            "time": "2026-11-14T23:46:40.250Z",
            "peer": {"address": "10.0.0.9", "port": 50123},
            "reason": 'a "reason"',
        }
        for line, expected in (
            (self.lines.closed(PEER, 'a "reason"'), {"event": "closed"}),
            (self.lines.turned_away(PEER, 'a "reason"'), {"event": "turned_away"}),
            (
                self.lines.faulted(PEER, 0x6F7, 'a "reason"'),
                {"event": "fault", "status": "0x000006F7"},
            ),
        ):
            self.assertEqual(json.loads(line), base | expected)

    def test_suppressed(self) -> None:
        """
        A summary tells how many lines, about how many addresses, since when.
        """
        self.assertEqual(
            json.loads(self.lines.suppressed(Suppressed(7, 2, NOW))),
            {
                "time": "2026-11-14T23:46:40.250Z",
                "event": "suppressed",
                "count": 7,
                "addresses": 2,
                "since": "2026-11-14T23:46:40.000Z",
            },
        )

    @given(ANSWERS, TEXTS)
    def test_parses_back(self, answer: Answer, address: str) -> None:
        """
        Whatever a peer says, its line is one line of printable ASCII, and the facts can be read from it again.
        """
        line = self.lines.answer(Peer(address, 1), answer, None)
        self.assertTrue(line.isascii() and line.isprintable())
        record = json.loads(line)
        self.assertEqual(record["peer"], {"address": shown(address), "port": 1})
        request, grant = answer.request, answer.grant
        if request is None:
            self.assertEqual(record["reason"], shown(answer.problem))
            return
        self.assertEqual(record["workstation"], shown(request.workstation))
        self.assertEqual(UUID(record["cmid"]), request.client_machine_id)
        previous = record["previous_cmid"] or str(UUID(int=0))
        self.assertEqual(UUID(previous), request.previous_client_machine_id)
        for name, guid in (
            ("sku", request.sku_id),
            ("kms", request.kms_id),
            ("application", request.application_id),
        ):
            self.assertEqual(UUID(record[name]["id"]), guid)
        self.assertEqual(record["license_status"]["number"], request.licence_status)
        self.assertEqual(record["minutes_left"], request.binding_expiration)
        self.assertEqual(record["n_policy"], request.n_policy)
        self.assertEqual(record["version"], request.major_version)
        self.assertEqual("answer" in record, grant is not None)
        if grant is not None:
            self.assertEqual(
                record["answer"],
                {
                    "count": grant.client_count,
                    "epid": EPID,
                    "activation_interval": grant.activation_interval,
                    "renewal_interval": grant.renewal_interval,
                },
            )


KMS_NAME = catalog().kms_id_name(body().kms_id)


class VerboseTests(SynchronousTestCase):
    """
    L{VerboseTextLines}.
    """

    def test_granted(self) -> None:
        """
        Behind the usual line stands the rest of the request, and of the answer.
        """
        answer = Answer(HResult.SUCCESS, b"", body(6, "lab-1"), Grant(50))
        usual, verbose, _ = (lines.answer(PEER, answer, None) for lines in all_lines())
        self.assertEqual(
            verbose,
            f"{usual} sku_id=73111121-5638-40f6-bc11-f1d7b0d64300"
            " application_id=55c92734-d682-4d71-983e-d6ec3f16059f"
            f' kms="{KMS_NAME}" kms_id=58e2134f-8e11-4d17-9cb2-91069c151148'
            " previous_cmid=00000000-0000-0000-0000-000000000000 n_policy=25"
            " client_time=2026-11-14T23:46:40.000Z virtual_machine=no license_status=2"
            f' license_status_name="OOB grace" minutes_left={body().binding_expiration}'
            f' epid="{EPID}" activation_interval=120 renewal_interval=10080',
        )

    def test_refused(self) -> None:
        """
        A refusal has the rest of the request only, and a request that nobody could read has none.
        """
        refused = Answer(HResult.PRODUCT_REFUSED, b"", body(is_virtual_machine=1))
        line = VerboseTextLines(catalog()).answer(PEER, refused, None)
        self.assertTrue(line.startswith(TextLines(catalog()).answer(PEER, refused, None)))
        self.assertIn(" virtual_machine=yes ", line)
        self.assertTrue(line.endswith(f" minutes_left={body().binding_expiration}"))
        unreadable = Answer(HResult.INVALID_DATA, problem="short")
        usual, verbose, _ = (lines.answer(PEER, unreadable, None) for lines in all_lines())
        self.assertEqual(verbose, usual)

    def test_without_epid(self) -> None:
        """
        Where nobody tells the ePID there is none.
        """
        answer = Answer(HResult.SUCCESS, b"", body(), Grant(50))
        line = VerboseTextLines(catalog()).answer(PEER, answer, None)
        self.assertNotIn(" epid=", line)
        self.assertIn(" activation_interval=", line)

    @given(ANSWERS)
    def test_one_line(self, answer: Answer) -> None:
        """
        Whatever a peer says, its line is one line of printable text.
        """
        self.assertTrue(VerboseTextLines(catalog()).answer(PEER, answer, None).isprintable())


class MaskTests(SynchronousTestCase):
    """
    Names and addresses that are left out.
    """

    def test_addresses(self) -> None:
        """
        Of an address the network of the site is left; what is no address is left out, and a peer on this machine is
        named as ever.  Ports stay.
        """
        for address, expected in (
            ("192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("fe80::1%eth0", "fe80::/48"),
            ("::1", "::/48"),
            ("local", "local"),
            ("host.example", "***"),
            ("", "***"),
        ):
            self.assertEqual(mask_peer(Peer(address, 7)), Peer(expected, 7))

    def test_answer(self) -> None:
        """
        Name and remains are taken out of a request, and nothing else; what has no request is left alone.
        """
        request = body(6, "lab-1")._replace(remains=b"lab-0")
        answer = Answer(HResult.SUCCESS, b"xyz", request, Grant(50))
        self.assertEqual(
            mask_answer(answer), answer._replace(request=body(6, "***")._replace(remains=b""))
        )
        unreadable = Answer(HResult.INVALID_DATA, problem="short")
        self.assertIs(mask_answer(unreadable), unreadable)

    @given(ADDRESSES, st.integers(0, 65535), ANSWERS, TEXTS, st.integers(0))
    def test_nothing_leaks(
        self, address: str, port: int, answer: Answer, name: str, other: int
    ) -> None:
        """
        In every form a line is the same whatever the name, and whichever machine of its network the peer is.
        """
        parsed = ip_address(address)
        network = ip_network(f"{address}/{24 if parsed.version == 4 else 48}", strict=False)
        neighbour = Peer(str(network[other % network.num_addresses]), port)
        renamed = answer
        if answer.request is not None:
            renamed = answer._replace(request=answer.request._replace(workstation=name))
        for lines in all_lines():
            describe = masked(lines.answer)
            line = describe(Peer(address, port), answer, None)
            self.assertEqual(describe(neighbour, renamed, None), line)


class WordTests(SynchronousTestCase):
    """
    Times, names and texts.
    """

    def test_utc(self) -> None:
        """
        A time is written in UTC with milliseconds, cut off.
        """
        self.assertEqual(utc(0.0), "1970-01-01T00:00:00.000Z")
        self.assertEqual(utc(NOW + 0.999_9), "2026-11-14T23:46:40.999Z")

    def test_client_time(self) -> None:
        """
        Any 64-bit number is written: as a time where the calendar has it.
        """
        for value, expected in (
            (0, "1601-01-01T00:00:00.000Z"),
            (116444736000000000 + 15_000, "1970-01-01T00:00:00.001Z"),
            (2650467743999999999, "9999-12-31T23:59:59.999Z"),
            (2650467744000000000, "filetime:2650467744000000000"),
            (2**64 - 1, "filetime:18446744073709551615"),
        ):
            self.assertEqual(client_time(value), expected)

    def test_status(self) -> None:
        """
        A status that does not exist has no name of its own.
        """
        self.assertEqual(
            [status_name(n) for n in (0, 6, 7)], ["unlicensed", "extended grace", "unknown"]
        )

    def test_json_text(self) -> None:
        """
        Line ends, control and format characters are escapes, and so is all that is not ASCII.
        """
        for text, written in (
            ("lab", '"lab"'),
            ('"\\\n\x00\x1b\x7f', r'"\"\\\n\u0000\u001b\u007f"'),
            ("\u2028\u202e\x85", r'"\u2028\u202e\u0085"'),
            ("ü\U0001f600", r'"\u00fc\ud83d\ude00"'),
            ("\ud800x", r'"\\ud800x"'),
        ):
            self.assertEqual(json_text(text), written)

    def test_json_object(self) -> None:
        """
        An object has its fields in their order.
        """
        self.assertEqual(json_object(a="x\n", b=2), r'{"a":"x\n","b":2}')
