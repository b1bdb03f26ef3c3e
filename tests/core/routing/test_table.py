"""Routes: to which backends each frontend of a Service leads, for which clients, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import (
    NODE,
    endpoint,
    endpoint_slice,
    local,
    node,
    port,
    service,
    table,
    terminating,
)
from uproxy.core.cluster.objects import Endpoint, Object, ObjectName, Service
from uproxy.core.route import Backend, FrontendKind, Route, ServicePortName
from uproxy.core.routing.table import RoutingTable

WEB = ObjectName("default", "web")
CLUSTER_IP, NODE_PORT = FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT
EXTERNAL_IP, VIP = FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER_IP
EVERYWHERE = frozenset({CLUSTER_IP, NODE_PORT, EXTERNAL_IP, VIP})
OUTSIDE = EVERYWHERE - {CLUSTER_IP}
DEAD: dict[str, Any] = {"ready": False, "serving": False, "terminating": True}


def reachable(**spec: Any) -> Service:
    """A Service with a frontend of every kind."""
    return service(
        "web",
        port(80, node_port=30080),
        type="LoadBalancer",
        external_ips=("192.0.2.9",),
        ingress=["192.0.2.7"],
        **spec,
    )


def by_kind(found: RoutingTable) -> dict[FrontendKind, Route]:
    return {route.kind: route for route in found.routes.values()}


def ends(route: Route, *, outside: bool = False) -> set[str]:
    """Last numbers of the backends' addresses, for nearby or for outside clients."""
    chosen = route.backends
    if outside and route.local_backends is not None:
        chosen = route.local_backends
    return {backend.address.rpartition(".")[2] for backend in chosen}


def web(*endpoints: Endpoint | str, **fields: Any) -> Object:
    return endpoint_slice("web", *endpoints, **fields)


LOCAL_AND_REMOTE = (local("10.0.0.1"), endpoint("10.0.0.2", node="other"))


@pytest.mark.parametrize(
    ("policy", "cluster_ip", "near", "outside"),
    [
        pytest.param({}, {"1", "2"}, {"1", "2"}, {"1", "2"}, id="svc1: default policies"),
        pytest.param(
            {"external_traffic_policy": "Local"},
            {"1", "2"},
            {"1", "2"},
            {"1"},
            id="svc2: eTP Local; node and pods are short-circuited",
        ),
        pytest.param(
            {"internal_traffic_policy": "Local"},
            {"1"},
            {"1", "2"},
            {"1", "2"},
            id="svc3: iTP Local",
        ),
    ],
)
def test_which_set(
    policy: dict[str, str], cluster_ip: set[str], near: set[str], outside: set[str]
) -> None:
    """kube-proxy's TestInternalExternalMasquerade, without masquerading."""
    routes = by_kind(table(reachable(**policy), web(*LOCAL_AND_REMOTE)))
    assert routes.keys() == EVERYWHERE
    assert ends(routes[CLUSTER_IP]) == ends(routes[CLUSTER_IP], outside=True) == cluster_ip
    for kind in OUTSIDE:
        assert ends(routes[kind]) == near
        assert ends(routes[kind], outside=True) == outside
    assert {route.reason for route in routes.values()} == {""}


@pytest.mark.parametrize(
    ("endpoints", "cluster_ip", "outside"),
    [
        pytest.param(
            [
                *(local("10.0.0.1"), local("10.0.0.2")),
                *(terminating("10.0.0.3", node=NODE), local("10.0.0.4", **DEAD), "10.0.0.5"),
            ],
            *({"1", "2", "5"}, {"1", "2"}),
            id="ready ones first",
        ),
        pytest.param(
            [
                *(terminating("10.0.0.1", node=NODE), terminating("10.0.0.2", node=NODE)),
                *(local("10.0.0.3", **DEAD), "10.0.0.4"),
            ],
            *({"4"}, {"1", "2"}),
            id="outside: local terminating ones",
        ),
        pytest.param(
            [terminating("10.0.0.1"), local("10.0.0.2", **DEAD)],
            *({"1"}, set()),
            id="only a remote terminating one",
        ),
        pytest.param([local("10.0.0.1", **DEAD)], set(), set(), id="none serves"),
    ],
)
def test_terminating_endpoints(
    endpoints: list[Endpoint | str], cluster_ip: set[str], outside: set[str]
) -> None:
    """KEP-1669, kube-proxy's tables for eTP Local."""
    given = reachable(external_traffic_policy="Local")
    routes = by_kind(table(given, web(*endpoints)))
    assert ends(routes[CLUSTER_IP]) == cluster_ip
    assert ends(routes[VIP], outside=True) == outside
    assert routes[VIP].usable is bool(cluster_ip or outside)


ETP, ITP = {"external_traffic_policy": "Local"}, {"internal_traffic_policy": "Local"}
NO_LOCAL_INSIDE = "internalTrafficPolicy is Local and this node has no endpoint"
NO_LOCAL_OUTSIDE = (
    "externalTrafficPolicy is Local and this node has no endpoint;"
    " only this node and its pods are served"
)


@pytest.mark.parametrize(
    ("policy", "endpoints", "inside", "outside", "usable"),
    [
        pytest.param({}, [], "no endpoints", "no endpoints", (), id="no endpoints: all refuse"),
        pytest.param(
            {},
            [endpoint("10.0.0.1", ready=False, serving=False)],
            *("no ready endpoints", "no ready endpoints", ()),
            id="none is ready: all refuse",
        ),
        pytest.param(
            ITP,
            ["10.0.0.1"],
            *(NO_LOCAL_INSIDE, "", OUTSIDE),
            id="iTP Local, only remote: the ClusterIP alone refuses",
        ),
        pytest.param(
            ETP,
            ["10.0.0.1"],
            *("", NO_LOCAL_OUTSIDE, EVERYWHERE),
            id="eTP Local, only remote: kept for nearby clients",
        ),
        pytest.param(
            {**ITP, **ETP},
            ["10.0.0.1"],
            *(NO_LOCAL_INSIDE, NO_LOCAL_OUTSIDE, OUTSIDE),
            id="both Local, only remote",
        ),
        pytest.param(
            ITP,
            ["10.0.0.1", local("10.0.0.2", ready=False, serving=False)],
            "internalTrafficPolicy is Local and this node has no ready endpoint",
            *("", OUTSIDE),
            id="iTP Local, the local one is not ready",
        ),
        pytest.param(
            {**ITP, **ETP}, [], "no endpoints", "no endpoints", (), id="both Local, none at all"
        ),
    ],
)
def test_why_clients_are_refused(
    policy: dict[str, str],
    endpoints: list[Endpoint | str],
    inside: str,
    outside: str,
    usable: frozenset[FrontendKind],
) -> None:
    """Where kube-proxy would reject or drop. A frontend that is not usable is to be paused."""
    routes = by_kind(table(reachable(**policy), web(*endpoints)))
    assert routes[CLUSTER_IP].reason == inside
    assert {routes[kind].reason for kind in OUTSIDE} == {outside}
    assert {kind for kind, route in routes.items() if route.usable} == set(usable)


def test_endpoints_are_matched_by_port_name_and_protocol() -> None:
    found = table(
        service(
            "web",
            *(port(53, "dns-udp", protocol="UDP"), port(53, "dns-tcp"), port(80, "http")),
        ),
        web("10.0.0.1", ports={"dns-udp": 5353}, protocol="UDP", suffix="1"),
        web("10.0.0.2", ports={"dns-tcp": 5354}, suffix="2"),
        web("10.0.0.3", ports={"http": 8080}, suffix="3"),
        web("10.0.0.4", ports={"http": 9090, "unknown": 1}, suffix="4"),
    )
    assert {str(f): [str(b) for b in route.backends] for f, route in found.routes.items()} == {
        "10.96.0.1:53/UDP": ["10.0.0.1:5353"],
        "10.96.0.1:53/TCP": ["10.0.0.2:5354"],
        "10.96.0.1:80/TCP": ["10.0.0.3:8080", "10.0.0.4:9090"],
    }
    assert {route.owner for route in found.routes.values()} == {
        ServicePortName("default", "web", "dns-udp", "UDP"),
        ServicePortName("default", "web", "dns-tcp", "TCP"),
        ServicePortName("default", "web", "http", "TCP"),
    }


def test_families_are_apart() -> None:
    given = service("web", port(80, node_port=30080), cluster_ips=("10.96.0.1", "fd00::1"))
    found = table(given, web("10.0.0.1", suffix="4"), web("fd01::1", family="IPv6", suffix="6"))
    assert {str(f): [str(b) for b in route.backends] for f, route in found.routes.items()} == {
        "10.96.0.1:80/TCP": ["10.0.0.1:8080"],
        "0.0.0.0:30080/TCP": ["10.0.0.1:8080"],
        "[fd00::1]:80/TCP": ["[fd01::1]:8080"],
        "[::]:30080/TCP": ["[fd01::1]:8080"],
    }


def test_hints_filter_by_the_zone_of_the_node() -> None:
    slices = web(endpoint("10.0.0.1", zones=["a"]), endpoint("10.0.0.2", zones=["b"]))
    (route,) = table(service("web"), slices, node(zone="b")).routes.values()
    assert ends(route) == {"2"}


def test_each_port_and_each_family_has_hints_of_its_own() -> None:
    """An endpoint without a hint switches off those of its own port and family only."""
    given = service(
        "web", port(80, "a"), port(81, "b"), cluster_ips=("10.96.0.1", "fd00::1"), ip="10.96.0.1"
    )
    hinted: list[dict[str, Any]] = [
        {"zones": ["a"], "nodes": ["n2"]},
        {"zones": ["b"], "nodes": ["n3"]},
    ]
    found = table(
        given,
        node(zone="b"),
        web(*_at("10.0.0.", hinted), ports={"a": 80}, suffix="1"),
        web(*_at("10.0.0.", [*hinted, {}]), ports={"b": 81}, suffix="2"),
        web(*_at("fd01::", [*hinted, {}]), family="IPv6", ports={"a": 80}, suffix="3"),
        web(*_at("fd01::", hinted), family="IPv6", ports={"b": 81}, suffix="4"),
    )
    assert {str(f): len(route.backends) for f, route in found.routes.items()} == {
        "10.96.0.1:80/TCP": 1,
        "10.96.0.1:81/TCP": 3,
        "[fd00::1]:80/TCP": 3,
        "[fd00::1]:81/TCP": 1,
    }


def _at(prefix: str, hints: list[dict[str, Any]]) -> list[Endpoint]:
    return [endpoint(f"{prefix}{number}", **each) for number, each in enumerate(hints, 1)]


def test_an_unusable_endpoint_address_is_a_reason() -> None:
    found = table(service("web"), web("10.0.0.1", "10.0.0.999"))
    assert ends(by_kind(found)[CLUSTER_IP]) == {"1"}
    assert found.services[WEB].reasons == (
        'endpoint address "10.0.0.999" is not a host address of its slice\'s addressType;'
        " it is left out",
    )


def test_a_table_knows_the_ports_that_exist_and_all_of_their_backends() -> None:
    found = table(reachable(external_traffic_policy="Local"), web(*LOCAL_AND_REMOTE))
    there = ServicePortName("default", "web", "", "TCP")
    assert found.has_port(there)
    assert found.backends_of(there) == {Backend("10.0.0.1", 8080), Backend("10.0.0.2", 8080)}
    for absent in (there._replace(port="http"), there._replace(name="other")):
        assert not found.has_port(absent)
        assert found.backends_of(absent) == set()
