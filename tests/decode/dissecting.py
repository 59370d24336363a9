"""
What the tests of L{kmsproto.decode.dissection} share: a call and its answer, and a reader that is fed with what was
said on a connection.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.dissection import RPCReader, Tally
from kmsproto.decode.events import CallSeen, Event
from kmsproto.kms.envelopes import seal_request, seal_response
from kmsproto.rpc.ndr import encode_activation_request, encode_activation_response
from kmsproto.rpc.pdu import NDR, NDR64
from tests.decode.traffic import Said, calls
from tests.kms.samples import HARDWARE_ID, RANDOM, REQUEST, REQUEST_SALT, RESPONSE, RESPONSE_SALT
from tests.rpc.building import (
    KMS,
    accepted,
    build_ack,
    build_bind,
    build_request,
    build_response,
    element,
)

ASKED, OPENED = seal_request(REQUEST, REQUEST_SALT)
ANSWERED = seal_response(
    OPENED, RESPONSE, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID
)
BIND = build_bind([element(0), element(1, KMS.syntax, NDR64)])
ACK = build_ack([accepted(), accepted(NDR64)], call_id=1)
SECOND = 10**9


def ask(call_id: int = 2, context_id: int = 0, **options: object) -> bytes:
    """
    Make a call.
    """
    stub = encode_activation_request(ASKED, NDR64 if context_id == 1 else NDR)
    return build_request(stub, call_id=call_id, context_id=context_id, **options)  # type: ignore[arg-type]


def answer(call_id: int = 2, context_id: int = 0, **options: object) -> bytes:
    """
    Make the answer to it.
    """
    stub = encode_activation_response(ANSWERED, NDR64 if context_id == 1 else NDR)
    return build_response(stub, call_id=call_id, context_id=context_id, **options)  # type: ignore[arg-type]


class DissectionCase(SynchronousTestCase):
    """
    A reader, and what it is fed.
    """

    def setUp(self) -> None:
        """
        Make a reader of a connection from its beginning.
        """
        self.make()

    def make(
        self, *, midstream: bool = False, expected: bool = False, one_stream: bool = False
    ) -> None:
        """
        Make another reader.
        """
        self.tally = Tally()
        sides = ("", "") if one_stream else ("192.0.2.1:50000", "192.0.2.9:1688")
        self.reader = RPCReader(
            self.tally,
            sides,
            midstream=midstream,
            expected=expected,
            one_stream=one_stream,
        )

    def feed(self, said: Iterable[Said], *, time: int = SECOND) -> list[Event]:
        """
        Feed what was said.
        """
        events: list[Event] = []
        for sender, data in said:
            events += self.reader.received(sender == "host", data, 0, time)
        return events

    def whole(self, said: Iterable[Said]) -> list[Event]:
        """
        Feed what was said, and end the connection.
        """
        return [*self.feed(said), *self.reader.ended()]

    def only_call(self, said: Iterable[Said]) -> CallSeen:
        """
        Feed what was said on a bound connection, and get the one call in it.
        """
        (call,) = calls(self.whole([("client", BIND), ("host", ACK), *said]))
        return call
