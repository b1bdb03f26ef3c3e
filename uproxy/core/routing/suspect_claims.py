"""Claims of addresses that may have cut this node off from the API server.

When the API server stops answering right after an address was claimed, the claim may be the cause,
whatever was known about the address. The address is released, and claimed again later.

Addresses that are claimed while the API server is unreachable anyway, from the last-known state,
are cleared of suspicion by its first answer. As long as none comes, they are released for a moment
from time to time, to find out whether they are the cause.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from uproxy.core.backoff import Backoff

PERIOD: Final = 10.0
"""Seconds after which a claim has nothing to do with the loss of the API server."""
_RETRY: Final = Backoff(initial=30.0, maximum=3600.0)
_APART: Final = PERIOD + 5.0
_SUSPECTED: Final = (
    f"suspected: the API server stopped answering within {PERIOD:g} s of its last claim"
)
_TRIAL: Final = 15.0
"""Seconds without those claims: enough to connect, and to hear."""
_TRIALS: Final = Backoff(initial=30.0, maximum=3600.0, factor=4.0)
"""Between trials. The first one comes soon, as most starts have a server at hand."""
_TRIED: Final = (
    f"released for {_TRIAL:g} s, to test whether it cuts this node off from the API server"
)


class SuspectClaims:
    """Times are seconds of a monotonic clock."""

    def __init__(self, retry: Backoff = _RETRY) -> None:
        self._retry = retry
        self._fresh: dict[str, float] = {}
        """When each was claimed."""
        self._held_back: dict[str, float] = {}
        """Until when each is not to be claimed."""
        self._losses: dict[str, int] = {}
        """How often the API server was lost after a claim, in a row."""
        self._blind: set[str] = set()
        """Claimed while the API server was away, which it has been since."""
        self._trial_at = 0.0
        self._trials = 0
        self._tried: dict[str, float] = {}
        """Until when each is released for a trial."""

    @property
    def held_back(self) -> Mapping[str, str]:
        """Addresses that must not be claimed now, with the reason, to complete "X is ..."."""
        return dict.fromkeys(self._tried, _TRIED) | dict.fromkeys(self._held_back, _SUSPECTED)

    @property
    def is_blind(self) -> bool:
        """Whether it matters that the API server is heard."""
        return bool(self._blind)

    def claimed_blindly(self, addresses: Collection[str], now: float) -> None:
        """These have just been claimed, while the API server is away."""
        if not self._blind:
            self._trial_at = now + _TRIALS.delay(self._trials + 1)
        self._blind.update(addresses)

    def heard(self) -> None:
        """The API server answers: none of these is in its way."""
        self._blind.clear()
        self._trials = 0

    def claimed(self, addresses: Collection[str], now: float) -> None:
        """These have just been claimed, while the API server answered."""
        self._fresh |= dict.fromkeys(addresses, now)

    def is_fresh(self, now: float) -> bool:
        """Whether the API server has to be watched."""
        return any(now - at <= PERIOD for at in self._fresh.values())

    def lost(self, now: float) -> Collection[str]:
        """The API server does not answer; returns those that have to be released."""
        suspects = sorted(address for address, at in self._fresh.items() if now - at <= PERIOD)
        self._fresh.clear()
        if len(suspects) == 1:
            losses = self._losses[suspects[0]] = self._losses.get(suspects[0], 0) + 1
            self._held_back[suspects[0]] = now + self._retry.delay(losses)
            return suspects
        # The guilty one is found by halves: one is tried when the other one has passed.
        at = now + self._retry.delay(1)
        middle = len(suspects) // 2
        self._held_back |= dict.fromkeys(suspects[:middle], at)
        self._held_back |= dict.fromkeys(suspects[middle:], at + _APART)
        return suspects

    def settle(self, now: float) -> bool:
        """The API server answers, or nothing is fresh: whether `held_back` has changed."""
        for address in [each for each, at in self._fresh.items() if now - at > PERIOD]:
            del self._fresh[address]
            self._losses.pop(address, None)
        before = self.held_back
        self._held_back = {each: until for each, until in self._held_back.items() if until > now}
        self._tried = {each: until for each, until in self._tried.items() if until > now}
        if self._blind and self._trial_at <= now:
            self._tried |= dict.fromkeys(self._blind, now + _TRIAL)
            self._blind.clear()
            self._trials += 1
        return self.held_back != before

    def next_try(self) -> float | None:
        """When something has to be released for a trial, or may be claimed again."""
        times = [*self._held_back.values(), *self._tried.values()]
        return min((*times, self._trial_at) if self._blind else times, default=None)
