"""Which pods live on this node: when that is read, and who is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from tests.http.client import eventually
from uproxy.control.local_pods import LocalPods
from uproxy.control.machine import MachineCalls
from uproxy.host.pod_networks import PodNetworks


class Played:
    """A machine that has exactly the pods that are asked for."""

    def __init__(self) -> None:
        self.clusters: tuple[str, ...] = ()
        self.broken = False
        self.read: list[Sequence[str]] = []
        self.told: list[PodNetworks] = []
        self.go_on = threading.Event()
        self.go_on.set()
        calls = MachineCalls(read_pod_networks=self._read)
        self.pods = LocalPods(lambda: self.clusters, self.told.append, calls)

    def _read(self, clusters: Sequence[str]) -> PodNetworks:
        self.read.append(clusters)
        self.go_on.wait(15)
        if self.broken:
            raise OSError("no netlink")
        return PodNetworks(pods=tuple(clusters))


async def test_networks_that_have_not_been_read_are_read() -> None:
    played = Played()
    await played.pods.up_to_date()
    assert played.read == []
    for clusters in (("10.0.0.0/24",), ("10.0.1.0/24",), ()):
        played.clusters = clusters
        await played.pods.up_to_date()
        await played.pods.up_to_date()
        assert played.told[-1] == PodNetworks(pods=clusters)
    assert played.read == [("10.0.0.0/24",), ("10.0.1.0/24",), ()]


async def test_a_failure_delays_one_sync_only() -> None:
    played = Played()
    played.clusters, played.broken = ("10.0.0.0/24",), True
    await played.pods.up_to_date()
    await played.pods.up_to_date()
    assert len(played.read) == 1
    assert played.told == []


async def test_a_reading_that_is_under_way_is_waited_for() -> None:
    played = Played()
    played.clusters = ("10.0.0.0/24",)
    played.go_on.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(played.pods.up_to_date())
        await eventually(lambda: len(played.read) == 1)
        second = tasks.create_task(played.pods.up_to_date())
        await asyncio.sleep(0)
        assert not second.done()
        played.go_on.set()
        await first
        await second
    assert played.told == [PodNetworks(pods=played.clusters)]
    assert len(played.read) == 1
