"""
How L{kmsproto.kms.rijndael} chooses, and that what it may choose from C gives back what it takes.

The extension may be built or not, and the processor may have AES instructions or not; each case is brought about by
putting something else where the import looks for the extension.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from collections.abc import Callable
from types import ModuleType
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms import rijndael
from kmsproto.kms.rijndael import (
    Cipher,
    Rijndael,
    UnknownCipherError,
    choose_implementation,
    implementations,
)
from kmsproto.kms.rijndael_tables import TableRijndael
from tests.kms.textbook import MAC_KEY, V6_ALTERATIONS, V6_KEY
from tests.kms.ways import ExtensionCase, need_c

EXTENSION = "kmsproto.kms._rijndael"


class ChoiceTests(ExtensionCase):
    """
    Which implementation is in use.
    """

    extension = "_rijndael"

    def load_again(self, **environment: str) -> dict[str, object]:
        """
        Run the module once more, beside the one that is in use.

        @return: Its names.
        """
        with mock.patch.dict(os.environ, environment):
            return runpy.run_path(rijndael.__file__)

    def test_fastest(self) -> None:
        """
        With the extension, on a processor with AES instructions, they are what is used.
        """
        extension = ModuleType(EXTENSION)
        extension.AcceleratedRijndael = accelerated = type("Accelerated", (TableRijndael,), {})
        extension.PortableRijndael = portable = type("Portable", (TableRijndael,), {})
        self.replace_extension(extension)
        self.assertEqual(
            list(implementations().items()),
            [
                ("AES instructions (C)", accelerated),
                ("portable C", portable),
                ("Python", TableRijndael),
            ],
        )
        self.assertEqual(choose_implementation(""), ("AES instructions (C)", accelerated))

    def test_no_instructions(self) -> None:
        """
        With the extension, on another processor, portable C is used.
        """
        extension = ModuleType(EXTENSION)
        extension.PortableRijndael = portable = type("Portable", (TableRijndael,), {})
        self.replace_extension(extension)
        self.assertEqual(list(implementations()), ["portable C", "Python"])
        self.assertEqual(choose_implementation(""), ("portable C", portable))

    def test_no_extension(self) -> None:
        """
        Without the extension the cipher is pure Python, and nothing else can be asked for.
        """
        self.replace_extension(None)
        self.assertEqual(implementations(), {"Python": TableRijndael})
        self.assertEqual(choose_implementation(""), ("Python", TableRijndael))
        self.assertRaises(UnknownCipherError, choose_implementation, "portable C")
        module = self.load_again(KMSPROTO_CIPHER="")
        self.assertEqual((module["IMPLEMENTATION"], module["Rijndael"]), ("Python", TableRijndael))

    def test_by_name(self) -> None:
        """
        Each implementation can be asked for by its name, however that is written.
        """
        for name, implementation in implementations().items():
            for wish in (name, name.upper(), name.lower()):
                self.assertEqual(choose_implementation(wish), (name, implementation))

    def test_unknown_name(self) -> None:
        """
        A name that there is not is refused with those that there are.
        """
        with self.assertRaises(UnknownCipherError) as caught:
            choose_implementation("rot13")
        text = str(caught.exception)
        self.assertTrue(text.startswith("KMSPROTO_CIPHER is 'rot13'; here it may be one of: "))
        self.assertTrue(text.endswith(", ".join(implementations())))

    def test_environment(self) -> None:
        """
        The environment names the implementation when the module is loaded.
        """
        module = self.load_again(KMSPROTO_CIPHER="python")
        self.assertEqual((module["IMPLEMENTATION"], module["Rijndael"]), ("Python", TableRijndael))
        # The interpreter prints the code of this one, and no traceback.
        end = self.assertRaises(SystemExit, self.load_again, KMSPROTO_CIPHER="rot13")
        self.assertEqual(end.code, f"kmsproto: {end.args[0]}")

    def test_in_use(self) -> None:
        """
        The name that is published is that of the class that is.
        """
        self.assertIs(implementations()[rijndael.IMPLEMENTATION], Rijndael)


class ExtensionTests(SynchronousTestCase):
    """
    The classes of the extension as Python sees them.
    """

    def setUp(self) -> None:
        """
        Find the classes.
        """
        need_c()
        everything = implementations()
        self.classes = [cls for name, cls in everything.items() if name != "Python"]

    def refuse(self, *calls: Callable[[], object]) -> None:
        """
        Make calls that fail.
        """
        for call in calls:
            self.assertRaises((TypeError, ValueError, AttributeError), call)

    def use(self, implementation: type[Cipher], key: bytes, data: bytes, odd: bytes) -> None:
        """
        Go every way through the code that makes and uses a cipher, the failing ones included.
        """
        cipher = implementation(key, V6_ALTERATIONS)
        like_bytes = bytearray(data)
        for given in (data, like_bytes):
            cipher.encrypt_cbc(given)
            cipher.decrypt_cbc(given)
            cipher.mac(given)
        # An array of bytes that is still lent out could not grow.
        like_bytes.append(0)
        cipher.encrypt_block(key[:16])
        cipher.decrypt_block(key[:16])
        self.refuse(
            lambda: cipher.encrypt_cbc(odd),
            lambda: cipher.encrypt_cbc(like_bytes),
            lambda: cipher.encrypt_block(data),
            lambda: cipher.mac(b""),
            lambda: cipher.mac(None),
            lambda: implementation(odd),
            lambda: implementation(key, {4000: 1}),
            lambda: implementation(key, {1: 4000}),
            lambda: implementation(key, {"1": 1}),
            lambda: implementation(key, {1: "1"}),
            lambda: implementation(key, 5),
        )
        like_bytes.append(0)

    def test_no_references_kept(self) -> None:
        """
        Nothing that goes in is held any longer than the call takes.
        """
        for implementation in self.classes:
            held = (implementation, MAC_KEY, bytes(64), bytes(65), V6_ALTERATIONS)
            self.use(*held[:4])
            # The errors are held by the frames that they went through, until the collector comes.
            gc.collect()
            before = [sys.getrefcount(each) for each in held]
            for _ in range(100):
                self.use(*held[:4])
            gc.collect()
            self.assertEqual([sys.getrefcount(each) for each in held], before)

    def test_no_memory_kept(self) -> None:
        """
        Using ciphers over and over leaves no memory behind.
        """
        for implementation in self.classes:
            held = (implementation, MAC_KEY, bytes(64), bytes(65))
            for _ in range(10):
                self.use(*held)
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(1000):
                self.use(*held)
            gc.collect()
            # A block or two come and go with the interpreter; one for each call would be a thousand.
            self.assertLess(sys.getallocatedblocks() - before, 500)

    def test_results_are_new(self) -> None:
        """
        What comes out belongs to the caller alone.
        """
        for implementation in self.classes:
            sealed = implementation(V6_KEY).encrypt_cbc(bytes(64))
            self.assertEqual(sys.getrefcount(sealed), 2)

    def test_immutable(self) -> None:
        """
        Neither the classes nor their objects can be given attributes, and there are no subclasses.
        """
        for implementation in self.classes:
            with self.assertRaises(TypeError):
                implementation.mac = None
            with self.assertRaises(AttributeError):
                implementation(V6_KEY).key = V6_KEY
            self.assertRaises(TypeError, type, "Subclass", (implementation,), {})
