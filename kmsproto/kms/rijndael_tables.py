"""
The block cipher of KMS in pure Python, for where nothing could be compiled.

Blocks that are encrypted in a chain have to wait for each other, so the rounds of one have to be short: they work on
four 32-bit columns with one look-up for each byte (the "T-table" form of section 5.2.1 of the Rijndael proposal).  A
table holds, for each value of a byte, what SubBytes and MixColumns make of it.

Blocks that are decrypted do not wait, so all of a chain go through each step together.  Their bytes are sorted by the
place in the block: row 0 of all blocks comes first, column by column, then row 1.  SubBytes is then one
C{bytes.translate} for all, a row is shifted by cutting it in two, and keys are added to one large integer.  The rounds
are those of the equivalent inverse cipher (FIPS-197 5.3.5), in which the inner round keys pass through InvMixColumns.

The tables are derived from the field arithmetic once, when the module is loaded.  What the methods take, give and
raise is said by L{kmsproto.kms.rijndael.Cipher}.

Source: FIPS-197.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_BLOCK_LENGTH = 16
_BLOCK = struct.Struct(">4I")

#: Where the bytes of a block, which come column by column, lie when they are sorted by rows.
_BY_ROWS = tuple(4 * column + row for row in range(4) for column in range(4))


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

    @param column: The first column of the matrix of MixColumns.
    """
    first = tuple(
        int.from_bytes(bytes(_multiply(substituted, factor) for factor in column), "big")
        for substituted in substitution
    )
    return tuple(tuple(_rotate(word, count) for word in first) for count in range(4))


_SBOX = _make_sbox()
_INVERSE_SBOX = bytes(_SBOX.index(value) for value in range(256))
_ENCRYPT = _make_tables(_SBOX, (2, 1, 1, 3))
#: What InvSubBytes and InvMixColumns make of a byte for a row: of that row itself, and of the three below it.
_DECRYPT = tuple(
    bytes(_multiply(value, factor) for value in _INVERSE_SBOX) for factor in (14, 11, 13, 9)
)


def _substitute_word(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "big").translate(_SBOX), "big")


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


def _alter(schedule: bytearray, alterations: Mapping[int, int]) -> None:
    """
    Change bytes of the expanded key.
    """
    for offset, mask in alterations.items():
        if not 0 <= offset < len(schedule):
            raise ValueError(f"the expanded key has {len(schedule)} bytes, and none at {offset}")
        if not 0 <= mask <= 255:
            raise ValueError(f"a byte is altered by 0 to 255, not by {mask}")
        schedule[offset] ^= mask


def _inverse_mix(rows: bytes) -> int:
    """
    Apply InvSubBytes and InvMixColumns to bytes that are sorted by rows.
    """
    size = len(rows)
    # Twice the rows, so that the rows below the last are the first ones.
    twice = rows + rows
    mixed = 0
    for row, table in enumerate(_DECRYPT):
        start = row * size // 4
        mixed ^= int.from_bytes(twice[start : start + size].translate(table), "big")
    return mixed


def _inverse_shift(rows: bytes) -> bytes:
    """
    Apply InvShiftRows to bytes that are sorted by rows: row n moves to the right by n columns.
    """
    column = len(rows) // 16
    return b"".join(
        (
            rows[: 4 * column],
            rows[7 * column : 8 * column],
            rows[4 * column : 7 * column],
            rows[10 * column : 12 * column],
            rows[8 * column : 10 * column],
            rows[13 * column :],
            rows[12 * column : 13 * column],
        )
    )


def _check_block(block: bytes) -> None:
    if len(block) != _BLOCK_LENGTH:
        raise ValueError(f"a block has {_BLOCK_LENGTH} bytes, not {len(block)}")


def _check_blocks(data: bytes) -> None:
    if len(data) % _BLOCK_LENGTH:
        raise ValueError(f"{len(data)} bytes are no whole blocks")


class TableRijndael:
    """
    The cipher with one key.

    @param key: 16 bytes (AES-128) or 20 bytes (160 bits, 11 rounds).
    @param alterations: Bytes of the expanded key to change: what to XOR at which offset.
    @raise ValueError: If the key, an offset or what to XOR is none.
    """

    def __init__(self, key: bytes, alterations: Mapping[int, int] | None = None) -> None:
        if len(key) not in (16, 20):
            raise ValueError(f"a key has 16 or 20 bytes, not {len(key)}")
        schedule = bytearray(b"".join(word.to_bytes(4, "big") for word in _expand(key)))
        if alterations is not None:
            _alter(schedule, alterations)
        self._encryption = tuple(_BLOCK.iter_unpack(schedule))
        first, *inner, last = (
            bytes(schedule[start + place] for place in _BY_ROWS)
            for start in range(0, len(schedule), _BLOCK_LENGTH)
        )
        # InvMixColumns comes with InvSubBytes here, which SubBytes undoes beforehand.
        mixed = (_inverse_mix(key.translate(_SBOX)).to_bytes(16, "big") for key in inner[::-1])
        # A table for bytes.translate has 256 values.
        self._decryption = tuple(key.ljust(256, b"\0") for key in (last, *mixed, first))

    def encrypt_block(self, block: bytes, /) -> bytes:
        """
        Encrypt 16 bytes.
        """
        _check_block(block)
        return self.encrypt_cbc(block)

    def decrypt_block(self, block: bytes, /) -> bytes:
        """
        Decrypt 16 bytes.
        """
        _check_block(block)
        return self.decrypt_cbc(block)

    def encrypt_cbc(self, data: bytes, /) -> bytes:
        """
        Encrypt whole blocks, chained (FIPS-197 5.1).
        """
        _check_blocks(data)
        t0, t1, t2, t3 = _ENCRYPT
        (f0, f1, f2, f3), *inner, (l0, l1, l2, l3) = self._encryption
        pack = _BLOCK.pack
        words: list[int] = []
        a = b = c = d = 0
        for w0, w1, w2, w3 in _BLOCK.iter_unpack(data):
            a ^= w0 ^ f0
            b ^= w1 ^ f1
            c ^= w2 ^ f2
            d ^= w3 ^ f3
            for k0, k1, k2, k3 in inner:
                # Byte rRC stands in row R and column C.
                r00, r10, r20, r30, r01, r11, r21, r31, r02, r12, r22, r32, r03, r13, r23, r33 = (
                    pack(a, b, c, d)
                )
                # Row n of the new column comes from the column n places to the right: ShiftRows.
                a = t0[r00] ^ t1[r11] ^ t2[r22] ^ t3[r33] ^ k0
                b = t0[r01] ^ t1[r12] ^ t2[r23] ^ t3[r30] ^ k1
                c = t0[r02] ^ t1[r13] ^ t2[r20] ^ t3[r31] ^ k2
                d = t0[r03] ^ t1[r10] ^ t2[r21] ^ t3[r32] ^ k3
            substituted = pack(a, b, c, d).translate(_SBOX)
            # Every fifth byte, around and around, is ShiftRows too: one column to the right and one row down.
            a, b, c, d = _BLOCK.unpack((substituted * 5)[::5])
            a ^= l0
            b ^= l1
            c ^= l2
            d ^= l3
            words += a, b, c, d
        return struct.pack(f">{len(words)}I", *words)

    def decrypt_cbc(self, data: bytes, /) -> bytes:
        """
        Decrypt what L{encrypt_cbc} made (FIPS-197 5.3.5).
        """
        _check_blocks(data)
        # Not all that is like bytes can be taken in steps.
        data = bytes(data)
        size = len(data)
        blocks = size // _BLOCK_LENGTH
        # Each byte of a key as often as there are blocks.
        places = b"".join([bytes((place,)) * blocks for place in range(_BLOCK_LENGTH)])
        first, *inner, last = (
            int.from_bytes(places.translate(key), "big") for key in self._decryption
        )
        rows = b"".join([data[place::_BLOCK_LENGTH] for place in _BY_ROWS])
        state = int.from_bytes(rows, "big") ^ first
        for key in inner:
            state = _inverse_mix(_inverse_shift(state.to_bytes(size, "big"))) ^ key
        substituted = _inverse_shift(state.to_bytes(size, "big")).translate(_INVERSE_SBOX)
        rows = (int.from_bytes(substituted, "big") ^ last).to_bytes(size, "big")
        decrypted = bytearray(size)
        for index, place in enumerate(_BY_ROWS):
            decrypted[place::_BLOCK_LENGTH] = rows[index * blocks : (index + 1) * blocks]
        # The block before each, and the vector of zero before the first.
        chain = int.from_bytes(data[:-_BLOCK_LENGTH], "big")
        return (int.from_bytes(decrypted, "big") ^ chain).to_bytes(size, "big")

    def mac(self, data: bytes, /) -> bytes:
        """
        Compute the CBC-MAC, the last block of the chain.
        """
        if len(data) == 0:
            raise ValueError("there is no MAC of no blocks")
        return self.encrypt_cbc(data)[-_BLOCK_LENGTH:]
