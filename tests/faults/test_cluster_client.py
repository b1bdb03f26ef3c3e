"""What goes on between the program and its cluster: the failure of one is none of the others'."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

from tests.faults.api import Cluster, FakeApi
from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import Bug, FaultInjector
from tests.faults.objects import NODE, node
from uproxy.config.settings import Config
from uproxy.control.cluster_client import ClusterClient, SnapshotFiles
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.routing.table import RoutingTable
from uproxy.sources.kubernetes.resources import SOURCES
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.last_known.snapshot import Snapshot, save


class Reconciler:
    """Takes objects in, and does nothing about them."""

    def __init__(self) -> None:
        self.state = ClusterState(SOURCES, node_name=NODE)
        self.sink = self
        self.table = RoutingTable()
        self.failures: dict[Any, Any] = {}
        self.health_check_failures: dict[Any, Any] = {}
        self.served_once = asyncio.Event()
        self.served_once.set()

    def replace(self, source: str, objects: Any) -> None:
        self.state.replace(source, objects)

    def apply(self, source: str, obj: Object) -> None:
        self.state.apply(source, obj)

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self.state.remove(source, kind, key)

    def accept_last_known(self, source: str) -> None:
        self.state.accept_last_known(source)

    def report_errors(self, source: str, errors: Any) -> None:
        pass


class World:
    def __init__(self, directory: Path) -> None:
        self.full = False
        """Whether the disk has no room."""
        self.refused = 0
        """How often it was asked to write in vain."""
        self.clock = Clock()
        self.faults = FaultInjector(random.Random(0))
        self.cluster = Cluster()
        self.cluster.put("nodes", node(random.Random(0)))
        self.reconciler = Reconciler()
        self.supervisor = TaskSupervisor()
        api = FakeApi(self.cluster, self.faults, random.Random(0))
        source = KubernetesSource(api, node_name=NODE, clock=self.clock.monotonic)
        config = Config(node_name=NODE, state_dir=directory)
        reconciler = cast("Any", self.reconciler)
        self.cluster_client = ClusterClient(
            source,
            config,
            reconciler,
            self.supervisor,
            problems=lambda: None,
            files=SnapshotFiles(save=self._save),
        )

    def _save(self, path: Path, snapshot: Snapshot) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, snapshot)

    def follows(self, name: str) -> bool:
        """Whether a Service that comes now is heard of."""
        return ObjectName("default", name) in self.reconciler.state.service_names()

    def add(self, name: str) -> None:
        metadata = {"name": name, "namespace": "default"}
        spec = {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}
        self.cluster.put("services", {"metadata": metadata, "spec": spec})


def run(directory: Path, main: Callable[[World], Awaitable[None]]) -> None:
    world = World(directory)

    async def beside() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(world.cluster_client.run())
            await main(world)
            assert not running.done()
            running.cancel()

    def new_loop() -> VirtualLoop:
        return VirtualLoop(world.clock, random.Random(0), lambda _: 0)

    with ExitStack() as stack:
        stack.enter_context(world.clock.instead_of_time())
        stack.enter_context(asyncio.Runner(loop_factory=new_loop)).run(beside())


def raising(*_: object, **__: object) -> None:
    raise Bug("nobody has thought of it")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        pytest.param(
            "uproxy.control.event_sender.EventSender._compare",
            "Event sender",
            id="events",
        ),
        pytest.param(
            "uproxy.sources.last_known.fallback.LastKnownFallback._save",
            "last-known state saver",
            id="last-known state",
        ),
    ],
)
def test_what_is_beside_the_source_does_not_stop_it(tmp_path: Path, target: str, told: str) -> None:
    async def main(world: World) -> None:
        with patch(target, raising):
            world.cluster_client.changed()
            world.add("before")
            await asyncio.sleep(60)
            assert world.follows("before")
            assert [each for each in world.supervisor.reasons if told in each]
            world.add("meanwhile")
            await asyncio.sleep(5)
            assert world.follows("meanwhile")
        await asyncio.sleep(60)
        assert list(world.supervisor.reasons) == []

    run(tmp_path, main)


def test_the_state_is_kept_once_the_disk_has_room_again(tmp_path: Path) -> None:
    async def main(world: World) -> None:
        world.full = True
        world.add("before")
        await asyncio.sleep(60)
        assert world.follows("before")
        assert world.refused > 0
        world.full = False
        world.add("after")
        await asyncio.sleep(60)

    run(tmp_path, main)
    assert b'"after"' in next(tmp_path.glob("*.jsonl")).read_bytes()
