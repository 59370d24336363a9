"""
FIPS-197 as it is written, with a matrix of bytes for a state and no tables; and the keys of KMS.

It is the oracle for what no library has: keys of 160 bits and altered schedules.
"""

from __future__ import annotations

from collections.abc import Sequence

MAC_KEY = bytes.fromhex("053d8307f9e5f088eb5ea6686cf037c7e4efd2d6")
V5_KEY = bytes.fromhex("cd7e796f2ab25dcb55ffc8ef8364c470")
V6_KEY = bytes.fromhex("a94a4195e201432d9bcb460405d84a21")
#: What version 6 changes, as offsets in the expanded key.
V6_ALTERATIONS = {64: 0x73, 96: 0x09, 128: 0xE4}
#: The same, as round keys whose first byte is changed.
V6_ROUNDS = {4: 0x73, 6: 0x09, 8: 0xE4}


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
