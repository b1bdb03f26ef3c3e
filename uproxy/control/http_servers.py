"""The HTTP servers of the program itself: health for probes, metrics for people and scrapes."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from aiohttp import web

from uproxy.config.as_file import as_file, origins
from uproxy.config.settings import Address, Config
from uproxy.control.recording import Recording
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.backends import CountedBackends, PortStatus
from uproxy.core.report.flow_format import FlowFilter, FlowsView
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.problems import HEALTH_SERVER, METRICS_SERVER
from uproxy.core.report.readiness import Reason
from uproxy.core.report.status import Status
from uproxy.core.report.status_format import ServiceLabels
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.allowed_hosts import known_names
from uproxy.http.api import api_app
from uproxy.http.health import healthz_app
from uproxy.http.server import HttpServer

HEALTH: Final = "health"
METRICS: Final = "metrics"
_TROUBLES: Final = {HEALTH: HEALTH_SERVER, METRICS: METRICS_SERVER}


class Program(Protocol):
    """What the servers need to know of the program: see ProgramStatus."""

    @property
    def config(self) -> Config: ...
    @property
    def health(self) -> ProxyHealth: ...
    @property
    def telemetry(self) -> Telemetry: ...
    @property
    def recording(self) -> Recording: ...
    def now(self) -> Status: ...
    def service_labels(self) -> ServiceLabels: ...
    def ports_of(self, service: ObjectName, now: float) -> Iterable[PortStatus]: ...
    def counted_backends(self) -> CountedBackends | None: ...
    def node_eligible(self) -> bool: ...
    def reasons_not_ready(self) -> Sequence[Reason]: ...
    def notes(self) -> Sequence[Reason]: ...
    async def flows(self, wanted: FlowFilter, /) -> FlowsView: ...


def http_servers(config: Config, program: Program) -> Iterator[HttpServer]:
    """The servers that the configuration asks for, not open yet."""
    if config.healthz_address is not None:
        yield _server(HEALTH, config.healthz_address, _health(program))
    if config.metrics_address is not None:
        app = api_app(
            program.now,
            program.telemetry,
            service_labels=program.service_labels,
            ports_of=program.ports_of,
            counted_backends=program.counted_backends,
            names=_Names(program),
            not_ready=program.reasons_not_ready,
            notes=program.notes,
            settings=lambda: shown(program.config),
            flows=program.flows,
            history=program.recording.view,
            started=program.recording.started,
        )
        yield _server(METRICS, config.metrics_address, app)


class _Names:
    """The host names that requests may use now: those that are allowed may change."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._host = socket.gethostname()

    def __contains__(self, name: object) -> bool:
        config = self._program.config
        return name in known_names(self._host, config.node_name, *config.metrics_allowed_hosts)


def shown(config: Config) -> Mapping[str, Any]:
    """What /configz answers: the documents of a configuration file, by the group of their API, and
    where each setting comes from."""
    kube_proxy, own = as_file(config)
    return {
        "kubeproxy.config.k8s.io": kube_proxy,
        "uproxy.dev": own,
        "origins": origins(config),
    }


def server_problems(servers: Iterable[HttpServer]) -> dict[str, str]:
    """Why some cannot listen now, by the reasons of Events."""
    return {_TROUBLES[each.name]: each.reason for each in servers if each.reason}


def _health(program: Program) -> web.Application:
    return healthz_app(
        program.health,
        program.telemetry,
        node_eligible=program.node_eligible,
        not_ready=program.reasons_not_ready,
        notes=program.notes,
    )


def _server(name: str, address: Address, app: web.Application) -> HttpServer:
    return HttpServer(app, [address], name=name, dual_stack=True)
