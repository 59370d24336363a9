"""
What a host writes to its log about its peers: one line with fields for each thing that happens.

A line is made of C{name=value} fields.  Text that came from a peer is quoted and escaped, so that a workstation name
can neither end the line, nor pretend to be a field, nor reach the terminal of whoever reads the log.  The fields are
also handed to the logging system, the texts among them quoted already.  Only a policy that fails, which is a mistake
on our side, is written with its traceback.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.host import Answer
from kmsproto.kms.policy import Peer
from kmsproto.net.activation import Answered, Closed, Faulted, PolicyFailed
from kmsproto.net.quoting import quote

_PEER = " peer={peer.address} port={peer.port}"
_REASON = " reason={reason}"
_HRESULT = " hresult=0x{hresult:08X}"
_REQUEST = (
    " version={request.major_version} product={product} application={application}"
    " workstation={workstation} cmid={request.client_machine_id}"
)


class Reporter:
    """
    Writes the lines of a host.

    @param log: Where to.
    @param catalog: Knows the names of products; what it does not know is written as a GUID.
    """

    def __init__(self, log: Logger, catalog: Catalog) -> None:
        self._log = log
        self._catalog = catalog

    def report(self, peer: Peer, event: Answered | Faulted | PolicyFailed | Closed) -> None:
        """
        Write the line about what happened on a connection.
        """
        if isinstance(event, Answered):
            self._answered(peer, event.answer)
        elif isinstance(event, Faulted):
            line = "faulted" + _PEER + " status=0x{status:08X}" + _REASON
            self._log.info(line, peer=peer, status=event.status, reason=quote(event.problem))
        elif isinstance(event, Closed):
            self.closed(peer, event.problem)
        else:
            self._log.failure("the policy failed" + _PEER, Failure(event.error), peer=peer)

    def closed(self, peer: Peer, reason: str) -> None:
        """
        Write that a connection was closed for a reason.
        """
        self._log.info("closed" + _PEER + _REASON, peer=peer, reason=quote(reason))

    def turned_away(self, peer: Peer, reason: str) -> None:
        """
        Write that a peer was refused before any byte was answered.
        """
        self._log.info("turned away" + _PEER + _REASON, peer=peer, reason=quote(reason))

    def _answered(self, peer: Peer, answer: Answer) -> None:
        request = answer.request
        hresult = int(answer.hresult)
        if request is None:
            line = "refused" + _PEER + _HRESULT + _REASON
            self._log.info(line, peer=peer, hresult=hresult, reason=quote(answer.problem))
            return
        if answer.grant is None:
            line = "refused" + _PEER + _HRESULT + _REQUEST
        else:
            line = "granted" + _PEER + _REQUEST + " count={grant.client_count}"
        self._log.info(
            line,
            peer=peer,
            hresult=hresult,
            request=request,
            grant=answer.grant,
            product=quote(self._catalog.sku_name(request.sku_id)),
            application=quote(self._catalog.application_name(request.application_id)),
            workstation=quote(request.workstation),
        )
