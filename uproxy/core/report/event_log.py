"""Events as requests to the API server. A repeated Event is counted in one object, and a flood is
cut.

The rules are those of client-go's recorders (tools/events and tools/record), which cluster
operators know from every other component.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from uproxy.core.printable import printable
from uproxy.core.report.problems import Event, Reference
from uproxy.core.timestamps import micro_time_text

CONTROLLER: Final = "uproxy"
SERIES_TIME: Final = 360.0
"""Seconds after which a repeated Event gets an object of its own (client-go's finishTime, 6
min)."""
BURST: Final = 25
"""How many Events about one object may be sent at once (client-go's defaultSpamBurst)."""
REFILL: Final = 300.0
"""Seconds until one more may be sent (client-go's defaultSpamQPS, 1 in 5 min)."""

_KEPT: Final = 4096
"""How many series, and how many budgets, are remembered (client-go's maxLruCacheEntries)."""
_LONGEST_NOTE: Final = 1024
"""Bytes of a note that the API server accepts."""
_NO_NAMESPACE: Final = "default"
"""The namespace of Events about objects that have none, such as Nodes."""


class EventRequest(NamedTuple):
    """A request to be sent to the API server."""

    method: str
    path: str
    content_type: str
    body: dict[str, Any]
    event: Event
    uid: str


class _Series(NamedTuple):
    path: str
    times: int
    last: float


class _Budget(NamedTuple):
    tokens: float
    at: float


class EventLog:
    """Turns Events into requests. `now` is monotonic time and `wall` Unix time, both in seconds.

    As in client-go, the uid counts: an object that was deleted and created again has Events and a
    budget of its own. `kubectl describe` does not show those of its predecessor.
    """

    def __init__(self, instance: str) -> None:
        """`instance` is the name of the node, which tells this program from that of other nodes."""
        self._instance = f"{CONTROLLER}-{instance}"[:128]
        self._series: OrderedDict[tuple[Event, str], _Series] = OrderedDict()
        self._budgets: OrderedDict[tuple[Reference, str], _Budget] = OrderedDict()

    def request(self, event: Event, *, uid: str, now: float, wall: float) -> EventRequest | None:
        """The request for an Event; None if there were too many about its object.

        `uid` is that of the object now.
        """
        if not self._allowed((event.regarding, uid), now):
            return None
        series = self._series.pop((event, uid), None)
        if series is None or now - series.last > SERIES_TIME:
            return self._first(event, uid, now, wall)
        series = _Series(series.path, series.times + 1, now)
        self._remember((event, uid), series)
        body = {"series": {"count": series.times, "lastObservedTime": micro_time_text(wall)}}
        return EventRequest("PATCH", series.path, "application/merge-patch+json", body, event, uid)

    def forget(self, request: EventRequest) -> None:
        """Forget the object of a request, because it could not be created or is gone. The next
        repetition creates another one."""
        self._series.pop((request.event, request.uid), None)

    def _first(self, event: Event, uid: str, now: float, wall: float) -> EventRequest:
        regarding = event.regarding
        namespace = regarding.namespace or _NO_NAMESPACE
        collection = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        # As in client-go. It is unique unless an object gets two Events in the same nanosecond.
        name = f"{regarding.name}.{int(wall * 1e9):x}"
        reference = {"apiVersion": "v1", "kind": regarding.kind, "name": regarding.name, "uid": uid}
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro_time_text(wall),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": event.action,
            "reason": event.reason,
            "regarding": {
                key: value
                for key, value in {**reference, "namespace": regarding.namespace}.items()
                if value
            },
            "note": _fitting(event.note),
            "type": event.type,
        }
        self._remember((event, uid), _Series(f"{collection}/{name}", 1, now))
        return EventRequest("POST", collection, "application/json", body, event, uid)

    def _remember(self, key: tuple[Event, str], series: _Series) -> None:
        self._series[key] = series
        if len(self._series) > _KEPT:
            self._series.popitem(last=False)

    def _allowed(self, regarding: tuple[Reference, str], now: float) -> bool:
        budget = self._budgets.pop(regarding, _Budget(BURST, now))
        tokens = min(BURST, budget.tokens + (now - budget.at) / REFILL)
        allowed = tokens >= 1
        self._budgets[regarding] = _Budget(tokens - 1 if allowed else tokens, now)
        if len(self._budgets) > _KEPT:
            self._budgets.popitem(last=False)
        return allowed


def _fitting(note: str) -> str:
    """A note that is short enough and safe to print, since kubectl prints notes as they are."""
    note = printable(note)
    raw = note.encode()
    if len(raw) <= _LONGEST_NOTE:
        return note
    return raw[: _LONGEST_NOTE - 3].decode(errors="ignore") + "..."
