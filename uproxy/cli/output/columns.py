"""Tables of plain text: aligned columns without lines, for narrow terminals and for grep."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click

Paint = Callable[[str], str]
"""Adds colour to a cell or leaves it as it is; its width on the screen stays the same."""

_GAP: Final = "  "
_MIN_WIDTH: Final = 30
"""Characters that the last cell of a line must have room for; otherwise it goes below."""

_COLOURS: Final = {
    "serving": "green",
    "degraded": "red",
    "paused": "yellow",
    "pending": "yellow",
    "elsewhere": "cyan",
    "used": "green",
    "inside only": "cyan",
    "set aside": "red",
    "not ready": "yellow",
    "terminating": "yellow",
    "failed": "red",
    "conflict": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "error": "red",
    "warning": "yellow",
}


def plain(cell: str) -> str:
    """Leaves a cell as it is, for pipes and files."""
    return cell


def coloured(cell: str) -> str:
    """Gives states and results the colour of their urgency."""
    colour = _COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell


def terminal() -> tuple[int | None, Paint]:
    """Width of the terminal and how to colour its text; None and plain text for a pipe.

    NO_COLOR (no-color.org) and TERM=dumb are honoured.
    """
    if not sys.stdout.isatty():
        return None, plain
    bare = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return shutil.get_terminal_size().columns, plain if bare else coloured


def columns(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    paint: Paint = plain,
    right: frozenset[int] = frozenset(),
) -> Iterator[str]:
    """Lines of a table: the head (unless it is empty), then the rows.

    The last cell of a row is text of any length. If it does not fit into `width`, it continues
    on further lines: in its own column or, if that is too narrow, with an indentation. Columns in
    `right` are aligned to the right.
    """
    for block in column_blocks([head, *rows] if head else rows, width, paint, right):
        yield from block


def column_blocks(
    lines: Sequence[Sequence[str]],
    width: int | None,
    paint: Paint = plain,
    right: frozenset[int] = frozenset(),
) -> Iterator[Iterator[str]]:
    """The lines of `columns`, for each row those that it takes on the screen."""
    widths = _widths(lines)
    indent = _indent(widths)
    for line in lines:
        cells = [
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(line, widths, strict=False))
        ]
        start = "".join(paint(cell) + _GAP for cell in cells)
        yield _with_text(start, line[-1], indent, width)


def grouped(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    paint: Paint = plain,
    right: frozenset[int] = frozenset(),
) -> Iterator[str]:
    """Like `columns`; if the lines are too long, the first cell gets a line of its own above the
    rows that share it."""
    for block in grouped_blocks(head, rows, width=width, paint=paint, right=right):
        yield from block


def grouped_blocks(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    paint: Paint = plain,
    right: frozenset[int] = frozenset(),
) -> Iterator[list[str]]:
    """The lines of `grouped`: first those of the head, then those of each row."""
    lines = [head, *rows]
    if width is None or _indent(_widths(lines)) + len(head[-1]) <= width:
        yield from map(list, column_blocks(lines, width, paint, right))
        return
    below = column_blocks([["", *line[1:]] for line in lines], width, paint, right)
    before = None
    for line, block in zip(lines, below, strict=True):
        yield [*([line[0]] if line[0] != before else []), *block]
        before = line[0]


def paragraph(text: str, *, width: int | None, indent: str = "") -> Iterator[str]:
    """Text, wrapped if there is a width; all lines but the first are indented."""
    if width is None:
        yield text
    else:
        yield from textwrap.wrap(
            text,
            max(width, _MIN_WIDTH),
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """The widths of all columns but the last."""
    return [max(map(len, column)) for column in list(zip(*lines, strict=True))[:-1]]


def _indent(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * len(widths)


def _with_text(start: str, text: str, indent: int, width: int | None) -> Iterator[str]:
    if width is None or indent + len(text) <= width:
        yield (start + text).rstrip()
    elif width - indent >= _MIN_WIDTH:
        first, *more = paragraph(text, width=width - indent)
        yield start + first
        for line in more:
            yield " " * indent + line
    else:
        yield start.rstrip()
        for line in paragraph(text, width=width - 4):
            yield "    " + line
