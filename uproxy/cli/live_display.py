"""Shows text that changes: in place on a terminal, one after the other through a pipe."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from uproxy.cli.output.columns import paragraph, terminal
from uproxy.cli.status_client import NoStatus

Draw = Callable[[], Sequence[str]]
"""Lines to show now. May raise NoStatus: that is shown too, and tried again."""

_SHARE = 10
"""A look at a large cluster costs it some CPU: at most one part in so many of the time."""


def watch(draw: Draw, *, interval: float) -> None:
    """Show what `draw` returns every `interval` seconds, or less often where drawing is slow,
    until Ctrl-C. Raises NoStatus from the first look."""
    try:
        lines = draw()
        with _screen() as show:
            show(lines)
            time.sleep(interval)
            while True:
                started = time.monotonic()
                show(_attempt(draw))
                took = time.monotonic() - started
                time.sleep(max(interval - took, _SHARE * took))
    except KeyboardInterrupt:
        return


def fitted(lines: Sequence[str], height: int) -> Sequence[str]:
    """As many lines as there is room for, and how many there are not."""
    if len(lines) <= height:
        return lines
    left = len(lines) - height + 1
    return [*lines[: height - 1], f"... {left:,} more lines"]


def _attempt(draw: Draw) -> Sequence[str]:
    try:
        return draw()
    except NoStatus as error:
        return list(paragraph(f"Trying again: {error.format_message()}", width=terminal()[0]))


@contextmanager
def _screen() -> Iterator[Callable[[Sequence[str]], None]]:
    if not sys.stdout.isatty():
        yield _print
        return
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as live:

        def show(lines: Sequence[str]) -> None:
            size = shutil.get_terminal_size()
            text = Text.from_ansi("\n".join(fitted(lines, size.lines)))
            text.no_wrap, text.overflow = True, "ellipsis"
            live.update(text, refresh=True)

        yield show


def _print(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines))
    click.echo()
    sys.stdout.flush()
