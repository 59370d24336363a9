"""
What the hostile hosts are made of: connections that are theirs to spoil, threads that serve them, and odd answers.

L{Conversation} is one connection, with the server side of C{kmsproto.rpc} for as long as a host keeps to the protocol;
L{serving} puts a host on a port of the loopback address.  Every connection gets a thread of its own, which ends with
the connection or with the host, whichever is first, so nothing is left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from kmsproto.errors import KMSProtoError
from kmsproto.kms.envelopes import (
    CIPHERS,
    OpenedRequest,
    compute_hmac,
    compute_mac,
    open_request,
    xor,
)
from kmsproto.kms.messages import encode_version
from kmsproto.net.activation import KMS_INTERFACE
from kmsproto.rpc import ndr, pdu, server
from kmsproto.rpc.calls import Call, CallReceived
from kmsproto.rpc.numbers import WHOLE, PacketType
from kmsproto.rpc.pdu import Header, Negotiated

#: The address that the hosts listen on.
LOOPBACK = "127.0.0.1"
#: Seconds between the bytes of a host that drips.
DRIP = 0.2
#: Seconds that a thread may take to end when its connection is cut.
PATIENCE = 10.0
#: Bytes that a socket of a host that does not read takes in; the least that the system gives.
SMALL_BUFFER = 1
#: An ePID as hosts give it.
EPID = "03612-04919-019-424065-03-1033-26100.0000-2152026"

HARDWARE_ID = bytes.fromhex("3a1c049600b60076")


class GoneError(Exception):
    """
    The client has left, or says what leaves nothing to answer.
    """


class Conversation:
    """
    One connection of a client, as a hostile host sees it.

    @param connection: The socket.
    @param stopped: Set when the host stops.
    """

    def __init__(self, connection: socket.socket, stopped: threading.Event) -> None:
        self.socket = connection
        self._stopped = stopped
        self._buffer = b""
        port = connection.getsockname()[1]
        self._rpc = server.RPCServer((KMS_INTERFACE,)).accept(LOOPBACK, str(port))

    def send(self, data: bytes) -> None:
        """
        Send; block for as long as the client does not read.

        @raise OSError: If the client has left.
        """
        self.socket.sendall(data)

    def read_pdu(self) -> tuple[Header, bytes]:
        """
        Read one PDU of the client's.

        @raise GoneError: If there is none any more.
        """
        while True:
            if len(self._buffer) >= pdu.HEADER_LENGTH:
                header = pdu.decode_header(self._buffer)
                length = max(header.frag_length, pdu.HEADER_LENGTH)
                if len(self._buffer) >= length:
                    data, self._buffer = self._buffer[:length], self._buffer[length:]
                    return header, data
            received = self.socket.recv(65536)
            if not received:
                raise GoneError
            self._buffer += received

    def good_bind_ack(self) -> bytes:
        """
        Read the bind, and make the right answer to it.
        """
        _, data = self.read_pdu()
        self._rpc.receive_data(data)
        return self._rpc.data_to_send()

    def bind(self) -> None:
        """
        Answer the bind as it should be answered.
        """
        self.send(self.good_bind_ack())

    def calls(self) -> Iterator[Call]:
        """
        Yield the calls of the client, and answer whatever else it sends as that should be answered.
        """
        while not self._rpc.closed:
            _, data = self.read_pdu()
            for event in self._rpc.receive_data(data):
                if isinstance(event, CallReceived):
                    yield event.call
            self.send(self._rpc.data_to_send())

    def respond(self, call: Call, stub: bytes) -> None:
        """
        Answer a call with any stub, in good fragments.
        """
        self._rpc.respond(call, stub)
        self.send(self._rpc.data_to_send())

    def wait(self) -> None:
        """
        Say nothing, and read until the client leaves.
        """
        while self.socket.recv(65536):
            pass

    def idle(self) -> None:
        """
        Say nothing and read nothing, until the host stops.
        """
        self._stopped.wait()

    def flood(self, data: bytes) -> None:
        """
        Send the same for ever.
        """
        while not self._stopped.is_set():
            self.send(data)

    def drip(self, data: bytes) -> None:
        """
        Send byte by byte, so that something always comes before anybody loses patience.
        """
        for byte in data:
            if self._stopped.wait(DRIP):
                return
            self.send(bytes((byte,)))

    def reset(self) -> None:
        """
        End the connection with a RST.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


#: What a host does with a connection; when it returns, the connection is closed.
Act = Callable[[Conversation], None]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    One way to mean no good.

    @ivar act: What the host does with each connection.
    @ivar problem: A regular expression: what the client of C{kmsproto} says of it.
    @ivar waits: Whether only the time limit of the client ends it.
    @ivar answers: Whether the client gets a good answer out of it, so that it may have nothing to complain of.
    @ivar accepts: Whether the host takes connections from the system at all.
    @ivar reads: Whether the host reads; if not, its buffer is small.
    """

    act: Act
    problem: str
    waits: bool = False
    answers: bool = False
    accepts: bool = True
    reads: bool = True


class _Host:
    """
    A host on a port of its own.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._conversations: dict[threading.Thread, socket.socket] = {}
        self._mistakes: list[BaseException] = []
        self._wake, self._waker = socket.socketpair()
        self._listener = socket.socket()
        if not behaviour.reads:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self._listener.bind((LOOPBACK, 0))
        self._fillers: list[socket.socket] = []
        self._listener.listen(128 if behaviour.accepts else 0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        if behaviour.accepts:
            self._thread.start()
        else:
            self._fill()

    def _fill(self) -> None:
        """
        Use up the backlog, so that the system answers nobody else.
        """
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((LOOPBACK, self.port))
            self._fillers.append(filler)

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._wake], [], [])
            if self._wake in ready:
                return
            connection, _ = self._listener.accept()
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self._lock:
                self._conversations[thread] = connection
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        conversation = Conversation(connection, self._stopped)
        try:
            # A client that leaves, or asks for what cannot be answered, ends the conversation.
            with contextlib.suppress(OSError, GoneError, KMSProtoError):
                self._behaviour.act(conversation)
        except BaseException as mistake:
            self._mistakes.append(mistake)
            raise
        finally:
            with self._lock:
                self._conversations.pop(threading.current_thread(), None)
                connection.close()

    def stop(self) -> None:
        """
        Cut every connection, and see to it that no thread stays.

        @raise AssertionError: If the host itself has made a mistake.
        """
        self._stopped.set()
        self._waker.send(b"x")
        if self._behaviour.accepts:
            self._thread.join(PATIENCE)
        with self._lock:
            threads = list(self._conversations)
            for connection in self._conversations.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
        for each in (self._listener, self._wake, self._waker, *self._fillers):
            each.close()
        if self._mistakes or any(thread.is_alive() for thread in threads):
            raise AssertionError(f"a hostile host has failed: {self._mistakes or threads}")


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[int]:
    """
    Let such a host listen, for as long as the context lasts.

    @return: A context manager that gives the port, on L{LOOPBACK}.
    """
    host = _Host(behaviour)
    try:
        yield host.port
    finally:
        host.stop()


# What hosts say.


def response(
    call: Call, flags: int, stub: bytes, *, call_id: int | None = None, auth_length: int = 0
) -> bytes:
    """
    Make one fragment of an answer.

    @param call_id: Another call id than that of the call.
    """
    body = struct.pack("<IHH", len(stub), call.context_id, 0) + stub
    number = call.call_id if call_id is None else call_id
    return with_auth_length(pdu.encode_pdu(PacketType.RESPONSE, flags, number, body), auth_length)


def with_frag_length(data: bytes, length: int) -> bytes:
    """
    Let a PDU tell another frag_length.
    """
    return data[:8] + struct.pack("<H", length) + data[10:]


def with_auth_length(data: bytes, length: int) -> bytes:
    """
    Let a PDU tell another auth_length.
    """
    return data[:10] + struct.pack("<H", length) + data[12:]


def bind_ack(
    call_id: int, results: tuple[Negotiated, ...], address: bytes = b"\x05\x001688\0"
) -> bytes:
    """
    Make a bind_ack with any results.

    @param address: The secondary address, with its length.
    """
    head = struct.pack("<HHI", 5840, 5840, 1) + address
    head += bytes(-len(head) % 4) + bytes((len(results), 0, 0, 0))
    for each in results:
        head += struct.pack("<HH", each.result, each.reason) + pdu.encode_syntax(
            each.transfer_syntax
        )
    return pdu.encode_pdu(PacketType.BIND_ACK, WHOLE, call_id, head)


def answer_body(request: OpenedRequest, epid: bytes, size: int) -> bytes:
    """
    Make the body of an answer with any ePID.

    @param epid: As it stands in the answer, with its zero if it has one.
    @param size: What its size field says.
    """
    asked = request.body
    head = struct.pack("<HHI", asked.minor_version, asked.major_version, size) + epid
    machine = asked.client_machine_id.bytes_le
    return head + struct.pack("<16sQIII", machine, asked.client_time, 50, 120, 10080)


def answer(
    call: Call,
    *,
    epid: bytes | None = None,
    size: int | None = None,
    damaged: bool = False,
    version: int | None = None,
) -> bytes:
    """
    Make the stub of an answer that is right in everything but what is asked for here.

    @param epid: Another ePID, as it stands in the answer.
    @param size: Another size than the ePID has.
    @param damaged: Whether the MAC, the hash or the HMAC shall be wrong, in version 4, 5 or 6.
    @param version: Another protocol version than that of the request.
    """
    request = _asked(call)
    if version is not None:
        request = request._replace(body=request.body._replace(major_version=version))
    epid = (EPID + "\0").encode("utf-16-le") if epid is None else epid
    clear = answer_body(request, epid, len(epid) if size is None else size)
    payload = _seal(request, clear, bytes((int(damaged),)))
    return ndr.encode_activation_response(payload, call.context.transfer_syntax)


def old_answer(call: Call) -> bytes:
    """
    Make the stub of an answer that was right for an earlier request of the same version, from somebody else.
    """
    asked = _asked(call)
    earlier = asked.body._replace(client_machine_id=UUID(int=1), client_time=1)
    request = asked._replace(body=earlier, salt=bytes(len(asked.salt)), iv=bytes(len(asked.iv)))
    epid = (EPID + "\0").encode("utf-16-le")
    payload = _seal(request, answer_body(request, epid, len(epid)), b"\0")
    return ndr.encode_activation_response(payload, call.context.transfer_syntax)


def _asked(call: Call) -> OpenedRequest:
    message = ndr.decode_activation_request(
        call.stub, call.context.transfer_syntax, call.byte_order
    )
    return open_request(message)


def _seal(request: OpenedRequest, clear: bytes, damage: bytes) -> bytes:
    """
    Seal the body of an answer.

    @param damage: A byte that the last byte of the proof is combined with.
    """
    version = request.body.major_version

    def damaged(proof: bytes) -> bytes:
        return proof[:-1] + xor(proof[-1:], damage)

    if version == 4:
        return clear + damaged(compute_mac(clear))
    drawn = bytes(range(16))
    digest = hashlib.sha256(drawn).digest()
    masked = xor(drawn, request.salt)
    if version == 5:
        message = request.salt + clear + masked + damaged(digest)
    else:
        message = bytes(16) + clear + masked + digest + HARDWARE_ID + request.salt
        message += damaged(compute_hmac(request.body.client_time, message))
    padding = 16 - len(message) % 16
    return encode_version(request.body) + CIPHERS[version].encrypt_cbc(
        message + bytes((padding,)) * padding
    )


def stub_of_sizes(call: Call, size: int, max_count: int, rest: bytes) -> bytes:
    """
    Make the stub of an answer with a pointer that is not null, and any sizes.
    """
    layout = "<I4xQQ" if call.context.transfer_syntax == pdu.NDR64 else "<III"
    return struct.pack(layout, size, ndr.FIRST_REFERENT, max_count) + rest
