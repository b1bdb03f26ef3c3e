"""Text from outside, made safe to show in terminals, logs and pages.

Names, annotations, files and messages of plugins may contain escape sequences that rewrite a
screen, line ends that forge a line, and marks that reverse the order of letters. Such characters
are shown as in Python's source: \\x1b, \\n, \\u202e. Letters of all scripts stay.
"""

from __future__ import annotations

import re
from typing import Final

_ODD_IN_JSON: Final = re.compile("[^\n -~]")
"""Characters that may have to be escaped. `_in_json` decides about each."""


def printable(text: str) -> str:
    """The text in one line of printable characters."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def printable_json(raw: bytes) -> bytes:
    """The same JSON, in which the characters of its strings that are not printable are escaped.

    Encoders do not escape DEL, C1 controls and marks for the order of letters.
    """
    if raw.isascii() and b"\x7f" not in raw:
        return raw
    return _ODD_IN_JSON.sub(_in_json, raw.decode(errors="replace")).encode()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _in_json(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
