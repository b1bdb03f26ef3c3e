"""Which addresses may be announced where (MetalLB's L2Advertisement)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from uproxy.core.cluster.labels import LabelSelector


class PreferredNodes(NamedTuple):
    """Nodes that should announce an address rather than others."""

    selector: LabelSelector
    weight: int
    """1 to 100. The weights of all entries that match a node add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """One L2Advertisement. What several of them allow for an address adds up."""

    name: str
    pools: frozenset[str] = frozenset()
    pool_selectors: tuple[LabelSelector, ...] = ()
    """With neither `pools` nor these, it is for all pools; otherwise for those of either."""
    node_selectors: tuple[LabelSelector, ...] = ()
    """Empty: all nodes."""
    interfaces: tuple[str, ...] = ()
    """Empty: whichever interface has a subnet with the address."""
    service_selectors: tuple[LabelSelector, ...] = ()
    """Empty: all Services."""
    preferred: tuple[PreferredNodes, ...] = ()


EVERYWHERE = Advertisement(name="")
"""What is announced for pools that come from flags."""
