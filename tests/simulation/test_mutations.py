"""Defects that are put back still apply to the sources, and some are noticed here and now.

`make simulate-mutations` puts back all of them.
"""

from __future__ import annotations

import pytest

from tests.simulation.evidence import catch
from tests.simulation.mutate import mutated, source_of
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import ALL


@pytest.mark.parametrize("mutation", ALL, ids=lambda each: each.name)
def test_it_applies(mutation: Mutation) -> None:
    for change in mutation.changes:
        text = mutated(change.module, mutation)
        assert text != source_of(change.module)
        compile(text, change.module, "exec")


def test_names_differ() -> None:
    assert len({each.name for each in ALL}) == len(ALL)


@pytest.mark.parametrize(
    "name",
    ["full-buffers-of-a-lifetime", "one-byte-too-few", "end-in-place-of-a-reset", "lost-rearm"],
)
def test_it_is_noticed_soon(name: str) -> None:
    assert catch(name, 100).seeds
