"""
What is made from the settings: the file, the reference and the table, and that those of the repository are the same.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.service.settings import BY_NAME, SETTINGS
from kmsproto.service.sources import Given, Source, from_document
from kmsproto.service.template import (
    SECTIONS,
    render_file,
    render_reference,
    render_vlmcsd,
)
from kmsproto.service.vlmcsd import ROWS
from tests.service.test_settings import ALLOWED

ROOT = Path(__file__).parents[2]


class FileTests(SynchronousTestCase):
    """
    The file of settings.
    """

    def test_nothing_set(self) -> None:
        """
        The file with nothing set sets nothing, and names every setting with its help.
        """
        text = render_file({})
        self.assertEqual(from_document(text, "x"), {})
        for setting in SETTINGS:
            if setting.section:
                self.assertIn(f"\n#{setting.key} =", text)
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()))

    def test_defaults_uncommented(self) -> None:
        """
        A default without its hash means the same as the default.
        """
        lines = render_file({}).splitlines()
        text = "\n".join(
            line[1:] if line.startswith("#") and line[1] != " " and line[-1] != "=" else line
            for line in lines
        )
        for name, given in from_document(text, "x").items():
            setting = BY_NAME[name]
            values = [setting.value(each) for each in given.texts]
            self.assertEqual(values if setting.repeatable else values[-1], setting.initial, name)

    def test_there_and_back(self) -> None:
        """
        What is written into a file is read from it with the same meaning, whatever is set.
        """
        for number in range(max(map(len, ALLOWED.values()))):
            source: Source = {
                name: Given((texts[number % len(texts)][0],), "x")
                for name, texts in ALLOWED.items()
                if BY_NAME[name].section
            }
            read = from_document(render_file(source, ["A remark."]), "y")
            self.assertEqual(set(read), set(source))
            for name, given in source.items():
                setting = BY_NAME[name]
                self.assertEqual(
                    [setting.value(each) for each in read[name].texts],
                    [setting.value(each) for each in given.texts],
                    name,
                )

    def test_odd_characters(self) -> None:
        """
        A text with anything in it stays what it is.
        """
        text = 'a"b\\c\x7f\u2028ü\t\U0001f600'
        source: Source = {"endpoint": Given((text,), "x")}
        rendered = render_file(source)
        self.assertEqual(tomllib.loads(rendered)["listen"]["endpoints"], [text])

    def test_sections(self) -> None:
        """
        Every table that a setting stands in has a title.
        """
        self.assertEqual({each.section for each in SETTINGS} - {""}, set(SECTIONS))

    def test_in_the_repository(self) -> None:
        """
        The files that the repository has are those which would be made now.
        """
        for name, made in (
            ("etc/kmsproto/kms.toml", render_file({})),
            ("docs/settings.rst", render_reference()),
            ("docs/vlmcsd-table.rst", render_vlmcsd()),
        ):
            path = ROOT / name
            if not path.exists():
                self.skipTest("installed without the repository")
            self.assertEqual(path.read_text("utf-8"), made, name)


class PageTests(SynchronousTestCase):
    """
    The pages.
    """

    def test_reference(self) -> None:
        """
        Every setting is there with all its names.
        """
        text = render_reference()
        for setting in SETTINGS:
            self.assertIn(f"``--{setting.name}", text)
            self.assertIn(setting.variable, text)

    def test_vlmcsd(self) -> None:
        """
        Every option and key of vlmcsd is there.
        """
        text = render_vlmcsd()
        for row in ROWS:
            for name in filter(None, (row.option, row.ini)):
                self.assertIn(f"``{name}``", text)
        self.assertIn("the default (``-k``)", text)
