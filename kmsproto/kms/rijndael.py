"""
The block cipher of KMS: Rijndael with 128-bit blocks, in the fastest implementation that there is.

KMS uses three variants of it.  Version 5 is plain AES-128.  Version 4 takes a 160-bit key, which Rijndael has and AES
left out: the key expansion of FIPS-197 with Nk = 5 and Nr = Nk + 6 = 11.  Version 6 is AES-128 with an altered
schedule: one byte of three round keys is changed after the expansion, for encryption and decryption alike.  No
library offers the last two, so the cipher is our own.

It exists three times, with one contract, L{Cipher}.  Two are in C: one with the AES instructions of the processor,
which is there only if the processor has them, and one in portable C.  Both come with the extension C{_rijndael}, which
is built where there is a compiler.  L{kmsproto.kms.rijndael_tables} is pure Python and always there.  This module
takes the first of them that it finds, once, when it is loaded; the environment variable C{KMSPROTO_CIPHER} names
another one to take, by what L{implementations} calls it.

Source: FIPS-197; "KMS messages, versions 4, 5 and 6".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from kmsproto.errors import KMSProtoError
from kmsproto.kms.rijndael_tables import TableRijndael

#: Bytes of a block.
BLOCK_LENGTH = 16

#: The environment variable that names the implementation to use.
VARIABLE = "KMSPROTO_CIPHER"


class Cipher(Protocol):
    """
    The cipher with one key.

    @param key: 16 bytes (AES-128) or 20 bytes (160 bits, 11 rounds).
    @param alterations: Bytes of the expanded key to change: what to XOR at which offset.
    @raise ValueError: If the key has another size, for which the expansion would be another one; if there is no such
        offset, or what to XOR is no byte.
    """

    def __init__(self, key: bytes, alterations: Mapping[int, int] | None = None) -> None: ...

    def encrypt_block(self, block: bytes, /) -> bytes:
        """
        Encrypt 16 bytes (FIPS-197 5.1).

        @raise ValueError: If the block has another size.
        """

    def decrypt_block(self, block: bytes, /) -> bytes:
        """
        Decrypt 16 bytes (FIPS-197 5.3).

        @raise ValueError: If the block has another size.
        """

    def encrypt_cbc(self, data: bytes, /) -> bytes:
        """
        Encrypt whole blocks, chained, with an initialization vector of zero (SP 800-38A 6.2).

        @param data: A multiple of 16 bytes.
        @raise ValueError: If its size is another.
        """

    def decrypt_cbc(self, data: bytes, /) -> bytes:
        """
        Decrypt what L{encrypt_cbc} made.

        @param data: A multiple of 16 bytes.
        @raise ValueError: If its size is another.
        """

    def mac(self, data: bytes, /) -> bytes:
        """
        Compute the CBC-MAC: the last block of what L{encrypt_cbc} makes.

        @param data: A multiple of 16 bytes, but not of no bytes.
        @return: 16 bytes.
        @raise ValueError: If the size is another.
        """


class UnknownCipherError(KMSProtoError, SystemExit):
    """
    The environment names an implementation that is not there.

    That is found out when this module is loaded, before any program could take the error.  So it is a L{SystemExit}
    as well, of which the interpreter prints the line, without a traceback, and exits with status 1.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = f"kmsproto: {problem}"


def implementations() -> dict[str, type[Cipher]]:
    """
    List the implementations that work here, the fastest first.

    @return: The classes by the names that people know them by.  "Python" is always among them.
    """
    found: dict[str, type[Cipher]] = {}
    try:
        import kmsproto.kms._rijndael as native
    except ImportError:
        # It was not built, or for another machine.  Which implementation is used instead is never a secret.
        pass
    else:
        # The class is not there if the processor lacks the instructions.
        if hasattr(native, "AcceleratedRijndael"):
            found["AES instructions (C)"] = native.AcceleratedRijndael
        found["portable C"] = native.PortableRijndael
    found["Python"] = TableRijndael
    return found


def choose_implementation(wish: str) -> tuple[str, type[Cipher]]:
    """
    Find the implementation to use.

    @param wish: Its name, in capitals or small letters; empty for the fastest.
    @return: The name and the class.
    @raise UnknownCipherError: If there is none of that name here.
    """
    available = implementations()
    for name, implementation in available.items():
        if wish.casefold() in ("", name.casefold()):
            return name, implementation
    raise UnknownCipherError(
        f"{VARIABLE} is {wish!r}; here it may be one of: {', '.join(available)}"
    )


#: What L{Rijndael} is: "AES instructions (C)", "portable C" or "Python".
IMPLEMENTATION: str
#: The implementation to use; made and used as L{Cipher} says.
Rijndael: type[Cipher]
IMPLEMENTATION, Rijndael = choose_implementation(os.environ.get(VARIABLE, ""))
