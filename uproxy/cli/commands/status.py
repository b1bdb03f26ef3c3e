"""`uproxy status`."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from uproxy.cli.live_display import show_live
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.status import READY, frontend_table, overview, readiness, urgency
from uproxy.cli.status_client import fetch, fetch_both, url_option
from uproxy.core.report.status import FrontendState
from uproxy.core.report.status_format import Filter, StatusView

_PERIOD: Final = 1.0
"""Seconds between two refreshes with --watch."""


@click.command("status")
@url_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="Show this namespace only.")
@click.option(
    "--state",
    type=click.Choice([each.value for each in FrontendState]),
    default=None,
    help="Show frontends in this state only.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json"]),
    default="table",
    help="Output format.",
)
@click.option(
    "-w", "--watch", "follow", is_flag=True, help="Refresh every second, with problems first."
)
@click.option("--check", is_flag=True, help="Exit with 1 unless uproxy is ready and healthy.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    url: str,
    namespace: str,
    state: str | None,
    output: str,
    follow: bool,
    check: bool,
) -> None:
    """Show what a running uproxy serves, and what it does not serve and why.

    FLOWS is the number of active flows of the Service's port, over all of its frontends. BACKENDS
    "1/3" means that clients from outside get 1 of 3 backends (externalTrafficPolicy Local).

    Exit code: 0 on success, 1 with --check if uproxy is not ready or not healthy, 2 if no uproxy
    answers.
    """
    wanted = Filter(namespace=namespace, state=state or "")
    if follow and (check or output == "json"):
        raise click.UsageError(
            "--watch cannot be combined with --check or -o json; leave one out", ctx
        )
    if follow:
        show_live(lambda: _problems_first(url, wanted, output), interval=_PERIOD)
        return
    status, body = fetch_both(url, wanted)
    if output == "json":
        click.echo(msgspec.json.format(body, indent=2))
    else:
        click.echo("\n".join(_lines(status, wanted, output)))
    if check and readiness(status) != READY:
        ctx.exit(1)


def _problems_first(url: str, wanted: Filter, output: str) -> list[str]:
    status = fetch(url, wanted)
    # Only the first lines fit on a screen.
    status.frontends.sort(key=urgency)
    return _lines(status, wanted, output)


def _lines(status: StatusView, wanted: Filter, output: str) -> list[str]:
    width, paint = terminal()
    wide = output == "wide"
    if wide:
        width = None  # The terminal breaks long lines, so that nothing is cut off.
    if wanted.state:
        table = list(frontend_table(status.frontends, wide=wide, width=width, paint=paint))
        return table[1:] or [f"No frontend has the state {wanted.state}."]
    return list(overview(status, wide=wide, width=width, paint=paint))
