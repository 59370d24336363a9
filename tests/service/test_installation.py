"""
The identity of an installation in its file: first start, later starts, damage, and two processes at once.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.kms.epid import Installation
from kmsproto.kms.host import HostIdentity
from kmsproto.service.installation import FILE_NAME, StateError, load_installation
from kmsproto.testing import fixed_entropy
from tests.net.wiring import NOW, catalog

IDENTIFIER = bytes(range(16))


def never(length: int) -> bytes:
    """
    Entropy that nobody should want.
    """
    raise AssertionError("entropy was drawn")


def constant(length: int) -> bytes:
    """
    Entropy that is the same each time.
    """
    return IDENTIFIER[:length]


class InstallationTests(SynchronousTestCase):
    """
    The file, and what it is read as.
    """

    def setUp(self) -> None:
        """
        Choose a directory that does not exist yet.
        """
        self.directory = Path(self.mktemp()) / "deep" / "state"
        self.path = self.directory / FILE_NAME

    def load(self, entropy: Callable[[int], bytes] = constant, now: float = NOW) -> Installation:
        """
        Load the installation.
        """
        return load_installation(self.directory, now, entropy)

    def write(self, content: bytes) -> None:
        """
        Put a file in place.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)

    def document(self, **changes: Any) -> bytes:
        """
        Make the content of a file.
        """
        good = {"format": 1, "identifier": IDENTIFIER.hex(), "created": "2026-11-14"}
        return json.dumps(good | changes).encode()

    def test_first_start(self) -> None:
        """
        The first start makes the directory and a file with random bytes and today's date.
        """
        self.assertEqual(self.load(), Installation(IDENTIFIER, date(2026, 11, 14)))
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])
        self.assertEqual(json.loads(self.path.read_text()), json.loads(self.document()))

    def test_private_file(self) -> None:
        """
        Only the owner may read the file.
        """
        self.load()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_second_start(self) -> None:
        """
        Later starts find the same identity, draw nothing and write nothing.
        """
        first = self.load(fixed_entropy())
        before = self.path.stat()
        second = self.load(never, NOW + 10_000_000)
        self.assertEqual(second, first)
        self.assertEqual(self.path.stat().st_mtime_ns, before.st_mtime_ns)

    def test_other_directory(self) -> None:
        """
        Another directory is another installation.
        """
        source = fixed_entropy()
        first = self.load(source)
        second = load_installation(self.directory.parent / "other", NOW, source)
        self.assertNotEqual(first.identifier, second.identifier)

    def test_existing_directory(self) -> None:
        """
        A directory that exists is used as it is.
        """
        self.directory.mkdir(parents=True, mode=0o700)
        (self.directory / "other").write_text("of somebody else")
        self.load()
        self.assertEqual(sorted(os.listdir(self.directory)), [FILE_NAME, "other"])
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_day_is_utc(self) -> None:
        """
        The date is that of UTC.
        """
        self.assertEqual(self.load(now=86400 * 20_000 - 1).created, date(2024, 10, 3))

    def test_wrong_clock(self) -> None:
        """
        A first start with a clock that was never set gives an identity that works.
        """
        installation = self.load(now=0)
        HostIdentity(catalog(), installation)

    def assertDamaged(self, content: bytes) -> None:
        """
        A file is refused in one line that names it and says what to do, and is left as it is.
        """
        self.write(content)
        with self.assertRaises(StateError) as caught:
            self.load(never)
        text = str(caught.exception)
        self.assertEqual(
            text,
            f"{self.path} is damaged; restore it from a backup, or move it away to start anew,"
            " with new ePIDs",
        )
        self.assertEqual(self.path.read_bytes(), content)

    def test_damaged(self) -> None:
        """
        A file that is empty, cut short, no JSON, or JSON of another kind is damaged.
        """
        good = self.document()
        for content in (
            b"",
            good[:-1],
            good[:20],
            b"nonsense",
            b"[]",
            b"1",
            b"null",
            b'"x"',
            b"{}",
        ):
            with self.subTest(content=content):
                self.assertDamaged(content)

    def test_damaged_bytes(self) -> None:
        """
        A file that is no text is damaged.
        """
        for content in (b"\xff\xfe\xfd", bytes(100) + b"\x80", self.document()[:-1] + b"\xc3"):
            with self.subTest(content=content):
                self.assertDamaged(content)

    def test_damaged_values(self) -> None:
        """
        A file with a value that cannot be is damaged.
        """
        for changes in (
            {"format": 2},
            {"format": "1"},
            {"format": None},
            {"identifier": "00"},
            {"identifier": ""},
            {"identifier": IDENTIFIER.hex() + "00"},
            {"identifier": "zz" * 16},
            {"identifier": 5},
            {"identifier": None},
            {"created": "2026-13-01"},
            {"created": ""},
            {"created": 5},
            {"created": None},
        ):
            with self.subTest(changes=changes):
                self.assertDamaged(self.document(**changes))

    def test_missing_values(self) -> None:
        """
        A file without one of its values is damaged.
        """
        for name in ("format", "identifier", "created"):
            document = json.loads(self.document())
            del document[name]
            self.assertDamaged(json.dumps(document).encode())

    def test_more_values(self) -> None:
        """
        Values that nobody knows are left alone.
        """
        self.write(self.document(remark="made by hand"))
        self.assertEqual(self.load(never), Installation(IDENTIFIER, date(2026, 11, 14)))

    def assertUnusable(self) -> str:
        """
        The directory is refused in one line that names it.
        """
        with self.assertRaises(StateError) as caught:
            self.load()
        text = str(caught.exception)
        self.assertRegex(
            text,
            r"^the state directory .* cannot be used: .+$",
        )
        self.assertIn(f" {self.directory} ", text)
        return text

    def test_file_in_place_of_the_directory(self) -> None:
        """
        A file where the directory should be, or above it, makes it unusable.
        """
        self.directory.parent.parent.mkdir(parents=True)
        self.directory.parent.write_text("")
        self.assertIn("Not a directory", self.assertUnusable())
        self.directory.parent.unlink()
        self.directory.parent.mkdir()
        self.directory.write_text("")
        self.assertUnusable()

    def test_directory_in_place_of_the_file(self) -> None:
        """
        A directory where the file should be makes the state unusable.
        """
        self.path.mkdir(parents=True)
        self.assertIn("Is a directory", self.assertUnusable())

    def test_dangling_link(self) -> None:
        """
        A link to nowhere in place of the file makes the state unusable, and is not followed.
        """
        self.directory.mkdir(parents=True)
        self.path.symlink_to("nowhere")
        self.assertUnusable()
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])

    def test_full_disk(self) -> None:
        """
        When the file cannot be written, nothing is left of it.
        """

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fail)
        self.assertIn("No space left on device", self.assertUnusable())
        self.assertEqual(os.listdir(self.directory), [])

    def test_error_is_ours(self) -> None:
        """
        The error is one of the package.
        """
        self.assertTrue(issubclass(StateError, KMSProtoError))

    def test_another_process_was_faster(self) -> None:
        """
        When two processes start at once, the file that was there first counts for both.
        """
        other: list[Installation] = []

        def entropy(length: int) -> bytes:
            # The other process starts and finishes while this one draws its bytes.
            other.append(self.load(fixed_entropy()))
            return bytes(length)

        self.assertEqual(self.load(entropy), other[0])
        self.assertNotEqual(other[0].identifier, bytes(16))
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])

    def test_two_processes(self) -> None:
        """
        Processes that start at the same moment agree.
        """
        directory = self.directory
        results = []
        pipes = []
        children = []
        go_reader, go_writer = os.pipe()
        for number in range(8):
            reader, writer = os.pipe()
            child = os.fork()
            if not child:  # pragma: no cover - in another process
                try:
                    os.close(go_writer)
                    os.read(go_reader, 1)
                    found = load_installation(directory, NOW, bytes([number]).ljust)
                    os.write(writer, found.identifier)
                finally:
                    os._exit(0)
            os.close(writer)
            pipes.append(reader)
            children.append(child)
        os.close(go_reader)
        os.close(go_writer)
        for reader in pipes:
            results.append(os.read(reader, 16))
            os.close(reader)
        for child in children:
            os.waitpid(child, 0)
        self.assertEqual(len(set(results)), 1)
        self.assertEqual(len(results[0]), 16)
        self.assertEqual(os.listdir(directory), [FILE_NAME])
