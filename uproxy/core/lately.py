"""What was seen a while ago still counts: a file that is being rewritten, a route that a renewed
lease takes away for a second, and DNS servers that give another part of their answer each time."""

from __future__ import annotations

from collections.abc import Iterable


class Lately:
    """Times are seconds of a monotonic clock."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._seen: dict[str, float] = {}

    def see(self, items: Iterable[str], now: float) -> None:
        """All that there is at this moment."""
        self._seen.update(dict.fromkeys(items, now))
        for item in [each for each, at in self._seen.items() if now - at > self._keep]:
            del self._seen[item]

    @property
    def items(self) -> frozenset[str]:
        """All that there was when it was last looked, and not long before."""
        return frozenset(self._seen)
