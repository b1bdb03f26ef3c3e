"""What is promised about single failures, checked for one seed each; "" if it was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tests.announcing.chaos import attempt
from tests.announcing.cluster import Cluster
from tests.announcing.node import SimulatedNode
from uproxy.core.announcing.membership import MOST
from uproxy.core.announcing.view import Allowance, Announceable, Candidates
from uproxy.core.cluster.objects import ObjectName

WITHIN: Final = 4.0
"""Seconds after which an address is answered for again, however its node has died."""


def settled(seed: int, nodes: int = 3, addresses: int = 6) -> Cluster:
    """A cluster in which all is well."""
    cluster = Cluster(seed, nodes, addresses)
    cluster.settle()
    # The time since the last renewal differs from seed to seed.
    cluster.run(cluster.random.uniform(0.0, 1.0))
    cluster.moves.clear()
    return cluster


def failover(seed: int) -> str:
    """Another node answers in time, also if others join the announcers because of the death."""
    nodes, addresses = ((2, 6), (20, 12), (3, 6), (5, 6))[seed % 4]
    cluster = settled(seed, nodes, addresses)
    died_at = cluster.time.now
    failures = (SimulatedNode.kill, SimulatedNode.freeze, SimulatedNode.power_off)
    failures[seed % 3](_first(cluster))
    cluster.run(10.0)
    if unrest := cluster.unrest():
        return unrest
    took = longest_gap(cluster, died_at)
    return "" if took <= WITHIN else f"no node answers for {took:.2f} s"


def lagging(seed: int) -> str:
    """Another node answers in time, also if all list Leases anew from caches that are behind."""
    cluster = settled(seed)
    died_at = cluster.time.now
    _first(cluster).power_off()
    for _ in range(4):
        cluster.run(0.6)
        for name in cluster.nodes:
            cluster.api.relist(name)
    cluster.run(10.0)
    took = longest_gap(cluster, died_at)
    return cluster.unrest() or ("" if took <= WITHIN else f"no node answers for {took:.2f} s")


def restart(seed: int) -> str:
    """A process that is back within two seconds has lost nothing."""
    cluster = settled(seed)
    node = _first(cluster)
    node.kill()
    cluster.run(2.0)
    node.start()
    cluster.run(10.0)
    return _moved(cluster)


def outage(seed: int) -> str:
    """Without the API server, nothing moves; nor when it is back."""
    cluster = settled(seed)
    for name in cluster.nodes:
        cluster.api.cut(name)
    cluster.run(cluster.random.uniform(2.0, 30.0))
    for name in cluster.nodes:
        cluster.api.heal(name, relist=bool(seed % 2))
    cluster.run(15.0)
    return _moved(cluster)


def split(seed: int) -> str:
    """A segment that is whole again has one node that answers, soon, while the API is away."""
    cluster = settled(seed)
    node = _first(cluster)
    cluster.api.cut(node.name)
    node.nic.segment = 1
    cluster.run(12.0)
    node.nic.segment = 0
    whole_at = cluster.time.now
    cluster.run(5.0)
    if any(at > whole_at and not names for at, _, _, names in cluster.moves):
        return "no node answers any more"
    if cluster.longest_together > 1.3:
        return f"two nodes answer for {cluster.longest_together:.2f} s"
    return cluster.unrest()


def cutoff(seed: int) -> str:
    """A holder that is cut off from the API server goes on, and gives way to its successor."""
    cluster = settled(seed)
    node = _first(cluster)
    mine = set(node.nic.left(cluster.time.now))
    cluster.api.cut(node.name)
    cluster.run(6.5)
    if cluster.moves:
        return "it gives up too soon"
    cluster.run(4.5)
    if any(not names for *_, names in cluster.moves):
        return "no node answers for a moment"
    if mine & set(node.nic.left(cluster.time.now)):
        return "it has no successor"
    if cluster.longest_together > 0.1:
        return f"two nodes answer for {cluster.longest_together:.2f} s"
    cluster.moves.clear()
    cluster.api.heal(node.name, relist=bool(seed % 2))
    cluster.run(10.0)
    return _moved(cluster)


def comeback(seed: int) -> str:
    """A node that comes back takes nothing back."""
    cluster = settled(seed)
    node = _first(cluster)
    node.power_off()
    cluster.run(10.0)
    cluster.moves.clear()
    node.boot()
    cluster.run(15.0)
    return _moved(cluster)


def rivals(seed: int) -> str:
    """Nodes that disagree about who should take an address do not both take it."""
    cluster = settled(seed, addresses=1)
    for node in cluster.nodes.values():
        cluster.api.path(node.name).delay = (0.01, 0.5)
    cluster.addresses.append("192.0.2.99")
    for name, node in cluster.nodes.items():
        own = Candidates(pool="default", nodes={name: Allowance()})
        services = (ObjectName("default", "new"),)
        new = Announceable(address="192.0.2.99", services=services, candidates=own)
        node.wanted = {**(node.wanted or {}), "192.0.2.99": new}
        node.wake()
    cluster.run(10.0)
    if cluster.longest_together:
        return f"two nodes answer for {cluster.longest_together:.2f} s"
    return cluster.unrest()


def preference(seed: int) -> str:
    """A preferred node gets the addresses, also in a cluster in which it is no announcer."""
    cluster = settled(seed, nodes=12)
    idle = [n for n in cluster.nodes if n not in cluster.api.leases or _has_left(cluster, n)]
    if not idle:
        return "all nodes are announcers"
    weights = {name: Allowance(10 * (name == idle[0])) for name in cluster.nodes}
    preferring = Candidates(pool="default", nodes=weights)
    for node in cluster.nodes.values():
        wanted = node.wanted or {}
        node.wanted = {a: replace(each, candidates=preferring) for a, each in wanted.items()}
        node.wake()
    cluster.run(15.0)
    for address in cluster.addresses:
        if (names := cluster.wire.answering(address)) != [idle[0]]:
            return f"{address} is answered for by {', '.join(names)} instead of {idle[0]}"
    running = sum(not each.released for each in cluster.api.leases.values())
    return "" if running <= MOST else f"{running} nodes are announcers"


def chaos(seed: int) -> str:
    """Whatever fails, all is well afterwards."""
    return "; ".join(attempt(seed).violations)


ALL: Final[Mapping[str, Callable[[int], str]]] = {
    each.__name__: each
    for each in (
        failover,
        lagging,
        restart,
        outage,
        split,
        cutoff,
        comeback,
        rivals,
        preference,
        chaos,
    )
}


def longest_gap(cluster: Cluster, since: float) -> float:
    """Seconds from a failure to the last address that another node answers for."""
    times = [at for at, _, _, names in cluster.moves if names]
    return max(times, default=since) - since


def _first(cluster: Cluster) -> SimulatedNode:
    """The node that announces the first address."""
    return cluster.nodes[cluster.wire.answering(cluster.addresses[0])[0]]


def _has_left(cluster: Cluster, name: str) -> bool:
    return cluster.api.leases[name].released


def _moved(cluster: Cluster) -> str:
    return cluster.unrest() or (f"it moves: {cluster.moves[0]}" if cluster.moves else "")
