"""Which keys were pressed, from the bytes that a terminal sends."""

from __future__ import annotations

import re
from typing import Final

UP: Final = "up"
DOWN: Final = "down"
LEFT: Final = "left"
RIGHT: Final = "right"
PAGE_UP: Final = "page up"
PAGE_DOWN: Final = "page down"
HOME: Final = "home"
END: Final = "end"
ENTER: Final = "enter"
ESCAPE: Final = "escape"
BACKSPACE: Final = "backspace"
CLEAR: Final = "clear"
"""Ctrl-U, which empties a line."""

_ESC: Final = 0x1B
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
"""A sequence of which more may come; an escape alone is also a key of its own."""

_SEQUENCES: Final = {
    b"\x1b[A": UP,
    b"\x1b[B": DOWN,
    b"\x1b[C": RIGHT,
    b"\x1b[D": LEFT,
    b"\x1b[H": HOME,
    b"\x1b[F": END,
    b"\x1b[1~": HOME,
    b"\x1b[4~": END,
    b"\x1b[5~": PAGE_UP,
    b"\x1b[6~": PAGE_DOWN,
    b"\x1b[7~": HOME,
    b"\x1b[8~": END,
    b"\x1bOM": ENTER,
}
"""Terminals in "application mode" send O in place of [ for the first six."""

_CONTROLS: Final = {
    0x0D: ENTER,
    0x0A: ENTER,
    0x08: BACKSPACE,
    0x7F: BACKSPACE,
    0x15: CLEAR,
}


def decode(data: bytes) -> tuple[list[str], bytes]:
    """The keys in what has been read, and the bytes at the end that are the beginning of a key.

    A key that prints a character is that character; the others have the names above. Sequences that
    mean nothing here are skipped, so that no part of them is taken for a letter.
    """
    keys: list[str] = []
    at = 0
    while at < len(data):
        if data[at] != _ESC:
            key, size = _character(data[at : at + 4])
            if not size:
                break
        elif found := _SEQUENCE.match(data, at):
            key, size = _named(found[0]), len(found[0])
        elif _BEGUN.match(data, at):
            break
        else:
            key, size = ESCAPE, 1
        keys += [key] if key else []
        at += size
    return keys, data[at:]


def at_rest(rest: bytes) -> list[str]:
    """The keys in what `decode` has left, when nothing more has come for a moment."""
    return [ESCAPE] if rest == b"\x1b" else []


def _named(sequence: bytes) -> str:
    return _SEQUENCES.get(sequence) or _SEQUENCES.get(sequence.replace(b"O", b"[", 1), "")


def _character(data: bytes) -> tuple[str, int]:
    """A key and the number of its bytes; "" for one that has no meaning, 0 if bytes are missing."""
    if data[0] < 0x80:
        text = chr(data[0])
        return _CONTROLS.get(data[0]) or (text if text.isprintable() else ""), 1
    size = 2 + (data[0] >= 0xE0) + (data[0] >= 0xF0)
    if len(data) < size:
        return "", 0
    try:
        text = data[:size].decode()
    except UnicodeDecodeError:
        return "", 1
    return (text if text.isprintable() else ""), size
