"""Two Services want one frontend: the older has it, and the other takes over when it goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import SOURCE, cluster, endpoint_slice, port, service, table
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.overview import frontend_statuses, service_statuses
from uproxy.core.report.status import FrontendState
from uproxy.core.route import Frontend
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

OPTIONS = RoutingOptions()
SHARED = Frontend("TCP", "0.0.0.0", 30080)
OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def rival(name: str, created: str | None = None, node_port: int = 30080) -> Service:
    number = sum(name.encode()) % 250 + 1
    return service(
        name,
        port(80, node_port=node_port),
        ip=f"10.96.0.{number}",
        type="NodePort",
        created=created,
    )


def checked(name: str, created: str | None = None, number: int = 30080) -> Service:
    """A Service with a healthCheckNodePort."""
    return service(
        name,
        ip=f"10.96.1.{sum(name.encode()) % 250 + 1}",
        type="LoadBalancer",
        external_traffic_policy="Local",
        health_check_node_port=number,
        created=created,
    )


def owner(found: RoutingTable, frontend: Frontend = SHARED) -> str:
    return found.routes[frontend].owner.name


@pytest.mark.parametrize(
    ("services", "winner", "losers"),
    [
        pytest.param([rival("a", NEW), rival("b", OLD)], "b", ["a"], id="the older one"),
        pytest.param([rival("b", OLD), rival("a", OLD)], "a", ["b"], id="equal age: by name"),
        pytest.param(
            [rival("y/a", OLD), rival("x/b", OLD)], "b", ["a"], id="namespace before name"
        ),
        pytest.param([rival("a"), rival("b", NEW)], "b", ["a"], id="no timestamp counts as newest"),
        pytest.param([rival("b"), rival("a")], "a", ["b"], id="no timestamps: by name"),
        pytest.param(
            [rival("c", OLD), rival("a", NEW), rival("b", NEW)],
            "c",
            ["a", "b"],
            id="three",
        ),
    ],
)
def test_which_service_wins(services: list[Service], winner: str, losers: list[str]) -> None:
    for order in (services, services[::-1]):
        found = table(*order)
        conflict = found.conflicts[SHARED]
        assert owner(found) == conflict.winner.name == winner
        assert [each.name for each in conflict.losers] == losers


def test_the_rest_of_the_loser_is_served() -> None:
    found = table(rival("a", OLD), rival("b", NEW))
    assert {route.owner.name for route in found.routes.values()} == {"a", "b"}
    assert len(found.routes) == 3
    assert found.conflicts[SHARED].message == (
        "0.0.0.0:30080/TCP is served for default/a, the oldest that wants it, and not for default/b"
    )


def test_protocols_do_not_conflict() -> None:
    other = service("b", port(80, protocol="UDP", node_port=30080), ip="10.96.0.2")
    assert table(rival("a"), other).conflicts == {}


def test_within_a_service_the_first_port_wins() -> None:
    given = service("web", port(80, "z", node_port=30080), port(81, "a", node_port=30080))
    found = table(given)
    assert found.routes[SHARED].owner.port == "z"
    assert [each.port for each in found.conflicts[SHARED].losers] == ["a"]


def test_any_kind_of_address_can_be_contested() -> None:
    first = service("a", ip="10.96.0.1", external_ips=("192.0.2.7",), created=OLD)
    second = service("b", ip="10.96.0.2", ingress=["192.0.2.7"], created=NEW)
    shared = Frontend("TCP", "192.0.2.7", 80)
    found = table(first, second)
    assert owner(found, shared) == "a"
    assert found.conflicts.keys() == {shared}


class Cluster:
    """A cluster and its table, built step by step."""

    def __init__(self, *objects: Any) -> None:
        self.state: ClusterState = cluster(*objects)
        self.table = RoutingTable()
        self.build()

    def build(self) -> RoutingTable:
        dirty = self.state.take_dirty()
        self.table = build(self.state, OPTIONS, self.table, dirty)
        return self.table

    def apply(self, *objects: Any) -> RoutingTable:
        for each in objects:
            self.state.apply(SOURCE, each)
        return self.build()

    def remove(self, *names: str) -> RoutingTable:
        for name in names:
            self.state.remove(SOURCE, Service, ObjectName("default", name))
        return self.build()


class TestTakeover:
    def test_when_the_winner_goes(self) -> None:
        at = Cluster(rival("a", OLD), rival("b", NEW), endpoint_slice("b", "10.0.0.1"))
        found = at.remove("a")
        assert (owner(found), found.conflicts) == ("b", {})
        assert SHARED in found.changed
        assert [str(b) for b in found.routes[SHARED].backends] == ["10.0.0.1:8080"]

    def test_when_the_winner_moves_elsewhere(self) -> None:
        at = Cluster(rival("a", OLD), rival("b", NEW))
        found = at.apply(rival("a", OLD, node_port=30081))
        assert owner(found) == "b"
        assert owner(found, Frontend("TCP", "0.0.0.0", 30081)) == "a"
        assert found.conflicts == {}

    def test_when_an_older_one_appears(self) -> None:
        at = Cluster(rival("b", NEW))
        found = at.apply(rival("a", OLD))
        assert owner(found) == "a"
        assert SHARED in found.changed

    def test_when_a_younger_one_appears_nothing_changes(self) -> None:
        at = Cluster(rival("b", OLD))
        before = at.table.routes[SHARED]
        found = at.apply(rival("c", NEW))
        assert found.routes[SHARED] is before
        assert SHARED not in found.changed
        assert found.conflicts[SHARED].winner.name == "b"

    def test_when_the_loser_goes(self) -> None:
        at = Cluster(rival("a", OLD), rival("b", NEW))
        before = at.table.routes[SHARED]
        found = at.remove("b")
        assert found.routes[SHARED] is before
        assert (SHARED in found.changed, found.conflicts) == (False, {})

    def test_when_both_go_at_once(self) -> None:
        at = Cluster(rival("a", OLD), rival("b", NEW))
        found = at.remove("a", "b")
        assert (found.routes, found.conflicts) == ({}, {})

    def test_when_a_node_port_is_handed_over_in_one_batch(self) -> None:
        """kube-proxy's userspace mode met a conflict here, depending on the order of a map."""
        at = Cluster(rival("a", OLD), rival("b", NEW, node_port=30081))
        found = at.apply(rival("a", OLD, node_port=30082), rival("b", NEW))
        assert (owner(found), found.conflicts) == ("b", {})

    def test_the_loser_s_own_changes_count_once_it_has_taken_over(self) -> None:
        at = Cluster(rival("a", OLD), rival("b", NEW))
        found = at.apply(endpoint_slice("b", "10.0.0.1"))
        assert owner(found) == "a"
        found = at.remove("a")
        assert [str(b) for b in found.routes[SHARED].backends] == ["10.0.0.1:8080"]


class TestHealthChecks:
    def test_a_node_port_is_older(self) -> None:
        found = table(rival("a", OLD), checked("b", NEW))
        assert (owner(found), found.health_checks) == ("a", {})
        assert found.conflicts[SHARED].message == (
            "0.0.0.0:30080/TCP is served for default/a, the oldest that wants it,"
            " and not for default/b:healthCheckNodePort"
        )

    def test_a_health_check_is_older(self) -> None:
        found = table(rival("a", NEW), checked("b", OLD))
        assert SHARED not in found.routes
        assert [name.name for name in found.health_checks] == ["b"]
        assert [each.name for each in found.conflicts[SHARED].losers] == ["a"]

    def test_the_status_has_no_frontend_for_it_but_its_service_a_reason(self) -> None:
        found = table(rival("a", OLD), rival("c", NEW), checked("b", NEW))
        conflicts = [
            each.owner.name
            for each in frontend_statuses(found, {}, {})
            if each.state is FrontendState.CONFLICT
        ]
        assert conflicts == ["c"]
        assert [(each.service.name, each.reason) for each in service_statuses(found)] == [
            ("b", found.conflicts[SHARED].message)
        ]

    def test_two_health_checks_and_a_takeover(self) -> None:
        at = Cluster(checked("a", OLD), checked("b", NEW))
        assert [name.name for name in at.table.health_checks] == ["a"]
        found = at.remove("a")
        assert [name.name for name in found.health_checks] == ["b"]
        assert found.conflicts == {}

    def test_it_gets_its_port_when_the_node_port_goes(self) -> None:
        at = Cluster(rival("a", OLD), checked("b", NEW))
        found = at.remove("a")
        assert [name.name for name in found.health_checks] == ["b"]
        assert SHARED not in found.routes
        assert SHARED in found.changed

    def test_an_older_node_port_takes_it_away(self) -> None:
        at = Cluster(checked("b", NEW))
        found = at.apply(rival("a", OLD))
        assert (owner(found), found.health_checks) == ("a", {})

    def test_its_own_service_s_node_port_comes_first(self) -> None:
        given = service(
            "web",
            port(80, node_port=30080),
            type="LoadBalancer",
            external_traffic_policy="Local",
            health_check_node_port=30080,
        )
        found = table(given)
        assert (owner(found), found.health_checks) == ("web", {})

    def test_udp_does_not_conflict(self) -> None:
        other = service("a", port(53, protocol="UDP", node_port=30080), created=OLD)
        found = table(other, checked("b", NEW))
        assert (len(found.health_checks), found.conflicts) == (1, {})
