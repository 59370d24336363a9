"""
What stands before the first PDU of a connection, or in its place.

A load balancer may begin a connection with a header of the PROXY protocol, which names the client that it speaks for:
a line of text in version 1, some binary fields in version 2.  It belongs to nobody's stream, so it is cut off, however
it was cut into segments.  Other protocols are named as far as their first bytes tell.

Sources: "The PROXY protocol, versions 1 & 2" of HAProxy; RFC 8446, RFC 9112, RFC 4253.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

_TEXT = b"PROXY "
#: Bytes that the line of version 1 has at most, with its end.
MAX_LINE = 107
_BINARY = b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes before the addresses of version 2, and where their length stands.
_FIXED_LENGTH, _LENGTH_AT = 16, 14
#: Bytes that all of version 2 may have; real ones have some hundred at most.
MAX_BINARY = 4096
#: The version in the upper half of a byte, the command in the lower one: LOCAL, which names nobody, and PROXY.
_LOCAL, _PROXY = 0x20, 0x21
#: Bytes of an address by its family, which is in the upper half of a byte.
_ADDRESS_LENGTHS = {1: 4, 2: 16}
#: Types of TLS records, all of them; the byte behind is the major version, 3 in all that are in use.
_TLS_RECORDS = range(0x14, 0x18)
_HTTP = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"PRI * HTTP/", b"HTTP/")


class Preamble(NamedTuple):
    """
    A header of the PROXY protocol.

    @ivar length: Bytes that it has; 0 if there are not enough of it yet.
    @ivar client: Address and port of the client that it names; empty if it names none.
    """

    length: int
    client: str = ""


#: There may be one, but its end has not come.
_UNFINISHED = Preamble(0)


def read_preamble(start: bytes) -> Preamble | None:
    """
    Look for a header of the PROXY protocol.

    @param start: The first bytes of a direction, as many as there are.
    @return: The header; L{None} if it is none.
    """
    if start.startswith(_TEXT):
        return _read_text(start[:MAX_LINE])
    if start.startswith(_BINARY):
        return _read_binary(start)
    may_be = bool(start) and (_TEXT.startswith(start) or _BINARY.startswith(start))
    return _UNFINISHED if may_be else None


def _read_text(start: bytes) -> Preamble | None:
    line, end, _ = start.partition(b"\r\n")
    if not end:
        return _UNFINISHED if len(start) < MAX_LINE else None
    length = len(line) + len(end)
    words = line.decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return Preamble(length)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        return None
    try:
        return Preamble(length, _show(ip_address(words[2]).packed, int(words[4])))
    except ValueError:
        return None


def _read_binary(start: bytes) -> Preamble | None:
    if len(start) < _FIXED_LENGTH:
        return _UNFINISHED
    command, family = start[12], start[13]
    if command not in (_LOCAL, _PROXY):
        return None
    length = _FIXED_LENGTH + int.from_bytes(start[_LENGTH_AT:_FIXED_LENGTH], "big")
    if length > MAX_BINARY:
        return None
    if len(start) < length:
        return _UNFINISHED
    size = _ADDRESS_LENGTHS.get(family >> 4, 0)
    ports = _FIXED_LENGTH + 2 * size
    if command == _LOCAL or not size or length < ports + 4:
        return Preamble(length)
    port = int.from_bytes(start[ports : ports + 2], "big")
    return Preamble(length, _show(start[_FIXED_LENGTH : _FIXED_LENGTH + size], port))


def _show(address: bytes, port: int) -> str:
    shown = str(ip_address(address))
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"


def name_protocol(start: bytes) -> str:
    """
    Name the protocol that something is, if it is one that is often met.

    @param start: Its first bytes.
    @return: The name; nothing if it is not known.
    """
    if len(start) >= 2 and start[0] in _TLS_RECORDS and start[1] == 3:
        return "TLS"
    if start.startswith(_HTTP):
        return "HTTP"
    if start.startswith(b"SSH-"):
        return "SSH"
    if start[4:8] in (b"\xffSMB", b"\xfeSMB"):
        return "SMB"
    return ""
