"""When to ask an API server again that is away, or refuses: decided for all resources at once.

A server that starts first refuses connections, then forbids everything until it has read its roles,
then answers. One resource asks at a time, one after the other, so that the server
is asked often and by few; and as soon as one is answered, all others ask too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from uproxy.sources.kubernetes.mirror import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """Seconds between two requests, of whatever resource."""

    first: float = 1.0
    away: float = 3.0
    """At most, while no server is there: nothing is spared by waiting longer. With the jitter, a
    thousand nodes come over three seconds, and a node waits for one of them on average."""
    refusing: float = 30.0
    """At most, while the server is there and refuses."""
    share: float = 0.5
    """Of the time that it has been so; the longer, the less a little more matters."""
    jitter: float = 2 / 3
    """Share of all that, 0 to 1, that chance takes away."""
    together: float = 0.5
    """When one resource is answered, the others follow within this time."""


class _Waiting(NamedTuple):
    at: float
    not_before: float
    """What the server asked for."""


class RetrySchedule:
    """Pure: the time is an argument, `random` is uniform in [0, 1)."""

    def __init__(self, random: Callable[[], float], spacing: Spacing) -> None:
        self.outages: int = 0
        """How many there have been; what was learned before the latest need not hold any more."""
        self._random = random
        self._spacing = spacing
        self._since: dict[bool, float] = {}
        """Since when there is no server (False), or one that refuses (True)."""
        self._last = 0.0
        """When the latest of them may ask."""
        self._waiting: dict[str, _Waiting] = {}

    def failed(
        self, resource: str, now: float, *, there: bool, alone: bool = False, wait: float = 0.0
    ) -> None:
        """A resource has asked in vain. `there`: a server has refused it; `alone`: others are
        being answered, so it may well be this resource's fault; `wait`: what the server asks for.
        """
        if not there:
            self._since.pop(True, None)
        since = self._since.setdefault(there, now)
        spacing = self._spacing
        longest = spacing.refusing if there or alone else spacing.away
        longest = min(max(spacing.first, (now - since) * spacing.share), longest)
        at = max(now, self._last) + longest * (1 - spacing.jitter * self._random())
        self._last = at
        not_before = now + wait * (1 + 0.25 * self._random())
        self._waiting[resource] = _Waiting(max(at, not_before), not_before)

    def succeeded(self, resource: str, now: float) -> None:
        """A resource was answered: those that wait may ask at once, though not all at a time."""
        self._waiting.pop(resource, None)
        if not self._since:
            return
        self._since.clear()
        self.outages += 1
        self._last = now
        for each, (at, not_before) in self._waiting.items():
            soon = now + self._spacing.together * self._random()
            self._waiting[each] = _Waiting(max(min(at, soon), not_before), not_before)

    def due(self, resource: str) -> float:
        """When a resource may ask; in the past if it need not wait."""
        waiting = self._waiting.get(resource)
        return waiting.at if waiting is not None else 0.0


class FailureCounts:
    """Of one resource, in a row: of lists and watches that had begun, or were too late to."""

    def __init__(self) -> None:
        self._gone = 0
        self._others = 0
        self._outages = 0

    def forgive(self, outages: int, *, lasted: bool) -> None:
        """Forget them after a watch that has lasted, and after a further outage: who answers then
        may well be another server. That a list succeeds is no reason: it may do so again and
        again, and each watch after it fail."""
        if lasted or outages != self._outages:
            self._gone = self._others = 0
        self._outages = outages

    def count(self, verdict: Verdict) -> int:
        """The number of this one among its like. That a server does not stream lists is none."""
        if verdict.no_watch_list:
            return 0
        if verdict.gone:
            self._gone += 1
            return self._gone
        self._others += 1
        return self._others


class RetryTimer:
    """Waits for what RetrySchedule decides."""

    def __init__(
        self,
        random: Callable[[], float],
        spacing: Spacing,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: by default that of the event loop, which time-outs go by."""
        self._schedule: Final = RetrySchedule(random, spacing)
        self._now = clock if clock is not None else _now
        self._changed = asyncio.Event()

    @property
    def outages(self) -> int:
        return self._schedule.outages

    def failed(self, resource: str, *, there: bool, alone: bool = False, wait: float = 0.0) -> None:
        """As with RetrySchedule, now."""
        self._schedule.failed(resource, self._now(), there=there, alone=alone, wait=wait)

    def succeeded(self, resource: str) -> None:
        """As with RetrySchedule, now."""
        before = self._schedule.outages
        self._schedule.succeeded(resource, self._now())
        if self._schedule.outages != before:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def wait(self, resource: str) -> None:
        """Wait until this resource may ask."""
        while (left := self._schedule.due(resource) - self._now()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue


def _now() -> float:
    return asyncio.get_running_loop().time()
