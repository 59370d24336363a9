"""
Stand-ins for two KMS hosts of other make, with the departures from the standards that are known of them.

Neither program is here; what L{VlmcsdLike} does is the last column of "How a correct connection-oriented DCE/RPC server
behaves", and L{PyKmsLike} does what a host does that takes one C{recv(1024)} for one PDU and looks at little else.
They speak over real sockets, from threads, and what they grant is a real KMS answer, so that any client and any tool
can be tried on them::

    with running(VlmcsdLike) as port:
        ...

Nothing of C{kmsproto.rpc} is used: a mistake there must not hide itself here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

from kmsproto.errors import KMSProtoError
from kmsproto.kms.envelopes import CIPHERS, OpenedRequest, seal_response
from kmsproto.kms.messages import (
    MalformedMessageError,
    RequestBody,
    ResponseBody,
    decode_request_body,
)

KMS = UUID("51c82175-844e-4750-b0d8-ec255555bc06").bytes_le
NDR = UUID("8a885d04-1ceb-11c9-9fe8-08002b104860").bytes_le
NDR64 = UUID("71710533-beba-4937-8319-b5dbef9ccc36").bytes_le
FEATURES = bytes.fromhex("2c1cb76c12984045")

INVALID_DATA = 0x8007000D
PRODUCT_REFUSED = 0xC004F042
UNKNOWN_INTERFACE = 0x1C010003

#: What they call themselves, and their hardware id.
EPID = "03612-00206-566-123456-03-1033-17763.0000-1952025"
HARDWARE_ID = bytes.fromhex("3A1C049600B60076")
#: What stands where a host that is careless sends what its memory happens to hold.
GARBAGE = b"17"
#: Bytes behind a header that VlmcsdLike has room for.
ROOM = 284
_REQUEST_BODY = 236
_NAME = 128
_ENCRYPTED = 260
#: Seconds to wait for a thread that ought to end at once.
_JOINING = 10.0


class ForeignHost:
    """
    A host that serves each connection from a thread.

    @ivar port: The port it is reached at.
    @ivar patience: Seconds without a byte after which it closes.
    @ivar sequential: Whether it serves one connection at a time, and lets the others wait.
    @ivar mortal: Whether all of it is gone when a fork for one connection would be, as where connections are threads.
    @ivar restart: Seconds after which it is there again when it was gone; 0 for never.
    @ivar deaths: How often it was gone.
    @ivar accepted: How many connections it accepted.
    @ivar epid: What it calls itself.
    """

    def __init__(
        self,
        *,
        patience: float = 30.0,
        random_epid: bool = False,
        sequential: bool = False,
        mortal: bool = False,
        restart: float = 0.0,
    ) -> None:
        self.port = 0
        self.patience = patience
        self.sequential = sequential
        self.mortal = mortal
        self.restart = restart
        self.deaths = self.accepted = 0
        self._random_epid = random_epid
        self._listener: socket.socket | None = None
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False

    # What runs it.

    def run(self, listener: socket.socket) -> None:
        """
        Accept connections until the listener is closed and nobody starts the host again.
        """
        address = listener.getsockname()
        self.port = address[1]
        self._listener = listener
        self._accept(listener)
        while not self._stopping and self.restart:
            # Somebody looks after it.
            self._ended.wait(self.restart)
            if not self._stopping:
                with socket.create_server(address[:2], family=listener.family) as again:
                    self._listener = again
                    self._accept(again)

    def _accept(self, listener: socket.socket) -> None:
        threads: list[threading.Thread] = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            with self._lock:
                if self._stopping:
                    connection.close()
                    break
                self._open.add(connection)
            self.accepted += 1
            if self.sequential:
                self._serve(connection)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            threads = [each for each in threads if each.is_alive()] + [thread]
        for thread in threads:
            thread.join(_JOINING)

    def die(self) -> None:
        """
        Be gone, with all connections, if that is how the host is.
        """
        if not self.mortal:
            return
        self.deaths += 1
        self._close()

    def stop(self) -> None:
        """
        Cut all connections, for good.
        """
        self._stopping = True
        self._ended.set()
        self._close()

    def _close(self) -> None:
        with self._lock:
            if self._listener is not None:
                # Closing alone does not wake an accept that waits.
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(self.patience)
        try:
            self.serve(connection)
        except (OSError, EOFError, struct.error, IndexError, KeyError, ValueError, KMSProtoError):
            # Whatever such a program stumbles over ends the connection.
            return
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()

    def serve(self, connection: socket.socket) -> None:
        """
        Talk until the connection is to be closed.
        """
        raise NotImplementedError

    # What both have in common: the KMS answer.

    @property
    def epid(self) -> str:
        """
        What it calls itself.
        """
        if not self._random_epid:
            return EPID
        return f"03612-00206-566-{int.from_bytes(os.urandom(4), 'big') % 1_000_000:06}{EPID[22:]}"

    def grant(self, opened: OpenedRequest) -> bytes:
        """
        Make the KMS answer to a request.
        """
        request = opened.body
        body = ResponseBody(
            request.minor_version,
            request.major_version,
            self.epid,
            request.client_machine_id,
            request.client_time,
            min(2 * request.n_policy, 0xFFFFFFFF) or 1,
            120,
            10080,
        )
        return seal_response(
            opened, body, salt=os.urandom(16), random=os.urandom(16), hardware_id=HARDWARE_ID
        )


def receive(connection: socket.socket, length: int) -> bytes:
    """
    Receive so many bytes.

    @raise EOFError: If the peer closes before.
    """
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_body(clear: bytes) -> RequestBody:
    """
    Read a request body without looking at the name, which may hold anything, or at ranges.

    @raise MalformedMessageError: If its version is none.
    """
    numbers = struct.unpack_from("<III", clear, 4)
    (n_policy,) = struct.unpack_from("<I", clear, 80)
    # What is judged elsewhere is put into range here and put back behind.
    tame = (
        clear[:4]
        + struct.pack("<III", 0, 2, 0)
        + clear[16:80]
        + struct.pack("<I", 25)
        + clear[84:108]
        + bytes(_NAME)
    )
    body = decode_request_body(tame)
    return body._replace(
        is_virtual_machine=numbers[0],
        licence_status=numbers[1],
        binding_expiration=numbers[2],
        n_policy=n_policy,
    )


def decrypt(version: int, payload: bytes) -> OpenedRequest:
    """
    Decrypt a request of version 5 or 6, without looking at its padding.
    """
    message = CIPHERS[version].decrypt_cbc(payload[4:_ENCRYPTED])
    body = read_body(message[16 : 16 + _REQUEST_BODY])
    return OpenedRequest(body, message[:16], payload[4:20])


def ndr_answer(payload: bytes, hresult: int, wide: bool) -> bytes:
    """
    Write the results of RequestActivation.
    """
    if hresult:
        return (
            struct.pack("<IIQI", 0, 0, 0, hresult) if wide else struct.pack("<III", 0, 0, hresult)
        )
    size = len(payload)
    head = (
        struct.pack("<IIQQ", size, 0, 0x20000, size)
        if wide
        else struct.pack("<III", size, 0x20000, size)
    )
    # The HRESULT stands unaligned, with the padding behind it; being zero, nobody can tell.
    return head + payload + bytes(4) + bytes(-size % 4)


class VlmcsdLike(ForeignHost):
    """
    A host in C: a buffer of fixed size, headers made by copying the peer's, and little that is looked at twice.
    """

    _groups = itertools.count(0x0C31DB78)

    def serve(self, connection: socket.socket) -> None:
        """
        Talk, PDU by PDU.
        """
        session = _VlmcsdSession(self, next(self._groups))
        while True:
            header = receive(connection, 16)
            length = int.from_bytes(header[8:10], "little") - 16
            if length < 0 or length > ROOM:
                return
            if not length:
                # It asks for no bytes, and waits for them.
                connection.recv(1, socket.MSG_PEEK)
                return
            answer = session.answer(header, receive(connection, length))
            if answer is None:
                return
            connection.sendall(answer)


class _VlmcsdSession:
    """
    One connection of it.
    """

    #: What stands for a context that was not offered.
    UNSET = 0xFFFF

    def __init__(self, host: VlmcsdLike, group: int) -> None:
        self._host = host
        self._group = group
        self._ndr = self._ndr64 = self.UNSET
        self._last = bytes(_ENCRYPTED)

    def answer(self, header: bytes, body: bytes) -> bytes | None:
        """
        Answer a PDU.

        @return: The answer; L{None} to close.
        """
        if header[2] == 0:
            return self._request(header, body)
        if header[2] in (11, 14):
            return self._bind(header, body)
        return None

    def _bind(self, header: bytes, body: bytes) -> bytes | None:
        # Numbers of one byte are read together with the reserved bytes behind them.
        sizes, count = body[:4], int.from_bytes(body[8:12], "little")
        if not count or len(body) < 12 + 44 * count:
            return None
        elements = [body[12 + 44 * index : 56 + 44 * index] for index in range(count)]
        if any(each[3] for each in elements):
            return None
        wide = any(each[24:40] == NDR64 for each in elements)
        results = b"".join(self._judge(each, wide) for each in elements)
        is_bind = header[2] == 11
        address = str(self._host.port).encode() + b"\0" if is_bind else b""
        made = sizes + struct.pack("<IH", self._group, len(address)) + address
        made += (GARBAGE * 2)[: -len(made) % 4]
        made += struct.pack("<I", count) + results
        return self._copied(header, 12 if is_bind else 15, made, plain=not is_bind)

    def _judge(self, element: bytes, wide: bool) -> bytes:
        context = int.from_bytes(element[:2], "little")
        abstract, transfer = element[4:20], element[24:40]
        if transfer[:8] == FEATURES:
            return struct.pack("<HH", 3, transfer[8] & 3) + bytes(20)
        # The id is taken down before anything is judged.
        if transfer == NDR:
            self._ndr = context
        elif transfer == NDR64:
            self._ndr64 = context
        if abstract != KMS:
            return struct.pack("<HH", 2, 1) + bytes(20)
        if transfer == NDR64 or (transfer == NDR and not wide):
            return bytes(4) + element[24:44]
        return struct.pack("<HH", 2, 2) + bytes(20)

    def _copied(self, header: bytes, kind: int, body: bytes, *, plain: bool = False) -> bytes:
        """
        Make a PDU whose header is a copy of the peer's.

        @param plain: Whether at least its flags are not.
        """
        flags = b"\x03" if plain else header[3:4]
        length = struct.pack("<H", 16 + len(body))
        return header[:2] + bytes((kind,)) + flags + header[4:8] + length + header[10:] + body

    def _request(self, header: bytes, body: bytes) -> bytes | None:
        body = body.ljust(8, b"\0")
        context = int.from_bytes(body[4:6], "little")
        if context not in (self._ndr, self._ndr64):
            # The call id is that of a variable which only its client sets.
            return (
                b"\x05\x00\x03\x23\x10\0\0\0"
                + struct.pack("<HHI", 32, 0, 2)
                + struct.pack("<IHBBII", 32, 0, 0x17, 0x31, UNKNOWN_INTERFACE, 0)
            )
        wide = context == self._ndr64
        if self._ndr == self._ndr64 and body[26:28] in (b"\4\0", b"\5\0", b"\6\0"):
            # Checked as NDR64 and read as NDR, also before a bind where both are unset: the version is taken from
            # elsewhere, an index is out of bounds, and the process is gone.
            self._host.die()
            return None
        payload, hresult = self._activate(body[8 + (16 if wide else 8) :], len(body) - 8)
        stub = ndr_answer(payload, hresult, wide)
        return self._copied(header, 2, struct.pack("<IHH", len(stub), context, 0) + stub)

    def _activate(self, payload: bytes, stub_length: int) -> tuple[bytes, int]:
        version = int.from_bytes(payload[2:4], "little")
        needed = {4: 252, 5: _ENCRYPTED, 6: _ENCRYPTED}.get(version)
        # What is compared is the length of the stub, with the sizes in front.
        if needed is None or stub_length < needed:
            return b"", INVALID_DATA
        whole = (payload + self._last[len(payload) :])[:_ENCRYPTED]
        self._last = whole
        try:
            if version == 4:
                opened = OpenedRequest(read_body(whole[:_REQUEST_BODY]), b"", b"")
            else:
                opened = decrypt(version, whole)
        except MalformedMessageError:
            return b"", INVALID_DATA
        if opened.body.major_version != version or opened.body.n_policy > 1000:
            return b"", INVALID_DATA
        return self._host.grant(opened), 0


class PyKmsLike(ForeignHost):
    """
    A host in Python that reads once for each PDU, and believes what it reads.

    It tells kinds of PDUs apart by the type alone, closes behind each call, and looks at the first transfer syntax of
    an element, at no interface, no version and no operation.

    @param dawdle: Seconds that it takes to close.
    @param displaced: Whether it sees a gap of four bytes where an address of five digits needs none, and does not count
        it in frag_length.
    """

    #: The group of everybody.
    GROUP = 0x1063BF3F
    #: What it has a verdict for: other transfer syntaxes are an error that nobody catches.
    VERDICTS: ClassVar = {
        NDR: bytes(4) + NDR + struct.pack("<I", 2),
        NDR64: struct.pack("<HH", 2, 2) + bytes(20),
        FEATURES + b"\3" + bytes(7): struct.pack("<HH", 3, 3) + bytes(20),
    }

    def __init__(self, *, dawdle: float = 0.0, displaced: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._dawdle = dawdle
        self._displaced = displaced

    def serve(self, connection: socket.socket) -> None:
        """
        Talk, segment by segment.
        """
        while data := connection.recv(1024):
            if data[2] == 11:
                connection.sendall(self._bind_ack(data))
                continue
            if data[2] == 0:
                connection.sendall(self._response(data))
                time.sleep(self._dawdle)
            return

    def _bind_ack(self, data: bytes) -> bytes:
        # Each element is taken for one of a single transfer syntax.
        elements = [data[start : start + 44] for start in range(28, 28 + 44 * data[24], 44)]
        results = b"".join(self.VERDICTS[each[24:40]] for each in elements)
        address = str(self.port).encode() + b"\0"
        body = data[16:20] + struct.pack("<IH", self.GROUP, len(address)) + address
        gap, uncounted = -len(body) % 4, 0
        if self._displaced and not gap:
            gap = uncounted = 4
        body += bytes(gap) + bytes((data[24], 0, 0, 0)) + results
        return self._whole(data, 12, 0x13, data[10:12], body, uncounted)

    def _response(self, data: bytes) -> bytes:
        length = int.from_bytes(data[8:10], "little") - int.from_bytes(data[10:12], "little")
        start = 24 + (16 if data[3] & 0x80 else 0)
        payload = data[start + 8 : length]
        version = int.from_bytes(payload[2:4], "little")
        if version == 4:
            opened = OpenedRequest(read_body(payload[:_REQUEST_BODY]), b"", b"")
            stub = ndr_answer(self.grant(opened), 0, False)
        elif version in (5, 6):
            stub = ndr_answer(self.grant(self._decrypted(version, payload)), 0, False)
        else:
            stub = ndr_answer(b"", PRODUCT_REFUSED, False)
        body = struct.pack("<IHH", len(stub), int.from_bytes(data[20:22], "little"), 0) + stub
        return self._whole(data, 2, 0x03, bytes(2), body)

    def _decrypted(self, version: int, payload: bytes) -> OpenedRequest:
        """
        Decrypt all that came; of the padding only a last byte over 16 is found odd.

        What stands behind the message comes out as noise, whose last byte is over 16 but once in fifteen times; here
        it always is, so that a host does the same each time it is asked the same.

        @raise ValueError: If that is so, or these are no whole blocks.
        """
        message = CIPHERS[version].decrypt_cbc(payload[4:])
        if len(payload) > _ENCRYPTED or message[-1] > 16:
            raise ValueError
        body = read_body(message[16 : 16 + _REQUEST_BODY])
        return OpenedRequest(body, message[:16], payload[4:20])

    def _whole(
        self,
        data: bytes,
        kind: int,
        flags: int,
        auth_length: bytes,
        body: bytes,
        uncounted: int = 0,
    ) -> bytes:
        """
        Make a PDU with the version, data representation and call id of the peer's.

        @param uncounted: Bytes that its length leaves out.
        """
        length = struct.pack("<H", 16 + len(body) - uncounted)
        return (
            data[:2] + bytes((kind, flags)) + data[4:8] + length + auth_length + data[12:16] + body
        )


@contextlib.contextmanager
def running(
    kind: type[ForeignHost],
    family: socket.AddressFamily = socket.AF_INET,
    **options: float | bool,
) -> Iterator[int]:
    """
    Run such a host on the loopback address.

    @param family: C{AF_INET} or C{AF_INET6}.
    @param options: Arguments of the host.
    @return: A context manager that gives its port.
    """
    host = kind(**options)  # type: ignore[arg-type]
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.create_server((address, 0), family=family, backlog=64) as listener:
        port = int(listener.getsockname()[1])
        thread = threading.Thread(target=host.run, args=(listener,), daemon=True)
        thread.start()
        try:
            yield port
        finally:
            host.stop()
            thread.join(_JOINING)
