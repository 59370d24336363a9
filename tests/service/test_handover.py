"""
What a worker is handed: the document there and back, and documents that are none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.handover import Handover, HandoverError
from kmsproto.testing import INSTALLATION
from tests.service.test_settings import ALLOWED, BY_NAME, DEFAULTS


def handover(**changes: Any) -> Handover:
    """
    Make what a worker could be handed.
    """
    settings = {}
    for name, values in ALLOWED.items():
        value = BY_NAME[name].value(values[0][0])
        settings[name] = [value] if BY_NAME[name].repeatable else value
    settings |= DEFAULTS | {"endpoint": ["tcp:1", "unix:x"], "port": None, "host-build": 26100}
    settings |= {"refuse-all": False, "disconnect-after-call": False, "deny-product": []}
    settings |= {"mask-peers": False}
    fields: dict[str, Any] = {
        "version": "1.2.3",
        "worker": 2,
        "reactor": "twisted.internet.pollreactor",
        "sockets": 3,
        "group_seed": 2**31 + 5,
        "installation": INSTALLATION,
        "settings": settings,
        "catalog_file": b"\x00\xff",
        "drawn": bytes(range(16)),
    }
    return Handover(**fields | changes)


class HandoverTests(SynchronousTestCase):
    """
    The document.
    """

    def test_there_and_back(self) -> None:
        """
        What is read is what was written, each value with its type.
        """
        written = handover()
        read = Handover.decode(written.encode(), "1.2.3")
        self.assertEqual(read, written)
        self.assertEqual(
            {name: type(value) for name, value in read.settings.items()},
            {name: type(value) for name, value in written.settings.items()},
        )

    def test_one_line(self) -> None:
        """
        It is one line of ASCII, whatever stands in it.
        """
        settings = {**handover().settings, "state-directory": Path("a\nb\udcff ü")}
        data = handover(settings=settings).encode()
        self.assertEqual((data.count(b"\n"), data[-1:], data.isascii()), (1, b"\n", True))
        self.assertEqual(Handover.decode(data, "1.2.3").settings, settings)

    def test_other_version(self) -> None:
        """
        A worker of another version than its supervisor, as after an upgrade, says what can be done.
        """
        with self.assertRaises(HandoverError) as caught:
            Handover.decode(handover().encode(), "1.3")
        self.assertEqual(
            str(caught.exception),
            "the supervisor runs version 1.2.3, and this is 1.3; restart the service",
        )

    def test_other_version_of_the_document(self) -> None:
        """
        Of a document of another version only the version is looked at.
        """
        with self.assertRaises(HandoverError) as caught:
            Handover.decode(b'{"version": "9"}\n', "1.3")
        self.assertIn("runs version 9,", str(caught.exception))

    def test_no_document(self) -> None:
        """
        Whatever else comes is an error that says how workers are started.
        """
        document = json.loads(handover().encode())
        incomplete = {**document, "settings": {}}
        wrong = {**document, "settings": {**document["settings"], "state-directory": ""}}
        for line in (
            b"",
            b"hello\n",
            b"\xff\n",
            b"[]\n",
            b"{}\n",
            b"1\n",
            b'{"version": "1.2.3"}\n',
            json.dumps(incomplete).encode(),
            json.dumps(wrong).encode(),
            json.dumps({**document, "identifier": "xx"}).encode(),
            json.dumps({**document, "created": 5}).encode(),
        ):
            with self.subTest(line=line):
                with self.assertRaises(HandoverError) as caught:
                    Handover.decode(line, "1.2.3")
                self.assertIn("twistd kms --workers", str(caught.exception))

    def test_what_cannot_travel(self) -> None:
        """
        A value that could not be read back is not written.
        """
        settings = {**handover().settings, "lcid": object()}
        self.assertRaises(TypeError, handover(settings=settings).encode)
