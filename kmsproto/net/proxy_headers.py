"""
What a proxy says of its client in front of everything else: the header of the PROXY protocol, versions 1 and 2.

Whoever reaches the port can send a header, so nothing of it is believed that is not written as it must be: an address
is one of its family and a port a number, and a header has an end.  It may come in any number of segments, and is
refused as soon as it cannot become one.

A proxy that speaks for itself (to see whether the host is alive), or whose client has no address of TCP, names nobody;
then the peer is the proxy.

Source: "The PROXY protocol", versions 1 and 2, by HAProxy.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from kmsproto.errors import RemoteProtocolError

#: How a header of version 1 begins, and its bytes at most, its end among them.
_WORD = b"PROXY "
_LONGEST_LINE = 107
_FAMILIES: Mapping[bytes, type[IPv4Address] | type[IPv6Address]] = {
    b"TCP4": IPv4Address,
    b"TCP6": IPv6Address,
}
#: How one of version 2 begins, and the bytes at most of what follows its fixed part: addresses and more.
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST_REST = 4096
_FIXED = struct.Struct("!12sBBH")
_TCP4 = struct.Struct("!4s4sHH")
_TCP6 = struct.Struct("!16s16sHH")

#: Version and command.
_LOCAL, _PROXY = 0x20, 0x21
#: Families and transports that have no address of TCP: unspecified, datagrams, UNIX sockets.
_WITHOUT_ADDRESS = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})


class ProxyHeaderError(RemoteProtocolError):
    """
    What came first is no header.
    """


class ProxyHeader(NamedTuple):
    """
    A header.

    @ivar length: How many bytes it has.
    @ivar source: Address and port of the client; L{None} if it names none.
    """

    length: int
    source: tuple[IPv4Address | IPv6Address, int] | None


def read_header(data: bytes) -> ProxyHeader | None:
    """
    Read a header at the beginning of a stream.

    @param data: What has come of the stream.
    @return: The header; L{None} if more must come.
    @raise ProxyHeaderError: If it is none.
    """
    if data.startswith(_WORD):
        return _read_line(data)
    if data.startswith(_SIGNATURE):
        return _read_binary(data)
    if _WORD.startswith(data) or _SIGNATURE.startswith(data):
        return None
    raise ProxyHeaderError("no PROXY header")


def _read_line(data: bytes) -> ProxyHeader | None:
    """
    Read a header of version 1: a line.
    """
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(data) >= _LONGEST_LINE:
            raise ProxyHeaderError("a PROXY header without end")
        return None
    length = end + 2
    _, protocol, *fields = data[:end].split(b" ")
    if protocol == b"UNKNOWN":
        return ProxyHeader(length, None)
    family = _FAMILIES.get(protocol)
    if family is None or len(fields) != 4:
        raise ProxyHeaderError("a malformed PROXY header")
    source, destination, *ports = (field.decode("ascii", "replace") for field in fields)
    try:
        address, _ = family(source), family(destination)
    except ValueError as error:
        raise ProxyHeaderError("a malformed PROXY header") from error
    if "%" in source or not all(_is_port(port) for port in ports):
        raise ProxyHeaderError("a malformed PROXY header")
    return ProxyHeader(length, (address, int(ports[0])))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 0xFFFF


def _read_binary(data: bytes) -> ProxyHeader | None:
    """
    Read a header of version 2.
    """
    if len(data) < _FIXED.size:
        return None
    _, command, kind, rest = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY) or rest > _LONGEST_REST:
        raise ProxyHeaderError("a malformed PROXY header")
    length = _FIXED.size + rest
    if len(data) < length:
        return None
    if command == _LOCAL or kind in _WITHOUT_ADDRESS:
        return ProxyHeader(length, None)
    layout = {0x11: _TCP4, 0x21: _TCP6}.get(kind)
    if layout is None or rest < layout.size:
        raise ProxyHeaderError("a malformed PROXY header")
    source, _, port, _ = layout.unpack_from(data, _FIXED.size)
    return ProxyHeader(length, (IPv4Address(source) if kind == 0x11 else IPv6Address(source), port))
