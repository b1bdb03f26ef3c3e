"""Addresses of load balancers: what a node says of those that another one announces."""

from __future__ import annotations

import pytest

from tests.builders import endpoint_slice, service, table
from uproxy.core.cluster.load_balancer import ASSIGNED, Assigning
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import (
    AddressStatus,
    LoadBalancerStatus,
    ServiceAddresses,
)
from uproxy.core.report.overview import frontend_statuses
from uproxy.core.report.readiness import not_ready
from uproxy.core.report.status import FrontendState, FrontendStatus
from uproxy.core.route import Announced, Frontend
from uproxy.core.routing.plan import Actual

VIP = "198.51.100.7"
SERVICE = service("web", ingress=[VIP], annotations={ASSIGNED: VIP}, type="LoadBalancer")
FRONTEND = Frontend("TCP", VIP, 80)


def status(
    *addresses: AddressStatus, announce: Announced = Announced.L2, backends: bool = True
) -> FrontendStatus:
    """Of the frontend at the assigned address, whose listener is open."""
    slices = [endpoint_slice("web", "10.0.0.1")] if backends else []
    found = table(SERVICE, *slices, assigning=Assigning.POOLS, announce=announce)
    actual = {each: Actual(route, not route.usable) for each, route in found.routes.items()}
    announced = LoadBalancerStatus(addresses=addresses).announced()
    statuses = frontend_statuses(found, actual, {}, announced=announced)
    return next(each for each in statuses if each.frontend == FRONTEND)


@pytest.mark.parametrize(
    ("address", "state", "reason"),
    [
        pytest.param(
            AddressStatus(address=VIP, node="a", here=True), FrontendState.SERVING, "", id="here"
        ),
        pytest.param(
            AddressStatus(address=VIP, node="b"),
            FrontendState.ELSEWHERE,
            "node b announces it",
            id="on another node",
        ),
        pytest.param(
            AddressStatus(address=VIP, reason="no node has an interface in its subnet"),
            FrontendState.ELSEWHERE,
            "no node has an interface in its subnet",
            id="on no node, with a reason",
        ),
        pytest.param(
            AddressStatus(address=VIP),
            FrontendState.ELSEWHERE,
            "no node announces it",
            id="on no node yet",
        ),
        pytest.param(
            AddressStatus(address="198.51.100.8", node="b"),
            FrontendState.SERVING,
            "",
            id="another address",
        ),
    ],
)
def test_where_it_is_served(address: AddressStatus, state: FrontendState, reason: str) -> None:
    found = status(address)
    assert (found.state, found.reason) == (state, reason)
    assert list(not_ready([found], waiting_for=(), draining=False)) == []


def test_what_has_no_backend_is_paused_wherever_it_is_announced() -> None:
    found = status(AddressStatus(address=VIP, node="b"), backends=False)
    assert found.state is FrontendState.PAUSED


def test_every_node_announces_routes_for_itself() -> None:
    found = status(AddressStatus(address=VIP), announce=Announced.ROUTES)
    assert found.state is FrontendState.SERVING


def test_who_waits_and_who_is_served_by_others() -> None:
    names = {name: ObjectName("default", name) for name in ("a", "b", "c")}
    found = LoadBalancerStatus(
        services=(
            ServiceAddresses(service=names["a"], addresses=(VIP,)),
            ServiceAddresses(service=names["b"], reason="no pool"),
            ServiceAddresses(service=names["c"], foreign="another controller"),
        )
    )
    assert [each.service.name for each in found.pending] == ["b"]
    assert [each.service.name for each in found.foreign] == ["c"]
