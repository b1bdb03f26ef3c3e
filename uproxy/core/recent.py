"""Items that were seen a while ago still count: a file may be being rewritten, a renewed lease
takes a route away for a second, and DNS servers give another part of their answer each time."""

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
