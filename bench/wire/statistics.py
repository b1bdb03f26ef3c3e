"""Medians and ratios, from the rounds of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from bench.wire.results import Outcome


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Iterable[float]) -> Spread | None:
    """Median and extremes; None of nothing."""
    known = sorted(values)
    return Spread(median(known), known[0], known[-1], len(known)) if known else None


def values(outcome: Outcome, peer: str, figure: str) -> list[float]:
    """All rounds in which that figure was measured."""
    rounds = outcome.rounds.get(peer, ())
    return [each[figure] for each in rounds if each is not None and figure in each]


def ratios(outcome: Outcome, peer: str, figure: str, baseline: str = "") -> list[float]:
    """One for each round in which both were measured: the machine's mood then cancels out."""
    own = outcome.rounds.get(peer, ())
    other = outcome.rounds.get(baseline or outcome.baseline, ())
    return [
        first[figure] / second[figure]
        for first, second in zip(own, other, strict=False)
        if first and second and figure in first and second.get(figure)
    ]


def in_turn(items: Sequence[str], number: int) -> list[str]:
    """The items in the order of round `number`: all are first, and all follow each other, equally
    often (Williams, 1949; with an odd number of items it takes twice as many rounds).

    What is left behind by one, as connections in TIME_WAIT, then burdens each of the others. A
    rotation would have the same one pay for it in every round.
    """
    count = len(items)
    if not count:
        return []
    steps = [(step + 1) // 2 * (1 if step % 2 else -1) for step in range(count)]
    order = [items[(step + number) % count] for step in steps]
    return order[::-1] if count % 2 and number // count % 2 else order
