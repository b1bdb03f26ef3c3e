"""The network segments of this machine, followed while they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from uproxy.control.machine import Monitor
from uproxy.core.announcing.step import LocalInterface
from uproxy.host.change_monitor import SegmentMonitor
from uproxy.host.segments import Segment, read_segments

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds after which the interfaces are read again without a notification."""
_MIN_PERIOD: Final = 0.02
"""Seconds between two readings at least: clients wait while a pulled cable is not noticed."""


@dataclass(frozen=True, kw_only=True)
class SegmentCalls:
    """How they are read, so that tests can put a model in the place of this machine."""

    read: Callable[[], Mapping[str, Segment]] = read_segments
    monitor: Callable[[], Monitor] = SegmentMonitor


_LINUX: Final = SegmentCalls()


class LocalSegments:
    """The segments as they were when they could last be read. An async context manager."""

    def __init__(self, calls: SegmentCalls = _LINUX) -> None:
        self.found: Mapping[str, Segment] = {}
        """By the name of the interface."""
        self.interfaces: Mapping[str, LocalInterface] = {}
        """Those whose neighbours ask for addresses at all, as an election needs them."""
        self._calls = calls
        self._monitor: Monitor | None = None
        self._trouble = ""

    async def __aenter__(self) -> Self:
        monitor = self._calls.monitor()
        await monitor.__aenter__()
        self._monitor = monitor
        await self._read()
        return self

    async def __aexit__(self, *_: object) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            await monitor.__aexit__(None, None, None)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Read them again whenever something may have changed, until cancelled."""
        assert self._monitor is not None
        while True:
            await self._monitor.wait(_PERIOD)
            if await self._read():
                changed()
            await asyncio.sleep(_MIN_PERIOD)

    async def _read(self) -> bool:
        """Returns whether something has changed."""
        try:
            found = await asyncio.to_thread(self._calls.read)
        except OSError as error:
            self._tell(str(error))
            return False
        self._tell("")
        if found == self.found:
            return False
        self.found = found
        self.interfaces = {
            name: LocalInterface(each.subnets, each.carrier, each.mac)
            for name, each in found.items()
            if each.arp
        }
        return True

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("cannot read the interfaces of this machine: %s", trouble)
        self._trouble = trouble
