"""Some hundred seeds; `make faults` has more.

They run in processes of their own: a run replaces time, chance and the kernel for everybody, and
only where hashes are the same does a seed replay exactly.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.measuring import unmeasured

SEEDS, CHUNK = 160, 40


def run(*options: str) -> str:
    command = [sys.executable, "-m", "tests.faults", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_fails_the_rest_is_served_and_all_is_well_afterwards(first: int) -> None:
    told = run("--first", str(first), "--seeds", str(CHUNK), "--jobs", "1")
    assert f"{CHUNK} runs: all is well" in told


def test_a_seed_replays_exactly() -> None:
    for seed in ("3", "5", "8"):
        trace = run("--seed", seed)
        assert trace.count("\n") > 50
        assert run("--seed", seed) == trace


def test_a_defect_is_noticed() -> None:
    """What a run checks is checked."""
    command = [sys.executable, "-m", "tests.faults", "--seeds", "20", "--jobs", "1"]
    options = ["--mutation", "leak-at-open"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env=unmeasured()
    )
    assert done.returncode == 1
    assert "make faults SEED=N" in done.stdout
