"""What the control loop notes about its syncs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.builders import endpoint_slice, service
from uproxy.control.sync_metrics import SyncMetrics
from uproxy.core.cluster.objects import (
    Endpoints,
    EndpointSlice,
    Object,
    ObjectMeta,
    ObjectName,
    Service,
)
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.network_programming import TRIGGER_TIME
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.routing.table import RoutingTable

SOURCE = "test"


class World:
    def __init__(self) -> None:
        self.state = ClusterState([SOURCE])
        self.telemetry = Telemetry()
        self.health = ProxyHealth(sync_period=30.0)
        self.now = 0.0
        self.syncs = SyncMetrics(self.telemetry, self.health, monotonic=lambda: self.now)

    def apply(self, obj: Object) -> None:
        self.syncs.applying(self.state, obj)
        self.state.apply(SOURCE, obj)

    def remove(self, kind: type[Object], name: str) -> None:
        key = ObjectName("default", name)
        self.syncs.removing(self.state, kind, key)
        self.state.remove(SOURCE, kind, key)

    def sync(self) -> None:
        self.syncs.begin()
        self.syncs.done(RoutingTable(), 0.5, full=False)

    @property
    def pending(self) -> tuple[int, int]:
        counts = self.telemetry
        return counts.service_changes_pending, counts.endpoint_changes_pending

    def programmed(self) -> int:
        return sum(each.programming.cumulative()[-1] for each in self.telemetry.families.values())


def triggered(*, after: float, address: str = "10.0.0.1") -> EndpointSlice:
    """A slice written so many seconds from now."""
    moment = datetime.now(UTC) + timedelta(seconds=after)
    plain = endpoint_slice("web", address)
    annotations = {TRIGGER_TIME: moment.isoformat()}
    meta = msgspec.structs.replace(plain.metadata, annotations=annotations)
    return msgspec.structs.replace(plain, metadata=meta)


def test_changes_are_pending_by_kind_until_a_sync_begins() -> None:
    world = World()
    world.apply(service("web"))
    world.apply(endpoint_slice("web"))
    world.apply(Endpoints(metadata=ObjectMeta(name="web", namespace="default")))
    assert world.pending == (1, 2)
    world.syncs.begin()
    world.remove(Service, "web")
    world.remove(EndpointSlice, "web-1")
    assert world.pending == (1, 1)
    world.syncs.begin()
    assert world.pending == (0, 0)
    assert (world.telemetry.service_changes, world.telemetry.endpoint_changes) == (2, 3)


def test_programming_time_is_told_when_the_sync_ends() -> None:
    world = World()
    world.apply(triggered(after=1.0))
    world.syncs.begin()
    assert world.programmed() == 0
    world.syncs.done(RoutingTable(), 0.5, full=False)
    assert world.programmed() == 1
    assert -1.0 <= world.telemetry.families["IPv4"].programming.sum < 0.0
    world.sync()
    assert world.programmed() == 1


def test_what_one_sync_cannot_finish_the_next_one_tells() -> None:
    world = World()
    world.apply(triggered(after=1.0))
    world.syncs.begin()
    world.sync()
    assert world.programmed() == 1


def test_what_is_gone_before_it_was_served_is_not_told() -> None:
    world = World()
    world.apply(triggered(after=1.0))
    world.remove(EndpointSlice, "web-1")
    world.sync()
    assert world.programmed() == 0


def test_health_waits_for_the_change_that_came_last() -> None:
    world = World()
    world.sync()
    world.syncs.begin()
    world.now = 10.0
    world.syncs.queued()
    world.syncs.done(RoutingTable(), 0.5, full=False)
    assert world.health.healthy(69.0)
    assert not world.health.healthy(71.0), "it came at 10 s, and may wait for 60"
    world.sync()
    assert world.health.healthy(71.0)


def test_changes_that_never_end_are_no_delay() -> None:
    """Each is served in time; that there is always another one is no reason to be restarted."""
    world = World()
    world.sync()
    for second in range(300):
        world.syncs.begin()
        world.now = second + 0.5
        world.syncs.queued()
        world.syncs.done(RoutingTable(), 0.5, full=False)
        world.now = second + 1.0
        assert world.health.healthy(world.now), second


def test_a_sync_that_is_begun_again_has_been_waited_for_all_the_time() -> None:
    world = World()
    world.sync()
    world.syncs.queued()
    for second in range(59):
        world.now = float(second)
        world.syncs.begin()
        world.syncs.queued()
        assert world.health.healthy(world.now)
    world.now = 61.0
    assert not world.health.healthy(world.now)
    world.sync()
    assert world.health.healthy(world.now)


def test_times_of_changes_do_not_pile_up_while_no_sync_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as the API server forbids one kind of objects, for one."""
    monkeypatch.setattr("uproxy.control.sync_metrics._MAX_TRIGGERS", 5)
    world = World()
    for number in range(1, 21):
        world.apply(triggered(after=1.0, address=f"10.0.0.{number}"))
        world.syncs.begin()
    world.syncs.done(RoutingTable(), 0.5, full=False)
    assert world.programmed() == 5
