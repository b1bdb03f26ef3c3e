from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Self

import pytest

from uproxy.control.load_balancer.local_segments import LocalSegments, SegmentCalls
from uproxy.core.announcing.step import LocalInterface
from uproxy.host.segments import Segment

ETH0 = Segment(index=2, mac="02:00:00:00:00:01", carrier=True, subnets=("192.0.2.0/24",))
TUNNEL = Segment(index=3, mac="", carrier=True, subnets=("203.0.113.0/24",), arp=False)


class Kernel:
    """Interfaces, and a monitor of them."""

    def __init__(self) -> None:
        self.segments: Mapping[str, Segment] = {"eth0": ETH0, "tun0": TUNNEL}
        self.broken = False
        self.opened = 0
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    @property
    def calls(self) -> SegmentCalls:
        return SegmentCalls(read=self._read, monitor=lambda: self)

    def become(self, segments: Mapping[str, Segment]) -> None:
        self.segments = segments
        self._changed.set()

    def fail(self, broken: bool) -> None:
        self.broken = broken
        self._changed.set()

    def _read(self) -> Mapping[str, Segment]:
        if self.broken:
            self._loop.call_soon_threadsafe(self.failed.set)
            raise OSError("no netlink")
        return self.segments

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.opened -= 1

    async def wait(self, at_most: float) -> bool:
        await self._changed.wait()
        self._changed.clear()
        return True


async def test_changes_are_followed_and_only_they_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel()
    told = asyncio.Queue[None]()
    ours = LocalSegments(kernel.calls)
    async with ours, asyncio.TaskGroup() as tasks, asyncio.timeout(15):
        assert ours.found == kernel.segments
        assert ours.interfaces == {"eth0": LocalInterface(("192.0.2.0/24",), True, ETH0.mac)}
        task = tasks.create_task(ours.follow(lambda: told.put_nowait(None)))
        kernel.become(dict(kernel.segments))
        kernel.fail(True)
        await kernel.failed.wait()
        assert ours.found  # What cannot be read stays as it was.
        assert told.empty()
        down = Segment(index=2, mac=ETH0.mac, carrier=False, subnets=ETH0.subnets)
        kernel.fail(False)
        kernel.become({"eth0": down})
        await told.get()
        assert ours.interfaces == {"eth0": LocalInterface(("192.0.2.0/24",), False, ETH0.mac)}
        assert [each.levelno for each in caplog.records] == [logging.WARNING]
        task.cancel()
    assert kernel.opened == 0
