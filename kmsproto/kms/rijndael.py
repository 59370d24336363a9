"""
The block cipher of KMS: Rijndael with 128-bit blocks, in pure Python.

KMS uses three variants of it.  Version 5 is plain AES-128.  Version 4 takes a 160-bit key, which Rijndael has and AES
left out: the key expansion of FIPS-197 with Nk = 5 and Nr = Nk + 6 = 11.  Version 6 is AES-128 with an altered
schedule: one byte of three round keys is changed after the expansion, for encryption and decryption alike.  No
library offers the last two, so the cipher stands here as a whole.

The round function works on four 32-bit columns with one table look-up for each byte (FIPS-197 section 5, and the
"T-table" form of section 5.2.1 of the Rijndael proposal): a table holds, for each value of a byte, what SubBytes and
MixColumns make of it.  Decryption is the equivalent inverse cipher of FIPS-197 5.3.5, in which the inner round keys
pass through InvMixColumns.  The tables are derived from the field arithmetic once, when the module is loaded.

Source: FIPS-197; "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct

#: Bytes of a block.
BLOCK_LENGTH = 16

_BLOCK = Struct(">4I")


def _multiply(a: int, b: int) -> int:
    """
    Multiply in GF(2**8) modulo x**8 + x**4 + x**3 + x + 1 (FIPS-197 4.2).
    """
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _make_sbox() -> bytes:
    """
    Derive SubBytes: the inverse in the field, then an affine map (FIPS-197 5.1.1).
    """
    # 3 generates the multiplicative group: the inverse of 3**n is 3**(255 - n).
    powers = [1]
    for _ in range(254):
        powers.append(_multiply(powers[-1], 3))
    inverse = {value: powers[-index % 255] for index, value in enumerate(powers)}
    inverse[0] = 0
    sbox = bytearray(256)
    for value, inverted in inverse.items():
        spread = inverted | inverted << 8
        sbox[value] = (
            inverted ^ spread >> 4 ^ spread >> 5 ^ spread >> 6 ^ spread >> 7 ^ 0x63
        ) & 0xFF
    return bytes(sbox)


def _rotate(word: int, count: int) -> int:
    """
    Rotate a 32-bit word right by whole bytes.
    """
    return word >> 8 * count | word << 32 - 8 * count & 0xFFFFFFFF


def _make_tables(substitution: bytes, column: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """
    Derive the four tables of a round: what each byte of a column adds to the new column.

    @param column: The first column of the matrix of MixColumns, or of its inverse.
    """
    first = tuple(
        int.from_bytes(bytes(_multiply(substituted, factor) for factor in column), "big")
        for substituted in substitution
    )
    return tuple(tuple(_rotate(word, count) for word in first) for count in range(4))


_SBOX = _make_sbox()
_INVERSE_SBOX = bytes(_SBOX.index(value) for value in range(256))
_ENCRYPT = _make_tables(_SBOX, (2, 1, 1, 3))
_DECRYPT = _make_tables(_INVERSE_SBOX, (14, 9, 13, 11))


def _substitute_word(word: int) -> int:
    return int.from_bytes(bytes(_SBOX[byte] for byte in word.to_bytes(4, "big")), "big")


def _expand(key: bytes) -> list[int]:
    """
    Expand a key into the words of the schedule (FIPS-197 5.2; for Nk below 7 there is no second SubWord).
    """
    words = [int.from_bytes(key[start : start + 4], "big") for start in range(0, len(key), 4)]
    length = len(words)
    round_constant = 1
    for index in range(length, 4 * (length + 7)):
        word = words[-1]
        if index % length == 0:
            word = _substitute_word(_rotate(word, 3)) ^ round_constant << 24
            round_constant = _multiply(round_constant, 2)
        words.append(words[-length] ^ word)
    return words


def _inverse_mix(word: int) -> int:
    """
    Apply InvMixColumns to one column.  The decryption tables undo SubBytes first, which SubBytes undoes in turn.
    """
    a, b, c, d = (_SBOX[byte] for byte in word.to_bytes(4, "big"))
    return _DECRYPT[0][a] ^ _DECRYPT[1][b] ^ _DECRYPT[2][c] ^ _DECRYPT[3][d]


class Rijndael:
    """
    The cipher with one key.

    @param key: 16 bytes (AES-128) or 20 bytes (160 bits, 11 rounds).
    @param alterations: Bytes of the expanded key to change: what to XOR at which offset.
    @raise ValueError: If the key has another size, for which the expansion would be another one.
    """

    def __init__(self, key: bytes, alterations: Mapping[int, int] | None = None) -> None:
        if len(key) not in (16, 20):
            raise ValueError(f"a key has 16 or 20 bytes, not {len(key)}")
        schedule = bytearray(b"".join(word.to_bytes(4, "big") for word in _expand(key)))
        for offset, mask in (alterations or {}).items():
            schedule[offset] ^= mask
        keys = [
            _BLOCK.unpack_from(schedule, start) for start in range(0, len(schedule), BLOCK_LENGTH)
        ]
        self._encryption = tuple(keys)
        inner = [tuple(map(_inverse_mix, words)) for words in keys[-2:0:-1]]
        self._decryption = (keys[-1], *inner, keys[0])

    def encrypt_block(self, block: bytes) -> bytes:
        """
        Encrypt 16 bytes (FIPS-197 5.1).
        """
        t0, t1, t2, t3 = _ENCRYPT
        sbox = _SBOX
        first, *inner, last = self._encryption
        a, b, c, d = (word ^ key for word, key in zip(_BLOCK.unpack(block), first, strict=True))
        for k0, k1, k2, k3 in inner:
            # Row n of the new column comes from the column n places to the right: ShiftRows.
            a, b, c, d = (
                t0[a >> 24] ^ t1[b >> 16 & 255] ^ t2[c >> 8 & 255] ^ t3[d & 255] ^ k0,
                t0[b >> 24] ^ t1[c >> 16 & 255] ^ t2[d >> 8 & 255] ^ t3[a & 255] ^ k1,
                t0[c >> 24] ^ t1[d >> 16 & 255] ^ t2[a >> 8 & 255] ^ t3[b & 255] ^ k2,
                t0[d >> 24] ^ t1[a >> 16 & 255] ^ t2[b >> 8 & 255] ^ t3[c & 255] ^ k3,
            )
        k0, k1, k2, k3 = last
        return _BLOCK.pack(
            (
                sbox[a >> 24] << 24
                | sbox[b >> 16 & 255] << 16
                | sbox[c >> 8 & 255] << 8
                | sbox[d & 255]
            )
            ^ k0,
            (
                sbox[b >> 24] << 24
                | sbox[c >> 16 & 255] << 16
                | sbox[d >> 8 & 255] << 8
                | sbox[a & 255]
            )
            ^ k1,
            (
                sbox[c >> 24] << 24
                | sbox[d >> 16 & 255] << 16
                | sbox[a >> 8 & 255] << 8
                | sbox[b & 255]
            )
            ^ k2,
            (
                sbox[d >> 24] << 24
                | sbox[a >> 16 & 255] << 16
                | sbox[b >> 8 & 255] << 8
                | sbox[c & 255]
            )
            ^ k3,
        )

    def decrypt_block(self, block: bytes) -> bytes:
        """
        Decrypt 16 bytes (FIPS-197 5.3.5).
        """
        t0, t1, t2, t3 = _DECRYPT
        sbox = _INVERSE_SBOX
        first, *inner, last = self._decryption
        a, b, c, d = (word ^ key for word, key in zip(_BLOCK.unpack(block), first, strict=True))
        for k0, k1, k2, k3 in inner:
            # The same, but the rows are shifted the other way.
            a, b, c, d = (
                t0[a >> 24] ^ t1[d >> 16 & 255] ^ t2[c >> 8 & 255] ^ t3[b & 255] ^ k0,
                t0[b >> 24] ^ t1[a >> 16 & 255] ^ t2[d >> 8 & 255] ^ t3[c & 255] ^ k1,
                t0[c >> 24] ^ t1[b >> 16 & 255] ^ t2[a >> 8 & 255] ^ t3[d & 255] ^ k2,
                t0[d >> 24] ^ t1[c >> 16 & 255] ^ t2[b >> 8 & 255] ^ t3[a & 255] ^ k3,
            )
        k0, k1, k2, k3 = last
        return _BLOCK.pack(
            (
                sbox[a >> 24] << 24
                | sbox[d >> 16 & 255] << 16
                | sbox[c >> 8 & 255] << 8
                | sbox[b & 255]
            )
            ^ k0,
            (
                sbox[b >> 24] << 24
                | sbox[a >> 16 & 255] << 16
                | sbox[d >> 8 & 255] << 8
                | sbox[c & 255]
            )
            ^ k1,
            (
                sbox[c >> 24] << 24
                | sbox[b >> 16 & 255] << 16
                | sbox[a >> 8 & 255] << 8
                | sbox[d & 255]
            )
            ^ k2,
            (
                sbox[d >> 24] << 24
                | sbox[c >> 16 & 255] << 16
                | sbox[b >> 8 & 255] << 8
                | sbox[a & 255]
            )
            ^ k3,
        )

    def encrypt_cbc(self, data: bytes) -> bytes:
        """
        Encrypt whole blocks, chained, with an initialization vector of zero (SP 800-38A 6.2).

        @param data: A multiple of 16 bytes.
        """
        blocks = []
        previous = 0
        for start in range(0, len(data), BLOCK_LENGTH):
            chained = int.from_bytes(data[start : start + BLOCK_LENGTH], "big") ^ previous
            block = self.encrypt_block(chained.to_bytes(BLOCK_LENGTH, "big"))
            blocks.append(block)
            previous = int.from_bytes(block, "big")
        return b"".join(blocks)

    def decrypt_cbc(self, data: bytes) -> bytes:
        """
        Decrypt what L{encrypt_cbc} made.

        @param data: A multiple of 16 bytes.
        """
        blocks = []
        previous = 0
        for start in range(0, len(data), BLOCK_LENGTH):
            block = data[start : start + BLOCK_LENGTH]
            decrypted = int.from_bytes(self.decrypt_block(block), "big") ^ previous
            blocks.append(decrypted.to_bytes(BLOCK_LENGTH, "big"))
            previous = int.from_bytes(block, "big")
        return b"".join(blocks)
