"""What pairs of measurements say about the newer revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb
from statistics import median, quantiles
from typing import Final

TOLERATED: Final = 1.03
"""How many times as much CPU for each operation the newer revision may take."""
_CONFIDENCE: Final = 0.99
"""Of the interval of the median. With eight rows, 95 % would condemn a revision that is exactly
at the bound in one of five runs."""


class Verdict(StrEnum):
    """What is known about a row."""

    WITHIN = "within bounds"
    DEARER = "costs more"
    UNDECIDED = "not decided"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cost of one row for the older and the newer revision; equal positions were measured one after
    the other."""

    older: Sequence[float]
    newer: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [new / old for old, new in zip(self.older, self.newer, strict=True)]

    @property
    def median(self) -> float:
        return median(self.ratios)

    @property
    def typical_older(self) -> float:
        return median(self.older)

    @property
    def typical_newer(self) -> float:
        return median(self.newer)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third."""
        low, _, high = quantiles(self.ratios, n=4)
        return low, high

    @property
    def interval(self) -> tuple[float, float]:
        """In which the true median lies, with the confidence above."""
        return median_interval(self.ratios)

    @property
    def verdict(self) -> Verdict:
        low, high = self.interval
        if low > TOLERATED:
            return Verdict.DEARER
        return Verdict.WITHIN if high <= TOLERATED else Verdict.UNDECIDED


def median_interval(
    values: Sequence[float], confidence: float = _CONFIDENCE
) -> tuple[float, float]:
    """An interval around the median that supposes nothing about how the values are distributed.

    Each value is below the true median with probability one half, so the number of those that are
    has a binomial distribution (the interval of the sign test). All values, if they are few.
    """
    ordered = sorted(values)
    count, outside, rank = len(ordered), 0.0, 0
    while rank < count // 2:
        outside += 2 * comb(count, rank) / 2**count
        if outside > 1 - confidence:
            break
        rank += 1
    first = max(0, rank - 1)
    return ordered[first], ordered[count - 1 - first]
