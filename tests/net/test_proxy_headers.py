"""
Headers of the PROXY protocol: what they say, that they may come in pieces, and what is no header.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.proxy_headers import ProxyHeader, ProxyHeaderError, read_header

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command: int, kind: int, rest: bytes) -> bytes:
    """
    Write a header of version 2.
    """
    return _SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest


def addresses(source: str, port: int = 4711) -> bytes:
    """
    Write the addresses of a header of version 2.
    """
    packed = ip_address(source).packed
    return packed + packed + struct.pack("!HH", port, 1688)


#: Headers, and whom they name.
HEADERS = (
    (b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 1688\r\n", "10.0.0.7"),
    (b"PROXY TCP6 fd00::7 fd00::1 4711 1688\r\n", "fd00::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (binary(0x21, 0x11, addresses("10.0.0.7")), "10.0.0.7"),
    (binary(0x21, 0x21, addresses("fd00::7")), "fd00::7"),
    (binary(0x21, 0x11, addresses("10.0.0.7") + b"\x03\0\x04abcd"), "10.0.0.7"),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, addresses("10.0.0.7")), None),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x31, b"/run/x".ljust(108, b"\0") * 2), None),
    (binary(0x21, 0x12, addresses("10.0.0.7")), None),
)

#: What is no header.
OTHERS = (
    b"GET / HTTP/1.1\r\n",
    b"\x05\0\x0b\x03",
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 10.0.0.7 10.0.0.1 4711 1688\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 4711\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 1688 5\r\n",
    b"PROXY TCP4  10.0.0.7 10.0.0.1 4711 1688\r\n",
    b"PROXY TCP4 a b c d\r\n",
    b"PROXY TCP4 fd00::7 fd00::1 4711 1688\r\n",
    b"PROXY TCP4 10.0.0.7\nX 10.0.0.1 4711 1688\r\n",
    b"PROXY TCP4 10.0.0.7 nowhere 4711 1688\r\n",
    b"PROXY TCP4 \xff 10.0.0.1 4711 1688\r\n",
    b"PROXY TCP6 fe80::1%\x1b[31m fd00::1 4711 1688\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 -1 1688\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 65536 1688\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 x\r\n",
    b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 " + b"1" * 5000 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY " + b"x" * 200,
    binary(0x31, 0x11, addresses("10.0.0.7")),
    binary(0x22, 0x11, addresses("10.0.0.7")),
    binary(0x21, 0x99, addresses("10.0.0.7")),
    binary(0x21, 0x11, addresses("10.0.0.7")[:-1]),
    binary(0x21, 0x21, addresses("10.0.0.7")),
    binary(0x21, 0x11, bytes(4097))[:16],
)


class HeaderTests(SynchronousTestCase):
    """
    Headers.
    """

    def test_read(self) -> None:
        """
        A header tells its length and the client, if it names one.
        """
        for data, source in HEADERS:
            with self.subTest(data=data):
                named = None if source is None else (ip_address(source), 4711)
                self.assertEqual(read_header(data), ProxyHeader(len(data), named))
                self.assertEqual(read_header(data + b"\x05more"), ProxyHeader(len(data), named))

    def test_longest(self) -> None:
        """
        A line has 107 bytes at most, its end among them, and a binary header 4,096 behind its fixed part.
        """
        line = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
        self.assertEqual(read_header(line), ProxyHeader(107, None))
        header = read_header(binary(0x21, 0x21, addresses("::1").ljust(4096, b"\0")))
        self.assertEqual(header, ProxyHeader(4112, (IPv6Address("::1"), 4711)))

    def test_pieces(self) -> None:
        """
        Of what is not whole yet nothing is said.
        """
        for data, _ in HEADERS:
            for end in range(len(data)):
                self.assertIsNone(read_header(data[:end]), data[:end])

    def test_others(self) -> None:
        """
        What is no header is refused.
        """
        for data in OTHERS:
            with self.subTest(data=data):
                self.assertRaises(ProxyHeaderError, read_header, data)

    @given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", _SIGNATURE]), st.binary(max_size=200))
    def test_anything(self, beginning: bytes, rest: bytes) -> None:
        """
        Whatever comes is a header, or the beginning of one, or refused.
        """
        data = beginning + rest
        try:
            header = read_header(data)
        except ProxyHeaderError:
            return
        if header is not None:
            self.assertLessEqual(header.length, len(data))
