"""Addresses of pools that are not handed out: reserved, drained, taken, or known for trouble."""

from __future__ import annotations

import pytest

from tests.builders import port
from tests.core.allocation.world import V4, V6, World, balancer, pool, requesting, sharing
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.allocation.pool_syntax import parse_ranges, parse_reservations

WIDE = "192.0.2.0/29"


def test_a_reserved_address_is_not_handed_out() -> None:
    world = World(pool("a", WIDE, reservations=parse_reservations("192.0.2.0-192.0.2.6")))
    world.put(balancer("asks", annotations=requesting("192.0.2.3")))
    world.put(balancer("web"))
    assert world.held() == {"web": ("192.0.2.7",)}
    assert world.reason("asks") == ('False "192.0.2.3" is not allowed in config: it is reserved')
    assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(1, 0)


def test_an_address_reserved_for_a_service_goes_to_it_alone() -> None:
    reservations = parse_reservations("192.0.2.0/29,192.0.2.3=default/web")
    world = World(pool("a", WIDE, reservations=reservations, auto_assign=False))
    world.put(balancer("asks", annotations=requesting("192.0.2.3")), balancer("other"))
    world.put(balancer("web"))
    assert world.held() == {"web": ("192.0.2.3",)}
    assert world.reason("asks") == (
        'False "192.0.2.3" is not allowed in config: it is reserved for default/web'
    )
    world.delete("web")
    assert world.held() == {}


def test_a_service_uses_up_what_is_reserved_for_it_before_other_addresses() -> None:
    reservations = parse_reservations("192.0.2.4-192.0.2.5=default/web,2001:db8::7=default/web")
    world = World(
        pool("a", "198.51.100.0/24", "2001:db8:1::/120"),
        pool("b", WIDE, "2001:db8::/120", reservations=reservations),
    )
    world.put(balancer("web", cluster_ips=(*V4, *V6), ip_family_policy="RequireDualStack"))
    assert world.ips("web") == ("192.0.2.4", "2001:db8::7")
    world.delete("web")
    world.put(balancer("web"))
    assert world.ips("web") == ("192.0.2.4",)


def test_a_request_comes_before_a_reservation() -> None:
    world = World(pool("a", WIDE, reservations=parse_reservations("192.0.2.4=default/web")))
    world.put(balancer("web", annotations=requesting("192.0.2.6")))
    assert world.ips("web") == ("192.0.2.6",)


def test_a_reservation_takes_the_address_from_another_service_but_moves_none_to_it() -> None:
    world = World(pool("a", WIDE))
    world.put(balancer("one"), balancer("two"))
    reservations = parse_reservations("192.0.2.0=default/two")
    world.set_pools(pool("a", WIDE, reservations=reservations))
    assert world.held() == {"one": ("192.0.2.2",), "two": ("192.0.2.1",)}
    assert world.told("one")[0].endswith(
        '"192.0.2.0" is not allowed in config: it is reserved for default/two'
    )


def test_drained_addresses_stay_with_their_holders() -> None:
    world = World(pool("a", WIDE))
    key = sharing("k")
    world.put(balancer("web", annotations=key), balancer("yields"))
    drained = pool("a", WIDE, drained=parse_ranges("192.0.2.0-192.0.2.6"))
    world.set_pools(drained)
    world.delete("yields")
    world.put(balancer("shares", port(443), annotations=key))
    world.put(balancer("asks", annotations=requesting("192.0.2.1")))
    assert world.held() == {"web": ("192.0.2.0",), "shares": ("192.0.2.7",)}
    assert world.reason("asks") == 'False "192.0.2.1" is not allowed in config: it is drained'
    assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(2, 0)
    world.restart()
    assert world.ips("web") == ("192.0.2.0",)
    world.set_pools(pool("a", WIDE))
    assert world.ips("asks") == ("192.0.2.1",)


def test_a_reservation_in_a_drained_pool_is_not_handed_out() -> None:
    reservations = parse_reservations("192.0.2.4=default/web")
    drained = pool("a", WIDE, reservations=reservations, drained=parse_ranges(WIDE))
    world = World(drained)
    world.put(balancer("web"))
    assert world.ips("web") == ()


def test_avoid_buggy_ips() -> None:
    avoiding = pool("a", "192.0.2.254-192.0.3.1", "2001:db8::ff/128", avoid_buggy_ips=True)
    world = World(avoiding)
    assert world.allocator.usage()["a"] == {"IPv4": PoolUsage(0, 2), "IPv6": PoolUsage(0, 1)}
    world.put(balancer("asks", annotations=requesting("192.0.3.0")))
    world.put(balancer("x"))
    world.put(balancer("y"))
    world.put(balancer("six", cluster_ips=V6))
    assert world.held() == {
        "x": ("192.0.2.254",),
        "y": ("192.0.3.1",),
        "six": ("2001:db8::ff",),
    }
    assert world.reason("asks").endswith("the pool avoids addresses that end in .0 and .255")


def test_avoid_buggy_ips_takes_such_an_address_away() -> None:
    world = World(pool("a", WIDE))
    world.put(balancer("web"))
    world.set_pools(pool("a", WIDE, avoid_buggy_ips=True))
    assert world.ips("web") == ("192.0.2.1",)


class TestTaken:
    """An address that a machine of the cluster has."""

    NODE = "an address of node b"

    def test_is_neither_handed_out_nor_given_on_request(self) -> None:
        world = World(pool("a", WIDE), taken={"192.0.2.0": self.NODE})
        world.put(balancer("asks", annotations=requesting("192.0.2.0")))
        world.put(balancer("web"))
        assert world.held() == {"web": ("192.0.2.1",)}
        assert world.reason("asks").endswith(self.NODE)

    def test_comes_back_when_the_machine_has_gone(self) -> None:
        world = World(pool("a", "192.0.2.0"), taken={"192.0.2.0": self.NODE})
        world.put(balancer("web"))
        assert world.reason("web").endswith(f"for IPv4: 192.0.2.0 is {self.NODE}")
        world.taken.clear()
        world.allocator.recheck(["192.0.2.0", "203.0.113.1"])
        world.settle()
        assert world.ips("web") == ("192.0.2.0",)

    def test_is_not_counted_as_free(self) -> None:
        world = World(pool("a", "192.0.2.0-192.0.2.3"))
        world.put(balancer("web"))
        for address in ("192.0.2.0", "192.0.2.1", "203.0.113.1"):
            world.taken[address] = self.NODE
        world.allocator.recheck(world.taken)
        world.settle()
        assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(1, 2)
        world.set_pools(pool("a", "192.0.2.1-192.0.2.3"))
        assert world.ips("web") == ("192.0.2.2",)
        assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(1, 1)
        world.taken.clear()
        world.allocator.recheck(["192.0.2.1"])
        assert world.allocator.usage()["a"]["IPv4"] == PoolUsage(1, 2)

    def test_stays_with_a_service_that_has_it(self) -> None:
        """The kubelet may take up what is announced on its node (openelb#384)."""
        world = World(pool("a", WIDE))
        world.put(balancer("web"))
        world.taken["192.0.2.0"] = self.NODE
        world.allocator.recheck(["192.0.2.0"])
        world.settle()
        world.restart()
        assert world.ips("web") == ("192.0.2.0",)


@pytest.mark.parametrize("text", ["1.0.0.0-169.253.255.255", "2000::/3"], ids=["ipv4", "ipv6"])
def test_the_size_of_a_pool_and_of_its_exceptions_costs_nothing(text: str) -> None:
    [whole] = parse_ranges(text)
    middle = (whole.first + whole.last) // 2
    reservations = parse_reservations(f"{whole.address(whole.first)}-{whole.address(middle)}")
    world = World(pool("a", text, reservations=reservations))
    world.put(balancer("web", cluster_ips=V6 if ":" in text else V4))
    assert world.ips("web") == (whole.address(middle + 1),)
