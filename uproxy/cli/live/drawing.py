"""The characters that make a terminal show a screen: lines cut at its width, and where they go."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from uproxy.cli.live.frame import Line, Size

TAKE: Final = "\x1b[?1049h\x1b[H\x1b[?25l"
"""The terminal's second screen, without a cursor."""
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
"""The cursor, and the screen as it was before."""

_REVERSE: Final = "\x1b[7m"
_PLAIN: Final = "\x1b[0m"
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
_ELLIPSIS: Final = "\u2026"


def drawn(lines: Sequence[Line], size: Size) -> str:
    """Lines as the whole screen. Every line covers the whole width with its own characters, so that
    the terminal is at no time blank, which people would see as flickering."""
    missing = [Line("")] * (size.height - len(lines))
    rows = enumerate([*lines, *missing][: size.height], 1)
    return "".join(f"\x1b[{number};1H{_row(line, size.width)}" for number, line in rows)


def _row(line: Line, width: int) -> str:
    text = fitted(line.text, width)
    if not line.marked:
        return text
    # Each colour ends with a sequence that ends the reverse, too.
    return _REVERSE + text.replace(_PLAIN, _PLAIN + _REVERSE) + _PLAIN


def fitted(text: str, width: int) -> str:
    """Text of exactly this width: what does not fit ends in an ellipsis, and spaces fill the rest.
    Colours stay; all other characters that are not printable are left out."""
    parts = _COLOUR.split(text)
    whole = _width("".join(filter(str.isprintable, "".join(parts[::2]))))
    if whole <= width:
        return "".join(_cut(parts, width)) + " " * (width - whole)
    shown = "".join(_cut(parts, width - 1)) + _ELLIPSIS
    # A wide character that does not fit leaves a column free.
    return shown + " " * (width - _width(_COLOUR.sub("", shown)))


def _cut(parts: Sequence[str], room: int) -> Iterator[str]:
    """The texts and colours of `parts`, which alternate, up to the first character without room."""
    for number, part in enumerate(parts):
        if number % 2:
            yield part
            continue
        for character in filter(str.isprintable, part):
            room -= _width(character)
            if room >= 0:
                yield character


def _width(text: str) -> int:
    """Columns on a terminal: two for letters of East Asia, none for accents that combine."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in ("W", "F"))
        for each in text
    )
