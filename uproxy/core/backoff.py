"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off. It is a value; its user counts the attempts."""

    initial: float
    """Seconds before the second attempt."""
    maximum: float
    """The longest delay in seconds, jitter included."""
    factor: float = 2.0
    """By which each delay is multiplied to give the next one."""
    jitter: float = 0.0
    """The fraction of a delay, from 0 to 1, by which chance may shorten it, so that not all of
    those that have failed together try again together."""

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum:
            raise ValueError("a back-off needs 0 < initial <= maximum")
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("a back-off needs factor >= 1 and jitter from 0 to 1")

    def delay(self, attempt: int, random: float = 0.0) -> float:
        """Seconds to wait after `attempt` failures in a row.

        `random` is uniform in [0, 1). An `attempt` below 1 counts as 1.
        """
        longest = self.initial
        # initial * factor ** attempt would overflow after about a thousand attempts.
        for _ in range(attempt - 1):
            longest *= self.factor
            if longest >= self.maximum or self.factor == 1:
                break
        return min(longest, self.maximum) * (1 - self.jitter * random)
