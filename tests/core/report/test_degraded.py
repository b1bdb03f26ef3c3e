"""Frontends that are open, but none of whose backends answers."""

from __future__ import annotations

from tests.builders import endpoint_slice, port, service, table
from uproxy.core.flows.backend_reachability import FailedAttempts
from uproxy.core.report.overview import frontend_statuses
from uproxy.core.report.readiness import not_ready
from uproxy.core.report.status import FrontendState
from uproxy.core.route import Backend
from uproxy.core.routing.plan import Actual

ONE = Backend("10.0.0.1", 8080)


def test_open_frontends_of_a_port_without_an_answer() -> None:
    """Paused and failed frontends keep their state, as do other frontends of the Service."""
    found = table(
        service("web", port(80, "a"), port(81, "b")),
        endpoint_slice("web", "10.0.0.1", ports={"a": 8080, "b": 8081}),
    )
    first, _ = found.routes.values()
    unreachable = FailedAttempts(0.0)
    unreachable.backends = {ONE: None}
    ports = {first.owner: unreachable}

    def states(*, paused: bool) -> list[str]:
        actual = {
            each.frontend: Actual(route=each, paused=paused) for each in found.routes.values()
        }
        statuses = list(frontend_statuses(found, actual, {}, unreachable=ports))
        assert not list(not_ready(statuses, waiting_for=(), draining=False))
        return [f"{each.state}: {each.reason}" for each in statuses]

    assert states(paused=False) == ["degraded: no backend answers: 10.0.0.1:8080", "serving: "]
    assert [each.partition(":")[0] for each in states(paused=True)] == ["paused", "paused"]


def test_failing_backends_are_listed() -> None:
    found = table(
        service("web", port(80, "a")), endpoint_slice("web", "10.0.0.1", ports={"a": 8080})
    )
    (route,) = found.routes.values()
    unreachable = FailedAttempts(0.0)
    unreachable.backends = {ONE: None}
    actual = {route.frontend: Actual(route=route, paused=False)}
    (status,) = frontend_statuses(found, actual, {}, unreachable={route.owner: unreachable})
    assert (status.state, status.failing) == (FrontendState.DEGRADED, (ONE,))
