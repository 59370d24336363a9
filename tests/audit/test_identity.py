"""
What is made of what a host says of itself.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import choose
from kmsproto.audit.model import Outcome, Step, Verdict
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.envelopes import open_request, seal_response
from kmsproto.kms.epid import ExtendedPID
from kmsproto.kms.messages import ResponseBody
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.rpc import calls, ndr, server
from kmsproto.rpc.pdu import NDR, NDR64
from tests.audit.memory import drive, subject

#: What a genuine host may call itself.
GOOD = ExtendedPID(3612, 4919, 19_949_372, 1033, 26100, date(2025, 2, 7))


class SayingHost:
    """
    A host whose RPC is right, and that says of itself what it is told.

    @param epids: What it calls itself, in turn.
    """

    def __init__(self, *epids: str, hardware_id: bytes = b"12345678") -> None:
        self._epids = list(epids)
        self._hardware_id = hardware_id
        self._server = server.RPCServer((KMS_INTERFACE,))
        self._lines: dict[int, server.ServerConnection] = {}

    def perform(self, step: Step) -> bytes | None:
        """
        Do what a step says.
        """
        number = step.connection
        if step.action == "connect":
            self._lines[number] = self._server.accept("10.0.0.9", "1688")
        elif step.action == "send":
            data = step.data
            while events := self._lines[number].receive_data(data):
                for event in events:
                    if isinstance(event, calls.CallReceived):
                        self._answer(self._lines[number], event.call)
                data = b""
        elif step.action == "receive":
            return self._lines[number].data_to_send() or None
        return b""

    def _answer(self, line: server.ServerConnection, call: calls.Call) -> None:
        wide = call.stub[4:8] == bytes(4)
        syntax = NDR64 if wide else NDR
        opened = open_request(ndr.decode_activation_request(call.stub, syntax, "<"))
        asked = opened.body
        epid = self._epids.pop(0)
        self._epids.append(epid)
        body = ResponseBody(
            0,
            asked.major_version,
            epid,
            asked.client_machine_id,
            asked.client_time,
            50,
            120,
            10080,
        )
        payload = seal_response(
            opened, body, salt=b"s" * 16, random=b"r" * 16, hardware_id=self._hardware_id
        )
        line.respond(call, ndr.encode_activation_response(payload, syntax))


class IdentityTests(SynchronousTestCase):
    """
    Cases about the identity, on hosts that say one thing or another.
    """

    def verdict(self, name: str, *epids: str, hardware_id: bytes = b"12345678") -> Verdict:
        """
        Try a case.
        """
        (case,) = choose(names=[name])
        host = SayingHost(*epids, hardware_id=hardware_id)
        return drive(case.script(subject()), host.perform)

    def plausible(self, **parts: Any) -> Verdict:
        """
        Ask whether an ePID can be one.
        """
        return self.verdict("identity.plausible", str(replace(GOOD, **parts)))

    def test_form(self) -> None:
        """
        An ePID is written in one form; anything else is told as it is, without control characters.
        """
        self.assertIs(self.verdict("identity.form", str(GOOD)).outcome, Outcome.PASSED)
        for text in ("", "KMS", f"{GOOD} ", "\x1b[31m"):
            verdict = self.verdict("identity.form", text)
            self.assertEqual(verdict, (Outcome.FAILED, f"calls itself {text!r}"))
            self.assertNotIn("\x1b", verdict.did)

    def test_plausible(self) -> None:
        """
        The parts of an ePID have to fit together, and the day must have come.
        """
        self.assertIs(self.plausible().outcome, Outcome.PASSED)
        for parts, doubt in (
            ({"platform_id": 5426}, "the platform id of build 26100 is 03612"),
            ({"group_id": 99_999}, "no key group has the group id 99999"),
            ({"key_id": 999_999_999}, "no key id 999999999"),
            ({"day": date(2010, 1, 1)}, "there was no such host yet"),
            ({"day": date(2099, 1, 1)}, "it was activated in the future"),
        ):
            verdict = self.plausible(**parts)
            self.assertIs(verdict.outcome, Outcome.FAILED, doubt)
            self.assertIn(doubt, verdict.did)

    def test_unknown_build(self) -> None:
        """
        A build that we do not know is no mistake of the host's.
        """
        self.assertNotIn(26101, load_catalog().host_builds)
        verdict = self.plausible(build=26101)
        self.assertIs(verdict.outcome, Outcome.NOTED)
        self.assertIn("of a build that we do not know", verdict.did)

    def test_no_epid(self) -> None:
        """
        What has not the form of an ePID cannot be judged by its parts.
        """
        self.assertIs(self.verdict("identity.plausible", "KMS").outcome, Outcome.NOT_APPLICABLE)

    def test_changing(self) -> None:
        """
        A host that calls itself something else is found out, on connections and between versions.
        """
        for name in ("identity.connections", "identity.versions"):
            self.assertIs(self.verdict(name, "A").outcome, Outcome.PASSED)
            verdict = self.verdict(name, "A", "B")
            self.assertIs(verdict.outcome, Outcome.FAILED)
            self.assertIn("'A'", verdict.did)
            self.assertIn("'B'", verdict.did)

    def test_hardware_id(self) -> None:
        """
        A hardware id of zero is none.
        """
        self.assertIs(self.verdict("identity.hardware-id", "A").outcome, Outcome.PASSED)
        verdict = self.verdict("identity.hardware-id", "A", hardware_id=bytes(8))
        self.assertEqual(verdict, (Outcome.FAILED, "has the hardware id 0000000000000000"))

    def test_same_salt(self) -> None:
        """
        A host that does not draw a salt for each answer of version 6 is found out.
        """
        verdict = self.verdict("kms.salts", "A")
        self.assertEqual(verdict, (Outcome.FAILED, "began two answers with the same salt"))
