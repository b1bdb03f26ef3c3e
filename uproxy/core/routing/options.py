"""What routing depends on besides the cluster: settings, and facts about this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uproxy.core.ip import Network
from uproxy.core.route import BalancerKind
from uproxy.core.routing.service_limits import FRONTENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """Immutable; a table built with other options is derived anew. Addresses are canonical."""

    nodeport_addresses: tuple[str, ...] = ("0.0.0.0", "::")
    """Where NodePorts are served; "0.0.0.0" and "::" stand for all of a family, and a family
    without any is not served. From `resolve_nodeport_addresses`."""
    balancer: BalancerKind = BalancerKind.ROUND_ROBIN
    """For Services without the annotation uproxy.dev/balancer."""
    external_ip_addresses: frozenset[str] | None = None
    """Addresses that Services may claim as externalIPs, as a rule this node's own; whoever may
    create a Service could otherwise take any address (CVE-2020-8554). None: all, and binding
    decides."""
    external_ip_cidrs: tuple[Network, ...] = ()
    """Networks whose addresses they may claim too."""
    strict_source_ranges: bool = False
    """loadBalancerSourceRanges hold for NodePorts and externalIPs too, and a family without a range
    is closed; False: as in kube-proxy, for load-balancer VIPs only, family by family."""
    local_addresses: frozenset[str] = frozenset()
    """Addresses of this node's interfaces: there, a wildcard frontend would be reached."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Addresses that must not be claimed, with whose they are: of this node's gateways, for one."""
    servers: Mapping[str, str] = field(default_factory=dict)
    """The same for those that this node asks by address, which may be the ClusterIPs of Services:
    the API server, DNS."""
    serve_unallocated: bool = False
    """Serve Services without a clusterIP at their other addresses: for plain manifests, where no
    API server assigns one. False: skip them, as kube-proxy does."""
    frontends: int = FRONTENDS
    """How many a Service may have: see uproxy.core.routing.service_limits."""
    service_proxy_name: str = ""
    """Serve only Services whose label service.kubernetes.io/service-proxy-name equals this;
    "": those without the label."""
