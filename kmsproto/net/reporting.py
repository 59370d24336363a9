"""
What a host writes to its log about its peers: one line with fields for each thing that happens.

A line is made of C{name=value} fields.  Text that came from a peer is quoted and escaped, so that a workstation name
can neither end the line, nor pretend to be a field, nor reach the terminal of whoever reads the log.

Where the lines go is for the owner to say.  A journal takes each as it is, which is all that a busy host can afford.
Without one they go to Twisted's logging system, with what they are about as data.  Only a policy that fails, which is
a mistake on our side, is always an event of that system, written with its traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from twisted.logger import Logger
from twisted.python.failure import Failure

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.host import Answer
from kmsproto.kms.policy import Peer
from kmsproto.net.activation import Closed, Faulted, PolicyFailed
from kmsproto.net.quoting import quote


class Reporter:
    """
    Writes the lines of a host.

    @param log: Where to.
    @param catalog: Knows the names of products; what it does not know is written as a GUID.
    @param journal: Where to write the lines instead, each without its end.
    """

    def __init__(
        self, log: Logger, catalog: Catalog, journal: Callable[[str], None] | None = None
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._journal = journal
        # A network has few products, and each of them is written again and again.
        self._describe_product = lru_cache(maxsize=1024)(self._word_product)

    def report(self, peer: Peer, event: Answer | Faulted | PolicyFailed | Closed) -> None:
        """
        Write the line about what happened on a connection.
        """
        if isinstance(event, Answer):
            line = self._describe(peer, event)
            if self._journal is not None:
                self._journal(line)
                return
            self._log.info(
                "{line}",
                line=line,
                peer=peer,
                hresult=int(event.hresult),
                request=event.request,
                grant=event.grant,
            )
        elif isinstance(event, Faulted):
            status, reason = event.status, quote(event.problem)
            line = f"faulted {_who(peer)} status=0x{status:08X} reason={reason}"
            self._write(line, peer)
        elif isinstance(event, Closed):
            self.closed(peer, event.problem)
        else:
            self._log.failure("the policy failed {who}", Failure(event.error), who=_who(peer))

    def closed(self, peer: Peer, reason: str) -> None:
        """
        Write that a connection was closed for a reason.
        """
        self._write(f"closed {_who(peer)} reason={quote(reason)}", peer)

    def turned_away(self, peer: Peer, reason: str) -> None:
        """
        Write that a peer was refused before any byte was answered.
        """
        self._write(f"turned away {_who(peer)} reason={quote(reason)}", peer)

    def _write(self, line: str, peer: Peer) -> None:
        if self._journal is not None:
            self._journal(line)
        else:
            self._log.info("{line}", line=line, peer=peer)

    def _describe(self, peer: Peer, answer: Answer) -> str:
        """
        Word the line about an answer.
        """
        hresult, _, request, grant, problem = answer
        if request is None:
            return f"refused {_who(peer)} hresult=0x{hresult:08X} reason={quote(problem)}"
        what = (
            f"version={request.major_version}"
            f" {self._describe_product(request.sku_id, request.application_id)}"
            f" workstation={quote(request.workstation)} cmid={request.client_machine_id!s}"
        )
        if grant is None:
            return f"refused {_who(peer)} hresult=0x{hresult:08X} {what}"
        return f"granted {_who(peer)} {what} count={grant.client_count}"

    def _word_product(self, sku_id: UUID, application_id: UUID) -> str:
        product = quote(self._catalog.sku_name(sku_id))
        application = quote(self._catalog.application_name(application_id))
        return f"product={product} application={application}"


def _who(peer: Peer) -> str:
    return f"peer={peer.address} port={peer.port}"
