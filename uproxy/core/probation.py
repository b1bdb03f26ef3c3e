"""Claims on probation: when the API server is lost right after an address was claimed, that claim
may be why, whatever was known about the address. It is released, and tried again later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from uproxy.core.backoff import Backoff

PERIOD: Final = 10.0
"""Seconds after which a claim has nothing to do with the loss of the API server."""
_RETRY: Final = Backoff(initial=30.0, maximum=3600.0)
_SUSPECTED: Final = (
    f"under suspicion, as the API server was lost within {PERIOD:g} s of its last claim"
)


class Probation:
    """Times are seconds of a monotonic clock."""

    def __init__(self, retry: Backoff = _RETRY) -> None:
        self._retry = retry
        self._fresh: dict[str, float] = {}
        """When each was claimed."""
        self._held_back: dict[str, float] = {}
        """Until when each is not to be claimed."""
        self._losses: dict[str, int] = {}
        """How often the API server was lost after a claim, in a row."""

    @property
    def held_back(self) -> Mapping[str, str]:
        """Addresses that must not be claimed now, with the reason, to complete "X is ..."."""
        return dict.fromkeys(self._held_back, _SUSPECTED)

    def claimed(self, addresses: Collection[str], now: float) -> None:
        """These have just been claimed, while the API server answered."""
        self._fresh |= dict.fromkeys(addresses, now)

    def is_fresh(self, now: float) -> bool:
        """Whether the API server has to be watched."""
        return any(now - at <= PERIOD for at in self._fresh.values())

    def lost(self, now: float) -> Collection[str]:
        """The API server does not answer; returns those that have to be released."""
        suspects = [address for address, at in self._fresh.items() if now - at <= PERIOD]
        self._fresh.clear()
        for address in suspects:
            losses = self._losses[address] = self._losses.get(address, 0) + 1
            self._held_back[address] = now + self._retry.delay(losses)
        return suspects

    def settle(self, now: float) -> bool:
        """The API server answers, or nothing is fresh: whether `held_back` has changed."""
        for address in [each for each, at in self._fresh.items() if now - at > PERIOD]:
            del self._fresh[address]
            self._losses.pop(address, None)
        over = [address for address, until in self._held_back.items() if until <= now]
        for address in over:
            del self._held_back[address]
        return bool(over)

    def next_try(self) -> float | None:
        """When the first one may be claimed again."""
        return min(self._held_back.values(), default=None)
