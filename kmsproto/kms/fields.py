"""
What stands where in a request or an answer: every field with its offset, its value and its meaning, for people.

A host or client wants a message right or not at all.  Somebody who looks at a message that was captured wants as much
of it as there is, above all if it is wrong.  So nothing here raises: a message is walked from its beginning, each field
that is there in full becomes a L{Field}, values out of range are shown as they are, and what cannot be read is one last
field called C{undecoded}.  The fields lie one behind the other and cover the whole message.

Versions 5 and 6 are decrypted first.  Cipher block chaining keeps positions, so that offsets are the same in clear and
on the wire: the version is at 0, the vector (the encrypted salt) at 4, the body at 20.

Source: "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kmsproto.kms.catalog import Catalog
from kmsproto.kms.envelopes import (
    CIPHERS,
    HASH_LENGTH,
    HMAC_LENGTH,
    MAC_LENGTH,
    REQUEST_LENGTHS,
    SALT_LENGTH,
    VERSION_LENGTH,
    OpenedRequest,
    compute_hmac,
    compute_mac,
    xor,
)
from kmsproto.kms.epid import EPIDError, ExtendedPID
from kmsproto.kms.messages import (
    HARDWARE_ID_LENGTH,
    LICENCE_STATUSES,
    MAX_EPID_SIZE,
    MAX_N_POLICY,
    NAME_LENGTH,
    PROTOCOL_VERSIONS,
    RequestBody,
)
from kmsproto.kms.plausibility import csvlks_of
from kmsproto.kms.rijndael import BLOCK_LENGTH

#: Bytes that are decrypted at most: more than the largest message has.
MAX_SEALED = 1024
#: Bytes of what cannot be read that are shown.
_MAX_SHOWN = 32
#: A version in which one of the numbers is larger than this was not decrypted with the right key.
_MAX_VERSION = 0xFF
_STEPS_PER_SECOND = 10_000_000
#: The first FILETIME, and how many seconds behind it the calendar ends.
_FIRST = datetime(1601, 1, 1, tzinfo=UTC)
_LAST_SECOND = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _FIRST).total_seconds()
#: What stands behind the encrypted body of a request.
_REQUEST_PADDING = b"\4\4\4\4"
_UNITS = (("day", 1440), ("hour", 60))


@dataclass(frozen=True, slots=True)
class Field:
    """
    One field of a message.

    Name, value and meaning may hold text of the peer, with any character in it.

    @ivar offset: Where it begins: bytes from the beginning of the message.
    @ivar size: Its bytes.
    @ivar name: What it is called in the specification.
    @ivar value: Its value, as people write it.
    @ivar meaning: What the value says, in a few words; perhaps nothing.
    """

    offset: int
    size: int
    name: str
    value: str
    meaning: str

    def to_json(self) -> dict[str, str | int]:
        """
        Turn it into what JSON can say.
        """
        return {
            "offset": self.offset,
            "size": self.size,
            "name": self.name,
            "value": self.value,
            "meaning": self.meaning,
        }


def request_fields(payload: bytes, catalog: Catalog | None) -> tuple[Field, ...]:
    """
    Take a request apart.

    A request in a version that does not exist is read like the one of its size, if it can be.

    @param payload: The request as it travels in the stub: any bytes.
    @param catalog: Names products; L{None} if nothing is to be named.
    @return: Its fields, in the order in which they stand.  Offsets are those in the payload.
    """
    walk = _Walk(payload, catalog)
    version = _request_version(payload)
    if version == 4:
        walk.request_body()
        walk.mac()
    elif walk.version() and version and walk.decrypt(version):
        walk.request_body()
        walk.padding(_REQUEST_PADDING)
    return walk.finish()


def response_fields(
    payload: bytes, request: OpenedRequest | None, catalog: Catalog | None
) -> tuple[Field, ...]:
    """
    Take an answer apart.

    @param payload: The answer as it travels in the stub: any bytes.
    @param request: The request that it answers, to compare with; L{None} if it is not known.
    @param catalog: Names the parts of the ePID; L{None} if nothing is to be named.
    @return: Its fields, in the order in which they stand.  Offsets are those in the payload.
    """
    walk = _Walk(payload, catalog, request)
    version = _payload_version(payload)
    if version == 4:
        walk.response_body()
        walk.mac()
    elif walk.version() and version and walk.decrypt(version):
        walk.response_body()
        walk.proofs(version)
    return walk.finish()


def show_filetime(value: int) -> str:
    """
    Write a FILETIME as people do: in UTC and ISO 8601, with a fraction if it has one.

    @param value: 64 bits; those behind the end of the calendar stay a number.
    """
    seconds, fraction = divmod(value, _STEPS_PER_SECOND)
    if seconds > _LAST_SECOND:
        return str(value)
    text = (_FIRST + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:07}Z" if fraction else f"{text}Z"


def show_minutes(value: int) -> str:
    """
    Say how long some minutes are, in days, hours and minutes: nothing if they are minutes only.
    """
    parts = []
    rest = value
    for name, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {name}{'s' * (count > 1)}")
    if parts and rest:
        parts.append(f"{rest} minute{'s' * (rest > 1)}")
    return ", ".join(parts)


def describe_epid(epid: str, catalog: Catalog | None) -> str:
    """
    Say what the parts of an ePID mean.

    @param epid: Any text.
    @param catalog: Names the key group and the host build.
    """
    try:
        pid = ExtendedPID.parse(epid)
    except EPIDError:
        return "not of the form of an ePID"
    group, build = str(pid.group_id), str(pid.build)
    if catalog is not None:
        csvlks = csvlks_of(catalog, pid)
        group += f" ({csvlks[0].name})" if csvlks else " (unknown)"
        known = catalog.host_builds.get(pid.build)
        build += f" ({known.name})" if known is not None else " (unknown)"
    return (
        f"platform {pid.platform_id}, group {group}, key id {pid.key_id}, LCID {pid.lcid},"
        f" build {build}, activated {pid.day.isoformat()}"
    )


def _payload_version(payload: bytes) -> int:
    """
    Tell by its version how a message is to be read.

    @return: The version; 0 if there is none of that number.
    """
    major = int.from_bytes(payload[2:4], "little")
    return major if major in PROTOCOL_VERSIONS else 0


def _request_version(payload: bytes) -> int:
    """
    Tell by its version how a request is to be read; by its size, if it is in a version that does not exist.
    """
    by_size = {REQUEST_LENGTHS[4]: 4, REQUEST_LENGTHS[6]: 6}
    return _payload_version(payload) or by_size.get(len(payload), 0)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _decimal(raw: bytes) -> str:
    return str(_number(raw))


def _guid(raw: bytes) -> str:
    return str(UUID(bytes_le=raw))


def _minutes(raw: bytes) -> str:
    return f"{_number(raw)} minutes"


def _duration(raw: bytes) -> str:
    return show_minutes(_number(raw))


def _time(raw: bytes) -> str:
    return show_filetime(_number(raw))


def _text(raw: bytes) -> str:
    """
    Read a text up to its zero; what is no text becomes U+FFFD.
    """
    return raw.decode("utf-16-le", "replace").partition("\0")[0]


def _time_meaning(raw: bytes) -> str:
    value = _number(raw)
    if value // _STEPS_PER_SECOND > _LAST_SECOND:
        return "a FILETIME that is no date: the calendar ends before it"
    return f"FILETIME {value}"


def _status_meaning(raw: bytes) -> str:
    status = _number(raw)
    return LICENCE_STATUSES[status] if status < len(LICENCE_STATUSES) else "there is no such status"


def _machine_meaning(raw: bytes) -> str:
    return {0: "no virtual machine", 1: "a virtual machine"}.get(
        _number(raw), "neither 0 nor 1, as it must be"
    )


def _policy_meaning(raw: bytes) -> str:
    if _number(raw) > MAX_N_POLICY:
        return f"over {MAX_N_POLICY}, which no host answers"
    return "clients that the product needs to see"


def _previous_meaning(raw: bytes) -> str:
    return "the CMID before this one" if any(raw) else "the CMID never changed"


def _name_meaning(raw: bytes) -> str:
    units = [raw[start : start + 2] for start in range(0, len(raw), 2)]
    if b"\0\0" not in units:
        return "wrong: it has no end"
    behind = b"".join(units[units.index(b"\0\0") :]).rstrip(b"\0")
    return f"with remains of other memory behind it: {_shown(behind)}" if behind else ""


def _shown(raw: bytes) -> str:
    return raw[:_MAX_SHOWN].hex() + ("..." if len(raw) > _MAX_SHOWN else "")


def _nothing(raw: bytes) -> str:
    return ""


class _Walk:
    """
    Goes through a message from its beginning, field by field, for as long as there are bytes.
    """

    def __init__(
        self, payload: bytes, catalog: Catalog | None, request: OpenedRequest | None = None
    ) -> None:
        self._payload = payload
        #: What is read: the payload, or what came out when it was decrypted, at the same offsets.
        self._clear = payload
        self._catalog = catalog
        self._request = request
        self._fields: list[Field] = []
        self._offset = 0
        self._stopped = False

    def take(
        self,
        size: int,
        name: str,
        show: Callable[[bytes], str],
        mean: Callable[[bytes], str] = _nothing,
    ) -> bytes | None:
        """
        Take the next field.

        @param show: Writes its value.
        @param mean: Says what it means.
        @return: Its bytes; L{None} if they are not all there, which ends the walk.
        """
        raw = self._clear[self._offset : self._offset + size]
        if self._stopped or len(raw) < size:
            self._stopped = True
            return None
        self._fields.append(Field(self._offset, size, name, show(raw), mean(raw)))
        self._offset += size
        return raw

    def finish(self) -> tuple[Field, ...]:
        """
        End the walk: what is left is one field.
        """
        rest = self._payload[self._offset :]
        if rest:
            self._fields.append(
                Field(
                    self._offset,
                    len(rest),
                    "undecoded",
                    _shown(rest),
                    "belongs to no field",
                )
            )
        return tuple(self._fields)

    def version(self) -> bool:
        """
        Take a version: the first of the message, or the one inside, which repeats it.

        @return: Whether it was there.
        """
        outer = self._payload[:VERSION_LENGTH]
        inside = self._offset >= VERSION_LENGTH
        minor, major = (
            (_repeated(outer[:2]), _repeated(outer[2:]))
            if inside
            else (_minor_meaning, _major_meaning)
        )
        self.take(2, "minor version", _decimal, minor)
        self.take(2, "major version", _decimal, major)
        return not self._stopped

    def decrypt(self, version: int) -> bool:
        """
        Decrypt what follows the version, and take the vector.

        @return: Whether what came out may have a version; otherwise it was encrypted with another key.
        """
        sealed = self._payload[VERSION_LENGTH : VERSION_LENGTH + MAX_SEALED]
        sealed = sealed[: len(sealed) // BLOCK_LENGTH * BLOCK_LENGTH]
        ciphers = [CIPHERS[version], *CIPHERS.values()]
        head = self._payload[:VERSION_LENGTH]
        messages = [cipher.decrypt_cbc(sealed) for cipher in ciphers]
        # Who asks in a version that does not exist may have taken the key of any.
        message = next(
            (each for each in messages if each[SALT_LENGTH:].startswith(head)), messages[0]
        )
        self._clear = head + message
        salt = message[:SALT_LENGTH]
        self.take(
            SALT_LENGTH,
            "IV",
            lambda raw: self._payload[VERSION_LENGTH : VERSION_LENGTH + SALT_LENGTH].hex(),
            lambda raw: f"decrypted, it is the salt {salt.hex()}",
        )
        inner = message[SALT_LENGTH : SALT_LENGTH + VERSION_LENGTH]
        return max(_number(inner[:2]), _number(inner[2:])) <= _MAX_VERSION

    def request_body(self) -> None:
        """
        Take the body of a request.
        """
        self.version()
        self.take(4, "is virtual machine", _decimal, _machine_meaning)
        self.take(4, "licence status", _decimal, _status_meaning)
        self.take(4, "binding expiration", _minutes, _duration)
        catalog = self._catalog
        for name, naming in (
            ("application id", Catalog.application_name),
            ("SKU id", Catalog.sku_name),
            ("KMS id", Catalog.kms_id_name),
        ):
            self.take(16, name, _guid, _nothing if catalog is None else _named(catalog, naming))
        self.take(16, "client machine id", _guid, lambda raw: "the CMID")
        self.take(4, "N policy", _decimal, _policy_meaning)
        self.take(8, "client time", _time, _time_meaning)
        self.take(16, "previous client machine id", _guid, _previous_meaning)
        self.take(NAME_LENGTH, "workstation name", _text, _name_meaning)

    def mac(self) -> None:
        """
        Take the MAC of version 4, which is over all that stands before it.
        """
        before = self._clear[: self._offset]
        self.take(MAC_LENGTH, "MAC", bytes.hex, lambda raw: _expected(raw, compute_mac(before)))

    def response_body(self) -> None:
        """
        Take the body of an answer.
        """
        self.version()
        size = self.take(4, "ePID size", lambda raw: f"{_number(raw)} bytes", _epid_size_meaning)
        if size is None:
            return
        request = self._request.body if self._request is not None else None
        self.take(_number(size), "ePID", _text, lambda raw: _epid_meaning(raw, self._catalog))
        self.take(16, "client machine id", _guid, _echo(request, _request_machine))
        self.take(8, "client time", _time, _echo(request, _request_time, _time_meaning))
        self.take(4, "count", _decimal, _count_meaning(request))
        self.take(4, "activation interval", _minutes, _duration)
        self.take(4, "renewal interval", _minutes, _duration)

    def proofs(self, version: int) -> None:
        """
        Take what follows the body of an encrypted answer.
        """
        if self._stopped:
            return
        clear, start = self._clear, self._offset
        masked = clear[start : start + SALT_LENGTH]
        # The salt of the request is known from it, or else from its echo.
        echo = start + SALT_LENGTH + HASH_LENGTH + HARDWARE_ID_LENGTH
        salt = clear[VERSION_LENGTH:][:SALT_LENGTH] if version == 5 else clear[echo:][:SALT_LENGTH]
        asked = self._request.salt if self._request is not None else b""
        random = xor(masked, asked or salt) if len(masked) == len(asked or salt) else b""
        self.take(
            SALT_LENGTH,
            "random XOR request salt",
            bytes.hex,
            lambda raw: f"the random bytes are {random.hex()}" if random else "",
        )
        digest = hashlib.sha256(random).digest()
        self.take(
            HASH_LENGTH,
            "SHA-256",
            bytes.hex,
            lambda raw: "that of the random bytes" if raw == digest else "wrong: it is another one",
        )
        if version == 6:
            self.take(HARDWARE_ID_LENGTH, "hardware id", lambda raw: raw.hex().upper())
            self.take(
                SALT_LENGTH,
                "request salt",
                bytes.hex,
                lambda raw: _compared(raw, asked) if asked else "",
            )
            signed = clear[VERSION_LENGTH : self._offset]
            self.take(HMAC_LENGTH, "HMAC", bytes.hex, lambda raw: self._hmac_meaning(raw, signed))
        length = len(clear) - self._offset
        if 1 <= length <= BLOCK_LENGTH:
            self.padding(bytes((length,)) * length)

    def _hmac_meaning(self, raw: bytes, signed: bytes) -> str:
        if self._request is not None:
            time = self._request.body.client_time
        else:
            # The client time stands at a fixed distance before the end of the body.
            before = SALT_LENGTH + HASH_LENGTH + HARDWARE_ID_LENGTH + SALT_LENGTH + 12
            time = _number(signed[-before - 8 : -before])
        right = any(raw == compute_hmac(time, signed, slot) for slot in (0, -1, 1))
        return "right" if right else "wrong"

    def padding(self, right: bytes) -> None:
        """
        Take the padding.

        @param right: What must stand there.
        """
        self.take(
            len(right),
            "padding",
            bytes.hex,
            lambda raw: "PKCS#7" if raw == right else _expected(raw, right),
        )


def _minor_meaning(raw: bytes) -> str:
    return "wrong: it must be 0" if any(raw) else ""


def _major_meaning(raw: bytes) -> str:
    if _number(raw) in PROTOCOL_VERSIONS:
        return "the protocol version"
    return "there is no such protocol version"


def _repeated(outer: bytes) -> Callable[[bytes], str]:
    return lambda raw: "as in clear" if raw == outer else "wrong: it is not that in clear"


def _expected(raw: bytes, right: bytes) -> str:
    return "right" if raw == right else f"wrong: it must be {right.hex()}"


def _named(catalog: Catalog, naming: Callable[[Catalog, UUID], str]) -> Callable[[bytes], str]:
    """
    Make what says which product a GUID means.

    @param naming: Names it, or gives the GUID back.
    """

    def meaning(raw: bytes) -> str:
        guid = UUID(bytes_le=raw)
        name = naming(catalog, guid)
        return "not in the catalogue" if name == str(guid) else name

    return meaning


def _epid_size_meaning(raw: bytes) -> str:
    size = _number(raw)
    if not 0 < size <= MAX_EPID_SIZE or size % 2:
        return f"wrong: it must be even, from 2 to {MAX_EPID_SIZE}"
    return "with the terminating zero"


def _epid_meaning(raw: bytes, catalog: Catalog | None) -> str:
    meaning = describe_epid(_text(raw), catalog)
    text = raw.decode("utf-16-le", "replace")
    if text.find("\0") != len(text) - 1:
        return f"{meaning}; wrong: it does not end with its only zero"
    return meaning


def _request_machine(request: RequestBody) -> bytes:
    return request.client_machine_id.bytes_le


def _request_time(request: RequestBody) -> bytes:
    return request.client_time.to_bytes(8, "little")


def _compared(raw: bytes, asked: bytes) -> str:
    return "as in the request" if raw == asked else "wrong: it is not that of the request"


def _echo(
    request: RequestBody | None,
    part: Callable[[RequestBody], bytes],
    otherwise: Callable[[bytes], str] = _nothing,
) -> Callable[[bytes], str]:
    """
    Make what compares a field with the request.
    """
    if request is None:
        return otherwise
    asked = part(request)
    return lambda raw: _compared(raw, asked)


def _count_meaning(request: RequestBody | None) -> Callable[[bytes], str]:
    """
    Make what says whether a count suffices.
    """
    if request is None:
        return lambda raw: "the host's clients"
    needed = request.n_policy
    return lambda raw: (
        f"the product needs {needed}" if _number(raw) >= needed else f"too few: {needed} are needed"
    )
