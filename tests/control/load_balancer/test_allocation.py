from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.builders import node, service
from tests.http.client import eventually
from uproxy.control.load_balancer.allocation import Allocation
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.in_memory import with_decision
from uproxy.control.load_balancer.supplies import PoolSupply
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName, Service
from uproxy.core.cluster.state import ClusterState

SOURCE = "services"
A, B = "192.0.2.1", "192.0.2.2"


def pool(text: str = f"{A}-{B}") -> Pool:
    return Pool(name="default", ranges=(AddressRange.parse(text),))


class Notes:
    """A writer that notes what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, Decision] = {}
        self.cleared = 0
        self.reasons: Mapping[ObjectName, str] = {}

    def put(self, decision: Decision) -> None:
        self.given[decision.service.name] = decision

    def remove(self, name: ObjectName) -> None:
        self.given.pop(name.name, None)

    def clear(self) -> None:
        self.cleared += 1
        self.given.clear()

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        return {name: each.addresses for name, each in self.given.items()}


class World:
    def __init__(self, *pools: Pool) -> None:
        self.state = ClusterState([SOURCE], node_name="here")
        self.writer = Notes()
        self.leading = True
        self.lost_for = 0
        """How many questions whether this process leads are answered with no."""
        self.now = 0.0
        self.catalog = Catalog(pools or (pool(),))
        self.used = 0
        self.allocation = Allocation(
            self.state,
            PoolSupply(self.state, self.catalog),
            self.writer,
            leading=self._leads,
            usage_changed=self._count,
            clock=lambda: self.now,
        )
        self.state.observe(self.allocation.object_changed)

    def _leads(self) -> bool:
        if self.lost_for:
            self.lost_for -= 1
            return False
        return self.leading

    def _count(self) -> None:
        self.used += 1

    def add(self, name: str, **fields: Any) -> None:
        self.state.apply(SOURCE, service(name, type="LoadBalancer", **fields))

    def remove(self, name: str) -> None:
        self.state.remove(SOURCE, Service, ObjectName("default", name))

    def write(self, name: str) -> None:
        """Let the cluster show what was decided."""
        found = self.find(name)
        self.state.apply(SOURCE, with_decision(found, self.writer.given[name]))

    def find(self, name: str) -> Service:
        found = self.state.service(ObjectName("default", name))
        assert found is not None
        return found

    def statuses(self) -> dict[str, Any]:
        return {each.service.name: each for each in self.allocation.statuses()}

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(condition)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.allocation.run())
        yield world
        task.cancel()


def test_nothing_is_decided_before_everything_is_listed() -> None:
    world = World()
    world.add("web")
    world.allocation.decide_now()
    assert (world.writer.given, world.allocation.deciding) == ({}, False)
    world.state.sync(SOURCE)
    world.allocation.decide_now()
    assert (world.writer.addresses, world.allocation.deciding) == ({"web": (A,)}, True)


def test_what_was_decided_is_not_written_if_it_is_not_to_be_any_more() -> None:
    """Nothing has been written, so that there is nothing to take away either."""
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    world.allocation.decide_now()
    world.state.apply(SOURCE, service("web"))
    world.allocation.decide_now()
    assert world.writer.given == {}


async def test_what_comes_and_goes_is_followed() -> None:
    async with running(World()) as world:
        world.state.sync(SOURCE)
        world.add("one")
        world.allocation.changed()
        await world.until(lambda: world.writer.addresses == {"one": (A,)})
        world.add("two")
        world.add("three")
        await world.until(lambda: sorted(world.writer.addresses.values()) == [(), (A,), (B,)])
        assert world.used > 0
        assert world.allocation.usage["default"]["IPv4"].assigned == 2
        world.remove("one")
        await world.until(lambda: sorted(world.writer.addresses.values()) == [(A,), (B,)])


async def test_many_services_do_not_stall_the_loop() -> None:
    """10,000 are decided in a thread, and handed on in slices."""
    world = World(pool("10.0.0.0/16"))
    for number in range(3000):
        world.add(f"web-{number}")
    world.state.sync(SOURCE)
    turns = 0
    async with running(world):
        while len(world.writer.given) < 3000:
            await asyncio.sleep(0)
            turns += 1
    assert turns > 10
    assert len(set(world.writer.addresses.values())) == 3000


def test_who_does_not_lead_says_which_statuses_others_have_written() -> None:
    world = World()
    world.leading = False
    world.state.sync(SOURCE)
    world.add("new")
    world.add("address", ingress=["198.51.100.9"])
    world.add("name", ingress=[LoadBalancerIngress(hostname="lb.example")])
    world.add("ours", ingress=[A], annotations={ASSIGNED: A})
    assert {name: each.foreign for name, each in world.statuses().items()} == {
        "new": "",
        "address": "its status has 198.51.100.9, which uproxy has not written",
        "name": 'its status has "lb.example", which uproxy has not written',
        "ours": "",
    }


async def test_who_does_not_lead_follows_and_who_takes_over_changes_nothing() -> None:
    leader, follower = World(), World()
    follower.leading = False
    async with running(leader), running(follower):
        for world in (leader, follower):
            world.state.sync(SOURCE)
            for name in ("b", "a", "c"):
                world.add(name)
        await leader.until(lambda: len(leader.writer.given) == 3)
        for name in ("a", "b", "c"):
            leader.write(name)
            follower.state.apply(SOURCE, leader.find(name))
        await follower.until(
            lambda: follower.statuses()["a"].addresses == leader.writer.addresses["a"]
        )
        assert follower.writer.given == {}
        assert follower.statuses()["c"].reason == leader.statuses()["c"].reason != ""
        leader.leading = False
        leader.allocation.changed()
        await leader.until(lambda: leader.writer.cleared == 1)
        follower.leading = True
        follower.allocation.changed()
        await follower.until(lambda: len(follower.writer.given) == 3)
        assert follower.writer.addresses == {"a": (A,), "b": (B,), "c": ()}
        assert leader.statuses()["a"].addresses == (A,)


def test_addresses_of_machines_are_not_handed_out() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.state.apply(SOURCE, node("there", addresses=[A]))
    world.add("web")
    world.allocation.decide_now()
    assert world.writer.addresses == {"web": (B,)}
    world.add("other")
    world.allocation.decide_now()
    assert world.writer.addresses == {"web": (B,), "other": ()}
    world.state.apply(SOURCE, node("there", addresses=["192.0.2.99"]))
    world.allocation.decide_now()
    assert world.writer.addresses["other"] == (A,)


def test_a_status_of_another_controller_is_left_alone_and_said() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("theirs", ingress=["198.51.100.1"])
    world.add("other", load_balancer_class="example.com/lb")
    world.allocation.decide_now()
    assert world.writer.given == {}
    assert list(world.statuses()) == ["theirs"]
    assert world.statuses()["theirs"].foreign


def test_a_fight_ends_after_three_times_and_begins_again_later() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    world.allocation.decide_now()
    for _ in range(3):
        world.write("web")
        world.allocation.decide_now()
        cleared = msgspec.structs.replace(world.find("web"), status=service("x").status)
        world.state.apply(SOURCE, cleared)
        world.allocation.decide_now()
    assert world.writer.given == {}
    assert "3 times" in world.statuses()["web"].foreign
    assert world.allocation.rewrites.total == 3
    world.now += 601
    world.allocation.decide_now()
    assert world.writer.addresses == {"web": (A,)}
    assert world.statuses()["web"].foreign == ""


def test_events_are_handed_on_once() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    world.allocation.decide_now()
    assert [each.reason for each in world.writer.given["web"].events] == ["IPAllocated"]
    world.write("web")
    world.allocation.decide_now()
    assert world.writer.given["web"].events == ()


def test_what_cannot_be_written_is_said() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    world.allocation.decide_now()
    world.writer.reasons = {ObjectName("default", "web"): "403: no"}
    assert world.statuses()["web"].reason == "its status cannot be written: 403: no"


async def test_after_an_unexpected_error_all_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    with monkeypatch.context() as broken:
        broken.setattr(world.writer, "put", _fails)
        with pytest.raises(RuntimeError):
            await world.allocation.run()
    async with running(world):
        await world.until(lambda: world.writer.addresses == {"web": (A,)})


async def test_what_was_decided_while_the_lead_was_lost_is_decided_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    losses = [True]

    async def run_to_completion(act: Callable[[], Any]) -> Any:
        found = act()
        if losses:
            losses.clear()
            world.lost_for = 1
        return found

    name = "uproxy.control.load_balancer.allocation.run_to_completion"
    monkeypatch.setattr(name, run_to_completion)
    async with running(world):
        await world.until(lambda: world.writer.addresses == {"web": (A,)})
    assert losses == []


def _fails(_: Decision) -> None:
    raise RuntimeError("no reason")


def test_a_service_that_is_no_load_balancer_any_more_loses_every_mark() -> None:
    world = World()
    world.state.sync(SOURCE)
    world.add("web")
    world.allocation.decide_now()
    world.write("web")
    annotations = {ASSIGNED: A}
    world.state.apply(SOURCE, service("web", type="ClusterIP", annotations=annotations))
    world.allocation.decide_now()
    assert world.writer.given["web"].condition is None
    assert world.statuses() == {}
