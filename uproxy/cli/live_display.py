"""Shows lines of text again and again: in place on a terminal, one below the other in a pipe."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from uproxy.cli.output.columns import paragraph, terminal
from uproxy.cli.status_client import NoStatus

Render = Callable[[], Sequence[str]]
"""Returns the lines to show now. If it raises NoStatus, that is shown, and it is called again."""

_REST = 10
"""Each sample of a large cluster costs that uproxy some CPU. So after each sample there is a pause
of at least this many times as long as the sample took."""


def show_live(render: Render, *, interval: float) -> None:
    """Show what `render` returns every `interval` seconds, or less often if it is slow, until
    Ctrl-C. Raises NoStatus if the first call does."""
    try:
        lines = render()
        with _screen() as show:
            show(lines)
            time.sleep(interval)
            while True:
                started = time.monotonic()
                show(_render_or_error(render))
                took = time.monotonic() - started
                time.sleep(max(interval - took, _REST * took))
    except KeyboardInterrupt:
        return


def print_again(document: Callable[[], str], *, interval: float) -> None:
    """Print what `document` returns every `interval` seconds, or less often if it is slow, until
    Ctrl-C. Each ends with a line end, and leaves for whatever reads it at once. If a call raises
    NoStatus, that is said on stderr. Raises NoStatus if the first call does."""
    try:
        _print_document(document())
        time.sleep(interval)
        while True:
            started = time.monotonic()
            try:
                _print_document(document())
            except NoStatus as error:
                click.echo(f"uproxy: trying again: {error.format_message()}", err=True)
            took = time.monotonic() - started
            time.sleep(max(interval - took, _REST * took))
    except KeyboardInterrupt:
        return


def fit_to_height(lines: Sequence[str], height: int) -> Sequence[str]:
    """As many lines as fit; the last one then says how many do not."""
    if len(lines) <= height:
        return lines
    left = len(lines) - height + 1
    return [*lines[: height - 1], f"... {left:,} more lines"]


def _render_or_error(render: Render) -> Sequence[str]:
    try:
        return render()
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
            text = Text.from_ansi("\n".join(fit_to_height(lines, size.lines)))
            text.no_wrap, text.overflow = True, "ellipsis"
            live.update(text, refresh=True)

        yield show


def _print_document(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _print(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines))
    click.echo()
    sys.stdout.flush()
