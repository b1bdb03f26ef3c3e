"""`uproxy top`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import click

from uproxy.cli.live_display import watch
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.top import SORT_KEYS, Sample, rates, sample, table
from uproxy.cli.status_client import fetch, url_option
from uproxy.core.report.status_format import Filter

_PERIOD: Final = 1.0
"""Seconds. Workers report their counts twice in that time."""


@click.command("top")
@url_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="Only of this namespace.")
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS)),
    default="flows",
    show_default=True,
    help="What the busiest has most of.",
)
@click.option("--once", is_flag=True, help="Print what happens in one second, and end.")
def command(url: str, namespace: str, sort: str, once: bool) -> None:
    """Watch flows and bytes of a running uproxy, the busiest Service ports first.

    IN is what clients send, OUT what backends answer. DROP counts flows and datagrams that were not
    served: "uproxy explain" says why.
    """
    meter = _Meter(url, Filter(namespace=namespace), sort)
    if once:
        meter.look()
        time.sleep(_PERIOD)
        click.echo("\n".join(meter.look()))
    else:
        watch(meter.look, interval=_PERIOD)


class _Meter:
    """Remembers the last look, so that the next one can say what has happened since."""

    def __init__(self, url: str, wanted: Filter, sort: str) -> None:
        self._url = url
        self._wanted = wanted
        self._sort = sort
        self._last: Sample | None = None

    def look(self) -> Sequence[str]:
        """Lines to show. Raises NoStatus."""
        frontends = fetch(self._url, self._wanted).frontends
        now = sample(time.monotonic(), frontends)
        before, self._last = self._last or now, now
        width, _ = terminal()
        return list(table(rates(before, now, sort=self._sort), width=width))
