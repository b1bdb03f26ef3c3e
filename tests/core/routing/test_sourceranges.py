"""loadBalancerSourceRanges: which clients a load-balancer IP lets in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import node, port, service, table
from uproxy.core.cluster.objects import ObjectName

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


def test_a_node_that_is_let_in_may_use_any_of_its_addresses() -> None:
    """As source for a load-balancer IP, IPv6 takes the address of the node that is most similar to
    it."""
    found = table(
        service(
            "web",
            port(80),
            load_balancer_source_ranges=("198.51.100.0/28", "2001:db8:1::/64"),
            ingress=["192.0.2.7", "2001:db8::7"],
            **DUAL,
        ),
        node(addresses=["198.51.100.200", "2001:db8:1::1"]),
        local_addresses=frozenset({"2001:db8:2::1", "2001:db8:1::1", "203.0.113.1"}),
    )
    allowed = {frontend.address: route.allowed_sources for frontend, route in found.routes.items()}
    assert allowed["192.0.2.7"] == ("198.51.100.0/28",), "the node is not within these"
    own = ("2001:db8::7/128", "2001:db8:1::1/128", "2001:db8:2::1/128")
    assert allowed["2001:db8::7"] == ("2001:db8:1::/64", *own)


def test_only_load_balancer_ips_are_limited() -> None:
    allowed = allowed_sources("203.0.113.0/25", "2001:db8:1::/48", external_ips=("192.0.2.9",))
    assert allowed.pop("LoadBalancerIP 192.0.2.7") == ("203.0.113.0/25",)
    assert allowed.pop("LoadBalancerIP 2001:db8::7") == ("2001:db8:1::/48",)
    assert len(allowed) == 5
    assert set(allowed.values()) == {None}


@pytest.mark.parametrize(
    ("ranges", "ipv4", "ipv6"),
    [
        pytest.param([], None, None, id="no ranges: every client"),
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
        pytest.param(["x", "10.0.0.1"], (), (), id="no entry is valid: no client"),
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
    own = ("192.0.2.7/32", "127.0.0.1/32", "198.51.100.1/32")
    assert allowed == {("198.51.100.0/24", *own)}


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
                "loadBalancerSourceRanges has no valid entry, so no client is let in",
            ),
            id="all",
        ),
    ],
)
def test_reasons(ranges: tuple[str, ...], expected: tuple[str, ...]) -> None:
    given = service("web", ingress=["192.0.2.7"], load_balancer_source_ranges=ranges)
    assert table(given).services[WEB].reasons == expected


class TestStrict:
    """--strict-source-ranges"""

    def allowed(self, *ranges: str, node_address: str = "198.51.100.1") -> dict[str, Any]:
        found = table(
            service(
                "web",
                port(80, node_port=30080),
                load_balancer_source_ranges=ranges,
                ingress=["192.0.2.7", "2001:db8::7"],
                external_ips=("192.0.2.9",),
                **DUAL,
            ),
            node(addresses=[node_address]),
            strict_source_ranges=True,
        )
        return {f.address: each.allowed_sources for f, each in found.routes.items()}

    def test_it_covers_all_but_cluster_ips(self) -> None:
        found = self.allowed("203.0.113.0/25", "2001:db8:1::/48")
        ipv4, ipv6 = ("203.0.113.0/25",), ("2001:db8:1::/48",)
        cluster_ips = {"10.96.0.1": None, "fd00::1": None}
        of_ipv4 = dict.fromkeys(["192.0.2.7", "192.0.2.9", "0.0.0.0"], ipv4)
        assert found == cluster_ips | of_ipv4 | {"2001:db8::7": ipv6, "::": ipv6}

    @pytest.mark.parametrize(
        ("ranges", "ipv4", "ipv6"),
        [
            pytest.param([], None, None, id="no ranges: every client"),
            pytest.param(["203.0.113.0/25"], ("203.0.113.0/25",), (), id="IPv4 alone closes IPv6"),
            pytest.param(["0.0.0.0/0"], None, (), id="/0 opens its own family only"),
        ],
    )
    def test_a_family_without_a_range(
        self, ranges: list[str], ipv4: tuple[str, ...], ipv6: tuple[str, ...]
    ) -> None:
        found = self.allowed(*ranges)
        assert (found["0.0.0.0"], found["192.0.2.7"]) == (ipv4, ipv4)
        assert (found["::"], found["2001:db8::7"]) == (ipv6, ipv6)

    def test_a_node_within_may_ask_itself(self) -> None:
        found = self.allowed("198.51.100.0/24")
        assert found["192.0.2.7"] == ("198.51.100.0/24", "192.0.2.7/32")
        assert found["0.0.0.0"] == ("198.51.100.0/24", "127.0.0.0/8")
