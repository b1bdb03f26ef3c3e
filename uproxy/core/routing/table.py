"""The routing table, which is the desired state: every frontend with its route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.route import Frontend, Route
from uproxy.core.routing.frontend_requests import Conflict
from uproxy.core.routing.loops import FrontendIndex
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_routes import HealthCheck, ServiceRoutes, TrafficSide
from uproxy.core.routing.topology import FAMILIES


def _no_counts() -> dict[tuple[TrafficSide, Family], int]:
    sides: tuple[TrafficSide, ...] = ("internal", "external")
    return dict.fromkeys(product(sides, FAMILIES), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """Desired state. Never changed: `build` makes the next one and shares what stays equal."""

    routes: Mapping[Frontend, Route] = field(default_factory=dict)
    services: Mapping[ObjectName, ServiceRoutes] = field(default_factory=dict)
    """What each Service wants, before conflicts and the loop guard."""
    conflicts: Mapping[Frontend, Conflict] = field(default_factory=dict)
    health_checks: Mapping[ObjectName, HealthCheck] = field(default_factory=dict)
    """Those to serve: a health check that lost its port to another Service is a conflict."""
    no_local_endpoints: Mapping[tuple[TrafficSide, Family], int] = field(default_factory=_no_counts)
    """Service ports whose policy Local finds nothing on this node (kubeproxy's
    sync_proxy_rules_no_local_endpoints_total)."""
    changed: frozenset[Frontend] = frozenset()
    """Frontends that were added, removed, or given another route since the previous table."""

    options: RoutingOptions | None = None
    """What it was built with; None for the empty table to begin with."""
    health_frontends: Mapping[Frontend, ObjectName] = field(default_factory=dict)
    """Frontends that health checks hold, with the Service; never in `routes` too."""
    looping: frozenset[Frontend] = frozenset()
    """Frontends whose route lacks backends because of the loop guard."""
    index: FrontendIndex = field(default_factory=FrontendIndex)
    """Where the frontends of `routes` are."""
    underived: Mapping[ObjectName, str] = field(default_factory=dict)
    """Services for which it could not be found out what they want, with the reason: what they
    wanted before still counts."""
    hosts: int = 0
    """Version of the addresses of all nodes."""
    local: frozenset[ObjectName] = frozenset()
    """Services that treat clients from outside differently (externalTrafficPolicy Local)."""
