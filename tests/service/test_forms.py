"""
The forms of a log: twistd's lines with and without times, and an object for each line.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, formatEventAsClassicLogText, formatTime
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.forms import TEXT, JSONForm, UntimedForm, choose_form

#: 2026-01-01, 00:00 UTC.
NOW = 1767225600.0
STAMP = "2026-01-01T00:00:00.000Z"


def events() -> list[Any]:
    """
    Make an event of a line, one of two lines, and one with an error.
    """
    made: list[Any] = []
    observer: Any = made.append
    log = Logger("somewhere", observer=observer)
    log.info("one {what}", what="line")
    log.warn("two\nlines")
    try:
        raise ValueError("of a test")
    except ValueError:
        log.failure("bad")
    return made


class TextTests(SynchronousTestCase):
    """
    Lines of text.
    """

    def test_timed(self) -> None:
        """
        Everything begins with the time, in the form of twistd.
        """
        self.assertEqual(TEXT.stamp(int(NOW)), f"{formatTime(NOW)} [kmsproto#info] ")
        self.assertEqual(TEXT.lost(3, NOW), f"{TEXT.stamp(int(NOW))}lost lines=3\n")
        for event in events():
            self.assertEqual(TEXT.event(event, NOW), formatEventAsClassicLogText(event))

    def test_untimed(self) -> None:
        """
        Without times everything is the same behind where they would be.
        """
        form = UntimedForm()
        self.assertEqual(form.stamp(int(NOW)), "[kmsproto#info] ")
        self.assertEqual(form.lost(3, NOW), "[kmsproto#info] lost lines=3\n")
        for event in events():
            timed = formatEventAsClassicLogText(event)
            assert timed is not None
            self.assertEqual(form.event(event, NOW), timed.partition(" ")[2])

    def test_nothing_to_say(self) -> None:
        """
        An event without a text is none, in any form.
        """
        for form in (TEXT, UntimedForm(), JSONForm()):
            self.assertFalse(form.event({"log_level": LogLevel.info, "log_format": ""}, NOW))


class JSONTests(SynchronousTestCase):
    """
    Objects.
    """

    def setUp(self) -> None:
        """
        Choose the form.
        """
        self.form = JSONForm()

    def test_events(self) -> None:
        """
        An event has its time, level, source and message; the further lines of the message are a part of it.
        """
        made = events()
        for event in made:
            event["log_time"] = NOW
        texts = [self.form.event(event, NOW + 9) for event in made]
        for text in texts:
            assert text is not None
            self.assertEqual(text.index("\n"), len(text) - 1)
        one, two, three = (json.loads(text or "") for text in texts)
        self.assertEqual(
            one,
            {
                "time": STAMP,
                "event": "log",
                "level": "info",
                "system": "somewhere#info",
                "message": "one line",
            },
        )
        self.assertEqual((two["level"], two["message"]), ("warn", "two\nlines"))
        self.assertEqual((three["level"], three["system"]), ("critical", "somewhere#critical"))
        self.assertTrue(three["message"].startswith("bad\nTraceback"))
        self.assertIn("ValueError: of a test", three["message"])

    def test_old_event(self) -> None:
        """
        An event that knows neither its time nor its level gets both; one that names its source keeps that.
        """
        text = self.form.event({"log_format": "x", "log_system": "-"}, NOW)
        self.assertEqual(
            json.loads(text or ""),
            {"time": STAMP, "event": "log", "level": "info", "system": "-", "message": "x"},
        )

    def test_own(self) -> None:
        """
        A ready object is stamped already; lines that were given up are told of in one.
        """
        self.assertEqual(self.form.stamp(int(NOW)), "")
        self.assertEqual(
            json.loads(self.form.lost(3, NOW)), {"time": STAMP, "event": "lost", "lines": 3}
        )

    @given(st.lists(st.text(st.characters(blacklist_characters="\n")), min_size=1))
    def test_relayed(self, lines: list[str]) -> None:
        """
        Whatever another process writes, each line of it is one object, and objects stay as they are.
        """
        whole = '{"time":"2026-01-01T00:00:00.000Z","event":"closed"}'
        text = "".join(f"{line}\n" for line in (*lines, whole))
        *relayed, last, rest = self.form.relayed(text, NOW).split("\n")
        self.assertEqual((last, rest), (whole, ""))
        self.assertEqual(len(relayed), len(lines))
        for line, record in zip(lines, map(json.loads, relayed), strict=True):
            message = line.encode("utf-8", "backslashreplace").decode()
            self.assertEqual((record["time"], record["message"]), (STAMP, message))


class ChoiceTests(SynchronousTestCase):
    """
    L{choose_form}.
    """

    def test_choice(self) -> None:
        """
        Text has its times or not; objects always have.
        """
        self.assertIs(choose_form("text"), TEXT)
        self.assertIsInstance(choose_form("text", timestamps=False), UntimedForm)
        for timestamps in (True, False):
            self.assertIsInstance(choose_form("json", timestamps=timestamps), JSONForm)
