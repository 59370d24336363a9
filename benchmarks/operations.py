"""
Single operations: what a host does for one answer, in parts and as a whole, without any socket.

Each operation is a function without arguments, made with all that it needs, and a check of its result, because a fast
operation that does the wrong thing would be easy.  The material is the recorded exchanges.  What depends on the cipher
is there once for each implementation that works on this machine.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch
from uuid import UUID

from twisted.internet.task import Clock

from benchmarks.exchanges import VERSIONS, Exchange, load_exchange
from kmsproto.kms import envelopes, rijndael
from kmsproto.kms.catalog import Catalog, load_catalog
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import Host, HostIdentity, pooled
from kmsproto.kms.messages import ResponseBody, decode_request_body, encode_request_body
from kmsproto.kms.policy import Peer, charged
from kmsproto.kms.verification import open_response
from kmsproto.net.activation import HostConnection, make_rpc_server
from kmsproto.net.server import HostFactory
from kmsproto.rpc import ndr, pdu
from kmsproto.rpc.numbers import PacketType

#: Who asks.
PEER = Peer("127.0.0.1", 50123)
#: When, in POSIX seconds.
NOW = 1_794_700_000.0
#: Bytes of a message whose length is that of an encrypted request.
CIPHERTEXT_LENGTH = 256
#: The fragment size that the recorded client and host agree upon.
MAX_FRAGMENT = 5840


class Operation(NamedTuple):
    """
    Something to be measured.

    @ivar name: What it is.
    @ivar run: Does it once, and again as often as wanted.
    @ivar check: Tells whether a result of it is right.
    """

    name: str
    run: Callable[[], object]
    check: Callable[[object], bool]


def _payload(exchange: Exchange) -> bytes:
    """
    Get the KMS request of an exchange.
    """
    call = exchange.call
    stub = pdu.decode_request(pdu.decode_header(call), call).stub
    return ndr.decode_activation_request(stub, pdu.NDR64, "<")


def _answered(exchange: Exchange, answer: bytes) -> bool:
    """
    Tell whether a response PDU grants what an exchange asks for, so that its client would be content.
    """
    stub = pdu.decode_response(pdu.decode_header(answer), answer).stub
    payload, hresult = ndr.decode_activation_response(stub, pdu.NDR64, "<")
    request = envelopes.open_request(_payload(exchange))
    return hresult == 0 and open_response(payload, request).body.client_count > 0


def _equals(expected: object) -> Callable[[object], bool]:
    return lambda result: result == expected


# The cipher, and what is made of it


def _envelopes_with(cipher: type[rijndael.Cipher]) -> ModuleType:
    """
    Load the module C{envelopes} once more, beside itself, with another implementation of the cipher.
    """
    spec = importlib.util.find_spec(envelopes.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(rijndael, "Rijndael", cipher):
        spec.loader.exec_module(module)
    return module


def _cipher_operations(name: str, cipher: type[rijndael.Cipher]) -> Iterator[Operation]:
    data = bytes(range(256))[:CIPHERTEXT_LENGTH]
    reference = rijndael.implementations()["Python"]
    for bits in (128, 160):
        key = bytes(range(bits // 8))
        fast, sure = cipher(key), reference(key)
        sealed = sure.encrypt_cbc(data)
        where = f"{len(data)} bytes, {bits}-bit key [{name}]"
        yield Operation(f"encrypt {where}", partial(fast.encrypt_cbc, data), _equals(sealed))
        yield Operation(f"decrypt {where}", partial(fast.decrypt_cbc, sealed), _equals(data))
        yield Operation(f"MAC of {where}", partial(fast.mac, data), _equals(sealed[-16:]))


def _envelope_operations(name: str, module: ModuleType, version: int) -> Iterator[Operation]:
    payload = _payload(load_exchange(version))
    opened = envelopes.open_request(payload)
    request = opened.body
    epid = "03612-04919-003-594185-03-1035-14393.0000-2542026"
    machine, when = request.client_machine_id, request.client_time
    body = ResponseBody(0, version, epid, machine, when, 50, 1440, 20160)
    random = {"salt": bytes(range(16)), "random": bytes(range(16, 32)), "hardware_id": b"hardware"}
    sealed = envelopes.seal_response(opened, body, **random)
    where = f"v{version} [{name}]"
    yield Operation(
        f"open a request, {where}", lambda: module.open_request(payload)[0], _equals(request)
    )
    yield Operation(
        f"seal a response, {where}",
        lambda: module.seal_response(opened, body, **random),
        _equals(sealed),
    )
    yield Operation(
        f"seal a request, {where}",
        lambda: module.seal_request(request, opened.salt)[0],
        _equals(payload),
    )


def _message_operations() -> Iterator[Operation]:
    body = envelopes.open_request(_payload(load_exchange(6))).body
    data = encode_request_body(body)
    yield Operation("parse a request body", lambda: decode_request_body(data), _equals(body))
    yield Operation("build a request body", lambda: encode_request_body(body), _equals(data))


# PDUs and stubs


def _is_ack(ack: pdu.BindAck, data: object) -> bool:
    """
    Tell whether a PDU says what an acknowledgement does.  A recorded one would differ, for its gaps hold remains of
    the memory of the host that sent it.
    """
    return isinstance(data, bytes) and pdu.decode_bind_ack(pdu.decode_header(data), data) == ack


def _pdu_operations() -> Iterator[Operation]:
    exchange = load_exchange(6)
    bind, alter_context, call = exchange.questions
    bind_ack, alter_context_resp, answer = exchange.answers
    yield Operation(
        "parse a header",
        lambda: pdu.decode_header(call),
        lambda result: isinstance(result, pdu.Header) and result.frag_length == len(call),
    )
    for name, kind, data in (
        ("bind", PacketType.BIND, bind),
        ("alter_context", PacketType.ALTER_CONTEXT, alter_context),
    ):
        header = pdu.decode_header(data)
        offer = pdu.decode_bind(header, data)
        build = partial(pdu.encode_bind, kind, header.flags, header.call_id, offer)
        yield Operation(f"parse {name}", partial(pdu.decode_bind, header, data), _equals(offer))
        yield Operation(f"build {name}", build, _equals(data))
    for name, kind, data in (
        ("bind_ack", PacketType.BIND_ACK, bind_ack),
        ("alter_context_resp", PacketType.ALTER_CONTEXT_RESP, alter_context_resp),
    ):
        header = pdu.decode_header(data)
        ack = pdu.decode_bind_ack(header, data)
        yield Operation(f"parse {name}", partial(pdu.decode_bind_ack, header, data), _equals(ack))
        yield Operation(
            f"build {name}",
            partial(pdu.encode_bind_ack, kind, header.flags, header.call_id, ack),
            partial(_is_ack, ack),
        )
    yield from _call_pdu_operations(call, answer)


def _call_pdu_operations(call: bytes, answer: bytes) -> Iterator[Operation]:
    header, answer_header = pdu.decode_header(call), pdu.decode_header(answer)
    request = pdu.decode_request(header, call)
    response = pdu.decode_response(answer_header, answer)
    call_id, context_id = header.call_id, request.context_id
    payload = ndr.decode_activation_request(request.stub, pdu.NDR64, "<")
    sealed, _ = ndr.decode_activation_response(response.stub, pdu.NDR64, "<")
    yield Operation("parse request", lambda: pdu.decode_request(header, call), _equals(request))
    yield Operation(
        "build request",
        lambda: pdu.encode_request(call_id, context_id, 0, request.stub, MAX_FRAGMENT),
        _equals([call]),
    )
    yield Operation(
        "parse response", lambda: pdu.decode_response(answer_header, answer), _equals(response)
    )
    yield Operation(
        "build response",
        lambda: pdu.encode_response(call_id, context_id, response.stub, MAX_FRAGMENT),
        _equals([answer]),
    )
    fault = pdu.encode_fault(call_id, context_id, 0x6F7, did_not_execute=False)
    fault_header = pdu.decode_header(fault)
    yield Operation(
        "parse fault",
        lambda: pdu.decode_fault(fault_header, fault),
        _equals(pdu.Fault(context_id, 0x6F7)),
    )
    yield Operation(
        "build fault",
        lambda: pdu.encode_fault(call_id, context_id, 0x6F7, did_not_execute=False),
        _equals(fault),
    )
    nak = pdu.encode_bind_nak(call_id, 4)
    nak_header = pdu.decode_header(nak)
    yield Operation("parse bind_nak", lambda: pdu.decode_bind_nak(nak_header, nak), _equals(4))
    yield Operation("build bind_nak", lambda: pdu.encode_bind_nak(call_id, 4), _equals(nak))
    yield Operation(
        "parse the stub of a request",
        lambda: ndr.decode_activation_request(request.stub, pdu.NDR64, "<"),
        _equals(payload),
    )
    yield Operation(
        "build the stub of a response",
        lambda: ndr.encode_activation_response(sealed, pdu.NDR64),
        _equals(response.stub),
    )


# Calls and exchanges


def _host(catalog: Catalog) -> Host:
    identity = HostIdentity(catalog, Installation(bytes(range(16)), date(2026, 1, 1)))
    return Host(catalog, identity, charged(catalog), pooled(os.urandom))


def _receive(connection: HostConnection, data: bytes) -> None:
    """
    Take a segment as the protocol on Twisted does.
    """
    if connection.receive_short(data, NOW) is None:
        connection.receive_data(data, NOW)


def _host_operations() -> Iterator[Operation]:
    catalog = load_catalog()
    host = _host(catalog)
    rpc_server = make_rpc_server(ndr64=True, bind_time_features=True, group_seed=0)
    for version in VERSIONS:
        exchange = load_exchange(version)
        kept = HostConnection(host, rpc_server, PEER, "1688")
        *beginning, call = exchange.questions
        for question in beginning:
            _receive(kept, question)
        kept.data_to_send()

        def answer(kept: HostConnection = kept, call: bytes = call) -> bytes:
            _receive(kept, call)
            return kept.data_to_send()

        def activate(exchange: Exchange = exchange) -> bytes:
            connection = HostConnection(host, rpc_server, PEER, "1688")
            output = b""
            for question in exchange.questions:
                _receive(connection, question)
                output = connection.data_to_send()
            connection.close()
            return output

        def is_answered(result: object, exchange: Exchange = exchange) -> bool:
            return isinstance(result, bytes) and _answered(exchange, result)

        yield Operation(f"a call, v{version} [{rijndael.IMPLEMENTATION}]", answer, is_answered)
        yield Operation(
            f"a fresh exchange, v{version} [{rijndael.IMPLEMENTATION}]", activate, is_answered
        )
    yield _log_operation(host)


def _log_operation(host: Host) -> Operation:
    """
    Write the line about a grant, as far as the log file that it goes to.
    """
    lines = [""]

    def keep(line: str) -> None:
        lines[0] = line

    factory = HostFactory(host, Clock(), journal=keep)
    event = host.answer(_payload(load_exchange(6)), PEER, NOW)

    def compose() -> str:
        factory.reporter.report(PEER, event)
        return lines[0]

    return Operation(
        "compose a log line",
        compose,
        lambda line: (
            isinstance(line, str)
            and line.startswith(f"granted peer={PEER.address} port={PEER.port} version=6 ")
            and f"cmid={UUID('11111111-2222-4333-8444-555555555555')}" in line
        ),
    )


def operations() -> Iterator[Operation]:
    """
    Make all operations.
    """
    for name, cipher in rijndael.implementations().items():
        yield from _cipher_operations(name, cipher)
        module = _envelopes_with(cipher)
        for version in VERSIONS:
            yield from _envelope_operations(name, module, version)
    yield from _message_operations()
    yield from _pdu_operations()
    yield from _host_operations()
