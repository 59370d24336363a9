"""
The request and response bodies of KMS, the same in every protocol version.

Both are read strictly: exact sizes, a version that exists, values within their ranges, text that is text.  Whatever
is wrong is one error, L{MalformedMessageError}, which carries the HRESULT that such a message earns.  Ranges are
checked on what comes in only; a tool may write whatever fits the layout, to see what a host makes of it.

The GUIDs that say what is asked for are few, so those that were met are remembered; so is the wire form of an ePID.

One leniency is due to real clients: what stands behind the zero that ends a workstation name is kept but not judged,
for widely used clients leave remains of other memory there.

Source: "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

import codecs
import struct
from functools import lru_cache
from struct import Struct
from typing import NamedTuple
from uuid import UUID, SafeUUID

from kmsproto.errors import LocalProtocolError, RemoteProtocolError
from kmsproto.kms.hresults import HResult

#: Bytes of a request body.
REQUEST_BODY_LENGTH = 236
#: Bytes of the workstation name in it.
NAME_LENGTH = 128
#: The largest N policy that a host answers.
MAX_N_POLICY = 1000
#: The largest ePID size, in bytes, terminating zero included.
MAX_EPID_SIZE = 128
#: Bytes of a hardware id, which only the envelope of version 6 has.
HARDWARE_ID_LENGTH = 8
#: The protocol versions, all with minor version 0.
PROTOCOL_VERSIONS = (4, 5, 6)
#: The names of the licence statuses, by number.
LICENCE_STATUSES = (
    "unlicensed",
    "licensed",
    "OOB grace",
    "OOT grace",
    "non-genuine grace",
    "notification",
    "extended grace",
)

_VERSION = Struct("<HH")
_REQUEST = Struct(f"<HHIII16s16s16s16sIQ16s{NAME_LENGTH}s")
_RESPONSE_HEAD = Struct("<HHI")
_RESPONSE_TAIL = Struct("<16sQIII")
#: A GUID in the byte order of a number, and on the wire.
_GUID_NUMBER = Struct(">IHH8s")
_GUID_WIRE = Struct("<IHH8s")

#: Looked up now: a host that has given up its privileges may be unable to load a codec later.
_UTF16 = codecs.lookup("utf-16-le")
#: FILETIME of 1970-01-01: 100 ns steps since 1601-01-01.
_POSIX_EPOCH = 116444736000000000
_STEPS_PER_SECOND = 10_000_000


class MalformedMessageError(RemoteProtocolError):
    """
    A message is not what the protocol says.

    @ivar hresult: What a host answers to such a request.
    """

    hresult = HResult.INVALID_DATA


class RequestBody(NamedTuple):
    """
    What a client asks for; 236 bytes on the wire.

    @ivar minor_version: 0.
    @ivar major_version: The protocol version.
    @ivar is_virtual_machine: 0 or 1.
    @ivar licence_status: One of L{LICENCE_STATUSES}, by number.
    @ivar binding_expiration: Minutes left in that status.
    @ivar application_id: What a host counts for: Windows or a generation of Office.
    @ivar sku_id: The product, which a host only logs.
    @ivar kms_id: The KMS counted id, by which a host grants or refuses.
    @ivar client_machine_id: The CMID, by which a host counts.
    @ivar n_policy: Clients that the product wants to see before it considers itself activated.
    @ivar client_time: FILETIME: 100 ns steps since 1601-01-01 UTC.
    @ivar previous_client_machine_id: The CMID before this one; zero if it never changed.
    @ivar workstation: The name of the machine, at most 63 UTF-16 code units.
    @ivar remains: What stands behind the zero that ends the name, up to the last byte that is not zero; it ought to
        be empty.
    """

    minor_version: int
    major_version: int
    is_virtual_machine: int
    licence_status: int
    binding_expiration: int
    application_id: UUID
    sku_id: UUID
    kms_id: UUID
    client_machine_id: UUID
    n_policy: int
    client_time: int
    previous_client_machine_id: UUID
    workstation: str
    remains: bytes = b""


class ResponseBody(NamedTuple):
    """
    What a host answers.

    @ivar minor_version: As in the request.
    @ivar major_version: As in the request.
    @ivar epid: The extended PID of the host, at most 63 UTF-16 code units.
    @ivar client_machine_id: As in the request.
    @ivar client_time: As in the request.
    @ivar client_count: The host's current number of clients.
    @ivar activation_interval: Minutes after which a client that failed should try again.
    @ivar renewal_interval: Minutes after which an activated client should renew.
    """

    minor_version: int
    major_version: int
    epid: str
    client_machine_id: UUID
    client_time: int
    client_count: int
    activation_interval: int
    renewal_interval: int


def filetime(seconds: float) -> int:
    """
    Convert POSIX seconds to a FILETIME.
    """
    return _POSIX_EPOCH + round(seconds * _STEPS_PER_SECOND)


def posix_seconds(value: int) -> float:
    """
    Convert a FILETIME to POSIX seconds; any 64-bit value has one, though perhaps no date.
    """
    return (value - _POSIX_EPOCH) / _STEPS_PER_SECOND


def decode_version(payload: bytes) -> int:
    """
    Read the version at the beginning of a message or body.

    @return: The major version.
    @raise MalformedMessageError: If there is none, or none that is spoken here.
    """
    if len(payload) < _VERSION.size:
        raise MalformedMessageError(f"a message of {len(payload)} bytes has no version")
    minor, major = _VERSION.unpack_from(payload)
    _check_version(minor, major)
    return int(major)


def _check_version(minor: int, major: int) -> None:
    """
    @raise MalformedMessageError: If it is no version that is spoken here.
    """
    if minor or major not in PROTOCOL_VERSIONS:
        raise MalformedMessageError(f"protocol version {major}.{minor} is not supported")


def encode_version(body: RequestBody | ResponseBody) -> bytes:
    """
    Write the version of a body once more, as it stands in clear before an encrypted one.
    """
    return _VERSION.pack(body.minor_version, body.major_version)


def _pack(layout: Struct, *values: int | bytes) -> bytes:
    """
    @raise LocalProtocolError: If a number does not fit its field.
    """
    try:
        return layout.pack(*values)
    except struct.error as problem:
        raise LocalProtocolError(f"a number does not fit its field: {problem}") from problem


def _encode_text(name: str, text: str, size: int) -> bytes:
    """
    Write a text that a zero will follow.

    @param name: What it is, for an error.
    @param size: Bytes that there are for both.
    @raise LocalProtocolError: If it is too long, holds a zero, or is not text.
    """
    try:
        encoded, _ = _UTF16.encode(text)
    except UnicodeEncodeError as problem:
        raise LocalProtocolError(f"{name} {text!a} is not text") from problem
    if "\0" in text:
        raise LocalProtocolError(f"{name} {text!a} holds a zero")
    if len(encoded) > size - 2:
        units = len(encoded) // 2
        raise LocalProtocolError(
            f"{name} has at most {size // 2 - 1} UTF-16 code units, not {units}"
        )
    return encoded


def encode_request_body(body: RequestBody) -> bytes:
    """
    Write a request body.

    @return: 236 bytes.
    @raise LocalProtocolError: If the name is too long or is not text, or a number does not fit its field.
    """
    name = _encode_text("the workstation name", body.workstation, NAME_LENGTH)
    name += b"\0\0" + body.remains
    if len(name) > NAME_LENGTH:
        raise LocalProtocolError(
            f"{len(body.remains)} bytes behind the workstation name do not fit"
        )
    return _pack(
        _REQUEST,
        body.minor_version,
        body.major_version,
        body.is_virtual_machine,
        body.licence_status,
        body.binding_expiration,
        body.application_id.bytes_le,
        body.sku_id.bytes_le,
        body.kms_id.bytes_le,
        body.client_machine_id.bytes_le,
        body.n_policy,
        body.client_time,
        body.previous_client_machine_id.bytes_le,
        name,
    )


def decode_request_body(data: bytes) -> RequestBody:
    """
    Read a request body.

    @param data: 236 bytes.
    @raise MalformedMessageError: If its size, version, a value or the name is not as it must be.
    """
    if len(data) != REQUEST_BODY_LENGTH:
        raise MalformedMessageError(f"a request body of {len(data)} bytes")
    (
        minor,
        major,
        machine,
        status,
        expiration,
        application_id,
        sku_id,
        kms_id,
        client_machine_id,
        n_policy,
        time,
        previous,
        name,
    ) = _REQUEST.unpack(data)
    _check_version(minor, major)
    if machine > 1:
        raise MalformedMessageError(f"is-virtual-machine is {machine}, not 0 or 1")
    if status >= len(LICENCE_STATUSES):
        raise MalformedMessageError(f"licence status {status} does not exist")
    if n_policy > MAX_N_POLICY:
        raise MalformedMessageError(f"an N policy of {n_policy} is over {MAX_N_POLICY}")
    return RequestBody(
        minor,
        major,
        machine,
        status,
        expiration,
        known_guid(application_id),
        known_guid(sku_id),
        known_guid(kms_id),
        _decode_guid(client_machine_id),
        n_policy,
        time,
        known_guid(previous),  # zero, as a rule
        *_decode_name(name),
    )


@lru_cache(maxsize=1024)
def known_guid(raw: bytes) -> UUID:
    """
    Read a GUID that many requests share; the same object stands for all of them while it is remembered.

    @param raw: 16 bytes, as on the wire.
    """
    return UUID(bytes_le=raw)


def _decode_guid(raw: bytes) -> UUID:
    """
    Read a GUID, in half the time that the constructor of L{UUID} takes, which considers six ways to make one.
    """
    guid = UUID.__new__(UUID)
    # As L{UUID} itself does: its instances do not let anybody else change them.
    object.__setattr__(
        guid, "int", int.from_bytes(_GUID_NUMBER.pack(*_GUID_WIRE.unpack(raw)), "big")
    )
    object.__setattr__(guid, "is_safe", SafeUUID.unknown)
    return guid


def _encode_guid(guid: UUID) -> bytes:
    """
    Write a GUID, in half the time that C{UUID.bytes_le} takes.
    """
    return _GUID_WIRE.pack(*_GUID_NUMBER.unpack(guid.int.to_bytes(16, "big")))


def _decode_name(data: bytes) -> tuple[str, bytes]:
    """
    Read a workstation name up to its zero, and what stands behind it.
    """
    # Surrogates pass at first, because what stands behind the zero does not matter.
    text, _ = _UTF16.decode(data, "surrogatepass")
    name, terminator, _ = text.partition("\0")
    if not terminator:
        raise MalformedMessageError("the workstation name has no end")
    if name.isascii():
        return name, data[2 * len(name) + 2 :].rstrip(b"\0")
    try:
        length = len(_UTF16.encode(name)[0])
    except UnicodeEncodeError as error:
        raise MalformedMessageError("the workstation name holds a lone surrogate") from error
    return name, data[length + 2 :].rstrip(b"\0")


def encode_response_body(body: ResponseBody) -> bytes:
    """
    Write a response body.

    @raise LocalProtocolError: If the ePID is too long or is not text, or a number does not fit its field.
    """
    minor, major, epid, machine, client_time, count, activation, renewal = body
    layout, text = _encode_epid(epid)
    return _pack(
        layout,
        minor,
        major,
        len(text),
        text,
        _encode_guid(machine),
        client_time,
        count,
        activation,
        renewal,
    )


@lru_cache(maxsize=256)
def _encode_epid(epid: str) -> tuple[Struct, bytes]:
    """
    Write an ePID and the zero behind it; a host has few.

    @return: The layout of a response with an ePID of that size, and the ePID.
    """
    text = _encode_text("the ePID", epid, MAX_EPID_SIZE) + b"\0\0"
    return Struct(f"{_RESPONSE_HEAD.format}{len(text)}s{_RESPONSE_TAIL.format[1:]}"), text


def decode_response_body(data: bytes) -> tuple[ResponseBody, int]:
    """
    Read a response body at the beginning of some bytes.

    @return: The body, and how many bytes it has.
    @raise MalformedMessageError: If there are too few bytes, or its version or ePID is not as it must be.
    """
    decode_version(data)
    if len(data) < _RESPONSE_HEAD.size:
        raise MalformedMessageError("a response without ePID size")
    minor, major, size = _RESPONSE_HEAD.unpack_from(data)
    if not size or size > MAX_EPID_SIZE or size % 2:
        raise MalformedMessageError(f"an ePID size of {size}")
    start = _RESPONSE_HEAD.size + size
    end = start + _RESPONSE_TAIL.size
    if end > len(data):
        raise MalformedMessageError(f"a response of {len(data)} bytes where {end} are needed")
    try:
        epid, _ = _UTF16.decode(data[_RESPONSE_HEAD.size : start])
    except UnicodeDecodeError as error:
        raise MalformedMessageError("the ePID is not text") from error
    if epid.find("\0") != len(epid) - 1:
        raise MalformedMessageError("the ePID does not end with its only zero")
    machine, *rest = _RESPONSE_TAIL.unpack_from(data, start)
    return ResponseBody(minor, major, epid[:-1], UUID(bytes_le=machine), *rest), end
