"""Which changes of endpoints wait to be served, for the metric
network_programming_duration_seconds.

The EndpointSlice controller notes on each slice when the change happened that made it write the
slice. Which of these times count is decided as in kube-proxy (endpointschangetracker.go).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import EndpointSlice, ObjectName
from uproxy.core.ip import FAMILIES, Family

TRIGGER_TIME: Final = "endpoints.kubernetes.io/last-change-trigger-time"
"""Annotation of an EndpointSlice: RFC 3339 with up to nine digits of fraction."""


class Trigger(NamedTuple):
    """A change of endpoints of one family, and when it happened in the cluster."""

    family: Family
    wall: float
    """Seconds since the Unix epoch."""


class PendingTriggers:
    """The changes of endpoints that wait to be served, by Service."""

    def __init__(self, *, started: float) -> None:
        """`started` is Unix time. Earlier changes say nothing about this program, and do not
        count."""
        self._started = started
        self._waiting: dict[ObjectName, set[Trigger]] = {}

    def applied(self, before: EndpointSlice | None, after: EndpointSlice) -> None:
        """Note that a slice was added or changed. If its endpoints and ports stayed the same, its
        time is that of an earlier change, and does not count."""
        if before is not None and _content(before) == _content(after):
            return
        trigger = _trigger(after)
        if trigger is not None and after.service is not None and trigger.wall > self._started:
            self._waiting.setdefault(after.service, set()).add(trigger)

    def removed(self, before: EndpointSlice | None) -> None:
        """Note that a slice is gone. All changes that wait for its Service are forgotten, as in
        kube-proxy: the time of the removal is not known, and one sync serves them all."""
        if before is not None and before.service is not None:
            self._waiting.pop(before.service, None)

    def take(self) -> list[Trigger]:
        """Return all changes that wait, and wait for none of them: a sync begins that serves them.
        Changes of one Service at the same time are returned once."""
        taken = [trigger for waiting in self._waiting.values() for trigger in waiting]
        self._waiting.clear()
        return taken


def _content(each: EndpointSlice) -> tuple[object, ...]:
    return each.service, each.endpoints, each.ports


def _trigger(each: EndpointSlice) -> Trigger | None:
    text = (each.metadata.annotations or {}).get(TRIGGER_TIME)
    family = next((known for known in FAMILIES if known == each.address_type), None)
    if text is None or family is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return Trigger(family, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
