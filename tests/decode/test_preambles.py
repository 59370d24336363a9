"""
What stands before the first PDU of a connection.
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.events import Outcome, PDUSeen, Remark
from kmsproto.decode.preambles import (
    MAX_BINARY,
    MAX_LINE,
    Preamble,
    name_protocol,
    read_preamble,
)
from kmsproto.rpc.numbers import PacketType
from tests.decode.dissecting import ACK, BIND, DissectionCase, answer, ask
from tests.decode.traffic import calls, essence, golden
from tests.rpc.building import build_pdu

#: Headers of the PROXY protocol, versions 1 and 2.
LINE = b"PROXY TCP4 198.51.100.7 192.0.2.9 43210 1688\r\n"
BINARY = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + pack(">H", 12)
    + bytes((198, 51, 100, 7, 192, 0, 2, 9))
    + pack(">HH", 43210, 1688)
)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command: int, family: int, data: bytes) -> bytes:
    """
    Make a header of version 2.
    """
    return SIGNATURE + bytes((command, family)) + pack(">H", len(data)) + data


V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::9").packed + pack(">HH", 43210, 1688)


class PreambleTests(SynchronousTestCase):
    """
    Headers of the PROXY protocol.
    """

    def test_text(self) -> None:
        """
        The line of version 1 names the client, or nobody.
        """
        for line, client in (
            (b"PROXY TCP4 198.51.100.7 192.0.2.9 43210 1688\r\n", "198.51.100.7:43210"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::9 43210 1688\r\n", "[2001:db8::7]:43210"),
            (b"PROXY UNKNOWN\r\n", ""),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
        ):
            self.assertEqual(read_preamble(line), Preamble(len(line), client))
            self.assertEqual(read_preamble(line + b"\x05\x00more"), Preamble(len(line), client))
            for length in range(1, len(line)):
                self.assertEqual(read_preamble(line[:length]), Preamble(0))

    def test_binary(self) -> None:
        """
        The fields of version 2 name the client, unless the proxy speaks for itself or for something without addresses.
        """
        v4 = bytes((198, 51, 100, 7, 192, 0, 2, 9)) + pack(">HH", 43210, 1688)
        for header, client in (
            (binary(0x21, 0x11, v4), "198.51.100.7:43210"),
            (binary(0x21, 0x21, V6), "[2001:db8::7]:43210"),
            (binary(0x21, 0x21, V6 + b"\x03\0\x04abcd"), "[2001:db8::7]:43210"),
            (binary(0x20, 0x00, b""), ""),
            (binary(0x20, 0x11, v4), ""),
            (binary(0x21, 0x31, bytes(216)), ""),
            (binary(0x21, 0x11, v4[:5]), ""),
        ):
            self.assertEqual(read_preamble(header + b"\x05\0"), Preamble(len(header), client))
            for length in range(1, len(header)):
                self.assertEqual(read_preamble(header[:length]), Preamble(0))

    def test_none(self) -> None:
        """
        What only resembles a header is none, however much of it comes.
        """
        for start in (
            b"",
            b"\x05\0\x0b\x03",
            b"PROXYTCP4",
            b"POST / HTTP/1.1\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 one two 1 2\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.9 x 1688\r\n",
            b"PROXY \xff\xff 1 2 3 4\r\n",
            b"PROXY TCP4 " + b"x" * MAX_LINE,
            binary(0x11, 0x11, bytes(12)),
            binary(0x22, 0x11, bytes(12)),
            binary(0x21, 0x11, bytes(MAX_BINARY)),
            binary(0x21, 0x11, bytes(MAX_BINARY))[:16],
            b"\r\n\r\n\1",
        ):
            self.assertIsNone(read_preamble(start), start)

    @given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]), st.binary(max_size=200))
    def test_anything(self, start: bytes, more: bytes) -> None:
        """
        Whatever comes, a header is not longer than what there is, and waiting for more of one has an end.
        """
        found = read_preamble(start + more)
        if found is not None:
            self.assertLessEqual(found.length, len(start + more))
        self.assertNotEqual(read_preamble(start + more + bytes(MAX_BINARY)), Preamble(0))


class ProtocolTests(SynchronousTestCase):
    """
    Other protocols.
    """

    def test_names(self) -> None:
        """
        They are named by their first bytes, of which there may be few.
        """
        for start, name in (
            (b"\x16\x03\x01\x02\x00", "TLS"),
            (b"\x17\x03", "TLS"),
            (b"\x17\x04", ""),
            (b"HTTP/1.1 400 Bad Request", "HTTP"),
            (b"SSH-2.0-OpenSSH", "SSH"),
            (b"\0\0\0\x55\xffSMBr", "SMB"),
            (b"", ""),
            (b"\x16", ""),
        ):
            self.assertEqual(name_protocol(start), name)


class ProxyTests(DissectionCase):
    """
    Connections that begin with a header of the PROXY protocol.
    """

    NAMED = "a PROXY header names the client 198.51.100.7:43210"

    def test_cut_anyhow(self) -> None:
        """
        The header is told and cut off, however it and what follows were cut into segments.
        """
        said = golden("v6-full")
        essences = [essence(call) for call in calls(self.whole(said))]
        for header, text in (
            (LINE, self.NAMED),
            (BINARY, self.NAMED),
            (b"PROXY UNKNOWN\r\n", "a PROXY header names no client"),
        ):
            stream = header + said[0][1]
            for size in (1, 7, len(header), len(stream)):
                for midstream in (False, True):
                    for expected in (False, True):
                        self.make(midstream=midstream, expected=expected)
                        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
                        first, *others = self.whole(
                            [("client", piece) for piece in pieces] + said[1:]
                        )
                        assert isinstance(first, Remark)
                        self.assertEqual((first.text, first.is_problem), (text, False))
                        self.assertEqual(first.conversation.number, 1)
                        self.assertEqual([essence(call) for call in calls(others)], essences)
                        self.assertFalse([each for each in others if isinstance(each, Remark)])

    def test_answer_first(self) -> None:
        """
        The header is cut off also where the host's answer to what follows it stands before it.
        """
        events = self.whole(
            [("host", ACK), ("client", LINE + BIND), ("client", ask()), ("host", answer())]
        )
        self.assertEqual(sorted(type(event).__name__ for event in events)[-1], "Remark")
        (call,) = calls(events)
        self.assertIs(call.outcome, Outcome.GRANTED)
        self.assertEqual((call.guessed, call.problems), (False, ()))

    def test_nothing_else(self) -> None:
        """
        A header alone, as a check of health sends it, is told where KMS is expected, and so is a part of one.
        """
        self.make(expected=True)
        (event,) = self.whole([("client", LINE)])
        assert isinstance(event, Remark)
        self.assertEqual((event.text, event.is_problem), (self.NAMED, False))
        self.make(expected=True)
        (event,) = self.whole([("client", BINARY[:20])])
        assert isinstance(event, Remark)
        self.assertEqual(event.text, "the PROXY header is not complete: there are 20 bytes of it")
        for header in (LINE, BINARY[:20]):
            self.make()
            self.assertEqual(self.whole([("client", header)]), [])
            self.assertEqual(self.tally.conversations, 0)

    def test_other_protocols(self) -> None:
        """
        What follows the header may be another protocol all the same.
        """
        self.make(expected=True)
        first, second = self.whole([("client", LINE + b"\x16\3\1\0\xc8\1\0\0\xc4\3\3")])
        assert isinstance(first, Remark) and isinstance(second, Remark)
        self.assertEqual(first.text, self.NAMED)
        self.assertIn("as TLS does", second.text)
        self.make()
        self.assertEqual(self.whole([("client", LINE + b"GET / HTTP/1.1\r\n")]), [])
        self.assertFalse(self.reader.wanted)

    def test_before_the_bind(self) -> None:
        """
        What stands before the bind that shows what a connection is, is told then.
        """
        strange = build_pdu(PacketType.CO_CANCEL)
        events = self.feed([("client", strange)])
        self.assertEqual(events, [])
        events = self.feed([("client", BIND)])
        assert all(isinstance(event, PDUSeen) for event in events)
        self.assertEqual(
            [event.data for event in events if isinstance(event, PDUSeen)], [strange, BIND]
        )
