"""Other machines that claim to have an address which this node rightfully announces."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

LASTING: Final = 5.0
"""Seconds that a contradiction has to last before it is reported. A node that has lost an address
and does not know it yet contradicts for less time."""
REMEMBERED: Final = 60.0
"""Seconds after which a contradiction that is not heard any more is no longer reported."""


class Contradictions:
    """For each address, which machine was heard, and when."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[str, float, float]] = {}
        """The machine, when it was heard first and last."""

    def heard(self, address: str, mac: str, now: float) -> bool:
        """Note a contradiction. Returns whether it is to be reported from now on. Further ones of
        the same machine change nothing, as thousands may come in a second."""
        before = self._heard.get(address)
        if before is None or before[0] != mac or now > before[2] + REMEMBERED:
            self._heard[address] = (mac, now, now)
            return False
        self._heard[address] = (mac, before[1], now)
        return before[2] < before[1] + LASTING <= now

    def current(self, now: float) -> Mapping[str, str]:
        """The machine that contradicts, by address."""
        heard = self._heard = {a: e for a, e in self._heard.items() if now <= e[2] + REMEMBERED}
        return {a: mac for a, (mac, first, last) in heard.items() if last >= first + LASTING}

    def changes_at(self) -> float:
        """When one of them may cease to be reported."""
        return min((last + REMEMBERED for _, _, last in self._heard.values()), default=inf)
