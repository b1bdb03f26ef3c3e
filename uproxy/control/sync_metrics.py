"""What the control loop measures of its syncs, for /metrics and the health endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import FAMILIES
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.network_programming import PendingTriggers, Trigger
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.routing.table import RoutingTable

_MAX_TRIGGERS: Final = 10_000
"""Changes of which the latency is measured at the end of a sync. As long as one kind of objects
cannot be listed no sync ends, while the other objects of the cluster go on changing."""


class SyncMetrics:
    """Counts changes as they arrive, and syncs as they begin and end."""

    def __init__(
        self,
        telemetry: Telemetry,
        health: ProxyHealth,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._first_unserved: float | None = None
        """When the first change came that the current sync does not serve."""
        self._telemetry = telemetry
        self._health = health
        self._programming = PendingTriggers(started=time.time())
        self._serving: list[Trigger] = []
        """The changes that the current sync serves."""

    def applying(self, state: ClusterState, obj: Object) -> None:
        """An object is about to be added or changed in `state`."""
        self._count(type(obj))
        if isinstance(obj, EndpointSlice):
            self._programming.applied(state.endpoint_slice(obj.key), obj)

    def removing(self, state: ClusterState, kind: type[Object], key: ObjectName) -> None:
        """An object is about to be removed from `state`."""
        self._count(kind)
        if kind is EndpointSlice:
            self._programming.removed(state.endpoint_slice(key))

    def queued(self) -> None:
        """A sync has been asked for."""
        now, wall = self._monotonic(), time.time()
        if self._first_unserved is None:
            self._first_unserved = now
        for family in FAMILIES:
            self._health.queued_update(family, now=now)
            self._telemetry.sync_queued(family, wall)

    def begin(self) -> None:
        """A sync takes all changes so far."""
        self._first_unserved = None
        self._telemetry.changes_taken()
        self._serving += self._programming.take()
        del self._serving[:-_MAX_TRIGGERS]

    def done(self, table: RoutingTable, seconds: float, *, full: bool) -> None:
        """A sync has ended. `full`: every Service was looked at."""
        wall = time.time()
        for family in FAMILIES:
            self._telemetry.sync_done(family, seconds, wall, full=full)
            self._telemetry.without_local_endpoints(
                family,
                internal=table.no_local_endpoints["internal", family],
                external=table.no_local_endpoints["external", family],
            )
            self._health.updated(family, wall=wall)
            if self._first_unserved is not None:
                self._health.queued_update(family, now=self._first_unserved)
        for trigger in self._serving:
            self._telemetry.network_programmed(wall - trigger.wall, trigger.family)
        self._serving.clear()

    def _count(self, kind: type[Object]) -> None:
        if kind is Service:
            self._telemetry.service_changed()
        elif kind in (EndpointSlice, Endpoints):
            self._telemetry.endpoints_changed()
