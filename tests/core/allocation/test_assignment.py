"""MetalLB's end-to-end cases about assignment (e2etest/l2tests), by their names."""

from __future__ import annotations

import pytest

from tests.builders import port
from tests.core.allocation.world import World, balancer, pool, sharing

LOCAL = "Local"
FIRST = "2026-01-01T00:00:01Z"
SECOND = "2026-01-01T00:00:02Z"


@pytest.mark.parametrize("how", ["changing the service type to clusterIP", "deleting the service"])
def test_should_remove_the_ip_from_a_service_assign_it_to_a_free_one_when(how: str) -> None:
    world = World(pool("a", "192.0.2.1"))
    world.put(balancer("first"))
    world.put(balancer("second"))
    assert world.held() == {"first": ("192.0.2.1",)}
    assert world.reason("second") == (
        'False no available IPs in pool "a" for IPv4: 192.0.2.1 is in use by default/first'
    )
    if how.startswith("changing"):
        world.change("first", type="ClusterIP")
        assert world["first"].status.conditions is None
        assert world["first"].metadata.annotations is None
    else:
        world.delete("first")
    assert world.held() == {"second": ("192.0.2.1",)}
    assert world.told("second") == ['Normal IPAllocated: Assigned IP ["192.0.2.1"]']
    assert world.reason("second") == 'True Assigned IP ["192.0.2.1"] from pool "a"'


def test_should_preserve_the_same_external_ip_after_controller_restart() -> None:
    world = World(pool("a", "192.0.2.1-192.0.2.2"))
    # Those that wait are older than the others, so they would come first if all began again.
    world.put(balancer("c", created=SECOND), balancer("d", created=SECOND))
    world.put(balancer("a", created=FIRST), balancer("b", created=FIRST))
    held = world.held()
    assert held == {"c": ("192.0.2.1",), "d": ("192.0.2.2",)}
    for _ in range(5):
        world.restart()
        assert world.held() == held
        assert world.events == []


def test_should_reconsider_services_when_sharing_the_ip_and_conditions_change() -> None:
    world = World(pool("a", "192.0.2.1"))
    one = balancer("one", port(80), annotations=sharing("k"), selector={"app": "x"})
    two = balancer("two", port(443), annotations=sharing("k"), selector={"app": "x"})
    world.put(one, two)
    both = {"one": ("192.0.2.1",), "two": ("192.0.2.1",)}
    assert world.held() == both
    world.change("one", external_traffic_policy="Local")
    assert world.held() == {"two": ("192.0.2.1",)}
    assert world.told("one") == [
        'Normal ClearAssignment: current IP for "default/one" not allowed by config, will attempt '
        'for new IP assignment: can\'t change sharing key for "default/one", address 192.0.2.1 '
        "also in use by default/two: externalTrafficPolicy Local cannot share with Cluster",
        'Warning AllocationFailed: Failed to allocate IP for "default/one": no available IPs in '
        'pool "a" for IPv4: can\'t change sharing key for "default/one", address 192.0.2.1 also '
        "in use by default/two: externalTrafficPolicy Local cannot share with Cluster",
    ]
    world.change("two", external_traffic_policy="Local")
    assert world.held() == both
    world.change("one", selector={"app": "y"})
    assert world.held() == {"two": ("192.0.2.1",)}
    world.change("two", selector={"app": "y"})
    assert world.held() == both


def test_removes_all_pools() -> None:
    world = World(pool("a", "192.0.2.1"), pool("b", "192.0.2.2"))
    world.put(balancer("web"))
    world.set_pools()
    assert world.held() == {}
    assert world.reason("web") == "False no available IPs: there are no pools"
    assert world.pool("web") == ""


def test_reallocates_svc_after_deleting_a_pool() -> None:
    world = World(pool("a", "192.0.2.1"), pool("b", "192.0.2.2"))
    world.put(balancer("web"))
    assert world.pool("web") == "a"
    world.set_pools(pool("b", "192.0.2.2"))
    assert (world.held(), world.pool("web")) == ({"web": ("192.0.2.2",)}, "b")


def test_a_pool_that_is_renamed_keeps_its_addresses_with_their_holders() -> None:
    world = World(pool("a", "192.0.2.1"))
    world.put(balancer("web"))
    world.set_pools(pool("other", "192.0.2.0/28"))
    assert (world.held(), world.pool("web")) == ({"web": ("192.0.2.1",)}, "other")
    assert world.events == []
