"""Which addresses the cluster wants announced, and from which of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from uproxy.core.cluster.objects import ObjectName


class ClusterNode(NamedTuple):
    """What a Node object says that matters for announcing."""

    labels: Mapping[str, str]
    network_unavailable: bool = False
    """Whether its condition NetworkUnavailable is True."""
    leaving: bool = False
    """Whether it is about to be removed from the cluster."""


class Allowance(NamedTuple):
    """What the cluster's objects allow one node for one address."""

    weight: int = 0
    """The sum of the weights of all preferences that match the node; the highest comes first. It is
    negative for a node that is about to be removed, which has an address only if no other can."""
    interfaces: tuple[str, ...] = ()
    """The only interfaces to announce on. Empty: whichever has a subnet with the address."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The nodes that may announce, as far as the cluster's objects say. Addresses for which they
    are the same share this object, so it is compared by identity."""

    pool: str
    nodes: Mapping[str, Allowance] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Other Nodes, each with the reason why it may not."""
    otherwise: str = "there is no Node of this name"
    """The reason for Nodes that are in neither of the two."""
    exclusion_ignored: bool = False
    """Whether all nodes are excluded by label, so that the label is ignored."""

    def refusal(self, node: str) -> str:
        """Why a node may not announce; "" if it may."""
        return "" if node in self.nodes else self.refused.get(node, self.otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announceable:
    """An address that a pool has given to Services."""

    address: str
    services: tuple[ObjectName, ...]
    """Several if they share the address."""
    candidates: Candidates
    reason: str = ""
    """Why no node may announce it; "" if `candidates` may."""
