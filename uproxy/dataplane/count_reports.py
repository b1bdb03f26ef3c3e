"""What a worker reports of its counters: what was added since its last report."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice
from typing import Final

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.ports import Ports

MOST_BACKENDS: Final = 1000
"""Backends in one report, about 80 KB: two of them fit into the channel at any time. Those that are
left come first in the next one."""

_NOTHING = Counters()

BackendReport = tuple[ServicePortName, Backend, BackendCounts]


class CountReports:
    """Knows what has been reported of each port of a Service."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._reported: dict[ServicePortName, Counters] = {}
        self._unfinished: Iterator[BackendReport] | None = None
        """The walk over all backends that the last report has not finished."""

    def changes(self, served: Container[ServicePortName]) -> list[tuple[ServicePortName, Counters]]:
        """What was counted since the last call. Ports that are not `served` and have no flow are
        forgotten once everything is reported.

        Sums may fall: a datagram is counted when it is queued for the ring, and taken from the
        counter again if the kernel does not send it, perhaps after it was reported. Prometheus
        takes a counter that falls for one that has begun anew. So a difference is never negative,
        and the next datagrams make up for what was reported too early.
        """
        changes = []
        gone = set()
        for name, port in self._ports.all.items():
            before = self._reported.get(name, _NOTHING)
            if port.counters != before and (added := _added(port.counters, before)) is not None:
                changes.append((name, added))
                # A copy, since `_NOTHING` is what all ports begin with.
                reported = self._reported[name] = _copy(before)
                reported.add(added)
                # Flows alive now, not the sum of this number and the previous one.
                reported.active = added.active
            elif name not in served and port.counters.active == 0 and not port.balancer.tallies:
                gone.add(name)
        self._ports.forget(gone)
        for name in gone:
            self._reported.pop(name, None)
        return changes

    def backends(self, clock_offset: float, most: int = MOST_BACKENDS) -> list[BackendReport]:
        """What was counted of backends since they were reported, `most` at a time."""
        walk = self._unfinished or self._walk(clock_offset)
        found = list(islice(walk, most))
        self._unfinished = walk if len(found) == most else None
        return found

    def _walk(self, clock_offset: float) -> Iterator[BackendReport]:
        for name, port in list(self._ports.all.items()):
            for backend in list(port.balancer.tallies):
                counts = port.balancer.take_counts(backend, clock_offset)
                if counts is not None:
                    yield name, backend, counts


def _copy(counters: Counters) -> Counters:
    copy = Counters(dropped={})
    copy.add(counters)
    return copy


def _added(now: Counters, before: Counters) -> Counters | None:
    """What was added since; `active` is absolute. None: nothing."""
    added = Counters(
        flows=now.flows - before.flows,
        active=now.active,
        client_bytes=max(now.client_bytes - before.client_bytes, 0),
        backend_bytes=max(now.backend_bytes - before.backend_bytes, 0),
        client_datagrams=max(now.client_datagrams - before.client_datagrams, 0),
        backend_datagrams=max(now.backend_datagrams - before.backend_datagrams, 0),
        dial_failures=now.dial_failures - before.dial_failures,
        retries=now.retries - before.retries,
        masqueraded=now.masqueraded - before.masqueraded,
        dials=now.dials - before.dials,
        dropped={
            reason: count - before.dropped.get(reason, 0)
            for reason, count in now.dropped.items()
            if count != before.dropped.get(reason, 0)
        },
    )
    return None if added == Counters(active=before.active) else added
