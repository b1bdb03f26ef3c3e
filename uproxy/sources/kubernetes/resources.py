"""Which objects this program asks the API server for, with which selectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from uproxy.core.cluster.objects import (
    NETWORK_UNAVAILABLE,
    TO_BE_DELETED_TAINT,
    ApiObject,
    EndpointSlice,
    Node,
    NodeCondition,
    NodeSpec,
    ObjectMeta,
    Service,
)

SERVICES: Final = "services"
SLICES: Final = "endpointslices"
NODE: Final = "node"
SOURCES: Final = (SERVICES, SLICES, NODE)
"""Names under which the Kubernetes source delivers. Nothing that is served is taken away before all
of them have been listed."""

_PROXY_NAME: Final = "service.kubernetes.io/service-proxy-name"

T = TypeVar("T", bound=ApiObject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[T]):
    """One resource to list and watch."""

    source: str
    """Name under which its objects are delivered."""
    kind: type[T]
    path: str
    labels: str = ""
    """Label selector."""
    fields: str = ""
    """Field selector."""
    after: str = ""
    """Source that should be listed first."""
    optional: bool = False
    """Whether the cluster may lack this kind: its CustomResourceDefinition need not exist."""
    wanted: str = ""
    """Name of an object that should exist."""
    if_missing: str = ""
    """Warning for the log when that object does not exist."""
    reduce: Callable[[T], T] | None = None
    """Returns the part of an object that is kept. Where a new version differs only in other parts,
    nothing is delivered."""

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters that select the objects."""
        selectors = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in selectors.items() if value}


def resources(
    node_name: str, service_proxy_name: str = "", *, node_labels: bool = False
) -> tuple[Resource[Service] | Resource[EndpointSlice] | Resource[Node], ...]:
    """The resources that kube-proxy 1.36 watches, with its selectors, in the order of listing.

    With `service_proxy_name`, the Services are those labelled for the proxy of that name. Unlike
    kube-proxy, all Nodes are watched, because no Node's address may ever be claimed. With
    `node_labels`, the labels of all Nodes are kept, since they decide which may announce.
    """
    ours = f"{_PROXY_NAME}={service_proxy_name}" if service_proxy_name else f"!{_PROXY_NAME}"
    return (
        Resource(
            source=SLICES,
            kind=EndpointSlice,
            path="/apis/discovery.k8s.io/v1/endpointslices",
            labels="!service.kubernetes.io/headless",
        ),
        Resource(
            source=SERVICES,
            kind=Service,
            path="/api/v1/services",
            labels=ours,
            fields="spec.clusterIP!=None",
            after=SLICES,
        ),
        Resource(
            source=NODE,
            kind=Node,
            path="/api/v1/nodes",
            reduce=partial(_without_details, node_name, node_labels),
            wanted=node_name,
            if_missing=f"the cluster has no node {node_name}: no endpoint counts as local, and"
            " /healthz fails; give the node's name with --hostname-override",
        ),
    )


def _without_details(own: str, labels: bool, node: Node) -> Node:
    """Other Nodes are kept with their name, addresses, whether they are about to go, and perhaps
    their labels only: 5,000 of them would take 50 MB with their annotations. Of the conditions,
    which change with each heartbeat or when a disk is full, only the one that matters is kept."""
    status = msgspec.structs.replace(
        node.status, conditions=tuple(filter(_matters, node.status.conditions or ())) or None
    )
    if node.metadata.name == own:
        return msgspec.structs.replace(node, status=status)
    known = ObjectMeta(
        name=node.metadata.name,
        resource_version=node.metadata.resource_version,
        labels=node.metadata.labels if labels else None,
        deletion_timestamp=node.metadata.deletion_timestamp,
    )
    taints = tuple(each for each in node.spec.taints or () if each.key == TO_BE_DELETED_TAINT)
    return Node(metadata=known, spec=NodeSpec(taints=taints or None), status=status)


def _matters(condition: NodeCondition) -> bool:
    return condition.type == NETWORK_UNAVAILABLE
