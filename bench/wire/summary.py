"""A run as one Markdown table: how uproxy compares with its baselines, by io_uring and by epoll."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.wire import figures, machine
from bench.wire.results import Outcome, Run
from bench.wire.scenarios import UPROXIES
from bench.wire.statistics import ratios, spread
from bench.wire.tables import value_cell
from bench.wire.targets import Verdict, verdicts

_COLUMNS = (
    ("CPU", (figures.CPU,)),
    ("rate", (figures.RATE, figures.THROUGHPUT)),
    ("p99", (figures.P99,)),
)
_HEAD = ("row", "baseline", *(f"{name}, {by}" for name, _ in _COLUMNS for by in ("ring", "epoll")))


def markdown(run: Run) -> str:
    """Medians of the ratios, with extremes; bold where a target is missed."""
    missed = [each for each in verdicts(run.outcomes) if not each.met]
    rows = [
        (outcome.scenario, outcome.baseline, *_cells(outcome, missed))
        for outcome in run.outcomes
        if set(UPROXIES) & outcome.rounds.keys() and outcome.baseline not in UPROXIES
    ]
    where = machine.line(run.machine, nice=run.nice, load=run.load)
    lines = [f"{run.started[:16]}Z, revision {run.revision[:10]}: {where} at the start.", ""]
    return "\n".join([*lines, *map(_line, (_HEAD, ["---"] * len(_HEAD), *rows))]) + "\n"


def _cells(outcome: Outcome, missed: Sequence[Verdict]) -> Iterator[str]:
    for _, names in _COLUMNS:
        for peer in UPROXIES:
            yield next(filter(None, (_cell(outcome, peer, name, missed) for name in names)), "")


def _cell(outcome: Outcome, peer: str, figure: str, missed: Sequence[Verdict]) -> str:
    """Empty if it was not measured."""
    found = spread(ratios(outcome, peer, figure))
    if found is None:
        return ""
    text = value_cell(found, 2)
    this = outcome.scenario, figure, outcome.baseline, peer
    targets = (each.target for each in missed)
    behind = any((t.scenario, t.figure, t.peer, t.subject) == this for t in targets)
    return f"**{text}**" if behind else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
