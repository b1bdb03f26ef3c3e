"""`uproxy flows`."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Final

import click
import msgspec

from uproxy.cli.output.columns import plain, terminal
from uproxy.cli.output.flows import FlowTable, left_out, legend
from uproxy.cli.output.numbers import counted
from uproxy.cli.selection import (
    all_namespaces_option,
    namespace_option,
    require,
    select,
    service_argument,
)
from uproxy.cli.service_completion import complete_services
from uproxy.cli.status_client import NoStatus, fetch, fetch_flows, url_option
from uproxy.core.flows.flow_record import KEPT
from uproxy.core.report.flow_codes import ENDERS, PHASES
from uproxy.core.report.flow_format import DEFAULT_LIMIT, FlowFilter, FlowsView

_PERIOD: Final = 1.0
"""Seconds between two questions with --follow."""
_MOST_AT_ONCE: Final = 1_000
"""Flows that --follow prints each second."""


def _letters() -> str:
    """The codes, for --help."""
    lines = ["CODE is two letters, as in the log of HAProxy.", "", "\b", "Who ended the flow:"]
    lines += [f"  {letter}  {text}" for letter, text in ENDERS.items()]
    lines += ["", "\b", "How far it had got:"]
    lines += [f"  {letter}  {text}" for letter, text in PHASES.items()]
    return "\n".join(lines)


@click.command("flows", epilog=_letters())
@service_argument
@click.option(
    "--service",
    "named",
    default=None,
    metavar="NAME",
    shell_complete=complete_services,
    help="Show flows of this Service, as the argument does.",
)
@url_option
@namespace_option
@all_namespaces_option
@click.option("--bad", is_flag=True, help="Show only flows that did not end as they should.")
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on with flows that end from now on, until Ctrl-C. As JSON, each has a line of its "
    "own.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, KEPT),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="Show the last N flows.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    service: str | None,
    named: str | None,
    url: str,
    namespace: str,
    everywhere: bool,
    bad: bool,
    follow: bool,
    limit: int,
    output: str,
) -> None:
    """Show flows that have ended: who talked to which pod, how much, and how it ended.

    Each worker keeps its last 10,000. IN is what the client sent, OUT what it got, DIAL the time
    until a backend answered.
    """
    if service is not None and named is not None:
        raise click.UsageError("the Service is given twice; leave out --service", ctx)
    selected = select(ctx, service or named, namespace, everywhere=everywhere)
    wanted = FlowFilter(selected.namespace, selected.service, bad, limit)
    found = fetch_flows(url, wanted)
    if not found.flows and (selected.namespace or selected.service):
        require(url, selected, fetch(url, selected))
    printer = _Printer(output, wanted, follow=follow)
    if not follow:
        printer.print(found)
        return
    try:
        printer.print(found)
        _follow(url, wanted, found.cursor, printer)
    except KeyboardInterrupt:
        return


def _follow(url: str, wanted: FlowFilter, cursor: str, printer: _Printer) -> None:
    waiting = False
    while True:
        time.sleep(_PERIOD)
        try:
            found = fetch_flows(url, wanted._replace(limit=_MOST_AT_ONCE, after=cursor))
        except NoStatus as error:
            if not waiting:
                click.echo(f"uproxy: trying again: {error.format_message()}", err=True)
            waiting = True
            continue
        waiting = False
        cursor = found.cursor
        printer.print(found)


def _kind(wanted: FlowFilter) -> str:
    """What is looked for, in words."""
    where = "/".join(filter(None, (wanted.namespace, wanted.service)))
    return ("bad flow" if wanted.bad else "flow") + (f" of {where}" if where else "")


class _Printer:
    """Prints flows in one of the formats; what is not a flow goes to stderr."""

    def __init__(self, output: str, wanted: FlowFilter, *, follow: bool) -> None:
        self._json = output == "json"
        self._kind = _kind(wanted)
        self._follow = follow
        self._width, paint = terminal()
        self._on_terminal = self._width is not None
        self._table = FlowTable(
            wide=output == "wide",
            width=self._width,
            colours=paint is not plain,
            today=datetime.now(UTC).astimezone().date(),
        )
        self._begun = False
        self._missing: list[str] = []

    def print(self, found: FlowsView) -> None:
        """Print the flows that an answer has."""
        if self._json:
            self._print_json(found)
        else:
            self._print_table(found)
        sys.stdout.flush()
        if found.missing != self._missing:
            self._missing = found.missing
            for each in found.missing:
                click.echo(f"uproxy: {each}, so its flows are missing", err=True)
        if found.left_out and self._begun:
            click.echo(f"uproxy: {left_out(found.left_out)}", err=True)
        self._begun = True

    def _print_json(self, found: FlowsView) -> None:
        if self._follow:
            for flow in found.flows:
                click.echo(msgspec.json.encode(flow))
        else:
            click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))

    def _print_table(self, found: FlowsView) -> None:
        for line in self._table.lines(found.flows):
            click.echo(line)
        if self._follow:
            return
        if not found.flows:
            click.echo(f"No {self._kind} has ended yet.")
        if self._on_terminal:
            for line in legend(found.flows, width=self._width):
                click.echo(line)
            if found.left_out:
                click.echo(f"{counted(found.left_out, 'earlier flow')}: see --limit")
