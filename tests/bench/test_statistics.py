"""Medians and ratios of rounds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from bench.wire.statistics import Spread, in_turn, ratios, spread, values
from tests.bench.samples import outcome


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([4.0], Spread(4.0, 4.0, 4.0, 1), id="one"),
        pytest.param([9.0, 1.0, 2.0], Spread(2.0, 1.0, 9.0, 3), id="odd number"),
        pytest.param([4.0, 1.0, 2.0, 9.0], Spread(3.0, 1.0, 9.0, 4), id="even number"),
    ],
)
def test_spread(numbers: list[float], expected: Spread | None) -> None:
    assert spread(numbers) == expected


def test_ratios_are_of_the_same_round() -> None:
    measured = outcome(
        haproxy=[{"rate": 100.0}, {"rate": 50.0}], uproxy=[{"rate": 110.0}, {"rate": 60.0}]
    )
    assert ratios(measured, "uproxy", "rate") == [1.1, 1.2]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        pytest.param([None, {"rate": 3.0}], [{"rate": 9.0}, {"rate": 2.0}], id="own failed"),
        pytest.param([{"rate": 1.0}, {"rate": 3.0}], [None, {"rate": 2.0}], id="baseline failed"),
        pytest.param([{"p99": 1.0}, {"rate": 3.0}], [{}, {"rate": 2.0}], id="no such figure"),
        pytest.param([{"rate": 1.0}, {"rate": 3.0}], [{"rate": 0.0}, {"rate": 2.0}], id="zero"),
    ],
)
def test_rounds_without_a_ratio_are_left_out(
    own: list[dict[str, float] | None], other: list[dict[str, float] | None]
) -> None:
    assert ratios(outcome(haproxy=other, uproxy=own), "uproxy", "rate") == [1.5]


def test_ratio_to_another_peer() -> None:
    measured = outcome(haproxy=[{"rate": 1.0}], go=[{"rate": 4.0}], uproxy=[{"rate": 8.0}])
    assert ratios(measured, "uproxy", "rate", "go") == [2.0]


def test_nobody_has_no_figures() -> None:
    measured = outcome(haproxy=[{"rate": 1.0}, None])
    assert values(measured, "haproxy", "rate") == [1.0]
    assert values(measured, "uproxy", "rate") == []
    assert ratios(measured, "uproxy", "rate") == []


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7])
def test_nobody_is_always_behind_the_same(count: int) -> None:
    names = "abcdefg"[:count]
    rounds = count if count % 2 == 0 else 2 * count
    orders = [in_turn(names, number) for number in range(rounds)]
    assert all(sorted(order) == list(names) for order in orders)
    assert set(Counter(order[0] for order in orders).values()) == {rounds // count}
    pairs = Counter(pair for order in orders for pair in pairwise(order))
    assert len(pairs) == count * (count - 1)
    assert set(pairs.values()) == {rounds // count}


def test_nobody_takes_no_turn() -> None:
    assert in_turn([], 3) == []
