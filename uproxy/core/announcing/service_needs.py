"""What a Service contributes to the question who announces its addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from uproxy.core.cluster.load_balancer import assigned_addresses, is_ours
from uproxy.core.cluster.objects import EndpointConditions, EndpointSlice, ObjectName, Service
from uproxy.core.ip import FAMILIES, Family

_NONE: frozenset[str] = frozenset()


class ServiceNeeds(NamedTuple):
    """One Service with addresses. Equal ones announce alike."""

    name: ObjectName
    addresses: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    local: bool
    """Whether externalTrafficPolicy is Local."""
    served: frozenset[Family]
    """The families in which an endpoint serves, on whichever node."""
    nodes: tuple[frozenset[str], frozenset[str]] = (_NONE, _NONE)
    """With policy Local, the nodes with endpoints for clients from outside, by family."""

    def nodes_of(self, family: Family) -> frozenset[str]:
        return self.nodes[FAMILIES.index(family)]


def service_needs(service: Service, slices: Sequence[EndpointSlice]) -> ServiceNeeds | None:
    """What a Service needs; None if it has no address of ours."""
    addresses = assigned_addresses(service) if is_ours(service) else ()
    if not addresses:
        return None
    local = service.spec.external_traffic_policy == "Local"
    by_family = {each: [s for s in slices if s.address_type == each] for each in FAMILIES}
    return ServiceNeeds(
        name=service.key,
        addresses=addresses,
        labels=tuple(sorted((service.metadata.labels or {}).items())),
        local=local,
        served=frozenset(each for each in FAMILIES if _serves(by_family[each])),
        nodes=_nodes(by_family) if local else (_NONE, _NONE),
    )


def _nodes(
    slices: Mapping[Family, Sequence[EndpointSlice]],
) -> tuple[frozenset[str], frozenset[str]]:
    first, second = (_local_nodes(slices[each]) for each in FAMILIES)
    return first, second


def _serves(slices: Iterable[EndpointSlice]) -> bool:
    endpoints = (each for one in slices for each in one.endpoints or ())
    return any(_ready(each.conditions) or _serving(each.conditions) for each in endpoints)


def _local_nodes(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """The nodes with a ready endpoint, or, if there is none anywhere, with one that still serves
    while it terminates, to which kube-proxy falls back as well (KEP-1669)."""
    endpoints = [each for one in slices for each in one.endpoints or () if each.node_name]
    ready = frozenset(each.node_name or "" for each in endpoints if _ready(each.conditions))
    return ready or frozenset(
        each.node_name or "" for each in endpoints if _serving(each.conditions)
    )


def _ready(conditions: EndpointConditions) -> bool:
    return conditions.ready is not False


def _serving(conditions: EndpointConditions) -> bool:
    return conditions.serving is True
