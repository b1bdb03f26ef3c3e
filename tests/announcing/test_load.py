"""How many Leases are written in a second, counted."""

from __future__ import annotations

import pytest

from tests.announcing.cluster import Cluster
from uproxy.core.announcing.membership import MOST
from uproxy.core.announcing.view import Allowance, Announceable, Candidates
from uproxy.core.cluster.objects import ObjectName

SECONDS = 10.0


def writes_per_second(cluster: Cluster) -> float:
    before = cluster.api.writes
    cluster.run(SECONDS)
    return (cluster.api.writes - before) / SECONDS


@pytest.mark.timeout(300)  # 13 s of CPU time, on a machine that may do other things as well.
@pytest.mark.parametrize(
    ("nodes", "addresses", "most"),
    [
        pytest.param(10, 10, 8.2, id="10 nodes and 10 Services"),
        pytest.param(100, 1000, 8.2, id="100 nodes and 1,000 Services"),
    ],
)
def test_a_pool_costs_eight_writes_per_second_at_most(
    nodes: int, addresses: int, most: float
) -> None:
    cluster = Cluster(1, nodes, min(addresses, 200), subnet="10.0.0.0/16", quick=nodes > 20)
    cluster.want([f"10.0.{n // 250}.{n % 250 + 1}" for n in range(addresses)])
    cluster.settle()
    cluster.run(10.0)
    assert MOST - 0.3 <= writes_per_second(cluster) <= most
    held = [len(node.nic.left(cluster.time.now)) for node in cluster.nodes.values()]
    assert sum(held) == addresses
    assert sum(each > 0 for each in held) <= MOST


def test_many_pools_cost_twenty_writes_per_second_at_most() -> None:
    """With a pool for each pair of nodes, all nodes are announcers; they renew less often."""
    cluster = Cluster(1, 40, 0, subnet="10.0.0.0/16", quick=True)
    names = list(cluster.nodes)
    wanted = {}
    for number in range(20):
        pair = names[2 * number : 2 * number + 2]
        address = f"10.0.0.{number + 1}"
        of_pool = Candidates(pool=f"p{number}", nodes={name: Allowance() for name in pair})
        services = (ObjectName("default", address),)
        wanted[address] = Announceable(address=address, services=services, candidates=of_pool)
    cluster.settle()
    for node in cluster.nodes.values():
        node.wanted = wanted
    cluster.run(10.0)
    assert 18.0 <= writes_per_second(cluster) <= 21.0
