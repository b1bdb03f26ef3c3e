"""Knows how backends fare: what workers have counted of each, and which do not answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Final, NamedTuple

from uproxy.control import sync_log
from uproxy.control.time_slices import TimeSlices
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.flows.backend_reachability import Changes, Failing, Reachability
from uproxy.core.flows.backend_totals import BackendTotals
from uproxy.core.report.backends import (
    CountedBackends,
    PortStatus,
    counted_backends,
    endpoints_of,
    pods_by_address,
    port_statuses,
)
from uproxy.core.route import ServicePortName
from uproxy.core.routing.table import RoutingTable
from uproxy.net.messages import Report

log = logging.getLogger(__name__)


class Periods(NamedTuple):
    """Seconds."""

    check: float = 1.0
    """Between looks at which backends answer."""
    tidy: float = 30.0
    """Between comparisons of all counts with the endpoints that there are."""


_PERIODS: Final = Periods()
_REST: Final = 20
"""After each of them there is a pause of at least this many times as long as it took: the counts of
100,000 backends take a second or two, and so do as many backends none of which answers."""


class Backends:
    """Takes the reports of workers, and says what is known about backends."""

    def __init__(
        self,
        state: ClusterState,
        table: Callable[[], RoutingTable],
        changed: Callable[[], None],
        *,
        periods: Periods = _PERIODS,
    ) -> None:
        """`changed` is called when backends have ceased to answer, or answer again."""
        self.totals = BackendTotals()
        self._state = state
        self._table = table
        self._changed = changed
        self._periods = periods
        self._reachability = Reachability()

    @property
    def failing(self) -> dict[ServicePortName, Failing]:
        """Service ports with backends that do not answer."""
        return self._reachability.degraded

    def reported(self, worker: int, report: Report) -> None:
        self.totals.add(worker, report.backends)
        self._reachability.record(report.backends, time.monotonic())

    def ports_of(self, service: ObjectName, now: float) -> Iterator[PortStatus]:
        """The ports of a Service and their backends; nothing if there is no such Service."""
        found = self._state.service(service)
        if found is not None:
            slices, node = self._state.slices_of(service), self._state.node.name
            yield from port_statuses(found, slices, self._table(), self.totals, now, node=node)

    def counted(self, most: int) -> CountedBackends:
        """The backends that have had a flow, as far as there is room for them."""
        slices_of, now = self._state.slices_of, time.monotonic()
        return counted_backends(self.totals, slices_of, most=most, now=now)

    async def run(self) -> None:
        """Check which backends answer, and forget those that are gone, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check())
            tasks.create_task(self._tidy())

    async def _check(self) -> None:
        pause = self._periods.check
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            changes = await self._changes(began)
            if changes:
                sync_log.log_reachability(changes)
                self._changed()
            pause = max(self._periods.check, _REST * (time.monotonic() - began))

    async def _changes(self, now: float) -> Changes:
        slices = TimeSlices()
        degraded, recovered = dict[ServicePortName, Failing](), list[ServicePortName]()
        for port in list(self._reachability.ports):
            found = self._reachability.check([port], self._table().backends_of, now, self._pods)
            degraded.update(found.degraded)
            recovered.extend(found.recovered)
            await slices.pause_if_due()
        return Changes(degraded, recovered)

    async def _tidy(self) -> None:
        pause = self._periods.tidy
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self._look_at_all()
            self.totals.forget(began)
            pause = max(self._periods.tidy, _REST * (time.monotonic() - began))

    async def _look_at_all(self) -> None:
        slices = TimeSlices()
        for service, group in groupby(sorted(self.totals.ports), key=_service_of):
            ports = list(group)
            found = endpoints_of(self._state.slices_of(service), ports)
            for port in ports:
                self.totals.look_at(port, found[port], time.monotonic())
            await slices.pause_if_due()

    def _pods(self, port: ServicePortName) -> Mapping[str, str]:
        return pods_by_address(self._state.slices_of(_service_of(port)))


def _service_of(port: ServicePortName) -> ObjectName:
    return ObjectName(port.namespace, port.name)
