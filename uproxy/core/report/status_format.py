"""Status as /api/v1/routes shows it: flat text for people and scripts, sorted, in a fixed shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from uproxy.core.cluster.label_syntax import parse_selector
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.report.load_balancer_format import LoadBalancerView, load_balancer_view
from uproxy.core.report.port_format import CountsView, PortView, counts_view
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
from uproxy.core.route import Backend, ServicePortName


class _View(msgspec.Struct, rename="camel", gc=False):
    """Options shared by all parts."""


class AffinityView(_View):
    timeout_seconds: int


class FrontendView(_View):
    frontend: str
    protocol: str
    address: str
    port: int
    kind: str
    service: str
    service_port: str
    state: str
    reason: str
    backends: list[str]
    local_backends: list[str] | None
    session_affinity: AffinityView | None
    balancer: str
    client_address: str
    proxy_protocol: str | None
    counts: CountsView
    failing: list[str] = []
    """Backends that do not answer, where it is degraded. Older versions do not say this, nor what
    follows."""
    none_answers: bool = False
    """Whether no backend answers at all, where it is degraded."""
    client_address_reason: str = ""


class ServiceView(_View):
    service: str
    reason: str


class HealthCheckView(_View):
    service: str
    port: int
    counts: dict[str, int]
    reason: str


class StatusView(_View):
    node: str
    synced: bool
    frontends: list[FrontendView]
    services: list[ServiceView]
    objects: list[ObjectStatus]
    workers: list[WorkerStatus]
    health_checks: list[HealthCheckView]
    not_ready: list[str]
    client_address_reason: str
    not_healthy: list[str] = []
    """Older versions do not say this, nor what follows."""
    notes: list[str] = []
    api_servers: list[ApiServerStatus] = []
    load_balancer: LoadBalancerView | None = None
    ports: list[PortView] | None = None
    """None: backends were not asked for."""
    connect_buckets: list[float] | None = None
    """Upper bounds of the connect times of backends, in seconds; None: as for `ports`."""


class ServiceNamesView(_View):
    """What /api/v1/services shows."""

    services: list[str]
    """NAMESPACE/NAME of every Service that is known, served or not, in order."""


class Filter(NamedTuple):
    """Which part of the status is asked for; "" is everything."""

    namespace: str = ""
    service: str = ""
    """Name of a Service, without its namespace."""
    state: str = ""
    """Of frontends; a FrontendState."""
    labels: str = ""
    """A selector of Services; see `parse_selector`."""
    backends: str = ""
    """"1": with `ports` and their backends."""

    def selects(self, service: ObjectName) -> bool:
        return self.namespace in ("", service.namespace) and self.service in ("", service.name)


def parse_filter(query: Mapping[str, str]) -> Filter:
    """A filter from the parameters of a URL. Raises ValueError, with what would be right."""
    unknown = sorted(set(query) - set(Filter._fields))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}: use {', '.join(Filter._fields)}")
    wanted = Filter(**{name: query[name] for name in Filter._fields if name in query})
    if wanted.state and wanted.state not in list(FrontendState):
        raise ValueError(f"unknown state {wanted.state!r}: use one of {', '.join(FrontendState)}")
    if wanted.backends not in ("", "1"):
        raise ValueError(f"backends={wanted.backends} makes no sense: use backends=1")
    parse_selector(wanted.labels)
    return wanted


ServiceLabels = Mapping[ObjectName, Mapping[str, str]]
"""The labels of all Services that are known, served or not."""

_NO_LABELS: Final[ServiceLabels] = MappingProxyType({})


def status_view(
    status: Status, wanted: Filter, service_labels: ServiceLabels = _NO_LABELS
) -> StatusView:
    """The selected part of the status. Objects, workers and readiness are always in it. Raises
    ValueError if the labels of the filter are not a selector."""
    selects = _selection(wanted, service_labels)
    return StatusView(
        node=status.node,
        synced=status.synced,
        frontends=_frontends(status, wanted.state, selects),
        services=[
            ServiceView(str(each.service), each.reason)
            for each in sorted(status.services, key=_by_service)
            if selects(each.service)
        ],
        objects=sorted(status.objects, key=lambda each: (each.where, each.field, each.reason)),
        workers=sorted(status.workers, key=lambda each: each.index),
        health_checks=[
            health_check_view(each)
            for each in sorted(status.health_checks, key=_by_service)
            if selects(each.service)
        ],
        not_ready=list(status.not_ready),
        client_address_reason=status.client_address_reason,
        not_healthy=list(status.not_healthy),
        notes=list(status.notes),
        api_servers=list(status.api_servers),
        load_balancer=(
            None
            if status.load_balancer is None
            else load_balancer_view(status.load_balancer, selects)
        ),
    )


def health_check_view(each: HealthCheckStatus) -> HealthCheckView:
    """One health check port."""
    return HealthCheckView(
        str(each.service), each.port, dict(sorted(each.counts.items())), each.reason
    )


def _by_service(each: ServiceStatus | HealthCheckStatus) -> tuple[ObjectName, str]:
    return each.service, each.reason


def _selection(wanted: Filter, service_labels: ServiceLabels) -> Callable[[ObjectName], bool]:
    if not wanted.labels:
        return wanted.selects
    selector = parse_selector(wanted.labels)

    def selects(service: ObjectName) -> bool:
        return wanted.selects(service) and selector.matches(service_labels.get(service, {}))

    return selects


def _frontends(
    status: Status, state: str, selects: Callable[[ObjectName], bool]
) -> list[FrontendView]:
    chosen = sorted(
        (
            each
            for each in status.frontends
            if state in ("", each.state)
            and selects(ObjectName(each.owner.namespace, each.owner.name))
        ),
        key=lambda each: (each.owner, each.kind, each.frontend),
    )
    written = _Written(status.counters)
    return [_frontend(each, written) for each in chosen]


def _frontend(each: FrontendStatus, written: _Written) -> FrontendView:
    timeout = each.affinity_timeout
    owner = each.owner
    return FrontendView(
        frontend=str(each.frontend),
        protocol=each.frontend.protocol,
        address=each.frontend.address,
        port=each.frontend.port,
        kind=each.kind,
        service=f"{owner.namespace}/{owner.name}",
        service_port=owner.port,
        state=each.state,
        reason=each.reason,
        backends=written.backends(each.backends),
        local_backends=(
            None if each.local_backends is None else written.backends(each.local_backends)
        ),
        session_affinity=AffinityView(timeout) if timeout else None,
        balancer=each.balancer,
        client_address=each.client_address,
        client_address_reason=each.client_address_reason,
        proxy_protocol=each.proxy_protocol or None,
        counts=written.counts(each),
        failing=written.backends(each.failing),
        none_answers=each.none_answers,
    )


class _Written:
    """Parts that the frontends of one Service port share, written once.

    Routes with the same backends share one tuple, so its identity is enough to find them; the
    tuples live as long as the status does.
    """

    def __init__(self, counters: Mapping[ServicePortName, Counters]) -> None:
        self._counters = counters
        self._backends: dict[int, list[str]] = {}
        self._counts: dict[ServicePortName, CountsView] = {}

    def backends(self, backends: tuple[Backend, ...]) -> list[str]:
        texts = self._backends.get(id(backends))
        if texts is None:
            texts = self._backends[id(backends)] = [str(backend) for backend in backends]
        return texts

    def counts(self, each: FrontendStatus) -> CountsView:
        view = self._counts.get(each.owner)
        if view is None:
            view = counts_view(self._counters.get(each.owner) or Counters())
            self._counts[each.owner] = view
        return view
