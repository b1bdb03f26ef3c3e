"""Results for the terminal. Ratios come first, because they hold on other machines too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.table import Table

from bench.wire import figures, machine
from bench.wire.results import Figure, Outcome, Run
from bench.wire.scenarios import UPROXIES
from bench.wire.statistics import Spread, ratios, spread, values
from bench.wire.targets import Verdict

PAIRS = tuple(
    (f"{one}-t{threads}", f"{two}-t{threads}")
    for one, two in (("keep-alive-64", "two-workers"), ("connections", "two-workers-connections"))
    for threads in (1, 2)
)
"""The same scenario with one worker and with two."""
_GROWING = (figures.RATE, figures.CPU)
_CLOSE = 0.05
"""Ratios this near to 1 are neither praised nor blamed."""


def outcome_table(outcome: Outcome, run: Run) -> Table:
    """A row for each peer: the ratio to the baseline, and below it the figure itself."""
    table = Table(title=outcome.title, title_justify="left", title_style="bold")
    table.caption = machine.line(run.machine, nice=run.nice, load=outcome.load)
    table.caption_justify = "left"
    table.add_column(f"ratio to {outcome.baseline}\nand figure", no_wrap=True)
    for figure in outcome.figures:
        table.add_column(f"{figure.name}\n{figure.unit}", justify="right", no_wrap=True)
    for peer in outcome.rounds:
        cells = [figure_cell(outcome, peer, figure) for figure in outcome.figures]
        table.add_row(peer, *cells, style="bold" if peer in UPROXIES else "", end_section=True)
    return table


def figure_cell(outcome: Outcome, peer: str, figure: Figure) -> str:
    """One line or two, medians with extremes; "-" where nothing was measured."""
    own = spread(values(outcome, peer, figure.name))
    if own is None:
        return "-"
    text = value_cell(own, figure.digits)
    ratio = spread(ratios(outcome, peer, figure.name)) if figure.compared else None
    if ratio is None or list(outcome.rounds) == [outcome.baseline]:
        return text
    if peer == outcome.baseline:
        return f"1\n{text}"
    return f"[{_colour(ratio.median, figure)}]{value_cell(ratio, 2)}[/]\n{text}"


def value_cell(found: Spread, digits: int) -> str:
    """Median, and in brackets the extremes, if there was more than one round."""
    median, low, high = (f"{each:,.{digits}f}" for each in found[:3])
    return median if found.rounds == 1 else f"{median} ({low}-{high})"


def growth_table(outcomes: Sequence[Outcome]) -> Table | None:
    """From one worker to two: medians of the scenarios that were measured with both."""
    by_name = {each.scenario: each for each in outcomes}
    table = Table(title="From one worker to two", title_justify="left", title_style="bold")
    for column in ("scenario", "peer", "rate", "cpu for each"):
        table.add_column(column, justify="left" if column in ("scenario", "peer") else "right")
    for one, two in PAIRS:
        if one in by_name and two in by_name:
            for peer in by_name[two].rounds:
                cells = [growth(by_name[one], by_name[two], peer, name) for name in _GROWING]
                table.add_row(
                    one, peer, *("-" if each is None else f"{each:.2f}" for each in cells)
                )
    return table if table.rows else None


def comparison_table(earlier: Run, later: Run) -> Table:
    """What became of uproxy's ratios from one run to another; figures where it has no peer."""
    table = Table(title="Compared", title_justify="left", title_style="bold")
    for column in ("what", earlier.started, later.started, "change"):
        table.add_column(column, justify="left" if column == "what" else "right")
    before = {each.scenario: each for each in earlier.outcomes}
    for outcome in later.outcomes:
        if outcome.scenario not in before:
            continue
        both = before[outcome.scenario], outcome
        for peer, figure in itertools.product(UPROXIES, outcome.figures):
            old, new = (_standing(each, peer, figure) for each in both)
            if old and new and old.median:
                change = f"{100 * (new.median / old.median - 1):+.0f} %"
                cells = [value_cell(each, 2) for each in (old, new)]
                table.add_row(f"{outcome.scenario}: {figure.name} of {peer}", *cells, change)
    return table


def _standing(outcome: Outcome, peer: str, figure: Figure) -> Spread | None:
    if not figure.compared:
        return None
    alone = list(outcome.rounds) == [peer]
    return spread((values if alone else ratios)(outcome, peer, figure.name))


def growth(one: Outcome, two: Outcome, peer: str, figure: str) -> float | None:
    """The second median as a multiple of the first; None where one is missing."""
    before, after = (spread(values(each, peer, figure)) for each in (one, two))
    return after.median / before.median if before and after and before.median else None


def error_lines(outcome: Outcome) -> list[str]:
    """One for each peer that had errors or rounds that failed."""
    lines = []
    for peer, rounds in outcome.rounds.items():
        errors = sum(values(outcome, peer, figures.ERRORS))
        failed = rounds.count(None)
        if errors:
            lines.append(f"{outcome.scenario}: {peer} had {errors:.0f} errors")
        if failed:
            lines.append(f"{outcome.scenario}: {peer} failed in {failed} of {len(rounds)} rounds")
    return lines


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """How uproxy does against its targets."""
    table = Table(title="Targets", title_justify="left", title_style="bold")
    for column in ("what", "target", "measured", ""):
        table.add_column(column)
    for each in verdicts:
        target = each.target
        what = f"{target.scenario}: {target.figure} of {target.subject}" + (
            f" / {target.peer}" if target.peer else ""
        )
        sign = ">=" if target.at_least else "<="
        word = "[green]met[/]" if each.met else "[red]missed[/]"
        table.add_row(what, f"{sign} {target.bound}", value_cell(each.measured, 2), word)
    return table


def _colour(ratio: float, figure: Figure) -> str:
    if abs(ratio - 1) <= _CLOSE:
        return "default"
    return "green" if (ratio > 1) == figure.higher_is_better else "red"
