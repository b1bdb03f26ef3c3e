"""The routing table, which is the desired state: every frontend with its route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import FAMILIES, Family
from uproxy.core.route import Backend, Frontend, Route, ServicePortName
from uproxy.core.routing.frontend_requests import Conflict
from uproxy.core.routing.loops import FrontendIndex
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_routes import HealthCheck, ServiceRoutes, TrafficSide


def _no_counts() -> dict[tuple[TrafficSide, Family], int]:
    sides: tuple[TrafficSide, ...] = ("internal", "external")
    return dict.fromkeys(product(sides, FAMILIES), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """The desired state. It never changes: a `TableDraft` becomes the next table, which shares with
    this one what stays equal."""

    routes: Mapping[Frontend, Route] = field(default_factory=dict)
    services: Mapping[ObjectName, ServiceRoutes] = field(default_factory=dict)
    """What each Service wants, before conflicts are decided and loops are cut."""
    conflicts: Mapping[Frontend, Conflict] = field(default_factory=dict)
    health_checks: Mapping[ObjectName, HealthCheck] = field(default_factory=dict)
    """Health checks to serve. One that has lost its port to another Service is in `conflicts`."""
    no_local_endpoints: Mapping[tuple[TrafficSide, Family], int] = field(default_factory=_no_counts)
    """The number of service ports whose policy Local finds no endpoint on this node (the metric
    kubeproxy_sync_proxy_rules_no_local_endpoints_total)."""
    changed: frozenset[Frontend] = frozenset()
    """Frontends that were added, removed, or given another route since the previous table."""

    options: RoutingOptions | None = None
    """What it was built with; None for the first, empty table."""
    health_frontends: Mapping[Frontend, ObjectName] = field(default_factory=dict)
    """The frontends of `health_checks`, each with its Service. None of them is in `routes`."""
    looping: frozenset[Frontend] = frozenset()
    """Frontends from whose route the loop guard has removed backends."""
    index: FrontendIndex = field(default_factory=FrontendIndex)
    """The frontends of `routes` by address and port, for the loop guard."""
    underived: Mapping[ObjectName, str] = field(default_factory=dict)
    """Services that could not be derived, each with the reason. What they wanted before still
    counts."""
    hosts_version: int = 0
    """Version of the HostAddresses that it was built with."""
    preserves_outside: frozenset[ObjectName] = frozenset()
    """Services whose backends are to see the addresses of clients from outside."""
    preserves_pods: frozenset[ObjectName] = frozenset()
    """Services whose backends are to see the addresses of this node's pods."""
    not_allowed: frozenset[ObjectName] = frozenset()
    """Services with externalIPs that are not allowed."""

    def has_port(self, port: ServicePortName) -> bool:
        """Whether a port of a Service exists, served or not."""
        return any(route.owner == port for route in self._wanted_with(port))

    def backends_of(self, port: ServicePortName) -> set[Backend]:
        """All backends to which the frontends of a Service port may lead."""
        return {
            backend
            for route in self._wanted_with(port)
            if route.owner == port
            for backend in (*route.backends, *(route.local_backends or ()))
        }

    def _wanted_with(self, port: ServicePortName) -> tuple[Route, ...]:
        """What the Service of a port wants, all of its ports included."""
        service = self.services.get(ObjectName(port.namespace, port.name))
        return service.routes if service is not None else ()
