"""MetalLB's end-to-end cases about Services with two families, by their names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.allocation.world import V4, V6, World, balancer, pool, requesting
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.cluster.objects import Service

DUAL = ("192.0.2.0/30", "2001:db8::/126")
ONLY_V4 = ("198.51.100.0/30",)
ONLY_V6 = ("2001:db8:1::/126",)


def prefers(name: str = "web", **fields: Any) -> Service:
    fields.setdefault("cluster_ips", (*V4, *V6))
    return balancer(name, ip_family_policy="PreferDualStack", **fields)


def requires(name: str = "web", **fields: Any) -> Service:
    fields.setdefault("cluster_ips", (*V4, *V6))
    return balancer(name, ip_family_policy="RequireDualStack", **fields)


def test_prefer_dualstack_gets_a_dual_stack_pool_if_available() -> None:
    world = World(pool("a", *ONLY_V4), pool("b", *ONLY_V6), pool("c", *DUAL))
    world.put(prefers())
    assert (world.ips("web"), world.pool("web")) == (("192.0.2.0", "2001:db8::"), "c")
    assert world.told("web") == ['Normal IPAllocated: Assigned IP ["192.0.2.0" "2001:db8::"]']


@pytest.mark.parametrize(
    ("families", "cluster_ips", "address"),
    [
        pytest.param(None, (*V4, *V6), "198.51.100.0", id="primary ipv4 by default"),
        pytest.param(("IPv6", "IPv4"), (*V6, *V4), "2001:db8:1::", id="primary ipv6"),
    ],
)
def test_prefer_dualstack_without_a_dual_stack_pool(
    families: tuple[str, ...] | None, cluster_ips: tuple[str, ...], address: str
) -> None:
    world = World(pool("a", *ONLY_V6), pool("b", *ONLY_V4))
    world.put(prefers(cluster_ips=cluster_ips, ip_families=families))
    assert world.ips("web") == (address,)
    other = "IPv6" if families is None else "IPv4"
    name = world.pool("web")
    reason = (
        f'cannot assign additional IP in PreferDualStack: no available IPs in pool "{name}" '
        f"for {other}"
    )
    assert world.told("web") == [
        f'Normal IPAllocated: Assigned IP ["{address}"]',
        f"Normal AdditionalAssignFailed: {reason}",
    ]
    assert world.reason("web") == f'True Assigned IP ["{address}"] from pool "{name}"; {reason}'


def test_prefer_dualstack_with_no_pool_of_the_primary_family_gets_the_other() -> None:
    world = World(pool("a", *ONLY_V6))
    world.put(prefers())
    assert world.ips("web") == ("2001:db8:1::",)


def test_prefer_dualstack_gets_an_additional_ip_when_its_pool_becomes_dual() -> None:
    world = World(pool("a", *ONLY_V4))
    world.put(prefers())
    assert world.ips("web") == ("198.51.100.0",)
    world.set_pools(pool("a", *ONLY_V4, *ONLY_V6))
    assert world.ips("web") == ("198.51.100.0", "2001:db8:1::")
    assert world.told("web") == ['Normal IPAllocated: Assigned additional IP "2001:db8:1::"']
    assert world.reason("web").endswith('["198.51.100.0" "2001:db8:1::"] from pool "a"')


def test_prefer_dualstack_gets_an_additional_ip_when_one_comes_free() -> None:
    world = World(pool("a", *ONLY_V4, "2001:db8::1"))
    world.put(requires("first"))
    world.put(prefers())
    assert world.ips("web") == ("198.51.100.1",)
    world.delete("first")
    assert world.ips("web") == ("198.51.100.1", "2001:db8::1")


def test_prefer_dualstack_changes_to_require_and_back() -> None:
    world = World(pool("a", *DUAL))
    world.put(prefers())
    both = world.ips("web")
    world.change("web", ip_family_policy="RequireDualStack")
    assert world.ips("web") == both
    assert world.events == []
    world.change("web", ip_family_policy="PreferDualStack")
    assert world.ips("web") == both


def test_require_dualstack_is_not_content_with_one_family() -> None:
    world = World(pool("a", *ONLY_V4), pool("b", "203.0.113.0/31"))
    world.put(prefers())
    assert world.ips("web") == ("198.51.100.0",)
    world.change("web", ip_family_policy="RequireDualStack")
    assert world.ips("web") == ()
    assert world.reason("web") == "False no available IPs in 2 pools for IPv4 and IPv6"
    world.change("web", ip_family_policy="PreferDualStack")
    assert world.ips("web") == ("198.51.100.0",)


def test_prefer_dualstack_does_not_jump_to_a_dual_pool() -> None:
    world = World(pool("a", *ONLY_V4))
    world.put(prefers())
    world.set_pools(pool("a", *ONLY_V4), pool("b", *DUAL))
    assert (world.ips("web"), world.pool("web")) == (("198.51.100.0",), "a")
    for _ in range(2):
        world.restart()
        assert world.ips("web") == ("198.51.100.0",)


def test_prefer_dualstack_moves_to_another_dual_pool_when_its_own_becomes_single() -> None:
    world = World(pool("a", *ONLY_V4, *ONLY_V6), pool("b", *DUAL))
    world.put(prefers())
    assert world.pool("web") == "a"
    world.set_pools(pool("a", *ONLY_V4), pool("b", *DUAL))
    assert (world.ips("web"), world.pool("web")) == (("192.0.2.0", "2001:db8::"), "b")


def test_prefer_dualstack_keeps_what_is_left_when_its_pool_becomes_single() -> None:
    world = World(pool("a", *ONLY_V4, *ONLY_V6))
    world.put(balancer("first"))
    world.put(prefers())
    world.delete("first")
    assert world.ips("web") == ("198.51.100.1", "2001:db8:1::")
    world.set_pools(pool("a", *ONLY_V4))
    assert world.ips("web") == ("198.51.100.1",)


def test_require_dualstack_waits_until_one_pool_has_both() -> None:
    world = World(pool("a", *ONLY_V4), pool("b", *ONLY_V6))
    world.put(requires())
    assert world.ips("web") == ()
    world.set_pools(pool("a", *ONLY_V4), pool("b", *ONLY_V6, "198.51.100.8"))
    assert world.ips("web") == ("198.51.100.8", "2001:db8:1::")


def test_not_enough_clusterips() -> None:
    world = World(pool("a", *DUAL))
    world.put(requires(cluster_ips=V4))
    note = "Service requires dual stack but not enough clusterips [10.96.0.1]"
    assert world.told("web") == [f"Warning not enough clusterips: {note}"]
    assert world.reason("web") == f"False {note}"


@pytest.mark.parametrize(
    "cluster_ips",
    [
        pytest.param(("10.96.0.1", "10.96.0.2"), id="one-family"),
        pytest.param(("None", "10.96.0.2"), id="no-address"),
        pytest.param(("10.96.0.1", "fd00::1", "fd00::2"), id="three"),
    ],
)
def test_clusterips_that_make_no_sense(cluster_ips: tuple[str, ...]) -> None:
    world = World(pool("a", *DUAL))
    world.put(balancer("web", cluster_ips=cluster_ips))
    assert world.ips("web") == ()
    assert "are not one of a family" in world.reason("web")


def test_clusterips_that_make_no_sense_any_more_take_nothing_away() -> None:
    world = World(pool("a", *DUAL))
    world.put(balancer("web"))
    world.change("web", cluster_ips=("10.96.0.1", "10.96.0.2"))
    assert world.ips("web") == ("192.0.2.0",)
    assert world.told("web") == [
        "Warning noclusterIPsIPFamily: Failed to retrieve ClusterIPs IPFamily: its ClusterIPs "
        "[10.96.0.1 10.96.0.2] are not one of a family"
    ]


def test_a_status_with_two_addresses_of_a_family_is_cleared() -> None:
    world = World(pool("a", *DUAL))
    world.put(balancer("web", ingress=["192.0.2.1", "192.0.2.2"]))
    assert world.ips("web") == ("192.0.2.1",)
    assert world.told("web") == [
        'Warning nolbIPsIPFamily: Failed to retrieve LBIPs IPFamily: ["192.0.2.1" "192.0.2.2"] '
        "has several of one family",
        'Normal IPAllocated: Assigned IP ["192.0.2.1"]',
    ]


def test_a_family_that_a_service_has_no_more_is_taken_away() -> None:
    world = World(pool("a", *DUAL))
    world.put(balancer("first"))
    world.put(requires())
    world.delete("first")
    assert world.ips("web") == ("192.0.2.1", "2001:db8::")
    world.change("web", cluster_ips=V4, ip_family_policy="SingleStack")
    assert world.ips("web") == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        pytest.param(("192.0.2.3", "2001:db8::3"), "", id="both"),
        pytest.param(("2001:db8::3", "192.0.2.3"), "", id="in-this-order"),
        pytest.param(
            ("192.0.2.3",),
            'requested loadBalancer IP(s) ["192.0.2.3"] does not match the ipFamily of the service',
            id="one",
        ),
        pytest.param(
            ("192.0.2.3", "2001:db8:1::"),
            "192.0.2.3 of dual, 2001:db8:1:: of v6 are in different pools",
            id="two-pools",
        ),
    ],
)
def test_requested_addresses(requested: tuple[str, ...], reason: str) -> None:
    world = World(pool("dual", *DUAL), pool("v6", *ONLY_V6))
    world.put(requires(annotations=requesting(*requested)))
    assert world.ips("web") == (() if reason else requested)
    assert reason in world.reason("web")


def test_pool_status_follows_pool_and_service_changes() -> None:
    world = World(pool("a", *DUAL))
    world.put(requires(), balancer("other"))
    assert world.allocator.usage() == {"a": {"IPv4": PoolUsage(2, 2), "IPv6": PoolUsage(1, 3)}}
    world.set_pools(pool("a", "192.0.2.0/24", "2001:db8::/64"))
    assert world.allocator.usage() == {
        "a": {"IPv4": PoolUsage(2, 254), "IPv6": PoolUsage(1, 2**63 - 1)}
    }
    world.delete("web")
    assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(1, 255)
