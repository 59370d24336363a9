"""
Cases about KMS messages: each version, each check of an answer, and the requests that a host has to refuse.

Source: "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from kmsproto.audit.exchanges import Then, conclude
from kmsproto.audit.link import Link, read_answer
from kmsproto.audit.model import (
    Case,
    Level,
    NotApplicableError,
    Script,
    UndecidedError,
    Verdict,
    define,
    failed,
    noted,
    passed,
)
from kmsproto.audit.packets import PLAIN, PLAIN64, request, stub
from kmsproto.audit.replies import ANY_FAULT, RESPONSE, Received, Reply
from kmsproto.audit.subject import Subject
from kmsproto.kms.envelopes import CIPHERS, SALT_LENGTH, OpenedRequest
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import ResponseBody, encode_request_body, encode_version
from kmsproto.kms.plausibility import INTERVALS
from kmsproto.kms.verification import verify_response
from kmsproto.rpc.pdu import NDR, NDR64, SyntaxId

_SOURCE = "KMS messages, versions 4, 5 and 6"
#: FILETIME steps of five hours: more than the four that a host which checks allows.
_FIVE_HOURS = 5 * 3600 * 10_000_000
#: A KMS id that no product has.
_UNKNOWN_PRODUCT = UUID("11223344-5566-4788-99aa-bbccddeeff00")


def ask(
    link: Link,
    payload: bytes,
    context: int = 0,
    syntax: SyntaxId = NDR,
) -> Script[tuple[bytes, int]]:
    """
    Send a KMS message in an ordinary call.

    @return: The KMS response and the HRESULT.
    @raise UndecidedError: If there is no response.
    """
    sent = request(stub(payload, syntax), context=context, call_id=40)
    reply = yield from link.exchange(sent)
    response = reply.response if isinstance(reply, Received) else None
    if not isinstance(reply, Received) or response is None:
        raise UndecidedError(f"{reply.describe()} when it was asked for an activation")
    return read_answer(reply.header, response.stub, syntax)


def granted(
    link: Link,
    version: int | None = None,
    context: int = 0,
    syntax: SyntaxId = NDR,
    **changes: Any,
) -> Script[tuple[ResponseBody, bytes, bytes]]:
    """
    Ask for an activation that has to be granted, and verify the answer.

    @param changes: Fields of the request that shall be others.
    @return: The body, the hardware id, and the KMS response.
    @raise NotApplicableError: If the host refuses the product always.
    @raise UndecidedError: If it refuses it this time, or the answer cannot be read.
    """
    if link.subject.hresult:
        raise NotApplicableError(
            f"refuses the product that it was asked for, with 0x{link.subject.hresult:08X}"
        )
    payload, remembered = link.subject.seal(version, **changes)
    answer, hresult = yield from ask(link, payload, context, syntax)
    if hresult:
        raise UndecidedError(f"refused with 0x{hresult:08X} what it granted otherwise")
    verified = verify_response(answer, remembered)
    if verified.body is None:
        raise UndecidedError(
            f"sent an answer that cannot be opened: {_problems(answer, remembered)}"
        )
    return verified.body, verified.hardware_id, answer


def _problems(answer: bytes, remembered: OpenedRequest) -> str:
    """
    Tell which checks an answer fails; empty if none.
    """
    checks = verify_response(answer, remembered).failed
    return "; ".join(f"{check.name}: {check.problem}" for check in checks)


def _version(version: int, syntax: SyntaxId) -> Case:
    """
    A version in a transfer syntax: the answer passes every check.
    """
    is_wide = syntax == NDR64
    name = f"kms.version-{version}{'-ndr64' if is_wide else ''}"

    def body(subject: Subject) -> Script[Verdict]:
        if is_wide and not subject.ndr64:
            raise NotApplicableError("does not offer NDR64")
        if subject.hresult:
            raise NotApplicableError(
                f"refuses the product that it was asked for, with 0x{subject.hresult:08X}"
            )
        link = Link(subject)
        yield from link.bound(PLAIN64 if is_wide else PLAIN)
        payload, remembered = subject.seal(version)
        try:
            answer, hresult = yield from ask(link, payload, int(is_wide), syntax)
        except UndecidedError as problem:
            return failed(str(problem))
        if hresult:
            return failed(f"refused version {version} with 0x{hresult:08X}")
        verified = verify_response(answer, remembered)
        if verified.failed:
            return failed(f"sent an answer that fails checks: {_problems(answer, remembered)}")
        return passed(f"granted it, and the answer passes {len(verified.checks)} checks")

    return define(
        name,
        "KMS",
        Level.MUST,
        f"version {version} in {'NDR64' if is_wide else 'NDR'}",
        "A request of each version is answered in that version; the answer returns the client's id and time, ends as"
        " its sizes say, and passes every check of its version: MAC, padding, hashes, salts, HMAC.",
        _SOURCE,
    )(body)


def _refused(
    name: str,
    title: str,
    rule: str,
    make: Callable[[Subject], bytes],
    *,
    level: Level = Level.MUST,
    hresult: int = HResult.INVALID_DATA,
) -> Case:
    """
    A KMS message that has to be refused.

    @param make: Makes it.
    @param hresult: What it is refused with.
    """

    def body(subject: Subject) -> Script[Verdict]:
        link = Link(subject)
        yield from link.bound()
        reply = yield from link.exchange(request(stub(make(subject)), call_id=40))
        return (yield from _judge_refusal(link, reply, hresult))

    return define(f"kms.{name}", "KMS", level, title, rule, _SOURCE)(body)


def _judge_refusal(link: Link, reply: Reply, expected: int) -> Script[Verdict]:
    response = reply.response if isinstance(reply, Received) else None
    if not isinstance(reply, Received) or response is None:
        return (yield from conclude(link, reply, (RESPONSE,), (ANY_FAULT,), Then.STAYS))
    _, hresult = read_answer(reply.header, response.stub, NDR)
    wanted = f"0x{expected:08X}"
    if not hresult:
        return failed(f"granted it; expected: the HRESULT {wanted}")
    problem = yield from link.serve()
    if problem:
        return failed(f"refused it with 0x{hresult:08X}, and then {problem}")
    if hresult == link.subject.hresult:
        return noted(f"refused it with 0x{hresult:08X}, as it refuses everything")
    if hresult == expected:
        return passed(f"refused it with {wanted}")
    return noted(f"refused it with 0x{hresult:08X}, where {wanted} is usual")


def _cut(version: int, difference: int) -> Callable[[Subject], bytes]:
    """
    Make messages that are shorter, or longer, than they have to be.
    """

    def make(subject: Subject) -> bytes:
        payload = subject.payload(version)
        return payload + bytes(difference) if difference > 0 else payload[:difference]

    return make


def _size(version: int, difference: int) -> Case:
    amount = abs(difference)
    unit = "byte" if amount == 1 else "bytes"
    kind = "long" if difference > 0 else "short"
    return _refused(
        f"{kind}-{version}-{amount}",
        f"a version {version} message that is {amount} {unit} too {kind}",
        "A message has the size of its version, 252 bytes in version 4 and 260 in versions 5 and 6.  Who takes another"
        " reads what is not there, or does not look.",
        _cut(version, difference),
    )


def _without_mac(subject: Subject) -> bytes:
    return subject.payload(4)[:-16] + bytes(16)


def _with_wrong_mac(subject: Subject) -> bytes:
    payload = subject.payload(4)
    return payload[:-1] + bytes((payload[-1] ^ 1,))


def _changed_body(subject: Subject) -> bytes:
    # The licence status: 2 becomes 3, which is a status too, so that nothing but the MAC tells.
    payload = bytearray(subject.payload(4))
    payload[8] ^= 1
    return bytes(payload)


def _wrong_padding(version: int) -> Callable[[Subject], bytes]:
    def make(subject: Subject) -> bytes:
        body = subject.request._replace(major_version=version)
        clear = subject.entropy(SALT_LENGTH) + encode_request_body(body) + b"\4\4\4\3"
        return encode_version(body) + CIPHERS[version].encrypt_cbc(clear)

    return make


def _wrong_inner_version(subject: Subject) -> bytes:
    outer = subject.request._replace(major_version=6)
    inner = encode_request_body(subject.request._replace(major_version=5))
    clear = subject.entropy(SALT_LENGTH) + inner + b"\4\4\4\4"
    return encode_version(outer) + CIPHERS[6].encrypt_cbc(clear)


def _wrong_outer_version(subject: Subject) -> bytes:
    payload = subject.payload(6)
    return payload[:2] + b"\x05\0" + payload[4:]


def _ciphertext_changed(subject: Subject) -> bytes:
    payload = bytearray(subject.payload(6))
    payload[-1] ^= 1
    return bytes(payload)


def _unsupported(major: int, minor: int = 0) -> Case:
    return _refused(
        f"unsupported-{major}.{minor}",
        f"version {major}.{minor}",
        "The versions are 4.0, 5.0 and 6.0; a request of another is invalid data.  Its answer is a response with an"
        " HRESULT, and the connection stays.",
        lambda subject: subject.seal(major, minor_version=minor)[0],
    )


def _clock(name: str, title: str, steps: int) -> Case:
    """
    A client whose clock is off.
    """

    def body(subject: Subject) -> Script[Verdict]:
        if subject.hresult:
            raise NotApplicableError("refuses the product that it was asked for")
        link = Link(subject)
        yield from link.bound()
        payload, remembered = subject.seal(
            6, client_time=max(0, subject.request.client_time + steps)
        )
        answer, hresult = yield from ask(link, payload)
        if hresult == HResult.CLOCK_SKEW:
            return noted("checks the clocks of clients: refused with 0xC004F06C")
        if hresult:
            return failed(f"refused with 0x{hresult:08X}; expected: a grant or 0xC004F06C")
        problems = _problems(answer, remembered)
        if problems:
            return failed(f"granted it with an answer that fails checks: {problems}")
        return noted("does not check the clocks of clients")

    return define(
        f"kms.clock-{name}",
        "KMS",
        Level.MUST,
        title,
        "A host may check the clock of its client, and then refuses one that is more than four hours off with"
        " 0xC004F06C.  If it grants, the HMAC of the answer is made with the client's time.",
        _SOURCE,
    )(body)


@define(
    "kms.salts",
    "KMS",
    Level.MUST,
    "the salts of two answers of version 6",
    "In version 6 a host draws a salt for each answer; two answers to the same request begin differently.",
    _SOURCE,
)
def _salts(subject: Subject) -> Script[Verdict]:
    if subject.hresult:
        raise NotApplicableError("refuses the product that it was asked for")
    link = Link(subject)
    link.needs_several_calls()
    yield from link.bound()
    payload = subject.payload(6)
    vectors = []
    for _ in range(2):
        answer, hresult = yield from ask(link, payload)
        if hresult:
            return failed(f"refused the same request with 0x{hresult:08X} the second time")
        vectors.append(answer[4:20])
    if vectors[0] == vectors[1]:
        return failed("began two answers with the same salt")
    return passed("began each answer with a salt of its own")


@define(
    "kms.remains",
    "KMS",
    Level.SHOULD,
    "bytes behind the zero that ends the workstation name",
    "Clients in the field leave remains of other memory behind the name; a host does not mind.",
    _SOURCE,
)
def _remains(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    payload, _ = subject.seal(workstation="AUDIT", remains=b"\x41\x42\x43\x44")
    _, hresult = yield from ask(link, payload)
    if hresult == subject.hresult:
        return passed("did not mind")
    return failed(
        f"answered with 0x{hresult:08X}, an ordinary request with 0x{subject.hresult:08X}"
    )


@define(
    "kms.unknown-product",
    "KMS",
    Level.HYGIENE,
    "a KMS id that no product has",
    "A host takes a KMS id that it does not know for one of Windows, or refuses it with 0xC004F042 if its operator"
    " wants that.",
    _SOURCE,
)
def _unknown_product(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    payload, _ = subject.seal(kms_id=_UNKNOWN_PRODUCT)
    _, hresult = yield from ask(link, payload)
    if not hresult:
        return noted("grants what it does not know")
    if hresult == HResult.PRODUCT_REFUSED:
        return noted("refuses what it does not know, with 0xC004F042")
    return failed(f"answered with 0x{hresult:08X}; expected: a grant or 0xC004F042")


@define(
    "kms.count",
    "KMS",
    Level.HYGIENE,
    "the count of clients",
    "A genuine host never reports more than twice the N policy of the request; one that is charged reports at least the"
    " minimum of its host key.",
    _SOURCE,
)
def _count(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    body, _, _ = yield from granted(link)
    needed = subject.request.n_policy
    key = subject.catalog.csvlk_for(subject.request.kms_id)
    application = subject.catalog.applications.get(subject.request.application_id)
    least = application.minimum_clients if application is not None else 0
    limit = max(2 * needed, key.minimum_active_clients, least)
    did = f"reported {body.client_count} clients, where the product needs {needed}"
    if body.client_count == 0:
        return failed(f"{did}, and not even the one that asks")
    if body.client_count > limit:
        return failed(f"{did} and genuine hosts report at most {limit}")
    return noted(did)


@define(
    "kms.intervals",
    "KMS",
    Level.HYGIENE,
    "the intervals",
    "A client that failed tries again after two hours by default, and one that is activated renews after a week; both"
    " intervals lie between a quarter of an hour and thirty days.",
    _SOURCE,
)
def _intervals(subject: Subject) -> Script[Verdict]:
    link = Link(subject)
    yield from link.bound()
    body, _, _ = yield from granted(link)
    did = f"told intervals of {body.activation_interval} and {body.renewal_interval} minutes"
    for value in (body.activation_interval, body.renewal_interval):
        if value not in INTERVALS:
            return failed(did)
    return noted(did)


_VERSIONS_RULE = (
    "The version inside an encrypted message is that in front of it; a message whose versions disagree"
    " is invalid."
)
_MAC_RULE = (
    "A host checks the MAC of a request of version 4; a wrong one is invalid data, 0x8007000D."
)
_PADDING_RULE = (
    "The padding of an encrypted request is PKCS#7, four bytes of 4; another shows that the message was not made for"
    " this key, or changed."
)

CASES: tuple[Case, ...] = (
    *(_version(version, syntax) for version in (4, 5, 6) for syntax in (NDR, NDR64)),
    _salts,
    _unsupported(3),
    _unsupported(7),
    _unsupported(6, 1),
    _refused(
        "empty",
        "a message without a byte",
        "What is too short to have a version is invalid data.",
        lambda subject: b"",
    ),
    _size(4, -1),
    _size(4, 1),
    *(_size(version, difference) for version in (5, 6) for difference in (-1, -8, -16, 16)),
    _refused("mac-zero", "a version 4 request whose MAC is zero", _MAC_RULE, _without_mac),
    _refused("mac-wrong", "a version 4 request whose MAC is wrong", _MAC_RULE, _with_wrong_mac),
    _refused("mac-body", "a version 4 request that was changed", _MAC_RULE, _changed_body),
    _refused(
        "padding-5", "a version 5 request with wrong padding", _PADDING_RULE, _wrong_padding(5)
    ),
    _refused(
        "padding-6", "a version 6 request with wrong padding", _PADDING_RULE, _wrong_padding(6)
    ),
    _refused(
        "changed",
        "a version 6 request whose last byte was changed",
        _PADDING_RULE,
        _ciphertext_changed,
    ),
    _refused("version-inside", "version 5 inside version 6", _VERSIONS_RULE, _wrong_inner_version),
    _refused(
        "version-outside", "version 6 sent as version 5", _VERSIONS_RULE, _wrong_outer_version
    ),
    _refused(
        "n-policy",
        "an N policy of 1001",
        "No product wants more than a thousand clients; such a request is invalid data.",
        lambda subject: subject.seal(n_policy=1001)[0],
    ),
    _clock("ahead", "a client whose clock is five hours ahead", _FIVE_HOURS),
    _clock("behind", "a client whose clock is five hours behind", -_FIVE_HOURS),
    _remains,
    _unknown_product,
    _count,
    _intervals,
)
