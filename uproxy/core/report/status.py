"""The status of the program: frontends, Services and objects, each with a reason."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.report.client_addresses import Masquerade, ShownAddress
from uproxy.core.report.flow_log import FlowLogCounts
from uproxy.core.report.load_balancer import LoadBalancerStatus
from uproxy.core.route import Backend, Frontend, FrontendKind, ServicePortName


class FrontendState(StrEnum):
    """How far a frontend is from being wanted to being served."""

    SERVING = "serving"
    """Open, with at least one backend."""
    DEGRADED = "degraded"
    """Open, but some or all backends have not answered for a while."""
    PAUSED = "paused"
    """The port is kept and clients are refused, because no backend is usable."""
    PENDING = "pending"
    """It will be opened in the next sync."""
    FAILED = "failed"
    """It cannot be opened, and is tried again with back-off."""
    ELSEWHERE = "elsewhere"
    """Its address is not on this node. It is opened once the address is; if uproxy announces the
    address, it is open already, and another node serves it."""
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
    """Backends that have not answered, if it is degraded."""
    none_answers: bool = False
    """Whether all attempts have failed for a while, at whatever backend."""
    affinity_timeout: int = 0
    balancer: str = ""
    client_address: ShownAddress = "node"
    """What backends see: "preserved" (the addresses of clients from outside, and of this node's
    pods), "pods" (those of this node's pods), or this "node"'s address."""
    client_address_reason: str = ""
    """Why they do not see all that the Service asks for; "": they do."""
    masquerade: Masquerade | None = None
    """The same in one word."""
    proxy_protocol: str = ""
    """Version of the PROXY header that backends get; "": none."""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A Service that is not served, or only in part, and why."""

    service: ObjectName
    reason: str


class ObjectStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """An object or file that cannot be used, and why."""

    where: str
    """"FILE:LINE" for manifests, "Kind namespace/name" for the API."""
    field: str
    reason: str


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One worker process."""

    index: int
    pid: int
    restarts: int
    active_flows: int
    engine: str = ""
    """What it relays with, "io_uring" or "epoll"; "" until it has started."""
    most_flows: int | msgspec.UnsetType = msgspec.UNSET
    """The most flows that it can have, if its limit of open files allows fewer than --max-flows."""
    reason: str = ""
    """Why its clients may have to wait; "" if it serves."""


class ApiServerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One address of the API server."""

    address: str
    """A URL."""
    origin: str
    """Where it was found."""
    in_use: bool
    """Whether requests are sent there."""
    reason: str = ""
    """Why it did not answer when it was tried last; "": it did, or was not tried."""


class HealthCheckStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A healthCheckNodePort that is wanted."""

    service: ObjectName
    port: int
    counts: dict[str, int]
    """Number of ready endpoints on this node, by family ("IPv4", "IPv6")."""
    reason: str = ""
    """Why the port could not be opened; "" if it is open."""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole status at one moment."""

    node: str
    synced: bool
    frontends: tuple[FrontendStatus, ...]
    services: tuple[ServiceStatus, ...]
    objects: tuple[ObjectStatus, ...]
    workers: tuple[WorkerStatus, ...]
    health_checks: tuple[HealthCheckStatus, ...]
    counters: dict[ServicePortName, Counters]
    not_ready: tuple[str, ...]
    """Why /readyz fails; empty if it succeeds."""
    not_healthy: tuple[str, ...] = ()
    """Why /healthz fails; empty if it succeeds."""
    problems: dict[str, int] = {}
    """How many reasons and notes there are of each ReasonKind; a missing one has none."""
    max_flows: int = 0
    """What --max-flows allows all workers together."""
    notes: tuple[str, ...] = ()
    """What needs attention, but makes neither of them fail."""
    api_servers: tuple[ApiServerStatus, ...] = ()
    """The addresses of the API server, in the order in which they are tried."""
    client_address_reason: str = ""
    """Why client addresses cannot be preserved in one of the families; "" if they can."""
    load_balancer: LoadBalancerStatus | None = None
    """None: uproxy gives Services no addresses."""
    flow_log: FlowLogCounts | None = None
    """None: there is none."""
