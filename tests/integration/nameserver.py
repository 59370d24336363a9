"""
A name server of the tests' own, on a port of the loopback address, over UDP and TCP.

What it answers is decided by the server and the authority of C{twisted.names}; only the sockets are served by a thread,
because a test that runs a command and waits for it leaves the reactor no time.  Names that begin with certain labels
are answered badly or not at all: see L{NameServer}.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any

from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory

from tests.integration.processes import PATIENCE

#: A name and one of its records.
Entry = tuple[str, Any]


def srv(name: str, target: str, port: int, priority: int = 0, weight: int = 0) -> Entry:
    """
    Make an SRV record; the target may have characters that no name should have.
    """
    target_name = target.rstrip(".").encode("latin-1")
    return name, dns.Record_SRV(priority, weight, port, target_name, ttl=300)


def a(name: str, address: str) -> Entry:
    """
    Make an A record.
    """
    return name, dns.Record_A(address, ttl=300)


def aaaa(name: str, address: str) -> Entry:
    """
    Make an AAAA record.
    """
    return name, dns.Record_AAAA(address, ttl=300)


def cname(name: str, target: str) -> Entry:
    """
    Make a CNAME record.
    """
    return name, dns.Record_CNAME(target.encode(), ttl=300)


def text(name: str, content: str) -> Entry:
    """
    Make a TXT record, for names that exist and have nothing that is wanted.
    """
    return name, dns.Record_TXT(content.encode(), ttl=300)


class _Zone(FileAuthority):  # type: ignore[misc]
    """
    Knows what it is told.
    """

    def loadFile(self, entries: Iterable[Entry]) -> None:  # noqa: N802
        self.soa = (
            b"example",
            dns.Record_SOA(b"ns.example", b"admin.example", 1, 60, 60, 60, 60, 60),
        )
        self.records: dict[bytes, list[Any]] = {}
        for name, record in entries:
            self.records.setdefault(name.encode().lower(), []).append(record)

    def _additionalRecords(self, answer: list[Any], authority: list[Any], ttl: int) -> Any:  # noqa: N802
        # As the servers of Active Directory do it, addresses come with SRV records, unless they are asked to hide them.
        yield from super()._additionalRecords(answer, authority, ttl)
        for record in answer:
            if record.type == dns.SRV and not record.payload.target.name.startswith(b"alone"):
                name = record.payload.target.name
                for found in self.records.get(name.lower(), ()):
                    if found.TYPE in (dns.A, dns.AAAA):
                        yield dns.RRHeader(name, found.TYPE, dns.IN, 300, found, auth=True)


class _Reply:
    """
    Takes the answer to one question.
    """

    def __init__(self, send: Callable[[bytes], object], is_cut: bool) -> None:
        self._send = send
        self._is_cut = is_cut

    def writeMessage(self, message: dns.Message, address: object = None) -> None:  # noqa: N802
        """
        Send it, or say that it was too long.
        """
        if self._is_cut:
            message.trunc = 1
            message.answers, message.additional = [], []
        self._send(message.toStr())


class NameServer:
    """
    Serves entries until it is stopped.

    A question with a label C{servfail} or C{refused} in its name is answered so, C{silent} not at all, and C{cut} over
    TCP only.

    @ivar asked: The names and types that were asked for, and over what.
    @ivar address: Where it is, as the option C{--nameserver} wants it.
    """

    def __init__(self, *entries: Entry) -> None:
        self._factory = DNSServerFactory(authorities=[_Zone(entries)])
        self.asked: list[tuple[str, int, str]] = []
        self._tcp, self._udp = _open_both()
        self.address = f"127.0.0.1:{self._tcp.getsockname()[1]}"
        self._stopped, self._stopping = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """
        Stop.
        """
        self._stopping.close()
        self._thread.join(PATIENCE)
        for each in (self._tcp, self._udp, self._stopped):
            each.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._tcp, self._udp, self._stopped], [], [])
            if self._stopped in ready:
                return
            if self._udp in ready:
                data, address = self._udp.recvfrom(4096)
                self._answer(data, "udp", lambda answer, to=address: self._udp.sendto(answer, to))
            if self._tcp in ready:
                connection, _ = self._tcp.accept()
                threading.Thread(target=self._serve_stream, args=(connection,), daemon=True).start()

    def _serve_stream(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                self._answer(
                    stream.read(*struct.unpack("!H", head)),
                    "tcp",
                    lambda answer: connection.sendall(struct.pack("!H", len(answer)) + answer),
                )

    def _answer(self, data: bytes, over: str, send: Callable[[bytes], object]) -> None:
        message = dns.Message()
        message.fromStr(data)
        name = str(message.queries[0].name)
        self.asked.append((name, message.queries[0].type, over))
        labels = name.lower().split(".")
        if "silent" in labels:
            return
        codes = {"servfail": dns.ESERVER, "refused": dns.EREFUSED}
        for label, code in codes.items():
            if label in labels:
                message.answer, message.rCode = 1, code
                send(message.toStr())
                return
        reply = _Reply(send, over == "udp" and "cut" in labels)
        self._factory.messageReceived(message, reply, ("127.0.0.1", 0))


def _open_both() -> tuple[socket.socket, socket.socket]:
    """
    Open a TCP and a UDP socket with the same port.
    """
    for _ in range(20):
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return tcp, udp
    raise AssertionError("no port is free for both TCP and UDP")
