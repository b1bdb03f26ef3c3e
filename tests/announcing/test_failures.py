"""One failure at a time, in simulated clusters of several seeds; the worst sample counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.announcing import promises
from tests.announcing.cluster import Cluster
from tests.announcing.node import SimulatedNode

SEEDS = range(20)
ADDRESSES = 6
WITHIN = 4.0
"""Seconds after which an address is answered for again, however its node has died."""


def settled(seed: int, nodes: int = 3, addresses: int = ADDRESSES) -> Cluster:
    cluster = Cluster(seed, nodes, addresses)
    cluster.settle()
    assert not cluster.unrest()
    # The time since the last renewal differs from seed to seed.
    cluster.run(cluster.random.uniform(0.0, 1.0))
    cluster.moves.clear()
    return cluster


def longest_gap(cluster: Cluster, since: float) -> float:
    """Seconds from a failure to the last address that is answered for again by another node."""
    times = [at for at, _, _, names in cluster.moves if names]
    return max(times, default=since) - since


@pytest.mark.parametrize("nodes", [1, 2, 3, 8, 20])
def test_every_address_is_answered_for_by_exactly_one_node(nodes: int) -> None:
    for seed in SEEDS[:5]:
        assert not settled(seed, nodes).unrest()


@pytest.mark.parametrize(("nodes", "seeds"), [(2, 20), (5, 20), (20, 3)])
@pytest.mark.parametrize(
    "failure", [SimulatedNode.kill, SimulatedNode.freeze, SimulatedNode.power_off]
)
def test_another_node_answers_within_four_seconds(
    failure: Callable[[SimulatedNode], None], nodes: int, seeds: int
) -> None:
    worst = 0.0
    for seed in range(seeds):
        cluster = settled(seed, nodes)
        died_at = cluster.time.now
        failure(cluster.holder(cluster.addresses[0]))
        cluster.run(10.0)
        assert not cluster.unrest()
        worst = max(worst, longest_gap(cluster, died_at))
    assert 2.0 < worst <= WITHIN


@pytest.mark.parametrize("pause", [0.1, 1.0, 2.0])
def test_a_restart_within_two_seconds_moves_nothing(pause: float) -> None:
    for seed in SEEDS:
        cluster = settled(seed)
        node = cluster.holder(cluster.addresses[0])
        node.kill()
        cluster.run(pause)
        node.start()
        cluster.run(10.0)
        assert cluster.moves == []
        assert not cluster.unrest()


@pytest.mark.parametrize("relist", [False, True])
@pytest.mark.parametrize("outage", [2.0, 5.0, 60.0])
def test_an_outage_of_the_api_moves_nothing(outage: float, relist: bool) -> None:
    for seed in SEEDS:
        cluster = settled(seed)
        for name in cluster.nodes:
            cluster.api.cut(name)
        cluster.run(outage)
        for name in cluster.nodes:
            cluster.api.heal(name, relist=relist)
        cluster.run(15.0)
        assert cluster.moves == []
        assert not cluster.unrest()


def test_a_node_that_comes_back_takes_nothing_back() -> None:
    for seed in SEEDS:
        cluster = settled(seed)
        node = cluster.holder(cluster.addresses[0])
        node.power_off()
        cluster.run(10.0)
        cluster.moves.clear()
        node.boot()
        cluster.run(20.0)
        assert cluster.moves == []


def test_a_node_that_stops_hands_over_at_once() -> None:
    worst = 0.0
    for seed in SEEDS:
        cluster = settled(seed)
        stopped_at = cluster.time.now
        node = cluster.holder(cluster.addresses[0])
        node.draining = True
        node.refresh()
        cluster.run(5.0)
        assert not node.nic.left(cluster.time.now)
        assert cluster.api.leases[node.name].released
        worst = max(worst, longest_gap(cluster, stopped_at))
    assert worst < 0.5


@pytest.mark.parametrize("name", sorted(promises.ALL))
def test_promises_are_kept(name: str) -> None:
    for seed in SEEDS:
        assert not promises.ALL[name](seed)
