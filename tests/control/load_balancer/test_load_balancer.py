from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from tests.builders import SOURCE, cluster, service
from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import Object, ObjectName, Service

PATIENCE = 15.0


@dataclass
class Noted:
    """A part that notes what it is told."""

    name: str = "good"
    told: list[str] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    runs: int = 0
    fails: bool = False
    release_takes: float = 0.0

    async def run(self) -> None:
        self.runs += 1
        if self.fails and self.runs == 1:
            raise RuntimeError("no reason")
        self.running.set()
        await asyncio.Event().wait()

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        self.told.append(f"{kind.__name__} {name}")

    def changed(self) -> None:
        self.told.append("changed")

    async def release(self) -> None:
        if self.fails:
            raise RuntimeError("no reason")
        await asyncio.sleep(self.release_takes)
        self.told.append("released")


async def test_every_part_runs_and_is_restarted_by_itself() -> None:
    bad, good = Noted(fails=True), Noted()
    supervisor = TaskSupervisor(Backoff(initial=0.01, maximum=0.01))
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(LoadBalancer([bad, good], cluster(), supervisor).run())
        await bad.running.wait()
        await good.running.wait()
        task.cancel()
    assert (bad.runs, good.runs) == (2, 1)


async def test_every_part_is_told_what_changes() -> None:
    parts = [Noted(), Noted()]
    state = cluster()
    balancer = LoadBalancer(parts, state, TaskSupervisor())
    state.apply(SOURCE, service("web"))
    balancer.changed()
    state.remove(SOURCE, Service, ObjectName("default", "web"))
    expected = ["Service default/web", "changed", "Service default/web"]
    assert [each.told for each in parts] == [expected, expected]


async def test_one_part_that_cannot_release_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slow, bad, good = Noted("slow", release_takes=1e6), Noted("bad", fails=True), Noted()
    balancer = LoadBalancer([slow, bad, good], cluster(), TaskSupervisor())
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(PATIENCE):
            await balancer.drain()
    assert (slow.told, good.told) == ([], ["released"])
    assert [each.message for each in caplog.records] == [
        "the bad cannot leave its work to others",
        "the slow could not leave everything to others in time",
    ]


async def test_without_parts_there_is_nothing_to_wait_for() -> None:
    balancer = LoadBalancer([], cluster(), TaskSupervisor())
    async with asyncio.timeout(PATIENCE):
        await balancer.drain()
    assert balancer.status().services == ()
