"""One network for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.kit import World, world


@pytest.fixture(scope="module")
def net() -> Iterator[World]:
    """Two nodes; four pods on this one, one on the other."""
    with world(local=4, remote=1) as made:
        yield made


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory
