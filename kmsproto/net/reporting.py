"""
What a host writes to its log about an answer: one line with fields, that nobody else can write into.

A line is made of C{name=value} fields.  Text that came from a peer is quoted and escaped, so that a workstation name
can neither end the line, nor pretend to be a field, nor reach the terminal of whoever reads the log.  The fields are
also handed to the logging system as they are, for observers that want them as data.
"""

from __future__ import annotations

from twisted.logger import Logger

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.host import Answer
from kmsproto.kms.policy import Peer

_REQUEST = (
    " version={request.major_version} product={product} application={application}"
    " workstation={workstation} cmid={request.client_machine_id}"
)
_GRANTED = "granted peer={peer.address} port={peer.port}" + _REQUEST + " count={grant.count}"
_REFUSED = "refused peer={peer.address} port={peer.port} hresult=0x{hresult:08X}" + _REQUEST
_MALFORMED = "refused peer={peer.address} port={peer.port} hresult=0x{hresult:08X} reason={reason!r}"


def quote(text: str) -> str:
    """
    Write a text so that it stays within its quotes and its line.

    Printable characters of any script stay as they are; quotes, backslashes, control and format characters are
    escaped as in Python.
    """
    escaped = "".join(
        character
        if character.isprintable() and character not in "\"\\"
        else "\\" + character
        if character in "\"\\"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    return f'"{escaped}"'


def report_answer(log: Logger, catalog: Catalog, peer: Peer, answer: Answer) -> None:
    """
    Write the line about one answer.

    @param catalog: Knows the names of products; what it does not know is written as a GUID.
    """
    request = answer.request
    hresult = int(answer.hresult)
    if request is None:
        log.info(_MALFORMED, peer=peer, hresult=hresult, reason=answer.problem)
        return
    log.info(
        _GRANTED if answer.grant is not None else _REFUSED,
        peer=peer,
        hresult=hresult,
        request=request,
        grant=answer.grant,
        product=quote(catalog.sku_name(request.sku_id)),
        application=quote(catalog.application_name(request.application_id)),
        workstation=quote(request.workstation),
    )
