"""Items that count for a while after they were last seen.

A file may just be being rewritten, a renewed lease takes a route away for a second, and a DNS
server may give another part of its answer each time.
"""

from __future__ import annotations

from collections.abc import Iterable


class RecentlySeen:
    """A set of items, each of which stays for `keep` seconds after it was last seen.

    Times are seconds of a monotonic clock.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._seen: dict[str, float] = {}

    def see(self, items: Iterable[str], now: float) -> None:
        """Note the items that exist now, and forget those that have been missing for too long."""
        self._seen.update(dict.fromkeys(items, now))
        for item in [each for each, at in self._seen.items() if now - at > self._keep]:
            del self._seen[item]

    @property
    def items(self) -> frozenset[str]:
        """The items that were seen last, and those that were seen not long before."""
        return frozenset(self._seen)
