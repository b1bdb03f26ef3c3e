"""Frontends that are open, but some or all of whose backends do not answer."""

from __future__ import annotations

from tests.builders import endpoint, endpoint_slice, local, port, service, table
from uproxy.core.flows.backend_reachability import Failing
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
    ports = {first.owner: Failing((ONE,), 1, none_answers=True)}

    def states(*, paused: bool) -> list[str]:
        actual = {
            each.frontend: Actual(route=each, paused=paused) for each in found.routes.values()
        }
        statuses = list(frontend_statuses(found, actual, {}, failing=ports))
        assert not list(not_ready(statuses, waiting_for=(), draining=False))
        return [f"{each.state}: {each.reason}" for each in statuses]

    assert states(paused=False) == ["degraded: no backend answers: 10.0.0.1:8080", "serving: "]
    assert [each.partition(":")[0] for each in states(paused=True)] == ["paused", "paused"]


def test_failing_backends_are_listed() -> None:
    found = table(
        service("web", port(80, "a")), endpoint_slice("web", "10.0.0.1", ports={"a": 8080})
    )
    (route,) = found.routes.values()
    failing = Failing((ONE,), 1, none_answers=True)
    actual = {route.frontend: Actual(route=route, paused=False)}
    (status,) = frontend_statuses(found, actual, {}, failing={route.owner: failing})
    assert (status.state, status.failing) == (FrontendState.DEGRADED, (ONE,))


def test_some_failing_backends_degrade_the_frontends_that_lead_to_them() -> None:
    """The ClusterIP leads to pods of this node only, none of which fails."""
    found = table(
        service("web", port(80, node_port=30080), internal_traffic_policy="Local"),
        endpoint_slice("web", local("10.0.0.2"), endpoint("10.0.0.1", node="other")),
        nodeport_addresses=("127.0.0.1",),
    )
    actual = {each.frontend: Actual(route=each, paused=False) for each in found.routes.values()}
    (owner,) = {each.owner for each in found.routes.values()}
    failing = Failing((ONE,), 2, none_answers=False, pods={"10.0.0.1": "web-x"})
    states = {
        each.kind: (each.state.value, each.reason, each.failing)
        for each in frontend_statuses(found, actual, {}, failing={owner: failing})
    }
    assert states == {
        "ClusterIP": ("serving", "", ()),
        "NodePort": (
            "degraded",
            "1 of 2 backends does not answer: web-x (10.0.0.1:8080)",
            (ONE,),
        ),
    }
