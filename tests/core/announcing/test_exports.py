"""Which addresses a node exports as routes."""

from __future__ import annotations

from typing import Any

from uproxy.core.announcing.exports import NO_ENDPOINT, NO_LOCAL_ENDPOINT, NOT_OPEN, exports
from uproxy.core.protocols import TCP
from uproxy.core.route import (
    Announced,
    Backend,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)

A, B = "203.0.113.1", "2001:db8:3::1"
BACKEND = Backend("198.51.100.2", 8080)


def route(address: str = A, port: int = 80, **fields: Any) -> Route:
    return Route(
        **{
            "frontend": Frontend(TCP, address, port),
            "owner": ServicePortName("default", "web", "t", TCP),
            "kind": FrontendKind.LOAD_BALANCER_IP,
            "backends": (BACKEND,),
            "announced": Announced.ROUTES,
            **fields,
        }
    )


def found(*routes: Route, closed: frozenset[int] = frozenset(), refusal: str = "") -> object:
    return exports(routes, lambda frontend: frontend.port not in closed, refusal)


def test_each_address_with_an_endpoint() -> None:
    assert found(route(A), route(B)) == {A: "", B: ""}


def test_only_those_that_are_announced_by_routes() -> None:
    assert found(route(announced=Announced.L2), route(B, announced=Announced.NEVER)) == {}


def test_not_without_an_endpoint() -> None:
    assert found(route(backends=())) == {A: NO_ENDPOINT}


def test_with_policy_local_its_own_endpoints_count() -> None:
    """Clients on this node could use the others; those from outside could not."""
    assert found(route(local_backends=())) == {A: NO_LOCAL_ENDPOINT}
    assert found(route(local_backends=(BACKEND,))) == {A: ""}


def test_not_before_the_listener_is_open() -> None:
    assert found(route(), closed=frozenset({80})) == {A: NOT_OPEN}


def test_one_port_that_can_be_served_is_enough() -> None:
    """Whichever comes first."""
    served, unserved = route(port=80), route(port=81, backends=())
    assert found(served, unserved) == found(unserved, served) == {A: ""}
    assert found(unserved, route(port=82), closed=frozenset({82})) == {A: NOT_OPEN}


def test_nothing_where_this_node_may_not() -> None:
    assert found(route(A), route(B, backends=()), refusal="draining") == {
        A: "draining",
        B: "draining",
    }
