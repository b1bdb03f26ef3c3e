"""Defects that are put in still apply to the sources, and some are noticed here and now.

`make announcing ARGS=--mutations` puts in all of them.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.announcing.mutations import ALL, MUTATIONS
from tests.measuring import unmeasured
from tests.simulation.mutate import mutated, source_of
from tests.simulation.mutation import Mutation


@pytest.mark.parametrize("mutation", ALL, ids=lambda each: each.name)
def test_it_applies(mutation: Mutation) -> None:
    for change in mutation.changes:
        text = mutated(change.module, mutation)
        assert text != source_of(change.module)
        compile(text, change.module, "exec")


def test_names_differ() -> None:
    assert len(MUTATIONS) == len(ALL)


@pytest.mark.parametrize(
    "name", ["blind-time-counts", "never-in-doubt", "deaf-in-doubt", "forgets-what-it-had"]
)
def test_it_is_noticed_soon(name: str) -> None:
    options = ["--mutation", name, "--seeds", "2", "--jobs", "1"]
    command = [sys.executable, "-m", "tests.announcing", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=unmeasured())
    assert done.returncode == 1
    assert "make announcing SEED=N" in done.stdout
