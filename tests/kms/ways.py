"""
The ways through L{kmsproto.kms.envelopes}, for the tests that take more than one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import kmsproto.kms
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


def unbuilt(reason: str) -> Exception:
    """
    Make what ends a test of native code that is not there.

    Whoever has no compiler can run the tests all the same, and skips these.  Where it was demanded at the build, as in
    CI, its absence is a failure.
    """
    if os.environ.get("KMSPROTO_NATIVE_CIPHER") == "require":
        return AssertionError(f"KMSPROTO_NATIVE_CIPHER demands native code: {reason}")
    return SkipTest(reason)


def need_c() -> dict[str, Mapping[int, Any]]:
    """
    Make the envelopes in C, or skip the test: where nothing could be built there is nothing to test.
    """
    made = in_c()
    if not made:
        raise unbuilt("the extensions were not built here; Python does their work")
    return made


class ExtensionCase(SynchronousTestCase):
    """
    Tests that put something in the place of an extension.

    @cvar extension: Its name within L{kmsproto.kms}.
    """

    extension: str

    def replace_extension(self, module: ModuleType | None) -> None:
        """
        Let an import of the extension find a module, or nothing.
        """
        for patch in (
            mock.patch.dict(sys.modules, {f"kmsproto.kms.{self.extension}": module}),
            mock.patch.object(kmsproto.kms, self.extension, module, create=True),
        ):
            patch.start()
            self.addCleanup(patch.stop)


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
