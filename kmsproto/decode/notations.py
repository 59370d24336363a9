"""
Bytes written in a text, but not as a dump with offsets: string literals, arrays of C, and Base64.

Each is recognized by what no other notation has: literals by their escapes with C{\\x}, arrays by their braces, Base64
by being nothing else and by what comes out of it, which the caller has to judge.  Two digits follow C{\\x}, as Python
has it and as Wireshark writes it.

The text itself may be UTF-8, with or without a mark at its beginning, or, as the redirections of PowerShell write it,
UTF-16 with one.
"""

from __future__ import annotations

import binascii
import codecs
import re

#: Marks at the beginning of a text, and its encoding.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([0-7]{1,3})|([abfnrtv\\'\"]))")
_CONTROLS = dict(zip("abfnrtv", b"\a\b\f\n\r\t\v", strict=True))
#: A literal of Python or C.  One that does not end is matched too, so that nothing is looked at twice.
_LITERAL = re.compile(r"'((?:[^'\\\n]|\\.)*)('?)|\"((?:[^\"\\\n]|\\.)*)(\"?)")
_BARE = re.compile(r"(?:\\x[0-9A-Fa-f]{2}\s*)+")
#: A byte in a line of an array.  Lines may have millions, which one expression for all of them would keep in memory.
_ARRAY_BYTE = re.compile(r"[ \t]*0[xX]([0-9A-Fa-f]{1,2})[ \t]*(?:,[ \t]*|(?=[}/\r\n]|$))")
#: Where an array begins; a brace in the comment of a line begins none.
_ARRAY = re.compile(r"\{(?=[ \t]*\r?(?:\n|$)|[ \t]*0[xX])")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def has_mark(start: bytes) -> bool:
    """
    Tell whether something begins with a mark that says how its text is encoded.
    """
    return start.startswith(tuple(_MARKS))


def read_text(data: bytes) -> str:
    """
    Read a text, whatever its encoding; without a mark, and if it is not UTF-8, each byte is a character.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_literals(text: str) -> bytes | None:
    """
    Read the literals in a text, one behind the other.

    @return: The bytes; L{None} if there are none with an escape C{\\x}, or if one cannot be read.
    """
    if "\\x" not in text:
        return None
    if _BARE.fullmatch(text.strip()):
        return bytes.fromhex(re.sub(r"\\x|\s", "", text))
    data = bytearray()
    for found in _LITERAL.finditer(text):
        inner = found[1] if found[1] is not None else found[3]
        if not (found[2] or found[4]):
            continue
        at = 0
        while at < len(inner):
            escape = _ESCAPE.match(inner, at)
            if escape is None:
                if inner[at] == "\\" or ord(inner[at]) > 0xFF:
                    return None
                data.append(ord(inner[at]))
                at += 1
                continue
            digits, octal, control = escape.groups()
            value = int(digits, 16) if digits else int(octal, 8) if octal else 0
            data.append((_CONTROLS.get(control) or ord(control)) if control else value & 0xFF)
            at = escape.end()
    return bytes(data) or None


def read_arrays(text: str) -> list[bytes]:
    """
    Read the arrays of bytes in a source text of C.

    @return: Each array.
    """
    arrays: list[bytearray] = []
    for part in _ARRAY.split(text)[1:]:
        array = bytearray()
        for line in part.splitlines():
            found = _ARRAY_BYTE.match(line)
            while found is not None:
                array.append(int(found[1], 16))
                found = _ARRAY_BYTE.match(line, found.end())
            if line.lstrip().startswith("}"):
                break
        if array:
            arrays.append(array)
    return [bytes(array) for array in arrays]


def read_base64(text: str) -> bytes | None:
    """
    Read a text that is nothing but Base64.

    @return: The bytes; L{None} if it is something else.
    """
    joined = "".join(text.split())
    if len(joined) % 4 or not _BASE64.fullmatch(joined):
        return None
    return binascii.a2b_base64(joined)
