"""Which of several nodes should take an address that no node holds."""

from __future__ import annotations

from collections.abc import Sequence

from uproxy.core.announcing.peers import Peer
from uproxy.core.announcing.rendezvous import score
from uproxy.core.announcing.view import Announceable


def ranking(each: Announceable, own: str, live: Sequence[Peer], last_holder: str) -> Sequence[str]:
    """The nodes that may take an address, the best one first. This node is one of them.

    A preference of the cluster's objects decides first. Then comes the node that had the address
    last, since neighbours may still know it there. Among the rest, the score of the address decides
    (not that of a Service), so that Services that share it agree.
    """
    nodes = [own, *(peer.lease.node for peer in live if peer.able(each))]
    allowed = each.candidates.nodes

    def key(node: str) -> tuple[int, bool, int]:
        return -allowed[node].weight, node != last_holder, -score(each.address, node)

    return sorted(nodes, key=key)


def preferred(each: Announceable, own: str, live: Sequence[Peer]) -> frozenset[str]:
    """The nodes that may announce an address and are preferred to this one."""
    allowed = each.candidates.nodes
    weight = allowed[own].weight
    if all(other.weight <= weight for other in allowed.values()):
        return frozenset()
    able = (peer.lease.node for peer in live if peer.able(each))
    return frozenset(node for node in able if allowed[node].weight > weight)
