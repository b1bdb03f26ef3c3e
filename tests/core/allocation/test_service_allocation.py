"""Which pool a Service gets its addresses from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.allocation.world import World, balancer, pinned, pool, requesting
from uproxy.core.allocation.pools import Pool
from uproxy.core.cluster.labels import LabelSelector

A = LabelSelector(match_labels={"team": "a"})
B = LabelSelector(match_labels={"team": "b"})
WEB = LabelSelector(match_labels={"tier": "web"})

SECOND = pool("plain", "203.0.113.0/24")
"""It comes last by priority, since it has none."""


def world_with(*pools: Pool) -> World:
    world = World(*pools)
    world.set_namespaces(one={"team": "a"}, two={"team": "b"}, other={})
    return world


@pytest.mark.parametrize(
    ("first", "last", "service", "outside"),
    [
        pytest.param(
            {"namespaces": ["one"]}, {"namespaces": ["one"]}, {}, "two/web", id="with namespace"
        ),
        pytest.param({}, {}, {}, None, id="with only priority"),
        pytest.param(
            {"namespaces": ["one"]},
            {"namespace_selectors": (A,)},
            {},
            "two/web",
            id="with namespace and namespace labels",
        ),
        pytest.param(
            {"service_selectors": (WEB,)},
            {"service_selectors": (LabelSelector(), WEB)},
            {"labels": {"tier": "web"}},
            None,
            id="with service label",
        ),
        pytest.param(
            {"namespaces": ["one"], "service_selectors": (WEB,)},
            {"namespaces": ["one"]},
            {"labels": {"tier": "web"}},
            "two/web",
            id="with namespace and service label",
        ),
        pytest.param(
            {"namespace_selectors": (A,)},
            {"namespace_selectors": (B, A)},
            {},
            "other/web",
            id="with namespace with labels",
        ),
    ],
)
def test_validate_service_allocation_in_address_pools(
    first: dict[str, Any], last: dict[str, Any], service: dict[str, Any], outside: str | None
) -> None:
    """Pools are used in the order of their priorities, the scope is respected, and pools without a
    priority come last."""
    world = world_with(
        pool("a-none", "198.51.100.1", allocation=pinned(**last)),
        pool("b-last", "198.51.100.2", allocation=pinned(priority=20, **last)),
        pool("c-first", "198.51.100.3", allocation=pinned(priority=10, **first)),
        SECOND,
    )
    used = []
    for number in range(4):
        world.put(balancer(f"one/web{number}", **service))
        used.append(world.pool(f"one/web{number}"))
    assert used == ["c-first", "b-last", "a-none", "plain"]
    if outside:
        world.delete(*(f"one/web{number}" for number in range(4)))
        world.put(balancer(outside))
        assert world.pool(outside) == "plain"


def test_a_pool_with_a_wrong_scope_cannot_be_asked_for_either() -> None:
    world = world_with(pool("a", "198.51.100.0/24", allocation=pinned(namespaces=["one"])))
    world.put(
        balancer("two/address", annotations=requesting("198.51.100.7")),
        balancer("two/pool", annotations={"metallb.io/address-pool": "a"}),
        balancer("two/none"),
    )
    assert world.held() == {}
    assert world.reason("two/address") == (
        'False pool "a" not compatible for ip assignment: it is not for namespace two'
    )
    assert world.reason("two/pool") == 'False pool "a" is not for namespace two'
    assert world.reason("two/none") == "False no available IPs: no pool is for this Service"


def test_labels_of_namespaces_decide_at_once() -> None:
    world = world_with(pool("a", "198.51.100.1", allocation=pinned(namespace_selectors=(A,))))
    world.put(balancer("two/web"))
    assert world.ips("two/web") == ()
    world.set_namespaces(two={"team": "a"})
    assert world.ips("two/web") == ("198.51.100.1",)
    world.set_namespaces(two={"team": "b"})
    assert world.ips("two/web") == ()


def test_labels_of_a_service_decide_at_once() -> None:
    world = world_with(pool("a", "198.51.100.1", allocation=pinned(service_selectors=(WEB,))))
    world.put(balancer("one/web"))
    assert world.reason("one/web") == "False no available IPs: no pool is for this Service"
    world.change("one/web", labels={"tier": "web"})
    assert world.ips("one/web") == ("198.51.100.1",)
    world.put(balancer("one/waits", labels={"tier": "web"}))
    world.change("one/web", labels={"tier": "db"})
    assert (world.ips("one/web"), world.ips("one/waits")) == ((), ("198.51.100.1",))


def test_unprioritised_pools_are_tried_in_the_order_of_their_names() -> None:
    world = World(pool("b", "198.51.100.1"), pool("a", "203.0.113.1"))
    world.put(balancer("x"))
    world.put(balancer("y"))
    assert (world.pool("x"), world.pool("y")) == ("a", "b")


@pytest.mark.parametrize("family", ["192.0.2", "2001:db8:"])
@pytest.mark.parametrize("auto_assign", [True, False])
def test_requesting_a_specific_address_pool(family: str, auto_assign: bool) -> None:
    last = f"{family}.9" if "." in family else f"{family}:9"
    world = World(pool("a", "198.51.100.1"), pool("b", last, auto_assign=auto_assign))
    cluster_ips = ("fd00:96::1",) if ":" in family else ("10.96.0.1",)
    asking = {"metallb.io/address-pool": "b"}
    world.put(balancer("web", cluster_ips=cluster_ips, annotations=asking))
    assert (world.ips("web"), world.pool("web")) == ((last,), "b")
    world.put(balancer("other", cluster_ips=cluster_ips, created="2026-02-01"))
    assert world.ips("other") == (() if ":" in family else ("198.51.100.1",))


def test_an_address_can_be_asked_for_where_none_is_assigned_automatically() -> None:
    world = World(pool("a", "198.51.100.0/24", auto_assign=False))
    world.put(balancer("web", annotations=requesting("198.51.100.7")), balancer("other"))
    assert world.held() == {"web": ("198.51.100.7",)}


def test_another_pool_in_the_annotation_moves_the_service() -> None:
    world = World(pool("a", "198.51.100.1"), pool("b", "203.0.113.1"))
    world.put(balancer("web"))
    world.change("web", annotations={**_annotations(world), "metallb.io/address-pool": "b"})
    assert world.ips("web") == ("203.0.113.1",)
    assert world.told("web") == ['Normal IPAllocated: Assigned IP ["203.0.113.1"]']
    world.change("web", annotations={**_annotations(world), "metallb.io/address-pool": "c"})
    assert (world.ips("web"), world.reason("web")) == ((), 'False unknown pool "c"')


def _annotations(world: World) -> dict[str, str]:
    return dict(world["web"].metadata.annotations or {})
