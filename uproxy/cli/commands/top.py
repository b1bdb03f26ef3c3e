"""`uproxy top`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import click

from uproxy.cli.live_display import show_live
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.top import SORT_KEYS, Sample, rates, sample, table
from uproxy.cli.status_client import fetch, url_option
from uproxy.core.report.status_format import Filter

_PERIOD: Final = 1.0
"""Seconds. Workers report their counts twice in this time."""


@click.command("top")
@url_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="Show this namespace only.")
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS)),
    default="flows",
    show_default=True,
    help="Column to sort by, highest values first.",
)
@click.option("--once", is_flag=True, help="Print the rates over one second, and exit.")
def command(url: str, namespace: str, sort: str, once: bool) -> None:
    """Show flows and bytes of a running uproxy live, with the busiest Service ports first.

    IN is what clients send, and OUT is what backends answer. DROP counts flows and datagrams that
    were not served; "uproxy explain" says why.
    """
    meter = _RateMeter(url, Filter(namespace=namespace), sort)
    if once:
        meter.measure()
        time.sleep(_PERIOD)
        click.echo("\n".join(meter.measure()))
    else:
        show_live(meter.measure, interval=_PERIOD)


class _RateMeter:
    """Keeps the last sample, to tell from the next one how fast counts grow."""

    def __init__(self, url: str, wanted: Filter, sort: str) -> None:
        self._url = url
        self._wanted = wanted
        self._sort = sort
        self._last: Sample | None = None

    def measure(self) -> Sequence[str]:
        """The table of rates since the last call. Raises NoStatus."""
        frontends = fetch(self._url, self._wanted).frontends
        now = sample(time.monotonic(), frontends)
        before, self._last = self._last or now, now
        width, _ = terminal()
        return list(table(rates(before, now, sort=self._sort), width=width))
