"""Shows something again and again: with keys on a terminal, one below the other in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final

import click

from uproxy.cli.live import session
from uproxy.cli.live.listing import Page
from uproxy.cli.status_client import NoStatus

_REST: Final = 10
"""Each sample of a large cluster costs that uproxy some CPU. So after each sample there is a pause
of at least this many times as long as the sample took."""


def show_live(page: Page, *, interval: float) -> None:
    """Show a page every `interval` seconds, or less often if it is slow, until it is ended by a
    key or Ctrl-C. Raises what its first sample does."""
    try:
        content = page.sample()
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            session.run(page, content, interval=interval, rest=_REST)
            return
        _print("\n".join(content.listing(page.first_order, None).lines()) + "\n")
        _repeat(lambda: _print(_listing_or_error(page)), interval)
    except KeyboardInterrupt:
        return


def print_again(document: Callable[[], str], *, interval: float) -> None:
    """Print what `document` returns every `interval` seconds, or less often if it is slow, until
    Ctrl-C. Each ends with a line end, and leaves for whatever reads it at once. If a call raises
    NoStatus, that is said on stderr. Raises NoStatus if the first call does."""

    def again() -> None:
        try:
            _print(document())
        except NoStatus as error:
            click.echo(f"uproxy: trying again: {error.format_message()}", err=True)

    try:
        _print(document())
        _repeat(again, interval)
    except KeyboardInterrupt:
        return


def _repeat(act: Callable[[], None], interval: float) -> None:
    time.sleep(interval)
    while True:
        started = time.monotonic()
        act()
        took = time.monotonic() - started
        time.sleep(max(interval - took, _REST * took))


def _listing_or_error(page: Page) -> str:
    try:
        lines = page.sample().listing(page.first_order, None).lines()
    except NoStatus as error:
        lines = [f"Trying again: {error.format_message()}"]
    return "\n".join(lines) + "\n"


def _print(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()
