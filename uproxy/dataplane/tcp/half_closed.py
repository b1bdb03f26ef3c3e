"""Flows of which one stream has ended long ago, and the other has not."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from uproxy.dataplane.reactor import Reactor

HALF_CLOSED: Final = 0.05
"""Seconds after which a flow counts as half-closed for long; twice that at most."""


class Tiring(Protocol):
    """One socket of a flow."""

    closed: bool

    def tired(self) -> None:
        """Called when its stream has ended long ago, and the other has not."""


class HalfClosed:
    """Those whose stream has ended, and who wait for the other to end as well. Most wait for a
    moment only, so there is no timer for each."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._timer: asyncio.TimerHandle | None = None
        self._recent: list[Tiring] = []
        self._older: list[Tiring] = []

    def add(self, side: Tiring) -> None:
        self._recent.append(side)
        if self._timer is None:
            self._timer = self._reactor.later(HALF_CLOSED, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._recent.clear()
        self._older.clear()

    def _look(self) -> None:
        self._timer = None
        older, self._older, self._recent = self._older, self._recent, []
        if self._older:
            self._timer = self._reactor.later(HALF_CLOSED, self._look)
        for side in older:
            if not side.closed:
                self._reactor.guard(side.tired)
