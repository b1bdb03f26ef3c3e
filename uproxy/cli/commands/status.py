"""`uproxy status`."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from uproxy.cli.live_display import watch
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.status import READY, frontend_table, overview, readiness, urgency
from uproxy.cli.status_client import fetch, fetch_both, url_option
from uproxy.core.report.status import FrontendState
from uproxy.core.report.status_format import Filter, StatusView

_PERIOD: Final = 1.0
"""Seconds between two looks with --watch."""


@click.command("status")
@url_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="Only of this namespace.")
@click.option(
    "--state",
    type=click.Choice([each.value for each in FrontendState]),
    default=None,
    help="Only frontends in this state.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table", help="Form."
)
@click.option(
    "-w", "--watch", "follow", is_flag=True, help="Look again every second, problems first."
)
@click.option("--check", is_flag=True, help="Exit with 1 unless it is ready and healthy.")
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
    """Show what a running uproxy serves, and what it does not and why.

    FLOWS are the active ones of the Service's port, over all frontends of it. BACKENDS "1/3" means
    that clients from outside get 1 of 3 (externalTrafficPolicy Local).

    Exit code: 0, with --check 1 if it is not ready or not healthy, 2 if there is no uproxy.
    """
    wanted = Filter(namespace=namespace, state=state or "")
    if follow and (check or output == "json"):
        raise click.UsageError("--watch goes with tables, and not with --check", ctx)
    if follow:
        watch(lambda: _look(url, wanted, output), interval=_PERIOD)
        return
    status, body = fetch_both(url, wanted)
    if output == "json":
        click.echo(msgspec.json.format(body, indent=2))
    else:
        click.echo("\n".join(_lines(status, wanted, output)))
    if check and readiness(status) != READY:
        ctx.exit(1)


def _look(url: str, wanted: Filter, output: str) -> list[str]:
    status = fetch(url, wanted)
    # Only the first lines fit on a screen.
    status.frontends.sort(key=urgency)
    return _lines(status, wanted, output)


def _lines(status: StatusView, wanted: Filter, output: str) -> list[str]:
    width, paint = terminal()
    wide = output == "wide"
    if wide:
        width = None  # Terminals break long lines; nothing is to be cut here.
    if wanted.state:
        table = list(frontend_table(status.frontends, wide=wide, width=width, paint=paint))
        return table[1:] or [f"No frontend has the state {wanted.state}."]
    return list(overview(status, wide=wide, width=width, paint=paint))
