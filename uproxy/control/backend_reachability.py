"""Notices Service ports of which no backend answers, and makes that known."""

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
"""Seconds between two looks."""


class BackendReachability:
    """Is told what workers report, and looks for changes now and then."""

    def __init__(
        self,
        backends: Callable[[ServicePortName], Collection[Backend]],
        changed: Callable[[], None],
        *,
        period: float = _PERIOD,
    ) -> None:
        """`backends`: those that a port has now. `changed` is called when a port has come to be
        answered by nobody, or no longer is."""
        self._backends = backends
        self._changed = changed
        self._period = period
        self._reachability = Reachability()

    @property
    def unreachable(self) -> dict[ServicePortName, FailedAttempts]:
        """Ports of which no backend answers."""
        return self._reachability.degraded

    def reported(self, report: Report) -> None:
        failing = dict(report.failing)
        attempts = (Attempts(name, each, failing.get(name, ())) for name, each in report.ports)
        self._reachability.note(attempts, time.monotonic())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            changes = self._reachability.look(self._backends, time.monotonic())
            if changes:
                sync_log.log_reachability(changes)
                self._changed()
