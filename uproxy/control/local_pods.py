"""Which pods live on this node, followed while they come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from uproxy.control.machine import MachineCalls
from uproxy.host.pod_networks import PodNetworks

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds after which routes are read again without a notification."""
_MIN_PERIOD: Final = 0.1
"""Seconds between two readings at least: a pod that starts is several notifications."""
_ROUTE_PAUSE: Final = 50.0
"""Routes are not read again for this many times as long as the last reading took. A router may have
a million of them, and reading them should take a fiftieth of the time at most."""
_TIMEOUT: Final = 5.0
"""Seconds that a sync waits for a reading."""


class LocalPods:
    """The networks of this node's pods, as they were when they could last be read."""

    def __init__(
        self,
        clusters: Callable[[], Sequence[str]],
        changed: Callable[[PodNetworks], None],
        calls: MachineCalls,
    ) -> None:
        """`clusters` returns the networks of all pods of the cluster; none: this node's are not
        looked for. `changed` is called when they have changed."""
        self._clusters = clusters
        self._changed = changed
        self._calls = calls
        self._networks = PodNetworks()
        self._read_within: tuple[str, ...] = ()
        """The networks of the cluster's pods as of the latest reading, which may have failed."""
        self._reading = asyncio.Lock()
        """Held while they are read."""
        self._trouble = ""
        self._wake = asyncio.Event()

    def clusters_changed(self) -> None:
        """`clusters` may return something else now."""
        self._wake.set()

    async def up_to_date(self) -> None:
        """Return when those that are within the present networks of the cluster's pods have been
        read. Otherwise a start, or a change of podCIDRs, would show backends this node's address
        until the next reading, which a NetworkPolicy may not let in."""
        if tuple(self._clusters()) != self._read_within:
            with contextlib.suppress(TimeoutError):
                # A reading that `run` has begun meanwhile may be of the present ones.
                async with asyncio.timeout(_TIMEOUT), self._reading:
                    if tuple(self._clusters()) != self._read_within:
                        await self._read()

    async def run(self) -> None:
        """Read them again whenever something may have changed, for ever."""
        async with self._calls.route_monitor() as monitor, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice(monitor.wait), name="changes of routes")
            while True:
                self._wake.clear()
                began = time.monotonic()
                async with self._reading:
                    await self._read()
                pause = _ROUTE_PAUSE * (time.monotonic() - began)
                await asyncio.sleep(max(_MIN_PERIOD, pause))
                await self._wake.wait()

    async def _notice(self, wait: Callable[[float], Awaitable[bool]]) -> None:
        while True:
            await wait(_PERIOD)
            self._wake.set()
            await asyncio.sleep(_MIN_PERIOD)

    async def _read(self) -> None:
        before, clusters = self._networks, tuple(self._clusters())
        try:
            self._networks = await asyncio.to_thread(self._calls.read_pod_networks, clusters)
        except Exception as error:
            if str(error) != self._trouble:
                log.warning("cannot read which pods live on this node: %s", error)
            self._trouble = str(error)
            return
        finally:
            self._read_within = clusters
        self._trouble = ""
        if self._networks != before:
            self._changed(self._networks)
