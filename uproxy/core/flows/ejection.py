"""Which backends get no new flows for a while, because attempts to reach them have failed.

This is what Envoy calls passive health checking, or outlier detection. The constants, and how they
compare with Envoy's, are in docs/decisions/0023-setting-backends-aside.md.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from uproxy.core.backoff import Backoff
from uproxy.core.route import Backend

FAILURES: Final = 3
"""Failed attempts in a row after which a backend is set aside. One lost SYN, or a pod that restarts
its server, costs only the flow that meets it, and that one is dialed elsewhere."""

SET_ASIDE: Final = Backoff(initial=1.0, maximum=30.0)
"""How long it then gets no new flows, for each time that this has happened without a success in
between: long enough that not every client loses time on a dead pod."""

REMEMBERED: Final = 300.0
"""Seconds after its last failure until a backend is treated like any other. A backend of a UDP
protocol without replies never shows that it is back."""


class Ejections:
    """The backends of one Service port that have failed and not answered since. Times are seconds
    of a monotonic clock."""

    __slots__ = ("streaks", "until")

    def __init__(self) -> None:
        self.streaks: dict[Backend, _Streak] = {}
        """Of backends that have failed and not answered since. Looked at for each flow."""
        self.until = float("-inf")
        """When the last backend that is set aside comes back."""

    def aside(self, now: float) -> set[Backend]:
        """Those that get no new flows now."""
        return {backend for backend, streak in self.streaks.items() if now < streak.until}

    def until_of(self, backend: Backend) -> float:
        """When a backend comes back, or has come back; 0: it was not set aside."""
        streak = self.streaks.get(backend)
        return 0.0 if streak is None else streak.until

    def failed(self, backend: Backend, backends: Set[Backend], now: float) -> bool:
        """Note a failure. Returns whether the backend is set aside for it: after FAILURES of them,
        and after each further one, but never more than half of `backends` at a time, which it
        belongs to. So the last one never is.

        Failures while it is aside do not count, since they are of flows that began before.
        """
        streak = self.streaks.get(backend)
        if streak is None or now - streak.last >= REMEMBERED:
            streak = self.streaks[backend] = _Streak()
        elif now < streak.until:
            return False
        streak.last = now
        streak.failures += 1
        if streak.failures < FAILURES or 2 * len(self.aside(now) & backends) + 2 > len(backends):
            return False
        streak.ejections += 1
        streak.until = now + SET_ASIDE.delay(streak.ejections)
        self.until = max(self.until, streak.until)
        return True

    def succeeded(self, backend: Backend) -> None:
        """A backend has answered: it is one like any other."""
        if self.streaks.pop(backend, None) is not None:
            self._find_end()

    def retain(self, backends: Set[Backend]) -> list[Backend]:
        """Forget all others. If more than half of those that are left are aside, those of them come
        back whose time would be over first; they are returned."""
        for backend in self.streaks.keys() - backends:
            del self.streaks[backend]
        latest_first = sorted(self.streaks, key=lambda each: -self.streaks[each].until)
        back = [each for each in latest_first[len(backends) // 2 :] if self.streaks[each].until]
        for each in back:
            self.streaks[each].until = 0.0
        self._find_end()
        return back

    def _find_end(self) -> None:
        ends = (streak.until for streak in self.streaks.values())
        self.until = max(ends, default=float("-inf"))


class _Streak:
    """Failures in a row of one backend."""

    __slots__ = ("ejections", "failures", "last", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.ejections = 0
        """How often it was set aside for them."""
        self.last = 0.0
        """When it last failed while it was not set aside."""
        self.until = 0.0
