"""Loads modules of the data plane with a defect, for this process only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from tests.simulation.mutation import Mutation
from tests.simulation.mutations import ALL

MUTATIONS: Final = {mutation.name: mutation for mutation in ALL}
_SOURCES: Final = Path(__file__).parents[2] / "uproxy"


def source_of(module: str) -> str:
    """The text of a module of uproxy, as it is on disk."""
    return (_SOURCES / (module.replace(".", "/") + ".py")).read_text()


def mutated(module: str, mutation: Mutation) -> str:
    """The text of a module with the mutation. Raises ValueError where it does not apply."""
    text = source_of(module)
    for change in mutation.changes:
        if change.module != module:
            continue
        if text.count(change.old) != 1:
            raise ValueError(f"{mutation.name}: not found once in {module}: {change.old!r}")
        text = text.replace(change.old, change.new)
    return text


def apply(name: str) -> None:
    """Before the data plane is imported."""
    put_in(MUTATIONS[name])


def put_in(mutation: Mutation) -> None:
    """Before any of its modules is imported."""
    for change in mutation.changes:
        if f"uproxy.{change.module}" in sys.modules:
            raise RuntimeError(f"too late: uproxy.{change.module} was imported already")
    sys.meta_path.insert(0, _Finder(mutation))


class _Finder(MetaPathFinder):
    def __init__(self, mutation: Mutation) -> None:
        self._texts = {
            f"uproxy.{change.module}": mutated(change.module, mutation)
            for change in mutation.changes
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        text = self._texts.get(name)
        if text is None:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, text)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)
