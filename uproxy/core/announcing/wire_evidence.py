"""What the wire says about addresses whose holder's Lease has expired."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import Final, Literal

ROUND: Final = 0.2
"""Seconds from an answer to the next question. Silence takes as long to be found out."""
VALID: Final = 1.0
"""Seconds for which an answer, or silence, counts."""
SAMPLE: Final = 8
"""Addresses of one node that are asked for. The kernel of a node drops all of them together."""


class WireEvidence:
    """What was asked, and what was answered, per address."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._silent: dict[str, float] = {}

    def answered(self, address: str, now: float) -> None:
        self._answered[address] = now
        self._asked.pop(address, None)

    def silent(self, address: str, now: float) -> None:
        self._silent[address] = now
        self._asked.pop(address, None)

    def ask(self, address: str, now: float) -> bool:
        """Whether to ask for an address now. A question that nothing came of is asked again."""
        last = max(self._answered.get(address, -inf), self._silent.get(address, -inf))
        if now < last + ROUND or now < self._asked.get(address, -inf) + VALID:
            return False
        self._asked[address] = now
        return True

    def next_at(self, address: str) -> float:
        """When to ask for an address again."""
        last = max(self._answered.get(address, -inf), self._silent.get(address, -inf))
        return max(last + ROUND, self._asked.get(address, -inf) + VALID)

    def verdict(
        self, addresses: Collection[str], now: float
    ) -> Literal["answered", "silent", "unknown"]:
        """Whether any of these addresses is answered for; it is silent only if all are."""
        if any(self._answers(each, now) for each in addresses):
            return "answered"
        return "silent" if all(self._is_silent(each, now) for each in addresses) else "unknown"

    def silent_since(self, address: str, since: float) -> bool:
        """Whether an address was asked for and not answered, and nothing was heard after `since`
        that says otherwise."""
        silent = self._silent.get(address, -inf)
        return silent > since and silent >= self._answered.get(address, -inf)

    def answered_since(self, address: str, since: float) -> bool:
        """Whether another machine was heard to have an address."""
        return self._answered.get(address, -inf) >= since

    def keep(self, addresses: Collection[str]) -> None:
        """Forget all other addresses."""
        for each in (self._asked, self._answered, self._silent):
            for address in [a for a in each if a not in addresses]:
                del each[address]

    def _answers(self, address: str, now: float) -> bool:
        answered = self._answered.get(address, -inf)
        return answered > now - VALID and answered > self._silent.get(address, -inf)

    def _is_silent(self, address: str, now: float) -> bool:
        silent = self._silent.get(address, -inf)
        return silent > now - VALID and silent >= self._answered.get(address, -inf)
