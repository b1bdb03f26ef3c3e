"""When something that has failed is tried again."""

from __future__ import annotations

from uproxy.core.backoff import Backoff


class Again:
    """Times are seconds of a monotonic clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._attempts = 0
        self.at: float | None = None
        """When to try again; None if there is nothing to try again."""

    def failed(self, now: float, random: float) -> float:
        """Note another failure; returns how long to wait before the next attempt."""
        self._attempts += 1
        delay = self._backoff.delay(self._attempts, random)
        self.at = now + delay
        return delay

    def succeeded(self) -> None:
        self._attempts, self.at = 0, None

    def due(self, now: float) -> bool:
        return self.at is not None and self.at <= now


def soonest(*times: float | None) -> float | None:
    """The earliest of some moments; None if there is none."""
    return min((each for each in times if each is not None), default=None)
