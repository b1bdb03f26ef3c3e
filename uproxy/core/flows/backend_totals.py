"""The counts of backends of all workers added up, including those of workers that have ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.counter_totals import KEPT, MOST_KEPT
from uproxy.core.route import Backend, ServicePortName

BackendReport = tuple[ServicePortName, Backend, BackendCounts]

_NOTHING: Mapping[Backend, BackendCounts] = {}


class _Key(NamedTuple):
    port: ServicePortName
    backend: Backend


class Exclusion(NamedTuple):
    """That a backend is set aside."""

    until: float
    """The latest time at which it gets new flows again from every worker, in monotonic seconds."""
    workers: int
    """How many workers have set it aside."""


class BackendTotals:
    """Totals by Service port and backend over all workers. Times are seconds of a monotonic
    clock."""

    def __init__(self) -> None:
        self._ports: dict[ServicePortName, dict[Backend, BackendCounts]] = {}
        self._active: dict[int, dict[_Key, int]] = {}
        """Flows alive, by the worker's index."""
        self._aside: dict[int, dict[_Key, float]] = {}
        """Until when each worker has set which backends aside."""
        self._pods: dict[ServicePortName, dict[Backend, str]] = {}
        """Whose counts these are: an address may become that of another pod."""
        self._gone: dict[_Key, float] = {}
        """Backends without a flow that are no endpoints any more, with the time since when."""

    @property
    def ports(self) -> Collection[ServicePortName]:
        """The ports that have had a flow, in the order of their first ones."""
        return self._ports.keys()

    def of(self, port: ServicePortName) -> Mapping[Backend, BackendCounts]:
        """The totals of each backend of a port that has had a flow; the objects go on counting.
        `active` is the sum over all workers, and `aside_until` means nothing: see `exclusions`."""
        return self._ports.get(port, _NOTHING)

    def pod(self, port: ServicePortName, backend: Backend) -> str:
        """The name of the pod whose counts these are, as far as `look_at` knows it; "": it does
        not."""
        return self._pods.get(port, {}).get(backend, "")

    def exclusions(self, port: ServicePortName, now: float) -> dict[Backend, Exclusion]:
        """The backends of a port that are set aside."""
        found: dict[Backend, Exclusion] = {}
        for backend in self.of(port):
            key = _Key(port, backend)
            ends = [aside.get(key, 0.0) for aside in self._aside.values()]
            ends = [until for until in ends if until > now]
            if ends:
                found[backend] = Exclusion(max(ends), len(ends))
        return found

    def add(self, worker: int, reports: Iterable[BackendReport]) -> None:
        """Add what a worker has counted since its last report."""
        alive = self._active.setdefault(worker, {})
        aside = self._aside.setdefault(worker, {})
        for port, backend, counts in reports:
            key = _Key(port, backend)
            total = self._ports.setdefault(port, {}).get(backend)
            if total is None:
                total = self._ports[port][backend] = BackendCounts()
            total.active += counts.active - alive.pop(key, 0)
            if counts.active:
                alive[key] = counts.active
            if counts.aside_until:
                aside[key] = counts.aside_until
            else:
                aside.pop(key, None)
            _add(total, counts)

    def ended(self, worker: int) -> None:
        """Note that a worker has ended, its flows with it, and what it had set aside."""
        for (port, backend), number in self._active.pop(worker, {}).items():
            total = self.of(port).get(backend)
            if total is not None:
                total.active -= number
        self._aside.pop(worker, None)

    def look_at(self, port: ServicePortName, endpoints: Mapping[Backend, str], now: float) -> None:
        """Compare the backends of a port with the endpoints that it has now, each with the name of
        its pod. What was counted for another pod that had the address before is dropped. Backends
        that are no endpoints, and have no flow, are dropped after a while: see `forget`."""
        pods = self._pods.setdefault(port, {})
        for backend, total in list(self.of(port).items()):
            key, pod = _Key(port, backend), endpoints.get(backend)
            if pod is None and not total.active:
                self._gone.setdefault(key, now)
            else:
                self._gone.pop(key, None)
            if pod is not None and pods.setdefault(backend, pod) != pod:
                pods[backend] = pod
                self._ports[port][backend] = BackendCounts(active=total.active)

    def forget(self, now: float) -> None:
        """Drop the backends that have been gone for long, and the oldest of too many."""
        surplus = len(self._gone) - MOST_KEPT
        for place, (key, since) in enumerate(list(self._gone.items())):
            if place >= surplus and now - since < KEPT:
                return
            del self._gone[key]
            total = self.of(key.port).get(key.backend)
            if total is not None and not total.active:
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        for aside in self._aside.values():
            aside.pop(key, None)
        self._pods.get(key.port, {}).pop(key.backend, None)
        del self._ports[key.port][key.backend]
        if not self._ports[key.port]:
            del self._ports[key.port]
            self._pods.pop(key.port, None)


def _add(total: BackendCounts, added: BackendCounts) -> None:
    """Add differences. The levels are the caller's business."""
    total.flows += added.flows
    total.client_bytes += added.client_bytes
    total.backend_bytes += added.backend_bytes
    total.retries += added.retries
    total.ejections += added.ejections
    total.connect_seconds += added.connect_seconds
    for error, number in added.failures.items():
        total.failures[error] = total.failures.get(error, 0) + number
    if added.connect_times:
        before = total.connect_times or [0] * len(added.connect_times)
        total.connect_times = [a + b for a, b in zip(before, added.connect_times, strict=True)]
    if added.last_error_at >= total.last_error_at and added.last_error:
        total.last_error, total.last_error_at = added.last_error, added.last_error_at
