"""
A reload: all of it or nothing, and what is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.service.reloading import Reloader
from kmsproto.service.sources import Effective, Given, gather


def effective(**given: str) -> Effective:
    """
    Gather from a command line.
    """
    source = {
        name.replace("_", "-"): Given((text,), "--" + name.replace("_", "-"))
        for name, text in given.items()
    }
    return gather(source, {"KMSPROTO_CONFIG": "/dev/null"}, 0)


class Prepared:
    """
    Stands for a site.
    """

    def __init__(self, *warnings: str) -> None:
        self.warnings = warnings


class ReloaderTests(SynchronousTestCase):
    """
    Reloading.
    """

    def setUp(self) -> None:
        """
        Listen to the log.
        """
        self.applied: list[Any] = []
        self.prepared: list[Mapping[str, Any]] = []
        self.lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == "kmsproto.service.reloading":
                self.lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def reload(self, before: Effective, find: Any, prepare: Any = lambda _: Prepared()) -> Reloader:
        """
        Reload.
        """

        def note(settings: Mapping[str, Any]) -> Any:
            self.prepared.append(settings)
            return prepare(settings)

        reloader = Reloader(before, find, note, self.applied.append)
        self.succeeded = reloader.reload()
        return reloader

    def test_change(self) -> None:
        """
        What can change does, and is named.
        """
        reloader = self.reload(effective(), lambda: effective(idle_timeout="5"))
        self.assertTrue(self.succeeded)
        self.assertEqual(len(self.applied), 1)
        self.assertEqual(self.prepared[0]["idle-timeout"], 5.0)
        self.assertEqual(reloader.settings["idle-timeout"], 5.0)
        self.assertEqual(self.lines, ["info: reloaded changed=idle-timeout"])

    def test_nothing(self) -> None:
        """
        A reload that changes nothing applies what may have changed in files all the same.
        """
        self.reload(effective(), effective, lambda _: Prepared("look"))
        self.assertEqual(len(self.applied), 1)
        self.assertEqual(self.lines, ["info: reloaded changed=nothing", "warn: look"])

    def test_restart(self) -> None:
        """
        What needs a restart keeps its value, also at the next reload, and is named each time.
        """
        reloader = self.reload(effective(port="1"), lambda: effective(port="2", lcid="1031"))
        self.assertEqual((reloader.settings["port"], reloader.settings["lcid"]), (1, 1031))
        self.assertEqual(
            self.lines,
            ["info: reloaded changed=lcid", "warn: a restart is needed to change port"],
        )
        self.lines.clear()
        reloader.reload()
        self.assertEqual(
            self.lines,
            ["info: reloaded changed=nothing", "warn: a restart is needed to change port"],
        )

    def test_wrong(self) -> None:
        """
        When anything is wrong, the old settings stay, and one line says what is wrong.
        """

        def fail(*arguments: object) -> Any:
            raise KMSProtoError("a\nb")

        before = effective()
        for find, prepare in ((fail, lambda _: Prepared()), (effective, fail)):
            self.lines.clear()
            reloader = self.reload(before, find, prepare)
            self.assertFalse(self.succeeded)
            self.assertIs(reloader.settings, before)
            self.assertEqual(self.applied, [])
            self.assertEqual(self.lines, ['error: not reloaded, the old settings stay: "a\\nb"'])
