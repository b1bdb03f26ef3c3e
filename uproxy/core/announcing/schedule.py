"""When announcements are sent for an address that this node holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from math import inf
from typing import Final

INTERVAL: Final = 1.1
"""Seconds between two announcements. Linux ignores one that comes within 1 s of the last change
(net.ipv4.neigh.*.locktime), so MetalLB has chosen the same."""
ROUNDS: Final = 5
"""Announcements after each reason to send some: for 5 s, as MetalLB sends them."""
PER_SECOND: Final = 100
"""Addresses announced for in a second while in doubt. Up to 110 are all announced every 1.1 s;
with more, it takes longer, so that an outage of the API server does not flood the network."""
BURST: Final = 250
"""Addresses announced for at a time."""
PAUSE: Final = 0.1
"""Seconds between two bursts."""


class Schedule:
    """When announcements are due, per address."""

    def __init__(self, repeat: float = 0.0) -> None:
        self._repeat = repeat or inf
        self._left: dict[str, int] = {}
        """Announcements that are still to be sent, by address."""
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._answered: dict[str, float] = {}
        """When another machine was contradicted last, by address."""
        self._doubtful = False
        self._resume_at = -inf

    def keep(self, addresses: Collection[str], now: float) -> None:
        """These are announced from now on, and no others. New ones are announced at once."""
        for address in [each for each in self._due if each not in addresses]:
            del self._due[address], self._left[address]
            self._answered.pop(address, None)
        self.restart((each for each in addresses if each not in self._due), now)

    def restart(self, addresses: Iterable[str], now: float) -> None:
        """Announce at once, and some times after that."""
        for address in addresses:
            self._left[address] = ROUNDS
            self._set(address, now)

    def contradicted(self, address: str, now: float) -> None:
        """Another machine claims to have an address that is ours: announce it at once, but not more
        than once in a second, since the other machine may do the same."""
        if address in self._due and now >= self._answered.get(address, -inf) + 1.0:
            self._answered[address] = now
            self._left[address] = max(1, self._left.get(address, 0))
            self._set(address, now)

    def doubt(self, doubtful: bool, now: float) -> None:
        """While in doubt, announcements go on for ever, so that a contradiction comes soon. They
        are sent once more after it, as neighbours may have heard another node meanwhile."""
        if doubtful != self._doubtful:
            self._doubtful = doubtful
            self.restart(list(self._due), now)

    def take(self, now: float) -> tuple[str, ...]:
        """The addresses to announce now."""
        if now < self._resume_at:
            return ()
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < BURST:
            at, address = heappop(self._heap)
            if self._due.get(address) == at:
                taken.append(address)
                self._sent(address, now)
        if len(taken) == BURST:
            self._resume_at = now + PAUSE
        return tuple(taken)

    def next_at(self) -> float:
        """When something is to be announced next."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return max(self._heap[0][0], self._resume_at) if self._heap else inf

    def _sent(self, address: str, now: float) -> None:
        self._left[address] = max(0, self._left[address] - 1)
        if self._left[address]:
            self._set(address, now + INTERVAL)
        elif self._doubtful:
            self._set(address, now + max(INTERVAL, len(self._due) / PER_SECOND))
        else:
            self._set(address, now + self._repeat)

    def _set(self, address: str, at: float) -> None:
        self._due[address] = at
        if at < inf:
            heappush(self._heap, (at, address))
