"""Objects for tests, in few words. Every default is the API server's own, or the plainest value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uproxy.core.cluster.objects import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeAddress,
    NodeSpec,
    NodeStatus,
    Object,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    Taint,
    ZoneHint,
)
from uproxy.core.cluster.state import ClusterState
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

SOURCE = "test"
NODE = "node-1"


def metadata(full_name: str, **fields: Any) -> ObjectMeta:
    """From "name" (namespace default) or "namespace/name"."""
    namespace, _, name = full_name.rpartition("/")
    return ObjectMeta(name=name, namespace=namespace or "default", **fields)


def port(number: int, name: str = "", *, protocol: str = "TCP", node_port: int = 0) -> ServicePort:
    return ServicePort(port=number, name=name, protocol=protocol, node_port=node_port)


def service(
    full_name: str = "web",
    *ports: ServicePort,
    ip: str = "10.96.0.1",
    ingress: Iterable[str | LoadBalancerIngress] = (),
    created: str | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Service:
    """A Service; without ports it has port 80. `ip` is the clusterIP, `ingress` the LB's VIPs."""
    entries = (LoadBalancerIngress(ip=each) if isinstance(each, str) else each for each in ingress)
    return Service(
        metadata=metadata(
            full_name, creation_timestamp=created, labels=labels, annotations=annotations
        ),
        spec=ServiceSpec(cluster_ip=ip, ports=ports or (port(80),), **spec),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=tuple(entries) or None)),
    )


def endpoint(
    address: str,
    *,
    node: str | None = None,
    ready: bool | None = None,
    serving: bool | None = None,
    terminating: bool | None = None,
    zones: Iterable[str] = (),
    nodes: Iterable[str] = (),
) -> Endpoint:
    """An endpoint; `zones` and `nodes` are its topology hints."""
    hints = EndpointHints(
        for_zones=tuple(ZoneHint(name=each) for each in zones) or None,
        for_nodes=tuple(ZoneHint(name=each) for each in nodes) or None,
    )
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        node_name=node,
        hints=hints if hints != EndpointHints() else None,
    )


def local(address: str, **fields: Any) -> Endpoint:
    """An endpoint on this node."""
    return endpoint(address, node=NODE, **fields)


def terminating(address: str, *, node: str | None = None) -> Endpoint:
    """An endpoint of a pod that is being deleted and still answers."""
    return endpoint(address, node=node, ready=False, serving=True, terminating=True)


def endpoint_slice(
    owner: str,
    *endpoints: Endpoint | str,
    ports: dict[str, int] | None = None,
    protocol: str | None = "TCP",
    family: str = "IPv4",
    suffix: str = "1",
) -> EndpointSlice:
    """A slice of the Service `owner`, named `owner`-`suffix`. `ports`: number by name."""
    meta = metadata(owner)
    numbers = {"": 8080} if ports is None else ports
    return EndpointSlice(
        metadata=metadata(
            f"{meta.namespace}/{meta.name}-{suffix}",
            labels={"kubernetes.io/service-name": meta.name},
        ),
        address_type=family,
        endpoints=tuple(endpoint(e) if isinstance(e, str) else e for e in endpoints),
        ports=tuple(EndpointPort(name=n, port=p, protocol=protocol) for n, p in numbers.items()),
    )


def node(
    name: str = NODE,
    *,
    zone: str | None = None,
    addresses: Iterable[str] = (),
    pod_cidrs: Iterable[str] = (),
    taints: Iterable[str] = (),
    deleted: str | None = None,
    version: str = "",
) -> Node:
    labels = None if zone is None else {"topology.kubernetes.io/zone": zone}
    return Node(
        metadata=ObjectMeta(
            name=name, labels=labels, deletion_timestamp=deleted, resource_version=version
        ),
        spec=NodeSpec(
            pod_cidrs=tuple(pod_cidrs) or None,
            taints=tuple(Taint(key=each) for each in taints) or None,
        ),
        status=NodeStatus(
            addresses=tuple(NodeAddress(type="InternalIP", address=each) for each in addresses)
            or None
        ),
    )


def cluster(*objects: Object, node_name: str = NODE) -> ClusterState:
    """A state with one source, which has listed these objects."""
    state = ClusterState([SOURCE], node_name=node_name)
    state.replace(SOURCE, objects)
    return state


def table(*objects: Object, node_name: str = NODE, **options: Any) -> RoutingTable:
    """The routing table of a cluster that consists of these objects; `options` are
    RoutingOptions."""
    state = cluster(*objects, node_name=node_name)
    return build(state, RoutingOptions(**options), RoutingTable(), state.take_dirty())
