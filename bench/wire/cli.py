"""`python -m bench.wire`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench.wire import charts, kernel, machine, results, summary, tables
from bench.wire.arena import PEERS, Arena, workspace
from bench.wire.backends import backends
from bench.wire.idle import reachable_by_all
from bench.wire.measurements import Terms
from bench.wire.places import free_place
from bench.wire.processes import Unavailable
from bench.wire.results import Run
from bench.wire.scenarios import CORE, QUICK, SCENARIOS, UPROXIES, Scenario
from bench.wire.targets import verdicts

RESULTS = Path(__file__).parents[1] / "results"
_IDLE = 10_000
_STREAM = 10_000_000_000
_DESCRIPTORS = 24_000
"""File descriptors for each process, if the machine allows it; nginx allocates memory for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to measure."""

    scenarios: Sequence[Scenario]
    peers: Sequence[str]
    rounds: int
    seconds: float
    stream_bytes: int
    idle: int
    nice: int


def chosen(names: Sequence[str], among: Sequence[str]) -> list[str]:
    """The named ones, in their usual order; all of them if none is named.

    A name stands also for all that begin with it and a hyphen: "udp" for "udp-50".
    """
    if not names:
        return list(among)
    return [each for each in among if any(each == n or each.startswith(f"{n}-") for n in names)]


def _checked(among: Sequence[str]) -> Callable[..., tuple[str, ...]]:
    def check(
        ctx: click.Context, param: click.Parameter, names: tuple[str, ...]
    ) -> tuple[str, ...]:
        for name in names:
            if not chosen([name], among):
                raise click.BadParameter(f"{name} is none of {', '.join(among)}")
        return names

    return check


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A few scenarios, three short rounds.")
@click.option(
    "--core", is_flag=True, help="uproxy next to its baselines in the rows that it has targets for."
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    callback=_checked([each.name for each in SCENARIOS]),
    help="Run only this scenario; the beginning of its name is enough. Repeatable.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="Measure only this peer, and the baseline. Repeatable.",
)
@click.option(
    "--rounds", type=click.IntRange(1), help="Number of rounds. Default: 7; 3 with --quick."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.2),
    help="Length of each measurement. Default: 2; 1 with --quick or --core.",
)
@click.option(
    "--nice",
    type=click.IntRange(-20, 19),
    default=0,
    help="Priority of all measured processes; -10 (root) keeps other load out of the figures.",
)
@click.option("--stream-bytes", type=click.IntRange(1_000_000), default=_STREAM, show_default=True)
@click.option("--idle", type=click.IntRange(1), default=_IDLE, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Directory for the JSON file. Default: bench/results.",
)
@click.option("--charts/--no-charts", "draw", default=False, help="Draw SVG files next to it.")
@click.option("--markdown", is_flag=True, help="Print one table for a document.")
@click.option(
    "--show",
    type=click.Path(path_type=Path, exists=True),
    help="Show the results in this file instead of measuring.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True),
    help="Compare uproxy's ratios with those of this file.",
)
def main(
    quick: bool,
    core: bool,
    scenarios: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    nice: int,
    stream_bytes: int,
    idle: int,
    output: Path,
    draw: bool,
    markdown: bool,
    show: Path | None,
    against: Path | None,
) -> None:
    """Measure uproxy next to its peers. See bench/README.md."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if show is not None:
        run = results.read(show)
    else:
        names = scenarios or (QUICK if quick else CORE if core else ())
        usual = [each for each in PEERS if each not in ("none", "nftables")]
        wanted = chosen(names, [each.name for each in SCENARIOS])
        choice = Choice(
            scenarios=[each for each in SCENARIOS if each.name in wanted],
            peers=peers or (UPROXIES if core else usual if quick else list(PEERS)),
            rounds=rounds or (3 if quick else 7),
            seconds=seconds or (1.0 if quick or core else 2.0),
            stream_bytes=stream_bytes,
            idle=idle,
            nice=nice,
        )
        with kernel.priority(choice.nice):
            run = measure(choice, console)
        console.print(f"written: {results.write(run, output, 'quick' if quick else '')}")
    if markdown:
        print(summary.markdown(run), end="")
    else:
        _print(run, console)
    if against is not None:
        console.print(tables.comparison_table(results.read(against), run))
    if draw:
        _draw(run, output, console)


def measure(choice: Choice, console: Console) -> Run:
    """Measure all chosen scenarios that can be measured here."""
    trouble = kernel.enter_own_network()
    if trouble:
        console.print(f"no network namespace of its own ({trouble}): the machine's is used")
    descriptors = min(kernel.raise_descriptor_limit(), _DESCRIPTORS)
    # Leaves all contexts, so that nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = _blank(choice, own_network=not trouble)
    services = list(dict.fromkeys(each.service for each in choice.scenarios if each.service))
    with workspace() as directory, ExitStack() as stack, console.status("starting") as status:
        started = stack.enter_context(backends(services, directory))
        terms = Terms(
            seconds=choice.seconds,
            directory=directory,
            stream_bytes=choice.stream_bytes,
            idle=min(choice.idle, reachable_by_all(descriptors)),
            source_port=free_place().port,
        )
        arena = Arena(started, directory, descriptors, not trouble, stack, status.update)
        for scenario in choice.scenarios:
            _run_one(arena, scenario, choice, terms, run, console)
        run.skipped, run.failures = arena.skipped, arena.failures
    return run


def _run_one(
    arena: Arena, scenario: Scenario, choice: Choice, terms: Terms, run: Run, console: Console
) -> None:
    known = set(arena.skipped)
    peers = competitors(scenario, choice.peers)
    if not peers:
        return
    try:
        run.outcomes.append(arena.run(scenario, peers, choice.rounds, terms))
        console.print(f"{scenario.name}: measured")
    except Unavailable as reason:
        console.print(f"{scenario.name} is left out: {reason}", markup=False)
    for name in arena.skipped.keys() - known:
        console.print(f"{name} is left out: {arena.skipped[name]}", markup=False)


def competitors(scenario: Scenario, peers: Sequence[str]) -> list[str]:
    """The chosen peers, and the baseline if there are others."""
    wanted = [each for each in scenario.peers if each in peers]
    if not wanted:
        return []
    return [each for each in scenario.peers if each in wanted or each == scenario.baseline]


def _blank(choice: Choice, own_network: bool) -> Run:
    return Run(
        started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        revision=machine.revision(),
        machine=machine.machine(),
        versions=machine.versions(),
        seconds=choice.seconds,
        nice=choice.nice,
        own_network=own_network,
        load=os.getloadavg()[0],
        skipped={},
        failures=[],
        outcomes=[],
    )


def _print(run: Run, console: Console) -> None:
    where = run.machine
    console.print(
        f"{machine.line(where, nice=run.nice, load=run.load)} at the start, revision {run.revision}"
    )
    if run.load > where.processors / 2:
        console.print("something else was running: trust ratios only, and those of CPU first")
    for outcome in run.outcomes:
        console.print(tables.outcome_table(outcome, run))
        for line in tables.error_lines(outcome):
            console.print(line, style="yellow")
    grown = tables.growth_table(run.outcomes)
    if grown is not None:
        console.print(grown)
    for failure in run.failures:
        console.print(f"failed: {failure}", style="yellow", markup=False)
    found = verdicts(run.outcomes)
    if found:
        console.print(tables.verdict_table(found))


def _draw(run: Run, output: Path, console: Console) -> None:
    try:
        for path in charts.draw(run, output):
            console.print(f"drawn: {path}")
    except Unavailable as reason:
        console.print(f"no charts: {reason}")
