"""
How L{kmsproto.kms.envelopes} chooses between its two ways, and that the extension gives back what it takes.

Whether the extension was built or not, a stand-in takes its place in the tests of who is asked when.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms import envelopes, rijndael
from kmsproto.kms.envelopes import (
    compute_hmac,
    compute_mac,
    native_envelopes,
    open_request,
    seal_request,
)
from kmsproto.kms.messages import MalformedMessageError, known_guid
from tests.kms.handmade import CIPHERS, flipped, padded, request_of, response_of, version_bytes
from tests.kms.samples import HARDWARE_ID, RANDOM, REQUEST_SALT, RESPONSE_SALT
from tests.kms.ways import VERSIONS, ExtensionCase, need_c, sealed_by

EXTENSION = "kmsproto.kms._envelopes"
KEY = bytes(range(16))


class ChoiceTests(ExtensionCase):
    """
    Who is asked when, whether the extension was built or not.
    """

    extension = "_envelopes"

    def use(self, native: mock.Mock) -> None:
        """
        Let a stand-in take the place of the envelopes of each version.
        """
        self.patch(envelopes, "_NATIVE", dict.fromkeys(VERSIONS, native))

    def test_opened(self) -> None:
        """
        What the envelope in C opened is what is returned.
        """
        for version in VERSIONS:
            payload, remembered = seal_request(request_of(version), REQUEST_SALT)
            native = mock.Mock()
            native.open.return_value = (tuple(remembered.body), b"salt", b"iv")
            self.use(native)
            self.assertEqual(open_request(payload), (remembered.body, b"salt", b"iv"))
            native.open.assert_called_once_with(payload, known_guid)

    def test_not_opened(self) -> None:
        """
        What it did not open goes the long way.
        """
        native = mock.Mock()
        native.open.return_value = None
        self.use(native)
        for version in VERSIONS:
            payload, remembered = seal_request(request_of(version), REQUEST_SALT)
            self.assertEqual(open_request(payload), remembered)
            self.assertRaises(MalformedMessageError, open_request, payload[:-1])
        self.assertEqual(native.open.call_count, 6)

    def test_nothing_to_open(self) -> None:
        """
        What is too short to have a version, or has none that is spoken, goes the long way at once.
        """
        native = mock.Mock()
        self.use(native)
        for payload in (b"", b"\0\0\6", bytes(260), version_bytes(7) + bytes(256)):
            self.assertRaises(MalformedMessageError, open_request, payload)
        native.open.assert_not_called()

    def test_sealed(self) -> None:
        """
        What the envelope in C sealed is what is returned; it is given what each version takes.
        """
        digest = hashlib.sha256(RANDOM).digest()
        for version in VERSIONS:
            _, request = seal_request(request_of(version), REQUEST_SALT)
            body = response_of(version)
            parts = (body.client_machine_id.bytes, request.salt, RANDOM, digest)
            given = {4: parts[:1], 5: parts, 6: (*parts, RESPONSE_SALT, HARDWARE_ID)}[version]
            signature = (compute_hmac(body.client_time, b"clear"),) if version == 6 else ()
            native = mock.Mock()
            native.pack.return_value = b"clear"
            native.seal.return_value = b"sealed"
            self.use(native)
            sealed = sealed_by(request, body, RESPONSE_SALT, RANDOM, HARDWARE_ID)
            self.assertEqual(sealed, b"sealed")
            native.pack.assert_called_once_with(body, *given)
            native.seal.assert_called_once_with(b"clear", *signature)

    def test_not_sealed(self) -> None:
        """
        What it did not write goes the long way.
        """
        for version in VERSIONS:
            _, request = seal_request(request_of(version), REQUEST_SALT)
            given = (request, response_of(version), RESPONSE_SALT, RANDOM, HARDWARE_ID)
            self.patch(envelopes, "_NATIVE", {})
            expected = sealed_by(*given)
            native = mock.Mock()
            native.pack.return_value = None
            self.use(native)
            self.assertEqual(sealed_by(*given), expected)
            native.pack.assert_called_once()
            native.seal.assert_not_called()

    def test_no_extension(self) -> None:
        """
        Without the extension there are no envelopes in C.
        """
        self.replace_extension(None)
        for name in ("AES instructions (C)", "portable C", "Python"):
            self.assertEqual(native_envelopes(name), {})

    def test_python(self) -> None:
        """
        With the cipher in Python, nothing is done in C; the extension is not even looked for.
        """
        self.replace_extension(ModuleType(EXTENSION))
        self.assertEqual(native_envelopes("Python"), {})

    def test_same_kernel(self) -> None:
        """
        The envelopes use the AES instructions exactly if the cipher does, and the keys of the cipher.
        """
        extension = ModuleType(EXTENSION)
        extension.Envelope = mock.Mock()
        self.replace_extension(extension)
        for name, accelerated in (("AES instructions (C)", True), ("portable C", False)):
            extension.Envelope.reset_mock()
            self.assertEqual(list(native_envelopes(name)), [4, 5, 6])
            calls = extension.Envelope.call_args_list
            self.assertEqual([call.args[0] for call in calls], [4, 5, 6])
            self.assertEqual([call.args[3] for call in calls], [accelerated] * 3)
            self.assertEqual(
                [call.args[2] for call in calls], [None, None, {64: 0x73, 96: 0x09, 128: 0xE4}]
            )

    def test_in_use(self) -> None:
        """
        What is in use is what goes with the cipher that is.
        """
        self.assertEqual(list(envelopes._NATIVE), list(native_envelopes(rijndael.IMPLEMENTATION)))


class ExtensionTests(SynchronousTestCase):
    """
    The class of the extension as Python sees it.
    """

    def setUp(self) -> None:
        """
        Find the class.
        """
        self.native = need_c()
        self.envelope: Any = type(self.native["portable C"][4])

    def refuse(self, *calls: Callable[[], object]) -> None:
        """
        Make calls that fail.
        """
        for call in calls:
            self.assertRaises((TypeError, ValueError, AttributeError), call)

    def use(self, machine: bytes, remains: bytes) -> None:
        """
        Go every way through the code that makes and uses envelopes, the failing ones included.
        """
        for native in self.native.values():
            for version, each in native.items():
                body = request_of(version)._replace(remains=remains)
                payload, request = seal_request(body, REQUEST_SALT)
                answer = response_of(version)
                parts = (machine, request.salt, RANDOM, bytes(32), RESPONSE_SALT, HARDWARE_ID)
                count = {4: 1, 5: 4, 6: 6}[version]
                parts = parts[:count]
                self.assertIsNotNone(each.open(payload, known_guid))
                self.assertIsNotNone(each.open(bytearray(payload), known_guid))
                self.assertIsNone(each.open(payload[:-1], known_guid))
                self.assertIsNone(each.open(flipped(payload, -1), known_guid))
                message = each.pack(answer, *parts)
                self.assertIsNotNone(message)
                each.seal(message)
                each.seal(message, remains)
                for change in (
                    {"epid": "\ud800"},
                    {"epid": "\u20ac"},
                    {"epid": None},
                    {"epid": "\0"},
                    {"client_time": -1},
                    {"client_count": 2**32},
                    {"renewal_interval": None},
                    {"minor_version": 1},
                    {"major_version": version - 1},
                    {"major_version": version + 1},
                ):
                    self.assertIsNone(each.pack(answer._replace(**change), *parts))
                for index in range(count):
                    for wrong in (parts[index] + b"x", parts[index][1:], bytearray(parts[index])):
                        self.assertIsNone(
                            each.pack(answer, *parts[:index], wrong, *parts[index + 1 :])
                        )
                self.refuse(
                    lambda each=each: each.open(),
                    lambda each=each, payload=payload: each.open(payload),
                    lambda each=each: each.open("text", known_guid),
                    lambda each=each: each.open(None, known_guid),
                    lambda each=each, payload=payload: each.open(payload, None),
                    lambda each=each, payload=payload: each.open(payload, UUID),
                    lambda each=each: each.pack(),
                    lambda each=each, answer=answer: each.pack(answer),
                    lambda each=each, answer=answer, parts=parts: each.pack(answer, *parts, b""),
                    lambda each=each, parts=parts: each.pack(None, *parts),
                    lambda each=each, answer=answer, parts=parts: each.pack(answer[:-1], *parts),
                    lambda each=each: each.seal(),
                    lambda each=each: each.seal(b"", b"", b""),
                    lambda each=each: each.seal("text"),
                    lambda each=each: each.seal(b"", None),
                    lambda each=each: each.seal(bytearray(16)),
                )
        self.refuse(
            lambda: self.envelope(),
            lambda: self.envelope(3, KEY, None, False),
            lambda: self.envelope(7, KEY, None, False),
            lambda: self.envelope("4", KEY, None, False),
            lambda: self.envelope(4, KEY + b"x", None, False),
            lambda: self.envelope(4, "text", None, False),
            lambda: self.envelope(4, KEY, {4000: 1}, False),
            lambda: self.envelope(4, KEY, {1: 4000}, False),
            lambda: self.envelope(4, KEY, 5, False),
        )

    def test_uses(self) -> None:
        """
        What is no payload, body or key at all raises; what merely does not fit is left to the long way.
        """
        self.use(bytes(range(16)), b"left behind")

    def test_message_sizes(self) -> None:
        """
        Messages of every size up to 512 bytes are sealed as the cipher does it, and none that is longer.
        """
        for native in self.native.values():
            for length in range(513):
                message = bytes(length)
                self.assertEqual(native[4].seal(message), message + compute_mac(message))
                for version in (5, 6):
                    expected = version_bytes(version) + CIPHERS[version].encrypt_cbc(
                        padded(message)
                    )
                    self.assertEqual(native[version].seal(message), expected)
                    self.assertEqual(
                        native[version].seal(message[: length // 2], message[length // 2 :]),
                        expected,
                    )
            for version in VERSIONS:
                for parts in ((bytes(513),), (bytes(512), b"x"), (b"", bytes(513))):
                    self.assertRaises(ValueError, native[version].seal, *parts)

    def test_no_instructions(self) -> None:
        """
        Where the processor has no AES instructions, none can be asked for.
        """
        if "AES instructions (C)" in self.native:
            self.envelope(4, KEY, None, True)
        else:
            self.assertRaises(ValueError, self.envelope, 4, KEY, None, True)

    def test_function_that_fails(self) -> None:
        """
        What the function that reads GUIDs raises comes through.
        """
        for version in VERSIONS:
            payload, _ = seal_request(request_of(version), REQUEST_SALT)
            for answers in ([KeyError], [None, KeyError], [None] * 3 + [KeyError]):
                for native in self.native.values():
                    failing = mock.Mock(side_effect=answers)
                    self.assertRaises(KeyError, native[version].open, payload, failing)

    def test_no_references_kept(self) -> None:
        """
        Nothing that goes in is held any longer than the call takes, and what comes out belongs to the caller alone.
        """
        held = (self.envelope, bytes(range(16)), b"left behind", known_guid)
        self.use(*held[1:3])
        # The errors are held by the frames that they went through, until the collector comes.
        gc.collect()
        before = [sys.getrefcount(each) for each in held]
        for _ in range(20):
            self.use(*held[1:3])
        gc.collect()
        self.assertEqual([sys.getrefcount(each) for each in held], before)
        for native in self.native.values():
            payload, request = seal_request(request_of(6), REQUEST_SALT)
            opened = native[6].open(payload, known_guid)
            self.assertEqual(sys.getrefcount(opened), 2)
            self.assertEqual(sys.getrefcount(opened[0]), 2)
            self.assertEqual(sys.getrefcount(opened[0][8]), 2)
            sealed = native[6].seal(request.salt)
            self.assertEqual(sys.getrefcount(sealed), 2)

    def test_no_memory_kept(self) -> None:
        """
        Using envelopes over and over leaves no memory behind.
        """
        for _ in range(5):
            self.use(REQUEST_SALT, b"left behind")
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(100):
            self.use(REQUEST_SALT, b"left behind")
        gc.collect()
        # A block or two come and go with the interpreter; one for each round would be a hundred.
        self.assertLess(sys.getallocatedblocks() - before, 80)

    def test_immutable(self) -> None:
        """
        Neither the class nor its objects can be given attributes, and there are no subclasses.
        """
        with self.assertRaises(TypeError):
            self.envelope.open = None
        with self.assertRaises(AttributeError):
            self.envelope(4, KEY, None, False).key = KEY
        self.assertRaises(TypeError, type, "Subclass", (self.envelope,), {})
