"""Which addresses may be announced where (MetalLB's L2Advertisement)."""

from __future__ import annotations

from collections.abc import Mapping
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

    def concerns(self, pool: str, labels: Mapping[str, str]) -> bool:
        """Whether it is for a pool with this name and these labels."""
        if not self.pools and not self.pool_selectors:
            return True
        return pool in self.pools or any(each.matches(labels) for each in self.pool_selectors)


EVERYWHERE = Advertisement(name="")
"""What is announced for pools that come from flags."""
