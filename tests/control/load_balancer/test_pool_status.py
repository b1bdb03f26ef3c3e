from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fake_api.kinds import POOLS
from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.control.load_balancer.ask import asking
from uproxy.control.load_balancer.pool_status import PoolStatusWriter
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family

NAMESPACE = "metallb-system"


class World:
    def __init__(self, server: FakeApi, api: ApiClient) -> None:
        self.server = server
        self.leading = True
        self.names = [ObjectName(NAMESPACE, "one"), ObjectName(NAMESPACE, "two")]
        self.usage: dict[str, Mapping[Family, PoolUsage]] = {}
        self.writer = PoolStatusWriter(
            asking(api),
            pools=lambda: self.names,
            usage=lambda: self.usage,
            leading=lambda: self.leading,
            period=0.01,
            retry=0.05,
        )
        for name in ("one", "two"):
            server.apply(
                {
                    "apiVersion": "metallb.io/v1beta1",
                    "kind": "IPAddressPool",
                    "metadata": {"name": name, "namespace": NAMESPACE},
                    "spec": {"addresses": ["192.0.2.0/24"]},
                }
            )

    def use(self, assigned: int, available: int, *names: str) -> None:
        for name in names:
            self.usage[name] = {"IPv4": PoolUsage(assigned, available)}
        self.writer.usage_changed()

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.server.store.get(POOLS, (NAMESPACE, name)).data.get("status") or {})

    def patches(self) -> int:
        return sum(each.method == "PATCH" for each in self.server.requests)


@asynccontextmanager
async def writing() -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(Access(origin="test", server=server.url)) as api:
        world = World(server, api)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(world.writer.run())
            yield world
            task.cancel()


async def test_figures_are_written_when_they_change() -> None:
    async with writing() as world:
        world.use(1, 255, "one", "two", "from flags")
        expected = {
            "assignedIPv4": 1,
            "availableIPv4": 255,
            "assignedIPv6": 0,
            "availableIPv6": 0,
        }
        await world.server.until(lambda: world.status("two") == expected)
        assert world.status("one") == expected
        world.use(2, 254, "one")
        await world.server.until(lambda: world.status("one")["assignedIPv4"] == 2)
        assert world.patches() == 3


async def test_who_does_not_lead_writes_nothing_and_writes_all_when_it_does() -> None:
    async with writing() as world:
        world.leading = False
        world.use(1, 255, "one")
        world.use(1, 255, "two")
        world.leading = True
        world.writer.usage_changed()
        await world.server.until(lambda: world.status("one") and world.status("two"))
        assert world.patches() == 2


async def test_what_cannot_be_written_is_tried_again_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with writing() as world:
            world.server.answer(403, on="ipaddresspools/one", times=3)
            world.server.answer(503, on="ipaddresspools/two", times=1)
            world.names.append(ObjectName(NAMESPACE, "gone"))
            world.use(1, 255, "one", "two", "gone")
            await world.server.until(lambda: world.status("one") and world.status("two"))
    assert caplog.text.count("grant patch on ipaddresspools/status") == 1
