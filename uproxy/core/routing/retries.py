"""Frontends that could not be opened or resumed, and when each of them is tried again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import NamedTuple

from uproxy.core.backoff import Backoff
from uproxy.core.route import Frontend


class Failure(NamedTuple):
    """Why a frontend could not be opened or resumed."""

    reason: str
    absent: bool
    """Whether its address is not on this node, which is no fault and which retrying does not
    change."""


class _Retry(NamedTuple):
    failure: Failure
    attempts: int
    at: float


class Retries:
    """The failed frontends, each with its own back-off. Times are seconds of a monotonic clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._retries: dict[Frontend, _Retry] = {}

    @property
    def failures(self) -> dict[Frontend, Failure]:
        """Why each of them failed last."""
        return {frontend: retry.failure for frontend, retry in self._retries.items()}

    def next_due(self) -> float | None:
        """When the next attempt is due; None if no frontend has failed."""
        return min((retry.at for retry in self._retries.values()), default=None)

    def due(self, now: float) -> set[Frontend]:
        """Frontends to be tried again now."""
        return {each for each, retry in self._retries.items() if retry.at <= now}

    def not_due(self, now: float) -> set[Frontend]:
        """Frontends that have to wait longer."""
        return {each for each, retry in self._retries.items() if retry.at > now}

    def make_due(self, addresses: Container[str] | None = None) -> bool:
        """Make frontends due whose address was not on this node: those at `addresses`, or all.
        Returns whether there are any."""
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
        """Note that these have failed, perhaps again. Returns those that had not, or for another
        reason. `random` gives numbers in [0, 1)."""
        new = {}
        for frontend, failure in failures.items():
            before = self._retries.get(frontend)
            attempts = before.attempts + 1 if before is not None else 1
            at = now + self._backoff.delay(attempts, random())
            self._retries[frontend] = _Retry(failure, attempts, at)
            if before is None or before.failure != failure:
                new[frontend] = failure
        return new

    def opened(self, frontends: Iterable[Frontend]) -> list[Frontend]:
        """Note that these are open. Returns those that had failed before, sorted."""
        recovered = sorted(self._retries.keys() & set(frontends))
        for frontend in recovered:
            del self._retries[frontend]
        return recovered

    def keep(self, wanted: Collection[Frontend]) -> None:
        """Forget the frontends that are no longer wanted."""
        # A difference of sets would walk all routes for each change.
        for frontend in [each for each in self._retries if each not in wanted]:
            del self._retries[frontend]
