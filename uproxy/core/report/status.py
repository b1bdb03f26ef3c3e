"""What the program can say about itself: frontends, Services and objects, each with its reason."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, ServicePortName


class FrontendState(StrEnum):
    """Where a frontend is between being wanted and being served."""

    SERVING = "serving"
    """Open, with at least one backend."""
    DEGRADED = "degraded"
    """Open, and no backend has answered for a while."""
    PAUSED = "paused"
    """The port is held, clients are refused: no usable backend."""
    PENDING = "pending"
    """To be opened in the next sync."""
    FAILED = "failed"
    """Cannot be opened; retried with back-off."""
    ELSEWHERE = "elsewhere"
    """Its address is not on this node; it is opened when it comes here."""
    CONFLICT = "conflict"
    """Another Service has it."""


class FrontendStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One frontend as /api/v1/routes shows it."""

    frontend: Frontend
    kind: FrontendKind
    owner: ServicePortName
    state: FrontendState
    reason: str = ""
    backends: tuple[Backend, ...] = ()
    local_backends: tuple[Backend, ...] | None = None
    failing: tuple[Backend, ...] = ()
    """Backends that have not answered, where it is degraded."""
    affinity_timeout: int = 0
    balancer: str = ""
    client_address: Literal["preserved", "node"] = "node"
    """What backends see of clients that are neither this node nor pods: "preserved", or this
    node's address."""
    proxy_protocol: str = ""
    """Version of the PROXY header that backends get; "": none."""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A Service that is not served, or not wholly, and why."""

    service: ObjectName
    reason: str


class ObjectStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """An object or file that cannot be used; everything else is."""

    where: str
    """"FILE:LINE" for manifests, "Kind namespace/name" for the API."""
    field: str
    reason: str


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    index: int
    pid: int
    restarts: int
    active_flows: int
    engine: str = ""
    """What it relays by: "io_uring" or "epoll"; "" until it has started."""
    most_flows: int | msgspec.UnsetType = msgspec.UNSET
    """Flows that it can have; set where its limit of open files allows fewer than --max-flows."""
    reason: str = ""
    """Why clients may have to wait for it; "": it serves."""


class HealthCheckStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A healthCheckNodePort that is wanted."""

    service: ObjectName
    port: int
    counts: dict[str, int]
    """Local ready endpoints by family ("IPv4", "IPv6")."""
    reason: str = ""
    """Why the port could not be opened; "" when it is."""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything at one moment."""

    node: str
    synced: bool
    frontends: tuple[FrontendStatus, ...]
    services: tuple[ServiceStatus, ...]
    objects: tuple[ObjectStatus, ...]
    workers: tuple[WorkerStatus, ...]
    health_checks: tuple[HealthCheckStatus, ...]
    counters: dict[ServicePortName, Counters]
    not_ready: tuple[str, ...]
    """Reasons why /readyz is red; empty: green."""
    not_healthy: tuple[str, ...] = ()
    """Reasons why /healthz is red; empty: green."""
    notes: tuple[str, ...] = ()
    """Conditions that need attention, but make neither of them red."""
    client_address_reason: str = ""
    """Why client addresses cannot be preserved, in either family; "": they can."""
