"""Defects that runs with injected faults must notice still apply to the sources."""

from __future__ import annotations

import pytest

from tests.faults.mutations import ALL, MUTATIONS
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
