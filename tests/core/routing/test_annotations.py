"""What annotations change in routes, and what is said about them."""

from __future__ import annotations

import pytest

from tests.builders import endpoint, endpoint_slice, local, port, service, table
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.report.client_addresses import ClientAddresses
from uproxy.core.report.overview import frontend_statuses
from uproxy.core.route import FrontendKind, ProxyProtocol

WEB = ObjectName("default", "web")
ANNOTATION = "uproxy.dev/proxy-protocol"
NO_UDP = f'port "dns": annotation {ANNOTATION} has no effect on UDP'


def wrong(value: str) -> str:
    """The reason for a value of the annotation that is neither v1 nor v2."""
    return (
        f'annotation {ANNOTATION} is "{value}", so clients of TCP ports are refused;'
        " use one of: v1, v2"
    )


@pytest.mark.parametrize(
    ("annotation", "version", "reasons"),
    [
        pytest.param(None, None, (), id="none"),
        pytest.param("v1", ProxyProtocol.V1, (NO_UDP,), id="v1"),
        pytest.param("v2", ProxyProtocol.V2, (NO_UDP,), id="v2"),
        *(
            pytest.param(value, None, (wrong(value),), id=f"refused: {value!r}")
            for value in ("", "V1", "1", "v3", "true")
        ),
    ],
)
def test_proxy_protocol(
    annotation: str | None, version: ProxyProtocol | None, reasons: tuple[str, ...]
) -> None:
    annotations = None if annotation is None else {ANNOTATION: annotation}
    ports = port(80, "http", node_port=30080), port(53, "dns", protocol="UDP")
    found = table(
        service("web", *ports, annotations=annotations, type="NodePort"),
        endpoint_slice("web", "10.0.0.1", ports={"http": 80}),
    )
    versions = {
        (route.frontend.protocol, route.kind): route.proxy_protocol
        for route in found.routes.values()
    }
    assert versions == {
        ("TCP", FrontendKind.CLUSTER_IP): version,
        ("TCP", FrontendKind.NODE_PORT): version,
        ("UDP", FrontendKind.CLUSTER_IP): None,
    }
    assert found.services[WEB].reasons == reasons


def test_the_reason_for_a_long_value_is_short() -> None:
    """An annotation may have 256 KiB, and its reason is in the status, in logs and in Events."""
    found = table(service("web", annotations={ANNOTATION: "v" * 250_000}))
    (reason,) = found.services[WEB].reasons
    assert reason == wrong("v" * 250 + "...")


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_without_the_header_that_it_asks_for_no_client_reaches_a_backend(policy: str) -> None:
    """A backend that expects a header believes the one that a client sends. UDP has no header."""
    found = table(
        service(
            "web",
            port(80, "http", node_port=30080),
            port(53, "dns", protocol="UDP", node_port=30053),
            annotations={ANNOTATION: "v3"},
            type="NodePort",
            external_traffic_policy=policy,
        ),
        endpoint_slice("web", local("10.0.0.1"), ports={"http": 80}),
        endpoint_slice("web", local("10.0.0.1"), ports={"dns": 53}, protocol="UDP", suffix="2"),
    )
    usable = {route.frontend.protocol: set[bool]() for route in found.routes.values()}
    for route in found.routes.values():
        usable[route.frontend.protocol].add(route.usable)
    assert usable == {"TCP": {False}, "UDP": {True}}
    reasons = {each.reason for each in found.routes.values() if each.frontend.protocol == "TCP"}
    assert reasons == {f"annotation {ANNOTATION} has a wrong value"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        pytest.param("balancr", '; did you mean "uproxy.dev/balancer"?', id="misspelt"),
        pytest.param("Balancer", '; did you mean "uproxy.dev/balancer"?', id="a capital"),
        pytest.param("proxyprotocol", '; did you mean "uproxy.dev/proxy-protocol"?', id="hyphen"),
        pytest.param("loadbalancerips", '; did you mean "uproxy.dev/loadBalancerIPs"?', id="LB"),
        pytest.param("x", "", id="like none"),
    ],
)
def test_an_unknown_annotation_of_ours_is_a_reason(name: str, meant: str) -> None:
    found = table(service("web", annotations={f"uproxy.dev/{name}": "random"}))
    assert found.services[WEB].reasons == (
        f"annotation uproxy.dev/{name} is not known, so it is ignored{meant}",
    )


@pytest.mark.parametrize(
    "name",
    [
        "uproxy.dev/assigned-ips",
        "uproxy.dev/loadBalancerIPs",
        "uproxy.dev/address-pool",
        "uproxy.dev/allow-shared-ip",
        "metallb.io/balancr",
        "balancr",
    ],
)
def test_annotations_that_are_known_or_of_others_are_no_reason(name: str) -> None:
    assert table(service("web", annotations={name: ""})).services[WEB].reasons == ()


@pytest.mark.parametrize(
    ("policy", "preserved", "expected"),
    [
        pytest.param(
            "Local", ("IPv4", "IPv6"), {"IPv4": "preserved", "IPv6": "preserved"}, id="both"
        ),
        pytest.param("Local", ("IPv6",), {"IPv4": "node", "IPv6": "preserved"}, id="one family"),
        pytest.param("Local", (), {"IPv4": "node", "IPv6": "node"}, id="neither"),
        pytest.param(
            "Cluster", ("IPv4", "IPv6"), {"IPv4": "node", "IPv6": "node"}, id="policy Cluster"
        ),
    ],
)
def test_client_address_in_the_status(
    policy: str, preserved: tuple[Family, ...], expected: dict[str, str]
) -> None:
    """A ClusterIP is for clients inside, whatever the external policy."""
    found = table(
        service(
            "web",
            port(80, node_port=30080),
            ip="",
            type="NodePort",
            cluster_ips=("10.96.0.1", "fd00::1"),
            ip_families=("IPv4", "IPv6"),
            external_traffic_policy=policy,
            annotations={ANNOTATION: "v2"},
        ),
        endpoint_slice("web", local("10.0.0.1"), endpoint("10.0.0.2")),
        endpoint_slice("web", local("fd01::1"), family="IPv6", suffix="2"),
    )
    shown = list(frontend_statuses(found, {}, {}, ClientAddresses(families=preserved)))
    by_kind = {
        (each.kind, "IPv6" if ":" in each.frontend.address else "IPv4"): each.client_address
        for each in shown
    }
    for family in ("IPv4", "IPv6"):
        assert by_kind[FrontendKind.NODE_PORT, family] == expected[family]
        assert by_kind.get((FrontendKind.CLUSTER_IP, family), "node") == "node"
    assert {each.proxy_protocol for each in shown} == {"v2"}
