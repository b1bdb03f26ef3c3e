from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from tests.builders import endpoint_slice, service
from tests.http.client import eventually
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.in_memory import InMemoryAllocation
from uproxy.control.load_balancer.supplies import PoolSupply
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.load_balancer import assigned_addresses
from uproxy.core.cluster.objects import EndpointSlice, Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.status import ObjectStatus

SOURCE = "manifests"
A, B = "192.0.2.1", "192.0.2.2"


class Behind:
    """Takes what is delivered into the state, as StateUpdater does."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.errors: Sequence[ObjectStatus] = ()

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self.state.replace(source, objects)

    def apply(self, source: str, obj: Object) -> None:
        self.state.apply(source, obj)

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self.state.remove(source, kind, key)

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self.errors = errors


class World:
    def __init__(self) -> None:
        self.state = ClusterState([SOURCE])
        pool = Pool(name="default", ranges=(AddressRange.parse(f"{A}-{B}"),))
        self.part = InMemoryAllocation(self.state, PoolSupply(self.state, Catalog([pool])))
        self.state.observe(self.part.object_changed)
        self.behind = Behind(self.state)
        self.sink = self.part.sink(self.behind)

    def addresses(self, *names: str) -> list[tuple[str, ...]]:
        """Those that are served."""
        found = [self.state.service(ObjectName("default", each)) for each in names]
        return [assigned_addresses(each) for each in found if each is not None]


def web(name: str, **fields: Any) -> Service:
    return service(name, type="LoadBalancer", **fields)


def test_services_never_come_without_their_addresses() -> None:
    world = World()
    world.sink.replace(SOURCE, [web("b"), web("a"), web("c"), endpoint_slice("a", "10.0.0.1")])
    assert world.addresses("a", "b", "c") == [(A,), (B,), ()]
    assert world.state.endpoint_slice(ObjectName("default", "a-1")) is not None
    (waiting,) = [each for each in world.part.allocation.statuses() if not each.addresses]
    assert "no available IPs" in waiting.reason


def test_the_same_manifests_get_the_same_addresses_in_any_order() -> None:
    for names in ("abc", "cba", "bca"):
        world = World()
        world.sink.replace(SOURCE, [web(each) for each in names])
        assert world.addresses("a", "b", "c") == [(A,), (B,), ()]


def test_changes_are_followed() -> None:
    world = World()
    world.sink.replace(SOURCE, [web("a"), web("b"), web("c")])
    world.sink.apply(SOURCE, web("a", ip="10.96.0.7"))
    assert world.addresses("a") == [(A,)]
    world.sink.remove(SOURCE, Service, ObjectName("default", "a"))
    assert world.addresses("b", "c") == [(B,), (A,)]
    world.sink.apply(SOURCE, service("b"))
    world.sink.apply(SOURCE, web("d"))
    assert world.addresses("b", "c", "d") == [(), (A,), (B,)]
    world.sink.remove(SOURCE, EndpointSlice, ObjectName("default", "gone"))
    errors = [ObjectStatus(where="x.yaml", field="", reason="no")]
    world.sink.report_errors(SOURCE, errors)
    assert world.behind.errors == errors


def test_what_a_second_list_lacks_does_not_come_back() -> None:
    """Everything is delivered again after an unexpected error of the source."""
    world = World()
    world.sink.replace(SOURCE, [web("a"), web("b"), web("c")])
    world.sink.replace(SOURCE, [web("b"), web("c")])
    assert world.state.service(ObjectName("default", "a")) is None
    assert world.addresses("b", "c") == [(B,), (A,)]


def test_what_a_manifest_says_itself_is_left_alone() -> None:
    world = World()
    theirs = service("web", type="LoadBalancer", ingress=["198.51.100.1"])
    world.sink.replace(SOURCE, [theirs])
    assert world.state.service(theirs.key) is theirs
    (found,) = world.part.allocation.statuses()
    assert found.foreign


def test_what_there_would_be_events_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        World().sink.replace(SOURCE, [web("a"), web("b"), web("c")])
    levels = {each.levelname for each in caplog.records}
    assert levels == {"INFO", "WARNING"}
    assert "Service default/a: Assigned IP" in caplog.text


async def test_an_unexpected_error_is_one_of_the_task_and_not_of_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def fails() -> None:
        raise RuntimeError("no reason")

    monkeypatch.setattr(world.part.allocation, "decide_now", fails)
    world.sink.replace(SOURCE, [web("a")])
    assert world.addresses("a") == [()]
    with pytest.raises(RuntimeError):
        await world.part.run()
    monkeypatch.undo()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.part.run())
        await eventually(lambda: world.addresses("a") == [(A,)])
        task.cancel()
