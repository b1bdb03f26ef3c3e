"""What one Service wants on this node: its routes, its health check, and reasons for what it lacks.

These are wishes. Which Service gets a frontend that several want is decided in `draft`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.route import Frontend, Route

NO_TIMESTAMP: Final = "~"
"""Stands for a missing creationTimestamp; sorts after every RFC 3339 time."""

TrafficSide = Literal["internal", "external"]
"""Which of the two policies is meant: internalTrafficPolicy or externalTrafficPolicy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """A healthCheckNodePort: an HTTP server that tells load balancers about local endpoints."""

    service: ObjectName
    frontends: tuple[Frontend, ...]
    """Where it listens: the port at every NodePort address of the Service's families."""
    port: int
    counts: Mapping[Family, int]
    """How many addresses of ready endpoints this node has, for each family of the Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoutes:
    """What one Service wants. Another Service may get a frontend instead."""

    service: ObjectName
    created: str = NO_TIMESTAMP
    """creationTimestamp, by which the older Service comes first. One without it comes last."""
    routes: tuple[Route, ...] = ()
    """In the order of the Service's ports. Where two ports want the same frontend, the first port
    gets it."""
    reasons: tuple[str, ...] = ()
    """Why the Service is not served, or only in part; a clause for each."""
    health_check: HealthCheck | None = None
    has_local_backend: bool = False
    """Whether a backend has an address of this node, where it may be a wildcard frontend."""
    backend_ports: tuple[int, ...] = ()
    """Every port that a backend has, once."""
    no_local: tuple[tuple[TrafficSide, Family], ...] = ()
    """One entry for each service port and family whose policy Local leaves no endpoint on this
    node, although other nodes have some."""
    not_allowed: tuple[str, ...] = ()
    """externalIPs that are not addresses of this node, and that no option allows."""
