"""The control loop when something goes wrong that nobody has thought of."""

from __future__ import annotations

import asyncio
import pkgutil
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from unittest.mock import patch

import pytest

from tests.builders import NODE, SOURCE, endpoint_slice, local, port, service
from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import Bug, FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.recording_workers import RecordingWorkers
from tests.faults.sockets import socket_calls
from uproxy.control.listeners import Listeners
from uproxy.control.reconciler import HealthChecks, Reconciler
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.cluster.objects import Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.overview import service_statuses
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.routing.options import RoutingOptions
from uproxy.host.claims import Claims
from uproxy.sources.sink import Sink

BAD, GOOD = ObjectName("default", "bad"), ObjectName("default", "good")
BAD_IP, GOOD_IP = "192.0.2.1", "127.0.0.1"


class FakeClaims:
    """Claims in memory."""

    reason = ""

    def __init__(self, world: World) -> None:
        self.claimed: set[str] = set()
        self._world = world

    async def claim(self, addresses: Sequence[str]) -> Mapping[str, str]:
        if addresses:
            self._world.pass_by("claim")
            self.claimed.update(addresses)
            self._world.kernel.claims.update(addresses)
        return {}

    async def release(self, addresses: Sequence[str]) -> None:
        if addresses:
            self._world.pass_by("release")
            self.claimed.difference_update(addresses)
            self._world.kernel.claims.difference_update(addresses)


class World:
    """A reconciler, and what it deals with."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        """What raises at present."""
        self.hit: set[str] = set()
        """What has raised."""
        self.clock = Clock()
        self.kernel = Kernel(self.clock, FaultInjector(random.Random(0)), lambda line: None)
        self.workers = RecordingWorkers()
        self.listeners = Listeners(
            cast("Any", self.workers), grace=0.0, calls=socket_calls(self.kernel)
        )
        self.claims = FakeClaims(self)
        self.state = ClusterState([SOURCE], node_name=NODE)
        self.checks: HealthChecks = {}
        self.answers: list[tuple[bool, bool]] = []
        """Each time that health checks were served: whether that of "good" passes, and whether
        its clients are served at that moment."""
        self.reconciler = Reconciler(
            state=self.state,
            listeners=self.listeners,
            service_addresses=ServiceAddresses(cast("Claims", self.claims)),
            options=RoutingOptions(local_addresses=frozenset((BAD_IP, GOOD_IP))),
            telemetry=Telemetry(),
            health=ProxyHealth(sync_period=30.0),
            serve_health_checks=self._serve_health_checks,
            min_sync_period=0.1,
            before_sync=lambda: self.pass_by("before step"),
            after_sync=lambda: self.pass_by("after step"),
        )

    @property
    def sink(self) -> Sink:
        return self.reconciler.sink

    def pass_by(self, what: str) -> None:
        """Raises where something is broken."""
        if what in self.broken:
            self.hit.add(what)
            raise Bug(what)

    def reasons(self) -> list[str]:
        """Everything that is said to be wrong."""
        reconciler = self.reconciler
        found = [str(each.reason) for each in reconciler.failures.values()]
        found += [each.reason for each in service_statuses(reconciler.table)]
        found += [each.reason for some in reconciler.sink.errors.values() for each in some]
        found += reconciler.health_check_failures.values()
        return [*found, *filter(None, [reconciler.trouble])]

    def serves(self, address: str) -> bool:
        return any(
            frontend.address == address and serving.route.usable
            for frontend, serving in self.workers.serving[0].items()
        )

    async def _serve_health_checks(self, wanted: HealthChecks) -> Mapping[ObjectName, str]:
        self.pass_by("health checks")
        self.checks = wanted
        passes = GOOD in wanted and sum(wanted[GOOD].counts.values()) > 0
        self.answers.append((passes, self.serves(GOOD_IP)))
        return {}

    @contextmanager
    def bugs(self) -> Iterator[None]:
        """Have functions raise that deal with the Service "bad", or with everything."""
        places = {
            "derive": ("uproxy.core.routing.build.derive", _is_bad),
            "take in": ("uproxy.control.sync_metrics.SyncMetrics.applying", _is_bad),
            "take out": ("uproxy.control.sync_metrics.SyncMetrics.removing", _is_bad),
            "wait": ("uproxy.control.reconciler.earliest", _always),
            "plan": ("uproxy.control.reconciler.plan", _always),
            "build": ("uproxy.core.routing.build.TableDraft.guard", _always),
            "open": ("uproxy.net.listening.open_listeners", _is_bad),
            "pause": ("uproxy.net.listening.pause", _always),
        }
        with ExitStack() as stack:
            for what, (target, concerns) in places.items():
                stack.enter_context(self._broken(what, target, concerns))
            yield

    def _broken(self, what: str, target: str, concerns: Callable[[object], bool]) -> Any:
        owner, _, name = target.rpartition(".")
        holder = cast("Any", pkgutil.resolve_name(owner))
        real = getattr(holder, name)

        def instead(*args: Any, **keywords: Any) -> Any:
            if any(map(concerns, args)):
                self.pass_by(what)
            return real(*args, **keywords)

        return patch.object(holder, name, instead)


def _always(_: object) -> bool:
    return True


def _is_bad(argument: object) -> bool:
    if isinstance(argument, Object):
        return argument.key == BAD
    return argument == BAD or getattr(argument, "address", "") == BAD_IP


def objects() -> list[Object]:
    """Two Services that are served, one of them with a health check and a claimed address."""
    return [
        service("bad", ip=BAD_IP),
        endpoint_slice("bad", "198.51.100.1"),
        service(
            "good",
            port(80),
            ip=GOOD_IP,
            type="LoadBalancer",
            external_traffic_policy="Local",
            health_check_node_port=32000,
        ),
        endpoint_slice("good", "198.51.100.2"),
        service("claimed", ip="10.96.0.7"),
        endpoint_slice("claimed", "198.51.100.3"),
    ]


async def _loop(world: World) -> None:
    await world.reconciler.run()


def run(
    main: Callable[[World], Awaitable[None]],
    loop: Callable[[World], Coroutine[Any, Any, None]] = _loop,
) -> None:
    """A test, and beside it the loop, which must not end."""
    world = World()
    kernel = world.kernel

    async def beside() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(loop(world))
            await main(world)
            assert not running.done()
            running.cancel()

    def new_loop() -> VirtualLoop:
        return VirtualLoop(world.clock, random.Random(0), kernel.readiness)

    with world.clock.instead_of_time(), world.bugs():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(beside())
        world.listeners.close_all(0.0)
        assert not kernel.control.files


async def settle() -> None:
    """Longer than any back-off."""
    await asyncio.sleep(40)


@pytest.mark.parametrize("what", ["derive", "take in", "open"])
def test_what_one_service_brings_about_concerns_no_other(what: str) -> None:
    async def main(world: World) -> None:
        world.broken = {what}
        world.sink.replace(SOURCE, objects())
        await settle()
        assert world.hit == {what}
        assert world.serves(GOOD_IP)
        assert world.serves("10.96.0.7")
        assert not world.serves(BAD_IP)
        assert [each for each in world.reasons() if what in each], "it has a reason"
        world.broken.clear()
        await settle()
        assert world.serves(BAD_IP), "tried again though nothing has changed"
        assert world.reasons() == []

    run(main)


@pytest.mark.parametrize("what", ["derive", "take in"])
def test_an_object_that_cannot_be_used_keeps_its_last_version(what: str) -> None:
    async def main(world: World) -> None:
        world.sink.replace(SOURCE, objects())
        await settle()
        world.broken = {what}
        world.sink.apply(SOURCE, service("bad", port(81), ip=BAD_IP))
        await settle()
        assert world.hit == {what}
        assert {each.port for each in world.workers.serving[0] if each.address == BAD_IP} == {80}
        world.broken.clear()
        await settle()
        assert {each.port for each in world.workers.serving[0] if each.address == BAD_IP} == {81}
        assert world.reasons() == []

    run(main)


@pytest.mark.parametrize("listed", [False, True])
def test_an_object_that_cannot_be_removed_is_removed_later(listed: bool) -> None:
    async def main(world: World) -> None:
        world.sink.replace(SOURCE, objects())
        await settle()
        world.broken = {"take out"}
        if listed:
            world.sink.replace(SOURCE, objects()[1:])
        else:
            world.sink.remove(SOURCE, Service, BAD)
        await settle()
        assert world.serves(BAD_IP)
        assert len(world.reasons()) == 1
        world.broken.clear()
        await settle()
        assert not world.serves(BAD_IP)
        assert world.reasons() == []

    run(main)


@pytest.mark.parametrize("what", ["health checks", "after step", "claim"])
def test_what_is_beside_a_step_keeps_nobody_from_being_served(what: str) -> None:
    async def main(world: World) -> None:
        world.broken = {what}
        world.sink.replace(SOURCE, objects())
        await settle()
        assert world.hit == {what}
        assert world.serves(BAD_IP)
        assert world.serves(GOOD_IP)

    run(main)


@pytest.mark.parametrize(
    "what", ["plan", "build", "health checks", "before step", "after step", "claim"]
)
def test_a_step_that_fails_as_a_whole_is_made_again(what: str) -> None:
    async def main(world: World) -> None:
        world.broken = {what}
        world.sink.replace(SOURCE, objects())
        await settle()
        assert world.hit == {what}
        assert [each for each in world.reasons() if what in each], "it has a reason"
        world.broken.clear()
        await settle()
        assert world.serves(BAD_IP)
        assert world.serves(GOOD_IP)
        assert world.serves("10.96.0.7")
        assert GOOD in world.checks
        assert world.reasons() == []

    run(main)


def test_an_address_that_has_left_its_interface_is_claimed_until_that_succeeds() -> None:
    """Though the frontends there are open."""
    own = frozenset((BAD_IP, GOOD_IP))

    async def main(world: World) -> None:
        world.kernel.addresses.add("10.96.0.7")
        world.reconciler.set_options(RoutingOptions(local_addresses=own | {"10.96.0.7"}))
        world.sink.replace(SOURCE, objects())
        await settle()
        assert world.serves("10.96.0.7")
        assert world.claims.claimed == set()
        world.broken = {"claim"}
        world.kernel.addresses.remove("10.96.0.7")
        world.reconciler.set_options(RoutingOptions(local_addresses=own))
        await settle()
        assert len(world.reasons()) == 1
        world.broken.clear()
        await settle()
        assert world.claims.claimed == {"10.96.0.7"}
        assert world.reasons() == []

    run(main)


def test_a_loop_that_begins_again_keeps_what_is_claimed() -> None:
    """A quiet time then does not mean that nobody knows what is wanted."""

    async def supervisor(world: World) -> None:
        await TaskSupervisor().run("the loop", world.reconciler.run)

    async def main(world: World) -> None:
        world.sink.replace(SOURCE, objects())
        await settle()
        world.broken = {"wait"}
        world.sink.remove(SOURCE, Service, BAD)
        await settle()
        assert world.hit == {"wait"}
        assert not world.serves(BAD_IP), "the step that was due was made when it began again"
        world.broken.clear()
        await settle()
        assert world.claims.claimed == {"10.96.0.7"}
        world.sink.remove(SOURCE, Service, GOOD)
        await settle()
        assert not world.serves(GOOD_IP)

    run(main, supervisor)


@pytest.mark.parametrize("what", ["release", "pause"])
def test_what_cannot_be_taken_away_stops_nobody(what: str) -> None:
    async def main(world: World) -> None:
        world.sink.replace(SOURCE, objects())
        await settle()
        world.broken = {what}
        world.sink.replace(SOURCE, objects()[:4])
        world.sink.apply(SOURCE, service("other", port(90), ip=GOOD_IP))
        await settle()
        assert world.hit == {what}
        assert what == "pause" or any(each.port == 90 for each in world.workers.serving[0])
        world.broken.clear()
        await settle()
        assert any(each.port == 90 for each in world.workers.serving[0])
        assert not world.serves("10.96.0.7")
        assert world.reasons() == []

    run(main)


def test_a_health_check_passes_only_while_clients_are_served() -> None:
    """A load balancer hears of the end before its clients are refused, and of the beginning after
    they are served."""

    async def main(world: World) -> None:
        good, slice_ = objects()[2], endpoint_slice("good", local("198.51.100.2"))
        world.sink.replace(SOURCE, [good, endpoint_slice("good")])
        await settle()
        for with_endpoints in (True, False, True):
            world.answers.clear()
            world.sink.apply(SOURCE, slice_ if with_endpoints else endpoint_slice("good"))
            await settle()
            assert world.serves(GOOD_IP) is with_endpoints
            assert world.answers[-1][0] is with_endpoints
            assert (True, False) not in world.answers
            assert with_endpoints or world.answers[0] == (False, True)

    run(main)
