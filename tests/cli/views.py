"""Parts of /api/v1/routes for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

import msgspec

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.report.backends import BackendState, BackendStatus, Moment, PortStatus
from uproxy.core.report.port_format import BackendView, CountsView, PortView, port_view
from uproxy.core.report.status import FrontendState, FrontendStatus, Status, WorkerStatus
from uproxy.core.report.status_format import (
    AffinityView,
    Filter,
    FrontendView,
    HealthCheckView,
    ServiceView,
    StatusView,
    status_view,
)
from uproxy.core.route import Backend, Frontend, FrontendKind, ServicePortName

_WEB = FrontendStatus(
    frontend=Frontend("TCP", "127.0.0.1", 30080),
    kind=FrontendKind.NODE_PORT,
    owner=ServicePortName("default", "web", "http", "TCP"),
    state=FrontendState.SERVING,
    backends=(Backend("10.0.0.1", 8080),),
    balancer="round-robin",
)
_NOON = Moment(monotonic=0.0, wall=0.0)
_NODE = Status(
    node="node-1",
    synced=True,
    frontends=(_WEB,),
    services=(),
    objects=(),
    workers=(WorkerStatus(index=0, pid=4711, restarts=0, active_flows=3),),
    health_checks=(),
    counters={},
    not_ready=(),
)


def status(**parts: Any) -> StatusView:
    """A ready node without Services, but for what is given."""
    view = status_view(_NODE, Filter())
    return msgspec.structs.replace(view, **({"frontends": []} | parts))


def frontend(service: str = "default/web", **parts: Any) -> FrontendView:
    """A NodePort that is served by one backend, but for what is given."""
    (view,) = status_view(_NODE, Filter()).frontends
    view = msgspec.structs.replace(view, service=service, **parts)
    if "frontend" not in parts:
        view.frontend = str(Frontend(view.protocol, view.address, view.port))
    return view


def counts(**parts: Any) -> CountsView:
    """All zero, but for what is given."""
    return msgspec.structs.replace(frontend().counts, **parts)


def backend(address: str, /, **parts: Any) -> BackendView:
    """A backend that is used and has had no flow, but for what is given."""
    host, _, number = address.rpartition(":")
    found = BackendStatus(
        backend=Backend(host.strip("[]"), int(number)),
        state=BackendState.USED,
        counts=BackendCounts(),
    )
    view = port_view(PortStatus(_WEB.owner, 80, [found]), None, _NOON).backends[0]
    return msgspec.structs.replace(view, **parts)


def port(*backends: BackendView, **parts: Any) -> PortView:
    """The port of `frontend`, with these backends."""
    view = port_view(PortStatus(_WEB.owner, 80, []), None, _NOON)
    return msgspec.structs.replace(view, **({"backends": list(backends)} | parts))


def affinity(seconds: int) -> AffinityView:
    return AffinityView(seconds)


def not_served(service: str, reason: str) -> ServiceView:
    return ServiceView(service, reason)


def health_check(service: str, count: int, reason: str = "") -> HealthCheckView:
    return HealthCheckView(service, 32000, {"IPv4": count}, reason)
