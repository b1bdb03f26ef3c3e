"""Kubernetes objects in the API's own shape, reduced to the fields that decide about traffic.

Unknown fields are ignored, as every API client must ignore them. A known field of a wrong type is
an error, which names its path. Go encodes an empty list as null, so every collection may be None.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from uproxy.core import protocols

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
PortOrNone = Annotated[int, msgspec.Meta(ge=0, le=65535)]
"""0 stands for "not set", as in Go."""
NETWORK_UNAVAILABLE: Final = "NetworkUnavailable"
TO_BE_DELETED_TAINT: Final = "ToBeDeletedByClusterAutoscaler"
"""The taint that the cluster autoscaler puts on a node which it is about to remove (KEP-3836)."""
"""The one condition of Nodes that matters for announcing."""

TrafficPolicy = Literal["Cluster", "Local"]


class ObjectName(NamedTuple):
    """Namespace and name. The namespace of a Node is ""."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _Object(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False, omit_defaults=True
):
    """The msgspec options that all parts of objects share."""


class ObjectMeta(_Object, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    """Increases with each change of the spec, for those kinds that count it; 0 for the others."""
    creation_timestamp: str | None = None
    """RFC 3339 in UTC, so that the order of texts is that of times."""
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class ApiObject(_Object, frozen=True):
    """What all kinds of objects have in common."""

    metadata: ObjectMeta

    @property
    def key(self) -> ObjectName:
        return ObjectName(self.metadata.namespace, self.metadata.name)


class ServicePort(_Object, frozen=True):
    """A port of a Service, which clients connect to."""

    port: Port
    name: str = ""
    """Links it to the ports of EndpointSlices. Only the port of a Service with one may be
    unnamed."""
    protocol: str = protocols.DEFAULT
    node_port: PortOrNone = 0
    target_port: PortOrNone | str | None = None
    """Not used: an EndpointSlice has the number that it stands for, which may differ by pod."""

    def __post_init__(self) -> None:
        # The API server stores TCP for "", so "" comes from manifests only.
        if not self.protocol:
            msgspec.structs.force_setattr(self, "protocol", protocols.DEFAULT)


class ClientIPConfig(_Object, frozen=True):
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] | None = None
    """None means 10800 (3 h)."""


class SessionAffinityConfig(_Object, frozen=True):
    client_ip: ClientIPConfig | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(_Object, frozen=True):
    """What a Service asks for. "" is what the API server stores in a field that does not apply."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    ports: tuple[ServicePort, ...] | None = None
    selector: dict[str, str] | None = None
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] | None = msgspec.field(default=None, name="clusterIPs")
    """One address for each family. The first is that of `cluster_ip`."""
    ip_families: tuple[str, ...] | None = None
    ip_family_policy: str | None = None
    """SingleStack, PreferDualStack or RequireDualStack. Addresses of load balancers heed it too."""
    external_ips: tuple[str, ...] | None = msgspec.field(default=None, name="externalIPs")
    external_name: str = ""
    session_affinity: Literal["None", "ClientIP", ""] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: TrafficPolicy | Literal[""] = "Cluster"
    """For clients that come to a NodePort, an external IP or a load-balancer IP."""
    internal_traffic_policy: TrafficPolicy | None = None
    """For clients that come to the ClusterIP (KEP-2086). None means Cluster."""
    health_check_node_port: PortOrNone = 0
    """Assigned for type LoadBalancer with externalTrafficPolicy Local."""
    load_balancer_source_ranges: tuple[str, ...] | None = None
    """CIDRs of the clients that may come to a load-balancer IP."""
    load_balancer_class: str | None = None
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    """A wish to the load balancer. Only the addresses in the status are served."""
    allocate_load_balancer_node_ports: bool | None = None
    publish_not_ready_addresses: bool = False
    """Not used: the EndpointSlice controller then makes every endpoint ready."""


class LoadBalancerIngress(_Object, frozen=True):
    """An address at which a load balancer answers for a Service."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None
    """"VIP" or "Proxy" (KEP-1860). None and "" mean VIP: packets arrive with `ip` as their
    destination."""


class LoadBalancerStatus(_Object, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] | None = None


class Condition(_Object, frozen=True):
    """What is so, or is not so, with an object (metav1.Condition). There is one of each type."""

    type: str
    status: str = ""
    """"True", "False" or "Unknown"."""
    observed_generation: int = 0
    last_transition_time: str | None = None
    """When `status` became what it is."""
    reason: str = ""
    message: str = ""


class ServiceStatus(_Object, frozen=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] | None = None


class Service(ApiObject, frozen=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        return self.spec.ports or ()

    @property
    def ingress(self) -> tuple[LoadBalancerIngress, ...]:
        return self.status.load_balancer.ingress or ()


class EndpointConditions(_Object, frozen=True):
    """The state of an endpoint. By the API, None means true for `ready` and `serving`, and false
    for `terminating`."""

    ready: bool | None = None
    """Whether it should get new flows. False while its pod terminates, unless the Service has
    publishNotReadyAddresses."""
    serving: bool | None = None
    """Whether its pod answers, even if it terminates (KEP-1672)."""
    terminating: bool | None = None
    """Whether its pod is being deleted."""


class ZoneHint(_Object, frozen=True):
    name: str


class EndpointHints(_Object, frozen=True):
    """The zones and nodes for which the EndpointSlice controller intends an endpoint."""

    for_zones: tuple[ZoneHint, ...] | None = None
    for_nodes: tuple[ZoneHint, ...] | None = None


class TargetRef(_Object, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class Endpoint(_Object, frozen=True):
    addresses: tuple[str, ...] | None = None
    """By the API all of them are the same endpoint. Only the first is used, as in kube-proxy."""
    conditions: EndpointConditions = EndpointConditions()
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None
    target_ref: TargetRef | None = None

    @property
    def pod(self) -> str:
        """The name of its pod; "" if it is none, or not known."""
        target = self.target_ref
        return target.name if target is not None and target.kind == "Pod" else ""


class EndpointPort(_Object, frozen=True):
    name: str | None = None
    """"" is the unnamed port of a Service. None: the port is not for Services, and is ignored."""
    protocol: str | None = None
    port: PortOrNone | None = None


class EndpointSlice(ApiObject, frozen=True):
    """Some of the endpoints of a Service, all of one address family and with the same ports."""

    address_type: str
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> ObjectName | None:
        """The Service that it belongs to; None if the label that names it is missing."""
        owner = (self.metadata.labels or {}).get("kubernetes.io/service-name")
        return ObjectName(self.metadata.namespace, owner) if owner else None


class EndpointAddress(_Object, frozen=True):
    ip: str
    node_name: str | None = None
    target_ref: TargetRef | None = None


class EndpointSubset(_Object, frozen=True):
    addresses: tuple[EndpointAddress, ...] | None = None
    not_ready_addresses: tuple[EndpointAddress, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None


class Endpoints(ApiObject, frozen=True):
    """The v1 object that EndpointSlices have replaced. Hand-written manifests still use it."""

    subsets: tuple[EndpointSubset, ...] | None = None


class Taint(_Object, frozen=True):
    key: str
    effect: str = ""
    value: str = ""


class NodeSpec(_Object, frozen=True):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] | None = msgspec.field(default=None, name="podCIDRs")
    taints: tuple[Taint, ...] | None = None
    unschedulable: bool = False


class NodeAddress(_Object, frozen=True):
    type: str
    address: str


class NodeCondition(_Object, frozen=True):
    """Without its times, one of which changes with each heartbeat."""

    type: str = ""
    status: str = ""
    """"True", "False" or "Unknown"."""


class NodeStatus(_Object, frozen=True):
    addresses: tuple[NodeAddress, ...] | None = None
    conditions: tuple[NodeCondition, ...] | None = None


class Node(ApiObject, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def network_unavailable(self) -> bool:
        """Whether the cloud's routes, or the network plugin, are still waited for."""
        return any(
            each.type == NETWORK_UNAVAILABLE and each.status == "True"
            for each in self.status.conditions or ()
        )

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted, or is about to be removed by the autoscaler."""
        taints = (each.key for each in self.spec.taints or ())
        return self.metadata.deletion_timestamp is not None or TO_BE_DELETED_TAINT in taints

    @property
    def key(self) -> ObjectName:
        return ObjectName("", self.metadata.name)


Object = Service | EndpointSlice | Endpoints | Node
"""What decides about traffic."""


class Namespace(ApiObject, frozen=True):
    """Pools may be for the Services of namespaces with certain labels."""

    @property
    def key(self) -> ObjectName:
        return ObjectName("", self.metadata.name)


class LeaseSpec(_Object, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None


class Lease(ApiObject, frozen=True):
    """coordination.k8s.io/v1, by which processes agree who does something."""

    spec: LeaseSpec = LeaseSpec()
