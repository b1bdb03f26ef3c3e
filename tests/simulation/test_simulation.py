"""Some hundred seeds; `make simulate` has more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.simulation.drawing import draw
from tests.simulation.scenario import MODES, Mode
from tests.simulation.simulation import simulate

SEEDS, CHUNK = 120, 40


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
@pytest.mark.parametrize("mode", MODES)
def test_whatever_a_kernel_decides_no_promise_is_broken(mode: Mode, first: int) -> None:
    for seed in range(first, first + CHUNK):
        outcome = simulate(str(seed), mode)
        assert not outcome.violations, f"make simulate SEED={seed} MODE={mode}"


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_replays_exactly(mode: Mode) -> None:
    """In another process, too, which has other addresses and hashes."""
    for seed in ("3", "5", "8"):
        trace = simulate(seed, mode, tracing=True).trace
        assert len(trace) > 20
        assert simulate(seed, mode, tracing=True).trace == trace
        command = [sys.executable, "-m", "tests.simulation", "--seed", seed, "--mode", mode]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert shown.splitlines()[: len(trace)] == trace


def test_scenarios_differ() -> None:
    drawn = [draw(str(seed), mode) for seed in range(20) for mode in MODES]
    assert len({str(replace(each, seed="", mode="ring")) for each in drawn}) == len(drawn)
    assert any(each.gentle for each in drawn)
    assert any(not each.gentle for each in drawn)
