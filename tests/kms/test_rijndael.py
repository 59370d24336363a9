"""
Tests of L{kmsproto.kms.rijndael} and of all that it may choose.

One set of tests, L{CipherTests}, holds every implementation, each in a class of its own.  What is true of any key and
any data is a property, in which every implementation that works here takes part.

Three oracles stand beside the cipher: the vectors of FIPS-197 and SP 800-38A, the AES of C{cryptography}, and, for
what no library has, L{Textbook<tests.kms.textbook.Textbook>}.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher as OtherCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kmsproto.kms.rijndael import BLOCK_LENGTH, Cipher, implementations
from tests.golden import EXCHANGES, load_exchange
from tests.kms.textbook import (
    MAC_KEY,
    V5_KEY,
    V6_ALTERATIONS,
    V6_KEY,
    V6_ROUNDS,
    Textbook,
    xor,
)
from tests.kms.ways import unbuilt

CIPHERS = tuple(implementations().values())

blocks = st.binary(min_size=16, max_size=16)
#: Up to what two steps of four blocks and a rest are.
whole_blocks = st.lists(blocks, max_size=11).map(b"".join)
short_keys = st.binary(min_size=16, max_size=16)
long_keys = st.binary(min_size=20, max_size=20)
keys = st.one_of(short_keys, long_keys)
alterations = st.dictionaries(st.integers(0, 175), st.integers(0, 255), max_size=4)


class CipherTests:
    """
    What holds for each implementation.

    @cvar name: The one that is tested, by what L{implementations} calls it.
    """

    name: str

    def setUp(self) -> None:
        """
        Find the class, if it is there.
        """
        super().setUp()
        if self.name not in implementations():
            if PortableTests.name in implementations():
                raise SkipTest("this processor has no AES instructions; the other two are tested")
            raise unbuilt("the extension was not built here; Python does its work")
        self.Rijndael: type[Cipher] = implementations()[self.name]

    def check(self, key: str, clear: str, sealed: str) -> None:
        """
        Compare one block, in both directions, and hold the textbook to it as well.
        """
        cipher = self.Rijndael(bytes.fromhex(key))
        self.assertEqual(cipher.encrypt_block(bytes.fromhex(clear)).hex(), sealed)
        self.assertEqual(cipher.decrypt_block(bytes.fromhex(sealed)).hex(), clear)
        self.assertEqual(Textbook(bytes.fromhex(key)).encrypt(bytes.fromhex(clear)).hex(), sealed)

    def assert_refused(
        self, text: str, function: Callable[..., object], *arguments: object
    ) -> None:
        """
        A call is refused with a text, which is the same in each implementation.
        """
        with self.assertRaises(ValueError) as caught:
            function(*arguments)
        self.assertEqual(str(caught.exception), text)

    def test_fips_197_appendix_b(self) -> None:
        """
        The worked example of FIPS-197 appendix B, whose key is the one that appendix A.1 expands.
        """
        self.check(
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        )

    def test_fips_197_appendix_a(self) -> None:
        """
        The last round key is the one that FIPS-197 appendix A.1 prints.
        """
        key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
        last = bytes.fromhex("d014f9a8c9ee2589e13f0cc8b6630ca6")
        self.assertEqual(bytes(Textbook(key).round_keys[10]), last)
        # XORing the last round key with itself leaves the state before it, so the outputs differ by just that key.
        silent = self.Rijndael(key, {160 + place: byte for place, byte in enumerate(last)})
        block = bytes(range(16))
        self.assertEqual(
            xor(self.Rijndael(key).encrypt_block(block), silent.encrypt_block(block)), last
        )

    def test_fips_197_appendix_c(self) -> None:
        """
        The example vector of FIPS-197 appendix C.1.
        """
        self.check(
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        )

    def test_sp_800_38a_ecb(self) -> None:
        """
        The single blocks of SP 800-38A F.1.1 and F.1.2.
        """
        for clear, sealed in (
            ("6bc1bee22e409f96e93d7e117393172a", "3ad77bb40d7a3660a89ecaf32466ef97"),
            ("ae2d8a571e03ac9c9eb76fac45af8e51", "f5d3d58503b9699de785895a96fdbaaf"),
            ("30c81c46a35ce411e5fbc1191a0a52ef", "43b1cd7f598ece23881b00e3ed030688"),
            ("f69f2445df4f9b17ad2b417be66c3710", "7b0c785e27e8ad3f8223207104725dd4"),
        ):
            self.check("2b7e151628aed2a6abf7158809cf4f3c", clear, sealed)

    def test_sp_800_38a_cbc(self) -> None:
        """
        The chained blocks of SP 800-38A F.2.1 and F.2.2; a first block that encrypts to the vector stands for it.
        """
        cipher = self.Rijndael(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
        vector = bytes(range(16))
        clear = bytes.fromhex(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
        )
        sealed = bytes.fromhex(
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
            "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
        )
        first = cipher.decrypt_block(vector)
        self.assertEqual(cipher.encrypt_cbc(first + clear), vector + sealed)
        self.assertEqual(cipher.decrypt_cbc(vector + sealed), first + clear)
        self.assertEqual(cipher.mac(first + clear), sealed[-16:])

    def test_rijndael_160(self) -> None:
        """
        The vector with a 160-bit key that was published for Rijndael, which AES left out.
        """
        self.check(
            "2b7e151628aed2a6abf7158809cf4f3c762e7160",
            "3243f6a8885a308d313198a2e0370734",
            "231d844639b31b412211cfe93712b880",
        )

    def test_every_byte(self) -> None:
        """
        Each value of each byte of a block is encrypted and decrypted as another library does it.
        """
        cipher = self.Rijndael(V5_KEY)
        other = OtherCipher(AES(V5_KEY), CBC(bytes(16)))
        data = b"".join(
            bytes(place) + bytes((value,)) + bytes(15 - place)
            for place in range(16)
            for value in range(256)
        )
        self.assertEqual(cipher.encrypt_cbc(data), other.encryptor().update(data))
        self.assertEqual(cipher.decrypt_cbc(data), other.decryptor().update(data))

    def test_every_round_key(self) -> None:
        """
        A byte can be altered in every round key, the first and the last included.
        """
        block = bytes(range(16))
        for key in (V6_KEY, MAC_KEY):
            for number in range(len(key) // 4 + 7):
                cipher = self.Rijndael(key, {16 * number: 0x5A})
                sealed = Textbook(key, {number: 0x5A}).encrypt(block)
                self.assertEqual(cipher.encrypt_block(block), sealed)
                self.assertEqual(cipher.decrypt_block(sealed), block)

    def test_altered_schedule(self) -> None:
        """
        The schedule of version 6 is another one than the plain one of its key.
        """
        altered = self.Rijndael(V6_KEY, V6_ALTERATIONS).encrypt_block(bytes(16))
        self.assertEqual(altered, Textbook(V6_KEY, V6_ROUNDS).encrypt(bytes(16)))
        self.assertNotEqual(altered, self.Rijndael(V6_KEY).encrypt_block(bytes(16)))

    def test_no_alterations(self) -> None:
        """
        No alterations are none, whether there is no mapping or nothing in it, and so is a mask of zero.
        """
        sealed = {
            self.Rijndael(V6_KEY, none).encrypt_block(bytes(16)) for none in (None, {}, {175: 0})
        }
        self.assertEqual(len(sealed), 1)

    def test_by_name(self) -> None:
        """
        The arguments have names.
        """
        cipher = self.Rijndael(key=V6_KEY, alterations=V6_ALTERATIONS)
        self.assertEqual(
            cipher.encrypt_block(bytes(16)),
            self.Rijndael(V6_KEY, V6_ALTERATIONS).encrypt_block(bytes(16)),
        )

    def test_recorded_macs(self) -> None:
        """
        The recorded MACs of version 4 are the last block of the chain under the 160-bit key.
        """
        messages = [
            (pdu.data[start : start + length], pdu.opened["mac"])
            for pdu in load_exchange("v4-ndr")
            for start, length in {"request": [(32, 236)], "response": [(36, 144)]}.get(
                pdu.packet, []
            )
        ]
        self.assertEqual(len(messages), 2)
        for message, mac in messages:
            padded = message + b"\x80" + bytes(-(len(message) + 1) % 16)
            self.assertEqual(self.Rijndael(MAC_KEY).mac(padded).hex(), mac)
            self.assertEqual(self.Rijndael(MAC_KEY).encrypt_cbc(padded)[-16:].hex(), mac)

    def test_recorded_vectors(self) -> None:
        """
        The recorded vectors of versions 5 and 6 are the salts behind them, encrypted.
        """
        ciphers = {5: self.Rijndael(V5_KEY), 6: self.Rijndael(V6_KEY, V6_ALTERATIONS)}
        found = 0
        for name in EXCHANGES:
            for pdu in load_exchange(name):
                if "iv" in pdu.opened:
                    salt = pdu.opened.get("response_salt") or pdu.opened["request_salt"]
                    cipher = ciphers[pdu.opened["body"]["major"]]
                    self.assertEqual(
                        cipher.encrypt_block(bytes.fromhex(salt)).hex(), pdu.opened["iv"]
                    )
                    found += 1
        self.assertEqual(found, 14)

    def test_chain(self) -> None:
        """
        Each block depends on all before it, and on none behind it.
        """
        cipher = self.Rijndael(MAC_KEY)
        one = cipher.encrypt_cbc(bytes(48))
        other = cipher.encrypt_cbc(bytes(16) + b"\1" + bytes(31))
        self.assertEqual(one[:BLOCK_LENGTH], other[:BLOCK_LENGTH])
        self.assertNotEqual(one[16:32], other[16:32])
        self.assertNotEqual(one[32:], other[32:])
        self.assertEqual(cipher.encrypt_cbc(bytes(16)), one[:16])

    def test_no_blocks(self) -> None:
        """
        Nothing is encrypted to nothing, but has no MAC.
        """
        cipher = self.Rijndael(MAC_KEY)
        self.assertEqual(cipher.encrypt_cbc(b""), b"")
        self.assertEqual(cipher.decrypt_cbc(b""), b"")
        self.assert_refused("there is no MAC of no blocks", cipher.mac, b"")

    def test_ciphers_are_apart(self) -> None:
        """
        The alterations of one cipher do not reach another with the same key.
        """
        before = self.Rijndael(V6_KEY).encrypt_block(bytes(16))
        self.Rijndael(V6_KEY, V6_ALTERATIONS)
        self.assertEqual(self.Rijndael(V6_KEY).encrypt_block(bytes(16)), before)

    def test_input_stays(self) -> None:
        """
        What is encrypted, decrypted or made into a key is not changed.
        """
        data = bytearray(range(80))
        key = bytearray(V6_KEY)
        cipher = self.Rijndael(key)
        for function in (cipher.encrypt_cbc, cipher.decrypt_cbc, cipher.mac):
            function(data)
        self.assertEqual((bytes(data), bytes(key)), (bytes(range(80)), V6_KEY))

    def test_like_bytes(self) -> None:
        """
        What is like bytes is taken for bytes, and what comes out is bytes.
        """
        cipher = self.Rijndael(V5_KEY)
        data = bytes(range(160))
        for function in (cipher.encrypt_cbc, cipher.decrypt_cbc, cipher.mac):
            expected = function(data)
            for like in (bytearray(data), memoryview(data), memoryview(b"-" + data)[1:]):
                found = function(like)
                self.assertEqual(found, expected)
                self.assertIs(type(found), bytes)

    def test_other_key_sizes(self) -> None:
        """
        Keys of sizes whose expansion would be another one are refused.
        """
        for size in (0, 15, 17, 19, 21, 24, 32):
            with self.subTest(size=size):
                self.assert_refused(
                    f"a key has 16 or 20 bytes, not {size}", self.Rijndael, bytes(size)
                )

    def test_alterations_outside(self) -> None:
        """
        A byte that the expanded key has not cannot be altered; a longer key has more.
        """
        self.Rijndael(V6_KEY, {175: 1})
        self.Rijndael(MAC_KEY, {191: 1})
        for key, size in ((V6_KEY, 176), (MAC_KEY, 192)):
            for offset in (-1, size, 2**31, 2**63, -(2**63), 2**70):
                with self.subTest(size=size, offset=offset):
                    self.assert_refused(
                        f"the expanded key has {size} bytes, and none at {offset}",
                        self.Rijndael,
                        key,
                        {0: 1, offset: 1},
                    )

    def test_alterations_that_are_no_bytes(self) -> None:
        """
        A byte cannot be altered by what is none.
        """
        for mask in (-1, 256, 2**31, 2**70):
            with self.subTest(mask=mask):
                self.assert_refused(
                    f"a byte is altered by 0 to 255, not by {mask}",
                    self.Rijndael,
                    V6_KEY,
                    {0: mask},
                )

    def test_other_block_sizes(self) -> None:
        """
        Anything but 16 bytes is no block.
        """
        cipher = self.Rijndael(V6_KEY)
        for size in (0, 1, 15, 17, 32):
            with self.subTest(size=size):
                text = f"a block has 16 bytes, not {size}"
                self.assert_refused(text, cipher.encrypt_block, bytes(size))
                self.assert_refused(text, cipher.decrypt_block, bytes(size))
                self.assert_refused(text, cipher.decrypt_block, bytearray(size))

    def test_no_whole_blocks(self) -> None:
        """
        A chain of blocks is refused when its last block is not whole.
        """
        cipher = self.Rijndael(V6_KEY)
        for size in (1, 15, 17, 31, 255, 257):
            with self.subTest(size=size):
                text = f"{size} bytes are no whole blocks"
                for function in (cipher.encrypt_cbc, cipher.decrypt_cbc, cipher.mac):
                    self.assert_refused(text, function, bytes(size))
                    self.assert_refused(text, function, bytearray(size))

    def test_other_types(self) -> None:
        """
        What is not like bytes, and what maps no integers, is a mistake of another kind.
        """
        cipher = self.Rijndael(V6_KEY)
        for function in (
            cipher.encrypt_block,
            cipher.decrypt_block,
            cipher.encrypt_cbc,
            cipher.decrypt_cbc,
            cipher.mac,
        ):
            for wrong in ("0123456789abcdef", 16, None):
                self.assertRaises(TypeError, function, wrong)
        self.assertRaises(TypeError, self.Rijndael)
        self.assertRaises(TypeError, self.Rijndael, "0123456789abcdef")
        self.assertRaises(TypeError, self.Rijndael, V6_KEY, {"0": 1})
        self.assertRaises(TypeError, self.Rijndael, V6_KEY, {0: "1"})
        self.assertRaises(AttributeError, self.Rijndael, V6_KEY, 5)


class AcceleratedTests(CipherTests, SynchronousTestCase):
    """
    The AES instructions of the processor.
    """

    name = "AES instructions (C)"


class PortableTests(CipherTests, SynchronousTestCase):
    """
    The C that any compiler understands.
    """

    name = "portable C"


class PythonTests(CipherTests, SynchronousTestCase):
    """
    The implementation that is always there.
    """

    name = "Python"


class PropertyTests(SynchronousTestCase):
    """
    What is true of any key and any data, in all implementations that work here.
    """

    @given(short_keys, whole_blocks)
    def test_aes(self, key: bytes, data: bytes) -> None:
        """
        With a 128-bit key the cipher is AES as another library has it.
        """
        other = OtherCipher(AES(key), CBC(bytes(16)))
        encryptor, decryptor = other.encryptor(), other.decryptor()
        sealed = encryptor.update(data) + encryptor.finalize()
        opened = decryptor.update(data) + decryptor.finalize()
        for implementation in CIPHERS:
            cipher = implementation(key)
            self.assertEqual(cipher.encrypt_cbc(data), sealed)
            self.assertEqual(cipher.decrypt_cbc(data), opened)

    @given(long_keys, blocks)
    @settings(max_examples=50)
    def test_160_bits(self, key: bytes, block: bytes) -> None:
        """
        A key of 160 bits gives 11 rounds with the plain key expansion.
        """
        textbook = Textbook(key)
        self.assertEqual(textbook.rounds, 11)
        sealed = textbook.encrypt(block)
        for implementation in CIPHERS:
            self.assertEqual(implementation(key).encrypt_block(block), sealed)
            self.assertEqual(implementation(key).decrypt_block(sealed), block)

    @given(blocks)
    @settings(max_examples=50)
    def test_version_6(self, block: bytes) -> None:
        """
        The altered schedule changes the first byte of the round keys 4, 6 and 8.
        """
        sealed = Textbook(V6_KEY, V6_ROUNDS).encrypt(block)
        for implementation in CIPHERS:
            cipher = implementation(V6_KEY, V6_ALTERATIONS)
            self.assertEqual(cipher.encrypt_block(block), sealed)
            self.assertEqual(cipher.decrypt_block(sealed), block)

    @given(keys, alterations, whole_blocks)
    def test_agreement(self, key: bytes, altered: dict[int, int], data: bytes) -> None:
        """
        All implementations agree on everything, whatever is altered.
        """
        ciphers = [implementation(key, altered) for implementation in CIPHERS]
        sealed = {cipher.encrypt_cbc(data) for cipher in ciphers}
        self.assertEqual(len(sealed), 1)
        self.assertEqual(len({cipher.decrypt_cbc(data) for cipher in ciphers}), 1)
        if data:
            self.assertEqual({cipher.mac(data) for cipher in ciphers}, {sealed.pop()[-16:]})

    @given(keys, alterations, whole_blocks)
    def test_there_and_back(self, key: bytes, altered: dict[int, int], data: bytes) -> None:
        """
        Decryption undoes encryption and the other way round, and nothing changes its length.
        """
        for implementation in CIPHERS:
            cipher = implementation(key, altered)
            sealed, opened = cipher.encrypt_cbc(data), cipher.decrypt_cbc(data)
            self.assertEqual((len(sealed), len(opened)), (len(data), len(data)))
            self.assertEqual(cipher.decrypt_cbc(sealed), data)
            self.assertEqual(cipher.encrypt_cbc(opened), data)

    @given(keys, alterations, blocks)
    def test_block(self, key: bytes, altered: dict[int, int], block: bytes) -> None:
        """
        A block is a chain of one, from either side.
        """
        for implementation in CIPHERS:
            cipher = implementation(key, altered)
            self.assertEqual(cipher.encrypt_block(block), cipher.encrypt_cbc(block))
            self.assertEqual(cipher.decrypt_block(block), cipher.decrypt_cbc(block))
            self.assertEqual(cipher.mac(block), cipher.encrypt_block(block))
