"""`python -m bench.compare OLDER [NEWER]`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import click
from rich.console import Console

from bench.compare.bursts import LOADS
from bench.compare.measure import ENGINES, Cost, Row, Terms, compare
from bench.compare.pairs import Verdict
from bench.compare.revisions import checked_out, commit_of
from bench.compare.tables import comparison
from bench.wire import kernel, machine
from bench.wire.arena import workspace
from bench.wire.backends import backends
from bench.wire.processes import Unavailable, pin

_DESCRIPTORS = 4096
_SERVICES = ("http", "udp")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("older")
@click.argument("newer", default="")
@click.option(
    "--row",
    "loads",
    multiple=True,
    type=click.Choice(list(LOADS)),
    help="Compare only this row. Repeatable.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(list(ENGINES)),
    help="Only workers with io_uring, or with epoll.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=180,
    show_default=True,
    help="How long to measure; more time makes more rows decided.",
)
@click.option(
    "--passes",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often both revisions are started anew.",
)
@click.option("--nice", type=click.IntRange(-20, 19), default=0, help="As in `bench.wire`.")
def main(
    older: str,
    newer: str,
    loads: tuple[str, ...],
    engines: tuple[str, ...],
    seconds: float,
    passes: int,
    nice: int,
) -> None:
    """Compare the CPU that two revisions take for the same work.

    NEWER is the working tree if it is left out. Exits with 1 if it takes over 3 % more CPU for an
    operation of any row. See bench/README.md.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    rows = [Row(load, engine) for load in loads or LOADS for engine in engines or ENGINES]
    where = machine.machine()  # Before this process leaves one of the processors to uproxy.
    try:
        with kernel.priority(nice), ExitStack() as stack:
            found = _measured((older, newer), rows, seconds, passes, stack, console)
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from None
    console.print(machine.line(where, nice=nice, load=os.getloadavg()[0]))
    console.print(comparison(found, _name(older), _name(newer)))
    if any(each.cpu.verdict is Verdict.DEARER for each in found.values()):
        sys.exit(1)


def _measured(
    revisions: tuple[str, str],
    rows: list[Row],
    seconds: float,
    passes: int,
    stack: ExitStack,
    console: Console,
) -> dict[Row, Cost]:
    # Leaves all contexts, so that nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    descriptors = min(kernel.raise_descriptor_limit(), _DESCRIPTORS)
    directory = stack.enter_context(workspace())
    # Packages may have to be downloaded, for which the network is needed that is left afterwards.
    older, newer = (stack.enter_context(checked_out(each, directory)) for each in revisions)
    trouble = kernel.enter_own_network()
    others, own = divided(sorted(os.sched_getaffinity(0)))
    pin(os.getpid(), others)
    services = stack.enter_context(backends(_SERVICES, directory))
    terms = Terms(
        seconds=seconds,
        passes=passes,
        services=services,
        directory=directory,
        descriptors=descriptors,
        own_network=not trouble,
        processors=own,
    )
    status = stack.enter_context(console.status("starting"))
    return compare(older, newer, rows, terms, status.update)


def divided(processors: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Those of the load generator and the backends, and the last one, of both uproxies.

    How much a worker finds each time that it wakes up, and so what a message costs it, depends on
    whether it shares a processor with the generator. The scheduler changes that within a second.
    """
    return (processors[:-1] or processors), processors[-1:]


def _name(revision: str) -> str:
    return commit_of(revision)[:10] if revision else "working tree"
