"""
The Dockerfile as a list of instructions, for tests that need no engine.

Only what the file uses is understood: comments, lines that go on after a backslash, options before the arguments, and
arguments as a JSON array or as plain text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Instruction(NamedTuple):
    """
    One instruction.

    @ivar name: What is to be done, in capitals.
    @ivar options: What begins with two dashes.
    @ivar arguments: The rest.
    """

    name: str
    options: tuple[str, ...]
    arguments: str


def read_dockerfile() -> list[list[Instruction]]:
    """
    Read the Dockerfile.

    @return: The stages, each of which begins with FROM; what comes before is left out.
    """
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in filter(str.strip, text.splitlines()):
        name, *words = line.split()
        options = [word for word in words if word.startswith("--")]
        # Options of an instruction come first; what is behind its arguments is theirs.
        while options and words[: len(options)] != options:
            options.pop()
        instruction = Instruction(name, tuple(options), " ".join(words[len(options) :]))
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(instruction)
    return stages


def final(name: str) -> Instruction:
    """
    Get the instruction of this name that the image ends with.
    """
    return [each for each in read_dockerfile()[-1] if each.name == name][-1]


def variables() -> dict[str, str]:
    """
    Get the environment that the image sets.
    """
    return dict(
        word.split("=", 1)
        for each in read_dockerfile()[-1]
        if each.name == "ENV"
        for word in each.arguments.split()
    )


def entry_point() -> list[str]:
    """
    Get the command that the container runs, which is not a shell's.

    @raise ValueError: If it is.
    """
    return [str(word) for word in json.loads(final("ENTRYPOINT").arguments)]


def health_check() -> list[str]:
    """
    Get the command that tells whether the container is healthy.
    """
    return [str(word) for word in json.loads(final("HEALTHCHECK").arguments.removeprefix("CMD "))]
