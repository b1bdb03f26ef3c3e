"""Notices Service ports of which no backend answers, and logs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

from uproxy.control import sync_log
from uproxy.core.flows.backend_reachability import Attempts, FailedAttempts, Reachability
from uproxy.core.route import Backend, ServicePortName
from uproxy.net.messages import Report

_PERIOD: Final = 1.0
"""Seconds between two checks."""


class BackendReachability:
    """Takes the reports of workers, and checks now and then which Service ports are reachable."""

    def __init__(
        self,
        backends: Callable[[ServicePortName], Collection[Backend]],
        changed: Callable[[], None],
        *,
        period: float = _PERIOD,
    ) -> None:
        """`backends` returns those that a port has now. `changed` is called when a port has become
        unreachable, or reachable again."""
        self._backends = backends
        self._changed = changed
        self._period = period
        self._reachability = Reachability()

    @property
    def unreachable(self) -> dict[ServicePortName, FailedAttempts]:
        """Service ports of which no backend answers, and the attempts that show it."""
        return self._reachability.degraded

    def reported(self, report: Report) -> None:
        failing = dict(report.failing)
        attempts = (Attempts(name, each, failing.get(name, ())) for name, each in report.ports)
        self._reachability.record(attempts, time.monotonic())

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            changes = self._reachability.check(self._backends, time.monotonic())
            if changes:
                sync_log.log_reachability(changes)
                self._changed()
