"""Follows manifests. What `uproxy check` says of their Services is logged, each finding once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.reconciler import Reconciler
from uproxy.control.time_slices import TimeSlices
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.findings import Finding, Locate, new_lines
from uproxy.core.report.service_findings import service_findings
from uproxy.core.report.unusable_objects import MOST
from uproxy.sources.manifests.source import ManifestSource

log = logging.getLogger(__name__)

_PERIOD: Final = 1.0
"""Seconds between two looks at whether anything has changed."""
_REST: Final = 20.0
"""How many times as long as it took to look at all Services they are not looked at again. For
25,000 Services it takes about 0.3 s."""


async def follow_manifests(
    source: ManifestSource, reconciler: Reconciler, load_balancer: LoadBalancer | None
) -> None:
    """Deliver what manifests say until cancelled, and log what is wrong with them."""
    sink = reconciler.sink
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_Findings(reconciler, source.locate).run(), name="findings in manifests")
        await source.run(load_balancer.sink(sink) if load_balancer is not None else sink)


class _Findings:
    def __init__(self, reconciler: Reconciler, locate: Locate) -> None:
        self._reconciler = reconciler
        self._locate = locate
        self._changed = True
        reconciler.state.observe(self._object_changed)

    def _object_changed(self, kind: type[Object], name: ObjectName) -> None:
        self._changed = True

    async def run(self) -> None:
        """Until cancelled, or until an unexpected error: no traffic depends on this."""
        try:
            await self._reconciler.served_once.wait()
            await self._follow()
        except Exception:
            log.exception("cannot say what is wrong with manifests any more")

    async def _follow(self) -> None:
        before: Sequence[Finding] = ()
        table = None
        while True:
            # An object may have changed, and the table has not yet: then it does so soon.
            if self._changed or table is not self._reconciler.table:
                self._changed, table = False, self._reconciler.table
                began = time.monotonic()
                now = await self._found()
                for line in new_lines(before, now):
                    log.warning("%s", line)
                before = now
                await asyncio.sleep(_REST * (time.monotonic() - began))
            await asyncio.sleep(_PERIOD)

    async def _found(self) -> Sequence[Finding]:
        found: list[Finding] = []
        slices = TimeSlices()
        state, table = self._reconciler.state, self._reconciler.table
        for some in service_findings(state, table, self._locate):
            found += some
            if len(found) > MOST:
                break
            await slices.pause_if_due()
        return found
