from collections.abc import Callable, Mapping
from uuid import UUID

from kmsproto.kms.messages import ResponseBody

class Envelope:
    def __init__(
        self, version: int, key: bytes, alterations: Mapping[int, int] | None, accelerated: bool
    ) -> None: ...

    # The fields of RequestBody, the salt and the vector.  The function reads all GUIDs but the CMID.
    def open(
        self, payload: bytes, known_guid: Callable[[bytes], UUID], /
    ) -> tuple[tuple[int | str | bytes | UUID, ...], bytes, bytes] | None: ...

    # The body, its CMID in the byte order of a number; from version 5 on the salt of the request, random bytes and
    # their SHA-256; in version 6 the salt of the answer and the hardware id.
    def pack(self, body: ResponseBody, /, *parts: bytes) -> bytes | None: ...
    def seal(self, message: bytes, hmac: bytes = b"", /) -> bytes: ...
