"""Records the recent past for the status page: samples of the traffic, and Events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import uproxy
from uproxy.core.flows.counters import Counters
from uproxy.core.report.history import PERIOD, History, HistoryView
from uproxy.core.report.problems import Event, Problems, Reference, starting
from uproxy.core.report.recent_events import RecentEvents
from uproxy.core.route import ServicePortName


class Recording:
    """Keeps what `History` and `RecentEvents` keep, as long as it runs.

    `problems` returns what is wrong now, or None as long as it is too early to say; `exists` says
    whether an object is still there. The cluster is told by EventSender; this is for people who
    look at this node, and works without a cluster.
    """

    def __init__(
        self,
        node: str,
        *,
        counters: Callable[[], Mapping[ServicePortName, Counters]],
        problems: Callable[[], Problems | None],
        exists: Callable[[Reference], bool],
        period: float = PERIOD,
    ) -> None:
        self.started = time.time()
        """Unix seconds."""
        self._counters = counters
        self._problems = problems
        self._exists = exists
        self._period = period
        self._history = History()
        self._events = RecentEvents(node)
        self.happened([starting(node, uproxy.__version__)])

    def happened(self, events: Iterable[Event]) -> None:
        """Record these, too."""
        self._events.add(events, wall=time.time())

    def view(self, after: float) -> HistoryView:
        """What is recorded; samples only from later than a Unix time."""
        return HistoryView(self._period, self._history.after(after), self._events.newest_first())

    async def run(self) -> None:
        """Record, until cancelled."""
        while True:
            self.record()
            await asyncio.sleep(self._period)

    def record(self) -> None:
        """Take one sample."""
        wall = time.time()
        self._history.add(self._counters(), now=time.monotonic(), wall=wall)
        problems = self._problems()
        if problems is not None:
            self._events.compare(problems, exists=self._exists, wall=wall)
