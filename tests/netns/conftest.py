"""One network for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import kit
from tests.netns.kit import PodNetwork, World, world
from tests.netns.two_nodes import Cluster, two_nodes


@pytest.fixture(scope="module")
def net() -> Iterator[World]:
    """Two nodes; four pods on this one, one on the other."""
    with world(local=4, remote=1) as made:
        yield made


@pytest.fixture(scope="module", params=PodNetwork, ids=lambda each: str(each.value))
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two nodes with a uproxy each, for each kind of pod network."""
    pods: PodNetwork = request.param
    if pods is PodNetwork.UNFILTERED_BRIDGE and not kit.HAS_BRIDGE_FILTER:
        pytest.skip("the kernel has no br_netfilter, so this is the same as the other bridge")
    directory = tmp_path_factory.mktemp("cluster") / "manifests"
    directory.mkdir()
    with two_nodes(directory, pods) as made:
        yield made


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory
