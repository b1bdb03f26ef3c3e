"""What a Service asks for besides backends: affinity, balancer, health checks; and counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import endpoint, endpoint_slice, local, port, service, table, terminating
from uproxy.core.cluster.objects import (
    ClientIPConfig,
    Endpoint,
    ObjectName,
    Service,
    SessionAffinityConfig,
)
from uproxy.core.route import BalancerKind
from uproxy.core.routing.service_routes import HealthCheck

WEB = ObjectName("default", "web")
ETP: dict[str, Any] = {"external_traffic_policy": "Local"}
ITP: dict[str, Any] = {"internal_traffic_policy": "Local"}
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


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        pytest.param({}, 0, id="none"),
        pytest.param({"session_affinity": ""}, 0, id="empty"),
        pytest.param({"session_affinity": "ClientIP"}, 10800, id="the API's default"),
        pytest.param(
            {
                "session_affinity": "ClientIP",
                "session_affinity_config": SessionAffinityConfig(
                    client_ip=ClientIPConfig(timeout_seconds=125)
                ),
            },
            125,
            id="given",
        ),
        pytest.param(
            {
                "session_affinity": "None",
                "session_affinity_config": SessionAffinityConfig(
                    client_ip=ClientIPConfig(timeout_seconds=125)
                ),
            },
            0,
            id="switched off again",
        ),
    ],
)
def test_affinity(spec: dict[str, Any], seconds: int) -> None:
    routes = table(reachable(**spec)).routes
    assert {route.affinity_timeout for route in routes.values()} == {seconds}
    assert len({route.owner for route in routes.values()}) == 1, "pins are shared by frontends"


@pytest.mark.parametrize(
    ("annotation", "expected", "reasons"),
    [
        pytest.param(None, BalancerKind.RANDOM, (), id="the default"),
        pytest.param("least-connections", BalancerKind.LEAST_CONNECTIONS, (), id="annotation"),
        pytest.param(
            "fastest",
            BalancerKind.RANDOM,
            (
                'annotation uproxy.dev/balancer is "fastest", so it is ignored;'
                " use one of: round-robin, random, least-connections",
            ),
            id="unknown: served with the default",
        ),
    ],
)
def test_balancer(annotation: str | None, expected: BalancerKind, reasons: tuple[str, ...]) -> None:
    annotations = None if annotation is None else {"uproxy.dev/balancer": annotation}
    found = table(service("web", annotations=annotations), balancer=BalancerKind.RANDOM)
    assert {route.balancer for route in found.routes.values()} == {expected}
    assert found.services[WEB].reasons == reasons


class TestServing:
    """UDP flows stay with an endpoint that still serves. Policies and hints do not end a flow."""

    def serving(self, *endpoints: Endpoint | str, protocol: str = "UDP") -> set[str]:
        given = service("web", port(53, protocol=protocol), internal_traffic_policy="Local")
        (route,) = table(
            given, endpoint_slice("web", *endpoints, protocol=protocol)
        ).routes.values()
        return {backend.address for backend in route.serving}

    @pytest.mark.parametrize(
        ("given", "stays"),
        [
            pytest.param(endpoint("10.0.0.1"), True, id="remote, though the policy is Local"),
            pytest.param(terminating("10.0.0.1"), True, id="terminating and serving"),
            pytest.param(endpoint("10.0.0.1", **DEAD), False, id="terminating, serving no more"),
            pytest.param(
                endpoint("10.0.0.1", ready=True, serving=False),
                True,
                id="ready by publishNotReadyAddresses",
            ),
        ],
    )
    def test_endpoints(self, given: Endpoint, stays: bool) -> None:
        assert self.serving(given, "10.0.0.9") == ({"10.0.0.1"} if stays else set()) | {"10.0.0.9"}

    def test_tcp_flows_are_never_cut(self) -> None:
        assert self.serving("10.0.0.1", protocol="TCP") == set()


class TestHealthChecks:
    def given(self, **spec: Any) -> Service:
        defaults = {"external_traffic_policy": "Local", "health_check_node_port": 32000}
        return reachable(**{**defaults, **spec})

    def test_counts_ready_local_addresses_by_family(self) -> None:
        found = table(
            self.given(cluster_ips=("10.96.0.1", "fd00::1")),
            endpoint_slice(
                "web", local("10.0.0.1"), local("10.0.0.2", ready=False), "10.0.0.3", suffix="4"
            ),
            endpoint_slice("web", "fd01::1", family="IPv6", suffix="6"),
        )
        check = found.health_checks[WEB]
        assert (check.port, check.counts) == (32000, {"IPv4": 1, "IPv6": 0})
        assert [str(each) for each in check.frontends] == ["0.0.0.0:32000/TCP", "[::]:32000/TCP"]

    def test_listens_where_node_ports_do_in_the_families_of_the_service(self) -> None:
        addresses = ("127.0.0.1", "192.0.2.1", "::1")
        check = table(self.given(), nodeport_addresses=addresses).health_checks[WEB]
        assert [each.address for each in check.frontends] == ["127.0.0.1", "192.0.2.1"]
        assert check.counts == {"IPv4": 0}

    @pytest.mark.parametrize(
        "spec",
        [
            pytest.param({"external_traffic_policy": "Cluster"}, id="policy Cluster"),
            pytest.param({"health_check_node_port": 0}, id="no port"),
            pytest.param({"ip": "None"}, id="not served at all"),
        ],
    )
    def test_none(self, spec: dict[str, Any]) -> None:
        assert table(self.given(**spec)).health_checks == {}

    def test_none_for_a_node_port(self) -> None:
        given = service(
            "web",
            port(80, node_port=30080),
            type="NodePort",
            external_traffic_policy="Local",
            health_check_node_port=32000,
        )
        assert table(given).health_checks == {}

    def test_value(self) -> None:
        check = table(self.given(), nodeport_addresses=()).health_checks[WEB]
        assert check == HealthCheck(service=WEB, frontends=(), port=32000, counts={"IPv4": 0})


@pytest.mark.parametrize(
    ("policy", "endpoints", "internal", "external"),
    [
        pytest.param(ITP, [local("10.0.0.1"), "10.0.0.2"], 0, 0, id="iTP Local, a local one"),
        pytest.param(ETP, [local("10.0.0.1"), "10.0.0.2"], 0, 0, id="eTP Local, a local one"),
        pytest.param(ITP, ["10.0.0.2"], 1, 0, id="iTP Local, only remote"),
        pytest.param(ETP, ["10.0.0.2"], 0, 1, id="eTP Local, only remote"),
        pytest.param({**ITP, **ETP}, ["10.0.0.2"], 1, 1, id="both, only remote"),
        pytest.param({**ITP, **ETP}, [], 0, 0, id="both, none at all"),
        pytest.param({}, ["10.0.0.2"], 0, 0, id="policy Cluster"),
    ],
)
def test_no_local_endpoints(
    policy: dict[str, str], endpoints: list[Endpoint | str], internal: int, external: int
) -> None:
    counts = table(reachable(**policy), endpoint_slice("web", *endpoints)).no_local_endpoints
    assert counts == {
        ("internal", "IPv4"): internal,
        ("external", "IPv4"): external,
        ("internal", "IPv6"): 0,
        ("external", "IPv6"): 0,
    }


def test_no_local_endpoints_outside_counts_only_what_is_reachable_from_there() -> None:
    counts = table(service("web", **ITP, **ETP), endpoint_slice("web", "10.0.0.2"))
    assert counts.no_local_endpoints["internal", "IPv4"] == 1
    assert counts.no_local_endpoints["external", "IPv4"] == 0
