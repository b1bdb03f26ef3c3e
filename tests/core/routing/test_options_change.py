"""Which Services are derived again when the facts about this machine change."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import SOURCE, cluster, endpoint_slice, port, service
from tests.core.routing.test_build import nodes, services, slices
from uproxy.core.cluster.objects import Object
from uproxy.core.routing.build import build
from uproxy.core.routing.derive import derive
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

HERE = frozenset({"192.0.2.1"})
BEFORE: dict[str, Any] = {"local_addresses": HERE, "external_ip_addresses": HERE}


def crowd() -> list[Object]:
    """Ten plain Services, and one for each way to depend on this machine."""
    found: list[Object] = []
    for index in range(10):
        found += [service(f"plain{index}", ip=f"10.96.1.{index}")]
        found += [endpoint_slice(f"plain{index}", f"10.0.0.{index}")]
    return [
        *found,
        service("external", ip="10.96.0.1", external_ips=("192.0.2.2",)),
        service("vip", ip="10.96.0.2", ingress=["192.0.2.3"]),
        service("ranges", ip="10.96.0.3", load_balancer_source_ranges=("192.0.2.0/24",)),
        service("node-port", port(80, node_port=30080), ip="10.96.0.4", type="NodePort"),
        service("near", ip="10.96.0.5"),
        endpoint_slice("near", "192.0.2.4"),
    ]


ALL = {*(f"plain{index}" for index in range(10)), "external", "vip", "ranges", "node-port", "near"}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param({}, set(), id="nothing"),
        pytest.param({"local_addresses": HERE | {"192.0.2.9"}}, {"ranges"}, id="an address"),
        pytest.param(
            {"local_addresses": HERE | {"192.0.2.4"}}, {"ranges", "near"}, id="a backend's address"
        ),
        pytest.param(
            {"local_addresses": HERE | {"192.0.2.3"}}, {"ranges", "vip"}, id="a VIP's address"
        ),
        pytest.param(
            {"external_ip_addresses": HERE | {"192.0.2.2"}}, {"external"}, id="an external IP"
        ),
        pytest.param({"reserved": {"192.0.2.3": "a gateway"}}, {"vip"}, id="a gateway"),
        pytest.param({"servers": {"192.0.2.2": "a DNS server"}}, {"external"}, id="a DNS server"),
        pytest.param({"nodeport_addresses": ("192.0.2.1",)}, {"node-port"}, id="NodePorts"),
        pytest.param({"external_ip_addresses": None}, ALL, id="any external IP"),
        pytest.param({"strict_source_ranges": True}, ALL, id="a setting"),
    ],
)
def test_only_those_that_a_change_concerns(after: dict[str, Any], expected: set[str]) -> None:
    state = cluster(*crowd())
    table = build(state, RoutingOptions(**BEFORE), RoutingTable(), state.take_dirty())
    with patch("uproxy.core.routing.build.derive", wraps=derive) as derived:
        build(state, RoutingOptions(**{**BEFORE, **after}), table, ())
    assert {call.args[0].metadata.name for call in derived.call_args_list} == expected


def test_the_loop_guard_decides_again_though_nothing_else_is_different() -> None:
    """One backend is on this node in any case. The other one becomes a way back to a NodePort of
    ours."""
    state = cluster(
        service("a", port(80, node_port=30080), type="NodePort"),
        endpoint_slice("a", "10.0.0.1"),
        service("b", ip="10.96.0.2"),
        endpoint_slice("b", "192.0.2.1", "192.0.2.4", ports={"": 30080}),
    )
    table = build(state, RoutingOptions(**BEFORE), RoutingTable(), state.take_dirty())
    [route] = [each for each in table.routes.values() if each.owner.name == "b"]
    assert [each.address for each in route.backends] == ["192.0.2.4"]
    after = RoutingOptions(local_addresses=HERE | {"192.0.2.4"}, external_ip_addresses=HERE)
    table = build(state, after, table, ())
    assert table.routes[route.frontend].backends == ()
    table = build(state, RoutingOptions(**BEFORE), table, ())
    assert table.routes[route.frontend] == route


addresses = st.frozensets(st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.8", "10.96.0.1"]))
options = st.builds(
    lambda local, external, hosts, servers, node_ports: RoutingOptions(
        local_addresses=local,
        external_ip_addresses=external,
        reserved=dict.fromkeys(hosts, "a gateway"),
        servers=dict.fromkeys(servers, "a DNS server"),
        nodeport_addresses=tuple(node_ports),
    ),
    addresses,
    st.none() | addresses,
    addresses,
    addresses,
    st.lists(st.sampled_from(["0.0.0.0", "10.0.0.1", "127.0.0.1"]), unique=True),
)


@settings(max_examples=300)
@given(st.lists(services | slices | nodes, max_size=8), st.lists(options, min_size=2, max_size=4))
def test_whatever_changes_all_come_out_as_if_derived_anew(
    objects: list[Object], sequence: list[RoutingOptions]
) -> None:
    state = cluster()
    for obj in objects:
        state.apply(SOURCE, obj)
    table = build(state, sequence[0], RoutingTable(), state.take_dirty())
    for each in sequence[1:]:
        before, table = table, build(state, each, table, ())
        fresh = build(state, each, RoutingTable(), ())
        assert table.routes == fresh.routes
        assert table.services == fresh.services
        assert table.conflicts == fresh.conflicts
        assert table.health_checks == fresh.health_checks
        assert table.looping == fresh.looping
        wrong = {f for f in table.routes if table.routes[f] != before.routes.get(f)}
        assert wrong <= table.changed
