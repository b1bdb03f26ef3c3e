"""`uproxy status`."""

from __future__ import annotations

import sys
from typing import Final

import click

from uproxy.cli.documents import Output, OutputType, document
from uproxy.cli.live.explained import explain
from uproxy.cli.live.listing import Page
from uproxy.cli.live.status_page import SORTS, StatusContent
from uproxy.cli.live_display import print_again, show_live
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.services import services_of
from uproxy.cli.output.status import (
    READY,
    frontend_rows,
    frontend_table,
    overview,
    readiness,
)
from uproxy.cli.selection import (
    all_namespaces_option,
    namespace_option,
    require,
    select,
    selector_option,
    service_argument,
)
from uproxy.cli.status_client import fetch, fetch_both, url_option
from uproxy.core.printable import printable
from uproxy.core.report.status import FrontendState
from uproxy.core.report.status_format import Filter, StatusView

_PERIOD: Final = 1.0
"""Seconds between two refreshes with --watch."""


@click.command("status")
@service_argument
@url_option
@namespace_option
@all_namespaces_option
@selector_option
@click.option(
    "--state",
    type=click.Choice([each.value for each in FrontendState]),
    default=None,
    help="Show frontends in this state only.",
)
@click.option("-o", "--output", type=OutputType(), default="table", help="Output format.")
@click.option("--no-headers", is_flag=True, help="Print only the rows of the table, for scripts.")
@click.option(
    "-w",
    "--watch",
    "follow",
    is_flag=True,
    help="Refresh every second, with problems first. On a terminal, the last line names keys.",
)
@click.option("--check", is_flag=True, help="Exit with 1 unless uproxy is ready and healthy.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    service: str | None,
    url: str,
    namespace: str,
    everywhere: bool,
    labels: str,
    state: str | None,
    output: Output,
    no_headers: bool,
    follow: bool,
    check: bool,
) -> None:
    """Show what a running uproxy serves, and what it does not serve and why.

    FLOWS is the number of active flows of the Service's port, over all of its frontends. BACKENDS
    "1/3" means that clients from outside get 1 of 3 backends (externalTrafficPolicy Local).

    Exit code: 0 on success, 1 if there is no such Service or namespace, or with --check if uproxy
    is not ready or not healthy, 2 if no uproxy answers.
    """
    wanted = select(
        ctx, service, namespace, everywhere=everywhere, labels=labels, state=state or ""
    )
    if follow and (check or no_headers):
        raise click.UsageError(
            "--watch cannot be combined with --check or --no-headers; leave one out", ctx
        )
    status, body = fetch_both(url, wanted)
    require(url, wanted, status)
    if follow and output.is_table:
        page = Page(
            lambda: _content(url, wanted, output), lambda service: explain(url, service), SORTS
        )
        show_live(page, interval=_PERIOD)
    elif follow:
        print_again(
            lambda: document(output, *fetch_both(url, wanted), wanted, one_line=True),
            interval=_PERIOD,
        )
    elif output.is_table:
        lines = frontend_rows(status.frontends, wide=output.is_wide) if no_headers else None
        _print("\n".join(_lines(status, wanted, output) if lines is None else lines))
    else:
        _print(document(output, status, body, wanted), ends_line=output.kind != "jsonpath")
    if check and readiness(status) != READY:
        ctx.exit(1)


def _print(text: str, *, ends_line: bool = True) -> None:
    """`ends_line`: like kubectl, a template ends a line only where it says so. On a terminal,
    the prompt of the shell would follow in the same line."""
    on_terminal = sys.stdout.isatty()
    if text:
        click.echo(text, nl=ends_line or (on_terminal and not text.endswith("\n")))


def _content(url: str, wanted: Filter, output: Output) -> StatusContent:
    status = fetch(url, wanted)
    return StatusContent(
        status,
        paint=terminal()[1],
        wide=output.is_wide,
        only_frontends=bool(wanted.state) or _none_is_selected(status, wanted),
        nothing=_nothing(status, wanted),
    )


def _none_is_selected(status: StatusView, wanted: Filter) -> bool:
    return bool(wanted.labels) and not services_of(status)


def _nothing(status: StatusView, wanted: Filter) -> str:
    """What is said in place of a table without rows."""
    if _none_is_selected(status, wanted):
        return printable(f"No Service has labels that match {wanted.labels}.")
    return f"No frontend has the state {wanted.state}."


def _lines(status: StatusView, wanted: Filter, output: Output) -> list[str]:
    width, paint = terminal()
    wide = output.is_wide
    if wide:
        width = None  # The terminal breaks long lines, so that nothing is cut off.
    if wanted.state or _none_is_selected(status, wanted):
        table = list(frontend_table(status.frontends, wide=wide, width=width, paint=paint))
        return table[1:] or [_nothing(status, wanted)]
    return list(overview(status, wide=wide, width=width, paint=paint))
