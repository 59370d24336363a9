"""
KMS messages and PDUs that a real client sent, as it sent them.

The conformance tests are about the RPC layer, so they need few messages: one good request of each
version, and one of a version that no host knows.  They were recorded; nothing here computes a
cipher.  A request may be sent any number of times and in either transfer syntax: only the stub
around it differs.

L{check_activation} recognises a good answer by what is visible without a key: the NDR around it,
the version, and sizes that fit an extended PID ("Stub layout of RequestActivation in NDR 2.0 and
NDR64 1.0", "KMS messages, versions 4, 5 and 6").
"""

from __future__ import annotations

import re
import struct
from typing import Final

from tests.conformance.pdus import NDR64, Syntax

#: When the messages were recorded, in seconds since 1970; the clock of the tests starts here.
RECORDED_AT: Final = 1_795_487_830

#: A request of version 4, 252 bytes.
REQUEST_V4: Final = bytes.fromhex(
    "000004000000000002000000000000003427c95582d6714d983ed6ec3f16059f09e52eae341bc041acb76d46"
    "501689151952de7ffafb4a4882c934d1ad53e8561111113122223343844455555555555519000000000f4db4"
    "bc7bdd01111111012222334384445555555555556400650073006b002d00310037002e006500780061006d00"
    "70006c0065002e006f00720067000000000000000000000c0000000040080000000000004008000000000000"
    "4000000000000000000000100000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000f8f44a584b380ed366806f8dc5485059"
)

#: A request of version 5, 260 bytes.
REQUEST_V5: Final = bytes.fromhex(
    "00000500b17609d4b14c7fa518cb2c8df7efef52643ce4247c4dfc910c57cef6d4271ace891340af6d30b240"
    "e4557994766b7c1c46101724e32669b5516ed0cab5c02aedbad9c4cdaa5c77947a78c2502629cf462d852532"
    "38c5cb03daa995ddc8e0c78b007206b181da9b03f1eefe2df959f1833e2eb4d19d1ec7fc915ccc74a468c370"
    "b8d072ead081c8993087f77286168259b6a996b8750e8d99607894c11f21b3e31ca0ae1d73add776e6076d07"
    "4fb1dbc47c416a1fc714744182dacf48de0866d9e3008ae6f5b3eeb89973110a3fa3a29c78a379bfa1d6c2b6"
    "b396842a2be6d9d9f652a0e72203ede26f65f3705a454bcc12091084598c000ad9c45a90b54b686b"
)

#: A request of version 6, 260 bytes.
REQUEST_V6: Final = bytes.fromhex(
    "00000600db3f2d8eaae21215ab8534f98088cd85f0b080da03c2be1fdf4090050391cea62978beecc519e8fe"
    "dd5de291cde4f0dbd3de949559374a70e4c341defb911ef1069c5279763493a8a71e3a50fe3c885c4a242ec3"
    "9523780b83833122c150fffbf6bc8586aa5158b3461b50884c8d688e974957d8502b51ac81325bbda1521ab5"
    "36f5d7ac6a9943ec0c2933484652f40c0ba2880e73c65c16b66295081320c1f1cd1113ddc47dcdebd918fe8a"
    "e84554d986e4a476b9a4062938ab0573a21408e462f4504bce5fd26428d765b72bfb3895a7ed3149747c85d5"
    "5be12511060f028a5e97b4da7661dc03f02bc49bb21887c6ce50e2008a0beb2c5e86e7ec1dea93e3"
)

#: A request of version 7, which does not exist.
REQUEST_V7: Final = bytes.fromhex(
    "00000700ff20da2d3130beb54242c5ce0b038b4a8114617ac3bc718bf9afb949379e800217c16c541290df15"
    "06e69d2bdde8a76efaaf9f055cdd42639752c447e02d420b65e8f3c1dac7dee0d99abd03034b4a5d2f2355ed"
    "9063cad75e648d9ea37fdc22d5f5666ce38718904593cc39d37f3400f20fe9220c6618efcba8c336192afd45"
    "91952b3d727d7d34863b8f85558264842627a97cb11fec21e5f6b534e75604be9716ad8d0c80a653970a8d0d"
    "fca447244a5d3a503940bbc6470686a22d4b0ee93f20448d5536656fb9e894bab9d937b9d6d369fa90a900f1"
    "9f4e179c30425b0893be0104a3847c380efd9d0c4d14866a8365798f4036f0f1398d39e48d9b6d81"
)

#: The bind of Windows: NDR as context 0, NDR64 as 1, bind time features as 2; multiplexing.
RECORDED_BIND: Final = bytes.fromhex(
    "05000b1310000000a000000002000000d016d0160000000003000000000001007521c8514e845047b0d8ec25"
    "5555bc0601000000045d888aeb1cc9119fe808002b10486002000000010001007521c8514e845047b0d8ec25"
    "5555bc060100000033057171babe37498319b5dbef9ccc3601000000020001007521c8514e845047b0d8ec25"
    "5555bc06010000002c1cb76c12984045030000000000000001000000"
)

#: The alter_context of Windows that follows: NDR once more, as context 0.
RECORDED_ALTER: Final = bytes.fromhex(
    "05000e13100000004800000002000000d016d0160000000001000000000001007521c8514e845047b0d8ec25"
    "5555bc0601000000045d888aeb1cc9119fe808002b10486002000000"
)

#: All good requests, by version.
REQUESTS: Final = {4: REQUEST_V4, 5: REQUEST_V5, 6: REQUEST_V6}

_EPID: Final = re.compile(r"\d{5}-\d{5}-\d{3}-\d{6}-03-\d{1,5}-\d{4,5}\.0000-\d{7}")
_EPID_SIZES: Final = range(90, 110, 2)


def _demand(condition: bool, problem: str, stub: bytes) -> None:
    if not condition:
        raise AssertionError(f"{problem}: {stub.hex()}")


def check_activation(stub: bytes, sent: bytes, syntax: Syntax) -> None:
    """
    Compare the stub of a response with what a granted activation looks like.

    @param stub: The stub of the response.
    @param sent: The KMS message of the request.
    @param syntax: The transfer syntax of the call.

    @raise AssertionError: It is no granted activation.
    """
    if syntax == NDR64:
        _demand(len(stub) > 24, "too short for a granted activation", stub)
        size, gap, pointer, count = struct.unpack_from("<IIQQ", stub)
        start = 24
    else:
        _demand(len(stub) > 12, "too short for a granted activation", stub)
        size, pointer, count = struct.unpack_from("<III", stub)
        start, gap = 12, 0
    _demand(gap == 0, "the gap is not zero", stub)
    _demand(pointer == 0x20000, "not the first referent id", stub)
    _demand(count == size, "max_count differs from the size", stub)
    end = start + size
    end += -end % 4
    _demand(len(stub) == end + 4, "a stub of other length", stub)
    _demand(not any(stub[start + size : end]), "padding that is not zero", stub)
    _demand(stub[end:] == bytes(4), "the HRESULT is not zero", stub)
    _check_message(stub[start : start + size], sent, stub)


def _check_message(answer: bytes, sent: bytes, stub: bytes) -> None:
    """
    Look at what can be seen of the KMS message inside.
    """
    _demand(answer[:4] == sent[:4], "another KMS version", stub)
    version = sent[2]
    if version == 4:
        epid_size = int.from_bytes(answer[4:8], "little")
        _demand(len(answer) == 8 + epid_size + 36 + 16, "the ePID size does not fit", stub)
        epid = answer[8 : 8 + epid_size].decode("utf-16-le")
        _demand(epid[-1] == "\0" and _EPID.fullmatch(epid[:-1]) is not None, "no ePID", stub)
        echoed = answer[8 + epid_size : 8 + epid_size + 24]
        _demand(echoed == sent[64:80] + sent[84:92], "machine id or time not echoed", stub)
        return
    fixed = 16 + 8 + 36 + 48 + (40 if version == 6 else 0)
    sizes = {4 + (fixed + epid) // 16 * 16 + 16 for epid in _EPID_SIZES}
    _demand(len(answer) in sizes, "no length that an ePID explains", stub)
    _demand((answer[4:20] == sent[4:20]) == (version == 5), "the IV", stub)
