"""How long a change of endpoints takes from the cluster to this node's data plane.

The EndpointSlice controller notes on each slice when the change happened that made it write the
slice. kube-proxy's rules (endpointschangetracker.go) for when that counts are followed here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import EndpointSlice, ObjectName
from uproxy.core.ip import Family
from uproxy.core.routing.topology import FAMILIES

TRIGGER_TIME: Final = "endpoints.kubernetes.io/last-change-trigger-time"
"""Annotation of an EndpointSlice: RFC 3339 with up to nine digits of fraction."""


class Trigger(NamedTuple):
    """When endpoints of a family changed in the cluster."""

    family: Family
    wall: float
    """Seconds since the Unix epoch."""


class PendingTriggers:
    """Remembers since when changes wait to be served."""

    def __init__(self, *, started: float) -> None:
        """`started`: Unix time; what happened earlier says nothing about this program."""
        self._started = started
        self._waiting: dict[ObjectName, set[Trigger]] = {}

    def applied(self, before: EndpointSlice | None, after: EndpointSlice) -> None:
        """A slice was added or changed. One whose endpoints and ports stay the same changes
        nothing here, and its time is an old one."""
        if before is not None and _content(before) == _content(after):
            return
        trigger = _trigger(after)
        if trigger is not None and after.service is not None and trigger.wall > self._started:
            self._waiting.setdefault(after.service, set()).add(trigger)

    def removed(self, before: EndpointSlice | None) -> None:
        """A slice is gone. What else waits for its Service is forgotten, as in kube-proxy: nobody
        knows the time of the removal, and the sync that serves it serves them all."""
        if before is not None and before.service is not None:
            self._waiting.pop(before.service, None)

    def take(self) -> list[Trigger]:
        """All that waits, as a sync begins that will serve it: once for each Service."""
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
