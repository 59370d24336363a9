"""
A host behind a proxy on real sockets: what the proxy says in front, and that the connection is a whole one behind it.
"""

from __future__ import annotations

import contextlib
import socket

from tests.integration.processes import Host, TwistdCase, read_all
from tests.net.wiring import bind, call, payload, read_replies


class ProxiedTests(TwistdCase):
    """
    A proxy that speaks for its clients.
    """

    def behind(self) -> tuple[Host, int]:
        """
        Start a host that expects a proxy.
        """
        host = self.start("--endpoint=haproxy:tcp:0:interface=127.0.0.1")
        return host, host.port()

    def test_half_close(self) -> None:
        """
        A client whose proxy closes its direction behind the request still has its answer, and the log names it.
        """
        host, port = self.behind()
        connection = self.connect(port)
        header = b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 1688\r\n"
        connection.sendall(header + bind() + call(payload()))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(len(read_replies(read_all(connection))), 2)
        host.wait_for("granted peer=10.0.0.7 port=4711 ")
        self.assertStopped(host)

    def test_no_header(self) -> None:
        """
        What is no header of a proxy ends the connection with one line, and the next client is served.
        """
        host, port = self.behind()
        connection = self.connect(port)
        connection.sendall(b"PROXY TCP4 a b c d\r\n")
        # Who does not know the protocol may find the connection reset.
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(read_all(connection), b"")
        host.wait_for('turned away peer=127.0.0.1 port=[0-9]+ reason="a malformed PROXY header"')
        connection = self.connect(port)
        connection.sendall(b"PROXY UNKNOWN\r\n" + bind() + call(payload()))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(len(read_replies(read_all(connection))), 2)
        self.assertStopped(host)
