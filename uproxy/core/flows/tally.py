"""What all workers have counted, dead ones included, until it is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from uproxy.core.flows.counters import Counters
from uproxy.core.route import ServicePortName

KEPT = 300.0
"""Seconds that the counts of a port which is gone stay: a scrape or two after its last flow, and
as long as Prometheus looks back for a sample."""
MOST_KEPT = 1000
"""Ports which are gone and have counts all the same: Services may come and go by the thousand."""


class Tally:
    """Sums by ServicePortName over the workers."""

    def __init__(self) -> None:
        self._totals: dict[ServicePortName, Counters] = {}
        self._active: dict[int, dict[ServicePortName, int]] = {}
        """Flows alive, by worker."""
        self._gone: dict[ServicePortName, float] = {}
        """Ports that no longer exist, with the time of their last flow; the oldest first."""

    @property
    def totals(self) -> dict[ServicePortName, Counters]:
        """For every port that has had a flow; they go on to change."""
        return self._totals

    def add(self, worker: int, ports: Iterable[tuple[ServicePortName, Counters]]) -> None:
        """Add what a worker has counted since its last report; `active` is absolute."""
        alive = self._active.setdefault(worker, {})
        for name, counters in ports:
            total = self._totals.setdefault(name, Counters(dropped={}))
            before = alive.pop(name, 0)
            if counters.active:
                alive[name] = counters.active
            total.add(counters)
            total.active -= before

    def ended(self, worker: int) -> None:
        """A worker has ended, and with it its flows."""
        for name, number in self._active.pop(worker, {}).items():
            self._totals[name].active -= number

    def forget(self, wanted: Callable[[ServicePortName], bool], now: float) -> None:
        """Drop the counts of ports that have been gone, without a flow, for a while."""
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
