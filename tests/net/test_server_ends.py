"""
How connections to a host end: by either side, in any order, and with or without half-close.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides

from kmsproto.kms.policy import Grant
from tests.net.wiring import (
    BOUND,
    BROKEN,
    PEER,
    PROTO_ERROR,
    HostCase,
    Questions,
    Wire,
    bind,
    call,
    calls,
    granted,
    payload,
)


class EndTests(HostCase):
    """
    How a connection ends.
    """

    def test_half_close_after_the_request(self) -> None:
        """
        A peer that closes its side after the request was answered gets the connection closed.
        """
        wire = self.bound()
        wire.send(call(payload()))
        wire.finish()
        self.assertEqual(wire.replies(), granted(2))
        self.assertEqual(wire.ends, ["whole"])

    def test_half_close_before_the_answer(self) -> None:
        """
        A peer that closes its side while its calls wait still gets all answers, then the connection is closed.
        """
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        self.factory = self.make_factory(policy=Questions(waiting.__getitem__))
        wire = self.bound()
        wire.send(calls(2))
        wire.finish()
        self.assertEqual((wire.replies(), wire.ends), ([], []))
        waiting[0].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(2), []))
        waiting[1].callback(Grant(50))
        self.assertEqual((wire.replies(), wire.ends), (granted(3), ["whole"]))

    def test_half_close_of_a_silent_peer(self) -> None:
        """
        A peer that closes its side without having asked gets the connection closed.
        """
        for wire in (self.wire(), self.bound()):
            wire.finish()
            self.assertEqual((wire.replies(), wire.ends), ([], ["whole"]))

    def test_half_close_inside_a_request(self) -> None:
        """
        A peer that closes its side in the middle of a request is not waited for.
        """
        wire = self.bound()
        wire.send(call(payload())[:100])
        wire.finish()
        self.assertEqual((wire.replies(), wire.ends), ([], ["whole"]))

    def test_answer_before_close(self) -> None:
        """
        After a protocol error the answer is written, then only the write side is closed.
        """
        wire = self.bound()
        wire.send(BROKEN)
        self.assertEqual(wire.replies(), [("fault", 9, PROTO_ERROR)])
        self.assertEqual(wire.ends, ["half"])

    def test_input_after_close(self) -> None:
        """
        What comes behind the last answer is read and thrown away.
        """
        wire = self.bound()
        wire.send(BROKEN + call(payload(), 10))
        wire.take()
        wire.send(call(payload(), 11), bytes(100_000), bind())
        self.assertEqual((wire.replies(), wire.ends), ([], ["half"]))

    def test_fin_after_close(self) -> None:
        """
        When the peer closes too, the connection is closed whole.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.finish()
        self.assertEqual(wire.ends, ["half", "whole"])
        wire.protocol.writeConnectionLost()
        wire.leave(cleanly=True)
        self.assertTimers(0)

    def test_linger(self) -> None:
        """
        A peer that does not close within the linger timeout is cut off, whatever it sends meanwhile.
        """
        wire = self.bound()
        wire.send(BROKEN)
        self.clock.advance(1.5)
        wire.send(b"more")
        self.assertEqual(wire.ends, ["half"])
        self.clock.advance(0.5)
        self.assertEqual(wire.ends, ["half", "abort"])

    def test_linger_of_a_peer_that_does_not_read(self) -> None:
        """
        A peer that has closed its side but does not read the answer is cut off as well.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.finish()
        self.clock.advance(2)
        self.assertEqual(wire.ends, ["half", "whole", "abort"])

    def test_without_half_close(self) -> None:
        """
        A transport that cannot close one side is closed whole.
        """
        transport = StringTransport(peerAddress=IPv4Address("TCP", PEER, 1))
        wire = Wire(self.factory, transport=transport)
        wire.send(bind() + BROKEN)
        self.assertEqual(wire.replies(), [BOUND, ("fault", 9, PROTO_ERROR)])
        self.assertTrue(transport.disconnecting)

    def test_tls(self) -> None:
        """
        A TLS connection is closed whole, because one side of TLS cannot be.
        """
        wire = Wire(self.factory)
        directlyProvides(wire.tcp, ISSLTransport)
        wire.send(b"GET /")
        self.assertEqual(wire.ends, ["whole"])

    def test_no_producer_afterwards(self) -> None:
        """
        A connection that has ended is no producer any more, and reads even if it was paused.
        """
        wire = self.bound()
        wire.producer.pauseProducing()
        self.assertFalse(wire.reading)
        self.clock.advance(30)
        self.assertEqual(wire.ends, ["half"])
        self.assertIsNone(wire.producer)
        self.assertTrue(wire.reading)

    def test_ends_once(self) -> None:
        """
        An end that comes on top of another changes nothing.
        """
        wire = self.bound()
        wire.send(BROKEN)
        wire.protocol.drain()
        wire.protocol.expire()
        self.assertEqual(wire.ends, ["half"])

    def test_lost_in_the_middle(self) -> None:
        """
        A peer that vanishes at any byte of its stream leaves nothing behind.
        """
        stream = bind() + call(payload())
        for length in range(len(stream) + 1):
            wire = self.wire()
            wire.send(stream[:length])
            wire.leave()
            self.assertTimers(0)
        self.assertServed()
