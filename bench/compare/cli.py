"""`python -m bench.compare OLDER [NEWER]`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

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
from bench.wire.processes import Unavailable, output_of, pin
from bench.wire.uproxy_peer import HERE, Program

_DESCRIPTORS = 4096
_SERVICES = ("http", "udp")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("older")
@click.argument("newer", default=".")
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
    help="Compare only workers with io_uring, or with epoll.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=180,
    show_default=True,
    help="How long to measure; with more time, more rows get a verdict.",
)
@click.option(
    "--passes",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often both revisions are started anew.",
)
@click.option("--nice", type=click.IntRange(-20, 19), default=0, help="As in `bench.wire`.")
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Interpreter of NEWER, to compare two interpreters. It must have what uproxy depends on.",
)
def main(
    older: str,
    newer: str,
    loads: tuple[str, ...],
    engines: tuple[str, ...],
    seconds: float,
    passes: int,
    nice: int,
    python: Path | None,
) -> None:
    """Compare the CPU that two revisions take for the same work.

    NEWER is the working tree if it is left out, and "." stands for it. Exits with 1 if it takes
    over 3 % more CPU for an operation of any row. See bench/README.md.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    rows = [Row(load, engine) for load in loads or LOADS for engine in engines or ENGINES]
    # This leaves all contexts, so that nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    revisions = older, newer
    where = machine.machine()  # Before this process leaves one of the processors to uproxy.
    try:
        with kernel.priority(nice), ExitStack() as stack:
            directory = stack.enter_context(workspace())
            # Packages may have to be downloaded, and the network is out of reach later.
            programs = [stack.enter_context(checked_out(each, directory)) for each in revisions]
            if python is not None:
                programs[1] = replace(programs[1], interpreter=str(python))
                console.print(_described(python))
            found = _measured(programs, rows, seconds, passes, directory, stack, console)
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from None
    console.print(machine.line(where, nice=nice, load=os.getloadavg()[0]))
    console.print(comparison(found, _name(older, None), _name(newer, python)))
    if any(each.cpu.verdict is Verdict.DEARER for each in found.values()):
        sys.exit(1)


def _measured(
    programs: Sequence[Program],
    rows: list[Row],
    seconds: float,
    passes: int,
    directory: Path,
    stack: ExitStack,
    console: Console,
) -> dict[Row, Cost]:
    descriptors = min(kernel.raise_descriptor_limit(), _DESCRIPTORS)
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
    return compare(programs, rows, terms, status.update)


def divided(processors: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Those of the load generator and the backends, and the last one, of both uproxies.

    How much a worker finds each time that it wakes up, and so what a message costs it, depends on
    whether it shares a processor with the generator. The scheduler changes that within a second.
    """
    return (processors[:-1] or processors), processors[-1:]


def _name(revision: str, python: Path | None) -> str:
    name = "working tree" if revision == "." else commit_of(revision)[:10]
    return name if python is None else f"{name}, {python.name}"


def _described(python: Path) -> str:
    """The version of an interpreter, and how it was built."""
    code = f"import platform, sys, sysconfig; sys.path.insert(0, {str(HERE.root)!r}); "
    code += "from bench.wire.machine import build_of; "
    code += "print(platform.python_version(), build_of(sysconfig.get_config_vars()), sep=', ')"
    return f"{python.name}: Python {output_of([str(python), '-c', code]).strip()}"
