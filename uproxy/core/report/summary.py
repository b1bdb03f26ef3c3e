"""The status in brief, as /api/v1/summary shows it: a row for each Service port.

The page asks for this again and again. Everything about one Service is in /api/v1/routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.report.history import failures
from uproxy.core.report.load_balancer_format import LoadBalancerView, load_balancer_view
from uproxy.core.report.status import (
    ApiServerStatus,
    FrontendState,
    FrontendStatus,
    HealthCheckStatus,
    ObjectStatus,
    ServiceStatus,
    Status,
    WorkerStatus,
)
from uproxy.core.report.status_format import HealthCheckView, ServiceView, health_check_view
from uproxy.core.route import Backend, ServicePortName

_WORST_FIRST: Final = (
    FrontendState.FAILED,
    FrontendState.CONFLICT,
    FrontendState.DEGRADED,
    FrontendState.PAUSED,
    FrontendState.PENDING,
    FrontendState.SERVING,
    FrontendState.ELSEWHERE,
)
"""The state of a port is the first of these that one of its frontends has. An address of another
node is no trouble while the port is served at its other addresses."""
_RANK: Final = {state: rank for rank, state in enumerate(_WORST_FIRST)}
_NO_COUNTERS: Final = Counters()


class _View(msgspec.Struct, rename="camel", gc=False):
    """Options shared by all parts."""


class PortRow(_View):
    """A Service port. Its counts are those of all its frontends together."""

    service: str
    port: str
    protocol: str
    state: str
    reason: str
    """Why one of its frontends is in that state; "": nothing is wrong."""
    concerned: int
    """How many of its frontends are in that state."""
    frontends: list[str]
    kinds: list[str]
    backends: list[str]
    failing: int
    """Backends that do not answer, if it is degraded."""
    flows: int
    active_flows: int
    client_bytes: int
    backend_bytes: int
    failures: int
    masquerade_reason: str
    """Why backends do not see all addresses of clients that the Service asks for; "": they do."""


class SummaryView(_View):
    node: str
    version: str
    started: float
    """Unix time at which the program started."""
    synced: bool
    ports: list[PortRow]
    services: list[ServiceView]
    objects: list[ObjectStatus]
    workers: list[WorkerStatus]
    health_checks: list[HealthCheckView]
    not_ready: list[str]
    not_healthy: list[str]
    notes: list[str]
    api_servers: list[ApiServerStatus]
    load_balancer: LoadBalancerView | None


def summary_view(status: Status, *, version: str, started: float) -> SummaryView:
    """The whole status in brief."""
    return SummaryView(
        node=status.node,
        version=version,
        started=started,
        synced=status.synced,
        ports=port_rows(status.frontends, status.counters),
        services=[
            ServiceView(str(each.service), each.reason)
            for each in sorted(status.services, key=_by_service)
        ],
        objects=sorted(status.objects, key=lambda each: (each.where, each.field)),
        workers=sorted(status.workers, key=lambda each: each.index),
        health_checks=[
            health_check_view(each) for each in sorted(status.health_checks, key=_by_service)
        ],
        not_ready=list(status.not_ready),
        not_healthy=list(status.not_healthy),
        notes=list(status.notes),
        api_servers=list(status.api_servers),
        load_balancer=(
            None
            if status.load_balancer is None
            else load_balancer_view(status.load_balancer, _every)
        ),
    )


def port_rows(
    frontends: Iterable[FrontendStatus], counters: Mapping[ServicePortName, Counters]
) -> list[PortRow]:
    """A row for each Service port, in order of their names."""
    ports: dict[ServicePortName, list[FrontendStatus]] = {}
    for each in frontends:
        ports.setdefault(each.owner, []).append(each)
    return [
        _row(owner, ports[owner], counters.get(owner) or _NO_COUNTERS) for owner in sorted(ports)
    ]


def _row(owner: ServicePortName, frontends: Sequence[FrontendStatus], counts: Counters) -> PortRow:
    ordered = sorted(frontends, key=lambda each: (_RANK[each.state], each.kind, each.frontend))
    worst = ordered[0]
    alike = [each for each in ordered if each.state == worst.state]
    return PortRow(
        service=f"{owner.namespace}/{owner.name}",
        port=owner.port,
        protocol=owner.protocol,
        state=worst.state,
        reason=next((each.reason for each in alike if each.reason), ""),
        concerned=len(alike),
        frontends=[str(each.frontend) for each in ordered],
        kinds=list(dict.fromkeys(each.kind for each in ordered)),
        backends=_backends(ordered),
        failing=max(len(each.failing) for each in ordered),
        flows=counts.flows,
        active_flows=counts.active,
        client_bytes=counts.client_bytes,
        backend_bytes=counts.backend_bytes,
        failures=failures(counts.dial_failures, counts.dropped),
        masquerade_reason=next(
            (each.client_address_reason for each in ordered if each.client_address_reason), ""
        ),
    )


def _backends(frontends: Sequence[FrontendStatus]) -> list[str]:
    """All backends that one of the frontends uses. Most frontends of a port share one tuple."""
    distinct: dict[int, tuple[Backend, ...]] = {}
    for each in frontends:
        for backends in (each.backends, each.local_backends or ()):
            distinct[id(backends)] = backends
    return [str(each) for each in dict.fromkeys(one for some in distinct.values() for one in some)]


def _by_service(each: ServiceStatus | HealthCheckStatus) -> tuple[ObjectName, str]:
    return each.service, each.reason


def _every(_: ObjectName) -> bool:
    return True
