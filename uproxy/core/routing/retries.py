"""Frontends that could not be opened or resumed, and when each is tried again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import NamedTuple

from uproxy.core.backoff import Backoff
from uproxy.core.route import Frontend


class Failure(NamedTuple):
    """Why a frontend could not be opened."""

    reason: str
    absent: bool
    """Its address is not on this node: no fault of ours, and nothing that a retry cures."""


class _Retry(NamedTuple):
    failure: Failure
    attempts: int
    at: float


class Retries:
    """Times are seconds of a monotonic clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._retries: dict[Frontend, _Retry] = {}

    @property
    def failures(self) -> dict[Frontend, Failure]:
        return {frontend: retry.failure for frontend, retry in self._retries.items()}

    def next_due(self) -> float | None:
        """When the next one is due; None: there is none."""
        return min((retry.at for retry in self._retries.values()), default=None)

    def due(self, now: float) -> set[Frontend]:
        return {each for each, retry in self._retries.items() if retry.at <= now}

    def not_due(self, now: float) -> set[Frontend]:
        return {each for each, retry in self._retries.items() if retry.at > now}

    def make_due(self, addresses: Container[str] | None = None) -> bool:
        """Whatever waits for its address is due now, or for one of these; whether there is any."""
        found = [
            frontend
            for frontend, retry in self._retries.items()
            if retry.failure.absent and (addresses is None or frontend.address in addresses)
        ]
        for frontend in found:
            self._retries[frontend] = self._retries[frontend]._replace(at=0.0)
        return bool(found)

    def failed(
        self, failures: Mapping[Frontend, Failure], now: float, random: Callable[[], float]
    ) -> dict[Frontend, Failure]:
        """These have failed, perhaps again; returns those for which that, or the reason, is new."""
        news = {}
        for frontend, failure in failures.items():
            before = self._retries.get(frontend)
            attempts = before.attempts + 1 if before is not None else 1
            at = now + self._backoff.delay(attempts, random())
            self._retries[frontend] = _Retry(failure, attempts, at)
            if before is None or before.failure != failure:
                news[frontend] = failure
        return news

    def opened(self, frontends: Iterable[Frontend]) -> list[Frontend]:
        """These are open; returns those that had failed before."""
        recovered = sorted(self._retries.keys() & set(frontends))
        for frontend in recovered:
            del self._retries[frontend]
        return recovered

    def keep(self, wanted: Collection[Frontend]) -> None:
        """Forget what is not wanted any more."""
        # Not as a difference of sets, which would walk all routes for each change.
        for frontend in [each for each in self._retries if each not in wanted]:
            del self._retries[frontend]
