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
"""Seconds after a claim within which a loss of the API server is blamed on it."""
_RETRY: Final = Backoff(initial=30.0, maximum=3600.0)
_APART: Final = PERIOD + 5.0
_SUSPECTED: Final = (
    f"suspected of cutting this node off from the API server, which stopped answering within "
    f"{PERIOD:g} s of the claim"
)
_TRIAL: Final = 15.0
"""Seconds without those claims: long enough to connect to the API server and get an answer."""
_TRIALS: Final = Backoff(initial=30.0, maximum=3600.0, factor=4.0)
"""Between trials. The first one comes soon, since most starts have a server within reach."""
_TRIED: Final = (
    f"released for {_TRIAL:g} s, to test whether it cuts this node off from the API server"
)


class SuspectClaims:
    """Which addresses must not be claimed for now. Times are seconds of a monotonic clock.

    A claim is recent for 10 s. If the API server is lost then, the address is suspected and held
    back. A claim that was made while the server was unreachable is untested until the server
    answers; meanwhile trials release it.
    """

    def __init__(self, retry: Backoff = _RETRY) -> None:
        self._retry = retry
        self._recent: dict[str, float] = {}
        """When each address was claimed."""
        self._held_back: dict[str, float] = {}
        """Until when each suspected address must not be claimed."""
        self._losses: dict[str, int] = {}
        """How often in a row the API server was lost after each address was claimed."""
        self._untested: set[str] = set()
        """Addresses that were claimed while the API server was unreachable, as it still is."""
        self._trial_at = 0.0
        self._trials = 0
        self._tried: dict[str, float] = {}
        """Until when each address is released for a trial."""

    @property
    def held_back(self) -> Mapping[str, str]:
        """Addresses that must not be claimed now, each with a reason that completes "X is ..."."""
        return dict.fromkeys(self._tried, _TRIED) | dict.fromkeys(self._held_back, _SUSPECTED)

    @property
    def has_untested_claims(self) -> bool:
        """Whether an answer of the API server would clear any claim."""
        return bool(self._untested)

    def claimed_while_unreachable(self, addresses: Collection[str], now: float) -> None:
        """Note that these were just claimed, while the API server is unreachable."""
        if not self._untested:
            self._trial_at = now + _TRIALS.delay(self._trials + 1)
        self._untested.update(addresses)

    def server_answered(self) -> None:
        """Note that the API server answers, so that none of the untested claims cuts it off."""
        self._untested.clear()
        self._trials = 0

    def claimed(self, addresses: Collection[str], now: float) -> None:
        """Note that these were just claimed, while the API server answered."""
        self._recent |= dict.fromkeys(addresses, now)

    def has_recent_claims(self, now: float) -> bool:
        """Whether the API server has to be asked now, because a claim is recent."""
        return any(now - at <= PERIOD for at in self._recent.values())

    def server_lost(self, now: float) -> Collection[str]:
        """Note that the API server does not answer. Returns the addresses to be released."""
        suspects = sorted(address for address, at in self._recent.items() if now - at <= PERIOD)
        self._recent.clear()
        if len(suspects) == 1:
            losses = self._losses[suspects[0]] = self._losses.get(suspects[0], 0) + 1
            self._held_back[suspects[0]] = now + self._retry.delay(losses)
            return suspects
        # The cause is found by halves: the second half is claimed after the first has passed.
        at = now + self._retry.delay(1)
        middle = len(suspects) // 2
        self._held_back |= dict.fromkeys(suspects[:middle], at)
        self._held_back |= dict.fromkeys(suspects[middle:], at + _APART)
        return suspects

    def update(self, now: float) -> bool:
        """Let time pass, once the API server has answered or no claim is recent. Returns whether
        `held_back` has changed."""
        for address in [each for each, at in self._recent.items() if now - at > PERIOD]:
            del self._recent[address]
            self._losses.pop(address, None)
        before = self.held_back
        self._held_back = {each: until for each, until in self._held_back.items() if until > now}
        self._tried = {each: until for each, until in self._tried.items() if until > now}
        if self._untested and self._trial_at <= now:
            self._tried |= dict.fromkeys(self._untested, now + _TRIAL)
            self._untested.clear()
            self._trials += 1
        return self.held_back != before

    def next_due(self) -> float | None:
        """When an address is to be released for a trial, or may be claimed again; None: never."""
        times = [*self._held_back.values(), *self._tried.values()]
        return min((*times, self._trial_at) if self._untested else times, default=None)
