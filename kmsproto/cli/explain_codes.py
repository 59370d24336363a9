"""
Codes as people paste them: alone, with what a program put around them, or in a whole message; and those nobody knows.

L{kmsproto.kms.explanations} reads a code that stands alone.  Here the text around it is taken away first: brackets,
full stops, the C{&H} of VBScript, the C{L} of Python and C, the sixteen digits of programs that count in 64 bits.  In a
message (C{Error: 0xC004F074 The Software Licensing Service ...}) only the codes are looked up, and its words are not
taken for names.  GUIDs in it are no codes, though their first group looks like one.

Of a code that nobody knows there are three things to say: codes that are written nearly like it, whose it is, and how
Windows tells its text.  Near means one mistake of typing: a digit that is wrong, missing or too much, two that changed
places, a letter O for a zero.

Source: MS-ERREF 2.1 for the parts of an HRESULT; the ranges of codes are those of slerror.h in the Windows SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from kmsproto.kms.explanations import Explanations, Parts, UnknownCodeError, number_of

#: Suggestions for one code at most.
MOST_SUGGESTIONS = 3
_PLAIN_WORDS_OF_A_MESSAGE = 3
#: Words that stand before a code in a message, and are parts of names only where they stand alone.
_BEFORE_A_CODE = frozenset({"error", "code", "hresult", "result", "status"})
_LIKENESS = 0.8
_LONGEST = 80
_HEXADECIMAL = re.compile(r"(?:0x|&h|)(?:f{8})?([0-9a-f]{8})(?:u?l{0,2}|h|&)", re.ASCII | re.I)
_SUFFIXED = re.compile(r"(-?\d+|0x[0-9a-f]+)u?l{0,2}", re.ASCII | re.I)
#: Neither a letter or digit nor the hyphen of a GUID stands before or behind a code in a message.
_IN_A_MESSAGE = re.compile(
    r"(?<![\w{-])(?:(?:0x|&h)(?:f{8})?[0-9a-f]{8}|[48c][0-9a-f]{7}|-[0-9]{9,10}|[23][0-9]{9})(?:u?l|&)?(?![\w}-])",
    re.ASCII | re.I,
)
_HYPHENS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_AROUND = " \t\r\n\"'`.,;:!()[]<>{}" + "".join(
    map(chr, (0xA0, 0x2018, 0x2019, 0x201C, 0x201D))  # a space that does not break, and quotes
)
_LOOKS_LIKE_A_DIGIT = str.maketrans({"o": "0", "l": "1", "i": "1"})
_ITF, _WIN32 = 4, 7
#: What uses the numbers of software licensing, by their first digit (slerror.h).
_LICENSING: Mapping[int, str] = MappingProxyType(
    {
        0xB: "Microsoft's activation servers",
        0xC: "Microsoft's activation servers",
        0xD: "the security processor of the client",
        0xE: "the licensing service of the client",
        0xF: "the licensing service, of a client or a host",
    }
)


def codes_in(words: Sequence[str]) -> list[str]:
    """
    Tell what to look up when a user gives some words.

    @param words: The arguments of a command: a code each, or a message, as one argument or as many.
    @return: Texts for L{Explanations.look_up}, at most one for each word and at least one if there are any words.
    """
    bare = [_bare(word) for word in words]
    message = " ".join(words).translate(_HYPHENS)
    codes = list(dict.fromkeys(_bare(match[0]) for match in _IN_A_MESSAGE.finditer(message)))
    # What has blanks or commas within one argument is no code, whatever else it is.
    is_one = len(bare) == 1 and re.search(r"[\s,;/]", bare[0])
    if codes and (is_one or _is_message(message.split())):
        return codes
    return bare


def _is_message(words: Sequence[str]) -> bool:
    """
    Tell a message from a list of codes: it has a word before a colon, or says that a code follows, or has some words
    that can be no name of a code.
    """
    bare = list(map(_bare, words))
    plain = [
        word
        for word in bare
        if word.isalpha() and not word.isupper() and not _HEXADECIMAL.fullmatch(word)
    ]
    colon = any(word.endswith((":", "=")) or re.match(r"[A-Za-z]+[:=]", word) for word in words)
    says = not _BEFORE_A_CODE.isdisjoint(map(str.casefold, bare))
    return colon or says or len(plain) >= _PLAIN_WORDS_OF_A_MESSAGE


def _bare(word: str) -> str:
    """
    Take away what is no part of a code; a text that is none stays as it is.
    """
    stripped = word.translate(_HYPHENS).strip(_AROUND)
    match = _HEXADECIMAL.fullmatch(stripped)
    if match:
        return f"0x{match[1]}"
    match = _SUFFIXED.fullmatch(stripped)
    return match[1] if match else stripped or word


def suggestions(text: str, explanations: Explanations) -> list[str]:
    """
    List the codes that a user may have meant, the likeliest first.

    @param text: What is not known.
    @return: Labels or names, L{MOST_SUGGESTIONS} at most.
    """
    wanted = text[:_LONGEST].casefold()
    digits = wanted.removeprefix("0x").translate(_LOOKS_LIKE_A_DIGIT)
    labels = {
        entry.label.casefold().removeprefix("0x"): entry.label
        for entry in explanations.entries
        if entry.label.startswith("0x")
    }
    near = [plain for plain in labels if _one_mistake(digits, plain)]
    # First the same, when a letter was taken for a digit, then those where two changed places.
    near.sort(key=lambda plain: (plain != digits, sorted(plain) != sorted(digits)))
    if near or any(character.isdigit() for character in wanted):
        return [labels[plain] for plain in near[:MOST_SUGGESTIONS]]
    names = {entry.name.casefold(): entry.name for entry in explanations.entries if entry.name}
    wanted = re.sub(r"[\s-]+", "_", wanted)
    found = get_close_matches(wanted, names, MOST_SUGGESTIONS, _LIKENESS)
    return [names[name] for name in found]


def _one_mistake(text: str, other: str) -> bool:
    """
    Tell whether a text becomes another by one wrong, missing, added or exchanged character, or is the same.
    """
    if abs(len(text) - len(other)) > 1:
        return False
    short, long = sorted((text, other), key=len)
    if len(short) < len(long):
        return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
    places = [place for place, pair in enumerate(zip(text, other, strict=True)) if len({*pair}) > 1]
    if len(places) < 2:
        return True
    first, last = places[0], places[-1]
    return (
        len(places) == 2
        and last == first + 1
        and (text[first], text[last]) == (other[last], other[first])
    )


def problem_with(error: UnknownCodeError, text: str, explanations: Explanations) -> str:
    """
    Say in a line all that there is to say about a code that is not known.

    @param text: What was looked up.
    """
    said = str(error)
    if error.code is not None:
        said += f": {Parts(error.code)}"
        for note in (owner(error.code), where_windows_tells(error.code)):
            said += f", {note}" if note else ""
    near = " or ".join(suggestions(text, explanations))
    if not near:
        return said
    if error.code is not None and _HEXADECIMAL.fullmatch(text):
        # There may well be such a code; that others are written nearly like it does not make it one of them.
        return f"{said}; only if it was mistyped, it may be {near}"
    return f"{said}; did you mean {near}?"


def owner(code: int) -> str:
    """
    Tell whose an HRESULT of software licensing is; nothing if it is none of those.
    """
    parts = Parts(code)
    if parts.facility != _ITF or parts.number >> 12 not in _LICENSING:
        return ""
    return f"in the range of {_LICENSING[parts.number >> 12]}"


def where_windows_tells(code: int) -> str:
    """
    Tell which command shows the text of a code on Windows; nothing if none does.
    """
    parts = Parts(code)
    if parts.facility == _WIN32:
        return f"whose text net helpmsg {parts.number} shows on Windows"
    if code <= 0xFFFF:
        return f"whose text net helpmsg {code} shows on Windows if it is a Win32 error"
    return f"whose text slui 0x2a 0x{code:08X} shows on Windows" if owner(code) else ""


def is_number(text: str) -> bool:
    """
    Tell whether a text that begins with a hyphen is a negative number, and so no option.
    """
    try:
        return number_of(_bare(text))[0] is not None
    except UnknownCodeError:
        return True
