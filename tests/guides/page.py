"""What a guide tells its readers to do: files to save, and commands with the output they show."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
GUIDES: Final = ROOT / "docs" / "guides"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# ([\w.-]+\.\w+)\n")
_VARIABLE = re.compile(
    r"\b\d{4}-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b"  # dates and times
    r"|\b\d[\d.,]* ?(?:[kMG]?B|[num]?s|k|%)(?![\w-])"  # quantities with a unit
    r"|(?<=pid )\d+|\d+,\d+"
)


class Command(NamedTuple):
    text: str
    """One line, or several that end in a backslash."""
    output: str
    """What the page shows of it; "..." stands for anything. "" if it shows nothing."""


class Page(NamedTuple):
    files: dict[str, str]
    """By name: blocks whose first line is a comment with the name of a file."""
    commands: list[Command]
    """Those of the blocks of a terminal, in the order of the page."""


def page(text: str) -> Page:
    files, commands = {}, []
    for language, block in _BLOCK.findall(text):
        if language == "console":
            commands += _commands(block)
        elif name := _FILE_NAME.match(block):
            files[name[1]] = block
    return Page(files, commands)


def _commands(block: str) -> list[Command]:
    starts = [match.start() for match in re.finditer(r"^\$ ", block, re.MULTILINE)]
    return [_command(block[a:b]) for a, b in pairwise([*starts, len(block)])]


def _command(text: str) -> Command:
    """A "$", a line, further lines that it continues on, and what it prints."""
    found = re.match(r"\$ ((?:.*\\\n)*.*)\n", text)
    assert found is not None, text
    return Command(found[1], text[found.end() :].strip())


def shows(shown: str, output: str) -> bool:
    """Whether an output is what the page shows, apart from times and quantities, and from how
    lines wrap."""
    at, seen = 0, _alike(output)
    for part in shown.split("..."):
        wanted = _alike(part)
        at = seen.find(wanted, at)
        if at < 0:
            return False
        at += len(wanted)
    return True


def _alike(text: str) -> str:
    return " ".join(_VARIABLE.sub("#", text).split())


def programs(command: Command) -> set[str]:
    """The names of the programs that a command needs, as far as words tell: the first one of each
    part of a pipe or list."""
    parts = re.split(r"&&|\|\||[|;&]|\$\(", re.sub(r"'[^']*'|\"[^\"]*\"", "''", command.text))
    words = (
        re.sub(r"^(?:\w+=\S* +|sudo +|do +|timeout +\S+ +)*", "", each.strip()) for each in parts
    )
    return {found[0] for each in words if (found := re.match(r"[a-z][\w.-]*(?!\S*=)", each))}
