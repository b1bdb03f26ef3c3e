"""When something that has failed is tried again, after a longer wait each time."""

from __future__ import annotations

from uproxy.core.backoff import Backoff


class RetrySchedule:
    """Counts the failures in a row of one thing, and says when to try it again.

    Times are seconds of a monotonic clock; `random` is uniform in [0, 1).
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._attempts = 0
        self.at: float | None = None
        """The time of the next attempt; None if the last one succeeded, or none was made."""

    def failed(self, now: float, random: float) -> float:
        """Note another failure. Returns the seconds to wait before the next attempt."""
        self._attempts += 1
        delay = self._backoff.delay(self._attempts, random)
        self.at = now + delay
        return delay

    def succeeded(self) -> None:
        """Start over: the next failure counts as the first one."""
        self._attempts, self.at = 0, None

    def due(self, now: float) -> bool:
        """Whether the next attempt should be made now."""
        return self.at is not None and self.at <= now


def earliest(*times: float | None) -> float | None:
    """The earliest of several times, of which None means never; None if all are None."""
    return min((each for each in times if each is not None), default=None)
