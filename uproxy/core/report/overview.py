"""The status of frontends, Services and health checks: what is wanted, open, and failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.backend_reachability import Failing
from uproxy.core.report.client_addresses import ClientAddresses, ShownClients
from uproxy.core.report.load_balancer import AddressStatus, elsewhere
from uproxy.core.report.status import (
    FrontendState,
    FrontendStatus,
    HealthCheckStatus,
    ServiceStatus,
)
from uproxy.core.route import Announced, Frontend, Route, ServicePortName
from uproxy.core.routing.frontend_requests import Conflict
from uproxy.core.routing.plan import Actual
from uproxy.core.routing.retries import Failure
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.core.routing.table import RoutingTable

_NONE: Final[Mapping[ServicePortName, Failing]] = MappingProxyType({})
_NOT_ANNOUNCED: Final[Mapping[str, AddressStatus]] = MappingProxyType({})
_NO_CLIENTS: Final = ClientAddresses()
_NODE: Final = ShownClients("node")
_NOWHERE: Final = "it is not open, as no address of this node is in --nodeport-addresses"


def frontend_statuses(
    table: RoutingTable,
    actual: Mapping[Frontend, Actual],
    failures: Mapping[Frontend, Failure],
    clients: ClientAddresses = _NO_CLIENTS,
    failing: Mapping[ServicePortName, Failing] = _NONE,
    announced: Mapping[str, AddressStatus] = _NOT_ANNOUNCED,
) -> Iterator[FrontendStatus]:
    """The status of every frontend that a Service wants: first those that it has, then those that
    another Service has instead.

    `clients` says which clients' addresses backends can be shown.
    `failing` are the Service ports with backends that do not answer.
    `announced` says who announces which address.
    """
    for frontend, route in table.routes.items():
        state, reason = _state(route, actual.get(frontend), failures.get(frontend))
        status = _status(route, state, reason, clients.shown(route))
        port = failing.get(route.owner)
        if port is not None and state is FrontendState.SERVING:
            status = _degraded(status, route, port)
        yield _where_announced(status, route, announced)
    for conflict in table.conflicts.values():
        for route in _losing_routes(conflict):
            yield _status(route, FrontendState.CONFLICT, conflict.message)


def unserved(
    table: RoutingTable, is_open: Callable[[Frontend], bool], failures: Mapping[Frontend, Failure]
) -> Iterator[FrontendStatus]:
    """The status of frontends that should be open and are not. Probes ask for it every few seconds,
    so it skips all others."""
    for frontend, route in table.routes.items():
        failure = failures.get(frontend)
        if failure is not None or not is_open(frontend):
            state, reason = _state(route, None, failure)
            yield _status(route, state, reason)


def service_statuses(table: RoutingTable) -> Iterator[ServiceStatus]:
    """Services that are not served, or only in part, whatever this node can open."""
    for name, wanted in table.services.items():
        for reason in wanted.reasons:
            yield ServiceStatus(service=name, reason=reason)
    for name, reason in table.underived.items():
        yield ServiceStatus(service=name, reason=reason)
    for conflict in table.conflicts.values():
        for request in conflict.requests[1:]:
            if not isinstance(request.want, Route):
                yield ServiceStatus(service=request.service, reason=conflict.message)


def health_check_statuses(
    checks: Mapping[ObjectName, HealthCheck], failures: Mapping[ObjectName, str]
) -> Iterator[HealthCheckStatus]:
    """The status of every health check that is wanted."""
    for name, check in checks.items():
        yield HealthCheckStatus(
            service=name,
            port=check.port,
            counts={str(family): count for family, count in check.counts.items()},
            reason=failures.get(name, "") or ("" if check.frontends else _NOWHERE),
        )


def _state(
    route: Route, actual: Actual | None, failure: Failure | None
) -> tuple[FrontendState, str]:
    if failure is not None:
        state = FrontendState.ELSEWHERE if failure.absent else FrontendState.FAILED
        return state, failure.reason
    if actual is None:
        return FrontendState.PENDING, "it will be opened in the next sync"
    if actual.paused:
        return FrontendState.PAUSED, route.reason or "no usable endpoints"
    return FrontendState.SERVING, route.reason


def _status(
    route: Route, state: FrontendState, reason: str, shown: ShownClients = _NODE
) -> FrontendStatus:
    return FrontendStatus(
        frontend=route.frontend,
        kind=route.kind,
        owner=route.owner,
        state=state,
        reason=reason,
        backends=route.backends,
        local_backends=route.local_backends,
        affinity_timeout=route.affinity_timeout,
        balancer=route.balancer.value,
        client_address=shown.address,
        client_address_reason=shown.reason,
        masquerade=shown.masquerade,
        proxy_protocol="" if route.proxy_protocol is None else route.proxy_protocol.value,
    )


def _degraded(status: FrontendStatus, route: Route, port: Failing) -> FrontendStatus:
    """The status of a frontend that leads to backends which do not answer. A policy may keep it
    from leading to any of these."""
    used = {*route.backends, *(route.local_backends or ())}
    failing = tuple(each for each in port.backends if each in used)
    if not failing:
        return status
    reason = f"{status.reason}; {port.reason}" if status.reason else port.reason
    return msgspec.structs.replace(
        status,
        state=FrontendState.DEGRADED,
        reason=reason,
        failing=failing,
        none_answers=port.none_answers,
    )


def _where_announced(
    status: FrontendStatus, route: Route, announced: Mapping[str, AddressStatus]
) -> FrontendStatus:
    """The status of a frontend whose listener is open, but that clients reach on another node."""
    if route.announced is not Announced.L2:
        return status
    open_here = status.state in (FrontendState.SERVING, FrontendState.DEGRADED)
    address = announced.get(route.frontend.address)
    reason = elsewhere(address) if open_here and address is not None else ""
    if not reason:
        return status
    return msgspec.structs.replace(status, state=FrontendState.ELSEWHERE, reason=reason)


def _losing_routes(conflict: Conflict) -> Iterator[Route]:
    for request in conflict.requests[1:]:
        if isinstance(request.want, Route):
            yield request.want
