"""
The floor: the least that a Twisted server can do for an exchange.

It answers each PDU with bytes of a recording and looks at nothing but the packet type: no reassembly, no state, no
decryption, no log, no limits.  What a host needs beyond this is its own cost, while what this needs is the cost of
Python, Twisted and the kernel.  It runs as a process, C{python -m benchmarks.floor --version 6}, which says on its
standard output where it listens, and ends with its standard input, so that it does not outlive who started it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from twisted.internet import reactor as installed_reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from benchmarks.exchanges import VERSIONS, Exchange, load_exchange

#: Connections that may wait to be accepted; as many as with a host.
BACKLOG = 1024
#: Where the packet type stands in a PDU.
PACKET_TYPE = 2


class Floor(Protocol):
    """
    One connection, on which each segment is taken for a whole PDU.

    @param answers: What to answer to each packet type.
    """

    transport: Any

    def __init__(self, answers: Mapping[int, bytes]) -> None:
        self._answers = answers

    def connectionMade(self) -> None:
        """
        Send what is written at once, as a host does.
        """
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """
        Answer.
        """
        self.transport.write(self._answers[data[PACKET_TYPE]])


class FloorFactory(ServerFactory):
    """
    Makes the connections.

    @param exchange: What to answer.
    """

    noisy = False

    def __init__(self, exchange: Exchange) -> None:
        pairs = zip(exchange.questions, exchange.answers, strict=True)
        self._answers = {question[PACKET_TYPE]: answer for question, answer in pairs}

    def buildProtocol(self, addr: IAddress | None) -> Floor:
        """
        Take a connection.
        """
        return Floor(self._answers)


class _EndOfInput(Protocol):
    """
    Stops the reactor when standard input ends.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Stop, unless that is why we are called.
        """
        if self._reactor.running:
            self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


@click.command()
@click.option("--port", default=0, help="The port on 127.0.0.1; by default any that is free.")
@click.option("--version", type=click.Choice([str(each) for each in VERSIONS]), default="6")
def main(port: int, version: str) -> None:
    """
    Answer recorded bytes until standard input ends.
    """
    reactor: Any = installed_reactor
    factory = FloorFactory(load_exchange(int(version)))
    listening = reactor.listenTCP(port, factory, backlog=BACKLOG, interface="127.0.0.1")
    StandardIO(_EndOfInput(reactor))
    click.echo(listening.getHost().port)
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
