"""Tells systemd how the program is doing, if systemd has started it and asks for that."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

from uproxy.control.daemon import Daemon
from uproxy.host import systemd
from uproxy.host.systemd import ALIVE, READY, STOPPING, Systemd, notify_address, watchdog_time

_PERIOD: Final = 10.0
"""Seconds between two statuses, or less: a watchdog is fed three times in its period, so that one
datagram may be lost."""


class ServiceNotices:
    """What systemd is told about a daemon; nothing, if there is no systemd to tell."""

    def __init__(self, daemon: Daemon, to: Systemd | None, watchdog: float | None) -> None:
        """`watchdog`: seconds in which systemd wants to hear that the program is alive."""
        self._daemon = daemon
        self._systemd = to
        self._period = _PERIOD if watchdog is None else min(_PERIOD, watchdog / 3)
        self._ready = False

    @classmethod
    def of_this_process(cls, daemon: Daemon) -> Self:
        address = notify_address(os.environ)
        to = Systemd(address) if address is not None else None
        return cls(daemon, to, watchdog_time(os.environ, os.getpid()))

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """While the context is open, systemd is told what it asks for."""
        if self._systemd is None:
            yield
            return
        async with asyncio.TaskGroup() as tasks:
            told = [
                tasks.create_task(self._tell_ready(self._systemd), name="systemd: ready"),
                tasks.create_task(self._tell_status(self._systemd), name="systemd: status"),
            ]
            try:
                yield
            finally:
                for task in told:
                    task.cancel()

    def reload(self, act: Callable[[], None]) -> None:
        """Tell systemd that a reload begins, carry it out, and tell systemd that it is over."""
        if self._systemd is None or not self._ready:
            act()
            return
        self._systemd.tell(systemd.reloading(time.monotonic()))
        act()
        self._systemd.tell(READY, self._status())

    def stopping(self) -> None:
        """Tell systemd that the program is stopping, and how long that may take."""
        if self._systemd is not None:
            # Flows get the time that was configured, whatever the unit says about it.
            timeout = self._daemon.config.drain_timeout
            text = systemd.status(f"draining for up to {timeout:g} s")
            self._systemd.tell(STOPPING, systemd.more_time(timeout + _PERIOD), text)

    async def _tell_ready(self, to: Systemd) -> None:
        await self._daemon.served()
        self._ready = True
        to.tell(READY, self._status())

    async def _tell_status(self, to: Systemd) -> None:
        while True:
            # A restart would cut the flows of all workers. So systemd restarts the program only
            # where /livez would fail. That something is sent shows that the event loop runs; what
            # remains to be checked is whether changes are served, and whether there are workers. A
            # single worker that hangs is replaced by the control process.
            fed = [ALIVE] if self._daemon.status.health.alive(time.monotonic()) else []
            to.tell(self._status(), *fed)
            await asyncio.sleep(self._period)

    def _status(self) -> str:
        return systemd.status(described(self._daemon))


def described(daemon: Daemon) -> str:
    """How the program is doing, in one line."""
    found = daemon.status
    missing = found.waiting_for()
    if missing:
        return f"waiting for {' and '.join(missing)}"
    reasons = found.reasons_not_ready()
    text = (
        f"{len(daemon.reconciler.table.routes):,} frontends, "
        f"{daemon.workers.active_flows:,} active flows, {len(daemon.workers.running)} workers"
    )
    if not reasons:
        return f"ready; {text}"
    more = f" (and {len(reasons) - 1:,} more reasons)" if len(reasons) > 1 else ""
    return f"not ready; {text}; {reasons[0].text}{more}"
