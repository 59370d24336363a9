"""
What only real sockets show of a host under twistd: segments, half-close, buffers that fill, and many clients at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from kmsproto.rpc import client, management, pdu
from kmsproto.rpc.numbers import PacketType
from tests.integration.processes import PATIENCE, TwistdCase, ask, read_all
from tests.net.wiring import (
    BOUND,
    PROTO_ERROR,
    bind,
    call,
    calls,
    granted,
    payload,
    read_replies,
    split,
)


class SocketTests(TwistdCase):
    """
    What only real sockets show.
    """

    def test_byte_by_byte(self) -> None:
        """
        A client that sends single bytes is answered.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in bind() + call(payload()):
            connection.send(bytes((byte,)))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(read_replies(read_all(connection)), [BOUND, *granted(2)])

    def test_half_close(self) -> None:
        """
        A client that closes its side right after its calls gets every answer.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind() + calls(500))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(read_replies(read_all(connection)), [BOUND, *granted(*range(2, 502))])

    def test_answer_survives_the_close(self) -> None:
        """
        The answer that precedes a close arrives, although the client has sent more that nobody reads.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind() + b"\4" + call(payload(), 9)[1:] + bytes(300_000))
        self.assertEqual(read_replies(read_all(connection)), [BOUND, ("fault", 9, PROTO_ERROR)])

    def test_linger(self) -> None:
        """
        A client that does not close after the host did is cut off.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(read_all(connection), b"")
        with self.assertRaises(OSError):
            for _ in range(100):
                connection.sendall(b"more")
                time.sleep(0.1)

    def test_client_that_does_not_read(self) -> None:
        """
        A client that sends calls and does not read is not read from, until it reads; then all is answered.
        """
        host, port = self.local()
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.connect(("127.0.0.1", port))
        # Small questions with large answers, which are not logged: those of the management interface.
        elements = client.offer(management.MANAGEMENT.syntax, ndr64=False, bind_time_features=False)
        question = b"".join(pdu.encode_request(2, 0, 0, b"", 5840))
        connection.sendall(
            pdu.encode_bind(PacketType.BIND, 3, 1, pdu.Bind(5840, 5840, 0, elements))
        )
        self.assertEqual(len(split(connection.recv(65536))), 1)
        stream = question * 1_000_000
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(stream):
                sent += connection.send(stream[sent : sent + 65536])
        self.assertLess(sent, len(stream), "the host took everything")
        # What was begun is sent to its end while the answers are read.
        connection.settimeout(PATIENCE)
        count = -(-sent // len(question))
        rest = stream[sent : count * len(question)]
        sender = threading.Thread(target=connection.sendall, args=(rest,))
        sender.start()
        self.addCleanup(sender.join, PATIENCE)
        size, received = 0, 0
        while not size or received < count * size:
            data = connection.recv(65536)
            self.assertNotEqual(data, b"")
            size = size or int.from_bytes(data[8:10], "little")
            received += len(data)
        self.assertEqual(received, count * size)
        self.assertGreater(count, 1000)
        connection.close()
        self.assertStopped(host)

    def test_caps(self) -> None:
        """
        Connections beyond the cap of an address get no byte; a place that gets free is given away again.
        """
        host, port = self.local("--max-connections-per-address", "2")
        first, second = self.connect(port), self.connect(port)
        ask(first)
        ask(second)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(read_all(self.connect(port)), b"")
        host.wait_for('turned away .*reason="2 connections of this address are open"')
        first.close()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                ask(self.connect(port))
                break
            except (AssertionError, ConnectionError):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)

    def test_idle_timeout(self) -> None:
        """
        A client that says nothing is closed.
        """
        host, port = self.local("--idle-timeout", "0.3")
        self.assertEqual(read_all(self.connect(port)), b"")
        host.wait_for('closed peer=127.0.0.1 .*reason="timed out: it never bound"')

    def test_many_clients(self) -> None:
        """
        Two hundred clients at a time are served, good ones between bad ones.
        """
        host, port = self.local()
        connections = [self.connect(port) for _ in range(200)]
        for number, connection in enumerate(connections):
            connection.sendall(bind() + call(payload()) if number % 2 else bytes(1000))
        for number, connection in enumerate(connections):
            connection.shutdown(socket.SHUT_WR)
            expected = [BOUND, *granted(2)] if number % 2 else []
            self.assertEqual(read_replies(read_all(connection)), expected)
        self.assertStopped(host)

    def test_names_the_port(self) -> None:
        """
        The bind_ack names the port that the host listens on.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind())
        ((header, data),) = split(connection.recv(65536))
        self.assertEqual(header.packet_type, PacketType.BIND_ACK)
        self.assertIn(f"{port}\0".encode(), data)
