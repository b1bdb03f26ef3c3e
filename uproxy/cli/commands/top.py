"""`uproxy top`."""

from __future__ import annotations

import time
from typing import Final

import click
import msgspec

from uproxy.cli.live.explained import explain
from uproxy.cli.live.listing import Order, Page
from uproxy.cli.live.top_backends_page import BACKEND_SORTS, TopBackendsContent
from uproxy.cli.live.top_page import SORTS, TopContent, sorts_from
from uproxy.cli.live_display import print_again, show_live
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.top import Sample, sample
from uproxy.cli.output.top_backends import BackendSample, backend_sample
from uproxy.cli.selection import (
    all_namespaces_option,
    namespace_option,
    require,
    select,
    selector_option,
    service_argument,
)
from uproxy.cli.status_client import fetch, url_option
from uproxy.core.printable import printable_json
from uproxy.core.report.status_format import Filter

_PERIOD: Final = 1.0
"""Seconds. Workers report their counts twice in this time."""


@click.command("top")
@service_argument
@url_option
@namespace_option
@all_namespaces_option
@selector_option
@click.option(
    "--sort",
    type=click.Choice(list(dict.fromkeys((*SORTS, *BACKEND_SORTS)))),
    default="flows",
    show_default=True,
    help="Column to sort by, highest values first.",
)
@click.option("--backends", is_flag=True, help="Show a row for each pod of the Services.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Output format. As JSON, each second has a line of its own.",
)
@click.option("--once", is_flag=True, help="Print the rates over one second, and exit.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    service: str | None,
    url: str,
    namespace: str,
    everywhere: bool,
    labels: str,
    sort: str,
    backends: bool,
    output: str,
    once: bool,
) -> None:
    """Show flows and bytes of a running uproxy live, with the busiest Service ports first.

    IN is what clients send, and OUT is what backends answer. DROP counts flows and datagrams that
    were not served; "uproxy explain" says why.

    With --backends there is a row for each pod. FAIL counts attempts to reach it that failed, and
    CONNECT is the time within which half of the others succeeded.

    On a terminal, keys move, sort, filter and explain; the last line names them.
    """
    sorts = BACKEND_SORTS if backends else SORTS
    if sort not in sorts:
        which = "with" if backends else "without"
        raise click.UsageError(
            f"--sort {sort} makes no sense {which} --backends; use {', '.join(sorts)}", ctx
        )
    wanted = select(ctx, service, namespace, everywhere=everywhere, labels=labels)
    meter = _BackendMeter(url, wanted) if backends else _RateMeter(url, wanted)
    if output == "table" and not once:
        page = Page(meter.sample, lambda name: explain(url, name), sorts_from(sorts, sort))
        show_live(page, interval=_PERIOD)
        return
    meter.sample()
    time.sleep(_PERIOD)
    if output == "json":
        _print_json(meter, sort, once=once)
    else:
        width, _ = terminal()
        click.echo("\n".join(meter.sample().listing(Order(sort), width).lines()))


def _print_json(meter: _RateMeter | _BackendMeter, sort: str, *, once: bool) -> None:
    def document() -> bytes:
        return printable_json(msgspec.json.encode(meter.sample().document(sort)))

    if once:
        click.echo(msgspec.json.format(document(), indent=2))
    else:
        print_again(lambda: document().decode(), interval=_PERIOD)


class _RateMeter:
    """Keeps the last sample, to tell from the next one how fast counts grow."""

    def __init__(self, url: str, wanted: Filter) -> None:
        self._url = url
        self._wanted = wanted
        self._last: Sample | None = None

    def sample(self) -> TopContent:
        """What has happened since the last call. Raises NoStatus; the first call NotFound, too."""
        status = fetch(self._url, self._wanted)
        now = sample(time.monotonic(), status.frontends)
        if self._last is None:
            require(self._url, self._wanted, status)
        before, self._last = self._last or now, now
        return TopContent(before, now)


class _BackendMeter:
    """The same for backends."""

    def __init__(self, url: str, wanted: Filter) -> None:
        self._url = url
        self._wanted = wanted._replace(backends="1")
        self._last: BackendSample | None = None

    def sample(self) -> TopBackendsContent:
        """What has happened since the last call. Raises NoStatus; the first call NotFound, too."""
        status = fetch(self._url, self._wanted)
        now = backend_sample(time.monotonic(), status.ports or ())
        if self._last is None:
            require(self._url, self._wanted, status)
        before, self._last = self._last or now, now
        return TopBackendsContent(before, now)
