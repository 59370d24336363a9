"""
Showing text that came from elsewhere: on one line, with nothing in it that a log or a terminal would act upon.

Printable characters of any script stay as they are; quotes, backslashes, control and format characters are escaped as
in Python.  No codec is used for that, because one might have to be loaded, which a host that has given up its
privileges may be unable to do.
"""

from __future__ import annotations

from io import TextIOWrapper


def printable(text: str) -> str:
    """
    Escape what a line or a terminal would take for something else than text.
    """
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_show, text))


def quote(text: str) -> str:
    """
    Write a text so that it stays within its quotes and its line.
    """
    return f'"{printable(text)}"'


def tolerate(stream: object) -> None:
    """
    Let a text stream write what it has no characters for as escapes, where it would otherwise write nothing.

    @param stream: For example C{sys.stdout}; other things than text streams are left alone.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _show(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else repr(character)[1:-1]
