"""Which nodes the cluster's objects allow to announce an address (rules of MetalLB's speaker)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from uproxy.core.allocation.pools import Pool
from uproxy.core.announcing.advertisements import Advertisement
from uproxy.core.announcing.view import Allowance, Candidates, ClusterNode
from uproxy.core.cluster.labels import LabelSelector

EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""The label of Nodes that load balancers leave out, whatever its value (KEP-1143)."""


def for_pool(pool: Pool, advertisements: Iterable[Advertisement]) -> tuple[Advertisement, ...]:
    """The advertisements that are for a pool."""
    labels = dict(pool.labels)
    return tuple(each for each in advertisements if each.concerns(pool.name, labels))


def for_service(
    advertisements: Iterable[Advertisement], labels: Mapping[str, str]
) -> tuple[Advertisement, ...]:
    """Those of them that are for a Service with these labels."""
    return tuple(each for each in advertisements if _any(each.service_selectors, labels))


def candidates(
    pool: str, advertisements: Sequence[Advertisement], nodes: Mapping[str, ClusterNode]
) -> Candidates:
    """The nodes that may announce by these advertisements, whatever the Service's policy.

    A node that is excluded by label may do so if all are: in clusters whose only nodes belong to
    the control plane, nothing would be announced otherwise, and nothing would say why.
    """
    allowed: dict[str, Allowance] = {}
    refused: dict[str, str] = {}
    excluded: dict[str, Allowance] = {}
    for name, node in nodes.items():
        ads = [each for each in advertisements if _any(each.node_selectors, node.labels)]
        if not ads:
            refused[name] = f"no L2Advertisement of pool {pool} selects it"
        elif node.network_unavailable:
            refused[name] = "its network is unavailable (condition NetworkUnavailable)"
        elif EXCLUDED in node.labels:
            excluded[name] = _allowance(ads, node)
        else:
            allowed[name] = _allowance(ads, node)
    if not allowed:
        return Candidates(
            pool=pool, nodes=excluded, refused=refused, exclusion_ignored=bool(excluded)
        )
    refused |= dict.fromkeys(excluded, f"it has the label {EXCLUDED}")
    return Candidates(pool=pool, nodes=allowed, refused=refused)


def only_at(of: Candidates, nodes: frozenset[str], otherwise: str) -> Candidates:
    """Those of the candidates that are among some nodes; the others are refused for a reason."""
    kept = {name: of.nodes[name] for name in sorted(nodes) if name in of.nodes}
    return Candidates(
        pool=of.pool,
        nodes=kept,
        refused=of.refused,
        otherwise=otherwise,
        exclusion_ignored=of.exclusion_ignored,
    )


def _allowance(ads: Sequence[Advertisement], node: ClusterNode) -> Allowance:
    preferred = (each for ad in ads for each in ad.preferred)
    weight = sum(each.weight for each in preferred if each.selector.matches(node.labels))
    if node.leaving:
        weight = -1
    if not all(ad.interfaces for ad in ads):
        return Allowance(weight)
    names = dict.fromkeys(name for ad in ads for name in ad.interfaces)
    return Allowance(weight, tuple(names))


def _any(selectors: Sequence[LabelSelector], labels: Mapping[str, str]) -> bool:
    """Whether one of the selectors matches, or there is none."""
    return not selectors or any(each.matches(labels) for each in selectors)
