"""
The ways through L{kmsproto.kms.envelopes}, for the tests that take more than one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kmsproto.errors import LocalProtocolError
from kmsproto.kms import rijndael
from kmsproto.kms.envelopes import OpenedRequest, native_envelopes, seal_response
from kmsproto.kms.messages import ResponseBody

VERSIONS = (4, 5, 6)


def in_c() -> dict[str, Mapping[int, Any]]:
    """
    Make the envelopes in C for each implementation of the cipher that has some here.
    """
    made = {name: native_envelopes(name) for name in rijndael.implementations()}
    return {name: each for name, each in made.items() if each}


def sealed_by(request: OpenedRequest, body: ResponseBody, *random: bytes) -> bytes | str:
    """
    Seal an answer by way of whatever is in use.

    @param random: The salt, the random bytes and the hardware id.
    @return: The answer, or the words of the refusal.
    """
    salt, masked, hardware_id = random
    try:
        return seal_response(request, body, salt=salt, random=masked, hardware_id=hardware_id)
    except LocalProtocolError as error:
        return str(error)
