"""When to send the next request to an API server that cannot be reached, or that refuses requests.
It is decided for all resources together.

A server that starts first refuses connections, then forbids everything until it has read its roles,
then answers. The resources ask one after the other, so that the server is asked often, but by few;
as soon as one of them gets an answer, all others ask too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """Seconds between two requests, of whatever resource."""

    first: float = 1.0
    unreachable: float = 3.0
    """The longest pause while no server answers, since waiting longer spares nothing. With the
    jitter, a thousand nodes come over three seconds, and a node waits for one second on average."""
    refusing: float = 30.0
    """The longest pause while the server answers, and refuses."""
    share: float = 0.5
    """The pause as a share of the time since the trouble began. The longer an outage has lasted,
    the less it matters if it ends a little later."""
    jitter: float = 2 / 3
    """The share of each pause, 0 to 1, that chance may take away."""
    together: float = 0.5
    """When one resource is answered, the others follow within this time."""


class _Waiting(NamedTuple):
    at: float
    not_before: float
    """The wait that the server has asked for ends then."""


class SharedRetrySchedule:
    """Pure: the time is an argument, and `random` is uniform in [0, 1)."""

    def __init__(self, random: Callable[[], float], spacing: Spacing) -> None:
        self.outages: int = 0
        """How many outages have ended. What was learned about the server before the latest one need
        not hold any longer."""
        self._random = random
        self._spacing = spacing
        self._since: dict[bool, float] = {}
        """Since when there is no server (False), or one that refuses (True)."""
        self._last = 0.0
        """The latest time that was given to a resource."""
        self._waiting: dict[str, _Waiting] = {}

    def failed(
        self, resource: str, now: float, *, refused: bool, alone: bool = False, wait: float = 0.0
    ) -> None:
        """A request for this resource has failed.

        `refused`: by a server that is there. `alone`: other resources are being answered, so the
        fault may well be this resource's. `wait`: how long the server asks this client to wait.
        """
        if not refused:
            self._since.pop(True, None)
        since = self._since.setdefault(refused, now)
        spacing = self._spacing
        longest = spacing.refusing if refused or alone else spacing.unreachable
        longest = min(max(spacing.first, (now - since) * spacing.share), longest)
        # Counted from the latest time that was given, not from now: so one resource asks at a time.
        at = max(now, self._last) + longest * (1 - spacing.jitter * self._random())
        self._last = at
        not_before = now + wait * (1 + 0.25 * self._random())
        self._waiting[resource] = _Waiting(max(at, not_before), not_before)

    def succeeded(self, resource: str, now: float) -> None:
        """This resource was answered. The resources that wait may ask soon, though not all at the
        same moment."""
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
        """When this resource may ask; a time in the past if it need not wait."""
        waiting = self._waiting.get(resource)
        return waiting.at if waiting is not None else 0.0


class RetryTimer:
    """Waits until the times that SharedRetrySchedule decides."""

    def __init__(
        self,
        random: Callable[[], float],
        spacing: Spacing,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: by default that of the event loop, by which time-outs are measured."""
        self._schedule: Final = SharedRetrySchedule(random, spacing)
        self._now = clock if clock is not None else _now
        self._changed = asyncio.Event()

    @property
    def outages(self) -> int:
        return self._schedule.outages

    def failed(
        self, resource: str, *, refused: bool, alone: bool = False, wait: float = 0.0
    ) -> None:
        """Like SharedRetrySchedule.failed, at the present time."""
        self._schedule.failed(resource, self._now(), refused=refused, alone=alone, wait=wait)

    def succeeded(self, resource: str) -> None:
        """Like SharedRetrySchedule.succeeded, at the present time."""
        before = self._schedule.outages
        self._schedule.succeeded(resource, self._now())
        if self._schedule.outages != before:
            # A new Event for those that begin to wait from now on; the old one stays set.
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
