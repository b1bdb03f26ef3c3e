"""Builds that follow each other: what changed is derived again, the rest is shared."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import SOURCE, cluster, endpoint, endpoint_slice, local, node, port, service
from uproxy.core.cluster.objects import Object
from uproxy.core.cluster.state import ClusterState
from uproxy.core.route import Frontend, ServicePortName
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

OPTIONS = RoutingOptions(local_addresses=frozenset({"10.0.0.1"}))


class Steps:
    """A cluster and the tables that follow from its changes."""

    def __init__(self, *objects: Object) -> None:
        self.state = cluster(*objects)
        self.tables = [RoutingTable()]
        self.build()

    def build(self) -> RoutingTable:
        dirty = self.state.take_dirty()
        self.tables.append(build(self.state, OPTIONS, self.tables[-1], dirty))
        return self.tables[-1]

    def apply(self, *objects: Object) -> RoutingTable:
        for each in objects:
            self.state.apply(SOURCE, each)
        return self.build()

    def remove(self, *objects: Object) -> RoutingTable:
        for each in objects:
            self.state.remove(SOURCE, type(each), each.key)
        return self.build()


def names(found: RoutingTable) -> set[str]:
    return {str(frontend) for frontend in found.routes}


def changed(found: RoutingTable) -> set[str]:
    return {str(frontend) for frontend in found.changed}


class TestServices:
    """kube-proxy's userspace mode tests of services that come, change and go (P5, P12-P16)."""

    def test_every_port_is_there_under_its_own_name_and_protocol(self) -> None:
        given = service("echo", port(80, "p"), port(81, "q", protocol="UDP"), ip="1.2.3.4")
        owners = {route.owner for route in Steps(given).tables[-1].routes.values()}
        assert owners == {
            ServicePortName("default", "echo", "p", "TCP"),
            ServicePortName("default", "echo", "q", "UDP"),
        }

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_another_port(self, protocol: str) -> None:
        steps = Steps(service("echo", port(99, protocol=protocol)))
        found = steps.apply(service("echo", port(100, protocol=protocol)))
        assert names(found) == {f"10.96.0.1:100/{protocol}"}
        assert changed(found) == {f"10.96.0.1:99/{protocol}", f"10.96.0.1:100/{protocol}"}

    def test_another_external_ip_leaves_the_other_frontends_alone(self) -> None:
        steps = Steps(service("echo"))
        before = steps.tables[-1].routes[Frontend("TCP", "10.96.0.1", 80)]
        found = steps.apply(service("echo", external_ips=("4.3.2.1",)))
        assert changed(found) == {"4.3.2.1:80/TCP"}
        assert found.routes[before.frontend] is before

    def test_the_cluster_ip_goes_and_comes_back(self) -> None:
        steps = Steps(service("echo", ip="1.2.3.4"))
        seen = [names(steps.apply(service("echo", ip=ip))) for ip in ("", "None", "1.2.3.4")]
        assert seen == [set(), set(), {"1.2.3.4:80/TCP"}]

    def test_changes_that_cancel_out_change_nothing(self) -> None:
        steps = Steps(service("echo"))
        steps.state.apply(SOURCE, service("echo", port(81)))
        found = steps.apply(service("echo"))
        assert found.changed == frozenset()
        assert found.routes == steps.tables[-2].routes

    def test_a_service_that_comes_and_goes_at_once(self) -> None:
        steps = Steps()
        steps.state.apply(SOURCE, service("echo"))
        found = steps.remove(service("echo"))
        assert (found.routes, found.services, found.changed) == ({}, {}, frozenset())

    def test_several_services_and_back(self) -> None:
        """TestBuildServiceMapAddRemove."""
        udp = service("x/udp", port(53, "a", protocol="UDP"), port(54, "b", protocol="UDP"))
        node_port = service(
            "x/np",
            *(port(345, "a", protocol="UDP", node_port=30345), port(344, "b", node_port=30344)),
            ip="10.96.0.2",
            type="NodePort",
        )
        balanced = [
            service(
                f"y/lb{i}",
                *(port(8675, "a", node_port=30061 + i), port(8676, "b", node_port=30071 + i)),
                ip=f"10.96.0.{i}",
                type="LoadBalancer",
                ingress=[f"192.0.2.{i}"],
                external_traffic_policy="Local" if i == 3 else "Cluster",
                health_check_node_port=345 if i == 3 else 0,
            )
            for i in (3, 4)
        ]
        steps = Steps(udp, node_port, *balanced)
        found = steps.tables[-1]
        assert len({route.owner for route in found.routes.values()}) == 8
        assert len(found.services) == 4
        assert [check.port for check in found.health_checks.values()] == [345]
        one_port = service("x/udp", port(53, "a", protocol="UDP"))
        steps.state.apply(SOURCE, one_port)
        found = steps.remove(node_port, *balanced)
        assert names(found) == {"10.96.0.1:53/UDP"}
        assert (len(found.services), found.health_checks) == (1, {})


class TestSharing:
    def test_a_change_of_endpoints_concerns_its_own_frontends(self) -> None:
        steps = Steps(service("a"), service("b", ip="10.96.0.2"), endpoint_slice("b", "10.0.0.9"))
        before = steps.tables[-1]
        found = steps.apply(endpoint_slice("a", "10.0.0.8"))
        assert changed(found) == {"10.96.0.1:80/TCP"}
        other = Frontend("TCP", "10.96.0.2", 80)
        assert found.routes[other] is before.routes[other]

    def test_a_route_that_comes_out_equal_is_the_old_object(self) -> None:
        steps = Steps(service("a"), endpoint_slice("a", "10.0.0.8"))
        before = steps.tables[-1]
        found = steps.apply(
            endpoint_slice("a", endpoint("10.0.0.8", zones=["unused"])),
            service("a", labels={"app": "a"}),
        )
        assert found.changed == frozenset()
        (frontend,) = found.routes
        assert found.routes[frontend] is before.routes[frontend]

    def test_the_previous_table_is_left_as_it_was(self) -> None:
        steps = Steps(service("a"))
        before = steps.tables[-1]
        copied = dict(before.routes)
        steps.remove(service("a"))
        assert before.routes == copied
        assert steps.tables[-1].routes == {}

    def test_other_options_derive_everything_again(self) -> None:
        steps = Steps(service("a", port(80, node_port=30080), type="NodePort"))
        options = RoutingOptions(nodeport_addresses=("127.0.0.1",))
        found = build(steps.state, options, steps.tables[-1], ())
        assert names(found) == {"10.96.0.1:80/TCP", "127.0.0.1:30080/TCP"}
        assert changed(found) == {"0.0.0.0:30080/TCP", "127.0.0.1:30080/TCP"}

    def test_a_new_zone_reaches_every_service(self) -> None:
        slices = endpoint_slice(
            "a", endpoint("10.0.0.8", zones=["x"]), endpoint("10.0.0.9", zones=["y"])
        )
        steps = Steps(service("a"), slices, node(zone="x"))
        found = steps.apply(node(zone="y"))
        (route,) = found.routes.values()
        assert [backend.address for backend in route.backends] == ["10.0.0.9"]


services = st.builds(
    lambda name, ports, ip, created, external_ips, policy, check, ranges: service(
        name,
        *ports,
        ip=ip,
        created=created,
        type="LoadBalancer",
        external_ips=external_ips,
        ingress=["192.0.2.8"] if ranges else [],
        external_traffic_policy=policy,
        internal_traffic_policy=policy,
        health_check_node_port=check,
        load_balancer_source_ranges=ranges,
    ),
    st.sampled_from(["a", "b", "c"]),
    st.lists(
        st.builds(
            lambda number, protocol, node_port: port(
                number, protocol.lower(), protocol=protocol, node_port=node_port
            ),
            st.sampled_from([80, 30080]),
            st.sampled_from(["TCP", "UDP"]),
            st.sampled_from([0, 30080, 30081]),
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["10.96.0.1", "10.96.0.2", "10.0.0.1", ""]),
    st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    st.sampled_from([(), ("10.0.0.1",), ("192.0.2.8",)]),
    st.sampled_from(["Cluster", "Local"]),
    st.sampled_from([0, 30080]),
    st.sampled_from([(), ("10.0.0.0/8",)]),
)
slices = st.builds(
    lambda name, endpoints, number, protocol, suffix: endpoint_slice(
        name,
        *endpoints,
        ports={protocol.lower(): number},
        protocol=protocol,
        suffix=suffix,
    ),
    st.sampled_from(["a", "b", "c"]),
    st.lists(
        st.sampled_from(
            [
                *(local("10.0.0.1"), endpoint("10.0.0.2"), endpoint("10.96.0.1")),
                *(endpoint("127.0.0.1"), endpoint("10.0.0.3", zones=["x"])),
            ]
        ),
        max_size=3,
    ),
    st.sampled_from([80, 8080, 30080]),
    st.sampled_from(["TCP", "UDP"]),
    st.sampled_from(["1", "2"]),
)
nodes = st.sampled_from([node(zone="x"), node(zone="y", addresses=["10.0.0.1"])])
changes = st.lists(st.tuples(st.booleans(), services | slices | nodes), max_size=6)


@settings(max_examples=300)
@given(st.lists(changes, max_size=8))
def test_step_by_step_is_the_same_as_at_once(batches: list[list[tuple[bool, Object]]]) -> None:
    """Whatever happens, the table equals one that is built from nothing, and says what changed."""
    steps = Steps()
    for batch in batches:
        for present, obj in batch:
            if present:
                steps.state.apply(SOURCE, obj)
            else:
                steps.state.remove(SOURCE, type(obj), obj.key)
        before = steps.tables[-1]
        found = steps.build()
        assert_same(found, from_nothing(steps.state))
        every = before.routes.keys() | found.routes.keys()
        assert found.changed == {
            f for f in every if found.routes.get(f) is not before.routes.get(f)
        }
        assert all(found.routes.get(f) != before.routes.get(f) for f in found.changed)
        steps.tables = steps.tables[-1:]


def from_nothing(state: ClusterState) -> RoutingTable:
    return build(state, OPTIONS, RoutingTable(), ())


def assert_same(found: RoutingTable, expected: RoutingTable) -> None:
    for each in fields(RoutingTable):
        if each.name != "changed":
            assert getattr(found, each.name) == getattr(expected, each.name), each.name
