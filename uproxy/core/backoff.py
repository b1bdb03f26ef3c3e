"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off; a value, so what counts the attempts is its user's."""

    initial: float
    """Seconds before the second attempt."""
    maximum: float
    """Seconds that no delay exceeds, jitter included."""
    factor: float = 2.0
    """By which each delay exceeds the one before."""
    jitter: float = 0.0
    """Share of a delay, 0 to 1, that randomness may take away from it, so that many who failed
    together do not all come back together."""

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum:
            raise ValueError("a back-off needs 0 < initial <= maximum")
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("a back-off needs factor >= 1 and jitter from 0 to 1")

    def delay(self, attempt: int, random: float = 0.0) -> float:
        """Seconds to wait after `attempt` failures in a row (1 after the first one).

        `random` is uniform in [0, 1). An attempt below 1 counts as the first.
        """
        longest = self.initial
        # Not initial * factor ** attempt: that overflows after about a thousand attempts.
        for _ in range(attempt - 1):
            longest *= self.factor
            if longest >= self.maximum or self.factor == 1:
                break
        return min(longest, self.maximum) * (1 - self.jitter * random)
