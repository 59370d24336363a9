"""
Tests of L{kmsproto.kms.rijndael}.

Three oracles stand beside the cipher: the vectors of FIPS-197 and SP 800-38A, the AES of C{cryptography}, and, for
what no library has, L{Textbook}: FIPS-197 as it is written, with a matrix of bytes for a state and no tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.kms.rijndael import BLOCK_LENGTH, Rijndael
from tests.golden import EXCHANGES, load_exchange

MAC_KEY = bytes.fromhex("053d8307f9e5f088eb5ea6686cf037c7e4efd2d6")
V5_KEY = bytes.fromhex("cd7e796f2ab25dcb55ffc8ef8364c470")
V6_KEY = bytes.fromhex("a94a4195e201432d9bcb460405d84a21")
#: What version 6 changes, as offsets in the expanded key.
V6_ALTERATIONS = {64: 0x73, 96: 0x09, 128: 0xE4}
#: The same, as round keys whose first byte is changed.
V6_ROUNDS = {4: 0x73, 6: 0x09, 8: 0xE4}

blocks = st.binary(min_size=16, max_size=16)
whole_blocks = st.lists(blocks, max_size=6).map(b"".join)
keys = st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=20, max_size=20))
alterations = st.dictionaries(st.integers(0, 175), st.integers(0, 255), max_size=4)


def times(a: int, b: int) -> int:
    """
    Multiply in the field as polynomials (FIPS-197 4.2): the product first, then the remainder.
    """
    product = 0
    for place in range(8):
        if b >> place & 1:
            product ^= a << place
    for place in range(14, 7, -1):
        if product >> place & 1:
            product ^= 0b100011011 << place - 8
    return product


def sub_byte(value: int) -> int:
    """
    Take the inverse, which is the power 254 = 2 + 4 + ... + 128, and map it bit by bit (FIPS-197 5.1.1).
    """
    inverse = 1
    for _ in range(7):
        value = times(value, value)
        inverse = times(inverse, value)
    result = 0
    for i in range(8):
        parity = 0x63 >> i
        for j in (i, i + 4, i + 5, i + 6, i + 7):
            parity ^= inverse >> j % 8
        result |= (parity & 1) << i
    return result


def xor(a: Sequence[int], b: Sequence[int]) -> bytes:
    """
    Add two strings of bytes.
    """
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


class Textbook:
    """
    Rijndael with blocks of 128 bits, any Nk up to 6, and a state of four rows of four bytes.

    @param altered: Round keys whose first byte is changed: what to XOR into it.
    """

    def __init__(self, key: bytes, altered: dict[int, int] | None = None) -> None:
        count = len(key) // 4
        self.rounds = count + 6
        words = [key[4 * i : 4 * i + 4] for i in range(count)]
        constant = 1
        for i in range(count, 4 * (self.rounds + 1)):
            word = words[i - 1]
            if i % count == 0:
                rotated = word[1:] + word[:1]
                word = xor([sub_byte(byte) for byte in rotated], (constant, 0, 0, 0))
                constant = times(constant, 2)
            words.append(xor(words[i - count], word))
        self.round_keys = [
            bytearray(b"".join(words[4 * i : 4 * i + 4])) for i in range(self.rounds + 1)
        ]
        for number, mask in (altered or {}).items():
            self.round_keys[number][0] ^= mask

    def encrypt(self, block: bytes) -> bytes:
        """
        Encrypt one block (FIPS-197 5.1).
        """
        state = [[block[row + 4 * column] for column in range(4)] for row in range(4)]
        self._add(state, 0)
        for number in range(1, self.rounds + 1):
            state = [[sub_byte(byte) for byte in row] for row in state]
            state = [state[row][row:] + state[row][:row] for row in range(4)]
            if number < self.rounds:
                state = self._mixed(state)
            self._add(state, number)
        return bytes(state[row][column] for column in range(4) for row in range(4))

    def encrypt_cbc(self, data: bytes) -> bytes:
        """
        Encrypt whole blocks, chained, from a vector of zero.
        """
        chain = [bytes(16)]
        for start in range(0, len(data), 16):
            chain.append(self.encrypt(xor(data[start : start + 16], chain[-1])))
        return b"".join(chain[1:])

    def _add(self, state: list[list[int]], number: int) -> None:
        for row in range(4):
            for column in range(4):
                state[row][column] ^= self.round_keys[number][row + 4 * column]

    def _mixed(self, state: list[list[int]]) -> list[list[int]]:
        mixed = [[0] * 4 for _ in range(4)]
        for row in range(4):
            for column in range(4):
                for k, factor in enumerate((2, 3, 1, 1)):
                    mixed[row][column] ^= times(factor, state[(row + k) % 4][column])
        return mixed


class PublishedVectorTests(SynchronousTestCase):
    """
    The cipher gives what the standards print.
    """

    def check(self, key: str, clear: str, sealed: str) -> None:
        """
        Compare one block, in both directions, and hold the textbook to it as well.
        """
        cipher = Rijndael(bytes.fromhex(key))
        self.assertEqual(cipher.encrypt_block(bytes.fromhex(clear)).hex(), sealed)
        self.assertEqual(cipher.decrypt_block(bytes.fromhex(sealed)).hex(), clear)
        self.assertEqual(Textbook(bytes.fromhex(key)).encrypt(bytes.fromhex(clear)).hex(), sealed)

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
        silent = Rijndael(key, {160 + place: byte for place, byte in enumerate(last)})
        block = bytes(range(16))
        self.assertEqual(xor(Rijndael(key).encrypt_block(block), silent.encrypt_block(block)), last)

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
        cipher = Rijndael(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
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

    def test_rijndael_160(self) -> None:
        """
        The vector with a 160-bit key that was published for Rijndael, which AES left out.
        """
        self.check(
            "2b7e151628aed2a6abf7158809cf4f3c762e7160",
            "3243f6a8885a308d313198a2e0370734",
            "231d844639b31b412211cfe93712b880",
        )


class KeyTests(SynchronousTestCase):
    """
    The keys that there are.
    """

    def test_other_sizes(self) -> None:
        """
        Keys of sizes whose expansion would be another one are refused.
        """
        for size in (0, 15, 17, 24, 32):
            with self.subTest(size=size):
                self.assertRaises(ValueError, Rijndael, bytes(size))


class AgainstAESTests(SynchronousTestCase):
    """
    With a 128-bit key the cipher is AES as another library has it.
    """

    @given(keys.filter(lambda key: len(key) == 16), whole_blocks)
    def test_cbc(self, key: bytes, data: bytes) -> None:
        """
        Any whole blocks are encrypted and decrypted alike.
        """
        cipher = Rijndael(key)
        other = Cipher(AES(key), CBC(bytes(16)))
        encryptor, decryptor = other.encryptor(), other.decryptor()
        self.assertEqual(cipher.encrypt_cbc(data), encryptor.update(data) + encryptor.finalize())
        self.assertEqual(cipher.decrypt_cbc(data), decryptor.update(data) + decryptor.finalize())

    def test_every_byte(self) -> None:
        """
        Each value of each byte of a block is encrypted and decrypted alike.
        """
        cipher = Rijndael(V5_KEY)
        other = Cipher(AES(V5_KEY), CBC(bytes(16)))
        data = b"".join(
            bytes(place) + bytes((value,)) + bytes(15 - place)
            for place in range(16)
            for value in range(256)
        )
        self.assertEqual(cipher.encrypt_cbc(data), other.encryptor().update(data))
        self.assertEqual(cipher.decrypt_cbc(data), other.decryptor().update(data))


class AgainstTextbookTests(SynchronousTestCase):
    """
    What no library has is what the textbook says.
    """

    @given(st.binary(min_size=20, max_size=20), blocks)
    @settings(max_examples=50)
    def test_160_bits(self, key: bytes, block: bytes) -> None:
        """
        A key of 160 bits gives 11 rounds with the plain key expansion.
        """
        textbook = Textbook(key)
        self.assertEqual(textbook.rounds, 11)
        self.assertEqual(Rijndael(key).encrypt_block(block), textbook.encrypt(block))

    @given(blocks)
    @settings(max_examples=50)
    def test_version_6(self, block: bytes) -> None:
        """
        The altered schedule changes the first byte of the round keys 4, 6 and 8.
        """
        cipher = Rijndael(V6_KEY, V6_ALTERATIONS)
        sealed = Textbook(V6_KEY, V6_ROUNDS).encrypt(block)
        self.assertEqual(cipher.encrypt_block(block), sealed)
        self.assertEqual(cipher.decrypt_block(sealed), block)
        self.assertNotEqual(Rijndael(V6_KEY).encrypt_block(block), sealed)

    def test_every_round_key(self) -> None:
        """
        A byte can be altered in every round key, the first and the last included.
        """
        block = bytes(range(16))
        for number in range(11):
            cipher = Rijndael(V6_KEY, {16 * number: 0x5A})
            sealed = Textbook(V6_KEY, {number: 0x5A}).encrypt(block)
            self.assertEqual(cipher.encrypt_block(block), sealed)
            self.assertEqual(cipher.decrypt_block(sealed), block)

    def test_recorded_macs(self) -> None:
        """
        The recorded MACs of version 4 are the last block of the chain under the 160-bit key, by either hand.
        """
        messages = [
            (pdu.data[start : start + length], pdu.opened["mac"])
            for pdu in load_exchange("v4-ndr")
            for start, length in {"request": [(32, 236)], "response": [(36, 144)]}.get(
                pdu.packet, []
            )
        ]
        self.assertEqual(len(messages), 2)
        textbook = Textbook(MAC_KEY)
        for message, mac in messages:
            padded = message + b"\x80" + bytes(-(len(message) + 1) % 16)
            self.assertEqual(Rijndael(MAC_KEY).encrypt_cbc(padded)[-16:].hex(), mac)
            self.assertEqual(textbook.encrypt_cbc(padded)[-16:].hex(), mac)

    def test_recorded_vectors(self) -> None:
        """
        The recorded vectors of versions 5 and 6 are the salts behind them, encrypted by the textbook.
        """
        textbooks = {5: Textbook(V5_KEY), 6: Textbook(V6_KEY, V6_ROUNDS)}
        found = 0
        for name in EXCHANGES:
            for pdu in load_exchange(name):
                if "iv" in pdu.opened:
                    salt = pdu.opened.get("response_salt") or pdu.opened["request_salt"]
                    textbook = textbooks[pdu.opened["body"]["major"]]
                    self.assertEqual(textbook.encrypt(bytes.fromhex(salt)).hex(), pdu.opened["iv"])
                    found += 1
        self.assertEqual(found, 14)


class RoundTripTests(SynchronousTestCase):
    """
    Decryption undoes encryption, whatever the key and the alterations.
    """

    @given(keys, alterations, blocks)
    def test_block(self, key: bytes, altered: dict[int, int], block: bytes) -> None:
        """
        A block comes back, from either side.
        """
        cipher = Rijndael(key, altered)
        self.assertEqual(cipher.decrypt_block(cipher.encrypt_block(block)), block)
        self.assertEqual(cipher.encrypt_block(cipher.decrypt_block(block)), block)

    @given(keys, alterations, whole_blocks)
    def test_cbc(self, key: bytes, altered: dict[int, int], data: bytes) -> None:
        """
        A chain of blocks comes back and has kept its length.
        """
        cipher = Rijndael(key, altered)
        sealed = cipher.encrypt_cbc(data)
        self.assertEqual(len(sealed), len(data))
        self.assertEqual(cipher.decrypt_cbc(sealed), data)

    def test_chain(self) -> None:
        """
        Each block depends on all before it, and on none behind it.
        """
        cipher = Rijndael(MAC_KEY)
        one = cipher.encrypt_cbc(bytes(48))
        other = cipher.encrypt_cbc(bytes(16) + b"\1" + bytes(31))
        self.assertEqual(one[:BLOCK_LENGTH], other[:BLOCK_LENGTH])
        self.assertNotEqual(one[16:32], other[16:32])
        self.assertNotEqual(one[32:], other[32:])
        self.assertEqual(cipher.encrypt_cbc(bytes(16)), one[:16])

    def test_ciphers_are_apart(self) -> None:
        """
        The alterations of one cipher do not reach another with the same key.
        """
        before = Rijndael(V6_KEY).encrypt_block(bytes(16))
        Rijndael(V6_KEY, V6_ALTERATIONS)
        self.assertEqual(Rijndael(V6_KEY).encrypt_block(bytes(16)), before)
