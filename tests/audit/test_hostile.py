"""
Whatever a host does, every case comes to a verdict: nothing that it sends is an error of ours.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.audit.battery import CASES, meet
from kmsproto.audit.model import Case, Level, Outcome, Result, Step, Verdict
from kmsproto.audit.packets import packet
from kmsproto.errors import (
    ContextRefusedError,
    HostTimeoutError,
    HostUnreachableError,
    KMSProtoError,
    RemoteProtocolError,
)
from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.numbers import WHOLE, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, NO_SYNTAX, BindAck, Negotiated
from tests.audit.memory import MemoryHost, drive, subject

_EXAMPLES = 100
#: PDUs of the types that a host answers with, whose bodies are anything.
_PDUS = st.builds(
    packet,
    st.sampled_from([2, 3, 12, 13, 15, 0, 20]),
    st.binary(max_size=120),
    flags=st.integers(0, 255),
    call_id=st.sampled_from([1, 9, 20, 40, 0x4001]),
    order=st.sampled_from(["<", ">"]),
    auth_length=st.sampled_from([0, 0, 8, 40, 0xFFFF]),
)
#: What a host does when it is waited for: send something, close, or say nothing.
_DEEDS = st.one_of(st.binary(min_size=1, max_size=60), _PDUS, st.just(b""), st.none())
_ERRORS = (
    HostUnreachableError("no connection"),
    HostTimeoutError("no time"),
    RemoteProtocolError("too much"),
)


def performing(deeds: list[bytes | None]) -> Callable[[Step], bytes | None]:
    """
    Make a host that does one thing after the other, again and again.
    """
    done = 0

    def perform(step: Step) -> bytes | None:
        nonlocal done
        if step.action != "receive":
            return b""
        done += 1
        return deeds[(done - 1) % len(deeds)]

    return perform


class RandomHost:
    """
    A host that answers every PDU with one that could be an answer, but knows nothing.

    @param choices: Decides what it answers, number by number, again and again.
    """

    def __init__(self, choices: list[int]) -> None:
        self._choices = choices
        self._used = 0
        self._waiting: list[bytes] = []

    def _choose(self, below: int) -> int:
        self._used += 1
        return self._choices[self._used % len(self._choices)] % below

    def perform(self, step: Step) -> bytes | None:
        """
        Do what a step says.
        """
        if step.action == "receive":
            return self._waiting.pop(0) if self._waiting else None
        if step.action == "send":
            self._waiting.append(self._answer(step.data))
        return b""

    def _answer(self, sent: bytes) -> bytes:
        call_id = int.from_bytes(sent[12:16], "little") if self._choose(8) else 2
        kind = sent[2] if self._choose(4) else self._choose(20)
        if kind in (PacketType.BIND, PacketType.ALTER_CONTEXT):
            results = tuple(
                Negotiated(
                    self._choose(4), self._choose(4), (NDR, NDR64, NO_SYNTAX)[self._choose(3)]
                )
                for _ in range(sent[24] if len(sent) > 24 and self._choose(8) else self._choose(3))
            )
            ack = BindAck(
                *[1000 * self._choose(9)] * 3, ("", "1688", "x")[self._choose(3)], results
            )
            return pdu.encode_bind_ack(kind + 1, self._choose(256), call_id, ack)
        if kind == PacketType.REQUEST:
            return pdu.encode_response(call_id, self._choose(3), self._stub(), 5840)[0]
        status = (0x1C010002, 0x1C010003, 0x1C01000B, 0x6F7, 5, 0)[self._choose(6)]
        return (
            pdu.encode_fault(call_id, self._choose(3), status, did_not_execute=True),
            pdu.encode_bind_nak(call_id, self._choose(10)),
            b"",
        )[self._choose(3)]

    def _stub(self) -> bytes:
        syntax = (NDR, NDR64)[self._choose(2)]
        hresult = (0, 0x8007000D, 0xC004F042)[self._choose(3)]
        return (
            ndr.encode_activation_failure(hresult, syntax),
            ndr.encode_activation_response(bytes(self._choose(300)), syntax),
            bytes(self._choose(40)),
        )[self._choose(3)]


class GarbageTests(SynchronousTestCase):
    """
    Hosts that send anything.
    """

    @settings(max_examples=_EXAMPLES, deadline=None)
    @given(st.lists(st.integers(0, 1 << 16), min_size=5, max_size=60))
    def test_answers_at_random(self, choices: list[int]) -> None:
        """
        A host whose answers are answers, but to something else, brings every case to a verdict.
        """
        for case in CASES:
            host = RandomHost(choices)
            self.assertVerdict(case, drive(case.script(subject()), host.perform, patience=200))

    def assertVerdict(self, case: Case, verdict: Verdict) -> None:
        """
        It is a verdict in words, and not too many.
        """
        self.assertIsInstance(verdict.outcome, Outcome)
        self.assertTrue(0 < len(verdict.did) < 2000, (case.name, len(verdict.did)))
        Result(case, verdict).to_json()

    @settings(max_examples=_EXAMPLES, deadline=None)
    @given(st.lists(_DEEDS, min_size=1, max_size=12))
    def test_anything(self, deeds: list[bytes | None]) -> None:
        """
        A host that sends bytes and PDUs at random brings every case to a verdict.
        """
        for case in CASES:
            verdict = drive(case.script(subject()), performing(deeds), patience=200)
            self.assertVerdict(case, verdict)

    @settings(max_examples=_EXAMPLES, deadline=None)
    @given(st.lists(_DEEDS, min_size=1, max_size=12))
    def test_meet(self, deeds: list[bytes | None]) -> None:
        """
        The first acquaintance ends with a subject, or with an error that is one line.
        """
        try:
            met = drive(meet(subject()), performing(deeds), patience=200)
        except KMSProtoError as problem:
            self.assertTrue(str(problem))
            self.assertNotIn("\n", str(problem))
        else:
            self.assertLessEqual(met.hresult, 0xFFFFFFFF)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 400), st.integers(1, 255), st.booleans())
    def test_altered(self, index: int, bits: int, again: bool) -> None:
        """
        Our own host with one byte of its answers changed brings every case to a verdict.
        """
        host = MemoryHost()
        met = host.meet()

        def alter(data: bytes) -> bytes:
            place = index % len(data)
            changed = data[:place] + bytes((data[place] ^ bits,)) + data[place + 1 :]
            if not again:
                host.alter = None
            return changed

        for case in CASES:
            if case.name == "fragments.too-much":
                continue  # Four megabytes, each time.
            host.alter = alter
            self.assertVerdict(case, host.run(case.script(met)))

    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 300))
    def test_cut(self, length: int) -> None:
        """
        Our own host whose answers end early brings every case to a verdict.
        """
        host = MemoryHost()
        met = host.meet()
        host.alter = lambda data: data[:length]
        for case in CASES:
            if case.name != "fragments.too-much":
                self.assertVerdict(case, host.run(case.script(met)))


class OtherServerTests(SynchronousTestCase):
    """
    Servers that there is nothing to audit of.
    """

    def test_no_kms(self) -> None:
        """
        A DCE/RPC server that knows neither context of KMS is told of, and not audited.
        """
        unknown = Negotiated(2, 1, NO_SYNTAX)
        ack = BindAck(4280, 4280, 7, "1688", (unknown, unknown, Negotiated(3, 3, NO_SYNTAX)))
        answer = pdu.encode_bind_ack(PacketType.BIND_ACK, WHOLE, 1, ack)
        with self.assertRaisesRegex(ContextRefusedError, "does not serve the interface of KMS"):
            drive(meet(subject()), performing([answer, b""]))


class FailureTests(SynchronousTestCase):
    """
    Steps that cannot be done.
    """

    def test_every_error(self) -> None:
        """
        An error at any step ends the case with a verdict that tells of it.
        """
        for case in CASES:
            for error in _ERRORS:
                for late in range(4):
                    verdict = self.failing(case, error, late)
                    self.assertIsInstance(verdict.outcome, Outcome)

    def failing(self, case: Case, error: KMSProtoError, late: int) -> Verdict:
        """
        Try a case on a silent host, with an error at a step and all that follow.
        """
        steps = 0

        def perform(step: Step) -> bytes | None:
            nonlocal steps
            steps += 1
            if steps > late:
                raise error
            return None if step.action == "receive" else b""

        return drive(case.script(subject()), perform)

    def test_unreachable(self) -> None:
        """
        Where no connection can be made every case is undecided, and says why.
        """
        for case in CASES:
            verdict = self.failing(case, _ERRORS[0], 0)
            self.assertEqual(
                verdict,
                (Outcome.UNDECIDED, "could not be reached: no connection"),
                case.name,
            )

    def test_silent(self) -> None:
        """
        A host that accepts connections and says nothing keeps no rule that demands an answer.
        """
        passed = [
            case.name
            for case in CASES
            if drive(case.script(subject()), performing([None])).outcome is Outcome.PASSED
        ]
        # What asks nothing of the host but to have been met: subject() says that it has this interface.
        self.assertEqual(passed, ["management.offered"])

    def test_closing(self) -> None:
        """
        A host that closes every connection at once passes only where that is an answer.
        """
        for case in CASES:
            verdict = drive(case.script(subject()), performing([b""]))
            if verdict.outcome is Outcome.PASSED and case.name != "management.offered":
                self.assertIn("closed the connection", verdict.did, case.name)

    def test_mirror(self) -> None:
        """
        A host that sends back what it is sent fails much, and confuses nobody.
        """
        sent: list[bytes] = []

        def perform(step: Step) -> bytes | None:
            if step.action == "send":
                sent.append(step.data)
            elif step.action == "receive":
                return sent.pop(0) if sent else None
            return b""

        failures = 0
        for case in CASES:
            sent.clear()
            verdict = drive(case.script(subject()), perform)
            failures += verdict.outcome is Outcome.FAILED and case.level is Level.MUST
        self.assertGreater(failures, 20)
