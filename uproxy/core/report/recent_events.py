"""What happened lately, as Events: also where there is no cluster to which they could be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from uproxy.core.report.problems import Event, Problems, Reference, new_events

KEPT: Final = 100
"""Events."""


class EventView(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An Event and its time."""

    time: float
    """Unix seconds."""
    type: str
    """"Normal" or "Warning"."""
    reason: str
    regarding: str
    """"Service NAMESPACE/NAME" or "Node NAME"."""
    note: str


class RecentEvents:
    """The last `KEPT` Events, and those that follow from what is wrong at one moment and at the
    next."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._events: deque[EventView] = deque(maxlen=KEPT)
        self._known: Problems = {}

    def add(self, events: Iterable[Event], *, wall: float) -> None:
        """These have happened now, in Unix seconds."""
        for each in events:
            regarding = _text(each.regarding)
            view = EventView(wall, each.type, each.reason, regarding, each.note)
            self._events.append(view)

    def compare(
        self, problems: Problems, *, exists: Callable[[Reference], bool], wall: float
    ) -> None:
        """Add what has begun or ended, given everything that is wrong now; see `new_events`."""
        before, self._known = self._known, problems
        self.add(new_events(before, problems, exists=exists, node=self._node), wall=wall)

    def newest_first(self) -> list[EventView]:
        """All that are kept."""
        return list(reversed(self._events))


def _text(regarding: Reference) -> str:
    name = f"{regarding.namespace}/{regarding.name}" if regarding.namespace else regarding.name
    return f"{regarding.kind} {name}"
