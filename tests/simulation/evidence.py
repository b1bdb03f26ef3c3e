"""Within how many seeds each defect is noticed when it is put back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.measuring import unmeasured
from tests.simulation.mutate import MUTATIONS
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import ALL

MOST = 2000
"""Seeds, each by all modes, within which a defect has to be noticed."""
PATIENCE = 1800.0
"""Seconds for one of them."""


@dataclass(frozen=True)
class Caught:
    seeds: int
    """How many it took; 0: none has shown it."""
    mode: str
    how: str


def first_failure(count: int, modes: Iterable[str]) -> Caught:
    """The first seed that breaks a promise, in this process."""
    from tests.simulation.simulation import simulate

    modes = tuple(modes)
    for seed in range(count):
        for mode in modes:
            outcome = simulate(str(seed), mode)  # type: ignore[arg-type]
            if outcome.violations:
                return Caught(seed + 1, mode, outcome.violations[0])
    return Caught(0, "", "")


def catch(name: str, count: int = MOST) -> Caught:
    """The same with a mutation, in a process of its own."""
    program = (
        "import json, sys; from dataclasses import asdict; from tests.simulation import evidence;"
        " from tests.simulation.mutate import apply; apply(sys.argv[1]);"
        " from tests.simulation.scenario import MODES;"
        " print(json.dumps(asdict(evidence.first_failure(int(sys.argv[2]), MODES))))"
    )
    command = [sys.executable, "-c", program, name, str(count)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=unmeasured()
        )
    except subprocess.TimeoutExpired:
        return Caught(0, "", "it takes for ever")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Caught(1, "", lines[-1] if lines else f"ends with {done.returncode}")
    return Caught(**json.loads(done.stdout))


def show(count: int, jobs: int) -> int:
    """Print a table of all mutations. Whether one was not noticed."""

    def row(mutation: Mutation) -> tuple[Mutation, Caught]:
        return mutation, catch(mutation.name, count)

    missed = 0
    print("| defect | what it does | seeds | noticed as |")
    print("|---|---|---|---|")
    with ThreadPoolExecutor(jobs) as pool:
        for mutation, caught in pool.map(row, ALL):
            missed += not caught.seeds
            seen = f"{caught.mode}: {caught.how}" if caught.seeds else f"not at all {caught.how}"
            print(
                f"| {mutation.name} | {mutation.says} | {caught.seeds or '-'} | {seen} |",
                flush=True,
            )
    print(f"\n{len(MUTATIONS) - missed} of {len(MUTATIONS)} within {count} seeds")
    return int(missed > 0)
