"""
What a server sends, looked at more closely than a client has to.

A client refuses what it cannot use (L{kmsproto.rpc.client}); all else that breaks a rule it passes over.  L{Scrutiny}
stands beside a client's connection, is shown what the client sent and every PDU that came, and writes down which rules
the server broke, each once.  It changes nothing and decides nothing.

The rules are those that show in ordinary traffic: headers, the layout of answers, the negotiated numbers.  What a
server does when it is provoked is tried by L{kmsproto.audit}.

Sources: C706 chapter 12, MS-RPCE 2.2.2 and 3.3.1.5; "How a correct connection-oriented DCE/RPC server behaves",
sections 2 to 5 and 10; "Stub layout of RequestActivation in NDR 2.0 and NDR64 1.0".
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator

from kmsproto.errors import RemoteProtocolError
from kmsproto.findings import Finding, Severity
from kmsproto.rpc import pdu
from kmsproto.rpc.ndr import FIRST_REFERENT, decode_activation_response
from kmsproto.rpc.numbers import (
    MAX_FRAGMENT,
    MUST_RECEIVE_FRAGMENT,
    WHOLE,
    BindNakReason,
    ContextResult,
    FaultStatus,
    PacketFlag,
    PacketType,
    ProviderReason,
)
from kmsproto.rpc.pdu import NDR64, NO_SYNTAX, Bind, BindAck, Header, Negotiated, SyntaxId

#: Findings that are kept at most; a server that breaks more rules than that is known well enough.
MAX_FINDINGS = 64
#: The fragment sizes that Windows negotiates.
WINDOWS_SIZES = range(2048, 5840 + 1, 8)
#: Negotiations and calls that wait for an answer at most, each; of more the oldest are forgotten.
_MAX_WAITING = 256
#: Fault statuses that no server may send (MS-RPCE 3.3.3.5.1).
_FORBIDDEN_STATUSES = frozenset(
    {
        *(0, 0x80000001, 0x80000002, 0x80000003, 0xC0000005, 0xC0000006, 0xC000001D, 0xC0000096),
        *(0xC00000AA, 0xC00000FD, 0xC0000194, 0xC0000235, 0xC0000409, 0xC0000420),
    }
)
#: Faults that come before the call reaches its operation.
_NEVER_EXECUTED = (FaultStatus.UNK_IF, FaultStatus.OP_RNG_ERROR)
#: The flags that may stand in a fault beside first and last fragment.
_FAULT_FLAGS = int(PacketFlag.DID_NOT_EXECUTE | PacketFlag.PENDING_CANCEL)
_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


class Scrutiny:
    """
    Looks at the traffic of one connection, from the client's side.

    @ivar port: The port that the client connected to, which the server tells in its bind_ack; L{None} if the two need
        not agree.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port
        self._found: dict[object, Finding] = {}
        self._offers: OrderedDict[int, tuple[int, Bind]] = OrderedDict()
        self._contexts: OrderedDict[int, int] = OrderedDict()
        self._max_frag = MAX_FRAGMENT

    @property
    def findings(self) -> tuple[Finding, ...]:
        """
        What was found so far, in the order in which it was seen.
        """
        return tuple(self._found.values())

    def sent(self, data: bytes) -> None:
        """
        Take note of what the client sends: whole PDUs, one after the other.
        """
        while len(data) >= pdu.HEADER_LENGTH:
            header = pdu.decode_header(data)
            one, data = data[: header.frag_length], data[max(header.frag_length, 1) :]
            if header.packet_type in (PacketType.BIND, PacketType.ALTER_CONTEXT):
                self._offers[header.call_id] = (header.flags, pdu.decode_bind(header, one))
            elif header.packet_type == PacketType.REQUEST and header.flags & PacketFlag.FIRST:
                self._contexts[header.call_id] = pdu.decode_request(header, one).context_id
            for waiting in (self._offers, self._contexts):
                if len(waiting) > _MAX_WAITING:
                    waiting.popitem(last=False)

    def received(self, header: Header, data: bytes) -> None:
        """
        Look at a PDU of the server's.

        @param header: Its header; the byte order is one that exists.
        @param data: All of it.
        """
        try:
            self._add(self._examine(header, data))
        except (RemoteProtocolError, struct.error):
            # The client has more to say about a PDU that cannot be read.
            return

    def answered(self, stub: bytes, syntax: SyntaxId, byte_order: str) -> None:
        """
        Look at the stub of an answer to an activation, which can be read.
        """
        self._add(examine_activation_response(stub, syntax, byte_order))

    def _add(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            if len(self._found) < MAX_FINDINGS:
                # Of those that differ in a number the first is enough.
                self._found.setdefault(finding.kind, finding)

    def _examine(self, header: Header, data: bytes) -> Iterator[Finding]:
        yield from examine_header(header, data)
        if header.frag_length > self._max_frag:
            yield Finding(
                "3.1",
                _ERROR,
                f"a fragment has {header.frag_length} bytes, where the client receives {self._max_frag}",
                "C706 12.6.4.4",
            )
        kind = header.packet_type
        if kind in (PacketType.BIND_ACK, PacketType.ALTER_CONTEXT_RESP):
            offered = self._offers.pop(header.call_id, None)
            if offered is not None:
                yield from self._examine_ack(header, data, *offered)
        elif kind == PacketType.BIND_NAK:
            if self._offers and header.call_id not in self._offers:
                yield Finding(
                    "2.13",
                    _ERROR,
                    f"a bind_nak has the call id {header.call_id}, which is not that of the bind",
                    "C706 12.6.3.5",
                )
            yield from _examine_bind_nak(header, data)
        elif kind == PacketType.RESPONSE:
            yield from self._examine_response(header, data)
        elif kind == PacketType.FAULT:
            yield from examine_fault(header, data)
            asked = self._contexts.pop(header.call_id, None)
            named = pdu.decode_fault(header, data).context_id
            if asked is not None and named not in (0, asked, asked & 0xFF):
                yield Finding(
                    "10",
                    _NOTE,
                    f"the fault for a call on context {asked} names context {named}",
                    "C706 12.6.4.7",
                )

    def _examine_ack(
        self, header: Header, data: bytes, flags: int, bind: Bind
    ) -> Iterator[Finding]:
        ack = pdu.decode_bind_ack(header, data)
        yield from _examine_ack_flags(header, flags)
        yield from _examine_sizes(bind, ack)
        if not ack.association_group:
            yield Finding("3.3", _ERROR, "the association group id is 0", "C706 12.6.4.4")
        yield from self._examine_address(header, data)
        for element, result in zip(bind.elements, ack.results, strict=False):
            yield from _examine_result(element.context_id, element.transfer_syntaxes, result)
        accepted = {
            result.transfer_syntax
            for result in ack.results
            if result.result == ContextResult.ACCEPTANCE
            and pdu.requested_features(result.transfer_syntax) is None
        }
        if len(accepted) > 1:
            yield Finding(
                "3.13",
                _WARNING,
                "more than one transfer syntax of the interface was accepted in one PDU",
                "MS-RPCE 3.3.1.5.6",
            )

    def _examine_address(self, header: Header, data: bytes) -> Iterator[Finding]:
        """
        Look at the secondary address, and at the bytes that align what follows.
        """
        is_bind_ack = header.packet_type == PacketType.BIND_ACK
        length = int.from_bytes(data[24:26], "little" if header.byte_order == "<" else "big")
        address = data[26 : 26 + length]
        end = 26 + length
        if any(data[end : end + -end % 4]):
            yield Finding(
                "3 bind_ack layout",
                _NOTE,
                "the bytes behind the secondary address are not zero, so they may be remains of other memory",
                "C706 12.6.3.1",
            )
        start = end + -end % 4
        if any(data[start + 1 : start + 4]):
            yield Finding(
                "3 bind_ack layout",
                _NOTE,
                "the reserved bytes behind the number of results are not zero",
                "C706 12.6.3.1",
            )
        excess = len(data) - (start + 4 + 24 * data[start])
        if excess:
            yield Finding(
                "3 bind_ack layout", _NOTE, f"{excess} bytes follow the results", "C706 12.6.4.4"
            )
        if not is_bind_ack:
            if length:
                yield Finding(
                    "3 bind_ack layout",
                    _NOTE,
                    "an alter_context_resp has a secondary address",
                    "C706 12.6.4.2",
                )
            return
        if address and not address.endswith(b"\0"):
            yield Finding(
                "3 bind_ack layout",
                _WARNING,
                "the secondary address does not end with a zero",
                "C706 12.6.3.1",
            )
        if self.port is not None and address.rstrip(b"\0") != b"%d" % self.port:
            yield Finding(
                "3 bind_ack layout",
                _NOTE,
                f"the secondary address {_shown(address)} is not the port {self.port} that was connected to",
                "MS-RPCE 3.3.1.5.5",
            )

    def _examine_response(self, header: Header, data: bytes) -> Iterator[Finding]:
        response = pdu.decode_response(header, data)
        if header.flags & ~WHOLE:
            yield Finding(
                "5.2",
                _WARNING,
                f"a response has the flags 0x{header.flags:02X}, where only first and last fragment belong",
                "C706 12.6.4.10",
            )
        if response.cancel_count or data[23]:
            yield Finding(
                "5.2",
                _WARNING,
                "the cancel count and the reserved byte of a response are not both zero",
                "C706 12.6.4.10",
            )
        if header.flags & PacketFlag.FIRST:
            wrong = (
                response.alloc_hint != len(response.stub)
                if header.flags & PacketFlag.LAST
                else response.alloc_hint < len(response.stub)
            )
            if wrong:
                yield Finding(
                    "5.2",
                    _NOTE,
                    f"the alloc_hint is {response.alloc_hint} for a stub of {len(response.stub)} bytes",
                    "C706 12.6.4.10",
                )
        asked = self._contexts.get(header.call_id)
        if header.flags & PacketFlag.LAST:
            self._contexts.pop(header.call_id, None)
        if asked is not None and response.context_id != asked:
            yield Finding(
                "5.1",
                _NOTE,
                f"the answer to a call on context {asked} names context {response.context_id}",
                "C706 12.6.4.10",
            )


def examine_header(header: Header, data: bytes) -> Iterator[Finding]:
    """
    Look at the common header of a PDU of a server's.
    """
    if data[4] >> 4 == 0:
        yield Finding("2.15", _NOTE, "the server answers in big-endian byte order", "C706 14.1")
    if data[4] & 0x0F or any(data[5:8]):
        yield Finding(
            "2.15",
            _WARNING,
            f"the data representation is {data[4:8].hex()}, not 10000000",
            "C706 14.1",
        )
    if header.flags & PacketFlag.RESERVED:
        yield Finding("2.14", _WARNING, "a reserved flag is set", "C706 12.6.3.1")


def examine_fault(header: Header, data: bytes) -> Iterator[Finding]:
    """
    Look at a fault PDU.
    """
    status = pdu.decode_fault(header, data).status
    rule, source = "10", "C706 12.6.4.7, MS-RPCE 2.2.2.8"
    if status in _FORBIDDEN_STATUSES:
        yield Finding(
            rule,
            _ERROR,
            f"a fault has the status 0x{status:08X}, which must not be sent",
            "MS-RPCE 3.3.3.5.1",
        )
    if header.flags & WHOLE != WHOLE or header.flags & ~(WHOLE | _FAULT_FLAGS):
        yield Finding(rule, _WARNING, f"a fault has the flags 0x{header.flags:02X}", source)
    executed = not header.flags & PacketFlag.DID_NOT_EXECUTE
    if status in _NEVER_EXECUTED and executed:
        yield Finding(
            rule,
            _WARNING,
            f"the fault 0x{status:08X} does not say that the call was not executed",
            source,
        )
    if status == FaultStatus.BAD_STUB_DATA and not executed:
        yield Finding(
            rule, _NOTE, f"the fault 0x{status:08X} says that the call was not executed", source
        )
    if not any(data[16:20]):
        yield Finding(rule, _NOTE, "the alloc_hint of a fault is 0", source)
    if header.frag_length > pdu.FAULT_LENGTH and not data[23] & 1:
        yield Finding(
            rule, _WARNING, f"{header.frag_length - pdu.FAULT_LENGTH} bytes follow a fault", source
        )
    if data[22]:
        yield Finding(rule, _NOTE, f"a fault has the cancel count {data[22]}", source)
    if data[23] & 0xFE or (data[23] and header.frag_length == pdu.FAULT_LENGTH):
        yield Finding(
            rule, _WARNING, f"a fault has 0x{data[23]:02X} where its own flags stand", source
        )
    if any(data[28:32]):
        yield Finding(rule, _NOTE, "the reserved field of a fault is not zero", source)


def examine_activation_response(
    stub: bytes, syntax: SyntaxId, byte_order: str
) -> Iterator[Finding]:
    """
    Look at the stub of an answer to an activation: what a client that finds everything it needs does not look at.

    @raise kmsproto.rpc.ndr.BadStubError: If it cannot be read.
    """
    payload, hresult = decode_activation_response(stub, syntax, byte_order)
    word = 8 if syntax == NDR64 else 4
    if any(stub[4:word]):
        yield Finding(
            "response stub", _NOTE, "the bytes that align the pointer are not zero", "C706 14.2.2"
        )
    referent = int.from_bytes(stub[word : 2 * word], "little" if byte_order == "<" else "big")
    if referent and hresult:
        yield Finding(
            "response stub",
            _WARNING,
            f"a response came together with the HRESULT 0x{hresult:08X}",
            'KMS messages: "What a host answers"',
        )
    if referent not in (0, FIRST_REFERENT):
        yield Finding(
            "response stub",
            _NOTE,
            f"the referent id of the response is 0x{referent:08X}, where Windows has 0x{FIRST_REFERENT:08X}",
            "C706 14.3.12",
        )
    if referent:
        end = 3 * word + len(payload)
        gap = stub[end : end + -end % 4]
        needed = end + len(gap) + 4
    else:
        gap, needed = b"", 2 * word + 4
    if any(gap):
        yield Finding(
            "response stub",
            _NOTE,
            "the bytes that align the HRESULT are not zero",
            "C706 14.2.2",
        )
    if len(stub) != needed:
        yield Finding(
            "response stub",
            _NOTE,
            f"{len(stub) - needed} bytes follow the HRESULT, where Windows has none",
            "C706 14.3.12",
        )


def _examine_ack_flags(header: Header, asked: int) -> Iterator[Finding]:
    flags = header.flags
    rule, source = "2.14", "C706 12.6.3.1"
    if flags & WHOLE != WHOLE:
        yield Finding(rule, _WARNING, "an ack is not marked as first and last fragment", source)
    if header.packet_type == PacketType.ALTER_CONTEXT_RESP:
        if flags & ~WHOLE:
            yield Finding(
                rule,
                _NOTE,
                f"an alter_context_resp has the flags 0x{flags:02X}, where Windows has 0x03",
                source,
            )
        return
    allowed = WHOLE | PacketFlag.PENDING_CANCEL | PacketFlag.CONC_MPX | PacketFlag.RESERVED
    if flags & ~allowed:
        yield Finding(rule, _WARNING, f"a bind_ack has the flags 0x{flags:02X}", source)
    granted, wanted = (each & PacketFlag.CONC_MPX for each in (flags, asked))
    if granted and not wanted:
        yield Finding(
            rule, _WARNING, "concurrent multiplexing is granted, but was not asked for", source
        )
    if wanted and not granted:
        yield Finding(rule, _NOTE, "concurrent multiplexing is not granted", source)


def _examine_sizes(bind: Bind, ack: BindAck) -> Iterator[Finding]:
    rule, source = "3.1", "C706 12.6.4.4"
    is_lawful = True
    for name, size, offered in (
        ("transmit", ack.max_xmit_frag, bind.max_recv_frag),
        ("receive", ack.max_recv_frag, bind.max_xmit_frag),
    ):
        if size < MUST_RECEIVE_FRAGMENT:
            is_lawful = False
            yield Finding(
                rule,
                _ERROR,
                f"the server would {name} fragments of at most {size} bytes;"
                f" {MUST_RECEIVE_FRAGMENT} is the least",
                f"{source}, appendix K",
            )
        elif size > max(offered, MUST_RECEIVE_FRAGMENT):
            is_lawful = False
            yield Finding(
                rule,
                _ERROR if name == "transmit" else _WARNING,
                f"the server would {name} fragments of {size} bytes, where the client offered {offered}",
                source,
            )
    sizes = {ack.max_xmit_frag, ack.max_recv_frag}
    if is_lawful and (len(sizes) > 1 or any(size not in WINDOWS_SIZES for size in sizes)):
        yield Finding(
            rule,
            _NOTE,
            f"the fragment sizes are {ack.max_xmit_frag} and {ack.max_recv_frag}; Windows has two equal ones from"
            f" {WINDOWS_SIZES.start} to {WINDOWS_SIZES[-1]}, a multiple of {WINDOWS_SIZES.step}",
            "MS-RPCE 3.3.1.5",
        )


def _examine_result(
    context_id: int, offered: tuple[SyntaxId, ...], result: Negotiated
) -> Iterator[Finding]:
    """
    Look at the verdict on one element.
    """
    asked = pdu.requested_features(offered[0]) if offered else None
    if result.result == ContextResult.NEGOTIATE_ACK:
        if asked is None:
            yield Finding(
                "4.3",
                _ERROR,
                f"context {context_id} is answered as a negotiation of features, which it is not",
                "MS-RPCE 3.3.1.5.3",
            )
        elif result.reason & ~asked:
            yield Finding(
                "4.2",
                _ERROR,
                f"features 0x{result.reason:X} are granted, but 0x{asked:X} were asked for",
                "MS-RPCE 2.2.2.15",
            )
        elif result.reason != asked & pdu.KNOWN_FEATURES:
            yield Finding(
                "4.1",
                _NOTE,
                f"features 0x{result.reason:X} are granted of 0x{asked:X}, where Windows grants all",
                "MS-RPCE 3.3.1.5.3",
            )
    elif result.result == ContextResult.ACCEPTANCE:
        if asked is not None:
            yield Finding(
                "4.1",
                _ERROR,
                "the negotiation of features is accepted as if it were a transfer syntax",
                "MS-RPCE 3.3.1.5.3",
            )
        if result.reason:
            yield Finding(
                "3 bind_ack layout",
                _WARNING,
                f"context {context_id} is accepted with the reason {result.reason}",
                "C706 12.6.3.1",
            )
        return
    elif result.result <= ContextResult.PROVIDER_REJECTION and result.reason > max(ProviderReason):
        yield Finding(
            "3 bind_ack layout",
            _WARNING,
            f"context {context_id} is refused with the reason {result.reason}, which does not exist",
            "C706 12.6.3.1",
        )
    elif result.result > ContextResult.NEGOTIATE_ACK:
        yield Finding(
            "3 bind_ack layout",
            _ERROR,
            f"context {context_id} is answered with {result.result}, which is no verdict",
            "C706 12.6.3.1",
        )
    if result.transfer_syntax != NO_SYNTAX:
        yield Finding(
            "3 bind_ack layout",
            _WARNING,
            f"context {context_id} is not accepted, but its transfer syntax is not zero",
            "C706 12.6.3.1",
        )


def _examine_bind_nak(header: Header, data: bytes) -> Iterator[Finding]:
    rule, source = "3 bind_nak layout", "C706 12.6.4.5"
    count = data[18] if len(data) > 18 else 0
    protocols = [data[19 + 2 * index : 21 + 2 * index] for index in range(count)]
    if not any(each == bytes(pdu.RPC_VERSION) for each in protocols):
        yield Finding(rule, _WARNING, "a bind_nak does not name protocol version 5.0", source)
    reason = pdu.decode_bind_nak(header, data)
    if reason not in set(BindNakReason):
        yield Finding(
            rule, _WARNING, f"a bind_nak has the reason {reason}, which does not exist", source
        )
    if header.flags & WHOLE != WHOLE:
        yield Finding(rule, _WARNING, "a bind_nak is not marked as first and last fragment", source)


def _shown(address: bytes) -> str:
    text = address[:32].rstrip(b"\0").decode("ascii", "backslashreplace")
    return repr(text)
