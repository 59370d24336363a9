"""
What clients should not send, from noise to requests that are wrong in one field, and what it earns.

None of it may leave a traceback, break a line of the log, or keep the next client from being served.
"""

from __future__ import annotations

from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import PacketType
from tests.net.wiring import (
    BAD_STUB,
    BROKEN,
    INVALID_DATA,
    PEER,
    PROTO_ERROR,
    HostCase,
    bind,
    call,
    chunks,
    host_lines,
    payload,
    payload_named,
    utf16,
)

#: What comes instead of RPC, and gets no answer.
NOISE = bytes((number * 167 + 13) % 256 for number in range(20_000))
HTTP = b"GET / HTTP/1.1\r\nHost: kms.example\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c6010000c20303") + bytes(range(188))
#: Names that would like to be more than a name, and how a log shows them.
NAMES = {
    "a\nb": r"a\nb",
    "a\r\n\tb": r"a\r\n\tb",
    'a" count=9 x="': r"a\" count=9 x=\"",
    "a\\": r"a\\",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "a\u202eb\u2066c\u200f": r"a\u202eb\u2066c\u200f",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "\ufeffa\u00ad\u200d": r"\ufeffa\xad\u200d",
    "{peer} {0} %s": "{peer} {0} %s",
    "\U000e0041\U0001f600": "\\U000e0041\U0001f600",
    "büro-ПК-電腦": "büro-ПК-電腦",
    "": "",
}


class BadInputTests(HostCase):
    """
    What clients should not send: the answer it earns, one line, no traceback, and the next client is served.
    """

    def assertOneLine(self, lines: list[str], beginning: str) -> None:
        """
        One line was written, and nothing in it ends the line or moves a cursor.
        """
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith(f"{beginning} peer={PEER} port=50123 "), lines[0])
        self.assertTrue(lines[0].isprintable(), lines[0])
        self.assertEqual(self.flushLoggedErrors(), [])

    def assertClosed(self, data: bytes) -> None:
        """
        Bytes that are no RPC close the connection without an answer, in whatever segments they come.
        """
        for size in (len(data), 1, 1000):
            with host_lines() as lines:
                wire = self.wire()
                wire.send(*chunks(data, size))
            self.assertEqual((wire.take(), wire.ends), (b"", ["half"]))
            self.assertOneLine(lines, "closed")
            wire.leave()
        self.assertServed()

    def assertAnswered(self, message: bytes, reply: str, number: int = 0) -> str:
        """
        A KMS message is answered, and the connection lives.

        @return: The line about it.
        """
        wire = self.bound()
        with host_lines() as lines:
            wire.send(call(message))
        self.assertEqual(wire.replies(), [(reply, 2, number)])
        self.assertEqual(wire.ends, [])
        self.assertOneLine(lines, reply if reply != "fault" else "faulted")
        self.assertServed(wire)
        self.assertServed()
        return lines[0]

    def test_noise(self) -> None:
        """
        20,000 bytes of noise are not answered.
        """
        self.assertClosed(NOISE)

    def test_noise_on_a_bound_connection(self) -> None:
        """
        Noise on a connection that is bound earns a fault, once its header is there.
        """
        with host_lines() as lines:
            wire = self.bound()
            wire.send(NOISE)
        ((kind, _, status),) = wire.replies()
        self.assertEqual((kind, status, wire.ends), ("fault", PROTO_ERROR, ["half"]))
        self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_http(self) -> None:
        """
        An HTTP request is not answered.
        """
        self.assertClosed(HTTP)

    def test_tls(self) -> None:
        """
        A TLS hello is not answered.
        """
        self.assertClosed(TLS_HELLO)

    def test_zeros(self) -> None:
        """
        Zeros are not answered.
        """
        self.assertClosed(bytes(5000))

    def test_unknown_versions(self) -> None:
        """
        Requests of versions that do not exist are refused as invalid data.
        """
        for major, minor in ((7, 0), (6, 1), (3, 0), (0, 0), (4, 1), (65535, 65535)):
            with self.subTest(major=major, minor=minor):
                message = payload(major, minor_version=minor)
                line = self.assertAnswered(message, "refused", INVALID_DATA)
                self.assertIn(f"protocol version {major}.{minor} is not supported", line)

    def test_sizes(self) -> None:
        """
        A payload that is a byte short or long, empty, or far too long is refused as invalid data.
        """
        for version in (4, 5, 6):
            good = payload(version)
            for message in (good[:-1], good + b"\0", good[:4], good[:3], b"", good * 10):
                with self.subTest(version=version, size=len(message)):
                    self.assertAnswered(message, "refused", INVALID_DATA)

    def test_stub_sizes(self) -> None:
        """
        A stub whose sizes differ or reach beyond it is a fault.
        """
        for size, count in ((260, 259), (261, 261), (0xFFFFFFF0, 0xFFFFFFF0), (0, 0xFFFFFFFF)):
            wire = self.bound()
            stub = size.to_bytes(4, "little") + count.to_bytes(4, "little") + payload()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(2, 0, 0, stub, 5840))
            self.assertEqual(wire.replies(), [("fault", 2, BAD_STUB)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_short_stub(self) -> None:
        """
        A stub without room for its sizes is a fault.
        """
        for stub in (b"", b"\4", bytes(7)):
            wire = self.bound()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(2, 0, 0, stub, 5840))
            self.assertEqual(wire.replies(), [("fault", 2, BAD_STUB)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_n_policy(self) -> None:
        """
        An N policy of zero is granted, one over 1000 is refused as invalid data.
        """
        for version in (4, 5, 6):
            self.assertAnswered(payload(version, n_policy=0), "granted")
            self.assertAnswered(payload(version, n_policy=1000), "granted")
            for n_policy in (1001, 0x80000000, 0xFFFFFFFF):
                message = payload(version, n_policy=n_policy)
                line = self.assertAnswered(message, "refused", INVALID_DATA)
                self.assertIn(str(n_policy), line)

    def test_client_time(self) -> None:
        """
        The first and the last time that exists are granted like any other.
        """
        for version in (4, 5, 6):
            for time in (0, 2**63, 2**64 - 1):
                self.assertAnswered(payload(version, client_time=time), "granted")

    def test_enumerations(self) -> None:
        """
        A licence status or machine kind that does not exist is refused as invalid data.
        """
        for message in (payload(licence_status=7), payload(is_virtual_machine=2)):
            self.assertAnswered(message, "refused", INVALID_DATA)

    def test_lone_surrogates(self) -> None:
        """
        A name with half a character is refused as invalid data.
        """
        for name in ("\ud800", "a\udfffb", "\udc00\ud800"):
            self.assertAnswered(payload_named(utf16(name)), "refused", INVALID_DATA)

    def test_name_without_end(self) -> None:
        """
        A name without a zero is refused as invalid data.
        """
        self.assertAnswered(payload_named(b"a\0" * 64), "refused", INVALID_DATA)

    def test_remains_behind_the_name(self) -> None:
        """
        What stands behind the zero of a name does not matter, and is not logged.
        """
        line = self.assertAnswered(payload_named(utf16("lab\0", fill=b"\xd8")), "granted")
        self.assertIn(' workstation="lab" ', line)

    def test_names(self) -> None:
        """
        A name that would end the line, close its quotes or steer a terminal is escaped within one line.
        """
        for version in (4, 6):
            for name, shown in NAMES.items():
                with self.subTest(name=name):
                    line = self.assertAnswered(payload(version, name), "granted")
                    self.assertIn(f' workstation="{shown}" cmid=', line)

    def test_wrong_secrets(self) -> None:
        """
        A request with a wrong MAC or padding is refused as invalid data.
        """
        for version in (4, 5, 6):
            message = payload(version)
            broken = message[:-1] + bytes((message[-1] ^ 1,))
            self.assertAnswered(broken, "refused", INVALID_DATA)

    def test_versions_that_differ(self) -> None:
        """
        A message whose inner version differs from the outer one is refused as invalid data.
        """
        six = payload(6)
        self.assertAnswered(six[:2] + b"\5" + six[3:], "refused", INVALID_DATA)

    def test_broken_binds(self) -> None:
        """
        A bind of another version, and one that is cut short by its own length, get a bind_nak and a close.
        """
        other = b"\6" + bind()[1:]
        short = bind()[:8] + b"\x1b\0" + bind()[10:]
        for data in (other, short):
            with host_lines() as lines:
                wire = self.wire()
                wire.send(data)
            self.assertEqual((wire.replies(), wire.ends), ([("bind_nak", 1, 4)], ["half"]))
            self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_wrong_packets(self) -> None:
        """
        A packet that a client must not send gets a fault and a close.
        """
        for packet_type in (PacketType.RESPONSE, PacketType.BIND_ACK, PacketType.PING, 200):
            with host_lines() as lines:
                wire = self.bound()
                wire.send(pdu.encode_pdu(packet_type, 3, 5, bytes(32)))
            self.assertEqual((wire.replies(), wire.ends), ([("fault", 5, PROTO_ERROR)], ["half"]))
            self.assertOneLine(lines, "closed")
        self.assertServed()

    def test_refused_calls(self) -> None:
        """
        A call on an unknown context or of an unknown operation is a fault, and the connection lives.
        """
        for context, opnum, status in ((9, 0, 0x1C010003), (0, 1, 0x1C010002)):
            wire = self.bound()
            with host_lines() as lines:
                wire.send(*pdu.encode_request(5, context, opnum, b"", 5840))
            self.assertEqual(wire.replies(), [("fault", 5, status)])
            self.assertOneLine(lines, "faulted")
            self.assertServed(wire)

    def test_many_bad_clients(self) -> None:
        """
        Bad clients in a row leave no timer and no place behind.
        """
        for data in (NOISE, HTTP, TLS_HELLO, bind() + BROKEN, bind() + call(b"")) * 5:
            wire = self.wire()
            wire.send(data)
            wire.leave()
        self.assertTimers(0)
        self.successResultOf(self.factory.drain())
