"""Streams that have ended while the opposite one goes on, and for how long that has been so."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from uproxy.dataplane.reactor import Reactor

HALF_CLOSED: Final = 0.05
"""Seconds after which a flow counts as half-closed for long; twice that at most."""


class HalfClosedDirection(Protocol):
    """A direction whose stream has ended."""

    closed: bool

    def half_closed_for_long(self) -> None:
        """The opposite stream still goes on."""


class HalfCloseTimer:
    """Notifies directions that have been half-closed for long. Most flows are half-closed for only
    a moment, so there is one timer for all of them: what was added before its last run has waited
    for HALF_CLOSED at least."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._timer: asyncio.TimerHandle | None = None
        self._recent: list[HalfClosedDirection] = []
        """Added since the timer ran."""
        self._older: list[HalfClosedDirection] = []

    def add(self, direction: HalfClosedDirection) -> None:
        """Notify this direction later, unless it is closed by then."""
        self._recent.append(direction)
        if self._timer is None:
            self._timer = self._reactor.call_later(HALF_CLOSED, self._expire)

    def close(self) -> None:
        """Notify no direction any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._recent.clear()
        self._older.clear()

    def _expire(self) -> None:
        self._timer = None
        older, self._older, self._recent = self._older, self._recent, []
        if self._older:
            self._timer = self._reactor.call_later(HALF_CLOSED, self._expire)
        for direction in older:
            if not direction.closed:
                self._reactor.guard(direction.half_closed_for_long)
