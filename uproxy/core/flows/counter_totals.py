"""The counters of all workers added up, including those of workers that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from uproxy.core.flows.counters import Counters
from uproxy.core.route import ServicePortName

KEPT = 300.0
"""Seconds for which the totals of a removed port are kept after its last flow: long enough for a
scrape or two, and as long as Prometheus looks back for a sample (its default, 5 minutes)."""
MOST_KEPT = 1000
"""The most removed ports whose totals are kept: Services may come and go by the thousand."""


class CounterTotals:
    """Totals by ServicePortName over all workers. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._totals: dict[ServicePortName, Counters] = {}
        self._active: dict[int, dict[ServicePortName, int]] = {}
        """Flows alive, by the worker's index."""
        self._gone: dict[ServicePortName, float] = {}
        """Removed ports without a flow, with the time since when; the oldest first."""

    @property
    def totals(self) -> dict[ServicePortName, Counters]:
        """The totals of every port that has had a flow. The objects go on counting."""
        return self._totals

    def add(self, worker: int, ports: Iterable[tuple[ServicePortName, Counters]]) -> None:
        """Add what a worker has counted since its last report, except `active`, which is a
        level."""
        alive = self._active.setdefault(worker, {})
        for name, counters in ports:
            total = self._totals.setdefault(name, Counters(dropped={}))
            before = alive.pop(name, 0)
            if counters.active:
                alive[name] = counters.active
            total.add(counters)
            total.active -= before

    def ended(self, worker: int) -> None:
        """Note that a worker has ended, and its flows with it."""
        for name, number in self._active.pop(worker, {}).items():
            self._totals[name].active -= number

    def forget(self, wanted: Callable[[ServicePortName], bool], now: float) -> None:
        """Drop the totals of ports that have been removed, and without a flow, for a while.
        `wanted` says whether a port exists."""
        for name, total in self._totals.items():
            if total.active or wanted(name):
                self._gone.pop(name, None)
            else:
                self._gone.setdefault(name, now)
        surplus = len(self._gone) - MOST_KEPT
        for place, (name, since) in enumerate(list(self._gone.items())):
            if place >= surplus and now - since < KEPT:
                return
            del self._gone[name], self._totals[name]
