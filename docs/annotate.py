"""
Makes the annotated exchanges of the documentation from recorded ones: every byte with its offset and its meaning.

The bytes are those in C{tests/golden/}, and what they mean is read out of them by the code that C{kmsproto decode}
uses.  So neither can be wrong in a page alone, and a test compares the pages with what this makes.  Run it after a
change: C{python docs/annotate.py} writes the pages anew.

A message of version 5 or 6 is shown twice: in its PDU as it travels, and behind that decrypted.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from kmsproto.decode.layouts import (  # noqa: E402
    pdu_fields,
    request_stub_fields,
    response_stub_fields,
)
from kmsproto.kms.catalog import load_catalog  # noqa: E402
from kmsproto.kms.envelopes import (  # noqa: E402
    CIPHERS,
    VERSION_LENGTH,
    OpenedRequest,
    open_request,
)
from kmsproto.kms.fields import Field, request_fields, response_fields  # noqa: E402
from kmsproto.kms.messages import MalformedMessageError  # noqa: E402
from kmsproto.rpc.pdu import CALL_PREFIX_LENGTH, NDR, NDR64  # noqa: E402

#: Where the recorded exchanges are, and where the pages go.
RECORDED = ROOT / "tests" / "golden"
PAGES = ROOT / "docs" / "annotated"
#: The exchanges that have a page, and its title.
TITLES = {
    "v4-full": "Version 4, byte by byte",
    "v5-full": "Version 5, byte by byte",
    "v6-full": "Version 6, byte by byte",
    "refused-version": "A refusal, byte by byte",
}
#: What a page begins with, below its title.
INTRODUCTIONS = {
    "v4-full": "A client of Windows 7 asks twice on one connection: first in NDR, then in NDR64.",
    "v5-full": "A client of Office 2013 asks twice on one connection: first in NDR, then in NDR64.",
    "v6-full": "A client of Windows 10 or 11 asks twice on one connection: first in NDR, then in NDR64.",
    "refused-version": (
        "A client asks in version 7.0, which does not exist, sealed as version 6 is.  The host refuses it both times:"
        " the call succeeds as far as RPC is concerned, and returns an HRESULT without a response."
    ),
}
_SYNTAXES = {"NDR": NDR, "NDR64": NDR64}
#: Bytes on a line, and bytes without a blank between them.
_LINE, _GROUP = 16, 4
_HEX_WIDTH = 2 * _LINE + _LINE // _GROUP - 1
#: Characters of what a field means on a line.
_TEXT_WIDTH = 62
#: Columns of prose.
_PROSE_WIDTH = 115
#: Names of fields that need no explanation get at least so much room.
_NAME_WIDTH = 15


@dataclass(frozen=True)
class Piece:
    """
    Some bytes of a PDU or of a message, and what they are.

    @ivar raw: The bytes.
    @ivar field: What they are; its offset is where they stand in what is shown.
    """

    raw: bytes
    field: Field


def render_page(name: str) -> str:
    """
    Make the page of an exchange.

    @param name: One of L{TITLES}.
    @return: It, as reStructuredText.
    """
    exchange = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    title = TITLES[name]
    lines = [
        f".. Made from tests/golden/{name}.json by docs/annotate.py.",
        "",
        title,
        "=" * len(title),
        "",
        *textwrap.wrap(INTRODUCTIONS[name], _PROSE_WIDTH),
        "",
        ":doc:`../wire` explains what is seen here.  Offsets are hexadecimal, and count from the beginning of what is",
        "shown.",
        "",
    ]
    catalog = load_catalog()
    request: OpenedRequest | None = None
    for number, pdu in enumerate(exchange["pdus"], 1):
        data = bytes.fromhex(pdu["bytes"])
        sender, packet, syntax = pdu["sender"], pdu["packet"], pdu.get("transfer_syntax", "")
        receiver = {"client": "host", "host": "client"}[sender]
        heading = f"{number}. {packet}{f' in {syntax}' if syntax else ''}: {sender} to {receiver}"
        lines += ["", heading, "-" * len(heading), "", f"{len(data)} bytes.", ""]
        if not syntax:
            lines += _block(_pieces(data, pdu_fields(data)))
            continue
        pieces, message = _call_pieces(data, packet, syntax)
        at = next((index for index, each in enumerate(pieces) if each.raw == message), None)
        if not message or at is None:
            lines += _block(pieces)
            continue
        if packet == "request":
            request = _opened(message)
            fields = request_fields(message, catalog)
        else:
            fields = response_fields(message, request, catalog)
        travels, decrypted = _message_pieces(message, fields)
        start = pieces[at].field.offset
        travels = [_moved(piece, start) for piece in travels]
        lines += _block([*pieces[:at], *travels, *pieces[at + 1 :]])
        if decrypted:
            lines += [
                "",
                f"Decrypted, the KMS message of {len(message)} bytes in it is:",
                "",
                *_block(decrypted),
            ]
    return "\n".join(lines) + "\n"


def _opened(message: bytes) -> OpenedRequest | None:
    """
    Open a request, if it is one that can be answered.
    """
    try:
        return open_request(message)
    except MalformedMessageError:
        return None


def _pieces(data: bytes, fields: Sequence[Field]) -> list[Piece]:
    return [Piece(data[each.offset : each.offset + each.size], each) for each in fields]


def _moved(piece: Piece, start: int) -> Piece:
    return replace(piece, field=replace(piece.field, offset=piece.field.offset + start))


def _call_pieces(data: bytes, packet: str, syntax: str) -> tuple[list[Piece], bytes]:
    """
    Take a call or its answer apart.

    @return: Its pieces, of which the message of KMS is one, and that message; empty if there is none.
    """
    stub = data[CALL_PREFIX_LENGTH:]
    take_apart = request_stub_fields if packet == "request" else response_stub_fields
    inside = _pieces(stub, take_apart(stub, _SYNTAXES[syntax], "<"))
    message = next((each.raw for each in inside if each.field.name == packet), b"")
    head = _pieces(data, pdu_fields(data))
    return [*head, *(_moved(each, CALL_PREFIX_LENGTH) for each in inside)], message


def _message_pieces(message: bytes, fields: Sequence[Field]) -> tuple[list[Piece], list[Piece]]:
    """
    Take a message of KMS apart.

    @return: Its pieces as it travels, and its pieces decrypted; of the latter there are none in version 4.
    """
    version = message[2]
    if version == 4:
        return _pieces(message, fields), []
    # What is refused here for its version was sealed as the newest is.
    cipher = CIPHERS.get(version, CIPHERS[max(CIPHERS)])
    clear = message[:VERSION_LENGTH] + cipher.decrypt_cbc(message[VERSION_LENGTH:])
    # The version and the vector travel in clear.
    head = _pieces(message, fields[:3])
    end = head[-1].field.offset + head[-1].field.size
    sealed = Field(end, len(message) - end, "encrypted", "", "see below")
    decrypted = _pieces(clear, fields)
    salt = replace(fields[2], name="salt", value="", meaning="the IV, decrypted")
    decrypted[2] = replace(decrypted[2], field=salt)
    return [*head, Piece(message[end:], sealed)], decrypted


def _block(pieces: Sequence[Piece]) -> list[str]:
    """
    Write some pieces as a block of text.
    """
    width = max(_NAME_WIDTH, *(len(each.field.name) for each in pieces))
    block = [".. code-block:: text", ""]
    for piece in pieces:
        for line in _lines(piece, width):
            block.append(f"   {line}".rstrip())
    return block


def _lines(piece: Piece, width: int) -> Iterator[str]:
    """
    Write a piece, C{_LINE} bytes on each line, with what it means beside and below.
    """
    field, raw = piece.field, piece.raw
    shown = field.value.removesuffix("...").lower()
    said = [
        each for each in ("" if shown in _hex_forms(raw) else field.value, field.meaning) if each
    ]
    if len("; ".join(said)) <= _TEXT_WIDTH:
        said = ["; ".join(said)]
    texts = [line for each in said for line in textwrap.wrap(each, _TEXT_WIDTH)]
    starts = range(0, len(raw), _LINE)
    for number in range(max(len(starts), len(texts))):
        place = part = ""
        if number < len(starts):
            start = starts[number]
            place, part = (
                f"{field.offset + start:04x}",
                raw[start : start + _LINE].hex(" ", -_GROUP),
            )
        name = "" if number else field.name
        text = texts[number] if number < len(texts) else ""
        yield f"{place:4}  {part:{_HEX_WIDTH}}  {name:{width}}  {text}"


def _hex_forms(raw: bytes) -> tuple[str, str]:
    """
    Tell how a field writes bytes that are no more than bytes, which need not be said twice.
    """
    return raw.hex(), raw[:32].hex()


def main() -> None:
    """
    Write all pages.
    """
    PAGES.mkdir(exist_ok=True)
    for name in TITLES:
        (PAGES / f"{name}.rst").write_text(render_page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
