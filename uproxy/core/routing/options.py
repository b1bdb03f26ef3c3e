"""What routes depend on besides the cluster: settings, and facts about this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.ip import Network
from uproxy.core.route import Announced, BalancerKind, ClientIPMode
from uproxy.core.routing.service_limits import FRONTENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """All addresses are in canonical form. When options change, the Services that this affects are
    derived again."""

    nodeport_addresses: tuple[str, ...] = ("0.0.0.0", "::")
    """Where NodePorts are served, from `resolve_nodeport_addresses`. "0.0.0.0" and "::" stand for
    every address of a family. A family without an entry has no NodePorts."""
    balancer: BalancerKind = BalancerKind.ROUND_ROBIN
    """For Services without the annotation uproxy.dev/balancer."""
    preserve_client_ip: ClientIPMode = ClientIPMode.AUTO
    """Which clients' addresses backends see. The annotation uproxy.dev/preserve-client-ip can only
    make it stricter for a Service."""
    external_ip_addresses: frozenset[str] | None = None
    """Addresses that Services may have as externalIPs: this node's own. Without this rule whoever
    may create a Service could take any address (CVE-2020-8554). None allows all addresses."""
    external_ip_cidrs: tuple[Network, ...] = ()
    """Networks whose addresses Services may have as externalIPs as well."""
    strict_source_ranges: bool = False
    """Whether loadBalancerSourceRanges apply to NodePorts and externalIPs too, and clients of a
    family without a range are refused. False is kube-proxy's rule: they apply to load-balancer IPs
    only, and a family without a range is not restricted."""
    local_addresses: frozenset[str] = frozenset()
    """Addresses of this node's interfaces, at each of which a wildcard frontend is reached."""
    reserved: Mapping[str, str] = field(default_factory=dict)
    """Addresses that must not be claimed, each with what it is, such as "this node's gateway"."""
    servers: Mapping[str, str] = field(default_factory=dict)
    """The same for servers that this node depends on: the API server and DNS. Unlike `reserved`,
    these may be the ClusterIPs of Services."""
    serve_unallocated: bool = False
    """Whether a Service without a clusterIP is served at its other addresses. This is for plain
    manifests, where no API server assigns one; kube-proxy skips such a Service."""
    frontends: int = FRONTENDS
    """The most frontends of one Service: see uproxy.core.routing.service_limits."""
    assigning: Assigning = Assigning.NEVER
    """Which addresses uproxy assigns to Services of type LoadBalancer."""
    announce: Announced = Announced.NEVER
    """How assigned addresses are announced, if they come from pools."""
    service_proxy_name: str = ""
    """Only Services whose label service.kubernetes.io/service-proxy-name has this value are
    served; "" means those without the label."""
