"""What holds whatever Services, pools and nodes do, and in whatever order they do it."""

from __future__ import annotations

from itertools import combinations
from random import Random
from typing import Any

from hypothesis import given, note
from hypothesis import strategies as st

from tests.builders import port
from tests.core.allocation.world import V4, V6, World, balancer, pinned, pool, sharing
from uproxy.core.allocation.allocator import Allocator
from uproxy.core.allocation.pool_syntax import parse_ranges, parse_reservations
from uproxy.core.allocation.pool_table import PoolTable
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.requests import Request, read_request
from uproxy.core.cluster.labels import LabelSelector
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName, Service
from uproxy.core.ip import family_of

NAMES = ["default/a", "default/b", "default/c", "other/a", "other/b"]
ADDRESSES = ("192.0.2.0", "192.0.2.1", "192.0.2.5", "2001:db8::1", "198.51.100.1", "203.0.113.9")
WEB = LabelSelector(match_labels={"tier": "web"})

POOLS = [
    pool("a", "192.0.2.0-192.0.2.2"),
    pool("a", "192.0.2.0-192.0.2.2", "2001:db8::/127"),
    pool("a", "192.0.2.1", avoid_buggy_ips=True),
    pool("a", "192.0.2.0-192.0.2.2", reservations=parse_reservations("192.0.2.1=default/a")),
    pool("b", "192.0.2.4-192.0.2.6", drained=parse_ranges("192.0.2.4-192.0.2.5")),
    pool("b", "192.0.2.4-192.0.2.6", allocation=pinned(namespaces=["other"])),
    pool("b", "192.0.2.4-192.0.2.5", allocation=pinned(priority=1, service_selectors=(WEB,))),
    pool("c", "198.51.100.0/31", "2001:db8:1::1", auto_assign=False),
    pool("c", "198.51.100.0/31", "2001:db8:1::1", avoid_buggy_ips=True),
    pool("d", "2001:db8:2::/127", reservations=parse_reservations("2001:db8:2::1")),
]

SEEDS = st.integers(0, 2**32 - 1)
"""A seed stands for what happens. Lists of steps, as Hypothesis would make them itself, are too
short and too plain for Services to get in each other's way."""


def wishes(random: Random) -> dict[str, Any]:
    """What a Service may ask for. Most ask for little, and may share."""
    return {
        "created": random.choice(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]),
        "type": random.choice(["LoadBalancer"] * 9 + ["ClusterIP"]),
        "ports": random.choice([{80}, {443}, {80, 443}]),
        "cluster_ips": random.choice([V4, V4, V4, V6, (*V4, *V6)]),
        "ip_family_policy": random.choice(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        "external_traffic_policy": random.choice(["Cluster", "Local"]),
        "selector": random.choice([{"app": "x"}, {"app": "y"}]),
        "labels": random.choice([None, {"tier": "web"}]),
        "key": random.choice(["k", "k", "k", "l", ""]),
        "pool": random.choice([*[""] * 7, "a", "c", "z"]),
        "asks": random.choice([*[()] * 6, *((each,) for each in ADDRESSES), ADDRESSES[2:4]]),
    }


def some_pools(random: Random) -> list[Pool]:
    """Pools with different names."""
    return list({each.name: each for each in random.sample(POOLS, 5)}.values())


def any_step(random: Random) -> tuple[Any, ...]:
    """Something that happens, for `step`."""
    name, address = random.choice(NAMES), random.choice(ADDRESSES)
    rare = (
        ("delete", name),
        ("pools", some_pools(random)),
        ("taken", set(random.sample(ADDRESSES, 2))),
        ("steal", name, address),
        ("lose the lead over", [wishes(random) for _ in range(3)], *random.sample(NAMES, 3)),
    )
    return random.choice((*[("put", name, wishes(random))] * 8, *rare))


def built(name: str, fields: dict[str, Any], marks: dict[str, str]) -> Service:
    """A Service with what it wants, and with the marks that are written on it already."""
    fields = dict(fields)
    asked = {
        "metallb.io/allow-shared-ip": fields.pop("key"),
        "metallb.io/address-pool": fields.pop("pool"),
        "metallb.io/loadBalancerIPs": ",".join(fields.pop("asks")),
    }
    annotations = {**marks, **{name: text for name, text in asked.items() if text}}
    ports = [port(each) for each in sorted(fields.pop("ports"))]
    return balancer(name, *ports, annotations=annotations or None, **fields)


def put_again(world: World, name: str, fields: dict[str, Any]) -> Service:
    """A Service with other wishes, and what has been written on it."""
    before = world.services.get(key(name))
    marks = (before.metadata.annotations or {}) if before else {}
    own = {each: text for each, text in marks.items() if "/a" in each or "/ip-" in each}
    own = {each: text for each, text in own.items() if "metallb.io/a" not in each}
    status = {"ingress": [each.ip for each in before.ingress]} if before else {}
    return built(name, {**fields, **status}, own)


def step(world: World, what: tuple[Any, ...]) -> None:
    """Let something happen."""
    match what:
        case ("put", name, fields):
            world.put(put_again(world, name, fields))
        case ("lose the lead over", changes, *names):
            services = [put_again(world, *each) for each in zip(names, changes, strict=True)]
            world.lose_lead_over(*services)
        case ("delete", name) if key(name) in world.services:
            world.delete(name)
        case ("pools", pools):
            world.set_pools(*pools)
        case ("taken", addresses):
            changed = set(world.taken) ^ addresses
            world.taken = dict.fromkeys(addresses, "an address of node n")
            world.allocator.recheck(changed)
            world.settle()
        case ("steal", name, address) if key(name) in world.services:
            service = world[name]
            world.put(balancer(name, ingress=[address], annotations=service.metadata.annotations))


def key(name: str) -> ObjectName:
    namespace, _, name = name.partition("/")
    return ObjectName(namespace, name)


def held(world: World) -> dict[ObjectName, tuple[str, ...]]:
    """What Services have by the decisions of the allocator."""
    return {
        name: decision.addresses
        for name, decision in world.allocator.decisions.items()
        if decision.addresses
    }


def statuses(world: World) -> dict[ObjectName, tuple[LoadBalancerIngress, ...]]:
    return {name: each.ingress for name, each in world.services.items()}


def requests(world: World) -> dict[ObjectName, Request]:
    found = {name: read_request(each) for name, each in world.services.items()}
    return {name: each for name, each in found.items() if isinstance(each, Request)}


def check(world: World) -> None:
    """What holds at every moment."""
    table, asked = PoolTable(world.pools), requests(world)
    table.set_namespaces(world.namespaces)
    holders = dict[str, list[Request]]()
    for name, addresses in held(world).items():
        wish = asked[name]
        check_addresses(table, wish, addresses)
        assert world.ips(str(name)) == addresses, "the status says what has been decided"
        for address in addresses:
            holders.setdefault(address, []).append(wish)
    for sharers in holders.values():
        for one, other in combinations(sharers, 2):
            assert one.sharing.key
            assert one.sharing.group == other.sharing.group
            assert not one.sharing.ports & other.sharing.ports
    for name, decision in world.allocator.decisions.items():
        if decision.condition is not None and not decision.addresses and name in asked:
            assert decision.condition.status == "False"
            check_waits(world, table, asked[name], set(holders))


def check_addresses(table: PoolTable, wish: Request, addresses: tuple[str, ...]) -> None:
    """Whether a Service may have its addresses, apart from other Services."""
    pools = {table.pool_of(each) for each in addresses}
    [found] = pools
    assert found is not None, "both addresses are from one pool"
    assert found.misfit(wish) == ""
    assert all(found.exception(each, wish.name, new=False) == "" for each in addresses)
    families = [family_of(each) for each in addresses]
    if not wish.problem:
        assert len(set(families)) == len(families)
        assert set(families) == set(wish.families) or wish.prefers_both
        assert wish.pool in ("", found.pool.name)
        assert not wish.addresses or set(wish.addresses) == set(addresses)


def check_waits(world: World, table: PoolTable, wish: Request, used: set[str]) -> None:
    """Whether there is really nothing for a Service that waits."""
    if wish.problem or wish.addresses or wish.pool or (len(wish.families) > 1):
        return
    for each in table.candidates(wish):
        for address in each.free(wish.families[0]):
            assert address in used or address in world.taken


@given(seed=SEEDS)
def test_at_every_moment(seed: int) -> None:
    random = Random(seed)
    world = World(*some_pools(random))
    for _ in range(30):
        what = any_step(random)
        note(str(what))
        step(world, what)
        check(world)


@given(seed=SEEDS)
def test_a_restart_changes_nothing(seed: int) -> None:
    random = Random(seed)
    world = World(*some_pools(random))
    for _ in range(20):
        what = any_step(random)
        note(str(what))
        step(world, what)
        before = statuses(world)
        world.restart()
        assert statuses(world) == before
        # Of a Service that waits, another one may be in the way than when it was told so.
        assert {event.reason for _, event in world.events} <= {"AllocationFailed"}


@given(seed=SEEDS)
def test_nobody_loses_an_address_by_what_others_do(seed: int) -> None:
    """Only pools, and what is changed about a Service itself, take an address from it."""
    random = Random(seed)
    world = World(*some_pools(random))
    for _ in range(30):
        before, what = held(world), any_step(random)
        note(str(what))
        step(world, what)
        after, asked = held(world), requests(world)
        for name, addresses in before.items():
            if str(name) in what or not still_allowed(world, asked[name], addresses):
                continue
            # A Service with PreferDualStack may get the other family as well.
            assert after[name][: len(addresses)] == addresses


@given(seed=SEEDS)
def test_each_gets_the_first_address_that_is_free_or_can_be_shared(seed: int) -> None:
    random = Random(seed)
    wanted = [
        (random.choice("kkkl "), random.choice([{1}, {2}, {1, 2}, {3}, {2, 3}])) for _ in range(24)
    ]
    at_once = random.random() < 0.7
    world = World(pool("a", "192.0.2.0/28"))
    services = [
        balancer(f"s{number:02}", *map(port, sorted(ports)), annotations=sharing(name))
        for number, (name, ports) in enumerate(wanted)
    ]
    for each in [services] if at_once else [[each] for each in services]:
        world.put(*each)
    users = dict[int, list[tuple[str, set[int]]]]()
    for service, (name, ports) in zip(services, wanted, strict=True):
        place = 0
        while any(
            not name.strip() or name != key or ports & used for key, used in users.get(place, ())
        ):
            place += 1
        users.setdefault(place, []).append((name, ports))
        expected = (f"192.0.2.{place}",) if place < 16 else ()
        assert world.ips(service.metadata.name) == expected


def still_allowed(world: World, wish: Request, addresses: tuple[str, ...]) -> bool:
    table = PoolTable(world.pools)
    table.set_namespaces(world.namespaces)
    pools = [table.pool_of(each) for each in addresses]
    [first, *_] = pools
    return (
        first is not None
        and pools == [first] * len(pools)
        and not first.misfit(wish)
        and wish.pool in ("", first.pool.name)
        and not any(first.exception(each, wish.name, new=False) for each in addresses)
    )


@given(seed=SEEDS)
def test_the_order_of_events_makes_no_difference(seed: int) -> None:
    """Statuses included, which may contradict each other."""
    random = Random(seed)
    pools = some_pools(random)
    objects = [
        built(
            name,
            {**wishes(random), "ingress": random.sample(ADDRESSES, random.choice([0, 1, 1, 2]))},
            {},
        )
        for name in NAMES
    ]
    outcomes = []
    for _ in range(3):
        allocator = Allocator()
        random.shuffle(objects)
        for number, each in enumerate(objects):
            if number == random.randrange(len(objects)):
                allocator.set_pools(pools)
            if random.random() < 0.3:
                allocator.converge(complete=False)
            allocator.put(each)
        allocator.set_pools(pools)
        allocator.converge(complete=True)
        outcomes.append(allocator.decisions)
    assert outcomes[0] == outcomes[1] == outcomes[2]
