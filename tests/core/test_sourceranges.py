"""loadBalancerSourceRanges: whom a load-balancer VIP lets in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import node, port, service, table
from uproxy.core.objects import ObjectName

WEB = ObjectName("default", "web")
DUAL: dict[str, Any] = {"ip": "10.96.0.1", "cluster_ips": ("10.96.0.1", "fd00::1")}


def allowed_sources(
    *ranges: str, address: str = "198.51.100.1", **fields: Any
) -> dict[str, tuple[str, ...] | None]:
    found = table(
        service(
            "web",
            port(80, node_port=30080),
            load_balancer_source_ranges=ranges,
            **{"ingress": ["192.0.2.7", "2001:db8::7"], **DUAL, **fields},
        ),
        node(addresses=[address]),
    )
    return {
        f"{route.kind.value} {frontend.address}": route.allowed_sources
        for frontend, route in found.routes.items()
    }


def test_only_load_balancer_ips_are_limited() -> None:
    allowed = allowed_sources("203.0.113.0/25", "2001:db8:1::/48", external_ips=("192.0.2.9",))
    assert allowed.pop("LoadBalancerIP 192.0.2.7") == ("203.0.113.0/25",)
    assert allowed.pop("LoadBalancerIP 2001:db8::7") == ("2001:db8:1::/48",)
    assert len(allowed) == 5
    assert set(allowed.values()) == {None}


@pytest.mark.parametrize(
    ("ranges", "ipv4", "ipv6"),
    [
        pytest.param([], None, None, id="no ranges: everybody"),
        pytest.param(
            [" 10.1.2.0/28", "203.0.113.000/025"],
            ("10.1.2.0/28", "203.0.113.0/25"),
            None,
            id="spaces and zeros; IPv4 alone leaves IPv6 open",
        ),
        pytest.param(["10.0.0.0/8", "0.0.0.0/0"], None, None, id="/0 opens its family"),
        pytest.param(
            ["10.0.0.0/8", "::/0"], ("10.0.0.0/8",), None, id="/0 opens only its own family"
        ),
        pytest.param(["x", "10.0.0.0/8"], ("10.0.0.0/8",), None, id="one entry is none"),
        pytest.param(["x", "10.0.0.1"], (), (), id="no entry is valid: nobody"),
    ],
)
def test_by_family(
    ranges: list[str], ipv4: tuple[str, ...] | None, ipv6: tuple[str, ...] | None
) -> None:
    allowed = allowed_sources(*ranges)
    assert allowed["LoadBalancerIP 192.0.2.7"] == ipv4
    assert allowed["LoadBalancerIP 2001:db8::7"] == ipv6


def test_a_node_inside_may_use_the_vip_as_its_source() -> None:
    allowed = allowed_sources("198.51.100.0/24", "203.0.113.0/24")
    assert allowed["LoadBalancerIP 192.0.2.7"] == (
        *("198.51.100.0/24", "203.0.113.0/24"),
        "192.0.2.7/32",
    )


def test_without_a_node_object_local_addresses_tell() -> None:
    given = service("web", ingress=["192.0.2.7"], load_balancer_source_ranges=("198.51.100.0/24",))
    found = table(given, local_addresses=frozenset({"198.51.100.1", "127.0.0.1"}))
    allowed = {r.allowed_sources for f, r in found.routes.items() if f.address == "192.0.2.7"}
    assert allowed == {("198.51.100.0/24", "192.0.2.7/32")}


def test_ranges_hold_for_an_address_that_is_an_external_ip_too() -> None:
    allowed = allowed_sources("203.0.113.0/25", external_ips=("192.0.2.7",))
    assert allowed["LoadBalancerIP 192.0.2.7"] == ("203.0.113.0/25",)
    assert "ExternalIP 192.0.2.7" not in allowed


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        pytest.param(
            ("x", "10.0.0.0/8"), ('loadBalancerSourceRanges: "x" is not a CIDR',), id="some"
        ),
        pytest.param(
            ("x",),
            (
                'loadBalancerSourceRanges: "x" is not a CIDR',
                "loadBalancerSourceRanges has no valid entry: nobody is let in",
            ),
            id="all",
        ),
    ],
)
def test_reasons(ranges: tuple[str, ...], expected: tuple[str, ...]) -> None:
    given = service("web", ingress=["192.0.2.7"], load_balancer_source_ranges=ranges)
    assert table(given).services[WEB].reasons == expected
