"""Defects for the data plane, which the simulation must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Change:
    """A text that is in a module once, and what replaces it."""

    module: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    says: str
    changes: tuple[Change, ...]


def _one(name: str, says: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, says, (Change(f"dataplane.{module}", old, new),))


ALL: Final[tuple[Mutation, ...]] = ()
